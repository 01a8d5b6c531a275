//! What was written down of a decision, and the same decision under other rules, for `postern policy replay`. It asks the very rules
//! that the live path asks (invariant 6). What the record lacks is never made up: then the answer is that nobody can say.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc};

use http::HeaderMap;

use super::{
    Decided, Mode, RuleSet, Ruling,
    credential::holds_credential,
    matcher::{Answer, Caller, Reading},
    query,
    reads::{Extent, Reads},
    rule::Rule,
};
use crate::core::{
    client_ip::ClientAddress,
    identity::Identity,
    target::{Scheme, Target},
    time::Timestamp,
    verdict::Credential,
};

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

/// The parameters or the headers that the rules asked about, each with every way to read it: more than one where applications differ,
/// none where it cannot be read.
pub type Recorded = BTreeMap<String, Vec<Parameter>>;

/// The headers of a request, as they came or as far as they were written down.
#[derive(Debug, Clone, Copy)]
pub(super) enum Headers<'q> {
    Raw(Option<&'q HeaderMap>),
    Recorded(&'q Recorded),
}

/// The query of a request, as it came or as far as it was written down; `None`: there was none.
#[derive(Debug, Clone, Copy)]
pub(super) enum Query<'q> {
    Raw(Option<&'q str>),
    Recorded(Option<&'q Recorded>),
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
    pub query: Option<Recorded>,
    pub headers: Recorded,
    pub scheme: Scheme,
    /// Name of the route, at the edge.
    pub route: Option<String>,
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

    /// As [`RuleSet::recorded`], of the headers; `None` where rules of this host read none.
    #[must_use]
    pub fn recorded_headers(&self, host: &str, headers: &HeaderMap) -> Option<Recorded> {
        let mut names = self.reads.headers(host).peekable();
        names.peek()?;
        Some(names.map(|(name, extent)| (name.to_owned(), recorded_header(headers, name, extent))).collect())
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
                scheme: record.scheme.as_str(),
                headers: Headers::Recorded(&record.headers),
                route: record.route.as_deref(),
                now: record.at,
                address: record.client,
                caller: record.caller.as_ref().map(|identity| Caller { identity, client: identity.client() }),
                roles: &self.roles,
                unrecorded: Answer::Unknown,
            };
            self.decide_reading(&reading, |rule| certain(rule, &reading))
        })?;
        match record.credential {
            // The header is not looked at where anybody may pass.
            _ if decided.ruling == Ruling::Forward => Ok(decided),
            Credential::Settled => Ok(decided),
            Credential::Failed => Ok(Decided { ruling: Ruling::SignIn, ..decided }),
            Credential::OutOfScope => Ok(Decided { ruling: Ruling::Refuse, ..decided }),
            Credential::Unread => Err(Unrecorded::Caller),
        }
    }
}

/// Why a header has no value that everybody reads alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unreadable {
    NotUtf8,
    /// One of the fields may be a client's and another one a proxy's, and applications take the first, the last or all joined.
    Repeated,
}

/// The value of a header, `None` where it is not there.
pub(super) fn header_value<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Unreadable> {
    let mut values = headers.get_all(name).iter();
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Unreadable::Repeated);
    }
    std::str::from_utf8(first.as_bytes()).map(Some).map_err(|_| Unreadable::NotUtf8)
}

fn recorded_header(headers: &HeaderMap, name: &str, extent: Extent) -> Vec<Parameter> {
    match header_value(headers, name) {
        Ok(None) => vec![Parameter::Absent],
        Ok(Some(value))
            if extent == Extent::Value && value.len() <= query::LONGEST_RECORDED && !holds_credential(value) =>
        {
            vec![Parameter::Value(value.to_owned())]
        }
        Ok(Some(_)) => vec![Parameter::Present],
        Err(_) if extent == Extent::Presence => vec![Parameter::Present],
        Err(_) => Vec::new(),
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
