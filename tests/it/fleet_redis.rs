//! Two Postern processes that keep sessions in one Redis, and the log of changes in one PostgreSQL: whatever Redis does not answer, forgets or brings back,
//! what ended stays ended, nobody is taken for somebody, and all comes back by itself.

use std::{sync::Arc, time::Duration};

use serde_json::json;

use crate::{
    fleet::{a_node_that_is_cut_off, what_one_ends_ends_the_streams_of_the_other, what_one_ends_the_other_knows},
    harness::{
        breaker::Breaker,
        eventually,
        fleet::{
            self, BOUND, Database, Fault, Load, STRANGER, api_token, comes_to, comes_to_refuse, is_accepted, logout,
            nodes_with, now, page, password_of, status,
        },
        postgres::Postgres,
        redis::Redis,
        server::{PASSWORD, Role, Server, SignedIn, feed},
        upstream::Upstream,
        wire::{self, Request},
    },
    streams::Stream,
};

/// Of the two nodes, one reaches Redis by a relay.
struct Scene {
    here: Server,
    there: Arc<Server>,
    relay: Breaker,
    redis: Redis,
    _upstream: Upstream,
}

impl Scene {
    async fn start() -> Self {
        let upstream = Upstream::start().await;
        let database = Postgres::shared_database().await;
        let redis = Redis::start().await;
        let relay = Breaker::before(redis.port()).await;
        let (direct, relayed) = (redis.url(), redis.url_by(relay.port()));
        let urls = [(&*database, Some(&*direct)), (&*database, Some(&*relayed))];
        let (here, there) = nodes_with(&upstream, urls).await;
        Self { here, there, relay, redis, _upstream: upstream }
    }

    fn nodes(&self) -> [&Server; 2] {
        [&self.here, &self.there]
    }

    /// Known to both nodes.
    async fn sign_in(&self, user: &str) -> SignedIn {
        let session = self.here.sign_in(user).await;
        for node in self.nodes() {
            is_accepted(node, &session).await;
        }
        session
    }

    async fn all_come_to(&self, session: &SignedIn, wanted: u16) {
        for node in self.nodes() {
            for role in Role::BOTH {
                comes_to(node, role, session, wanted).await;
            }
        }
    }

    async fn records(&self) -> Vec<String> {
        let mut keys = self.redis.keys().await;
        keys.retain(|key| key.contains(":session:"));
        keys.sort();
        keys
    }

    async fn begins(&mut self, away: Away) {
        match away {
            Away::Cut => self.relay.cut(),
            Away::Silent => self.relay.silence(),
            Away::StandsStill => self.redis.pause(),
            Away::Forgets | Away::GoesBack => self.redis.kill(),
        }
    }

    async fn ends(&mut self, away: Away) {
        match away {
            Away::Cut | Away::Silent => self.relay.mend(),
            Away::StandsStill => self.redis.resume(),
            Away::Forgets => self.redis.restart_empty().await,
            Away::GoesBack => self.redis.restart().await,
        }
    }
}

/// How Redis goes away, and what it is when it is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    /// From one of the nodes.
    Cut,
    Silent,
    StandsStill,
    Forgets,
    /// To a snapshot.
    GoesBack,
}

/// Who is not known cannot be told from who is signed in; what needs no session goes on.
async fn nothing_is_answered(node: &Server, session: &SignedIn) {
    let stranger = Request::get("/members/x").page().cookie(STRANGER);
    for role in Role::BOTH {
        comes_to(node, role, session, 503).await;
        assert_eq!(status(node, role, &stranger).await, 503, "{role:?}");
        assert_eq!(status(node, role, &Request::get("/members/x").page()).await, 302, "nobody: {role:?}");
        assert_eq!(status(node, role, &Request::get("/public/x")).await, 200, "{role:?}");
        let by_token = Request::get("/members/x").header("Authorization", format!("Bearer {}", session.access_token));
        assert_eq!(status(node, role, &by_token).await, 503, "a token is its session's: {role:?}");
    }
    let login = node.login("bob", PASSWORD, &[]).await;
    assert_eq!((login.status, login.set_cookie("postern_session")), (503, None), "{login:?}");
    assert_eq!(logout(node, session).await, 503, "never told that it is over while it is not");
    assert_eq!(node.portal(Request::get("/auth/me").cookie(session.both())).await.status, 503);
    eventually("/readyz names it", || async {
        let ready = wire::send(node.admin(), &Request::get("/readyz").host("localhost").bytes()).await;
        (ready.status == 200 && ready.body.contains("redis")).then_some(())
    })
    .await;
}

