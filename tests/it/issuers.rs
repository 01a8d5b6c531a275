//! Tokens of other issuers: who they let in, what goes on to the application, and how their keys come and go.

use serde_json::json;

use crate::harness::{
    eventually,
    idp::{Answer, Idp, Key, claims, key_set, with, with_secret},
    server::{Role, Server, Setup},
    tls,
    upstream::{Seen, Upstream},
    wire::{Reply, Request},
};

const SECRET: &str = "a secret of more than thirty-two bytes";

async fn ask(server: &Server, role: Role, token: &str, path: &str) -> Reply {
    server.ask(role, &Request::get(path).header("Authorization", format!("Bearer {token}"))).await
}

async fn status(server: &Server, role: Role, token: &str, path: &str) -> u16 {
    ask(server, role, token, path).await.status
}

#[tokio::test]
async fn a_token_lets_its_user_in_and_is_passed_on_in_both_roles() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let (ed, es, rs) = (Key::ed25519("ed"), Key::es256("es"), Key::rs256("rs"));
    let issuer = idp.url("/realms/main");
    idp.keys("/realms/main/certs", &[&ed, &es, &rs]);
    let document = json!({ "issuer": issuer, "jwks_uri": idp.url("/realms/main/certs") }).to_string();
    idp.answer("/realms/main/.well-known/openid-configuration", Answer::Json(document));
    let mut setup = Setup::with(&upstream).policies(
        r#"
default: deny
roles: { editor: { permissions: [edit:pages] } }
bindings: [ { role: editor, subject: "user:nobody" } ]
rules:
  - { name: editors, domain: "app.test.localhost", path: ["/edit/**"], policy: one_factor, subject: "role:editor" }
  - { name: gold, domain: "app.test.localhost", path: ["/gold/**"], policy: one_factor, when: "has(user.claims.tier) && user.claims.tier == 'gold'" }
  - { name: vault, domain: "app.test.localhost", path: ["/vault/**"], policy: two_factor }
  - { name: fresh, domain: "app.test.localhost", path: ["/fresh/**"], policy: one_factor, max_auth_age: 15m }
  - { name: kept, domain: "app.test.localhost", path: ["/edit/**", "/gold/**"], policy: deny }
  - { name: members, domain: "app.test.localhost", policy: one_factor }
"#,
    );
    setup.more = format!(
        r#"tokens:
  trusted_issuers:
    - issuer: "{issuer}"
      audiences: [postern]
      discovery: true
      prefix: "kc:"
      claims:
        user: preferred_username
        groups: [groups]
        roles: realm_access.roles
        factor: {{ claim: acr, two: [gold] }}
    - issuer: "https://abc.supabase.co/auth/v1"
      audiences: [authenticated]
      secret: "{SECRET}"
      claims: {{ groups: app_metadata.groups }}
"#
    );
    let server = setup.start().await;
    let carol = with(claims(&issuer), "preferred_username", "carol");
    let carol = with(with(carol, "name", "Carol C."), "email", "carol@example.com");
    for key in [&ed, &es, &rs] {
        let token = key.token(&carol);
        let reply = ask(&server, Role::Edge, &token, "/members/x").await;
        let seen = Seen::of(&reply);
        assert_eq!(seen.header("Remote-User"), Some("kc:carol"));
        assert_eq!(seen.header("Remote-Name"), Some("Carol C."));
        assert_eq!(seen.header("Remote-Email"), Some("carol@example.com"));
        assert_eq!(seen.header("Remote-Groups"), Some("dev"));
        assert_eq!(seen.header("Authorization"), Some(format!("Bearer {token}").as_str()), "the application gets it");
        let reply = ask(&server, Role::ForwardAuth, &token, "/members/x").await;
        assert_eq!((reply.status, reply.header("Remote-User")), (200, Some("kc:carol")), "{reply:?}");
        assert_eq!(reply.header("Authorization"), Some(format!("Bearer {token}").as_str()));
    }
    let now = crate::harness::idp::now();
    for role in Role::BOTH {
        for (claim, value, path, expected) in [
            ("realm_access", json!({ "roles": ["editor", "unknown"] }), "/edit/x", 200),
            ("realm_access", json!({ "roles": ["viewer"] }), "/edit/x", 403),
            ("groups", json!(["editor"]), "/edit/x", 403),
            ("realm_access", json!({ "roles": { "editor": true } }), "/members/x", 401),
            ("tier", json!("gold"), "/gold/x", 200),
            ("tier", json!("silver"), "/gold/x", 403),
            ("acr", json!("gold"), "/vault/x", 200),
            ("acr", json!("1"), "/vault/x", 401),
            ("auth_time", json!(now - 60), "/fresh/x", 200),
            ("auth_time", json!(now - 3600), "/fresh/x", 401),
            ("tier", json!("it does not say when somebody signed in"), "/fresh/x", 401),
        ] {
            let token = ed.token(&with(carol.clone(), claim, value.clone()));
            assert_eq!(status(&server, role, &token, path).await, expected, "{role:?} {path} {claim}: {value}");
        }
        let supabase = json!({
            "iss": "https://abc.supabase.co/auth/v1", "sub": "7b0d3a7e", "aud": "authenticated", "exp": now + 300,
            "app_metadata": { "groups": ["staff"] }, "amr": [{ "method": "password", "timestamp": now }],
        });
        let token = with_secret(SECRET.as_bytes(), &json!({ "alg": "HS256", "typ": "JWT", "kid": "x" }), &supabase);
        let reply = ask(&server, role, &token, "/members/x").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        let elsewhere = with(with(supabase, "iss", issuer.as_str()), "aud", "postern");
        let forged = with_secret(SECRET.as_bytes(), &json!({ "alg": "HS256", "typ": "JWT" }), &elsewhere);
        assert_eq!(status(&server, role, &forged, "/members/x").await, 401, "a secret is its own issuer's alone");
    }
    assert!(!server.log().contains(SECRET));
}

