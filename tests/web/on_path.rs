//! `portal.path`: the portal on an application's own origin (CONTRACT 3).

use serde_json::json;

use crate::harness::{Ask, Browser, PASSWORD, World};

const YAML: &str = "portal: { path: /_postern }\n";
const PORTAL: &str = "https://app.example.com/_postern";

#[tokio::test]
async fn signs_in_on_this_origin_alone() {
    let world = World::of(YAML).await;
    let mut browser = Browser::at(&world, PORTAL);
    let page = browser.load("").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("action=\"/_postern/\""), "{}", page.body);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("form-action 'self';"), "{policy}");
    for (rd, lands) in [
        ("https://app.example.com/x?y=1", "https://app.example.com/x?y=1"),
        ("https://other.example.com/x", "/_postern/"),
        ("https://app.example.com:8443/x", "/_postern/"),
        ("http://app.example.com/x", "/_postern/"),
        ("https://app.example.com/_postern/", "/_postern/"),
        ("", "/_postern/"),
    ] {
        let reply = browser.sign_in("bob", PASSWORD, &[("rd", rd)]).await;
        assert_eq!((reply.status.as_u16(), reply.location()), (303, lands), "{rd}");
        assert!(reply.set_cookies().iter().all(|set| !set.contains("Domain")), "{:?}", reply.set_cookies());
    }
    let home = browser.load("/").await;
    assert_eq!(home.status, 200);
    assert!(
        home.body.contains("bob of the tests") && home.body.contains("action=\"/_postern/logout\""),
        "{}",
        home.body
    );
    let out = browser.post("/logout", &[("csrf_token", &home.field("csrf_token"))]).await;
    assert_eq!((out.status.as_u16(), out.location()), (303, "/_postern/?signed_out"));
}

#[tokio::test]
async fn cookies_follow_the_scheme_by_which_one_comes() {
    let world = World::of(YAML).await;
    let body = json!({ "username": "bob", "password": PASSWORD });
    let login = |origin: &str| Ask::post(format!("{origin}/_postern/auth/login")).json(&body);
    let https = world.send(login("https://app.example.com")).await;
    assert!(https.set_cookies()[1].starts_with("__Host-postern_portal="));
    assert!(https.set_cookies().iter().all(|set| set.contains("; Secure")));
    let http = world.send(login("http://app.example.com:8080")).await;
    assert!(http.set_cookies()[1].starts_with("postern_portal="));
    assert!(http.set_cookies().iter().all(|set| !set.contains("; Secure")));
    let foreign = world.send(login("https://app.example.com").header("origin", "https://app.example.com:8443")).await;
    assert_eq!(foreign.status, 403, "another port is another origin");
    let own = world.send(login("https://app.example.com:8443").header("origin", "https://app.example.com:8443")).await;
    assert_eq!(own.status, 200);
}

#[tokio::test]
async fn there_are_no_account_pages() {
    let world = World::of(YAML).await;
    let mut browser = Browser::signed_in(&world, PORTAL, "bob").await;
    for (method, path) in [
        ("GET", "/account"),
        ("POST", "/account/sessions/end-others"),
        ("POST", "/account/sessions/x/end"),
        ("GET", "/auth/sessions"),
        ("DELETE", "/auth/sessions/x"),
        ("POST", "/auth/logout-all"),
    ] {
        let reply = browser.api(method, path).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (404, "not_found"), "{method} {path}");
        let stranger = world.send(Ask::new(method, format!("{PORTAL}{path}"))).await;
        assert_eq!(stranger.status, 404, "{method} {path}, to a stranger as well");
    }
    assert_eq!(browser.api("GET", "/auth/health").await.status, 200);
    assert_eq!(browser.api("GET", "/auth/me").await.json()["user"], "bob");
    let refused = browser.load("/denied?rd=https%3A%2F%2Fapp.example.com%2Fadmin%2Fx").await;
    assert!(
        !refused.body.contains("Your account") && refused.body.contains("/_postern/logout?rd="),
        "{}",
        refused.body
    );
    assert_eq!(browser.api("POST", "/auth/logout").await.status, 204);
    assert!(!browser.is_signed_in().await);
}
