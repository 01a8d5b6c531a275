//! Asks for a place for each connection to an edge listener before it has cost anything: before the TLS handshake, or where there is
//! none before its first byte is read. Called by `listener` alone; who gets one is `gate::connections`.
//!
//! pingora accepts and shakes hands, and tells of neither end: its `connection_filter` cannot learn that a connection is over, and the application
//! does not hear of a handshake that fails. What it does let us do is to look at a stream before the handshake, and to hang a tracer on it, which is
//! dropped with the stream, whatever ends it. So the place of a TLS connection hangs on its socket, and is counted exactly from the handshake on.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::{
    Error, ErrorType,
    listeners::PreTlsProcess,
    protocols::{GetSocketDigest, SocketDigest, l4::stream::Stream as Socket},
    upstreams::peer::{Tracer, Tracing},
};

use crate::gate::connections::Place;

use super::Edge;

pub(super) struct Places {
    pub(super) edge: Arc<Edge>,
    pub(super) listener: usize,
}

impl Places {
    /// `None`: the connection is one too many.
    pub(super) fn enter(&self, digest: Option<&SocketDigest>) -> Option<Place> {
        let peer = digest.and_then(SocketDigest::peer_addr).and_then(|peer| peer.as_inet()).map(|peer| peer.ip());
        let site = self.edge.site.load();
        let is_exempt = peer.zip(site.listener(self.listener)).is_some_and(|(peer, here)| here.trusts(peer));
        self.edge.connections.enter(peer, is_exempt)
    }
}

#[async_trait]
impl PreTlsProcess for Places {
    /// An error closes the connection.
    async fn process(&self, socket: &mut Socket) -> pingora::Result<()> {
        let Some(place) = self.enter(socket.get_socket_digest().as_deref()) else {
            return Error::e_explain(ErrorType::AcceptError, "too many connections");
        };
        socket.tracer = Some(Tracer(Box::new(Held { _place: Arc::new(place) })));
        Ok(())
    }
}

/// Keeps a place for as long as the socket it hangs on.
#[derive(Debug)]
struct Held {
    _place: Arc<Place>,
}

impl Tracing for Held {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {}

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(Self { _place: Arc::clone(&self._place) })
    }
}
