use std::sync::Arc;

use async_trait::async_trait;

use super::Unavailable;

/// One Ed25519 key (RFC 8037).
pub struct SigningKey {
    pub kid: String,
    pub encoding: jsonwebtoken::EncodingKey,
    pub decoding: jsonwebtoken::DecodingKey,
    /// `x` of the public JWK, base64url without padding.
    pub public_x: String,
}

/// The keys in force: `keys[0]` signs, all verify.
pub struct SigningKeys {
    pub current: SigningKey,
    pub older: Vec<SigningKey>,
}

impl SigningKeys {
    pub fn all(&self) -> impl Iterator<Item = &SigningKey> {
        std::iter::once(&self.current).chain(&self.older)
    }
}

/// Our signing keys, kept encrypted under `storage.key_file`. A missing one is made at the first start.
#[async_trait]
pub trait Keys: Send + Sync {
    /// The keys in memory; never waits.
    fn signing(&self) -> Arc<SigningKeys>;
    /// Reads them again after a change.
    async fn reload(&self) -> Result<(), Unavailable>;
}
