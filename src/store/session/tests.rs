use std::{
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;

use super::{
    cache::{SessionCache, Source},
    cached::CachedSessions,
    database::DatabaseRecords,
};
use crate::{
    config::DatabaseAddress,
    core::{
        identity::{Factor, Identity},
        session::{CookieFacts, Session, SessionId, TokenHash},
        time::Timestamp,
        user::User,
    },
    observe::metrics::Metrics,
    ports::{Clock, Each, LiveSession, Sessions as _, Unavailable, UserChange, UserError, Users, Whom},
    store::database::Database,
};

#[derive(Default)]
struct FakeClock(AtomicU64);

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(0)
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::Relaxed))
    }
}

fn row(id: &str, user: &str) -> Session {
    let at = Timestamp::from_unix_millis(0);
    Session {
        id: SessionId::new(id.to_owned()),
        user: user.to_owned(),
        factor: Factor::One,
        domain: String::new(),
        gate_hash: TokenHash::of(id),
        portal_hash: TokenHash::of("portal"),
        remembered: false,
        created_at: at,
        signed_in_at: at,
        last_used_at: at,
        user_agent: String::new(),
        address: None,
        parent: None,
    }
}

fn live(id: &str, user: &str) -> Arc<LiveSession> {
    let (at, session) = (Timestamp::from_unix_millis(0), row(id, user));
    let user = User::new(user, Vec::new());
    let identity = Identity::new(&user, Factor::One, at, Some(session.id.clone())).unwrap();
    Arc::new(LiveSession::new(&session, identity))
}

fn trusted() -> (Arc<FakeClock>, SessionCache) {
    let clock = Arc::new(FakeClock::default());
    let cache = SessionCache::new(clock.clone());
    cache.trust(Source::Log, clock.monotonic());
    (clock, cache)
}

/// Runs what waits for nothing but its own turn.
fn now(work: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work);
}

fn holds(cache: &SessionCache, id: &str) -> bool {
    let by_hash = cache.by_hash(&TokenHash::of(id)).unwrap().is_some();
    let by_id = cache.by_id(&SessionId::new(id.to_owned())).unwrap().is_some();
    assert_eq!(by_hash, by_id, "{id}");
    by_hash
}

#[test]
fn what_was_remembered_is_found_by_both_names() {
    let (_, cache) = trusted();
    cache.remember(&live("a", "ann"), "ann", cache.generation());
    assert!(holds(&cache, "a"));
    assert!(!holds(&cache, "b"));
}

#[test]
fn threat_36_a_read_from_before_a_drop_is_not_remembered() {
    let (_, cache) = trusted();
    let drops: [fn(&SessionCache); 3] = [
        |cache| cache.drop_session(&SessionId::new("a".to_owned())),
        |cache| cache.drop_user("ann"),
        |cache| cache.drop_all(),
    ];
    for drop in drops {
        let read_at = cache.generation();
        drop(&cache);
        cache.remember(&live("a", "ann"), "ann", read_at);
        assert!(!holds(&cache, "a"));
    }
}

#[test]
fn a_drop_takes_one_session_all_of_a_user_or_all() {
    let (_, cache) = trusted();
    for (id, user) in [("a1", "ann"), ("a2", "ann"), ("b1", "bob")] {
        cache.remember(&live(id, user), user, cache.generation());
    }
    cache.drop_session(&SessionId::new("a1".to_owned()));
    assert!(!holds(&cache, "a1") && holds(&cache, "a2") && holds(&cache, "b1"));
    cache.drop_user("ann");
    assert!(!holds(&cache, "a2") && holds(&cache, "b1"));
    cache.remember(&live("a3", "ann"), "ann", cache.generation());
    assert!(holds(&cache, "a3"), "a user who was dropped can be remembered again");
    cache.drop_all();
    assert!(!holds(&cache, "a3") && !holds(&cache, "b1"));
    cache.remember(&live("b1", "bob"), "bob", cache.generation());
    assert!(holds(&cache, "b1"));
}

