mod waits;

use std::{
    net::IpAddr,
    sync::atomic::{AtomicI64, Ordering},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tempfile::TempDir;

use super::*;
use crate::{
    config::DatabaseAddress,
    core::{session::TokenHash, time::Timestamp},
    ports::Clock,
};

const START: i64 = 1_800_000_000_000;
const MINUTE: u64 = 60;

struct Hand(AtomicI64);

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::SeqCst))
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// One node on a SQLite file of its own, and a clock in the hand.
struct Scene {
    regulation: DatabaseRegulation,
    clock: Arc<Hand>,
    folder: TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let clock = Arc::new(Hand(AtomicI64::new(START)));
        let regulation = node(&folder, &clock).await;
        Self { regulation, clock, folder }
    }

    fn pass(&self, seconds: u64) {
        self.clock.0.fetch_add(i64::try_from(seconds * 1000).unwrap(), Ordering::SeqCst);
    }

    /// One that is wrong; how long it has to wait before it is looked at.
    async fn wrong(&self, tried: Try<'_>) -> u64 {
        match self.regulation.admit(tried).await {
            Ok(admitted) => {
                self.regulation.settle(admitted, true).await.unwrap();
                0
            }
            Err(Barred::SlowDown(wait)) => wait.as_secs(),
            Err(other) => panic!("{other:?}"),
        }
    }

    async fn right(&self, tried: Try<'_>) {
        let admitted = self.regulation.admit(tried).await.unwrap();
        assert_eq!(self.regulation.settle(admitted, false).await.unwrap(), None);
    }

    /// So many that are wrong, each as soon as it may be.
    async fn pressed(&self, tried: Try<'_>, times: u32) {
        for _ in 0..times {
            let wait = self.wrong(tried).await;
            if wait > 0 {
                self.pass(wait);
                assert_eq!(self.wrong(tried).await, 0, "after its wait");
            }
        }
    }

    async fn rows(&self) -> i64 {
        let all = "SELECT count(*) FROM sign_in_counts";
        sqlx::query_scalar(all).fetch_one(&self.regulation.database.pool()).await.unwrap()
    }

    async fn execute(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.regulation.database.pool()).await.unwrap();
    }
}

async fn node(folder: &TempDir, clock: &Arc<Hand>) -> DatabaseRegulation {
    let metrics = Arc::new(Metrics::new().unwrap());
    let address = DatabaseAddress::Sqlite(folder.path().join("postern.db"));
    let database = Database::open(&address, metrics.clone(), clock.clone()).await.unwrap();
    let key = SecretBox::new(Box::new([7; 32]));
    let audit = Arc::new(crate::store::audit::LogAudit::new(metrics.clone()));
    DatabaseRegulation::new(Arc::new(database), metrics, audit, key, Some(Budgets::default()))
}

fn by<'t>(account: &'t str, address: &str) -> Try<'t> {
    Try {
        guess: Guess::Password,
        account,
        address: Some(address.parse().unwrap()),
        provider: "password",
        known: Known::Nothing,
        is_repeated: false,
    }
}

const HERE: &str = "192.0.2.7";

#[tokio::test]
async fn five_are_free_and_then_each_waits_longer_for_that_name_from_there() {
    let scene = Scene::new().await;
    let bob = by("bob", HERE);
    for _ in 0..5 {
        assert_eq!(scene.wrong(bob).await, 0);
    }
    for wait in [5, 10, 20, 40] {
        assert_eq!(scene.wrong(bob).await, wait);
        scene.pass(wait - 1);
        assert_eq!(scene.wrong(bob).await, 1, "what is barred costs nothing more");
        scene.pass(1);
        assert_eq!(scene.wrong(bob).await, 0);
    }
    assert_eq!(scene.wrong(by("ann", HERE)).await, 0, "another name");
    assert_eq!(scene.wrong(by("bob", "198.51.100.1")).await, 0, "another address");
    // Forgotten in the end, and cleaned away.
    scene.pass(MINUTE * 60 * 4);
    assert_eq!(scene.wrong(bob).await, 0);
    assert!(scene.rows().await > 3);
    scene.regulation.clean().await.unwrap();
    assert_eq!(scene.rows().await, 3, "those of the last try");
}

