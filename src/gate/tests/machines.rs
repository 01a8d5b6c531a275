//! API tokens and Basic, in the order of CONTRACT 4.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::*;
use crate::{
    core::{api_token::Owner, site::PROXY_AUTHORIZATION_FIRST},
    ports::{Barred, Unavailable},
};

fn bob() -> Owner {
    Owner::User("bob".to_owned())
}

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

impl Fixture {
    fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    fn basic(self, text: &str) -> Self {
        self.header("authorization", &basic(text))
    }

    fn issue(&self, scopes: &[&str]) -> String {
        self.tokens.issue(bob(), scopes, None)
    }

    async fn staff(&self) -> Outcome {
        self.ask("app.example.com", "/staff/x").await
    }
}

fn is_failed_basic(outcome: &Outcome) -> bool {
    matches!(outcome.verdict, Verdict::SignIn(SignIn::FailedBasic))
}

#[tokio::test]
async fn an_api_token_is_one_factor_without_a_session() {
    let f = fixture();
    let token = f.issue(&[]);
    let f = f.bearer(&token);
    let outcome = f.staff().await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("forward", true));
    let identity = outcome.identity.unwrap();
    assert_eq!(
        (&*identity.user, identity.factor, &identity.session),
        ("bob", crate::core::identity::Factor::One, &None)
    );
    assert_eq!(f.verdict("/admin/x").await, "refuse", "bob is no admin");
    assert_eq!(f.tokens.reads.load(Ordering::SeqCst), 1, "remembered since");
    assert_eq!(f.tokens.uses.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_remembered_api_token_needs_no_store() {
    let f = fixture();
    let token = f.issue(&[]);
    let f = f.bearer(&token);
    assert_eq!(f.verdict("/staff/x").await, "forward");
    f.tokens.down.store(true, Ordering::SeqCst);
    assert_eq!(f.verdict("/staff/x").await, "forward");
}

#[tokio::test]
async fn threat_32_an_api_token_that_nobody_can_look_up_is_unavailable() {
    let f = fixture();
    let token = f.issue(&[]);
    let f = f.bearer(&token);
    f.tokens.down.store(true, Ordering::SeqCst);
    assert_eq!(f.verdict("/staff/x").await, "unavailable");
    assert_eq!(f.verdict("/public/x").await, "forward");
}

#[tokio::test]
async fn threat_31_an_api_token_that_fails_is_401_and_never_a_fall_back() {
    let unknown = fixture().issue(&[]);
    let f = fixture();
    let ended = f.tokens.issue(bob(), &[], Some(NOW));
    for (token, reads) in [
        (unknown.as_str(), 1),
        (ended.as_str(), 1),
        (&unknown[..unknown.len() - 1], 0),
        ("postern_pat_", 0),
        ("postern_svc_x.y.z", 0),
    ] {
        let mut f = fixture();
        f.tokens.issue(bob(), &["host:other.example.com"], Some(NOW));
        if token == ended {
            f.tokens = Arc::new(Tokens::default());
            f.gate.api_tokens = f.tokens.clone();
            assert_eq!(f.tokens.issue(bob(), &[], Some(NOW)), ended);
        } else if token == unknown {
            f.tokens = Arc::new(Tokens::default());
            f.gate.api_tokens = f.tokens.clone();
        }
        let f = f.bearer(token);
        let outcome = f.staff().await;
        assert!(matches!(outcome.verdict, Verdict::SignIn(SignIn::FailedBearer)), "{token}");
        assert_eq!((outcome.credential, outcome.carries_our_token), (Credential::Failed, true), "{token}");
        assert_eq!(f.tokens.reads.load(Ordering::SeqCst), reads, "{token}: a mistyped one costs no look-up");
    }
}

#[tokio::test]
async fn threat_50_a_token_that_is_remembered_for_one_host_is_decided_anew_on_another() {
    let f = fixture();
    let token = f.issue(&["host:app.example.com", "read"]);
    let mut f = f.bearer(&token);
    f.site = site(listener(Role::Edge), vec![route("app.example.com"), route("other.example.com")]);
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    let asked = async |f: &Fixture, host: &str, method: &str| {
        let outcome = f.ask_from(host, "/staff/x", peer, method).await;
        (outcome.verdict.as_str(), matches!(outcome.verdict, Verdict::OutOfScope), outcome.credential)
    };
    let refused = ("refuse", true, Credential::OutOfScope);
    assert_eq!(asked(&f, "app.example.com", "GET").await, ("forward", false, Credential::Settled));
    assert_eq!(asked(&f, "other.example.com", "GET").await, refused);
    assert_eq!(asked(&f, "app.example.com", "POST").await, refused);
    assert_eq!(f.tokens.uses.load(Ordering::SeqCst), 1, "what is refused is no use");
    let f = f.header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(asked(&f, "app.example.com", "GET").await, refused, "a WebSocket can write");
}

#[tokio::test]
async fn a_service_account_is_a_client_and_no_user() {
    let f = fixture();
    let token = f.tokens.issue(Owner::Service("ci".to_owned()), &[], None);
    let mut f = f.bearer(&token);
    let (rules, _) = crate::core::policy::RuleSet::compile(&crate::core::policy::PolicyDraft {
        default: Some(crate::core::policy::Level::Deny),
        rules: vec![
            crate::ports::fakes::rule("user", "/user/**", crate::core::policy::Level::OneFactor, &["user:ci"]),
            crate::ports::fakes::rule("client", "/client/**", crate::core::policy::Level::OneFactor, &["client:ci"]),
            crate::ports::fakes::rule("group", "/group/**", crate::core::policy::Level::OneFactor, &["group:staff"]),
        ],
        ..crate::core::policy::PolicyDraft::default()
    })
    .unwrap();
    f.site.rules = rules;
    assert_eq!(f.verdict("/user/x").await, "refuse", "a machine is never the person of its name");
    assert_eq!(f.verdict("/client/x").await, "forward");
    assert_eq!(f.verdict("/group/x").await, "forward");
}

#[tokio::test]
async fn basic_is_ours_where_it_let_somebody_in() {
    let f = fixture().basic("bob:open");
    let outcome = f.staff().await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("forward", true));
    assert_eq!(&*outcome.identity.unwrap().user, "bob");
    let public = f.ask("app.example.com", "/public/x").await;
    assert_eq!((public.verdict.as_str(), public.carries_our_token), ("forward", false), "the application's, unread");
    assert_eq!(public.credential, Credential::Unread);
    assert_eq!(f.door.asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn basic_is_not_read_where_a_session_says_who_asks() {
    let f = fixture().cookie("a").basic("bob:of the application");
    f.stores.store(&session('a', 1));
    let outcome = f.staff().await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("forward", false), "passed on as it came");
    assert_eq!(f.door.asked.load(Ordering::SeqCst), 0);
}

/// Where nobody had to read it: beside a session, where anybody may pass, on a WebSocket that it does not count for.
#[tokio::test]
async fn a_password_that_memory_knows_reaches_no_application() {
    let ask = async |f: Fixture, path: &str| {
        f.stores.store(&session('a', 1));
        f.door.remembers.store(true, Ordering::SeqCst);
        let outcome = f.ask("app.example.com", path).await;
        assert_eq!((outcome.verdict.as_str(), f.door.asked.load(Ordering::SeqCst)), ("forward", 0), "{path}");
        outcome.carries_our_token
    };
    let ours = || fixture().basic("bob:open");
    assert!(ask(ours().cookie("a"), "/staff/x").await && ask(ours(), "/public/x").await);
    let websocket = ours().header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    assert!(ask(websocket.header("origin", "https://evil.test"), "/public/x").await);
    assert!(ask(fixture().basic("app:own").basic("bob:open"), "/public/x").await, "in whichever field");
    let legacy = Fixture { credentials_from: &[http::header::PROXY_AUTHORIZATION], ..ours() };
    assert!(ask(legacy, "/public/x").await, "also where the other header is read alone");
    assert!(!ask(fixture().cookie("a").basic("bob:of the application"), "/staff/x").await, "another's");
    let mut apps = ours();
    apps.site.listeners[0].authorization_is_apps = true;
    assert!(!ask(apps, "/public/x").await, "the application's, as the operator says");
}

#[tokio::test]
async fn the_applications_own_header_is_never_read() {
    let mut f = fixture().basic("bob:open");
    f.site.listeners[0].authorization_is_apps = true;
    let outcome = f.staff().await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("sign_in", false));
    assert_eq!(f.door.asked.load(Ordering::SeqCst), 0);
    let token = f.issue(&[]);
    f.headers.clear();
    let f = f.bearer(&token);
    let outcome = f.staff().await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("sign_in", true), "but ours is kept from it");
}

