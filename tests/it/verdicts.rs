//! One table of requests, asked of the edge and of each dialect of `forward_auth`: the verdict must be the same.

use std::collections::BTreeMap;

use crate::harness::{
    client::Person,
    eventually,
    server::{Role, Server, Setup},
    tls,
    upstream::Upstream,
    wire::{self, Reply, Request},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Forward,
    /// 302, 303, or 401 with a `Location`.
    SignIn(u16),
    /// 401 with a challenge and without a `Location`.
    Failed,
    Refuse,
    Reject,
}
use Verdict::{Failed, Forward, Refuse, Reject, SignIn};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Nobody,
    Alice,
    Bob,
    /// A cookie that no session has.
    Stranger,
    /// An access token in place of a cookie.
    BobByToken,
    /// One that was tampered with.
    ForgedToken,
}
use Who::{Alice, Bob, BobByToken, ForgedToken, Nobody, Stranger};

/// What accompanies the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A browser loads a page.
    Page,
    /// `Accept: text/html` from a browser without Fetch metadata.
    OldBrowser,
    /// `Accept: application/json`.
    Api,
    /// A script of a page: `Sec-Fetch-Mode: cors`, though it accepts anything.
    Script,
    Preflight,
    /// `Accept: */*`, as curl says.
    Curl,
    /// No `Accept` at all.
    Bare,
}
use Kind::{Api, Bare, Curl, OldBrowser, Page, Preflight, Script};

const POLICIES: &str = r#"
default: deny
networks: { here: [127.0.0.0/8, 198.51.100.7], elsewhere: [192.0.2.0/24] }
rules:
  - { name: public, domain: "*.test.localhost", path: ["/public/**"], policy: bypass }
  - { name: admins, domain: "*.test.localhost", path: ["/admin/**"], policy: one_factor, subject: "group:admins" }
  - { name: not admins, domain: "*.test.localhost", path: ["/admin/**"], policy: deny }
  - { name: vault, domain: "*.test.localhost", path: ["/vault/**"], policy: two_factor }
  - { name: readers, domain: "*.test.localhost", path: ["/read/**"], methods: [GET, HEAD], policy: one_factor }
  - { name: from elsewhere, domain: "*.test.localhost", path: ["/network/**"], networks: [elsewhere], policy: bypass }
  - { name: from here, domain: "*.test.localhost", path: ["/network/**"], networks: [here], policy: one_factor }
  - { name: by query, domain: "*.test.localhost", resources: ["^/search\\?kind=free$"], policy: bypass }
  - { name: home, domain: "{user}.test.localhost", path: ["/**"], policy: one_factor }
  - { name: members, domain: app.test.localhost, path: ["/members/**"], policy: one_factor }
"#;

