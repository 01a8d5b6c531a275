//! Counters in memory, at the time that the test says.

use std::{
    collections::HashMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    core::limit::{Allowance, Tally},
    ports::{Ask, CounterKey, Counters, RefusedBy, Taken, Unavailable},
};

#[derive(Default)]
pub(crate) struct Counting {
    tallies: Mutex<HashMap<CounterKey, Tally>>,
    /// Milliseconds since a fixed point.
    pub(crate) now: AtomicU64,
    /// They are somewhere else: who does not wait is told nothing.
    pub(crate) afar: AtomicBool,
    pub(crate) down: AtomicBool,
}

impl Counting {
    fn now(&self) -> Duration {
        Duration::from_secs(1_000) + Duration::from_millis(self.now.load(Ordering::SeqCst))
    }

    fn taken(&self, asks: &[Ask<'_>]) -> Taken {
        let (mut tallies, now) = (self.tallies.lock().unwrap(), self.now());
        let mut refused: Option<RefusedBy> = None;
        for (ask, asked) in asks.iter().enumerate().filter(|(_, asked)| !asked.reports_only) {
            let by = asked.rates.refusal(tallies.entry(asked.key).or_default(), now);
            if let Some(by) = by.filter(|by| refused.is_none_or(|worst| by.retry_after > worst.retry_after)) {
                refused = Some(RefusedBy { ask, retry_after: by.retry_after });
            }
        }
        let allowances = asks.iter().map(|asked| {
            let tally = tallies.entry(asked.key).or_default();
            if refused.is_some() && !asked.reports_only {
                asked.rates.look(tally, now)
            } else {
                asked.rates.take(tally, now)
            }
        });
        Taken { allowances: allowances.collect(), refused }
    }
}

#[async_trait]
impl Counters for Counting {
    fn try_take(&self, asks: &[Ask<'_>]) -> Option<Taken> {
        let here = !self.afar.load(Ordering::SeqCst) && !self.down.load(Ordering::SeqCst);
        here.then(|| self.taken(asks))
    }
    async fn take(&self, asks: &[Ask<'_>]) -> Result<Taken, Unavailable> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Unavailable { store: "counters", detail: "down".to_owned() });
        }
        Ok(self.taken(asks))
    }
    async fn look(&self, ask: &Ask<'_>) -> Result<Allowance, Unavailable> {
        let tallies = self.tallies.lock().unwrap();
        Ok(ask.rates.look(tallies.get(&ask.key).unwrap_or(&Tally::default()), self.now()))
    }
}
