//! The portal: where it sends people, what it believes, what it tells.

use std::time::Duration;

use serde_json::json;

use crate::harness::{
    client::Person,
    server::{PASSWORD, Server, Setup},
    upstream::Upstream,
    wire::{self, Reply, Request},
};

async fn scene() -> (Upstream, Server) {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    (upstream, server)
}

#[tokio::test]
async fn threat_38_a_name_in_any_case_is_one_person() {
    let (_upstream, server) = scene().await;
    for name in ["bob", "BOB", "Bob"] {
        let signed_in = server.sign_in(name).await;
        let me = server.portal(Request::get("/auth/me").cookie(signed_in.both())).await;
        assert!(me.body.contains("\"bob\""), "{me:?}");
    }
}

#[tokio::test]
async fn threat_39_an_unknown_name_looks_like_a_wrong_password() {
    let (_upstream, server) = scene().await;
    server.add_user("carol", &[]);
    server.run(&["user", "disable", "carol"]);
    let told = |reply: &Reply| {
        let mut body = reply.json();
        // The one thing that differs from answer to answer.
        body.as_object_mut().expect("an object").retain(|_, value| !is_request_id(value, reply));
        (reply.status, reply.header("Content-Type").map(str::to_owned), body)
    };
    let wrong = server.login("bob", "not bob's", &[]).await;
    let unknown = server.login("nobody", "not bob's", &[]).await;
    let disabled = server.login("carol", PASSWORD, &[]).await;
    assert_eq!(wrong.status, 401);
    assert_eq!(told(&wrong), told(&unknown));
    assert_eq!(told(&wrong), told(&disabled));
    // The fastest of four: what the work costs, without what a busy machine adds. With the one before there are no more before anybody waits.
    let (mut known, mut unknown) = (Duration::MAX, Duration::MAX);
    for _ in 0..4 {
        known = known.min(cost_of_a_failure(&server, "bob").await);
        unknown = unknown.min(cost_of_a_failure(&server, "nobody").await);
    }
    let ratio = known.as_secs_f64() / unknown.as_secs_f64();
    assert!((0.5..2.0).contains(&ratio), "known {known:?}, unknown {unknown:?}");
}

async fn cost_of_a_failure(server: &Server, user: &str) -> Duration {
    let before = clock();
    assert_eq!(server.login(user, "not theirs", &[]).await.status, 401);
    clock() - before
}

fn is_request_id(value: &serde_json::Value, reply: &Reply) -> bool {
    value.as_str().is_some_and(|text| reply.header("X-Request-Id").is_some_and(|id| text.contains(id)))
}

/// Time since the epoch, by the one clock that clippy.toml leaves to tests.
fn clock() -> Duration {
    Duration::from_micros(u64::try_from(jiff::Timestamp::now().as_microsecond()).expect("after 1970"))
}

#[tokio::test]
async fn threat_42_another_site_signs_nobody_in() {
    let (_upstream, server) = scene().await;
    let body = json!({ "username": "bob", "password": PASSWORD });
    let own = format!("http://{}", server.auth());
    let foreign: [&[(&str, &str)]; 6] = [
        &[("Origin", "http://evil.example")],
        &[("Origin", "null")],
        &[("Origin", "http://app.test.localhost")],
        &[("Sec-Fetch-Site", "cross-site")],
        &[("Sec-Fetch-Site", "same-site")],
        &[("Origin", own.as_str()), ("Sec-Fetch-Site", "cross-site")],
    ];
    for headers in foreign {
        let mut json = Request::new("POST", "/auth/login");
        let mut form = Request::new("POST", "/");
        for (name, value) in headers {
            json = json.header(name, *value);
            form = form.header(name, *value);
        }
        assert_eq!(server.portal(json.json(&body)).await.status, 403, "{headers:?}");
        let form = form.form(&[("username", "bob"), ("password", PASSWORD), ("csrf_token", "x")]);
        assert_eq!(server.portal(form).await.status, 403, "{headers:?}");
    }
    let permitted: [&[(&str, &str)]; 3] =
        [&[], &[("Origin", own.as_str())], &[("Origin", own.as_str()), ("Sec-Fetch-Site", "same-origin")]];
    for headers in permitted {
        assert_eq!(server.login("bob", PASSWORD, headers).await.status, 200, "{headers:?}");
    }
}

