//! By what a caller was identified, as far as it must be known to tell later whether that still holds. Made by `gate` with each verdict; the edge keeps it
//! for as long as what it let through is open.
//!
//! Never holds a secret: no token and no password can be told from it.

use std::{fmt, sync::Arc};

use sha2::{Digest as _, Sha256};

use super::{
    issuer::{TrustedIssuer, jwks::KeyPrint},
    session::TokenHash,
    time::Timestamp,
};

/// That nothing was heard of a user, or of a name that is no user's, since the store was asked.
pub trait Watch: Send + Sync {
    /// Whether memory is sure that nothing was; never waits.
    fn is_unchanged(&self) -> bool;
}

impl fmt::Debug for dyn Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch(…)")
    }
}

#[derive(Debug, Clone, Default)]
pub enum Ground {
    /// A cookie that names the session of the identity. Also of whom nobody knows.
    #[default]
    Session,
    /// With the session of the identity.
    AccessToken(Arc<OwnToken>),
    ApiToken(TokenHash),
    /// With each request (Basic).
    Password {
        watch: Arc<dyn Watch>,
        stamp: Stamp,
    },
    /// A JWT of a trusted issuer. `until`: its `exp`, and the clock skew that the issuer is allowed. `name`: that of no local user; `None`: not known
    /// any more.
    Foreign {
        /// As it was configured then.
        issuer: Arc<TrustedIssuer>,
        /// Of the key that had signed it.
        key: Arc<KeyPrint>,
        until: Timestamp,
        name: Option<Arc<dyn Watch>>,
    },
}

/// An access token of ours, without what makes it one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OwnToken {
    pub jti: String,
    /// Of the key that signed it.
    pub kid: String,
    /// The user's token version when it was issued.
    pub version: u64,
    pub until: Timestamp,
}

/// Another one as soon as a user's password or token version is another.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Stamp([u8; 32]);

impl Stamp {
    /// `stored`: the hash of the password as stored.
    #[must_use]
    pub fn of(token_version: u64, stored: &str) -> Self {
        let digest = Sha256::new().chain_update(token_version.to_le_bytes()).chain_update(stored);
        Self(digest.finalize().into())
    }
}

impl fmt::Debug for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stamp(…)")
    }
}

impl Ground {
    /// What the store said last is watched from now on.
    pub fn renew(&mut self, newer: Option<Arc<dyn Watch>>) {
        match self {
            Self::Password { watch, .. } => {
                if let Some(newer) = newer {
                    *watch = newer;
                }
            }
            Self::Foreign { name, .. } => *name = newer,
            Self::Session | Self::AccessToken(_) | Self::ApiToken(_) => {}
        }
    }
}