const TABLE: &[(&str, &str, Kind, Who, Verdict)] = &[
    ("GET", "/public/x", Page, Nobody, Forward),
    ("GET", "/public/x", Page, Stranger, Forward),
    ("POST", "/public/x", Api, Nobody, Forward),
    ("GET", "/public/x", Page, Bob, Forward),
    ("GET", "/members/x", Page, Nobody, SignIn(302)),
    ("GET", "/members/x", OldBrowser, Nobody, SignIn(302)),
    ("GET", "/members/x", Curl, Nobody, SignIn(302)),
    ("HEAD", "/members/x", Page, Nobody, SignIn(302)),
    ("POST", "/members/x", Page, Nobody, SignIn(303)),
    ("PUT", "/members/x", OldBrowser, Nobody, SignIn(303)),
    ("GET", "/members/x", Api, Nobody, SignIn(401)),
    ("GET", "/members/x", Script, Nobody, SignIn(401)),
    ("GET", "/members/x", Bare, Nobody, SignIn(401)),
    ("POST", "/members/x", Api, Nobody, SignIn(401)),
    ("GET", "/members/x", Page, Stranger, SignIn(302)),
    ("GET", "/members/x", Page, Bob, Forward),
    ("DELETE", "/members/x", Api, Bob, Forward),
    ("GET", "/members/x", Api, BobByToken, Forward),
    ("GET", "/members/x", Api, ForgedToken, Failed),
    ("GET", "/members/x", Page, ForgedToken, Failed),
    ("GET", "/public/x", Api, ForgedToken, Forward),
    ("OPTIONS", "/members/x", Preflight, Nobody, Failed),
    ("OPTIONS", "/members/x", Preflight, Bob, Forward),
    ("OPTIONS", "/members/x", Page, Nobody, SignIn(302)),
    ("GET", "/admin/x", Page, Nobody, SignIn(302)),
    ("GET", "/admin/x", Page, Alice, Forward),
    ("GET", "/admin/x", Page, Bob, Refuse),
    ("GET", "/admin/x", Api, BobByToken, Refuse),
    ("GET", "/vault/x", Page, Nobody, SignIn(302)),
    // To step up she is sent to the portal as well; what that says is threat 66.
    ("GET", "/vault/x", Page, Alice, SignIn(302)),
    ("GET", "/vault/x", Api, Alice, SignIn(401)),
    ("GET", "/read/x", Page, Bob, Forward),
    ("HEAD", "/read/x", Page, Bob, Forward),
    ("POST", "/read/x", Page, Bob, Refuse),
    ("GET", "/network/x", Page, Nobody, SignIn(302)),
    ("GET", "/network/x", Page, Bob, Forward),
    ("GET", "/search?kind=free", Page, Nobody, Forward),
    ("GET", "/search?kind=paid", Page, Bob, Refuse),
    ("GET", "/nobody-is-told", Page, Bob, Refuse),
    ("GET", "/members/a%20b", Page, Bob, Forward),
    ("GET", "//members//x", Page, Bob, Forward),
    ("GET", "/members/x?a=b&c=%2F..%2F", Page, Bob, Forward),
    ("GET", "/members/x;v=1", Page, Bob, Forward),
    ("GET", "/members/../admin/x", Page, Bob, Reject),
    ("GET", "/members/%2e%2e/admin/x", Page, Bob, Reject),
    ("GET", "/members%2fx", Page, Bob, Reject),
    ("GET", "/members%5Cx", Page, Bob, Reject),
    ("GET", "/members/%00", Page, Bob, Reject),
    ("GET", "/members/%ff", Page, Bob, Reject),
    ("GET", "/members/%zz", Page, Bob, Reject),
    ("get", "/read/x", Page, Bob, Reject),
];

/// Everybody who can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    Edge,
    ForwardAuth,
    AuthRequest,
    ExtAuthz,
    Legacy,
}

pub(crate) const EVERYBODY: [Asked; 5] =
    [Asked::Edge, Asked::ForwardAuth, Asked::AuthRequest, Asked::ExtAuthz, Asked::Legacy];

