//! The rates of one limit for one plan, and how a request stands with those that it falls under: what the gate counts by and what answers tell.
//! `policy::limits` says which they are; `headers` writes the fields of CONTRACT 8.

mod headers;
#[cfg(test)]
mod tests;

use std::{fmt::Write as _, sync::Arc, time::Duration};

use http::HeaderValue;
use sha2::{Digest as _, Sha256};

use super::{
    limit::{Allowance, Rate, Rates},
    time::Timestamp,
};

pub use headers::Families;

#[derive(Debug)]
pub struct Quota {
    /// Name of the limit.
    pub limit: Arc<str>,
    pub rates: Rates,
    /// What the items of the headers are called, each within its quotation marks: `"chat-minute"`.
    items: Vec<Box<str>>,
    /// `RateLimit-Policy`.
    policy: HeaderValue,
    salt: [u8; 32],
}

impl Quota {
    /// `limit`: printable ASCII without `"` and `\`, as the rules have it.
    #[must_use]
    pub fn new(limit: Arc<str>, rates: Rates) -> Self {
        let items: Vec<Box<str>> = rates.iter().map(|rate| item(&limit, rate, &rates)).collect();
        let mut policy = String::new();
        for (rate, item) in rates.iter().zip(&items) {
            let separator = if policy.is_empty() { "" } else { ", " };
            let _ = write!(policy, "{separator}{item};q={};w={}", rate.limit(), window(rate));
        }
        let policy = HeaderValue::from_str(&policy).unwrap_or_else(|_| HeaderValue::from_static(""));
        let salt = Sha256::new().chain_update("postern limit\0").chain_update(&*limit).finalize().into();
        Self { limit, rates, items, policy, salt }
    }

    /// What a key is counted under: the same for all plans of a limit, so that another plan goes on with what was taken, and another one for each
    /// limit, kind and text.
    #[must_use]
    pub fn key<'p>(&self, kind: &str, parts: impl IntoIterator<Item = &'p [u8]>) -> [u8; 16] {
        let mut digest = Sha256::new().chain_update(self.salt).chain_update(kind).chain_update([0]);
        for part in parts {
            // Its length first: "ab", "c" is not "a", "bc".
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        let digest: [u8; 32] = digest.finalize().into();
        let mut key = [0; 16];
        for (to, from) in key.iter_mut().zip(digest) {
            *to = from;
        }
        key
    }
}

/// A limit has at most one window and one bucket by each unit.
fn item(limit: &str, rate: Rate, all: &Rates) -> Box<str> {
    let unit = rate.unit();
    let has_window = all.iter().any(|other| other.unit() == unit && other.burst().is_none());
    let behind = if rate.burst().is_some() && has_window { "-burst" } else { "" };
    format!("\"{limit}-{}{behind}\"", unit.as_str()).into_boxed_str()
}

/// In seconds. A bucket's is the time in which it fills: as much as it is deep, at the pace that it is filled with.
fn window(rate: Rate) -> u64 {
    let length = rate.unit().length().as_secs();
    match rate.burst() {
        None => length,
        Some(depth) => (u64::from(depth) * length).div_ceil(u64::from(rate.count().max(1))).max(1),
    }
}

/// How one request stands with the limits that it falls under.
#[derive(Debug)]
pub struct Standing {
    /// When it was counted.
    pub at: Timestamp,
    /// Without those that only report.
    counted: Vec<(Arc<Quota>, Allowance)>,
    refusal: Option<Refusal>,
    /// A limit whose key could not be worked out.
    failed: Option<Arc<str>>,
    reported: Option<Arc<str>>,
}

/// Why a request has to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Name of the limit.
    pub limit: Arc<str>,
    /// The one of its rates that stands in the way longest.
    pub rate: Rate,
    /// Until all limits would let it pass, if nobody else comes.
    pub retry_after: Duration,
}

impl Standing {
    #[must_use]
    pub fn new(at: Timestamp) -> Self {
        Self { at, counted: Vec::new(), refusal: None, failed: None, reported: None }
    }

    pub fn add(&mut self, quota: Arc<Quota>, allowance: Allowance) {
        self.counted.push((quota, allowance));
    }

    pub fn refuse(&mut self, refusal: Refusal) {
        self.refusal = Some(refusal);
    }

    /// Nobody can say whose count it is.
    pub fn fail(&mut self, limit: &Arc<str>) {
        self.failed.get_or_insert_with(|| Arc::clone(limit));
    }

    /// A limit in `mode: report` that would have refused; the first is told.
    pub fn report(&mut self, limit: &Arc<str>) {
        self.reported.get_or_insert_with(|| Arc::clone(limit));
    }

    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        self.refusal.as_ref()
    }

    /// Which limit keeps the request from going on.
    #[must_use]
    pub fn stopped_by(&self) -> Option<&str> {
        self.refusal.as_ref().map(|refusal| &*refusal.limit).or(self.failed.as_deref())
    }

    /// Which limit in `mode: report` would have refused.
    #[must_use]
    pub fn reported(&self) -> Option<&str> {
        self.reported.as_deref()
    }
}

/// Whole seconds, never too early and never none.
#[must_use]
pub fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}
