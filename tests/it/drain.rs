//! The end of a server: unready, then deaf, then whatever is under way comes to its end, and exit 0.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    eventually,
    server::{PASSWORD, Server, Setup},
    upstream::Upstream,
    wire::{self, Request},
    within,
};

/// Far less than `drain`, far more than a busy machine needs.
const SOON: Duration = Duration::from_secs(10);

async fn draining(server: &Server) {
    let admin = server.admin();
    let reply = eventually("the server says that it is draining", || async {
        wire::try_get(admin, "/readyz").await.filter(|reply| reply.status == 503)
    })
    .await;
    assert!(reply.body.contains("draining"), "{}", reply.body);
}

async fn deaf(port: u16) {
    eventually("nothing listens any more", || async { TcpStream::connect(("127.0.0.1", port)).await.err().map(drop) })
        .await;
}

/// Sends the head and half of the body, and keeps the rest.
async fn begin(port: u16, request: &Request) -> (TcpStream, Vec<u8>) {
    let mut bytes = request.bytes();
    let rest = bytes.split_off(bytes.len() - request.body.len() / 2);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    stream.write_all(&bytes).await.expect("the first half");
    (stream, rest)
}

/// A sign-in on the forward-auth listener and an upload through the edge, both half sent when the signal comes.
#[tokio::test]
async fn requests_half_sent_in_both_roles_are_served_to_their_end() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).start().await;
    let credentials = serde_json::json!({ "username": "bob", "password": PASSWORD });
    let login = Request::new("POST", "/auth/login").host(server.auth()).json(&credentials);
    let upload =
        Request::new("POST", "/public/upload").host(server.app()).json(&serde_json::json!({ "half": "x".repeat(999) }));
    let (mut signing_in, rest_of_login) = begin(server.forward_auth(), &login).await;
    let (mut uploading, rest_of_upload) = begin(server.edge(), &upload).await;
    // Accepted and read: a request of the same kind that came later was answered.
    for port in [server.forward_auth(), server.edge()] {
        let later = Request::get("/auth/health").host(server.auth());
        assert_eq!(wire::send(port, &later.bytes()).await.status, 200);
    }
    server.signal("TERM");
    draining(&server).await;
    deaf(server.edge()).await;
    deaf(server.forward_auth()).await;
    signing_in.write_all(&rest_of_login).await.expect("the second half");
    uploading.write_all(&rest_of_upload).await.expect("the second half");
    let reply = within(SOON, "the sign-in's answer", wire::read_reply(&mut signing_in)).await.expect("an answer");
    assert_eq!(reply.status, 200, "{reply:?}");
    let reply = within(SOON, "the upload's answer", wire::read_reply(&mut uploading)).await.expect("an answer");
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(upstream.seen().last().expect("the upload").body, upload.body);
    let status = within(SOON, "the end after the last request", server.running().end()).await;
    assert_eq!(status.code(), Some(0));
    let log = server.log();
    assert!(!log.contains("requests cut"), "{log}");
}

#[tokio::test]
async fn listeners_stay_open_for_the_delay_while_readiness_says_no() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.server = "  drain_delay: 6s\n".to_owned();
    let mut server = setup.start().await;
    server.signal("TERM");
    draining(&server).await;
    for port in [server.edge(), server.forward_auth()] {
        let late = Request::get("/auth/health").host(server.auth());
        assert_eq!(wire::send(port, &late.bytes()).await.status, 200, "whoever has not heard of it is still served");
    }
    let status = within(SOON, "the end", server.running().end()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn idle_connections_are_closed_and_hold_nobody_up() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).start().await;
    let mut idle = Vec::new();
    for (port, host, path) in [
        (server.edge(), server.app(), "/public/x"),
        (server.edge(), server.auth(), "/auth/health"),
        (server.forward_auth(), server.auth(), "/auth/health"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let kept = Request::get(path).host(host).header("Connection", "keep-alive");
        stream.write_all(&kept.bytes()).await.expect("a request");
        let reply = wire::read_reply(&mut stream).await.expect("an answer");
        assert_eq!(reply.status, 200, "{reply:?}");
        // Never says anything.
        let silent = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        idle.extend([stream, silent]);
    }
    server.signal("TERM");
    let status = within(SOON, "the end, long before `drain`", server.running().end()).await;
    assert_eq!(status.code(), Some(0));
    for mut stream in idle {
        let mut rest = Vec::new();
        // Closed or reset; nothing more is said.
        let _ = within(SOON, "the end of an idle connection", stream.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    }
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let upstream = Upstream::start().await;
    for (first, second) in [("TERM", "INT"), ("INT", "TERM")] {
        let mut server = Setup::with(&upstream).start().await;
        let before = upstream.seen().len();
        let (edge, bytes) = (server.edge(), Request::get("/public/silent").host(server.app()).bytes());
        let silent = tokio::spawn(async move { wire::try_send(edge, &bytes).await });
        eventually("the request is under way", || async { (upstream.seen().len() > before).then_some(()) }).await;
        server.signal(first);
        draining(&server).await;
        assert_eq!(server.running().ended(), None, "a request is under way");
        server.signal(second);
        let status = within(SOON, "the end, long before `drain`", server.running().end()).await;
        assert_eq!(status.code(), Some(0));
        assert!(silent.await.expect("the request").is_none_or(|reply| reply.status >= 500));
    }
}