async fn redis_goes_away(away: Away) {
    let mut scene = Scene::start().await;
    scene.here.add_user("carol", &["--groups", "dev"]);
    let (kept, revoked, disabled) =
        (scene.sign_in("alice").await, scene.sign_in("bob").await, scene.sign_in("carol").await);
    let half = scene.sign_in("bob").await;
    let records = scene.records().await;
    assert_eq!(records.len(), 4);
    scene.redis.snapshot().await;
    let load = Load::start(&scene.there, &kept, &revoked);
    assert_eq!(logout(&scene.here, &revoked).await, 204);
    let revoked_at = now();
    assert_eq!(scene.records().await.len(), 3);
    let by_what_is_no_session = [api_token(&scene.here, "alice"), password_of("alice")];
    scene.begins(away).await;
    nothing_is_answered(&scene.there, &kept).await;
    for authorization in by_what_is_no_session {
        let request = Request::get("/members/x").header("Authorization", authorization);
        for role in Role::BOTH {
            assert_eq!(status(&scene.there, role, &request).await, 200, "{role:?}");
        }
    }
    let reaches = matches!(away, Away::Cut | Away::Silent);
    if reaches {
        is_accepted(&scene.here, &kept).await;
    }
    // Told that not all is known, by a command that asks Redis itself; and it is over all the same.
    let told = feed(&mut scene.here.command(&["session", "revoke", &half.session_id]), "");
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    let wanted = if reaches { (Some(0), 0) } else { (Some(1), 1) };
    assert_eq!((told.status.code(), said.lines().count()), wanted, "{said}");
    // What ends is the database's to know.
    scene.here.run(&["user", "disable", "carol"]);
    scene.here.run(&["user", "enable", "carol"]);
    // Past the bound, while the fault lasts.
    tokio::time::sleep_until((revoked_at + BOUND + Duration::from_millis(500)).into()).await;
    scene.ends(away).await;
    if away == Away::GoesBack {
        assert_eq!(scene.records().await, records, "Redis says that nothing ended");
    }
    let lives = away != Away::Forgets;
    scene.all_come_to(&kept, if lives { 200 } else { 302 }).await;
    for over in [&revoked, &disabled, &half] {
        for node in scene.nodes() {
            is_over(node, over, "afterwards").await;
        }
    }
    load.end_where_the_kept_get(revoked_at, if lives { &[200, 503] } else { &[200, 302, 503] }).await;
    for node in scene.nodes() {
        is_accepted(node, &node.sign_in("bob").await).await;
        let stranger = Request::get("/members/x").page().cookie(STRANGER);
        assert_eq!(status(node, Role::Edge, &stranger).await, 302);
    }
}

/// By whatever came of the sign-in.
async fn is_over(node: &Server, session: &SignedIn, after: &str) {
    fleet::is_over(node, session, after).await;
    for role in Role::BOTH {
        let by_token = Request::get("/members/x").header("Authorization", format!("Bearer {}", session.access_token));
        comes_to_refuse(after, 401, || status(node, role, &by_token)).await;
    }
    let refresh = || Request::new("POST", "/auth/refresh").json(&json!({ "refresh_token": session.refresh_token }));
    let me = || Request::get("/auth/me").cookie(session.both());
    comes_to_refuse(after, 401, || async { node.portal(refresh()).await.status }).await;
    comes_to_refuse(after, 401, || async { node.portal(me()).await.status }).await;
}

#[tokio::test]
async fn threat_36_what_one_node_ends_is_over_on_the_other_with_sessions_in_redis() {
    let scene = Scene::start().await;
    what_one_ends_the_other_knows(&scene.here, &scene.there).await;
}

#[tokio::test]
async fn threat_36_what_one_node_ends_ends_the_streams_of_the_other_with_sessions_in_redis() {
    let scene = Scene::start().await;
    what_one_ends_ends_the_streams_of_the_other(&scene.here, &scene.there).await;
}

#[tokio::test]
async fn threat_32_36_a_node_whose_connections_to_redis_are_cut() {
    redis_goes_away(Away::Cut).await;
}

#[tokio::test]
async fn threat_32_36_a_node_that_loses_every_packet_to_redis() {
    redis_goes_away(Away::Silent).await;
}

#[tokio::test]
async fn threat_32_36_a_redis_that_stands_still_under_load() {
    redis_goes_away(Away::StandsStill).await;
}

#[tokio::test]
async fn threat_32_36_a_redis_that_is_killed_under_load_and_comes_back_empty() {
    redis_goes_away(Away::Forgets).await;
}

