//! From a draft to rules, or to every fault in it at once. Called when policies are loaded, never on a request.

mod domains;
mod limits;
mod networks;

use std::collections::{HashMap, HashSet};
use std::{sync::Arc, thread, time::Duration};

use ipnet::IpNet;

use super::{
    DraftFault, Level, Place, PolicyDraft, RuleDraft, RuleSet,
    glob::Glob,
    index::{HostKey, IndexBuilder},
    matcher::{Clause, Domain},
    pattern::{Anatomy, Pattern},
    query::Condition,
    reach,
    reads::Reads,
    roles::Roles,
    rule::Rule,
    subject::{self, Told},
    when::{Attributes, When},
};
use crate::core::{request::is_method, spelling::nearest};

/// Name of what decides where no rule matches.
const DEFAULT: &str = "default";
/// A rule with more hosts times paths than this goes into the index by its hosts alone.
const MOST_INDEX_ENTRIES: usize = 1024;
/// A sign-in takes longer than that to lead back to the page.
const LEAST_AUTH_AGE: Duration = Duration::from_secs(10);
/// Rules that are compiled without letting others have the processor: a reload goes on beside requests, on one core too.
const AT_ONCE: usize = 64;
const KNOWN_METHODS: [&str; 16] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "PATCH",
    "DELETE",
    "OPTIONS",
    "TRACE",
    "CONNECT",
    "COPY",
    "LOCK",
    "MKCOL",
    "MOVE",
    "PROPFIND",
    "PROPPATCH",
    "UNLOCK",
];

pub(super) fn compile(draft: &PolicyDraft) -> Result<(RuleSet, Vec<DraftFault>), Vec<DraftFault>> {
    let (roles, faults, warnings) = Roles::compile(draft);
    let attributes = draft.attributes.iter().cloned().collect();
    let mut compiler = Compiler { networks: HashMap::new(), roles, attributes, faults, warnings };
    compiler.read_networks(draft);
    let mut names = HashSet::with_capacity(draft.rules.len());
    let mut index = IndexBuilder::for_rules(draft.rules.len());
    let mut reads = Reads::default();
    let mut rules = Vec::with_capacity(draft.rules.len());
    for (place, written) in draft.rules.iter().enumerate() {
        if place.is_multiple_of(AT_ONCE) {
            thread::yield_now();
        }
        let name = compiler.name(place, written, &mut names);
        let (clauses, keys) = compiler.clauses(place, written);
        let Some(level) = compiler.level(place, written, &clauses) else { continue };
        let Ok(number) = u32::try_from(place) else { continue };
        reads.add(&clauses, &keys.hosts);
        keys.add_to(&mut index, number);
        rules.push(Rule { name, level, mode: written.mode, max_auth_age: written.max_auth_age, clauses });
    }
    let limits = compiler.limits(draft);
    if !compiler.faults.is_empty() {
        return Err(compiler.faults);
    }
    let default = draft.default.unwrap_or(Level::Deny);
    compiler.warnings.extend(reach::warnings(&rules, default));
    let reads_resource =
        rules.iter().any(|rule| rule.clauses.iter().any(|clause| matches!(clause, Clause::Resources(_))));
    let rules = RuleSet {
        rules,
        roles: compiler.roles,
        default,
        default_name: Arc::from(DEFAULT),
        index: index.build(),
        reads_resource,
        reads,
        limits,
        limit_headers: draft.limit_headers.unwrap_or_default(),
    };
    Ok((rules, compiler.warnings))
}

/// Under what a rule stands in the index.
#[derive(Debug, Default)]
struct Keys {
    hosts: Vec<HostKey>,
    /// Empty: any path.
    prefixes: Vec<Vec<u8>>,
}

impl Keys {
    fn add_to(self, index: &mut IndexBuilder, rule: u32) {
        let any_path = self.prefixes.is_empty() || self.hosts.len() * self.prefixes.len() > MOST_INDEX_ENTRIES;
        let prefixes = if any_path { vec![Vec::new()] } else { self.prefixes };
        for host in self.hosts {
            index.add(rule, host, prefixes.iter().map(Vec::as_slice));
        }
    }
}

struct Compiler<'d> {
    networks: HashMap<&'d str, Vec<IpNet>>,
    roles: Roles,
    attributes: Attributes,
    faults: Vec<DraftFault>,
    warnings: Vec<DraftFault>,
}

