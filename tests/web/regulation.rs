//! Regulation of sign-ins as the page, the API, Basic and refresh answer it, with the real counters.

use std::{sync::atomic::Ordering, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::HeaderMap;
use postern::core::{
    client_ip::ClientAddress,
    request::{Facts, Role},
    site::AUTHORIZATION_ONLY,
    target::{Scheme, Target},
};
use serde_json::json;

use crate::harness::{Ask, Browser, HTTPS, ON_HTTPS, PASSWORD, Reply, World};

const HERE: [u8; 4] = [192, 0, 2, 7];

async fn regulated() -> World {
    World::of(&format!("{ON_HTTPS}regulation: {{ max_retries: 5 }}\n")).await
}

async fn login(world: &World, user: &str, password: &str, from: [u8; 4], cookie: &str) -> Reply {
    let body = json!({ "username": user, "password": password });
    let ask = Ask::post(format!("{HTTPS}/auth/login")).json(&body).from(ClientAddress::Known(from.into()));
    world.send(if cookie.is_empty() { ask } else { ask.cookie(cookie) }).await
}

async fn basic(world: &World, user: &str, password: &str, from: [u8; 4]) -> &'static str {
    let mut headers = HeaderMap::new();
    let pair = STANDARD.encode(format!("{user}:{password}"));
    headers.insert("authorization", format!("Basic {pair}").parse().unwrap());
    let facts = Facts {
        role: Role::ForwardAuth,
        began: Duration::ZERO,
        listener: 0,
        target: Target::parse(Scheme::Https, "app.example.com", "/x").unwrap(),
        method: "GET",
        headers: &headers,
        peer: from.into(),
        peer_trusted: false,
        client: ClientAddress::Known(from.into()),
        credentials_from: AUTHORIZATION_ONLY,
    };
    world.gate.check(&world.site, &facts).await.verdict.as_str()
}

#[tokio::test]
async fn threat_37_38_page_api_and_basic_count_together_under_each_spelling() {
    let world = regulated().await;
    let mut browser = Browser::at(&world, HTTPS);
    assert_eq!(browser.sign_in("bob", "one", &[]).await.status, 401);
    assert_eq!(browser.sign_in(" BOB ", "two", &[]).await.status, 401);
    assert_eq!(login(&world, "Bob@Example.com", "three", HERE, "").await.status, 401, "his address is his name");
    assert_eq!(basic(&world, "bOb", "four", HERE).await, "sign_in");
    assert_eq!(basic(&world, "bob@example.com", "five", HERE).await, "sign_in");
    world.hashed();
    for name in ["bob", "BOB", "bob@example.com"] {
        let api = login(&world, name, PASSWORD, HERE, "").await;
        assert_eq!((api.status.as_u16(), api.code().as_str()), (429, "rate_limited"), "{name}");
        assert_eq!(api.header("retry-after"), Some("5"), "{name}");
        let page = browser.sign_in(name, PASSWORD, &[]).await;
        assert_eq!((page.status.as_u16(), page.header("retry-after")), (429, Some("5")));
        assert!(page.is_page() && page.body.contains("Wait a while"), "{}", page.body);
        assert_eq!(basic(&world, name, PASSWORD, HERE).await, "slow_down", "{name}");
    }
    assert_eq!(world.hashed(), (0, 0), "what waits costs no hash");
    let told: Vec<_> = world.recorded().into_iter().filter(|event| event.event == "sign_in_delayed").collect();
    let [event] = &told[..] else { panic!("once: {told:?}") };
    assert_eq!((event.detail, event.address), ("address_and_name", Some(HERE.into())));
    for (provider, count) in [("password", 6), ("basic", 3)] {
        let line = format!("postern_auth_login_total{{provider=\"{provider}\",status=\"slow_down\"}} {count}");
        assert_eq!(world.counted(&line).len(), 1, "{:?}", world.counted("postern_auth_login_total"));
    }
    assert_eq!(world.counted("postern_auth_login_delayed_total{by=\"address_and_name\"} 9").len(), 1);
    world.pass(Duration::from_secs(5));
    assert_eq!(login(&world, "bob", PASSWORD, HERE, "").await.status, 200, "it is no lock");
}

#[tokio::test]
async fn threat_39_an_unknown_name_waits_as_a_known_one_does() {
    let world = regulated().await;
    let mut answers: Vec<Vec<_>> = Vec::new();
    for (user, from) in [("bob", [198, 51, 100, 1]), ("nobody", [198, 51, 100, 2]), ("no@where", [198, 51, 100, 3])] {
        let mut of_user = Vec::new();
        for step in 0..9 {
            let reply = login(&world, user, "wrong", from, "").await;
            let (hashed, _) = world.hashed();
            of_user.push((reply.status, reply.header("retry-after").map(str::to_owned), reply.body, hashed));
            if step > 5 {
                world.pass(Duration::from_secs(20));
            }
        }
        answers.push(of_user);
    }
    let [known, unknown, address] = &answers[..] else { panic!("three") };
    assert_eq!(known.iter().filter(|answer| answer.0 == 429).count(), 2);
    assert_eq!(known, unknown);
    assert_eq!(known, address);
}

