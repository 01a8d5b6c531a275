//! What is remembered of one key of a limit. Kept small, since there may be a million: 40 bytes, 8 more for each slot in which something was taken, and 96 more where a
//! rate has a burst.
//!
//! It is kept by unit and kind, and not by rate: `50/minute` that becomes `100/minute` by a reload goes on with what was taken. A kind that the limit did not
//! have before begins with nothing taken.

use std::time::Duration;

use super::{LIFE, rate::Unit, slot_length};

/// Bits of a slot's number that are kept. No window counts for longer than a day, and for a second's, whose slots are shortest, the numbers begin anew after
/// 12 days. What counts no more is not asked for its age.
const SLOT_BITS: u32 = 28;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;

/// What was taken in one slot of a window: 2 bits of unit, 28 of slot, 32 of count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken(u64);

impl Taken {
    fn new(unit: Unit, slot: u64, count: u32) -> Self {
        Self(unit.index() << 60 | (slot & SLOT_MASK) << 32 | u64::from(count))
    }

    const fn with_count(self, count: u32) -> Self {
        Self(self.0 & !0xFFFF_FFFF | count as u64)
    }

    fn is_of(self, unit: Unit) -> bool {
        self.0 >> 60 == unit.index()
    }

    fn unit(self) -> Unit {
        Unit::ALL.into_iter().find(|unit| self.is_of(*unit)).unwrap_or(Unit::Day)
    }

    pub(super) const fn count(self) -> u32 {
        (self.0 & 0xFFFF_FFFF) as u32
    }

    /// How many slots ago. What lies ahead was taken before now all the same (the clock stepped back): it counts as taken now.
    pub(super) fn age(self, now_slot: u64) -> u64 {
        let age = now_slot.wrapping_sub(self.0 >> 32) & SLOT_MASK;
        if age > SLOT_MASK / 2 { 0 } else { age }
    }
}

/// A bucket as the continuous-state leaky bucket of ITU-T I.371: how full it was when last looked at. A unit taken pours in as many microseconds as the rate's unit is
/// long, and N of them run out each microsecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Level {
    at: u64,
    level: u64,
    /// By the rate that it was poured into.
    empty_at: u64,
}

impl Level {
    /// A clock that went back: nothing has run out since.
    pub(super) fn now(self, now: u64, count: u32) -> u64 {
        let run_out = now.saturating_sub(self.at).saturating_mul(u64::from(count));
        self.level.saturating_sub(run_out)
    }
}

/// Of a [`Tally`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Window {
        unit: Unit,
        slots_ago: u64,
        count: u32,
    },
    /// How full it was when it was last poured into.
    Bucket {
        unit: Unit,
        micros_ago: u64,
        level: u64,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Microseconds: no window counts any more from here on. A bucket may run for longer.
    windows_until: u64,
    /// Of each unit the oldest first.
    taken: Vec<Taken>,
    /// By unit.
    levels: Option<Box<[Level; 4]>>,
}

impl Tally {
    /// Whether it may be forgotten without granting more. `now`: as it was told to [`super::Rates::take`].
    #[must_use]
    pub fn is_idle(&self, now: Duration) -> bool {
        self.idle_at() <= super::micros(now)
    }

    fn idle_at(&self) -> u64 {
        let empty_at = self.levels.iter().flat_map(|levels| levels.iter()).map(|level| level.empty_at).max();
        self.windows_until.max(empty_at.unwrap_or(0))
    }

    /// What it takes beside itself, in bytes.
    #[must_use]
    pub fn heap(&self) -> usize {
        self.taken.capacity() * size_of::<Taken>() + self.levels.as_ref().map_or(0, |_| size_of::<[Level; 4]>())
    }

    /// The living of a unit, the oldest first.
    pub(super) fn taken(&self, unit: Unit, now: u64) -> impl Iterator<Item = (u64, Taken)> {
        let now_slot = now / slot_length(unit);
        // Where none counts any more their numbers may mean another moment.
        let counts = if self.windows_until > now { self.taken.as_slice() } else { &[] };
        counts
            .iter()
            .filter(move |taken| taken.is_of(unit))
            .map(move |taken| (taken.age(now_slot), *taken))
            .filter(|(age, _)| *age < LIFE)
    }

