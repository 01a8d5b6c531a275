//! Accepts connections on our own runtime, without pingora's `Server` (which sleeps through its grace period and calls
//! `process::exit`). Called by `serve` alone. Bounds what a connection may cost before a request is understood:
//! how many there are (`places`), how long a header may take, how large it is on HTTP/2.

use std::{
    any::Any,
    os::fd::IntoRawFd,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use pingora::{
    apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    listeners::{TlsAccept, tls::TlsSettings},
    protocols::{
        ALPN, Stream,
        http::{
            ServerSession,
            v2::server::{H2Options, default_h2_options},
        },
        tls::TlsRef,
    },
    proxy::{HttpProxy, http_proxy},
    server::{Fds, ListenFds, ShutdownWatch, configuration::ServerConf},
    services::{Service as _, listening::Service},
};
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, Sleep, sleep, timeout},
};

use crate::core::certificate::CertificateNames;

use super::{
    Edge, Tls,
    head::{self, Head},
    line::{Line, until_ended},
    places::Places,
    service::Proxy,
};

/// From the connection to the end of the first request's header.
const FIRST_HEADER: Duration = Duration::from_secs(30);
/// From the last answer to the end of the next request's header: the idle time of a kept connection included. More than the
/// 60 s after which load balancers let go, so that it is never we who close under their hands.
const NEXT_HEADER: Duration = Duration::from_secs(75);
/// For a connection's last words.
const GOODBYE: Duration = Duration::from_secs(2);
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
    let names = tls.as_ref().map(|tls| Arc::clone(&tls.names));
    let places = Places { edge: Arc::clone(&edge), listener: index };
    let proxy = Arc::new(proxy(edge, index, names));
    let mut service = match tls.map(settings).transpose() {
        Ok(Some(settings)) => {
            let mut service = Service::new(format!("edge {address}"), Door { proxy, places: None });
            service.endpoints().set_pre_tls_callback(Arc::new(places));
            service.add_tls_with_settings(&address, None, settings);
            service
        }
        Ok(None) => {
            let mut service = Service::new(format!("edge {address}"), Door { proxy, places: Some(places) });
            service.add_tcp(&address);
            service
        }
        Err(error) => {
            tracing::error!(%error, %address, "TLS of a listener cannot be set up");
            return;
        }
    };
    let mut sockets = Fds::new();
    sockets.add(address, socket.into_raw_fd());
    let sockets: ListenFds = Arc::new(sockets.into());
    service.start_service(Some(sockets), shutdown, 1).await;
}

fn proxy(edge: Arc<Edge>, index: usize, names: Option<Arc<dyn CertificateNames>>) -> HttpProxy<Proxy> {
    let settings = ServerConf { upstream_keepalive_pool_size: UPSTREAM_POOL, ..ServerConf::default() };
    let mut proxy = http_proxy(&Arc::new(settings), Proxy::new(edge, index, names));
    let mut options = HttpServerOptions::default();
    options.h2_idle_timeout = Some(NEXT_HEADER);
    proxy.server_options = Some(options);
    let mut h2: H2Options = default_h2_options();
    // Beyond this the codec itself answers 431.
    h2.max_header_list_size(u32::try_from(head::MAX_BYTES).unwrap_or(u32::MAX));
    proxy.h2_options = Some(h2);
    proxy
}

fn settings(tls: Tls) -> pingora::Result<TlsSettings> {
    // No files: the resolver has the certificates, checked when the configuration was loaded.
    let mut settings = TlsSettings::with_callbacks(Box::new(NameKept))?;
    settings.set_cert_resolver(tls.certificates);
    if let Some(client_ca) = tls.client_ca {
        settings.set_client_cert_verifier(client_ca);
    }
    settings.enable_h2();
    Ok(settings)
}

/// Keeps the name that a connection asked for (SNI) beside it, for its requests to be held against.
struct NameKept;

/// What `NameKept` keeps: none where the client named nothing.
pub(super) struct ServerName(pub(super) Option<String>);

