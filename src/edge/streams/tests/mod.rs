//! Whom a look ends and whom it leaves, with stores and a clock that do as the test says.

mod credentials;

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::{
    core::{
        identity::{Factor, Identity},
        request::Role,
        site::Site,
        user::User,
    },
    edge::line::until_ended,
    observe::metrics::Metrics,
    ports::{
        Clock, LiveSession,
        fakes::{
            Counting, Door, Flooding, Issuers, NOW, OneKey, Revocations, Stores, Tokens, Zeroes, foreign, listener,
            route, row, session, site,
        },
    },
};

/// Goes only where the test puts it, in milliseconds.
#[derive(Default)]
struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        NOW.after(self.monotonic())
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst).unsigned_abs())
    }
}

struct Scene {
    streams: Streams,
    stores: Arc<Stores>,
    api_tokens: Arc<Tokens>,
    door: Arc<Door>,
    revocations: Arc<Revocations>,
    issuers: Arc<Issuers>,
    clock: Arc<Hand>,
    gate: Gate,
    site: Site,
}

/// Made an hour less 1,000 s before its end.
const LEFT: i64 = 3600 - 1000;

impl Scene {
    fn new() -> Self {
        let stores = Arc::new(Stores::default());
        let clock = Arc::new(Hand::default());
        let (api_tokens, door) = (Arc::new(Tokens::default()), Arc::new(Door::default()));
        let (revocations, issuers) = (Arc::new(Revocations::default()), Arc::new(Issuers::default()));
        let gate = Gate {
            sessions: Arc::clone(&stores) as _,
            api_tokens: Arc::clone(&api_tokens) as _,
            passwords: Arc::clone(&door) as _,
            keys: Arc::new(OneKey::new()),
            tokens: Arc::clone(&revocations) as _,
            foreign: foreign(&issuers),
            source_limit: Arc::new(Flooding),
            counters: Arc::new(Counting::default()),
            clock: Arc::clone(&clock) as _,
            entropy: Arc::new(Zeroes),
            metrics: Arc::new(Metrics::new().unwrap()),
        };
        let site = site(listener(Role::Edge), vec![route("app.example.com")]);
        Self { streams: Streams::default(), stores, api_tokens, door, revocations, issuers, clock, gate, site }
    }

    fn with(live: &Arc<LiveSession>) -> Self {
        let scene = Self::new();
        scene.stores.store(live);
        scene
    }

    fn open(&self, live: &LiveSession) -> (Arc<Line>, Place) {
        self.open_by(&live.identity, Ground::Session)
    }

    fn open_by(&self, identity: &Arc<Identity>, ground: Ground) -> (Arc<Line>, Place) {
        let line = Arc::new(Line::default());
        let place = self.streams.enter(&line, identity, ground, self.gate.clock.monotonic());
        (line, place)
    }

    async fn look_at(&self, seconds: i64) {
        self.look_at_millis(seconds * 1000).await;
    }

    async fn look_at_millis(&self, millis: i64) {
        self.clock.0.store(millis, Ordering::SeqCst);
        self.streams.look(&self.gate, &self.site).await;
    }
}

/// Ends what it holds, and says why.
fn over(scene: &Scene, (line, place): &(Arc<Line>, Place)) -> Option<Over> {
    scene.streams.leave(*place, line)
}

#[tokio::test]
async fn threat_36_a_stream_ends_when_its_session_does_and_not_before() {
    for is_remembered in [false, true] {
        let live = session('a', 1);
        let scene = Scene::with(&live);
        if is_remembered {
            scene.stores.remember(&live);
        }
        let (first, second) = (scene.open(&live), scene.open(&live));
        scene.look_at(2).await;
        assert_eq!(over(&scene, &first), None);
        scene.stores.forget();
        scene.look_at(3).await;
        assert_eq!(over(&scene, &second), Some(Over::Session));
    }
}

#[tokio::test]
async fn what_is_over_within_a_second_is_never_looked_at() {
    let live = session('a', 1);
    let scene = Scene::new();
    scene.look_at(5).await;
    let open = scene.open(&live);
    scene.look_at(5).await;
    assert_eq!(scene.stores.reads.load(Ordering::SeqCst), 0);
    assert_eq!(over(&scene, &open), None);
}

