//! `postern policy replay`: what a server wrote down, decided again by the same and by other rules.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{
    server::{Role, Server, Setup, feed, write},
    upstream::Upstream,
    wire::Request,
};

const BEFORE: &str = r#"
default: deny
rules:
  - { name: debug, domain: "*.test.localhost", query: [{ key: debug, value: "1" }], policy: deny }
  - { name: token, domain: "*.test.localhost", query: [{ key: token, value: "1" }], policy: deny }
  - { name: closed, domain: "*.test.localhost", path: "/closed/**", policy: deny }
  - { name: public, domain: "*.test.localhost", path: "/public/**", policy: bypass }
  - { name: admins, domain: "*.test.localhost", path: "/admin/**", subject: "group:admins", policy: one_factor }
  - { name: not admins, domain: "*.test.localhost", path: "/admin/**", policy: deny }
  - { name: fresh, domain: app.test.localhost, path: "/fresh", policy: one_factor, max_auth_age: 1h }
  - { name: members, domain: app.test.localhost, networks: [0.0.0.0/0], policy: one_factor }
"#;

/// `public` closes, `not admins` opens, and `verbose` reads what nobody wrote down.
fn after() -> String {
    let verbose = "  - { name: verbose, domain: app.test.localhost, path: /v, query: [{ key: verbose }], policy: deny }\n  - { name: fresh";
    BEFORE
        .replace("path: \"/public/**\", policy: bypass", "path: \"/public/**\", policy: one_factor")
        .replace(
            "{ name: not admins, domain: \"*.test.localhost\", path: \"/admin/**\", policy: deny }",
            "{ name: everybody, domain: \"*.test.localhost\", path: \"/admin/**\", policy: one_factor }",
        )
        .replace("  - { name: fresh", verbose)
}

/// How many requests the rules are asked about in each role.
const ASKED: u64 = 17;

async fn recorded() -> Server {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream).policies(BEFORE);
    setup.more = "log: { access: access.log }\nencoded_slashes: strictest\n".to_owned();
    setup.route = ", encoded_slashes: strictest".to_owned();
    let mut server = setup.start().await;
    let (alice, bob) = (server.sign_in("alice").await, server.sign_in("bob").await);
    let bearer = |path: &str, tail: &str| {
        Request::get(path).header("Authorization", format!("Bearer {}{tail}", bob.access_token))
    };
    let by = |path: &str| Request::get(path).cookie(bob.both());
    let requests = [
        Request::get("/public/x?secret=query-secret"),
        bearer("/public/y", ""),
        Request::get("/members/x").page(),
        by("/members/x?secret=query-secret"),
        by("/fresh"),
        bearer("/members/x", ""),
        bearer("/members/x", "x"),
        bearer("/closed/x", "x"),
        by("/admin/x"),
        Request::get("/admin/x").cookie(alice.both()),
        by("/members/x?debug=1&secret=query-secret"),
        by("/members/x?debug=0&debug=1"),
        by("/members/x?debug=0&token=query-secret"),
        by("/members;v=1/x?Debug=1;token=query-secret"),
        by("/admin%2Fx"),
        by("/v?verbose=query-secret"),
        by("/v"),
        // Not asked about.
        by("/public/../x?debug=query-secret"),
    ];
    for request in &requests {
        for role in Role::BOTH {
            server.ask(role, request).await;
        }
    }
    server.stop().await;
    let log = fs::read_to_string(server.folder().join("access.log")).expect("the access log");
    for secret in
        [&bob.gate, &bob.portal, &bob.access_token, &alice.gate, "query-secret", crate::harness::server::PASSWORD]
    {
        let value = secret.split_once('=').map_or(secret, |(_, value)| value);
        assert!(!log.contains(value), "threat 68: {secret} in {log}");
    }
    server
}

fn replay(server: &Server, policies: &str) -> Value {
    server.write("other/access.yaml", policies);
    let told = server.run(&["policy", "replay", "--log", "access.log", "--policies", "other", "--format", "json"]);
    serde_json::from_str(&told).unwrap_or_else(|fault| panic!("{fault}: {told}"))
}

