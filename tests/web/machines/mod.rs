//! API tokens and Basic: at the gate with real stores, on the account page, and by the API.

mod at_once;

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderMap;
use postern::{
    core::{
        api_token::{ApiTokenId, Owner},
        client_ip::ClientAddress,
        request::{Facts, Role},
        site::AUTHORIZATION_ONLY,
        target::{Scheme, Target},
        verdict::{Outcome, SignIn, Verdict},
    },
    identity::api_tokens::TokenDesk,
    observe::readiness::Readiness,
    ports::{Revoke, UserChange},
};
use serde_json::{Value, json};

use crate::{
    harness::{Ask, Browser, HTTPS, PASSWORD, World},
    ports::Strict,
};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// What the gate says to this `Authorization` at the edge.
async fn verdict_on(world: &World, authorization: &str, path: &str) -> Verdict {
    verdict_from(world, HERE, authorization, path).await
}

async fn verdict_from(world: &World, peer: IpAddr, authorization: &str, path: &str) -> Verdict {
    outcome_from(world, peer, authorization, path).await.verdict
}

async fn outcome_from(world: &World, peer: IpAddr, authorization: &str, path: &str) -> Outcome {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", authorization.parse().unwrap());
    let facts = Facts {
        role: Role::Edge,
        began: Duration::ZERO,
        listener: 0,
        target: Target::parse(Scheme::Https, "app.example.com", path).unwrap(),
        method: "GET",
        headers: &headers,
        peer,
        peer_trusted: false,
        client: ClientAddress::Known(peer),
        credentials_from: AUTHORIZATION_ONLY,
    };
    world.gate.check(&world.site, &facts).await
}

async fn verdict(world: &World, authorization: &str) -> &'static str {
    verdict_on(world, authorization, "/x").await.as_str()
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// From here on memory is believed; what it was asked before that is forgotten.
async fn follow(world: &World) -> tokio::sync::watch::Sender<bool> {
    let (stop, stopped) = tokio::sync::watch::channel(false);
    drop(world.stores.follow(Arc::new(Readiness::default()), stopped));
    let remembering = async {
        loop {
            assert_eq!(verdict(world, &basic("alice", PASSWORD)).await, "forward");
            if world.hashed().0 == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), remembering).await.unwrap();
    stop
}

