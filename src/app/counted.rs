//! Counters of this process alone, behind one lock: a stand-in until `store` brings its own, which replaces it. Made by the composition root.
//!
//! Bounded: where so many keys are alive, a new one cannot be counted, and what cannot be counted does not go on.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    core::limit::{Allowance, Tally},
    ports::{Ask, Clock, CounterKey, Counters, RefusedBy, Taken, Unavailable},
};

const MOST_KEYS: usize = 1_000_000;
/// A table that is full is looked through once in this time.
const BETWEEN_CLEANINGS: Duration = Duration::from_secs(1);

pub(super) struct Counted {
    clock: Arc<dyn Clock>,
    keys: Mutex<Keys>,
}

#[derive(Default)]
struct Keys {
    tallies: HashMap<CounterKey, Tally>,
    cleaned_at: Duration,
}

impl Keys {
    fn has_room(&mut self, asks: &[Ask<'_>], now: Duration) -> bool {
        if self.tallies.len() + asks.len() <= MOST_KEYS {
            return true;
        }
        if now.saturating_sub(self.cleaned_at) >= BETWEEN_CLEANINGS {
            self.cleaned_at = now;
            self.tallies.retain(|_, tally| !tally.is_idle(now));
        }
        self.tallies.len() + asks.len() <= MOST_KEYS || asks.iter().all(|ask| self.tallies.contains_key(&ask.key))
    }
}

impl Counted {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, keys: Mutex::default() }
    }
}

#[async_trait]
impl Counters for Counted {
    fn try_take(&self, asks: &[Ask<'_>]) -> Option<Taken> {
        let now = self.clock.monotonic();
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if !keys.has_room(asks, now) {
            return None;
        }
        let mut refused: Option<RefusedBy> = None;
        for (ask, asked) in asks.iter().enumerate().filter(|(_, asked)| !asked.reports_only) {
            let by = asked.rates.refusal(keys.tallies.entry(asked.key).or_default(), now);
            if let Some(by) = by.filter(|by| refused.is_none_or(|worst| by.retry_after > worst.retry_after)) {
                refused = Some(RefusedBy { ask, retry_after: by.retry_after });
            }
        }
        let allowances = asks.iter().map(|asked| {
            let tally = keys.tallies.entry(asked.key).or_default();
            let takes = refused.is_none() || asked.reports_only;
            if takes { asked.rates.take(tally, now) } else { asked.rates.look(tally, now) }
        });
        Some(Taken { allowances: allowances.collect(), refused })
    }

    async fn take(&self, asks: &[Ask<'_>]) -> Result<Taken, Unavailable> {
        let full = || Unavailable { store: "counters", detail: format!("{MOST_KEYS} keys are counted already") };
        self.try_take(asks).ok_or_else(full)
    }

    async fn look(&self, ask: &Ask<'_>) -> Result<Allowance, Unavailable> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ask.rates.look(keys.tallies.get(&ask.key).unwrap_or(&Tally::default()), self.clock.monotonic()))
    }
}