/// THREATS 57 too: a /64 is one address.
#[tokio::test]
async fn an_address_waits_whatever_the_names_are() {
    let scene = Scene::new().await;
    for number in 0..50 {
        assert_eq!(scene.wrong(by(&format!("user{number}"), &format!("2001:db8::{number}"))).await, 0);
    }
    assert_eq!(scene.wrong(by("another", "2001:db8::ffff")).await, 5);
    assert_eq!(scene.wrong(by("another", "2001:db8:0:1::1")).await, 0);
    let unknown = Try { address: None, ..by("another", HERE) };
    assert_eq!(scene.wrong(unknown).await, 0, "and who comes from nowhere is one address");
}

#[tokio::test]
async fn threat_40_who_exhausts_a_name_keeps_no_known_device_out() {
    let scene = Scene::new().await;
    for number in 0..20 {
        assert_eq!(scene.wrong(by("bob", &format!("198.51.100.{number}"))).await, 0);
    }
    assert_eq!(scene.wrong(by("bob", "203.0.113.1")).await, 5, "the name waits everywhere");
    let device = TokenHash::of("bob's");
    let known = Try { known: Known::Device(&device), ..by("bob", HERE) };
    scene.right(known).await;
    // Nor what was tried at its address.
    for number in 0..50 {
        scene.wrong(by(&format!("user{number}"), HERE)).await;
    }
    assert!(scene.wrong(by("ann", HERE)).await > 0);
    scene.right(known).await;
    // A copy of its cookie opens no more than five either, from wherever.
    for number in 0..5 {
        let copied = Try { address: Some([10, 0, 0, number].into()), ..known };
        assert_eq!(scene.wrong(copied).await, 0);
    }
    assert_eq!(scene.wrong(known).await, 5);
    let other = TokenHash::of("another of bob's");
    assert_eq!(scene.wrong(Try { known: Known::Device(&other), ..known }).await, 0);
    assert_eq!(scene.wrong(Try { account: "ann", ..known }).await, 0, "the same value is another's for another user");
}

/// As a program with Basic is known, which brings no cookie.
#[tokio::test]
async fn threat_40_a_known_address_is_kept_out_by_what_is_tried_there_alone() {
    let scene = Scene::new().await;
    let place = Try { known: Known::Place, provider: "basic", ..by("bob", HERE) };
    scene.right(place).await;
    for number in 0..20 {
        scene.wrong(by("bob", &format!("198.51.100.{number}"))).await;
    }
    assert!(scene.regulation.bars(by("bob", "203.0.113.1")).is_some());
    assert!(scene.regulation.bars(by("bob", HERE)).is_none(), "memory knows the place");
    scene.right(place).await;
    for _ in 0..5 {
        assert_eq!(scene.wrong(place).await, 0);
    }
    assert_eq!(scene.wrong(place).await, 5);
    assert!(scene.regulation.bars(by("bob", HERE)).is_some());
    // Known no longer, as after a new password.
    scene.pass(5);
    assert!(scene.regulation.bars(by("bob", HERE)).is_none());
    assert_eq!(scene.wrong(by("bob", HERE)).await, 0, "the name's wait is over as well");
    assert!(scene.regulation.bars(by("bob", HERE)).is_some());
}

#[tokio::test]
async fn who_has_an_account_resets_nothing_by_signing_in_in_between() {
    let scene = Scene::new().await;
    for number in 0..50 {
        scene.right(by("mallory", HERE)).await;
        assert_eq!(scene.wrong(by(&format!("user{}", number % 25), HERE)).await, 0);
    }
    assert_eq!(scene.wrong(by("another", HERE)).await, 5);
    let ours = scene.regulation.admit(by("mallory", HERE)).await;
    assert!(matches!(ours, Err(Barred::SlowDown(_))), "nor is he let through himself");
    let name = by("bob", "198.51.100.1");
    for _ in 0..4 {
        assert_eq!(scene.wrong(name).await, 0);
        scene.right(by("bob", "198.51.100.1")).await;
    }
    assert_eq!(scene.wrong(name).await, 0);
    assert_eq!(scene.wrong(name).await, 5, "nor does the user's own sign-in from there");
}

