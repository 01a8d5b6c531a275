//! Envoy's HTTP ext_authz: the request line itself behind a prefix, `Host`, and `X-Forwarded-Proto`.

use http::request::Parts;

use super::{Described, X_AUTHELIA_URL, X_FORWARDED_PROTO, method, optional};
use crate::{
    core::{
        target::{EncodedSlashes, Scheme, Target},
        verdict::Rejection,
    },
    forward_auth::service::authority,
};

pub(super) const PREFIX: &str = "/api/authz/ext-authz";

pub(super) fn describe(request: &Parts, listener: Scheme, slashes: EncodedSlashes) -> Result<Described<'_>, Rejection> {
    let scheme = match optional(&request.headers, &X_FORWARDED_PROTO)? {
        Some(text) => Scheme::parse(text).ok_or(Rejection::Scheme)?,
        None => listener,
    };
    let raw = request.uri.path_and_query().map_or("", |raw| raw.as_str());
    let raw = raw.strip_prefix(PREFIX).ok_or(Rejection::Path("it does not begin with the prefix of ext-authz"))?;
    // Envoy's `path_prefix` ends in a slash, before a path that begins with one.
    let raw = if raw.starts_with("//") { raw.get(1..).unwrap_or_default() } else { raw };
    Ok(Described {
        target: Target::parse_with(scheme, authority(request)?, raw, slashes)?,
        method: method(request.method.as_str())?,
        portal: optional(&request.headers, &X_AUTHELIA_URL)?.map(str::to_owned),
    })
}
