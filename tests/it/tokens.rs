//! Tokens of ours from outside: keys that rotate under a running server, refresh, revocation, and what is forged.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use postern::{
    config::{CountersPlace, DatabaseAddress, OnFailure, SessionsPlace, Storage, UsersSource},
    core::{session::Lifetimes, tokens::SigningAlgorithm},
    observe::metrics::Metrics,
    store::{
        Options, Stores, open_with,
        system::{SystemClock, SystemEntropy},
    },
};
use serde_json::{Value, json};

use crate::harness::{
    as_soon, eventually,
    idp::with_secret,
    postgres::Postgres,
    server::{Role, Server, Setup, SignedIn},
    upstream::Upstream,
    wire::{self, Reply, Request},
};

const SECOND: Duration = Duration::from_secs(1);

async fn scene() -> (Upstream, Server) {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    (upstream, server)
}

fn bearer(token: &str) -> Request {
    Request::get("/members/x").header("Authorization", format!("Bearer {token}"))
}

async fn status(server: &Server, token: &str) -> [u16; 2] {
    let request = bearer(token);
    [server.ask(Role::Edge, &request).await.status, server.ask(Role::ForwardAuth, &request).await.status]
}

/// To the portal at the edge, as a client that no proxy stands before.
async fn post(server: &Server, path: &str, body: &Value) -> Reply {
    let request = Request::new("POST", path).host(server.auth()).json(body);
    wire::send(server.edge(), &request.bytes()).await
}

async fn refresh(server: &Server, token: &str) -> Reply {
    post(server, "/auth/refresh", &json!({ "refresh_token": token })).await
}

async fn jwks(server: &Server) -> JwkSet {
    let reply = server.portal(Request::get("/.well-known/jwks.json")).await;
    serde_json::from_str(&reply.body).unwrap_or_else(|fault| panic!("{fault}: {reply:?}"))
}

async fn kids(server: &Server) -> BTreeSet<String> {
    jwks(server).await.keys.into_iter().filter_map(|key| key.common.key_id).collect()
}

/// As an upstream would, by what is published alone.
async fn verified(server: &Server, token: &str) -> Value {
    let header = decode_header(token).expect("a header");
    let keys = jwks(server).await;
    let key = keys.find(header.kid.as_ref().expect("a kid")).unwrap_or_else(|| panic!("{header:?} is not published"));
    let mut validation = Validation::new(header.alg);
    validation.set_audience(&["postern"]);
    decode::<Value>(token, &DecodingKey::from_jwk(key).expect("a key"), &validation).expect("a token").claims
}

fn listed(server: &Server) -> Vec<Value> {
    serde_json::from_str(&server.run(&["keys", "list", "--format", "json"])).expect("JSON")
}

