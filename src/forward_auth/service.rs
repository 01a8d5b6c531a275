//! What a request on a `forward_auth` listener is for: a question of a proxy, a health check, the portal.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::body::Body;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};
use hyper::body::{Body as _, Incoming};
use tokio::time;
use tower::ServiceExt as _;

use super::{ForwardAuth, body, dialect};
use crate::{
    core::{
        answer::Dialect,
        certificate::CertificateNames,
        client_ip::{ClientAddress, client_address},
        header::{Correlation, X_FORWARDED_PROTO, X_REQUEST_ID, has_respelled},
        identity::Identity,
        policy::{Recorded, Reported},
        quota::Standing,
        request::{Facts, Role},
        site::{ListenerSite, Site},
        target::{Scheme, Target},
        time::Timestamp,
        verdict::{Credential, Outcome, Rejection, Verdict},
    },
    observe::access_log::Entry,
    portal::{self, Arrival, BODY_TIME},
};

/// Between two log lines about peers that are not trusted.
const STRANGER_QUIET_MILLIS: i64 = 10_000;

/// Who is at the other end, and by which name it came.
pub(super) struct Connection {
    pub(super) peer: IpAddr,
    /// With TLS: the listener's certificates, and what the client asked for of them (SNI).
    pub(super) asked_for: Option<(Arc<dyn CertificateNames>, Option<String>)>,
}

/// One request, with what is known about it before it is read.
pub(super) struct Asked<'r> {
    pub(super) site: &'r Arc<Site>,
    pub(super) listener: &'r ListenerSite,
    pub(super) index: usize,
    /// By the monotonic clock.
    pub(super) began: Duration,
    pub(super) connection: &'r Connection,
    pub(super) peer: IpAddr,
    pub(super) trusted: bool,
    pub(super) client: ClientAddress,
    pub(super) correlation: &'r Correlation,
}

/// What the access log says of a request beside its status.
pub(super) struct Noted {
    pub(super) route: &'static str,
    pub(super) verdict: &'static str,
    pub(super) target: Option<Target>,
    pub(super) method: Method,
    pub(super) rule: Option<Arc<str>>,
    pub(super) reported: Option<Reported>,
    pub(super) headers: Option<Recorded>,
    pub(super) standing: Option<Box<Standing>>,
    pub(super) credential: Credential,
    pub(super) decided_at: Option<Timestamp>,
    pub(super) identity: Option<Arc<Identity>>,
}

impl Noted {
    /// Before anything is known.
    fn of(route: &'static str, verdict: &'static str, method: &Method) -> Self {
        Self {
            route,
            verdict,
            target: None,
            method: method.clone(),
            rule: None,
            reported: None,
            headers: None,
            standing: None,
            credential: Credential::Settled,
            decided_at: None,
            identity: None,
        }
    }
}

