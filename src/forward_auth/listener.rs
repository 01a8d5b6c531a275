//! Accepts connections and bounds what each may cost: headers, time, streams, and how many there are.

use std::{
    convert::Infallible,
    future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hyper::service::service_fn;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{
        conn::auto::Builder,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time,
};
use tokio_rustls::TlsAcceptor;

use super::{ForwardAuth, Tls, deadline::KeptTimer, service::Connection};
use crate::core::certificate::CertificateNames;

/// Over the whole header section of a request; more is 431.
const MOST_HEADER_BYTES: usize = 64 * 1024;
const MOST_HEADERS: usize = 200;
/// From the connection to the end of its first request's header (slow-loris).
const FIRST_HEADER: Duration = Duration::from_secs(10);
/// From the last answer to the end of the next request's header: the idle time of a kept connection included. More than the
/// 60 s after which NGINX lets go of its own, so that we do not close just when it asks.
const NEXT_HEADER: Duration = Duration::from_secs(75);
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);
/// HTTP/2 requests of one connection at once.
const MOST_STREAMS: u32 = 256;

pub(super) async fn run(
    forward_auth: Arc<ForwardAuth>,
    index: usize,
    socket: std::net::TcpListener,
    tls: Option<Tls>,
    mut shutdown: watch::Receiver<bool>,
) {
    let listener = match TcpListener::from_std(socket) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a forward_auth listener cannot be served");
            return;
        }
    };
    let server = Arc::new(server());
    let tls = tls.map(|tls| (TlsAcceptor::from(tls.config), tls.names));
    let graceful = GracefulShutdown::new();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = told_to_stop(&mut shutdown) => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: accepting again at once would spin.
                    tracing::warn!(%error, "a connection could not be accepted");
                    time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let is_exempt = forward_auth.site.load().listener(index).is_some_and(|here| here.trusts(peer.ip()));
        // Before the handshake: one too many is closed by being dropped.
        let Some(place) = forward_auth.connections.enter(Some(peer.ip()), is_exempt) else { continue };
        let (forward_auth, server, tls, watcher) =
            (Arc::clone(&forward_auth), Arc::clone(&server), tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            let _place = place;
            connection(forward_auth, index, &server, tls, watcher, stream, peer).await;
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// Also where whoever would tell is gone.
async fn told_to_stop(shutdown: &mut watch::Receiver<bool>) {
    drop(shutdown.wait_for(|stop| *stop).await);
}

fn server() -> Builder<TokioExecutor> {
    let mut server = Builder::new(TokioExecutor::new());
    // Each connection brings its own timer.
    // Answers are small: one buffer costs less than two that the kernel gathers.
    server.http1().writev(false);
    server.http1().header_read_timeout(NEXT_HEADER).max_buf_size(MOST_HEADER_BYTES).max_headers(MOST_HEADERS);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(u32::try_from(MOST_HEADER_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(60))
        .keep_alive_timeout(Duration::from_secs(20));
    server
}

async fn connection(
    forward_auth: Arc<ForwardAuth>,
    index: usize,
    server: &Builder<TokioExecutor>,
    tls: Option<(TlsAcceptor, Arc<dyn CertificateNames>)>,
    watcher: Watcher,
    stream: TcpStream,
    peer: SocketAddr,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection ended before it began");
        return;
    }
    let address = peer.ip().to_canonical();
    match tls {
        None => {
            exchange(forward_auth, index, server, watcher, stream, Connection { peer: address, asked_for: None }).await
        }
        Some((tls, names)) => match time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let name = stream.get_ref().1.server_name().map(str::to_owned);
                let connection = Connection { peer: address, asked_for: Some((names, name)) };
                exchange(forward_auth, index, server, watcher, stream, connection).await;
            }
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        },
    }
}

async fn exchange(
    forward_auth: Arc<ForwardAuth>,
    index: usize,
    server: &Builder<TokioExecutor>,
    watcher: Watcher,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    connection: Connection,
) {
    let peer = connection.peer;
    let connection = Arc::new(connection);
    let has_asked = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&has_asked);
    let service = service_fn(move |request| {
        asked.store(true, Ordering::Relaxed);
        let (forward_auth, connection) = (Arc::clone(&forward_auth), Arc::clone(&connection));
        async move { Ok::<_, Infallible>(forward_auth.respond(index, &connection, request).await) }
    });
    // hyper's own deadline is that of a kept connection, and begins once it knows which HTTP is spoken.
    let silence = async {
        time::sleep(FIRST_HEADER).await;
        if has_asked.load(Ordering::Relaxed) {
            future::pending().await
        }
    };
    let mut server = server.clone();
    server.http1().timer(KeptTimer::default());
    let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
    tokio::select! {
        ended = watcher.watch(connection) => if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection ended early");
        },
        () = silence => tracing::debug!(%peer, "a connection asked nothing"),
    }
}