#[tokio::test]
async fn a_stream_ends_with_the_lifetime_of_its_session_and_is_never_idle() {
    let live = session('a', 1);
    let scene = Scene::with(&live);
    let (first, second) = (scene.open(&live), scene.open(&live));
    for seconds in (20..LEFT).step_by(20) {
        scene.look_at(seconds).await;
    }
    assert_eq!(over(&scene, &first), None, "used all the while: `session.idle` is a minute");
    assert!(NOW.after(Duration::from_secs(2500)) < live.last_used(), "it counts as use");
    scene.look_at(LEFT).await;
    assert_eq!(over(&scene, &second), Some(Over::Lifetime));
}

#[tokio::test]
async fn an_outage_ends_a_stream_once_it_lasts() {
    let live = session('a', 1);
    let scene = Scene::with(&live);
    let (first, second, third) = (scene.open(&live), scene.open(&live), scene.open(&live));
    scene.look_at(10).await;
    scene.stores.down.store(true, Ordering::SeqCst);
    scene.look_at(11).await;
    assert_eq!(over(&scene, &first), None);
    scene.look_at(12).await;
    assert_eq!(over(&scene, &second), Some(Over::Unsure));
    assert_eq!(over(&scene, &third), Some(Over::Unsure));
    let more: Vec<_> = ('\u{4e00}'..).take(100).map(|mark| scene.open(&session(mark, 1))).collect();
    let before = scene.stores.reads.load(Ordering::SeqCst);
    scene.look_at(20).await;
    let asked = scene.stores.reads.load(Ordering::SeqCst) - before;
    assert!((1..20).contains(&asked), "an outage is seen after some: {asked} of {}", more.len());
}

#[tokio::test]
async fn an_outage_that_passes_ends_nothing() {
    let live = session('a', 1);
    let scene = Scene::with(&live);
    let open = scene.open(&live);
    for (seconds, is_down) in [(10, false), (11, true), (12, false), (13, true), (14, false)] {
        scene.stores.down.store(is_down, Ordering::SeqCst);
        scene.look_at(seconds).await;
    }
    assert_eq!(over(&scene, &open), None);
}

/// The session's age needs no store, once it was read.
#[tokio::test]
async fn a_lifetime_ends_in_an_outage_too() {
    let live = session('a', 1);
    let scene = Scene::with(&live);
    let open = scene.open(&live);
    scene.look_at(LEFT - 1).await;
    scene.stores.down.store(true, Ordering::SeqCst);
    scene.look_at(LEFT).await;
    assert_eq!(over(&scene, &open), Some(Over::Lifetime));
}

#[tokio::test]
async fn threat_36_a_stream_ends_when_its_user_is_another() {
    let user = |groups: &[&str]| User {
        display_name: "Bob".to_owned(),
        ..User::new("bob", groups.iter().map(ToString::to_string).collect())
    };
    let before = user(&["staff", "admins"]);
    let mut attributed = before.clone();
    attributed.attributes.insert("tier".to_owned(), serde_json::json!("free"));
    let renamed = User { email: Some("bob@example.com".to_owned()), ..before.clone() };
    for (now, is_ended) in
        [(before.clone(), false), (user(&["staff"]), true), (attributed.clone(), true), (renamed, true)]
    {
        let live = session('a', 1);
        let again = |user: &User| {
            let identity = Identity::new(user, Factor::One, live.identity.signed_in_at, live.identity.session.clone());
            Arc::new(LiveSession::new(&row('a', 1), identity.unwrap()))
        };
        let scene = Scene::with(&again(&now));
        let open = scene.open(&again(&before));
        scene.look_at(2).await;
        assert_eq!(over(&scene, &open), is_ended.then_some(Over::Person), "{now:?}");
    }
}

#[tokio::test]
async fn the_next_request_of_a_connection_is_not_ended_by_what_ended_the_one_before() {
    let (gone, live) = (session('a', 1), session('b', 1));
    let scene = Scene::with(&live);
    let (line, place) = scene.open(&gone);
    scene.streams.leave(place, &line);
    let next = scene.streams.enter(&line, &live.identity, Ground::Session, Duration::ZERO);
    // A look that began before the first was over.
    scene.streams.found(place, Hold::Over(Over::Session), None, &scene.gate);
    assert_eq!(scene.streams.leave(next, &line), None);
}

