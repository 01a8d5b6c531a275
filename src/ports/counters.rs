use std::time::Duration;

use async_trait::async_trait;

use super::Unavailable;
use crate::core::limit::{Allowance, Rates};

/// What is counted by: a hash of the limit's name and of the key's text, by which nobody outside can make two keys one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CounterKey(pub [u8; 16]);

/// One, by the rates of one limit.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The limit's name, for metrics and the log alone: the key has it in it.
    pub limit: &'a str,
    /// Of the plan, where there is one. Other rates under the same key go on with what was taken by rates of the same unit and kind.
    pub rates: &'a Rates,
    pub key: CounterKey,
    /// `mode: report`: counted on its own, never in the way of the others.
    pub reports_only: bool,
}

/// What came of some asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// In the order of the asks. Of a refused one what it would need itself; where another was refused, one that would have been granted has taken nothing.
    pub allowances: Vec<Allowance>,
    /// Absent: all are granted, but for those that only report.
    pub refused: Option<RefusedBy>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusedBy {
    /// Which ask stands in the way longest.
    pub ask: usize,
    /// Until all would be granted.
    pub retry_after: Duration,
}

/// What limits are counted in. Those asked for together are taken together or not at all; those that only report are taken on their own.
#[async_trait]
pub trait Counters: Send + Sync {
    /// Never waits. `None`: only [`Counters::take`] can tell, and nothing was taken.
    fn try_take(&self, asks: &[Ask<'_>]) -> Option<Taken>;
    /// # Errors
    /// Nobody can count now, and the configuration says that nobody passes then (`storage.counters_on_failure: refuse`).
    async fn take(&self, asks: &[Ask<'_>]) -> Result<Taken, Unavailable>;
    /// What an ask would be told; takes nothing.
    ///
    /// # Errors
    /// As [`Counters::take`].
    async fn look(&self, ask: &Ask<'_>) -> Result<Allowance, Unavailable>;
}
