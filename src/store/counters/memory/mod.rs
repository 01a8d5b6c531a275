//! Limits counted in this process. Also what a node counts its share in while Redis is away.
//!
//! A map in [`SHARDS`] parts, each with a lock of its own that is held for one step of arithmetic; those of one request are taken in the order of their numbers, so
//! that two requests never wait for each other. Nothing else waits, and nothing ever walks more than one part (about a thousand keys).
//!
//! **Bounded whatever keys come.** A key that holds nothing any more is forgotten: when its part grows, and part by part by whoever takes. Where [`MOST_KEYS`] are
//! alive, or three quarters of them are of its limit (a flood of keys of one limit leaves room for the others), a new key counts together with others in one of [`SHARED`] buckets of its limit: stricter for them, and nobody's count is forgotten for theirs. When there is room
//! again, such a key begins with all that its bucket holds. Where windows of busy keys hold more than [`MOST_HEAP`], their stamps are made coarser as they are used.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use crate::{
    core::limit::{Allowance, Refused, Tally},
    observe::metrics::Metrics,
    ports::{Ask, Clock, CounterKey, Counters, RefusedBy, Taken, Unavailable},
};

/// So many that with [`MOST_KEYS`] a part is a bit smaller than what its table holds before it doubles.
const SHARDS: usize = 1_200;
/// Measured: 1,000,000 keys of one window, in each of which one was taken, took 106 MB of resident memory (`benches/RESULTS.md`).
const MOST_KEYS: usize = 1_000_000;
/// In bytes, beside the tables.
const MOST_HEAP: usize = 512 << 20;
/// Buckets of one limit for keys beyond [`MOST_KEYS`].
const SHARED: u64 = 256;
/// A window that holds less is never made coarser.
const FEW_BYTES: usize = 256;
/// How often somebody who takes cleans a part.
const TAKES_BETWEEN_CLEANINGS: usize = 64;
/// A part is cleaned when it has grown to twice what lived in it then, from here on.
const CLEANED_FROM: usize = 64;
/// How often a part is cleaned where there seems to be no room.
const CLEANED_WHERE_FULL: Duration = Duration::from_secs(1);
/// How long keys may count in shared buckets after the last one did: as long as the longest window.
const SHARED_LIFE: Duration = Duration::from_secs(90_000);

/// Limits are told apart by their names' hashes; those that share a number share what one may hold. The first is of keys whose limit is not known.
const LIMITS: usize = 256;

/// How many keys there are of each limit.
type OfLimits = [AtomicUsize; LIMITS];

#[derive(Default)]
struct Held {
    limit: usize,
    /// Of several keys together: nobody elsewhere knows it by this name.
    is_shared: bool,
    tally: Tally,
}

struct Shard {
    tallies: HashMap<CounterKey, Held, RandomState>,
    /// At so many keys it is cleaned.
    clean_at: usize,
    cleaned_at: Duration,
}

impl Default for Shard {
    fn default() -> Self {
        Self { tallies: HashMap::default(), clean_at: CLEANED_FROM, cleaned_at: Duration::ZERO }
    }
}

impl Shard {
    /// How many keys, and bytes beside the table, are forgotten.
    fn clean(&mut self, now: Duration, of_limits: &OfLimits) -> (usize, usize) {
        let (keys, mut bytes) = (self.tallies.len(), 0);
        self.tallies.retain(|_, held| {
            let is_idle = held.tally.is_idle(now);
            if is_idle {
                bytes += held.tally.heap();
                leave(of_limits, held.limit);
            }
            !is_idle
        });
        if self.tallies.capacity() > 4 * self.tallies.len().max(CLEANED_FROM) {
            self.tallies.shrink_to(2 * self.tallies.len());
        }
        self.clean_at = CLEANED_FROM.max(2 * self.tallies.len());
        self.cleaned_at = now;
        (keys - self.tallies.len(), bytes)
    }
}

fn leave(of_limits: &OfLimits, limit: usize) {
    if let Some(keys) = of_limits.get(limit) {
        keys.fetch_sub(1, Ordering::Relaxed);
    }
}