#[tokio::test]
async fn threat_42_a_form_needs_its_token() {
    let (_upstream, server) = scene().await;
    let url = format!("http://{}/", server.auth());
    let (one, other) = (Person::new(), Person::new());
    let (form, others) = (one.load(&url).await, other.load(&url).await);
    let token = form.input("csrf_token").expect("a token");
    let foreign = others.input("csrf_token").expect("a token");
    assert_ne!(token, foreign);
    for csrf_token in ["", "x", foreign.as_str()] {
        let fields = [("username", "bob"), ("password", PASSWORD), ("csrf_token", csrf_token)];
        let page = one.post(&url, &fields).await;
        assert_eq!(page.status, 403, "{csrf_token:?}: {}", page.body);
        assert!(
            page.headers.get_all("set-cookie").iter().all(|cookie| !cookie.as_bytes().starts_with(b"postern_session"))
        );
    }
    let without = server.portal(Request::new("POST", "/").form(&[("username", "bob"), ("password", PASSWORD)])).await;
    assert_eq!(without.status, 403);
    let plain = Request::new("POST", "/auth/login").header("Content-Type", "text/plain");
    let mut plain = plain;
    plain.body = json!({ "username": "bob", "password": PASSWORD }).to_string();
    let reply = server.portal(plain).await;
    assert!([400, 403, 415].contains(&reply.status), "JSON needs its content type: {reply:?}");
    assert_eq!(reply.set_cookie("postern_session"), None);
    let fields = [("username", "bob"), ("password", PASSWORD), ("csrf_token", token.as_str())];
    assert_eq!(one.post(&url, &fields).await.status, 303);
}

/// None of these is where a sign-in leads; each lands on the portal.
const FOREIGN: &[&str] = &[
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/%09/evil.example",
    "/\t/evil.example",
    "https://evil.example",
    "https://app.test.localhost@evil.example",
    "https://evil.example#app.test.localhost",
    "https://evil.example?app.test.localhost",
    "http://app.test.localhost.evil.example",
    "http://eviltest.localhost",
    "http://bob@app.test.localhost/",
    "http:evil.example",
    "http:/evil.example",
    "javascript:alert(1)",
    "JavaScript:alert(1)//http://app.test.localhost",
    "data:text/html,x",
    "ftp://app.test.localhost/",
    "http://[::1]/",
    "http://app.test.localhost\\@evil.example/",
    "http://evil.example\\.test.localhost/",
    "",
];

async fn next_of(server: &Server, rd: &str) -> Option<String> {
    let request = Request::new("POST", "/auth/login");
    let body = json!({ "username": "bob", "password": PASSWORD, "rd": rd, "rm": "GET" });
    let reply = server.portal(request.json(&body)).await;
    assert_eq!(reply.status, 200, "{rd}: {reply:?}");
    reply.json()["next"].as_str().map(str::to_owned)
}

#[tokio::test]
async fn threat_43_threat_44_a_foreign_rd_is_ignored() {
    let (_upstream, server) = scene().await;
    let own = format!("http://{}", server.auth());
    for rd in FOREIGN {
        if let Some(next) = next_of(&server, rd).await {
            assert!(next.starts_with('/') || next.starts_with(&own), "{rd} leads to {next}");
            assert!(!next.contains("evil"), "{rd} leads to {next}");
        }
        let person = Person::new();
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("rd", rd).finish();
        let form = person.load(format!("{own}/?{query}")).await;
        let welcome = person.sign_in(&form, "bob", PASSWORD).await;
        assert_eq!(welcome.status, 303, "{rd}: {}", welcome.body);
        assert_eq!(welcome.location().host_str(), Some("auth.test.localhost"), "{rd} leads to {}", welcome.location());
    }
    let inside = format!("http://{}/members/x?y=z", server.app());
    assert_eq!(next_of(&server, &inside).await.as_deref(), Some(inside.as_str()));
}

