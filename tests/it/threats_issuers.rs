//! Tokens of a trusted issuer, and of whoever would like to be one.

use serde_json::{Value, json};

use crate::harness::{
    eventually,
    idp::{Idp, Key, claims, now, rsa_public_pem, with, with_secret},
    server::{Role, Server, Setup},
    upstream::Upstream,
    wire::{self, Reply, Request},
};

const IDP: &str = "https://idp.test";

struct World {
    server: Server,
    upstream: Upstream,
    idp: Idp,
    ed: Key,
}

/// An issuer without a prefix that has an Ed25519 and an RSA key, and another one with the same keys and another audience.
async fn world() -> World {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let ed = Key::ed25519("ed");
    idp.keys("/jwks", &[&ed, &Key::rs256("rs")]);
    idp.keys("/other", &[&ed]);
    let mut setup = Setup::with(&upstream);
    setup.server = "  source_limit: none\n".to_owned();
    setup.more = format!(
        "tokens:\n  trusted_issuers:\n    - {{ issuer: \"{IDP}\", audiences: [postern], jwks: \"{}\" }}\n    \
         - {{ issuer: \"https://other.test\", audiences: [other], jwks: \"{}\", prefix: \"other:\" }}\n",
        idp.url("/jwks"),
        idp.url("/other"),
    );
    let server = setup.start().await;
    World { server, upstream, idp, ed }
}

impl World {
    async fn ask(&self, role: Role, token: &str) -> Reply {
        let request = Request::get("/members/x").header("Authorization", format!("Bearer {token}"));
        self.server.ask(role, &request).await
    }

    async fn passes(&self, what: &str, token: &str) {
        for role in Role::BOTH {
            let reply = self.ask(role, token).await;
            assert_eq!(reply.status, 200, "{role:?} {what}: {reply:?}");
        }
    }

    /// 401 with its challenge, never a way to sign in, and nothing reaches the application.
    async fn fails(&self, what: &str, token: &str) {
        let before = self.upstream.seen().len();
        for role in Role::BOTH {
            let reply = self.ask(role, token).await;
            assert_eq!(reply.status, 401, "{role:?} {what}: {reply:?}");
            assert_eq!(reply.header("WWW-Authenticate"), Some("Bearer error=\"invalid_token\""), "{role:?} {what}");
            assert_eq!(reply.header("Location"), None, "{role:?} {what}");
            let page = Request::get("/members/x").page().header("Authorization", format!("Bearer {token}"));
            assert_eq!(self.server.ask(role, &page).await.status, 401, "{role:?} {what}: a page load too");
        }
        assert_eq!(self.upstream.seen().len(), before, "{what}");
    }
}

#[tokio::test]
async fn threat_45_algorithms_and_headers_that_choose_their_own_key_in_both_roles() {
    let w = world().await;
    let good = claims(IDP);
    w.passes("a good one", &w.ed.token(&good)).await;
    w.passes("RSA", &Key::rs256("rs").token(&good)).await;
    let signed = w.ed.sign(&json!({ "alg": "none" }), &good);
    w.fails("alg none", &signed).await;
    w.fails("alg none, no signature", &format!("{}.", signed.rsplit_once('.').expect("parts").0)).await;
    let hs256 = json!({ "alg": "HS256", "kid": "rs", "typ": "JWT" });
    w.fails("the public key as a secret", &with_secret(&rsa_public_pem(), &hs256, &good)).await;
    let stranger = Key::ed25519("ed");
    w.fails("another key of that name", &stranger.token(&good)).await;
    for (name, value) in [
        (
            "jwk",
            serde_json::from_str::<Value>(&crate::harness::idp::key_set(&[&stranger])).expect("JSON")["keys"][0]
                .clone(),
        ),
        ("jku", json!(w.idp.url("/evil"))),
        ("x5u", json!(w.idp.url("/evil"))),
        ("crit", json!(["urn:x"])),
    ] {
        let header = with(stranger.header(), name, value.clone());
        w.fails(name, &stranger.sign(&header, &good)).await;
        w.fails(name, &w.ed.sign(&with(w.ed.header(), name, value), &good)).await;
    }
    assert_eq!(w.idp.all_fetches(), w.idp.fetches("/jwks") + w.idp.fetches("/other"), "nothing else was asked for");
}

