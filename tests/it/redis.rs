//! The Redis servers that other tests stand on, and what those count on: that they are what they say, and go away when they are told to.

use std::time::Duration;

use crate::harness::{
    breaker::Breaker,
    redis::{Options, Redis, secret, until},
    redis_cluster::Cluster,
    redis_sentinel::Sentinels,
    tls::Authority,
};

/// By the port, in the place of a client.
async fn asked(server: &Redis, port: u16, arguments: &[&str]) -> Result<String, String> {
    server.redis_cli(&[&["-h", "127.0.0.1", "-p", &port.to_string()], arguments].concat()).await
}

#[tokio::test]
async fn a_server_forgets_what_no_snapshot_holds_and_keeps_its_port() {
    let mut server = Redis::start().await;
    server.command(&["SET", "old", "1"]).await;
    server.snapshot().await;
    server.command(&["SET", "new", "1"]).await;
    server.command(&["DEL", "old"]).await;
    server.kill();
    asked(&server, server.port(), &["PING"]).await.expect_err("nobody answers");
    server.restart().await;
    assert_eq!(server.keys().await, ["old"], "as it was at the snapshot");
    assert_eq!(asked(&server, server.port(), &["PING"]).await.as_deref(), Ok("PONG"));
    server.kill();
    server.restart_empty().await;
    assert!(server.keys().await.is_empty());
}

#[tokio::test]
async fn a_server_that_writes_down_every_change_forgets_nothing() {
    let mut server = Redis::with(Options { append_only: true, ..Options::default() }).await;
    server.command(&["SET", "new", "1"]).await;
    server.kill();
    server.restart().await;
    assert_eq!(server.keys().await, ["new"]);
    server.kill();
    server.restart_empty().await;
    assert!(server.keys().await.is_empty());
}

#[tokio::test]
async fn a_server_that_stands_still_answers_afterwards() {
    let server = Redis::start().await;
    server.pause();
    let asking = asked(&server, server.port(), &["PING"]);
    tokio::pin!(asking);
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut asking).await.is_err(), "while it stands still");
    server.resume();
    assert_eq!(asking.await.as_deref(), Ok("PONG"));
}

#[tokio::test]
async fn a_password_is_asked_for_by_the_port_and_by_the_socket() {
    let server = Redis::with(Options { password: Some(secret()), ..Options::default() }).await;
    assert_eq!(asked(&server, server.port(), &["PING"]).await.as_deref(), Ok("PONG"));
    let refused = asked(&server, server.port(), &["--user", "default", "--pass", "wrong", "PING"]).await;
    assert!(refused.expect_err("a wrong password").contains("WRONGPASS"));
    // Who asks as the client of another knows no password.
    let other = Redis::start().await;
    let refused = asked(&other, server.port(), &["PING"]).await;
    assert!(refused.expect_err("no password").contains("NOAUTH"));
    assert!(server.url().contains(server.password().expect("a password")));
}

#[tokio::test]
async fn a_server_of_tls_shows_a_certificate_of_the_authority_also_through_a_relay() {
    let authority = Authority::new();
    let server = Redis::with(Options { tls: Some(authority.of_redis()), ..Options::default() }).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let trusted = |authority: &Authority, name: &str| {
        let file = folder.path().join(name);
        std::fs::write(&file, &authority.certificate).expect("a file");
        file.display().to_string()
    };
    let (right, wrong) = (trusted(&authority, "right.pem"), trusted(&Authority::new(), "wrong.pem"));
    let relay = Breaker::before(server.port()).await;
    for port in [server.port(), relay.port()] {
        assert_eq!(asked(&server, port, &["--tls", "--cacert", &right, "PING"]).await.as_deref(), Ok("PONG"));
        asked(&server, port, &["--tls", "--cacert", &wrong, "PING"]).await.expect_err("another authority");
        asked(&server, port, &["PING"]).await.expect_err("no TLS");
    }
    relay.cut();
    asked(&server, relay.port(), &["--tls", "--cacert", &right, "PING"]).await.expect_err("cut");
    relay.mend();
    assert_eq!(asked(&server, relay.port(), &["--tls", "--cacert", &right, "PING"]).await.as_deref(), Ok("PONG"));
}

#[tokio::test]
async fn sentinels_make_the_replica_the_master_and_lose_what_it_was_not_told() {
    let mut all = Sentinels::start().await;
    assert_eq!(all.master().await, 0);
    assert!(all.url().contains(&all.sentinels[2].port().to_string()));
    all.servers[0].command(&["SET", "old", "1"]).await;
    all.is_replicated().await;
    all.hold_back_the_replica().await;
    all.servers[0].command(&["SET", "new", "1"]).await;
    all.servers[0].kill();
    assert_eq!(all.master_after(0).await, 1);
    assert_eq!(all.servers[1].keys().await, ["old"]);
    assert_eq!(all.servers[1].command(&["SET", "newer", "1"]).await, "OK");
    all.servers[0].restart().await;
    all.is_replica(0).await;
    // Asked again where another sentinel makes a replica of it too, which cuts the connection.
    until("what it alone knew is gone", async || {
        let size = all.servers[0].try_command(&["DBSIZE"]).await;
        (size.as_deref() == Ok("2")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cluster_answers_for_all_slots_and_for_none_while_one_node_is_away() {
    let mut cluster = Cluster::start().await;
    let place = cluster.place_of("some key").await;
    let other = (place + 1) % 3;
    cluster.nodes[place].command(&["SET", "some key", "1"]).await;
    cluster.nodes[place].snapshot().await;
    let moved = cluster.nodes[other].try_command(&["GET", "some key"]).await;
    assert!(moved.expect_err("another node's").contains("MOVED"));
    assert_eq!(cluster.keys().await, ["some key"]);
    cluster.nodes[place].kill();
    cluster.is_broken(other).await;
    cluster.nodes[place].restart().await;
    cluster.is_whole().await;
    assert_eq!(cluster.nodes[place].command(&["GET", "some key"]).await, "1");
}

#[tokio::test]
async fn servers_that_tests_share_are_one() {
    assert_eq!(Redis::shared().await, Redis::shared().await);
    assert_eq!(Cluster::shared().await, Cluster::shared().await);
}
