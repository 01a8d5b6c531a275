//! The clauses of a rule, each a question with one of four answers, and the words for each answer. Only `rule` asks them.
//! A clause answers from the facts at hand alone; it must never turn a missing fact into a `Yes` or a `No`.

use ipnet::IpNet;

use super::{
    glob::Glob,
    pattern::Pattern,
    query::Condition,
    reads::Extent,
    record::{Headers, Query},
    roles::Roles,
    subject,
    when::{Stop, When},
};
use crate::core::{client_ip::ClientAddress, identity::Identity, time::Timestamp};

/// One reading of a request: what the clauses may look at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading<'q> {
    pub(super) host: &'q str,
    pub(super) path: &'q str,
    /// The path, followed by `?` and the raw query where there is one: what `resources` sees.
    pub(super) resource: &'q [u8],
    pub(super) query: Query<'q>,
    pub(super) method: &'q str,
    pub(super) scheme: &'static str,
    pub(super) headers: Headers<'q>,
    /// Name of the route, at the edge.
    pub(super) route: Option<&'q str>,
    pub(super) now: Timestamp,
    pub(super) address: ClientAddress,
    /// `None`: nobody is signed in.
    pub(super) caller: Option<Caller<'q>>,
    pub(super) roles: &'q Roles,
    /// What a clause answers that looks at something which was not written down. On the live path everything is there.
    pub(super) unrecorded: Answer,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'q> {
    pub(super) identity: &'q Identity,
    /// The OAuth client that asks in its own name.
    pub(super) client: Option<&'q str>,
}

impl Caller<'_> {
    fn describe(&self) -> String {
        match self.client {
            Some(client) => format!("client {client}"),
            None if self.identity.groups.is_empty() => format!("user {}, in no group,", self.identity.user),
            None => format!("user {} of {}", self.identity.user, self.identity.groups.join(", ")),
        }
    }
}

/// In such an order that the answer of an AND is the greatest of its parts and that of an OR the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Answer {
    Yes,
    /// Nobody is signed in, and somebody could be for whom it is a yes.
    Anyone,
    /// A fact is missing or could not be worked out: whoever builds on it must refuse.
    Unknown,
    No,
}