/// It was over by itself before whoever serves came to see that it was ended.
#[tokio::test]
async fn what_was_found_over_in_the_one_before_is_not_told_to_the_next_request_of_a_connection() {
    let (gone, live) = (session('a', 1), session('b', 1));
    let scene = Scene::with(&live);
    let (line, place) = scene.open(&gone);
    scene.look_at(2).await;
    assert_eq!(scene.streams.leave(place, &line), Some(Over::Session));
    let (entered, is_entered) = tokio::sync::oneshot::channel();
    let served = until_ended(&line, async {
        let place = scene.streams.enter(&line, &live.identity, Ground::Session, Duration::from_secs(2));
        entered.send(place).unwrap();
        tokio::task::yield_now().await;
        "served"
    });
    assert_eq!(served.await, Some("served"));
    assert_eq!(scene.streams.leave(is_entered.await.unwrap(), &line), None);
}

/// Memory knows nothing, and a look-up takes so long that one look has time for three of them.
#[tokio::test(start_paused = true)]
async fn a_slow_store_ends_no_stream_that_is_alive() {
    let scene = Scene::new();
    scene.stores.read_time.store(200, Ordering::SeqCst);
    let sessions: Vec<_> = ('\u{4e00}'..).take(3_000).map(|mark| session(mark, 1)).collect();
    let mut open = Vec::new();
    for live in &sessions {
        scene.stores.store(live);
        // One question answers for all of a session.
        open.extend([scene.open(live), scene.open(live)]);
    }
    for millis in (1_000..10_000).step_by(1_000) {
        scene.look_at_millis(millis).await;
    }
    let over: Vec<_> = open.iter().filter_map(|open| over(&scene, open)).collect();
    assert!(over.is_empty(), "{} of {}: {over:?}", over.len(), open.len());
    assert_eq!(scene.stores.peeks.load(Ordering::SeqCst), 0, "no request asked");
}

#[tokio::test]
async fn what_is_damaged_ends_no_other_stream() {
    let (good, bad) = (session('a', 1), session('b', 1));
    let scene = Scene::with(&good);
    scene.stores.damaged.lock().unwrap().push(bad.id().clone());
    let (of_good, of_bad) = (scene.open(&good), scene.open(&bad));
    for seconds in 1..10 {
        scene.look_at(seconds).await;
    }
    assert_eq!(over(&scene, &of_good), None);
    assert_eq!(over(&scene, &of_bad), Some(Over::Unsure));
}

/// Two questions a look are answered, each about many sessions; there is more to ask.
#[tokio::test(start_paused = true)]
async fn where_the_store_is_slower_those_are_asked_for_first_that_have_waited_longest() {
    let sessions: Vec<_> = ('\u{4e00}'..).take(4 * look::TOGETHER).map(|mark| session(mark, 1)).collect();
    let scene = Scene::new();
    let mut open = Vec::new();
    for live in &sessions {
        scene.stores.store(live);
        open.push(scene.open(live));
    }
    for millis in (1_000..20_000).step_by(800) {
        scene.stores.reads_left.store(2, Ordering::SeqCst);
        scene.look_at_millis(millis).await;
    }
    assert!(open.iter().all(|open| over(&scene, open).is_none()), "none was passed over again and again");
}

#[tokio::test]
async fn who_serves_is_woken_and_drops_what_it_serves() {
    let live = session('a', 1);
    let scene = Arc::new(Scene::new());
    let (entered, is_entered) = tokio::sync::oneshot::channel();
    let dropped = Arc::new(());
    let kept = Arc::downgrade(&dropped);
    let serving = {
        let scene = Arc::clone(&scene);
        tokio::spawn(async move {
            until_ended(&Arc::new(Line::default()), async {
                let _dropped = dropped;
                let line = Line::of_this_request().unwrap();
                let place = scene.streams.enter(&line, &live.identity, Ground::Session, Duration::ZERO);
                entered.send(place).unwrap();
                std::future::pending::<()>().await;
            })
            .await
        })
    };
    is_entered.await.unwrap();
    assert!(kept.upgrade().is_some());
    scene.look_at(2).await;
    assert_eq!(serving.await.unwrap(), None);
    assert!(kept.upgrade().is_none());
}

#[tokio::test]
async fn what_nobody_could_end_has_no_line() {
    assert!(Line::of_this_request().is_none());
    assert!(until_ended(&Arc::default(), async { Line::of_this_request().is_some() }).await.unwrap());
}
