//! Roles, permissions and organisations on live requests, in both roles of a listener.

use std::fs;

use crate::harness::{
    eventually,
    server::{Role, Setup},
    upstream::{Seen, Upstream},
    wire::Request,
};

const RULES: &str = r#"
default: deny
orgs: { acme: { members: "group:acme" } }
roles:
  viewer: { level: 20, permissions: ["read:reports"] }
  admin: { level: 60, inherits: viewer, permissions: ["manage:*"] }
bindings:
  - { role: viewer, subject: everyone }
  - { role: admin, subject: "group:admins" }
  - { role: admin, subject: "user:bob", org: acme }
rules:
  - { name: public, domain: "*.test.localhost", path: /public/**, policy: bypass }
  - { name: reports, domain: "*.test.localhost", path: /reports/**, policy: one_factor, subject: "permission:read:reports" }
  - { name: users, domain: "*.test.localhost", path: /users/**, policy: one_factor, subject: "permission:manage:users" }
  - { name: acme, domain: "*.test.localhost", path: /acme/**, policy: one_factor, subject: [["role:admin", "org:acme"]] }
"#;

#[tokio::test]
async fn roles_decide_and_reach_the_application_where_it_asks_for_them() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream).policies(RULES);
    setup.route = ", headers: { Remote-Roles: \"{user.roles}\", X-Plain: \"{user.name}\" }".to_owned();
    setup.forward_auth += ", headers: { Remote-Roles: \"{user.roles}\" }";
    let mut server = setup.start().await;
    let (alice, bob) = (server.sign_in("alice").await, server.sign_in("bob").await);
    for (who, path, status) in [
        (&alice, "/reports/1", 200),
        (&alice, "/users/1", 200),
        (&alice, "/acme/1", 403),
        (&bob, "/reports/1", 200),
        (&bob, "/users/1", 403),
        (&bob, "/acme/1", 200),
    ] {
        for role in [Role::Edge, Role::ForwardAuth] {
            let reply = server.ask(role, &Request::get(path).cookie(who.gate.clone())).await;
            assert_eq!(reply.status, status, "{role:?} {path}: {reply:?}");
        }
    }
    let forged = |path: &str| Request::get(path).header("Remote-Roles", "owner").header("remote_roles", "owner");
    let spoofed = Request::get("/reports/1").header("Remote_Roles", "owner").cookie(bob.gate.clone());
    assert_eq!(server.ask(Role::ForwardAuth, &spoofed).await.status, 400, "a proxy would pass it on");
    for (who, roles) in [(&alice, "admin,viewer"), (&bob, "viewer,acme/admin")] {
        let seen = Seen::of(&server.ask(Role::Edge, &forged("/reports/1").cookie(who.gate.clone())).await);
        assert_eq!(seen.all("Remote-Roles"), [roles]);
        assert!(!format!("{seen:?}").contains("owner"), "{seen:?}");
        let plain = Request::get("/reports/1").header("Remote-Roles", "owner").cookie(who.gate.clone());
        let reply = server.ask(Role::ForwardAuth, &plain).await;
        assert_eq!(reply.all("Remote-Roles").collect::<Vec<_>>(), [roles]);
    }
    let anonymous = Seen::of(&server.ask(Role::Edge, &forged("/public/x")).await);
    assert_eq!(anonymous.all("Remote-Roles"), Vec::<&str>::new());
    let reply = server.ask(Role::ForwardAuth, &Request::get("/public/x").header("Remote-Roles", "owner")).await;
    assert_eq!(reply.all("Remote-Roles").collect::<Vec<_>>(), [""]);
    server.stop().await;
}

#[tokio::test]
async fn a_binding_that_is_taken_out_counts_no_more_after_the_reload() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).policies(RULES).start().await;
    let bob = server.sign_in("bob").await;
    let ask = || Request::get("/acme/1").cookie(bob.gate.clone());
    assert_eq!(server.ask(Role::Edge, &ask()).await.status, 200);
    let without = RULES.replace("  - { role: admin, subject: \"user:bob\", org: acme }\n", "");
    assert_ne!(without, RULES);
    fs::write(server.folder().join("policies/access.yaml"), without).expect("the policies");
    eventually("bob is an admin no more", async || (server.ask(Role::Edge, &ask()).await.status == 403).then_some(()))
        .await;
    assert_eq!(server.ask(Role::ForwardAuth, &ask()).await.status, 403);
    server.stop().await;
}
