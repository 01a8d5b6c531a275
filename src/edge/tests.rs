//! The real service on a free port, in front of an upstream that tells what it got.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use pingora::proxy::{ProxyHttp as _, Session as Downstream};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{mpsc, watch},
    task::JoinHandle,
};

use super::{Edge, Streams, serve, service::Proxy};
use crate::{
    core::{
        request::Role,
        route::{Server, Upstream, UpstreamTimeouts},
        site::Site,
    },
    gate::{Gate, connections::Connections, in_flight::InFlight},
    observe::{
        access_log::{AccessLog, Sink},
        metrics::Metrics,
    },
    ports::fakes::{
        Counting, Door, Flooding, OneKey, Revocations, Stopped, Stores, Tokens, Zeroes, cookie_of, listener,
        no_issuers, route, session, site, token,
    },
};

fn server(address: SocketAddr) -> Server {
    Server {
        label: format!("http://{address}"),
        tls: false,
        host: address.ip().to_string(),
        port: address.port(),
        address: Some(address),
    }
}

/// Of a proxy, with an application on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// `read`: how long a server of these may take.
fn site_of(servers: Vec<Server>, read: Duration) -> Site {
    let timeouts = UpstreamTimeouts { connect: Duration::from_secs(30), read, write: Duration::from_secs(30) };
    let mut route = route("app.example.com");
    route.upstream = Arc::new(Upstream { name: "app".to_owned(), servers, timeouts });
    site(listener(Role::Edge), vec![route])
}

fn edge(stores: &Arc<Stores>, servers: Vec<Server>, read: Duration) -> Arc<Edge> {
    let metrics = Arc::new(Metrics::new().unwrap());
    let gate = Gate {
        sessions: Arc::clone(stores) as _,
        api_tokens: Arc::new(Tokens::default()),
        passwords: Arc::new(Door::default()),
        keys: Arc::new(OneKey::new()),
        foreign: no_issuers(),
        tokens: Arc::new(Revocations::default()),
        source_limit: Arc::new(Flooding),
        counters: Arc::new(Counting::default()),
        clock: Arc::new(Stopped),
        entropy: Arc::new(Zeroes),
        metrics: Arc::clone(&metrics),
    };
    let connections = Arc::new(Connections::new(Arc::new(Stopped), Arc::clone(&metrics)));
    let portal = axum::Router::new()
        .route("/", axum::routing::get(|| async { "portal" }))
        .route("/auth/login", axum::routing::post(|body: String| async { body }));
    Arc::new(Edge {
        site: Arc::new(ArcSwap::from_pointee(site_of(servers, read))),
        gate: Arc::new(gate),
        portal,
        metrics,
        access_log: Arc::new(AccessLog::open(&Sink::Off, true).unwrap()),
        in_flight: InFlight::default(),
        connections,
        streams: Streams::default(),
    })
}

struct Running {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    /// Bound and never listening: the port is nobody else's, even when the listener is gone.
    _held: TcpSocket,
}

fn started(servers: Vec<Server>) -> Running {
    started_with(&Arc::default(), servers, PATIENCE)
}

/// Before servers that never answer.
fn impatient(servers: Vec<Server>) -> Running {
    started_with(&Arc::default(), servers, Duration::from_millis(300))
}

fn started_with(stores: &Arc<Stores>, servers: Vec<Server>, read: Duration) -> Running {
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = held.local_addr().unwrap();
    let socket = std::net::TcpListener::bind(address).unwrap();
    let (stop, stopping) = watch::channel(false);
    Running { address, stop, task: serve(edge(stores, servers, read), 0, socket, None, stopping), _held: held }
}

impl Running {
    /// The whole of an answer to `request`, after which the connection ends.
    async fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let reading = stream.read_to_end(&mut answer);
        tokio::time::timeout(Duration::from_secs(10), reading).await.expect("an answer").ok();
        String::from_utf8_lossy(&answer).into_owned()
    }
}

/// Answers each connection's one request with `answer`; without an answer it stays silent. Tells the heads it got.
async fn upstream(answer: Option<&'static str>) -> (Server, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut silent = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let _ = tell.send(String::from_utf8_lossy(&head).into_owned());
            match answer {
                Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                None => silent.push(stream),
            }
        }
    });
    (server(address), told)
}

const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nSet-Cookie: postern_session=evil; Path=/\r\n\
                    Set-Cookie: theirs=1\r\n\r\nok";

