//! Where people get to: `rd` and `rm`, pages that say no, and the end of every loop.

use std::time::Duration;

use crate::harness::{Ask, Browser, HTTP, HTTPS, ON_HTTPS, PASSWORD, World};

fn with_rd(rd: &str) -> String {
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("rd", rd).append_pair("rm", "GET").finish();
    format!("/?{query}")
}

#[tokio::test]
async fn rd_leads_back_with_query_and_fragment() {
    let world = World::https().await;
    for rd in [
        "https://app.example.com/",
        "https://app.example.com/a%20b?x=%2F&y=1",
        "https://app.example.com:8443/x",
        "https://deep.apps.example.com/x",
        "https://app.example.com/x#part",
    ] {
        let mut browser = Browser::at(&world, HTTPS);
        let page = browser.load(&with_rd(rd)).await;
        assert_eq!(page.status, 200, "{rd}");
        assert!(page.body.contains("to go on to <strong>"), "{rd}: {}", page.body);
        assert_eq!(browser.sign_in("bob", PASSWORD, &[("rd", rd), ("rm", "GET")]).await.location(), rd);
        // Somebody who is signed in goes on at once, by the session cookie alone.
        browser.forget("__Host-postern_portal");
        let again = browser.load(&with_rd(rd)).await;
        assert_eq!((again.status.as_u16(), again.location()), (303, rd));
    }
}

#[tokio::test]
async fn threat_43_and_44_rd_that_leads_away_is_ignored() {
    let world = World::https().await;
    for rd in [
        "//evil.example",
        "/\\evil.example",
        "/%09/evil.example",
        "https://ok.example.com@evil.example/",
        "https://app.example.com@evil.example/",
        "https://user@app.example.com/",
        "https://app.example.com.evil.example/",
        "https://evilexample.com/",
        "https://other.example.com/",
        "https:evil.example",
        "https:///evil.example",
        "https:\\\\evil.example",
        " https://app.example.com/",
        "https://app.example.com\t/",
        "https://app.example.com/\r\nSet-Cookie: x=y",
        "javascript:alert(1)",
        "data:text/html,x",
        "ftp://app.example.com/",
        "wss://app.example.com/",
        "http://app.example.com/",
        "https://app.example.com./",
        "https://app.example.com/%2fx",
        "https://app.example.com/%00",
        "/account",
        "app.example.com",
        "https://auth.example.com/",
        "https://auth.example.com/?rd=https://app.example.com/",
    ] {
        let mut browser = Browser::at(&world, HTTPS);
        let page = browser.load(&with_rd(rd)).await;
        assert_eq!(page.status, 200, "{rd}");
        assert!(!page.body.contains("to go on to"), "{rd}");
        let reply = browser.sign_in("bob", PASSWORD, &[("rd", rd)]).await;
        assert_eq!((reply.status.as_u16(), reply.location()), (303, "/account"), "{rd}");
        assert!(reply.header("refresh").is_none());
        let again = browser.load(&with_rd(rd)).await;
        assert_eq!((again.status.as_u16(), again.location()), (303, "/account"), "{rd}");
        let signed_out = {
            let token = browser.load("/logout").await.field("csrf_token");
            browser.post("/logout", &[("csrf_token", &token), ("rd", rd)]).await
        };
        assert_eq!((signed_out.status.as_u16(), signed_out.location()), (303, "/?signed_out"), "{rd}");
    }
}

#[tokio::test]
async fn an_http_portal_follows_http_too() {
    let world = World::http().await;
    for rd in ["http://app.example.com/x", "https://app.example.com/x"] {
        let reply = Browser::at(&world, HTTP).sign_in("bob", PASSWORD, &[("rd", rd)]).await;
        assert_eq!(reply.location(), rd);
    }
}

#[tokio::test]
async fn without_rd_to_the_default() {
    let world = World::of(
        r#"
portal: { url: "https://auth.example.com" }
session: { cookies: [ { domain: example.com, default_redirect: "https://app.example.com/home" } ] }
"#,
    )
    .await;
    let mut browser = Browser::at(&world, HTTPS);
    assert_eq!(browser.sign_in("bob", PASSWORD, &[]).await.location(), "https://app.example.com/home");
    assert_eq!(browser.load("/").await.location(), "https://app.example.com/home");
    assert_eq!(browser.load("/account").await.status, 200);
}

