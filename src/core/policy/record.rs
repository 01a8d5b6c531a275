//! What was written down of a decision, and the same decision under other rules, for `postern policy replay`. It asks the very rules
//! that the live path asks (invariant 6). What the record lacks is never made up: then the answer is that nobody can say.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use super::{
    Decided, Mode, RuleSet, Ruling,
    matcher::{Answer, Caller, Reading},
    query,
    reads::Reads,
    rule::Rule,
};
use crate::core::{client_ip::ClientAddress, identity::Identity, target::Target, time::Timestamp, verdict::Credential};

/// One way to read a parameter, as far as it was written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parameter {
    Absent,
    /// There, and its value was not written down.
    Present,
    Value(String),
}

impl Parameter {
    pub(super) fn value(&self) -> Option<&str> {
        match self {
            Self::Absent => None,
            Self::Present => Some(""),
            Self::Value(value) => Some(value),
        }
    }
}

/// The parameters that the rules asked about, each with every way to read it: more than one where applications differ, none where
/// it cannot be read.
pub type RecordedQuery = BTreeMap<String, Vec<Parameter>>;

/// The query of a request, as it came or as far as it was written down; `None`: there was none.
#[derive(Debug, Clone, Copy)]
pub(super) enum Query<'q> {
    Raw(Option<&'q str>),
    Recorded(Option<&'q RecordedQuery>),
}

/// A request that was decided, as the access log tells it.
#[derive(Debug)]
pub struct Record {
    pub method: String,
    /// Canonical, as is every path.
    pub host: String,
    pub path: String,
    /// The other readings of the path, where there are any.
    pub other_paths: Vec<String>,
    pub query: Option<RecordedQuery>,
    pub client: ClientAddress,
    /// `None`: nobody was signed in.
    pub caller: Option<Identity>,
    pub credential: Credential,
    /// When it was decided.
    pub at: Timestamp,
}

/// Why nobody can say what the rules would have decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unrecorded<'p> {
    /// This rule reads something that was not written down.
    Rule(&'p Arc<str>),
    /// A credential came along that was not looked at then, and would be now.
    Caller,
}

impl RuleSet {
    /// What the rules read of a request that not every line of the access log holds anyhow.
    #[must_use]
    pub fn reads(&self) -> &Reads {
        &self.reads
    }

    /// What is to be written down of the query of `target`: the parameters that rules of its host ask about. Nothing without a query.
    pub fn recorded<'r>(&'r self, target: &'r Target) -> impl Iterator<Item = (&'r str, Vec<Parameter>)> {
        target.query().into_iter().flat_map(move |query| {
            self.reads.query(target.host()).map(move |(key, extent)| (key, query::recorded(query, key, extent)))
        })
    }

    /// Decides as [`RuleSet::decide`] did.
    ///
    /// # Errors
    /// It depends on what was not written down.
    pub fn replay(&self, record: &Record) -> Result<Decided<'_>, Unrecorded<'_>> {
        let paths = std::iter::once(&record.path).chain(&record.other_paths);
        let decided = strictest(paths.map(String::as_str), |path| {
            let reading = Reading {
                host: &record.host,
                path,
                resource: path.as_bytes(),
                query: Query::Recorded(record.query.as_ref()),
                method: &record.method,
                now: record.at,
                address: record.client,
                caller: record.caller.as_ref().map(|identity| Caller { identity, client: None }),
                unrecorded: Answer::Unknown,
            };
            self.decide_reading(&reading, |rule| certain(rule, &reading))
        })?;
        match record.credential {
            // The header is not looked at where anybody may pass.
            _ if decided.ruling == Ruling::Forward => Ok(decided),
            Credential::Settled => Ok(decided),
            Credential::Failed => Ok(Decided { ruling: Ruling::SignIn, ..decided }),
            Credential::Unread => Err(Unrecorded::Caller),
        }
    }
}

/// What the rule answers, whatever it was that the record lacks. The answer of a rule grows with those of its parts, so that all it
/// could be lies between these two.
fn certain<'p>(rule: &'p Rule, reading: &Reading<'_>) -> Result<Answer, Unrecorded<'p>> {
    let least = rule.answer(&Reading { unrecorded: Answer::Yes, ..*reading });
    let greatest = rule.answer(&Reading { unrecorded: Answer::No, ..*reading });
    match rule.mode {
        _ if least == greatest => Ok(least),
        // It decides nothing.
        Mode::Report => Ok(Answer::No),
        Mode::Enforce => Err(Unrecorded::Rule(&rule.name)),
    }
}

/// The first of the strictest over all readings of a path.
pub(super) fn strictest<'p, 'q, E>(
    mut paths: impl Iterator<Item = &'q str>,
    mut decide: impl FnMut(&'q str) -> Result<Decided<'p>, E>,
) -> Result<Decided<'p>, E> {
    let mut strictest = decide(paths.next().unwrap_or("/"))?;
    for path in paths {
        let decided = decide(path)?;
        if decided.ruling > strictest.ruling {
            strictest = decided;
        }
    }
    Ok(strictest)
}

/// What cannot fail.
pub(super) fn sure<T>(result: Result<T, Infallible>) -> T {
    let Ok(value) = result;
    value
}
