//! The role `edge`: Postern itself stands towards browsers.

use std::fs;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::{
    harness::{
        DEADLINE, DOMAIN,
        breaker::Breaker,
        client::Person,
        front::Front,
        repository,
        server::{PASSWORD, Role, Setup},
        tls,
        upstream::{Seen, Upstream},
        wire::{self, Request},
        within,
    },
    journeys,
};

#[tokio::test]
async fn a_person_signs_in_and_comes_back() {
    journeys::a_person_signs_in_and_comes_back(&Front::edge().await).await;
}

#[tokio::test]
async fn the_upstream_sees_our_headers_and_no_others() {
    journeys::the_upstream_sees_our_headers_and_no_others(&Front::edge().await).await;
}

#[tokio::test]
async fn each_verdict_reaches_the_client() {
    journeys::each_verdict_reaches_the_client(&Front::edge().await).await;
}

#[tokio::test]
async fn a_websocket_is_let_through() {
    journeys::a_websocket_is_let_through(&Front::edge().await).await;
}

/// An answer that is there before pingora has noted that the request has no body ended the connection at once (`edge::upgrade`).
#[tokio::test]
async fn a_websocket_stays_open_however_fast_the_upstream_answers() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Before it has read anything. The key is that of RFC 6455 §1.3.
                let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhello";
                stream.write_all(head.as_bytes()).await.ok()?;
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok()
            });
        }
    });
    let server = Setup::with_upstream_at(port).start().await;
    let bob = server.sign_in("bob").await;
    let request = format!(
        "GET /socket HTTP/1.1\r\nHost: {}\r\nCookie: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        server.app(),
        bob.gate
    );
    for number in 0..40 {
        let mut stream = TcpStream::connect(("127.0.0.1", server.edge())).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("a request");
        let mut seen = String::new();
        // The upstream hears what is said; it tells all that it heard, the request too.
        for (said, heard) in [("", "\r\n\r\nhello"), ("said by the client", "said by the client")] {
            stream.write_all(said.as_bytes()).await.expect("an open connection");
            while !seen.contains(heard) {
                let mut bytes = [0; 4096];
                let what = format!("{heard:?} in socket {number}");
                let read = within(DEADLINE, &what, stream.read(&mut bytes)).await.expect("what the upstream says");
                assert!(read > 0, "{number}: closed after {seen:?}");
                seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
            }
        }
        assert!(seen.starts_with("HTTP/1.1 101 "), "{seen}");
    }
}

#[tokio::test]
async fn a_host_without_a_route_is_404_before_any_rule() {
    let front = Front::edge().await;
    for host in ["app.example.com", "localhost", "127.0.0.1"] {
        let reply = wire::send(front.port(), &Request::get("/public/x").host(host).bytes()).await;
        assert_eq!(reply.status, 404, "{host}");
    }
    assert!(front.upstream.seen().is_empty());
}

#[tokio::test]
async fn a_refused_page_says_who_which_rule_and_which_request() {
    let front = Front::edge().await;
    let bob = front.server.sign_in("bob").await;
    let reply = front.send(Request::get("/admin/x").page().cookie(bob.gate)).await;
    assert_eq!((reply.status, reply.header("X-Postern-Rule")), (403, Some("not admins")));
    let id = reply.header("X-Request-Id").expect("a request id").to_owned();
    for told in ["bob", "not admins", &id] {
        assert!(reply.body.contains(told), "no {told:?} in {}", reply.body);
    }
}

