//! Every way in which a sign-in ends by time, under a clock that the test moves.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Ask, Browser, HTTPS, PASSWORD, World};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn unused_for_the_idle_time_it_ends() {
    let world = World::https().await;
    let mut used = Browser::signed_in(&world, HTTPS, "alice").await;
    let mut unused = Browser::signed_in(&world, HTTPS, "bob").await;
    world.pass(29 * MINUTE);
    assert!(used.is_signed_in().await);
    world.pass(MINUTE - Duration::from_millis(1));
    assert!(used.is_signed_in().await);
    world.pass(Duration::from_millis(1));
    assert!(!unused.is_signed_in().await, "30 minutes without a use");
    assert!(used.is_signed_in().await, "a use counts, though it is not written yet");
    let page = unused.load("/account").await;
    assert_eq!(page.status, 401);
}

#[tokio::test]
async fn used_all_the_time_it_ends_with_its_lifetime() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    for _ in 0..35 {
        world.pass(20 * MINUTE);
        assert!(browser.is_signed_in().await);
    }
    world.pass(20 * MINUTE);
    assert!(!browser.is_signed_in().await, "12 hours after it began");
}

#[tokio::test]
async fn remembered_it_lasts_for_its_own_time() {
    let world = World::https().await;
    let mut browser = Browser::at(&world, HTTPS);
    assert_eq!(browser.sign_in("bob", PASSWORD, &[("remember_me", "true")]).await.status, 303);
    world.pass(12 * HOUR);
    assert!(browser.is_signed_in().await);
    world.pass(29 * DAY);
    assert!(browser.is_signed_in().await);
    let me = browser.api("GET", "/auth/me").await.json();
    assert_eq!(me["expires_at"], "2027-02-14T08:00:00Z");
    world.pass(12 * HOUR);
    assert!(!browser.is_signed_in().await);
}

#[tokio::test]
async fn what_has_ended_is_not_listed() {
    let world = World::https().await;
    Browser::signed_in(&world, HTTPS, "bob").await;
    world.pass(31 * MINUTE);
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let listed = browser.api("GET", "/auth/sessions").await.json();
    assert_eq!(listed["sessions"].as_array().unwrap().len(), 1);
    world.pass(5 * MINUTE);
    let page = browser.load("/account").await;
    assert!(page.body.contains("signed in 5 minutes ago") && page.body.contains("last used just now"), "{}", page.body);
}

#[tokio::test]
async fn an_access_token_ends_by_itself_and_with_its_session() {
    let world = World::https().await;
    let login = Ask::post(format!("{HTTPS}/auth/login")).json(&json!({ "username": "bob", "password": PASSWORD }));
    let token = world.send(login).await.json()["access_token"].as_str().unwrap().to_owned();
    let me = || Ask::get(format!("{HTTPS}/auth/me")).bearer(&token);
    world.pass(15 * MINUTE - Duration::from_secs(1));
    assert_eq!(world.send(me()).await.status, 200);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.send(me()).await.code(), "invalid_token");
}

/// A clock that was set back neither ends a session nor makes it live for ever.
#[tokio::test]
async fn threat_70_a_clock_set_back_does_no_harm() {
    let world = World::https().await;
    world.pass(HOUR);
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    world.set_back(HOUR);
    assert!(browser.is_signed_in().await);
    let page = browser.load("/account").await;
    assert!(page.body.contains("just now"), "{}", page.body);
    world.pass(13 * HOUR);
    assert!(!browser.is_signed_in().await);
}
