//! Limits counted in a Redis that nodes share (`storage.counters`), by the arithmetic of `core::limit`.
//!
//! **One script a request** (`scripts/take.lua`), sent by its hash on the one connection, where requests of the same moment follow each other without waiting. It takes
//! the time from Redis (`TIME`), so that the clocks of the nodes do not matter. A key is a hash: of each window, by its unit in seconds, what was taken in each slot (`60:SLOT`), the
//! sum, the oldest and the newest slot (`60s`, `60o`, `60n`); of each bucket when it was poured into and its level (`60t`, `60l`); of each node the number of what
//! it gave back and of what it told last, since either may be sent twice (`gNODE`, `rNODE`). It lives as long as anything in it counts. Installations
//! that share a Redis and must not count together use different databases of it (`redis://HOST/1`): keys are `postern:limit:HASH`.
//!
//! **In a cluster** the keys of one request lie on different nodes, and they should: one slot for all would be one node for all. So each is asked for alone, one after the other, and where a later one
//! refuses, what the earlier ones took is given back. For that moment they seem to have taken one more: stricter, never open. Most requests have one limit.
//!
//! **Leases** ([`lease`]): where a key is asked for often and its limit is far away, the script reserves some more, which the next requests spend without asking.
//!
//! **Away** ([`away`]): a request waits for [`MOST_WAIT`] at most; the first that fails says so, and from then on until Redis answers again nobody asks it.

mod away;
mod lease;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;

use self::{
    away::Away,
    lease::{HOLD, Lease, Leases},
};
use super::MemoryCounters;
use crate::{
    config::{OnFailure, RedisUrl},
    core::limit::{Allowance, Facts, Rate, Rates, Refused},
    observe::metrics::Metrics,
    ports::{Ask, Clock, CounterKey, Counters, Entropy, RefusedBy, Taken, Unavailable},
    store::redis::{Call, Redis, Script},
};

/// The name in metrics and in `/readyz`.
const STORE: &str = "counters";
/// How long a request waits for Redis.
const MOST_WAIT: Duration = Duration::from_millis(500);
/// Of an answer: what stands before the keys, and what there is of each rate.
const HEAD: usize = 2;
const OF_A_RATE: usize = 5;

pub(in crate::store) struct RedisCounters {
    redis: Redis,
    take: Script,
    give: Script,
    /// Of what was given back or told last.
    number: AtomicU64,
    leases: Leases,
    away: Away,
    clock: Arc<dyn Clock>,
}

fn name_of(key: CounterKey) -> String {
    use std::fmt::Write as _;
    key.0.iter().fold("postern:limit:".to_owned(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// What the script is run for, as it reads it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Look,
    Take,
    /// A lease alone.
    Reserve,
}

impl Mode {
    const fn operation(self) -> &'static str {
        match self {
            Self::Look => "look",
            Self::Take => "take",
            Self::Reserve => "reserve",
        }
    }

    const fn argument(self) -> &'static str {
        match self {
            Self::Look => "0",
            Self::Take => "1",
            Self::Reserve => "2",
        }
    }
}

/// What Redis said of one ask.
struct Answer {
    /// By Redis' clock.
    now: Duration,
    leased: u32,
    allowance: Allowance,
}

/// Of some asks, which were taken together or not at all.
struct Answers {
    is_granted: bool,
    of_asks: Vec<Answer>,
}