#[tokio::test]
async fn the_verdict_is_the_same_whoever_is_asked() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).policies(POLICIES).start().await;
    let credentials = credentials(&server).await;
    let mut wrong = Vec::new();
    for &(method, target, kind, who, expected) in TABLE {
        let request = with_credential(dressed(Request::new(method, target), kind), &credentials, who);
        for asked in EVERYBODY {
            let reply = ask(&server, asked, &request).await;
            let found = verdict(asked, expected, &reply);
            if found != Ok(expected) {
                wrong.push(format!("{asked:?} {method} {target} {kind:?} {who:?}: {found:?}, not {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} verdicts differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// `home` names a subject by its host, so its table is one of hosts.
#[tokio::test]
async fn the_host_decides_in_every_spelling() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).policies(POLICIES).start().await;
    let credentials = credentials(&server).await;
    for (host, expected) in [
        ("bob.test.localhost", Forward),
        ("BOB.Test.LOCALHOST", Forward),
        ("bob.test.localhost.", Forward),
        ("alice.test.localhost", Refuse),
        ("x.bob.test.localhost", Refuse),
        ("bob_.test.localhost", Refuse),
    ] {
        let request = with_credential(dressed(Request::get("/x").host(host), Page), &credentials, Bob);
        for asked in EVERYBODY {
            let found = verdict(asked, expected, &ask(&server, asked, &request).await);
            assert_eq!(found, Ok(expected), "{asked:?} {host}");
        }
    }
}

/// What survives a well-behaved client is asked once more over TLS, on HTTP/1.1 and on HTTP/2.
#[tokio::test]
async fn the_edge_says_the_same_over_tls_and_http2() {
    let upstream = Upstream::start().await;
    let identity = tls::certificate();
    let mut setup = Setup::with(&upstream).policies(POLICIES);
    setup.edge = format!(", tls: {{ certificates: [{{ certificate: {}, key: {} }}] }}", tls::CERTIFICATE, tls::KEY);
    setup.portal = "{ url: \"https://auth.test.localhost:PORT\" }".to_owned();
    setup.files = identity.files();
    let server = setup.start().await;
    let credentials = credentials(&server).await;
    for http2 in [false, true] {
        let person = Person::over_tls(&identity.certificate, http2);
        for &(method, target, kind, who, expected) in TABLE {
            let url = format!("https://{}{target}", server.app());
            let survives = url::Url::parse(&url).is_ok_and(|parsed| parsed.as_str() == url);
            // The client says `Accept: */*` where nothing is said.
            if !survives || expected == Reject || kind == Bare {
                continue;
            }
            let request = with_credential(dressed(Request::new(method, target), kind), &credentials, who);
            let page = person.send(method, &url, &request.headers).await;
            let reply = Reply {
                status: page.status,
                headers: page
                    .headers
                    .iter()
                    .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                    .collect(),
                body: page.body,
            };
            let found = verdict(Asked::Edge, expected, &reply);
            assert_eq!(found, Ok(expected), "HTTP/2: {http2}, {method} {target} {kind:?} {who:?}");
        }
    }
}

async fn credentials(server: &Server) -> BTreeMap<&'static str, String> {
    let (alice, bob) = (server.sign_in("alice").await, server.sign_in("bob").await);
    BTreeMap::from([("alice", alice.gate), ("bob", bob.gate), ("token", bob.access_token)])
}

fn with_credential(request: Request, credentials: &BTreeMap<&str, String>, who: Who) -> Request {
    let of = |name: &str| credentials[name].clone();
    match who {
        Nobody => request,
        Alice => request.cookie(of("alice")),
        Bob => request.cookie(of("bob")),
        Stranger => request.cookie("postern_session=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"),
        BobByToken => request.header("Authorization", format!("Bearer {}", of("token"))),
        ForgedToken => request.header("Authorization", format!("Bearer {}AA", of("token"))),
    }
}

fn dressed(request: Request, kind: Kind) -> Request {
    match kind {
        Page => request.page(),
        OldBrowser => request.header("Accept", "text/html,application/xhtml+xml"),
        Api => request.header("Accept", "application/json"),
        Script => request.header("Sec-Fetch-Mode", "cors").header("Accept", "*/*"),
        Preflight => request.header("Origin", "http://else.where").header("Access-Control-Request-Method", "PUT"),
        Curl => request.header("Accept", "*/*"),
        Bare => request,
    }
}

pub(crate) async fn ask(server: &Server, asked: Asked, request: &Request) -> Reply {
    let host = request.host.clone().unwrap_or_else(|| server.app());
    let url = format!("http://{host}{}", request.target);
    let portal = format!("http://{}", server.auth());
    let mut question = match asked {
        Asked::Edge => return server.ask(Role::Edge, request).await,
        Asked::ForwardAuth => return server.ask(Role::ForwardAuth, request).await,
        Asked::AuthRequest => Request::get("/api/authz/auth-request")
            .host("postern")
            .header("X-Original-URL", url)
            .header("X-Original-Method", &request.method),
        Asked::ExtAuthz => Request::new(&request.method, &format!("/api/authz/ext-authz{}", request.target)).host(host),
        Asked::Legacy => {
            let rd: String = form_urlencoded::Serializer::new(String::new()).append_pair("rd", &portal).finish();
            Request::get(&format!("/api/verify?{rd}"))
                .host("postern")
                .header("X-Original-URL", url)
                .header("X-Forwarded-Method", &request.method)
        }
    };
    question = question.header("X-Forwarded-For", "198.51.100.7");
    // The older path looks for credentials of a program in this header.
    let legacy = asked == Asked::Legacy;
    question.headers.extend(request.headers.iter().map(|(name, value)| match name.as_str() {
        "Authorization" if legacy => ("Proxy-Authorization".to_owned(), value.clone()),
        _ => (name.clone(), value.clone()),
    }));
    wire::send(server.forward_auth(), &question.bytes()).await
}

/// Reads a verdict out of an answer, or says why there is none.
fn verdict(asked: Asked, expected: Verdict, reply: &Reply) -> Result<Verdict, String> {
    let meant = reply.header("X-Postern-Status").and_then(|status| status.parse().ok()).unwrap_or(reply.status);
    let nginx = asked == Asked::AuthRequest;
    if nginx && ![200, 401, 403].contains(&reply.status) {
        return Err(format!("{} would be 500 at NGINX", reply.status));
    }
    let identified = reply.header("X-Request-Id").is_some();
    if asked != Asked::Edge && meant != 200 && !identified {
        return Err("no X-Request-Id".to_owned());
    }
    match (meant, reply.header("Location")) {
        (200, _) => Ok(Forward),
        (302 | 303 | 401, Some(location)) if location.starts_with("http") && location.contains("rd=") => {
            Ok(SignIn(meant))
        }
        // To the older path a fault is a 401 as well.
        (401, None) if asked == Asked::Legacy && expected == Reject => Ok(Reject),
        (401, None) => Ok(Failed),
        (403, _) => Ok(Refuse),
        (400, _) => Ok(Reject),
        _ => Err(format!("{} {:?}", reply.status, reply.headers)),
    }
}

#[tokio::test]
async fn a_sign_in_grows_too_old_for_a_rule_in_both_roles() {
    let upstream = Upstream::start().await;
    let rules = "default: deny\nrules:\n  - { domain: \"*.test.localhost\", policy: one_factor, max_auth_age: 8s }\n";
    let server = Setup::with(&upstream).policies(rules).start().await;
    let alice = server.sign_in("alice").await;
    let page = |gate: &str| Request::get("/x").page().cookie(gate);
    let call = |gate: &str| Request::get("/x").header("Accept", "application/json").cookie(gate);
    for role in [Role::Edge, Role::ForwardAuth] {
        assert_eq!(server.ask(role, &page(&alice.gate)).await.status, 200, "{role:?}");
    }
    for role in [Role::Edge, Role::ForwardAuth] {
        let reply = eventually("the sign-in is too old", || async {
            Some(server.ask(role, &page(&alice.gate)).await).filter(|reply| reply.status != 200)
        })
        .await;
        assert_eq!(reply.status, 302, "{role:?}");
        assert!(reply.header("Location").is_some_and(|to| to.contains("/?rd=")), "{reply:?}");
        let reply = server.ask(role, &call(&alice.gate)).await;
        assert_eq!((reply.status, reply.json()["code"].as_str()), (401, Some("step_up_required")), "{role:?}");
    }
    let fresh = server.sign_in("alice").await;
    for role in [Role::Edge, Role::ForwardAuth] {
        assert_eq!(server.ask(role, &call(&fresh.gate)).await.status, 200, "{role:?}");
    }
}

/// How a stricter rule is tried on real traffic before it decides.
#[tokio::test]
async fn a_rule_that_reports_is_recorded_in_both_roles_and_decides_nothing() {
    let upstream = Upstream::start().await;
    let rules = "default: deny\nrules:\n  \
        - { name: admins alone, domain: \"*.test.localhost\", path: [\"/admin/**\"], methods: [POST], policy: deny, mode: report }\n  \
        - { name: app, domain: \"*.test.localhost\", policy: one_factor }\n";
    let mut server = Setup::with(&upstream).policies(rules).start().await;
    let bob = server.sign_in("bob").await;
    let labels = ["rule=\"admins alone\"", "verdict=\"refuse\""];
    for (count, role) in [(1.0, Role::Edge), (2.0, Role::ForwardAuth)] {
        let page = Request::get("/admin/x").cookie(bob.gate.clone());
        assert_eq!(server.ask(role, &page).await.status, 200, "{role:?}");
        let form = Request::new("POST", "/admin/x").cookie(bob.gate.clone()).form(&[("a", "b")]);
        assert_eq!(server.ask(role, &form).await.status, 200, "{role:?}");
        assert_eq!(server.metric("postern_rule_reports_total", &labels).await, count, "{role:?}");
    }
    assert_eq!(server.metric("postern_decisions_total", &["rule=\"app\"", "verdict=\"forward\""]).await, 4.0);
    server.stop().await;
    let log = server.log();
    let told =
        "\"rule\":\"app\",\"verdict\":\"forward\",\"reported_rule\":\"admins alone\",\"reported_verdict\":\"refuse\"";
    assert_eq!(log.matches(told).count(), 2, "{log}");
}
