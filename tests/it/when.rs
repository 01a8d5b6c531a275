//! Expressions over the user, the request, the session and the route, on live requests in both roles.

use crate::harness::{
    server::{PASSWORD, Role, Setup, feed, postern},
    upstream::Upstream,
    wire::Request,
};

const RULES: &str = r#"
default: deny
attributes: { tier: string, seats: int }
rules:
  - { name: beta, domain: "*.test.localhost", path: /beta/**, policy: bypass, when: 'request.headers["X-Beta"] == "on" && request.method == "GET"' }
  - { name: premium, domain: "*.test.localhost", path: /premium/**, policy: one_factor, when: 'user.tier in ["premium"] && user.seats >= 5' }
  - { name: fresh, domain: "*.test.localhost", path: /fresh/**, policy: one_factor, when: 'session.age < duration("1h") && session.factor == "one"' }
  - { name: query, domain: "*.test.localhost", path: /query/**, policy: one_factor, when: 'request.query.mode == "safe"' }
  - { name: members, domain: "*.test.localhost", path: /members/**, policy: one_factor }
"#;

#[tokio::test]
async fn expressions_decide_in_both_roles_and_errors_refuse_and_are_counted() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).policies(RULES).prepare();
    server.run(&["user", "set", "alice", "--attribute", "tier=premium", "--attribute", "seats:=5"]);
    server.run(&["user", "set", "bob", "--attribute", "tier=free", "--attribute", "seats:=9"]);
    server.launch().await;
    let (alice, bob) = (server.sign_in("alice").await, server.sign_in("bob").await);
    let page = |path: &str| Request::get(path);
    for (request, status) in [
        (page("/beta/x").header("X-Beta", "on"), 200),
        (page("/beta/x").header("X-Beta", "off"), 403),
        (page("/beta/x"), 403),
        (page("/premium/x"), 401),
        (page("/premium/x").cookie(alice.gate.clone()), 200),
        (page("/premium/x").cookie(bob.gate.clone()), 403),
        (page("/fresh/x").cookie(bob.gate.clone()), 200),
        (page("/query/x?mode=safe").cookie(bob.gate.clone()), 200),
        (page("/query/x?mode=other").cookie(bob.gate.clone()), 403),
        (page("/query/x?mode=safe&mode=other").cookie(bob.gate.clone()), 403),
        (page("/query/x").cookie(bob.gate.clone()), 403),
    ] {
        for role in [Role::Edge, Role::ForwardAuth] {
            let reply = server.ask(role, &request).await;
            assert_eq!(reply.status, status, "{role:?} {request:?}: {reply:?}");
        }
    }
    // No header X-Beta; a query that is read in two ways; none. Each in both roles.
    for (rule, count) in [("beta", 2.0), ("query", 4.0), ("premium", 0.0)] {
        let label = format!("rule=\"{rule}\"");
        assert_eq!(server.metric("postern_rule_errors_total", &[&label]).await, count, "{rule}");
    }
    // A change of an attribute counts within a second, without a new sign-in.
    server.run(&["user", "set", "alice", "--attribute", "tier="]);
    crate::harness::eventually("alice has no tier any more", async || {
        let reply = server.ask(Role::Edge, &page("/premium/x").cookie(alice.gate.clone())).await;
        (reply.status == 403).then_some(())
    })
    .await;
    assert_eq!(server.ask(Role::Edge, &page("/members/x").cookie(alice.gate.clone())).await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn attributes_come_from_a_users_file_as_well() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream).policies(RULES);
    setup.more = "users: { source: file, path: config/users.yaml }".to_owned();
    let hash = String::from_utf8(feed(&mut postern(&["hash"]), PASSWORD).stdout).expect("a hash");
    let hash = hash.trim();
    let users = format!(
        "users:\n  carol:\n    displayname: Carol\n    password: '{hash}'\n    extra:\n      tier: premium\n      seats: 7\n"
    );
    setup.files.push(("config/users.yaml".to_owned(), users));
    let mut server = setup.prepare_without_users();
    server.launch().await;
    let carol = server.sign_in("carol").await;
    for role in [Role::Edge, Role::ForwardAuth] {
        let reply = server.ask(role, &Request::get("/premium/x").cookie(carol.gate.clone())).await;
        assert_eq!(reply.status, 200, "{role:?}: {reply:?}");
    }
    server.stop().await;
}