#[tokio::test]
async fn threat_68_a_log_replays_without_what_it_must_not_hold() {
    let server = recorded().await;
    let told = replay(&server, BEFORE);
    let log = fs::read_to_string(server.folder().join("access.log")).expect("the access log");
    assert_eq!(told["changed"], json!({ "opens": 0, "closes": 0, "other": 0 }), "{told:#} {log}");
    // A rule read the value of a parameter that may be a credential, and one with another behind a `;`: neither is written down.
    let unknowns = told["unknowns"].as_array().expect("a list").iter();
    let unknowns: Vec<_> = unknowns.map(|unknown| (unknown["rule"].as_str(), unknown["count"].as_u64())).collect();
    assert_eq!(unknowns, [(Some("debug"), Some(2)), (Some("token"), Some(2))], "{told:#} {log}");
    assert_eq!((&told["unchanged"], &told["by_another_rule"]), (&json!(2 * ASKED - 4), &json!(0)), "{told:#} {log}");
    // Two sign-ins, and a dot segment in each role.
    assert_eq!(told["skipped"], json!({ "no_rule": 4 }), "{told:#} {log}");
    assert_eq!(told["lines"], json!(2 * ASKED + 4));

    let told = replay(&server, &after());
    assert_eq!(told["changed"], json!({ "opens": 4, "closes": 2, "other": 0 }), "{told:#} {log}");
    let change = |place: usize| {
        let change = &told["changes"][place];
        let part = |of: &str| format!("{} by {}", change[of]["verdict"], change[of]["rule"]).replace('"', "");
        (part("recorded"), part("replayed"), change["count"].clone(), change["samples"][0]["path"].clone())
    };
    let told_as = |then: &str, now: &str, path: &str| (then.to_owned(), now.to_owned(), json!(2), json!(path));
    assert_eq!(change(0), told_as("refuse by not admins", "forward by everybody", "/admin/x"));
    // An encoded slash is a character in one reading, and the log holds the other as well.
    assert_eq!(change(1), told_as("refuse by not admins", "forward by members", "/admin%2Fx"));
    assert_eq!(change(2), told_as("forward by public", "sign_in by public", "/public/x"));
    let users = json!([
        { "user": "bob", "opens": 4, "closes": 0, "other": 0 }, { "user": null, "opens": 0, "closes": 2, "other": 0 },
    ]);
    assert_eq!(told["users"], users);
    let unknown = |rule: Value| {
        let unknowns = told["unknowns"].as_array().expect("a list");
        unknowns.iter().find(|unknown| unknown["rule"] == rule).map(|unknown| unknown["count"].clone())
    };
    // `verbose` was not written down; the token that came for a public page was not looked at.
    assert_eq!((unknown(json!("verbose")), unknown(Value::Null)), (Some(json!(2)), Some(json!(2))), "{told:#}");

    let text = server.run(&["policy", "replay", "--log", "access.log", "--policies", "other"]);
    let (opens, closes) = (text.find("OPENS").expect("what opens"), text.find("CLOSES").expect("what closes"));
    assert!(opens < closes && text.contains("refuse by \"not admins\" -> forward by \"everybody\""), "{text}");
    assert!(!text.contains('\u{1b}'), "no colour where nobody looks: {text}");

    let piped = ["policy", "replay", "--log", "-", "--policies", "other"];
    let piped = feed(&mut server.command(&piped), log.trim_end());
    assert_eq!(String::from_utf8(piped.stdout).expect("UTF-8"), text, "from standard input");
}

#[test]
fn what_cannot_be_replayed_is_a_fault() {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    write(folder.path(), "policies/access.yaml", BEFORE);
    write(folder.path(), "broken/access.yaml", "rules: [{ policy: maybe }]");
    write(folder.path(), "text.log", "2024-02-29T12:34:56.007Z edge 200 forward \"GET\" \"https://a.test/\"\n");
    write(folder.path(), "empty.log", "");
    for (log, policies, code, word) in [
        ("empty.log", "policies", 0, ""),
        ("text.log", "policies", 1, "log.format"),
        ("no-such.log", "policies", 1, "cannot read no-such.log"),
        ("policies", "policies", 1, "cannot read policies"),
        ("empty.log", "broken", 1, "broken/access.yaml:1:"),
        ("empty.log", "no-such-folder", 1, "no-such-folder"),
    ] {
        let arguments = ["policy", "replay", "--log", log, "--policies", policies];
        let output = feed(crate::harness::server::postern(&arguments).current_dir(folder.path()), "");
        assert_eq!(output.status.code(), Some(code), "{log} {policies}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(word), "{log} {policies}: {output:?}");
    }
}