#[tokio::test]
async fn a_key_is_rotated_under_a_running_server_and_nobody_is_signed_out() {
    let (_upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let old = kids(&server).await;
    let told = server.run(&["keys", "rotate"]);
    as_soon(SECOND, "the new key is published", || async { kids(&server).await.len() == 2 }).await;
    let new = kids(&server).await.difference(&old).next().cloned().expect("another one");
    assert!(told.contains(&new), "{told}");
    assert_eq!(kids(&server).await.len(), 2);
    let states: Vec<_> = listed(&server).iter().map(|key| (key["state"].clone(), key["algorithm"].clone())).collect();
    assert_eq!(states, [(json!("next"), json!("EdDSA")), (json!("signing"), json!("EdDSA"))]);
    let text = server.run(&["keys", "list"]);
    assert!(text.contains(&new) && text.contains("next") && text.contains("signing"), "{text}");
    // Still signed by the one before.
    let fresh = server.sign_in("bob").await;
    assert!(old.contains(&decode_header(&fresh.access_token).expect("a header").kid.expect("a kid")));
    for token in [&bob.access_token, &fresh.access_token] {
        assert_eq!(status(&server, token).await, [200, 200]);
    }
    server.run(&["keys", "rotate", "--after", "1ms"]);
    eventually("in its turn, after the one that waits", || async { (kids(&server).await.len() == 3).then_some(()) })
        .await;

    let told = server.run(&["keys", "rotate", "--now"]);
    as_soon(SECOND, "the older ones are gone", || async { kids(&server).await.len() == 1 }).await;
    assert!(kids(&server).await.iter().all(|kid| told.contains(kid)), "{told}");
    for token in [&bob.access_token, &fresh.access_token] {
        assert_eq!(status(&server, token).await, [401, 401], "signed by a key that is gone");
    }
    let renewed = refresh(&server, &fresh.refresh_token).await.json();
    let renewed = renewed["access_token"].as_str().expect("a token");
    assert_eq!(status(&server, renewed).await, [200, 200], "the session goes on");
    assert_eq!(verified(&server, renewed).await["sub"], "bob");
}

#[tokio::test]
async fn another_algorithm_makes_a_key_at_a_reload_and_the_first_one_at_the_start() {
    let upstream = Upstream::start().await;
    for algorithm in ["ES256", "RS256"] {
        let mut setup = Setup::with(&upstream);
        setup.more = format!("tokens: {{ algorithm: {algorithm} }}\n");
        let server = setup.start().await;
        let bob = server.sign_in("bob").await;
        let header = decode_header(&bob.access_token).expect("a header");
        assert_eq!((format!("{:?}", header.alg), header.typ.as_deref()), (algorithm.to_owned(), Some("at+jwt")));
        assert_eq!(verified(&server, &bob.access_token).await["sub"], "bob");
        assert_eq!(status(&server, &bob.access_token).await, [200, 200], "{algorithm}");

        // And back again.
        let file = server.folder().join("config/postern.yaml");
        let config = std::fs::read_to_string(file).expect("the configuration");
        server.write("config/postern.yaml", &config.replace(&format!("algorithm: {algorithm}"), "algorithm: EdDSA"));
        eventually("a key is made", || async { (kids(&server).await.len() == 2).then_some(()) }).await;
        let states: Vec<_> =
            listed(&server).iter().map(|key| (key["state"].clone(), key["algorithm"].clone())).collect();
        assert_eq!(states, [(json!("next"), json!("EdDSA")), (json!("signing"), json!(algorithm))]);
        assert_eq!(status(&server, &bob.access_token).await, [200, 200]);
    }
}

#[tokio::test]
async fn a_refresh_token_serves_a_program_and_a_thief_ends_it() {
    let (_upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let first = refresh(&server, &bob.refresh_token).await;
    assert_eq!(first.status, 200, "{first:?}");
    let lost = first.json();
    // The answer was lost: asked again at once.
    let again = refresh(&server, &bob.refresh_token).await;
    assert_eq!(again.status, 200, "{again:?}");
    let again = again.json();
    let access = again["access_token"].as_str().expect("a token");
    assert_eq!(status(&server, access).await, [200, 200]);
    assert_eq!(server.metric("postern_auth_token_refresh_total", &["status=\"repeated\""]).await, 1.0);
    let goes_on = refresh(&server, again["refresh_token"].as_str().expect("a token")).await;
    assert_eq!(goes_on.status, 200, "{goes_on:?}");
    // Somebody has what the lost answer held.
    let stolen = refresh(&server, lost["refresh_token"].as_str().expect("a token")).await;
    assert_eq!(stolen.status, 401, "{stolen:?}");
    assert_eq!(status(&server, access).await, [401, 401], "the session is over");
    assert_eq!(refresh(&server, goes_on.json()["refresh_token"].as_str().expect("a token")).await.status, 401);
    assert_eq!(server.metric("postern_audit_events_total", &["event=\"refresh_reused\""]).await, 1.0);
}

#[tokio::test]
async fn a_revoked_token_is_over_on_both_nodes_within_a_second() {
    let upstream = Upstream::start().await;
    let database = Postgres::shared_database().await;
    let here = Setup::with(&upstream).postgres(&database, None).start().await;
    let mut setup = Setup::with(&upstream).postgres(&database, Some(here.folder()));
    setup.public_port = Some(here.edge());
    let mut there = setup.prepare_without_users();
    there.launch().await;

    let bob = here.sign_in("bob").await;
    for node in [&here, &there] {
        assert_eq!(status(node, &bob.access_token).await, [200, 200]);
    }
    assert_eq!(post(&here, "/auth/revoke", &json!({ "token": bob.access_token })).await.status, 200);
    assert_eq!(status(&here, &bob.access_token).await, [401, 401], "at once here");
    as_soon(SECOND, "the other node knows", || async { status(&there, &bob.access_token).await == [401, 401] }).await;
    // Known again after a start, and the session goes on.
    there.stop().await;
    there.launch().await;
    assert_eq!(status(&there, &bob.access_token).await, [401, 401]);
    let renewed = refresh(&there, &bob.refresh_token).await.json();
    let renewed = renewed["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(status(&here, &renewed).await, [200, 200]);

    // Keys of one node verify on the other; the emergency reaches both.
    let told = here.run(&["keys", "rotate", "--now"]);
    let alice = eventually("both have the key", || async {
        let alice = here.sign_in("alice").await;
        let kid = decode_header(&alice.access_token).expect("a header").kid.expect("a kid");
        (told.contains(&kid) && status(&there, &alice.access_token).await == [200, 200]).then_some(alice)
    })
    .await;
    here.run(&["session", "revoke", "--all"]);
    as_soon(SECOND, "everything is over", || async {
        status(&here, &alice.access_token).await == [401, 401]
            && status(&there, &alice.access_token).await == [401, 401]
    })
    .await;
    assert_eq!(refresh(&there, &alice.refresh_token).await.status, 401);
}

#[tokio::test]
async fn threat_36_every_end_of_a_session_ends_its_tokens() {
    let (_upstream, server) = scene().await;
    for end in ["/auth/logout", "/auth/logout-all", "--user", "--all", "refresh token"] {
        let bob = server.sign_in("bob").await;
        assert_eq!(status(&server, &bob.access_token).await, [200, 200]);
        match end {
            "--user" => drop(server.run(&["session", "revoke", "--user", "bob"])),
            "--all" => drop(server.run(&["session", "revoke", "--all"])),
            "refresh token" => drop(post(&server, "/auth/revoke", &json!({ "token": bob.refresh_token })).await),
            path => drop(server.portal(Request::new("POST", path).cookie(bob.both())).await),
        }
        as_soon(SECOND, end, || async { status(&server, &bob.access_token).await == [401, 401] }).await;
        assert_eq!(refresh(&server, &bob.refresh_token).await.status, 401, "{end}");
    }
    let unknown = crate::harness::server::feed(&mut server.command(&["session", "revoke", "--user", "nobody"]), "");
    assert_eq!(unknown.status.code(), Some(1), "{unknown:?}");
}

/// The stores of the server, opened beside it: with its own key a test forges what nobody else could.
async fn stores_of(server: &Server) -> Stores {
    let data = server.folder().join("data");
    let options = Options {
        storage: Storage {
            database: DatabaseAddress::Sqlite(data.join("postern.db")),
            key_file: data.join("postern.key"),
            sessions: SessionsPlace::Database,
            counters: CountersPlace::Memory,
            counters_on_failure: OnFailure::Share,
        },
        users: UsersSource::Database,
        source_limit: None,
        regulation: None,
        lifetimes: Lifetimes { idle: SECOND * 1800, lifetime: SECOND * 43_200, remember_me: SECOND * 86_400 },
        algorithm: SigningAlgorithm::EdDsa,
    };
    let metrics = Arc::new(Metrics::new().expect("metrics"));
    open_with(options, metrics, Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).await.expect("the stores")
}

/// A real session of bob's, and the means to sign whatever about it.
struct Forge {
    stores: Stores,
    header: Value,
    claims: Value,
}

impl Forge {
    async fn of(server: &Server, bob: &SignedIn) -> Self {
        let parts: Vec<&str> = bob.access_token.split('.').collect();
        let part = |text: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).expect("base64")).expect("JSON");
        Self { stores: stores_of(server).await, header: part(parts[0]), claims: part(parts[1]) }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!("{}.{}", part(header), part(claims));
        let keys = self.stores.keys.signing();
        let key = keys.signing(self.stores.clock.now()).expect("a key");
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(key.signer.sign(message.as_bytes()).expect("a signature")))
    }

    fn header(&self, name: &str, value: Value) -> String {
        let mut header = self.header.clone();
        header[name] = value;
        self.sign(&header, &self.claims)
    }

    fn claim(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims.clone();
        claims[name] = value;
        self.sign(&self.header, &claims)
    }

    fn without(&self, name: &str) -> String {
        let mut claims = self.claims.clone();
        claims.as_object_mut().expect("an object").remove(name);
        self.sign(&self.header, &claims)
    }
}

