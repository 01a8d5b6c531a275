//! Keys of trusted issuers in memory, fetched ahead of need by `http`, and at most once in an interval for each place: a token can ask
//! for a fetch by an unknown `kid`, never for more of them and never for another place (THREATS 48). Asked by `gate`, told by `app` which
//! addresses there are.
//!
//! Keys that cannot be fetched again are kept for [`KEEP`]: an issuer that is away for an hour must not shut everybody out, and one that is
//! gone for good must not be believed for ever. A key that a fetched set no longer holds counts no more from that moment on.

mod http;
mod tokens;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use crate::{
    core::issuer::{KeyAddress, KeyPlace, KeySource, TrustedIssuer, jwks::KeySet},
    observe::{metrics::Metrics, readiness::Readiness},
    ports::{Clock, IssuerKeys, Unavailable},
};
use http::HttpKeys;
pub(super) use tokens::MemoryTokens;

/// Keys older than this count no more: longer than an issuer's outage, shorter than the life of a key that somebody stole.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// A fetch that takes longer has failed; a request waits no longer for one either.
const FETCH_TIME: Duration = Duration::from_secs(5);
/// How often it is looked whether a fetch is due.
const LOOK: Duration = Duration::from_millis(250);
const STORE: &str = "issuer_keys";

/// Why keys could not be fetched; for the log.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer within {FETCH_TIME:?}")]
    Slow,
    #[error("{0} cannot be asked: {1}")]
    Connection(String, String),
    #[error("{0} answered {1} instead of 200 (redirects are not followed)")]
    Status(String, u16),
    #[error("the answer of {0} is longer than {1} bytes")]
    Long(String, usize),
    #[error("the answer of {0} is no key set: {1}")]
    KeySet(String, crate::core::issuer::jwks::BadKeySet),
    #[error("the answer of {0} is no OpenID Connect discovery document")]
    Discovery(String),
    #[error("the discovery document of {0} is of another issuer than the configured one")]
    Issuer(String),
    #[error(
        "the discovery document of {0} names keys at another origin; name their address under `jwks` if it is right"
    )]
    Origin(String),
}

/// Where keys come from.
#[async_trait]
trait Fetch: Send + Sync {
    async fn fetch(&self, place: &KeyPlace) -> Result<KeySet, FetchError>;
}

pub(super) struct FetchedKeys {
    slots: ArcSwap<HashMap<KeyPlace, Slot>>,
    fetch: Arc<dyn Fetch>,
    clock: Arc<dyn Clock>,
}

/// One place, as the configuration in force has it.
#[derive(Clone)]
struct Slot {
    /// The shortest times of the issuers whose keys are there.
    interval: Duration,
    refresh: Duration,
    /// Outlives configurations.
    known: Arc<Known>,
}

/// What was seen of one place.
struct Known {
    place: KeyPlace,
    kept: ArcSwapOption<Kept>,
    /// Monotonic; when the last fetch began.
    tried_at: Mutex<Option<Duration>>,
    /// Whether a fetch is under way.
    flying: watch::Sender<bool>,
    /// Whether a fetch has ever ended, however it did.
    ended: AtomicBool,
}

struct Kept {
    keys: Arc<KeySet>,
    /// Monotonic.
    fetched_at: Duration,
}

impl FetchedKeys {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self::with(Arc::new(HttpKeys::default()), clock)
    }

    fn with(fetch: Arc<dyn Fetch>, clock: Arc<dyn Clock>) -> Self {
        Self { slots: ArcSwap::default(), fetch, clock }
    }

    /// The addresses of the configuration in force. Of a place that stays the keys are kept and when they were asked for, whatever else of
    /// its address changed.
    pub(super) fn configure(&self, issuers: &[Arc<TrustedIssuer>]) {
        let old = self.slots.load();
        let mut slots: HashMap<KeyPlace, Slot> = HashMap::new();
        for issuer in issuers {
            let KeySource::Fetched(address) = &issuer.keys else { continue };
            let KeyAddress { place, interval, refresh } = &**address;
            let slot = slots.entry(place.clone()).or_insert_with(|| {
                let known = old.get(place).map_or_else(|| Arc::new(Known::new(place)), |slot| Arc::clone(&slot.known));
                Slot { interval: *interval, refresh: *refresh, known }
            });
            slot.interval = slot.interval.min(*interval);
            slot.refresh = slot.refresh.min(*refresh);
        }
        self.slots.store(Arc::new(slots));
    }

    /// Fetches ahead of need until it is told to stop, and says whose keys are missing.
    pub(super) async fn run(&self, readiness: &Readiness, metrics: &Metrics, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told: Option<Vec<String>> = None;
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            let (slots, now) = (self.slots.load_full(), self.clock.monotonic());
            for slot in slots.values().filter(|slot| slot.is_due(now)) {
                self.start(slot);
            }
            let mut missing: Vec<String> = slots
                .values()
                .map(|slot| &slot.known)
                .filter(|known| known.is_missing(now))
                .map(|known| known.place.to_string())
                .collect();
            missing.sort();
            let is_news = told.as_ref().map_or(!slots.is_empty(), |told| *told != missing);
            if is_news {
                tell(readiness, metrics, &missing);
                told = Some(missing);
            }
        }
    }

    /// Starts a fetch, unless one is under way or was begun within the interval. It goes on whoever waits for it.
    fn start(&self, Slot { interval, known, .. }: &Slot) {
        let now = self.clock.monotonic();
        {
            let mut tried_at = known.tried_at.lock().unwrap_or_else(PoisonError::into_inner);
            let is_early = tried_at.is_some_and(|tried| now.saturating_sub(tried) < *interval);
            if is_early || *known.flying.borrow() {
                return;
            }
            *tried_at = Some(now);
            known.flying.send_replace(true);
        }
        let landing = Landing(Arc::clone(known));
        let fetch = Arc::clone(&self.fetch);
        tokio::spawn(async move {
            let Landing(known) = &landing;
            let fetched = timeout(FETCH_TIME, fetch.fetch(&known.place)).await.unwrap_or(Err(FetchError::Slow));
            known.keep(fetched, now);
        });
    }
}

