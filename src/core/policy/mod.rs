//! The rules: compiled once, asked on every request (CONTRACT 4). `core::decision` and `postern policy explain` call in here, and both run
//! the same code (invariant 6). Nothing here may look at anything but the [`Question`].
//!
//! `compile` turns a draft into rules or faults, `limits` knows which limits a request falls under, `roles` works out who holds what, `reach` warns of rules that cannot be reached, `rule` and `matcher` (with `glob`,
//! `pattern`, `query`, `subject` and `when`) answer, `index` picks the candidates, `trace` tells a person about it,
//! `case` asks about made-up requests, `record` about those of the access log, which `reads` says what to write of. A new key of the language is a new `matcher::Clause`.

mod beginning;
mod case;
mod compile;
mod credential;
mod glob;
mod index;
mod limits;
mod matcher;
mod pattern;
mod query;
mod re2;
mod reach;
mod reads;
mod record;
mod roles;
mod rule;
mod subject;
mod trace;
mod when;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use serde::Serialize;

pub use self::{
    case::{Case, Expected, Failure, Imagined, ImaginedCaller},
    limits::{Count, Due, Holder, LimitLine, Source, Stage},
    query::{Operator, QueryDraft},
    reads::{Extent, Reads},
    record::{Parameter, Record, Recorded, Unrecorded},
    roles::{BindingDraft, HeldRole, OrgDraft, RoleDraft},
    trace::{Explanation, Line, OtherReading},
    when::AttributeType,
};
use self::{
    index::Index,
    limits::LimitSet,
    matcher::{Answer, Caller, Reading},
    record::{Headers, Query, strictest, sure},
    roles::Roles,
    rule::Rule,
};
use super::{client_ip::ClientAddress, identity::Identity, quota::Families, target::Target, time::Timestamp};

/// What a rule asks for; the laxer the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Bypass,
    OneFactor,
    TwoFactor,
    Deny,
}

impl Level {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::OneFactor => "one_factor",
            Self::TwoFactor => "two_factor",
            Self::Deny => "deny",
        }
    }
}

/// Everything a rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    pub target: &'q Target,
    pub method: &'q str,
    pub client: ClientAddress,
    /// `None`: nobody is signed in.
    pub caller: Option<&'q Identity>,
    pub now: Timestamp,
    /// What `when` may read of the request's headers; `None`: none.
    pub headers: Option<&'q HeaderMap>,
    /// Name of the route, at the edge.
    pub route: Option<&'q str>,
}

/// What the rules say. In the order of strictness: the strictest reading of a path holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ruling {
    Forward,
    SignIn,
    StepUp,
    Refuse,
}

impl Ruling {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::SignIn => "sign_in",
            Self::StepUp => "step_up",
            Self::Refuse => "refuse",
        }
    }
}

#[derive(Debug, Clone)]
pub struct Decided<'p> {
    pub ruling: Ruling,
    pub level: Level,
    /// `default` where no rule matched.
    pub rule: &'p Arc<str>,
    /// `step_up` only because the sign-in is older than the rule's `max_auth_age`: another one, of the same kind, would do.
    pub is_stale: bool,
    /// What the first rule in `mode: report` would have said that matched above the one that decided.
    pub reported: Option<Reported>,
    /// It refuses since the `when` of the rule could not be worked out.
    pub has_failed: bool,
}

/// A rule that only reports, and what it would have said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    pub rule: Arc<str>,
    pub ruling: Ruling,
}

/// Whether a rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    #[default]
    Enforce,
    /// Decided and recorded, never decides; the rules below go on.
    Report,
}

/// The compiled rules. Built by `config::policy_file`.
#[derive(Debug)]
pub struct RuleSet {
    rules: Vec<Rule>,
    roles: Roles,
    default: Level,
    default_name: Arc<str>,
    index: Index,
    /// Whether any rule looks at path and query in one, by `resources`.
    reads_resource: bool,
    reads: Reads,
    limits: LimitSet,
    limit_headers: Families,
}

impl RuleSet {
    /// The strictest reading of the path holds.
    #[must_use]
    pub fn decide<'p>(&'p self, question: &Question<'_>) -> Decided<'p> {
        let client = question.caller.and_then(|caller| caller.client());
        sure(strictest(question.target.readings(), |path| Ok(self.decide_path(question, path, client))))
    }

