//! The whole role over real sockets, as the four kinds of proxies ask (CONTRACT 5).

mod connections;
mod portal;
mod verdicts;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    extract::{DefaultBodyLimit, Request},
    routing::{get, post},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    sync::{Notify, watch},
    time,
};

use super::*;
use crate::{
    core::{
        request::Role,
        site::{ListenerSite, Site},
    },
    observe::access_log::Sink,
    portal::{Arrival, MAX_BODY},
    ports::fakes::{
        Counting, Door, Flooding, OneKey, Revocations, Stopped, Stores, Tokens, Zeroes, cookie_of, listener,
        no_issuers, session, site, token,
    },
};

struct Running {
    address: SocketAddr,
    stores: Arc<Stores>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    slow: Arc<Slow>,
    /// Bound and never listening: the port is nobody else's, even when the listener is gone.
    _held: TcpSocket,
}

/// A request of the portal that ends when the test says so.
#[derive(Default)]
struct Slow {
    began: Notify,
    may_end: Notify,
}

fn started() -> Running {
    started_with(|_| {}, None)
}

fn started_with(change: impl FnOnce(&mut Site), tls: Option<Tls>) -> Running {
    let stores = Arc::new(Stores::default());
    stores.store(&session('a', 1));
    let here = ListenerSite { trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()], ..listener(Role::ForwardAuth) };
    let mut site = site(ListenerSite { tls: tls.is_some(), ..here }, Vec::new());
    change(&mut site);
    let metrics = Arc::new(Metrics::new().unwrap());
    let gate = Gate {
        sessions: Arc::clone(&stores) as _,
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
    let slow = Arc::new(Slow::default());
    let slowly = Arc::clone(&slow);
    let waiting = async move || {
        slowly.began.notify_one();
        slowly.may_end.notified().await;
    };
    let connections = Arc::new(Connections::new(Arc::new(Stopped), Arc::clone(&metrics)));
    let portal = axum::Router::new()
        .route("/", get(|request: Request| async move { arrived(&request) }))
        .route("/.well-known/jwks.json", get(|| async { "keys" }))
        .route("/slow", get(waiting))
        .route("/auth/login", post(|body: String| async move { body }))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    let forward_auth = Arc::new(ForwardAuth {
        site: Arc::new(ArcSwap::from_pointee(site)),
        gate: Arc::new(gate),
        portal,
        metrics: Arc::clone(&metrics),
        access_log: Arc::new(AccessLog::open(&Sink::Off, true).unwrap()),
        in_flight: InFlight::default(),
        connections,
        stranger_logged_at: AtomicI64::new(0),
    });
    let held = TcpSocket::new_v4().unwrap();
    held.set_reuseaddr(true).unwrap();
    held.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = held.local_addr().unwrap();
    let socket = std::net::TcpListener::bind(address).unwrap();
    socket.set_nonblocking(true).unwrap();
    let (stop, stopping) = watch::channel(false);
    Running { address, stores, metrics, stop, task: serve(forward_auth, 0, socket, tls, stopping), slow, _held: held }
}

fn arrived(request: &Request) -> String {
    let arrival = request.extensions().get::<Arrival>().unwrap();
    format!("{} {} {:?}", request.uri(), arrival.target.url(), arrival.client.known())
}

/// An answer as it came over the wire.
struct Answer(String);

impl Answer {
    fn status(&self) -> u16 {
        self.0.get(9..12).unwrap_or_default().parse().unwrap_or_else(|_| panic!("no answer: {:?}", self.0))
    }

    /// Every value of a header.
    fn all(&self, name: &str) -> Vec<&str> {
        let head = self.0.split("\r\n\r\n").next().unwrap();
        let named = |line: &&str| line.split(':').next().unwrap().eq_ignore_ascii_case(name);
        head.split("\r\n").filter(named).map(|line| line.split_once(':').unwrap().1.trim()).collect()
    }

    fn one(&self, name: &str) -> Option<&str> {
        let all = self.all(name);
        assert!(all.len() < 2, "{name} came twice: {all:?}");
        all.first().copied()
    }

    fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").unwrap().1
    }

    /// Status, `X-Postern-Status`, rule, and where to sign in.
    fn told(&self) -> String {
        let mut told = self.status().to_string();
        for name in ["x-postern-status", "x-postern-rule", "location"] {
            told.push(' ');
            told.push_str(self.one(name).unwrap_or("-"));
        }
        told
    }
}

impl Running {
    /// One request on a connection of its own; `head` without the empty line at its end.
    async fn ask(&self, head: &str) -> Answer {
        self.send(&format!("{}\r\nConnection: close\r\n\r\n", head.trim_end())).await
    }

    async fn send(&self, request: &str) -> Answer {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        time::timeout(Duration::from_secs(10), stream.read_to_end(&mut answer)).await.expect("an answer").ok();
        Answer(String::from_utf8_lossy(&answer).into_owned())
    }
}

/// How the four proxies ask about one request, in the order of [`Dialect`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    ForwardAuth,
    AuthRequest,
    ExtAuthz,
    Legacy,
}

const ALL: [By; 4] = [By::ForwardAuth, By::AuthRequest, By::ExtAuthz, By::Legacy];
const PAGE: &str = "Accept: text/html\r\n";
const API: &str = "Accept: application/json\r\n";

fn question(by: By, method: &str, host: &str, path: &str, more: &str) -> String {
    let asked = match by {
        By::ForwardAuth => format!(
            "GET /api/authz/forward-auth HTTP/1.1\r\nHost: postern\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: {host}\r\n\
             X-Forwarded-Method: {method}\r\nX-Forwarded-Uri: {path}\r\n"
        ),
        By::AuthRequest => format!(
            "GET /api/authz/auth-request HTTP/1.1\r\nHost: postern\r\nX-Original-URL: https://{host}{path}\r\n\
             X-Original-Method: {method}\r\n"
        ),
        By::ExtAuthz => {
            format!("{method} /api/authz/ext-authz/{path} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Proto: https\r\n")
        }
        By::Legacy => format!(
            "GET /api/verify?rd=https://auth.example.com/ HTTP/1.1\r\nHost: postern\r\nX-Original-URL: https://{host}{path}\r\n\
             X-Original-Method: {method}\r\n"
        ),
    };
    format!("{asked}{more}")
}

fn cookie(marks: &str) -> String {
    let pairs: Vec<_> = marks.chars().map(|mark| format!("postern_session={}", cookie_of(mark))).collect();
    format!("Cookie: {}\r\n", pairs.join("; "))
}

const APP: &str = "app.example.com";
