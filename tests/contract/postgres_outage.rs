//! PostgreSQL alone: killed, standing still, made a standby, its connections cut.

use std::{fs, time::Duration};

use postern::ports::{End, Peek};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::{
    harness::{Node, Place, eventually, session},
    late,
    port::Port,
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

/// With the database's own setting at its laxest, and a server that writes asynchronous commits down as late as it can. What a killed server has written is there
/// without an fsync, for which tests beside each other would wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_32_a_server_that_is_killed_is_unavailable_and_comes_back_with_all_that_was_acknowledged() {
    let mut server = Postgres::start(&["synchronous_commit=off", "wal_writer_delay=10s", "fsync=off"]).await;
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
    // Returns when they have ended, not when they were told to.
    let cut = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity \
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    execute(&url, cut).await;
    assert_eq!(here.stores.sessions.end(End::One(&made.id)).await.unwrap(), 1);
    eventually("the other node forgets", Duration::from_secs(1), || async { !there.knows(&made) }).await;
    assert!(there.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    here.stop().await;
    there.stop().await;
}

/// Nothing asked of the pool gets an answer here, as where a node has lost its memory under load and every request asks: the follower does not wait among
/// them, or the node would never trust its memory again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_follows_the_log_while_requests_have_every_connection() {
    let url = Postgres::shared_database().await;
    let place = Place::at(&url);
    let (node, made) = scene(&place).await;
    // One that begins behind all that the scene has written: what another has yet to read of it would empty its memory, which nothing can fill again here.
    node.stop().await;
    let node = place.node().await;
    node.warm(&made).await;
    let mut holder = PgConnection::connect(&url).await.unwrap();
    holder.execute("BEGIN; LOCK TABLE sessions, users IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let (sessions, hash) = (node.stores.sessions.clone(), made.gate_hash);
        asking.spawn(async move {
            loop {
                let _ = sessions.find(&hash).await;
                tokio::task::yield_now().await;
            }
        });
    }
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    eventually("every connection waits", Duration::from_secs(5), || async {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut connection).await.unwrap() == 10
    })
    .await;
    eventually("memory is believed", Duration::from_secs(5), || async { node.knows(&made) }).await;
    let change = format!(
        "UPDATE change_counter SET seq = seq + 2; \
         INSERT INTO changes SELECT seq - 1, 'key', 'some', 4102444800000 FROM change_counter; \
         INSERT INTO changes SELECT seq, 'session', '{}', 4102444800000 FROM change_counter",
        made.id
    );
    let mut writer = PgConnection::connect(&url).await.unwrap();
    writer.execute(sqlx::AssertSqlSafe(change)).await.unwrap();
    eventually("what changed is known", Duration::from_secs(1), || async { !node.knows(&made) }).await;
    assert!(matches!(node.stores.sessions.peek(&made.gate_hash), Peek::Unsure));
    asking.shutdown().await;
    holder.close().await.unwrap();
    node.stop().await;
}

/// A newer version of this program may do so while this one runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_with_new_columns_do_not_disturb_a_node_that_does_not_know_them() {
    let url = Postgres::shared_database().await;
    let (node, made) = scene(&Place::at(&url)).await;
    let ask = || async {
        let session = node.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap();
        let by_id = node.stores.sessions.find_id(&made.id).await.unwrap().unwrap();
        assert_eq!(session.session, by_id.session);
        assert_eq!(node.stores.sessions.list(None).await.unwrap().len(), 1);
        assert_eq!(node.stores.users.list().await.unwrap().len(), 1);
    };
    // As often as it takes to be prepared on more than one connection.
    for _ in 0..5 {
        tokio::join!(ask(), ask(), ask());
    }
    execute(&url, "ALTER TABLE sessions ADD COLUMN new JSONB; ALTER TABLE users ADD COLUMN new TIMESTAMPTZ").await;
    for _ in 0..5 {
        tokio::join!(ask(), ask(), ask());
    }
    node.stop().await;
}

/// It would read tables wrong that a newer version has made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_tables_are_of_a_newer_version_is_not_asked() {
    let mut server = Postgres::start(&IN_MEMORY).await;
    let url = server.database().await;
    let (node, made) = scene(&Place::at(&url)).await;
    execute(
        &url,
        "INSERT INTO _sqlx_migrations SELECT 9999, 'newer', now(), true, checksum, 1 FROM _sqlx_migrations LIMIT 1",
    )
    .await;
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_some(), "as long as nothing is opened anew");
    server.stop();
    server.restart().await;
    eventually("readiness says why", Duration::from_secs(10), || async {
        node.readiness.report().stores_down.get("sessions").is_some_and(|why| why.contains("9999"))
    })
    .await;
    assert!(node.stores.sessions.find(&made.gate_hash).await.is_err());
    execute(&url, "DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    everything_is_back(&node, &made).await;
    node.stop().await;
}

/// The port of a relay through which everything takes `each_way` longer.
async fn far_from(target: u16, each_way: Duration) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = tokio::net::TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                late::pass(&mut client, &mut server, each_way).await;
            });
        }
    });
    port
}

/// A request that its client gave up may leave a connection within a transaction that nobody knows of: what is asked there later would never be committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_was_given_up_half_way_leaves_no_transaction_behind() {
    let held = Port::free();
    let port = held.number();
    let listening = ["listen_addresses=127.0.0.1".to_owned(), format!("port={port}")];
    let settings: Vec<&str> = IN_MEMORY.into_iter().chain(listening.iter().map(String::as_str)).collect();
    let server = Postgres::start(&settings).await;
    let url = server.database().await;
    let relay = far_from(port, Duration::from_millis(10)).await;
    let name = url.rsplit('/').next().unwrap();
    let place = Place::at(&format!("postgres://postgres@127.0.0.1:{relay}/{name}"));
    let stores = place.open().await.unwrap();
    let mut near = PgConnection::connect(&url).await.unwrap();
    for moment in 1..30 {
        let given_up = stores.sessions.end(End::AllOf { user: "bob" });
        let _ = tokio::time::timeout(Duration::from_millis(5 * moment), given_up).await;
        // The connection is given back, taken again and asked something.
        for _ in 0..2 {
            stores.users.find("bob").await.unwrap();
        }
        // One that is open longer is ended by the server after 2 s.
        let open = "SELECT count(*) FROM pg_stat_activity \
                    WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start < now() - interval '150 ms'";
        let open: i64 = sqlx::query_scalar(open).fetch_one(&mut near).await.unwrap();
        assert_eq!(open, 0, "given up after {} ms", 5 * moment);
    }
    stores.close().await;
}
