//! Programs in front of the real server: API tokens by `postern token`, service accounts, and Basic, in both roles.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::harness::{
    as_soon,
    browser::Browser,
    front::Front,
    server::{PASSWORD, Role, Server, Setup, feed},
    upstream::{Seen, Upstream},
    wire::{self, Reply, Request},
};

const BASIC: &str = "Basic realm=\"Authorization Required\"";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn api(path: &str) -> Request {
    Request::get(path).header("Accept", "application/json")
}

fn create(server: &Server, arguments: &[&str]) -> String {
    let printed = server.run(&[&["token", "create"], arguments].concat());
    let token = printed.strip_suffix('\n').expect("a line");
    assert!(!token.contains(char::is_whitespace), "nothing but the token, to be piped: {printed:?}");
    token.to_owned()
}

fn listed(server: &Server) -> Vec<Value> {
    let listed: Value = serde_json::from_str(&server.run(&["token", "list", "--format", "json"])).expect("JSON");
    listed.as_array().expect("a list").clone()
}

/// Both roles, asked with this `Authorization`.
async fn both(server: &Server, authorization: &str, request: Request) -> [Reply; 2] {
    let request = request.header("Authorization", authorization);
    [server.ask(Role::Edge, &request).await, server.ask(Role::ForwardAuth, &request).await]
}

async fn statuses(server: &Server, authorization: &str, path: &str) -> [u16; 2] {
    both(server, authorization, api(path)).await.map(|reply| reply.status)
}

/// A running server honours a command within a second.
async fn soon(server: &Server, what: &str, authorization: &str, path: &str, wanted: u16) {
    as_soon(Duration::from_secs(1), what, || async { statuses(server, authorization, path).await == [wanted; 2] })
        .await;
}

#[tokio::test]
async fn a_token_of_the_command_line_counts_until_it_is_revoked() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let token = create(&server, &["bob", "--name", "laptop"]);
    let bearer = format!("Bearer {token}");
    assert_eq!(statuses(&server, &bearer, "/members/x").await, [200; 2]);
    let [edge, gate] = both(&server, &bearer, api("/members/x")).await;
    let seen = Seen::of(&edge);
    assert_eq!((seen.header("Remote-User"), seen.header("Remote-Groups")), (Some("bob"), Some("dev")));
    assert_eq!((gate.header("Remote-User"), gate.header("Authorization")), (Some("bob"), Some("")));
    assert_eq!(statuses(&server, &bearer, "/admin/x").await, [403; 2], "no more than bob");
    for reply in both(&server, &bearer, api("/vault/x")).await {
        assert_eq!(reply.status, 401, "one factor: {reply:?}");
    }
    let [entry] = &listed(&server)[..] else { panic!("one token") };
    assert_eq!((&entry["kind"], &entry["owner"], &entry["name"]), (&"user".into(), &"bob".into(), &"laptop".into()));
    assert!(!entry.to_string().contains(&token) && !server.run(&["token", "list"]).contains(&token));
    let id = entry["id"].as_str().expect("an id").to_owned();
    assert_eq!(server.run(&["token", "revoke", &id]), "1 token is revoked\n");
    soon(&server, "revoked", &bearer, "/members/x", 401).await;
    for reply in both(&server, &bearer, Request::get("/members/x").page()).await {
        assert_eq!((reply.status, reply.header("Location")), (401, None));
        assert_eq!(reply.header("WWW-Authenticate"), Some("Bearer error=\"invalid_token\""));
    }
    let failures = server.metric("postern_auth_login_total", &["provider=\"api_token\"", "status=\"failure\""]).await;
    assert!(failures >= 4.0, "{failures}");
    let again = feed(&mut server.command(&["token", "revoke", &id]), "");
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert!(!server.log().contains(&token) && !server.log().contains(&token[12..50]), "THREATS 68");
}

