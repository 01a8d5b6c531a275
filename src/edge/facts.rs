//! From pingora's session to the facts that the gate decides on. Called by `service` once a request. Believes of a
//! trusted peer `X-Forwarded-For` and `-Proto`, of anybody else nothing; never repairs what is ambiguous.
//!
//! What pingora itself has answered with 400 before us: two `Host` headers, a `Host` that differs from an absolute target or an
//! `:authority`, userinfo in either; CONNECT it answers with 405.

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, header};
use pingora::{http::RequestHeader, proxy::Session};

use crate::core::{
    client_ip::{ClientAddress, client_address},
    header::X_FORWARDED_PROTO,
    request::{Facts, Role, is_method, is_page_load, is_websocket},
    site::{AUTHORIZATION_ONLY, ListenerSite},
    target::{Scheme, Target},
    verdict::Rejection,
};

use super::{context::Context, head, listener::ServerName};

/// The other end of the connection.
pub(super) fn peer(session: &Session) -> Option<IpAddr> {
    session.client_addr()?.as_inet().map(|address| address.ip().to_canonical())
}

/// What the connection's TLS handshake asked for. `None`: there was none.
pub(super) fn server_name(session: &Session) -> Option<&ServerName> {
    session.digest()?.ssl_digest.as_ref()?.extension.get()
}

/// Reads into `context` who asks, and says for what.
///
/// # Errors
/// Why the request is not decided at all.
pub(super) fn read(session: &Session, context: &mut Context) -> Result<Target, Rejection> {
    let request = session.req_header();
    context.is_page_load = is_page_load(&request.headers);
    context.is_websocket = is_websocket(&request.headers);
    if let Some(fault) = context.head_fault {
        return Err(fault);
    }
    if is_oversized(request) {
        return Err(Rejection::HeadersTooLarge);
    }
    if has_doubtful_length(request) {
        return Err(Rejection::Repeated("Content-Length"));
    }
    let listener = context.site.listener(context.listener).ok_or(Rejection::NoRoute)?;
    let peer = peer(session);
    let trusted = peer.is_some_and(|peer| listener.trusts(peer));
    let client =
        peer.map_or(ClientAddress::Unknown, |peer| client_address(peer, &request.headers, &listener.trusted_proxies));
    let scheme = scheme(&request.headers, listener, trusted);
    context.client = client;
    let target = Target::parse_with(scheme?, authority(request)?, origin_form(request)?, context.slashes())?;
    if !is_method(request.method.as_str()) {
        context.target = Some(target);
        return Err(Rejection::Method);
    }
    Ok(target)
}

/// The facts for the gate.
pub(super) fn facts<'r>(session: &'r Session, context: &Context, target: Target) -> Facts<'r> {
    let request = session.req_header();
    // Without an address (never seen on TCP) the peer is nobody in particular and trusted in nothing.
    let peer = peer(session).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Facts {
        role: Role::Edge,
        began: context.started,
        listener: context.listener,
        target,
        method: request.method.as_str(),
        headers: &request.headers,
        peer,
        peer_trusted: context.listener().is_some_and(|listener| listener.trusts(peer)),
        client: context.client,
        credentials_from: AUTHORIZATION_ONLY,
    }
}

fn is_oversized(request: &RequestHeader) -> bool {
    let fields: usize = request.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    fields + request.raw_path().len() > head::MAX_BYTES || request.headers.len() > head::MAX_FIELDS
}

/// THREATS 51: pingora takes equal lengths for one (`3, 3`) and passes them on as they came; an upstream that reads them otherwise
/// would take a part of the body for the next request, which nobody decided.
fn has_doubtful_length(request: &RequestHeader) -> bool {
    let mut lengths = request.headers.get_all(header::CONTENT_LENGTH).iter();
    let only = lengths.next();
    lengths.next().is_some() || only.is_some_and(|length| !length.as_bytes().iter().all(u8::is_ascii_digit))
}

fn scheme(headers: &HeaderMap, listener: &ListenerSite, trusted: bool) -> Result<Scheme, Rejection> {
    let own = if listener.tls { Scheme::Https } else { Scheme::Http };
    let mut told = headers.get_all(X_FORWARDED_PROTO).iter();
    match (told.next(), told.next()) {
        (Some(_), Some(_)) if trusted => Err(Rejection::Repeated("X-Forwarded-Proto")),
        (Some(told), None) if trusted => told.to_str().ok().and_then(Scheme::parse).ok_or(Rejection::Scheme),
        _ => Ok(own),
    }
}

/// HTTP/2 has `:authority`; HTTP/1 has `Host`, which every request must have (pingora lets one without it pass).
fn authority(request: &RequestHeader) -> Result<&str, Rejection> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next(), request.uri.authority()) {
        (Some(_), Some(_), _) => Err(Rejection::Host),
        (Some(host), None, Some(authority)) if host.as_bytes() != authority.as_str().as_bytes() => Err(Rejection::Host),
        (Some(host), None, _) => host.to_str().map_err(|_| Rejection::Host),
        (None, _, Some(authority)) if request.version == http::Version::HTTP_2 => Ok(authority.as_str()),
        _ => Err(Rejection::Host),
    }
}

/// The path and query as they came. Of an absolute target the authority is taken off (it is the `Host`, or the request would not
/// have come this far).
fn origin_form(request: &RequestHeader) -> Result<&str, Rejection> {
    let raw = std::str::from_utf8(request.raw_path()).map_err(|_| Rejection::Path("not UTF-8"))?;
    if raw.starts_with('/') {
        return Ok(raw);
    }
    let (scheme, rest) = raw.split_once("://").ok_or(Rejection::Path("not in origin form"))?;
    let authority_ends = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(authority_ends).ok_or(Rejection::Path("not in origin form"))?;
    let host = request.headers.get(header::HOST).map(|host| host.as_bytes());
    if Scheme::parse(scheme).is_none() || host != Some(authority.as_bytes()) {
        return Err(Rejection::Host);
    }
    match path {
        "" => Ok("/"),
        _ if path.starts_with('/') => Ok(path),
        _ => Err(Rejection::Path("not in origin form")),
    }
}
