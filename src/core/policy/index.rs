//! Which rules could match at all, by host and by the beginning of the path, so that a decision does not grow with rules that
//! cannot. It only ever leaves out rules that surely do not match; `RuleSet` still asks every candidate, in the order of the rules.

use std::collections::HashMap;

/// A rule under one host and one beginning of paths.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum HostKey {
    Exact(Box<str>),
    /// Any name below this one.
    Below(Box<str>),
    Any,
}

/// Rules, each with a beginning of paths, in any order.
type ByPrefix = Vec<(Box<[u8]>, u32)>;

#[derive(Debug, Default)]
pub(super) struct IndexBuilder {
    hosts: HashMap<HostKey, ByPrefix>,
}

impl IndexBuilder {
    pub(super) fn for_rules(rules: usize) -> Self {
        Self { hosts: HashMap::with_capacity(rules) }
    }

    /// The same rule may come under many keys.
    pub(super) fn add<'p>(&mut self, rule: u32, host: HostKey, prefixes: impl IntoIterator<Item = &'p [u8]>) {
        let under_host = self.hosts.entry(host).or_default();
        under_host.extend(prefixes.into_iter().map(|prefix| (Box::from(prefix), rule)));
    }

    pub(super) fn build(self) -> Index {
        let mut index = Index::default();
        for (host, paths) in self.hosts {
            let paths = Paths::new(paths);
            match host {
                HostKey::Exact(name) => {
                    index.exact.insert(name, paths);
                }
                HostKey::Below(suffix) => {
                    index.below.insert(suffix, paths);
                }
                HostKey::Any => index.any = paths,
            }
        }
        index
    }
}

#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Box<str>, Paths>,
    below: HashMap<Box<str>, Paths>,
    any: Paths,
}

impl Index {
    /// `None`: more lists than fit; then every rule is a candidate.
    pub(super) fn candidates(&self, host: &str, path: &[u8]) -> Option<Candidates<'_>> {
        let mut found = Candidates { lists: [&[]; MOST_LISTS], used: 0 };
        self.any.collect(path, &mut found)?;
        if let Some(paths) = self.exact.get(host) {
            paths.collect(path, &mut found)?;
        }
        if !self.below.is_empty() {
            let mut rest = host;
            while let Some((_, parent)) = rest.split_once('.') {
                if let Some(paths) = self.below.get(parent) {
                    paths.collect(path, &mut found)?;
                }
                rest = parent;
            }
        }
        Some(found)
    }
}

/// Sorted beginnings of paths. All beginnings of a given path lie on the line of parents from its predecessor in the order.
#[derive(Debug, Default)]
struct Paths {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    prefix: Box<[u8]>,
    /// The longest other entry that this prefix begins with.
    parent: Option<usize>,
    rules: Box<[u32]>,
}

impl Paths {
    fn new(mut rules: ByPrefix) -> Self {
        rules.sort_unstable();
        rules.dedup();
        let mut entries: Vec<Entry> = Vec::new();
        for of_one_prefix in rules.chunk_by(|(one, _), (next, _)| one == next) {
            let Some((prefix, _)) = of_one_prefix.first() else { continue };
            let mut parent = entries.len().checked_sub(1);
            while let Some(entry) = parent.and_then(|at| entries.get(at)) {
                if prefix.starts_with(&entry.prefix) {
                    break;
                }
                parent = entry.parent;
            }
            let rules = of_one_prefix.iter().map(|(_, rule)| *rule).collect();
            entries.push(Entry { prefix: prefix.clone(), parent, rules });
        }
        entries.shrink_to_fit();
        Self { entries }
    }

    fn collect<'i>(&'i self, path: &[u8], found: &mut Candidates<'i>) -> Option<()> {
        let mut next = self.entries.partition_point(|entry| *entry.prefix <= *path).checked_sub(1);
        while let Some(entry) = next.and_then(|at| self.entries.get(at)) {
            if path.starts_with(&entry.prefix) {
                found.push(&entry.rules)?;
            }
            next = entry.parent;
        }
        Some(())
    }
}

const MOST_LISTS: usize = 32;

/// Sorted lists of rules, merged on the way, on the stack.
#[derive(Debug)]
pub(super) struct Candidates<'i> {
    lists: [&'i [u32]; MOST_LISTS],
    used: usize,
}

impl<'i> Candidates<'i> {
    fn push(&mut self, rules: &'i [u32]) -> Option<()> {
        *self.lists.get_mut(self.used)? = rules;
        self.used += 1;
        Some(())
    }
}

impl Iterator for Candidates<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let next = self.lists.iter().take(self.used).filter_map(|list| list.first()).min().copied()?;
        for list in self.lists.iter_mut().take(self.used) {
            if let Some((first, rest)) = list.split_first()
                && *first == next
            {
                *list = rest;
            }
        }
        Some(next)
    }
}