#[tokio::test]
async fn threat_36_what_happens_to_bob_happens_to_his_tokens_and_to_basic_within_a_second() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    for (what, change, back) in [
        ("a changed password", &["user", "set-password", "bob", "--password-stdin"][..], None),
        ("a disabled user", &["user", "disable", "bob"], Some(&["user", "enable", "bob"][..])),
    ] {
        let bearer = format!("Bearer {}", create(&server, &["bob", "--name", "x"]));
        let password = basic("bob", PASSWORD);
        assert_eq!(statuses(&server, &bearer, "/members/x").await, [200; 2], "{what}");
        assert_eq!(statuses(&server, &password, "/members/x").await, [200; 2], "{what}");
        let output = feed(&mut server.command(change), "another long word");
        assert!(output.status.success(), "{output:?}");
        soon(&server, what, &bearer, "/members/x", 401).await;
        soon(&server, what, &password, "/members/x", 401).await;
        if let Some(back) = back {
            server.run(back);
            assert_eq!(statuses(&server, &bearer, "/members/x").await, [401; 2], "it never comes back");
        }
        server.run(&["user", "set-password", "bob", "--password-stdin"]);
        soon(&server, what, &password, "/members/x", 200).await;
    }
}

#[tokio::test]
async fn a_service_account_is_what_its_tokens_are() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.policies = r#"
default: deny
rules:
  - { name: people, domain: "*.test.localhost", path: "/people/**", policy: one_factor, subject: "user:ci" }
  - { name: machines, domain: "*.test.localhost", path: "/machines/**", policy: one_factor, subject: "client:ci" }
  - { name: deployers, domain: "*.test.localhost", path: "/deploy/**", policy: one_factor, subject: "group:deploy" }
"#
    .to_owned();
    let server = setup.start().await;
    let bearer =
        format!("Bearer {}", create(&server, &["--service", "ci", "--groups", "deploy", "--name", "pipeline"]));
    assert_eq!(statuses(&server, &bearer, "/people/x").await, [403; 2]);
    assert_eq!(statuses(&server, &bearer, "/machines/x").await, [200; 2]);
    assert_eq!(statuses(&server, &bearer, "/deploy/x").await, [200; 2]);
    let seen = Seen::of(&both(&server, &bearer, api("/deploy/x")).await[0]);
    assert_eq!((seen.header("Remote-User"), seen.header("Remote-Groups")), (Some("ci"), Some("deploy")));
    create(&server, &["--service", "ci", "--groups", "", "--name", "without groups"]);
    soon(&server, "other groups", &bearer, "/deploy/x", 403).await;
    let taken = feed(&mut server.command(&["token", "create", "--service", "BOB", "--name", "x"]), "");
    assert_eq!(taken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&taken.stderr).contains("\"bob\" is a user's name"), "{taken:?}");
    assert!(taken.stdout.is_empty(), "{taken:?}");
    assert_eq!(server.run(&["token", "revoke", "--service", "ci"]), "2 tokens of ci are revoked\n");
    soon(&server, "revoked", &bearer, "/machines/x", 401).await;
}

#[tokio::test]
async fn threat_50_a_token_counts_within_its_scopes_alone() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let own = create(&server, &["bob", "--name", "a", "--scopes", "read,host:app.test.localhost", "--expires", "12h"]);
    let other = create(&server, &["bob", "--name", "b", "--scopes", "host:other.test.localhost", "--expires", "never"]);
    let (own, other) = (format!("Bearer {own}"), format!("Bearer {other}"));
    assert_eq!(statuses(&server, &own, "/members/x").await, [200; 2]);
    let post = Request::new("POST", "/members/x").header("Accept", "application/json");
    for (authorization, request) in
        [(&own, post), (&other, api("/members/x")), (&other, Request::get("/members/x").page())]
    {
        for reply in both(&server, authorization, request).await {
            assert_eq!((reply.status, reply.header("Location")), (403, None));
            assert_eq!(reply.header("WWW-Authenticate"), Some("Bearer error=\"insufficient_scope\""));
            assert_eq!(reply.header("X-Postern-Rule"), Some("members"));
            if reply.header("Content-Type") == Some("application/problem+json") {
                assert_eq!(reply.json()["code"], "insufficient_scope");
            }
        }
    }
    assert_eq!(statuses(&server, &other, "/public/x").await, [200; 2], "where anybody may pass it is not looked at");
}

