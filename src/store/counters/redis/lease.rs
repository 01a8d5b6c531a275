//! Leases: some more than was asked for, reserved beforehand, so that the next requests need not ask Redis.
//!
//! **Exact.** What is leased is already counted. A window's is stamped in the slot in which the lease ends ([`HOLD`] later by Redis' clock), and is only spent before that, so that it counts for at least as long
//! as if it had been taken at the moment it was spent. A bucket that is leased from counts as fuller than it is by what runs out of it within a lease, until it was empty. A node knows Redis' clock by its answers: a lease ends so long
//! after the question was sent, which is before Redis read its clock.
//!
//! **Only far from the limit.** The script leases where less than half of every rate would be taken with it, a 64th of a rate at most, and no more than the key was lately asked for. Near the limit each request asks
//! Redis, so that leases of others stand in nobody's way: what is granted there is exactly what one counter would grant.
//!
//! A lease that is nearly spent is followed by another before it is needed.
//!
//! What is not spent is given back when the lease has ended, by [`RedisCounters::give_back`]; that of a node that died leaves the window by itself, and so does all where Redis was away or has forgotten: what
//! it does not know of must not be given back.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use super::{Call, Mode, RedisCounters, STORE, given_of_windows};
use crate::{
    core::limit::{Allowance, Rates, Remaining},
    ports::{Ask, Clock, CounterKey, Unavailable},
};

/// How long a lease is held.
pub(super) const HOLD: Duration = Duration::from_millis(500);
/// A key that is asked for less often within [`HOLD`] asks Redis each time.
const OFTEN: u32 = 8;
/// What is leased of a rate at once, at most.
const PART: u32 = 64;
const SHARDS: usize = 64;
/// Keys that wait for another lease at once.
const MOST_WANTED: usize = 1_024;
/// Keys that share a cell seem to be asked for a bit oftener than they are.
const CELLS: usize = 16_384;

pub(super) struct Lease {
    rates: Rates,
    count: u32,
    left: u32,
    /// Another one is asked for.
    is_followed: bool,
    /// By Redis' clock: the moment of its stamps.
    stamped_at: Duration,
    /// By this node's.
    ends_at: Duration,
    /// What was left besides.
    told: Vec<Remaining>,
}

impl Lease {
    pub(super) fn new(rates: &Rates, count: u32, now: Duration, asked_at: Duration, told: Vec<Remaining>) -> Self {
        let is_followed = false;
        Self {
            rates: rates.clone(),
            count,
            left: count,
            is_followed,
            stamped_at: now + HOLD,
            ends_at: asked_at + HOLD,
            told,
        }
    }
}

type Held = HashMap<CounterKey, Vec<Lease>>;

pub(super) struct Leases {
    shards: Box<[Mutex<Held>]>,
    /// How often keys are asked for: the number of a stretch of [`HOLD`] (32 bits), how often before it and in it (16 each).
    cells: Box<[AtomicU64]>,
    /// Of which another lease is to be asked for.
    wanted: Mutex<Vec<(CounterKey, Rates)>>,
    woken: Notify,
    hasher: RandomState,
    clock: Arc<dyn Clock>,
}