/// The page decides as the gate will: by method too.
#[tokio::test]
async fn rm_is_the_method_that_is_decided() {
    let world = World::https().await;
    let rd = "https://app.example.com/read/x";
    for (rm, status) in [("GET", 303), ("", 303), ("get", 303), ("G T", 303), ("POST", 403), ("DELETE", 403)] {
        let reply = Browser::at(&world, HTTPS).sign_in("bob", PASSWORD, &[("rd", rd), ("rm", rm)]).await;
        assert_eq!(reply.status, status, "{rm:?}");
    }
}

#[tokio::test]
async fn threat_66_a_factor_that_one_does_not_have_ends_on_a_page() {
    let world = World::https().await;
    let rd = "https://app.example.com/vault/x?secret=1";
    let mut browser = Browser::at(&world, HTTPS);
    let first = browser.sign_in("bob", PASSWORD, &[("rd", rd)]).await;
    let second = browser.load(&with_rd(rd)).await;
    let third = browser.load(&format!("/two-factor{}", &with_rd(rd)[1..])).await;
    for (what, page) in [("after the password", first), ("again", second), ("by its own address", third)] {
        assert_eq!(page.status, 403, "{what}");
        assert!(page.header("location").is_none() && page.header("refresh").is_none(), "{what}");
        assert!(page.body.contains("A second factor is needed"), "{what}: {}", page.body);
        assert!(
            page.body.contains("bob") && page.body.contains("vault") && page.body.contains("0123456789abcdef"),
            "{what}"
        );
        assert!(
            page.body.contains("app.example.com/vault/x") && !page.body.contains("<dd>app.example.com/vault/x?"),
            "{what}"
        );
        assert!(
            page.body.contains("/logout?rd=https%3A%2F%2Fapp.example.com%2Fvault%2Fx%3Fsecret%3D1"),
            "{what}: {}",
            page.body
        );
    }
    assert!(browser.is_signed_in().await, "the sign-in itself counts");
    let bare = browser.load("/two-factor").await;
    assert_eq!(bare.status, 403);
    let stranger = Browser::at(&world, HTTPS).load(&format!("/two-factor{}", &with_rd(rd)[1..])).await;
    assert_eq!((stranger.status.as_u16(), stranger.location()), (303, with_rd(rd).trim_end_matches("&rm=GET")));
}

#[tokio::test]
async fn a_sign_in_that_is_too_old_for_a_page_is_done_again_and_leads_there() {
    let world = World::https().await;
    let rd = "https://app.example.com/fresh/x?y=1";
    let mut browser = Browser::at(&world, HTTPS);
    assert_eq!(browser.sign_in("bob", PASSWORD, &[("rd", rd), ("remember_me", "true")]).await.location(), rd);
    world.pass(Duration::from_secs(900));
    assert_eq!(browser.load(&with_rd(rd)).await.location(), rd, "15 minutes are not more than 15 minutes");
    world.pass(Duration::from_secs(1));
    let before = browser.jar("postern_session").expect("a cookie").to_owned();
    for path in [with_rd(rd), format!("/two-factor{}", &with_rd(rd)[1..]), format!("/denied{}", &with_rd(rd)[1..])] {
        let page = browser.load(&path).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.header("location").is_none() && page.body.contains("Sign in once more"), "{}", page.body);
        assert_eq!((page.field("username"), page.field("rd")), ("bob".to_owned(), rd.to_owned()), "{path}");
        assert!(page.body.contains(" checked>"), "what was remembered stays so: {}", page.body);
    }
    assert_eq!(
        browser.load(&with_rd("https://app.example.com/other")).await.status,
        303,
        "good enough for other pages"
    );
    assert_eq!(browser.sign_in("bob", "not his password", &[("rd", rd)]).await.status, 401);
    assert_eq!(browser.sign_in("bob", PASSWORD, &[("rd", rd)]).await.location(), rd);
    assert_ne!(browser.jar("postern_session"), Some(&*before), "a new session");
    assert_eq!(browser.load(&with_rd(rd)).await.location(), rd);
}

#[tokio::test]
async fn threat_70_a_refused_page_ends_on_a_page_that_says_why() {
    let world = World::https().await;
    let rd = "https://app.example.com/admin/x";
    let mut browser = Browser::at(&world, HTTPS);
    let first = browser.sign_in("bob", PASSWORD, &[("rd", rd)]).await;
    let second = browser.load(&with_rd(rd)).await;
    let third = browser.load(&format!("/denied{}", &with_rd(rd)[1..])).await;
    for page in [first, second, third] {
        assert_eq!(page.status, 403);
        assert!(page.header("location").is_none());
        for fact in ["You may not open this page", "bob", "not admins", "0123456789abcdef", "Sign in as somebody else"]
        {
            assert!(page.body.contains(fact), "{fact}: {}", page.body);
        }
    }
    // Signing in as somebody else leads on.
    let question = browser.load(&format!("/logout{}", &with_rd(rd)[1..])).await;
    assert_eq!(question.status, 200);
    let (token, kept) = (question.field("csrf_token"), question.field("rd"));
    let out = browser.post("/logout", &[("csrf_token", &token), ("rd", &kept)]).await;
    assert_eq!(out.location(), rd);
    assert_eq!(browser.sign_in("alice", PASSWORD, &[("rd", rd)]).await.location(), rd);
}