#[tokio::test]
async fn threat_44_no_way_down_from_https_to_http() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.portal = "{ url: \"https://auth.test.localhost\" }".to_owned();
    let server = setup.start().await;
    for (rd, followed) in [("https://app.test.localhost/x", true), ("http://app.test.localhost/x", false)] {
        let login = Request::new("POST", "/auth/login").host("auth.test.localhost");
        let body = json!({ "username": "bob", "password": PASSWORD, "rd": rd });
        let reply = wire::send(server.forward_auth(), &login.json(&body).bytes()).await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.json()["next"].as_str() == Some(rd), followed, "{rd}: {}", reply.body);
    }
}

#[tokio::test]
async fn threat_43_signing_out_leads_nowhere_foreign() {
    let (_upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    for rd in FOREIGN {
        let person = Person::new();
        let form = person.load(format!("http://{}/", server.auth())).await;
        person.sign_in(&form, "alice", PASSWORD).await;
        let query = form_urlencoded::Serializer::new(String::new()).append_pair("rd", rd).finish();
        let page = person.load(format!("http://{}/logout?{query}", server.auth())).await;
        assert_eq!(page.status, 200, "asked, never done by a link: {rd}");
        let left = person.sign_out(&page).await;
        let foreign =
            left.headers.contains_key("location") && left.location().host_str() != Some("auth.test.localhost");
        assert!(!foreign, "{rd} leads to {}", left.location());
    }
    assert_eq!(server.portal(Request::get("/auth/me").cookie(bob.both())).await.status, 200, "nobody else's sign-out");
}

#[tokio::test]
async fn a_page_of_the_portal_is_hard_to_misuse() {
    let (_upstream, server) = scene().await;
    let page = server.portal(Request::get("/").page()).await;
    assert_eq!(page.status, 200);
    let policy = page.header("Content-Security-Policy").expect("a CSP");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("form-action"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("default-src 'none'"), "{policy}");
    assert_eq!(page.header("Referrer-Policy"), Some("same-origin"));
    assert_eq!(page.header("X-Content-Type-Options"), Some("nosniff"));
    assert!(page.header("Cache-Control").is_some_and(|control| control.contains("no-store")), "{page:?}");
    assert!(!page.body.contains("<script"), "works without JavaScript");
}

#[tokio::test]
async fn the_keys_are_published_and_sign_the_access_token() {
    let (_upstream, server) = scene().await;
    let bob = server.sign_in("bob").await;
    let keys = server.portal(Request::get("/.well-known/jwks.json")).await;
    assert_eq!(keys.status, 200, "{keys:?}");
    // An upstream asks a `forward_auth` listener by whatever name it has there.
    let inside =
        wire::send(server.forward_auth(), &Request::get("/.well-known/jwks.json").host("postern:9091").bytes()).await;
    assert_eq!((inside.status, &inside.body), (200, &keys.body));
    let key = &keys.json()["keys"][0];
    assert_eq!((key["kty"].as_str(), key["crv"].as_str()), (Some("OKP"), Some("Ed25519")), "{key}");
    assert_eq!(key["d"], serde_json::Value::Null, "a private key");
    let decoding = jsonwebtoken::DecodingKey::from_ed_components(key["x"].as_str().expect("x")).expect("a key");
    let mut validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
    validation.set_audience(&["postern"]);
    let token = jsonwebtoken::decode::<serde_json::Value>(&bob.access_token, &decoding, &validation).expect("a token");
    assert_eq!(token.header.typ.as_deref(), Some("at+jwt"));
    assert_eq!(token.header.kid.as_deref(), key["kid"].as_str());
    assert_eq!(token.claims["sub"], "bob");
    assert_eq!(token.claims["sid"], bob.session_id.as_str());
    assert_eq!(token.claims["groups"], json!(["dev"]));
}

#[tokio::test]
async fn the_portal_is_alive_and_says_what_it_does_not_know() {
    let (_upstream, server) = scene().await;
    assert_eq!(server.portal(Request::get("/auth/health")).await.status, 200);
    let unknown = server.portal(Request::get("/auth/nothing").header("Accept", "application/json")).await;
    assert_eq!((unknown.status, unknown.header("Content-Type")), (404, Some("application/problem+json")));
    let anonymous = server.portal(Request::get("/auth/me")).await;
    assert_eq!((anonymous.status, anonymous.header("Content-Type")), (401, Some("application/problem+json")));
    assert!(anonymous.json()["code"].is_string());
}
