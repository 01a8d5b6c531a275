//! PostgreSQL alone: what many nodes do at once, and what a person is told of a database that will not do.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use postern::{
    core::{session::SessionId, time::Timestamp},
    ports::{End, Peek, UserChange, Whom},
    store::Stores,
};
use secrecy::SecretString;
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::{
    harness::{Place, eventually, session, user},
    postgres::{IN_MEMORY, Postgres},
};

/// Whoever follows the log sees each number, in order, however many write at once and some in vain.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn numbers_of_the_log_are_committed_in_order_and_without_a_gap() {
    const WRITERS: usize = 6;
    const EACH: usize = 40;
    let place = Place::postgres().await;
    let nodes = [place.open().await.unwrap(), place.open().await.unwrap()];
    let start = nodes[0].changes.latest().await.unwrap();
    let write = |stores: Stores, writer: usize| async move {
        for number in 0..EACH {
            stores.sessions.end(End::One(&SessionId::new(format!("{writer}-{number}")))).await.unwrap();
            // Rolled back: the user exists.
            let _ = stores.users.insert(user("ann"), None).await;
        }
    };
    nodes[0].users.insert(user("ann"), None).await.unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn({
        let (changes, done) = (nodes[0].changes.clone(), done.clone());
        async move {
            let (mut seq, mut seen) = (start, Vec::new());
            loop {
                let is_last = done.load(Ordering::SeqCst);
                for change in changes.after(seq).await.unwrap().expect("no gap") {
                    assert_eq!(change.seq, seq + 1);
                    seq = change.seq;
                    seen.push(change.id);
                }
                if is_last {
                    return seen;
                }
            }
        }
    });
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(write(nodes[writer % nodes.len()].clone(), writer))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    done.store(true, Ordering::SeqCst);
    let mut seen = reader.await.unwrap();
    assert_eq!(seen.remove(0), "ann");
    for writer in 0..WRITERS {
        let of_one: Vec<_> = seen.iter().filter(|id| id.starts_with(&format!("{writer}-"))).collect();
        let expected: Vec<_> = (0..EACH).map(|number| format!("{writer}-{number}")).collect();
        assert_eq!(of_one, expected.iter().collect::<Vec<_>>());
    }
    assert_eq!(seen.len(), WRITERS * EACH);
    for stores in nodes {
        stores.close().await;
    }
}

/// Polls come each quarter of a second: without notices this would take an eighth for each on the average, five seconds in all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_other_nodes_are_woken_by_an_end() {
    const ENDS: u32 = 40;
    let place = Place::postgres().await;
    let (here, there) = (place.node().await, place.node().await);
    here.add_user("ann").await;
    let mut slowest = Duration::ZERO;
    let mut total = Duration::ZERO;
    for _ in 0..ENDS {
        let made = here.sign_in("ann").await;
        there.warm(&made).await;
        here.stores.sessions.end(End::One(&made.id)).await.unwrap();
        let acknowledged = now();
        let forgotten = async {
            while there.knows(&made) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(1), forgotten).await.expect("within a second");
        slowest = slowest.max(now() - acknowledged);
        total += now() - acknowledged;
    }
    assert!(total < Duration::from_millis(100) * ENDS, "{:?} each, {slowest:?} at most", total / ENDS);
    here.stop().await;
    there.stop().await;
}

/// Whoever holds all users raises all versions, or sets them by what a file says: nobody may change one of them meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_a_user_is_not_changed_while_somebody_holds_all_of_them() {
    let place = Place::postgres().await;
    let stores = place.open().await.unwrap();
    stores.users.insert(user("ann"), None).await.unwrap();
    let mut holder = PgConnection::connect(place.url()).await.unwrap();
    holder.execute("BEGIN; SELECT pg_advisory_xact_lock(hashtextextended('users', 0))").await.unwrap();
    let changing = tokio::spawn({
        let users = stores.users.clone();
        async move { users.revoke(Whom::One("ann")).await }
    });
    is_waited_for(&mut holder, "advisory", "the change waits for all users").await;
    holder.execute("ROLLBACK").await.unwrap();
    changing.await.unwrap().unwrap();
    stores.close().await;
}

