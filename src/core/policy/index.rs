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
    /// The first bytes of each entry's prefix, side by side: they tell nearly all apart, and a prefix is elsewhere in memory.
    heads: Vec<u64>,
    entries: Vec<Entry>,
}

/// The first eight bytes as a number that sorts as they do, filled up with zeros. Where two are equal, the rest has to tell.
fn head(text: &[u8]) -> u64 {
    match text.first_chunk() {
        Some(first) => u64::from_be_bytes(*first),
        None => text
            .iter()
            .zip([56, 48, 40, 32, 24, 16, 8])
            .fold(0, |head, (byte, shift)| head | (u64::from(*byte) << shift)),
    }
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
        Self { heads: entries.iter().map(|entry| head(&entry.prefix)).collect(), entries }
    }

    /// How many of the entries stand before the path or are the path, in their order.
    fn up_to(&self, path: &[u8]) -> usize {
        let own = head(path);
        let before = self.heads.partition_point(|head| *head < own);
        let alike = self.heads.get(before..).map_or(0, |rest| rest.partition_point(|head| *head == own));
        let of_one_head = self.entries.get(before..before + alike).unwrap_or_default();
        before + of_one_head.partition_point(|entry| *entry.prefix <= *path)
    }

    fn collect<'i>(&'i self, path: &[u8], found: &mut Candidates<'i>) -> Option<()> {
        let mut next = self.up_to(path).checked_sub(1);
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

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn paths(prefixes: &[Vec<u8>]) -> Paths {
        Paths::new(prefixes.iter().zip(0..).map(|(prefix, rule)| (prefix.as_slice().into(), rule)).collect())
    }

    proptest! {
        /// Long enough that the first eight bytes are often alike, with the zero that they are filled up with.
        #[test]
        fn the_first_bytes_change_nothing_of_the_order(
            prefixes in vec(vec(prop::sample::select(vec![0, b'/', b'a', 255]), 0..11), 0..40),
            path in vec(prop::sample::select(vec![0, b'/', b'a', 255]), 0..12),
        ) {
            let paths = paths(&prefixes);
            prop_assert_eq!(paths.up_to(&path), paths.entries.partition_point(|entry| *entry.prefix <= *path));
        }
    }

    #[test]
    fn beginnings_that_are_alike_for_long_are_told_apart() {
        let all = ["/team-10", "/team-100", "/team-1000", "/team-10\0", "/team-1", "/team-2"]
            .map(|prefix| prefix.as_bytes().to_vec());
        let paths = paths(&all);
        for (path, rules) in
            [("/team-100/x", &[0, 1, 4][..]), ("/team-1", &[4]), ("/team-10\0", &[0, 3, 4]), ("/team", &[])]
        {
            let mut found = Candidates { lists: [&[]; MOST_LISTS], used: 0 };
            paths.collect(path.as_bytes(), &mut found).unwrap();
            assert_eq!(found.collect::<Vec<_>>(), rules, "{path}");
        }
    }
}
