//! `rate_limit_requests_total{limit,status}` and `rate_limit_exceeded_total{limit}`: who is limited by what. Counted by `gate::limit`.

use std::collections::HashSet;

use prometheus::{Error, IntCounter, IntCounterVec, Registry};

use super::metrics::{Seen, counters};

/// The status that counts as exceeded.
const LIMITED: &str = "limited";

#[derive(Debug)]
pub struct LimitMetrics {
    requests: IntCounterVec,
    exceeded: IntCounterVec,
    /// Both: the second where it counts as exceeded.
    seen: Seen<&'static str, (IntCounter, Option<IntCounter>)>,
}

impl LimitMetrics {
    pub(super) fn new(registry: &Registry) -> Result<Self, Error> {
        Ok(Self {
            requests: counters(
                registry,
                "rate_limit_requests_total",
                "Requests that fell under a limit, by what it said.",
                &["limit", "status"],
            )?,
            exceeded: counters(registry, "rate_limit_exceeded_total", "Requests that a limit made wait.", &["limit"])?,
            seen: Seen::default(),
        })
    }

    /// `limit`: a name of the configuration. Status: `allowed`, `limited`, `reported` (a limit that only reports would have said so), `failed` (its key could not
    /// be worked out), `unavailable`.
    pub fn counted(&self, limit: &str, status: &'static str) {
        let child = || {
            let exceeded = (status == LIMITED).then(|| self.exceeded.with_label_values(&[limit]));
            (self.requests.with_label_values(&[limit, status]), exceeded)
        };
        self.seen.with(status, limit, child, |(requests, exceeded)| {
            requests.inc();
            exceeded.iter().for_each(IntCounter::inc);
        });
    }

    /// Forgets the series of all others: after a reload, so that names do not heap up.
    pub fn keep<'n>(&self, names: impl Iterator<Item = &'n str>) {
        let names: HashSet<&str> = names.collect();
        for (status, limit) in self.seen.forget(|limit| !names.contains(limit)) {
            // Not there any more: as wanted.
            let _ = self.requests.remove_label_values(&[&limit, status]);
            let _ = self.exceeded.remove_label_values(&[&limit]);
        }
    }
}