#[tokio::test]
async fn a_key_that_comes_is_taken_and_one_that_goes_counts_no_more() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let (old, new) = (Key::ed25519("old"), Key::ed25519("new"));
    idp.keys("/jwks", &[&old]);
    let mut setup = Setup::with(&upstream);
    setup.more = format!(
        "tokens: {{ trusted_issuers: [{{ issuer: \"https://idp.test\", audiences: [postern], jwks: \"{}\", interval: 1s, refresh: 1s }}] }}\n",
        idp.url("/jwks")
    );
    let server = setup.start().await;
    let (by_old, by_new) = (old.token(&claims("https://idp.test")), new.token(&claims("https://idp.test")));
    for role in Role::BOTH {
        assert_eq!(status(&server, role, &by_old, "/members/x").await, 200);
        assert_eq!(status(&server, role, &by_new, "/members/x").await, 401);
    }
    idp.keys("/jwks", &[&old, &new]);
    eventually("the new key is known", || async {
        (status(&server, Role::Edge, &by_new, "/members/x").await == 200).then_some(())
    })
    .await;
    assert_eq!(status(&server, Role::ForwardAuth, &by_old, "/members/x").await, 200, "both count");
    idp.keys("/jwks", &[&new]);
    eventually("the old key counts no more", || async {
        (status(&server, Role::Edge, &by_old, "/members/x").await == 401).then_some(())
    })
    .await;
    assert_eq!(status(&server, Role::ForwardAuth, &by_old, "/members/x").await, 401);
    assert_eq!(status(&server, Role::ForwardAuth, &by_new, "/members/x").await, 200);
    // The issuer is away: what is known stays known.
    let fetches = idp.fetches("/jwks");
    idp.answer("/jwks", Answer::Status(500));
    eventually("a failed fetch", || async { (idp.fetches("/jwks") > fetches + 1).then_some(()) }).await;
    for role in Role::BOTH {
        assert_eq!(status(&server, role, &by_new, "/members/x").await, 200);
        assert_eq!(status(&server, role, &by_old, "/members/x").await, 401);
    }
}

