//! Paths, hosts and forwarded facts that mean two things at once.

use crate::harness::{
    DOMAIN,
    client::Person,
    server::{PASSWORD, Role, Server, Setup, SignedIn},
    upstream::{Seen, Upstream},
    wire::{self, Reply, Request},
};

/// `/public/*` for all, `/admin/*` for admins with two factors, nothing else.
const POLICIES: &str = r#"
default: deny
rules:
  - { name: public, domain: "*.test.localhost", path: ["/public/**"], policy: bypass }
  - { name: admin, domain: "*.test.localhost", path: ["/admin/**"], subject: "group:admins", policy: two_factor }
"#;

struct Scene {
    server: Server,
    upstream: Upstream,
    alice: SignedIn,
}

impl Scene {
    async fn set() -> Self {
        let upstream = Upstream::start().await;
        let server = Setup::with(&upstream).policies(POLICIES).start().await;
        let alice = server.sign_in("alice").await;
        Self { server, upstream, alice }
    }

    /// Asks both roles, as nobody and as an admin with one factor.
    async fn each(&self, request: &Request, mut judge: impl FnMut(Role, &Reply)) {
        for role in Role::BOTH {
            for request in [request.clone(), request.clone().cookie(self.alice.gate.clone())] {
                judge(role, &self.server.ask(role, &request).await);
            }
        }
    }

    /// 400 before any rule, and the application sees nothing.
    async fn rejects(&self, targets: &[&str]) {
        for target in targets {
            self.each(&Request::get(target).page(), |role, reply| {
                assert_eq!(reply.status, 400, "{target} in {role:?}");
                assert_eq!(reply.header("X-Postern-Rule"), None, "{target} in {role:?}: no rule was asked");
            })
            .await;
        }
        assert!(self.upstream.seen().is_empty(), "{:?}", self.upstream.seen());
    }

    /// Not public: sign in, or refused; the application sees nothing.
    async fn protects(&self, targets: &[&str]) {
        for target in targets {
            self.each(&Request::get(target).page(), |role, reply| {
                assert!([302, 403].contains(&reply.status), "{target} in {role:?}: {}", reply.status);
            })
            .await;
        }
        assert!(self.upstream.seen().is_empty(), "{:?}", self.upstream.seen());
    }
}

#[tokio::test]
async fn threat_01_a_dot_segment_is_rejected() {
    Scene::set().await.rejects(&["/public/../admin/x", "/public/..", "/public/../public/x", "/../admin/x"]).await;
}

#[tokio::test]
async fn threat_02_an_encoded_dot_segment_is_rejected() {
    let targets = ["/public/%2e%2e/admin/x", "/public/%2E./admin/x", "/public/.%2e/admin/x", "/public/%2e/x"];
    Scene::set().await.rejects(&targets).await;
}

#[tokio::test]
async fn threat_03_an_encoded_slash_is_rejected() {
    Scene::set().await.rejects(&["/public%2f..%2fadmin", "/public/%2F/admin", "/public%2Fx"]).await;
}

#[tokio::test]
async fn threat_04_a_path_is_decoded_once_and_forwarded_as_it_came() {
    let scene = Scene::set().await;
    let target = "/public/%252e%252e/admin?x=%2e%2e";
    scene.each(&Request::get(target), |role, reply| assert_eq!(reply.status, 200, "{role:?}")).await;
    assert_eq!(scene.upstream.seen().len(), 2);
    assert!(scene.upstream.seen().iter().all(|seen| seen.target == target), "{:?}", scene.upstream.seen());
}

#[tokio::test]
async fn threat_05_a_doubled_slash_is_one_and_a_single_dot_is_rejected() {
    let scene = Scene::set().await;
    scene.protects(&["//admin/x", "///admin//x", "//public-not/x"]).await;
    scene.rejects(&["/./admin/x", "/public/./x", "/public/."]).await;
}

#[tokio::test]
async fn threat_06_a_backslash_is_rejected() {
    Scene::set().await.rejects(&["/public\\..\\admin", "/public%5c..%5cadmin", "/public/%5Cx", "/public\\x"]).await;
}

#[tokio::test]
async fn threat_07_path_parameters_are_read_both_ways() {
    let scene = Scene::set().await;
    let targets = ["/admin/x;/public/", "/admin;v=1/x", "/admin%3bv=1/x", "/public;/../admin", "/admin/x;a/public/y"];
    for target in targets {
        scene
            .each(&Request::get(target).page(), |role, reply| {
                assert!([302, 400, 403].contains(&reply.status), "{target} in {role:?}: {}", reply.status);
            })
            .await;
    }
    assert!(scene.upstream.seen().is_empty(), "{:?}", scene.upstream.seen());
}

