//! Streams at the edge: what a session let through stays open for as long as the session lives, and not longer.

use std::{
    fs,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{
    DEADLINE,
    client::Person,
    eventually,
    idp::{self, Idp, Key},
    server::{PASSWORD, Role, Server, Setup, SignedIn},
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
        Self::begin(server, &as_websocket(Request::get("/members/socket").cookie(cookie)), "\"body\":\"\"}").await
    }

    /// Server-sent events: one, and then silence.
    async fn events(server: &Server, path: &str, cookie: Option<&str>) -> Self {
        let request = Request::get(path);
        let request = cookie.iter().fold(request, |request, &cookie| request.cookie(cookie));
        Self::begin(server, &request, "data: hello").await
    }

    /// The same by this `Authorization`.
    async fn events_by(server: &Server, authorization: &str) -> Self {
        let request = Request::get("/members/events").header("Authorization", authorization);
        Self::begin(server, &request, "data: hello").await
    }

    /// Silent, by this `Authorization`.
    pub(crate) async fn websocket_by(server: &Server, authorization: &str) -> Self {
        let request = Request::get("/members/socket").header("Authorization", authorization);
        Self::begin(server, &as_websocket(request), "\"body\":\"\"}").await
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

fn as_websocket(request: Request) -> Request {
    request
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
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

/// What a request presents in place of a cookie, and a stream of each kind by it.
async fn both_by(server: &Server, authorization: &str) -> [Stream; 2] {
    [Stream::websocket_by(server, authorization).await, Stream::events_by(server, authorization).await]
}

async fn all_end(what: &str, streams: &mut [Stream]) {
    within(BOUND, &format!("all streams end after {what}"), async {
        for stream in streams {
            stream.until_cut().await;
        }
    })
    .await;
}

async fn are_open(what: &str, streams: &mut [Stream]) {
    for stream in streams {
        assert!(stream.is_open().await, "{what}");
    }
}

#[tokio::test]
async fn threat_36_open_streams_end_with_the_token_or_the_password_that_opened_them() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let token = |server: &Server, arguments: &[&str]| {
        format!("Bearer {}", server.run(&[&["token", "create"], arguments].concat()).trim_end())
    };
    let id_of = |server: &Server, name: &str| {
        let listed: serde_json::Value =
            serde_json::from_str(&server.run(&["token", "list", "--format", "json"])).expect("JSON");
        let found = listed.as_array().expect("a list").iter().find(|token| token["name"] == name).cloned();
        found.expect("the token")["id"].as_str().expect("an id").to_owned()
    };
    // Nobody of these is touched: their streams stay.
    let alice = server.sign_in("alice").await;
    let mut kept = Vec::new();
    let passwords_of = |user: &str| format!("Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}")));
    for authorization in [
        token(&server, &["alice", "--name", "kept"]),
        token(&server, &["--service", "robot", "--groups", "dev", "--name", "kept too"]),
        passwords_of("alice"),
        format!("Bearer {}", alice.access_token),
    ] {
        kept.extend(both_by(&server, &authorization).await);
    }

    let bearer = token(&server, &["bob", "--name", "one"]);
    let mut streams = both_by(&server, &bearer).await;
    are_open("a token", &mut streams).await;
    server.run(&["token", "revoke", &id_of(&server, "one")]);
    all_end("token revoke", &mut streams).await;

    // One access token revoked at the API; its session and the session's own stream live on.
    let bob = server.sign_in("bob").await;
    let mut by_cookie = [Stream::websocket(&server, &bob.gate).await];
    let mut streams = both_by(&server, &format!("Bearer {}", bob.access_token)).await;
    are_open("an access token", &mut streams).await;
    let revoke = Request::new("POST", "/auth/revoke").json(&serde_json::json!({ "token": bob.access_token }));
    assert_eq!(server.portal(revoke).await.status, 200);
    all_end("a revoked access token", &mut streams).await;
    are_open("its session", &mut by_cookie).await;

    for end in ["new groups", "new password", "disable"] {
        let by_token = both_by(&server, &token(&server, &["bob", "--name", end])).await;
        let mut streams = Vec::from(by_token);
        streams.extend(both_by(&server, &passwords_of("bob")).await);
        are_open(end, &mut streams).await;
        match end {
            "new groups" => _ = server.run(&["user", "set", "bob", "--groups", "dev,ops"]),
            // The same one: it is another all the same.
            "new password" => _ = server.run(&["user", "set-password", "bob", "--password-stdin"]),
            _ => _ = server.run(&["user", "disable", "bob"]),
        }
        all_end(end, &mut streams).await;
    }
    are_open("nobody spoke of them", &mut kept).await;
    for stream in kept.iter_mut().step_by(2) {
        assert!(stream.echoes().await);
    }
    // An emergency: every key is gone, and what it signed.
    server.run(&["keys", "rotate", "--now"]);
    all_end("keys rotate", &mut kept[6..]).await;
    are_open("no key signed for them", &mut kept[..6]).await;
    assert!(server.metric("postern_streams_ended_total", &["reason=\"credential\""]).await >= 8.0);
}

#[tokio::test]
async fn threat_36_open_streams_end_when_their_token_expires() {
    let lifetime = Duration::from_secs(4);
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let key = Key::ed25519("ed");
    idp.keys("/jwks.json", &[&key]);
    let mut setup = Setup::with(&upstream);
    setup.more = format!(
        r#"tokens:
  access: 4s
  trusted_issuers:
    - {{ issuer: "https://idp.test", audiences: [postern], jwks: "{}", clock_skew: 0s }}
"#,
        idp.url("/jwks.json")
    );
    let server = setup.start().await;
    let mut kept = both_by(&server, &format!("Bearer {}", key.token(&idp::claims("https://idp.test")))).await;
    let before = now();
    let bob = server.sign_in("bob").await;
    let ours = format!("Bearer {}", bob.access_token);
    let theirs = idp::with(idp::claims("https://idp.test"), "exp", idp::now() + 4);
    let theirs = format!("Bearer {}", key.token(&theirs));
    let mut streams = Vec::from(both_by(&server, &ours).await);
    streams.extend(both_by(&server, &theirs).await);
    streams.push(Stream::websocket(&server, &bob.gate).await);
    let of_session = streams.len() - 1;
    within(lifetime + BOUND, "all end", async {
        for stream in &mut streams[..of_session] {
            stream.until_cut().await;
        }
    })
    .await;
    // Tokens say whole seconds.
    assert!(before.elapsed() > lifetime - Duration::from_secs(1), "after {:?}", before.elapsed());
    are_open("a session is none of them", &mut streams[of_session..]).await;
    are_open("the token holds longer", &mut kept).await;
    // Somebody here is called so: an application must not take the one for the other.
    server.add_user("carol", &[]);
    all_end("a user of that name", &mut kept).await;
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
    let before = now();
    let bob = server.sign_in("bob").await;
    let mut socket = Stream::websocket(&server, &bob.gate).await;
    let mut events = Stream::events(&server, "/members/events", Some(&bob.gate)).await;
    within(lifetime + BOUND, "both end", async {
        socket.until_cut().await;
        events.until_cut().await;
    })
    .await;
    assert!(before.elapsed() >= lifetime, "after {:?}", before.elapsed());
    eventually("it is counted", || async {
        (server.metric("postern_streams_ended_total", &["reason=\"lifetime\""]).await >= 1.0).then_some(())
    })
    .await;
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
