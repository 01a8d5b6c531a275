//! Which limits a request falls under, and whose count it adds to (CONTRACT 8). `compile::limits` builds them, `gate::limit` asks. What they count, and
//! whether there is something left, is `core::limit`'s arithmetic and the counters' to say.
//!
//! Nothing here may take somebody out of a count for want of a fact: what cannot be worked out counts, and a key that cannot be is told as such.

mod held;
mod key;
#[cfg(test)]
mod tests;
mod told;

use std::{net::IpAddr, sync::Arc};

use super::{
    Mode, Question, RuleSet,
    index::Index,
    matcher::{Answer, Clause, Reading},
};
use crate::core::{ground::Ground, identity::Identity, quota::Quota, user::plan_of};

pub use self::{held::Count, key::Holder, told::LimitLine};
pub(super) use key::{BadKey, Key};

/// When a limit is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Before anybody was asked for: by address alone.
    Arrival,
    /// Once the rules let the request pass.
    Forward,
}

/// What a limit may look at beside what rules do.
#[derive(Debug, Clone, Copy)]
pub struct Source<'s> {
    pub peer: IpAddr,
    pub ground: &'s Ground,
}

/// A limit that a request falls under.
#[derive(Debug, Clone)]
pub struct Due {
    pub quota: Arc<Quota>,
    /// Whose count it is; `None`: it cannot be worked out.
    pub key: Option<[u8; 16]>,
    /// `mode: report`: it never refuses.
    pub reports_only: bool,
}

/// All limits, by the moment at which they are counted.
#[derive(Debug, Default)]
pub(super) struct LimitSet {
    pub(super) arrival: Staged,
    pub(super) forward: Staged,
}

#[derive(Debug, Default)]
pub(super) struct Staged {
    pub(super) limits: Vec<Limit>,
    pub(super) index: Index,
}

#[derive(Debug)]
pub(super) struct Limit {
    pub(super) name: Arc<str>,
    pub(super) mode: Mode,
    pub(super) key: Key,
    /// All must hold; none: every request.
    pub(super) matches: Vec<Clause>,
    /// Of the entries any, of the clauses in one all.
    pub(super) bypass: Vec<Vec<Clause>>,
    pub(super) quota: Arc<Quota>,
    pub(super) plans: Vec<(Box<str>, Arc<Quota>)>,
}

impl RuleSet {
    /// The limits that the request falls under, in the order of the files. A caller is looked at for [`Stage::Forward`] alone.
    #[must_use]
    pub fn limits_due(&self, stage: Stage, question: &Question<'_>, source: Source<'_>) -> Vec<Due> {
        let staged = match stage {
            Stage::Arrival => &self.limits.arrival,
            Stage::Forward => &self.limits.forward,
        };
        if staged.limits.is_empty() {
            return Vec::new();
        }
        let client = question.caller.and_then(|caller| caller.client());
        let mut found: Vec<usize> = Vec::new();
        let mut due = Vec::new();
        for path in question.target.readings() {
            self.with_reading(question, path, client, |reading| {
                staged.each(reading, |place, limit| {
                    // A path with several readings is counted once, if any of them is limited.
                    if !found.contains(&place) && limit.applies(reading) {
                        found.push(place);
                        due.extend(limit.due(reading, source));
                    }
                });
            });
        }
        due
    }

    /// The names of all limits: labels of metrics.
    pub fn limit_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.limits.arrival.limits.iter().chain(&self.limits.forward.limits).map(|limit| &limit.name)
    }
}

impl Staged {
    fn each<'l>(&'l self, reading: &Reading<'_>, mut ask: impl FnMut(usize, &'l Limit)) {
        match self.index.candidates(reading.host, reading.path.as_bytes()) {
            Some(candidates) => {
                for place in candidates.map(|place| place as usize) {
                    if let Some(limit) = self.limits.get(place) {
                        ask(place, limit);
                    }
                }
            }
            None => self.limits.iter().enumerate().for_each(|(place, limit)| ask(place, limit)),
        }
    }
}

impl Limit {
    fn applies(&self, reading: &Reading<'_>) -> bool {
        self.matches(reading) && self.bypassed_by(reading).is_none()
    }

    /// What could not be worked out is counted. Of nobody, `{user}.example.com` is nobody's.
    fn matches(&self, reading: &Reading<'_>) -> bool {
        matches!(answer(&self.matches, reading), Answer::Yes | Answer::Unknown)
    }

    /// The entry of `bypass` that takes it out.
    fn bypassed_by(&self, reading: &Reading<'_>) -> Option<&[Clause]> {
        self.bypass.iter().map(Vec::as_slice).find(|clauses| answer(clauses, reading) == Answer::Yes)
    }

    /// `None`: the key is a caller's, and there is none.
    fn due(&self, reading: &Reading<'_>, source: Source<'_>) -> Option<Due> {
        let identity = reading.caller.map(|caller| caller.identity);
        let quota = self.quota_of(identity);
        let key = match self.key.value(quota, reading, source) {
            key::Value::Nobody => return None,
            key::Value::Failed => None,
            key::Value::Of(key) => Some(key),
        };
        Some(Due { quota: Arc::clone(quota), key, reports_only: self.mode == Mode::Report })
    }

    fn quota_of(&self, identity: Option<&Identity>) -> &Arc<Quota> {
        self.quota_by(identity.and_then(|identity| plan_of(&identity.attributes))).1
    }

    /// The rates of a plan with its name, or those of everybody else.
    fn quota_by(&self, plan: Option<&str>) -> (Option<&str>, &Arc<Quota>) {
        let listed = plan.and_then(|plan| self.plans.iter().find(|(name, _)| **name == *plan));
        listed.map_or((None, &self.quota), |(name, quota)| (Some(&**name), quota))
    }
}

fn answer(clauses: &[Clause], reading: &Reading<'_>) -> Answer {
    clauses.iter().map(|clause| clause.answer(reading)).max().unwrap_or(Answer::Yes)
}
