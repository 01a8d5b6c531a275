//! When keys are fetched and when not, with a clock that the test moves and an issuer that does as the test says.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::core::{
    issuer::{JwtAlgorithm, KeyPlace, claims::ClaimMapping},
    time::Timestamp,
};

const ED: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk","kid":"KID"}"#;

#[derive(Default)]
struct Moved(AtomicU64);

impl Moved {
    fn pass(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

impl Clock for Moved {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }
    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

#[derive(Default)]
struct Issuer {
    fetches: AtomicUsize,
    down: AtomicBool,
    /// Answers only when told to.
    held: AtomicBool,
    go: Notify,
    rotated: AtomicUsize,
}

#[async_trait]
impl Fetch for Issuer {
    async fn fetch(&self, _: &KeyPlace) -> Result<KeySet, FetchError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        if self.held.load(Ordering::SeqCst) {
            self.go.notified().await;
        }
        if self.down.load(Ordering::SeqCst) {
            return Err(FetchError::Status("x".to_owned(), 500));
        }
        let key = ED.replace("KID", &self.rotated.load(Ordering::SeqCst).to_string());
        Ok(KeySet::parse(format!("{{\"keys\":[{key}]}}").as_bytes()).unwrap())
    }
}

struct World {
    keys: Arc<FetchedKeys>,
    issuer: Arc<Issuer>,
    clock: Arc<Moved>,
    address: Arc<KeyAddress>,
}

fn trusted(address: &Arc<KeyAddress>) -> Arc<TrustedIssuer> {
    Arc::new(TrustedIssuer::new(
        "https://idp.test".to_owned(),
        vec!["postern".to_owned()],
        KeySource::Fetched(Arc::clone(address)),
        JwtAlgorithm::DEFAULT.to_vec(),
        Duration::ZERO,
        ClaimMapping::default(),
        false,
    ))
}

fn world() -> World {
    let (issuer, clock) = (Arc::new(Issuer::default()), Arc::new(Moved::default()));
    let keys = Arc::new(FetchedKeys::with(Arc::clone(&issuer) as _, Arc::clone(&clock) as _));
    let address = Arc::new(KeyAddress {
        place: KeyPlace::Jwks("https://idp.test/jwks.json?apikey=hidden".parse().unwrap()),
        interval: Duration::from_secs(60),
        refresh: Duration::from_secs(600),
    });
    keys.configure(&[trusted(&address)]);
    World { keys, issuer, clock, address }
}

impl World {
    fn fetches(&self) -> usize {
        self.issuer.fetches.load(Ordering::SeqCst)
    }

