//! Access tokens and the keys that verify them.

use std::sync::atomic::Ordering;

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use postern::ports::{Clock as _, End, Rotation, Takeover, UserChange};
use serde_json::{Value, json};

use crate::harness::{Ask, Browser, HTTPS, ON_HTTPS, PASSWORD, World};

async fn sign_in(world: &World, user: &str) -> Value {
    let body = json!({ "username": user, "password": PASSWORD });
    world.send(Ask::post(format!("{HTTPS}/auth/login")).json(&body)).await.json()
}

fn token(signed_in: &Value) -> String {
    signed_in["access_token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn anybody_can_verify_one_with_the_public_keys() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "alice").await;
    let token = token(&signed_in);
    let reply = world.send(Ask::get(format!("{HTTPS}/.well-known/jwks.json"))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert_eq!(reply.header("cache-control"), Some("public, max-age=300"));
    assert!(reply.set_cookies().is_empty());
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_str(&reply.body).unwrap();
    assert!(!reply.body.contains("\"d\""), "no private part");
    let header = decode_header(&token).unwrap();
    assert_eq!((header.alg, header.typ.as_deref()), (Algorithm::EdDSA, Some("at+jwt")));
    let key = DecodingKey::from_jwk(keys.find(header.kid.as_ref().unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&["postern"]);
    validation.set_issuer(&[HTTPS]);
    // The fake clock is months off.
    validation.validate_exp = false;
    let claims = decode::<Value>(&token, &key, &validation).unwrap().claims;
    let names: Vec<&String> = claims.as_object().unwrap().keys().collect();
    assert_eq!(names, ["aud", "exp", "groups", "iat", "iss", "jti", "sid", "sub", "ver"]);
    assert_eq!(claims["sub"], "alice");
    assert_eq!(claims["sid"], signed_in["session_id"]);
    assert_eq!(claims["groups"], json!(["admins"]));
    assert_eq!((claims["iat"].as_i64(), claims["exp"].as_i64()), (Some(1_800_000_000), Some(1_800_000_900)));
}

#[tokio::test]
async fn one_opens_the_api_without_cookies() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let token = token(&signed_in);
    let ask = |method: &str, path: &str| Ask::new(method, format!("{HTTPS}{path}")).bearer(&token);
    assert_eq!(world.send(ask("GET", "/auth/me")).await.json()["user"], "bob");
    let sessions = world.send(ask("GET", "/auth/sessions")).await.json();
    assert_eq!(sessions["sessions"][0]["current"], true);
    let lower = Ask::get(format!("{HTTPS}/auth/me")).header("authorization", &format!("bearer  {token}"));
    assert_eq!(world.send(lower).await.status, 200);
    // The pages of the account are for browsers.
    assert_eq!(world.send(ask("GET", "/account")).await.status, 401);
    assert_eq!(world.send(ask("POST", "/auth/logout")).await.status, 204);
    let after = world.send(ask("GET", "/auth/me")).await;
    assert_eq!((after.status.as_u16(), after.code().as_str()), (401, "invalid_token"));
    assert_eq!(after.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
}

#[tokio::test]
async fn one_dies_with_its_session_its_user_and_the_users_groups() {
    let world = World::https().await;
    let me = |token: &str| Ask::get(format!("{HTTPS}/auth/me")).bearer(token);

    let signed_in = sign_in(&world, "bob").await;
    let id = postern::core::session::SessionId::new(signed_in["session_id"].as_str().unwrap().to_owned());
    world.stores.sessions.end(End::One(&id)).await.unwrap();
    assert_eq!(world.send(me(&token(&signed_in))).await.status, 401, "its session was ended");

    let signed_in = sign_in(&world, "bob").await;
    let disabled = UserChange { disabled: Some(true), ..UserChange::default() };
    world.stores.users.update("bob", disabled).await.unwrap();
    assert_eq!(world.send(me(&token(&signed_in))).await.status, 401, "its user was disabled");
    let enabled = UserChange { disabled: Some(false), ..UserChange::default() };
    world.stores.users.update("bob", enabled).await.unwrap();
    assert_eq!(world.send(me(&token(&signed_in))).await.status, 401, "and stays dead");

    let signed_in = sign_in(&world, "bob").await;
    let hash = world.stores.hasher.hash("another long word".into()).await.unwrap();
    world.stores.credentials.set_password_hash("bob", hash.into()).await.unwrap();
    assert_eq!(world.send(me(&token(&signed_in))).await.status, 401, "its password was changed");
}

#[tokio::test]
async fn what_is_no_token_of_ours_is_401_with_a_challenge() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let token = token(&signed_in);
    let (head, signature) = token.rsplit_once('.').unwrap();
    let (header, payload) = head.split_once('.').unwrap();
    let none = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0";
    let foreign = "eyJhbGciOiJFZERTQSJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlLmNvbSJ9.AAAA";
    for bad in [
        String::new(),
        "x".to_owned(),
        format!("{head}.{}", signature.replace(|_| true, "A")),
        format!("{none}.{payload}."),
        format!("{header}.{payload}"),
        format!("{token}.{payload}"),
        foreign.to_owned(),
        ".".repeat(100_000),
    ] {
        let reply = world.send(Ask::get(format!("{HTTPS}/auth/me")).bearer(&bad)).await;
        let shown: String = bad.chars().take(60).collect();
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (401, "invalid_token"), "{shown}");
        assert!(reply.header("www-authenticate").is_some(), "{shown}");
    }
    for scheme in ["Basic Ym9iOng=", "Negotiate x"] {
        let reply = world.send(Ask::get(format!("{HTTPS}/auth/me")).header("authorization", scheme)).await;
        assert_eq!(reply.code(), "sign_in_required", "{scheme}");
    }
}

/// This server cannot follow the log of changes, while its requests reach the database.
#[tokio::test]
async fn threat_36_a_key_that_was_removed_elsewhere_neither_verifies_nor_signs() {
    let world = World::https().await;
    let signed_in = sign_in(&world, "bob").await;
    let me = |token: &str| Ask::get(format!("{HTTPS}/auth/me")).bearer(token);
    assert_eq!(world.send(me(&token(&signed_in))).await.status, 200);
    let elsewhere = world.elsewhere().await;
    let algorithm = elsewhere.keys.signing().newest().unwrap().algorithm;
    let access = world.site.tokens.access;
    let rotation = Rotation { algorithm, takeover: Takeover::AtOnce, access };
    let kid = elsewhere.keys.rotate(rotation).await.unwrap();
    assert_eq!(world.send(me(&token(&signed_in))).await.status, 401, "what the old key signed");
    let published = world.send(Ask::get(format!("{HTTPS}/.well-known/jwks.json"))).await.json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 1);
    assert_eq!(published["keys"][0]["kid"], kid.as_str());
    let refresh = json!({ "refresh_token": signed_in["refresh_token"] });
    let refreshed = world.send(Ask::post(format!("{HTTPS}/auth/refresh")).json(&refresh)).await.json();
    for fresh in [token(&refreshed), token(&sign_in(&world, "bob").await)] {
        assert_eq!(decode_header(&fresh).unwrap().kid.as_ref(), Some(&kid), "the new one signs");
        assert_eq!(world.send(me(&fresh)).await.status, 200);
    }
    elsewhere.close().await;
}