/// The row is read before somebody else raises its version, and written afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_a_change_of_a_user_takes_no_token_version_back() {
    let place = Place::postgres().await;
    let stores = place.open().await.unwrap();
    stores.users.insert(user("ann"), None).await.unwrap();
    let mut holder = PgConnection::connect(place.url()).await.unwrap();
    holder.execute("BEGIN; UPDATE users SET token_version = 5").await.unwrap();
    let changing = tokio::spawn({
        let users = stores.users.clone();
        let change = UserChange { disabled: Some(true), ..UserChange::default() };
        async move { users.update("ann", change).await }
    });
    is_waited_for(&mut holder, "transactionid", "the change waits for the row").await;
    holder.execute("COMMIT").await.unwrap();
    changing.await.unwrap().unwrap();
    assert_eq!(stores.users.find("ann").await.unwrap().unwrap().token_version, 6);
    stores.close().await;
}

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// SQLite has one writer at a time. Here the change of the password has ended the sessions that it sees, and is held up before its commit, when the
/// session is made.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_session_that_is_made_while_the_password_changes_does_not_outlive_the_old_one() {
    let place = Place::postgres().await;
    let [here, there] = [place.open().await.unwrap(), place.open().await.unwrap()];
    here.users.insert(user("ann"), None).await.unwrap();
    let mut holder = PgConnection::connect(place.url()).await.unwrap();
    holder.execute("BEGIN; SELECT * FROM change_counter FOR UPDATE").await.unwrap();
    let changing = tokio::spawn({
        let credentials = there.credentials.clone();
        async move { credentials.set_password_hash("ann", SecretString::from("new")).await }
    });
    is_waited_for(&mut holder, "transactionid", "the change waits for the counter").await;
    let made = session("ann");
    let creating = tokio::spawn({
        let (sessions, made) = (here.sessions.clone(), made.clone());
        async move { sessions.create(made, &[]).await }
    });
    let waited = async {
        while !creating.is_finished() && waiting(&mut holder, "advisory").await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), waited).await.expect("it is made, or waits");
    holder.execute("ROLLBACK").await.unwrap();
    changing.await.unwrap().unwrap();
    let created = creating.await.unwrap();
    let version = there.users.find("ann").await.unwrap().unwrap().token_version;
    let survives = there.sessions.list(Some("ann")).await.unwrap().iter().any(|session| session.id == made.id);
    assert!(
        !survives || created.is_ok_and(|live| live.identity.token_version == version),
        "alive, and of the old password"
    );
    here.close().await;
    there.close().await;
}

/// Whoever changes a user is told the version that is stored, whoever raised it between the reading and the writing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_of_a_user_answers_the_version_that_is_stored() {
    let place = Place::postgres().await;
    let stores = place.open().await.unwrap();
    stores.users.insert(user("ann"), None).await.unwrap();
    let mut holder = PgConnection::connect(place.url()).await.unwrap();
    holder.execute("BEGIN; UPDATE users SET token_version = 7 WHERE folded = 'ann'").await.unwrap();
    let changing = tokio::spawn({
        let users = stores.users.clone();
        async move { users.update("ann", UserChange { disabled: Some(true), ..Default::default() }).await }
    });
    is_waited_for(&mut holder, "transactionid", "the change waits for the row").await;
    holder.execute("COMMIT").await.unwrap();
    assert_eq!(changing.await.unwrap().unwrap().token_version, 8);
    assert_eq!(stores.users.find("ann").await.unwrap().unwrap().token_version, 8);
    stores.close().await;
}

async fn is_waited_for(connection: &mut PgConnection, lock: &str, what: &str) {
    let asking = async {
        while waiting(connection, lock).await == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(5), asking).await.is_ok(), "{what}");
}

