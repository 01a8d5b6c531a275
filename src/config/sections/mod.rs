//! The sections of the configuration: raw values as serde reads them, and the way to typed ones. One file a section, each
//! with its raw types, so that the JSON Schema and the checks stand side by side. Called by `config::load`.
//!
//! A section reports every fault and hands back what it could make; `load` throws the result away where anything was wrong.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{
    error::{Report, Trail},
    quantity,
};
use crate::core::target::EncodedSlashes;

pub(super) mod connections;
pub(super) mod geo;
pub(super) mod headers;
pub(super) mod log;
pub(super) mod notifier;
pub(super) mod portal;
pub(super) mod regulation;
pub(super) mod routes;
pub(super) mod server;
pub(super) mod session;
pub(super) mod storage;
pub(super) mod tokens;
pub(super) mod trusted_issuers;
pub(super) mod upstreams;
pub(super) mod users;

/// Configuration of Postern. Every key has a safe default; unknown keys are refused; any value may be `${ENV_NAME}`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "postern.yaml")]
pub(super) struct Raw {
    pub(super) server: server::RawServer,
    pub(super) portal: portal::RawPortal,
    pub(super) session: session::RawSession,
    pub(super) storage: storage::RawStorage,
    pub(super) users: users::RawUsers,
    pub(super) tokens: tokens::RawTokens,
    /// Applications, by name.
    pub(super) upstreams: BTreeMap<String, upstreams::RawUpstream>,
    /// Which request goes where: most specific host, then longest prefix of whole segments.
    pub(super) routes: Vec<routes::RawRoute>,
    /// Folder of the rules (default `policies/`).
    #[schemars(example = &"policies/")]
    pub(super) policies: Option<String>,
    /// What a `%2F` or `%5C` in a path means (default `reject`: 400).
    #[schemars(example = &"reject")]
    pub(super) encoded_slashes: Option<RawSlashes>,
    pub(super) log: log::RawLog,
    pub(super) geo: geo::RawGeo,
    pub(super) notifier: notifier::RawNotifier,
    pub(super) regulation: regulation::RawRegulation,
}

/// Keys that the contract names and that come with a later version.
pub(super) const LATER: &[&str] = &["health"];

/// What an encoded slash or backslash in a path means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawSlashes {
    /// 400.
    Reject,
    /// Decided as a character and as a slash: the stricter verdict holds.
    Strictest,
}

impl From<RawSlashes> for EncodedSlashes {
    fn from(raw: RawSlashes) -> Self {
        match raw {
            RawSlashes::Reject => Self::Reject,
            RawSlashes::Strictest => Self::Strictest,
        }
    }
}

/// Whose the `Authorization` header is.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawAuthorization {
    /// The application's: never read, passed on untouched.
    App,
}

/// A duration with its default; `positive`: zero is a fault.
pub(super) fn duration(
    report: &mut Report,
    at: &Trail,
    text: Option<&str>,
    default: Duration,
    positive: bool,
) -> Duration {
    let Some(text) = text else { return default };
    let duration = report.take(at, quantity::duration(text)).unwrap_or(default);
    if positive && duration.is_zero() {
        report.fault(at, format!("`{at}` must be longer than nothing; write for example `30s`"));
    }
    duration
}

/// An absolute http or https URL without userinfo, query or fragment.
pub(super) fn web_url(text: &str, example: &str) -> Result<Url, String> {
    let fault = |what: &str| format!("this URL {what}; write for example `{example}`");
    let url = Url::parse(text).map_err(|error| fault(&format!("cannot be read ({error})")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(fault("must begin with `https://` or `http://`"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(fault("must hold no user or password"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(fault("must hold no `?` or `#`"));
    }
    match url.host_str() {
        Some(host) if !host.is_empty() => Ok(url),
        _ => Err(fault("names no host")),
    }
}

/// Whether a browser takes `host` for this machine, by name or address: plain http is no risk there. Never to be asked where Postern itself connects.
pub(super) fn is_local(host: &str) -> bool {
    host.ends_with(".localhost") || is_loopback(host)
}

/// The same for Postern, which asks a resolver: that may know names below `localhost` as somebody else's.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Origins of `origins:`, as browsers write them in `Origin`.
pub(super) fn origins(report: &mut Report, at: &Trail, raw: &[String]) -> Vec<String> {
    let mut origins = Vec::new();
    for (index, text) in raw.iter().enumerate() {
        let parsed = web_url(text, "https://app.example.com").and_then(|url| match url.path() {
            "/" => Ok(url.origin().ascii_serialization()),
            _ => Err("an origin has no path; write for example `https://app.example.com`".to_owned()),
        });
        origins.extend(report.take(&at.item(index), parsed));
    }
    origins
}