impl Answer {
    pub(super) fn of(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

fn any(answers: impl Iterator<Item = Answer>) -> Answer {
    let mut least = Answer::No;
    for answer in answers {
        least = least.min(answer);
        if least == Answer::Yes {
            break;
        }
    }
    least
}

/// One key of a rule. All clauses of a rule must hold; of the entries in one clause, any.
#[derive(Debug)]
pub(super) enum Clause {
    Domain(Vec<Domain>),
    Methods(Vec<Box<str>>),
    Path(Vec<Glob>),
    Networks { written: Vec<String>, networks: Vec<IpNet> },
    Query(Vec<Vec<Condition>>),
    Resources(Vec<Pattern>),
    Subject(Vec<subject::All>),
    When(Box<When>),
}

#[derive(Debug)]
pub(super) enum Domain {
    Exact(Box<str>),
    /// `*.example.com`, kept as `example.com`: any depth below, not the name itself.
    Below(Box<str>),
    /// `{user}.example.com`, kept as `example.com`.
    User(Box<str>),
    Group(Box<str>),
    Regex(Pattern),
}

impl Clause {
    pub(super) fn answer(&self, reading: &Reading<'_>) -> Answer {
        match self {
            Self::Domain(domains) => any(domains.iter().map(|domain| domain.answer(reading))),
            // The request's method is compared as it came: `get` is not `GET` (THREATS 56).
            Self::Methods(methods) => Answer::of(methods.iter().any(|method| **method == *reading.method)),
            Self::Path(globs) => any(globs.iter().map(|glob| match glob.matches(reading.path) {
                Some(matched) => Answer::of(matched),
                None => Answer::Unknown,
            })),
            Self::Networks { networks, .. } => match reading.address.known() {
                Some(address) => Answer::of(networks.iter().any(|network| network.contains(&address))),
                None => Answer::Unknown,
            },
            Self::Query(alternatives) => any(alternatives.iter().map(|all| {
                let answers = all.iter().map(|condition| condition.answer(reading.query, reading.unrecorded));
                answers.max().unwrap_or(Answer::Unknown)
            })),
            Self::Resources(patterns) => match reading.query {
                // There was a query, and nobody wrote it down as it came.
                Query::Recorded(Some(_)) => any(patterns.iter().map(|pattern| {
                    let matches = pattern.is_match_before_query(reading.path);
                    matches.map_or(reading.unrecorded, Answer::of)
                })),
                _ => any(patterns.iter().map(|pattern| named_answer(pattern, reading.resource, reading.caller))),
            },
            Self::When(when) => when.answer(reading),
            Self::Subject(alternatives) => match reading.caller {
                None => Answer::Anyone,
                Some(caller) => Answer::of(alternatives.iter().any(|all| all.are(caller, reading.now))),
            },
        }
    }

    /// The parameters of the query that it asks about.
    pub(super) fn parameters(&self) -> impl Iterator<Item = (&str, Extent)> {
        let (alternatives, when) = match self {
            Self::Query(alternatives) => (alternatives.as_slice(), None),
            Self::When(when) => (&[][..], Some(when.reads())),
            _ => (&[][..], None),
        };
        let conditions = alternatives.iter().flatten().map(|condition| (condition.key(), condition.extent()));
        conditions.chain(when.into_iter().flat_map(|reads| &reads.query).map(|(name, extent)| (&**name, *extent)))
    }

    /// The headers that it reads.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&str, Extent)> {
        let reads = match self {
            Self::When(when) => Some(when.reads()),
            _ => None,
        };
        reads.into_iter().flat_map(|reads| &reads.headers).map(|(name, extent)| (&**name, *extent))
    }

    /// Whether it depends on who asks.
    pub(super) fn names_subject(&self) -> bool {
        match self {
            Self::Subject(_) => true,
            Self::When(when) => when.reads().caller,
            Self::Domain(domains) => domains.iter().any(Domain::names_subject),
            Self::Resources(patterns) => patterns.iter().any(Pattern::names_subject),
            Self::Methods(_) | Self::Path(_) | Self::Networks { .. } | Self::Query(_) => false,
        }
    }

    /// Why [`Clause::answer`] said what it said.
    pub(super) fn reason(&self, reading: &Reading<'_>, answer: Answer) -> String {
        match self {
            Self::Domain(domains) => {
                // Where one of them is the request's, the others are no matter, and other people's hosts perhaps.
                let of_matter =
                    domains.iter().filter(|domain| answer == Answer::No || domain.answer(reading) == answer);
                let written = listed(of_matter.map(Domain::written));
                outcome("host", reading.host, answer, ("is", "is not"), &written)
            }
            Self::Methods(methods) => {
                let written = listed(methods.iter().map(ToString::to_string));
                outcome("method", reading.method, answer, ("is", "is not"), &written)
            }
            Self::Path(globs) => {
                let below = globs.iter().all(Glob::is_below);
                let verbs = if below { ("is below", "is not below") } else { ("matches", "does not match") };
                let written = listed(globs.iter().map(|glob| glob.written().to_owned()));
                outcome("path", reading.path, answer, verbs, &written)
            }
            Self::Networks { written, .. } => {
                let written = listed(written.iter().cloned());
                match reading.address {
                    ClientAddress::Known(address) => {
                        outcome("address", &address.to_string(), answer, ("is in", "is not in"), &written)
                    }
                    ClientAddress::Unknown => {
                        format!(
                            "the client's address is unknown, so nobody can say whether it is in {written}: refused"
                        )
                    }
                }
            }
            Self::Resources(patterns) => {
                let written = listed(patterns.iter().map(|pattern| pattern.written().to_owned()));
                let resource = String::from_utf8_lossy(reading.resource);
                outcome("path and query", &resource, answer, ("matches", "does not match"), &written)
            }
            Self::Query(alternatives) => {
                let written = listed(alternatives.iter().map(|all| {
                    let all: Vec<_> = all.iter().map(Condition::written).collect();
                    all.join(" and ")
                }));
                let query = match reading.query {
                    Query::Raw(Some(query)) => format!("?{query}"),
                    Query::Raw(None) | Query::Recorded(_) => "that is empty".to_owned(),
                };
                if answer == Answer::Unknown {
                    return format!(
                        "applications read the query {query} in different ways, so nobody can say whether it has {written}: refused"
                    );
                }
                outcome("query", &query, answer, ("has", "does not have"), &written)
            }
            Self::When(when) => match when.outcome(reading) {
                Ok(true) => format!("{} is true", when.written()),
                Ok(false) => format!("{} is false", when.written()),
                Err(Stop::Anonymous) => format!("{} could be true: nobody is signed in", when.written()),
                Err(Stop::Unrecorded) => format!("{} reads what was not written down", when.written()),
                Err(Stop::Failed(why)) => format!("{} could not be worked out ({why}): refused", when.written()),
            },
            Self::Subject(alternatives) => {
                let written = listed(alternatives.iter().map(subject::All::written));
                match reading.caller {
                    None => format!("nobody is signed in, and it could be {written}"),
                    Some(caller) => outcome("", &caller.describe(), answer, ("is", "is not"), &written),
                }
            }
        }
    }
}

impl Domain {
    fn answer(&self, reading: &Reading<'_>) -> Answer {
        match self {
            Self::Exact(host) => Answer::of(**host == *reading.host),
            Self::Below(suffix) => Answer::of(label_before(reading.host, suffix).is_some()),
            Self::User(suffix) => match (label_before(reading.host, suffix), reading.caller) {
                (None, _) => Answer::No,
                (Some(_), None) => Answer::Anyone,
                (Some(label), Some(caller)) => Answer::of(is_user(caller, label)),
            },
            Self::Group(suffix) => match (label_before(reading.host, suffix), reading.caller) {
                (None, _) => Answer::No,
                (Some(_), None) => Answer::Anyone,
                (Some(label), Some(caller)) => Answer::of(is_in_group(caller, label)),
            },
            Self::Regex(pattern) => named_answer(pattern, reading.host.as_bytes(), reading.caller),
        }
    }

