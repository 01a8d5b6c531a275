//! While Redis is away: a node counts its own part of every limit in memory, or nobody passes (`storage.counters_on_failure`).
//!
//! A node says each [`BEAT`] that it is there, and reads who else is; those that were seen last share a limit. N of them in the order of their names have N/nodes each, and the first ones what is left
//! over: all parts together are the limit. Of a limit smaller than the number of nodes the first ones have one each, and the others refuse: the gate is never opened.
//!
//! What a node grants is noted in its memory too, so that its part is what is left of it, and not granted anew at the moment when Redis is lost. When Redis is there again it is told what was granted
//! meanwhile, before anybody asks it; and where it has forgotten all (its set of nodes is gone), all that was granted lately. So a node that was away, or a Redis that was started empty, forgives nobody.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::MissedTickBehavior};

use super::{RedisCounters, STORE, name_of};
use crate::{
    config::OnFailure,
    core::limit::{Allowance, Part, Rates, Tally},
    observe::{metrics::Metrics, readiness::Readiness},
    ports::{Ask, Clock, CounterKey, Entropy, Taken, Unavailable},
    store::{
        counters::MemoryCounters,
        follow::stopped,
        redis::{Call, Script},
    },
};

const BEAT: Duration = Duration::from_millis(500);
/// A node that was silent for so long has no part any more.
const LIVES: Duration = Duration::from_secs(5);
/// So it is where Redis itself was away or has forgotten it.
const SILENT_BEATS: u64 = 10;
const NODES: &str = "postern:limit-nodes";
/// Keys told at once.
const STEP: usize = 200;
/// How often Redis is told what was granted while it was told, before requests ask it: each time there is less.
const PASSES: usize = 8;

