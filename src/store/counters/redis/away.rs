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
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::{sync::watch, time::MissedTickBehavior};

use super::{MOST_WAIT, RedisCounters, STORE, name_of};
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
/// Keys told at once, at least where there are so many.
const STEP: usize = 200;
/// How often Redis is told what was granted while it was told, before requests ask it: each time there is less.
const PASSES: usize = 8;

/// What Redis is to be told of a key: with a number, since who heard no answer sends it again as it was, and Redis adds it once.
struct Telling {
    number: u64,
    key: CounterKey,
    tally: Tally,
}

#[derive(Default)]
struct Seen {
    beats: u64,
    /// The name of the set of nodes: where it is another one, Redis has forgotten.
    set: String,
    /// Nodes, and the number of the beat that last told of each.
    nodes: BTreeMap<String, u64>,
}

pub(super) struct Away {
    on_failure: OnFailure,
    /// This node's name among nodes: new with each start.
    node: String,
    beat: Script,
    restore: Script,
    is_away: AtomicBool,
    /// The rank of this node, and how many there are.
    standing: AtomicU64,
    seen: Mutex<Seen>,
    /// Microseconds: when Redis was last told that this node is there.
    beaten_at: AtomicU64,
    /// Redis forgot what was counted, and has not been told of the parts of `granted` from this one on.
    owes_from: AtomicUsize,
    /// All that this node granted, wherever it was counted.
    granted: MemoryCounters,
    /// What it granted while Redis was away.
    owed: MemoryCounters,
    /// What Redis was told and did not answer: before it is told anything else of these keys.
    unanswered: Mutex<Vec<Telling>>,
    saying: Mutex<()>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
}