#[tokio::test(flavor = "multi_thread")]
async fn threat_23_24_25_29_60_headers_are_cleaned_both_ways_and_the_target_goes_on_as_it_came() {
    let (server, mut told) = upstream(Some(FINE)).await;
    let running = started(vec![server]);
    let answer = running
        .ask(
            "GET /public/%252e/a?x=%2f HTTP/1.1\r\nHost: app.example.com\r\nConnection: close, Remote-User, X-Request-Id\r\n\
             Remote-User: admin\r\nRemote_Groups: admins\r\nX-Forwarded-For: 10.0.0.1\r\nX-Original-URL: /x\r\n\
             Cookie: postern_session=abc; theirs=2\r\n\r\n",
        )
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(!answer.contains("postern_session"), "{answer}");
    assert!(answer.to_lowercase().contains("set-cookie: theirs=1"), "{answer}");
    assert!(answer.to_lowercase().contains("x-request-id: "), "{answer}");
    let head = told.recv().await.unwrap();
    assert!(head.starts_with("GET /public/%252e/a?x=%2f HTTP/1.1\r\n"), "{head}");
    let head = head.to_lowercase();
    for gone in ["remote", "admin", "10.0.0.1", "x-original-url", "postern_session"] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
    for there in [
        "host: app.example.com\r\n",
        "cookie: theirs=2\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: app.example.com\r\n",
        "x-request-id: ",
        "traceparent: 00-",
    ] {
        assert!(head.contains(there), "{there} not in {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_29_a_token_of_ours_never_reaches_the_upstream() {
    let (server, mut told) = upstream(Some(FINE)).await;
    let stores = Arc::new(Stores::default());
    stores.store(&session('a', 1));
    let running = started_with(&stores, vec![server], PATIENCE);
    let ours = token(1, |_| {});
    let session = format!("Cookie: postern_session={}\r\n", cookie_of('a'));
    let foreign = "Authorization: Basic dGhlaXJz\r\n";
    for (path, more, goes_on) in [
        ("/staff/x", format!("Authorization: Bearer {ours}\r\n"), false),
        ("/staff/x", format!("{session}Authorization: Bearer {ours}\r\n"), false),
        ("/public/x", format!("Authorization: bearer {ours}\r\n"), false),
        ("/public/x", format!("{foreign}Authorization: Bearer {ours}\r\n"), false),
        ("/staff/x", format!("{session}{foreign}Proxy-Authorization: Bearer {ours}\r\n"), true),
        ("/staff/x", format!("{session}{foreign}"), true),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n{more}\r\n");
        let answer = running.ask(&request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{more} -> {answer}");
        let head = told.recv().await.unwrap();
        assert!(!head.contains(&ours) && !head.contains("postern_session"), "{more} -> {head}");
        assert_eq!(head.contains("dGhlaXJz"), goes_on, "{more} -> {head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_or_not_allowed_never_reaches_the_upstream() {
    let (server, mut told) = upstream(Some(FINE)).await;
    let running = started(vec![server]);
    let large = format!("GET /public/a HTTP/1.1\r\nHost: app.example.com\r\nX: {}\r\n\r\n", "x".repeat(70_000));
    let many = format!("GET /public/a HTTP/1.1\r\nHost: app.example.com\r\n{}\r\n", "X: 1\r\n".repeat(210));
    for (request, status) in [
        ("GET /public/a HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
        ("GET /public/a HTTP/1.1\r\nHost: app.example.com\r\nHost: b\r\n\r\n", "400"),
        ("GET http://b/public/a HTTP/1.1\r\nHost: app.example.com\r\n\r\n", "400"),
        ("GET /public/../a HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n", "400"),
        ("get /public/a HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n", "400"),
        ("CONNECT app.example.com:443 HTTP/1.1\r\nHost: app.example.com:443\r\n\r\n", "405"),
        ("GET /private HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n", "403"),
        ("GET /public/a HTTP/1.1\r\nHost: other.example.com\r\nConnection: close\r\n\r\n", "404"),
        (large.replace("\r\nX:", "\r\nConnection: close\r\nX:").as_str(), "431"),
        (many.replacen("\r\nX:", "\r\nConnection: close\r\nX:", 1).as_str(), "431"),
    ] {
        let answer = running.ask(request).await;
        let begin: String = request.chars().take(60).collect();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{begin} -> {answer}");
    }
    assert!(told.try_recv().is_err(), "the upstream was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_goes_on_in_origin_form() {
    let (server, mut told) = upstream(Some(FINE)).await;
    let running = started(vec![server]);
    let answer = running
        .ask("GET http://app.example.com/public/a HTTP/1.1\r\nHost: app.example.com\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(told.recv().await.unwrap().starts_with("GET /public/a HTTP/1.1\r\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_passed_over_and_none_left_is_502() {
    // Bound and never listening: connections are refused, and nobody else is given the port while the test runs.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let refused = server(closed.local_addr().unwrap());
    let (alive, _told) = upstream(Some(FINE)).await;
    let request = "POST /public/a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let running = started(vec![refused.clone(), alive]);
    for _ in 0..2 {
        let answer = running.ask(request).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    let answer = started(vec![refused]).ask(request).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.to_lowercase().contains("x-request-id: "), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_upstream_is_504_and_asked_once() {
    let (server, mut told) = upstream(None).await;
    let running = impatient(vec![server]);
    let answer = running
        .ask("POST /public/a HTTP/1.1\r\nHost: app.example.com\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .await;
    assert!(answer.starts_with("HTTP/1.1 504"), "{answer}");
    assert!(told.recv().await.is_some());
    assert!(told.try_recv().is_err(), "asked again");
}

/// The time of an open WebSocket is not that of an answer to its handshake, and none of a request that only has the header.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_to_an_upgrade_is_504_as_well() {
    for (method, fields, goes_on) in [
        ("GET", "Upgrade: websocket\r\n", true),
        ("GET", "Upgrade: WebSocket\r\nContent-Length: 0\r\n", true),
        ("GET", "Upgrade: h2c\r\n", false),
        ("GET", "Upgrade: websocket\r\nUpgrade: h2c\r\n", false),
        ("GET", "Upgrade: websocket, h2c\r\n", false),
        ("POST", "Upgrade: websocket\r\nContent-Length: 0\r\n", false),
    ] {
        let head = format!(
            "{method} /public/a HTTP/1.1\r\nHost: app.example.com\r\nConnection: upgrade\r\n{fields}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        let (server, mut told) = upstream(None).await;
        let running = impatient(vec![server]);
        let mut client = TcpStream::connect(running.address).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        tokio::time::timeout(Duration::from_secs(20), client.read_exact(&mut status)).await.expect("soon").unwrap();
        assert_eq!(&status, b"HTTP/1.1 504", "{head}");
        let told = told.recv().await.unwrap().to_ascii_lowercase();
        assert_eq!(told.contains("\r\nupgrade: websocket\r\n"), goes_on, "{head}: {told}");
        assert!(goes_on || !told.contains("upgrade"), "{head}: {told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_portal_answers_through_the_bridge_and_bounds_bodies() {
    let running = started(Vec::new());
    let get = running.ask("GET / HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\n\r\n").await;
    assert!(get.starts_with("HTTP/1.1 200") && get.ends_with("\r\n\r\nportal"), "{get}");
    let post = running
        .ask(
            "POST /auth/login HTTP/1.1\r\nHost: auth.example.com\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        )
        .await;
    assert!(post.starts_with("HTTP/1.1 200") && post.ends_with("\r\n\r\nabc"), "{post}");
    let large = running
        .ask(
            "POST /auth/login HTTP/1.1\r\nHost: auth.example.com\r\nContent-Length: 70000\r\nConnection: close\r\n\r\n",
        )
        .await;
    assert!(large.starts_with("HTTP/1.1 413"), "{large}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_stops_accepting_and_closes_idle_connections() {
    let running = started(Vec::new());
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nHost: auth.example.com\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    running.stop.send(true).unwrap();
    tokio::time::timeout(Duration::from_secs(5), running.task).await.expect("stops").unwrap();
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), idle.read_to_end(&mut rest)).await.expect("is closed").ok();
    assert!(TcpStream::connect(running.address).await.is_err(), "still accepts");
}

#[tokio::test]
async fn without_a_permit_no_upstream_is_chosen() {
    let (server, _told) = upstream(Some(FINE)).await;
    let proxy = Proxy::new(edge(&Arc::default(), vec![server], PATIENCE), 0, None);
    let mut context = proxy.new_ctx();
    // Even a request whose route is known.
    context.route = Some(Arc::clone(&context.site.routes.all()[0]));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let mut session = Downstream::new_h1(Box::new(pingora::protocols::l4::stream::Stream::from(stream)));
    let error = proxy.upstream_peer(&mut session, &mut context).await.unwrap_err();
    assert_eq!(error.etype(), &pingora::ErrorType::HTTPStatus(500));
}
