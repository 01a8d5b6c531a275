//! The limits of a draft, or every fault in them. What a request is held against is compiled as in a rule.

use std::{collections::HashSet, sync::Arc};

use super::{
    super::{
        LimitDraft, LimitPart, MatchDraft,
        index::IndexBuilder,
        limits::{BadKey, Key, Limit, LimitSet, Staged},
    },
    Clause, Compiler, DraftFault, HostKey, Keys, Place, PolicyDraft, RuleDraft,
};
use crate::core::{
    limit::{Rate, Rates},
    quota::Quota,
};

/// Characters of a name: it stands in headers and is a label of metrics.
const LONGEST_NAME: usize = 64;
/// More rates would say no more, and each of them is told in a header.
const MOST_RATES: usize = 8;

#[derive(Default)]
struct Building {
    limits: Vec<Limit>,
    index: IndexBuilder,
}

impl Building {
    fn add(&mut self, limit: Limit, keys: Keys) {
        if let Ok(number) = u32::try_from(self.limits.len()) {
            keys.add_to(&mut self.index, number);
            self.limits.push(limit);
        }
    }

    fn build(self) -> Staged {
        Staged { limits: self.limits, index: self.index.build() }
    }
}

impl Compiler<'_> {
    pub(super) fn limits(&mut self, draft: &PolicyDraft) -> LimitSet {
        let (mut arrival, mut forward) = (Building::default(), Building::default());
        let mut names = HashSet::with_capacity(draft.limits.len());
        for (place, written) in draft.limits.iter().enumerate() {
            self.limit_name(place, written, &mut names);
            if let Some((limit, keys)) = self.limit(place, written) {
                let stage = if limit.key.is_of_arrival() { &mut arrival } else { &mut forward };
                stage.add(limit, keys);
            }
        }
        LimitSet { arrival: arrival.build(), forward: forward.build() }
    }

    fn limit_fault(&mut self, limit: usize, part: LimitPart, message: impl Into<String>) {
        self.faults.push(DraftFault { place: Place::Limit { limit, part }, message: message.into() });
    }

    fn limit_name<'l>(&mut self, place: usize, written: &'l LimitDraft, names: &mut HashSet<&'l str>) {
        let name = written.name.as_str();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b" ._-/".contains(&byte);
        if name.is_empty() || name.len() > LONGEST_NAME || name.trim() != name || !name.bytes().all(is_plain) {
            let message = format!(
                "{name:?} cannot be the name of a limit, which is told in headers and metrics: write up to {LONGEST_NAME} letters, digits, \
                 spaces and . _ - /, such as chat"
            );
            self.limit_fault(place, LimitPart::Name, message);
        } else if !names.insert(name) {
            let message = format!("another limit is called {name:?} already: choose another name");
            self.limit_fault(place, LimitPart::Name, message);
        }
    }

    fn limit(&mut self, place: usize, written: &LimitDraft) -> Option<(Limit, Keys)> {
        let name: Arc<str> = Arc::from(written.name.as_str());
        let key = match Key::parse(&written.key, &self.attributes, &self.roles) {
            Ok(key) => Some(key),
            Err(BadKey(messages)) => {
                for message in messages {
                    self.limit_fault(place, LimitPart::Key, message);
                }
                None
            }
        };
        let quota = self.quota(place, &name, None, &written.rates, |entry| LimitPart::Rates { entry });
        let mut plans = Vec::with_capacity(written.plans.len());
        for (plan, (called, rates)) in written.plans.iter().enumerate() {
            let quota = self.quota(place, &name, Some(called), rates, |entry| LimitPart::Plan { plan, entry });
            plans.extend(quota.map(|quota| (Box::from(called.as_str()), quota)));
        }
        let (matches, mut keys) = self.matched(place, &written.matches, |key, entry| LimitPart::Match { key, entry });
        let bypass: Vec<Vec<Clause>> = (written.bypass.iter().enumerate())
            .map(|(bypass, entry)| {
                let (clauses, _) =
                    self.matched(place, entry, |key, entry| LimitPart::Bypass { bypass, key: Some(key), entry });
                if entry.domain.is_empty() && entry.path.is_empty() && entry.methods.is_empty() {
                    let message = "nothing would be counted: write a domain, a path or methods, or take the entry out";
                    self.limit_fault(place, LimitPart::Bypass { bypass, key: None, entry: None }, message);
                }
                clauses
            })
            .collect();
        let key = key?;
        if key.is_of_arrival() {
            self.refuse_callers(place, written, &matches, &bypass);
        }
        if keys.hosts.is_empty() {
            keys.hosts.push(HostKey::Any);
        }
        Some((Limit { name, mode: written.mode, key, matches, bypass, quota: quota?, plans }, keys))
    }

    /// By address, requests are counted before anybody knows who asks.
    fn refuse_callers(&mut self, place: usize, written: &LimitDraft, matches: &[Clause], bypass: &[Vec<Clause>]) {
        if !written.plans.is_empty() {
            let message = "the key `ip` is counted before anybody knows who asks, so there are no plans: write user_or_ip, or take the plans out";
            self.limit_fault(place, LimitPart::Plan { plan: 0, entry: None }, message);
        }
        let message = "the key `ip` is counted before anybody knows who asks, so {user} and {group} are nobody's: write user_or_ip, or the hosts";
        if matches.iter().any(Clause::names_subject) {
            self.limit_fault(place, LimitPart::Match { key: "domain", entry: None }, message);
        }
        for (bypass, clauses) in bypass.iter().enumerate() {
            if clauses.iter().any(Clause::names_subject) {
                self.limit_fault(place, LimitPart::Bypass { bypass, key: Some("domain"), entry: None }, message);
            }
        }
    }

    fn quota(
        &mut self,
        limit: usize,
        name: &Arc<str>,
        plan: Option<&str>,
        written: &[String],
        part: impl Fn(Option<usize>) -> LimitPart,
    ) -> Option<Arc<Quota>> {
        if plan.is_some_and(|plan| plan.is_empty() || plan.trim() != plan) {
            self.limit_fault(
                limit,
                part(None),
                "a plan without a name is nobody's: write the value of the attribute `plan`",
            );
        }
        if written.is_empty() || written.len() > MOST_RATES {
            let message = format!("write one to {MOST_RATES} rates, such as 50/minute or 10/second burst 20");
            self.limit_fault(limit, part(None), message);
            return None;
        }
        let mut rates: Vec<Rate> = Vec::with_capacity(written.len());
        let mut sound = None;
        for (entry, text) in written.iter().enumerate() {
            // Each with those before it, so that a second one of a kind is told at its place.
            let read = text.parse::<Rate>().and_then(|rate| {
                rates.push(rate);
                Rates::new(rates.clone()).inspect_err(|_| rates.truncate(rates.len().saturating_sub(1)))
            });
            match read {
                Ok(all) => sound = Some(all),
                Err(error) => self.limit_fault(limit, part(Some(entry)), error.to_string()),
            }
        }
        sound.map(|rates| Arc::new(Quota::new(Arc::clone(name), rates)))
    }

    /// As in a rule, but that anything may be left out.
    fn matched(
        &mut self,
        limit: usize,
        written: &MatchDraft,
        part: impl Fn(&'static str, Option<usize>) -> LimitPart,
    ) -> (Vec<Clause>, Keys) {
        let MatchDraft { domain, path, methods } = written.clone();
        let written = RuleDraft { domain, path, methods, ..RuleDraft::default() };
        let (faults, warnings) = (self.faults.len(), self.warnings.len());
        let mut keys = Keys::default();
        let mut clauses = Vec::new();
        if !written.domain.is_empty() {
            clauses.push(Clause::Domain(self.domains(limit, &written, &mut keys.hosts)));
        }
        if !written.methods.is_empty() {
            clauses.push(Clause::Methods(self.methods(limit, &written)));
        }
        if !written.path.is_empty() {
            let globs = self.globs(limit, &written);
            keys.prefixes = globs.iter().map(|glob| glob.literal_prefix().as_bytes().to_vec()).collect();
            clauses.push(Clause::Path(globs));
        }
        let new = self.faults.iter_mut().skip(faults).chain(self.warnings.iter_mut().skip(warnings));
        for DraftFault { place, .. } in new {
            if let Place::Rule { key, entry, .. } = *place {
                *place = Place::Limit { limit, part: part(key, entry) };
            }
        }
        (clauses, keys)
    }
}