async fn create(browser: &mut Browser<'_>, body: &Value) -> Value {
    let reply = browser.send(Ask::post(format!("{HTTPS}/auth/tokens")).json(body)).await;
    assert_eq!(reply.status, 201, "{reply:#?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    reply.json()
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_costs_one_hash_for_a_thousand_requests() {
    let world = World::https().await;
    let _stop = follow(&world).await;
    for _ in 0..1_000 {
        assert_eq!(verdict(&world, &basic("bob", PASSWORD)).await, "forward");
    }
    assert_eq!(world.hashed(), (1, 0));
    assert_eq!(verdict(&world, &basic("BOB", PASSWORD)).await, "forward");
    assert_eq!(world.hashed(), (0, 0), "names are folded");
    let events: Vec<_> = world.recorded().into_iter().filter(|event| event.user.as_deref() == Some("bob")).collect();
    assert_eq!(events.iter().map(|event| (event.event, event.detail)).collect::<Vec<_>>(), [("sign_in", "basic")]);
}

/// A program that opens many connections at once, right after the start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn basic_costs_one_hash_for_a_hundred_requests_at_once() {
    let world = Arc::new(World::https().await);
    let _stop = follow(&world).await;
    let requests: Vec<_> = (0..100)
        .map(|_| {
            let world = Arc::clone(&world);
            tokio::spawn(async move { verdict(&world, &basic("bob", PASSWORD)).await })
        })
        .collect();
    for request in requests {
        assert_eq!(request.await.unwrap(), "forward");
    }
    assert_eq!(world.hashed(), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_a_new_password_or_a_disabled_user_ends_basic_at_once() {
    let world = World::https().await;
    let _stop = follow(&world).await;
    let old = basic("bob", PASSWORD);
    assert_eq!(verdict(&world, &old).await, "forward");
    let hash = world.stores.hasher.hash("another long word".into()).await.unwrap();
    world.stores.credentials.set_password_hash("bob", hash.into()).await.unwrap();
    assert_eq!(verdict(&world, &old).await, "sign_in");
    let new = basic("bob", "another long word");
    assert_eq!(verdict(&world, &new).await, "forward");
    let set = async |disabled| {
        let change = UserChange { disabled: Some(disabled), ..UserChange::default() };
        world.stores.users.update("bob", change).await.unwrap();
    };
    set(true).await;
    assert_eq!(verdict(&world, &new).await, "sign_in");
    set(false).await;
    assert_eq!(verdict(&world, &new).await, "forward");
    world.stores.users.delete("bob").await.unwrap();
    assert_eq!(verdict(&world, &new).await, "sign_in");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_is_never_remembered() {
    let world = World::https().await;
    let _stop = follow(&world).await;
    for _ in 0..3 {
        let refused = verdict_on(&world, &basic("bob", "wrong"), "/x").await;
        assert!(matches!(refused, Verdict::SignIn(SignIn::FailedBasic)));
    }
    assert_eq!(world.hashed(), (3, 0), "each costs a hash");
    assert_eq!(verdict(&world, &basic("bob", PASSWORD)).await, "forward");
    assert_eq!(verdict(&world, &basic("bob", "wrong")).await, "sign_in", "also beside the right one");
}

#[tokio::test]
async fn threat_39_an_unknown_name_costs_basic_what_a_known_one_costs() {
    let world = World::https().await;
    assert_eq!(verdict(&world, &basic("nobody", "x")).await, "sign_in");
    assert_eq!(world.hashed(), (1, 1));
    let [event] = &world.recorded()[..] else { panic!("one event") };
    assert_eq!((event.event, &event.user, event.detail), ("sign_in_failed", &None, "unknown_user"));
    assert_eq!(verdict(&world, &basic("bob", "x")).await, "sign_in");
    assert_eq!(world.hashed(), (1, 0));
    let told = world.metrics.render();
    assert!(told.contains("postern_auth_login_total{provider=\"basic\",status=\"failure\"} 2"), "{told}");
}

#[tokio::test]
async fn threat_37_38_one_regulation_for_the_form_the_api_and_basic() {
    let world = World::https().await;
    world.regulation.most.store(3, Ordering::SeqCst);
    let mut browser = Browser::at(&world, HTTPS);
    let login = async |user: &str, password: &str| {
        let body = json!({ "username": user, "password": password });
        world.send(Ask::post(format!("{HTTPS}/auth/login")).json(&body)).await
    };
    assert_eq!(browser.sign_in("bob", "wrong", &[]).await.status, 401);
    assert_eq!(login(" BOB", "wrong").await.status, 401);
    assert_eq!(verdict(&world, &basic("Bob", "wrong")).await, "sign_in");
    world.hashed();

    let form = browser.sign_in("bob", PASSWORD, &[]).await;
    assert_eq!((form.status.as_u16(), form.header("retry-after")), (429, Some("60")));
    assert!(form.is_page() && form.body.contains("Too many sign-ins"), "{}", form.body);
    let api = login("bob", PASSWORD).await;
    assert_eq!(
        (api.status.as_u16(), api.header("retry-after"), api.code().as_str()),
        (429, Some("60"), "rate_limited")
    );
    let barred = verdict_on(&world, &basic("bOB", PASSWORD), "/x").await;
    assert!(matches!(barred, Verdict::SlowDown { retry_after } if retry_after == Strict::WAIT), "{barred:?}");
    assert_eq!(world.hashed(), (0, 0), "what is barred costs no hash");
    assert_eq!(verdict(&world, &basic("alice", PASSWORD)).await, "forward", "nobody else is barred");

    let tries = world.regulation.tries.lock().unwrap().clone();
    let of_bob: Vec<_> = tries.iter().filter(|(account, _)| account == "bob").map(|(_, provider)| *provider).collect();
    assert_eq!(of_bob, ["password", "password", "basic", "password", "password", "basic"]);
    let told = world.metrics.render();
    assert!(told.contains("postern_auth_login_total{provider=\"basic\",status=\"slow_down\"} 1"), "{told}");
}

#[tokio::test]
async fn a_full_pool_lets_nobody_in_by_basic() {
    let world = World::https().await;
    world.hasher.busy.store(true, Ordering::SeqCst);
    assert_eq!(verdict(&world, &basic("bob", PASSWORD)).await, "unavailable");
    world.hasher.busy.store(false, Ordering::SeqCst);
    world.users.down.store(true, Ordering::SeqCst);
    assert_eq!(verdict(&world, &basic("bob", PASSWORD)).await, "unavailable");
    assert_eq!(verdict_on(&world, &basic("bob", PASSWORD), "/public/x").await.as_str(), "forward");
}

/// A password comes with every request; a token was made once.
#[tokio::test]
async fn a_rule_that_wants_a_fresh_sign_in_takes_a_password_and_no_old_token() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let made = create(&mut browser, &json!({ "name": "old" })).await;
    let token = bearer(text(&made, "token"));
    assert_eq!(verdict_on(&world, &token, "/fresh/x").await.as_str(), "forward");
    world.pass(Duration::from_secs(16 * 60));
    assert_eq!(verdict_on(&world, &token, "/fresh/x").await.as_str(), "step_up");
    assert_eq!(verdict_on(&world, &basic("bob", PASSWORD), "/fresh/x").await.as_str(), "forward");
    assert_eq!(verdict_on(&world, &token, "/vault/x").await.as_str(), "step_up", "one factor");
}

#[tokio::test]
async fn a_token_is_made_listed_and_revoked_by_the_api() {
    let world = World::https().await;
    let mut bob = Browser::signed_in(&world, HTTPS, "bob").await;
    let mut alice = Browser::signed_in(&world, HTTPS, "alice").await;
    world.recorded();
    let wanted = json!({ "name": " laptop ", "scopes": ["read", "host:app.example.com"], "expires_in_days": 7 });
    let made = create(&mut bob, &wanted).await;
    let keys: Vec<&String> = made.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["created_at", "expired", "expires_at", "id", "last_used_at", "name", "scopes", "token"]);
    assert_eq!(text(&made, "name"), "laptop");
    assert_eq!(text(&made, "expires_at"), "2027-01-22T08:00:00Z");
    let token = text(&made, "token").to_owned();
    assert!(token.starts_with("postern_pat_"), "{token}");
    assert_eq!(verdict(&world, &bearer(&token)).await, "forward");

    let listed = bob.api("GET", "/auth/tokens").await;
    assert!(!listed.body.contains(&token), "shown once");
    let listed = listed.json();
    assert_eq!(listed["tokens"].as_array().unwrap().len(), 1);
    assert_eq!(listed["tokens"][0]["scopes"], json!(["read", "host:app.example.com"]));
    assert_eq!(text(&listed["tokens"][0], "last_used_at"), "2027-01-15T08:00:00Z");
    assert_eq!(alice.api("GET", "/auth/tokens").await.json()["tokens"], json!([]));

    let id = text(&made, "id");
    for gone in [id, "nobodys", "00000000000000000000"] {
        let reply = alice.api("DELETE", &format!("/auth/tokens/{gone}")).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (404, "not_found"), "{gone}: somebody else's");
    }
    assert_eq!(verdict(&world, &bearer(&token)).await, "forward");
    assert_eq!(bob.api("DELETE", &format!("/auth/tokens/{id}")).await.status, 204);
    assert_eq!(verdict(&world, &bearer(&token)).await, "sign_in");
    assert_eq!(world.counted("postern_auth_token_revoked_total"), ["postern_auth_token_revoked_total 1"]);
    let events: Vec<_> = world.recorded().iter().map(|event| (event.event, event.user.clone(), event.detail)).collect();
    let bob = Some("bob".to_owned());
    assert_eq!(events, [("token_created", bob.clone(), "user"), ("token_revoked", bob, "by_owner")]);
}

#[tokio::test]
async fn what_the_command_line_revokes_is_on_record() {
    let world = World::https().await;
    let mut bob = Browser::signed_in(&world, HTTPS, "bob").await;
    let made = [create(&mut bob, &json!({ "name": "a" })).await, create(&mut bob, &json!({ "name": "b" })).await];
    world.recorded();
    let desk = TokenDesk {
        tokens: &*world.stores.api_tokens,
        clock: &*world.clock,
        entropy: &*world.stores.entropy,
        audit: world.record(),
        metrics: None,
        address: None,
        request_id: None,
    };
    let first = ApiTokenId(text(&made[0], "id").to_owned());
    let owner = Owner::User("bob".to_owned());
    for (which, revoked) in
        [(Revoke::One(&first), 1), (Revoke::One(&first), 0), (Revoke::AllOf(&owner), 1), (Revoke::AllOf(&owner), 0)]
    {
        assert_eq!(desk.revoke_any(which).await.unwrap(), revoked);
    }
    let events: Vec<_> = world.recorded().iter().map(|event| (event.event, event.user.clone(), event.detail)).collect();
    let of_bob = ("token_revoked", Some("bob".to_owned()), "by_command");
    assert_eq!(events, [of_bob.clone(), of_bob]);
}

#[tokio::test]
async fn a_token_lives_as_long_as_was_said() {
    let world = World::https().await;
    let mut bob = Browser::signed_in(&world, HTTPS, "bob").await;
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let week = bearer(text(&create(&mut bob, &json!({ "name": "a", "expires_in_days": 7 })).await, "token"));
    let usual = bearer(text(&create(&mut bob, &json!({ "name": "b" })).await, "token"));
    let ever = bearer(text(&create(&mut bob, &json!({ "name": "c", "expires_in_days": null })).await, "token"));
    world.pass(days(7) - Duration::from_millis(1));
    assert_eq!(verdict(&world, &week).await, "forward", "unused for a week: tokens have no idle time");
    world.pass(Duration::from_millis(1));
    assert_eq!(verdict(&world, &week).await, "sign_in");
    world.pass(days(83) - Duration::from_millis(1));
    assert_eq!(verdict(&world, &usual).await, "forward");
    world.pass(Duration::from_millis(1));
    assert_eq!(verdict(&world, &usual).await, "sign_in");
    world.pass(days(5_000));
    assert_eq!(verdict(&world, &ever).await, "forward");
}

#[tokio::test]
async fn what_cannot_be_a_token_is_told() {
    let world = World::https().await;
    let mut bob = Browser::signed_in(&world, HTTPS, "bob").await;
    for bad in [
        json!({}),
        json!({ "name": "" }),
        json!({ "name": "a\nb" }),
        json!({ "name": "x".repeat(101) }),
        json!({ "name": "x", "scopes": ["write"] }),
        json!({ "name": "x", "scopes": "read" }),
        json!({ "name": "x", "scopes": [""] }),
        json!({ "name": "x", "scopes": ["read", " "] }),
        json!({ "name": "x", "expires_in_days": 0 }),
        json!({ "name": "x", "expires_in_days": 4000 }),
        json!({ "name": "x", "user": "alice" }),
    ] {
        let reply = bob.send(Ask::post(format!("{HTTPS}/auth/tokens")).json(&bad)).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "bad_request"), "{bad}");
    }
    let form = Ask::post(format!("{HTTPS}/auth/tokens")).raw("text/plain", "{\"name\":\"x\"}");
    assert_eq!(bob.send(form).await.status, 415);
    let foreign = Ask::post(format!("{HTTPS}/auth/tokens")).json(&json!({ "name": "x" }));
    assert_eq!(bob.send(foreign.header("origin", "https://app.example.com")).await.status, 403);
    assert_eq!(bob.api("GET", "/auth/tokens").await.json()["tokens"], json!([]));
}