#[tokio::test]
async fn threat_08_a_nul_is_rejected() {
    Scene::set().await.rejects(&["/admin%00/public", "/public/%00", "/public/x%0a", "/public/%7f"]).await;
}

#[tokio::test]
async fn threat_09_a_path_rule_ignores_the_query() {
    Scene::set().await.protects(&["/admin/x?x=/public/", "/admin/x?/public/x", "/x?/public/"]).await;
}

#[tokio::test]
async fn threat_10_an_encoded_mark_does_not_end_the_path() {
    Scene::set().await.protects(&["/admin/x%23/public", "/admin/x%3f/public/x", "/admin/x%3F"]).await;
}

#[tokio::test]
async fn threat_11_case_matters_and_falls_into_no_bypass() {
    Scene::set().await.protects(&["/Admin/x", "/PUBLIC/x", "/Public/x", "/adMin/x"]).await;
}

#[tokio::test]
async fn threat_13_a_host_is_canonical_before_the_rules() {
    let scene = Scene::set().await;
    for host in ["app.test.localhost", "App.TEST.localhost", "app.test.localhost.", "app.test.localhost:443"] {
        let public = Request::get("/public/x").host(host);
        scene.each(&public, |role, reply| assert_eq!(reply.status, 200, "{host} in {role:?}")).await;
        let admin = Request::get("/admin/x").host(host).page();
        scene.each(&admin, |role, reply| assert_ne!(reply.status, 200, "{host} in {role:?}")).await;
    }
    for host in ["app.test.localhost@evil", "app.test.localhost/x", "app..test.localhost", "a b.test.localhost", ""] {
        let request = Request::get("/public/x").host(host);
        scene.each(&request, |role, reply| assert_eq!(reply.status, 400, "{host:?} in {role:?}")).await;
    }
}

#[tokio::test]
async fn threat_14_an_absolute_target_of_another_authority_is_rejected() {
    let scene = Scene::set().await;
    let other = Request::get("http://app.test.localhost/public/x").host("other.test.localhost");
    let reply = wire::send(scene.server.edge(), &other.bytes()).await;
    assert_eq!(reply.status, 400);
    for target in ["http://evil.example/api/authz/forward-auth", "http://evil.example/public/x"] {
        let request = Request::get(target).host("app.test.localhost").page();
        for port in [scene.server.edge(), scene.server.forward_auth()] {
            let reply = wire::send(port, &request.bytes()).await;
            assert!([400, 404].contains(&reply.status), "{target}: {}", reply.status);
        }
    }
    assert!(scene.upstream.seen().is_empty());
}

#[tokio::test]
async fn threat_15_two_hosts_are_rejected() {
    let scene = Scene::set().await;
    for second in ["app.test.localhost", "other.test.localhost"] {
        let bytes = format!(
            "GET /public/x HTTP/1.1\r\nHost: app.test.localhost\r\nHost: {second}\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(wire::send(scene.server.edge(), bytes.as_bytes()).await.status, 400, "{second}");
    }
    let bytes = "GET /public/x HTTP/1.1\r\nConnection: close\r\n\r\n";
    assert_eq!(wire::send(scene.server.edge(), bytes.as_bytes()).await.status, 400, "no Host");
    let twice = described("/public/x").header("X-Forwarded-Host", "app.test.localhost");
    assert_eq!(wire::send(scene.server.forward_auth(), &twice.bytes()).await.status, 400);
    assert!(scene.upstream.seen().is_empty());
}

/// A question to `forward_auth` as a proxy asks it, to be spoilt.
fn described(uri: &str) -> Request {
    Request::get("/api/authz/forward-auth")
        .host("postern")
        .header("X-Forwarded-Proto", "http")
        .header("X-Forwarded-Host", "app.test.localhost")
        .header("X-Forwarded-Method", "GET")
        .header("X-Forwarded-Uri", uri)
}

#[tokio::test]
async fn threat_17_an_untrusted_peer_describes_nothing() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream).policies(POLICIES);
    setup.forward_auth = ", trusted_proxies: [192.0.2.1/32]".to_owned();
    let server = setup.start().await;
    for path in ["/api/authz/forward-auth", "/api/authz/auth-request", "/api/authz/ext-authz/public/x", "/api/verify"] {
        let mut question = described("/public/x").header("X-Original-URL", "http://app.test.localhost/public/x");
        question.target = path.to_owned();
        let reply = wire::send(server.forward_auth(), &question.bytes()).await;
        assert_eq!(reply.status, 403, "{path}");
        for name in ["Remote-User", "Cookie", "Location"] {
            assert_eq!(reply.header(name), None, "{path}");
        }
    }
    assert!(server.log().contains("trusted_proxies"), "the log names the setting: {}", server.log());
    // At the edge such headers were never a description.
    let spoof =
        Request::get("/admin/x").page().header("X-Forwarded-Uri", "/public/x").header("X-Original-URL", "/public/x");
    assert_eq!(server.ask(Role::Edge, &spoof).await.status, 302);
}