fn tell(readiness: &Readiness, metrics: &Metrics, missing: &[String]) {
    metrics.store_up(STORE, missing.is_empty());
    readiness.change(|report| {
        if missing.is_empty() {
            report.stores_down.remove(STORE);
        } else {
            report.stores_down.insert(STORE, format!("no keys are known of {}", missing.join(", ")));
        }
    });
}

/// Says that the fetch has ended, however it did.
struct Landing(Arc<Known>);

impl Drop for Landing {
    fn drop(&mut self) {
        self.0.ended.store(true, Ordering::Release);
        self.0.flying.send_replace(false);
    }
}

impl Slot {
    fn is_due(&self, now: Duration) -> bool {
        let kept = self.known.kept.load();
        kept.as_ref().is_none_or(|kept| now.saturating_sub(kept.fetched_at) >= self.refresh)
    }
}

impl Known {
    fn new(place: &KeyPlace) -> Self {
        let (flying, _) = watch::channel(false);
        Self {
            place: place.clone(),
            kept: ArcSwapOption::empty(),
            tried_at: Mutex::default(),
            flying,
            ended: AtomicBool::new(false),
        }
    }

    /// `begun`: the keys are as they were then, or newer.
    fn keep(&self, fetched: Result<KeySet, FetchError>, begun: Duration) {
        match fetched {
            Ok(fetched) => {
                let before = self.kept.load();
                // The same keys stay the same set, by which verified tokens are remembered.
                let keys = match before.as_ref().filter(|kept| *kept.keys == fetched) {
                    Some(kept) => Arc::clone(&kept.keys),
                    None => {
                        tracing::info!(keys = fetched.keys.len(), from = %self.place, "keys of a trusted issuer");
                        Arc::new(fetched)
                    }
                };
                self.kept.store(Some(Arc::new(Kept { keys, fetched_at: begun })));
            }
            Err(error) => {
                tracing::warn!(%error, has_keys = self.kept.load().is_some(), "keys of a trusted issuer cannot be fetched");
            }
        }
    }

    /// Whether a fetch has ended and there is nothing that counts, also while the next one is under way.
    fn is_missing(&self, now: Duration) -> bool {
        self.ended.load(Ordering::Acquire) && self.keys(now).is_none()
    }

    fn keys(&self, now: Duration) -> Option<Arc<KeySet>> {
        let kept = self.kept.load();
        let kept = kept.as_ref().filter(|kept| now.saturating_sub(kept.fetched_at) < KEEP)?;
        Some(Arc::clone(&kept.keys))
    }
}

#[async_trait]
impl IssuerKeys for FetchedKeys {
    fn peek(&self, address: &KeyAddress) -> Option<Arc<KeySet>> {
        self.slots.load().get(&address.place)?.known.keys(self.clock.monotonic())
    }

    async fn refreshed(&self, address: &KeyAddress) -> Result<Arc<KeySet>, Unavailable> {
        let unavailable = |detail: String| Unavailable { store: STORE, detail };
        let slot = self.slots.load().get(&address.place).cloned();
        // Of a configuration that was in force when the request began.
        let slot = slot.ok_or_else(|| unavailable("the issuer is not configured any more".to_owned()))?;
        let known = &slot.known;
        let mut flying = known.flying.subscribe();
        self.start(&slot);
        // Too long a wait is a fetch that failed; its sender is in what is known, so it cannot be gone.
        let _ = timeout(FETCH_TIME, flying.wait_for(|flying| !*flying)).await;
        known.keys(self.clock.monotonic()).ok_or_else(|| unavailable(format!("no keys of {} are known", known.place)))
    }
}

#[cfg(test)]
mod tests;
