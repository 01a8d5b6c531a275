//! What stands towards browsers: Postern's own edge, or a proxy that asks it. The same journeys are made through each.

use super::{
    DOMAIN,
    port::Port,
    proxy::{Kind, Proxy},
    server::{POLICIES, Server, Setup},
    upstream::Upstream,
    wire::{self, Reply, Request},
};

pub(crate) struct Front {
    pub(crate) server: Server,
    pub(crate) upstream: Upstream,
    proxy: Option<(Kind, Proxy)>,
}

impl Front {
    pub(crate) async fn edge() -> Self {
        let upstream = Upstream::start().await;
        let server = Setup::with(&upstream).start().await;
        Self { server, upstream, proxy: None }
    }

    pub(crate) async fn behind(kind: Kind) -> Self {
        Self::behind_with(kind, POLICIES).await
    }

    /// Under other rules.
    pub(crate) async fn behind_with(kind: Kind, policies: &str) -> Self {
        let upstream = Upstream::start().await;
        let port = Port::free();
        let server = Setup::with(&upstream).policies(policies).behind(&port).start().await;
        let proxy = Proxy::start(kind, port, server.forward_auth(), upstream.port()).await;
        Self { server, upstream, proxy: Some((kind, proxy)) }
    }

    pub(crate) fn port(&self) -> u16 {
        self.proxy.as_ref().map_or(self.server.edge(), |(_, proxy)| proxy.port.number())
    }

    /// To an edge and to Caddy, `Proxy-Authorization` is a hop's own: taken out before anybody is asked.
    pub(crate) fn reads_proxy_authorization(&self) -> bool {
        self.proxy.as_ref().is_some_and(|(kind, _)| *kind != Kind::Caddy)
    }

    /// Traefik takes `.` and `..` out of a path before it asks: Postern never sees them, and no more does the application.
    pub(crate) fn cleans_paths(&self) -> bool {
        self.proxy.as_ref().is_some_and(|(kind, _)| *kind == Kind::Traefik)
    }

    /// The absolute URL of a path of the application.
    pub(crate) fn app(&self, path: &str) -> String {
        format!("http://app.{DOMAIN}:{}{path}", self.port())
    }

    pub(crate) fn portal(&self, path: &str) -> String {
        format!("http://auth.{DOMAIN}:{}{path}", self.port())
    }

    /// To the application, byte for byte.
    pub(crate) async fn send(&self, request: Request) -> Reply {
        wire::send(self.port(), &request.host(self.server.app()).bytes()).await
    }
}