impl Away {
    pub(super) fn new(
        on_failure: OnFailure,
        granted: MemoryCounters,
        metrics: &Arc<Metrics>,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
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
            beaten_at: AtomicU64::new(0),
            owes_from: AtomicUsize::new(MemoryCounters::shards()),
            granted,
            owed: MemoryCounters::untold(clock.clone(), metrics.clone()),
            unanswered: Mutex::default(),
            saying: Mutex::default(),
            metrics: metrics.clone(),
            clock: clock.clone(),
            entropy: entropy.clone(),
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
        let was_away = self.is_away.swap(true, Ordering::AcqRel);
        self.say_whether_away();
        if was_away {
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

    /// In the metrics. One after the other: whoever comes last has seen what is the case.
    fn say_whether_away(&self) {
        let _one = self.saying.lock().unwrap_or_else(PoisonError::into_inner);
        let is_away = self.is_away();
        self.metrics.store_up(STORE, !is_away);
        self.metrics.limit_by_share(is_away && self.on_failure == OnFailure::Share);
    }

    fn unanswered(&self) -> MutexGuard<'_, Vec<Telling>> {
        self.unanswered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unavailable(&self) -> Result<(), Unavailable> {
        match self.on_failure {
            OnFailure::Share => Ok(()),
            OnFailure::Refuse => Err(Unavailable { store: STORE, detail: "Redis is away".to_owned() }),
        }
    }

    /// Whether Redis has forgotten what it held at the beat before, however often that was asked. Nodes that a Redis started anew has not heard of yet are not gone:
    /// it is beats that count.
    fn saw(&self, set: String, nodes: Vec<String>) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { beats, set: before, nodes: known } = &mut *seen;
        *beats += 1;
        known.extend(nodes.into_iter().map(|node| (node, *beats)));
        known.retain(|_, last| *beats - *last <= SILENT_BEATS);
        let rank = known.keys().position(|node| *node == self.node).unwrap_or(0);
        self.standing.store((rank as u64) << 32 | known.len().max(1) as u64, Ordering::Release);
        let has_forgotten = *beats > 1 && *before != set;
        *before = set;
        has_forgotten
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

fn micros(now: Duration) -> u64 {
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX)
}

impl RedisCounters {
    /// One beat: for a server that is about to start, too, which must know how many share a limit before Redis goes away. Whether Redis was there all the while, and
    /// has forgotten nothing since the beat before.
    ///
    /// # Errors
    /// Redis does not answer, or nobody can write there.
    pub(in crate::store) async fn beat(&self) -> Result<bool, Unavailable> {
        let away = &self.away;
        let began = away.clock.monotonic();
        self.say_here().await?;
        let took = away.clock.monotonic().saturating_sub(began);
        if away.is_away() && took > MOST_WAIT {
            let detail = format!("beat: an answer after {took:?}, and no request waits for longer than {MOST_WAIT:?}");
            return Err(Unavailable { store: STORE, detail });
        }
        let mut was_away = false;
        loop {
            self.tell_again().await?;
            self.tell_granted().await?;
            if !away.is_away() {
                break;
            }
            was_away = true;
            for _ in 0..PASSES {
                if !self.tell_owed().await? {
                    break;
                }
            }
            if away.owes_from.load(Ordering::Acquire) < MemoryCounters::shards() {
                // It forgot once more.
                continue;
            }
            // Nobody spends them while it is away, and Redis may know nothing of them any more.
            self.drop_leases();
            away.is_away.store(false, Ordering::Release);
            tracing::info!(redis = self.redis.name(), "limits are counted in Redis again");
            break;
        }
        // What was granted while it was told, and by whoever was at it.
        self.tell_owed().await?;
        away.say_whether_away();
        Ok(!was_away)
    }

    async fn say_here(&self) -> Result<(), Unavailable> {
        let away = &self.away;
        let mut name = [0; 16];
        away.entropy.fill(&mut name);
        let set = format!("{:032x}", u128::from_be_bytes(name));
        let arguments = vec![away.node.clone(), LIVES.as_millis().to_string(), set];
        let call = Call { script: &away.beat, keys: vec![NODES.to_owned()], arguments };
        let mut answers = self.redis.run_each::<Vec<String>>(STORE, "beat", &[call]).await?;
        away.beaten_at.store(micros(away.clock.monotonic()), Ordering::Relaxed);
        let mut nodes = answers.pop().unwrap_or_default();
        if nodes.is_empty() {
            return Err(Unavailable { store: STORE, detail: "beat: an answer that cannot be read".to_owned() });
        }
        let set = nodes.remove(0);
        if away.saw(set, nodes) {
            tracing::warn!(
                redis = self.redis.name(),
                "Redis forgot what limits had counted: it is told what this node granted"
            );
            away.is_away.store(true, Ordering::Release);
            // Before it is told anything: all until here is in `granted`, and what is granted from here on is owed.
            away.owed.clear();
            away.unanswered().clear();
            away.owes_from.store(0, Ordering::Release);
        }
        Ok(())
    }

    /// While much is told, or the others would take this node's part.
    async fn still_here(&self) -> Result<(), Unavailable> {
        let beaten_at = Duration::from_micros(self.away.beaten_at.load(Ordering::Relaxed));
        if self.away.clock.monotonic().saturating_sub(beaten_at) < BEAT { Ok(()) } else { self.say_here().await }
    }

    /// From where it was told last.
    async fn tell_granted(&self) -> Result<(), Unavailable> {
        let away = &self.away;
        loop {
            let mut shard = away.owes_from.load(Ordering::Acquire);
            if shard >= MemoryCounters::shards() {
                return Ok(());
            }
            let mut step = Vec::new();
            while step.len() < STEP && shard < MemoryCounters::shards() {
                step.extend(away.granted.export(shard, false));
                shard += 1;
            }
            away.owes_from.store(shard, Ordering::Release);
            self.tell(step).await?;
            self.still_here().await?;
        }
    }

    /// Whether there was anything to tell.
    async fn tell_owed(&self) -> Result<bool, Unavailable> {
        let owed = &self.away.owed;
        if owed.is_empty() {
            return Ok(false);
        }
        let mut shards = 0..MemoryCounters::shards();
        loop {
            let mut step = Vec::new();
            while step.len() < STEP {
                let Some(shard) = shards.next() else { break };
                step.extend(owed.export(shard, true));
            }
            if step.is_empty() {
                return Ok(true);
            }
            self.tell(step).await?;
            self.still_here().await?;
        }
    }

    async fn tell(&self, tallies: Vec<(CounterKey, Tally)>) -> Result<(), Unavailable> {
        let numbered = tallies.into_iter().map(|(key, tally)| Telling { number: self.next_number(), key, tally });
        self.away.unanswered().extend(numbered);
        self.tell_again().await
    }

    /// No lock is held while Redis is asked.
    async fn tell_again(&self) -> Result<(), Unavailable> {
        let now = self.away.clock.monotonic();
        let mut told = std::mem::take(&mut *self.away.unanswered());
        told.retain(|telling| !telling.tally.is_idle(now));
        let calls: Vec<Call<'_>> = told.iter().map(|telling| self.restoring(telling, now)).collect();
        let tell = async |calls: &[Call<'_>]| self.redis.run_each::<i64>(STORE, "restore", calls).await.map(drop);
        let done: Vec<Result<(), Unavailable>> = match (self.redis.is_cluster(), calls.is_empty()) {
            (_, true) => Vec::new(),
            // Each lies on a server of its own, and what has arrived at one is not told again since another one is away.
            (true, false) => join_all(calls.iter().map(|call| tell(std::slice::from_ref(call)))).await,
            (false, false) => vec![tell(&calls).await; calls.len()],
        };
        drop(calls);
        let mut all = Ok(());
        for (telling, done) in told.into_iter().zip(done) {
            if let Err(error) = done {
                self.away.unanswered().push(telling);
                all = Err(error);
            }
        }
        all
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

    fn restoring(&self, Telling { number, key, tally }: &Telling, now: Duration) -> Call<'_> {
        let lives = tally.lives(now).as_millis() + 1_000;
        let mut arguments = vec![self.away.node.clone(), number.to_string(), lives.to_string()];
        for part in tally.parts(now) {
            let (kind, unit, ago, count) = match part {
                // The slots of two clocks begin at different moments: not a moment earlier.
                Part::Window { unit, slots_ago, count } => ("w", unit, slots_ago.saturating_sub(1), u64::from(count)),
                Part::Bucket { unit, micros_ago, level } => ("b", unit, micros_ago, level),
            };
            let unit = unit.length().as_secs();
            arguments.extend([kind.to_owned(), unit.to_string(), ago.to_string(), count.to_string()]);
        }
        Call { script: &self.away.restore, keys: vec![name_of(*key)], arguments }
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