#[tokio::test]
async fn basic_that_failed_is_a_challenge_or_for_a_page_the_sign_in() {
    for text in ["bob:wrong", "ann:open", "bob:", ":", "no colon"] {
        let f = fixture().basic(text);
        let outcome = f.staff().await;
        assert!(is_failed_basic(&outcome), "{text:?}");
        assert_eq!((outcome.credential, outcome.identity.is_none()), (Credential::Failed, true), "{text:?}");
        let f = f.header("accept", "text/html");
        assert!(matches!(f.staff().await.verdict, Verdict::SignIn(SignIn::Nobody)), "{text:?}: a page");
    }
    for value in ["Basic", "Basic !", "Basic Ym9i"] {
        let f = fixture().header("authorization", value);
        assert!(is_failed_basic(&f.staff().await), "{value:?}");
        assert_eq!(f.door.asked.load(Ordering::SeqCst), 0, "{value:?}: nothing to verify");
    }
}

#[tokio::test]
async fn a_password_that_nobody_can_verify_now_lets_nobody_in() {
    let verdict = async |barred: Barred| {
        let f = fixture().basic("bob:open");
        *f.door.barred.lock().unwrap() = Some(barred);
        f.staff().await.verdict
    };
    assert!(matches!(verdict(Barred::Busy).await, Verdict::Unavailable { store: "hasher" }));
    let down = Unavailable { store: "users", detail: String::new() };
    assert!(matches!(verdict(Barred::Unavailable(down)).await, Verdict::Unavailable { store: "users" }));
    let wait = Duration::from_secs(7);
    assert!(matches!(verdict(Barred::SlowDown(wait)).await, Verdict::SlowDown { retry_after } if retry_after == wait));
}