#[test]
fn memory_is_unsure_after_two_seconds_without_a_look_at_the_log() {
    let (clock, cache) = trusted();
    cache.remember(&live("a", "ann"), "ann", cache.generation());
    clock.0.store(1_999, Ordering::Relaxed);
    assert!(cache.by_hash(&TokenHash::of("a")).is_ok());
    clock.0.store(2_000, Ordering::Relaxed);
    assert!(cache.by_hash(&TokenHash::of("a")).is_err());
    cache.trust(Source::Log, clock.monotonic());
    assert!(holds(&cache, "a"));
    cache.distrust(Source::Log);
    assert!(cache.by_hash(&TokenHash::of("a")).is_err());
}

#[test]
fn a_new_reading_keeps_the_later_use_that_memory_knew() {
    let (_, cache) = trusted();
    let first = live("a", "ann");
    cache.remember(&first, "ann", cache.generation());
    first.touch(Timestamp::from_unix_millis(5_000));
    let second = live("a", "ann");
    cache.remember(&second, "ann", cache.generation());
    assert_eq!(second.last_used(), Timestamp::from_unix_millis(5_000));
    assert!(holds(&cache, "a"));
}

/// What is evicted is found by neither name, and the index by id grows no larger than the cache.
#[test]
fn what_is_evicted_leaves_nothing_behind() {
    let clock = Arc::new(FakeClock::default());
    let cache = SessionCache::of_capacity(clock.clone(), 100);
    for number in 0..300 {
        clock.0.store(number * 1_000, Ordering::Relaxed);
        cache.trust(Source::Log, clock.monotonic());
        cache.remember(&live(&format!("s{number}"), "ann"), "ann", cache.generation());
        assert!(holds(&cache, "s0"), "it is looked up all the time");
    }
    assert_eq!(cache.sizes(), (100, 100));
    for number in 1..300 {
        assert_eq!(
            holds(&cache, &format!("s{number}")),
            number > 200,
            "{number}: what was not looked up for longest goes"
        );
    }
}

#[test]
fn what_nobody_looks_up_for_an_hour_is_forgotten() {
    let (clock, cache) = trusted();
    for id in ["a", "b"] {
        cache.remember(&live(id, "ann"), "ann", cache.generation());
    }
    for hours in [1_u64, 2] {
        clock.0.store((hours * 3_600 - 60) * 1_000, Ordering::Relaxed);
        cache.trust(Source::Log, clock.monotonic());
        assert!(holds(&cache, "a"));
        now(cache.clean());
        assert_eq!(cache.sizes(), (2, 2), "not yet");
        clock.0.store((hours * 3_600 + 60) * 1_000, Ordering::Relaxed);
        cache.trust(Source::Log, clock.monotonic());
        assert!(hours == 2 || holds(&cache, "b"));
        now(cache.clean());
    }
    clock.0.store(3 * 3_600 * 1_000, Ordering::Relaxed);
    cache.trust(Source::Log, clock.monotonic());
    assert!(holds(&cache, "a"));
    now(cache.clean());
    assert_eq!(cache.sizes(), (1, 1));
    assert!(holds(&cache, "a") && !holds(&cache, "b"));
}

/// By both names, none for another, all gone by either.
#[test]
fn many_are_found_and_forgotten_one_by_one() {
    let (_, cache) = trusted();
    let number_of = 20_000;
    let identity = live("", "ann").identity.clone();
    for number in 0..number_of {
        let session = Arc::new(LiveSession::new(&row(&format!("s{number}"), "ann"), Identity::clone(&identity)));
        cache.remember(&session, "ann", cache.generation());
        // Read anew, as when memory was unsure.
        cache.remember(&session, "ann", cache.generation());
    }
    assert_eq!(cache.sizes(), (number_of, number_of));
    for number in 0..number_of {
        let id = format!("s{number}");
        let found = cache.by_hash(&TokenHash::of(&id)).unwrap().unwrap();
        assert_eq!(found.id().as_str(), id);
        assert!(holds(&cache, &id));
    }
    for number in (0..number_of).step_by(2) {
        cache.drop_session(&SessionId::new(format!("s{number}")));
    }
    assert_eq!(cache.sizes(), (number_of / 2, number_of / 2));
    for number in 0..number_of {
        assert_eq!(holds(&cache, &format!("s{number}")), number % 2 == 1);
    }
}