#[tokio::test]
async fn threat_32_36_a_redis_that_is_killed_under_load_and_comes_back_as_it_was_before_the_end() {
    redis_goes_away(Away::GoesBack).await;
}

#[tokio::test]
async fn threat_36_a_node_cut_off_from_the_database_while_redis_answers() {
    let redis = Redis::shared().await;
    a_node_that_is_cut_off(Fault::Cut, Some(&redis)).await;
    a_node_that_is_cut_off(Fault::Silence, Some(&redis)).await;
}

/// Nobody waits for what does not answer.
#[tokio::test]
async fn a_node_ends_while_redis_stands_still() {
    let mut scene = Scene::start().await;
    let kept = scene.sign_in("alice").await;
    scene.redis.pause();
    scene.here.stop().await;
    scene.redis.resume();
    scene.here.launch().await;
    scene.all_come_to(&kept, 200).await;
}

/// Redis says that a session goes on, and the one who knows better cannot be asked.
#[tokio::test]
async fn threat_36_a_record_that_redis_brings_back_opens_nothing_while_the_database_is_away() {
    let upstream = Upstream::start().await;
    let Database { server: _server, port, url: database, name } = Database::start().await;
    let relay = Breaker::before(port.number()).await;
    let relayed = format!("postgres://postgres@127.0.0.1:{}/{name}", relay.port());
    let mut redis = Redis::start().await;
    let sessions = redis.url();
    let (here, there) = nodes_with(&upstream, [(&database, Some(&sessions)), (&relayed, Some(&sessions))]).await;
    let (kept, revoked) = (here.sign_in("alice").await, here.sign_in("bob").await);
    is_accepted(&there, &kept).await;
    is_accepted(&there, &revoked).await;
    redis.snapshot().await;
    let load = Load::start(&there, &kept, &revoked);
    relay.cut();
    assert_eq!(logout(&here, &revoked).await, 204);
    let revoked_at = now();
    redis.kill();
    redis.restart().await;
    for role in Role::BOTH {
        comes_to(&there, role, &kept, 503).await;
        comes_to(&there, role, &revoked, 503).await;
    }
    tokio::time::sleep_until((revoked_at + BOUND + Duration::from_millis(500)).into()).await;
    for node in [&here, &*there] {
        assert_ne!(status(node, Role::Edge, &page(&revoked)).await, 200);
    }
    relay.mend();
    for role in Role::BOTH {
        comes_to(&there, role, &kept, 200).await;
    }
    is_over(&there, &revoked, "the database is back").await;
    load.end(revoked_at).await;
}

/// Whose session was lost is not known there, and ends as where the database is away; what needs no session stays.
#[tokio::test]
async fn threat_36_streams_of_a_node_that_is_cut_off_from_redis() {
    let scene = Scene::start().await;
    for fault in [Fault::Cut, Fault::Silence] {
        let (bob, alice) = (scene.sign_in("bob").await, scene.sign_in("alice").await);
        let there = &*scene.there;
        let mut ended = Stream::websocket(there, &bob.gate).await;
        let mut kept = Stream::websocket(there, &alice.gate).await;
        let mut by_access_token = Stream::websocket_by(there, &format!("Bearer {}", alice.access_token)).await;
        let mut by_token = Stream::websocket_by(there, &api_token(&scene.here, "alice")).await;
        let mut by_lost_token = Stream::websocket_by(there, &api_token(&scene.here, "bob")).await;
        let mut by_password = Stream::websocket_by(there, &password_of("alice")).await;
        fault.strike(&scene.relay);
        scene.here.run(&["session", "revoke", &bob.session_id]);
        scene.here.run(&["token", "revoke", "--user", "bob"]);
        tokio::join!(ended.ends(), kept.ends(), by_access_token.ends(), by_lost_token.ends());
        assert!(by_token.echoes().await && by_password.echoes().await, "the database knows of them");
        scene.relay.mend();
        comes_to(there, Role::Edge, &alice, 200).await;
        is_over(there, &bob, "cut off").await;
        assert!(Stream::websocket(there, &alice.gate).await.echoes().await);
        assert!(by_token.echoes().await && by_password.echoes().await, "they went on");
    }
}

/// How a session ends, each for another person.
const ENDS: [&str; 7] =
    ["logout", "DELETE", "logout-all", "session revoke", "session revoke --user", "disable", "set-password"];

