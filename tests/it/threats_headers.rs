//! Headers that speak of who is asking: what a client may say of itself, and what an application may set.

use crate::harness::{
    server::{Role, Server, Setup, feed},
    upstream::{Seen, Upstream},
    wire::{self, Request},
};

async fn scene() -> (Upstream, Server) {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    (upstream, server)
}

#[tokio::test]
async fn threat_22_headers_that_redescribe_a_request_are_dropped() {
    let (_upstream, server) = scene().await;
    let names = [
        "X-Original-URL",
        "X-Original-Host",
        "X-Rewrite-URL",
        "Forwarded",
        "X-Real-IP",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-Original-Method",
    ];
    let mut request = Request::get("/public/x");
    for name in names {
        request = request.header(name, "/admin").header(&name.replace('-', "_"), "/admin");
    }
    let seen = Seen::of(&server.ask(Role::Edge, &request).await);
    for name in names {
        assert_eq!(seen.all(name), Vec::<&str>::new(), "{name}");
        assert_eq!(seen.all(&name.replace('-', "_")), Vec::<&str>::new(), "{name}");
    }
}

#[tokio::test]
async fn threat_23_a_clients_own_identity_is_removed_everywhere() {
    let (_upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let forged = |request: Request| {
        ["Remote-User", "REMOTE-USER", "remote-groups", "Remote-Email", "Remote-Name", "Remote-Anything"]
            .into_iter()
            .fold(request, |request, name| request.header(name, "admin"))
    };
    let anonymous = Seen::of(&server.ask(Role::Edge, &forged(Request::get("/public/x"))).await);
    assert!(!format!("{anonymous:?}").contains("admin"), "{anonymous:?}");
    let signed_in = forged(Request::get("/members/x").cookie(bob.gate.clone()));
    let seen = Seen::of(&server.ask(Role::Edge, &signed_in).await);
    assert!(!format!("{seen:?}").contains("admin"), "{seen:?}");
    assert_eq!(seen.header("Remote-User"), Some("bob"));

    // A proxy copies these over whatever the client sent: each is in the answer, empty where nobody is signed in.
    for (request, user) in [(Request::get("/public/x"), ""), (Request::get("/members/x").cookie(bob.gate), "bob")] {
        let reply = server.ask(Role::ForwardAuth, &forged(request)).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.all("Remote-User").collect::<Vec<_>>(), [user]);
        for name in ["Remote-Name", "Remote-Email", "Remote-Groups", "Cookie", "Authorization", "X-Request-Id"] {
            assert_eq!(reply.all(name).count(), 1, "{name}: {reply:?}");
        }
        assert!(!format!("{reply:?}").contains("admin"), "{reply:?}");
    }
}

#[tokio::test]
async fn threat_24_a_respelled_identity_header_is_removed_at_the_edge_and_refused_to_a_proxy() {
    let (upstream, server) = scene().await;
    for name in [
        "Remote_User",
        "REMOTE_USER",
        "remote.user",
        "Remote.User",
        "Remote_Groups",
        "X_Postern_Assertion",
        "Remote!User",
    ] {
        let before = server.metric("postern_headers_stripped_total", &[]).await;
        let request = Request::get("/public/x").header(name, "admin");
        let seen = Seen::of(&server.ask(Role::Edge, &request).await);
        assert_eq!(seen.all(name), Vec::<&str>::new(), "{name}");
        let between = server.metric("postern_headers_stripped_total", &[]).await;
        assert!(between > before, "{name} is counted at the edge");
        assert_eq!(server.ask(Role::ForwardAuth, &request).await.status, 400, "{name}");
        assert!(server.metric("postern_headers_stripped_total", &[]).await > between, "{name} is counted");
    }
    assert!(!format!("{:?}", upstream.seen()).contains("admin"));
}

