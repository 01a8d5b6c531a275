//! The arithmetic of limits (CONTRACT 8), one for memory and Redis. Asked by the adapters of `ports::Counters`, which bring the time; the script in
//! `store/counters/redis` counts the same way, and a test holds it against this.
//!
//! **A window** `N/unit` is cut into 250 slots. What was taken in a slot counts until the 253rd slot after it begins: that slot itself and 250 others make
//! sure of every stretch of the window's length wherever it begins, and two more stand guard for what a caller sees: answers take different times on their way. So there are
//! never more than N in any stretch of the unit, and under steady demand 250/253 = 0.988 of N are granted. It is a log of time stamps with the stamps made coarse, upwards
//! alone: at most 253 numbers a key, kept only where something was taken. Not chosen: the fixed window, which lets 2 N pass around its edge; the sliding window *counter* of two weighted
//! windows (Cloudflare, "How we built rate limiting capable of scaling to millions of domains", 2017), which supposes that the last window was even, and errs upwards where it was not; an exact log,
//! whose memory is N stamps a key; and a bucket of depth N, which grants 2 N in its first stretch.
//!
//! **A bucket** `N/unit burst B` is the generic cell rate algorithm (ITU-T I.371 annex A, ATM Forum Traffic Management 4.0 §4.4.2) as a continuous-state leaky bucket, which is the same
//! as virtual scheduling and needs no division: in any stretch of t at most B + N × t / unit.
//!
//! All rates are taken or none. Time is microseconds since any fixed point; a clock that steps back opens nothing, since what seems to lie ahead counts as if
//! it were taken now.

mod rate;
mod tally;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use self::{
    rate::{Rate, RateError, Rates, Unit},
    tally::{Part, Tally},
};

/// Into which a window is cut. Divides a second into whole microseconds.
const SLOTS: u64 = 250;
/// How many slots something counts: the one it was taken in, those of the window, and two on guard.
const LIFE: u64 = SLOTS + 3;

const fn slot_length(unit: Unit) -> u64 {
    unit.micros() / SLOTS
}

fn micros(now: Duration) -> u64 {
    u64::try_from(now.as_micros()).unwrap_or(u64::MAX / 2)
}

/// What is left of one rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    pub rate: Rate,
    /// How many could be had now, by this rate alone.
    pub remaining: u32,
    /// Until there is one more; zero where nothing is taken.
    pub next: Duration,
    /// Until nothing is taken any more.
    pub full: Duration,
}

/// What a key has left after it was asked for one, whether it was granted or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// In the order of the rates.
    pub rates: Vec<Remaining>,
    /// Why there was none; nothing was taken then.
    pub refused: Option<Refused>,
}

impl Allowance {
    #[must_use]
    pub const fn is_granted(&self) -> bool {
        self.refused.is_none()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The one that stands in the way longest.
    pub rate: Rate,
    /// Until the first moment at which all rates would grant one, if nobody else takes it.
    pub retry_after: Duration,
}

impl Rates {
    /// One of each rate, or of none.
    pub fn take(&self, tally: &mut Tally, now: Duration) -> Allowance {
        tally.prune(micros(now));
        let refused = self.refusal(tally, now);
        if refused.is_none() {
            self.add(tally, now);
        }
        Allowance { rates: self.remaining(tally, now), refused }
    }

    /// The same answer as if one were asked for, and nothing is taken.
    #[must_use]
    pub fn look(&self, tally: &Tally, now: Duration) -> Allowance {
        Allowance { rates: self.remaining(tally, now), refused: self.refusal(tally, now) }
    }

    /// Why one would not be granted now; cheaper than [`Rates::look`].
    #[must_use]
    pub fn refusal(&self, tally: &Tally, now: Duration) -> Option<Refused> {
        let now = micros(now);
        self.iter()
            .filter_map(|rate| wait(rate, tally, now).map(|wait| (rate, wait)))
            .max_by_key(|(_, wait)| *wait)
            .map(|(rate, wait)| Refused { rate, retry_after: Duration::from_micros(wait) })
    }

    /// Counts one, whatever is left: of what was granted elsewhere, or after [`Rates::refusal`] said nothing under the same lock.
    pub fn add(&self, tally: &mut Tally, now: Duration) {
        let now = micros(now);
        tally.prune(now);
        for rate in self.iter() {
            match rate.burst() {
                None => tally.add(rate.unit(), now),
                Some(_) => tally.pour(rate.unit(), now, rate.count()),
            }
        }
    }