async fn are_401(server: &Server, tokens: impl IntoIterator<Item = (String, String)>) {
    for (what, token) in tokens {
        for role in Role::BOTH {
            let reply = server.ask(role, &bearer(&token)).await;
            assert_eq!(reply.status, 401, "{what} in {role:?}: {reply:?}");
            assert!(reply.header("Location").is_none(), "{what}: never a fall-back");
            assert!(
                reply.all("WWW-Authenticate").any(|value| value == "Bearer error=\"invalid_token\""),
                "{what}: {reply:?}"
            );
        }
    }
}

#[tokio::test]
async fn threat_45_46_47_64_what_is_forged_is_401_in_both_roles() {
    let (_upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let forge = Forge::of(&server, &bob).await;
    let good = forge.sign(&forge.header, &forge.claims);
    assert_eq!(status(&server, &good).await, [200, 200], "what is forged without a fault is taken");

    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let (head, signature) = bob.access_token.rsplit_once('.').expect("a token");
    let payload = head.split_once('.').expect("a token").1;
    let key = &jwks(&server).await.keys[0];
    let public = serde_json::to_value(key).expect("JSON");
    let x = URL_SAFE_NO_PAD.decode(public["x"].as_str().expect("x")).expect("base64");
    let hmac = |header: Value, secret: &[u8]| {
        let message = format!("{}.{payload}", part(header));
        let key = jsonwebtoken::EncodingKey::from_secret(secret);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256);
        format!("{message}.{}", signature.expect("a signature"))
    };
    let none = part(json!({ "alg": "none", "typ": "at+jwt", "kid": forge.header["kid"] }));
    let hs256 = json!({ "alg": "HS256", "typ": "at+jwt", "kid": forge.header["kid"] });
    let mut forged = vec![
        ("alg none".to_owned(), format!("{none}.{payload}.")),
        ("alg none, signed".to_owned(), format!("{none}.{payload}.{signature}")),
        ("HS256 with the public key".to_owned(), hmac(hs256.clone(), &x)),
        ("HS256 with the JWK".to_owned(), hmac(hs256, public.to_string().as_bytes())),
        ("no signature".to_owned(), format!("{head}.")),
    ];
    for (name, value) in [
        ("jwk", public.clone()),
        ("jku", json!("http://127.0.0.1:1/jwks.json")),
        ("x5u", json!("http://127.0.0.1:1/cert.pem")),
        ("crit", json!(["unheard-of"])),
        ("alg", json!("none")),
        ("alg", json!("RS256")),
        ("kid", json!("another")),
        ("typ", json!("JWT")),
        ("typ", json!("postern-assertion+jwt")),
    ] {
        forged.push((format!("{name}: {value}"), forge.header(name, value)));
    }
    let exp = forge.claims["exp"].as_i64().expect("a number");
    for (name, value) in [
        ("exp", json!(exp.to_string())),
        ("exp", json!(-1)),
        ("exp", json!(1.9e9)),
        ("exp", json!(null)),
        ("nbf", json!("0")),
        ("nbf", json!(exp)),
        ("iat", json!(exp)),
        ("aud", json!("grafana")),
        ("aud", json!(["postern"])),
        ("sub", json!("alice")),
        ("ver", json!(99)),
        ("sid", json!("another")),
    ] {
        forged.push((format!("{name}: {value}"), forge.claim(name, value)));
    }
    for name in ["exp", "iat", "aud", "sid", "jti", "ver"] {
        forged.push((format!("no {name}"), forge.without(name)));
    }
    // As an ID token looks: another type, and none of our claims.
    let now = exp - 900;
    let id_token =
        json!({ "iss": forge.claims["iss"], "sub": "bob", "aud": "postern", "iat": now, "exp": exp, "nonce": "n" });
    let jwt = json!({ "alg": "EdDSA", "typ": "JWT", "kid": forge.header["kid"] });
    forged.push(("an ID token".to_owned(), forge.sign(&jwt, &id_token)));
    are_401(&server, forged).await;
    // Another issuer's is none of ours: nobody, and never an identity.
    let foreign = forge.claim("iss", json!("https://idp.example.com"));
    assert_eq!(status(&server, &foreign).await, [401, 401]);
    forge.stores.close().await;
}

