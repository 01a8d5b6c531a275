//! Traefik, Caddy, HAProxy: `X-Forwarded-Proto`, `-Host`, `-Method`, `-Uri`.

use http::request::Parts;

use super::{Described, X_FORWARDED_METHOD, forwarded_target, method, query, required};
use crate::core::{target::EncodedSlashes, verdict::Rejection};

pub(super) fn describe(request: &Parts, slashes: EncodedSlashes) -> Result<Described<'_>, Rejection> {
    Ok(Described {
        target: forwarded_target(&request.headers, slashes)?,
        method: method(required(&request.headers, &X_FORWARDED_METHOD)?)?,
        portal: query(request, "authelia_url"),
    })
}
