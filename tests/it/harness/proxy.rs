//! A proxy that asks Postern: one of the samples of `deploy/`, run as it stands but for its addresses.

use tempfile::TempDir;

use super::{caddy, envoy, haproxy, nginx, port::Port, program::Program, traefik};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Caddy,
    Haproxy,
    Envoy,
    Traefik,
}

pub(crate) struct Proxy {
    pub(crate) port: Port,
    /// Before the folder: fields are dropped in order.
    pub(crate) _program: Program,
    pub(crate) _folder: TempDir,
}

impl Proxy {
    pub(crate) async fn start(kind: Kind, port: Port, postern: u16, app: u16) -> Self {
        match kind {
            Kind::Nginx => nginx::start(port, postern, app).await,
            Kind::Caddy => caddy::start(port, postern, app).await,
            Kind::Haproxy => haproxy::start(port, postern, app).await,
            Kind::Envoy => envoy::start(port, postern, app).await,
            Kind::Traefik => traefik::start(port, postern, app).await,
        }
    }
}