/// They are public, and asked for by anybody: an outage takes none of them away, and a flood costs the store nothing.
#[tokio::test]
async fn published_keys_are_answered_from_memory() {
    let world = World::https().await;
    let ask = || Ask::get(format!("{HTTPS}/.well-known/jwks.json"));
    let published = world.send(ask()).await.json();
    assert_eq!(published["keys"].as_array().unwrap().len(), 1);
    world.keys.down.store(true, Ordering::SeqCst);
    for _ in 0..10 {
        let reply = world.send(ask()).await;
        assert_eq!((reply.status.as_u16(), reply.json()), (200, published.clone()));
    }
    assert_eq!(world.keys.reads.load(Ordering::SeqCst), 0);
}

/// What memory can tell to be forged is refused without the store, also by `/auth/revoke`.
#[tokio::test]
async fn threat_48_what_is_forged_asks_no_store_while_memory_is_unsure() {
    let world = World::https().await;
    let good = token(&sign_in(&world, "bob").await);
    world.keys.reads.store(0, Ordering::SeqCst);
    world.keys.down.store(true, Ordering::SeqCst);
    let (head, signature) = good.rsplit_once('.').unwrap();
    let forged = format!("{head}.{}", "A".repeat(signature.len()));
    for _ in 0..10 {
        assert_eq!(world.send(Ask::get(format!("{HTTPS}/auth/me")).bearer(&forged)).await.code(), "invalid_token");
        let revoke = Ask::post(format!("{HTTPS}/auth/revoke")).json(&json!({ "token": forged }));
        assert_eq!(world.send(revoke).await.status, 200);
    }
    assert_eq!(world.keys.reads.load(Ordering::SeqCst), 0);
    // What memory takes it may be wrong about.
    assert_eq!(world.send(Ask::get(format!("{HTTPS}/auth/me")).bearer(&good)).await.code(), "unavailable");
    let revoke = Ask::post(format!("{HTTPS}/auth/revoke")).json(&json!({ "token": good }));
    assert_eq!(world.send(revoke).await.code(), "unavailable");
    assert_eq!(world.keys.reads.load(Ordering::SeqCst), 2);
}

/// Cookies come first: a browser that is signed in stays so whatever else it sends.
#[tokio::test]
async fn cookies_come_before_a_token() {
    let world = World::https().await;
    let alices = token(&sign_in(&world, "alice").await);
    let mut browser = Browser::signed_in(&world, HTTPS, "bob").await;
    let me = browser.send(Ask::get(format!("{HTTPS}/auth/me")).bearer(&alices)).await;
    assert_eq!(me.json()["user"], "bob");
}

/// Whom another issuer vouches for has no account here: no session, no page, no way to end anybody's.
#[tokio::test]
async fn a_token_of_a_trusted_issuer_opens_nothing_at_the_portal() {
    let secret = "0123456789abcdef0123456789abcdef";
    let tokens = format!(
        "tokens: {{ trusted_issuers: [{{ issuer: idp, audiences: [postern], secret: {secret}, prefix: \"idp:\" }}] }}\n"
    );
    let world = World::of(&format!("{ON_HTTPS}{tokens}")).await;
    let exp = world.clock.now().unix_seconds() + 300;
    let claims = json!({ "iss": "idp", "aud": "postern", "sub": "alice", "exp": exp });
    let key = jsonwebtoken::EncodingKey::from_secret(secret.as_bytes());
    let token = jsonwebtoken::encode(&jsonwebtoken::Header::default(), &claims, &key).unwrap();
    for (method, path) in
        [("GET", "/auth/me"), ("GET", "/auth/sessions"), ("POST", "/auth/logout"), ("POST", "/auth/logout-all")]
    {
        let reply = world.send(Ask::new(method, format!("{HTTPS}{path}")).bearer(&token)).await;
        assert_eq!((reply.status.as_u16(), reply.code().as_str()), (401, "invalid_token"), "{method} {path}");
    }
    assert_eq!(world.send(Ask::get(format!("{HTTPS}/account")).bearer(&token)).await.status, 401);
}
