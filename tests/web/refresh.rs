//! Refresh tokens and the end of tokens before their time.

use std::{sync::atomic::Ordering, time::Duration};

use postern::{
    core::client_ip::ClientAddress,
    ports::{UserChange, Whom},
};
use serde_json::{Value, json};

use crate::harness::{Ask, Browser, HTTPS, PASSWORD, Reply, World};

const ELSEWHERE: ClientAddress = ClientAddress::Known(std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 1)));

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

async fn sign_in(world: &World, user: &str) -> Value {
    let body = json!({ "username": user, "password": PASSWORD });
    world.send(Ask::post(format!("{HTTPS}/auth/login")).json(&body)).await.json()
}

fn text(body: &Value, field: &str) -> String {
    body[field].as_str().unwrap_or_else(|| panic!("no {field} in {body}")).to_owned()
}

fn refresh(token: &str) -> Ask {
    Ask::post(format!("{HTTPS}/auth/refresh")).json(&json!({ "refresh_token": token }))
}

fn revoke(token: &str) -> Ask {
    Ask::post(format!("{HTTPS}/auth/revoke")).json(&json!({ "token": token }))
}

async fn me(world: &World, access_token: &str) -> u16 {
    world.send(Ask::get(format!("{HTTPS}/auth/me")).bearer(access_token)).await.status.as_u16()
}

/// The refresh token of the answer, which must be a new pair.
async fn pair(world: &World, reply: Reply) -> String {
    assert_eq!(reply.status, 200, "{reply:#?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert!(reply.set_cookies().is_empty());
    let body = reply.json();
    let names: Vec<&String> = body.as_object().unwrap().keys().collect();
    assert_eq!(names, ["access_token", "expires_in", "factor", "refresh_token", "session_id", "token_type"]);
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(900)));
    assert_eq!(me(world, &text(&body, "access_token")).await, 200);
    text(&body, "refresh_token")
}

fn refused(reply: &Reply) {
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (401, "invalid_token"));
    assert_eq!(reply.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
}

fn events(world: &World) -> Vec<(&'static str, &'static str)> {
    world.recorded().iter().map(|event| (event.event, event.detail)).collect()
}

#[tokio::test]
async fn a_refresh_answers_a_new_pair_of_the_same_session() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let first = text(&signed_in, "refresh_token");
    assert_eq!(first.len(), 43);
    let second = pair(&world, world.send(refresh(&first)).await).await;
    let reply = world.send(refresh(&second)).await.json();
    assert_ne!(first, second);
    assert_eq!(reply["session_id"], signed_in["session_id"]);
    assert_ne!(reply["access_token"], signed_in["access_token"]);
    // The older access token holds until it expires.
    assert_eq!(me(&world, &text(&signed_in, "access_token")).await, 200);
    assert_eq!(
        world.counted("postern_auth_token_refresh_total"),
        [r#"postern_auth_token_refresh_total{status="success"} 2"#]
    );
}

