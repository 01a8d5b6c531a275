//! A free port of the loopback interface, kept for one test.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// The socket is bound but never listens: with SO_REUSEADDR on both sides a server can bind beside it, while the kernel hands
/// the port to nobody who asks for any port.
pub(crate) struct Port {
    number: u16,
    _held: Socket,
}

impl Port {
    pub(crate) fn free() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_reuse_address(true).expect("SO_REUSEADDR");
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).expect("a free port");
        let number = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("an address").port();
        Self { number, _held: socket }
    }

    pub(crate) fn number(&self) -> u16 {
        self.number
    }
}