    #[must_use]
    pub fn remaining(&self, tally: &Tally, now: Duration) -> Vec<Remaining> {
        let now = micros(now);
        self.iter().map(|rate| remaining(rate, tally, now)).collect()
    }
}

/// What a store that counts by the same arithmetic says of one rate, at the same moment. Slots are counted since the store's own beginning of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Taken; of a bucket its level.
    pub used: u64,
    /// In which something is taken that counts still.
    pub oldest: Option<u64>,
    pub newest: Option<u64>,
    /// The one after whose time there is one again; absent where there is now.
    pub release: Option<u64>,
}

impl Facts {
    #[must_use]
    pub fn remaining(self, rate: Rate, now: Duration) -> Remaining {
        let (now, unit) = (micros(now), rate.unit());
        if rate.burst().is_some() {
            return of_bucket(rate, self.used);
        }
        let count = u64::from(rate.count());
        let released = |slot: Option<u64>| slot.map_or(0, |slot| until_over(unit, slot, now));
        let next = if self.used > count { self.release } else { self.oldest };
        of_window(rate, self.used, released(next), released(self.newest))
    }

    /// Until this rate grants one; absent where it does now.
    #[must_use]
    pub fn wait(self, rate: Rate, now: Duration) -> Option<Duration> {
        let wait = match rate.burst() {
            Some(burst) => wait_of_bucket(rate, burst, self.used),
            None => self.release.map(|slot| until_over(rate.unit(), slot, micros(now))),
        };
        wait.map(Duration::from_micros)
    }
}

/// Until what was taken in this slot counts no more.
fn until_over(unit: Unit, slot: u64, now: u64) -> u64 {
    slot.saturating_add(LIFE).saturating_mul(slot_length(unit)).saturating_sub(now)
}

/// Until what was taken `age` slots ago counts no more.
fn until_released(unit: Unit, age: u64, now: u64) -> u64 {
    let length = slot_length(unit);
    LIFE.saturating_sub(age).saturating_mul(length).saturating_sub(now % length)
}

fn used(rate: Rate, tally: &Tally, now: u64) -> u64 {
    tally.taken(rate.unit(), now).map(|(_, taken)| u64::from(taken.count())).sum()
}

/// How long until this rate grants one; `None`: now.
fn wait(rate: Rate, tally: &Tally, now: u64) -> Option<u64> {
    let unit = rate.unit();
    if rate.count() == 0 || rate.limit() == 0 {
        // A share that is nothing: until somebody else can be asked.
        return Some(unit.micros());
    }
    let Some(burst) = rate.burst() else {
        let limit = u64::from(rate.count());
        let mut used = used(rate, tally, now);
        if used < limit {
            return None;
        }
        return tally.taken(unit, now).find_map(|(age, taken)| {
            used = used.saturating_sub(u64::from(taken.count()));
            (used < limit).then(|| until_released(unit, age, now))
        });
    };
    wait_of_bucket(rate, burst, tally.level(unit, now, rate.count()))
}

fn wait_of_bucket(rate: Rate, burst: u32, level: u64) -> Option<u64> {
    let length = rate.unit().micros();
    let over = level.saturating_add(length).saturating_sub(u64::from(burst).saturating_mul(length));
    (over > 0).then(|| over.div_ceil(u64::from(rate.count().max(1))))
}

fn remaining(rate: Rate, tally: &Tally, now: u64) -> Remaining {
    let unit = rate.unit();
    if rate.burst().is_some() {
        return of_bucket(rate, tally.level(unit, now, rate.count()));
    }
    let used = used(rate, tally, now);
    let released = |(age, _)| until_released(unit, age, now);
    let next = match used > u64::from(rate.count()) {
        // More than a limit that was lowered meanwhile.
        true => wait(rate, tally, now),
        false => tally.taken(unit, now).next().map(released),
    };
    let full = tally.taken(unit, now).last().map(released);
    of_window(rate, used, next.unwrap_or(0), full.unwrap_or(0))
}

fn of_window(rate: Rate, used: u64, next: u64, full: u64) -> Remaining {
    told(rate, u64::from(rate.count()).saturating_sub(used), next, full)
}

fn of_bucket(rate: Rate, level: u64) -> Remaining {
    let (length, count) = (rate.unit().micros(), u64::from(rate.count().max(1)));
    let depth = u64::from(rate.limit()).saturating_mul(length);
    let remaining = depth.saturating_sub(level) / length;
    let level_of_one_more = depth.saturating_sub((remaining + 1).saturating_mul(length));
    let next = if level == 0 { 0 } else { level.saturating_sub(level_of_one_more).div_ceil(count) };
    told(rate, remaining, next, level.div_ceil(count))
}

fn told(rate: Rate, remaining: u64, next: u64, full: u64) -> Remaining {
    Remaining {
        rate,
        remaining: u32::try_from(remaining).unwrap_or(u32::MAX),
        next: Duration::from_micros(next),
        full: Duration::from_micros(full),
    }
}