    async fn kid(&self) -> Option<String> {
        let keys = self.keys.refreshed(&self.address).await.ok()?;
        keys.keys.first()?.kid.clone()
    }
}

#[tokio::test]
async fn threat_48_one_fetch_in_an_interval_however_many_ask() {
    let w = world();
    assert!(w.keys.peek(&w.address).is_none(), "nothing before the first fetch");
    for _ in 0..10_000 {
        assert_eq!(w.kid().await.as_deref(), Some("0"));
    }
    assert_eq!(w.fetches(), 1);
    w.clock.pass(59);
    assert!(w.kid().await.is_some());
    assert_eq!(w.fetches(), 1);
    w.issuer.rotated.store(1, Ordering::SeqCst);
    w.clock.pass(1);
    assert_eq!(w.kid().await.as_deref(), Some("1"), "a rotated key is there with the request that needs it");
    assert_eq!(w.fetches(), 2);
    let elsewhere =
        KeyAddress { place: KeyPlace::Jwks("https://evil.test/".parse().unwrap()), ..KeyAddress::clone(&w.address) };
    assert!(w.keys.refreshed(&elsewhere).await.is_err(), "no other address is ever asked");
    assert_eq!(w.fetches(), 2);
}

#[tokio::test]
async fn all_who_wait_wait_for_one_fetch() {
    let w = Arc::new(world());
    w.issuer.held.store(true, Ordering::SeqCst);
    let waiting: Vec<_> = (0..50)
        .map(|_| {
            let w = Arc::clone(&w);
            tokio::spawn(async move { w.kid().await })
        })
        .collect();
    while w.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    w.issuer.held.store(false, Ordering::SeqCst);
    w.issuer.go.notify_one();
    for one in waiting {
        assert_eq!(one.await.unwrap().as_deref(), Some("0"));
    }
    assert_eq!(w.fetches(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_hangs_ends_and_nobody_waits_longer() {
    let w = world();
    w.issuer.held.store(true, Ordering::SeqCst);
    let waited = timeout(FETCH_TIME + Duration::from_millis(100), w.kid()).await;
    assert_eq!(waited, Ok(None), "no longer than for the fetch");
    w.issuer.held.store(false, Ordering::SeqCst);
    assert!(w.kid().await.is_none(), "not before the interval is over");
    w.clock.pass(60);
    assert!(w.kid().await.is_some());
}

#[tokio::test]
async fn keys_stay_while_the_issuer_is_away_but_not_for_ever() {
    let w = world();
    assert!(w.kid().await.is_some());
    w.issuer.down.store(true, Ordering::SeqCst);
    let kept = w.keys.peek(&w.address).unwrap();
    w.clock.pass(3600);
    assert!(w.kid().await.is_some());
    assert!(Arc::ptr_eq(&kept, &w.keys.peek(&w.address).unwrap()));
    w.clock.pass(KEEP.as_secs() - 3600);
    assert!(w.keys.peek(&w.address).is_none());
    assert!(w.kid().await.is_none());
    w.issuer.down.store(false, Ordering::SeqCst);
    w.clock.pass(60);
    assert!(w.kid().await.is_some(), "back by itself");
}

#[tokio::test]
async fn the_same_keys_stay_the_same_set() {
    let w = world();
    assert!(w.kid().await.is_some());
    let first = w.keys.peek(&w.address).unwrap();
    w.clock.pass(60);
    assert!(w.kid().await.is_some());
    assert_eq!(w.fetches(), 2);
    assert!(Arc::ptr_eq(&first, &w.keys.peek(&w.address).unwrap()), "tokens verified by them stay verified");
    w.keys.configure(&[trusted(&w.address)]);
    assert!(Arc::ptr_eq(&first, &w.keys.peek(&w.address).unwrap()), "also over a reload");
    w.keys.configure(&[]);
    assert!(w.keys.peek(&w.address).is_none(), "an issuer that is not trusted any more has no keys");
}

#[tokio::test]
async fn a_reload_that_changes_how_often_keeps_the_keys_and_when_they_were_tried() {
    let w = world();
    assert!(w.kid().await.is_some());
    let first = w.keys.peek(&w.address).unwrap();
    let paced = |interval, refresh| {
        let (interval, refresh) = (Duration::from_secs(interval), Duration::from_secs(refresh));
        Arc::new(KeyAddress { interval, refresh, ..KeyAddress::clone(&w.address) })
    };
    let slower = paced(120, 1200);
    w.keys.configure(&[trusted(&slower)]);
    assert!(Arc::ptr_eq(&first, &w.keys.peek(&slower).unwrap()), "the keys are kept");
    w.clock.pass(119);
    assert!(w.keys.refreshed(&slower).await.is_ok());
    assert_eq!(w.fetches(), 1, "nor is there a fetch before the new interval is over");
    w.clock.pass(1);
    assert!(w.keys.refreshed(&slower).await.is_ok());
    assert_eq!(w.fetches(), 2);
    // Two issuers whose keys are at one place.
    w.keys.configure(&[trusted(&slower), trusted(&paced(30, 60))]);
    w.clock.pass(29);
    assert!(w.keys.refreshed(&slower).await.is_ok());
    assert_eq!(w.fetches(), 2);
    w.clock.pass(1);
    assert!(w.keys.refreshed(&slower).await.is_ok());
    assert_eq!(w.fetches(), 3, "the shortest holds");
}

type Told = (Arc<Readiness>, watch::Sender<bool>, tokio::task::JoinHandle<()>);

fn running(w: &World) -> Told {
    let (stop, stopping) = watch::channel(false);
    let readiness = Arc::new(Readiness::default());
    let (keys, told) = (Arc::clone(&w.keys), Arc::clone(&readiness));
    let running = tokio::spawn(async move { keys.run(&told, &Metrics::new().unwrap(), stopping).await });
    (readiness, stop, running)
}

#[tokio::test(start_paused = true)]
async fn keys_that_are_missing_stay_missing_while_the_issuer_hangs() {
    let w = world();
    w.issuer.held.store(true, Ordering::SeqCst);
    let (readiness, stop, running) = running(&w);
    let is_missing = || readiness.report().stores_down.contains_key(STORE);
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!((w.fetches(), is_missing()), (1, false), "nobody knows yet");
    // Longer than the interval, so that the next fetch begins as soon as this one has failed.
    w.clock.pass(60);
    tokio::time::sleep(FETCH_TIME).await;
    for _ in 0..8 {
        tokio::time::sleep(LOOK).await;
        assert_eq!((w.fetches(), is_missing()), (2, true), "also while the next is under way");
    }
    w.issuer.held.store(false, Ordering::SeqCst);
    w.issuer.go.notify_one();
    tokio::time::sleep(LOOK * 2).await;
    assert_eq!((w.fetches(), is_missing()), (2, false));
    stop.send_replace(true);
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn keys_are_fetched_ahead_of_need() {
    let w = world();
    let (readiness, stop, running) = running(&w);
    let missing = || readiness.report().stores_down.get(STORE).cloned();
    let settled = async || tokio::time::sleep(LOOK * 4).await;
    settled().await;
    assert_eq!(w.fetches(), 1);
    assert!(w.keys.peek(&w.address).is_some(), "before anybody asked");
    w.clock.pass(599);
    settled().await;
    assert_eq!(w.fetches(), 1);
    w.issuer.rotated.store(1, Ordering::SeqCst);
    w.clock.pass(1);
    settled().await;
    assert_eq!(w.fetches(), 2);
    assert_eq!(w.keys.peek(&w.address).unwrap().keys[0].kid.as_deref(), Some("1"));
    w.issuer.down.store(true, Ordering::SeqCst);
    w.clock.pass(600);
    settled().await;
    settled().await;
    assert_eq!(w.fetches(), 3, "a failed fetch is not tried again before the interval is over");
    w.clock.pass(60);
    settled().await;
    assert_eq!(w.fetches(), 4);
    assert_eq!(missing(), None, "what is known still counts");
    w.clock.pass(KEEP.as_secs());
    settled().await;
    assert_eq!(missing().as_deref(), Some("no keys are known of https://idp.test/jwks.json"));
    w.issuer.down.store(false, Ordering::SeqCst);
    w.clock.pass(60);
    settled().await;
    assert_eq!(missing(), None);
    stop.send_replace(true);
    running.await.unwrap();
}
