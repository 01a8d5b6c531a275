//! Rates as people write them (CONTRACT 8), and as the arithmetic reads them.

use std::{collections::BTreeSet, fmt, str::FromStr, time::Duration};

/// What a rate is counted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Unit {
    Second,
    Minute,
    Hour,
    Day,
}

impl Unit {
    pub const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    #[must_use]
    pub const fn length(self) -> Duration {
        Duration::from_secs(match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3_600,
            Self::Day => 86_400,
        })
    }

    /// As a rate is written: `minute`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    /// What stands behind `X-RateLimit-Limit-`: `Minute`.
    #[must_use]
    pub const fn header_name(self) -> &'static str {
        match self {
            Self::Second => "Second",
            Self::Minute => "Minute",
            Self::Hour => "Hour",
            Self::Day => "Day",
        }
    }

    /// The slot of a window of this length, since the beginning of some clock.
    #[must_use]
    pub fn slot_at(self, now: Duration) -> u64 {
        super::micros(now) / super::slot_length(self)
    }

    /// Its length in microseconds, which everything here is worked out in.
    pub(super) const fn micros(self) -> u64 {
        self.length().as_secs() * 1_000_000
    }

    pub(super) const fn index(self) -> u64 {
        match self {
            Self::Second => 0,
            Self::Minute => 1,
            Self::Hour => 2,
            Self::Day => 3,
        }
    }
}

/// Why a text is no rate: what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RateError(String);

/// The highest count and depth. Below it, every number of the arithmetic is exact as a double too, which is what Redis' scripts count in.
const MOST_COUNT: u32 = 1_000_000_000;
/// Whole numbers up to here are exact as doubles.
const EXACT: u64 = 1 << 53;

/// `N/unit`: never more than N in any stretch of that length; `N/unit burst B`: a token bucket, B deep, filled N times a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    count: u32,
    unit: Unit,
    burst: Option<u32>,
}

impl Rate {
    /// # Errors
    /// A count or a burst of zero, or one too high to count with.
    pub fn new(count: u32, unit: Unit, burst: Option<u32>) -> Result<Self, RateError> {
        let rate = Self { count, unit, burst };
        if count == 0 || burst == Some(0) {
            return Err(RateError(format!("`{rate}` would let nobody pass; write numbers above zero")));
        }
        if count > MOST_COUNT {
            return Err(RateError(format!("`{rate}` is too high to be counted; write at most {MOST_COUNT}")));
        }
        let deepest = u32::try_from(EXACT / unit.micros()).unwrap_or(u32::MAX).min(MOST_COUNT);
        if burst.is_some_and(|burst| burst > deepest) {
            let unit = unit.as_str();
            return Err(RateError(format!(
                "`{rate}` is too deep; a bucket that is filled by the {unit} is at most {deepest} deep"
            )));
        }
        Ok(rate)
    }

    /// N. Zero only of a share ([`Rates::share`]) that is nothing.
    #[must_use]
    pub const fn count(self) -> u32 {
        self.count
    }

    #[must_use]
    pub const fn unit(self) -> Unit {
        self.unit
    }

    #[must_use]
    pub const fn burst(self) -> Option<u32> {
        self.burst
    }

    /// The most that can be had at once: B, or N of a window.
    #[must_use]
    pub const fn limit(self) -> u32 {
        match self.burst {
            Some(burst) => burst,
            None => self.count,
        }
    }

    /// Of `nodes`, the part of the one with this `rank` (from zero). All parts together are the rate.
    const fn share(self, rank: u32, nodes: u32) -> Self {
        let burst = match self.burst {
            Some(burst) => Some(part(burst, rank, nodes)),
            None => None,
        };
        Self { count: part(self.count, rank, nodes), unit: self.unit, burst }
    }
}

const fn part(whole: u32, rank: u32, nodes: u32) -> u32 {
    match (whole.checked_div(nodes), whole.checked_rem(nodes)) {
        (Some(each), Some(rest)) if rank < rest => each + 1,
        (Some(each), _) => each,
        (None, _) => whole,
    }
}

impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Self, RateError> {
        let fault = || RateError(format!("`{text}` is no rate; write for example `50/minute` or `10/second burst 20`"));
        let words: Vec<&str> = text.split_whitespace().collect();
        let (rate, burst) = match words.as_slice() {
            [rate] => (*rate, None),
            [rate, "burst", burst] => (*rate, Some(number(burst).ok_or_else(fault)?)),
            _ => return Err(fault()),
        };
        let (count, unit) = rate.split_once('/').ok_or_else(fault)?;
        let Some(known) = Unit::ALL.into_iter().find(|known| known.as_str() == unit) else {
            return Err(RateError(format!(
                "`{text}` has an unknown unit; a rate is by the `second`, `minute`, `hour` or `day`"
            )));
        };
        Self::new(number(count).ok_or_else(fault)?, known, burst)
    }
}

/// Digits alone: `+5` is no count.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.unit.as_str())?;
        self.burst.map_or(Ok(()), |burst| write!(f, " burst {burst}"))
    }
}

/// The rates of one limit, which all hold at once, as they were written. At least one; no two of the same kind and unit, of which one would never decide.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rates(Box<[Rate]>);

impl Rates {
    /// # Errors
    /// None, or two of one kind.
    pub fn new(rates: Vec<Rate>) -> Result<Self, RateError> {
        if rates.is_empty() {
            return Err(RateError("a limit without a rate limits nothing; write for example `[50/minute]`".to_owned()));
        }
        let mut kinds = BTreeSet::new();
        for rate in &rates {
            if !kinds.insert((rate.unit, rate.burst.is_some())) {
                let kind = if rate.burst.is_some() { "bucket" } else { "window" };
                return Err(RateError(format!(
                    "`{rate}` is a second {kind} by the {}; keep the stricter one",
                    rate.unit.as_str()
                )));
            }
        }
        Ok(Self(rates.into_boxed_slice()))
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Rate> + Clone {
        self.0.iter().copied()
    }

    /// What the one of `nodes` with this `rank` (from zero) may grant where they cannot count together. All parts together are the rates: where a count is
    /// smaller than the number of nodes, the first ones have one each, and the others nothing.
    #[must_use]
    pub fn share(&self, rank: u32, nodes: u32) -> Self {
        Self(self.0.iter().map(|rate| rate.share(rank, nodes)).collect())
    }
}
