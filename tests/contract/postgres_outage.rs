//! PostgreSQL alone: killed, standing still, made a standby, its connections cut.

use std::{fs, time::Duration};

use postern::ports::{End, Peek};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::{
    harness::{Node, Place, eventually, session},
    postgres::{IN_MEMORY, Postgres},
};

async fn execute(url: &str, sql: &'static str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    connection.execute(sql).await.unwrap();
    connection.close().await.unwrap();
}

/// A node that knows a session of Ann's.
async fn scene(place: &Place) -> (Node, postern::core::session::Session) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.warm(&made).await;
    (node, made)
}

async fn nothing_is_answered(node: &Node, made: &postern::core::session::Session) {
    // Two seconds that memory may go on, and one for the look that fails.
    eventually("memory is not believed any more", Duration::from_secs(4), || async {
        matches!(node.stores.sessions.peek(&made.gate_hash), Peek::Unsure)
    })
    .await;
    let within = Duration::from_secs(3);
    let found = tokio::time::timeout(within, node.stores.sessions.find(&made.gate_hash)).await;
    assert!(found.expect("bounded in time").is_err());
    let created = tokio::time::timeout(within, node.stores.sessions.create(session("ann"), &[])).await;
    assert!(created.expect("bounded in time").is_err());
    eventually("readiness says so", Duration::from_secs(5), || async {
        node.readiness.report().stores_down.contains_key("sessions")
    })
    .await;
}

async fn everything_is_back(node: &Node, made: &postern::core::session::Session) {
    eventually("it is back", Duration::from_secs(10), || async {
        node.stores.sessions.find(&made.gate_hash).await.is_ok_and(|found| found.is_some()) && node.knows(made)
    })
    .await;
    eventually("readiness has forgotten it", Duration::from_secs(5), || async {
        node.readiness.report().stores_down.is_empty()
    })
    .await;
}

/// With the database's own setting at its laxest, and a server that writes asynchronous commits down as late as it can.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_32_a_server_that_is_killed_is_unavailable_and_comes_back_with_all_that_was_acknowledged() {
    let mut server = Postgres::start(&["synchronous_commit=off", "wal_writer_delay=10s"]).await;
    let url = server.database().await;
    let place = Place::at(&url);
    let (node, made) = scene(&place).await;
    let ended = node.sign_in("ann").await;
    // Both sessions are on the disk: only the end could be lost.
    execute(&url, "CHECKPOINT").await;
    assert_eq!(node.stores.sessions.end(End::One(&ended.id)).await.unwrap(), 1);
    server.stop();
    nothing_is_answered(&node, &made).await;
    server.restart().await;
    everything_is_back(&node, &made).await;
    assert!(node.stores.sessions.find(&ended.gate_hash).await.unwrap().is_none(), "an end that was acknowledged holds");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_32_a_server_that_stands_still_is_unavailable_soon_and_comes_back() {
    let server = Postgres::start(&IN_MEMORY).await;
    let place = Place::at(&server.database().await);
    let (node, made) = scene(&place).await;
    server.pause();
    nothing_is_answered(&node, &made).await;
    server.resume();
    everything_is_back(&node, &made).await;
    assert_eq!(node.stores.sessions.end(End::One(&made.id)).await.unwrap(), 1);
    node.stop().await;
}

/// What a standby says was true a while ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_a_server_that_became_a_standby_is_not_believed_until_it_is_promoted() {
    let mut server = Postgres::start(&IN_MEMORY).await;
    let url = server.database().await;
    let place = Place::at(&url);
    let (node, made) = scene(&place).await;
    server.stop();
    fs::write(server.data().join("standby.signal"), "").unwrap();
    server.restart().await;
    nothing_is_answered(&node, &made).await;
    let refused = place.open().await.err().unwrap().to_string();
    assert!(refused.contains("standby") && refused.contains("storage.database"), "{refused}");
    execute(&url, "SELECT pg_promote()").await;
    everything_is_back(&node, &made).await;
    node.stop().await;
}

/// No notice reaches anybody then, and every connection has to be made anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_an_end_is_known_elsewhere_within_a_second_though_every_connection_was_cut() {
    let url = Postgres::shared_database().await;
    let place = Place::at(&url);
    let (here, made) = scene(&place).await;
    let there = place.node().await;
    there.warm(&made).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    execute(&url, cut).await;
    assert_eq!(here.stores.sessions.end(End::One(&made.id)).await.unwrap(), 1);
    eventually("the other node forgets", Duration::from_secs(1), || async { !there.knows(&made) }).await;
    assert!(there.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    here.stop().await;
    there.stop().await;
}