    /// The names of all rules in their order, then `default`: the labels of metrics.
    pub fn rule_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rules.iter().map(|rule| &rule.name).chain(std::iter::once(&self.default_name))
    }

    /// Which headers tell of limits.
    #[must_use]
    pub fn limit_headers(&self) -> Families {
        self.limit_headers
    }

    /// The roles that somebody holds now, for an explanation and for `Remote-Roles`.
    #[must_use]
    pub fn roles_of<'p>(
        &'p self,
        identity: &'p Identity,
        client: Option<&'p str>,
        now: Timestamp,
    ) -> Vec<HeldRole<'p>> {
        self.roles.of(Caller { identity, client }, now)
    }

    /// [`RuleSet::roles_of`], separated by commas: `admin,editor,acme/owner`. Names hold neither a comma nor a control character.
    #[must_use]
    pub fn roles_header(&self, identity: &Identity, now: Timestamp) -> String {
        let held: Vec<String> =
            self.roles_of(identity, identity.client(), now).iter().map(ToString::to_string).collect();
        held.join(",")
    }

    fn decide_path(&self, question: &Question<'_>, path: &str, client: Option<&str>) -> Decided<'_> {
        self.with_reading(question, path, client, |reading| {
            sure(self.decide_reading(reading, |rule| Ok(rule.answer(reading))))
        })
    }

    /// `answer` asks one rule. Only a record can lack what a rule looks at.
    fn decide_reading<'p, E>(
        &'p self,
        reading: &Reading<'_>,
        answer: impl Fn(&'p Rule) -> Result<Answer, E>,
    ) -> Result<Decided<'p>, E> {
        let decided = match self.index.candidates(reading.host, reading.path.as_bytes()) {
            Some(candidates) => {
                self.first_match(reading, candidates.filter_map(|rule| self.rules.get(rule as usize)), answer)
            }
            None => self.first_match(reading, self.rules.iter(), answer),
        };
        let (decisive, reported) = decided?;
        Ok(match decisive {
            Some((answer, rule)) => {
                let (ruling, is_stale) = rule.ruling(answer, reading);
                let has_failed = answer == Answer::Unknown && rule.has_failed(reading);
                Decided { ruling, level: rule.level, rule: &rule.name, is_stale, reported, has_failed }
            }
            None => {
                let ruling = rule::ruling(self.default, Answer::Yes, reading.caller);
                let (level, rule) = (self.default, &self.default_name);
                Decided { ruling, level, rule, is_stale: false, reported, has_failed: false }
            }
        })
    }

    /// The rule that decides, and what the first one that only reports would have said.
    fn first_match<'p, E>(
        &self,
        reading: &Reading<'_>,
        candidates: impl Iterator<Item = &'p Rule>,
        answer: impl Fn(&'p Rule) -> Result<Answer, E>,
    ) -> Result<FirstMatch<'p>, E> {
        let mut reported = None;
        for rule in candidates {
            let answer = answer(rule)?;
            if answer == Answer::No {
                continue;
            }
            match rule.mode {
                Mode::Enforce => return Ok((Some((answer, rule)), reported)),
                Mode::Report if reported.is_none() => {
                    let (ruling, _) = rule.ruling(answer, reading);
                    reported = Some(Reported { rule: Arc::clone(&rule.name), ruling });
                }
                Mode::Report => {}
            }
        }
        Ok((None, reported))
    }

    /// Lays path and query side by side where a rule reads both, on the stack where they fit.
    fn with_reading<T>(
        &self,
        question: &Question<'_>,
        path: &str,
        client: Option<&str>,
        ask: impl FnOnce(&Reading<'_>) -> T,
    ) -> T {
        let mut reading = Reading {
            host: question.target.host(),
            path,
            resource: path.as_bytes(),
            query: Query::Raw(question.target.query()),
            method: question.method,
            scheme: question.target.scheme().as_str(),
            headers: Headers::Raw(question.headers),
            route: question.route,
            now: question.now,
            address: question.client,
            caller: question.caller.map(|identity| Caller { identity, client }),
            roles: &self.roles,
            unrecorded: Answer::Unknown,
        };
        let Some(query) = question.target.query().filter(|_| self.reads_resource) else { return ask(&reading) };
        let parts = [path.as_bytes(), b"?", query.as_bytes()];
        let mut stack = [0_u8; 1024];
        let mut free: &mut [u8] = &mut stack;
        let fits = parts.iter().all(|part| match std::mem::take(&mut free).split_at_mut_checked(part.len()) {
            Some((place, rest)) => {
                place.copy_from_slice(part);
                free = rest;
                true
            }
            None => false,
        });
        let unused = free.len();
        if fits && let Some(resource) = stack.get(..stack.len() - unused) {
            reading.resource = resource;
            return ask(&reading);
        }
        let long = parts.concat();
        reading.resource = &long;
        ask(&reading)
    }
}