pub(in crate::store) struct MemoryCounters {
    shards: Box<[Mutex<Shard>]>,
    /// Of keys to parts: nobody outside can choose one.
    hasher: RandomState,
    most_keys: usize,
    most_heap: usize,
    keys: AtomicUsize,
    of_limits: OfLimits,
    /// Bytes beside the tables.
    heap: AtomicUsize,
    takes: AtomicUsize,
    /// Milliseconds: until then some key may have been counted in a shared bucket.
    shared_until: AtomicU64,
    is_full: AtomicBool,
    is_told: bool,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// Where an ask is counted.
struct Place {
    key: CounterKey,
    /// Of [`OfLimits`].
    limit: usize,
    shard: usize,
    /// Where it would be counted if there were no room for its key; absent while nobody is.
    shared: Option<(CounterKey, usize)>,
}

/// The locks of some places, in order.
struct Locks<'m>(Vec<(usize, MutexGuard<'m, Shard>)>);

impl Locks<'_> {
    fn tally(&self, (key, shard): (CounterKey, usize)) -> Option<&Tally> {
        let (_, guard) = self.0.iter().find(|(locked, _)| *locked == shard)?;
        guard.tallies.get(&key).map(|held| &held.tally)
    }

    fn shard(&mut self, shard: usize) -> Option<&mut Shard> {
        self.0.iter_mut().find(|(locked, _)| *locked == shard).map(|(_, guard)| &mut **guard)
    }
}

