//! The account page and its API: one's own sessions, listed and ended; both cookies needed.

use serde_json::json;

use crate::harness::{Ask, Browser, HTTPS, World};

const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

#[tokio::test]
async fn lists_ones_own_sessions_and_ends_one_of_them() {
    let world = World::https().await;
    let mut here = Browser::signed_in(&world, HTTPS, "bob").await;
    let mut there = Browser::signed_in(&world, HTTPS, "bob").await;
    let mut foreign = Browser::signed_in(&world, HTTPS, "alice").await;
    let listed = here.api("GET", "/auth/sessions").await.json();
    let listed = listed["sessions"].as_array().unwrap().clone();
    assert_eq!(listed.len(), 2);
    assert_eq!(listed.iter().filter(|session| session["current"] == true).count(), 1);
    for session in &listed {
        let keys: Vec<&String> = session.as_object().unwrap().keys().collect();
        assert_eq!(
            keys,
            [
                "browser",
                "country",
                "created_at",
                "current",
                "device",
                "id",
                "ip",
                "last_used_at",
                "os",
                "place",
                "remembered"
            ]
        );
        assert_eq!(session["ip"], "192.0.2.7");
    }
    let id = |wanted: bool| {
        listed.iter().find(|session| session["current"] == wanted).unwrap()["id"].as_str().unwrap().to_owned()
    };
    let (own, other) = (id(true), id(false));

    // A foreign id and one that nobody has are the same 404.
    let alices = world.stores.sessions.list(Some("alice")).await.unwrap()[0].id.to_string();
    for gone in [alices.as_str(), "nobodys", "'OR'1'='1", "end-others"] {
        let reply = here.api("DELETE", &format!("/auth/sessions/{gone}")).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (404, "not_found"), "{gone}");
    }
    assert!(foreign.is_signed_in().await);

    let ended = here.api("DELETE", &format!("/auth/sessions/{other}")).await;
    assert_eq!(ended.status, 204);
    assert!(ended.set_cookies().is_empty());
    assert!(!there.is_signed_in().await && here.is_signed_in().await);
    let ended = here.api("DELETE", &format!("/auth/sessions/{own}")).await;
    assert_eq!(ended.status, 204);
    assert_eq!(ended.set_cookies().len(), 2, "one's own goes with its cookies");
    assert!(!here.is_signed_in().await);
}

#[tokio::test]
async fn by_forms_too() {
    let world = World::https().await;
    let mut here = Browser::signed_in(&world, HTTPS, "bob").await;
    let mut there = Browser::signed_in(&world, HTTPS, "bob").await;
    let mut third = Browser::signed_in(&world, HTTPS, "bob").await;
    let mut foreign = Browser::signed_in(&world, HTTPS, "alice").await;
    let page = here.load("/account").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.body.matches("this browser").count(), 1);
    assert!(page.body.contains("192.0.2.7") && page.body.contains("just now"));
    let token = page.field("csrf_token");
    let (_, after) = page.body.split_once("/account/sessions/").unwrap();
    let id = after.split_once("/end").unwrap().0.to_owned();

    let ended = here.post(&format!("/account/sessions/{id}/end"), &[("csrf_token", &token)]).await;
    assert_eq!(ended.status, 303);
    let told = here.load(ended.location()).await;
    assert_eq!(told.status, 200);
    assert!(told.body.contains("role=\"status\">That session has ended."), "{}", told.body);
    assert_eq!(u8::from(there.is_signed_in().await) + u8::from(third.is_signed_in().await), 1);
    // Once more, and somebody else's: nothing happens.
    assert_eq!(here.post(&format!("/account/sessions/{id}/end"), &[("csrf_token", &token)]).await.status, 303);
    let alices = world.stores.sessions.list(Some("alice")).await.unwrap()[0].id.to_string();
    assert_eq!(here.post(&format!("/account/sessions/{alices}/end"), &[("csrf_token", &token)]).await.status, 303);
    assert!(foreign.is_signed_in().await);

    let ended = here.post("/account/sessions/end-others", &[("csrf_token", &token)]).await;
    assert_eq!(ended.status, 303);
    assert!(here.load(ended.location()).await.body.contains("All your other sessions have ended."));
    assert!(here.is_signed_in().await && foreign.is_signed_in().await);
    assert!(!there.is_signed_in().await && !third.is_signed_in().await);
    assert!(!here.load("/account").await.body.contains("end-others"), "nothing is left to end");
}

#[tokio::test]
async fn signing_out_ends_this_session_or_all() {
    let world = World::https().await;
    let mut here = Browser::signed_in(&world, HTTPS, "bob").await;
    let mut there = Browser::signed_in(&world, HTTPS, "bob").await;
    let mut third = Browser::signed_in(&world, HTTPS, "bob").await;
    let mut foreign = Browser::signed_in(&world, HTTPS, "alice").await;
    assert_eq!(here.api("POST", "/auth/logout").await.status, 204);
    assert!(!here.is_signed_in().await && there.is_signed_in().await);
    let all = there.api("POST", "/auth/logout-all").await;
    assert_eq!(all.status, 200);
    assert_eq!(all.json(), json!({ "ended": 2 }));
    assert_eq!(all.set_cookies().len(), 2);
    assert!(!there.is_signed_in().await && !third.is_signed_in().await && foreign.is_signed_in().await);
    assert_eq!(there.api("POST", "/auth/logout").await.status, 401, "nobody has nothing to end");
    let events: Vec<_> = world.recorded().into_iter().filter(|event| event.event == "sign_out").collect();
    assert_eq!(events.iter().map(|event| event.detail).collect::<Vec<_>>(), ["by_user", "everywhere"]);
    assert!(events.iter().all(|event| event.user.as_deref() == Some("bob")));
}

