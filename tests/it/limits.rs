//! What is too large or too late, as a client meets it: 431, 413, 502 and 504, each in words or as a problem.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::harness::{
    DEADLINE,
    breaker::Breaker,
    client::Person,
    server::{Role, Server, Setup},
    tls,
    upstream::Upstream,
    wire::{self, Reply, Request},
    within,
};

fn is_problem(reply: &Reply, code: &str) {
    assert_eq!(reply.header("Content-Type"), Some("application/problem+json"), "{reply:?}");
    assert_eq!(reply.json()["code"], code, "{reply:?}");
}

#[tokio::test]
async fn an_application_that_fails_is_a_page_for_people_and_a_problem_for_programs() {
    let upstream = Upstream::start().await;
    let breaker = Breaker::before(upstream.port()).await;
    let gone = Setup::with_upstream_at(breaker.port()).start().await;
    breaker.cut();
    let mut setup = Setup::with(&upstream);
    setup.upstream = ", read_timeout: 300ms".to_owned();
    let slow = setup.start().await;
    for (server, path, status, code) in
        [(&gone, "/public/x", 502, "upstream_unreachable"), (&slow, "/public/silent", 504, "upstream_timeout")]
    {
        let page = server.ask(Role::Edge, &Request::get(path).page()).await;
        let id = page.header("X-Request-Id").expect("a request id");
        assert_eq!(page.status, status);
        assert!(page.body.contains("<html") && page.body.contains(id), "{}", page.body);
        let call = server.ask(Role::Edge, &Request::get(path).header("Accept", "application/json")).await;
        assert_eq!(call.status, status);
        is_problem(&call, code);
        assert!(call.header("X-Request-Id").is_some(), "{call:?}");
        for reply in [page, call] {
            let inner = [breaker.port(), upstream.port()].map(|port| port.to_string());
            assert!(
                !inner.iter().any(|port| reply.body.contains(port)),
                "nothing of the inside is told: {}",
                reply.body
            );
        }
    }
}

/// Bodies whose size is told, and bodies that only grow.
#[tokio::test]
async fn a_portal_takes_no_body_without_end() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    for port in [server.edge(), server.forward_auth()] {
        let told = Request::new("POST", "/auth/login")
            .host(server.auth())
            .json(&serde_json::json!({ "username": "x".repeat(70_000) }));
        let reply = wire::send(port, &told.bytes()).await;
        assert_eq!(reply.status, 413, "{reply:?}");
        is_problem(&reply, "payload_too_large");
        assert_eq!(growing(&server, port).await, Some(413));
        let after = Request::get("/auth/health").host(server.auth());
        assert_eq!(wire::send(port, &after.bytes()).await.status, 200);
    }
}

/// A chunked body without an end: the status that comes while it is still being sent.
async fn growing(server: &Server, port: u16) -> Option<u16> {
    let head = format!(
        "POST /auth/login HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
        server.auth()
    );
    let (mut from, mut to) = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection").into_split();
    to.write_all(head.as_bytes()).await.expect("the head");
    let sending = tokio::spawn(async move {
        let chunk = format!("1000\r\n{}\r\n", "x".repeat(0x1000));
        // At most 64 MiB: until the server has had enough.
        for _ in 0..16_384 {
            if to.write_all(chunk.as_bytes()).await.is_err() {
                break;
            }
        }
    });
    let mut answer = [0; 64];
    let read = within(DEADLINE, "an answer to a growing body", from.read(&mut answer)).await.ok()?;
    sending.abort();
    String::from_utf8_lossy(answer.get(..read)?).split(' ').nth(1)?.parse().ok()
}

