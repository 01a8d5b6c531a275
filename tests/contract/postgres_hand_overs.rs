//! PostgreSQL alone: sessions of one sign-in, changed by several at once. Each case has one of them stand still half-way, holding what it has taken.

use std::time::Duration;

use postern::{
    core::{
        session::{Session, SessionId, TokenHash},
        time::Timestamp,
    },
    ports::{End, HandOver},
};
use sqlx::{Connection as _, Executor as _, PgConnection};

use crate::harness::{Node, Place, eventually, session};

struct Scene {
    node: Node,
    /// Of the one that stands still.
    other: PgConnection,
    look: PgConnection,
    url: String,
}

impl Scene {
    async fn new() -> Self {
        let place = Place::postgres().await;
        let node = place.node().await;
        node.add_user("ann").await;
        let other = PgConnection::connect(place.url()).await.unwrap();
        let look = PgConnection::connect(place.url()).await.unwrap();
        let url = place.url().to_owned();
        Self { node, other, look, url }
    }

    async fn make(&self, id: &str, parent: Option<&str>) {
        self.node.stores.sessions.create(named(id, parent), &[]).await.unwrap();
    }

    async fn somebody_waits(&mut self) {
        let waiting =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let look = tokio::sync::Mutex::new(&mut self.look);
        eventually("somebody waits", Duration::from_secs(5), || async {
            sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut **look.lock().await).await.unwrap() == 1
        })
        .await;
    }

    async fn left(&mut self) -> Vec<String> {
        sqlx::query_scalar("SELECT id FROM sessions ORDER BY id").fetch_all(&mut self.look).await.unwrap()
    }
}

fn named(id: &str, parent: Option<&str>) -> Session {
    Session {
        id: SessionId::new(id.to_owned()),
        parent: parent.map(|id| SessionId::new(id.to_owned())),
        ..session("ann")
    }
}

/// The other one takes rows in the order of their ids, as whoever writes uses does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_ends_a_sign_in_and_whoever_writes_its_uses_do_not_wait_for_each_other() {
    for by_child in [false, true] {
        let mut scene = Scene::new().await;
        scene.make("z-parent", None).await;
        scene.make("a-child", Some("z-parent")).await;
        scene.make("b-child", Some("z-parent")).await;
        scene
            .other
            .execute("BEGIN; UPDATE sessions SET last_used_at = last_used_at WHERE id = 'a-child'")
            .await
            .unwrap();
        let sessions = scene.node.stores.sessions.clone();
        let ended = SessionId::new(if by_child { "b-child" } else { "z-parent" }.to_owned());
        let ending = tokio::spawn(async move { sessions.end(End::One(&ended)).await });
        scene.somebody_waits().await;
        scene
            .other
            .execute("UPDATE sessions SET last_used_at = last_used_at WHERE id IN ('b-child', 'z-parent'); COMMIT")
            .await
            .unwrap();
        assert_eq!(ending.await.unwrap().unwrap(), 3, "{by_child}");
        scene.node.stop().await;
    }
}