#[tokio::test]
async fn threat_18_nobody_is_trusted_by_default() {
    let upstream = Upstream::start().await;
    let policies = r#"
default: deny
networks: { office: [192.0.2.0/24] }
rules:
  - { domain: "*.test.localhost", path: ["/public/**"], networks: [office], policy: bypass }
"#;
    let server = Setup::with(&upstream).policies(policies).start().await;
    for spoofed in ["192.0.2.7", "192.0.2.7, 127.0.0.1"] {
        let request = Request::get("/public/x").header("X-Forwarded-For", spoofed).header("X-Real-IP", "192.0.2.7");
        assert_eq!(server.ask(Role::Edge, &request).await.status, 403, "{spoofed}");
    }
}

#[tokio::test]
async fn threat_19_a_forwarded_host_is_in_no_rule_cookie_or_redirect() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let spoof = Request::get("/members/x")
        .page()
        .header("X-Forwarded-Host", "evil.example")
        .header("Forwarded", "host=evil.example");
    let reply = server.ask(Role::Edge, &spoof).await;
    assert_eq!(reply.status, 302);
    assert!(!format!("{reply:?}").contains("evil"), "{reply:?}");
    let login = Request::new("POST", "/auth/login").host(server.auth()).header("X-Forwarded-Host", "evil.example");
    let body = serde_json::json!({ "username": "alice", "password": crate::harness::server::PASSWORD });
    let reply = wire::send(server.edge(), &login.json(&body).bytes()).await;
    assert_eq!(reply.status, 200);
    assert!(!format!("{reply:?}").contains("evil"), "{reply:?}");
    // Described by a trusted proxy, a host outside every cookie domain is refused where sign-in is needed.
    let mut foreign = described("/members/x").page();
    foreign.headers.retain(|(name, _)| name != "X-Forwarded-Host");
    let foreign = foreign.header("X-Forwarded-Host", "evil.example");
    let reply = wire::send(server.forward_auth(), &foreign.bytes()).await;
    assert!([400, 403].contains(&reply.status), "{reply:?}");
    assert_eq!(reply.header("Location"), None);
}

#[tokio::test]
async fn threat_21_a_scheme_is_http_or_a_websockets() {
    let scene = Scene::set().await;
    for (scheme, status) in
        [("http", 200), ("https", 200), ("ws", 200), ("wss", 200), ("javascript", 400), ("", 400), ("http, https", 400)]
    {
        let mut question = described("/public/x");
        question.headers.retain(|(name, _)| name != "X-Forwarded-Proto");
        let question = question.header("X-Forwarded-Proto", scheme);
        assert_eq!(wire::send(scene.server.forward_auth(), &question.bytes()).await.status, status, "{scheme}");
    }
}

#[tokio::test]
async fn threat_62_connect_is_not_served() {
    let scene = Scene::set().await;
    for port in [scene.server.edge(), scene.server.forward_auth()] {
        for target in ["app.test.localhost:443", "/public/x"] {
            let bytes =
                format!("CONNECT {target} HTTP/1.1\r\nHost: app.test.localhost:443\r\nConnection: close\r\n\r\n");
            let reply = wire::send(port, bytes.as_bytes()).await;
            assert!([400, 405].contains(&reply.status), "{target}: {}", reply.status);
            if target.starts_with("app") {
                assert_eq!(reply.status, 405);
            }
        }
    }
    assert!(scene.upstream.seen().is_empty());
}

#[tokio::test]
async fn threat_65_a_contradictory_or_doubled_description_is_rejected() {
    let scene = Scene::set().await;
    let port = scene.server.forward_auth();
    let send = |question: Request| async move { wire::send(port, &question.bytes()).await.status };
    let without = |name: &str| {
        let mut question = described("/public/x");
        question.headers.retain(|(other, _)| other != name);
        question
    };
    assert_eq!(send(described("/public/x")).await, 200);
    for name in ["X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Method", "X-Forwarded-Uri"] {
        assert_eq!(send(without(name)).await, 400, "without {name}");
        assert_eq!(send(described("/public/x").header(name, "x")).await, 400, "{name} twice");
    }
    let comma = without("X-Forwarded-Host").header("X-Forwarded-Host", "app.test.localhost, evil.example");
    assert_eq!(send(comma).await, 400);
    for method in ["get", "G T", "GET, POST", "GET\t", ""] {
        let question = without("X-Forwarded-Method").header("X-Forwarded-Method", method);
        assert!(
            [400, 200].contains(&send(question.clone()).await) && (method == "GET\t" || send(question).await == 400)
        );
    }
    let mut legacy = described("/admin/x").header("X-Original-URL", "http://app.test.localhost/public/x");
    legacy.target = "/api/verify?rd=http://auth.test.localhost".to_owned();
    assert_eq!(send(legacy).await, 401);
}

