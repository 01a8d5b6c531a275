//! Issues access tokens (RFC 9068, `typ: at+jwt`; CONTRACT 7). Called at sign-in and by `refresh`. Whether a token holds is decided in
//! `gate::tokens`; nothing here reads one.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;
use serde::Serialize;

use super::sign_in::random_value;
use crate::{
    core::{
        time::Timestamp,
        tokens::{AccessClaims, TokenSettings, jti_of},
    },
    ports::{CannotSign, Entropy, LiveSession, SigningKeys, Unavailable},
};

/// A fault of ours: there is no token to be had now.
#[derive(Debug, thiserror::Error)]
pub enum CannotIssue {
    #[error("there is no signing key")]
    NoKey,
    #[error(transparent)]
    Sign(#[from] CannotSign),
    #[error("the claims cannot be written: {0}")]
    Claims(#[from] serde_json::Error),
}

impl From<CannotIssue> for Unavailable {
    fn from(error: CannotIssue) -> Self {
        Self { store: "keys", detail: error.to_string() }
    }
}

/// The header; nothing else may be in it (`gate::tokens`).
#[derive(Serialize)]
struct Header<'h> {
    alg: &'static str,
    typ: &'static str,
    kid: &'h str,
}

/// A token for the user of `live`, that dies with that session or after `settings.access`.
///
/// # Errors
/// [`CannotIssue`] where the signing key is of no use.
pub fn issue(
    keys: &SigningKeys,
    settings: &TokenSettings,
    live: &LiveSession,
    now: Timestamp,
    entropy: &dyn Entropy,
) -> Result<SecretString, CannotIssue> {
    let key = keys.signing(now).ok_or(CannotIssue::NoKey)?;
    let claims = AccessClaims {
        iss: settings.issuer.clone(),
        sub: live.identity.user.to_string(),
        aud: settings.audience.clone(),
        iat: now.unix_seconds(),
        exp: now.after(settings.access).unix_seconds(),
        nbf: None,
        jti: jti_of(live.id(), &random_value(entropy)),
        sid: live.id().to_string(),
        groups: live.identity.groups.clone(),
        ver: live.identity.token_version,
    };
    let header = Header { alg: key.algorithm.as_str(), typ: "at+jwt", kid: &key.kid };
    let mut token = format!("{}.{}", encoded(&header)?, encoded(&claims)?);
    let signature = key.signer.sign(token.as_bytes())?;
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature));
    Ok(token.into())
}

fn encoded(part: &impl Serialize) -> Result<String, serde_json::Error> {
    Ok(URL_SAFE_NO_PAD.encode(serde_json::to_vec(part)?))
}