#[tokio::test]
async fn threat_46_times_that_are_no_whole_numbers_in_both_roles() {
    let w = world().await;
    let soon = now() + 300;
    #[expect(clippy::cast_precision_loss, reason = "a float is the point")]
    let float = soon as f64 + 0.5;
    for (name, value) in [
        ("exp", json!(soon.to_string())),
        ("exp", json!(null)),
        ("exp", json!(-1)),
        ("exp", json!(float)),
        ("exp", json!(now() - 60)),
        ("nbf", json!(now().to_string())),
        ("nbf", json!(soon)),
        ("iat", json!(soon)),
    ] {
        w.fails(&format!("{name}: {value}"), &w.ed.token(&with(claims(IDP), name, value))).await;
    }
    let mut endless = claims(IDP);
    endless.as_object_mut().expect("an object").remove("exp");
    w.fails("no exp", &w.ed.token(&endless)).await;
}

#[tokio::test]
async fn threat_47_other_audiences_kinds_and_issuers_in_both_roles() {
    let w = world().await;
    w.fails("another audience", &w.ed.token(&with(claims(IDP), "aud", "other"))).await;
    // An ID token is for the client that asked for it.
    let id_token = with(with(claims(IDP), "aud", "client-1"), "nonce", "n");
    w.fails("an ID token", &w.ed.token(&id_token)).await;
    w.fails("an ID token of a client called as we are", &w.ed.token(&with(id_token, "aud", "postern"))).await;
    w.fails("Keycloak's", &w.ed.token(&with(claims(IDP), "typ", "ID"))).await;
    w.fails("bound to a key", &w.ed.token(&with(claims(IDP), "cnf", json!({ "jkt": "x" })))).await;
    // Another issuer's is the application's own: no identity comes of it, in whatever role.
    let foreign = w.ed.token(&claims("https://evil.test"));
    for role in Role::BOTH {
        let reply = w.ask(role, &foreign).await;
        assert_eq!((reply.status, reply.header("WWW-Authenticate")), (401, None), "{role:?}: {reply:?}");
        let public = Request::get("/public/x").header("Authorization", format!("Bearer {foreign}"));
        let reply = w.server.ask(role, &public).await;
        assert_eq!(reply.status, 200, "{role:?}: {reply:?}");
    }
    let seen = w.upstream.seen().pop().expect("a request");
    assert_eq!(seen.header("Authorization"), Some(format!("Bearer {foreign}").as_str()), "passed on untouched");
    assert_eq!(seen.header("Remote-User"), None);
}

#[tokio::test]
async fn threat_48_ten_thousand_kids_fetch_no_more_than_the_interval_allows() {
    let w = world().await;
    w.passes("a good one", &w.ed.token(&claims(IDP))).await;
    let (server, ed) = (&w.server, &w.ed);
    let began = now();
    let ask = async |number: u32| {
        let header = json!({ "alg": "EdDSA", "kid": format!("../../evil?{number}"), "typ": "JWT" });
        let request =
            Request::get("/members/x").header("Authorization", format!("Bearer {}", ed.sign(&header, &claims(IDP))));
        let role = if number % 4 < 2 { Role::Edge } else { Role::ForwardAuth };
        assert_eq!(server.ask(role, &request).await.status, 401);
    };
    futures_util::StreamExt::for_each_concurrent(futures_util::stream::iter(0..10_000), 32, ask).await;
    let minutes = usize::try_from((now() - began) / 60).expect("a time");
    let fetches = w.idp.fetches("/jwks");
    assert!(fetches <= 2 + minutes, "{fetches} fetches in {minutes} minutes and a bit");
    assert_eq!(w.idp.fetches("/other"), 1);
    assert_eq!(w.idp.all_fetches(), fetches + 1, "nothing else was asked for");
    w.passes("and a good one still does", &w.ed.token(&claims(IDP))).await;
}

