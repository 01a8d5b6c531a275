//! The role `forward_auth`: answers other proxies (CONTRACT 5), and serves the portal. On hyper, since it proxies nothing.
//!
//! `listener` accepts and bounds connections, `service` finds what a request is for, `body` reads what the portal is sent, `dialect/` reads how a proxy describes the request
//! it asks about, `respond` tells it the verdict. Nothing here decides: that is `Gate::check`.

mod body;
mod deadline;
mod dialect;
mod listener;
mod respond;
mod service;

use std::sync::{Arc, atomic::AtomicI64};

use rustls::ServerConfig;
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    core::{certificate::CertificateNames, site::CurrentSite},
    gate::{Gate, connections::Connections, in_flight::InFlight},
    observe::{access_log::AccessLog, metrics::Metrics},
};

/// What every `forward_auth` listener of a process shares.
pub struct ForwardAuth {
    pub site: Arc<CurrentSite>,
    pub gate: Arc<Gate>,
    pub portal: axum::Router,
    pub metrics: Arc<Metrics>,
    pub access_log: Arc<AccessLog>,
    pub in_flight: InFlight,
    pub connections: Arc<Connections>,
    /// When a stranger was last told off in the log, in Unix milliseconds: a flood of them must not flood the log.
    pub stranger_logged_at: AtomicI64,
}

/// TLS of a listener; what stands behind both looks at what is in force, so certificates are reloaded without a restart.
pub struct Tls {
    pub config: Arc<ServerConfig>,
    pub names: Arc<dyn CertificateNames>,
}

/// Serves one listener until `shutdown` turns true, then lets requests under way end. `index` is the listener's place in
/// `Site::listeners`. The socket is bound already.
#[must_use]
pub fn serve(
    forward_auth: Arc<ForwardAuth>,
    index: usize,
    socket: std::net::TcpListener,
    tls: Option<Tls>,
    shutdown: watch::Receiver<bool>,
) -> JoinHandle<()> {
    tokio::spawn(listener::run(forward_auth, index, socket, tls, shutdown))
}

#[cfg(test)]
mod tests;