#[tokio::test]
async fn a_refused_page_tells_the_rules_to_those_who_may_know_them() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.portal = setup.portal.replace(" }", ", explain_to: [\"group:dev\"] }");
    setup.policies = setup.policies.replace(
        "rules:\n",
        "rules:\n  - { name: \"<b>hostile</b>\", domain: app.test.localhost, path: /x, policy: deny }\n  \
         - { name: of others, domain: other.example.org, policy: one_factor }\n",
    );
    setup.policies += "  - { name: no more, domain: \"*.test.localhost\", policy: deny }\n";
    let server = setup.start().await;
    server.add_user("carol", &["--groups", "developers"]);
    let (bob, carol) = (server.sign_in("bob").await, server.sign_in("carol").await);
    let load = async |path: &str, cookie: &str| {
        server.ask(Role::Edge, &Request::get(path).page().cookie(cookie.to_owned())).await
    };
    let told = load("/admin/%3Ci%3E?token=secret", &bob.gate).await;
    assert_eq!((told.status, told.header("X-Postern-Rule")), (403, Some("not admins")));
    for fact in [
        "What the rules say",
        "<dd>GET app.test.localhost/admin/&#60;i&#62;</dd>",
        "&#60;b&#62;hostile&#60;/b&#62;",
        "user bob of dev is not group:admins",
        "<th scope=\"row\">not admins</th><td>decides</td>",
        "Rules for other hosts are told at the portal alone",
    ] {
        assert!(told.body.contains(fact), "no {fact:?} in {}", told.body);
    }
    for hidden in ["<b>hostile", "<i>", "other.example.org", "<dd>secret", "<script"] {
        assert!(!told.body.contains(hidden), "{hidden:?} in {}", told.body);
    }
    let policy = told.header("Content-Security-Policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'"), "{policy}");
    // Nobody else: another group, nobody at all, a program.
    for reply in [
        load("/admin/x", &carol.gate).await,
        load("/admin/x", "postern_session=stale").await,
        server
            .ask(Role::Edge, &Request::get("/admin/x").header("Accept", "application/json").cookie(bob.gate.clone()))
            .await,
        // A proxy may hold the answer in a small buffer.
        server.ask(Role::ForwardAuth, &Request::get("/admin/x").page().cookie(bob.gate.clone())).await,
    ] {
        assert_ne!(reply.status, 200);
        assert!(!reply.body.contains("What the rules say") && !reply.body.contains("group:admins"), "{}", reply.body);
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn an_api_call_is_refused_with_a_problem() {
    let front = Front::edge().await;
    let bob = front.server.sign_in("bob").await;
    let reply = front.send(Request::get("/admin/x").header("Accept", "application/json").cookie(bob.gate)).await;
    assert_eq!((reply.status, reply.header("Content-Type")), (403, Some("application/problem+json")));
    assert_eq!(reply.json()["code"], "access_denied");
}

/// HTTP/1.1 and HTTP/2 over TLS: the same journey, with cookies that only https has.
#[tokio::test]
async fn a_person_signs_in_over_tls() {
    let upstream = Upstream::start().await;
    let identity = tls::certificate();
    let server = Setup::with(&upstream).edge_over_tls(&identity).start().await;
    let app = format!("https://{}", server.app());
    for http2 in [false, true] {
        let person = Person::over_tls(&identity.certificate, http2);
        let wanted = format!("{app}/reports?year=2026");
        let gate = person.load(&wanted).await;
        let version = if http2 { reqwest::Version::HTTP_2 } else { reqwest::Version::HTTP_11 };
        assert_eq!((gate.status, gate.version), (302, version));
        let form = person.load(gate.location()).await;
        let welcome = person.sign_in(&form, "alice", PASSWORD).await;
        assert_eq!((welcome.status, welcome.location().as_str()), (303, wanted.as_str()), "{}", welcome.body);
        let cookies: Vec<&str> =
            welcome.headers.get_all("set-cookie").iter().map(|cookie| cookie.to_str().expect("ASCII")).collect();
        for name in ["postern_session=", "__Host-postern_portal="] {
            let cookie = cookies.iter().find(|cookie| cookie.starts_with(name)).expect(name);
            assert!(
                ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"].iter().all(|part| cookie.contains(part)),
                "{cookie}"
            );
            assert_eq!(cookie.contains("Domain="), name == "postern_session=", "{cookie}");
        }
        let page = person.load(&wanted).await;
        let seen: Seen = serde_json::from_str(&page.body).expect("the application's answer");
        assert_eq!((seen.target.as_str(), seen.header("Remote-User")), ("/reports?year=2026", Some("alice")));
        assert_eq!(seen.header("Cookie"), None);
        assert_eq!(seen.header("X-Forwarded-Proto"), Some("https"));
        let vault = person.browse(format!("{app}/vault/x")).await;
        assert_eq!(vault.status, 403, "two factors are asked for, and she has one: {}", vault.body);
        let public = person.load(format!("{app}/public/%C3%A4?x=1")).await;
        assert_eq!(public.status, 200);
    }
}

#[tokio::test]
async fn an_upstream_that_is_away_is_502_with_a_page_and_comes_back() {
    let upstream = Upstream::start().await;
    let breaker = Breaker::before(upstream.port()).await;
    let server = Setup::with_upstream_at(breaker.port()).start().await;
    let page = Request::get("/public/x").page();
    let ask = || server.ask(Role::Edge, &page);
    assert_eq!(ask().await.status, 200);
    breaker.cut();
    let reply = ask().await;
    assert_eq!(reply.status, 502);
    let id = reply.header("X-Request-Id").expect("a request id");
    assert!(reply.body.contains(id) && reply.body.contains("<html"), "{}", reply.body);
    breaker.mend();
    assert_eq!(ask().await.status, 200);
}

#[tokio::test]
async fn an_upstream_that_is_slow_is_504() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.upstream = ", read_timeout: 300ms".to_owned();
    let server = setup.start().await;
    let reply = wire::send(server.edge(), &Request::get("/public/silent").host(server.app()).bytes()).await;
    assert_eq!(reply.status, 504);
    assert!(reply.header("X-Request-Id").is_some());
}

