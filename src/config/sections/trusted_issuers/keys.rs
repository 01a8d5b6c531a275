//! Where an issuer's keys are: exactly one of a discovery document, a URL, a file and a secret.

use std::{path::PathBuf, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::raw::{RawDiscovery, RawTrustedIssuer};
use crate::{
    config::{
        NamedFile,
        error::{Report, Trail, list},
        sections::{duration, is_loopback, web_url},
    },
    core::issuer::{KeyAddress, KeyPlace, KeySource, jwks::KeySet},
};

/// Shorter secrets can be guessed offline from a single token (RFC 7518 §3.2).
const SHORTEST_SECRET: usize = 32;
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);
const LONGEST_REFRESH: Duration = Duration::from_secs(12 * 3600);
pub(super) const JWKS: &str = "https://idp.example.com/jwks.json";
const DISCOVERY: &str = "https://idp.example.com/.well-known/openid-configuration";
/// Where it stands below an issuer (OpenID Connect Discovery 1.0 §4).
const BELOW: &str = "/.well-known/openid-configuration";

pub(super) fn keys(report: &mut Report, at: &Trail, raw: &RawTrustedIssuer) -> Option<KeySource> {
    let discovery = raw.discovery.as_ref().filter(|discovery| !matches!(discovery, RawDiscovery::Below(false)));
    let given = [
        ("discovery", discovery.is_some()),
        ("jwks", raw.jwks.is_some()),
        ("jwks_file", raw.jwks_file.is_some()),
        ("secret", raw.secret.is_some()),
        ("secret_file", raw.secret_file.is_some()),
    ];
    let given: Vec<&str> = given.into_iter().filter_map(|(key, is_given)| is_given.then_some(key)).collect();
    let key = match given.as_slice() {
        [key] => *key,
        [] => {
            let fault = "nothing says where the issuer's keys are: write `discovery: true`, or `jwks` with the URL of its key set, or \
                         `jwks_file`, or `secret_file`";
            report.fault(at, fault);
            return None;
        }
        [_, second, ..] => {
            let all = list(given.iter().copied());
            report.fault_of_key(
                &at.key(second),
                format!("the issuer's keys come from one place, and {all} stand here; keep one"),
            );
            return None;
        }
    };
    let here = at.key(key);
    match (key, discovery) {
        ("discovery", Some(RawDiscovery::At(url))) => {
            let url = report.take(&here, key_url(url, DISCOVERY))?;
            fetched(report, at, raw, KeyPlace::Discovery { url, issuer: raw.issuer.clone() })
        }
        ("discovery", _) => {
            let below = format!("{}{BELOW}", raw.issuer.trim_end_matches('/'));
            let url = key_url(&below, DISCOVERY)
                .map_err(|fault| format!("no discovery document can be below this issuer: {fault}"));
            let url = report.take(&here, url)?;
            fetched(report, at, raw, KeyPlace::Discovery { url, issuer: raw.issuer.clone() })
        }
        ("jwks", _) => {
            let url = report.take(&here, key_url(raw.jwks.as_deref().unwrap_or_default(), JWKS))?;
            fetched(report, at, raw, KeyPlace::Jwks(url))
        }
        ("jwks_file", _) => {
            let text = file(report, &here, raw.jwks_file.as_deref().unwrap_or_default())?;
            report.take(&here, key_set(&text)).map(|keys| KeySource::Fixed(Arc::new(keys)))
        }
        _ => {
            let secret = match (&raw.secret, &raw.secret_file) {
                (Some(secret), _) => secret.clone(),
                (None, path) => {
                    let text = SecretString::from(file(report, &here, path.as_deref().unwrap_or_default())?);
                    // A line feed at its end is the editor's.
                    SecretString::from(text.expose_secret().trim_end_matches(['\r', '\n']))
                }
            };
            let length = secret.expose_secret().len();
            if length < SHORTEST_SECRET {
                let fault = format!(
                    "a secret of {length} bytes can be guessed from one token; use one of at least {SHORTEST_SECRET} (`openssl rand -hex 32`)"
                );
                report.fault(&here, fault);
            }
            Some(KeySource::Fixed(Arc::new(KeySet::of_secret(secret))))
        }
    }
}

fn fetched(report: &mut Report, at: &Trail, raw: &RawTrustedIssuer, place: KeyPlace) -> Option<KeySource> {
    let mut positive = |key: &str, text: Option<&str>, seconds| {
        duration(report, &at.key(key), text, Duration::from_secs(seconds), true)
    };
    let interval = positive("interval", raw.interval.as_deref(), 60);
    let refresh = positive("refresh", raw.refresh.as_deref(), interval.as_secs().clamp(600, 43_200));
    // What is said of `refresh` could not be followed below a longer one.
    if !interval.is_zero() && interval < SHORTEST_INTERVAL {
        report.fault(&at.key("interval"), "tokens could ask for a fetch too often; write at least `1s`");
    } else if interval > LONGEST_REFRESH {
        report.fault(
            &at.key("interval"),
            "a key that the issuer took back would count for too long; write at most `12h`",
        );
    } else if refresh < interval {
        report.fault(
            &at.key("refresh"),
            "keys are fetched at most once in `interval`; write a `refresh` that is not shorter",
        );
    } else if refresh > LONGEST_REFRESH {
        report
            .fault(&at.key("refresh"), "a key that the issuer took back would count for too long; write at most `12h`");
    }
    Some(KeySource::Fetched(Arc::new(KeyAddress { place, interval, refresh })))
}

/// Keys from anybody who can change what is on the wire are nobody's keys.
fn key_url(text: &str, example: &str) -> Result<Url, String> {
    // A query is part of some issuers' addresses.
    let url = match text.split_once('?') {
        Some((before, query)) if !query.contains('#') => {
            let mut url = web_url(before, example)?;
            url.set_query(Some(query));
            url
        }
        _ => web_url(text, example)?,
    };
    if url.scheme() == "http" && !url.host_str().is_some_and(is_loopback) {
        return Err(
            "keys that come over plain http could be anybody's; write `https://` (http is for this machine alone)"
                .to_owned(),
        );
    }
    Ok(url)
}

fn key_set(text: &str) -> Result<KeySet, String> {
    let keys = KeySet::parse(text.as_bytes()).map_err(|bad| format!("this file is no JWK set: {bad}"))?;
    if keys.keys.is_empty() {
        return Err("this file holds no key that verifies signatures (RSA from 2048 bits, P-256, P-384 or Ed25519, for `use: sig`)".to_owned());
    }
    Ok(keys)
}

fn file(report: &mut Report, at: &Trail, path: &str) -> Option<String> {
    let read = std::fs::read_to_string(path);
    let text = report.take(at, read.map_err(|error| format!("this file cannot be read: {error}")))?;
    report.name(at, NamedFile::Value(PathBuf::from(path)));
    Some(text)
}
