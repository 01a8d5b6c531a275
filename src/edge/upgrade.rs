//! Connections to upstreams for requests that ask for another protocol (WebSocket). Called by `forward::peer` for those alone.
//!
//! pingora 0.9 ends an upgraded connection at once where it reads the upstream's 101 before it has taken note that the request has no
//! body (cloudflare/pingora#946): a fast upstream's WebSocket opens and is gone. It takes note in the turn in which it first asks for the
//! answer, so such an answer is kept back for the first turns after a write. To be taken out once pingora has mended it.

use std::{
    io::{Error as IoError, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType, Result,
    connectors::L4Connect,
    protocols::l4::{
        socket::SocketAddr,
        stream::Stream,
        virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream},
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Keeps these connections apart from the others in pingora's pool.
pub(super) const GROUP: u64 = 1;
/// One is enough where a turn polls both sides; the others are for a turn that tokio cut short (its budget), which notes the body's end later.
const TURNS: u8 = 3;

#[derive(Debug)]
pub(super) struct PatientConnect;

#[async_trait]
impl L4Connect for PatientConnect {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let Some(address) = address.as_inet() else {
            return Error::e_explain(ErrorType::ConnectError, "not an address of the network");
        };
        let stream = TcpStream::connect(address).await.map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                std::io::ErrorKind::NetworkUnreachable | std::io::ErrorKind::HostUnreachable => {
                    ErrorType::ConnectNoRoute
                }
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, format!("connecting to {address}"), error)
        })?;
        Ok(VirtualSocketStream::new(Box::new(Patient { stream, turns: 0 })).into())
    }
}

/// Reads nothing in the first turns after a write, though it may be there.
#[derive(Debug)]
struct Patient<S> {
    stream: S,
    turns: u8,
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
        if let Some(left) = self.turns.checked_sub(1) {
            self.turns = left;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize, IoError>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.turns = TURNS;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<Result<usize, IoError>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, parts))?;
        self.turns = TURNS;
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_is_there_is_read_some_turns_after_a_write() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut patient = Patient { stream: near, turns: 0 };
        far.write_all(b"early").await.unwrap();
        patient.write_all(b"asked").await.unwrap();
        let mut bytes = [0; 5];
        for _ in 0..TURNS {
            let mut read = std::pin::pin!(patient.read(&mut bytes));
            assert!(futures_now(read.as_mut()).is_none(), "not in this turn");
        }
        patient.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"early");
        // Nothing is lost, and whoever waits is woken.
        patient.write_all(b"again").await.unwrap();
        far.write_all(b"later").await.unwrap();
        patient.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"later");
    }

    fn futures_now<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }
}
