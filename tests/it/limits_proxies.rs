//! A limit through each proxy of `deploy/`: so many requests reach the application, and the next is told to wait, as 429.

use crate::harness::{
    front::Front,
    proxy::Kind,
    server::POLICIES,
    wire::{Reply, Request},
};

async fn behind(kind: Kind) -> Front {
    let limits = "limits: [ { name: chat, match: { path: /public/** }, key: ip, rates: 2/hour } ]\n";
    Front::behind_with(kind, &format!("{POLICIES}{limits}")).await
}

async fn so_many_and_then_429(front: &Front, tells_what_is_left: bool) -> Reply {
    for left in ["1", "0"] {
        let reply = front.send(Request::get("/public/x")).await;
        assert_eq!(reply.status, 200);
        if tells_what_is_left {
            assert_eq!(reply.header("X-RateLimit-Remaining"), Some(left), "{reply:?}");
        }
    }
    let before = front.upstream.seen().len();
    let reply = front.send(Request::get("/public/x")).await;
    assert_eq!(reply.status, 429, "{reply:?}");
    let wait: u64 = reply.header("Retry-After").and_then(|wait| wait.parse().ok()).expect("Retry-After");
    assert!((1..=3_650).contains(&wait), "{reply:?}");
    assert_eq!(front.upstream.seen().len(), before, "it did not reach the application");
    reply
}

/// The recipe that turns `X-Postern-Status` into 429: NGINX makes 500 of it by itself.
#[tokio::test]
async fn nginx() {
    let reply = so_many_and_then_429(&behind(Kind::Nginx).await, false).await;
    assert_eq!(reply.header("RateLimit-Policy"), Some("\"chat-hour\";q=2;w=3600"), "{reply:?}");
    assert!(reply.header("RateLimit").is_some_and(|limit| limit.starts_with("\"chat-hour\";r=0;t=")), "{reply:?}");
    assert_eq!(reply.header("X-RateLimit-Remaining"), Some("0"), "{reply:?}");
}

#[tokio::test]
async fn caddy() {
    so_many_and_then_429(&behind(Kind::Caddy).await, false).await;
}

#[tokio::test]
async fn haproxy() {
    so_many_and_then_429(&behind(Kind::Haproxy).await, false).await;
}

#[tokio::test]
async fn envoy() {
    let front = behind(Kind::Envoy).await;
    let reply = so_many_and_then_429(&front, true).await;
    assert_eq!(reply.header("RateLimit-Policy"), Some("\"chat-hour\";q=2;w=3600"), "{reply:?}");
    let seen = front.upstream.seen();
    let told = seen.iter().flat_map(|seen| &seen.headers).find(|(name, _)| name.to_lowercase().contains("ratelimit"));
    assert_eq!(told, None, "it is told to the client, not to the application");
}

#[tokio::test]
async fn traefik() {
    so_many_and_then_429(&behind(Kind::Traefik).await, false).await;
}