#[tokio::test]
async fn a_wrong_command_line_makes_no_token() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).prepare();
    for (arguments, code, told) in [
        (&["create", "bob"][..], 2, "--name"),
        (&["create", "--name", "x"], 2, "USER"),
        (&["create", "bob", "--service", "ci", "--name", "x"], 2, "cannot be used"),
        (&["create", "bob", "--groups", "a", "--name", "x"], 2, "--groups"),
        (&["create", "bob", "--name", "x", "--expires", "soon"], 2, "no duration"),
        (&["create", "bob", "--name", "x", "--expires", "0s"], 1, "for a while"),
        (&["create", "bob", "--name", "x", "--scopes", "write"], 1, "is no scope"),
        (&["create", "bob", "--name", " "], 1, "needs a name"),
        (&["create", "nobody", "--name", "x"], 1, "no user \"nobody\""),
        (&["create", "--service", "a,b", "--name", "x"], 1, "comma"),
        (&["revoke"], 2, "ID"),
        (&["revoke", "nobodys"], 1, "token list"),
        (&["revoke", "--user", "bbo"], 1, "no user \"bbo\""),
        (&["list", "--format", "yaml"], 2, "yaml"),
    ] {
        let output = feed(&mut server.command(&[&["token"], arguments].concat()), "");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains(told) && output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
    assert!(listed(&server).is_empty());
}

#[tokio::test]
async fn basic_lets_in_and_is_kept_from_the_application() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let [edge, gate] = both(&server, &basic("BOB", PASSWORD), api("/members/x")).await;
    let seen = Seen::of(&edge);
    assert_eq!((seen.header("Remote-User"), seen.header("Authorization")), (Some("bob"), None));
    assert_eq!((gate.status, gate.header("Remote-User"), gate.header("Authorization")), (200, Some("bob"), Some("")));

    // The application's own, beside a session and where anybody may pass.
    let theirs = basic("bob", "the application's own");
    let bob = server.sign_in("bob").await;
    for request in [api("/members/x").cookie(bob.gate.clone()), api("/public/x")] {
        let [edge, gate] = both(&server, &theirs, request).await;
        assert_eq!(Seen::of(&edge).header("Authorization"), Some(&*theirs));
        assert_eq!((gate.status, gate.header("Authorization")), (200, Some(&*theirs)));
    }
    assert_eq!(server.metric("postern_auth_login_total", &["provider=\"basic\"", "status=\"failure\""]).await, 0.0);
}

