//! `tokens:`: what access tokens say and how long they hold, and whose are taken.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    duration,
    trusted_issuers::{RawTrustedIssuer, trusted_issuers},
    web_url,
};
use crate::{
    config::error::{Report, Trail},
    core::{site::Mount, tokens::TokenSettings},
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
    /// Others whose tokens are taken.
    trusted_issuers: Vec<RawTrustedIssuer>,
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
    let issuer = raw.issuer.clone().unwrap_or_else(default_issuer);
    let trusted_issuers = trusted_issuers(report, &at.key("trusted_issuers"), &raw.trusted_issuers, &issuer);
    TokenSettings {
        issuer,
        audience: raw.audience.clone().unwrap_or_else(|| AUDIENCE.to_owned()),
        access: duration(report, &at.key("access"), raw.access.as_deref(), Duration::from_secs(15 * 60), true),
        trusted_issuers,
    }
}
