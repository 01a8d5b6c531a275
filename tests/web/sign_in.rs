//! Signing in by form and by JSON: what comes back, what it costs, whom it replaces.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::{Ask, Browser, HTTPS, PASSWORD, Reply, World};

fn login(user: &str, password: &str) -> Ask {
    Ask::post(format!("{HTTPS}/auth/login")).json(&json!({ "username": user, "password": password }))
}

#[tokio::test]
async fn by_form_to_the_account_page() {
    let world = World::https().await;
    let mut browser = Browser::at(&world, HTTPS);
    let page = browser.load("/").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("autocomplete=\"username\"") && page.body.contains("autocomplete=\"current-password\""));
    let signed_in = browser.sign_in("alice", PASSWORD, &[]).await;
    assert_eq!((signed_in.status.as_u16(), signed_in.location()), (303, "/account"));
    let account = browser.load("/account").await;
    assert_eq!(account.status, 200);
    assert!(account.body.contains("alice of the tests") && account.body.contains("alice@example.com"));
    let events: Vec<_> = world.recorded().into_iter().map(|event| (event.event, event.user, event.detail)).collect();
    assert_eq!(events, [("sign_in", Some("alice".to_owned()), "password")]);
}

#[tokio::test]
async fn by_json_with_an_access_token() {
    let world = World::https().await;
    let reply = world.send(login("ALICE", PASSWORD)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let body = reply.json();
    let fields: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["access_token", "expires_in", "factor", "refresh_token", "session_id", "token_type"]);
    assert_eq!(
        (&body["token_type"], &body["expires_in"], &body["factor"]),
        (&"Bearer".into(), &900.into(), &"one".into())
    );
    let cookies = format!(
        "postern_session={}; __Host-postern_portal={}",
        reply.cookie("postern_session").unwrap(),
        reply.cookie("__Host-postern_portal").unwrap()
    );
    let me = world.send(Ask::get(format!("{HTTPS}/auth/me")).cookie(&cookies)).await.json();
    assert_eq!(me["user"], "alice");
    assert_eq!(me["session_id"], body["session_id"]);
    let id = body["session_id"].as_str().expect("an id");
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "safe on a command line: {id}");
    assert_eq!(me["groups"], json!(["admins"]));
    assert_eq!(me["signed_in_at"], "2027-01-15T08:00:00Z");
    assert_eq!(me["expires_at"], "2027-01-15T20:00:00Z");
}

