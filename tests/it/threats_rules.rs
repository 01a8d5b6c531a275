//! What a rule looks at beside host and path, told in ways that mean two things: addresses and methods.

use crate::harness::{
    server::{Role, Server, Setup},
    upstream::{Seen, Upstream},
    wire::{self, Request},
};

/// Both roles believe the test, which stands where a proxy would.
async fn trusting(upstream: &Upstream, policies: &str) -> Server {
    let mut setup = Setup::with(upstream).policies(policies);
    setup.edge += ", trusted_proxies: [127.0.0.1/32]";
    setup.start().await
}

/// As [`Server::ask`], with nothing or with this in `X-Forwarded-For`.
async fn ask_for(server: &Server, role: Role, path: &str, forwarded_for: Option<&str>) -> u16 {
    let (port, request) = match role {
        Role::Edge => (server.edge(), Request::get(path).host(server.app())),
        Role::ForwardAuth => {
            let question = Request::get("/api/authz/forward-auth").host("postern");
            let described = question.header("X-Forwarded-Proto", "http").header("X-Forwarded-Host", server.app());
            (server.forward_auth(), described.header("X-Forwarded-Method", "GET").header("X-Forwarded-Uri", path))
        }
    };
    let request = match forwarded_for {
        Some(entries) => request.header("X-Forwarded-For", entries),
        None => request,
    };
    wire::send(port, &request.bytes()).await.status
}

const NETWORKS: &str = r#"
default: deny
networks: { banned: [192.0.2.0/24], office: [10.0.0.0/8] }
rules:
  - { name: banned, domain: "*.test.localhost", path: ["/public/**"], networks: [banned], policy: deny }
  - { name: public, domain: "*.test.localhost", path: ["/public/**"], policy: bypass }
  - { name: office, domain: "*.test.localhost", path: ["/office/**"], networks: [office], policy: bypass }
  - { name: others, domain: "*.test.localhost", path: ["/office/**"], policy: deny }
"#;

#[tokio::test]
async fn threat_20_an_address_that_cannot_be_parsed_is_in_no_network_and_out_of_none_in_both_roles() {
    let upstream = Upstream::start().await;
    let server = trusting(&upstream, NETWORKS).await;
    let thousand = |last: &str| format!("{}, {last}", vec!["192.0.2.7"; 999].join(", "));
    let (good, bad, local) = (thousand("10.1.2.3"), thousand("192.0.2.9"), thousand("127.0.0.1"));
    for role in Role::BOTH {
        for (entries, public, office) in [
            ("10.1.2.3", 200, 200),
            ("198.51.100.7", 200, 403),
            ("192.0.2.7", 403, 403),
            // The rightmost that is not itself trusted counts, however many a client put before it.
            ("192.0.2.7, 10.1.2.3", 200, 200),
            ("10.1.2.3, 192.0.2.7", 403, 403),
            ("10.1.2.3, 127.0.0.1", 200, 200),
            ("::ffff:10.1.2.3", 200, 200),
            (&good, 200, 200),
            (&bad, 403, 403),
            (&local, 403, 403),
            // Nobody knows who these are: a rule that asks refuses, whatever it would have said.
            ("a", 403, 403),
            ("10.1.2.3, a", 403, 403),
            ("10.1.2.3,", 403, 403),
            ("10.1.2.3.4", 403, 403),
            ("010.1.2.3", 403, 403),
            ("10.1.2.3/8", 403, 403),
            ("127.0.0.1", 403, 403),
            ("", 403, 403),
        ] {
            let short = entries.get(..40).unwrap_or(entries);
            assert_eq!(ask_for(&server, role, "/public/x", Some(entries)).await, public, "{role:?} public {short:?}");
            assert_eq!(ask_for(&server, role, "/office/x", Some(entries)).await, office, "{role:?} office {short:?}");
        }
    }
}

#[tokio::test]
async fn threat_67_a_deny_by_network_refuses_an_unknown_address_in_both_roles() {
    let upstream = Upstream::start().await;
    let server = trusting(&upstream, NETWORKS).await;
    for role in Role::BOTH {
        assert_eq!(ask_for(&server, role, "/public/x", Some("198.51.100.7")).await, 200, "{role:?}");
        // A trusted proxy that does not say whom it speaks for.
        assert_eq!(ask_for(&server, role, "/public/x", None).await, 403, "{role:?}");
        assert_eq!(ask_for(&server, role, "/office/x", None).await, 403, "{role:?}");
    }
}

#[tokio::test]
async fn threat_56_a_method_is_the_one_that_came_in_both_roles() {
    const METHODS: &str = r#"
default: deny
rules:
  - { name: reading, domain: "*.test.localhost", path: ["/x"], methods: [get, HEAD], policy: bypass }
  - { name: tracing, domain: "*.test.localhost", path: ["/trace"], methods: [TRACE], policy: deny }
  - { name: the rest, domain: "*.test.localhost", path: ["/trace"], policy: bypass }
"#;
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).policies(METHODS).start().await;
    for role in Role::BOTH {
        for (method, path, status) in [
            ("GET", "/x", 200),
            ("HEAD", "/x", 200),
            ("POST", "/x", 403),
            ("TRACE", "/x", 403),
            ("TRACE", "/trace", 403),
            ("get", "/x", 400),
            ("Get", "/x", 400),
            ("trace", "/trace", 400),
        ] {
            let reply = server.ask(role, &Request::new(method, path)).await;
            assert_eq!(reply.status, status, "{role:?} {method} {path}: {reply:?}");
        }
        for name in ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"] {
            let disguised = server.ask(role, &Request::new("POST", "/x").header(name, "GET")).await;
            assert_eq!(disguised.status, 403, "{role:?} {name}: {disguised:?}");
            let other = server.ask(role, &Request::get("/x").header(name, "DELETE")).await;
            assert_eq!(other.status, 200, "{role:?} {name}: {other:?}");
            if role == Role::Edge {
                let seen = Seen::of(&other);
                assert_eq!(seen.all(name), Vec::<&str>::new(), "the application never hears of it");
            }
        }
    }
}