impl<'d> Compiler<'d> {
    fn fault(&mut self, rule: usize, key: &'static str, entry: Option<usize>, message: String) {
        self.faults.push(DraftFault { place: Place::Rule { rule, key, entry }, message });
    }

    fn name(&mut self, place: usize, written: &RuleDraft, names: &mut HashSet<Arc<str>>) -> Arc<str> {
        let name: Arc<str> = match &written.name {
            Some(name) => Arc::from(name.as_str()),
            None => Arc::from(format!("rule {}", place + 1)),
        };
        if name.trim().is_empty() || name.chars().any(char::is_control) {
            let message = "a rule's name is shown in logs and headers: write words, or leave it out".to_owned();
            self.fault(place, "name", None, message);
        } else if &*name == DEFAULT {
            let message = "\"default\" is what logs say where no rule matched: choose another name".to_owned();
            self.fault(place, "name", None, message);
        } else if !names.insert(Arc::clone(&name)) {
            let message = format!("another rule is called {name:?} already: choose another name");
            self.fault(place, "name", None, message);
        }
        name
    }

    fn level(&mut self, place: usize, written: &RuleDraft, clauses: &[Clause]) -> Option<Level> {
        let Some(level) = written.policy else {
            let message = "the rule has no policy: write bypass, one_factor, two_factor or deny".to_owned();
            self.fault(place, "policy", None, message);
            return None;
        };
        if level == Level::Bypass && clauses.iter().any(Clause::names_subject) {
            let message = "bypass lets everybody in without asking who they are, so the rule cannot name a subject \
                           (subject, {user}, {group}, the groups User and Group of a regex, or user and session in when): write one_factor, or take the subject out";
            self.fault(place, "policy", None, message.to_owned());
        }
        let asks_nobody = matches!(level, Level::Bypass | Level::Deny);
        let message = match written.max_auth_age {
            Some(_) if asks_nobody => {
                "the rule asks nobody to sign in, so a sign-in cannot be too old: take max_auth_age out, or write one_factor"
            }
            Some(most) if most.is_zero() => "no sign-in is that fresh: write for example 15m",
            Some(most) if most < LEAST_AUTH_AGE => {
                let message =
                    "hardly a sign-in is that fresh, so people would be asked without end: write for example 15m"
                        .to_owned();
                let place = Place::Rule { rule: place, key: "max_auth_age", entry: None };
                self.warnings.push(DraftFault { place, message });
                return Some(level);
            }
            _ => return Some(level),
        };
        self.fault(place, "max_auth_age", None, message.to_owned());
        Some(level)
    }

    fn clauses(&mut self, place: usize, written: &RuleDraft) -> (Vec<Clause>, Keys) {
        let mut keys = Keys::default();
        let mut clauses = vec![Clause::Domain(self.domains(place, written, &mut keys.hosts))];
        if !written.methods.is_empty() {
            clauses.push(Clause::Methods(self.methods(place, written)));
        }
        if !written.path.is_empty() {
            let globs = self.globs(place, written);
            keys.prefixes = globs.iter().map(|glob| glob.literal_prefix().as_bytes().to_vec()).collect();
            clauses.push(Clause::Path(globs));
        }
        if !written.networks.is_empty() {
            let networks = self.networks(place, written);
            clauses.push(Clause::Networks { written: written.networks.clone(), networks });
        }
        if !written.query.is_empty() {
            clauses.push(Clause::Query(self.query(place, written)));
        }
        if !written.resources.is_empty() {
            let (patterns, prefixes) = self.resources(place, written);
            if written.path.is_empty() {
                keys.prefixes = prefixes;
            }
            clauses.push(Clause::Resources(patterns));
        }
        if !written.subject.is_empty() {
            clauses.push(Clause::Subject(self.subjects(place, written)));
        }
        if let Some(expression) = &written.when {
            match When::parse(expression, &self.attributes, &self.roles) {
                Ok(when) => clauses.push(Clause::When(Box::new(when))),
                Err(faults) => {
                    for message in faults {
                        self.fault(place, "when", None, message);
                    }
                }
            }
        }
        (clauses, keys)
    }