/// The confusion as it was found: a key that is public is taken for a secret.
#[tokio::test]
async fn threat_45_the_public_rsa_key_is_no_secret_in_both_roles() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.more = "tokens: { algorithm: RS256 }\n".to_owned();
    let server = setup.start().await;
    let bob = server.sign_in("bob").await;
    assert_eq!(status(&server, &bob.access_token).await, [200, 200]);
    let forge = Forge::of(&server, &bob).await;
    let jwk = serde_json::to_value(&jwks(&server).await.keys[0]).expect("JSON");
    let number = |name: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(jwk[name].as_str().expect("a number")).expect("base64");
        rsa::BigUint::from_bytes_be(&bytes)
    };
    let public = rsa::RsaPublicKey::new(number("n"), number("e")).expect("a key");
    let pem = rsa::pkcs8::EncodePublicKey::to_public_key_pem(&public, rsa::pkcs8::LineEnding::LF).expect("PEM");
    let der = rsa::pkcs8::EncodePublicKey::to_public_key_der(&public).expect("DER");
    let mut header = forge.header.clone();
    header["alg"] = json!("HS256");
    let secrets = [pem.as_bytes(), pem.trim_end().as_bytes(), der.as_bytes(), jwk["n"].as_str().expect("n").as_bytes()];
    let forged = secrets.map(|secret| {
        let length = secret.len();
        (format!("a secret of {length} bytes"), with_secret(secret, &header, &forge.claims))
    });
    are_401(&server, forged).await;
    forge.stores.close().await;
}