#[tokio::test]
async fn threat_40_a_known_device_signs_in_while_the_name_waits_everywhere() {
    let world = regulated().await;
    let mut bob = Browser::signed_in(&world, HTTPS, "bob").await;
    let device = format!("__Host-postern_device={}", bob.jar("__Host-postern_device").unwrap());
    // A program of his, and then somebody with many addresses.
    assert_eq!(basic(&world, "bob", PASSWORD, [192, 0, 2, 50]).await, "forward");
    for number in 0..20 {
        assert_eq!(login(&world, "bob", "wrong", [198, 51, 100, number], "").await.status, 401);
    }
    assert_eq!(login(&world, "bob", PASSWORD, [203, 0, 113, 9], "").await.status, 429, "a device that nobody knows");
    assert_eq!(bob.sign_in("bob", PASSWORD, &[]).await.status, 303);
    assert_eq!(basic(&world, "bob", PASSWORD, [192, 0, 2, 50]).await, "forward", "where the program is known");
    assert_eq!(basic(&world, "bob", PASSWORD, [192, 0, 2, 51]).await, "slow_down");
    // The cookie opens the way for bob alone, and not for ever.
    for number in 0..5 {
        assert_eq!(login(&world, "bob", "wrong", [10, 0, 0, number], &device).await.status, 401);
    }
    assert_eq!(login(&world, "bob", PASSWORD, [10, 0, 0, 9], &device).await.status, 429);
    for number in 0..20 {
        login(&world, "alice", "wrong", [198, 51, 100, number], "").await;
    }
    assert_eq!(login(&world, "alice", PASSWORD, [10, 0, 0, 9], &device).await.status, 429);
    // After a new password it is nobody's.
    world.pass(Duration::from_secs(5));
    let hash = world.stores.hasher.hash(PASSWORD.into()).await.unwrap();
    world.stores.credentials.set_password_hash("bob", hash.into()).await.unwrap();
    assert_eq!(login(&world, "bob", "wrong", [203, 0, 113, 9], "").await.status, 401);
    assert_eq!(login(&world, "bob", PASSWORD, [10, 0, 0, 9], &device).await.status, 429);
}

#[tokio::test]
async fn an_account_of_ones_own_resets_nothing() {
    let world = regulated().await;
    for number in 0..50 {
        assert_eq!(login(&world, "alice", PASSWORD, HERE, "").await.status, 200, "{number}");
        assert_eq!(login(&world, &format!("user{number}"), "wrong", HERE, "").await.status, 401, "{number}");
    }
    assert_eq!(login(&world, "user51", "wrong", HERE, "").await.status, 429);
}

#[tokio::test]
async fn refresh_tokens_that_never_were_wait_and_keep_nobody_from_signing_in() {
    let world = World::of(&format!("{ON_HTTPS}regulation: {{ max_retries: 1, max_retries_per_address: 1 }}\n")).await;
    let refresh = async |token: &str| {
        world.send(Ask::post(format!("{HTTPS}/auth/refresh")).json(&json!({ "refresh_token": token }))).await
    };
    let signed_in = login(&world, "bob", PASSWORD, HERE, "").await.json();
    for number in 0..19 {
        for _ in 0..3 {
            assert_eq!(refresh(&format!("guess {number}")).await.status, 401, "the same one counts once");
        }
    }
    assert_eq!(refresh("guess 19").await.status, 401);
    let guess = "A".repeat(signed_in["refresh_token"].as_str().unwrap().len());
    for barred in [refresh("guess 20").await, refresh(&guess).await] {
        assert_eq!((barred.status.as_u16(), barred.header("retry-after")), (429, Some("5")));
    }
    assert_eq!(world.counted("postern_auth_token_refresh_total{status=\"slow_down\"} 2").len(), 1);
    assert_eq!(login(&world, "bob", PASSWORD, HERE, "").await.status, 200);
    let held = refresh(signed_in["refresh_token"].as_str().unwrap()).await;
    assert_eq!(held.status, 200, "one that holds is barred by nobody (THREATS 40)");
    world.pass(Duration::from_secs(5));
    assert_eq!(refresh("guess 21").await.status, 401);
}

/// A try that cannot be counted is not looked at.
#[tokio::test]
async fn threat_32_without_the_counters_nobody_signs_in() {
    let world = regulated().await;
    world.execute("DROP TABLE sign_in_counts").await;
    assert_eq!(login(&world, "bob", PASSWORD, HERE, "").await.status, 503);
    assert_eq!(basic(&world, "bob", PASSWORD, HERE).await, "unavailable");
    assert_eq!(world.hashed(), (0, 0));
}

/// Or the answer would tell right from wrong, and nothing would count.
#[tokio::test]
async fn threat_32_a_try_that_cannot_be_settled_is_told_to_nobody() {
    let world = World::of(ON_HTTPS).await;
    world.regulation.is_lost.store(true, Ordering::SeqCst);
    for password in [PASSWORD, "wrong"] {
        let reply = login(&world, "bob", password, HERE, "").await;
        assert_eq!((reply.status.as_u16(), reply.header("set-cookie")), (503, None), "{password}");
        assert_eq!(basic(&world, "bob", password, HERE).await, "unavailable", "{password}");
    }
    world.regulation.is_lost.store(false, Ordering::SeqCst);
    assert_eq!(login(&world, "bob", PASSWORD, HERE, "").await.status, 200);
}