pub(super) struct Away {
    on_failure: OnFailure,
    /// This node's name among nodes: new with each start.
    node: String,
    beat: Script,
    restore: Script,
    is_away: AtomicBool,
    /// The rank of this node, and how many there are.
    standing: AtomicU64,
    /// Nodes, and the number of the beat that last told of each.
    seen: Mutex<(u64, BTreeMap<String, u64>)>,
    /// Redis forgot what was counted, and has not been told of the parts of `granted` from this one on.
    owes_from: AtomicUsize,
    /// All that this node granted, wherever it was counted.
    granted: MemoryCounters,
    /// What it granted while Redis was away, and what Redis could not be told.
    owed: MemoryCounters,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl Away {
    pub(super) fn new(
        on_failure: OnFailure,
        granted: MemoryCounters,
        metrics: &Arc<Metrics>,
        clock: &Arc<dyn Clock>,
        entropy: &dyn Entropy,
    ) -> Self {
        let mut name = [0; 16];
        entropy.fill(&mut name);
        Self {
            on_failure,
            node: format!("{:032x}", u128::from_be_bytes(name)),
            beat: Script::new(include_str!("scripts/beat.lua")),
            restore: Script::new(include_str!("scripts/restore.lua")),
            is_away: AtomicBool::new(false),
            standing: AtomicU64::new(1),
            seen: Mutex::default(),
            owes_from: AtomicUsize::new(MemoryCounters::shards()),
            granted,
            owed: MemoryCounters::untold(clock.clone(), metrics.clone()),
            metrics: metrics.clone(),
            clock: clock.clone(),
        }
    }

    pub(super) fn node(&self) -> &str {
        &self.node
    }

    pub(super) fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Acquire)
    }

    /// What was granted by Redis, or by a lease.
    pub(super) fn note(&self, ask: &Ask<'_>) {
        self.granted.note(ask);
    }

    /// A request could not be counted in Redis.
    pub(super) fn failed(&self, detail: &str) {
        self.metrics.store_up(STORE, false);
        self.metrics.limit_by_share(self.on_failure == OnFailure::Share);
        if self.is_away.swap(true, Ordering::AcqRel) {
            return;
        }
        match self.on_failure {
            OnFailure::Share => {
                let (_, nodes) = self.standing();
                tracing::error!(
                    detail,
                    nodes,
                    "limits cannot be counted in Redis: each node counts its own part of them"
                );
            }
            OnFailure::Refuse => {
                tracing::error!(detail, "limits cannot be counted in Redis: requests under a limit are refused");
            }
        }
    }

    fn unavailable(&self) -> Result<(), Unavailable> {
        match self.on_failure {
            OnFailure::Share => Ok(()),
            OnFailure::Refuse => Err(Unavailable { store: STORE, detail: "Redis is away".to_owned() }),
        }
    }

    /// Whether there was a beat before. Nodes that a Redis started anew has not heard of yet are not gone: it is beats that count.
    fn saw(&self, nodes: Vec<String>) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.0 += 1;
        let beat = seen.0;
        seen.1.extend(nodes.into_iter().map(|node| (node, beat)));
        seen.1.retain(|_, last| beat - *last <= SILENT_BEATS);
        let rank = seen.1.keys().position(|node| *node == self.node).unwrap_or(0);
        self.standing.store((rank as u64) << 32 | seen.1.len().max(1) as u64, Ordering::Release);
        beat > 1
    }

    fn standing(&self) -> (u32, u32) {
        let standing = self.standing.load(Ordering::Acquire);
        let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
        (half(standing >> 32), half(standing))
    }

    /// By this node's part.
    ///
    /// # Errors
    /// Nobody may pass.
    pub(super) fn take(&self, asks: &[Ask<'_>]) -> Result<Taken, Unavailable> {
        self.unavailable()?;
        let (rank, nodes) = self.standing();
        let parts: Vec<Rates> = asks.iter().map(|ask| ask.rates.share(rank, nodes)).collect();
        let asks: Vec<Ask<'_>> = asks.iter().zip(&parts).map(|(ask, rates)| Ask { rates, ..*ask }).collect();
        let taken = self.granted.take_now(&asks);
        if taken.refused.is_none() {
            asks.iter().filter(|ask| !ask.reports_only).for_each(|ask| self.owed.note(ask));
        }
        Ok(taken)
    }

    /// # Errors
    /// As [`Away::take`].
    pub(super) fn look(&self, ask: &Ask<'_>) -> Result<Allowance, Unavailable> {
        self.unavailable()?;
        let (rank, nodes) = self.standing();
        let rates = ask.rates.share(rank, nodes);
        Ok(self.granted.look_now(&Ask { rates: &rates, ..*ask }))
    }
}

impl RedisCounters {
    /// One beat: for a server that is about to start, too, which must know how many share a limit before Redis goes away. Whether Redis was there all the while, and
    /// has forgotten nothing since the beat before.
    ///
    /// # Errors
    /// Redis does not answer, or nobody can write there.
    pub(in crate::store) async fn beat(&self) -> Result<bool, Unavailable> {
        let away = &self.away;
        let arguments = vec![away.node.clone(), LIVES.as_millis().to_string()];
        let call = Call { script: &away.beat, keys: vec![NODES.to_owned()], arguments };
        let mut answers = self.redis.run_each::<Vec<String>>(STORE, "beat", &[call]).await?;
        let mut nodes = answers.pop().unwrap_or_default();
        let was_known = !nodes.is_empty() && nodes.remove(0) == "1";
        let has_forgotten = away.saw(nodes) && !was_known;
        if has_forgotten {
            tracing::warn!(
                redis = self.redis.name(),
                "Redis forgot what limits had counted: it is told what this node granted"
            );
            away.is_away.store(true, Ordering::Release);
            // Before it is told anything: all until here is in `granted`, and what is granted from here on is owed.
            away.owed.clear();
            away.owes_from.store(0, Ordering::Release);
        }
        loop {
            let shard = away.owes_from.load(Ordering::Acquire);
            if shard >= MemoryCounters::shards() {
                break;
            }
            let tallies = away.granted.export(shard, false);
            away.owes_from.store(shard + 1, Ordering::Release);
            self.tell(tallies).await?;
        }
        let was_away = away.is_away();
        if was_away {
            for _ in 0..PASSES {
                if !self.tell_owed().await? {
                    break;
                }
            }
            // Nobody spends them while it is away, and Redis may know nothing of them any more.
            self.drop_leases();
            away.is_away.store(false, Ordering::Release);
            tracing::info!(redis = self.redis.name(), "limits are counted in Redis again");
        }
        // What was granted while it was told, and by whoever was at it.
        self.tell_owed().await?;
        away.metrics.store_up(STORE, true);
        away.metrics.limit_by_share(false);
        Ok(!was_away)
    }