#[tokio::test]
async fn signing_out_by_form_asks_first() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let question = browser.load("/logout").await;
    assert_eq!(question.status, 200);
    assert!(question.body.contains("Sign out?") && question.body.contains("bob"));
    assert!(browser.is_signed_in().await, "a look does nothing");
    let out = browser.post("/logout", &[("csrf_token", &question.field("csrf_token"))]).await;
    assert_eq!((out.status.as_u16(), out.location()), (303, "/?signed_out"));
    assert!(!browser.is_signed_in().await);
    assert!(browser.load("/?signed_out").await.body.contains("You are signed out."));
    let nobody = browser.load("/logout").await;
    assert_eq!((nobody.status.as_u16(), nobody.location()), (303, "/"));
}

/// An untrusted application of the domain sees `postern_session`: it must open nothing here.
#[tokio::test]
async fn threat_59_the_session_cookie_alone_opens_nothing() {
    let world = World::https().await;
    let mut victim = Browser::signed_in(&world, HTTPS, "bob").await;
    let foreign = Browser::signed_in(&world, HTTPS, "alice").await;
    let id = world.stores.sessions.list(Some("bob")).await.unwrap()[0].id.to_string();
    let gate = format!("postern_session={}", victim.jar("postern_session").unwrap());
    let with_foreign = format!("{gate}; __Host-postern_portal={}", foreign.jar("__Host-postern_portal").unwrap());
    let with_itself = format!("{gate}; __Host-postern_portal={}", victim.jar("postern_session").unwrap());
    let misnamed = format!("{gate}; postern_portal={}", victim.jar("__Host-postern_portal").unwrap());
    let portal_alone = format!("__Host-postern_portal={}", victim.jar("__Host-postern_portal").unwrap());
    for cookies in [&gate, &with_foreign, &with_itself, &misnamed, &portal_alone] {
        for (method, path) in [
            ("GET", "/auth/me".to_owned()),
            ("GET", "/auth/sessions".to_owned()),
            ("DELETE", format!("/auth/sessions/{id}")),
            ("POST", "/auth/logout".to_owned()),
            ("POST", "/auth/logout-all".to_owned()),
            ("GET", "/account".to_owned()),
        ] {
            let reply = world.send(Ask::new(method, format!("{HTTPS}{path}")).cookie(cookies)).await;
            assert_eq!((reply.status.as_u16(), reply.code().as_str()), (401, "sign_in_required"), "{path}");
        }
        let page = world.send(Ask::page(format!("{HTTPS}/account")).cookie(cookies)).await;
        assert_eq!(page.status, 401);
        assert!(page.body.contains("<h1>Sign in</h1>") && !page.body.contains("bob"), "{}", page.body);
        for path in [format!("/account/sessions/{id}/end"), "/account/sessions/end-others".to_owned()] {
            let form = world.send(Ask::page(format!("{HTTPS}/")).cookie("")).await;
            let csrf = form.cookie("__Host-postern_csrf").unwrap();
            let ask = Ask::post(format!("{HTTPS}{path}")).form(&[("csrf_token", &form.field("csrf_token"))]);
            let reply = world.send(ask.cookie(&format!("{cookies}; __Host-postern_csrf={csrf}"))).await;
            assert_eq!(reply.status, 401, "{path}");
        }
    }
    assert!(victim.is_signed_in().await);
}

#[tokio::test]
async fn a_stranger_is_asked_to_sign_in_on_the_spot() {
    let world = World::https().await;
    let mut browser = Browser::at(&world, HTTPS);
    let page = browser.load("/account").await;
    assert_eq!(page.status, 401);
    assert!(page.header("location").is_none() && page.body.contains("<h1>Sign in</h1>"));
    let json = browser.api("GET", "/account").await;
    assert_eq!(json.code(), "sign_in_required");
}

#[tokio::test]
async fn devices_are_named_and_text_of_theirs_is_harmless() {
    let world = World::https().await;
    let login = |user_agent: &str| {
        Ask::post(format!("{HTTPS}/auth/login"))
            .json(&json!({ "username": "bob", "password": crate::harness::PASSWORD }))
            .header("user-agent", user_agent)
    };
    world.send(login(FIREFOX)).await;
    world.send(login("<script>alert(1)</script>")).await;
    world.send(login(&"x".repeat(4000))).await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let page = browser.load("/account").await;
    assert!(page.body.contains("Firefox on Linux") && page.body.contains("Unknown device"), "{}", page.body);
    assert!(!page.body.contains("<script"));
    let sessions = world.stores.sessions.list(Some("bob")).await.unwrap();
    assert!(sessions.iter().all(|session| session.user_agent.chars().count() <= 300));
}
