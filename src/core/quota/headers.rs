//! What is left, for the client: `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers (the text of September 2025, on structured fields of
//! RFC 9651), and `X-RateLimit-*`, which came before it.
//!
//! `t` of the draft is the time until there is more. A client that has some left paces itself by it (§"Resource exhaustion"), so it is told how long until all
//! of it is back, and never a pace that the limit could not bear; one that has none left is told when there is one more.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderName, HeaderValue};

use super::Standing;
use crate::core::limit::{Remaining, Unit};

const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const PLAIN: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit"),
    HeaderName::from_static("x-ratelimit-remaining"),
    HeaderName::from_static("x-ratelimit-reset"),
];

/// Which headers are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families {
    /// `RateLimit-Policy` and `RateLimit`.
    pub draft: bool,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    pub plain: bool,
    /// The same with `-Second`, `-Minute`, `-Hour` and `-Day` behind.
    pub by_window: bool,
}

impl Default for Families {
    fn default() -> Self {
        Self { draft: true, plain: true, by_window: true }
    }
}

impl Standing {
    /// Nothing where no limit counted that may refuse.
    pub fn each_header(&self, families: Families, mut put: impl FnMut(HeaderName, HeaderValue)) {
        if families.draft {
            self.draft(&mut put);
        }
        let plain = |names: &[HeaderName; 3], rate: &Remaining, put: &mut dyn FnMut(HeaderName, HeaderValue)| {
            let [limit, remaining, reset] = names;
            put(limit.clone(), HeaderValue::from(rate.rate.limit()));
            put(remaining.clone(), HeaderValue::from(rate.remaining));
            put(reset.clone(), HeaderValue::from(seconds_up(self.at.after(reset_of(rate)).unix_millis())));
        };
        if families.plain
            && let Some(nearest) = self.nearest(|_| true)
        {
            plain(&PLAIN, nearest, &mut put);
        }
        for unit in Unit::ALL.into_iter().filter(|_| families.by_window) {
            if let Some(nearest) = self.nearest(|rate| rate.rate.unit() == unit) {
                plain(&names_of(unit), nearest, &mut put);
            }
        }
    }

    fn draft(&self, put: &mut impl FnMut(HeaderName, HeaderValue)) {
        let policy = match self.counted.as_slice() {
            [] => return,
            [(quota, _)] => quota.policy.clone(),
            several => {
                let all: Vec<&[u8]> = several.iter().map(|(quota, _)| quota.policy.as_bytes()).collect();
                HeaderValue::from_bytes(&all.join(&b", "[..])).unwrap_or_else(|_| HeaderValue::from_static(""))
            }
        };
        put(POLICY, policy);
        let mut limit = String::with_capacity(64);
        for (quota, allowance) in &self.counted {
            for (item, rate) in quota.items.iter().zip(&allowance.rates) {
                let separator = if limit.is_empty() { "" } else { ", " };
                let _ = write!(limit, "{separator}{item};r={}", rate.remaining);
                // Beside `Retry-After`, a time that lies behind it would only be in the way.
                let reset = reset_of(rate);
                if !reset.is_zero() && (self.refusal.is_none() || rate.remaining == 0) {
                    let _ = write!(limit, ";t={}", super::whole_seconds(reset));
                }
            }
        }
        if let Ok(value) = HeaderValue::try_from(limit) {
            put(LIMIT, value);
        }
    }

    /// The one with the least left; of several the one that is so for longest.
    fn nearest(&self, is_of_interest: impl Fn(&Remaining) -> bool) -> Option<&Remaining> {
        let rates = self.counted.iter().flat_map(|(_, allowance)| &allowance.rates);
        rates
            .filter(|rate| is_of_interest(rate))
            .min_by(|one, other| one.remaining.cmp(&other.remaining).then_with(|| reset_of(other).cmp(&reset_of(one))))
    }
}

fn reset_of(rate: &Remaining) -> Duration {
    if rate.remaining == 0 { rate.next } else { rate.full }
}

/// Seconds since 1970, as GitHub and others have it.
fn seconds_up(millis: i64) -> i64 {
    millis.div_euclid(1000) + i64::from(millis.rem_euclid(1000) > 0)
}

const fn names_of(unit: Unit) -> [HeaderName; 3] {
    let [limit, remaining, reset] = match unit {
        Unit::Second => ["x-ratelimit-limit-second", "x-ratelimit-remaining-second", "x-ratelimit-reset-second"],
        Unit::Minute => ["x-ratelimit-limit-minute", "x-ratelimit-remaining-minute", "x-ratelimit-reset-minute"],
        Unit::Hour => ["x-ratelimit-limit-hour", "x-ratelimit-remaining-hour", "x-ratelimit-reset-hour"],
        Unit::Day => ["x-ratelimit-limit-day", "x-ratelimit-remaining-day", "x-ratelimit-reset-day"],
    };
    [HeaderName::from_static(limit), HeaderName::from_static(remaining), HeaderName::from_static(reset)]
}