/// Our own keys are fetched from nowhere, whatever a `kid` looks like.
#[tokio::test]
async fn threat_48_a_kid_of_our_own_issuer_leads_nowhere_in_both_roles() {
    let (upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let forge = Forge::of(&server, &bob).await;
    let reached = Upstream::start().await;
    let port = reached.port();
    let kids = [
        format!("http://127.0.0.1:{port}/jwks.json"),
        format!("//127.0.0.1:{port}/"),
        "../../../../etc/passwd".to_owned(),
        "' OR 1=1 --".to_owned(),
        "\0".to_owned(),
        String::new(),
        "k".repeat(4_000),
    ];
    are_401(&server, kids.map(|kid| (format!("{kid:.40}"), forge.header("kid", json!(kid))))).await;
    for number in 0..1_000 {
        let token = forge.header("kid", json!(format!("{number}")));
        let role = if number % 2 == 0 { Role::Edge } else { Role::ForwardAuth };
        assert_eq!(server.ask(role, &bearer(&token)).await.status, 401);
    }
    assert!(reached.seen().is_empty() && upstream.seen().is_empty());
    assert_eq!(status(&server, &bob.access_token).await, [200, 200], "it goes on");
    forge.stores.close().await;
}

#[tokio::test]
async fn threat_49_tokens_without_end_are_bounded() {
    let (upstream, server) = scene().await;
    let megabyte = 1_000_000;
    for token in [".".repeat(megabyte), "a".repeat(megabyte), format!("{}.a", "e30.".repeat(megabyte / 4))] {
        for role in Role::BOTH {
            let reply = server.ask(role, &bearer(&token)).await;
            assert!([401, 431].contains(&reply.status), "{role:?}: {}", reply.status);
        }
    }
    let jwe = format!("{}.AAAA.AAAA.AAAA.AAAA", URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM"}"#));
    for token in [jwe, ".".repeat(30_000), "e30".repeat(10_000), "..".to_owned(), ".".to_owned()] {
        assert_eq!(status(&server, &token).await, [401, 401], "{token:.60}");
    }
    assert!(upstream.seen().is_empty());
    let bob = server.sign_in("bob").await;
    assert_eq!(status(&server, &bob.access_token).await, [200, 200], "it goes on");
}

#[tokio::test]
async fn threat_68_no_token_is_in_a_log_or_in_the_database() {
    let (_upstream, mut server) = scene().await;
    let bob = server.sign_in("bob").await;
    let next = refresh(&server, &bob.refresh_token).await.json();
    let next = next["refresh_token"].as_str().expect("a token").to_owned();
    refresh(&server, "x").await;
    post(&server, "/auth/revoke", &json!({ "token": bob.access_token })).await;
    // A second use, by now, since the next one was used.
    refresh(&server, &next).await;
    assert_eq!(refresh(&server, &bob.refresh_token).await.status, 401);
    server.stop().await;
    let log = server.log();
    assert!(log.contains("refresh_reused") && log.contains("token_revoked"), "{log}");
    let mut database = Vec::new();
    for entry in std::fs::read_dir(server.folder().join("data")).expect("a folder") {
        let path = entry.expect("an entry").path();
        // Not the control socket.
        if path.is_file() {
            database.extend(std::fs::read(path).expect("a file"));
        }
    }
    assert!(database.windows(15).any(|window| window == b"SQLite format 3"), "it was read");
    for secret in [&bob.refresh_token, &next, &bob.access_token] {
        assert!(!log.contains(secret), "{log}");
        assert!(!database.windows(secret.len()).any(|window| window == secret.as_bytes()), "in the database");
    }
}