/// `None`: it is not what the script answers.
fn read(numbers: &[i64], asks: &[&Ask<'_>]) -> Option<Answers> {
    let now = Duration::from_micros(u64::try_from(*numbers.first()?).ok()?);
    let is_granted = *numbers.get(1)? == 0;
    let mut rest = numbers.get(HEAD..)?;
    let mut of_asks = Vec::with_capacity(asks.len());
    for ask in asks {
        let (leased, facts) = rest.split_first()?;
        let (facts, behind) = facts.split_at_checked(ask.rates.iter().len() * OF_A_RATE)?;
        rest = behind;
        let told: Vec<(Rate, Facts, bool)> = ask
            .rates
            .iter()
            .zip(facts.chunks_exact(OF_A_RATE))
            .filter_map(|(rate, told)| read_rate(rate, told))
            .collect();
        let refused = told
            .iter()
            .filter(|(.., refuses)| *refuses)
            .map(|(rate, facts, _)| Refused { rate: *rate, retry_after: facts.wait(*rate, now).unwrap_or_default() })
            .max_by_key(|refused| refused.retry_after);
        let rates = told.iter().map(|(rate, facts, _)| facts.remaining(*rate, now)).collect();
        of_asks.push(Answer { now, leased: u32::try_from(*leased).ok()?, allowance: Allowance { rates, refused } });
    }
    Some(Answers { is_granted, of_asks })
}

fn read_rate(rate: Rate, told: &[i64]) -> Option<(Rate, Facts, bool)> {
    let &[used, oldest, newest, release, refuses] = told else { return None };
    let slot = |number: i64| u64::try_from(number).ok();
    let facts =
        Facts { used: slot(used).unwrap_or(0), oldest: slot(oldest), newest: slot(newest), release: slot(release) };
    Some((rate, facts, refuses == 1))
}

fn arguments_of(rate: Rate) -> [String; 3] {
    let unit = rate.unit().length().as_secs();
    [unit.to_string(), rate.count().to_string(), rate.burst().unwrap_or(0).to_string()]
}

/// What was taken or reserved at this moment of Redis' clock.
fn given_of_windows(rates: &Rates, count: u32, stamped_at: Duration) -> Vec<String> {
    let windows = rates.iter().filter(|rate| rate.burst().is_none());
    let given = windows.flat_map(|rate| {
        let [unit, ..] = arguments_of(rate);
        let slot = rate.unit().slot_at(stamped_at).to_string();
        ["w".to_owned(), unit, count.to_string(), slot, "0".to_owned()]
    });
    given.collect()
}

impl RedisCounters {
    /// Asks nothing yet.
    pub(in crate::store) fn at(
        url: &RedisUrl,
        on_failure: OnFailure,
        metrics: &Arc<Metrics>,
        clock: &Arc<dyn Clock>,
        entropy: &Arc<dyn Entropy>,
    ) -> Self {
        Self {
            redis: Redis::at(url, metrics.clone(), clock.clone()),
            take: Script::new(include_str!("scripts/take.lua")),
            give: Script::new(include_str!("scripts/give.lua")),
            number: AtomicU64::new(0),
            leases: Leases::new(clock.clone()),
            away: Away::new(on_failure, MemoryCounters::new(clock.clone(), metrics.clone()), metrics, clock, entropy),
            clock: clock.clone(),
        }
    }

    /// Without passwords.
    pub(in crate::store) fn name(&self) -> &str {
        self.redis.name()
    }

    /// What is left of each, for a command: by Redis alone, since a command has no part of its own that it could go on with.
    pub(in crate::store) async fn look_each(&self, asks: &[Ask<'_>]) -> Result<Vec<Allowance>, Unavailable> {
        let groups: Vec<Vec<&Ask<'_>>> = asks.iter().map(|ask| vec![ask]).collect();
        let answers = self.run_patiently(&groups, Mode::Look).await?;
        Ok(answers.into_iter().flat_map(|answers| answers.of_asks).map(|answer| answer.allowance).collect())
    }

    fn call(&self, asks: &[&Ask<'_>], mode: Mode) -> Call<'_> {
        let mut arguments = vec![mode.argument().to_owned(), HOLD.as_micros().to_string()];
        for ask in asks {
            let want = if mode == Mode::Look { 0 } else { self.leases.want(ask) };
            arguments.extend([want.to_string(), ask.rates.iter().len().to_string()]);
            arguments.extend(ask.rates.iter().flat_map(arguments_of));
        }
        Call { script: &self.take, keys: asks.iter().map(|ask| name_of(ask.key)).collect(), arguments }
    }

    /// One call a group, all of them at once.
    async fn run(&self, groups: &[Vec<&Ask<'_>>], mode: Mode) -> Result<Vec<Answers>, Unavailable> {
        in_time(mode.operation(), self.run_patiently(groups, mode)).await
    }

    /// As long as any operation may take.
    async fn run_patiently(&self, groups: &[Vec<&Ask<'_>>], mode: Mode) -> Result<Vec<Answers>, Unavailable> {
        let calls: Vec<Call<'_>> = groups.iter().map(|asks| self.call(asks, mode)).collect();
        let asked_at = self.clock.monotonic();
        let operation = mode.operation();
        let numbers = self.redis.run_each::<Vec<i64>>(STORE, operation, &calls).await?;
        let strange = || Unavailable { store: STORE, detail: format!("{operation}: an answer that cannot be read") };
        let read: Option<Vec<Answers>> =
            numbers.iter().zip(groups).map(|(numbers, asks)| read(numbers, asks)).collect();
        let answers = read.filter(|answers| answers.len() == groups.len()).ok_or_else(strange)?;
        for (asks, answers) in groups.iter().zip(&answers) {
            for (ask, answer) in asks.iter().zip(&answers.of_asks).filter(|(_, answer)| answer.leased > 0) {
                let told = answer.allowance.rates.clone();
                self.leases.hold(ask, Lease::new(ask.rates, answer.leased, answer.now, asked_at, told));
            }
        }
        Ok(answers)
    }

    /// All of them or none.
    async fn take_all(&self, asks: &[&Ask<'_>]) -> Result<Answers, Unavailable> {
        if !self.redis.is_cluster() || asks.len() < 2 {
            let mut answers = self.run(&[asks.to_vec()], Mode::Take).await?;
            return answers.pop().ok_or_else(|| Unavailable { store: STORE, detail: "take: no answer".to_owned() });
        }
        let mut of_asks: Vec<Answer> = Vec::with_capacity(asks.len());
        for (place, ask) in asks.iter().enumerate() {
            let of_this = self.run(&[vec![*ask]], Mode::Take).await?.pop();
            let Some(of_this) = of_this else { break };
            of_asks.extend(of_this.of_asks);
            if of_this.is_granted {
                continue;
            }
            let before = asks.iter().zip(&mut of_asks).take(place);
            let given: Vec<Call<'_>> = before.map(|(ask, answer)| self.untaken(ask, answer)).collect();
            let _: Vec<i64> = self.redis.run_each(STORE, "give", &given).await?;
            // What those behind would say is not known; they have taken nothing.
            let rest: Vec<Vec<&Ask<'_>>> = asks.iter().skip(place + 1).map(|ask| vec![*ask]).collect();
            of_asks.extend(self.run(&rest, Mode::Look).await?.into_iter().flat_map(|answers| answers.of_asks));
            return Ok(Answers { is_granted: false, of_asks });
        }
        Ok(Answers { is_granted: true, of_asks })
    }

    fn untaken(&self, ask: &Ask<'_>, answer: &mut Answer) -> Call<'_> {
        for left in &mut answer.allowance.rates {
            left.remaining = left.remaining.saturating_add(1).min(left.rate.limit());
        }
        let mut given = given_of_windows(ask.rates, 1, answer.now);
        for rate in ask.rates.iter().filter(|rate| rate.burst().is_some()) {
            let [unit, count, _] = arguments_of(rate);
            given.extend(["b".to_owned(), unit, "1".to_owned(), answer.now.as_micros().to_string(), count]);
        }
        self.giving(ask.key, given)
    }

    /// Given once, however often it is sent.
    fn giving(&self, key: CounterKey, given: Vec<String>) -> Call<'_> {
        let mut arguments = vec![self.away.node().to_owned(), self.next_number().to_string()];
        arguments.extend(given);
        Call { script: &self.give, keys: vec![name_of(key)], arguments }
    }

    fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    async fn ask_redis(&self, asks: &[Ask<'_>]) -> Result<Taken, Unavailable> {
        let chosen = |reports_only| asks.iter().filter(move |ask| ask.reports_only == reports_only);
        let enforced: Vec<&Ask<'_>> = chosen(false).collect();
        let reporting: Vec<Vec<&Ask<'_>>> = chosen(true).map(|ask| vec![ask]).collect();
        let of_enforced = async {
            match enforced.is_empty() {
                true => Ok(Answers { is_granted: true, of_asks: Vec::new() }),
                // All of them together: in a cluster one is asked for after the other.
                false => in_time("take", self.take_all(&enforced)).await,
            }
        };
        let (of_enforced, of_reporting) = tokio::join!(of_enforced, self.run(&reporting, Mode::Take));
        let (of_enforced, of_reporting) = (of_enforced?, of_reporting?);
        if of_enforced.is_granted {
            enforced.iter().for_each(|ask| self.away.note(ask));
        }
        let (mut enforced, mut reporting) =
            (of_enforced.of_asks.into_iter(), of_reporting.into_iter().flat_map(|answers| answers.of_asks));
        let allowances: Vec<Allowance> = asks
            .iter()
            .filter_map(|ask| if ask.reports_only { reporting.next() } else { enforced.next() })
            .map(|answer| answer.allowance)
            .collect();
        Ok(Taken { refused: refused_by(asks, &allowances), allowances })
    }

    async fn ask_or_fail_over(&self, asks: &[Ask<'_>]) -> Result<Taken, Unavailable> {
        if !self.away.is_away() {
            match self.ask_redis(asks).await {
                Ok(taken) => return Ok(taken),
                Err(error) => self.away.failed(&error.detail),
            }
        }
        self.away.take(asks)
    }
}

/// No request waits for longer.
async fn in_time<T>(
    operation: &'static str,
    asking: impl Future<Output = Result<T, Unavailable>>,
) -> Result<T, Unavailable> {
    let late = || Unavailable { store: STORE, detail: format!("{operation}: no answer within {MOST_WAIT:?}") };
    tokio::time::timeout(MOST_WAIT, asking).await.map_err(|_| late())?
}

fn refused_by(asks: &[Ask<'_>], allowances: &[Allowance]) -> Option<RefusedBy> {
    let each = asks.iter().zip(allowances).enumerate().filter(|(_, (ask, _))| !ask.reports_only);
    each.filter_map(|(ask, (_, allowance))| {
        allowance.refused.map(|refused| RefusedBy { ask, retry_after: refused.retry_after })
    })
    .max_by_key(|refused| refused.retry_after)
}

#[async_trait]
impl Counters for RedisCounters {
    fn try_take(&self, asks: &[Ask<'_>]) -> Option<Taken> {
        if self.away.is_away() {
            return self.away.take(asks).ok();
        }
        let allowances = self.leases.spend(asks)?;
        asks.iter().filter(|ask| !ask.reports_only).for_each(|ask| self.away.note(ask));
        Some(Taken { allowances, refused: None })
    }

    async fn take(&self, asks: &[Ask<'_>]) -> Result<Taken, Unavailable> {
        self.ask_or_fail_over(asks).await
    }

    async fn look(&self, ask: &Ask<'_>) -> Result<Allowance, Unavailable> {
        if !self.away.is_away() {
            match self.run(&[vec![ask]], Mode::Look).await {
                Ok(mut answers) => {
                    let answer = answers.pop().and_then(|mut answers| answers.of_asks.pop());
                    let strange = || Unavailable { store: STORE, detail: "look: no answer".to_owned() };
                    return answer.map(|answer| answer.allowance).ok_or_else(strange);
                }
                Err(error) => self.away.failed(&error.detail),
            }
        }
        self.away.look(ask)
    }
}
