//! Streams at the edge: what a session let through stays open for as long as the session lives, and not longer.

use std::{
    fs,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{
    DEADLINE,
    client::Person,
    eventually,
    server::{Role, Server, Setup, SignedIn},
    tls,
    upstream::Upstream,
    wire::Request,
    within,
};

/// From the end of a session to the end of its streams.
const BOUND: Duration = Duration::from_secs(5);

/// One open stream.
pub(crate) enum Stream {
    Plain(TcpStream),
    /// An answer on a connection that it shares.
    Http2(reqwest::Response),
}

impl Stream {
    async fn begin(server: &Server, request: &Request, until: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", server.edge())).await.expect("a connection");
        stream.write_all(&request.clone().host(server.app()).bytes()).await.expect("a request");
        let mut seen = String::new();
        while !seen.contains(until) {
            let mut bytes = [0; 4096];
            let read = within(DEADLINE, until, stream.read(&mut bytes)).await.expect("an answer");
            assert!(read > 0, "closed after {seen:?}");
            seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
        Self::Plain(stream)
    }

    /// Silent once the handshake was told.
    pub(crate) async fn websocket(server: &Server, cookie: &str) -> Self {
        let request = Request::get("/members/socket")
            .cookie(cookie)
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        Self::begin(server, &request, "\"body\":\"\"}").await
    }

    /// Server-sent events: one, and then silence.
    async fn events(server: &Server, path: &str, cookie: Option<&str>) -> Self {
        let request = Request::get(path);
        let request = cookie.iter().fold(request, |request, &cookie| request.cookie(cookie));
        Self::begin(server, &request, "data: hello").await
    }

    /// Nothing ever comes back.
    async fn long_poll(server: &Server, cookie: &str) -> Self {
        Self::begin(server, &Request::get("/members/silent").cookie(cookie), "").await
    }

    /// More is announced than comes.
    async fn upload(server: &Server, cookie: &str) -> Self {
        let request = Request::new("POST", "/members/upload").cookie(cookie).header("Content-Length", "100000");
        let mut bytes = request.host(server.app()).bytes();
        let length =
            bytes.windows(19).position(|window| window == b"Content-Length: 0\r\n").expect("what `bytes` adds");
        bytes.splice(length..length + 19, Vec::new());
        bytes.extend_from_slice(b"a beginning");
        let mut stream = TcpStream::connect(("127.0.0.1", server.edge())).await.expect("a connection");
        stream.write_all(&bytes).await.expect("a request");
        Self::Plain(stream)
    }

    async fn over_http2(person: &Person, server: &Server, path: &str, cookie: &str) -> Self {
        let mut response = person.open(&format!("https://{}{path}", server.app()), cookie).await;
        assert_eq!((response.status().as_u16(), response.version()), (200, reqwest::Version::HTTP_2));
        assert_eq!(response.chunk().await.expect("a chunk").as_deref(), Some(&b"data: hello\n\n"[..]));
        Self::Http2(response)
    }

    /// Until nothing more can come: cut off, never ended as if it were whole.
    async fn until_cut(&mut self) {
        match self {
            Self::Plain(stream) => {
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                assert_eq!(String::from_utf8_lossy(&rest), "", "something was said at the end");
            }
            Self::Http2(response) => {
                let more = response.chunk().await;
                assert!(more.is_err(), "{more:?}");
            }
        }
    }

    pub(crate) async fn ends(&mut self) {
        within(BOUND, "the stream ends", self.until_cut()).await;
    }

    /// For a moment, at least.
    pub(crate) async fn is_open(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(100), self.until_cut()).await.is_err()
    }

    /// Of a WebSocket: says something and hears it.
    pub(crate) async fn echoes(&mut self) -> bool {
        let Self::Plain(stream) = self else { panic!("no WebSocket") };
        // A text frame with the mask 0 (RFC 6455 §5.2), and the same without a mask.
        stream.write_all(b"\x81\x82\0\0\0\0ok").await.expect("an open connection");
        let mut echo = [0; 4];
        within(DEADLINE, "an echo", stream.read_exact(&mut echo)).await.is_ok_and(|_| echo == *b"\x81\x02ok")
    }
}

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn now() -> Instant {
    Instant::now()
}

async fn all_of(server: &Server, cookie: &str) -> Vec<Stream> {
    vec![
        Stream::websocket(server, cookie).await,
        Stream::events(server, "/members/events", Some(cookie)).await,
        // Let through by `bypass`, but told whose it is.
        Stream::events(server, "/public/events", Some(cookie)).await,
        Stream::long_poll(server, cookie).await,
        Stream::upload(server, cookie).await,
    ]
}

async fn accepts(server: &Server, session: &SignedIn) -> bool {
    let request = Request::get("/members/x").page().cookie(session.gate.clone());
    server.ask(Role::Edge, &request).await.status == 200
}

#[tokio::test]
async fn threat_36_open_streams_end_with_their_session_and_no_others() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.more = "log: { access: access.log, format: json }\n".to_owned();
    let server = setup.start().await;
    let alice = server.sign_in("alice").await;
    let mut of_alice = all_of(&server, &alice.gate).await;
    let mut of_nobody = Stream::events(&server, "/public/events", None).await;
    let mut of_token = {
        let request = Request::get("/members/events").header("Authorization", format!("Bearer {}", alice.access_token));
        Stream::begin(&server, &request, "data: hello").await
    };
    let others = server.sign_in("bob").await;
    let mut of_another_session = Stream::websocket(&server, &others.gate).await;
    for end in ["session revoke", "logout", "DELETE", "logout-all", "new groups", "new password", "disable"] {
        let bob = server.sign_in("bob").await;
        let mut streams = all_of(&server, &bob.gate).await;
        for stream in &mut streams {
            assert!(stream.is_open().await);
        }
        match end {
            "session revoke" => _ = server.run(&["session", "revoke", &bob.session_id]),
            "logout" => {
                let reply = server.portal(Request::new("POST", "/auth/logout").cookie(bob.both())).await;
                assert_eq!(reply.status, 204);
                assert!(of_another_session.echoes().await, "it is another session of the same person");
            }
            "DELETE" => {
                let one = server.sign_in("bob").await;
                let path = format!("/auth/sessions/{}", bob.session_id);
                let reply = server.portal(Request::new("DELETE", &path).cookie(one.both())).await;
                assert_eq!(reply.status, 204);
            }
            "logout-all" => {
                let reply = server.portal(Request::new("POST", "/auth/logout-all").cookie(bob.both())).await;
                assert_eq!(reply.status, 200);
                of_another_session.ends().await;
            }
            "new groups" => _ = server.run(&["user", "set", "bob", "--groups", "dev,ops"]),
            "new password" => _ = server.run(&["user", "set-password", "bob", "--password-stdin"]),
            _ => _ = server.run(&["user", "disable", "bob"]),
        }
        within(BOUND, &format!("all streams end after {end}"), async {
            for stream in &mut streams {
                stream.until_cut().await;
            }
        })
        .await;
    }
    for stream in &mut of_alice {
        assert!(stream.is_open().await, "alice was let be");
    }
    assert!(of_alice[0].echoes().await && of_nobody.is_open().await && of_token.is_open().await);
    server.run(&["session", "revoke", &alice.session_id]);
    of_token.ends().await;
    assert!(of_nobody.is_open().await, "nobody's session let it through");
    assert!(server.metric("postern_streams_ended_total", &["reason=\"session\""]).await >= 5.0);
    assert!(server.metric("postern_streams_ended_total", &["reason=\"person\""]).await >= 5.0);
    // What was ended is on record as what it was.
    let log = eventually("its lines", || async {
        let log = fs::read_to_string(server.folder().join("access.log")).ok()?;
        log.contains("/members/socket").then_some(log)
    })
    .await;
    for (path, status) in [("/members/socket", "101"), ("/members/events", "200"), ("/members/silent", "499")] {
        let line = log.lines().find(|line| line.contains(path) && line.contains("bob"));
        let line = line.unwrap_or_else(|| panic!("no line of {path} in {log}"));
        assert!(line.contains(&format!("\"status\":{status}")), "{line}");
    }
}

