//! The whole role over real sockets, as the four kinds of proxies ask (CONTRACT 5).

use std::{net::SocketAddr, sync::atomic::Ordering, time::Duration};

use arc_swap::ArcSwap;
use axum::{
    extract::{DefaultBodyLimit, Request},
    routing::{get, post},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time,
};

use super::*;
use crate::{
    core::{
        request::Role,
        route::HeaderTemplate,
        site::{ListenerSite, Site},
    },
    observe::access_log::Sink,
    portal::{Arrival, MAX_BODY},
    ports::fakes::{Flooding, OneKey, Stopped, Stores, Zeroes, cookie_of, listener, session, site, token},
};

struct Running {
    address: SocketAddr,
    stores: Arc<Stores>,
    metrics: Arc<Metrics>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn started() -> Running {
    started_with(|_| {}, None)
}

fn started_with(change: impl FnOnce(&mut Site), tls: Option<Arc<ServerConfig>>) -> Running {
    let stores = Arc::new(Stores::default());
    stores.store(&session('a', 1));
    let here = ListenerSite { trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()], ..listener(Role::ForwardAuth) };
    let mut site = site(ListenerSite { tls: tls.is_some(), ..here }, Vec::new());
    change(&mut site);
    let metrics = Arc::new(Metrics::new().unwrap());
    let gate = Gate {
        sessions: Arc::clone(&stores) as _,
        keys: Arc::new(OneKey::new()),
        source_limit: Arc::new(Flooding),
        clock: Arc::new(Stopped),
        entropy: Arc::new(Zeroes),
        metrics: Arc::clone(&metrics),
    };
    let portal = axum::Router::new()
        .route("/", get(|request: Request| async move { arrived(&request) }))
        .route("/.well-known/jwks.json", get(|| async { "keys" }))
        .route("/slow", get(|| async { time::sleep(Duration::from_millis(300)).await }))
        .route("/auth/login", post(|body: String| async move { body }))
        .layer(DefaultBodyLimit::max(MAX_BODY));
    let forward_auth = Arc::new(ForwardAuth {
        site: Arc::new(ArcSwap::from_pointee(site)),
        gate: Arc::new(gate),
        portal,
        metrics: Arc::clone(&metrics),
        access_log: Arc::new(AccessLog::open(&Sink::Off, true).unwrap()),
        in_flight: InFlight::default(),
        stranger_logged_at: AtomicI64::new(0),
    });
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let (stop, stopping) = watch::channel(false);
    Running { address, stores, metrics, stop, task: serve(forward_auth, 0, socket, tls, stopping) }
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

#[tokio::test(flavor = "multi_thread")]
async fn every_verdict_has_its_answer_in_every_dialect() {
    let running = started();
    let signed_in = cookie("a");
    let failed = format!("{API}Proxy-Authorization: Bearer {}\r\n", token(2, |_| {}));
    let preflight = format!("{PAGE}Origin: https://x.test\r\nAccess-Control-Request-Method: PUT\r\n");
    let websocket = format!("{PAGE}Sec-WebSocket-Key: x\r\n");
    let page_of_bob = format!("{PAGE}{signed_in}");
    let staff = |method: &str| {
        format!(
            "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2Fstaff%2Fx%3Fa%3Db%26c%3D%252F%2B%7E&rm={method}"
        )
    };
    let to_sign_in = |status: u16, method: &str| {
        let location = staff(method);
        [
            format!("{status} - staff {location}"),
            format!("401 {status} staff {location}"),
            format!("{status} - staff {location}"),
            format!("{status} - staff {location}"),
        ]
    };
    let told = |four: [&str; 4]| four.map(str::to_owned);
    let same = |one: &str| [one; 4].map(str::to_owned);
    let admin = "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2Fadmin%2F&rm=GET";
    let step_up = |status: u16| {
        [
            format!("{status} - admin {admin}"),
            format!("401 {status} admin {admin}"),
            format!("{status} - admin {admin}"),
            format!("{status} - admin {admin}"),
        ]
    };
    let wanted = "/staff/x?a=b&c=%2F+~";
    let cases: Vec<(&str, &str, &str, &str, [String; 4])> = vec![
        ("a page", "GET", wanted, PAGE, to_sign_in(302, "GET")),
        ("a head", "HEAD", wanted, PAGE, to_sign_in(302, "HEAD")),
        ("a form", "POST", wanted, PAGE, to_sign_in(303, "POST")),
        ("a deletion", "DELETE", wanted, PAGE, to_sign_in(303, "DELETE")),
        ("a navigation", "GET", wanted, "Sec-Fetch-Mode: navigate\r\n", to_sign_in(302, "GET")),
        ("a fetch", "GET", wanted, "Sec-Fetch-Mode: cors\r\nAccept: text/html\r\n", to_sign_in(401, "GET")),
        ("curl", "GET", wanted, "Accept: */*\r\n", to_sign_in(302, "GET")),
        ("no accept", "GET", wanted, "", to_sign_in(401, "GET")),
        ("xhr", "GET", wanted, "Accept: text/html\r\nX-Requested-With: XMLHttpRequest\r\n", to_sign_in(401, "GET")),
        ("an api call", "PUT", wanted, API, to_sign_in(401, "PUT")),
        ("a websocket", "GET", wanted, &websocket, to_sign_in(401, "GET")),
        (
            "a websocket of http/2",
            "GET",
            wanted,
            "Accept: */*\r\nSec-WebSocket-Version: 13\r\n",
            to_sign_in(401, "GET"),
        ),
        (
            "a preflight",
            "OPTIONS",
            "/staff/x",
            &preflight,
            told(["401 - staff -", "401 401 staff -", "401 - staff -", "401 - staff -"]),
        ),
        ("a second factor, page", "GET", "/admin/", &page_of_bob, step_up(302)),
        ("a second factor, api", "GET", "/admin/", &signed_in, step_up(401)),
        ("refused", "GET", "/elsewhere", PAGE, same("403 - default -")),
        ("refused to bob", "GET", "/elsewhere", &signed_in, same("403 - default -")),
        (
            "a failed token",
            "GET",
            "/staff/x",
            &failed,
            told(["401 - staff -", "401 401 staff -", "401 - staff -", "401 - staff -"]),
        ),
        (
            "too many",
            "GET",
            "/staff/x",
            "X-Forwarded-For: 203.0.113.9\r\n",
            told(["429 - - -", "403 429 - -", "429 - - -", "429 - - -"]),
        ),
        (
            "ambiguous",
            "GET",
            "/public/%2e%2e/admin/",
            PAGE,
            told(["400 - - -", "403 400 - -", "400 - - -", "401 - - -"]),
        ),
        ("lower case", "get", "/staff/x", PAGE, told(["400 - - -", "403 400 - -", "400 - - -", "401 - - -"])),
        (
            "threat_24 respelled",
            "GET",
            "/public/x",
            "Remote_User: admin\r\n",
            told(["400 - - -", "403 400 - -", "400 - - -", "401 - - -"]),
        ),
        (
            "threat_24 dotted",
            "GET",
            "/public/x",
            "Remote.Groups: admins\r\n",
            told(["400 - - -", "403 400 - -", "400 - - -", "401 - - -"]),
        ),
    ];
    for (what, method, path, more, expected) in cases {
        for (by, expected) in ALL.into_iter().zip(expected) {
            let answer = running.ask(&question(by, method, APP, path, more)).await;
            assert_eq!(answer.told(), expected, "{what}: {}", answer.0);
            assert!(answer.one("x-request-id").is_some_and(|id| !id.is_empty()), "{what}");
            let challenge = (what == "a failed token").then_some(r#"Bearer error="invalid_token""#);
            assert_eq!(answer.one("www-authenticate"), challenge, "{what}");
            assert_eq!(answer.one("retry-after"), (what == "too many").then_some("3"), "{what}");
            assert_eq!(answer.one("remote-user"), None, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_32_67_a_store_that_is_down_closes_every_dialect_but_for_bypass() {
    let running = started();
    running.stores.down.store(true, Ordering::SeqCst);
    let expected = ["503 - staff -", "403 503 staff -", "403 503 staff -", "503 - staff -"];
    for (by, expected) in ALL.into_iter().zip(expected) {
        let asked = |path| question(by, "GET", APP, path, &cookie("a"));
        assert_eq!(running.ask(&asked("/staff/x")).await.told(), expected);
        let bypass = running.ask(&asked("/public/x")).await;
        assert_eq!((bypass.status(), bypass.one("remote-user")), (200, Some("")));
        let by_token = format!("Proxy-Authorization: Bearer {}\r\n", token(1, |_| {}));
        assert_eq!(running.ask(&question(by, "GET", APP, "/staff/x", &by_token)).await.told(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_no_cookie_reaches_is_rejected_only_where_sign_in_is_needed() {
    let running = started();
    for (by, expected) in ALL.into_iter().zip(["400 - staff -", "403 400 staff -", "400 - staff -", "401 - staff -"]) {
        let ask = async |path| running.ask(&question(by, "GET", "app.elsewhere.test", path, PAGE)).await.told();
        assert_eq!(ask("/staff/x").await, expected);
        assert_eq!(ask("/elsewhere").await, "403 - default -");
        assert_eq!(ask("/public/x").await, "200 - - -");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_23_29_forward_tells_every_header_and_nothing_of_ours() {
    let template = HeaderTemplate::parse("X-Webauth-User", "{user.name}").unwrap();
    let running = started_with(|site| site.listeners[0].headers = vec![template], None);
    let ours = token(1, |_| {});
    let spoofed = "Remote-User: admin\r\nRemote-Groups: admins\r\nX-Webauth-User: admin\r\nX-Request-Id: mine\r\n";
    for by in ALL {
        let ask = async |path: &str, more: &str| {
            running.ask(&question(by, "POST", APP, path, &format!("{spoofed}{more}"))).await
        };
        let seen = |answer: &Answer| -> Vec<String> {
            assert_eq!(answer.status(), 200, "{}", answer.0);
            assert_eq!(answer.one("x-request-id"), Some("mine"), "a trusted proxy's goes on");
            assert!(answer.one("traceparent").is_some_and(|trace| trace.len() == 55));
            ["remote-user", "remote-name", "remote-email", "remote-groups", "x-webauth-user", "cookie", "authorization"]
                .map(|name| answer.one(name).unwrap_or("missing").to_owned())
                .to_vec()
        };
        let anonymous = ask("/public/x", "").await;
        assert_eq!(seen(&anonymous), ["", "", "", "", "", "", ""]);
        let session =
            format!("Cookie: a=1; postern_session={}; b=2\r\nCookie: c=3; =postern_session=x\r\n", cookie_of('a'));
        let theirs = "Authorization: Basic dXNlcjpwYXNz\r\n";
        let bob = ask("/staff/x", &format!("{session}{theirs}")).await;
        assert_eq!(seen(&bob), ["bob", "Bob", "", "staff,admins", "bob", "a=1; b=2; c=3", "Basic dXNlcjpwYXNz"]);
        // Our own token never goes on: beside a session, on a public page, or where this header is not read.
        let token = format!("Authorization: Bearer {ours}\r\n");
        let beside = ask("/staff/x", &format!("{}{token}", cookie("a"))).await;
        assert_eq!(seen(&beside), ["bob", "Bob", "", "staff,admins", "bob", "", ""]);
        assert_eq!(seen(&ask("/public/x", &token).await), ["", "", "", "", "", "", ""]);
        assert_eq!(seen(&ask("/public/x", &format!("{token}{theirs}")).await)[6], "");
        // The application's own header is left alone where ours came as the proxy's.
        let both = format!("Proxy-Authorization: Bearer {ours}\r\n{theirs}");
        let both = ask("/staff/x", &both).await;
        assert_eq!(seen(&both), ["bob", "Bob", "", "staff,admins", "bob", "", "Basic dXNlcjpwYXNz"]);
        assert!(!both.0.contains(&ours));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_count_in_their_order() {
    let running = started();
    let (good, bad) = (token(1, |_| {}), token(2, |_| {}));
    let foreign = token(2, |claims| claims.iss = "https://idp.test".to_owned());
    let ask = async |by, more: String| running.ask(&question(by, "GET", APP, "/staff/x", &more)).await.told();
    for by in [By::ForwardAuth, By::AuthRequest, By::ExtAuthz] {
        let failed = if by == By::AuthRequest { "401 401 staff -" } else { "401 - staff -" };
        let one = |name: &str, token: &str| format!("{API}{name}: Bearer {token}\r\n");
        assert_eq!(ask(by, one("Authorization", &good)).await, "200 - - -");
        assert_eq!(ask(by, one("Proxy-Authorization", &good)).await, "200 - - -");
        let both = |proxy: &str, own: &str| {
            format!("{API}Proxy-Authorization: Bearer {proxy}\r\nAuthorization: Bearer {own}\r\n")
        };
        assert_eq!(ask(by, both(&good, &bad)).await, "200 - - -", "the proxy's before the application's");
        assert_eq!(ask(by, both(&bad, &good)).await, failed, "never a fall-back");
        assert_eq!(ask(by, both(&foreign, &good)).await, "200 - - -", "another's token belongs to the application");
    }
    let legacy = async |query: &str, more: &str| {
        let asked = question(By::Legacy, "GET", APP, "/staff/x", more).replace("?rd=", &format!("?{query}rd="));
        running.ask(&asked).await.status()
    };
    assert_eq!(legacy("", &format!("Proxy-Authorization: bearer {good}\r\n")).await, 200);
    assert_eq!(legacy("", &format!("Authorization: Bearer {good}\r\n")).await, 401, "not read");
    assert_eq!(legacy("auth=basic&", &format!("Authorization: Bearer {good}\r\n")).await, 200);
    assert_eq!(legacy("auth=basic&", &format!("Proxy-Authorization: Bearer {good}\r\n")).await, 401, "not read");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_may_leave_the_header_to_the_application() {
    let running = started_with(|site| site.listeners[0].authorization_is_apps = true, None);
    let failed = format!("{API}Authorization: Bearer {}\r\n", token(2, |_| {}));
    let answer = running.ask(&question(By::ForwardAuth, "GET", APP, "/staff/x", &failed)).await;
    assert_eq!((answer.status(), answer.one("www-authenticate")), (401, None), "as if it were not there");
    assert!(answer.one("location").is_some());
    let theirs = format!("{}Authorization: Bearer theirs\r\n", cookie("a"));
    let answer = running.ask(&question(By::ForwardAuth, "GET", APP, "/staff/x", &theirs)).await;
    assert_eq!(answer.one("authorization"), Some("Bearer theirs"));
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_33_61_cookies_that_do_not_count() {
    let running = started();
    running.stores.store(&session('b', 1));
    let ask =
        async |more: String| running.ask(&question(By::ForwardAuth, "GET", APP, "/staff/x", &more)).await.status();
    assert_eq!(ask(cookie("a")).await, 200);
    assert_eq!(ask(cookie("ab")).await, 401, "two live sessions");
    assert_eq!(ask(cookie("zya")).await, 200, "dead ones do no harm");
    assert_eq!(ask(cookie("wxyab")).await, 401, "one's own pushed out of sight");
    assert!(running.metrics.render().contains("postern_session_cookie_conflicts_total 2"));
    for handshake in ["Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 13"] {
        let from = |origin: &str| format!("{}{handshake}\r\n{origin}\r\n", cookie("a"));
        assert_eq!(ask(from("Origin: https://evil.test")).await, 401, "{handshake}");
        assert_eq!(ask(from("Origin: https://postern")).await, 401, "the asking proxy's Host is not the request's");
        assert_eq!(ask(from("Origin: https://app.example.com")).await, 200);
        assert_eq!(ask(from("X: y")).await, 200);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_may_name_another_portal_of_the_cookies_domain() {
    let running = started();
    let ask = async |head: String| running.ask(&head).await;
    let rd = "rd=https%3A%2F%2Fapp.example.com%2Fstaff%2Fx&rm=GET";
    let named = |by: By, portal: &str| match by {
        By::ExtAuthz => question(by, "GET", APP, "/staff/x", &format!("{PAGE}X-Authelia-URL: {portal}\r\n")),
        _ => {
            let encoded: String = form_urlencoded::byte_serialize(portal.as_bytes()).collect();
            let asked = question(by, "GET", APP, "/staff/x", PAGE);
            let query = if by == By::Legacy { "?rd=" } else { "?authelia_url=" };
            let (path, rest) = asked.split_once(" HTTP/1.1").unwrap();
            format!("{}{query}{encoded} HTTP/1.1{rest}", path.split('?').next().unwrap())
        }
    };
    for by in ALL {
        for (portal, location) in [
            ("https://login.example.com", format!("https://login.example.com/?{rd}")),
            (
                "https://login.example.com:8443/sub?theme=dark",
                format!("https://login.example.com:8443/sub/?theme=dark&{rd}"),
            ),
            ("https://example.com/", format!("https://example.com/?{rd}")),
        ] {
            assert_eq!(ask(named(by, portal)).await.one("location"), Some(&*location), "{portal}");
        }
        let rejected = match by {
            By::AuthRequest => "403 400 staff -",
            By::Legacy => "401 - staff -",
            _ => "400 - staff -",
        };
        for portal in [
            "https://evil.test",
            "https://example.com.evil.test",
            "https://evilexample.com",
            "http://auth.example.com",
            "https://auth.example.com@evil.test",
            "https://user@auth.example.com",
            "https://auth.example.com/#x",
            "javascript:alert(1)",
            "//auth.example.com",
            "auth.example.com",
        ] {
            assert_eq!(ask(named(by, portal)).await.told(), rejected, "{portal}");
        }
    }
    // The legacy path redirects only where a portal is named.
    let asked = question(By::Legacy, "GET", APP, "/staff/x", PAGE).replace("?rd=https://auth.example.com/", "");
    assert_eq!(ask(asked.clone()).await.told(), "401 - staff -");
    let by_header = format!("{asked}X-Authelia-URL: https://login.example.com\r\n");
    assert_eq!(ask(by_header).await.told(), format!("302 - staff https://login.example.com/?{rd}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_on_http_is_asked_for_again_over_https() {
    let running = started();
    for (url, rd) in [
        ("http://app.example.com/staff/x", "https%3A%2F%2Fapp.example.com%2Fstaff%2Fx"),
        ("http://app.example.com:80/staff/x", "https%3A%2F%2Fapp.example.com%2Fstaff%2Fx"),
        ("http://app.example.com:8080/staff/x", "https%3A%2F%2Fapp.example.com%3A8080%2Fstaff%2Fx"),
        ("ws://app.example.com/staff/x", "https%3A%2F%2Fapp.example.com%2Fstaff%2Fx"),
        ("https://app.example.com:443/staff/x", "https%3A%2F%2Fapp.example.com%3A443%2Fstaff%2Fx"),
    ] {
        let answer = running
            .ask(&format!(
                "GET /api/authz/auth-request HTTP/1.1\r\nHost: x\r\nX-Original-URL: {url}\r\nX-Original-Method: GET\r\n{PAGE}"
            ))
            .await;
        assert_eq!(answer.one("location"), Some(&*format!("https://auth.example.com/?rd={rd}&rm=GET")), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_17_18_a_stranger_is_refused_before_anything_is_believed() {
    let running = started_with(|site| site.listeners[0].trusted_proxies.clear(), None);
    for by in ALL {
        for path in ["/public/x", "/staff/x", "/public/../x"] {
            let answer = running.ask(&question(by, "GET", APP, path, &cookie("a"))).await;
            assert_eq!((answer.status(), answer.one("remote-user"), answer.one("location")), (403, None, None));
            assert!(answer.one("x-request-id").is_some(), "every answer carries one");
        }
    }
    assert_eq!(running.stores.reads.load(Ordering::SeqCst), 0);
    let portal = running.ask("GET / HTTP/1.1\r\nHost: auth.example.com\r\nX-Forwarded-For: 192.0.2.1").await;
    assert_eq!(portal.body(), "/ http://auth.example.com/ Some(127.0.0.1)", "the portal is for everybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_62_connect_is_not_served() {
    let running = started();
    let connect = running.ask("CONNECT app.example.com:443 HTTP/1.1\r\nHost: app.example.com:443").await;
    assert_eq!(connect.status(), 405);
    let told = |by| question(by, "CONNECT", APP, "/public/x", "");
    assert_eq!(running.ask(&told(By::ForwardAuth)).await.status(), 405);
    assert_eq!(running.ask(&told(By::AuthRequest)).await.told(), "403 405 - -");
    assert_eq!(running.ask(&told(By::Legacy)).await.status(), 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_13_15_paths_are_matched_whatever_the_host_and_the_rest_is_the_portals() {
    let running = started();
    let get =
        async |path: &str, host: &str| running.ask(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{PAGE}")).await;
    for host in ["auth.example.com", "app.example.com", "127.0.0.1:9091", "evil.test"] {
        assert_eq!(get("/healthz", host).await.status(), 200, "{host}");
        assert_eq!(get("/.well-known/jwks.json", host).await.body(), "keys", "{host}");
        let asked =
            question(By::ForwardAuth, "GET", APP, "/public/x", "").replace("Host: postern", &format!("Host: {host}"));
        assert_eq!(running.ask(&asked).await.status(), 200, "{host}");
        let asked = asked.replace("GET /api", &format!("GET http://{host}/api"));
        assert_eq!(running.ask(&asked).await.status(), 200, "{host}, absolute");
    }
    assert!(get("/healthz", "x").await.one("x-request-id").is_some());
    assert_eq!(running.ask("HEAD /healthz HTTP/1.1\r\nHost: x").await.status(), 200);
    assert_eq!(running.ask("POST /healthz HTTP/1.1\r\nHost: x").await.status(), 404);
    for (path, host, status) in [
        ("/", "AUTH.example.com.:8080", 200),
        ("/nowhere", "auth.example.com", 404),
        ("/", "app.example.com", 404),
        ("/api/authz/ext-authz", "app.example.com", 404),
        ("/api/authz/forward-auth/", "app.example.com", 404),
        ("/%2e%2e/", "auth.example.com", 400),
        ("/auth/login%3Fx", "auth.example.com", 404),
        ("/%2561", "auth.example.com", 404),
        ("/", "a b", 400),
        ("/", "auth.example.com\r\nHost: app.example.com", 400),
    ] {
        let answer = get(path, host).await;
        assert_eq!(answer.status(), status, "{host}{path}");
        assert!(status == 400 || status == 200 || answer.all("location").is_empty());
    }
    assert_eq!(get("http://auth.example.com/", "app.example.com").await.status(), 400, "threat_14");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_portal_hears_how_the_client_came() {
    let running = started();
    let ask =
        async |more: &str| running.ask(&format!("GET /?rd=a%26b HTTP/1.1\r\nHost: auth.example.com\r\n{more}")).await;
    let told = ask("X-Forwarded-Proto: https\r\nX-Forwarded-For: 198.51.100.7\r\nX-Forwarded-Host: evil.test").await;
    assert_eq!(told.body(), "/?rd=a%26b https://auth.example.com/?rd=a%26b Some(198.51.100.7)");
    assert_eq!(ask("").await.body(), "/?rd=a%26b http://auth.example.com/?rd=a%26b None");
    for proto in ["X-Forwarded-Proto: javascript", "X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http"] {
        assert_eq!(ask(proto).await.status(), 400, "{proto}");
    }
    let flood = ask("X-Forwarded-For: 203.0.113.9").await;
    assert_eq!((flood.status(), flood.one("retry-after")), (429, Some("3")));
}

#[tokio::test(flavor = "multi_thread")]
async fn below_a_path_the_portal_is_on_every_host() {
    let running = started_with(
        |site| {
            site.portal.mount = crate::core::site::Mount::Path("/_postern".to_owned());
            site.cookies[0].domain.clear();
            site.cookies[0].portal = None;
        },
        None,
    );
    let portal = running.ask("GET /_postern/ HTTP/1.1\r\nHost: app.example.com").await;
    assert_eq!(portal.body(), "/ http://app.example.com/_postern/ None");
    let answer = running.ask(&question(By::ForwardAuth, "GET", "app.example.com:8443", "/staff/x", PAGE)).await;
    let rd = "rd=https%3A%2F%2Fapp.example.com%3A8443%2Fstaff%2Fx&rm=GET";
    assert_eq!(answer.told(), format!("302 - staff https://app.example.com:8443/_postern/?{rd}"));
    let query = "?authelia_url=https://other.example.com/_postern HTTP";
    let foreign = question(By::ForwardAuth, "GET", APP, "/staff/x", PAGE).replacen(" HTTP", query, 1);
    assert_eq!(running.ask(&foreign).await.status(), 400, "its own origin alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_said_to_be() {
    let running = started();
    let large = question(By::ForwardAuth, "GET", APP, "/public/x", &format!("X: {}\r\n", "x".repeat(70_000)));
    assert_eq!(running.ask(&large).await.status(), 431);
    let many = question(By::ForwardAuth, "GET", APP, "/public/x", &"X: 1\r\n".repeat(210));
    assert_eq!(running.ask(&many).await.status(), 431);
    let post = "POST /auth/login HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\n";
    let body = "x".repeat(MAX_BODY);
    let fits = running.send(&format!("{post}Content-Length: {MAX_BODY}\r\n\r\n{body}")).await;
    assert_eq!((fits.status(), fits.body().len()), (200, MAX_BODY));
    let told = running.send(&format!("{post}Content-Length: {}\r\n\r\n", MAX_BODY + 1)).await;
    assert_eq!(told.status(), 413, "before it came");
    let chunk = format!("{:x}\r\n{body}\r\n", body.len());
    let chunked = running.send(&format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n")).await;
    assert_eq!(chunked.status(), 413);
    let most = "x".repeat(700_000);
    let read = running.send(&format!("{post}Content-Length: {}\r\n\r\n{most}", most.len())).await;
    assert_eq!(read.status(), 413, "heard by one who sends all of it first");
    assert!(read.body().contains(r#""code":"payload_too_large""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_body_headers_and_upgrades_mean_nothing() {
    let running = started();
    for more in [
        "Content-Length: 100\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
        "Upgrade: foo\r\n",
        "Expect: 100-continue\r\nContent-Length: 10\r\n",
    ] {
        for by in ALL {
            let answer = running.ask(&question(by, "POST", APP, "/public/x", more)).await;
            assert_eq!(answer.status(), 200, "{more}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_52_requests_of_one_connection_are_each_decided_anew() {
    let running = started();
    let first = question(By::ForwardAuth, "GET", APP, "/staff/x", &cookie("a"));
    let second = question(By::ForwardAuth, "GET", APP, "/staff/x", API);
    let third = question(By::ForwardAuth, "GET", APP, "/public/x", "Connection: close\r\n");
    let answers = running.send(&format!("{first}\r\n{second}\r\n{third}\r\n")).await;
    let statuses: Vec<_> = answers.0.match_indices("HTTP/1.1 ").map(|(at, _)| &answers.0[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "401", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_a_request_end_and_closes_idle_connections() {
    let running = started();
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: auth.example.com\r\n\r\n").await.unwrap();
    // The portal's handler waits longer than this connection needs to be accepted.
    let mut first = [0; 1];
    assert!(time::timeout(Duration::from_millis(100), slow.read_exact(&mut first)).await.is_err());
    running.stop.send(true).unwrap();
    let mut rest = Vec::new();
    for stream in [&mut idle, &mut silent, &mut slow] {
        rest.clear();
        time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("is closed").ok();
    }
    assert!(rest.starts_with(b"HTTP/1.1 200"), "the slow one was answered");
    time::timeout(Duration::from_secs(5), running.task).await.expect("ends").unwrap();
    assert!(TcpStream::connect(running.address).await.is_err(), "still accepts");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_over_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made =
        rcgen::generate_simple_self_signed(["app.example.com".to_owned(), "auth.example.com".to_owned()]).unwrap();
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let running = started_with(|_| {}, Some(Arc::new(tls)));
    let mut client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()])
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    for host in ["app.example.com", "auth.example.com"] {
        client = client.resolve(host, running.address);
    }
    let client = client.build().unwrap();
    let get = |path: &str| client.get(format!("https://app.example.com:{}{path}", running.address.port()));
    // The listener's own scheme, and the authority of HTTP/2.
    let answer = get("/api/authz/ext-authz/staff/x?a=b").header("accept", "text/html").send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 302));
    let wanted = format!("https%3A%2F%2Fapp.example.com%3A{}%2Fstaff%2Fx%3Fa%3Db", running.address.port());
    assert_eq!(answer.headers()["location"], format!("https://auth.example.com/?rd={wanted}&rm=GET"));
    // HTTP/2 may split cookies over several headers.
    let answer = get("/api/authz/ext-authz/staff/x")
        .header("cookie", "a=1")
        .header("cookie", format!("postern_session={}", cookie_of('a')))
        .send()
        .await
        .unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["cookie"].to_str().unwrap()), (200, "a=1"));
    let portal = client.get(format!("https://auth.example.com:{}/", running.address.port())).send().await.unwrap();
    assert!(portal.text().await.unwrap().starts_with("/ https://auth.example.com:"));
}