#[tokio::test]
async fn threat_67_a_bypass_needs_no_store_and_an_unknown_address_passes_no_deny() {
    let upstream = Upstream::start().await;
    let policies = r#"
default: deny
networks: { banned: [192.0.2.0/24] }
rules:
  - { name: banned, domain: "*.test.localhost", path: ["/public/**"], networks: [banned], policy: deny }
  - { name: public, domain: "*.test.localhost", path: ["/public/**"], policy: bypass }
"#;
    let server = Setup::with(&upstream).policies(policies).start().await;
    let port = server.forward_auth();
    let ask = |entries: &'static str| {
        let question = described("/public/x").header("X-Forwarded-For", entries);
        async move { wire::send(port, &question.bytes()).await.status }
    };
    assert_eq!(ask("198.51.100.7").await, 200);
    assert_eq!(ask("192.0.2.7").await, 403);
    for unknown in ["not an address", "198.51.100.7, what?", "", "127.0.0.1"] {
        assert_eq!(ask(unknown).await, 403, "{unknown:?}");
    }
    let thousand = vec!["198.51.100.7"; 1000].join(", ");
    let question = described("/public/x").header("X-Forwarded-For", thousand);
    assert_eq!(wire::send(server.forward_auth(), &question.bytes()).await.status, 200);
    let seen = Seen::of(&server.ask(Role::Edge, &Request::get("/public/x")).await);
    assert_eq!(seen.header("Remote-User"), None);
}

/// GitLab and RabbitMQ have names with slashes in their paths. Where `strictest` lets them through, nobody gets by one reading what the
/// other forbids, whatever the application makes of it.
#[tokio::test]
async fn threat_03_strictest_holds_under_every_reading_in_both_roles() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream).policies(POLICIES);
    setup.more = "encoded_slashes: strictest\n".to_owned();
    setup.route = format!(" }}\n  - {{ name: plain, host: plain.{DOMAIN}, upstream: app, encoded_slashes: reject");
    let server = setup.start().await;
    let alice = server.sign_in("alice").await;
    for role in Role::BOTH {
        for open in ["/public/a%2Fb", "/public/a%2fb/c?x=%2F", "/public/x%5Cy", "/public/a%2F..%2Fb"] {
            assert_eq!(server.ask(role, &Request::get(open)).await.status, 200, "{open} in {role:?}");
        }
        for closed in [
            "/public%2f..%2fadmin",
            "/public/..%2fadmin",
            "/public%2Fx",
            "/public/a%2f..%2f..%2fadmin/x",
            "/public/..%5cadmin",
        ] {
            let page = Request::get(closed).page();
            for request in [page.clone(), page.cookie(alice.gate.clone())] {
                let reply = server.ask(role, &request).await;
                assert!([302, 403].contains(&reply.status), "{closed} in {role:?}: {}", reply.status);
            }
        }
        for rejected in ["/public/../admin", "/public/a%2fb%5cc", "/public/%2e%2e/x%2fy", "/public/a%2f%00"] {
            assert_eq!(server.ask(role, &Request::get(rejected)).await.status, 400, "{rejected} in {role:?}");
        }
    }
    let seen: Vec<String> = upstream.seen().into_iter().map(|seen| seen.target).collect();
    let as_they_came = ["/public/a%2Fb", "/public/a%2fb/c?x=%2F", "/public/x%5Cy", "/public/a%2F..%2Fb"];
    assert_eq!(seen, as_they_came, "what goes on is what came");

    // A route that says otherwise; and the portal, which has no such paths.
    for host in [format!("plain.{DOMAIN}"), server.auth()] {
        let reply = server.ask(Role::Edge, &Request::get("/public/a%2Fb").host(host.clone())).await;
        assert_eq!((reply.status, reply.header("X-Postern-Rule")), (400, None), "{host}");
        let plain = server.ask(Role::Edge, &Request::get("/public/a").host(host)).await;
        assert_ne!(plain.status, 400);
    }
}

/// A deep link to such a path comes back after the sign-in.
#[tokio::test]
async fn an_encoded_slash_survives_the_way_through_the_portal() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.route = ", encoded_slashes: strictest".to_owned();
    let server = setup.start().await;
    let person = Person::new();
    let wanted = format!("http://{}/api/group%2Fproject?x=%2F", server.app());
    let form = person.browse(&wanted).await;
    let welcome = person.sign_in(&form, "bob", PASSWORD).await;
    assert_eq!((welcome.status, welcome.location().as_str()), (303, wanted.as_str()));
    assert_eq!(person.load(&wanted).await.status, 200);
}