#[tokio::test]
async fn threat_36_an_http2_stream_ends_alone() {
    let identity = tls::certificate();
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).edge_over_tls(&identity).start().await;
    let (bob, alice) = (server.sign_in("bob").await, server.sign_in("alice").await);
    let person = Person::over_tls(&identity.certificate, true);
    let mut of_bob = Stream::over_http2(&person, &server, "/members/events", &bob.gate).await;
    let mut of_alice = Stream::over_http2(&person, &server, "/members/events", &alice.gate).await;
    let mut of_nobody = Stream::over_http2(&person, &server, "/public/events", "theirs=1").await;
    server.run(&["session", "revoke", &bob.session_id]);
    of_bob.ends().await;
    assert!(of_alice.is_open().await && of_nobody.is_open().await, "the connection goes on");
    server.run(&["session", "revoke", &alice.session_id]);
    of_alice.ends().await;
    assert!(of_nobody.is_open().await);
}

#[tokio::test]
async fn an_open_stream_ends_with_the_lifetime_of_its_session() {
    let lifetime = Duration::from_secs(4);
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.session = setup.session.replace("] }", "], idle: 3s, lifetime: 4s }");
    let server = setup.start().await;
    let bob = server.sign_in("bob").await;
    let signed_in = now();
    let mut socket = Stream::websocket(&server, &bob.gate).await;
    let mut events = Stream::events(&server, "/members/events", Some(&bob.gate)).await;
    within(lifetime + BOUND, "both end", async {
        socket.until_cut().await;
        events.until_cut().await;
    })
    .await;
    // The sign-in itself was before the moment that is measured from.
    assert!(signed_in.elapsed() > lifetime - Duration::from_secs(1), "after {:?}", signed_in.elapsed());
    assert!(server.metric("postern_streams_ended_total", &["reason=\"lifetime\""]).await >= 1.0);
}

#[tokio::test]
async fn an_open_stream_keeps_its_session_in_use() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.session = setup.session.replace("] }", "], idle: 3s }");
    let server = setup.start().await;
    let (bob, alice) = (server.sign_in("bob").await, server.sign_in("alice").await);
    let mut socket = Stream::websocket(&server, &bob.gate).await;
    assert!(accepts(&server, &alice).await);
    // To let it pass is what is proven: nobody asks for anything.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!accepts(&server, &alice).await, "idle for longer than `session.idle`");
    assert!(accepts(&server, &bob).await && socket.echoes().await, "used all the while");
    drop(socket);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!accepts(&server, &bob).await, "not used any more");
}