/// `authorization: app` and the legacy path read no `Authorization`; a token of ours goes on no more for it.
#[tokio::test]
async fn threat_29_a_token_of_ours_is_kept_back_where_it_is_not_read() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.route = ", authorization: app".to_owned();
    let server = setup.start().await;
    let ours = format!("Bearer {}", server.sign_in("alice").await.access_token);
    for (sent, edge, legacy) in [(&*ours, None, ""), ("Basic eDp5", Some("Basic eDp5"), "Basic eDp5")] {
        let request = Request::get("/public/x").header("Authorization", sent);
        assert_eq!(Seen::of(&server.ask(Role::Edge, &request).await).header("Authorization"), edge);
        let question = Request::get("/api/verify")
            .host("postern")
            .header("X-Original-URL", format!("http://{}/public/x", server.app()))
            .header("X-Original-Method", "GET")
            .header("Authorization", sent);
        let reply = wire::send(server.forward_auth(), &question.bytes()).await;
        assert_eq!((reply.status, reply.header("Authorization")), (200, Some(legacy)), "{reply:?}");
    }
}

#[tokio::test]
async fn threat_25_a_connection_header_does_not_take_ours_away() {
    let (_upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    for named in ["close, Remote-User", "Remote-User, close", "close, remote-user, REMOTE-GROUPS, x-request-id"] {
        let request = Request::get("/members/x").cookie(bob.gate.clone()).header("Connection", named);
        let seen = Seen::of(&server.ask(Role::Edge, &request).await);
        assert_eq!((seen.header("Remote-User"), seen.header("Remote-Groups")), (Some("bob"), Some("dev")), "{named}");
        assert!(seen.header("X-Request-Id").is_some(), "{named}");
    }
}

#[tokio::test]
async fn threat_26_neither_does_one_of_a_websocket() {
    let (upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    for named in ["upgrade, remote-user", "Remote-User, Upgrade"] {
        let request = Request::get("/socket")
            .cookie(bob.gate.clone())
            .header("Remote-User", "admin")
            .header("Connection", named)
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(server.ask(Role::Edge, &request).await.status, 101, "{named}");
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.header("Remote-User") == Some("bob")), "{seen:?}");
}

#[tokio::test]
async fn threat_27_a_name_that_splits_a_header_cannot_exist() {
    let (_upstream, server) = scene().await;
    for (name, options) in [
        ("eve\r\nRemote-User: admin", vec![]),
        ("eve\nx", vec![]),
        ("eve,admin", vec![]),
        ("eve\u{7f}", vec![]),
        (" eve", vec![]),
        ("", vec![]),
        ("eve", vec!["--name", "Eve\r\nRemote-Groups: admins"]),
        ("eve", vec!["--email", "eve@example.com\nx"]),
        ("eve", vec!["--groups", "dev\nadmins"]),
    ] {
        let arguments = [&["user", "add", name, "--password-stdin"], options.as_slice()].concat();
        let output = feed(&mut server.command(&arguments), crate::harness::server::PASSWORD);
        assert_eq!(output.status.code(), Some(1), "{name:?} {options:?}: {output:?}");
    }
    server.add_user("jürgen", &["--name", "Jürgen 漢字", "--groups", "Büro"]);
    let person = server.sign_in("jürgen").await;
    let request = Request::get("/members/x").cookie(person.gate);
    let seen = Seen::of(&server.ask(Role::Edge, &request).await);
    let named = ["Remote-User", "Remote-Name", "Remote-Groups"].map(|name| seen.header(name).unwrap_or_default());
    assert_eq!(named, ["jürgen", "Jürgen 漢字", "Büro"]);
    assert_eq!(server.ask(Role::ForwardAuth, &request).await.header("Remote-User"), Some("jürgen"));
}

#[tokio::test]
async fn threat_28_a_group_with_a_comma_cannot_exist() {
    let (_upstream, server) = scene().await;
    let hash = String::from_utf8(feed(&mut server.command(&["hash"]), "eve's own password").stdout).expect("a hash");
    let users =
        format!("users:\n  eve:\n    displayname: Eve\n    password: '{}'\n    groups: ['dev,admins']\n", hash.trim());
    server.write("config/users.yaml", &users);
    let config = std::fs::read_to_string(server.folder().join("config/postern.yaml")).expect("the configuration");
    server.write("config/other.yaml", &(config + "users: { source: file, path: config/users.yaml }\n"));
    let output = feed(&mut server.command(&["check", "-c", "config/other.yaml"]), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("comma"), "{said}");
}

#[tokio::test]
async fn threat_29_our_cookies_and_tokens_reach_no_upstream() {
    let (upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let secrets =
        [&bob.gate, &bob.portal, &bob.access_token].map(|secret| secret.split('=').next_back().unwrap_or(secret));
    let cookies = [
        format!("a=1; {}; b=2; {}", bob.gate, bob.portal),
        format!("{}; a=1; postern_csrf=c; b=2", bob.gate),
        format!(" {} ;a=1; b=2", bob.gate),
        format!("a=1; b=2; ={}", bob.gate),
    ];
    for cookie in &cookies {
        for path in ["/public/x", "/members/x"] {
            let request = Request::get(path).cookie(cookie.clone()).cookie(bob.gate.clone());
            let seen = Seen::of(&server.ask(Role::Edge, &request).await);
            assert_eq!(seen.header("Cookie").map(|left| left.replace(' ', "")).as_deref(), Some("a=1;b=2"), "{cookie}");
            let reply = server.ask(Role::ForwardAuth, &request).await;
            assert_eq!(
                reply.header("Cookie").map(|left| left.replace(' ', "")).as_deref(),
                Some("a=1;b=2"),
                "{cookie}"
            );
            assert!(secrets.iter().all(|secret| !format!("{reply:?}").contains(secret)), "{reply:?}");
        }
    }
    for path in ["/public/x", "/members/x"] {
        let request = Request::get(path).header("Authorization", format!("Bearer {}", bob.access_token));
        let seen = Seen::of(&server.ask(Role::Edge, &request).await);
        assert_eq!(seen.header("Authorization"), None, "{path}");
        assert_eq!(server.ask(Role::ForwardAuth, &request).await.header("Authorization"), Some(""), "{path}");
    }
    for seen in upstream.seen() {
        assert!(secrets.iter().all(|secret| !format!("{seen:?}").contains(secret)), "{seen:?}");
    }
}

#[tokio::test]
async fn threat_30_no_user_agent_is_a_health_check() {
    let (upstream, server) = scene().await;
    for agent in ["GoogleHC/1.0", "kube-probe/1.31", "ELB-HealthChecker/2.0"] {
        for role in Role::BOTH {
            let reply = server.ask(role, &Request::get("/admin/x").page().header("User-Agent", agent)).await;
            assert_eq!(reply.status, 302, "{agent} in {role:?}");
        }
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn threat_60_an_application_sets_no_cookie_of_ours() {
    let (_upstream, server) = scene().await;
    let reply = server.ask(Role::Edge, &Request::get("/public/cookies")).await;
    assert_eq!(reply.all("Set-Cookie").collect::<Vec<_>>(), ["theirs=kept"]);
}

#[tokio::test]
async fn threat_61_a_foreign_pages_websocket_is_nobodys() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.forward_auth += ", origins: [\"http://friend.test.localhost\"]";
    setup.route = ", origins: [\"http://friend.test.localhost\"]".to_owned();
    let server = setup.start().await;
    let bob = server.sign_in("bob").await;
    let own = format!("http://{}", server.app());
    let handshake = |origin: Option<&str>| {
        let request = Request::get("/socket")
            .cookie(bob.gate.clone())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
        origin.map_or(request.clone(), |origin| request.header("Origin", origin))
    };
    let other_port = format!("{own}0");
    for (origin, permitted) in [
        (None, true),
        (Some(own.as_str()), true),
        (Some("http://friend.test.localhost"), true),
        (Some("http://evil.example"), false),
        (Some("http://evil.test.localhost"), false),
        (Some("null"), false),
        (Some(other_port.as_str()), false),
    ] {
        for (role, open) in [(Role::Edge, 101), (Role::ForwardAuth, 200)] {
            let reply = server.ask(role, &handshake(origin)).await;
            let expected = if permitted { open } else { 401 };
            assert_eq!(reply.status, expected, "{origin:?} in {role:?}");
        }
    }
}

#[tokio::test]
async fn threat_63_no_service_worker_on_the_portals_own_origin() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.portal = "{ path: /_postern }".to_owned();
    setup.session = "{}".to_owned();
    let server = setup.start().await;
    for path in ["/public/worker.js", "/_postern/worker.js"] {
        let request = Request::get(path).header("Service-Worker", "script");
        assert_eq!(server.ask(Role::Edge, &request).await.status, 403, "{path}");
    }
    assert_eq!(server.ask(Role::Edge, &Request::get("/public/worker.js")).await.status, 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[tokio::test]
async fn threat_68_logs_hold_no_secret() {
    let (_upstream, mut server) = scene().await;
    let bob = server.sign_in("bob").await;
    let requests = [
        Request::get("/members/x?token=query-secret").cookie(bob.both()),
        Request::get("/members/x").header("Authorization", format!("Bearer {}", bob.access_token)),
        Request::get("/members/x").header("Authorization", format!("Bearer {}x", bob.access_token)),
        Request::get("/members/x?token=query-secret").page(),
        Request::get("/public/../x?token=query-secret").cookie(bob.both()),
    ];
    for request in &requests {
        for role in Role::BOTH {
            server.ask(role, request).await;
        }
    }
    let failed = Request::new("POST", "/auth/login").host(server.auth());
    let body = serde_json::json!({ "username": "bob", "password": "typed-secret" });
    wire::send(server.edge(), &failed.json(&body).bytes()).await;
    server.stop().await;
    let log = server.log();
    assert!(log.contains("/members/x") && log.contains("bob"), "the access log is on: {log}");
    for secret in [&bob.gate, &bob.portal, &bob.access_token] {
        let value = secret.split_once('=').map_or(secret.as_str(), |(_, value)| value);
        assert!(!log.contains(value), "{log}");
    }
    for secret in ["query-secret", "typed-secret", crate::harness::server::PASSWORD] {
        assert!(!log.contains(secret), "{secret}: {log}");
    }
}

/// Whoever reads the other of two lengths takes a part of the body for a request that nobody decided.
#[tokio::test]
async fn threat_51_a_body_whose_end_can_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let (upstream, server) = scene().await;
    let host = server.app();
    for framing in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "Content-Length: 5\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: identity",
        "Transfer-Encoding : chunked",
        "X: a\r\n Transfer-Encoding: chunked",
    ] {
        for version in ["1.0", "1.1"] {
            let smuggled = format!("GET /public/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let head = format!("POST /public/x HTTP/{version}\r\nHost: {host}\r\n{framing}\r\n\r\n");
            let answers = wire::until_closed(server.edge(), format!("{head}0\r\n\r\n{smuggled}").as_bytes()).await;
            assert!(answers.starts_with("HTTP/1.1 400 "), "{framing} {version}: {answers}");
            assert_eq!(answers.matches("HTTP/1.").count(), 1, "{framing} {version}: {answers}");
        }
    }
    let old = format!("POST /public/x HTTP/1.0\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n");
    let answer = wire::until_closed(server.edge(), old.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
}

/// An upstream that reads `3, 3` otherwise than we do takes the body for a request of its own.
#[tokio::test]
async fn threat_51_a_length_told_twice_is_refused_and_the_connection_closed() {
    let (upstream, server) = scene().await;
    for lengths in
        ["Content-Length: 3, 3", "Content-Length: 3\r\nContent-Length: 3", "Content-Length: 3\r\ncontent-length: 4"]
    {
        let request = format!("POST /public/x HTTP/1.1\r\nHost: {}\r\n{lengths}\r\n\r\nabc", server.app());
        let reply = wire::send(server.edge(), request.as_bytes()).await;
        assert_eq!((reply.status, reply.header("Connection")), (400, Some("close")), "{lengths}: {reply:?}");
    }
    assert!(upstream.seen().is_empty(), "{:?}", upstream.seen());
}