#[tokio::test]
async fn what_is_guessed_at_is_counted_for_itself() {
    let scene = Scene::new().await;
    scene.pressed(by("bob", HERE), 5).await;
    assert!(scene.wrong(by("bob", HERE)).await > 0);
    let factor = Try { guess: Guess::SecondFactor, provider: "totp", ..by("bob", HERE) };
    for _ in 0..5 {
        assert_eq!(scene.wrong(factor).await, 0);
    }
    assert_eq!(scene.wrong(factor).await, 5);
    // Of refresh tokens each dead one counts once, by address.
    scene.regulation.configure(Some(Budgets { per_address: 5, ..Budgets::default() }));
    let mut waits = Vec::new();
    for number in 0..110 {
        let token = TokenHash::of(&number.to_string());
        let refresh = Try { guess: Guess::RefreshToken(&token), account: "", ..by("", HERE) };
        for _ in 0..3 {
            waits.push(scene.wrong(refresh).await);
        }
    }
    assert_eq!(waits.iter().filter(|wait| **wait == 0).count(), 99 * 3 + 1, "{waits:?}");
    let token = TokenHash::of("one more");
    assert!(scene.regulation.bars(Try { guess: Guess::RefreshToken(&token), ..by("", HERE) }).is_some());
    scene.regulation.configure(Some(Budgets::default()));
    assert_eq!(scene.wrong(by("ann", HERE)).await, 0, "and keeps nobody from signing in");
}

#[tokio::test]
async fn what_was_wrong_a_moment_ago_counts_no_more_and_waits_all_the_same() {
    let scene = Scene::new().await;
    let repeated = Try { is_repeated: true, ..by("bob", HERE) };
    for _ in 0..20 {
        assert_eq!(scene.wrong(repeated).await, 0);
    }
    assert_eq!(scene.rows().await, 0);
    scene.pressed(by("bob", HERE), 5).await;
    assert_eq!(scene.wrong(repeated).await, 5);
    // Also on a node that has not heard of it.
    let other = node(&scene.folder, &scene.clock).await;
    assert!(matches!(other.admit(repeated).await, Err(Barred::SlowDown(_))));
}

#[tokio::test]
async fn unlocking_forgets_what_counts_for_the_name_and_nothing_of_the_address() {
    let scene = Scene::new().await;
    let device = TokenHash::of("bob's");
    let known = Try { known: Known::Device(&device), ..by("bob", HERE) };
    scene.pressed(known, 7).await;
    scene.pressed(by("bob", HERE), 7).await;
    let other = node(&scene.folder, &scene.clock).await;
    assert!(matches!(other.admit(by("bob", HERE)).await, Err(Barred::SlowDown(_))), "the count holds on every node");
    for number in 0..50 {
        scene.wrong(by(&format!("user{number}"), "198.51.100.9")).await;
    }
    assert!(scene.regulation.unlock(" BOB").await.unwrap());
    other.forget("bob");
    for regulation in [&scene.regulation, &other] {
        for tried in [known, by("bob", HERE)] {
            let admitted = regulation.admit(tried).await.unwrap();
            regulation.settle(admitted, false).await.unwrap();
        }
    }
    assert!(scene.wrong(by("bob", "198.51.100.9")).await > 0, "the address waits for what it did with others");
    assert!(!scene.regulation.unlock("nobody").await.unwrap());
}

#[tokio::test]
async fn memory_says_no_and_the_database_alone_says_yes() {
    let scene = Scene::new().await;
    let bob = by("bob", HERE);
    scene.pressed(bob, 5).await;
    scene.execute("DROP TABLE sign_in_counts").await;
    assert_eq!(scene.wrong(bob).await, 5, "a flood of what is barred asks nobody");
    for tried in [by("ann", HERE), Try { is_repeated: true, ..by("ann", HERE) }] {
        let failed = scene.regulation.admit(tried).await;
        assert!(matches!(failed, Err(Barred::Unavailable(_))), "{failed:?}");
    }
    scene.pass(5);
    assert!(matches!(scene.regulation.admit(bob).await, Err(Barred::Unavailable(_))));
    assert!(scene.regulation.bars(bob).is_none());
}

#[tokio::test]
async fn as_many_are_looked_at_at_once_as_may_go_wrong() {
    let scene = Scene::new().await;
    let bob = by("bob", HERE);
    scene.pressed(bob, 3).await;
    let first = scene.regulation.admit(bob).await.unwrap();
    let second = scene.regulation.admit(bob).await.unwrap();
    // The third waits for one of them.
    let third = scene.regulation.admit(bob);
    let settled = async { scene.regulation.settle(first, false).await.unwrap() };
    let (third, begins) = tokio::join!(third, settled);
    assert_eq!(begins, None);
    let third = third.unwrap();
    // Somebody waits while the others turn out wrong.
    let (fourth, (two, three)) = tokio::join!(scene.regulation.admit(bob), async {
        let two = scene.regulation.settle(second, true).await.unwrap();
        (two, scene.regulation.settle(third, true).await.unwrap())
    });
    assert!(matches!(fourth, Err(Barred::SlowDown(wait)) if wait.as_secs() == 5), "{fourth:?}");
    assert_eq!((two, three), (None, Some(By::AddressAndName)), "which is put on record");
    // After the wait one at a time.
    scene.pass(5);
    let one = scene.regulation.admit(bob).await.unwrap();
    let (other, ()) = tokio::join!(scene.regulation.admit(bob), async {
        scene.regulation.settle(one, false).await.unwrap();
    });
    // What is never settled has its place for half a minute, and counts for nothing.
    drop(other.unwrap());
    scene.pass(31);
    let mallory = scene.regulation.admit(bob).await.unwrap();
    drop(mallory);
    scene.regulation.begin().await.unwrap();
    assert_eq!(scene.wrong(bob).await, 0, "or until a server starts");
    assert_eq!(scene.wrong(bob).await, 10);
}

