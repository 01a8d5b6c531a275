//! What an access token of ours says, and how long it holds.

use std::{sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::issuer::TrustedIssuer;

/// `tokens:` of the configuration.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    pub issuer: String,
    pub audience: String,
    /// Life of an access token; it dies earlier with its session.
    pub access: Duration,
    /// Each with a name of its own.
    pub trusted_issuers: Vec<Arc<TrustedIssuer>>,
}

/// Claims of an access token (RFC 9068, `typ: at+jwt`; CONTRACT 7).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessClaims {
    pub iss: String,
    pub sub: String,
    pub aud: String,
    /// Seconds since 1970.
    pub iat: i64,
    pub exp: i64,
    pub jti: String,
    pub sid: String,
    pub groups: Vec<String>,
    /// The user's token version when it was made.
    pub ver: u64,
}