/// A token must not make tokens, nor may an application of the domain, which sees the session cookie.
#[tokio::test]
async fn threat_59_tokens_need_both_cookies() {
    let world = World::https().await;
    let mut bob = Browser::signed_in(&world, HTTPS, "bob").await;
    let made = create(&mut bob, &json!({ "name": "x" })).await;
    let (id, token) = (text(&made, "id").to_owned(), text(&made, "token").to_owned());
    let body = json!({ "username": "bob", "password": PASSWORD });
    let signed_in = world.send(Ask::post(format!("{HTTPS}/auth/login")).json(&body)).await.json();
    let session = format!("postern_session={}", bob.jar("postern_session").unwrap());
    for (method, path) in [
        ("GET", "/auth/tokens".to_owned()),
        ("POST", "/auth/tokens".to_owned()),
        ("DELETE", format!("/auth/tokens/{id}")),
    ] {
        let ask = || {
            let ask = Ask::new(method, format!("{HTTPS}{path}"));
            if method == "POST" { ask.json(&json!({ "name": "y" })) } else { ask }
        };
        for (what, ask) in [
            ("nobody", ask()),
            ("the session cookie alone", ask().cookie(&session)),
            ("an access token", ask().bearer(text(&signed_in, "access_token"))),
            ("an API token", ask().bearer(&token)),
            ("a password", ask().header("authorization", &basic("bob", PASSWORD))),
        ] {
            let reply = world.send(ask).await;
            assert_eq!((reply.status.as_u16(), reply.code().as_str()), (401, "sign_in_required"), "{method} by {what}");
        }
    }
    for path in ["/account/tokens".to_owned(), format!("/account/tokens/{id}/revoke")] {
        let ask = Ask::post(format!("{HTTPS}{path}")).form(&[("name", "y")]).cookie(&session);
        assert_eq!(world.send(ask).await.status, 401, "{path}");
    }
    for path in ["/auth/me", "/auth/sessions"] {
        let reply = world.send(Ask::get(format!("{HTTPS}{path}")).bearer(&token)).await;
        assert_eq!(
            (reply.status.as_u16(), reply.code().as_str()),
            (401, "invalid_token"),
            "{path}: for applications alone"
        );
    }
    assert_eq!(bob.api("GET", "/auth/tokens").await.json()["tokens"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn the_account_page_makes_a_token_and_shows_it_once() {
    let world = World::https().await;
    let mut bob = Browser::signed_in(&world, HTTPS, "bob").await;
    let page = bob.load("/account").await;
    assert!(page.body.contains("API tokens") && page.body.contains("<option value=\"90\" selected>"), "{}", page.body);
    let csrf = page.field("csrf_token");
    let fields = [
        ("csrf_token", csrf.as_str()),
        ("name", "<b>laptop</b>"),
        ("days", "30"),
        ("hosts", "app.example.com, *.apps.example.com"),
    ];
    let made = bob.post("/account/tokens", &fields).await;
    assert_eq!(made.status, 201, "{made:#?}");
    assert_eq!(made.header("cache-control"), Some("no-store"));
    let token = made.body.split_once("postern_pat_").unwrap().1.split_once('<').unwrap().0;
    let token = format!("postern_pat_{token}");
    assert_eq!(token.len(), 61);
    assert!(made.body.contains("2027-02-14") && !made.body.contains("<b>laptop"), "{}", made.body);
    assert_eq!(verdict(&world, &bearer(&token)).await, "forward");

    world.pass(Duration::from_secs(60));
    let page = bob.load("/account").await;
    assert!(!page.body.contains(&token), "shown once");
    for told in [
        "laptop",
        "reads and writes on app.example.com, *.apps.example.com",
        "last used 1 minute ago",
        "expires 2027-02-14",
    ] {
        assert!(page.body.contains(told), "no {told:?} in {}", page.body);
    }
    let (_, after) = page.body.split_once("/account/tokens/").unwrap();
    let id = after.split_once("/revoke").unwrap().0.to_owned();
    let mut alice = Browser::signed_in(&world, HTTPS, "alice").await;
    let theirs = alice.load("/account").await.field("csrf_token");
    assert_eq!(alice.post(&format!("/account/tokens/{id}/revoke"), &[("csrf_token", &theirs)]).await.status, 303);
    assert_eq!(verdict(&world, &bearer(&token)).await, "forward", "nobody else's");
    assert_eq!(bob.post(&format!("/account/tokens/{id}/revoke"), &[]).await.status, 403, "without the form's token");
    let gone = bob.post(&format!("/account/tokens/{id}/revoke"), &[("csrf_token", &csrf)]).await;
    assert_eq!((gone.status.as_u16(), gone.location()), (303, "/account?token_revoked"));
    assert!(bob.load(gone.location()).await.body.contains("role=\"status\">That token is revoked."));
    assert_eq!(verdict(&world, &bearer(&token)).await, "sign_in");
}

#[tokio::test]
async fn what_is_wrong_with_a_new_token_stands_beside_its_field() {
    let world = World::https().await;
    let mut bob = Browser::signed_in(&world, HTTPS, "bob").await;
    let csrf = bob.load("/account").await.field("csrf_token");
    for (fields, at, told) in [
        ([("name", " "), ("days", "90"), ("hosts", "")], "token-name", "Say what the token is for."),
        (
            [("name", "kept"), ("days", "90"), ("hosts", "https://x")],
            "token-hosts",
            "“https://x” is no name of a host.",
        ),
        ([("name", "kept"), ("days", "0"), ("hosts", "")], "token-days", "Choose how long"),
        ([("name", "kept"), ("days", "1e9"), ("hosts", "")], "token-days", "Choose how long"),
    ] {
        let mut all = fields.to_vec();
        all.push(("csrf_token", &csrf));
        let reply = bob.post("/account/tokens", &all).await;
        assert_eq!(reply.status, 400, "{fields:?}");
        let field = reply.body.split_once(&format!("id=\"{at}\"")).unwrap().1.split_once('>').unwrap().0;
        assert!(field.contains("aria-invalid=\"true\"") && field.contains("token-problem"), "{at}: {field}");
        assert!(reply.body.contains(told) && reply.body.contains("<details class=\"new\" open>"), "{}", reply.body);
        assert!(fields[0].1 == " " || reply.body.contains("value=\"kept\""), "what was typed stays");
    }
    assert_eq!(
        bob.post("/account/tokens", &[("name", "x"), ("days", "90")]).await.status,
        403,
        "without the form's token"
    );
    assert_eq!(bob.api("GET", "/auth/tokens").await.json()["tokens"], json!([]));
}

#[tokio::test]
async fn a_portal_on_an_applications_origin_has_no_tokens() {
    let world = World::of("portal: { path: /_postern }").await;
    let base = "https://app.example.com/_postern";
    let mut bob = Browser::signed_in(&world, base, "bob").await;
    for (method, path) in [("GET", "/auth/tokens"), ("DELETE", "/auth/tokens/x"), ("POST", "/account/tokens")] {
        assert_eq!(bob.api(method, path).await.status, 404, "{method} {path}");
    }
    assert_eq!(bob.send(Ask::post(format!("{base}/auth/tokens")).json(&json!({ "name": "x" }))).await.status, 404);
}
