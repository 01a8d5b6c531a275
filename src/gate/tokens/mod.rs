//! Access tokens of ours (RFC 9068, `typ: at+jwt`): whose a Bearer is, and whether it holds. Issuing is in `identity::tokens`.
//!
//! Stricter than a JWT library has to be: the header may hold `alg`, `typ` and `kid` and nothing else, so that no `jwk`, `jku`, `x5u` or
//! `crit` is ever looked at (RFC 8725 §3; THREATS 45).

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation};
use serde::Deserialize;

use crate::{
    core::{
        time::Timestamp,
        tokens::{AccessClaims, SigningAlgorithm, TokenSettings},
    },
    ports::{Keys, SigningKeys, Unavailable},
};

/// Longest token that is looked at, in bytes: ours stay far below, whatever groups a user has.
pub(super) const LONGEST: usize = 16 * 1024;

/// How far a clock may be behind the one that issued the token, in seconds: both may be nodes of one fleet.
const LEEWAY: i64 = 5;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not a JWT of ours in form")]
    Form,
    #[error("the token's header is not that of our access tokens")]
    Header,
    #[error("the token names a key that is not ours")]
    Key,
    #[error("the token's signature or claims are wrong")]
    Signature,
    #[error("the token is for another audience or from another issuer")]
    Audience,
    #[error("the token is expired or not valid yet")]
    Time,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    typ: String,
    kid: String,
}

#[derive(Deserialize)]
struct Issuer {
    iss: String,
}

/// Whether a Bearer says that it is ours.
#[must_use]
pub fn is_ours(token: &str, issuer: &str) -> bool {
    issuer_of(token).is_some_and(|named| named == issuer)
}

/// Whose a Bearer says that it is: the issuer of a JWT. Verifies nothing; one that is neither ours nor a trusted issuer's belongs to the
/// application and is passed on untouched (CONTRACT 4). What is encrypted, or is longer than any token, says nothing.
#[must_use]
pub fn issuer_of(token: &str) -> Option<String> {
    issuer_in(payload_of(token)?)
}

/// The second of the three parts of a JWT, still encoded.
pub(super) fn payload_of(token: &str) -> Option<&str> {
    if token.len() > LONGEST {
        return None;
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return None;
    };
    Some(payload)
}

/// As [`issuer_of`], of what [`payload_of`] found.
pub(super) fn issuer_in(payload: &str) -> Option<String> {
    Some(decoded::<Issuer>(payload)?.iss)
}

/// The claims of an access token of ours. Whether its session still lives is another question.
///
/// # Errors
/// Why it is refused; for the log alone.
pub fn verify(
    token: &str,
    keys: &SigningKeys,
    settings: &TokenSettings,
    now: Timestamp,
) -> Result<AccessClaims, TokenError> {
    verified_by(token, keys, settings, now).map(|(claims, _)| claims)
}

/// The same with the `kid` of the key that signed it.
fn verified_by(
    token: &str,
    keys: &SigningKeys,
    settings: &TokenSettings,
    now: Timestamp,
) -> Result<(AccessClaims, String), TokenError> {
    if token.len() > LONGEST {
        return Err(TokenError::Form);
    }
    let header: Header = token.split('.').next().and_then(decoded).ok_or(TokenError::Form)?;
    if header.typ != "at+jwt" {
        return Err(TokenError::Header);
    }
    let key = keys.verifying(now).find(|key| key.kid == header.kid).ok_or(TokenError::Key)?;
    // The key says by which algorithm it verifies, never the token (RFC 8725, section 3.1).
    if header.alg != key.algorithm.as_str() {
        return Err(TokenError::Header);
    }
    let claims = jsonwebtoken::decode::<AccessClaims>(token, &key.decoding, &signature_alone(key.algorithm))
        .map_err(|_| TokenError::Signature)?
        .claims;
    if claims.iss != settings.issuer || claims.aud != settings.audience {
        return Err(TokenError::Audience);
    }
    let now = now.unix_seconds();
    // `exp` without leeway: a token never outlives what was promised.
    let begins = claims.nbf.unwrap_or(claims.iat).max(claims.iat);
    if now >= claims.exp || begins > now.saturating_add(LEEWAY) {
        return Err(TokenError::Time);
    }
    Ok((claims, header.kid))
}

/// The same with the `kid`, by keys that hold for certain. A `kid` is made of its key, so that what a key in memory refuses no store would take: it is only asked about a
/// `kid` that memory doesn't know, and for a signature that is good (THREATS 48).
///
/// # Errors
/// Memory is unsure and the store cannot answer.
pub async fn verified(
    token: &str,
    keys: &dyn Keys,
    settings: &TokenSettings,
    now: Timestamp,
) -> Result<Result<(AccessClaims, String), TokenError>, Unavailable> {
    if let Some(keys) = keys.peek() {
        return Ok(verified_by(token, &keys, settings, now));
    }
    match verified_by(token, &keys.signing(), settings, now) {
        Ok(_) | Err(TokenError::Key) => Ok(verified_by(token, &*keys.read().await?, settings, now)),
        Err(error) => Ok(Err(error)),
    }
}

/// Times, issuer and audience are checked above, against our own clock and settings.
fn signature_alone(algorithm: SigningAlgorithm) -> Validation {
    let mut validation = Validation::new(match algorithm {
        SigningAlgorithm::EdDsa => Algorithm::EdDSA,
        SigningAlgorithm::Es256 => Algorithm::ES256,
        SigningAlgorithm::Rs256 => Algorithm::RS256,
    });
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    validation
}

fn decoded<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests;
