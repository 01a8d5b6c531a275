//! Tokens that a trusted issuer would or would not have made, asked of a gate whose stores do as the test says.

mod names;
mod refused;
mod several;

use std::{
    sync::{LazyLock, atomic::Ordering},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::pkcs8::EncodePrivateKey as _;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey};
use rsa::{RsaPrivateKey, pkcs1::EncodeRsaPrivateKey as _, traits::PublicKeyParts as _};
use serde_json::{Value, json};

use super::*;
use crate::{
    core::{
        client_ip::ClientAddress,
        issuer::{JwtAlgorithm, KeyAddress, KeyPlace, claims::ClaimMapping},
        request::{Facts, Role},
        site::{AUTHORIZATION_ONLY, Site},
        target::{Scheme, Target},
        verdict::{Credential, Outcome, SignIn, Verdict},
    },
    observe::metrics::Metrics,
    ports::fakes::{
        Counting, Door, Flooding, Issuers, NOW, OneKey, Revocations, Stopped, Stores, Tokens, Zeroes, foreign,
        listener, route, site, token,
    },
};

const IDP: &str = "https://idp.test";

static RSA: LazyLock<RsaPrivateKey> =
    LazyLock::new(|| RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).expect("a key"));

fn rsa_signing() -> EncodingKey {
    EncodingKey::from_rsa_der(RSA.to_pkcs1_der().unwrap().as_bytes())
}

fn ed_jwk(seed: u8, kid: &str) -> Value {
    let public = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]).verifying_key();
    json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": URL_SAFE_NO_PAD.encode(public.as_bytes()) })
}

fn rsa_jwk() -> Value {
    let encoded = |number: &rsa::BigUint| URL_SAFE_NO_PAD.encode(number.to_bytes_be());
    json!({ "kty": "RSA", "kid": "rsa", "n": encoded(RSA.n()), "e": encoded(RSA.e()) })
}

fn key_set(keys: &[Value]) -> Arc<KeySet> {
    Arc::new(KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap())
}

fn trusted(change: impl FnOnce(&mut TrustedIssuer)) -> TrustedIssuer {
    let address = KeyAddress {
        place: KeyPlace::Jwks("https://idp.test/jwks.json".parse().unwrap()),
        interval: Duration::from_secs(60),
        refresh: Duration::from_secs(600),
    };
    let mut issuer = TrustedIssuer::new(
        IDP.to_owned(),
        vec!["postern".to_owned()],
        KeySource::Fetched(Arc::new(address)),
        JwtAlgorithm::DEFAULT.to_vec(),
        Duration::from_secs(30),
        ClaimMapping::default(),
        false,
    );
    change(&mut issuer);
    issuer
}

fn header() -> Value {
    json!({ "alg": "EdDSA", "kid": "ed", "typ": "JWT" })
}

fn claims() -> Value {
    let now = NOW.unix_seconds();
    json!({ "iss": IDP, "sub": "carol", "aud": "postern", "iat": now, "exp": now + 300, "groups": ["staff"] })
}

fn with(mut object: Value, name: &str, value: Value) -> Value {
    object[name] = value;
    object
}

fn without(mut object: Value, name: &str) -> Value {
    object.as_object_mut().unwrap().remove(name);
    object
}

fn message(header: &Value, claims: &Value) -> String {
    let encoded = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    format!("{}.{}", encoded(header), encoded(claims))
}

/// Whose public half is that of `key`.
fn private(seed: u8) -> EncodingKey {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    EncodingKey::from_ed_der(key.to_pkcs8_der().unwrap().as_bytes())
}

fn signed(header: &Value, claims: &Value, key: &EncodingKey, algorithm: Algorithm) -> String {
    let message = message(header, claims);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), key, algorithm).unwrap();
    format!("{message}.{signature}")
}

/// By the issuer's Ed25519 key.
fn made(header: &Value, claims: &Value) -> String {
    signed(header, claims, &private(9), Algorithm::EdDSA)
}

struct World {
    gate: Gate,
    issuers: Arc<Issuers>,
    site: Site,
}

impl World {
    fn new() -> Self {
        Self::trusting(vec![trusted(|_| {})])
    }

