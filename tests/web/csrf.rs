//! THREATS 42: what another site can make a browser send changes nothing.

use serde_json::json;

use crate::harness::{Ask, Browser, HTTPS, PASSWORD, World};

const FOREIGN: [(&str, &str); 6] = [
    ("origin", "https://evil.example"),
    ("origin", "null"),
    ("origin", "https://app.example.com"),
    ("origin", "http://auth.example.com"),
    ("sec-fetch-site", "cross-site"),
    ("sec-fetch-site", "same-site"),
];

#[tokio::test]
async fn threat_42_nothing_that_changes_something_is_taken_from_another_origin() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let token = browser.load("/logout").await.field("csrf_token");
    let other = Browser::signed_in(&world, HTTPS, "bob").await;
    drop(other);
    let id = world.stores.sessions.list(Some("bob")).await.unwrap()[0].id.to_string();
    let changing = [
        ("POST", "/".to_owned()),
        ("POST", "/logout".to_owned()),
        ("POST", "/account/sessions/end-others".to_owned()),
        ("POST", format!("/account/sessions/{id}/end")),
        ("POST", "/auth/login".to_owned()),
        ("POST", "/auth/logout".to_owned()),
        ("POST", "/auth/logout-all".to_owned()),
        ("DELETE", format!("/auth/sessions/{id}")),
        ("PUT", "/auth/me".to_owned()),
        ("PATCH", "/nowhere".to_owned()),
    ];
    for (method, path) in &changing {
        for (name, value) in FOREIGN {
            let url = format!("{HTTPS}{path}");
            let ask = if path.starts_with("/auth") {
                Ask::new(method, url).json(&json!({ "username": "bob", "password": PASSWORD }))
            } else {
                Ask::new(method, url).form(&[("username", "bob"), ("password", PASSWORD), ("csrf_token", &token)])
            };
            let reply = browser.send(ask.header(name, value)).await;
            assert_eq!(reply.status, 403, "{method} {path} {name}: {value}");
            if path.starts_with("/auth") {
                assert_eq!(reply.code(), "cross_origin");
            } else {
                // A person may be here because `portal.url` is not the address they use: never a bare problem.
                assert!(reply.is_page() && reply.body.contains("Open https://auth.example.com"), "{}", reply.body);
            }
            assert!(reply.set_cookies().is_empty());
        }
    }
    assert!(browser.is_signed_in().await);
    assert_eq!(world.stores.sessions.list(Some("bob")).await.unwrap().len(), 2);
    // Reading is for everybody: a link from another site leads to the page.
    for path in ["/", "/account", "/logout", "/auth/me"] {
        let ask = Ask::page(format!("{HTTPS}{path}"))
            .header("sec-fetch-site", "cross-site")
            .header("sec-fetch-mode", "navigate");
        assert_ne!(browser.send(ask).await.status, 403, "{path}");
    }
}

#[tokio::test]
async fn threat_42_our_own_origin_and_programs_pass() {
    let world = World::https().await;
    let passing: [&[(&'static str, &str)]; 4] = [
        &[],
        &[("origin", HTTPS)],
        &[("origin", HTTPS), ("sec-fetch-site", "same-origin")],
        &[("sec-fetch-site", "none")],
    ];
    for headers in passing {
        let mut ask =
            Ask::post(format!("{HTTPS}/auth/login")).json(&json!({ "username": "bob", "password": PASSWORD }));
        for (name, value) in headers {
            ask = ask.header(name, value);
        }
        assert_eq!(world.send(ask).await.status, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn threat_42_a_form_without_its_own_token_does_nothing() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let others = Browser::at(&world, HTTPS).load("/").await.field("csrf_token");
    let own_cookie = browser.jar("__Host-postern_csrf").unwrap().to_owned();
    let id = world.stores.sessions.list(Some("bob")).await.unwrap()[0].id.to_string();
    for token in ["", "x", others.as_str(), own_cookie.as_str()] {
        for path in [
            "/".to_owned(),
            "/logout".to_owned(),
            "/account/sessions/end-others".to_owned(),
            format!("/account/sessions/{id}/end"),
        ] {
            let reply =
                browser.post(&path, &[("username", "alice"), ("password", PASSWORD), ("csrf_token", token)]).await;
            assert_eq!(reply.status, 403, "{path} {token:?}");
            assert!(reply.is_page() && reply.body.contains("Allow cookies"), "{}", reply.body);
            assert!(reply.cookie("postern_session").is_none());
        }
    }
    assert!(browser.is_signed_in().await);
    // Without the cookie the right token is none either; the page that comes back has a form that works.
    let token = browser.load("/logout").await.field("csrf_token");
    browser.forget("__Host-postern_csrf");
    let page = browser.post("/", &[("username", "bob"), ("password", PASSWORD), ("csrf_token", &token)]).await;
    assert_eq!(page.status, 403);
    let token = page.field("csrf_token");
    let again = browser.post("/", &[("username", "bob"), ("password", PASSWORD), ("csrf_token", &token)]).await;
    assert_eq!(again.status, 303);
}

#[tokio::test]
async fn threat_42_the_api_takes_json_alone() {
    let world = World::https().await;
    let body = json!({ "username": "bob", "password": PASSWORD }).to_string();
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/jsonp", ""]
    {
        let reply = world.send(Ask::post(format!("{HTTPS}/auth/login")).raw(content_type, &body)).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (415, "unsupported_media_type"), "{content_type}");
    }
    for content_type in ["application/json", "Application/JSON; charset=utf-8"] {
        let reply = world.send(Ask::post(format!("{HTTPS}/auth/login")).raw(content_type, &body)).await;
        assert_eq!(reply.status, 200, "{content_type}");
    }
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    for (method, path) in [("POST", "/auth/logout"), ("POST", "/auth/logout-all"), ("DELETE", "/auth/sessions/x")] {
        let ask = Ask::new(method, format!("{HTTPS}{path}")).raw("text/plain", "{}");
        assert_eq!(browser.send(ask).await.code(), "unsupported_media_type", "{path}");
    }
    assert!(browser.is_signed_in().await);
    for bad in ["", "{", "[]", "{\"username\":\"bob\"}", "{\"username\":1,\"password\":2}", "\u{0}"] {
        let reply = world.send(Ask::post(format!("{HTTPS}/auth/login")).raw("application/json", bad)).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "bad_request"), "{bad:?}");
    }
}
