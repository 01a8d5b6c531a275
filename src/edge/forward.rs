//! Passes a permitted request on: which server, with which time-outs, which headers; and what is said when that fails.
//! Called by `service`, which has seen the permit. Never touches the path: what was decided on is what goes on.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderName, HeaderValue, StatusCode, header};
use pingora::{
    Error, ErrorSource,
    ErrorType::{
        self, ConnectTimedout, ConnectionClosed, HTTPStatus, ReadError, ReadTimedout, TLSHandshakeTimedout, WriteError,
        WriteTimedout,
    },
    OkOrErr as _, Result,
    http::{RequestHeader, ResponseHeader},
    proxy::Session,
    upstreams::peer::{H1UpgradePolicy, HttpPeer},
};

use crate::{
    core::{
        cookie::{sets_ours, without_ours},
        header::{
            TRACEPARENT, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_REQUEST_ID, identity_headers,
            is_spoofed, render,
        },
        route::{HeaderTemplate, Route, Server},
    },
    gate::is_our_token,
    portal,
};

use super::{
    context::Context,
    names::Names,
    respond,
    upgrade::{self, PatientConnect, is_websocket},
};

/// Between two bytes of a request's body, and of an answer's being taken.
const CLIENT_IDLE: Duration = Duration::from_secs(60);
/// The same on a WebSocket, which may be silent for long.
const WEBSOCKET_IDLE: Duration = Duration::from_secs(3600);
/// An unread body after an answer on HTTP/1.
const DRAIN_TIME: Duration = Duration::from_secs(2);
/// How long an unused upstream connection is kept.
const UPSTREAM_IDLE: Duration = Duration::from_secs(60);

/// Whose turn it is, and the addresses behind names. The lock is held for a look only, never while waiting.
#[derive(Default)]
pub(super) struct Addresses {
    turns: Mutex<HashMap<String, usize>>,
    names: Names,
}

impl Addresses {
    /// Round robin; a route's servers each in their turn.
    fn turn(&self, upstream: &str, servers: usize) -> usize {
        if servers < 2 {
            return 0;
        }
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        match turns.get_mut(upstream) {
            Some(turn) => {
                *turn = turn.wrapping_add(1);
                *turn % servers
            }
            None => {
                turns.insert(upstream.to_owned(), 0);
                0
            }
        }
    }

    async fn of(&self, server: &Server, now: Duration) -> Vec<SocketAddr> {
        match server.address {
            Some(address) => vec![address],
            None => self.names.addresses(server, now).await,
        }
    }

    /// Every address of every server in the order of trial, the first one last.
    async fn candidates(&self, route: &Route, now: Duration) -> Vec<(usize, SocketAddr)> {
        let servers = &route.upstream.servers;
        let first = self.turn(&route.upstream.name, servers.len());
        let mut candidates = Vec::with_capacity(servers.len());
        for (place, server) in servers.iter().enumerate().cycle().skip(first).take(servers.len()) {
            candidates.extend(self.of(server, now).await.into_iter().map(|address| (place, address)));
        }
        candidates.reverse();
        candidates
    }
}

/// Set on every request before its body is read.
pub(super) fn limit_times(session: &mut Session) {
    session.set_read_timeout(Some(CLIENT_IDLE));
    session.set_write_timeout(Some(CLIENT_IDLE));
    session.set_total_drain_timeout(Some(DRAIN_TIME));
}

/// The server asked last.
pub(super) fn server(context: &Context) -> Option<&Server> {
    context.route.as_ref()?.upstream.servers.get(context.server?)
}

/// The next address to try.
pub(super) async fn peer(
    addresses: &Addresses,
    now: Duration,
    session: &mut Session,
    context: &mut Context,
    route: &Route,
) -> Result<Box<HttpPeer>> {
    let mut candidates = match context.candidates.take() {
        Some(candidates) => candidates,
        None => addresses.candidates(route, now).await,
    };
    let (place, address) = candidates.pop().or_err(HTTPStatus(502), "no server to ask")?;
    context.candidates = Some(candidates);
    context.server = Some(place);
    let server = route.upstream.servers.get(place).or_err(HTTPStatus(502), "no such server")?;
    let mut peer = HttpPeer::new(address, server.tls, server.host.clone());
    let timeouts = route.upstream.timeouts;
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(timeouts.read);
    if is_websocket(session) {
        let handshake = Arc::clone(context.handshake.insert(Arc::default()));
        peer.options.custom_l4 = Some(Arc::new(PatientConnect { handshake, read_timeout: timeouts.read }));
        peer.options.read_timeout = Some(timeouts.read.max(WEBSOCKET_IDLE));
        peer.group_key = upgrade::GROUP;
    } else {
        // pingora looks at one header alone.
        peer.options.http_upstream_request_policy.h1_upgrade = H1UpgradePolicy::Deny;
    }
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.idle_timeout = Some(UPSTREAM_IDLE);
    Ok(Box::new(peer))
}

