//! The order of the request path, with stores that do as the test says.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;

use super::*;
use crate::{
    core::{
        identity::Identity,
        session::Session,
        site::AUTHORIZATION_ONLY,
        target::{Scheme, Target},
    },
    ports::{
        LiveSession, SigningKeys,
        fakes::{
            Counting, Door, Flooding, ISSUER, NOW, OneKey, Revocations, Stopped, Stores, Tokens, Zeroes, cookie_of,
            key, listener, no_issuers, route, row, session, signed, site, token,
        },
    },
};

mod limits;
mod machines;

struct Fixture {
    gate: Gate,
    stores: Arc<Stores>,
    tokens: Arc<Tokens>,
    door: Arc<Door>,
    counting: Arc<Counting>,
    site: Site,
    headers: HeaderMap,
    credentials_from: &'static [HeaderName],
}

fn fixture() -> Fixture {
    let stores = Arc::new(Stores::default());
    let site = site(listener(Role::Edge), vec![route("app.example.com"), route("app.elsewhere.test")]);
    let counting = Arc::new(Counting::default());
    let (tokens, door) = (Arc::new(Tokens::default()), Arc::new(Door::default()));
    let gate = Gate {
        sessions: Arc::clone(&stores) as _,
        api_tokens: Arc::clone(&tokens) as _,
        passwords: Arc::clone(&door) as _,
        keys: Arc::new(OneKey::new()),
        foreign: no_issuers(),
        tokens: Arc::new(Revocations::default()),
        source_limit: Arc::new(Flooding),
        counters: Arc::clone(&counting) as _,
        clock: Arc::new(Stopped),
        entropy: Arc::new(Zeroes),
        metrics: Arc::new(Metrics::new().unwrap()),
    };
    Fixture {
        gate,
        stores,
        tokens,
        door,
        counting,
        site,
        headers: HeaderMap::new(),
        credentials_from: AUTHORIZATION_ONLY,
    }
}

impl Fixture {
    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        self
    }

    fn cookie(self, marks: &str) -> Self {
        let pairs: Vec<_> = marks.chars().map(|mark| format!("postern_session={}", cookie_of(mark))).collect();
        self.header("cookie", &pairs.join("; "))
    }

    async fn ask(&self, host: &str, path: &str) -> Outcome {
        self.ask_from(host, path, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), "GET").await
    }

    async fn ask_from(&self, host: &str, path: &str, peer: IpAddr, method: &str) -> Outcome {
        let facts = Facts {
            role: Role::Edge,
            began: Duration::ZERO,
            listener: 0,
            target: Target::parse(Scheme::Https, host, path).unwrap(),
            method,
            headers: &self.headers,
            peer,
            peer_trusted: false,
            client: ClientAddress::Known(peer),
            credentials_from: self.credentials_from,
        };
        self.gate.check(&self.site, &facts).await
    }

    async fn verdict(&self, path: &str) -> &'static str {
        self.ask("app.example.com", path).await.verdict.as_str()
    }
}