#[tokio::test]
async fn a_second_use_ends_the_session_and_is_put_on_record() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let other = sign_in(&world, "bob").await;
    let first = text(&signed_in, "refresh_token");
    let second = pair(&world, world.send(refresh(&first)).await).await;
    let third = world.send(refresh(&second)).await.json();
    world.recorded();
    // From the same place and at once, but what came of the first use was used.
    refused(&world.send(refresh(&first)).await);
    assert_eq!(events(&world), [("refresh_reused", "family_revoked")]);
    assert_eq!(me(&world, &text(&third, "access_token")).await, 401, "the session is over");
    refused(&world.send(refresh(&text(&third, "refresh_token"))).await);
    // Nobody else is concerned.
    assert_eq!(me(&world, &text(&other, "access_token")).await, 200);
    pair(&world, world.send(refresh(&text(&other, "refresh_token"))).await).await;
    let counted = world.counted("postern_auth_token_refresh_total");
    assert!(counted.contains(&r#"postern_auth_token_refresh_total{status="reused"} 1"#.to_owned()), "{counted:?}");
}

#[tokio::test]
async fn whoever_lost_the_answer_asks_again() {
    let world = World::https().await;
    let first = text(&sign_in(&world, "bob").await, "refresh_token");
    let lost = pair(&world, world.send(refresh(&first)).await).await;
    world.pass(seconds(10));
    let again = pair(&world, world.send(refresh(&first)).await).await;
    let counted = world.counted("postern_auth_token_refresh_total");
    assert!(counted.contains(&r#"postern_auth_token_refresh_total{status="repeated"} 1"#.to_owned()), "{counted:?}");
    assert!(events(&world).contains(&("refresh_repeated", "within_grace")), "an administrator can see it");
    assert!(events(&world).is_empty());
    let next = pair(&world, world.send(refresh(&again)).await).await;
    // Somebody has the lost one after all.
    refused(&world.send(refresh(&lost)).await);
    assert!(events(&world).contains(&("refresh_reused", "family_revoked")));
    refused(&world.send(refresh(&next)).await);
}

/// Whichever of both answers is used first goes on.
#[tokio::test]
async fn of_two_who_hold_a_token_one_goes_on_until_the_other_shows_up() {
    let world = World::https().await;
    let stolen = text(&sign_in(&world, "bob").await, "refresh_token");
    let owners = pair(&world, world.send(refresh(&stolen)).await).await;
    let thiefs = pair(&world, world.send(refresh(&stolen)).await).await;
    let next = pair(&world, world.send(refresh(&owners)).await).await;
    refused(&world.send(refresh(&thiefs)).await);
    refused(&world.send(refresh(&next)).await);
    assert!(events(&world).contains(&("refresh_reused", "family_revoked")));
}

#[tokio::test]
async fn asking_again_later_or_from_elsewhere_is_a_second_use() {
    for (what, late, elsewhere) in [
        ("later", 11, Ask::get("x")),
        ("another address", 0, Ask::get("x").from(ELSEWHERE)),
        ("an unknown address", 0, Ask::get("x").from(ClientAddress::Unknown)),
        ("another browser", 0, Ask::get("x").header("user-agent", "another")),
    ] {
        let world = World::https().await;
        let first = text(&sign_in(&world, "bob").await, "refresh_token");
        let second = pair(&world, world.send(refresh(&first)).await).await;
        world.pass(seconds(late));
        let again =
            elsewhere.with_url("POST", &format!("{HTTPS}/auth/refresh")).json(&json!({ "refresh_token": first }));
        refused(&world.send(again).await);
        assert!(events(&world).contains(&("refresh_reused", "family_revoked")), "{what}");
        refused(&world.send(refresh(&second)).await);
    }
    // Nobody is at the same place as somebody unknown, not even they themselves.
    let world = World::https().await;
    let first = text(&sign_in(&world, "bob").await, "refresh_token");
    pair(&world, world.send(refresh(&first).from(ClientAddress::Unknown)).await).await;
    refused(&world.send(refresh(&first).from(ClientAddress::Unknown)).await);
}

#[tokio::test]
async fn two_at_once_with_one_token_are_both_answered_and_one_goes_on() {
    let world = World::https().await;
    let first = text(&sign_in(&world, "bob").await, "refresh_token");
    let (one, other) = tokio::join!(world.send(refresh(&first)), world.send(refresh(&first)));
    let tokens = [pair(&world, one).await, pair(&world, other).await];
    let counted = world.counted("postern_auth_token_refresh_total");
    assert_eq!(counted.len(), 2, "one first use and one that was repeated: {counted:?}");
    pair(&world, world.send(refresh(&tokens[0])).await).await;
    refused(&world.send(refresh(&tokens[1])).await);
}

#[tokio::test]
async fn a_refresh_token_ends_with_its_time_and_its_session() {
    // Not used for the time that it holds; its session still lives.
    let remembered = "\nsession: { cookies: [ { domain: example.com } ], remember_me: 30d }\ntokens: { refresh: 1h }\n";
    let world = World::of(&format!("portal: {{ url: \"{HTTPS}\" }}{remembered}")).await;
    let body = json!({ "username": "bob", "password": PASSWORD, "remember_me": true });
    let signed_in = world.send(Ask::post(format!("{HTTPS}/auth/login")).json(&body)).await.json();
    let mut token = text(&signed_in, "refresh_token");
    for _ in 0..3 {
        world.pass(seconds(3599));
        token = pair(&world, world.send(refresh(&token)).await).await;
    }
    world.pass(seconds(3600));
    refused(&world.send(refresh(&token)).await);
    assert!(events(&world).iter().all(|(event, _)| *event != "refresh_reused"));

    // The session was not used for `session.idle`; a refresh is a use.
    let world = World::https().await;
    let mut token = text(&sign_in(&world, "bob").await, "refresh_token");
    for _ in 0..3 {
        world.pass(seconds(1799));
        token = pair(&world, world.send(refresh(&token)).await).await;
    }
    world.pass(seconds(1800));
    refused(&world.send(refresh(&token)).await);

    // And never beyond `session.lifetime`.
    let world = World::https().await;
    let mut token = text(&sign_in(&world, "bob").await, "refresh_token");
    for _ in 0..(43_200 / 1_700) {
        world.pass(seconds(1_700));
        token = pair(&world, world.send(refresh(&token)).await).await;
    }
    world.pass(seconds(1_700));
    refused(&world.send(refresh(&token)).await);
}

#[tokio::test]
async fn signing_out_a_new_password_and_the_emergency_end_all_tokens() {
    let world = World::https().await;
    for end in ["logout", "logout-all", "password", "disabled", "one", "everybody"] {
        let signed_in = sign_in(&world, "bob").await;
        let (access, token) = (text(&signed_in, "access_token"), text(&signed_in, "refresh_token"));
        assert_eq!(me(&world, &access).await, 200, "{end}");
        match end {
            "password" => {
                let hash = world.stores.hasher.hash(PASSWORD.into()).await.unwrap();
                world.stores.credentials.set_password_hash("bob", hash.into()).await.unwrap();
            }
            "disabled" => {
                for disabled in [true, false] {
                    let change = UserChange { disabled: Some(disabled), ..Default::default() };
                    world.stores.users.update("bob", change).await.unwrap();
                }
            }
            "one" => drop(world.stores.users.revoke(Whom::One("BOB")).await.unwrap()),
            "everybody" => drop(world.stores.users.revoke(Whom::Everybody).await.unwrap()),
            path => drop(world.send(Ask::post(format!("{HTTPS}/auth/{path}")).bearer(&access)).await),
        }
        assert_eq!(me(&world, &access).await, 401, "{end}");
        refused(&world.send(refresh(&token)).await);
    }
}

#[tokio::test]
async fn what_is_no_refresh_token_is_401_and_tells_nothing() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let (access, token) = (text(&signed_in, "access_token"), text(&signed_in, "refresh_token"));
    let session = text(&signed_in, "session_id");
    let flipped = format!("{}{}", &token[..42], if token.ends_with('A') { 'B' } else { 'A' });
    let longer = format!("{token}=");
    for bad in ["", "x", &flipped, &longer, &access, &session, "\0", &"x".repeat(43), &".".repeat(60_000)] {
        refused(&world.send(refresh(bad)).await);
    }
    let url = format!("{HTTPS}/auth/refresh");
    for body in ["{", r#"{"refresh_token":1}"#, "\"x\""] {
        let reply = world.send(Ask::post(&url).raw("application/json", body)).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (400, "bad_request"), "{body}");
    }
    let form =
        world.send(Ask::post(&url).raw("application/x-www-form-urlencoded", format!("refresh_token={token}"))).await;
    assert_eq!(form.code(), "unsupported_media_type");
    let foreign = world.send(refresh(&token).header("origin", "https://evil.example")).await;
    assert_eq!(foreign.code(), "cross_origin");
    // It opens nothing by itself, and all of that was no use of it.
    assert_eq!(me(&world, &token).await, 401);
    pair(&world, world.send(refresh(&token)).await).await;
}

#[tokio::test]
async fn both_cookies_give_a_new_access_token_and_neither_alone_does() {
    let world = World::https().await;
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let reply = browser.api("POST", "/auth/refresh").await;
    assert_eq!(reply.status, 200, "{reply:#?}");
    let body = reply.json();
    assert!(body.get("refresh_token").is_none(), "the cookies refresh the next time too");
    assert_eq!(me(&world, &text(&body, "access_token")).await, 200);
    let empty = browser.send(Ask::post(format!("{HTTPS}/auth/refresh")).json(&json!({}))).await;
    assert_eq!(empty.status, 200);
    // An access token makes no other.
    let by_token = Ask::post(format!("{HTTPS}/auth/refresh")).bearer(&text(&body, "access_token"));
    assert_eq!(world.send(by_token).await.code(), "sign_in_required");
    browser.forget("__Host-postern_portal");
    assert_eq!(browser.api("POST", "/auth/refresh").await.code(), "sign_in_required");
}

#[tokio::test]
async fn a_revoked_access_token_holds_nowhere_and_its_session_goes_on() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let access = text(&signed_in, "access_token");
    world.recorded();
    let reply = world.send(revoke(&access)).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "{}"));
    assert_eq!(me(&world, &access).await, 401);
    assert_eq!(events(&world), [("token_revoked", "access_token")]);
    assert_eq!(world.send(revoke(&access)).await.status, 200, "and again");
    assert_eq!(world.counted("postern_auth_token_revoked_total"), ["postern_auth_token_revoked_total 1"]);
    assert!(events(&world).is_empty());
    pair(&world, world.send(refresh(&text(&signed_in, "refresh_token"))).await).await;
}