/// Of several shards, while many are looked up, remembered and dropped at once, and memory is cleaned of what is idle.
#[test]
fn whatever_happens_at_once_both_names_lead_to_the_same() {
    let clock = Arc::new(FakeClock::default());
    let cache = SessionCache::of_capacity(clock.clone(), 4_096);
    cache.trust(Source::Log, clock.monotonic());
    let names = 300;
    let forgotten = AtomicU64::new(0);
    thread::scope(|threads| {
        for thread in 0..4_usize {
            let (cache, clock, forgotten) = (&cache, &clock, &forgotten);
            threads.spawn(move || {
                for round in 0..6_000 {
                    // Each thread remembers and drops names of its own, and looks up everybody's.
                    let own = (round * 7 % (names / 4)) * 4 + thread;
                    let id = format!("s{own}");
                    match round % 5 {
                        0 => {
                            cache.drop_session(&SessionId::new(id.clone()));
                            assert!(!matches!(cache.by_hash(&TokenHash::of(&id)), Ok(Some(_))), "{id} is dropped");
                        }
                        1 if round % 200 == 1 && thread == 0 => {
                            clock.0.fetch_add(4_000_000, Ordering::Relaxed);
                            cache.trust(Source::Log, clock.monotonic());
                            let before = cache.sizes().0;
                            now(cache.clean());
                            forgotten.fetch_add(before.saturating_sub(cache.sizes().0) as u64, Ordering::Relaxed);
                        }
                        2 => drop(cache.by_hash(&TokenHash::of(&format!("s{}", round % names)))),
                        _ => cache.remember(&live(&id, "ann"), "ann", cache.generation()),
                    }
                }
            });
        }
    });
    assert!(forgotten.load(Ordering::Relaxed) > 0, "some were idle when memory was cleaned");
    let (by_hash, by_id) = cache.sizes();
    assert_eq!(by_hash, by_id, "nothing is left that nothing can reach");
    cache.trust(Source::Log, clock.monotonic());
    assert_eq!((0..names).filter(|number| holds(&cache, &format!("s{number}"))).count(), by_hash);
}

#[test]
fn what_takes_the_place_of_another_leaves_nothing_of_it() {
    let (_, cache) = trusted();
    cache.remember(&live("a", "ann"), "ann", cache.generation());
    let rotated = Session { gate_hash: TokenHash::of("new"), ..row("a", "ann") };
    let rotated = Arc::new(LiveSession::new(&rotated, Identity::clone(&live("a", "ann").identity)));
    cache.remember(&rotated, "ann", cache.generation());
    assert!(cache.by_hash(&TokenHash::of("a")).unwrap().is_none(), "by the hash that it had before");
    assert!(cache.by_hash(&TokenHash::of("new")).unwrap().is_some());
    let other = Session { gate_hash: TokenHash::of("new"), ..row("b", "ann") };
    cache.remember(
        &Arc::new(LiveSession::new(&other, Identity::clone(&live("b", "ann").identity))),
        "ann",
        cache.generation(),
    );
    assert!(cache.by_id(&SessionId::new("a".to_owned())).unwrap().is_none(), "its hash is another's now");
    assert_eq!(cache.sizes(), (1, 1));
}

#[test]
fn sessions_of_a_user_share_a_profile_as_long_as_it_says_the_same() {
    let (_, cache) = trusted();
    let of = |id: &str, user: &str| Identity::clone(&live(id, user).identity);
    let cookie = |domain: &str| Arc::new(CookieFacts { domain: domain.into(), remembered: false });
    let (first, alike) = cache.shared("ann", of("a1", "ann"), &cookie("example.com"));
    let (second, same) = cache.shared("ann", of("a2", "ann"), &cookie("example.com"));
    assert!(Arc::ptr_eq(first.profile(), second.profile()));
    assert!(Arc::ptr_eq(&alike, &same), "and what is alike of their cookies");
    let (changed, other) = cache.shared("ann", of("a3", "Ann"), &cookie("example.net"));
    assert_eq!(*other.domain, *"example.net");
    assert_eq!(*changed.user, *"Ann", "what was changed since is not taken for the same");
    assert!(!Arc::ptr_eq(first.profile(), changed.profile()));
    let (next, _) = cache.shared("ann", of("a4", "Ann"), &cookie("example.com"));
    assert!(Arc::ptr_eq(changed.profile(), next.profile()));
}

