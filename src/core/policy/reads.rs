//! What the rules read of a request beyond the facts that every line of the access log holds. The log writes that, and no more of it
//! (THREATS 68). `compile` fills it; it must never answer for a rule.

use std::{
    collections::{BTreeMap, HashMap},
    iter,
};

use super::{credential::names_credential, index::HostKey, matcher::Clause};

/// How much of a parameter some rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// Whether it is there.
    Presence,
    Value,
}

type Keys = BTreeMap<Box<str>, Extent>;

#[derive(Debug, Default)]
pub struct Reads {
    /// Parameters of the query.
    query: ByHost,
    /// Names in lower case.
    headers: ByHost,
}

/// By host, so that a line about one application does not hold what only a rule of another one reads.
#[derive(Debug, Default)]
struct ByHost {
    any: Keys,
    exact: HashMap<Box<str>, Keys>,
    below: HashMap<Box<str>, Keys>,
}

impl Reads {
    /// Adds what a rule reads that stands under these hosts.
    pub(super) fn add(&mut self, clauses: &[Clause], hosts: &[HostKey]) {
        for clause in clauses {
            clause.parameters().for_each(|(key, extent)| self.query.add(key, extent, hosts));
            clause.headers().for_each(|(name, extent)| self.headers.add(name, extent, hosts));
        }
    }

    /// The parameters that rules of this host ask about, each once.
    pub fn query<'r>(&'r self, host: &'r str) -> impl Iterator<Item = (&'r str, Extent)> {
        self.query.keys(host)
    }

    /// The headers that rules of this host ask about, each once.
    pub fn headers<'r>(&'r self, host: &'r str) -> impl Iterator<Item = (&'r str, Extent)> {
        self.headers.keys(host)
    }
}

impl ByHost {
    fn add(&mut self, key: &str, extent: Extent, hosts: &[HostKey]) {
        let extent = if names_credential(key) { Extent::Presence } else { extent };
        for host in hosts {
            let keys = match host {
                HostKey::Any => &mut self.any,
                HostKey::Exact(name) => self.exact.entry(name.clone()).or_default(),
                HostKey::Below(suffix) => self.below.entry(suffix.clone()).or_default(),
            };
            let widest = keys.entry(Box::from(key)).or_insert(extent);
            *widest = extent.max(*widest);
        }
    }

    fn keys<'r>(&'r self, host: &'r str) -> impl Iterator<Item = (&'r str, Extent)> {
        self.of(host).enumerate().flat_map(move |(place, keys)| {
            keys.keys().filter_map(move |key| {
                let is_told = self.of(host).take(place).any(|earlier| earlier.contains_key(key));
                let widest = self.of(host).filter_map(|keys| keys.get(key)).max().copied();
                widest.filter(|_| !is_told).map(|extent| (&**key, extent))
            })
        })
    }

    fn of<'r>(&'r self, host: &'r str) -> impl Iterator<Item = &'r Keys> {
        let parents = iter::successors(Some(host), |rest| rest.split_once('.').map(|(_, parent)| parent)).skip(1);
        iter::once(&self.any).chain(self.exact.get(host)).chain(parents.filter_map(|parent| self.below.get(parent)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::policy::{Level, PolicyDraft, QueryDraft, RuleDraft, RuleSet};

    fn rule(domain: &str, query: &[(&str, Option<&str>)]) -> RuleDraft {
        let condition = |(key, value): &(&str, Option<&str>)| QueryDraft {
            key: (*key).to_owned(),
            operator: None,
            value: value.map(str::to_owned),
        };
        RuleDraft {
            domain: vec![domain.to_owned()],
            policy: Some(Level::OneFactor),
            query: vec![query.iter().map(condition).collect()],
            ..RuleDraft::default()
        }
    }

    #[test]
    fn of_each_host_what_its_own_rules_read() {
        let rules = vec![
            rule("a.test", &[("x", None), ("y", Some("1"))]),
            rule("*.test", &[("x", Some("1"))]),
            rule("b.test", &[("z", None), ("Access-Token", Some("1"))]),
        ];
        let (rules, _) = RuleSet::compile(&PolicyDraft { rules, ..PolicyDraft::default() }).unwrap();
        let read = |host| rules.reads().query(host).collect::<Vec<_>>();
        assert_eq!(read("a.test"), [("x", Extent::Value), ("y", Extent::Value)]);
        assert_eq!(read("b.test"), [("Access-Token", Extent::Presence), ("z", Extent::Presence), ("x", Extent::Value)]);
        assert_eq!(read("d.c.test"), [("x", Extent::Value)]);
        assert_eq!(read("test"), []);
        assert_eq!(rules.reads().headers("a.test").next(), None);
    }

    #[test]
    fn what_an_expression_reads_is_read_by_the_rule() {
        let when = r#"has(request.query.x) && request.query.y == "1" && request.headers["X-Plan"] == "gold" && "x-token" in request.headers"#;
        let rules = vec![
            RuleDraft { when: Some(when.to_owned()), ..rule("a.test", &[]) },
            RuleDraft { when: Some("has(request.headers.accept)".to_owned()), ..rule("*.test", &[]) },
        ];
        let rules = rules.into_iter().map(|rule| RuleDraft { query: Vec::new(), ..rule }).collect();
        let (rules, _) = RuleSet::compile(&PolicyDraft { rules, ..PolicyDraft::default() }).unwrap();
        let query: Vec<_> = rules.reads().query("a.test").collect();
        assert_eq!(query, [("x", Extent::Presence), ("y", Extent::Value)]);
        let headers: Vec<_> = rules.reads().headers("a.test").collect();
        assert_eq!(headers, [("x-plan", Extent::Value), ("x-token", Extent::Presence), ("accept", Extent::Presence)]);
        assert_eq!(rules.reads().headers("b.test").collect::<Vec<_>>(), [("accept", Extent::Presence)]);
    }
}
