//! How a proxy describes the request it asks about: one file a dialect, each from headers to [`Described`] (CONTRACT 5).

mod auth_request;
mod ext_authz;
mod forward_auth;
mod legacy;

use http::{HeaderMap, HeaderName, request::Parts};

use crate::core::{
    answer::Dialect,
    request::is_method,
    site::{AUTHORIZATION_ONLY, PROXY_AUTHORIZATION_FIRST, PROXY_AUTHORIZATION_ONLY},
    target::{EncodedSlashes, Scheme, Target},
    verdict::Rejection,
};

// Statics rather than the constants of `core::header`: their names are told in rejections.
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
static X_FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
static X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
static X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
static X_AUTHELIA_URL: HeaderName = HeaderName::from_static("x-authelia-url");

/// The request that a proxy asks about.
pub(super) struct Described<'r> {
    pub(super) target: Target,
    pub(super) method: &'r str,
    /// Another portal than the cookie domain's, named by the proxy.
    pub(super) portal: Option<String>,
}

/// Which dialect a path speaks. The paths are matched before anything else, whatever the Host.
pub(super) fn of(path: &str) -> Option<Dialect> {
    match path {
        "/api/authz/forward-auth" => Some(Dialect::ForwardAuth),
        "/api/authz/auth-request" => Some(Dialect::AuthRequest),
        "/api/verify" => Some(Dialect::Legacy),
        _ => {
            path.strip_prefix(ext_authz::PREFIX).is_some_and(|rest| rest.starts_with('/')).then_some(Dialect::ExtAuthz)
        }
    }
}

/// # Errors
/// A describing header that is missing, doubled, or cannot be read.
pub(super) fn describe<'r>(
    dialect: Dialect,
    request: &'r Parts,
    listener: Scheme,
    slashes: EncodedSlashes,
) -> Result<Described<'r>, Rejection> {
    match dialect {
        Dialect::AuthRequest => auth_request::describe(request, slashes),
        Dialect::ExtAuthz => ext_authz::describe(request, listener, slashes),
        Dialect::Legacy => legacy::describe(request, slashes),
        Dialect::ForwardAuth | Dialect::Edge => forward_auth::describe(request, slashes),
    }
}

/// Headers from which credentials are read. `auth=basic` on the legacy path says that the application's own is meant.
pub(super) fn credentials(dialect: Dialect, request: &Parts) -> &'static [HeaderName] {
    match dialect {
        Dialect::Legacy if query(request, "auth").as_deref() == Some("basic") => AUTHORIZATION_ONLY,
        Dialect::Legacy => PROXY_AUTHORIZATION_ONLY,
        _ => PROXY_AUTHORIZATION_FIRST,
    }
}

/// A describing header that must be there.
fn required<'r>(headers: &'r HeaderMap, name: &'static HeaderName) -> Result<&'r str, Rejection> {
    optional(headers, name)?.ok_or(Rejection::Missing(name.as_str()))
}

/// A describing header that came once, or not at all. Doubled ones are the mark of a client that sent its own beside the proxy's. A
/// comma joins two into one; in a URL it is an ordinary character, but where what follows it would be a second value.
fn optional<'r>(headers: &'r HeaderMap, name: &'static HeaderName) -> Result<Option<&'r str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(text) if values.next().is_none() && !is_joined(name, text) => Ok(Some(text)),
        _ => Err(Rejection::Repeated(name.as_str())),
    }
}

fn is_joined(name: &HeaderName, text: &str) -> bool {
    let is_second: fn(&str) -> bool = match name {
        _ if *name == X_FORWARDED_URI => |rest| rest.starts_with('/'),
        _ if *name == X_ORIGINAL_URL => {
            |rest| rest.split_once("://").is_some_and(|(word, _)| Scheme::parse(word).is_some())
        }
        _ => |_| true,
    };
    text.split(',').skip(1).any(|rest| is_second(rest.trim_start()))
}

fn method(text: &str) -> Result<&str, Rejection> {
    if is_method(text) { Ok(text) } else { Err(Rejection::Method) }
}

/// The target of `X-Forwarded-Proto`, `-Host` and `-Uri`.
fn forwarded_target(headers: &HeaderMap, slashes: EncodedSlashes) -> Result<Target, Rejection> {
    let scheme = Scheme::parse(required(headers, &X_FORWARDED_PROTO)?).ok_or(Rejection::Scheme)?;
    let (host, uri) = (required(headers, &X_FORWARDED_HOST)?, required(headers, &X_FORWARDED_URI)?);
    Target::parse_with(scheme, host, uri, slashes)
}

/// The first value of a query parameter of the asking request.
fn query(request: &Parts, name: &str) -> Option<String> {
    let query = request.uri.query()?;
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests;