/// One user cannot fill the memory of every node.
#[tokio::test]
async fn whoever_revokes_too_many_access_tokens_of_a_session_ends_it_and_goes_no_further() {
    let world = World::https().await;
    let mut signed_in = sign_in(&world, "bob").await;
    for number in 0..51 {
        let access = text(&signed_in, "access_token");
        let reply = world.send(refresh(&text(&signed_in, "refresh_token"))).await;
        assert_eq!(reply.status, 200, "{reply:#?}");
        signed_in = reply.json();
        world.recorded();
        assert_eq!(world.send(revoke(&access)).await.status, 200);
        let expected: &[_] = match number {
            50 => &[("token_revoked", "access_token"), ("revocation_limit", "session_ended")],
            _ => &[("token_revoked", "access_token")],
        };
        assert_eq!(events(&world), expected, "{number}");
    }
    assert_eq!(world.counted("postern_auth_session_revoked_total"), ["postern_auth_session_revoked_total 1"]);
    let last = text(&signed_in, "access_token");
    assert_eq!(me(&world, &last).await, 401, "the session is over");
    refused(&world.send(refresh(&text(&signed_in, "refresh_token"))).await);
    assert_eq!(world.send(revoke(&last)).await.status, 200, "nothing to revoke");
    assert_eq!(world.counted("postern_auth_token_revoked_total"), ["postern_auth_token_revoked_total 51"]);
}

