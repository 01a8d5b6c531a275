//! What a node remembers of regulation, so that what is barred costs no further question here (of Basic none at all; the form and the login API have looked
//! for the user by then), and so that a password which is remembered is not told from others while its account is barred. The database knows more; memory
//! only ever says no.

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use moka::{policy::EvictionPolicy, sync::Cache};

use super::Counter;
use crate::core::{regulation::By, time::Timestamp};

/// Counters that bar, of which memory knows.
const BARS: u64 = 100_000;
/// Names at addresses where they are known: as many as there are passwords remembered.
const PLACES: u64 = 100_000;
const PLACE_LIFE: Duration = Duration::from_secs(3600);
/// Refresh tokens that were dead.
const DEAD: u64 = 10_000;
const DEAD_LIFE: Duration = Duration::from_secs(600);

pub(super) struct Memory {
    bars: Cache<String, Bar>,
    /// When the last of them is over.
    last: AtomicI64,
    places: Cache<String, ()>,
    dead: Cache<String, ()>,
}

#[derive(Clone)]
struct Bar {
    until: Timestamp,
    account: Option<String>,
}

impl Default for Memory {
    fn default() -> Self {
        let lru = EvictionPolicy::lru;
        Self {
            bars: Cache::builder().max_capacity(BARS).eviction_policy(lru()).build(),
            last: AtomicI64::new(i64::MIN),
            places: Cache::builder().max_capacity(PLACES).eviction_policy(lru()).time_to_live(PLACE_LIFE).build(),
            dead: Cache::builder().max_capacity(DEAD).eviction_policy(lru()).time_to_live(DEAD_LIFE).build(),
        }
    }
}

impl Memory {
    pub(super) fn bar(&self, id: &str, account: Option<&str>, until: Timestamp) {
        self.bars.insert(id.to_owned(), Bar { until, account: account.map(str::to_owned) });
        self.last.fetch_max(until.unix_millis(), Ordering::AcqRel);
    }

    /// Whether nothing bars anybody: asked before a name is made of anything.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.last.load(Ordering::Acquire) <= now.unix_millis()
    }

    /// The longest wait of these.
    pub(super) fn wait(&self, counters: &[Counter], now: Timestamp) -> Option<(Duration, By)> {
        if self.is_over(now) {
            return None;
        }
        let waits = counters.iter().filter_map(|counter| {
            let left = self.bars.get(&counter.id)?.until.since(now);
            // The clock was put back: the database knows what is left of it. (A wait is rounded up to whole seconds.)
            if left > counter.budget.ban_time.saturating_add(Duration::from_secs(1)) {
                return None;
            }
            // As it was said first: whole seconds.
            let seconds = left.as_secs().saturating_add(u64::from(left.subsec_millis() > 0));
            (!left.is_zero()).then(|| (Duration::from_secs(seconds), counter.by))
        });
        waits.max_by_key(|(wait, _)| *wait)
    }

    /// Whether a name is known at an address, as the store says now.
    pub(super) fn know(&self, pair: &str, is_known: bool) {
        if is_known {
            self.places.insert(pair.to_owned(), ());
        } else {
            self.places.invalidate(pair);
        }
    }

    pub(super) fn knows(&self, pair: &str) -> bool {
        self.places.contains_key(pair)
    }

    /// Whether this refresh token was dead a moment ago; it is from now on.
    pub(super) fn was_dead(&self, token: &str) -> bool {
        !self.dead.entry(token.to_owned()).or_insert(()).is_fresh()
    }

    pub(super) fn forget(&self, account: &str) {
        for (id, bar) in &self.bars {
            if bar.account.as_deref() == Some(account) {
                self.bars.invalidate(&*id);
            }
        }
    }

    pub(super) fn clear(&self) {
        self.bars.invalidate_all();
    }
}
