//! The arithmetic of sign-in regulation: how many tries that went wrong a counter lets through, how long the next one waits then, and when it is
//! forgotten. Asked by `store::regulation`, which keeps the counters, and by nobody else. Pure: the caller says what time it is.
//!
//! A counter is a leaky bucket with a delay on top. Each try that was wrong puts one in, and nothing takes one out but time; one leaks away each
//! `find_time / tries`. While it holds fewer than `tries`, nobody waits. From there on each try is followed by a wait, of 5 s at first and twice as long
//! each time, up to `ban_time`; while it lasts nothing leaks. So it is never a lock: whoever waits may try again, and a guesser gets `tries` in each
//! `find_time` at most, however patient.

#[cfg(test)]
mod tests;

use std::{net::IpAddr, time::Duration};

use super::{client_ip::bucket_of, session::TokenHash, time::Timestamp};

/// The first wait; shorter only where `ban_time` is.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// So far beyond its tries a counter counts: the longest wait is reached long before, and more would only be remembered for longer.
const MOST_BEYOND: u32 = 16;

/// What tries are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum By {
    Name,
    Address,
    AddressAndName,
    /// A browser on which this user signed in before.
    Device,
}

impl By {
    /// A label of metrics and a word of the audit log.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Address => "address",
            Self::AddressAndName => "address_and_name",
            Self::Device => "device",
        }
    }
}

/// `regulation:`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// For a name from one address, and for a known device.
    pub max_retries: u32,
    pub per_name: u32,
    pub per_address: u32,
    pub find_time: Duration,
    pub ban_time: Duration,
}

impl Default for Budgets {
    fn default() -> Self {
        Self {
            max_retries: 5,
            per_name: 20,
            per_address: 50,
            find_time: Duration::from_secs(3600),
            ban_time: Duration::from_secs(15 * 60),
        }
    }
}

impl Budgets {
    /// Of refresh tokens that do not hold, by address: nobody guesses one, so that this bounds what a flood of them costs (beyond it a look-up each, of such
    /// as have the form of one). Programs that were signed out keep nobody else from anything: a token that is known is not barred.
    #[must_use]
    pub fn of_tokens(&self) -> Budget {
        Budget { tries: self.per_address.saturating_mul(20).max(1), ..self.of(By::Address) }
    }

    #[must_use]
    pub fn of(&self, by: By) -> Budget {
        let tries = match by {
            By::AddressAndName | By::Device => self.max_retries,
            By::Name => self.per_name,
            By::Address => self.per_address,
        };
        Budget { tries: tries.max(1), find_time: self.find_time, ban_time: self.ban_time }
    }
}

/// What one kind of counter allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// So many may go wrong before anybody waits.
    pub tries: u32,
    /// In which they are all forgotten.
    pub find_time: Duration,
    /// The longest wait.
    pub ban_time: Duration,
}

impl Budget {
    /// In which one is forgotten.
    fn leak(&self) -> Duration {
        (self.find_time / self.tries.max(1)).max(Duration::from_millis(1))
    }

    /// The wait that follows a try which left the counter at `failures`.
    fn wait_after(&self, failures: u32) -> Duration {
        let Some(beyond) = failures.checked_sub(self.tries) else { return Duration::ZERO };
        let doubled = 2_u32.saturating_pow(beyond.min(MOST_BEYOND));
        FIRST_WAIT.saturating_mul(doubled).min(self.ban_time)
    }
}

/// A counter as it is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// As of `at`: what has leaked since then is in it still.
    pub failures: u32,
    /// From when it leaks, or where there is a wait, when that began.
    pub at: Timestamp,
}

impl Count {
    /// How long the next try has to wait, in whole seconds, so that whoever waits for that long need not wait once more.
    #[must_use]
    pub fn wait(self, budget: &Budget, now: Timestamp) -> Option<Duration> {
        let end = self.seen_at(now).at.after(budget.wait_after(self.failures));
        let left = end.since(now);
        (!left.is_zero())
            .then(|| Duration::from_secs(left.as_secs().saturating_add(u64::from(left.subsec_millis() > 0))))
    }

    /// With a try more that was wrong.
    #[must_use]
    pub fn taken(self, budget: &Budget, now: Timestamp) -> Self {
        let left = self.leaked(budget, now);
        let failures = left.failures.saturating_add(1).min(budget.tries.saturating_add(MOST_BEYOND));
        let at = if failures >= budget.tries { now } else { left.at };
        Self { failures, at }
    }

    /// How many may be looked at at once, of which nobody knows yet what they are: as many as may go wrong; beyond those one, after each wait.
    #[must_use]
    pub fn room(self, budget: &Budget, now: Timestamp) -> u32 {
        budget.tries.saturating_sub(self.leaked(budget, now).failures).max(1)
    }

    /// What a clock that was ahead wrote counts from now on.
    #[must_use]
    pub fn seen_at(self, now: Timestamp) -> Self {
        Self { at: self.at.min(now), ..self }
    }

    /// From when on it says nothing any more.
    #[must_use]
    pub fn forgotten_at(self, budget: &Budget) -> Timestamp {
        self.leaks_from(budget).after(budget.leak().saturating_mul(self.failures))
    }

    fn leaks_from(self, budget: &Budget) -> Timestamp {
        self.at.after(budget.wait_after(self.failures))
    }

    /// With what is forgotten by now taken out. Says nothing of waits: those are over where a try is taken.
    fn leaked(self, budget: &Budget, now: Timestamp) -> Self {
        let from = self.seen_at(now).leaks_from(budget);
        let leak = budget.leak();
        let leaks = u32::try_from(now.since(from).as_millis() / leak.as_millis().max(1)).unwrap_or(u32::MAX);
        match self.failures.checked_sub(leaks) {
            None | Some(0) => Self { failures: 0, at: now },
            Some(failures) => Self { failures, at: from.after(leak.saturating_mul(leaks)) },
        }
    }
}

/// What stands in the store of known devices for an address that brings passwords without cookies (Basic): once a password was right from there, the
/// address is known to that user. No cookie has such a value.
#[must_use]
pub fn place_of(address: IpAddr) -> TokenHash {
    TokenHash::of(&format!("place {}", bucket_of(address)))
}
