//! Reference of `./dev bench`: pingora alone. `bare_pingora LISTEN` answers 200 with the headers of a forward-auth answer from
//! `request_filter`; `bare_pingora LISTEN UPSTREAM` passes everything through untouched.

use std::{env, net::SocketAddr, os::fd::IntoRawFd as _, sync::Arc};

use async_trait::async_trait;
use pingora::{
    Error, ErrorType, Result,
    http::ResponseHeader,
    proxy::{ProxyHttp, Session, http_proxy_service},
    server::{Fds, ListenFds, configuration::ServerConf},
    services::Service as _,
    upstreams::peer::HttpPeer,
};
use tokio::sync::watch;

struct Bare {
    upstream: Option<SocketAddr>,
    answer: ResponseHeader,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, _context: &mut ()) -> Result<bool> {
        if self.upstream.is_some() {
            return Ok(false);
        }
        session.write_response_header(Box::new(self.answer.clone()), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _context: &mut ()) -> Result<Box<HttpPeer>> {
        let Some(upstream) = self.upstream else {
            return Error::e_explain(ErrorType::HTTPStatus(500), "no upstream");
        };
        Ok(Box::new(HttpPeer::new(upstream, false, String::new())))
    }
}

fn answer() -> Result<ResponseHeader> {
    let mut answer = ResponseHeader::build(200, Some(8))?;
    for (name, value) in [
        ("remote-user", "alice"),
        ("remote-name", "Alice Example"),
        ("remote-email", "alice@example.com"),
        ("remote-groups", "admins,dev"),
        ("x-request-id", "0123456789abcdef0123456789abcdef"),
        ("cookie", ""),
        ("authorization", ""),
        ("traceparent", "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00"),
        ("content-length", "0"),
    ] {
        answer.insert_header(name, value)?;
    }
    Ok(answer)
}

#[tokio::main]
async fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let mut arguments = env::args().skip(1);
    let listen = arguments.next().ok_or("usage: bare_pingora LISTEN [UPSTREAM]")?;
    let upstream = arguments.next().map(|address| address.parse()).transpose()?;
    let socket = std::net::TcpListener::bind(&listen)?;
    socket.set_nonblocking(true)?;
    let settings = ServerConf { upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut service = http_proxy_service(&Arc::new(settings), Bare { upstream, answer: answer()? });
    service.add_tcp(&listen);
    let mut sockets = Fds::new();
    sockets.add(listen, socket.into_raw_fd());
    let sockets: ListenFds = Arc::new(sockets.into());
    let (_never_stopped, running) = watch::channel(false);
    service.start_service(Some(sockets), running, 1).await;
    Ok(())
}