    pub(super) fn level(&self, unit: Unit, now: u64, count: u32) -> u64 {
        self.levels
            .as_ref()
            .and_then(|levels| levels.get(unit.index() as usize))
            .map_or(0, |level| level.now(now, count))
    }

    /// What counts still, for whoever tells another store of it.
    pub fn parts(&self, now: Duration) -> impl Iterator<Item = Part> {
        let now = super::micros(now);
        let windows = Unit::ALL.into_iter().flat_map(move |unit| {
            self.taken(unit, now).map(move |(slots_ago, taken)| Part::Window { unit, slots_ago, count: taken.count() })
        });
        let levels = self.levels.iter().flat_map(|levels| Unit::ALL.into_iter().zip(levels.iter()));
        windows.chain(levels.filter(|(_, level)| level.level > 0).map(move |(unit, level)| Part::Bucket {
            unit,
            micros_ago: now.saturating_sub(level.at),
            level: level.level,
        }))
    }

    /// How long until it [is idle](Tally::is_idle).
    #[must_use]
    pub fn lives(&self, now: Duration) -> Duration {
        Duration::from_micros(self.idle_at().saturating_sub(super::micros(now)))
    }

    /// Forgets what counts no more.
    pub(super) fn prune(&mut self, now: u64) {
        if self.idle_at() <= now {
            self.levels = None;
        }
        if self.windows_until <= now {
            self.taken.clear();
            return;
        }
        self.taken.retain_mut(|taken| {
            let (unit, count) = (taken.unit(), taken.count());
            let now_slot = now / slot_length(unit);
            let age = taken.age(now_slot);
            // Also so that numbers that begin anew are not mistaken.
            *taken = Taken::new(unit, now_slot.saturating_sub(age), count);
            age < LIFE
        });
    }

    pub(super) fn add(&mut self, unit: Unit, now: u64) {
        let slot = now / slot_length(unit);
        self.windows_until = self.windows_until.max((slot + LIFE) * slot_length(unit));
        let newest = self.taken.iter_mut().rev().find(|taken| taken.is_of(unit));
        if let Some(newest) = newest.filter(|newest| newest.age(slot) == 0) {
            *newest = Taken::new(unit, slot, newest.count().saturating_add(1));
            return;
        }
        if self.taken.len() == self.taken.capacity() {
            // Twice as many from four on; most keys never have as many.
            self.taken.reserve_exact(self.taken.len().max(1));
        }
        self.taken.push(Taken::new(unit, slot, 1));
    }

    /// Makes its windows' memory half as large: what was taken in one slot counts as taken in the next that is kept, which is later. For whoever runs out of memory;
    /// it grants a bit less, never more.
    pub fn coarsen(&mut self, now: Duration) {
        self.prune(super::micros(now));
        let mut kept: Vec<Taken> = Vec::new();
        for unit in Unit::ALL {
            let of_unit: Vec<Taken> = self.taken.iter().copied().filter(|taken| taken.is_of(unit)).collect();
            kept.extend(of_unit.rchunks(2).rev().filter_map(|pair| {
                let count = pair.iter().fold(0_u32, |sum, taken| sum.saturating_add(taken.count()));
                pair.last().map(|later| later.with_count(count))
            }));
        }
        kept.shrink_to_fit();
        self.taken = kept;
    }

    pub(super) fn pour(&mut self, unit: Unit, now: u64, count: u32) {
        let levels = self.levels.get_or_insert_default();
        let Some(kept) = levels.get_mut(unit.index() as usize) else { return };
        let level = kept.now(now, count).saturating_add(unit.micros());
        // Not back with the clock: what has run out would run out twice.
        let at = now.max(kept.at);
        *kept = Level { at, level, empty_at: at.saturating_add(level.div_ceil(u64::from(count.max(1)))) };
    }
}