/// Requests wait for the lock under which it happens.
#[test]
fn to_drop_everything_frees_nothing_under_the_lock() {
    let (_, cache) = trusted();
    let kept: Vec<_> = (0..100)
        .map(|number| {
            let (id, user) = (format!("s{number}"), format!("u{number}"));
            let session = live(&id, &user);
            cache.remember(&session, &user, cache.generation());
            Arc::downgrade(&session)
        })
        .collect();
    let emptied = cache.emptied();
    assert_eq!(emptied.sizes(), (100, 100), "all of it is still to be freed");
    assert!(kept.iter().all(|session| session.upgrade().is_some()));
    assert_eq!((cache.sizes(), cache.known_users()), ((0, 0), 0));
    assert!((0..100).all(|number| !holds(&cache, &format!("s{number}"))));
    drop(emptied);
    assert!(kept.iter().all(|session| session.upgrade().is_none()), "and then it is");
}

/// Everybody there is. When many are asked for, the last uses that are pending are written just then.
#[derive(Default)]
struct Everybody {
    sessions: OnceLock<Weak<CachedSessions>>,
    asked_for_one: AtomicU64,
    asked_for_many: AtomicU64,
}

#[async_trait]
impl Users for Everybody {
    async fn find(&self, name: &str) -> Result<Option<User>, Unavailable> {
        self.asked_for_one.fetch_add(1, Ordering::SeqCst);
        Ok(Some(User::new(name, Vec::new())))
    }
    async fn find_each(&self, names: &[&str]) -> Result<Each<String, User>, Unavailable> {
        self.asked_for_many.fetch_add(1, Ordering::SeqCst);
        self.sessions.get().unwrap().upgrade().unwrap().write_uses().await?;
        let found = names.iter().map(|&name| (name.to_owned(), User::new(name, Vec::new()))).collect();
        Ok(Each { found, ..Each::default() })
    }
    async fn list(&self) -> Result<Vec<User>, Unavailable> {
        unreachable!("nothing here lists users")
    }
    async fn insert(&self, _: User, _: Option<String>) -> Result<(), UserError> {
        unreachable!("nothing here makes a user")
    }
    async fn update(&self, _: &str, _: UserChange) -> Result<User, UserError> {
        unreachable!("nothing here changes a user")
    }
    async fn delete(&self, _: &str) -> Result<(), UserError> {
        unreachable!("nothing here deletes a user")
    }
    async fn revoke(&self, _: Whom<'_>) -> Result<u64, UserError> {
        unreachable!("nothing here revokes")
    }
}

#[tokio::test]
async fn what_was_outdated_by_a_writing_is_read_again_in_one_question() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, cache) = trusted();
    let address = DatabaseAddress::Sqlite(folder.path().join("postern.db"));
    let metrics = Arc::new(Metrics::new().unwrap());
    let database = Arc::new(Database::open(&address, Arc::clone(&metrics), Arc::clone(&clock) as _).await.unwrap());
    let users = Arc::new(Everybody::default());
    let records = Arc::new(DatabaseRecords::new(Arc::clone(&database)));
    let sessions = Arc::new(CachedSessions::new(records, Arc::new(cache), Arc::clone(&users) as _, metrics, clock));
    users.sessions.set(Arc::downgrade(&sessions)).unwrap();
    let used_at = Timestamp::from_unix_millis(5_000);
    let mut ids = Vec::new();
    for number in 0..50 {
        let live = sessions.create(row(&format!("s{number}"), "ann"), &[]).await.unwrap();
        sessions.used(&live, used_at);
        ids.push(live.id().clone());
    }
    users.asked_for_one.store(0, Ordering::SeqCst);
    let each = sessions.find_ids(&ids).await.unwrap();
    assert_eq!((each.found.len(), each.unsure.len()), (ids.len(), 0));
    assert!(each.found.values().all(|live| live.last_used() == used_at), "no use is lost");
    assert_eq!(users.asked_for_one.load(Ordering::SeqCst), 0);
    assert_eq!(users.asked_for_many.load(Ordering::SeqCst), 2);
    database.close().await;
}