#[tokio::test]
async fn threat_49_dots_long_headers_and_encrypted_tokens_in_both_roles() {
    let w = world().await;
    let good = w.ed.token(&claims(IDP));
    let header = good.split('.').next().expect("a header");
    for token in
        [".".repeat(20_000), format!("{header}.a.b.c.d"), format!("{}.{good}", "a".repeat(17_000)), good.repeat(3)]
    {
        for role in Role::BOTH {
            let reply = w.ask(role, &token).await;
            assert!([401, 431].contains(&reply.status), "{role:?} {reply:?}");
        }
    }
    for port in [w.server.edge(), w.server.forward_auth()] {
        let request = Request::get("/members/x")
            .host(w.server.app())
            .header("Authorization", format!("Bearer {}", ".".repeat(1_000_000)));
        let told = wire::until_closed(port, &request.bytes()).await;
        assert!(told.is_empty() || told.starts_with("HTTP/1.1 4"), "{}", told.chars().take(200).collect::<String>());
    }
    w.passes("a good one", &good).await;
}

#[tokio::test]
async fn threat_50_a_token_counts_for_its_own_issuer_and_audience_in_both_roles() {
    let w = world().await;
    let good = w.ed.token(&claims(IDP));
    w.passes("a good one", &good).await;
    w.passes("once more, from memory", &good).await;
    let other = with(claims("https://other.test"), "aud", "other");
    w.passes("the other issuer's", &w.ed.token(&other)).await;
    w.fails("the audience of another issuer", &w.ed.token(&with(claims(IDP), "aud", "other"))).await;
    w.fails("and the other way round", &w.ed.token(&claims("https://other.test"))).await;
    for role in Role::BOTH {
        let admin = Request::get("/admin/x").header("Authorization", format!("Bearer {good}"));
        assert_eq!(w.server.ask(role, &admin).await.status, 403, "{role:?}: remembered is who, not what they may");
    }
}

#[tokio::test]
async fn threat_69_a_local_admins_name_and_a_forged_group_in_both_roles() {
    let w = world().await;
    for name in ["alice", "ALICE", "bob"] {
        w.fails(name, &w.ed.token(&with(claims(IDP), "sub", name))).await;
    }
    for groups in [json!(["dev", "a,admins"]), json!("dev,admins"), json!(["dev\r\nRemote-User: alice"])] {
        w.fails(&groups.to_string(), &w.ed.token(&with(claims(IDP), "groups", groups))).await;
    }
    w.fails("a line feed in the name", &w.ed.token(&with(claims(IDP), "sub", "carol\r\nRemote-User: alice"))).await;
    w.fails("a name under another's prefix", &w.ed.token(&with(claims(IDP), "sub", "other:carol"))).await;
    let carol = w.ed.token(&claims(IDP));
    w.passes("nobody here is called so", &carol).await;
    w.server.add_user("Carol", &[]);
    eventually("the name is taken now", || async { (w.ask(Role::Edge, &carol).await.status == 401).then_some(()) })
        .await;
    w.fails("carol", &carol).await;
    let prefixed = with(with(claims("https://other.test"), "aud", "other"), "sub", "alice");
    for role in Role::BOTH {
        let request = Request::get("/admin/x").header("Authorization", format!("Bearer {}", w.ed.token(&prefixed)));
        assert_eq!(w.server.ask(role, &request).await.status, 403, "{role:?}: other:alice is no admin");
    }
    w.passes("a prefix keeps them apart", &w.ed.token(&prefixed)).await;
}
