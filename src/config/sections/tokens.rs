//! `tokens:`: what access tokens say and how long they hold.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{duration, web_url};
use crate::{
    config::error::{Report, Trail},
    core::{
        site::Mount,
        tokens::{SigningAlgorithm, TokenSettings},
    },
};

const AUDIENCE: &str = "postern";

/// What access tokens say and how long they hold.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawTokens {
    /// `iss` (default: the portal's origin).
    #[schemars(example = &"https://auth.example.com")]
    issuer: Option<String>,
    /// `aud` (default `postern`).
    #[schemars(example = &"postern")]
    audience: Option<String>,
    /// Life of an access token (default `15m`); it dies earlier with its session.
    #[schemars(example = &"15m")]
    access: Option<String>,
    /// Life of a refresh token that nobody uses (default `7d`); it dies earlier with its session.
    #[schemars(example = &"7d")]
    refresh: Option<String>,
    /// What signs: `EdDSA` (default), `ES256` or `RS256`. Another one than that of the newest key makes a key at the start and at a reload, which
    /// signs some minutes later.
    algorithm: Option<RawAlgorithm>,
}

/// What signs access tokens.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
enum RawAlgorithm {
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
    /// ECDSA on P-256.
    #[serde(rename = "ES256")]
    Es256,
    /// RSA with 2048 bits, for whoever verifies nothing else.
    #[serde(rename = "RS256")]
    Rs256,
}

impl From<RawAlgorithm> for SigningAlgorithm {
    fn from(raw: RawAlgorithm) -> Self {
        match raw {
            RawAlgorithm::EdDsa => Self::EdDsa,
            RawAlgorithm::Es256 => Self::Es256,
            RawAlgorithm::Rs256 => Self::Rs256,
        }
    }
}

pub(in crate::config) fn tokens(report: &mut Report, raw: &RawTokens, mount: &Mount) -> TokenSettings {
    let at = Trail::root().key("tokens");
    if let Some(issuer) = &raw.issuer {
        report.take(&at.key("issuer"), web_url(issuer, "https://auth.example.com"));
    }
    if raw.audience.as_ref().is_some_and(String::is_empty) {
        report.fault(&at.key("audience"), format!("`tokens.audience` is empty; write for example `{AUDIENCE}`"));
    }
    let default_issuer = || match mount {
        Mount::Host { url, .. } => url.origin().ascii_serialization(),
        // Below a path of every host there is no one origin to name.
        Mount::Path(_) => AUDIENCE.to_owned(),
    };
    TokenSettings {
        issuer: raw.issuer.clone().unwrap_or_else(default_issuer),
        audience: raw.audience.clone().unwrap_or_else(|| AUDIENCE.to_owned()),
        access: duration(report, &at.key("access"), raw.access.as_deref(), Duration::from_secs(15 * 60), true),
        refresh: duration(report, &at.key("refresh"), raw.refresh.as_deref(), Duration::from_secs(7 * 86_400), true),
        algorithm: raw.algorithm.map(Into::into).unwrap_or_default(),
    }
}