/// What cannot be counted is not answered either.
#[tokio::test]
async fn a_wrong_try_that_cannot_be_counted_fails() {
    let scene = Scene::new().await;
    let admitted = scene.regulation.admit(by("bob", HERE)).await.unwrap();
    scene.execute("DROP TABLE sign_in_counts").await;
    assert!(scene.regulation.settle(admitted, true).await.is_err());
}

#[tokio::test]
async fn what_is_kept_is_bounded_and_what_bars_for_longest_stays() {
    let scene = Scene::new().await;
    scene.pressed(by("bob", HERE), 9).await;
    for number in 0..40 {
        scene.wrong(by(&format!("user{number}"), &format!("198.51.100.{number}"))).await;
    }
    let database = &scene.regulation.database;
    assert_eq!(scene.rows().await, 3 * 41);
    while rows::delete_beyond(database, 10).await.unwrap() {}
    assert_eq!(scene.rows().await, 10);
    let other = node(&scene.folder, &scene.clock).await;
    assert!(matches!(other.admit(by("bob", HERE)).await, Err(Barred::SlowDown(_))));
}

/// THREATS 40: whoever makes counters by the thousand keeps nobody out who has some, or is known.
#[tokio::test]
async fn threat_40_counters_that_are_new_are_bounded_for_strangers_alone() {
    let scene = Scene::new().await;
    scene.wrong(by("bob", HERE)).await;
    scene.right(by("ann", HERE)).await;
    let share = |address: &str| scene.regulation.fresh.made(address.parse().ok(), 1_000);
    share("198.51.100.1");
    assert_eq!(scene.wrong(by("carl", "198.51.100.1")).await, 1, "an address that had its share");
    assert_eq!(scene.rows().await, 5, "and left nothing");
    assert_eq!(scene.wrong(by("carl", "198.51.100.2")).await, 0, "another");
    for number in 0..50 {
        share(&format!("203.0.113.{number}"));
    }
    assert!(matches!(scene.regulation.admit(by("dora", "192.0.2.99")).await, Err(Barred::Busy)));
    for user in ["bob", "ann"] {
        assert_eq!(scene.wrong(by(user, HERE)).await, 0, "who has counters, also such as count nothing");
    }
    let device = TokenHash::of("dora's");
    scene.right(Try { known: Known::Device(&device), ..by("dora", "192.0.2.99") }).await;
    scene.right(Try { known: Known::Place, provider: "basic", ..by("dora", "192.0.2.99") }).await;
    scene.regulation.clean().await.unwrap();
    assert_eq!(scene.wrong(by("dora", "192.0.2.98")).await, 0);
}

/// THREATS 40: neither those who wait, nor those who wait for their turn at the database.
#[tokio::test]
async fn threat_40_a_crowd_at_one_name_is_sent_away_and_a_known_device_is_not() {
    let scene = Scene::new().await;
    let mut places = Vec::new();
    for _ in 0..5 {
        places.push(scene.regulation.admit(by("bob", HERE)).await.unwrap());
    }
    let mut crowd: FuturesUnordered<_> = (0..60).map(|_| scene.regulation.admit(by("bob", HERE))).collect();
    for _ in 8..60 {
        let sent_away = crowd.next().await.unwrap();
        assert!(matches!(sent_away, Err(Barred::SlowDown(LATER))), "{sent_away:?}");
    }
    drop(crowd);
    let counted = "postern_auth_login_delayed_total{by=\"address_and_name\"} 52";
    assert!(scene.regulation.metrics.render().contains(counted));
    // Strangers have all turns all the while.
    let turns = scene.regulation.turns.acquire_many(2).await.unwrap();
    let device = TokenHash::of("bob's");
    scene.right(Try { known: Known::Device(&device), ..by("bob", HERE) }).await;
    drop(turns);
    for admitted in places {
        scene.regulation.settle(admitted, false).await.unwrap();
    }
    assert_eq!(scene.wrong(by("bob", HERE)).await, 0);
}

