//! One rule of `access_control.rules`: read key by key, and written as one rule, or two.

use super::{
    super::{
        ledger::{Ledger, kind_of},
        spot::{Spot, is_templated},
    },
    Entries, WrittenRule,
    domain::{ANY, CUT, Domains, Near},
    level,
    network::Networks,
    pattern,
    probe::{deny, probe, probe_with},
    query, subject,
};
use crate::core::policy::{Level, QueryDraft, RuleDraft};

const KEYS: &[&str] = &["domain", "domain_regex", "policy", "subject", "networks", "resources", "methods", "query"];

pub(super) struct Reading<'n> {
    spot: &'n Spot<'n>,
    /// As Authelia counts them.
    number: usize,
    networks: &'n Networks,
    /// What a finding says of an entry that is lost.
    closes: String,
    /// A part that nobody knows: there is no rule that means the same.
    unusable: bool,
}

/// All keys but the policy, read.
struct Read {
    domains: Domains,
    subject: Entries<Vec<String>>,
    networks: Entries<String>,
    resources: Entries<String>,
    methods: Entries<String>,
    query: Entries<Vec<QueryDraft>>,
}

impl<'n> Reading<'n> {
    pub(super) fn new(spot: &'n Spot<'n>, number: usize, networks: &'n Networks) -> Self {
        let closes = format!(
            "whatever it could have matched is denied by the rule \"authelia {number} closed\" until you mend it"
        );
        Self { spot, number, networks, closes, unusable: false }
    }

    pub(super) fn rules(mut self, ledger: &mut Ledger) -> Vec<WrittenRule> {
        let level = self.level(ledger);
        for (name, spot) in self.spot.named().filter(|(name, _)| !KEYS.contains(name)) {
            self.unusable = true;
            ledger.find(
                &spot,
                format!("{name:?} is no key of a rule, and what it was to narrow nobody knows: the whole rule denies"),
            );
        }
        let read = self.read(level, ledger);
        let mut rules = Vec::new();
        rules.extend(self.same(&read, level, ledger));
        let is_whole = !rules.is_empty();
        rules.extend(self.closed(&read, is_whole));
        rules
    }

    fn level(&self, ledger: &mut Ledger) -> Level {
        let spot = self.spot.get("policy");
        match spot.as_ref().and_then(Spot::text).and_then(level) {
            Some(level) => {
                if let Some(spot) = &spot {
                    ledger.carry(spot);
                }
                level
            }
            None => {
                let at = spot.as_ref().unwrap_or(self.spot);
                ledger.find(
                    at,
                    "the rule has none of the policies bypass, one_factor, two_factor and deny; `deny` was written",
                );
                Level::Deny
            }
        }
    }

    fn read(&mut self, level: Level, ledger: &mut Ledger) -> Read {
        let mut domains = Domains::default();
        if let Some(spot) = self.filled("domain", ledger) {
            domains.read(&spot, &self.closes, ledger);
        }
        if let Some(spot) = self.filled("domain_regex", ledger) {
            domains.read_regexes(&spot, level == Level::Deny, &self.closes, ledger);
        }
        if domains.is_empty() && !domains.is_lost() {
            let message = format!("the rule names no domain, with which Authelia would not start; {}", self.closes);
            ledger.find(self.spot, message);
            domains.near.push(Near::Regex(ANY.to_owned()));
        }
        Read {
            domains,
            subject: self
                .filled("subject", ledger)
                .map(|spot| subject::subjects(&spot, &self.closes, ledger))
                .unwrap_or_default(),
            networks: self
                .filled("networks", ledger)
                .map(|spot| self.networks.of_rule(&spot, &self.closes, ledger))
                .unwrap_or_default(),
            resources: self.filled("resources", ledger).map(|spot| self.resources(&spot, ledger)).unwrap_or_default(),
            methods: self.filled("methods", ledger).map(|spot| self.methods(&spot, ledger)).unwrap_or_default(),
            query: self
                .filled("query", ledger)
                .map(|spot| query::conditions(&spot, &self.closes, ledger))
                .unwrap_or_default(),
        }
    }

