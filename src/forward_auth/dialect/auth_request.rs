//! NGINX `auth_request`: `X-Original-URL` and `X-Original-Method`.

use http::request::Parts;

use super::{Described, X_ORIGINAL_METHOD, X_ORIGINAL_URL, method, query, required};
use crate::core::{
    target::{EncodedSlashes, Target},
    verdict::Rejection,
};

pub(super) fn describe(request: &Parts, slashes: EncodedSlashes) -> Result<Described<'_>, Rejection> {
    Ok(Described {
        target: Target::parse_url_with(required(&request.headers, &X_ORIGINAL_URL)?, slashes)?,
        method: method(required(&request.headers, &X_ORIGINAL_METHOD)?)?,
        portal: query(request, "authelia_url"),
    })
}