#[tokio::test]
async fn revoking_a_refresh_token_ends_its_session() {
    let world = World::https().await;
    for asked in [
        |token: &str| revoke(token),
        |token: &str| {
            let body = format!("token={token}&token_type_hint=refresh_token");
            Ask::post(format!("{HTTPS}/auth/revoke")).raw("application/x-www-form-urlencoded", body)
        },
    ] {
        let signed_in = sign_in(&world, "bob").await;
        let token = text(&signed_in, "refresh_token");
        world.recorded();
        assert_eq!(world.send(asked(&token)).await.status, 200);
        assert_eq!(me(&world, &text(&signed_in, "access_token")).await, 401);
        refused(&world.send(refresh(&token)).await);
        assert_eq!(events(&world), [("token_revoked", "refresh_token")]);
    }
}

#[tokio::test]
async fn revoking_what_is_nobodys_is_200_and_what_is_not_understood_is_400() {
    let world = World::https().await;
    let access = text(&sign_in(&world, "bob").await, "access_token");
    let (head, _) = access.rsplit_once('.').unwrap();
    for token in ["", "x", &"x".repeat(43), &format!("{head}.AAAA"), &format!("{head}."), &".".repeat(60_000), "a.b.c"]
    {
        assert_eq!(world.send(revoke(token)).await.status, 200, "{token:.60}");
    }
    assert_eq!(me(&world, &access).await, 200, "its signature is not its own");
    world.pass(seconds(900));
    assert_eq!(world.send(revoke(&access)).await.status, 200, "expired");
    let url = format!("{HTTPS}/auth/revoke");
    for (kind, body) in [
        ("application/json", "{}"),
        ("application/json", "{"),
        ("application/x-www-form-urlencoded", "x=y"),
        ("application/x-www-form-urlencoded", "token=a&token=b"),
    ] {
        assert_eq!(world.send(Ask::post(&url).raw(kind, body)).await.code(), "bad_request", "{kind} {body}");
    }
    assert_eq!(world.send(Ask::post(&url).raw("text/plain", "token=x")).await.code(), "unsupported_media_type");
    assert!(
        world.counted("postern_auth_token_revoked_total").contains(&"postern_auth_token_revoked_total 0".to_owned())
    );
}