/// Each is an issuer of its own; none may be believed, and none may hold up the others.
#[tokio::test]
async fn issuers_that_cannot_be_asked_answer_wrongly_or_lead_elsewhere() {
    let (upstream, idp, evil) = (Upstream::start().await, Idp::start().await, Idp::start().await);
    let key = Key::ed25519("a");
    let good = key_set(&[&key]);
    evil.keys("/jwks", &[&key]);
    evil.keys("/metadata", &[&key]);
    idp.keys("/good", &[&key]);
    idp.keys("/elsewhere-here", &[&key]);
    let faults = [
        ("down", Answer::Status(503)),
        ("hangs", Answer::Hang),
        ("endless", Answer::Endless),
        ("redirects", Answer::Redirect(evil.url("/jwks"))),
        ("redirects-here", Answer::Redirect(idp.url("/elsewhere-here"))),
        ("html", Answer::Json("<html>".to_owned())),
        ("no-keys", Answer::Json("{}".to_owned())),
    ];
    let mut issuers = format!("    - {{ issuer: good, audiences: [postern], jwks: \"{}\" }}\n", idp.url("/good"));
    for (name, answer) in &faults {
        idp.answer(&format!("/{name}"), answer.clone());
        let url = idp.url(&format!("/{name}"));
        issuers += &format!(
            "    - {{ issuer: {name}, audiences: [postern], jwks: \"{url}\", interval: 1s, prefix: \"{name}:\" }}\n"
        );
    }
    let documents = [
        ("other-issuer", json!({ "issuer": "x", "jwks_uri": idp.url("/good") })),
        ("other-origin", json!({ "issuer": "other-origin", "jwks_uri": evil.url("/metadata") })),
        ("no-uri", json!({ "issuer": "no-uri" })),
        ("file", json!({ "issuer": "file", "jwks_uri": "file:///etc/passwd" })),
    ];
    for (name, document) in &documents {
        idp.answer(&format!("/{name}"), Answer::Json(document.to_string()));
        let url = idp.url(&format!("/{name}"));
        issuers += &format!(
            "    - {{ issuer: {name}, audiences: [postern], discovery: \"{url}\", interval: 1s, prefix: \"{name}:\" }}\n"
        );
    }
    let mut setup = Setup::with(&upstream);
    setup.more = format!("tokens:\n  trusted_issuers:\n{issuers}");
    let server = setup.start().await;
    let names: Vec<&str> =
        faults.iter().map(|(name, _)| *name).chain(documents.iter().map(|(name, _)| *name)).collect();
    for role in Role::BOTH {
        assert_eq!(status(&server, role, &key.token(&claims("good")), "/members/x").await, 200, "the others go on");
        for name in &names {
            let token = key.token(&claims(name));
            assert_eq!(status(&server, role, &token, "/members/x").await, 503, "{role:?} {name}: nobody can say");
            assert_eq!(status(&server, role, &token, "/public/x").await, 200, "{role:?} {name}: nobody has to");
        }
    }
    assert_eq!((evil.fetches("/jwks"), evil.fetches("/metadata"), idp.fetches("/elsewhere-here")), (0, 0, 0));
    // Back by itself.
    for (name, _) in &faults {
        idp.answer(&format!("/{name}"), Answer::Json(good.clone()));
    }
    for (name, _) in &faults {
        let token = key.token(&claims(name));
        eventually("the issuer is back", || async {
            (status(&server, Role::ForwardAuth, &token, "/members/x").await == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_reload_takes_other_keys_and_another_mapping_at_once() {
    let upstream = Upstream::start().await;
    let (old, new) = (Key::ed25519("old"), Key::ed25519("new"));
    let mut setup = Setup::with(&upstream);
    setup.files = vec![("config/idp.jwks.json".to_owned(), key_set(&[&old]))];
    setup.more = "tokens: { trusted_issuers: [{ issuer: idp, audiences: [postern], jwks_file: config/idp.jwks.json, prefix: \"a:\" }] }\n"
        .to_owned();
    let server = setup.start().await;
    let (by_old, by_new) = (old.token(&claims("idp")), new.token(&claims("idp")));
    let user = async |token: &str| {
        let reply = ask(&server, Role::ForwardAuth, token, "/members/x").await;
        reply.header("Remote-User").map(str::to_owned)
    };
    assert_eq!(user(&by_old).await.as_deref(), Some("a:carol"));
    server.write("config/idp.jwks.json", &key_set(&[&new]));
    eventually("the file is read again", || async {
        (user(&by_new).await.as_deref() == Some("a:carol")).then_some(())
    })
    .await;
    assert_eq!(user(&by_old).await, None, "though it was verified before");
    let config = std::fs::read_to_string(server.folder().join("config/postern.yaml")).expect("the configuration");
    server.write("config/postern.yaml", &config.replace("\"a:\"", "\"b:\""));
    eventually("the prefix is another", || async { (user(&by_new).await.as_deref() == Some("b:carol")).then_some(()) })
        .await;
    server.write("config/postern.yaml", config.split("tokens:").next().expect("a beginning"));
    eventually("nobody is trusted any more", || async { user(&by_new).await.is_none().then_some(()) }).await;
    let reply = ask(&server, Role::ForwardAuth, &by_new, "/members/x").await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("Location").is_some(), "now it is the application's own, and nobody is signed in: {reply:?}");
}

#[tokio::test]
async fn keys_come_over_tls_from_whom_the_system_trusts() {
    let upstream = Upstream::start().await;
    let (known, stranger) = (tls::certificate_for(&["localhost"]), tls::certificate_for(&["localhost"]));
    let (good, bad) = (Idp::over_tls(&known).await, Idp::over_tls(&stranger).await);
    let key = Key::es256("a");
    good.keys("/jwks", &[&key]);
    bad.keys("/jwks", &[&key]);
    let mut setup = Setup::with(&upstream);
    setup.files = vec![("tls/authorities.pem".to_owned(), known.certificate.clone())];
    // No proxy of the environment is asked.
    setup.environment = vec![
        ("SSL_CERT_FILE", "tls/authorities.pem".to_owned()),
        ("HTTPS_PROXY", bad.url("")),
        ("ALL_PROXY", bad.url("")),
    ];
    setup.more = format!(
        "tokens:\n  trusted_issuers:\n    - {{ issuer: good, audiences: [postern], jwks: \"{}\" }}\n    \
         - {{ issuer: bad, audiences: [postern], jwks: \"{}\", prefix: \"bad:\" }}\n",
        good.url("/jwks"),
        bad.url("/jwks"),
    );
    let server = setup.start().await;
    for role in Role::BOTH {
        assert_eq!(status(&server, role, &key.token(&claims("good")), "/members/x").await, 200, "{}", server.log());
        assert_eq!(status(&server, role, &key.token(&claims("bad")), "/members/x").await, 503);
    }
    assert_eq!(bad.fetches("/jwks"), 0, "whose certificate nobody vouches for is told nothing");
    assert!(server.log().contains("keys of a trusted issuer cannot be fetched"), "{}", server.log());
}