/// THREATS 58: a body of which a byte comes now and then holds a request for its 15 s, not for ever.
#[tokio::test]
async fn threat_58_a_body_that_trickles_is_408_in_both_roles_and_versions() {
    let upstream = Upstream::start().await;
    let identity = tls::certificate();
    let server = Setup::with(&upstream).over_tls(&identity).start().await;
    let trickling = async |port: u16, http2: bool| {
        let person = Person::over_tls(&identity.certificate, http2);
        let url = format!("https://auth.test.localhost:{port}/auth/login");
        let page = within(DEADLINE, "an answer to a trickling body", person.trickle(&url)).await;
        let version = if http2 { reqwest::Version::HTTP_2 } else { reqwest::Version::HTTP_11 };
        assert_eq!((page.version, page.status), (version, 408), "{}", page.body);
        assert!(page.body.contains(r#""code":"request_timeout""#), "{}", page.body);
    };
    let (edge, forward_auth) = (server.edge(), server.forward_auth());
    tokio::join!(
        trickling(edge, false),
        trickling(edge, true),
        trickling(forward_auth, false),
        trickling(forward_auth, true)
    );
}

/// THREATS 57: answers that nobody reads do not heap up in memory, whatever bodies nobody reads either.
#[tokio::test]
async fn threat_57_who_never_reads_an_answer_is_answered_once() {
    let upstream = Upstream::start().await;
    for (trusted, status) in [("192.0.2.1", "403"), ("127.0.0.1", "200")] {
        let mut setup = Setup::with(&upstream);
        setup.forward_auth = format!(", trusted_proxies: [{trusted}/32]");
        let server = setup.start().await;
        for method in ["GET", "HEAD"] {
            let asked = format!(
                "{method} /api/authz/forward-auth HTTP/1.1\r\nHost: a\r\nX-Forwarded-Method: {method}\r\nX-Forwarded-Proto: http\r\n\
                 X-Forwarded-Host: {}\r\nX-Forwarded-Uri: /public/x\r\nX-Forwarded-For: 192.0.2.9\r\nExpect: 100-continue\r\n\
                 Content-Length: 1\r\n\r\nx",
                server.app()
            );
            let mut stream = TcpStream::connect(("127.0.0.1", server.forward_auth())).await.expect("a connection");
            // It may be closed before all of it is there.
            let _ = within(DEADLINE, "a flood", stream.write_all(asked.repeat(2_000).as_bytes())).await;
            let mut answers = Vec::new();
            let _ = within(DEADLINE, "the end of the connection", stream.read_to_end(&mut answers)).await;
            let labels = ["route=\"forward_auth\"", &format!("method=\"{method}\""), &format!("status=\"{status}\"")];
            assert_eq!(server.metric("postern_http_requests_total", &labels).await, 1.0, "{method} {status}");
        }
    }
}

/// THREATS 58: whoever chose HTTP/2 in the TLS handshake and says nothing holds a place no longer than a header may take.
#[tokio::test]
async fn threat_58_a_silent_http2_connection_is_closed_in_both_roles() {
    let upstream = Upstream::start().await;
    let identity = tls::certificate();
    let server = Setup::with(&upstream).over_tls(&identity).start().await;
    let silent = async |port: u16, most: u64| {
        let stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let mut stream = identity.connect(stream, b"h2").await;
        let mut rest = Vec::new();
        let _ = within(Duration::from_secs(most), "the end of the connection", stream.read_to_end(&mut rest)).await;
    };
    tokio::join!(silent(server.edge(), 45), silent(server.forward_auth(), 25));
}

/// THREATS 58: a connection's first header has 30 s at the edge and 10 s on a `forward_auth` listener, however it trickles in.
#[tokio::test]
async fn threat_58_a_header_that_trickles_ends_its_connection_and_a_kept_one_stays() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let trickling = async |port: u16, most: u64| {
        let (mut from, mut to) = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection").into_split();
        let sending = tokio::spawn(async move {
            to.write_all(b"GET /public/x HTTP/1.1\r\nHost: app.test.localhost\r\nX-Slow: ").await.expect("the head");
            while to.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        let mut rest = Vec::new();
        // Closed or reset; what is said before that does not matter.
        let _ = within(Duration::from_secs(most), "the end of the connection", from.read_to_end(&mut rest)).await;
        assert!(!rest.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&rest));
        sending.abort();
    };
    // A first header's 10 s do not count for a kept connection: proxies keep theirs for a minute.
    let kept = async {
        let mut stream = TcpStream::connect(("127.0.0.1", server.forward_auth())).await.expect("a connection");
        let request = Request::get("/auth/health").host(server.auth()).header("Connection", "keep-alive");
        for idle in [15, 0] {
            stream.write_all(&request.bytes()).await.expect("a request");
            let reply = wire::read_reply(&mut stream).await.expect("an answer");
            assert_eq!(reply.status, 200, "{reply:?}");
            tokio::time::sleep(Duration::from_secs(idle)).await;
        }
    };
    tokio::join!(trickling(server.edge(), 50), trickling(server.forward_auth(), 25), kept);
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn headers_beyond_the_limit_are_431_however_they_are_made() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let one_large = Request::get("/public/x").header("X-Large", "x".repeat(70_000));
    let large_target = Request::get(&format!("/public/{}", "x".repeat(70_000)));
    let huge = Request::get("/public/x").header("X-Large", "x".repeat(900_000));
    let fields = |count| {
        (0..count).fold(Request::get("/public/x"), |request, number| request.header(&format!("X-{number}"), "x"))
    };
    let (many, more, most) = (fields(240), fields(300), fields(20_000));
    let cookies = (0..20).fold(Request::get("/public/x"), |request, _| request.cookie("x".repeat(4_000)));
    for port in [server.edge(), server.forward_auth()] {
        for (what, request) in [
            ("one", &one_large),
            ("huge", &huge),
            ("many", &many),
            ("more", &more),
            ("most", &most),
            ("cookies", &cookies),
            ("target", &large_target),
        ] {
            let reply = wire::send(port, &request.clone().host(server.app()).bytes()).await;
            let expected: &[u16] = if what == "target" { &[400, 414, 431] } else { &[431] };
            assert!(expected.contains(&reply.status), "{what} on {port}: {reply:?}");
        }
        let after = Request::get("/auth/health").host(server.auth());
        assert_eq!(wire::send(port, &after.bytes()).await.status, 200);
    }
    assert!(upstream.seen().is_empty());
}