    fn trusting(trusted: Vec<TrustedIssuer>) -> Self {
        let issuers = Arc::new(Issuers::default());
        issuers.sure.store(true, Ordering::SeqCst);
        *issuers.keys.lock().unwrap() = Some(key_set(&[ed_jwk(9, "ed"), rsa_jwk()]));
        let mut site = site(listener(Role::Edge), vec![route("app.example.com")]);
        site.tokens.trusted_issuers = trusted.into_iter().map(Arc::new).collect();
        let gate = Gate {
            sessions: Arc::new(Stores::default()),
            api_tokens: Arc::new(Tokens::default()),
            passwords: Arc::new(Door::default()),
            keys: Arc::new(OneKey::new()),
            tokens: Arc::new(Revocations::default()),
            foreign: foreign(&issuers),
            source_limit: Arc::new(Flooding),
            counters: Arc::new(Counting::default()),
            clock: Arc::new(Stopped),
            entropy: Arc::new(Zeroes),
            metrics: Arc::new(Metrics::new().unwrap()),
        };
        Self { gate, issuers, site }
    }

    async fn ask(&self, tokens: &[&str], path: &str) -> Outcome {
        let mut headers = HeaderMap::new();
        for token in tokens {
            headers.append("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        }
        let peer = [192, 0, 2, 1].into();
        let facts = Facts {
            role: Role::Edge,
            began: Duration::ZERO,
            listener: 0,
            target: Target::parse(Scheme::Https, "app.example.com", path).unwrap(),
            method: "GET",
            headers: &headers,
            peer,
            peer_trusted: false,
            client: ClientAddress::Known(peer),
            credentials_from: AUTHORIZATION_ONLY,
        };
        self.gate.check(&self.site, &facts).await
    }

    /// The user whom a token lets in; `Err`: the verdict.
    async fn user(&self, token: &str) -> Result<String, &'static str> {
        let outcome = self.ask(&[token], "/staff/x").await;
        assert!(!outcome.carries_our_token, "it is passed on");
        match &outcome.verdict {
            Verdict::Forward(_) => Ok(outcome.identity.unwrap().user.to_string()),
            Verdict::SignIn(SignIn::FailedBearer) => {
                assert_eq!(outcome.credential, Credential::Failed);
                assert!(outcome.identity.is_none());
                Err("401")
            }
            other => Err(other.as_str()),
        }
    }
}

#[tokio::test]
async fn a_token_of_a_trusted_issuer_identifies_whoever_holds_it() {
    let world = World::new();
    assert_eq!(world.user(&made(&header(), &claims())).await.as_deref(), Ok("carol"));
    for typ in ["at+jwt", "application/at+jwt", "JWT", "AT+JWT"] {
        assert!(world.user(&made(&with(header(), "typ", json!(typ)), &claims())).await.is_ok(), "{typ}");
    }
    let bare = without(without(header(), "typ"), "kid");
    assert!(world.user(&made(&bare, &claims())).await.is_ok(), "neither typ nor kid");
    let several = with(claims(), "aud", json!(["other", "postern"]));
    assert!(world.user(&made(&header(), &several)).await.is_ok());
    for (alg, algorithm) in [("RS256", Algorithm::RS256), ("PS256", Algorithm::PS256)] {
        let header = json!({ "alg": alg, "kid": "rsa" });
        assert!(world.user(&signed(&header, &claims(), &rsa_signing(), algorithm)).await.is_ok(), "{alg}");
    }
    let not_staff = made(&header(), &without(claims(), "groups"));
    assert_eq!(world.user(&not_staff).await, Err("refuse"));
    let two = with(with(claims(), "groups", json!(["admins"])), "amr", json!(["mfa"]));
    assert_eq!(world.ask(&[&made(&header(), &two)], "/admin/x").await.verdict.as_str(), "step_up");
    assert_eq!(world.ask(&["x"], "/public/x").await.verdict.as_str(), "forward");
}

#[tokio::test]
async fn elliptic_curves() {
    for (curve, alg, algorithm, pair) in [
        ("P-256", "ES256", Algorithm::ES256, &rcgen::PKCS_ECDSA_P256_SHA256),
        ("P-384", "ES384", Algorithm::ES384, &rcgen::PKCS_ECDSA_P384_SHA384),
    ] {
        let pair = rcgen::KeyPair::generate_for(pair).unwrap();
        let point = &pair.public_key_raw()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        let encoded = |part: &[u8]| URL_SAFE_NO_PAD.encode(part);
        let jwk = json!({ "kty": "EC", "crv": curve, "kid": "ec", "x": encoded(x), "y": encoded(y) });
        let world = World::new();
        *world.issuers.keys.lock().unwrap() = Some(key_set(std::slice::from_ref(&jwk)));
        let header = json!({ "alg": alg, "kid": "ec" });
        let token = signed(&header, &claims(), &EncodingKey::from_ec_der(pair.serialized_der()), algorithm);
        assert!(world.user(&token).await.is_ok(), "{alg}");
        // No point of the curve at all.
        *world.issuers.keys.lock().unwrap() = Some(key_set(&[with(jwk, "x", json!(encoded(&vec![1; x.len()])))]));
        assert_eq!(world.user(&token).await, Err("401"), "{alg}");
    }
}

#[tokio::test]
async fn threat_45_algorithms_and_headers_that_choose_their_own_key() {
    let world = World::new();
    let (good, claims) = (header(), claims());
    let none = with(good.clone(), "alg", json!("none"));
    for unsigned in [format!("{}.", message(&none, &claims)), made(&none, &claims)] {
        assert_eq!(world.user(&unsigned).await, Err("401"));
    }
    // HS256 with what everybody knows of the RSA key as the secret.
    let public = RSA.to_public_key();
    for secret in [
        rsa::pkcs1::EncodeRsaPublicKey::to_pkcs1_pem(&public, rsa::pkcs1::LineEnding::LF).unwrap().into_bytes(),
        rsa::pkcs8::EncodePublicKey::to_public_key_pem(&public, rsa::pkcs8::LineEnding::LF).unwrap().into_bytes(),
        RSA.n().to_bytes_be(),
    ] {
        let header = json!({ "alg": "HS256", "kid": "rsa" });
        let forged = signed(&header, &claims, &EncodingKey::from_secret(&secret), Algorithm::HS256);
        assert_eq!(world.user(&forged).await, Err("401"));
    }
    for (name, value) in [
        ("jwk", ed_jwk(9, "ed")),
        ("jku", json!("https://evil.test/jwks.json")),
        ("jku", json!(null)),
        ("x5u", json!("https://evil.test/cert.pem")),
        ("x5c", json!(["MIIB"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("enc", json!("A128GCM")),
        ("cty", json!("JWT")),
        ("alg", json!("eddsa")),
        ("alg", json!(["EdDSA"])),
        ("alg", json!("RS256")),
        ("kid", json!("rsa")),
        ("kid", json!("../../etc/passwd")),
        ("kid", json!(1)),
        ("typ", json!("postern-assertion+jwt")),
        ("typ", json!("dpop+jwt")),
        ("typ", json!("logout+jwt")),
        ("typ", json!(7)),
    ] {
        let token = made(&with(good.clone(), name, value.clone()), &claims);
        assert_eq!(world.user(&token).await, Err("401"), "{name}: {value}");
    }
    let another_key = signed(&good, &claims, &private(8), Algorithm::EdDSA);
    assert_eq!(world.user(&another_key).await, Err("401"));
    let only_rsa = World::trusting(vec![trusted(|issuer| issuer.algorithms = vec![JwtAlgorithm::RS256])]);
    assert_eq!(only_rsa.user(&made(&good, &claims)).await, Err("401"), "the issuer may not use it");
}

#[tokio::test]
async fn threat_46_times_are_whole_numbers_and_hold() {
    let world = World::new();
    let now = NOW.unix_seconds();
    for (name, value) in [
        ("exp", json!((now + 300).to_string())),
        ("exp", json!(-1)),
        ("exp", json!(1.8e9 + 300.5)),
        ("exp", json!(1e12)),
        ("exp", json!(null)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(now - 30)),
        ("nbf", json!(now.to_string())),
        ("nbf", json!(1.5)),
        ("nbf", json!(null)),
        ("nbf", json!(now + 31)),
        ("iat", json!(now + 31)),
        ("iat", json!("now")),
    ] {
        let token = made(&header(), &with(claims(), name, value.clone()));
        assert_eq!(world.user(&token).await, Err("401"), "{name}: {value}");
    }
    assert_eq!(world.user(&made(&header(), &without(claims(), "exp"))).await, Err("401"), "no exp");
    for (name, value) in [("exp", now - 29), ("exp", i64::MAX), ("nbf", now + 30), ("iat", now + 30)] {
        let token = made(&header(), &with(claims(), name, json!(value)));
        assert!(world.user(&token).await.is_ok(), "within the clock skew: {name}: {value}");
    }
    assert!(world.user(&made(&header(), &without(claims(), "iat"))).await.is_ok());
}

#[tokio::test]
async fn threat_47_other_audiences_other_issuers_and_other_kinds_of_tokens() {
    let world = World::new();
    for aud in
        [json!("other"), json!([]), json!(["other"]), json!(null), json!(["postern", 5]), json!({ "postern": 1 })]
    {
        let token = made(&header(), &with(claims(), "aud", aud.clone()));
        assert_eq!(world.user(&token).await, Err("401"), "{aud}");
    }
    assert_eq!(world.user(&made(&header(), &without(claims(), "aud"))).await, Err("401"));
    // Whoever it says it is from, it is nobody's here: the application's own.
    for iss in
        [json!("https://idp.test/"), json!("https://IDP.test"), json!("https://evil.test"), json!([IDP]), json!(1)]
    {
        let token = made(&header(), &with(claims(), "iss", iss.clone()));
        assert_eq!(world.user(&token).await, Err("sign_in"), "{iss}");
    }
    for (name, value) in [
        ("nonce", json!("n")),
        ("at_hash", json!("h")),
        ("c_hash", json!("h")),
        ("typ", json!("ID")),
        ("typ", json!("Refresh")),
        ("typ", json!("Logout")),
        ("typ", json!(5)),
        ("token_use", json!("id")),
        ("events", json!({})),
        ("cnf", json!({ "jkt": "x" })),
    ] {
        let token = made(&header(), &with(claims(), name, value.clone()));
        assert_eq!(world.user(&token).await, Err("401"), "{name}: {value}");
    }
    let keycloak = with(with(claims(), "typ", json!("Bearer")), "nonce", json!("n"));
    assert!(world.user(&made(&header(), &keycloak)).await.is_ok(), "an older Keycloak's access token");
    assert!(world.user(&made(&header(), &with(claims(), "token_use", json!("access")))).await.is_ok());
    let declared = with(header(), "typ", json!("at+jwt"));
    assert!(world.user(&made(&declared, &with(claims(), "nonce", json!("n")))).await.is_ok());
    let google = World::trusting(vec![trusted(|issuer| issuer.id_tokens = true)]);
    assert!(google.user(&made(&header(), &with(claims(), "at_hash", json!("h")))).await.is_ok());
    assert_eq!(google.user(&made(&header(), &with(claims(), "typ", json!("Refresh")))).await, Err("401"));
}

#[tokio::test]
async fn threat_48_an_unknown_kid_asks_for_one_fetch_at_the_configured_address() {
    let world = World::new();
    let new = signed(&with(header(), "kid", json!("new")), &claims(), &private(8), Algorithm::EdDSA);
    assert_eq!(world.user(&new).await, Err("401"));
    assert_eq!(world.issuers.fetches.load(Ordering::SeqCst), 1);
    *world.issuers.fetched.lock().unwrap() = Some(key_set(&[ed_jwk(8, "new")]));
    assert!(world.user(&new).await.is_ok(), "the key was rotated");
    let old = made(&header(), &claims());
    assert_eq!(world.user(&old).await, Err("401"), "and the old one is gone");
    // Without any keys nobody can say.
    *world.issuers.keys.lock().unwrap() = None;
    assert_eq!(world.user(&new).await, Err("unavailable"));
}

#[tokio::test]
async fn threat_49_tokens_that_are_none_are_not_decoded() {
    let world = World::new();
    let good = made(&header(), &claims());
    // As far as anybody can tell, these belong to the application; none identifies anybody.
    for token in [
        ".".repeat(1_000_000),
        "a".repeat(1_000_000),
        format!("{good}.{good}"),
        format!("{}.a.b.c.d", good.split('.').next().unwrap()),
        format!("{}.{good}", "a".repeat(20_000)),
        good.rsplit_once('.').unwrap().0.to_owned(),
        String::new(),
    ] {
        let shown: String = token.chars().take(30).collect();
        assert_eq!(world.user(&token).await, Err("sign_in"), "{shown}");
    }
    let (message, signature) = good.rsplit_once('.').unwrap();
    for bad in ["", "!", &signature[1..], &format!("{signature}="), &format!("{signature}AA")] {
        assert_eq!(world.user(&format!("{message}.{bad}")).await, Err("401"), "{bad}");
    }
    let payload = good.split('.').nth(1).unwrap();
    for header in ["", "e30", "bnVsbA", "!"] {
        assert_eq!(world.user(&format!("{header}.{payload}.{signature}")).await, Err("401"), "{header}");
    }
}

#[tokio::test]
async fn threat_50_a_verified_token_is_remembered_for_what_it_was_verified_for() {
    let mut world = World::new();
    let token = made(&header(), &claims());
    let asked = |world: &World| world.issuers.names_asked.swap(0, Ordering::SeqCst);
    assert!(world.user(&token).await.is_ok());
    assert_eq!(asked(&world), 1);
    assert!(world.user(&token).await.is_ok());
    assert_eq!(asked(&world), 0, "from memory");
    assert_eq!(world.ask(&[&token], "/admin/x").await.verdict.as_str(), "refuse", "each rule decides anew");

    // Another configuration of the same issuer, of the same audience or another.
    world.site.tokens.trusted_issuers = vec![Arc::new(trusted(|issuer| issuer.claims.prefix = "idp:".to_owned()))];
    assert_eq!(world.user(&token).await.as_deref(), Ok("idp:carol"));
    let other = TrustedIssuer::new(
        IDP.to_owned(),
        vec!["other".to_owned()],
        KeySource::Fixed(key_set(&[ed_jwk(9, "ed")])),
        JwtAlgorithm::DEFAULT.to_vec(),
        Duration::ZERO,
        ClaimMapping::default(),
        false,
    );
    world.site.tokens.trusted_issuers = vec![Arc::new(other)];
    assert_eq!(world.user(&token).await, Err("401"));

    // A key that the issuer took back, and another token of the same keys.
    world.site.tokens.trusted_issuers = vec![Arc::new(trusted(|_| {}))];
    assert!(world.user(&token).await.is_ok());
    *world.issuers.keys.lock().unwrap() = Some(key_set(&[rsa_jwk()]));
    assert_eq!(world.user(&token).await, Err("401"));
    *world.issuers.keys.lock().unwrap() = None;
    assert_eq!(world.user(&token).await, Err("unavailable"), "keys that nobody knows any more");
}

#[tokio::test]
async fn a_verified_token_is_never_remembered_past_its_end() {
    let world = World::new();
    let ending = made(&header(), &with(claims(), "exp", json!(NOW.unix_seconds())));
    for _ in 0..2 {
        assert!(world.user(&ending).await.is_ok(), "within the clock skew");
        assert_eq!(world.issuers.names_asked.swap(0, Ordering::SeqCst), 1, "verified each time");
    }
    assert!(world.issuers.remembered.lock().unwrap().is_empty());
    let token = made(&header(), &claims());
    assert!(world.user(&token).await.is_ok());
    // One that somehow is there, and is over.
    let known = world.issuers.remembered.lock().unwrap().drain().next().unwrap();
    let over = VerifiedToken {
        until: NOW,
        identity: Arc::clone(&known.1.identity),
        issuer: Arc::clone(&known.1.issuer),
        keys: Arc::clone(&known.1.keys),
        key: Arc::clone(&known.1.key),
        free_name: known.1.free_name.clone(),
        weight: 1,
    };
    world.issuers.remembered.lock().unwrap().insert(known.0, Arc::new(over));
    world.issuers.names_asked.store(0, Ordering::SeqCst);
    assert!(world.user(&token).await.is_ok());
    assert_eq!(world.issuers.names_asked.load(Ordering::SeqCst), 1, "verified anew");
}

#[tokio::test]
async fn a_remembered_token_weighs_what_its_claims_take() {
    let world = World::new();
    let token = made(&header(), &with(claims(), "x", json!(vec![json!({ "": 0 }); 1000])));
    assert!(world.user(&token).await.is_ok());
    let weight = world.issuers.remembered.lock().unwrap().values().next().unwrap().weight;
    assert!(weight > 650_000, "{} bytes of token: {weight}", token.len());
}

#[tokio::test]
async fn a_secret_counts_only_where_it_is_configured() {
    let secret = "0123456789abcdef0123456789abcdef";
    let of_secret = trusted(|issuer| {
        issuer.keys = KeySource::Fixed(Arc::new(KeySet::of_secret(secret.into())));
        issuer.algorithms = vec![JwtAlgorithm::HS256];
    });
    let token = |secret: &str| {
        let header = json!({ "alg": "HS256", "kid": "whatever", "typ": "JWT" });
        signed(&header, &claims(), &EncodingKey::from_secret(secret.as_bytes()), Algorithm::HS256)
    };
    let world = World::trusting(vec![of_secret]);
    assert!(world.user(&token(secret)).await.is_ok());
    assert_eq!(world.user(&token("another")).await, Err("401"));
    assert_eq!(world.user(&made(&header(), &claims())).await, Err("401"), "no other algorithm");
    assert_eq!(World::new().user(&token(secret)).await, Err("401"), "nor a secret elsewhere");
}

#[tokio::test]
async fn a_token_of_ours_behind_a_foreign_one_is_kept_from_applications() {
    let world = World::new();
    let foreign = made(&header(), &claims());
    let ours = token(1, |_| {});
    let outcome = world.ask(&[&foreign, &ours], "/staff/x").await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("forward", true));
    assert_eq!(outcome.identity.unwrap().user.as_ref(), "carol");
    assert!(!world.ask(&[&foreign], "/staff/x").await.carries_our_token);
}
