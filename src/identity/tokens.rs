//! Issues access tokens (RFC 9068, `typ: at+jwt`; CONTRACT 7). Called at sign-in alone. Whether a token holds is decided in
//! `gate::tokens`; nothing here reads one.

use jsonwebtoken::{Algorithm, Header};
use secrecy::SecretString;

use super::sign_in::random_value;
use crate::{
    core::{
        time::Timestamp,
        tokens::{AccessClaims, TokenSettings},
    },
    ports::{Entropy, LiveSession, SigningKeys},
};

/// A fault of ours: the key in force does not sign.
#[derive(Debug, thiserror::Error)]
#[error("the access token could not be signed: {0}")]
pub struct CannotSign(#[from] jsonwebtoken::errors::Error);

/// A token for the user of `live`, that dies with that session or after `settings.access`.
///
/// # Errors
/// [`CannotSign`] where the signing key is of no use.
pub fn issue(
    keys: &SigningKeys,
    settings: &TokenSettings,
    live: &LiveSession,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<SecretString, CannotSign> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some("at+jwt".to_owned());
    header.kid = Some(keys.current.kid.clone());
    let claims = AccessClaims {
        iss: settings.issuer.clone(),
        sub: live.identity.user.to_string(),
        aud: settings.audience.clone(),
        iat: now.unix_seconds(),
        exp: now.after(settings.access).unix_seconds(),
        jti: random_value(entropy),
        sid: live.session.id.0.clone(),
        groups: live.identity.groups.clone(),
        ver: live.token_version,
    };
    Ok(jsonwebtoken::encode(&header, &claims, &keys.current.encoding)?.into())
}