/// How many connections to this database wait for a lock of that kind.
async fn waiting(connection: &mut PgConnection, lock: &str) -> i64 {
    let waiting = "SELECT count(*) FROM pg_stat_activity \
                   WHERE datname = current_database() AND wait_event_type = 'Lock' AND wait_event = $1";
    sqlx::query_scalar(waiting).bind(lock).fetch_one(connection).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nodes_that_start_at_once_on_a_new_database_agree_on_tables_and_keys() {
    let place = Place::postgres().await;
    // The key file is shared: it is made before.
    let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n";
    fs::create_dir_all(place.key_file().parent().unwrap()).unwrap();
    fs::write(place.key_file(), key).unwrap();
    let (one, two, three) = tokio::join!(place.open(), place.open(), place.open());
    let all = [one.unwrap(), two.unwrap(), three.unwrap()];
    let kids: Vec<_> =
        all.iter().map(|stores| stores.keys.signing().signing(stores.clock.now()).unwrap().kid.clone()).collect();
    assert!(kids.iter().all(|kid| *kid == kids[0]), "{kids:?}");
    assert!(all.iter().all(|stores| stores.keys.signing().verifying(stores.clock.now()).count() == 1));
    for stores in all {
        stores.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_nodes_clean_at_once_and_none_is_in_anothers_way() {
    let place = Place::postgres().await;
    let stores = place.open().await.unwrap();
    stores.users.insert(user("ann"), None).await.unwrap();
    let kept = session("ann");
    stores.sessions.create(kept.clone(), &[]).await.unwrap();
    // More than one step of the cleaning.
    let mut connection = PgConnection::connect(place.url()).await.unwrap();
    connection
        .execute(
            "INSERT INTO sessions SELECT 'old ' || n, folded, name, factor, domain, ('\\x' || to_hex(n + 1048576) || 'ff')::bytea, \
             portal_hash, 0, 0, 0, 0, user_agent, address FROM sessions, generate_series(1, 1800) AS n",
        )
        .await
        .unwrap();
    let nodes = [place.node().await, place.node().await, place.node().await];
    eventually("only what is alive is left", Duration::from_secs(10), || async {
        stores.sessions.list(None).await.unwrap().len() == 1
    })
    .await;
    assert_eq!(stores.sessions.list(None).await.unwrap()[0].id, kept.id);
    for node in nodes {
        assert!(node.readiness.report().stores_down.is_empty());
        node.stop().await;
    }
    stores.close().await;
}

/// A use that one node wrote is not taken back by another that knows an earlier one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_last_use_never_goes_back() {
    let place = Place::postgres().await;
    let (here, there) = (place.node().await, place.node().await);
    here.add_user("ann").await;
    let made = here.sign_in("ann").await;
    let [early, late] = [60, 90].map(|seconds| made.last_used_at.after(Duration::from_secs(seconds)));
    for (node, used) in [(&here, late), (&there, early)] {
        let live = node.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap();
        node.stores.sessions.used(&live, used);
    }
    here.stop().await;
    there.stop().await;
    let stores = place.open().await.unwrap();
    let found: Timestamp = stores.sessions.find(&made.gate_hash).await.unwrap().unwrap().last_used();
    assert_eq!(found, late);
    assert!(matches!(stores.sessions.peek(&made.gate_hash), Peek::Unsure));
    stores.close().await;
}

#[tokio::test]
async fn a_database_that_will_not_do_is_one_clear_line_without_the_password() {
    let server = Postgres::start(&IN_MEMORY).await;
    let url = server.database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for sql in [
        "CREATE ROLE postern LOGIN PASSWORD 'right'",
        "CREATE ROLE guest LOGIN PASSWORD 'hunter2'",
        "CREATE ROLE stranger LOGIN PASSWORD 'hunter2'",
        "CREATE DATABASE ascii TEMPLATE template0 ENCODING SQL_ASCII",
        "ALTER DATABASE test_0 OWNER TO postern",
    ] {
        let sql = sql.replace("test_0", url.rsplit('/').next().unwrap());
        connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
    }
    let hba = "local all postgres trust\nlocal all stranger reject\nlocal all all scram-sha-256\n";
    fs::write(server.data().join("pg_hba.conf"), hba).unwrap();
    connection.execute("SELECT pg_reload_conf()").await.unwrap();
    connection.close().await.unwrap();
    let as_user = |user: &str| url.replace("postgres://postgres@", &format!("postgres://{user}@"));
    eventually("the new rules of access hold", Duration::from_secs(10), || async {
        Place::at(&as_user("postern:hunter2")).open().await.is_err()
    })
    .await;
    let nowhere = format!("postgres://u:hunter2@%2Fnone/{}", url.rsplit('/').next().unwrap());
    for (url, words) in [
        (as_user("postern:hunter2"), "refuses the password"),
        (as_user("guest:hunter2"), "may not make its tables"),
        (as_user("stranger:hunter2"), "pg_hba.conf"),
        (as_user("postern:right") + "_not", "no such database"),
        (as_user("postern:hunter2") + "?sslmode=verify-full", "TLS is refused"),
        (nowhere, "nobody answers there"),
        (url.rsplit_once('/').unwrap().0.to_owned() + "/ascii", "its encoding is SQL_ASCII"),
    ] {
        let told = Place::at(&url).open().await.err().unwrap().to_string();
        assert!(told.contains(words) && told.contains("(storage.database)"), "{words}: {told}");
        assert!(!told.contains("hunter2") && told.lines().count() == 1, "{told}");
    }
    Place::at(&as_user("postern:right")).open().await.unwrap().close().await;
}