#[tokio::test]
async fn a_store_that_is_down_is_503_and_no_token_is_spent() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let token = text(&signed_in, "refresh_token");
    world.sessions.down.store(true, Ordering::SeqCst);
    assert_eq!(world.send(refresh(&token)).await.code(), "unavailable");
    assert_eq!(world.send(revoke(&token)).await.code(), "unavailable");
    world.sessions.down.store(false, Ordering::SeqCst);
    pair(&world, world.send(refresh(&token)).await).await;
}

/// The access token is signed before the other is spent.
#[tokio::test]
async fn keys_that_cannot_be_had_are_503_and_no_token_is_spent() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let token = text(&signed_in, "refresh_token");
    world.keys.down.store(true, Ordering::SeqCst);
    let reply = world.send(refresh(&token)).await;
    assert_eq!((reply.status.as_u16(), reply.code().as_str()), (503, "unavailable"));
    // Beyond the grace, so that it was no use at all.
    world.pass(seconds(60));
    assert_eq!(world.send(refresh(&token)).await.status, 503);
    world.keys.down.store(false, Ordering::SeqCst);
    let next = pair(&world, world.send(refresh(&token)).await).await;
    pair(&world, world.send(refresh(&next)).await).await;
    assert!(events(&world).iter().all(|(event, _)| !event.starts_with("refresh_")), "neither again nor reused");
    assert_eq!(
        world.counted("postern_auth_token_refresh_total"),
        [
            r#"postern_auth_token_refresh_total{status="success"} 2"#,
            r#"postern_auth_token_refresh_total{status="unavailable"} 2"#
        ]
    );
}

/// A thief behind the owner's address asks first, and then as often as all tabs of a browser may.
#[tokio::test]
async fn threat_36_who_asks_again_and_again_keeps_nobody_from_being_second() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let first = text(&signed_in, "refresh_token");
    let mut thiefs = Vec::new();
    for _ in 0..9 {
        thiefs.push(pair(&world, world.send(refresh(&first)).await).await);
    }
    world.recorded();
    let owners = pair(&world, world.send(refresh(&first)).await).await;
    assert_eq!(events(&world), [("refresh_repeated", "within_grace")]);
    assert_eq!(me(&world, &text(&signed_in, "access_token")).await, 200, "nothing has ended");
    let next = pair(&world, world.send(refresh(&thiefs[8])).await).await;
    world.recorded();
    refused(&world.send(refresh(&owners)).await);
    assert_eq!(events(&world), [("refresh_reused", "family_revoked")]);
    refused(&world.send(refresh(&next)).await);
    assert_eq!(me(&world, &text(&signed_in, "access_token")).await, 401);
}

/// An application's own origin has no tokens but the access token of a sign-in.
#[tokio::test]
async fn on_an_applications_origin_there_is_nothing_to_refresh() {
    let world = World::of("portal: { path: /_postern }\n").await;
    let url = |path: &str| format!("https://app.example.com/_postern{path}");
    let body = json!({ "username": "bob", "password": PASSWORD });
    let signed_in = world.send(Ask::post(url("/auth/login")).json(&body)).await;
    assert_eq!(signed_in.status, 200, "{signed_in:#?}");
    assert!(signed_in.json().get("refresh_token").is_none());
    for path in ["/auth/refresh", "/auth/revoke"] {
        let asked = Ask::post(url(path)).json(&json!({ "token": "x", "refresh_token": "x" }));
        assert_eq!(world.send(asked).await.code(), "not_found", "{path}");
    }
}