    /// A key that narrows the rule: without an entry it does not, to Authelia.
    fn filled(&self, key: &str, ledger: &mut Ledger) -> Option<Spot<'n>> {
        let spot = self.spot.get(key)?;
        let is_empty = spot.is_null() || (spot.is_list() && spot.items().is_empty()) || spot.text() == Some("");
        if is_empty {
            ledger.find(&spot, "is empty, which to Authelia is the same as not there; it was left out");
        }
        (!is_empty).then_some(spot)
    }

    fn resources(&self, spot: &Spot<'_>, ledger: &mut Ledger) -> Entries<String> {
        let mut entries = Entries::default();
        for item in spot.items() {
            let regex = match item.text() {
                None => Err(format!("is {}, not a regex", kind_of(&item))),
                Some(text) if !spot.is_list() && text.contains(',') => Err(CUT.to_owned()),
                Some(text) => pattern::resource(text),
            };
            match regex {
                Ok(anchored) => {
                    if anchored.is_changed {
                        let message = format!(
                            "Authelia looks for it anywhere in path and query; `{}` does the same: begin it with ^ if \
                                 that was not meant",
                            anchored.regex
                        );
                        ledger.find(&item, message);
                    }
                    ledger.carry(&item);
                    entries.good.push(anchored.regex);
                }
                Err(message) => {
                    ledger.find(&item, format!("{message}; {}", self.closes));
                    entries.lost = true;
                }
            }
        }
        entries
    }

    fn methods(&self, spot: &Spot<'_>, ledger: &mut Ledger) -> Entries<String> {
        let mut entries = Entries::default();
        for (item, text) in spot.texts() {
            let method = text.ok_or_else(|| format!("is {}, not a method", kind_of(&item))).and_then(|text| {
                if is_templated(text) {
                    return Err("a template or the environment may fill this in".to_owned());
                }
                let method = text.to_ascii_uppercase();
                probe(RuleDraft { methods: vec![method.clone()], ..deny() }).map(|_| method)
            });
            match method {
                Ok(method) => {
                    ledger.carry(&item);
                    entries.good.push(method);
                }
                Err(message) => {
                    ledger.find(&item, format!("{message}; {}", self.closes));
                    entries.lost = true;
                }
            }
        }
        entries
    }

    /// The rule with all that could be carried over of it.
    fn same(&mut self, read: &Read, level: Level, ledger: &mut Ledger) -> Option<WrittenRule> {
        let nothing_left = read.domains.is_empty()
            || nothing_left(&read.subject)
            || nothing_left(&read.networks)
            || nothing_left(&read.resources)
            || nothing_left(&read.methods)
            || nothing_left(&read.query);
        if self.unusable || nothing_left {
            return None;
        }
        let mut draft = RuleDraft {
            name: Some(format!("authelia {}", self.number)),
            policy: Some(level),
            subject: read.subject.good.clone(),
            networks: read.networks.good.clone(),
            resources: read.resources.good.clone(),
            methods: read.methods.good.clone(),
            query: read.query.good.clone(),
            ..RuleDraft::default()
        };
        read.domains.write_to(&mut draft);
        let networks = self.networks.drafts();
        if level == Level::Bypass && probe_with(draft.clone(), &networks).is_err() {
            // The only thing that a bypass may not have and others may is a subject.
            draft.policy = Some(Level::OneFactor);
            let at = self.spot.get("policy");
            ledger.find(
                at.as_ref().unwrap_or(self.spot),
                "a bypass that names a subject lets in whoever has not signed in; Postern has no such rule, and \
                     `one_factor` was written",
            );
        }
        match probe_with(draft.clone(), &networks) {
            Ok(_) => Some(WrittenRule { line: self.spot.line(), is_closed: false, draft }),
            Err(message) => {
                self.unusable = true;
                ledger.find(self.spot, format!("{message}; {}", self.closes));
                None
            }
        }
    }

    /// A deny for all that a lost entry could have matched: with every key of which nothing is lost.
    fn closed(&self, read: &Read, is_whole: bool) -> Option<WrittenRule> {
        let others_lost = self.unusable
            || read.subject.lost
            || read.networks.lost
            || read.resources.lost
            || read.methods.lost
            || read.query.lost;
        if is_whole && !others_lost && !read.domains.is_lost() {
            return None;
        }
        let mut draft = RuleDraft {
            name: Some(format!("authelia {} closed", self.number)),
            policy: Some(Level::Deny),
            subject: kept(&read.subject),
            networks: kept(&read.networks),
            resources: kept(&read.resources),
            methods: kept(&read.methods),
            query: kept(&read.query),
            ..RuleDraft::default()
        };
        if others_lost {
            read.domains.write_to(&mut draft);
        }
        read.domains.write_near_to(&mut draft);
        if probe_with(draft.clone(), &self.networks.drafts()).is_err() {
            // Whatever the compiler did not like, it takes this.
            draft = RuleDraft {
                name: draft.name,
                policy: draft.policy,
                domain_regex: vec![ANY.to_owned()],
                ..RuleDraft::default()
            };
        }
        Some(WrittenRule { line: self.spot.line(), is_closed: true, draft })
    }
}

fn nothing_left<T>(entries: &Entries<T>) -> bool {
    entries.lost && entries.good.is_empty()
}

fn kept<T: Clone>(entries: &Entries<T>) -> Vec<T> {
    if entries.lost { Vec::new() } else { entries.good.clone() }
}