/// What [`RuleSet::first_match`] found.
type FirstMatch<'p> = (Option<(Answer, &'p Rule)>, Option<Reported>);

/// A rule as written, before it is compiled. `config::policy_file` fills it from YAML, tests by hand.
#[derive(Debug, Clone, Default)]
pub struct RuleDraft {
    pub name: Option<String>,
    pub domain: Vec<String>,
    pub domain_regex: Vec<String>,
    pub policy: Option<Level>,
    pub path: Vec<String>,
    pub resources: Vec<String>,
    pub methods: Vec<String>,
    pub networks: Vec<String>,
    /// OR of ANDs.
    pub subject: Vec<Vec<String>>,
    pub max_auth_age: Option<Duration>,
    pub mode: Mode,
    /// OR of ANDs.
    pub query: Vec<Vec<QueryDraft>>,
    /// An expression in CEL.
    pub when: Option<String>,
}

/// A limit as written.
#[derive(Debug, Clone, Default)]
pub struct LimitDraft {
    pub name: String,
    pub matches: MatchDraft,
    pub bypass: Vec<MatchDraft>,
    pub key: String,
    pub rates: Vec<String>,
    /// By the name of the plan.
    pub plans: Vec<(String, Vec<String>)>,
    pub mode: Mode,
}

/// Which requests, as in a rule; what is empty leaves the choice open.
#[derive(Debug, Clone, Default)]
pub struct MatchDraft {
    pub domain: Vec<String>,
    pub path: Vec<String>,
    pub methods: Vec<String>,
}

/// All policy files together, in file-name order.
#[derive(Debug, Clone, Default)]
pub struct PolicyDraft {
    /// `deny` where absent.
    pub default: Option<Level>,
    pub networks: Vec<(String, Vec<String>)>,
    pub roles: Vec<RoleDraft>,
    pub bindings: Vec<BindingDraft>,
    pub orgs: Vec<OrgDraft>,
    /// Attributes of users that expressions may name.
    pub attributes: Vec<(String, AttributeType)>,
    /// Tokens of a trusted issuer give roles: one that nobody is bound to may be held all the same.
    pub roles_by_claim: bool,
    pub rules: Vec<RuleDraft>,
    pub limits: Vec<LimitDraft>,
    /// All where absent.
    pub limit_headers: Option<Families>,
}

/// Where in a [`PolicyDraft`] a fault lies; `config::policy_file` turns it into file, line and column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Rule index, key, and the entry's index in a list (`subject` and `query`: of the outer list).
    Rule {
        rule: usize,
        key: &'static str,
        entry: Option<usize>,
    },
    /// Index in `networks`, and of the address in it.
    Network {
        network: usize,
        entry: Option<usize>,
    },
    /// Index in `roles`; without a key the role as a whole.
    Role {
        role: usize,
        key: Option<&'static str>,
        entry: Option<usize>,
    },
    Binding {
        binding: usize,
        key: &'static str,
        entry: Option<usize>,
    },
    /// Index in `orgs`, of the team in it, and of a member in either.
    Org {
        org: usize,
        team: Option<usize>,
        entry: Option<usize>,
    },
    /// Index in `limits`.
    Limit {
        limit: usize,
        part: LimitPart,
    },
}

/// Where in a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitPart {
    Name,
    Key,
    Match {
        key: &'static str,
        entry: Option<usize>,
    },
    /// Index in `bypass`; without a key the entry as a whole.
    Bypass {
        bypass: usize,
        key: Option<&'static str>,
        entry: Option<usize>,
    },
    Rates {
        entry: Option<usize>,
    },
    /// Index in `plans`.
    Plan {
        plan: usize,
        entry: Option<usize>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DraftFault {
    pub place: Place,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl RuleSet {
    /// Compiles; the second value holds warnings (a rule that no request can reach, a method that looks misspelt).
    ///
    /// # Errors
    /// Every fault at once.
    pub fn compile(draft: &PolicyDraft) -> Result<(Self, Vec<DraftFault>), Vec<DraftFault>> {
        compile::compile(draft)
    }
}