impl Leases {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            cells: std::iter::repeat_with(AtomicU64::default).take(CELLS).collect(),
            wanted: Mutex::default(),
            woken: Notify::new(),
            hasher: RandomState::new(),
            clock,
        }
    }

    fn with_key<T>(&self, key: CounterKey, work: impl FnOnce(&mut Held) -> T) -> Option<T> {
        let shard = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        let shard = self.shards.get(shard)?;
        Some(work(&mut shard.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Counts one; how often it was asked for within [`HOLD`], about.
    fn heat(&self, key: CounterKey, now: Duration) -> u32 {
        let cell = usize::try_from(self.hasher.hash_one((key, "heat")) % CELLS as u64).unwrap_or(0);
        let Some(cell) = self.cells.get(cell) else { return 0 };
        let stretch = u64::try_from(now.as_millis() / HOLD.as_millis()).unwrap_or(0) & u64::from(u32::MAX);
        let counted = |held: u64| {
            let (at, before, within) = (held >> 32, held >> 16 & 0xFFFF, held & 0xFFFF);
            match stretch.wrapping_sub(at) {
                0 => (before, (within + 1).min(0xFFFF)),
                1 => (within, 1),
                _ => (0, 1),
            }
        };
        let pack = |(before, within): (u64, u64)| stretch << 32 | before << 16 | within;
        // A lost race counts one less.
        let held = cell.load(Ordering::Relaxed);
        let (before, within) = counted(held);
        cell.store(pack((before, within)), Ordering::Relaxed);
        u32::try_from(before.max(within)).unwrap_or(0)
    }

    /// How many to reserve beside the one that is asked for.
    pub(super) fn want(&self, ask: &Ask<'_>) -> u32 {
        let heat = self.heat(ask.key, self.clock.monotonic());
        let most = ask.rates.iter().map(|rate| rate.limit() / PART).min().unwrap_or(0);
        if heat < OFTEN || most == 0 { 0 } else { heat.min(most) }
    }

    pub(super) fn hold(&self, ask: &Ask<'_>, lease: Lease) {
        self.with_key(ask.key, |leases| leases.entry(ask.key).or_default().push(lease));
    }

    /// One of each, or none. Never waits.
    pub(super) fn spend(&self, asks: &[Ask<'_>]) -> Option<Vec<Allowance>> {
        let now = self.clock.monotonic();
        let mut allowances = Vec::with_capacity(asks.len());
        for (place, ask) in asks.iter().enumerate() {
            let spent = self.with_key(ask.key, |leases| {
                let leases = leases.get_mut(&ask.key)?;
                let others: u32 = leases.iter().map(|lease| lease.left).sum();
                let lease = leases.iter_mut().find(|lease| lease.is_for(ask.rates, now))?;
                lease.left -= 1;
                if others - 1 <= lease.count / 4 && !lease.is_followed {
                    lease.is_followed = true;
                    self.follow(ask);
                }
                let left = |left: &Remaining| Remaining {
                    remaining: left.remaining.saturating_add(others - 1).min(left.rate.limit()),
                    ..*left
                };
                Some(Allowance { rates: lease.told.iter().map(left).collect(), refused: None })
            });
            let Some(allowance) = spent.flatten() else {
                asks.iter().take(place).for_each(|ask| self.unspend(ask, now));
                return None;
            };
            allowances.push(allowance);
        }
        for ask in asks {
            self.heat(ask.key, now);
        }
        Some(allowances)
    }

    fn follow(&self, ask: &Ask<'_>) {
        let mut wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner);
        if wanted.len() < MOST_WANTED {
            wanted.push((ask.key, ask.rates.clone()));
            self.woken.notify_one();
        }
    }

    /// Until some key needs another lease.
    pub(super) async fn wanted(&self) {
        self.woken.notified().await;
    }

    fn unspend(&self, ask: &Ask<'_>, now: Duration) {
        self.with_key(ask.key, |leases| {
            // Where it has ended meanwhile, it is lost until it leaves the window.
            let lease = leases.get_mut(&ask.key).and_then(|of_key| {
                // It may just have lost its last one.
                of_key.iter_mut().find(|lease| lease.ends_at > now && lease.rates == *ask.rates)
            });
            if let Some(lease) = lease {
                lease.left += 1;
            }
        });
    }

    /// Those that have ended, or all; of what is left of them.
    fn ended(&self, all: bool) -> Vec<(CounterKey, Lease)> {
        let now = self.clock.monotonic();
        let mut ended = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|key, leases| {
                ended.extend(leases.extract_if(.., |lease| all || lease.ends_at <= now).map(|lease| (*key, lease)));
                !leases.is_empty()
            });
        }
        ended.retain(|(_, lease)| lease.left > 0);
        ended
    }
}

impl Lease {
    fn is_for(&self, rates: &Rates, now: Duration) -> bool {
        self.left > 0 && self.ends_at > now && self.rates == *rates
    }
}

impl RedisCounters {
    /// Leases beforehand. That it fails is found out by who asks next.
    pub(super) async fn reserve(&self) {
        let wanted = std::mem::take(&mut *self.leases.wanted.lock().unwrap_or_else(PoisonError::into_inner));
        let asks: Vec<Ask<'_>> =
            wanted.iter().map(|(key, rates)| Ask { limit: "", rates, key: *key, reports_only: false }).collect();
        let groups: Vec<Vec<&Ask<'_>>> = asks.iter().map(|ask| vec![ask]).collect();
        if let Err(error) = self.run(&groups, Mode::Reserve).await {
            tracing::debug!(%error, "nothing is reserved of limits");
        }
    }

    /// What windows' ended leases hold still; of all, where nobody spends any more. What is reserved of a bucket runs out of it by itself: it may have been empty meanwhile.
    pub(super) async fn give_back(&self, all: bool) -> Result<(), Unavailable> {
        let mut of_keys: HashMap<CounterKey, Vec<String>> = HashMap::new();
        for (key, lease) in self.leases.ended(all) {
            of_keys.entry(key).or_default().extend(given_of_windows(&lease.rates, lease.left, lease.stamped_at));
        }
        of_keys.retain(|_, given| !given.is_empty());
        let giving: Vec<Call<'_>> = of_keys.into_iter().map(|(key, given)| self.giving(key, given)).collect();
        let _: Vec<i64> = self.redis.run_each(STORE, "give", &giving).await?;
        Ok(())
    }

    /// Where Redis may know nothing of them any more: what is given back would be taken from what others took.
    pub(super) fn drop_leases(&self) {
        drop(self.leases.ended(true));
    }
}
