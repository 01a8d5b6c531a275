//! `/api/verify` of older Authelia set-ups: either way of describing, as long as both say the same (THREATS 65). Beside
//! `X-Original-URL` such set-ups often name no method: then it is that of the question.

use http::request::Parts;

use super::{
    Described, X_AUTHELIA_URL, X_FORWARDED_HOST, X_FORWARDED_METHOD, X_FORWARDED_PROTO, X_FORWARDED_URI,
    X_ORIGINAL_METHOD, X_ORIGINAL_URL, forwarded_target, method, optional, query,
};
use crate::core::{
    target::{EncodedSlashes, Scheme, Target},
    verdict::Rejection,
};

pub(super) fn describe(request: &Parts, slashes: EncodedSlashes) -> Result<Described<'_>, Rejection> {
    let headers = &request.headers;
    let original = optional(headers, &X_ORIGINAL_URL)?.map(|url| Target::parse_url_with(url, slashes)).transpose()?;
    let by_url = original.is_some();
    let target = match original {
        Some(original) => agreed(request, original, slashes)?,
        None => forwarded_target(headers, slashes)?,
    };
    let methods = (optional(headers, &X_ORIGINAL_METHOD)?, optional(headers, &X_FORWARDED_METHOD)?);
    let described = match methods {
        (Some(original), Some(forwarded)) if original != forwarded => return Err(Rejection::Contradiction),
        (Some(text), _) | (None, Some(text)) => method(text)?,
        (None, None) if by_url => method(request.method.as_str())?,
        (None, None) => return Err(Rejection::Missing(X_FORWARDED_METHOD.as_str())),
    };
    let portal = query(request, "rd").or(optional(headers, &X_AUTHELIA_URL)?.map(str::to_owned));
    Ok(Described { target, method: described, portal })
}

/// The target of `X-Original-URL`, if whatever part of it `X-Forwarded-*` describes as well is the same.
fn agreed(request: &Parts, original: Target, slashes: EncodedSlashes) -> Result<Target, Rejection> {
    let headers = &request.headers;
    let scheme = match optional(headers, &X_FORWARDED_PROTO)? {
        Some(text) => Scheme::parse(text).ok_or(Rejection::Scheme)?,
        None => original.scheme(),
    };
    let own = original.authority();
    let host = optional(headers, &X_FORWARDED_HOST)?.unwrap_or(&own);
    let raw = optional(headers, &X_FORWARDED_URI)?.unwrap_or(original.raw());
    let forwarded = Target::parse_with(scheme, host, raw, slashes)?;
    let is_same = forwarded.origin() == original.origin() && forwarded.raw() == original.raw();
    if is_same { Ok(original) } else { Err(Rejection::Contradiction) }
}