#[tokio::test]
async fn headers_beyond_the_limit_are_431_in_both_roles() {
    let front = Front::edge().await;
    let large = Request::get("/public/x").header("X-Large", "x".repeat(300_000));
    for port in [front.server.edge(), front.server.forward_auth()] {
        let reply = wire::send(port, &large.clone().host(front.server.app()).bytes()).await;
        assert_eq!(reply.status, 431);
    }
}

#[tokio::test]
async fn a_portal_body_beyond_the_limit_is_413() {
    let front = Front::edge().await;
    let body = serde_json::json!({ "username": "x".repeat(100_000), "password": "x" });
    let request = Request::new("POST", "/auth/login").host(front.server.auth()).json(&body);
    for port in [front.server.edge(), front.server.forward_auth()] {
        assert_eq!(wire::send(port, &request.bytes()).await.status, 413);
    }
}

/// `deploy/grafana`, but for its addresses: Grafana itself is a program that tests cannot have, so its upstream records.
#[tokio::test]
async fn grafanas_sample_names_who_is_signed_in_in_the_headers_that_it_reads() {
    let upstream = Upstream::start().await;
    let identity = tls::certificate();
    let sample = |file: &str| fs::read_to_string(repository(&format!("deploy/grafana/{file}"))).expect(file);
    let mut server =
        Setup::with(&upstream).policies(&sample("policies/access.yaml").replace("example.com", DOMAIN)).prepare();
    let [edge, admin] = [server.edge(), server.admin()];
    let config = sample("config/postern.yaml")
        .replace("0.0.0.0:8443", &format!("127.0.0.1:{edge}"))
        .replace("127.0.0.1:9900", &format!("127.0.0.1:{admin}"))
        .replace("172.30.0.3:3000", &format!("127.0.0.1:{}", upstream.port()))
        .replace("https://auth.example.com", &format!("https://auth.{DOMAIN}:{edge}"))
        .replace("https://grafana.example.com", &format!("https://grafana.{DOMAIN}:{edge}"))
        .replace("example.com", DOMAIN);
    server.write("config/postern.yaml", &config);
    server.write("config/tls.pem", &identity.certificate);
    server.write("config/tls.key", &identity.key);
    server.launch().await;

    let person = Person::over_tls(&identity.certificate, true);
    let wanted = format!("https://grafana.{DOMAIN}:{edge}/d/1?panel=2");
    let form = person.browse(&wanted).await;
    let welcome = person.sign_in(&form, "alice", PASSWORD).await;
    assert_eq!((welcome.status, welcome.location().as_str()), (303, wanted.as_str()), "{}", welcome.body);
    let spoofed = [("Remote-User", "admin"), ("Remote-Email", "admin@localhost"), ("Accept", "text/html")];
    let spoofed = spoofed.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let seen: Seen = serde_json::from_str(&person.send("GET", &wanted, &spoofed).await.body).expect("what it saw");

    // Each header that grafana.ini reads comes from Postern, and from nowhere else.
    let ini = sample("grafana.ini");
    let setting = |key: &str| {
        let line = ini.lines().find_map(|line| line.strip_prefix(key)?.trim_start().strip_prefix('='));
        line.map(str::trim).unwrap_or_else(|| panic!("no {key} in grafana.ini"))
    };
    let mut read = vec![setting("header_name")];
    read.extend(setting("headers").split(' ').filter_map(|pair| pair.split_once(':')).map(|(_, header)| header));
    let told: Vec<_> = read.iter().map(|header| seen.all(header).join("|")).collect();
    assert_eq!(told, ["alice", "Alice Ä.", "alice@example.com", "admins,dev"]);
    // And is believed of Postern's address alone, which compose.yaml gives it.
    let compose = sample("compose.yaml");
    assert!(compose.contains(&format!("ipv4_address: {} }}", setting("whitelist"))), "{compose}");
    assert!(sample("config/postern.yaml").contains("http://172.30.0.3:3000") && compose.contains("172.30.0.3"));
}
