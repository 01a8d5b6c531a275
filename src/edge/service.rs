//! The phases of a proxied request, in the order in which pingora calls them. Each names what it does; the doing is in the
//! modules beside. `request_filter` of pingora is open by default (`Ok(false)` goes on), so it is not what guards: the permit in
//! the context is, and `upstream_peer` refuses without one.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Method, Response, StatusCode};
use pingora::{
    Error, ErrorType, Result,
    http::{RequestHeader, ResponseHeader},
    proxy::{FailToProxy, ProxyHttp, Session},
    upstreams::peer::HttpPeer,
};

use crate::{
    core::{
        certificate::CertificateNames,
        request::Role,
        site::Mount,
        target::{ENCODED_SLASH, Target},
        time::Timestamp,
        verdict::{Rejection, Verdict},
    },
    observe::access_log::Entry,
};

use super::{
    Edge, bridge,
    context::Context,
    facts,
    forward::{self, Addresses},
    listener::ServerName,
    respond,
    streams::Open,
};

/// One listener's proxy.
pub(super) struct Proxy {
    edge: Arc<Edge>,
    index: usize,
    /// Of a listener with TLS.
    names: Option<Arc<dyn CertificateNames>>,
    portal: axum::Router,
    addresses: Addresses,
}

/// What becomes of a request.
enum Step {
    Answer(Response<Bytes>),
    GoOn,
}

impl Proxy {
    pub(super) fn new(edge: Arc<Edge>, index: usize, names: Option<Arc<dyn CertificateNames>>) -> Self {
        let portal = bridge::guarded(&edge.portal);
        Self { edge, index, names, portal, addresses: Addresses::default() }
    }

    async fn step(&self, session: &mut Session, context: &mut Context) -> Result<Step> {
        let trusted = facts::peer(session).zip(context.listener()).is_some_and(|(peer, here)| here.trusts(peer));
        context.correlation = Some(self.edge.gate.correlation(&session.req_header().headers, trusted));
        let read =
            facts::read(session, context).and_then(|target| self.well_directed(session, context, target, trusted));
        let target = match read {
            Ok(target) => target,
            Err(rejection) => {
                // What comes behind it on the same connection may be the rest of it.
                session.set_keepalive(None);
                return Ok(Step::Answer(respond::rejection(context, rejection)));
            }
        };
        if installs_service_worker(session, context) {
            let verdict = Verdict::Reject(Rejection::ServiceWorker);
            let facts = facts::facts(session, context, target);
            let answer = respond::verdict(context, &facts, &verdict, self.now());
            context.target = Some(facts.target);
            return Ok(Step::Answer(answer));
        }
        if let Some(path) = context.site.portal_path(&target).map(str::to_owned) {
            context.target = Some(target.clone());
            if target.has_encoded_slash() {
                session.set_keepalive(None);
                return Ok(Step::Answer(respond::rejection(context, ENCODED_SLASH)));
            }
            // Boxed, so that a request on its way to an application does not carry the room that the portal needs.
            return Box::pin(self.by_portal(session, context, target, &path)).await.map(Step::Answer);
        }
        Ok(self.by_gate(session, context, target).await)
    }

    /// THREATS 16. A trusted proxy's connection is its own: it answers for the certificates that its clients see, and reaches us by
    /// whatever name it likes.
    fn well_directed(
        &self,
        session: &Session,
        context: &mut Context,
        target: Target,
        trusted: bool,
    ) -> Result<Target, Rejection> {
        let is_misdirected = self.names.as_deref().is_some_and(|names| {
            // A connection that nothing is known of cannot be right for any host.
            facts::server_name(session)
                .is_none_or(|ServerName(name)| names.is_misdirected(name.as_deref(), target.host()))
        });
        if is_misdirected && !trusted {
            context.target = Some(target);
            return Err(Rejection::Misdirected);
        }
        Ok(target)
    }

    async fn by_portal(
        &self,
        session: &mut Session,
        context: &mut Context,
        target: Target,
        path: &str,
    ) -> Result<Response<Bytes>> {
        context.is_portal = true;
        if let Err(retry_after) = self.edge.gate.admit(context.client) {
            let verdict = Verdict::SlowDown { retry_after };
            context.verdict = verdict.as_str();
            return Ok(respond::verdict(context, &facts::facts(session, context, target), &verdict, self.now()));
        }
        context.verdict = "portal";
        bridge::answer(session, context, &target, path, &self.portal).await
    }

    async fn by_gate(&self, session: &Session, context: &mut Context, target: Target) -> Step {
        let facts = facts::facts(session, context, target);
        let site = Arc::clone(&context.site);
        let outcome = self.edge.gate.check(&site, &facts).await;
        context.verdict = outcome.verdict.as_str();
        context.rule = outcome.rule;
        context.route = outcome.route;
        context.reported = outcome.reported;
        context.headers = outcome.headers;
        context.standing = outcome.standing;
        context.credential = outcome.credential;
        context.decided_at = outcome.decided_at;
        context.identity = outcome.identity;
        context.ground = outcome.ground;
        context.roles = outcome.roles;
        context.carries_our_token = outcome.carries_our_token;
        if let Verdict::Forward(permit) = outcome.verdict {
            context.permit = Some(permit);
            context.target = Some(facts.target);
            return Step::GoOn;
        }
        let answer = respond::verdict(context, &facts, &outcome.verdict, self.now());
        context.target = Some(facts.target);
        Step::Answer(answer)
    }