    fn methods(&mut self, place: usize, written: &RuleDraft) -> Vec<Box<str>> {
        let mut methods = Vec::with_capacity(written.methods.len());
        for (entry, method) in written.methods.iter().enumerate() {
            let upper = method.to_ascii_uppercase();
            if !is_method(&upper) {
                let message =
                    format!("{method:?} is not a method: write one such as GET; for any method leave the key out");
                self.fault(place, "methods", Some(entry), message);
                continue;
            }
            if !KNOWN_METHODS.contains(&upper.as_str())
                && let Some(near) = nearest(&upper, KNOWN_METHODS.into_iter())
            {
                let place = Place::Rule { rule: place, key: "methods", entry: Some(entry) };
                self.warnings.push(DraftFault {
                    place,
                    message: format!("{method:?} is no usual method: did you mean {near}?"),
                });
            }
            methods.push(upper.into_boxed_str());
        }
        methods
    }

    fn globs(&mut self, place: usize, written: &RuleDraft) -> Vec<Glob> {
        let mut globs = Vec::with_capacity(written.path.len());
        for (entry, path) in written.path.iter().enumerate() {
            match Glob::parse(path) {
                Ok(glob) => globs.push(glob),
                Err(message) => self.fault(place, "path", Some(entry), message),
            }
        }
        globs
    }

    /// The second value: what every path that matches begins with; empty where nothing is known.
    fn resources(&mut self, place: usize, written: &RuleDraft) -> (Vec<Pattern>, Vec<Vec<u8>>) {
        let mut patterns = Vec::with_capacity(written.resources.len());
        let mut prefixes = Vec::new();
        let mut known = true;
        for (entry, regex) in written.resources.iter().enumerate() {
            match Pattern::parse(regex) {
                Ok((_, anatomy)) if !anatomy.anchored_at_start => {
                    let message = format!(
                        "the regex {regex:?} is not anchored, so it would match in the middle of any path: begin it with ^, \
                         and every alternative of it (^(a|b) or ^a|^b)"
                    );
                    self.fault(place, "resources", Some(entry), message);
                }
                Ok((pattern, anatomy)) => {
                    known &= !anatomy.prefixes.is_empty();
                    // The index knows paths alone, so what may be query is cut off.
                    prefixes.extend(anatomy.prefixes.into_iter().map(|mut prefix| {
                        let path = prefix.iter().position(|byte| *byte == b'?').unwrap_or(prefix.len());
                        prefix.truncate(path);
                        prefix
                    }));
                    patterns.push(pattern);
                }
                Err(message) => self.fault(place, "resources", Some(entry), message),
            }
        }
        if !known {
            prefixes.clear();
        }
        (patterns, prefixes)
    }

    fn query(&mut self, place: usize, written: &RuleDraft) -> Vec<Vec<Condition>> {
        let mut alternatives = Vec::with_capacity(written.query.len());
        for (entry, all) in written.query.iter().enumerate() {
            if all.is_empty() {
                let message = "an empty list of conditions would hold for everything: write at least one".to_owned();
                self.fault(place, "query", Some(entry), message);
            }
            let mut conditions = Vec::with_capacity(all.len());
            for condition in all {
                match Condition::parse(condition) {
                    Ok(condition) => {
                        if let Some(message) = condition.warning() {
                            let place = Place::Rule { rule: place, key: "query", entry: Some(entry) };
                            self.warnings.push(DraftFault { place, message });
                        }
                        conditions.push(condition);
                    }
                    Err(message) => self.fault(place, "query", Some(entry), message),
                }
            }
            alternatives.push(conditions);
        }
        alternatives
    }

    fn subjects(&mut self, rule: usize, written: &RuleDraft) -> Vec<subject::All> {
        let mut alternatives = Vec::with_capacity(written.subject.len());
        for (entry, all) in written.subject.iter().enumerate() {
            let place = Place::Rule { rule, key: "subject", entry: Some(entry) };
            if all.is_empty() {
                let message =
                    "an empty list of subjects would be everybody: write at least one, such as group:admins".to_owned();
                self.faults.push(DraftFault { place, message });
            }
            let Self { roles, faults, warnings, .. } = self;
            alternatives.push(subject::All::parse(all, roles, |told| match told {
                Told::Fault(message) => faults.push(DraftFault { place, message }),
                Told::Warning(message) => warnings.push(DraftFault { place, message }),
            }));
        }
        alternatives
    }
}
