//! What goes wrong, and how it is told: too large, not there, not now.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::harness::{Ask, Browser, HTTPS, PASSWORD, World};

#[tokio::test]
async fn oversized_bodies_are_413() {
    let world = World::https().await;
    let big = "x".repeat(postern::portal::MAX_BODY + 1);
    let reply = world.send(Ask::post(format!("{HTTPS}/auth/login")).raw("application/json", big.clone())).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (413, "payload_too_large"));
    let reply = world.send(Ask::post(format!("{HTTPS}/")).raw("application/x-www-form-urlencoded", big)).await;
    assert_eq!(reply.status, 413);
    let most = format!("{}{}", "{}", " ".repeat(postern::portal::MAX_BODY - 2));
    let reply = world.send(Ask::post(format!("{HTTPS}/auth/login")).raw("application/json", most)).await;
    assert_eq!(reply.code(), "bad_request", "the most that is taken");
    assert_eq!(world.hashed(), (0, 0));
}

#[tokio::test]
async fn unknown_paths_and_methods_are_404_and_405() {
    let world = World::https().await;
    for path in ["/nowhere", "/auth", "/auth/", "/account/", "/favicon.png", "/.well-known/x"] {
        let reply = world.send(Ask::get(format!("{HTTPS}{path}"))).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (404, "not_found"), "{path}");
        let page = world.send(Ask::page(format!("{HTTPS}{path}"))).await;
        assert_eq!(page.status, 404, "{path}");
        assert!(page.is_page() && page.body.contains("There is nothing here"), "{path}");
    }
    for (method, path, allowed) in [
        ("PUT", "/", "GET,HEAD,POST"),
        ("POST", "/account", "GET,HEAD"),
        ("GET", "/auth/login", "POST"),
        ("GET", "/auth/refresh", "POST"),
        ("GET", "/auth/revoke", "POST"),
        ("DELETE", "/auth/me", "GET,HEAD"),
        ("GET", "/auth/sessions/x", "DELETE"),
        ("POST", "/.well-known/jwks.json", "GET,HEAD"),
        ("TRACE", "/", "GET,HEAD,POST"),
        ("OPTIONS", "/auth/me", "GET,HEAD"),
    ] {
        let reply = world.send(Ask::new(method, format!("{HTTPS}{path}"))).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (405, "method_not_allowed"), "{method} {path}");
        assert_eq!(reply.header("allow"), Some(allowed), "{method} {path}");
        assert!(reply.header("access-control-allow-origin").is_none());
    }
    // A browser comes here by going back to where a form was sent.
    let page = world.send(Ask::page(format!("{HTTPS}/account/sessions/end-others"))).await;
    assert_eq!((page.status.as_u16(), page.header("allow")), (405, Some("POST")));
    assert!(page.is_page() && page.body.contains("href=\"/\""), "{}", page.body);
}

#[tokio::test]
async fn a_store_that_is_down_is_503_and_never_a_stranger() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let token = browser.load("/logout").await.field("csrf_token");
    world.sessions.down.store(true, Ordering::SeqCst);
    for (method, path) in [
        ("GET", "/auth/me"),
        ("GET", "/auth/sessions"),
        ("POST", "/auth/logout"),
        ("POST", "/auth/logout-all"),
        ("DELETE", "/auth/sessions/x"),
        ("GET", "/account"),
        ("GET", "/"),
        ("GET", "/logout"),
        ("GET", "/two-factor"),
        ("GET", "/denied"),
    ] {
        let reply = browser.api(method, path).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "unavailable"), "{method} {path}");
        assert_eq!(reply.header("retry-after"), Some("5"));
        assert!(!reply.body.contains("secret detail"));
    }
    for path in ["/", "/account", "/logout", "/two-factor", "/denied"] {
        let page = browser.load(path).await;
        assert_eq!(page.status, 503, "{path}");
        assert!(page.is_page() && page.body.contains("Not available right now"), "{path}: {}", page.body);
        assert!(page.body.contains("0123456789abcdef") && !page.body.contains("secret detail"), "{path}");
        assert_eq!(page.header("retry-after"), Some("5"));
    }
    let out = browser.post("/logout", &[("csrf_token", &token)]).await;
    assert_eq!(out.status, 503);
    assert!(out.set_cookies().is_empty(), "still signed in, and told so");
    let body = json!({ "username": "bob", "password": PASSWORD });
    let login = || Ask::post(format!("{HTTPS}/auth/login")).json(&body);
    let reply = world.send(login()).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "unavailable"));
    world.sessions.down.store(false, Ordering::SeqCst);
    assert!(browser.is_signed_in().await, "back by itself");

    world.users.down.store(true, Ordering::SeqCst);
    let reply = world.send(login()).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "unavailable"));
    let page = Browser::at(&world, HTTPS).sign_in("bob", PASSWORD, &[]).await;
    assert_eq!(page.status, 503);
    assert!(page.is_page());
    // Strangers still get what needs no store.
    for path in ["/", "/auth/health", "/.well-known/jwks.json", "/favicon.svg"] {
        assert_eq!(world.send(Ask::get(format!("{HTTPS}{path}"))).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn health_says_that_it_lives() {
    let world = World::https().await;
    let reply = world.send(Ask::get(format!("{HTTPS}/auth/health"))).await;
    assert_eq!((reply.status.as_u16(), reply.json()), (200, json!({ "status": "ok" })));
    assert!(reply.set_cookies().is_empty());
}