impl MemoryCounters {
    pub(in crate::store) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self::bounded(MOST_KEYS, MOST_HEAP, clock, metrics)
    }

    /// One whose keys no metric tells of: what is in it is in another one too.
    pub(in crate::store) fn untold(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self { is_told: false, ..Self::new(clock, metrics) }
    }

    fn bounded(most_keys: usize, most_heap: usize, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            is_told: true,
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            hasher: RandomState::new(),
            most_keys,
            most_heap,
            keys: AtomicUsize::new(0),
            of_limits: std::array::from_fn(|_| AtomicUsize::new(0)),
            heap: AtomicUsize::new(0),
            takes: AtomicUsize::new(0),
            shared_until: AtomicU64::new(0),
            is_full: AtomicBool::new(false),
            clock,
            metrics,
        }
    }

    fn shard_of(&self, key: CounterKey) -> usize {
        usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0)
    }

    fn place(&self, ask: &Ask<'_>, now: Duration) -> Place {
        let limit = self.limit_of(ask);
        let shared = (self.is_full_for(limit)
            || now.as_millis() < u128::from(self.shared_until.load(Ordering::Acquire)))
        .then(|| {
            let mut bytes = [0; 16];
            let limit = self.hasher.hash_one((ask.limit, "shared")).to_le_bytes();
            let bucket = (self.hasher.hash_one(ask.key) % SHARED).to_le_bytes();
            for (byte, from) in bytes.iter_mut().zip(limit.into_iter().chain(bucket)) {
                *byte = from;
            }
            let key = CounterKey(bytes);
            (key, self.shard_of(key))
        });
        Place { key: ask.key, limit, shard: self.shard_of(ask.key), shared }
    }

    /// Never the first, and the same as long as the limit keeps its name.
    fn limit_of(&self, ask: &Ask<'_>) -> usize {
        let number = self.hasher.hash_one((ask.limit, "limit")) % (LIMITS as u64 - 1);
        usize::try_from(number).unwrap_or(0) + 1
    }

    const fn most_of_a_limit(&self) -> usize {
        self.most_keys - self.most_keys / 4
    }

    /// Whether there is no room for another key of this limit.
    fn is_full_for(&self, limit: usize) -> bool {
        let of_limit = self.of_limits.get(limit).map_or(0, |keys| keys.load(Ordering::Relaxed));
        self.keys.load(Ordering::Relaxed) >= self.most_keys || of_limit >= self.most_of_a_limit()
    }

    /// Whether there may be some limit that is full.
    fn is_scarce(&self) -> bool {
        self.keys.load(Ordering::Relaxed) >= self.most_of_a_limit()
    }

    fn lock(&self, shard: usize) -> Option<MutexGuard<'_, Shard>> {
        // A panic in between leaves a tally that was counted or not: both are true tallies.
        self.shards.get(shard).map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn locks(&self, places: &[Place]) -> Locks<'_> {
        let mut shards: Vec<usize> = places
            .iter()
            .flat_map(|place| std::iter::once(place.shard).chain(place.shared.map(|(_, shard)| shard)))
            .collect();
        shards.sort_unstable();
        shards.dedup();
        Locks(shards.into_iter().filter_map(|shard| self.lock(shard).map(|guard| (shard, guard))).collect())
    }

    /// Those of `asks` that are chosen: all, or none.
    fn take_all(&self, asks: &[&Ask<'_>], now: Duration) -> (Vec<Allowance>, Option<RefusedBy>) {
        let places: Vec<Place> = asks.iter().map(|ask| self.place(ask, now)).collect();
        let mut locks = self.locks(&places);
        let empty = Tally::default();
        let refusals: Vec<Option<Refused>> = asks
            .iter()
            .zip(&places)
            .map(|(ask, place)| ask.rates.refusal(counted(&locks, place, now).unwrap_or(&empty), now))
            .collect();
        let refused = refusals
            .iter()
            .enumerate()
            .filter_map(|(ask, refused)| refused.map(|refused| RefusedBy { ask, retry_after: refused.retry_after }))
            .max_by_key(|refused| refused.retry_after);
        if refused.is_none() {
            for (ask, place) in asks.iter().zip(&places) {
                self.add(&mut locks, ask, place, now);
            }
        }
        let allowances = asks
            .iter()
            .zip(&places)
            .zip(refusals)
            .map(|((ask, place), refused)| {
                let tally = counted(&locks, place, now).unwrap_or(&empty);
                Allowance { rates: ask.rates.remaining(tally, now), refused }
            })
            .collect();
        (allowances, refused)
    }

    /// Under its locks.
    fn add(&self, locks: &mut Locks<'_>, ask: &Ask<'_>, place: &Place, now: Duration) {
        let is_known = locks.tally((place.key, place.shard)).is_some();
        if !is_known && let Some(shard) = locks.shard(place.shard) {
            let is_due = now.saturating_sub(shard.cleaned_at) >= CLEANED_WHERE_FULL && self.is_full_for(place.limit);
            if is_due || shard.tallies.len() >= shard.clean_at {
                let forgotten = shard.clean(now, &self.of_limits);
                self.forget(forgotten);
            }
        }
        // What it may have been counted in before.
        let shared = place.shared.filter(|_| !is_known);
        let ((key, shard), is_shared) = match shared {
            Some(shared) if self.is_full_for(place.limit) => {
                self.count_shared(now);
                (shared, true)
            }
            _ => ((place.key, place.shard), false),
        };
        let begun = shared.and_then(|shared| locks.tally(shared)).cloned();
        let Some(shard) = locks.shard(shard) else { return };
        let mut is_new = false;
        let held = shard.tallies.entry(key).or_insert_with(|| {
            is_new = true;
            Held { limit: place.limit, is_shared, tally: begun.unwrap_or_default() }
        });
        let tally = &mut held.tally;
        let before = if is_new { 0 } else { tally.heap() };
        ask.rates.add(tally, now);
        if tally.heap() > FEW_BYTES && self.heap.load(Ordering::Relaxed) > self.most_heap {
            tally.coarsen(now);
        }
        let after = tally.heap();
        self.heap.fetch_add(after, Ordering::Relaxed);
        self.heap.fetch_sub(before, Ordering::Relaxed);
        if is_new {
            self.arrived(place.limit);
        }
    }

    fn arrived(&self, limit: usize) {
        self.keys.fetch_add(1, Ordering::Relaxed);
        if let Some(keys) = self.of_limits.get(limit) {
            keys.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count_shared(&self, now: Duration) {
        let until = u64::try_from((now + SHARED_LIFE).as_millis()).unwrap_or(u64::MAX);
        self.shared_until.fetch_max(until, Ordering::AcqRel);
        self.metrics.limit_key_shared();
        if !self.is_full.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                most = self.most_keys,
                keys = self.keys.load(Ordering::Relaxed),
                "limits count as many keys as memory may hold: new ones count together until others are idle"
            );
        }
    }

    fn forget(&self, (keys, bytes): (usize, usize)) {
        let left = self.keys.fetch_sub(keys, Ordering::Relaxed).saturating_sub(keys);
        self.heap.fetch_sub(bytes, Ordering::Relaxed);
        if self.is_told {
            self.metrics.limit_keys(left);
        }
        // Said anew only after there was room for a while.
        if left < self.most_keys / 2 {
            self.is_full.store(false, Ordering::Relaxed);
        }
    }

    /// Of one part, the next each time; oftener where there seems to be no room. With no lock held.
    fn clean_some(&self, now: Duration) {
        let takes = self.takes.fetch_add(1, Ordering::Relaxed);
        let is_scarce = self.is_scarce();
        let between = if is_scarce { 1 } else { TAKES_BETWEEN_CLEANINGS };
        if !takes.is_multiple_of(between) {
            return;
        }
        let Some(mut shard) = self.lock(takes / between % SHARDS) else { return };
        if is_scarce && now.saturating_sub(shard.cleaned_at) < CLEANED_WHERE_FULL {
            return;
        }
        let forgotten = shard.clean(now, &self.of_limits);
        drop(shard);
        self.forget(forgotten);
    }

    /// Never waits for anything but a moment's lock.
    pub(in crate::store) fn take_now(&self, asks: &[Ask<'_>]) -> Taken {
        let now = self.clock.monotonic();
        self.clean_some(now);
        let chosen = |reports_only| asks.iter().enumerate().filter(move |(_, ask)| ask.reports_only == reports_only);
        let enforced: Vec<&Ask<'_>> = chosen(false).map(|(_, ask)| ask).collect();
        let (allowances, refused) = self.take_all(&enforced, now);
        if enforced.len() == asks.len() {
            return Taken { allowances, refused };
        }
        let mut enforced = allowances.into_iter();
        let mut told = Vec::with_capacity(asks.len());
        for ask in asks {
            told.extend(match ask.reports_only {
                false => enforced.next(),
                true => self.take_all(&[ask], now).0.into_iter().next(),
            });
        }
        let place = |refused: RefusedBy| {
            let ask = chosen(false).nth(refused.ask).map_or(0, |(place, _)| place);
            RefusedBy { ask, ..refused }
        };
        Taken { allowances: told, refused: refused.map(place) }
    }

    /// One that was granted elsewhere.
    pub(in crate::store) fn note(&self, ask: &Ask<'_>) {
        let now = self.clock.monotonic();
        self.clean_some(now);
        let place = self.place(ask, now);
        let mut locks = self.locks(std::slice::from_ref(&place));
        self.add(&mut locks, ask, &place, now);
    }

    /// How many parts there are to [`MemoryCounters::export`].
    pub(in crate::store) const fn shards() -> usize {
        SHARDS
    }

    /// All that one part counts, but for what keys count together: that is no key's alone.
    pub(in crate::store) fn export(&self, shard: usize, forgets: bool) -> Vec<(CounterKey, Tally)> {
        let Some(mut shard) = self.lock(shard) else { return Vec::new() };
        if !forgets {
            let of_one = shard.tallies.iter().filter(|(_, held)| !held.is_shared);
            return of_one.map(|(key, held)| (*key, held.tally.clone())).collect();
        }
        let forgotten: Vec<(CounterKey, Held)> = shard.tallies.drain().collect();
        drop(shard);
        forgotten.iter().for_each(|(_, held)| leave(&self.of_limits, held.limit));
        self.forget((forgotten.len(), forgotten.iter().map(|(_, held)| held.tally.heap()).sum()));
        forgotten.into_iter().filter(|(_, held)| !held.is_shared).map(|(key, held)| (key, held.tally)).collect()
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.keys.load(Ordering::Relaxed) == 0
    }

    pub(in crate::store) fn clear(&self) {
        for shard in 0..SHARDS {
            self.export(shard, true);
        }
    }

    pub(in crate::store) fn look_now(&self, ask: &Ask<'_>) -> Allowance {
        let now = self.clock.monotonic();
        let place = self.place(ask, now);
        let locks = self.locks(std::slice::from_ref(&place));
        let empty = Tally::default();
        ask.rates.look(counted(&locks, &place, now).unwrap_or(&empty), now)
    }
}

/// Where its key is not known, what it shares with others counts for it. What is idle is none: so old, its stamps' numbers may mean another moment.
fn counted<'l>(locks: &'l Locks<'_>, place: &Place, now: Duration) -> Option<&'l Tally> {
    let tally = locks.tally((place.key, place.shard)).or_else(|| locks.tally(place.shared?));
    tally.filter(|tally| !tally.is_idle(now))
}

#[async_trait]
impl Counters for MemoryCounters {
    fn try_take(&self, asks: &[Ask<'_>]) -> Option<Taken> {
        Some(self.take_now(asks))
    }

    async fn take(&self, asks: &[Ask<'_>]) -> Result<Taken, Unavailable> {
        Ok(self.take_now(asks))
    }

    async fn look(&self, ask: &Ask<'_>) -> Result<Allowance, Unavailable> {
        Ok(self.look_now(ask))
    }
}
