//! What replaying came to, in counts. However long the log and whatever it holds, they take some megabytes and no more.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use super::line::{Asked, Recorded, Sample, Skip};
use crate::core::policy::{Ruling, Unrecorded};

/// Kinds of change, and reasons, that are told apart.
const MOST_GROUPS: usize = 1_000;
const MOST_USERS: usize = 10_000;
/// Of each kind.
const MOST_SAMPLES: usize = 3;
/// Characters of a name or a path that are kept.
const LONGEST_NAME: usize = 200;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) lines: u64,
    pub(super) unchanged: u64,
    /// Of those unchanged.
    pub(super) by_another_rule: u64,
    pub(super) changed: Changed,
    pub(super) unknown: u64,
    pub(super) skipped: BTreeMap<Skip, u64>,
    pub(super) changes: Groups<Change>,
    pub(super) users: Capped<Option<String>, Changed>,
    pub(super) unknowns: Groups<Why>,
}

/// How many of each kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Changed {
    pub(super) opens: u64,
    pub(super) closes: u64,
    pub(super) other: u64,
}

impl Changed {
    pub(super) fn all(self) -> u64 {
        self.opens + self.closes + self.other
    }

    fn count(&mut self, effect: Effect) {
        match effect {
            Effect::Opens => self.opens += 1,
            Effect::Closes => self.closes += 1,
            Effect::Other => self.other += 1,
        }
    }
}

/// The dangerous kind first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Effect {
    /// Would be let in, and was not.
    Opens,
    Closes,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Change {
    pub(super) then: (Recorded, String),
    pub(super) now: (Recorded, String),
}

impl Change {
    pub(super) fn effect(&self) -> Effect {
        const LET_IN: Recorded = Recorded::Ruling(Ruling::Forward);
        match (self.then.0, self.now.0) {
            (_, LET_IN) => Effect::Opens,
            (LET_IN, _) => Effect::Closes,
            _ => Effect::Other,
        }
    }
}

/// Why nobody can say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Why {
    /// This rule reads something that the log does not hold.
    Rule(String),
    Credential,
    Incomplete,
}

impl Why {
    pub(super) fn of(unrecorded: &Unrecorded<'_>) -> Self {
        match unrecorded {
            Unrecorded::Rule(name) => Self::Rule(cut(name)),
            Unrecorded::Caller => Self::Credential,
        }
    }
}

pub(super) type Groups<K> = Capped<K, Group>;

#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) count: u64,
    /// The first that were seen.
    pub(super) samples: Vec<Sample>,
}

/// Counts by key, for so many keys and no more.
#[derive(Debug)]
pub(super) struct Capped<K, V> {
    pub(super) entries: HashMap<K, V>,
    /// What fell under none of them.
    pub(super) beyond: u64,
}

impl<K, V> Default for Capped<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), beyond: 0 }
    }
}

impl<K: Eq + Hash, V: Default> Capped<K, V> {
    fn entry(&mut self, key: K, most: usize) -> Option<&mut V> {
        if self.entries.len() >= most && !self.entries.contains_key(&key) {
            self.beyond += 1;
            return None;
        }
        Some(self.entries.entry(key).or_default())
    }
}

impl<K: Eq + Hash> Groups<K> {
    fn count(&mut self, key: K, sample: Sample) {
        let Some(group) = self.entry(key, MOST_GROUPS) else { return };
        group.count += 1;
        if group.samples.len() < MOST_SAMPLES {
            let Sample { method, host, path } = sample;
            let sample = Sample { method: cut(&method), host: cut(&host), path: cut(&path) };
            if !group.samples.contains(&sample) {
                group.samples.push(sample);
            }
        }
    }
}

impl Tally {
    pub(super) fn skip(&mut self, why: Skip) {
        self.lines += 1;
        *self.skipped.entry(why).or_default() += 1;
    }

    pub(super) fn unknown(&mut self, why: Why, sample: Sample) {
        self.lines += 1;
        self.unknown += 1;
        self.unknowns.count(why, sample);
    }

    pub(super) fn decided(&mut self, asked: &Asked, verdict: Recorded, rule: &str) {
        self.lines += 1;
        if asked.verdict == verdict {
            self.unchanged += 1;
            self.by_another_rule += u64::from(asked.rule != rule);
            return;
        }
        let change = Change { then: (asked.verdict, cut(&asked.rule)), now: (verdict, cut(rule)) };
        let effect = change.effect();
        self.changed.count(effect);
        if let Some(of_user) = self.users.entry(asked.user().map(cut), MOST_USERS) {
            of_user.count(effect);
        }
        self.changes.count(change, asked.sample());
    }

    /// Lines about which the rules said something.
    pub(super) fn all_decided(&self) -> u64 {
        self.unchanged + self.changed.all()
    }

    pub(super) fn all_skipped(&self) -> u64 {
        self.skipped.values().sum()
    }

    pub(super) fn holds_no_access_line(&self) -> bool {
        let of_requests = [Skip::NoRule, Skip::Unavailable];
        self.all_decided() + self.unknown == 0 && of_requests.iter().all(|skip| !self.skipped.contains_key(skip))
    }
}

fn cut(name: &str) -> String {
    match name.char_indices().nth(LONGEST_NAME) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}