    /// Whether there was anything to tell.
    async fn tell_owed(&self) -> Result<bool, Unavailable> {
        let owed = &self.away.owed;
        if owed.is_empty() {
            return Ok(false);
        }
        for shard in 0..MemoryCounters::shards() {
            self.tell(owed.export(shard, true)).await?;
        }
        Ok(true)
    }

    /// Step by step: no lock is held while Redis is asked. What it could not be told is owed; of a step that failed all, which is twice where some arrived, and stricter.
    async fn tell(&self, tallies: Vec<(CounterKey, Tally)>) -> Result<(), Unavailable> {
        let mut told = 0;
        for step in tallies.chunks(STEP) {
            let now = self.away.clock.monotonic();
            let calls: Vec<Call<'_>> = step
                .iter()
                .filter(|(_, tally)| !tally.is_idle(now))
                .map(|(key, tally)| self.restoring(*key, tally, now))
                .collect();
            let done: Result<Vec<i64>, Unavailable> = self.redis.run_each(STORE, "restore", &calls).await;
            if let Err(error) = done {
                tallies.into_iter().skip(told).for_each(|(key, tally)| self.away.owed.import(key, tally));
                return Err(error);
            }
            told += step.len();
        }
        Ok(())
    }

    /// A beat, and gives back what leases hold that nobody spent: where Redis was there all the while and knows of it.
    async fn beat_and_give_back(&self, all: bool) -> Result<(), Unavailable> {
        match self.beat().await {
            Ok(true) => self.give_back(all).await,
            done => {
                self.drop_leases();
                done.map(drop)
            }
        }
    }

    fn restoring(&self, key: CounterKey, tally: &Tally, now: Duration) -> Call<'_> {
        let lives = tally.lives(now).as_millis() + 1_000;
        let mut arguments = vec![lives.to_string()];
        for part in tally.parts(now) {
            let (kind, unit, ago, count) = match part {
                // The slots of two clocks begin at different moments: not a moment earlier.
                Part::Window { unit, slots_ago, count } => ("w", unit, slots_ago.saturating_sub(1), u64::from(count)),
                Part::Bucket { unit, micros_ago, level } => ("b", unit, micros_ago, level),
            };
            let unit = unit.length().as_secs();
            arguments.extend([kind.to_owned(), unit.to_string(), ago.to_string(), count.to_string()]);
        }
        Call { script: &self.away.restore, keys: vec![name_of(key)], arguments }
    }

    /// Beats, and gives back what leases hold that nobody spent. Ends when told to.
    pub(in crate::store) async fn run_beside(&self, readiness: &Readiness, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut shutdown) => break,
                () = self.leases.wanted(), if !self.away.is_away() => {
                    self.reserve().await;
                    continue;
                }
                _ = ticks.tick() => {}
            }
            // Not cut short where the server stops: what was taken out of memory to be told would be lost. Each question has its time limit.
            match self.beat_and_give_back(false).await {
                Ok(()) => readiness.change(|report| drop(report.stores_down.remove(STORE))),
                Err(error) => {
                    self.away.failed(&error.detail);
                    readiness.change(|report| drop(report.stores_down.insert(STORE, error.detail.clone())));
                }
            }
        }
        // Others need not wait until it leaves the window.
        if let Err(error) = self.beat_and_give_back(true).await {
            tracing::debug!(%error, "what was reserved of limits comes back by itself");
        }
    }
}
