//! SQLite alone: locked, gone, replaced, damaged.

use std::{fs, os::unix::fs::PermissionsExt, time::Duration};

use postern::{
    ports::{End, Peek},
    store::{KeyError, OpenError, Stores},
};
use sqlx::{Connection, Executor, SqliteConnection};

use crate::harness::{Place, eventually, session};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_32_a_locked_database_is_unavailable_soon_and_comes_back() {
    let place = Place::sqlite();
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    let path = format!("sqlite://{}", place.database().display());
    let mut other = SqliteConnection::connect(&path).await.unwrap();
    other.execute("BEGIN EXCLUSIVE").await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(3), node.stores.sessions.end(End::One(&made.id))).await;
    assert!(ended.expect("bounded in time").is_err());
    let read = tokio::time::timeout(Duration::from_secs(3), node.stores.sessions.find(&made.gate_hash)).await;
    assert!(read.expect("bounded in time").unwrap().is_some(), "readers go on while another process writes");
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(node.stores.sessions.end(End::One(&made.id)).await.unwrap(), 1);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_32_a_database_that_is_gone_is_unavailable_and_comes_back() {
    let place = Place::sqlite();
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.warm(&made).await;
    let away = place.folder.path().join("away");
    fs::rename(place.database(), &away).unwrap();
    // Whoever opens the file may miss it before the watch does.
    eventually("nothing is answered", Duration::from_secs(2), || async {
        node.stores.sessions.find(&made.gate_hash).await.is_err()
            && matches!(node.stores.sessions.peek(&made.gate_hash), Peek::Unsure)
    })
    .await;
    assert!(node.stores.sessions.create(session("ann"), &[]).await.is_err());
    eventually("readiness says so", Duration::from_secs(5), || async {
        node.readiness.report().stores_down.contains_key("sessions")
    })
    .await;
    fs::rename(&away, place.database()).unwrap();
    eventually("it is back", Duration::from_secs(3), || async {
        node.stores.sessions.find(&made.gate_hash).await.is_ok_and(|found| found.is_some()) && node.knows(&made)
    })
    .await;
    assert!(node.readiness.report().stores_down.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_replaced_is_opened_and_the_old_one_forgotten() {
    let place = Place::sqlite();
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.warm(&made).await;
    for ending in ["", "-wal", "-shm"] {
        let mut path = place.database().into_os_string();
        path.push(ending);
        let _ = fs::remove_file(path);
    }
    fs::write(place.database(), "").unwrap();
    eventually("the old session is nobody's", Duration::from_secs(5), || async {
        !node.knows(&made) && node.stores.sessions.find(&made.gate_hash).await.is_ok_and(|found| found.is_none())
    })
    .await;
    node.add_user("bob").await;
    let other = node.sign_in("bob").await;
    node.warm(&other).await;
    assert!(node.readiness.report().stores_down.is_empty());
    node.stop().await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_one_clear_error() {
    let place = Place::sqlite();
    fs::create_dir_all(place.database().parent().unwrap()).unwrap();
    fs::write(place.database(), "this is no database, however long one looks at it").unwrap();
    let error = place.open().await.err().unwrap();
    assert!(matches!(error, OpenError::Database { .. }));
    assert!(error.to_string().contains("postern.db"), "{error}");
    assert_eq!(error.to_string().lines().count(), 1, "{error}");
}

#[tokio::test]
async fn files_are_made_for_the_owner_alone() {
    let place = Place::sqlite();
    place.open().await.unwrap().close().await;
    for path in [place.database(), place.key_file()] {
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{path:?}");
    }
}

#[tokio::test]
async fn keys_open_only_with_their_own_key_file() {
    let place = Place::sqlite();
    let first = place.open().await.unwrap();
    let kid_of = |stores: &Stores| stores.keys.signing().signing(stores.clock.now()).unwrap().kid.clone();
    let kid = kid_of(&first);
    first.close().await;
    let second = place.open().await.unwrap();
    assert_eq!(kid_of(&second), kid);
    second.close().await;
    let right = fs::read(place.key_file()).unwrap();
    fs::write(place.key_file(), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").unwrap();
    let wrong = place.open().await.err().unwrap();
    assert!(matches!(wrong, OpenError::Key(KeyError::Wrong(_))), "{wrong}");
    assert!(wrong.to_string().contains("postern.key"));
    fs::write(place.key_file(), "short").unwrap();
    assert!(matches!(place.open().await.err().unwrap(), OpenError::Key(KeyError::Malformed(_))));
    fs::remove_file(place.key_file()).unwrap();
    assert!(matches!(place.open().await.err().unwrap(), OpenError::Key(KeyError::Missing(_))));
    fs::write(place.key_file(), right).unwrap();
    place.open().await.unwrap().close().await;
}
