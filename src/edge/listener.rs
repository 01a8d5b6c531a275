//! Accepts connections on our own runtime, without pingora's `Server` (which sleeps through its grace period and calls
//! `process::exit`). Called by `serve` alone. Bounds what a connection may cost before a request is understood:
//! how many there are, how long a header may take, how large it is on HTTP/2.

use std::{os::fd::IntoRawFd, sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    listeners::tls::TlsSettings,
    protocols::{
        Stream,
        http::{
            ServerSession,
            v2::server::{H2Options, default_h2_options},
        },
    },
    proxy::{HttpProxy, http_proxy},
    server::{Fds, ListenFds, ShutdownWatch, configuration::ServerConf},
    services::{Service as _, listening::Service},
};
use tokio::{
    sync::{Semaphore, oneshot, watch},
    time::timeout,
};

use super::{Edge, Tls, facts::MAX_HEADER_BYTES, service::Proxy};

/// Connections a listener holds at once; one more is closed at once, so that no flood takes every descriptor.
const MAX_CONNECTIONS: usize = 16_384;
/// From the connection to the end of the first request's header.
const FIRST_HEADER: Duration = Duration::from_secs(30);
/// From the last answer to the end of the next request's header: the idle time of a kept connection included. More than the
/// 60 s after which load balancers let go, so that it is never we who close under their hands.
const NEXT_HEADER: Duration = Duration::from_secs(75);
/// Upstream connections kept for reuse.
const UPSTREAM_POOL: usize = 1024;

pub(super) async fn run(
    edge: Arc<Edge>,
    index: usize,
    socket: std::net::TcpListener,
    tls: Option<Tls>,
    shutdown: watch::Receiver<bool>,
) {
    let address = match socket.set_nonblocking(true).and_then(|()| socket.local_addr()) {
        Ok(address) => address.to_string(),
        Err(error) => {
            tracing::error!(%error, "a listener cannot be used");
            return;
        }
    };
    let hall = Arc::new(Hall { proxy: Arc::new(proxy(edge, index)) });
    let door = Door { hall, free: Arc::new(Semaphore::new(MAX_CONNECTIONS)) };
    let mut service = Service::new(format!("edge {address}"), door);
    match tls.map(settings).transpose() {
        Ok(Some(settings)) => service.add_tls_with_settings(&address, None, settings),
        Ok(None) => service.add_tcp(&address),
        Err(error) => {
            tracing::error!(%error, %address, "TLS of a listener cannot be set up");
            return;
        }
    }
    let mut sockets = Fds::new();
    sockets.add(address, socket.into_raw_fd());
    let sockets: ListenFds = Arc::new(sockets.into());
    service.start_service(Some(sockets), shutdown, 1).await;
}

fn proxy(edge: Arc<Edge>, index: usize) -> HttpProxy<Proxy> {
    let settings = ServerConf { upstream_keepalive_pool_size: UPSTREAM_POOL, ..ServerConf::default() };
    let mut proxy = http_proxy(&Arc::new(settings), Proxy::new(edge, index));
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(NEXT_HEADER);
    proxy.server_options = Some(options);
    let mut h2: H2Options = default_h2_options();
    // Beyond this the codec itself answers 431.
    h2.max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX));
    proxy.h2_options = Some(h2);
    proxy
}

fn settings(tls: Tls) -> pingora::Result<TlsSettings> {
    // No files: the resolver has the certificates, checked when the configuration was loaded.
    let mut settings = TlsSettings::intermediate("", "")?;
    settings.set_cert_resolver(tls.certificates);
    if let Some(client_ca) = tls.client_ca {
        settings.set_client_cert_verifier(client_ca);
    }
    settings.enable_h2();
    Ok(settings)
}

/// Counts connections.
struct Door {
    hall: Arc<Hall>,
    free: Arc<Semaphore>,
}

#[async_trait]
impl ServerApp for Door {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let Ok(_place) = Arc::clone(&self.free).try_acquire_owned() else {
            tracing::debug!("too many connections: one was closed");
            return None;
        };
        self.hall.process_new(stream, shutdown).await
    }

    async fn cleanup(&self) {
        self.hall.http_cleanup().await;
    }
}

/// Puts a deadline over the whole of an HTTP/1 header: pingora's own is one a read, so that one header a second would hold a
/// connection for ever. On HTTP/2 a request comes here with its header read, and `h2_idle_timeout` bounds the rest.
struct Hall {
    proxy: Arc<HttpProxy<Proxy>>,
}

/// Dropped by [`Proxy`] once the header was read; rides in the connection's user context.
pub(super) struct HeaderPending(#[expect(dead_code, reason = "its drop is the signal")] oneshot::Sender<()>);

#[async_trait]
impl HttpServerApp for Hall {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        if session.is_http2() {
            return self.proxy.process_new_http(session, shutdown).await;
        }
        // A connection that served a request before carries the mark of `Proxy::persist_connection_context`.
        let limit = if session.take_connection_user_context().is_some() { NEXT_HEADER } else { FIRST_HEADER };
        let (pending, header_read) = oneshot::channel();
        session.set_connection_user_context(Some(Box::new(HeaderPending(pending))));
        let mut serving = self.proxy.process_new_http(session, shutdown);
        tokio::select! {
            biased;
            done = &mut serving => return done,
            read = timeout(limit, header_read) => if read.is_err() { return None },
        }
        serving.await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
