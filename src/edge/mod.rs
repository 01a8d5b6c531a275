//! The role `edge`: the reverse proxy itself, and the only folder that knows pingora.
//!
//! A request walks through it like this: `listener` accepts as many as `places` has room for, `head` reads, `service` has the phases, `facts` reads what came, the gate decides,
//! `forward` passes it on or `respond` answers; `bridge` hands over to the portal. `streams` ends what is open once its session is over. Nothing here decides who may pass, and
//! without a `Permit` from the gate no upstream is chosen.

mod bridge;
mod context;
mod facts;
mod forward;
mod head;
mod line;
mod listener;
mod names;
mod places;
mod respond;
mod service;
mod streams;
mod upgrade;

use std::sync::Arc;

use rustls::server::{ResolvesServerCert, danger::ClientCertVerifier};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    core::{certificate::CertificateNames, site::CurrentSite},
    gate::{Gate, connections::Connections, in_flight::InFlight},
    observe::{access_log::AccessLog, metrics::Metrics},
};

pub use streams::Streams;

/// What every edge listener of a process shares.
pub struct Edge {
    pub site: Arc<CurrentSite>,
    pub gate: Arc<Gate>,
    pub portal: axum::Router,
    pub metrics: Arc<Metrics>,
    pub access_log: Arc<AccessLog>,
    pub in_flight: InFlight,
    pub connections: Arc<Connections>,
    pub streams: Streams,
}

/// TLS of a listener; the resolver looks at what is in force, so certificates are reloaded without a restart.
#[derive(Clone)]
pub struct Tls {
    pub certificates: Arc<dyn ResolvesServerCert>,
    pub names: Arc<dyn CertificateNames>,
    pub client_ca: Option<Arc<dyn ClientCertVerifier>>,
}

/// Serves one listener until `shutdown` turns true: then it stops accepting, closes idle connections and lets requests end.
/// The task ends once it accepts no more; requests under way go on, counted by [`Edge::in_flight`].
/// `index` is the listener's place in `Site::listeners`. The socket is bound already (a port in use is found by `app`).
#[must_use]
pub fn serve(
    edge: Arc<Edge>,
    index: usize,
    socket: std::net::TcpListener,
    tls: Option<Tls>,
    shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(listener::run(edge, index, socket, tls, shutdown))
}

/// Ends open streams whose sessions are over, until `shutdown` turns true: to be said after the drain.
#[must_use]
pub fn watch_streams(edge: Arc<Edge>, shutdown: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(streams::watch(edge, shutdown))
}

#[cfg(test)]
mod tests;