/// Nothing was sent yet, so the next address may be tried, whatever the method.
pub(super) fn after_failed_connect(context: &Context, mut error: Box<Error>) -> Box<Error> {
    if let Some(server) = server(context) {
        tracing::warn!(server = %server.label, request_id = context.request_id(), %error, "an upstream's server does not answer");
    }
    error.set_retry(context.candidates.as_ref().is_some_and(|candidates| !candidates.is_empty()));
    error
}

/// Header hygiene on the way in (CONTRACT 6); runs after pingora has taken out what `Connection` names, so that nothing a client
/// nominates can take ours out. Answers how many headers were taken out.
pub(super) fn prepare(session: &Session, request: &mut RequestHeader, context: &Context) -> Result<u64> {
    let (Some(target), Some(route), Some(correlation)) = (&context.target, &context.route, &context.correlation) else {
        return Error::e_explain(HTTPStatus(500), "a request was passed on undecided");
    };
    let of_listener = context.listener().map_or(&[][..], |listener| &listener.headers);
    // An absolute target goes on in origin form, the very bytes that were decided on.
    if request.raw_path() != target.raw().as_bytes() {
        request.set_raw_path(target.raw().as_bytes())?;
    }
    let stripped = strip(request, &route.headers, of_listener);
    strip_credentials(session, request, context)?;
    if let Some(identity) = context.identity.as_deref() {
        for (name, value) in identity_headers(Some(identity)) {
            request.insert_header(name, value)?;
        }
    }
    request.insert_header(X_REQUEST_ID, correlation.request_id.clone())?;
    request.insert_header(TRACEPARENT, correlation.traceparent.clone())?;
    if let Some(state) = &correlation.tracestate {
        request.insert_header(HeaderName::from_static("tracestate"), state.clone())?;
    }
    // The client's address alone, not a chain that somebody else began; left out where it is unknown.
    if let Some(client) = context.client.known() {
        request.insert_header(X_FORWARDED_FOR, client.to_string())?;
    }
    request.insert_header(X_FORWARDED_PROTO, target.scheme().as_str())?;
    let host = target.port().map_or_else(|| target.host().to_owned(), |port| format!("{}:{port}", target.host()));
    request.insert_header(X_FORWARDED_HOST, host)?;
    for template in of_listener.iter().chain(&route.headers) {
        if let Some(value) = render(template, context.identity.as_deref(), context.roles.as_deref()) {
            request.insert_header(template.name.clone(), value)?;
        }
    }
    Ok(stripped)
}

fn strip(request: &mut RequestHeader, of_route: &[HeaderTemplate], of_listener: &[HeaderTemplate]) -> u64 {
    let spoofed: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| {
            is_spoofed(name.as_str(), of_route) || (!of_listener.is_empty() && is_spoofed(name.as_str(), of_listener))
        })
        .cloned()
        .collect();
    let mut stripped = 0;
    for name in &spoofed {
        stripped += request.headers.get_all(name).iter().count() as u64;
        request.remove_header(name);
    }
    stripped
}

/// Our cookies and tokens never reach an upstream.
fn strip_credentials(session: &Session, request: &mut RequestHeader, context: &Context) -> Result<()> {
    if request.headers.contains_key(header::COOKIE) {
        let kept = without_ours(&session.req_header().headers, &context.site.own_cookies);
        request.remove_header(&header::COOKIE);
        if let Some(kept) = kept {
            request.insert_header(header::COOKIE, kept)?;
        }
    }
    if context.carries_our_token {
        request.remove_header(&header::AUTHORIZATION);
    }
    // Not read at the edge, but a client that sends ours there sends it to us, not to an application.
    if request.headers.get_all(header::PROXY_AUTHORIZATION).iter().any(|value| is_our_token(&context.site, value)) {
        request.remove_header(&header::PROXY_AUTHORIZATION);
    }
    Ok(())
}

/// Nobody keeps a connection open for an hour by a header alone: only the upstream's 101 lets it.
pub(super) fn note_handshake(session: &mut Session, status: StatusCode, context: &Context) {
    if let Some(handshake) = &context.handshake {
        handshake.answered(status);
        if status == StatusCode::SWITCHING_PROTOCOLS {
            session.set_read_timeout(Some(WEBSOCKET_IDLE));
        }
    }
}