    fn now(&self) -> Timestamp {
        self.edge.gate.clock.now()
    }
}

impl Edge {
    /// One line of the access log, and the counters. `status`: what the client was told; none where it was told nothing.
    pub(super) fn record(&self, context: &Context, method: &Method, status: Option<StatusCode>) {
        let status = status.unwrap_or(StatusCode::from_u16(499).unwrap_or_default());
        let method = method.as_str();
        let took = self.gate.clock.monotonic().saturating_sub(context.started);
        self.metrics.request(Role::Edge, context.route_label(), method, status, took);
        if let (Some(server), Some(status)) = (forward::server(context), context.upstream_status) {
            let upstream = context.route.as_ref().map_or("", |route| route.upstream.name.as_str());
            self.metrics.upstream_request(upstream, &server.label, status);
        }
        if self.access_log.is_off() {
            return;
        }
        self.access_log.record(&Entry {
            at: self.gate.clock.now(),
            role: Role::Edge.as_str(),
            request_id: context.request_id(),
            trace_id: context.trace_id(),
            client: context.client.known(),
            caller: context.identity.as_deref(),
            method,
            target: context.target.as_ref(),
            route: context.route_label(),
            rule: context.rule.as_deref(),
            verdict: context.verdict,
            reported: context.reported.as_ref(),
            limit: context.standing.as_ref().and_then(|standing| standing.stopped_by()),
            reported_limit: context.standing.as_ref().and_then(|standing| standing.reported()),
            headers: context.headers.as_ref(),
            credential: context.credential,
            decided_at: context.decided_at,
            rules: &context.site.rules,
            status: status.as_u16(),
            took,
        });
    }
}

/// THREATS 63: below `portal.path` the portal shares its origin with an app, whose service worker would see its passwords.
fn installs_service_worker(session: &Session, context: &Context) -> bool {
    matches!(context.site.portal.mount, Mount::Path(_))
        && session
            .req_header()
            .headers
            .get_all("service-worker")
            .iter()
            .any(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"script"))
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        let started = self.edge.gate.clock.monotonic();
        Context::new(self.edge.site.load_full(), self.index, self.edge.in_flight.enter(), started)
    }

    async fn request_filter(&self, session: &mut Session, context: &mut Context) -> Result<bool> {
        forward::limit_times(session);
        match self.step(session, context).await? {
            Step::GoOn => {
                context.open = Open::of(&self.edge, session, context)?;
                Ok(false)
            }
            Step::Answer(response) => respond::write(session, context, response).await.map(|()| true),
        }
    }

    async fn upstream_peer(&self, session: &mut Session, context: &mut Context) -> Result<Box<HttpPeer>> {
        // The guard (invariant 1): whatever the phases before did or forgot, nothing goes on without a permit.
        let (Some(_), Some(route)) = (&context.permit, context.route.clone()) else {
            return Error::e_explain(ErrorType::HTTPStatus(500), "no permit");
        };
        // When it began: names are kept for seconds, and the clock has a price.
        let now = context.started;
        forward::peer(&self.addresses, now, session, context, &route).await
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Context,
    ) -> Result<()> {
        let stripped = forward::prepare(session, request, context)?;
        self.edge.metrics.headers_stripped(stripped);
        Ok(())
    }

    fn fail_to_connect(&self, _: &mut Session, _: &HttpPeer, context: &mut Context, error: Box<Error>) -> Box<Error> {
        forward::after_failed_connect(context, error)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> Result<()> {
        forward::note_handshake(session, response.status, context);
        forward::clean_answer(response, context)
    }

    async fn fail_to_proxy(&self, session: &mut Session, error: &Error, context: &mut Context) -> FailToProxy {
        let code = forward::failure(session, error, context).await;
        FailToProxy { error_code: code, can_reuse_downstream: false }
    }

    /// Ours is written by `fail_to_proxy`, with the request id and at a level that fits: a client that goes away is no error.
    fn suppress_error_log(&self, _session: &Session, _context: &Context, _error: &Error) -> bool {
        true
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, context: &mut Context) {
        context.is_recorded = true;
        let status = session.response_written().map(|head| head.status);
        self.edge.record(context, &session.req_header().method, status);
    }

    /// The listener's word about the head that it read, where it has one.
    fn on_connection_reuse(&self, _: &mut Session, context: &mut Context, fault: Box<dyn Any + Send + Sync>) {
        context.head_fault = fault.downcast::<Rejection>().ok().map(|fault| *fault);
    }
}
