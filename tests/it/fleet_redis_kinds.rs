//! Two Postern processes whose sessions are in Redis under Sentinel, or in a Redis Cluster.

use std::{sync::Arc, time::Duration};

use crate::harness::{
    fleet::{BOUND, Load, comes_to, is_accepted, logout, nodes_with, now, page, status},
    postgres::Postgres,
    redis::Redis,
    redis_cluster::Cluster,
    redis_sentinel::Sentinels,
    server::{Role, Server, SignedIn},
    upstream::Upstream,
};

async fn scene(sessions: &str) -> (Upstream, Server, Arc<Server>) {
    let upstream = Upstream::start().await;
    let database = Postgres::shared_database().await;
    let urls = [(&*database, Some(sessions)), (&*database, Some(sessions))];
    let (here, there) = nodes_with(&upstream, urls).await;
    (upstream, here, there)
}

async fn both_accept(nodes: [&Server; 2], session: &SignedIn) {
    for node in nodes {
        is_accepted(node, session).await;
    }
}

async fn both_come_to(nodes: [&Server; 2], session: &SignedIn, wanted: u16) {
    for node in nodes {
        for role in Role::BOTH {
            comes_to(node, role, session, wanted).await;
        }
    }
}

/// The replica did not hear of the end; nor of a sign-in, which has to be made again.
#[tokio::test]
async fn threat_36_a_failover_that_loses_the_last_writes_revives_nothing() {
    let mut all = Sentinels::start().await;
    let (_upstream, mut here, there) = scene(&all.url()).await;
    let (kept, revoked) = (here.sign_in("alice").await, here.sign_in("bob").await);
    both_accept([&here, &there], &kept).await;
    both_accept([&here, &there], &revoked).await;
    all.is_replicated().await;
    let old = all.master().await;
    all.hold_back_the_replica().await;
    let lost = here.sign_in("bob").await;
    let load = Load::start(&there, &kept, &revoked);
    assert_eq!(logout(&here, &revoked).await, 204);
    let revoked_at = now();
    let records = |keys: Vec<String>| keys.into_iter().filter(|key| key.contains(":session:")).count();
    all.servers[old].kill();
    let new = all.master_after(old).await;
    assert_eq!(records(all.servers[new].keys().await), 2, "it knows one that ended, and not the last one");
    both_come_to([&here, &there], &kept, 200).await;
    both_come_to([&here, &there], &revoked, 302).await;
    both_come_to([&here, &there], &lost, 302).await;
    both_accept([&here, &there], &here.sign_in("bob").await).await;
    // The old one comes back as a replica, and nobody believes it.
    all.servers[old].restart().await;
    all.is_replica(old).await;
    both_accept([&here, &there], &kept).await;
    both_come_to([&here, &there], &revoked, 302).await;
    tokio::time::sleep_until((revoked_at + BOUND + Duration::from_millis(500)).into()).await;
    load.end(revoked_at).await;
    // A sentinel may be missing, also the one that is named first.
    all.sentinels[0].kill();
    here.stop().await;
    here.launch().await;
    both_accept([&here, &there], &kept).await;
}

/// The one that is named first is asked first, and says nothing at all.
#[tokio::test]
async fn threat_36_a_sentinel_that_hangs_keeps_nobody_from_the_new_master() {
    let mut all = Sentinels::start().await;
    let (_upstream, mut here, there) = scene(&all.url()).await;
    let kept = here.sign_in("alice").await;
    both_accept([&here, &there], &kept).await;
    all.is_replicated().await;
    let old = all.master().await;
    all.sentinels[0].pause();
    all.servers[old].kill();
    all.master_after_by(&all.sentinels[1..], old).await;
    both_come_to([&here, &there], &kept, 200).await;
    here.stop().await;
    here.launch().await;
    both_accept([&here, &there], &kept).await;
    all.sentinels[0].resume();
}

/// As after a failover that somebody made by hand, and a node that goes on speaking to the old one.
#[tokio::test]
async fn threat_36_a_redis_that_became_a_replica_is_not_believed() {
    let (redis, other) = (Redis::start().await, Redis::start().await);
    let (_upstream, here, there) = scene(&redis.url()).await;
    let kept = here.sign_in("alice").await;
    both_accept([&here, &there], &kept).await;
    redis.command(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]).await;
    both_come_to([&here, &there], &kept, 503).await;
    redis.command(&["REPLICAOF", "NO", "ONE"]).await;
    both_come_to([&here, &there], &kept, 302).await;
    both_accept([&here, &there], &here.sign_in("alice").await).await;
}

#[tokio::test]
async fn threat_32_36_a_cluster_that_loses_a_node_under_load() {
    let mut cluster = Cluster::start().await;
    let (_upstream, here, there) = scene(&cluster.url()).await;
    let mut alive = Vec::new();
    // Some on each node.
    for _ in 0..8 {
        alive.push(here.sign_in("alice").await);
    }
    let before = cluster.keys().await;
    let revoked = here.sign_in("bob").await;
    let of_revoked = cluster.keys().await.into_iter().find(|key| key.contains(":session:") && !before.contains(key));
    let of_revoked = of_revoked.expect("its record");
    let place = cluster.place_of(&of_revoked).await;
    for session in alive.iter().chain([&revoked]) {
        both_accept([&here, &there], session).await;
    }
    for node in &cluster.nodes {
        node.snapshot().await;
    }
    let load = Load::start(&there, &alive[0], &revoked);
    assert_eq!(logout(&here, &revoked).await, 204);
    let revoked_at = now();
    cluster.nodes[place].kill();
    both_come_to([&here, &there], &alive[0], 503).await;
    assert_eq!(status(&here, Role::Edge, &page(&revoked)).await, 503, "nobody can say");
    tokio::time::sleep_until((revoked_at + BOUND + Duration::from_millis(500)).into()).await;
    cluster.nodes[place].restart().await;
    cluster.is_whole().await;
    assert_eq!(cluster.nodes[place].command(&["EXISTS", &of_revoked]).await, "1", "Redis says that it goes on");
    for session in &alive {
        both_come_to([&here, &there], session, 200).await;
    }
    both_come_to([&here, &there], &revoked, 302).await;
    load.end(revoked_at).await;
    here.run(&["session", "revoke", "--user", "alice"]);
    for session in &alive {
        both_come_to([&here, &there], session, 302).await;
    }
}
