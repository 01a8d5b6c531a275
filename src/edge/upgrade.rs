//! WebSocket handshakes over HTTP/1.1 (RFC 6455 §4.1), and the connections to upstreams that they go out on. Called by `forward::peer`.
//!
//! pingora 0.9 ends an upgraded connection at once where it reads the upstream's 101 before it has taken note that the request has no
//! body (cloudflare/pingora#946): a fast upstream's WebSocket opens and is gone. It takes note in the turn in which it first asks for the
//! answer, so what comes is kept back for the first turns after a write, until the answer's head was read. To be taken out once pingora
//! has mended it.
//!
//! pingora has one time limit for reads of a connection, set when it is made: an open WebSocket's would let an upstream take an hour for
//! its answer to a handshake. So the limit before the 101 is kept here.

use std::{
    io::{Error as IoError, ErrorKind, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use async_trait::async_trait;
use http::{
    Method, StatusCode,
    header::{CONTENT_LENGTH, TRANSFER_ENCODING, UPGRADE},
};
use pingora::{
    Error, ErrorType, Result,
    connectors::L4Connect,
    protocols::l4::{
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
    proxy::Session,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};

/// Keeps these connections apart from the others in pingora's pool.
pub(super) const GROUP: u64 = 1;
/// One is enough where a turn polls both sides; the others are for a turn that tokio cut short (its budget), which notes the body's end later.
const TURNS: u8 = 3;

/// Whether the request opens a WebSocket. Any other `Upgrade` concerns the connection alone and goes no further, and the request is one like
/// all others.
pub(super) fn is_websocket(session: &Session) -> bool {
    let head = session.req_header();
    let mut protocols = head.headers.get_all(UPGRADE).iter();
    let is_alone = |protocol: &http::HeaderValue| protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
    session.is_upgrade_req()
        && head.method == Method::GET
        && protocols.next().is_some_and(is_alone)
        && protocols.next().is_none()
        && head.headers.get_all(CONTENT_LENGTH).iter().all(|length| length == "0")
        && !head.headers.contains_key(TRANSFER_ENCODING)
}

/// How far a handshake is: known to its request and to its connection.
#[derive(Debug, Default)]
pub(super) struct Handshake(AtomicU8);

const ASKED: u8 = 0;
const ANSWERED: u8 = 1;
const UPGRADED: u8 = 2;

impl Handshake {
    /// The head of the answer was read.
    pub(super) fn answered(&self, status: StatusCode) {
        let state = if status == StatusCode::SWITCHING_PROTOCOLS { UPGRADED } else { ANSWERED };
        self.0.store(state, Ordering::Release);
    }

    fn state(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

#[derive(Debug)]
pub(super) struct PatientConnect {
    pub(super) handshake: Arc<Handshake>,
    /// Between two bytes of the upstream's, until the connection is upgraded.
    pub(super) read_timeout: Duration,
}

#[async_trait]
impl L4Connect for PatientConnect {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "not an address of the network");
        };
        let stream = TcpStream::connect(address).await.map_err(|error| {
            let kind = match error.kind() {
                ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => ErrorType::ConnectNoRoute,
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, format!("connecting to {address}"), error)
        })?;
        let Self { handshake, read_timeout } = self;
        let patient = Patient::new(stream, Arc::clone(handshake), *read_timeout);
        Ok(VirtualSocketStream::new(Box::new(patient)).into())
    }
}

/// Reads nothing in the first turns after a write, though it may be there; an upgraded connection is read as it is.
#[derive(Debug)]
struct Patient<S> {
    stream: S,
    handshake: Arc<Handshake>,
    read_timeout: Duration,
    turns: u8,
    /// Runs while nothing comes.
    silence: Option<Pin<Box<Sleep>>>,
}

impl<S> Patient<S> {
    fn new(stream: S, handshake: Arc<Handshake>, read_timeout: Duration) -> Self {
        Self { stream, handshake, read_timeout, turns: 0, silence: None }
    }

    fn written(&mut self) {
        if self.handshake.state() == ASKED {
            self.turns = TURNS;
        }
        self.silence = None;
    }
}

impl VirtualSocket for Patient<TcpStream> {
    fn set_socket_option(&self, option: VirtualSockOpt) -> std::io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            // Not asked for by `forward`.
            _ => Err(IoError::from(std::io::ErrorKind::Unsupported)),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), IoError>> {
        let state = self.handshake.state();
        if let Some(left) = self.turns.checked_sub(1).filter(|_| state == ASKED) {
            self.turns = left;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() || state == UPGRADED {
            self.silence = None;
            return read;
        }
        let limit = self.read_timeout;
        let silence = self.silence.get_or_insert_with(|| Box::pin(sleep(limit)));
        ready!(silence.as_mut().poll(cx));
        Poll::Ready(Err(IoError::new(ErrorKind::TimedOut, "no answer in time")))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, IoError>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.written();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize, IoError>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts))?;
        self.written();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), IoError>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn scene(read_timeout: Duration) -> (Patient<DuplexStream>, DuplexStream, Arc<Handshake>) {
        let (near, far) = tokio::io::duplex(64);
        let handshake = Arc::new(Handshake::default());
        (Patient::new(near, Arc::clone(&handshake), read_timeout), far, handshake)
    }

    #[tokio::test]
    async fn what_is_there_is_read_some_turns_after_a_write() {
        let (mut patient, mut far, _) = scene(LONG);
        far.write_all(b"early").await.unwrap();
        patient.write_all(b"asked").await.unwrap();
        let mut bytes = [0; 5];
        for _ in 0..TURNS {
            let mut read = std::pin::pin!(patient.read(&mut bytes));
            assert!(now(read.as_mut()).is_none(), "not in this turn");
        }
        patient.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"early");
        // Nothing is lost, and whoever waits is woken.
        patient.write_all(b"again").await.unwrap();
        far.write_all(b"later").await.unwrap();
        patient.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"later");
    }

    /// Whoever writes without end would never read.
    #[tokio::test]
    async fn an_answered_handshake_is_kept_waiting_for_nothing() {
        let (mut patient, mut far, handshake) = scene(LONG);
        patient.write_all(b"asked").await.unwrap();
        handshake.answered(StatusCode::SWITCHING_PROTOCOLS);
        far.write_all(b"early").await.unwrap();
        let mut bytes = [0; 5];
        assert!(now(std::pin::pin!(patient.read(&mut bytes))).is_some(), "at once");
        patient.write_all(b"again").await.unwrap();
        far.write_all(b"later").await.unwrap();
        assert!(now(std::pin::pin!(patient.read(&mut bytes))).is_some(), "at once");
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_a_handshake_and_no_open_connection() {
        for (answer, is_ended) in
            [(None, true), (Some(StatusCode::OK), true), (Some(StatusCode::SWITCHING_PROTOCOLS), false)]
        {
            let (mut patient, _far, handshake) = scene(Duration::from_secs(60));
            patient.write_all(b"asked").await.unwrap();
            if let Some(status) = answer {
                handshake.answered(status);
            }
            let mut bytes = [0; 5];
            let read = tokio::time::timeout(Duration::from_secs(61), patient.read(&mut bytes)).await;
            let kind = read.map(|read| read.map_err(|error| error.kind()));
            assert_eq!(kind == Ok(Err(ErrorKind::TimedOut)), is_ended, "{answer:?}: {kind:?}");
        }
    }

    fn now<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}
