//! The counts of one holder, for `postern limit show`: the same keys and rates that a request of theirs would be counted by.

use std::{borrow::Cow, sync::Arc};

use super::{Holder, Limit};
use crate::core::{
    policy::{Mode, RuleSet},
    quota::Quota,
};

/// What one limit counts somebody by.
#[derive(Debug)]
pub struct Count<'r> {
    /// With the limit's name, and the rates of the plan.
    pub quota: &'r Arc<Quota>,
    /// By what the limit counts, as it stands in the file.
    pub counts_by: Cow<'r, str>,
    /// Whose count it is.
    pub key: [u8; 16],
    /// Whose rates they are; `None`: of everybody who is on none of [`Count::plans`].
    pub plan: Option<&'r str>,
    pub plans: Vec<&'r str>,
    /// `mode: report`: it never refuses.
    pub reports_only: bool,
}

impl RuleSet {
    /// Of every limit by whose key there may be a request of this holder's, in the order of the files, those by address first. `plan`: which the holder is on.
    #[must_use]
    pub fn counts_of<'r>(&'r self, holder: Holder<'_>, plan: Option<&str>) -> Vec<Count<'r>> {
        let all = self.limits.arrival.limits.iter().chain(&self.limits.forward.limits);
        all.filter(|limit| limit.key.fits(holder)).map(|limit| limit.count_of(holder, plan)).collect()
    }

    /// Every limit, and by what it counts.
    pub fn limit_keys(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        let all = self.limits.arrival.limits.iter().chain(&self.limits.forward.limits);
        all.map(|limit| (&*limit.name, limit.key.written()))
    }
}

impl Limit {
    fn count_of(&self, holder: Holder<'_>, plan: Option<&str>) -> Count<'_> {
        let (plan, quota) = self.quota_by(plan);
        Count {
            quota,
            counts_by: self.key.written(),
            key: holder.key(quota),
            plan,
            plans: self.plans.iter().map(|(name, _)| &**name).collect(),
            reports_only: self.mode == Mode::Report,
        }
    }
}