#[tokio::test]
async fn threat_37_a_wrong_password_by_basic_is_a_challenge_counted_like_a_sign_in() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let wrong = basic("bob", "wrong");
    for reply in both(&server, &wrong, api("/members/x")).await {
        assert_eq!((reply.status, reply.header("Location")), (401, None), "{reply:?}");
        assert_eq!(reply.header("WWW-Authenticate"), Some(BASIC));
        assert_eq!(reply.json()["code"], "invalid_credentials");
    }
    for reply in both(&server, &wrong, Request::get("/members/x").page()).await {
        assert_eq!(reply.status, 302, "a page: browsers resend an application's own password");
        assert!(reply.header("Location").is_some() && reply.header("WWW-Authenticate").is_none(), "{reply:?}");
    }
    let ask = |path: &str| {
        Request::get(path)
            .host("postern")
            .header("X-Original-URL", format!("http://{}/members/x", server.app()))
            .header("X-Original-Method", "GET")
    };
    let told = async |request: Request| {
        let reply = wire::send(server.forward_auth(), &request.bytes()).await;
        let header = |name: &str| reply.header(name).map(str::to_owned);
        (reply.status, header("WWW-Authenticate"), header("Location").is_some(), header("X-Postern-Status"))
    };
    let challenge = Some(BASIC.to_owned());
    let auth_request = ask("/api/authz/auth-request");
    let failed = auth_request.clone().header("Authorization", &wrong);
    assert_eq!(told(failed).await, (401, challenge.clone(), false, Some("401".to_owned())));
    let right = basic("bob", PASSWORD);
    let first = auth_request.clone().header("Proxy-Authorization", &right).header("Authorization", &wrong);
    assert_eq!(told(first).await.0, 200, "Proxy-Authorization comes first");
    let first = auth_request.header("Proxy-Authorization", &wrong).header("Authorization", &right);
    assert_eq!(told(first).await.0, 401);

    // As older set-ups of Authelia have it.
    for (path, header, authorization, expected) in [
        ("/api/verify?auth=basic", "Authorization", &right, (200, None)),
        ("/api/verify?auth=basic", "Authorization", &wrong, (401, challenge.clone())),
        ("/api/verify?auth=basic", "Proxy-Authorization", &right, (401, challenge.clone())),
        ("/api/verify", "Proxy-Authorization", &right, (200, None)),
        ("/api/verify", "Proxy-Authorization", &wrong, (401, challenge.clone())),
        ("/api/verify", "Authorization", &right, (401, None)),
    ] {
        let (status, challenge, has_location, _) = told(ask(path).header(header, authorization)).await;
        assert_eq!((status, challenge, has_location), (expected.0, expected.1, false), "{path} by {header}");
    }
    let (status, asked, ..) = told(ask("/api/verify?auth=basic")).await;
    assert_eq!((status, asked), (401, challenge), "nobody yet: it asks");

    let failures = server.metric("postern_auth_login_total", &["provider=\"basic\"", "status=\"failure\""]).await;
    assert_eq!(failures, 8.0);
    let log = server.log();
    assert!(log.contains("sign_in_failed") && !log.contains("wrong"), "put on record, without the password");
}

/// Pictures for people to judge: the section of the account page, a new token, the phone.
#[tokio::test]
async fn a_token_is_made_in_a_browser() {
    let front = Front::edge().await;
    let browser = Browser::start().await;
    browser.open(&front.portal("/")).await;
    browser.fill("input[name=username]", "bob").await;
    browser.fill("input[name=password]", PASSWORD).await;
    browser.click("form button[type=submit]").await;
    browser.waits_for_text("API tokens").await;
    browser.screenshot("tokens-1-none").await;

    browser.click("summary").await;
    browser.fill("#token-name", "Backup of the wiki").await;
    browser.fill("#token-hosts", "not a host!").await;
    browser.click("form[action$='/account/tokens'] button").await;
    browser.find("#token-hosts[aria-invalid=true]").await;
    browser.find(".field:has(#token-hosts) [role=alert]").await;
    browser.screenshot("tokens-2-wrong-host").await;

    // What was typed is still there.
    browser.find("#token-name[value='Backup of the wiki']").await;
    browser.run("document.querySelector('#token-hosts').value = ''").await;
    browser.fill("#token-hosts", "app.test.localhost").await;
    browser.click("input[name=read]").await;
    browser.click("form[action$='/account/tokens'] button").await;
    browser.waits_for_text("Your new token").await;
    browser.screenshot("tokens-3-made").await;
    let token = browser.run("return document.querySelector('#token').value").await;
    let bearer = format!("Bearer {}", token.as_str().expect("a token"));
    assert_eq!(statuses(&front.server, &bearer, "/members/x").await, [200; 2]);

    browser.follow("I have copied it").await;
    browser.waits_for_text("Backup of the wiki").await;
    front.server.run(&[
        "token",
        "create",
        "bob",
        "--name",
        "a name that is so long that it needs more than one line on any telephone",
    ]);
    browser.open(&front.portal("/account")).await;
    browser.screenshot("tokens-4-listed").await;
    browser.resize(390, 844).await;
    let fits = "return document.documentElement.scrollWidth <= window.innerWidth";
    browser.open(&front.portal("/account")).await;
    browser.click("summary").await;
    browser.screenshot("tokens-5-phone").await;
    assert_eq!(browser.run(fits).await, true);
    browser.click("form[action$='/revoke'] button").await;
    browser.waits_for_text("That token is revoked.").await;
}
