//! Sessions: what counts as one, what it opens, and what ends it.

use crate::harness::{
    as_soon,
    client::Person,
    server::{PASSWORD, Role, Server, Setup},
    upstream::{Seen, Upstream},
    wire::{Reply, Request},
};

async fn scene() -> (Upstream, Server) {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    (upstream, server)
}

fn value(cookie: &str) -> &str {
    cookie.split_once('=').expect("a cookie").1
}

#[tokio::test]
async fn threat_31_a_cookie_that_names_no_session_is_nobodys() {
    let (upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let good = value(&bob.gate);
    let truncated = &good[..good.len() - 1];
    let flipped = format!("{}{}", truncated, if good.ends_with('A') { 'B' } else { 'A' });
    let long = "x".repeat(4000);
    for bad in ["", "garbage", truncated, &flipped, &long, "%00", "' OR 1=1 --", &bob.session_id, value(&bob.portal)] {
        let cookie = format!("postern_session={bad}");
        for role in Role::BOTH {
            let page = server.ask(role, &Request::get("/members/x").page().cookie(cookie.clone())).await;
            assert_eq!(page.status, 302, "{bad:?} in {role:?}");
            let api = Request::get("/members/x").header("Accept", "application/json").cookie(cookie.clone());
            assert_eq!(server.ask(role, &api).await.status, 401, "{bad:?} in {role:?}");
        }
    }
    for name in ["Postern_Session", "POSTERN_SESSION", "__Host-postern_session", "postern_portal"] {
        let reply = server.ask(Role::Edge, &Request::get("/members/x").page().cookie(format!("{name}={good}"))).await;
        assert_eq!(reply.status, 302, "{name}");
    }
    assert!(upstream.seen().is_empty());
}

#[tokio::test]
async fn threat_33_cookies_of_two_live_sessions_are_nobodys() {
    let (_upstream, server) = scene().await;
    let (alice, bob) = (server.sign_in("alice").await, server.sign_in("bob").await);
    for (one, other) in [(&alice, &bob), (&bob, &alice)] {
        for role in Role::BOTH {
            let before = server.metric("postern_session_cookie_conflicts_total", &[]).await;
            let both = Request::get("/members/x").page().cookie(format!("{}; {}", one.gate, other.gate));
            assert_eq!(server.ask(role, &both).await.status, 302, "{role:?}");
            let apart = Request::get("/members/x").page().cookie(one.gate.clone()).cookie(other.gate.clone());
            assert_eq!(server.ask(role, &apart).await.status, 302, "{role:?}");
            let after = server.metric("postern_session_cookie_conflicts_total", &[]).await;
            assert!(after >= before + 2.0, "{role:?}: counted {before} to {after}");
        }
    }
    // A stale one beside a live one, as a nested domain leaves behind, is no conflict; nor is the same one twice.
    let stale = Request::get("/members/x").cookie(format!("postern_session=stale; {}; {}", bob.gate, bob.gate));
    assert_eq!(Seen::of(&server.ask(Role::Edge, &stale).await).header("Remote-User"), Some("bob"));
    // Signing in ends what the cookies named, so that the tossed one is gone as well.
    let both = format!("{}; {}", alice.gate, bob.gate);
    let fresh = server.sign_in_with("bob", &[("Cookie", &both)]).await;
    for old in [&alice.gate, &bob.gate] {
        let reply = server.ask(Role::Edge, &Request::get("/members/x").page().cookie(old.clone())).await;
        assert_eq!(reply.status, 302, "ended by the sign-in");
    }
    let reply = server.ask(Role::Edge, &Request::get("/members/x").page().cookie(fresh.gate)).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn threat_34_a_sign_in_changes_the_cookies_value() {
    let (_upstream, server) = scene().await;
    let first = server.sign_in("bob").await;
    let planted = server.sign_in_with("bob", &[("Cookie", "postern_session=planted-by-a-sibling-domain")]).await;
    assert_ne!(value(&planted.gate), "planted-by-a-sibling-domain");
    let again = server.sign_in_with("bob", &[("Cookie", &first.both())]).await;
    assert!(first.gate != again.gate && first.portal != again.portal && first.session_id != again.session_id);
    let old = server.ask(Role::Edge, &Request::get("/members/x").page().cookie(first.gate)).await;
    assert_eq!(old.status, 302, "the one before is ended");
}

/// What both roles say to a page load with this cookie.
async fn passes(server: &Server, cookie: &str) -> [u16; 2] {
    let request = Request::get("/members/x").page().cookie(cookie.to_owned());
    [server.ask(Role::Edge, &request).await.status, server.ask(Role::ForwardAuth, &request).await.status]
}

#[tokio::test]
async fn threat_36_signing_out_and_ending_a_session_hold_at_once() {
    let (_upstream, server) = scene().await;
    let (one, other) = (server.sign_in("bob").await, server.sign_in("bob").await);
    assert_eq!(passes(&server, &other.gate).await, [200, 200]);
    let ended = Request::new("DELETE", &format!("/auth/sessions/{}", other.session_id)).cookie(one.both());
    assert!([200, 204].contains(&server.portal(ended).await.status));
    assert_eq!(passes(&server, &other.gate).await, [302, 302]);
    let token = Request::get("/members/x").header("Authorization", format!("Bearer {}", other.access_token));
    assert_eq!(server.ask(Role::Edge, &token).await.status, 401, "its token dies with it");
    let logout = Request::new("POST", "/auth/logout").cookie(one.both());
    let reply = server.portal(logout).await;
    assert!([200, 204].contains(&reply.status), "{reply:?}");
    assert_eq!(passes(&server, &one.gate).await, [302, 302]);
    let (third, fourth) = (server.sign_in("bob").await, server.sign_in("bob").await);
    let everywhere = Request::new("POST", "/auth/logout-all").cookie(third.both());
    assert!([200, 204].contains(&server.portal(everywhere).await.status));
    for cookie in [&third.gate, &fourth.gate] {
        assert_eq!(passes(&server, cookie).await, [302, 302]);
    }
}

#[tokio::test]
async fn threat_36_what_the_command_line_changes_holds_within_a_second() {
    let (_upstream, server) = scene().await;
    let changes: [(&str, &[&str]); 4] = [
        ("a revoked session", &["session", "revoke", "--user", "bob"]),
        ("a changed password", &["user", "set-password", "bob", "--password-stdin"]),
        ("a disabled user", &["user", "disable", "bob"]),
        ("a deleted user", &["user", "delete", "bob"]),
    ];
    for (what, arguments) in changes {
        let bob = server.sign_in("bob").await;
        let page = Request::get("/members/x").page().cookie(bob.gate.clone());
        assert_eq!(server.ask(Role::Edge, &page).await.status, 200);
        server.run(arguments);
        as_soon(std::time::Duration::from_secs(1), what, || async {
            server.ask(Role::Edge, &page).await.status == 302
                && server.ask(Role::ForwardAuth, &page).await.status == 302
        })
        .await;
        if what == "a disabled user" {
            assert_eq!(server.login("bob", PASSWORD, &[]).await.status, 401);
            server.run(&["user", "enable", "bob"]);
        }
    }
    let alice = server.sign_in("alice").await;
    let admin = Request::get("/admin/x").page().cookie(alice.gate);
    assert_eq!(server.ask(Role::Edge, &admin).await.status, 200);
    server.run(&["user", "set", "alice", "--groups", "dev"]);
    as_soon(std::time::Duration::from_secs(1), "a changed group", || async {
        server.ask(Role::Edge, &admin).await.status == 403
    })
    .await;
}

#[tokio::test]
async fn threat_59_the_gate_cookie_alone_opens_no_account() {
    let (_upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let session = format!("/auth/sessions/{}", bob.session_id);
    let calls = [
        ("GET", "/auth/me"),
        ("GET", "/auth/sessions"),
        ("DELETE", session.as_str()),
        ("POST", "/auth/logout"),
        ("POST", "/auth/logout-all"),
    ];
    let foreign = [bob.gate.clone(), format!("{}; postern_portal=forged", bob.gate), bob.portal.clone()];
    for (method, path) in calls {
        for cookie in &foreign {
            let reply = server.portal(Request::new(method, path).cookie(cookie.clone())).await;
            assert_eq!(reply.status, 401, "{method} {path} with {cookie}");
        }
    }
    for cookie in &foreign {
        let page = server.portal(Request::get("/account").page().cookie(cookie.clone())).await;
        assert_ne!(page.status, 200, "{cookie}");
        assert!(!page.body.contains(&bob.session_id), "{page:?}");
    }
    let alice = server.sign_in("alice").await;
    let crossed = format!("{}; {}", bob.gate, alice.portal);
    assert_eq!(server.portal(Request::get("/auth/me").cookie(crossed)).await.status, 401, "of another session");
    let own = server.portal(Request::get("/auth/me").cookie(bob.both())).await;
    assert_eq!(own.status, 200, "{own:?}");
    assert!(own.body.contains("bob"));
}

#[tokio::test]
async fn threat_64_a_token_of_another_make_is_401() {
    let (_upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let parts: Vec<&str> = bob.access_token.split('.').collect();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    let forged = [
        format!("{}.{}.", parts[0], parts[1]),
        format!("{none}.{}.", parts[1]),
        format!("{none}.{}.{}", parts[1], parts[2]),
        format!("{}.{}.{}", parts[0], parts[1], "A".repeat(parts[2].len())),
    ];
    for token in forged {
        for role in Role::BOTH {
            let request = Request::get("/members/x").header("Authorization", format!("Bearer {token}"));
            assert_eq!(server.ask(role, &request).await.status, 401, "{token} in {role:?}");
        }
    }
}

#[tokio::test]
async fn threat_66_a_missing_factor_ends_on_a_page_that_says_so() {
    let (upstream, server) = scene().await;
    let person = Person::new();
    let wanted = format!("http://{}/vault/x", server.app());
    let form = person.browse(&wanted).await;
    assert_eq!(form.status, 200);
    let welcome = person.sign_in(&form, "alice", PASSWORD).await;
    let landed = if welcome.status == 303 { person.browse(welcome.location()).await } else { welcome };
    assert_eq!(landed.status, 403, "{}", landed.body);
    assert!(landed.body.to_lowercase().contains("factor"), "{}", landed.body);
    assert_eq!(person.browse(&wanted).await.status, 403, "and again");
    assert!(upstream.seen().is_empty());
}

/// Each ends on a page that says why; `browse` fails the test on a loop.
#[tokio::test]
async fn threat_70_no_sign_in_goes_round_in_circles() {
    let (_upstream, server) = scene().await;
    let wanted = format!("http://{}/admin/x", server.app());
    // Signed in, and refused where `rd` leads.
    let person = Person::new();
    let form = person.browse(&wanted).await;
    let welcome = person.sign_in(&form, "bob", PASSWORD).await;
    let landed = if welcome.status == 303 { person.browse(welcome.location()).await } else { welcome };
    assert_eq!(landed.status, 403, "{}", landed.body);
    assert!(landed.body.contains("bob"), "{}", landed.body);
    // The portal with a live session does not ask again, and does not send back to a refused page for ever.
    let portal = format!("http://{}/?{}", server.auth(), query(&wanted));
    assert_eq!(person.browse(&portal).await.status, 403);
    // A stale cookie of a nested domain comes first on every request.
    let stale = "postern_session=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let signed_in = server.sign_in_with("bob", &[("Cookie", stale)]).await;
    let request = Request::get("/members/x").page().cookie(format!("{stale}; {}", signed_in.gate));
    assert_eq!(server.ask(Role::Edge, &request).await.status, 200);
}

#[tokio::test]
async fn threat_70_http_behind_a_proxy_that_ends_tls() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.portal = "{ url: \"https://auth.test.localhost\" }".to_owned();
    setup.edge = ", trusted_proxies: [127.0.0.1/32]".to_owned();
    let server = setup.start().await;
    let ask = |proto: Option<&str>| {
        let request = Request::get("/members/x?y=z").host("app.test.localhost").page();
        proto.map_or(request.clone(), |proto| request.header("X-Forwarded-Proto", proto))
    };
    for proto in [None, Some("http"), Some("https")] {
        for role in Role::BOTH {
            if role == Role::ForwardAuth && proto.is_some() {
                continue; // the question has a scheme already
            }
            let reply: Reply = server.ask(role, &ask(proto)).await;
            assert_eq!(reply.status, 302);
            let expected =
                format!("https://auth.test.localhost/?{}", query("https://app.test.localhost/members/x?y=z"));
            assert_eq!(reply.location(), format!("{expected}&rm=GET"), "{proto:?} in {role:?}");
        }
    }
}

fn query(rd: &str) -> String {
    form_urlencoded::Serializer::new(String::new()).append_pair("rd", rd).finish()
}