impl ForwardAuth {
    pub(super) async fn respond(
        &self,
        index: usize,
        connection: &Connection,
        request: Request<Incoming>,
    ) -> Response<Body> {
        let peer = connection.peer;
        let _under_way = self.in_flight.enter();
        let began = self.gate.clock.monotonic();
        let site = self.site.load_full();
        let Some(listener) = site.listener(index) else {
            // A reload never takes a listener away; were it to, nothing may pass.
            return status(StatusCode::SERVICE_UNAVAILABLE);
        };
        let trusted = listener.trusts(peer);
        let correlation = self.gate.correlation(request.headers(), trusted);
        let asked = Asked {
            site: &site,
            listener,
            index,
            began,
            connection,
            peer,
            trusted,
            client: client_address(peer, request.headers(), &listener.trusted_proxies),
            correlation: &correlation,
        };
        // hyper reads on where a body was left unread, before the answer is out: of whoever never reads, answers would heap up without end. HTTP/2 has windows, and the
        // portal reads bodies.
        let is_read = trusted && dialect::of(request.uri().path()).is_none();
        let is_last = !is_read && request.version() < Version::HTTP_2 && !request.body().is_end_stream();
        let (mut response, noted) = self.answered(&asked, request).await;
        if is_last {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.headers_mut().insert(X_REQUEST_ID, correlation.request_id.clone());
        self.note(&asked, &noted, response.status(), self.gate.clock.monotonic().saturating_sub(began));
        response
    }

    async fn answered(&self, asked: &Asked<'_>, request: Request<Incoming>) -> (Response<Body>, Noted) {
        let dialect = dialect::of(request.uri().path());
        if let Some(dialect) = dialect
            && request.method() != Method::CONNECT
        {
            let (parts, _unread) = request.into_parts();
            return self.question(asked, dialect, &parts).await;
        }
        let noted = Noted::of("portal", "portal", request.method());
        if request.uri().path() == "/healthz" && matches!(*request.method(), Method::GET | Method::HEAD) {
            return (Response::new(Body::from("ok\n")), Noted { route: "healthz", ..noted });
        }
        match self.to_portal(asked, request) {
            // Boxed, so that a proxy's question does not carry the room that the portal needs.
            Ok((target, request)) => {
                (Box::pin(self.by_portal(asked, request)).await, Noted { target: Some(target), ..noted })
            }
            Err(verdict) => {
                let outcome = Outcome::undecided(verdict);
                let response = asked.tell(&outcome, Dialect::Edge, None, None);
                (response, Noted { route: "none", verdict: outcome.verdict.as_str(), ..noted })
            }
        }
    }

    /// The portal's answer. It reads a request's body as a whole: one that trickles in would hold a connection for ever.
    async fn by_portal(&self, asked: &Asked<'_>, request: Request<Incoming>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = match time::timeout(BODY_TIME, body::whole(body)).await {
            Ok(Ok(Some(body))) => Body::from(body),
            Ok(Ok(None)) => return asked.plain(StatusCode::PAYLOAD_TOO_LARGE),
            Ok(Err(_)) => return asked.plain(StatusCode::BAD_REQUEST),
            Err(_) => return asked.plain(StatusCode::REQUEST_TIMEOUT),
        };
        match self.portal.clone().oneshot(Request::from_parts(parts, body)).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// A question of a proxy.
    async fn question(&self, asked: &Asked<'_>, dialect: Dialect, request: &Parts) -> (Response<Body>, Noted) {
        let mut noted = Noted::of("forward_auth", "refuse", &request.method);
        if !asked.trusted {
            self.log_stranger(asked);
            return (status(StatusCode::FORBIDDEN), noted);
        }
        let (outcome, facts, portal) = match self.described(asked, dialect, request) {
            Ok((facts, portal)) => (self.gate.check(asked.site, &facts).await, Some(facts), portal),
            Err(rejection) => {
                let verdict = Verdict::Reject(rejection);
                (Outcome::undecided(verdict), None, None)
            }
        };
        noted.verdict = outcome.verdict.as_str();
        let response = match (&outcome.verdict, &facts) {
            (Verdict::Forward(_), Some(facts)) => asked.permit(&outcome, facts),
            _ => asked.tell(&outcome, dialect, facts.as_ref(), portal.as_deref()),
        };
        if let Some(facts) = facts {
            noted.method = Method::from_bytes(facts.method.as_bytes()).unwrap_or(noted.method);
            noted.target = Some(facts.target);
        }
        noted.rule = outcome.rule;
        noted.reported = outcome.reported;
        noted.headers = outcome.headers;
        noted.standing = outcome.standing;
        noted.credential = outcome.credential;
        noted.decided_at = outcome.decided_at;
        noted.identity = outcome.identity;
        (response, noted)
    }

    fn described<'r>(
        &self,
        asked: &Asked<'_>,
        dialect: Dialect,
        request: &'r Parts,
    ) -> Result<(Facts<'r>, Option<String>), Rejection> {
        if has_respelled(&request.headers, &asked.listener.headers) {
            self.metrics.headers_stripped(1);
            return Err(Rejection::Respelled);
        }
        let described = dialect::describe(dialect, request, asked.listener_scheme(), asked.site.encoded_slashes)?;
        let facts = Facts {
            role: Role::ForwardAuth,
            began: asked.began,
            listener: asked.index,
            target: described.target,
            method: described.method,
            headers: &request.headers,
            peer: asked.peer,
            peer_trusted: asked.trusted,
            client: asked.client,
            credentials_from: dialect::credentials(dialect, request),
        };
        Ok((facts, described.portal))
    }

    /// The request as the portal takes it: its path inside the portal, and how it came.
    fn to_portal(&self, asked: &Asked<'_>, request: Request<Incoming>) -> Result<(Target, Request<Incoming>), Verdict> {
        let (mut parts, body) = request.into_parts();
        let target = portal_target(asked, &parts).map_err(Verdict::Reject)?;
        if asked.is_misdirected(&target) {
            return Err(Verdict::Reject(Rejection::Misdirected));
        }
        let inside = match asked.site.portal_path(&target) {
            Some(path) => path,
            None if target.path() == "/.well-known/jwks.json" => target.path(),
            None => return Err(Verdict::Reject(Rejection::NoRoute)),
        };
        self.gate.admit(asked.client).map_err(|retry_after| Verdict::SlowDown { retry_after })?;
        parts.uri = portal::uri_inside(inside, target.query()).ok_or(Verdict::Reject(Rejection::NoRoute))?;
        parts.extensions.insert(Arrival {
            site: Arc::clone(asked.site),
            target: target.clone(),
            peer: asked.peer,
            client: asked.client,
            request_id: asked.correlation.request_id().to_owned(),
        });
        Ok((target, Request::from_parts(parts, body)))
    }