/// A stale cookie of a nested domain, say: the gate never sees the sign-in that the portal sees.
#[tokio::test]
async fn threat_70_a_browser_that_is_sent_back_again_and_again_is_told_why() {
    let world = World::https().await;
    let rd = "https://deep.apps.example.com/x?y";
    let mut browser = Browser::at(&world, HTTPS);
    assert_eq!(browser.sign_in("bob", PASSWORD, &[("rd", rd)]).await.status, 303);
    let mut turns = 0;
    let last = loop {
        let reply = browser.load(&with_rd(rd)).await;
        if reply.status != 303 {
            break reply;
        }
        turns += 1;
        assert!(turns < 5, "it turns in circles");
    };
    assert_eq!(last.status, 409);
    assert!(last.is_page() && last.body.contains("deep.apps.example.com sent you back"), "{}", last.body);
    assert!(last.body.contains("cookie") && last.body.contains("clock") && last.body.contains("Try again"));
    // A new try begins from the start, and another page is not counted with this one.
    assert_eq!(browser.load(&with_rd(rd)).await.status, 303);
    assert_eq!(browser.load(&with_rd("https://app.example.com/y")).await.status, 303);
}

/// The portal is on https, the page was asked for over http: never followed down, and never round in circles.
#[tokio::test]
async fn threat_70_http_behind_an_https_portal_ends_on_the_account_page() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let reply = browser.load(&with_rd("http://app.example.com/x")).await;
    assert_eq!(reply.location(), "/account");
    assert_eq!(browser.load("/account").await.status, 200);
}

/// A stale or garbled cookie is a stranger's: the form, and one that works.
#[tokio::test]
async fn threat_70_stale_cookies_end_at_a_form_that_works() {
    let world = World::https().await;
    for value in ["", "x", "=", &"A".repeat(43), &"A".repeat(4000)] {
        let mut browser = Browser::at(&world, HTTPS);
        browser.toss("postern_session", value);
        browser.toss("__Host-postern_portal", value);
        let page = browser.load(&with_rd("https://app.example.com/x")).await;
        assert_eq!(page.status, 200);
        let reply = browser.sign_in("bob", PASSWORD, &[("rd", "https://app.example.com/x")]).await;
        assert_eq!(reply.location(), "https://app.example.com/x");
    }
}

/// Where a proxy of somebody else asks, applications are not on routes of ours.
#[tokio::test]
async fn with_forward_auth_any_host_of_the_domain_is_followed() {
    let world = World::of(&format!("{ON_HTTPS}\nencoded_slashes: reject\n")).await;
    assert!(world.site.is_edge_only());
    let rd = "https://other.example.com/x";
    assert_eq!(Browser::at(&world, HTTPS).sign_in("bob", PASSWORD, &[("rd", rd)]).await.location(), "/account");
    let mut world = world;
    let site = std::sync::Arc::get_mut(&mut world.site).unwrap();
    site.listeners[0].role = postern::core::request::Role::ForwardAuth;
    assert_eq!(Browser::at(&world, HTTPS).sign_in("bob", PASSWORD, &[("rd", rd)]).await.location(), rd);
}

#[tokio::test]
async fn the_denied_page_does_not_believe_its_link() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    // A page that one may open, a foreign one, none at all: no rule is named.
    for rd in ["https://app.example.com/x", "https://evil.example/", ""] {
        let page = browser.load(&format!("/denied{}", &with_rd(rd)[1..])).await;
        assert_eq!(page.status, 403);
        assert!(!page.body.contains("<dt>Rule</dt>") && !page.body.contains("evil.example"), "{}", page.body);
    }
    let stranger = Browser::at(&world, HTTPS).load("/denied").await;
    assert_eq!(stranger.status, 403);
    assert!(!stranger.body.contains("that you are signed in with"), "{}", stranger.body);
    let json = world.send(Ask::get(format!("{HTTPS}/denied"))).await;
    assert_eq!(json.status, 403);
}