/// Who tries a name where it is known at an address, such as from the desk beside, makes no device of it wait.
#[tokio::test]
async fn threat_40_known_devices_wait_behind_nobody_at_a_known_place() {
    let scene = Scene::new().await;
    let device = TokenHash::of("bob's");
    let place = Try { known: Known::Place, ..by("bob", HERE) };
    let queue = scene.regulation.names.counters(&place, &Budgets::default()).queue().unwrap();
    let _tried_there = scene.regulation.queues.head_of(&queue).await;
    scene.right(Try { known: Known::Device(&device), ..by("bob", HERE) }).await;
    scene.right(Try { known: Known::Place, ..by("alice", HERE) }).await;
    assert!(matches!(scene.regulation.admit(place).await, Err(Barred::Busy)), "one after the other");
}

#[tokio::test]
async fn a_reload_that_loosens_frees_whom_memory_bars() {
    let scene = Scene::new().await;
    scene.pressed(by("bob", HERE), 5).await;
    assert_eq!(scene.wrong(by("bob", HERE)).await, 5);
    scene.regulation.configure(Some(Budgets { max_retries: 10, ..Budgets::default() }));
    assert!(scene.regulation.bars(by("bob", HERE)).is_none());
    assert_eq!(scene.wrong(by("bob", HERE)).await, 0);
}

/// What was typed as a name may be a password.
#[tokio::test]
async fn no_name_and_no_address_is_stored() {
    let scene = Scene::new().await;
    scene.wrong(by("correct horse battery", HERE)).await;
    let all = "SELECT group_concat(id || coalesce(account, '')) FROM sign_in_counts";
    let all: String = sqlx::query_scalar(all).fetch_one(&scene.regulation.database.pool()).await.unwrap();
    assert!(!all.contains("horse") && !all.contains("192.0.2"), "{all}");
    let names = |key: u8| Names(SecretBox::new(Box::new([key; 32]))).of_account("bob");
    assert_ne!(names(7), names(8), "nor a hash that anybody could look up");
    assert!(all.split(',').all(|row| row.bytes().all(|byte| byte.is_ascii_hexdigit())), "{all}");
}

#[tokio::test]
async fn without_budgets_nobody_waits_and_nothing_is_kept() {
    let scene = Scene::new().await;
    scene.regulation.configure(None);
    for _ in 0..30 {
        assert_eq!(scene.wrong(by("bob", HERE)).await, 0);
    }
    assert_eq!(scene.rows().await, 0);
    assert!(scene.regulation.bars(by("bob", HERE)).is_none());
    // A reload that sets them forgives nobody and bars nobody who was not counted.
    scene.regulation.configure(Some(Budgets::default()));
    scene.pressed(by("bob", HERE), 5).await;
    scene.regulation.configure(Some(Budgets { max_retries: 3, ..Budgets::default() }));
    scene.pass(5);
    assert!(scene.wrong(by("bob", HERE)).await > 5, "what was counted counts by the new numbers");
}

#[tokio::test]
async fn a_clock_that_was_ahead_bars_nobody_for_longer() {
    let scene = Scene::new().await;
    scene.pass(MINUTE * 60 * 24 * 365);
    scene.pressed(by("bob", HERE), 5).await;
    scene.clock.0.store(START, Ordering::SeqCst);
    assert_eq!(scene.wrong(by("bob", HERE)).await, 5, "nor the memory of the node that was there");
    let other = node(&scene.folder, &scene.clock).await;
    let wait = |outcome: Result<Admitted, Barred>| match outcome {
        Err(Barred::SlowDown(wait)) => wait.as_secs(),
        other => panic!("{other:?}"),
    };
    assert_eq!(wait(other.admit(by("bob", HERE)).await), 5);
    scene.pass(3);
    assert_eq!(wait(node(&scene.folder, &scene.clock).await.admit(by("bob", HERE)).await), 2);
    scene.pass(2);
    assert!(other.admit(by("bob", HERE)).await.is_ok());
}

/// By the form of IPv4 in IPv6 as well.
#[test]
fn addresses_are_buckets() {
    let one: IpAddr = "::ffff:192.0.2.7".parse().unwrap();
    assert_eq!(bucket_of(one).to_string(), HERE);
}
