//! A Redis of a test's own: who may do what there, and what becomes of operations where it is away.

use std::{fs, path::Path, time::Duration};

use postern::{
    core::session::{SessionId, TokenHash},
    ports::{End, Exchange, Exchanged, Peek, RefreshToken, UserChange, Whom},
};

use crate::{
    harness::{Node, Place, eventually},
    redis::Redis,
};

const SECOND: Duration = Duration::from_secs(1);

/// As docs/fleet.md tells to make it.
async fn user_of_the_docs(redis: &Redis, password: &str) {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fleet.md")).unwrap();
    let line = docs.lines().find(|line| line.starts_with("ACL SETUSER postern ")).unwrap();
    let line = line.replace(">PASSWORD", &format!(">{password}"));
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(redis.command(&words).await, "OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_may_do_no_more_than_the_docs_say_is_enough() {
    let redis = Redis::start().await;
    user_of_the_docs(&redis, "hunter2").await;
    let url = redis.url().replace("redis://", "redis://postern:hunter2@");
    let place = Place::sqlite().with_sessions_at(&url);
    let node = place.node().await;
    node.add_user("ann").await;
    let (one, other) = (node.sign_in("ann").await, node.sign_in("ann").await);
    node.warm(&one).await;
    let live = node.stores.sessions.find(&one.gate_hash).await.unwrap().unwrap();
    node.stores.sessions.used(&live, one.last_used_at.after(SECOND));
    assert_eq!(node.stores.sessions.list(None).await.unwrap().len(), 2);
    assert_eq!(node.stores.sessions.end(End::One(&one.id)).await.unwrap(), 1);
    assert_eq!(node.stores.users.revoke(Whom::Everybody).await.unwrap(), 1);
    assert!(node.stores.sessions.find_id(&other.id).await.unwrap().is_none());
    // With the cleaning, and the last uses written at the end.
    node.stop().await;
    let refused = redis.command(&["ACL", "LOG"]).await;
    assert_eq!(refused, "", "nothing else was asked for");
}

/// Access ends by the database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_access_ends_while_redis_is_away() {
    let mut redis = Redis::start().await;
    let place = Place::sqlite().with_sessions_at(&redis.url());
    let node = place.node().await;
    for name in ["ann", "bob", "cid", "dan"] {
        node.add_user(name).await;
    }
    let (ann, bob, cid) = (node.sign_in("ann").await, node.sign_in("bob").await, node.sign_in("cid").await);
    let dan = node.sign_in("dan").await;
    for session in [&ann, &bob, &cid, &dan] {
        node.warm(session).await;
    }
    redis.snapshot().await;
    redis.kill();
    eventually("memory is unsure", 3 * SECOND, || async {
        matches!(node.stores.sessions.peek(&ann.gate_hash), Peek::Unsure)
    })
    .await;
    assert_eq!(node.stores.sessions.find(&ann.gate_hash).await.unwrap_err().store, "sessions");
    assert_eq!(node.stores.sessions.end(End::One(&ann.id)).await.unwrap(), 1, "memory knows whose it is");
    let unknown = SessionId::new("unknown");
    assert!(node.stores.sessions.end(End::One(&unknown)).await.is_err(), "nobody knows what belongs to it");
    let command = place.open().await.unwrap();
    let disabled = UserChange { disabled: Some(true), ..UserChange::default() };
    command.users.update("bob", disabled).await.unwrap();
    assert_eq!(command.users.revoke(Whom::One("cid")).await.unwrap(), 0, "they cannot be counted");
    command.close().await;
    redis.restart().await;
    eventually("it is asked again", 5 * SECOND, || async {
        node.stores.sessions.find(&dan.gate_hash).await.is_ok_and(|found| found.is_some())
    })
    .await;
    for ended in [&ann, &bob, &cid] {
        assert!(node.stores.sessions.find(&ended.gate_hash).await.unwrap().is_none());
        assert!(!node.knows(ended));
    }
    node.stop().await;
}

/// What memory knows it may have forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgot_everything_is_believed() {
    let mut redis = Redis::start().await;
    let place = Place::sqlite().with_sessions_at(&redis.url());
    let node: Node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.warm(&made).await;
    redis.kill();
    redis.restart_empty().await;
    eventually("memory forgets it too", 5 * SECOND, || async { !node.knows(&made) }).await;
    eventually("it is unknown", 5 * SECOND, || async {
        node.stores.sessions.find(&made.gate_hash).await.is_ok_and(|found| found.is_none())
    })
    .await;
    let again = node.sign_in("ann").await;
    node.warm(&again).await;
    node.stop().await;
}

/// Its settings are looked at by whoever needs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_ends_access_whatever_is_wrong_with_the_settings_of_redis() {
    let place = Place::sqlite().with_sessions_at("rediss://127.0.0.1:1?cacert=/none/ca.pem");
    let stores = place.open().await.unwrap();
    stores.users.insert(crate::harness::user("ann"), None).await.unwrap();
    assert_eq!(stores.users.revoke(Whom::One("ann")).await.unwrap(), 0);
    let asked = stores.sessions.list(None).await.unwrap_err();
    assert!(asked.detail.contains("/none/ca.pem"), "{asked}");
    stores.close().await;
}

/// It ends nothing: neither in the database nor in Redis.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refresh_that_the_database_refuses_signs_nobody_out() {
    let place = Place::redis().await;
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    let later = made.created_at.after(3_600 * SECOND);
    let token = |name: &str| RefreshToken { hash: TokenHash::of(name), session: made.id.clone(), expires_at: later };
    node.stores.tokens.insert_refresh(token("first of ann's")).await.unwrap();
    place.execute("CREATE TRIGGER full BEFORE INSERT ON refresh_tokens BEGIN SELECT RAISE(FAIL, 'full'); END").await;
    let exchange = Exchange {
        presented: TokenHash::of("first of ann's"),
        next: token("second of ann's"),
        now: made.created_at,
        end_of_session: later,
        place: None,
    };
    assert_eq!(node.stores.tokens.exchange(exchange.clone()).await.unwrap_err().store, "tokens");
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_some());
    place.execute("DROP TRIGGER full").await;
    assert_eq!(node.stores.tokens.exchange(exchange).await.unwrap(), Exchanged::Done);
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_some());
    node.stop().await;
}