#[tokio::test]
async fn json_says_where_to_go_next_only_where_that_leads() {
    let world = World::https().await;
    for (rd, next) in [
        ("https://app.example.com/x?y=1", json!("https://app.example.com/x?y=1")),
        ("https://app.example.com/vault/x", json!(null)),
        ("https://app.example.com/admin/x", json!(null)),
        ("https://evil.example/", json!(null)),
        ("", json!(null)),
    ] {
        let body = json!({ "username": "bob", "password": PASSWORD, "rd": rd });
        let reply = world.send(Ask::post(format!("{HTTPS}/auth/login")).json(&body)).await;
        assert_eq!(reply.status, 200, "{rd}");
        assert_eq!(reply.json()["next"], next, "{rd}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_told_beside_its_field() {
    let world = World::https().await;
    let mut browser = Browser::at(&world, HTTPS);
    for (user, password, status, field, says) in [
        ("", PASSWORD, 400, "username", "Type your user name."),
        ("   ", PASSWORD, 400, "username", "Type your user name."),
        ("bob", "", 400, "password", "Type your password."),
        ("bob", "wrong", 401, "password", "is wrong"),
    ] {
        let page = browser.sign_in(user, password, &[("rd", "https://app.example.com/x?a=b&c=d"), ("rm", "GET")]).await;
        assert_eq!(page.status, status, "{user:?}");
        assert!(page.body.contains(says), "{user:?}: {}", page.body);
        let input = page.body.split("<input").find(|input| input.contains(&format!("id=\"{field}\""))).unwrap();
        assert!(input.contains("aria-invalid=\"true\"") && input.contains("autofocus"), "{input}");
        assert!(input.contains("aria-describedby=\"problem\"") && input.contains("role=\"alert\""), "{input}");
        assert!(
            !page.body.contains(PASSWORD) && !page.body.contains("value=\"wrong\""),
            "a password is never sent back"
        );
        assert_eq!(page.field("rd"), "https://app.example.com/x?a=b&#38;c=d", "where to go survives a mistake");
        assert_eq!(page.body.matches(" autofocus").count(), 1);
    }
}

#[tokio::test]
async fn threat_39_unknown_disabled_and_known_look_and_cost_the_same() {
    let world = World::https().await;
    world.add_user("carol", &[]).await;
    let disabled = postern::ports::UserChange { disabled: Some(true), ..Default::default() };
    world.stores.users.update("carol", disabled).await.unwrap();
    world.hashed();
    let told = |reply: &Reply| {
        let names: Vec<_> = reply.headers.keys().map(ToString::to_string).collect();
        (reply.status, names, reply.body.clone())
    };
    let known = world.send(login("bob", "wrong")).await;
    assert_eq!(world.hashed(), (1, 0));
    assert_eq!(known.status, 401);
    assert_eq!(known.code(), "invalid_credentials");
    let long = "x".repeat(500);
    for (user, password) in
        [("nobody", "wrong"), ("carol", PASSWORD), ("carol", "wrong"), (long.as_str(), "wrong"), ("a\0b", "wrong")]
    {
        let reply = world.send(login(user, password)).await;
        assert_eq!(told(&reply), told(&known), "{user}");
        assert_eq!(world.hashed(), (1, 1), "{user}: one hash, made up to cost the same");
    }
}

#[tokio::test]
async fn threat_39_the_page_is_the_same_but_for_the_name() {
    let world = World::https().await;
    let mut browser = Browser::at(&world, HTTPS);
    let known = browser.sign_in("bob", "wrong", &[]).await;
    let unknown = browser.sign_in("tom", "wrong", &[]).await;
    assert_eq!(known.status, unknown.status);
    assert_eq!(known.body.replace("value=\"bob\"", ""), unknown.body.replace("value=\"tom\"", ""));
}

#[tokio::test]
async fn a_name_that_nobody_has_is_not_put_on_record() {
    let world = World::https().await;
    world.send(login("my password, typed in the wrong field", "x")).await;
    world.send(login("bob", "wrong")).await;
    let events: Vec<_> = world.recorded().into_iter().map(|event| (event.event, event.user, event.detail)).collect();
    assert_eq!(
        events,
        [("sign_in_failed", None, "unknown_user"), ("sign_in_failed", Some("bob".to_owned()), "bad_password"),]
    );
}

#[tokio::test]
async fn threat_34_every_sign_in_makes_all_values_anew_and_ends_the_session_before() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let before = browser.cookies();
    let (gate, portal) =
        (browser.jar("postern_session").unwrap().to_owned(), browser.jar("__Host-postern_portal").unwrap().to_owned());
    let again = browser.sign_in("bob", PASSWORD, &[]).await;
    assert_eq!(again.status, 303);
    assert_ne!(browser.jar("postern_session").unwrap(), gate);
    assert_ne!(browser.jar("__Host-postern_portal").unwrap(), portal);
    assert!(browser.is_signed_in().await);
    let old = world.send(Ask::get(format!("{HTTPS}/auth/me")).cookie(&before)).await;
    assert_eq!(old.status, 401, "the old pair is dead");
    assert_eq!(world.stores.sessions.list(Some("bob")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn threat_33_two_live_sessions_are_nobody_until_one_signs_in() {
    let world = World::https().await;
    let victim = Browser::signed_in(&world, HTTPS, "alice").await;
    let attacker = Browser::signed_in(&world, HTTPS, "bob").await;
    let two = format!(
        "postern_session={}; postern_session={}",
        attacker.jar("postern_session").unwrap(),
        victim.jar("postern_session").unwrap()
    );
    let both = format!("{two}; __Host-postern_portal={}", victim.jar("__Host-postern_portal").unwrap());
    assert_eq!(world.send(Ask::get(format!("{HTTPS}/auth/me")).cookie(&both)).await.status, 401);
    let page = world.send(Ask::page(format!("{HTTPS}/")).cookie(&both)).await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("two different sign-ins"), "{}", page.body);
    let account = world.send(Ask::page(format!("{HTTPS}/account")).cookie(&both)).await;
    assert_eq!(account.status, 401);
    // Signing in ends both, and clears a host-only cookie of our name as well.
    let reply = world.send(login("alice", PASSWORD).cookie(&both)).await;
    assert_eq!(reply.status, 200);
    let sets = reply.set_cookies();
    assert!(
        sets[0].starts_with("postern_session=; ") && sets[0].ends_with("; Max-Age=0") && !sets[0].contains("Domain")
    );
    assert_eq!(world.stores.sessions.list(Some("bob")).await.unwrap().len(), 0);
    assert_eq!(world.stores.sessions.list(Some("alice")).await.unwrap().len(), 1);
}

#[tokio::test]
async fn threat_33_a_cookie_that_somebody_chose_is_never_taken_over() {
    let world = World::https().await;
    let mut browser = Browser::at(&world, HTTPS);
    let chosen = "A".repeat(43);
    browser.toss("postern_session", &chosen);
    browser.toss("__Host-postern_portal", &chosen);
    assert_eq!(browser.sign_in("bob", PASSWORD, &[]).await.status, 303);
    assert_ne!(browser.jar("postern_session"), Some(chosen.as_str()));
    assert_ne!(browser.jar("__Host-postern_portal"), Some(chosen.as_str()));
}

#[tokio::test]
async fn a_failed_sign_in_leaves_the_session_alone() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let failed = browser.sign_in("bob", "wrong", &[]).await;
    assert_eq!(failed.status, 401);
    assert!(failed.set_cookies().is_empty(), "{:?}", failed.set_cookies());
    assert!(browser.is_signed_in().await);
}

#[tokio::test]
async fn too_many_at_once_are_told_to_wait() {
    let world = World::https().await;
    world.hasher.busy.store(true, Ordering::SeqCst);
    let reply = world.send(login("bob", PASSWORD)).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "busy"));
    assert_eq!(reply.header("retry-after"), Some("5"));
    let page = Browser::at(&world, HTTPS).sign_in("bob", PASSWORD, &[]).await;
    assert_eq!(page.status, 503);
    assert_eq!(page.header("retry-after"), Some("5"));
    assert!(page.is_page() && page.body.contains("Wait a few seconds"));
    assert!(page.body.contains("value=\"bob\""), "the name need not be typed again");
}

/// Neither a session that nobody has the secrets of, nor the end of the one that the browser has.
#[tokio::test]
async fn a_sign_in_without_keys_is_503_and_changes_no_session() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let before = world.stores.sessions.list(None).await.unwrap();
    world.keys.down.store(true, Ordering::SeqCst);
    let reply = browser.send(login("bob", PASSWORD)).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "unavailable"));
    assert!(reply.set_cookies().is_empty());
    let page = browser.sign_in("bob", PASSWORD, &[]).await;
    assert_eq!(page.status, 503);
    assert_eq!(world.stores.sessions.list(None).await.unwrap(), before);
    assert!(browser.is_signed_in().await);
    world.keys.down.store(false, Ordering::SeqCst);
    assert_eq!(browser.send(login("bob", PASSWORD)).await.status, 200);
}