    fn log_stranger(&self, asked: &Asked<'_>) {
        let now = self.gate.clock.now().unix_millis();
        let last = self.stranger_logged_at.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(last) >= STRANGER_QUIET_MILLIS;
        if is_due && self.stranger_logged_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(
                peer = %asked.peer,
                "asked by a peer that is not a trusted proxy: answered 403. If it is your proxy, add {}/{} to server.listeners[{}].trusted_proxies",
                asked.peer,
                if asked.peer.is_ipv4() { 32 } else { 128 },
                asked.index,
            );
        }
    }

    fn note(&self, asked: &Asked<'_>, noted: &Noted, status: StatusCode, took: Duration) {
        self.metrics.request(Role::ForwardAuth, noted.route, noted.method.as_str(), status, took);
        if self.access_log.is_off() {
            return;
        }
        self.access_log.record(&Entry {
            at: self.gate.clock.now(),
            role: Role::ForwardAuth.as_str(),
            request_id: asked.correlation.request_id(),
            trace_id: asked.correlation.trace_id(),
            client: asked.client.known(),
            caller: noted.identity.as_deref(),
            method: noted.method.as_str(),
            target: noted.target.as_ref(),
            route: noted.route,
            rule: noted.rule.as_deref(),
            verdict: noted.verdict,
            reported: noted.reported.as_ref(),
            limit: noted.standing.as_ref().and_then(|standing| standing.stopped_by()),
            reported_limit: noted.standing.as_ref().and_then(|standing| standing.reported()),
            headers: noted.headers.as_ref(),
            credential: noted.credential,
            decided_at: noted.decided_at,
            rules: &asked.site.rules,
            status: status.as_u16(),
            took,
        });
    }
}

impl Asked<'_> {
    pub(super) fn listener_scheme(&self) -> Scheme {
        if self.listener.tls { Scheme::Https } else { Scheme::Http }
    }

    /// THREATS 16. A trusted proxy's connection is its own: it answers for the certificates that its clients see, and reaches us by
    /// whatever name it likes.
    fn is_misdirected(&self, target: &Target) -> bool {
        let asked_for = self.connection.asked_for.as_ref();
        let is_misdirected =
            asked_for.is_some_and(|(names, name)| names.is_misdirected(name.as_deref(), target.host()));
        is_misdirected && !self.trusted
    }
}

/// The portal's own target: `Host`, and the scheme by which the client came, as a trusted proxy says.
fn portal_target(asked: &Asked<'_>, request: &Parts) -> Result<Target, Rejection> {
    if request.method == Method::CONNECT {
        return Err(Rejection::Connect);
    }
    let mut told = request.headers.get_all(X_FORWARDED_PROTO).iter();
    let scheme = match (told.next(), told.next()) {
        (Some(_), Some(_)) if asked.trusted => return Err(Rejection::Repeated("x-forwarded-proto")),
        (Some(text), None) if asked.trusted => text.to_str().ok().and_then(Scheme::parse).ok_or(Rejection::Scheme)?,
        _ => asked.listener_scheme(),
    };
    let raw = request.uri.path_and_query().map_or("/", |raw| raw.as_str());
    Target::parse(scheme, authority(request)?, raw)
}

/// The one authority of a request: `Host`, or that of its target (HTTP/2, absolute form); where both are there they must
/// be equal (RFC 9112 §3.2.2; THREATS 14, 15).
pub(super) fn authority(request: &Parts) -> Result<&str, Rejection> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next().map(|host| host.to_str().map_err(|_| Rejection::Host)).transpose()?;
    if hosts.next().is_some() {
        return Err(Rejection::Host);
    }
    match (host, request.uri.authority().map(http::uri::Authority::as_str)) {
        (Some(host), Some(authority)) if !host.eq_ignore_ascii_case(authority) => Err(Rejection::Host),
        (_, Some(authority)) => Ok(authority),
        (Some(host), None) => Ok(host),
        (None, None) => Err(Rejection::Host),
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