/// Header hygiene on the way out: an upstream cannot set cookies of ours (THREATS 60).
pub(super) fn clean_answer(response: &mut ResponseHeader, context: &mut Context) -> Result<()> {
    context.upstream_status = Some(response.status);
    let set: Vec<HeaderValue> = response.headers.get_all(header::SET_COOKIE).iter().cloned().collect();
    let ours = &context.site.own_cookies;
    if set.iter().any(|cookie| sets_ours(cookie, ours)) {
        response.remove_header(&header::SET_COOKIE);
        for cookie in set.into_iter().filter(|cookie| !sets_ours(cookie, ours)) {
            response.append_header(header::SET_COOKIE, cookie)?;
        }
        tracing::warn!(request_id = context.request_id(), "an upstream tried to set a cookie of ours: removed");
    }
    if let Some(correlation) = &context.correlation {
        response.insert_header(X_REQUEST_ID, correlation.request_id.clone())?;
    }
    tell_allowance(response, context)
}

/// What the limits left. What the upstream says under the same names is replaced, and under others left: its own limits are its own.
fn tell_allowance(response: &mut ResponseHeader, context: &Context) -> Result<()> {
    let Some(standing) = &context.standing else { return Ok(()) };
    let mut written = Ok(());
    standing.each_header(context.site.rules.limit_headers(), |name, value| {
        if written.is_ok() {
            written = response.insert_header(name, value);
        }
    });
    written
}

/// Says to the client that it failed, if it can still hear it. Answers the status, 0 where nothing was written.
pub(super) async fn failure(session: &mut Session, error: &Error, context: &mut Context) -> u16 {
    let has_begun = session
        .response_written()
        .is_some_and(|head| !head.status.is_informational() || head.status == StatusCode::SWITCHING_PROTOCOLS);
    let status = if has_begun { None } else { status(error) };
    tell(error, context, status);
    let Some(status) = status else { return 0 };
    session.set_keepalive(None);
    let mut response = if status.is_server_error() && status != StatusCode::INTERNAL_SERVER_ERROR {
        portal::render_upstream_failure(&context.site, status, context.request_id(), context.is_page_load)
    } else {
        respond::plain(context, status, if status.is_client_error() { "bad_request" } else { "internal_error" }, None)
    };
    // The limits counted it, whatever became of it.
    if let Some(standing) = &context.standing {
        let headers = response.headers_mut();
        standing.each_header(context.site.rules.limit_headers(), |name, value| drop(headers.insert(name, value)));
    }
    match respond::write(session, context, response).await {
        Ok(()) => status.as_u16(),
        Err(_) => 0,
    }
}

/// `None`: the client is gone.
fn status(error: &Error) -> Option<StatusCode> {
    match (error.etype(), error.esource()) {
        (HTTPStatus(code), _) => Some(StatusCode::from_u16(*code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)),
        (ConnectTimedout | ReadTimedout | WriteTimedout | TLSHandshakeTimedout, ErrorSource::Upstream) => {
            Some(StatusCode::GATEWAY_TIMEOUT)
        }
        (ReadError, ErrorSource::Upstream) if has_timed_out(error) => Some(StatusCode::GATEWAY_TIMEOUT),
        (_, ErrorSource::Upstream) => Some(StatusCode::BAD_GATEWAY),
        (ReadTimedout, ErrorSource::Downstream) => Some(StatusCode::REQUEST_TIMEOUT),
        (ReadError | WriteError | WriteTimedout | ConnectionClosed | ErrorType::H2Error, ErrorSource::Downstream) => {
            None
        }
        (_, ErrorSource::Downstream) => Some(StatusCode::BAD_REQUEST),
        (_, ErrorSource::Internal | ErrorSource::Unset) => Some(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// As `upgrade` ends a handshake.
fn has_timed_out(error: &Error) -> bool {
    let cause = error.root_cause().downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::TimedOut)
}

/// A failing upstream is worth a warning, a fault of ours an error; clients come and go.
fn tell(error: &Error, context: &Context, status: Option<StatusCode>) {
    let (route, request_id) = (context.route_label(), context.request_id());
    let status = status.map(|status| status.as_u16());
    match error.esource() {
        ErrorSource::Upstream => tracing::warn!(%error, route, request_id, status, "an upstream failed"),
        ErrorSource::Downstream => tracing::debug!(%error, route, request_id, status, "a client failed"),
        ErrorSource::Internal | ErrorSource::Unset => {
            tracing::error!(%error, route, request_id, status, "a request failed")
        }
    }
}