    fn names_subject(&self) -> bool {
        match self {
            Self::Exact(_) | Self::Below(_) => false,
            Self::User(_) | Self::Group(_) => true,
            Self::Regex(pattern) => pattern.names_subject(),
        }
    }

    fn written(&self) -> String {
        match self {
            Self::Exact(host) => host.to_string(),
            Self::Below(suffix) => format!("*.{suffix}"),
            Self::User(suffix) => format!("{{user}}.{suffix}"),
            Self::Group(suffix) => format!("{{group}}.{suffix}"),
            Self::Regex(pattern) => pattern.written().to_owned(),
        }
    }
}

/// A regex whose groups `User` and `Group` must also be the caller.
fn named_answer(pattern: &Pattern, text: &[u8], caller: Option<Caller<'_>>) -> Answer {
    if !pattern.names_subject() {
        return pattern.is_match(text).map_or(Answer::Unknown, Answer::of);
    }
    let named = match pattern.named(text) {
        None => return Answer::Unknown,
        Some(None) => return Answer::No,
        Some(Some(named)) => named,
    };
    // A group that took no part names nobody, and no user is called "".
    let names_nobody = |asked: bool, caught: Option<&str>| asked && caught.is_none_or(str::is_empty);
    if names_nobody(pattern.names_user(), named.user) || names_nobody(pattern.names_group(), named.group) {
        return Answer::No;
    }
    let Some(caller) = caller else { return Answer::Anyone };
    Answer::of(
        named.user.is_none_or(|name| is_user(caller, name)) && named.group.is_none_or(|name| is_in_group(caller, name)),
    )
}

fn is_user(caller: Caller<'_>, name: &str) -> bool {
    caller.client.is_none() && same_ignoring_case(&caller.identity.user, name)
}

fn is_in_group(caller: Caller<'_>, name: &str) -> bool {
    caller.identity.groups.iter().any(|group| same_ignoring_case(group, name))
}

/// Character by character, so that nothing is allocated.
fn same_ignoring_case(left: &str, right: &str) -> bool {
    left.eq_ignore_ascii_case(right)
        || left.chars().flat_map(char::to_lowercase).eq(right.chars().flat_map(char::to_lowercase))
}

/// `a.b` of `a.b.example.com` before `example.com`.
fn label_before<'h>(host: &'h str, suffix: &str) -> Option<&'h str> {
    host.strip_suffix(suffix)?.strip_suffix('.').filter(|label| !label.is_empty())
}

fn listed(entries: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 6;
    let entries: Vec<String> = entries.collect();
    let more = entries.len().saturating_sub(SHOWN);
    let shown = entries.into_iter().take(SHOWN).collect::<Vec<_>>().join(" or ");
    if more == 0 { shown } else { format!("{shown} or {more} more") }
}

fn outcome(what: &str, value: &str, answer: Answer, (yes, no): (&str, &str), written: &str) -> String {
    let what = if what.is_empty() { String::new() } else { format!("{what} ") };
    match answer {
        // "is app.example.com" twice would say nothing.
        Answer::Yes if yes == "is" && value == written => format!("{what}is {value}"),
        Answer::Yes => format!("{what}{value} {yes} {written}"),
        Answer::No => format!("{what}{value} {no} {written}"),
        Answer::Anyone => format!("{what}{value} could be {written}: nobody is signed in"),
        Answer::Unknown => format!("{what}{value} could not be held against {written}: refused"),
    }
}