/// What is handed over while its end waits comes before what the end has taken already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_ends_what_was_just_handed_over_and_whoever_writes_its_uses_do_not_wait_for_each_other() {
    let mut scene = Scene::new().await;
    scene.make("z-parent", None).await;
    scene.make("m-child", Some("z-parent")).await;
    scene.other.execute("BEGIN; UPDATE sessions SET last_used_at = last_used_at WHERE id = 'm-child'").await.unwrap();
    let sessions = scene.node.stores.sessions.clone();
    let ending = tokio::spawn(async move { sessions.end(End::One(&SessionId::new("z-parent".to_owned()))).await });
    scene.somebody_waits().await;
    scene.make("a-late", Some("z-parent")).await;
    let mut writer = PgConnection::connect(&scene.url).await.unwrap();
    writer.execute("BEGIN; UPDATE sessions SET last_used_at = last_used_at WHERE id = 'a-late'").await.unwrap();
    scene.other.execute("COMMIT").await.unwrap();
    // For `a-late` by now, whatever it has taken before.
    let waiting = "SELECT count(*) FROM pg_stat_activity \
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND $1 = ANY(pg_blocking_pids(pid))";
    let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut writer).await.unwrap();
    let look = tokio::sync::Mutex::new(&mut scene.look);
    eventually("the end waits for the writer", Duration::from_secs(5), || async {
        sqlx::query_scalar::<_, i64>(waiting).bind(pid).fetch_one(&mut **look.lock().await).await.unwrap() == 1
    })
    .await;
    writer.execute("UPDATE sessions SET last_used_at = last_used_at WHERE id = 'z-parent'; COMMIT").await.unwrap();
    assert_eq!(ending.await.unwrap().unwrap(), 3);
    assert_eq!(scene.left().await, Vec::<String>::new());
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_hands_over_and_whoever_writes_uses_do_not_wait_for_each_other() {
    let mut scene = Scene::new().await;
    scene.make("z-parent", None).await;
    scene.make("a-replaced", None).await;
    scene
        .other
        .execute("BEGIN; UPDATE sessions SET last_used_at = last_used_at WHERE id = 'a-replaced'")
        .await
        .unwrap();
    let sessions = scene.node.stores.sessions.clone();
    let replaced = [SessionId::new("a-replaced".to_owned())];
    let creating = tokio::spawn(async move { sessions.create(named("new", Some("z-parent")), &replaced).await });
    scene.somebody_waits().await;
    scene.other.execute("UPDATE sessions SET last_used_at = last_used_at WHERE id = 'z-parent'; COMMIT").await.unwrap();
    creating.await.unwrap().unwrap();
    assert_eq!(scene.left().await, ["new", "z-parent"]);
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_a_session_that_is_being_ended_hands_nothing_over() {
    let mut scene = Scene::new().await;
    scene.make("parent", None).await;
    scene.other.execute("BEGIN; DELETE FROM sessions WHERE id = 'parent'").await.unwrap();
    let sessions = scene.node.stores.sessions.clone();
    let creating = tokio::spawn(async move { sessions.create(named("child", Some("parent")), &[]).await });
    scene.somebody_waits().await;
    scene.other.execute("COMMIT").await.unwrap();
    assert!(creating.await.unwrap().is_err());
    assert_eq!(scene.left().await, Vec::<String>::new());
    scene.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_36_what_is_being_handed_over_ends_with_the_session_that_it_comes_from() {
    let mut scene = Scene::new().await;
    scene.make("parent", None).await;
    scene
        .other
        .execute(
            "BEGIN; SELECT id FROM sessions WHERE id = 'parent' FOR UPDATE; \
             INSERT INTO sessions (id, folded, name, factor, domain, gate_hash, portal_hash, remembered, created_at, \
             signed_in_at, last_used_at, user_agent, address, parent) \
             SELECT 'child', folded, name, factor, domain, portal_hash, gate_hash, remembered, created_at, \
             signed_in_at, last_used_at, user_agent, address, id FROM sessions WHERE id = 'parent'",
        )
        .await
        .unwrap();
    let sessions = scene.node.stores.sessions.clone();
    let ending = tokio::spawn(async move { sessions.end(End::One(&SessionId::new("parent".to_owned()))).await });
    scene.somebody_waits().await;
    scene.other.execute("COMMIT").await.unwrap();
    assert_eq!(ending.await.unwrap().unwrap(), 2);
    assert_eq!(scene.left().await, Vec::<String>::new());
    scene.node.stop().await;
}

/// Several nodes clean up at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_gives_a_code_passes_over_expired_ones_that_another_one_is_at() {
    let mut scene = Scene::new().await;
    let given = |expires_at| HandOver {
        session: SessionId::new("parent".to_owned()),
        domain: "example.net".to_owned(),
        state: String::new(),
        rd: String::new(),
        rm: String::new(),
        expires_at: Timestamp::from_unix_millis(expires_at),
    };
    let hand_overs = scene.node.stores.hand_overs.clone();
    hand_overs.give(&TokenHash::of("expired"), given(0)).await.unwrap();
    scene.other.execute("BEGIN; SELECT code_hash FROM hand_overs FOR UPDATE").await.unwrap();
    hand_overs.give(&TokenHash::of("new"), given(i64::MAX)).await.unwrap();
    scene.other.execute("COMMIT").await.unwrap();
    scene.node.stop().await;
}
