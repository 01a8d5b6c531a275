//! What is known of one request while it runs: made when its header was read, dropped after its log line.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use super::{streams::Open, upgrade::Handshake};
use crate::{
    core::{
        client_ip::ClientAddress,
        decision::Permit,
        ground::Ground,
        header::Correlation,
        identity::Identity,
        policy::{Recorded, Reported},
        quota::Standing,
        route::Route,
        site::{ListenerSite, Site},
        target::{EncodedSlashes, Target},
        time::Timestamp,
        verdict::{Credential, Rejection},
    },
    gate::in_flight::Guard,
};

pub(super) struct Context {
    /// The configuration that this request sees from its first byte to its last.
    pub(super) site: Arc<Site>,
    pub(super) listener: usize,
    /// Counts this request until it is dropped.
    pub(super) _under_way: Guard,
    pub(super) started: Duration,
    /// Why the request was refused before it was parsed; what is seen of it is a part.
    pub(super) head_fault: Option<Rejection>,
    /// Leave to go on. Starts empty, and while it is empty no upstream is chosen: fail closed.
    pub(super) permit: Option<Permit>,
    pub(super) correlation: Option<Correlation>,
    pub(super) client: ClientAddress,
    pub(super) target: Option<Target>,
    pub(super) route: Option<Arc<Route>>,
    pub(super) identity: Option<Arc<Identity>>,
    /// Until the request goes on.
    pub(super) ground: Ground,
    pub(super) rule: Option<Arc<str>>,
    pub(super) reported: Option<Reported>,
    /// As in `Outcome`.
    pub(super) roles: Option<Box<str>>,
    pub(super) headers: Option<Recorded>,
    /// As in `Outcome`.
    pub(super) standing: Option<Box<Standing>>,
    pub(super) credential: Credential,
    pub(super) decided_at: Option<Timestamp>,
    /// Of a WebSocket, once an upstream was chosen.
    pub(super) handshake: Option<Arc<Handshake>>,
    pub(super) verdict: &'static str,
    pub(super) is_portal: bool,
    pub(super) is_page_load: bool,
    pub(super) is_websocket: bool,
    pub(super) carries_our_token: bool,
    /// Addresses still to be tried, the next one last, each with its server's place in the upstream.
    pub(super) candidates: Option<Vec<(usize, SocketAddr)>>,
    /// The server asked last.
    pub(super) server: Option<usize>,
    /// What the upstream said, if it said something.
    pub(super) upstream_status: Option<http::StatusCode>,
    /// Of a request that an identity let through.
    pub(super) open: Option<Open>,
    pub(super) is_recorded: bool,
}

impl Context {
    pub(super) fn new(site: Arc<Site>, listener: usize, under_way: Guard, started: Duration) -> Self {
        Self {
            site,
            listener,
            _under_way: under_way,
            started,
            head_fault: None,
            permit: None,
            correlation: None,
            client: ClientAddress::Unknown,
            target: None,
            route: None,
            identity: None,
            ground: Ground::default(),
            rule: None,
            reported: None,
            roles: None,
            headers: None,
            standing: None,
            credential: Credential::Settled,
            decided_at: None,
            handshake: None,
            verdict: "reject",
            is_portal: false,
            is_page_load: false,
            is_websocket: false,
            carries_our_token: false,
            candidates: None,
            server: None,
            upstream_status: None,
            open: None,
            is_recorded: false,
        }
    }

    pub(super) fn listener(&self) -> Option<&ListenerSite> {
        self.site.listener(self.listener)
    }

    /// Whether a target may hold an encoded slash, as far as can be said before its route is known.
    pub(super) fn slashes(&self) -> EncodedSlashes {
        self.site.widest_slashes()
    }

    pub(super) fn request_id(&self) -> &str {
        self.correlation.as_ref().map_or("", Correlation::request_id)
    }

    /// The third field of W3C Trace Context's `traceparent` begins after 36 characters; the trace id is the second.
    pub(super) fn trace_id(&self) -> &str {
        let parent = self.correlation.as_ref().and_then(|correlation| correlation.traceparent.to_str().ok());
        parent.and_then(|parent| parent.split('-').nth(1)).unwrap_or_default()
    }

    /// The label of metrics and logs: bounded by the configuration.
    pub(super) fn route_label(&self) -> &str {
        match &self.route {
            _ if self.is_portal => "portal",
            Some(route) => &route.name,
            None => "none",
        }
    }
}