/// Browsers send an application's own password again and again: nobody who loads a page is shut out by that.
#[tokio::test]
async fn a_page_load_with_a_password_that_is_barred_may_sign_in() {
    let loaded = async |barred: Barred| {
        let f = fixture().basic("bob:of the application").header("accept", "text/html");
        *f.door.barred.lock().unwrap() = Some(barred);
        let outcome = f.staff().await;
        (matches!(outcome.verdict, Verdict::SignIn(SignIn::Nobody)), outcome.credential)
    };
    assert_eq!(loaded(Barred::SlowDown(Duration::from_secs(7))).await, (true, Credential::Failed));
    assert_eq!(loaded(Barred::Busy).await, (true, Credential::Failed));
    let down = Unavailable { store: "users", detail: String::new() };
    assert!(!loaded(Barred::Unavailable(down)).await.0, "nobody could sign in either");
}

#[tokio::test]
async fn a_remembered_password_is_asked_of_nobody() {
    let f = fixture().basic("bob:open");
    f.door.remembers.store(true, Ordering::SeqCst);
    assert_eq!(f.verdict("/staff/x").await, "forward");
    assert_eq!(f.door.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_api_token_may_stand_where_the_password_should() {
    let f = fixture();
    let token = f.issue(&["host:app.example.com"]);
    let f = f.basic(&format!("BOB:{token}"));
    let outcome = f.staff().await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("forward", true));
    assert_eq!(f.door.asked.load(Ordering::SeqCst), 0, "no password is verified");
    let public = f.ask("app.example.com", "/public/x").await;
    assert!(public.carries_our_token, "ours by its form, also where nobody reads it");
    let mut f = f;
    f.headers.clear();
    let f = f.basic(&format!("alice:{token}"));
    assert!(is_failed_basic(&f.staff().await), "somebody else's name");
}

#[tokio::test]
async fn threat_61_a_websocket_from_a_foreign_origin_has_no_password() {
    let from = async |origin: &str| {
        let f = fixture().basic("bob:open").header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        f.header("origin", origin).verdict("/staff/x").await
    };
    assert_eq!(from("https://app.example.com").await, "forward");
    assert_eq!(from("https://evil.test").await, "sign_in");
}

#[tokio::test]
async fn proxy_authorization_comes_first_and_the_other_stays_the_applications() {
    let f = Fixture { credentials_from: PROXY_AUTHORIZATION_FIRST, ..fixture() };
    let f = f.header("proxy-authorization", &basic("bob:open")).basic("bob:of the application");
    let outcome = f.staff().await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("forward", false));
    let f = Fixture { credentials_from: PROXY_AUTHORIZATION_FIRST, ..fixture() };
    let f = f.header("proxy-authorization", "Negotiate x").basic("bob:open");
    let outcome = f.staff().await;
    assert_eq!((outcome.verdict.as_str(), outcome.carries_our_token), ("forward", true), "nothing of ours before it");
    let f = Fixture { credentials_from: PROXY_AUTHORIZATION_FIRST, ..fixture() };
    let f = f.header("proxy-authorization", &basic("bob:wrong")).basic("bob:open");
    assert!(is_failed_basic(&f.staff().await), "what failed is never made good by another");
}