#[tokio::test]
async fn a_remembered_session_is_decided_without_the_store() {
    let f = fixture().cookie("a");
    f.stores.remember(&session('a', 1));
    f.stores.down.store(true, Ordering::SeqCst);
    assert_eq!(f.verdict("/staff/x").await, "forward");
    assert_eq!(f.verdict("/admin/x").await, "step_up");
    assert_eq!(f.verdict("/elsewhere").await, "refuse");
    assert_eq!(f.stores.reads.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nobody_is_sent_to_sign_in_or_refused() {
    let f = fixture();
    assert_eq!(f.verdict("/public/x").await, "forward");
    assert_eq!(f.verdict("/staff/x").await, "sign_in");
    assert_eq!(f.verdict("/elsewhere").await, "refuse");
}

#[tokio::test]
async fn threat_32_67_a_store_that_is_down_closes_all_but_bypass() {
    let f = fixture().cookie("a");
    f.stores.down.store(true, Ordering::SeqCst);
    assert_eq!(f.verdict("/public/x").await, "forward");
    assert_eq!(f.verdict("/staff/x").await, "unavailable");
    assert_eq!(f.verdict("/elsewhere").await, "unavailable");
}

#[tokio::test]
async fn threat_31_cookies_that_name_nothing_are_nobody() {
    for value in ["", "x", &"a".repeat(42), &"a".repeat(44), "é", &cookie_of('z')] {
        let f = fixture();
        let mut f = f;
        f.headers.insert("cookie", HeaderValue::from_bytes(format!("postern_session={value}").as_bytes()).unwrap());
        assert_eq!(f.verdict("/staff/x").await, "sign_in", "{value:?}");
    }
}

#[tokio::test]
async fn threat_33_two_live_sessions_are_nobody() {
    let f = fixture().cookie("ab");
    f.stores.store(&session('a', 1));
    f.stores.store(&session('b', 1));
    assert_eq!(f.verdict("/staff/x").await, "sign_in");
    let f = fixture().cookie("aa");
    f.stores.store(&session('a', 1));
    assert_eq!(f.verdict("/staff/x").await, "forward", "the same session twice is one");
    let f = fixture().cookie("za");
    f.stores.store(&session('a', 1));
    assert_eq!(f.verdict("/staff/x").await, "forward", "a dead cookie beside a live one does no harm");
    let f = fixture().cookie("wxyab");
    f.stores.store(&session('a', 1));
    f.stores.store(&session('b', 1));
    assert_eq!(f.verdict("/staff/x").await, "sign_in", "so many that one's own is out of sight");
}

#[tokio::test]
async fn idle_is_declared_only_after_the_store_was_read() {
    let f = fixture().cookie("a");
    f.stores.remember(&session('a', 61));
    f.stores.store(&session('a', 5));
    assert_eq!(f.verdict("/staff/x").await, "forward", "another node saw it used");
    let f = fixture().cookie("a");
    f.stores.remember(&session('a', 61));
    f.stores.store(&session('a', 61));
    assert_eq!(f.verdict("/staff/x").await, "sign_in");
}

#[tokio::test]
async fn a_session_counts_only_on_its_own_domain() {
    let f = fixture().cookie("a");
    let foreign = Session { domain: "example.org".to_owned(), ..row('a', 1) };
    let identity = Identity::clone(&session('a', 1).identity);
    f.stores.store(&Arc::new(LiveSession::new(&foreign, identity)));
    assert_eq!(f.verdict("/staff/x").await, "sign_in");
}

#[tokio::test]
async fn threat_61_a_websocket_from_a_foreign_origin_is_anonymous() {
    let from = async |origin: Option<&str>| {
        let mut f = fixture().cookie("a").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if let Some(origin) = origin {
            f = f.header("origin", origin);
        }
        f.stores.store(&session('a', 1));
        f.verdict("/staff/x").await
    };
    assert_eq!(from(None).await, "forward");
    assert_eq!(from(Some("https://app.example.com")).await, "forward");
    assert_eq!(from(Some("https://friend.test")).await, "forward");
    for origin in
        ["https://evil.test", "http://app.example.com", "https://app.example.com:8443", "null", "https://example.com"]
    {
        assert_eq!(from(Some(origin)).await, "sign_in", "{origin}");
    }
}

#[tokio::test]
async fn an_access_token_counts_while_its_session_lives() {
    let ask = async |token: String, stored: bool| {
        let f = fixture().header("authorization", &format!("Bearer {token}"));
        if stored {
            f.stores.store(&session('a', 1));
        }
        let outcome = f.ask("app.example.com", "/staff/x").await;
        (
            outcome.verdict.as_str(),
            outcome.carries_our_token,
            matches!(outcome.verdict, Verdict::SignIn(SignIn::FailedBearer)),
        )
    };
    assert_eq!(ask(token(1, |_| {}), true).await, ("forward", true, false));
    let failed = ("sign_in", true, true);
    assert_eq!(ask(token(1, |_| {}), false).await, failed, "session gone");
    assert_eq!(ask(token(2, |_| {}), true).await, failed, "another key");
    assert_eq!(ask(token(1, |claims| claims.ver = 3), true).await, failed, "older token version");
    assert_eq!(ask(token(1, |claims| claims.sub = "alice".to_owned()), true).await, failed, "another user's session");
    assert_eq!(ask(token(1, |claims| claims.aud = "other".to_owned()), true).await, failed, "another audience");
    assert_eq!(ask(token(1, |claims| claims.exp = NOW.unix_seconds()), true).await, failed, "expired");
    assert_eq!(ask(token(1, |claims| claims.iat += 60), true).await, failed, "from the future");
    let foreign = token(1, |claims| claims.iss = "https://idp.test".to_owned());
    assert_eq!(ask(foreign, true).await, ("sign_in", false, false), "the application's own");
}

#[tokio::test]
async fn a_public_page_does_not_look_at_the_token_but_knows_that_it_is_there() {
    let f = fixture().header("authorization", &format!("Bearer {}", token(2, |_| {})));
    let outcome = f.ask("app.example.com", "/public/x").await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("forward", true));
}

/// Under other rules it would matter; nobody must be taken for nobody where that was not looked at.
#[tokio::test]
async fn what_the_identity_does_not_say_of_a_credential() {
    let asked = async |f: Fixture, path: &str| {
        let outcome = f.ask("app.example.com", path).await;
        (outcome.verdict.as_str(), outcome.credential, outcome.decided_at)
    };
    let bearer = |key: u8| fixture().header("authorization", &format!("Bearer {}", token(key, |_| {})));
    assert_eq!(asked(bearer(2), "/public/x").await, ("forward", Credential::Unread, Some(NOW)));
    assert_eq!(asked(bearer(2), "/staff/x").await, ("sign_in", Credential::Failed, Some(NOW)));
    assert_eq!(asked(fixture(), "/public/x").await, ("forward", Credential::Settled, Some(NOW)));
    assert_eq!(asked(fixture(), "/staff/x").await, ("sign_in", Credential::Settled, Some(NOW)));
    let down = fixture().cookie("a");
    down.stores.down.store(true, Ordering::SeqCst);
    assert_eq!(asked(down, "/public/x").await, ("forward", Credential::Unread, Some(NOW)));
}

#[tokio::test]
async fn what_is_not_served_is_rejected_before_any_rule() {
    let f = fixture();
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let rejected = async |host: &str, method: &str| match f.ask_from(host, "/staff/x", peer, method).await.verdict {
        Verdict::Reject(rejection) => Some(rejection),
        _ => None,
    };
    assert_eq!(rejected("other.example.com", "GET").await, Some(Rejection::NoRoute));
    assert_eq!(rejected("app.example.com", "CONNECT").await, Some(Rejection::Connect));
    assert_eq!(rejected("app.elsewhere.test", "GET").await, Some(Rejection::ForeignHost), "nobody can sign in there");
}

#[tokio::test]
async fn a_flooding_source_is_slowed_down_before_any_look_up() {
    let f = fixture().cookie("a");
    let outcome = f.ask_from("app.example.com", "/staff/x", Flooding::SOURCE, "GET").await;
    assert!(matches!(outcome.verdict, Verdict::SlowDown { retry_after } if retry_after == Duration::from_secs(3)));
    assert_eq!(f.stores.reads.load(Ordering::SeqCst), 0);
}

/// `key-1` is remembered, and was removed in an emergency.
#[tokio::test]
async fn threat_36_a_key_that_was_removed_verifies_nothing_where_memory_is_unsure() {
    for (unsure, removed, down, expected) in [
        (false, false, true, "forward"),
        (true, false, false, "forward"),
        (true, true, false, "sign_in"),
        (true, false, true, "unavailable"),
    ] {
        let mut f = fixture().header("authorization", &format!("Bearer {}", token(1, |_| {})));
        f.stores.remember(&session('a', 1));
        let stored = SigningKeys::new(vec![key(if removed { 2 } else { 1 })]);
        f.gate.keys = Arc::new(OneKey { stored: Arc::new(stored), unsure, down, ..OneKey::new() });
        assert_eq!(f.verdict("/staff/x").await, expected, "unsure {unsure}, removed {removed}, down {down}");
    }
}

#[tokio::test]
async fn threat_48_the_store_is_asked_for_keys_only_where_memory_cannot_tell() {
    let claims = json!({ "iss": ISSUER });
    let of_kid = |kid: &str| signed(1, &json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": kid }), &claims);
    let now = NOW.unix_seconds();
    for (what, token, expected) in [
        ("another key under this name", token(2, |_| {}), 0),
        ("expired", token(1, |claims| claims.exp = now), 0),
        ("another audience", token(1, |claims| claims.aud = "grafana".to_owned()), 0),
        ("another type", signed(1, &json!({ "alg": "EdDSA", "typ": "JWT", "kid": "key-1" }), &claims), 0),
        ("a kid that memory doesn't know", of_kid("key-9"), 1),
        ("a good one", token(1, |_| {}), 1),
    ] {
        let mut f = fixture();
        let keys = Arc::new(OneKey { unsure: true, ..OneKey::new() });
        f.gate.keys = Arc::clone(&keys) as _;
        let found = f.gate.session_of_token(&f.site, &token).await.unwrap();
        assert!(found.is_none(), "{what}: there is no session of it");
        assert_eq!(keys.reads.load(Ordering::SeqCst), expected, "{what}");
    }
    // And never where memory is sure, whatever the kid.
    let mut f = fixture();
    let keys = Arc::new(OneKey::new());
    f.gate.keys = Arc::clone(&keys) as _;
    for number in 0..10_000 {
        let token = of_kid(&format!("../../evil?{number}"));
        assert!(f.gate.session_of_token(&f.site, &token).await.unwrap().is_none());
    }
    assert_eq!(keys.reads.load(Ordering::SeqCst), 0);
    assert_eq!(f.stores.reads.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_revoked_token_is_refused_and_whether_it_is_stays_no_guess() {
    for (revoked, unsure, down, expected) in [
        (false, false, true, "forward"),
        (true, false, true, "sign_in"),
        (false, true, false, "forward"),
        (true, true, false, "sign_in"),
        (false, true, true, "unavailable"),
    ] {
        let revocations = Arc::new(Revocations::default());
        let mut f = fixture().header("authorization", &format!("Bearer {}", token(1, |_| {})));
        f.gate.tokens = Arc::clone(&revocations) as _;
        f.stores.remember(&session('a', 1));
        revocations.unsure.store(unsure, Ordering::SeqCst);
        revocations.down.store(down, Ordering::SeqCst);
        let jtis = if revoked { vec!["one".to_owned()] } else { vec!["another".to_owned()] };
        *revocations.revoked.lock().unwrap() = jtis;
        assert_eq!(f.verdict("/staff/x").await, expected, "revoked {revoked}, unsure {unsure}, down {down}");
    }
}
