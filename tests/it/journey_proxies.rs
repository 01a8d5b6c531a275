//! The role `forward_auth`: NGINX, Caddy, HAProxy, Envoy and Traefik stand towards browsers and ask, each with its sample of `deploy/`.

use crate::{
    harness::{
        DOMAIN,
        front::Front,
        proxy::Kind,
        upstream::Seen,
        wire::{self, Request},
    },
    journeys,
};

macro_rules! through {
    ($($module:ident: $kind:expr,)*) => {$(
        mod $module {
            use super::*;

            #[tokio::test]
            async fn a_person_signs_in_and_comes_back() {
                journeys::a_person_signs_in_and_comes_back(&Front::behind($kind).await).await;
            }

            #[tokio::test]
            async fn threat_23_threat_29_the_upstream_sees_our_headers_and_no_others() {
                journeys::the_upstream_sees_our_headers_and_no_others(&Front::behind($kind).await).await;
            }

            #[tokio::test]
            async fn each_verdict_reaches_the_client() {
                journeys::each_verdict_reaches_the_client(&Front::behind($kind).await).await;
            }

            #[tokio::test]
            async fn threat_61_a_websocket_is_let_through_for_its_own_origin_alone() {
                journeys::a_websocket_is_let_through(&Front::behind($kind).await).await;
            }

            #[tokio::test]
            async fn the_gate_stays_shut_while_postern_is_away() {
                stays_shut(Front::behind($kind).await).await;
            }

            #[tokio::test]
            async fn threat_24_a_respelled_identity_header_never_arrives() {
                respelled(&Front::behind($kind).await).await;
            }

            #[tokio::test]
            async fn threat_25_a_connection_header_does_not_take_ours_away() {
                nominated(&Front::behind($kind).await).await;
            }

            #[tokio::test]
            async fn threat_52_nothing_but_a_websocket_becomes_a_tunnel() {
                tunnels(&Front::behind($kind).await).await;
            }

            #[tokio::test]
            async fn the_clients_query_does_not_choose_the_portal() {
                chosen(&Front::behind($kind).await).await;
            }

            #[tokio::test]
            async fn threat_15_two_hosts_in_one_header_are_never_two_readings() {
                hosts(&Front::behind($kind).await).await;
            }
        }
    )*};
}

through! {
    nginx: Kind::Nginx,
    caddy: Kind::Caddy,
    haproxy: Kind::Haproxy,
    envoy: Kind::Envoy,
    traefik: Kind::Traefik,
}

async fn stays_shut(mut front: Front) {
    let alice = front.server.sign_in("alice").await;
    let page = Request::get("/public/x").cookie(alice.gate);
    assert_eq!(front.send(page.clone()).await.status, 200);
    front.server.stop().await;
    let before = front.upstream.seen().len();
    let reply = front.send(page).await;
    assert!([403, 500, 502, 503, 504].contains(&reply.status), "{reply:?}");
    assert_eq!(front.upstream.seen().len(), before, "nothing passes a gate without its keeper");
}

/// Some applications read `Remote_User` as `Remote-User`: it is refused, or dropped on the way.
async fn respelled(front: &Front) {
    for name in ["Remote_User", "REMOTE_USER", "Remote.User", "remote_user"] {
        let reply = front.send(Request::get("/public/x").header(name, "alice")).await;
        assert!([200, 400].contains(&reply.status), "{name}: {reply:?}");
    }
    for seen in front.upstream.seen() {
        assert!(!format!("{seen:?}").contains("alice"), "{seen:?}");
    }
}

async fn nominated(front: &Front) {
    let alice = front.server.sign_in("alice").await;
    for named in ["close, Remote-User", "remote-user, close", "close, remote-groups, x-forwarded-for, x-request-id"] {
        let reply = front.send(Request::get("/x").cookie(alice.gate.clone()).header("Connection", named)).await;
        if reply.status == 400 {
            continue; // Envoy takes some for an attack.
        }
        let seen = Seen::of(&reply);
        assert_eq!((seen.header("Remote-User"), seen.header("Remote-Groups")), (Some("alice"), Some("admins,dev")));
        assert!(seen.header("X-Request-Id").is_some(), "{named}: {seen:?}");
        let connection = seen.all("Connection").concat().to_lowercase();
        assert!(!connection.contains("remote"), "or whatever stands behind takes it out: {connection}");
    }
}

/// An application that speaks h2c would take any number of requests through one that was let through.
async fn tunnels(front: &Front) {
    for upgrade in ["h2c", "websocket, h2c", "foo"] {
        let request = Request::get("/public/x")
            .header("Connection", "Upgrade, HTTP2-Settings")
            .header("Upgrade", upgrade)
            .header("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA");
        let reply = front.send(request).await;
        assert!([200, 400, 403].contains(&reply.status), "{upgrade}: {reply:?}");
    }
    for seen in front.upstream.seen() {
        assert_eq!(seen.all("Upgrade"), Vec::<&str>::new(), "{seen:?}");
    }
    // In two fields, the first of which a proxy may take for the only one.
    for upgrades in [["foo", "websocket"], ["websocket", "foo"]] {
        let [first, second] = upgrades;
        let request = Request::get("/public/x").header("Connection", "Upgrade");
        let reply = front.send(request.header("Upgrade", first).header("Upgrade", second)).await;
        assert!([101, 200, 400, 403].contains(&reply.status), "{upgrades:?}: {reply:?}");
    }
    for seen in front.upstream.seen() {
        assert!(["", "websocket"].contains(&seen.all("Upgrade").join("|").as_str()), "{seen:?}");
    }
}

/// An administrator writes `?authelia_url=` into the proxy's configuration; a link that somebody sends must not.
async fn chosen(front: &Front) {
    let target = format!("/x?authelia_url=http://other.{DOMAIN}:1/steal&rd=http://other.{DOMAIN}:1/");
    let reply = front.send(Request::get(&target).page()).await;
    assert_eq!(reply.status, 302, "{reply:?}");
    assert!(reply.location().starts_with(&front.portal("/?")), "{reply:?}");
}

/// A proxy that chooses the application by one of them and asks about the other opens the first by the rules of the second.
async fn hosts(front: &Front) {
    let (app, other) = (front.server.app(), format!("other.{DOMAIN}"));
    for host in [format!("{app},{other}"), format!("{other},{app}"), format!("{app}, {other}")] {
        let request = Request::get("/public/x").host(host);
        // An answer, or a connection that is closed: either will do.
        drop(wire::try_send(front.port(), &request.bytes()).await);
    }
    // NGINX reads no further than to the port, and says what it read.
    for seen in front.upstream.seen() {
        assert!(!format!("{:?}", seen.headers).contains("other."), "{seen:?}");
    }
}