async fn end(scene: &Scene, how: &str, user: &str, session: &SignedIn) {
    let here = &scene.here;
    match how {
        "logout" => assert_eq!(logout(here, session).await, 204),
        "DELETE" => {
            let path = format!("/auth/sessions/{}", session.session_id);
            let another = here.sign_in(user).await;
            assert_eq!(here.portal(Request::new("DELETE", &path).cookie(another.both())).await.status, 204);
        }
        "logout-all" => {
            let reply = here.portal(Request::new("POST", "/auth/logout-all").cookie(session.both())).await;
            assert_eq!(reply.status, 200);
        }
        "session revoke" => _ = here.run(&["session", "revoke", &session.session_id]),
        "session revoke --user" => _ = here.run(&["session", "revoke", "--user", user]),
        "disable" => {
            here.run(&["user", "disable", user]);
            here.run(&["user", "enable", user]);
        }
        _ => _ = here.run(&["user", "set-password", user, "--password-stdin"]),
    }
}

#[tokio::test]
async fn threat_36_a_redis_that_goes_back_revives_nothing_however_it_ended() {
    let mut scene = Scene::start().await;
    let kept = scene.sign_in("alice").await;
    let mut ended = Vec::new();
    for (number, how) in ENDS.into_iter().enumerate() {
        let user = format!("user{number}");
        scene.here.add_user(&user, &["--groups", "dev"]);
        ended.push((how, scene.sign_in(&user).await, user));
    }
    let records = scene.records().await;
    scene.redis.snapshot().await;
    for (how, session, user) in &ended {
        end(&scene, how, user, session).await;
    }
    for round in ["a running node", "a new process"] {
        scene.redis.kill();
        if round == "a new process" {
            scene.here.stop().await;
        }
        scene.redis.restart().await;
        assert_eq!(scene.records().await, records, "Redis says that nothing ended");
        if round == "a new process" {
            scene.here.launch().await;
        }
        scene.all_come_to(&kept, 200).await;
        for (how, session, user) in &ended {
            for node in scene.nodes() {
                is_over(node, session, &format!("{how}, {round}")).await;
            }
            let listed = scene.here.run(&["session", "list", "--user", user, "--format", "json"]);
            assert!(!listed.contains(&session.session_id), "{how}: {listed}");
        }
    }
    scene.here.run(&["session", "revoke", "--all"]);
    scene.redis.kill();
    scene.redis.restart().await;
    assert_eq!(scene.records().await, records);
    scene.all_come_to(&kept, 302).await;
    for node in scene.nodes() {
        is_over(node, &kept, "session revoke --all").await;
    }
}

/// Where a key is thrown away that says which sessions somebody has, they end all the same.
#[tokio::test]
async fn threat_36_what_redis_throws_away_keeps_nobody_from_ending_sessions() {
    let mut scene = Scene::start().await;
    let kept = scene.sign_in("alice").await;
    let (first, second) = (scene.sign_in("bob").await, scene.sign_in("bob").await);
    for key in scene.redis.keys().await {
        if !key.contains(":session:") {
            scene.redis.command(&["DEL", &key]).await;
        }
    }
    let reply = scene.here.portal(Request::new("POST", "/auth/logout-all").cookie(first.both())).await;
    assert_eq!(reply.status, 200);
    assert_eq!(scene.records().await.len(), 3, "nobody could find them");
    for session in [&first, &second] {
        scene.all_come_to(session, 302).await;
        is_over(&scene.there, session, "logout-all").await;
    }
    is_accepted(&scene.there, &kept).await;
    // Its id leads nowhere: whoever wants it ended is told so, and it ends.
    let told = feed(&mut scene.here.command(&["session", "revoke", &kept.session_id]), "");
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(told.status.code() == Some(1) && said.contains("there is no session"), "{said}");
    scene.all_come_to(&kept, 302).await;

    // All of it, and nothing new is taken.
    let (kept, over) = (scene.sign_in("alice").await, scene.sign_in("bob").await);
    scene.redis.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    scene.redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let login = scene.here.login("bob", PASSWORD, &[]).await;
    assert_eq!((login.status, login.set_cookie("postern_session")), (503, None), "{login:?}");
    assert_eq!(scene.records().await.len(), 0);
    scene.here.run(&["session", "revoke", "--user", "bob"]);
    scene.all_come_to(&over, 302).await;
    scene.here.stop().await;
    scene.redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
    scene.here.launch().await;
    assert_eq!(status(&scene.here, Role::Edge, &page(&kept)).await, 302, "it has to sign in again");
    is_accepted(&scene.here, &scene.here.sign_in("bob").await).await;
}