#[async_trait]
impl TlsAccept for NameKept {
    async fn handshake_complete_callback(&self, tls: &TlsRef) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(Arc::new(ServerName(tls.server_name().map(str::to_owned))))
    }
}

/// Reads the head of each HTTP/1 request under one deadline. On HTTP/2 the first request must come within
/// that time, and `h2_idle_timeout` bounds the rest.
struct Door {
    proxy: Arc<HttpProxy<Proxy>>,
    /// `None` over TLS, where each connection got its place before the handshake.
    places: Option<Places>,
}

#[async_trait]
impl ServerApp for Door {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _place = match &self.places {
            Some(places) => Some(places.enter(stream.get_socket_digest().as_deref())?),
            None => None,
        };
        // Closed before its place is given back.
        let mut stream = stream;
        if matches!(stream.selected_alpn_proto(), Some(ALPN::H2)) {
            return self.http2(stream, shutdown).await;
        }
        let mut closes = pin!(closes(shutdown.clone()));
        // One a connection, that is set anew where it goes off too soon: to enter one a request among the runtime's timers and to take it out costs more.
        let mut timer = pin!(sleep(FIRST_HEADER));
        let (mut deadline, mut kept) = (timer.deadline(), None);
        let line = Arc::new(Line::default());
        loop {
            let head = tokio::select! {
                // What has come is answered, also while the listener closes.
                biased;
                head = head::read(&mut stream) => head,
                () = reached(timer.as_mut(), deadline) => None,
                () = &mut closes => None,
            };
            let Some(head) = head else {
                // Over TLS it says goodbye first, which a peer that reads nothing would hold up.
                let _ = timeout(GOODBYE, stream.shutdown()).await;
                return None;
            };
            let serving = self.proxy.process_new_http(session(stream, head, kept), shutdown);
            let served = until_ended(&line, serving).await??;
            (stream, kept) = served.consume();
            deadline = after(NEXT_HEADER);
        }
    }

    async fn cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

impl Door {
    /// Pingora waits for the client's preface without a deadline, and counts idle time only from then on.
    async fn http2(&self, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let (first, came) = oneshot::channel();
        let app = Arc::new(Waiting { proxy: Arc::clone(&self.proxy), first: Mutex::new(Some(first)) });
        let mut serving = app.process_new(stream, shutdown);
        tokio::select! {
            biased;
            done = &mut serving => return done,
            came = timeout(FIRST_HEADER, came) => if came.is_err() { return None },
        }
        serving.await
    }
}

/// One HTTP/2 connection, until its first request has come.
struct Waiting {
    proxy: Arc<HttpProxy<Proxy>>,
    first: Mutex<Option<oneshot::Sender<()>>>,
}

#[async_trait]
impl HttpServerApp for Waiting {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        // The drop is the signal.
        drop(self.first.lock().unwrap_or_else(PoisonError::into_inner).take());
        until_ended(&Arc::default(), self.proxy.process_new_http(session, shutdown)).await?
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }
}

/// `kept` is what the connection's request before this one left behind.
fn session(stream: Stream, head: Head, kept: Option<HttpPersistentSettings>) -> ServerSession {
    let mut session = ServerSession::new_http1(stream);
    match kept {
        Some(kept) => kept.apply_to_session(&mut session),
        None => session.set_keepalive(Some(NEXT_HEADER.as_secs())),
    }
    session.set_pipelined_prefix(head.bytes);
    if let Some(fault) = head.fault {
        session.set_connection_user_context(Some(Box::new(fault)));
    }
    session
}

/// Waits until then, by a timer that is set to then or sooner.
async fn reached(mut timer: Pin<&mut Sleep>, deadline: Instant) {
    loop {
        timer.as_mut().await;
        if timer.deadline() >= deadline {
            return;
        }
        timer.as_mut().reset(deadline);
    }
}

#[expect(clippy::disallowed_methods, reason = "the clock of the runtime's timers; tests pause it")]
fn after(time: Duration) -> Instant {
    Instant::now() + time
}

async fn closes(mut shutdown: ShutdownWatch) {
    // An error means that nobody is left who could say so.
    let _ = shutdown.wait_for(|closes| *closes).await;
}
