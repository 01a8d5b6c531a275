//! One line of the access log, as `observe::access_log` writes it, and the request that it tells of. What is not there stays
//! unknown: a line of another version must never look like one of a request without a query or without groups.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::core::{
    client_ip::ClientAddress,
    identity::{Factor, Identity},
    policy::{Parameter, Record, Recorded as Facts, Ruling},
    request::Role,
    target::Scheme,
    time::Timestamp,
    user::User,
    verdict::Credential,
};

/// What the access log calls itself among the other lines of standard output.
const TARGET: &str = "postern::access";

pub(super) enum Line {
    Asked(Box<Asked>),
    /// The rules were asked, and the line does not say all that they may look at.
    Incomplete(Sample),
    Skip(Skip),
}

/// A request that the rules were asked about.
pub(super) struct Asked {
    pub(super) record: Record,
    pub(super) verdict: Recorded,
    pub(super) rule: String,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Recorded {
    Ruling(Ruling),
    /// Asked to sign in on a host that no cookie reaches.
    Reject,
}

impl Recorded {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Ruling(ruling) => ruling.as_str(),
            Self::Reject => "reject",
        }
    }
}

/// Why a line is passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Skip {
    /// `portal`, `reject`, `slow_down`.
    NoRule,
    Unavailable,
    Other,
    NotJson,
    TooLong,
    Cut,
}

/// A request, to be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) method: String,
    pub(super) host: String,
    pub(super) path: String,
}

impl Asked {
    pub(super) fn sample(&self) -> Sample {
        let Record { method, host, path, .. } = &self.record;
        Sample { method: method.clone(), host: host.clone(), path: path.clone() }
    }

    pub(super) fn user(&self) -> Option<&str> {
        self.record.caller.as_ref().map(|caller| &*caller.user)
    }
}

/// A line of a request that the rules were asked about. `null` is a fact; what is not there at all is none.
#[derive(Deserialize)]
struct Written {
    target: String,
    time: String,
    duration_ms: f64,
    #[serde(deserialize_with = "nullable")]
    client: Option<IpAddr>,
    #[serde(deserialize_with = "nullable")]
    user: Option<String>,
    groups: Option<Vec<String>>,
    /// Only where a token gave any.
    #[serde(default)]
    claimed_roles: Vec<String>,
    factor: Option<Factor>,
    auth_age_ms: Option<i64>,
    method: String,
    host: String,
    path: String,
    #[serde(default)]
    other_paths: Vec<String>,
    #[serde(deserialize_with = "nullable")]
    query: Option<BTreeMap<String, Readings>>,
    #[serde(default)]
    headers: BTreeMap<String, Readings>,
    role: String,
    scheme: String,
    route: String,
    rule: String,
    verdict: String,
    /// What stopped a request that the rules had let pass.
    limit: Option<String>,
    credential: Option<String>,
    account: Option<String>,
}

/// Serde takes an `Option` that is not there for a `null`, but not one that has a function of its own.
fn nullable<'l, T: DeserializeOwned, D: Deserializer<'l>>(value: D) -> Result<Option<T>, D::Error> {
    Option::deserialize(value)
}

/// What little is needed to say why a line is none of those.
#[derive(Deserialize)]
struct Head {
    target: Option<String>,
    rule: Option<String>,
    #[serde(default)]
    method: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    path: String,
}

/// `null`, `true`, a string, or a list of them.
#[derive(Deserialize)]
#[serde(try_from = "serde_json::Value")]
struct Readings(Vec<Parameter>);

impl TryFrom<serde_json::Value> for Readings {
    type Error = &'static str;

    fn try_from(value: serde_json::Value) -> Result<Self, Self::Error> {
        let one = |value| match value {
            serde_json::Value::Null => Ok(Parameter::Absent),
            serde_json::Value::Bool(true) => Ok(Parameter::Present),
            serde_json::Value::String(value) => Ok(Parameter::Value(value)),
            _ => Err("no reading of a parameter"),
        };
        match value {
            serde_json::Value::Array(all) => all.into_iter().map(one).collect::<Result<_, _>>().map(Self),
            value => one(value).map(|parameter| Self(vec![parameter])),
        }
    }
}

pub(super) fn parse(line: &[u8]) -> Line {
    let Ok(written) = serde_json::from_slice::<Written>(line) else { return other(line) };
    if written.target != TARGET {
        return Line::Skip(Skip::Other);
    }
    if written.verdict == "unavailable" {
        return Line::Skip(Skip::Unavailable);
    }
    let sample = Sample { method: written.method.clone(), host: written.host.clone(), path: written.path.clone() };
    asked(written).map_or(Line::Incomplete(sample), |asked| Line::Asked(Box::new(asked)))
}

fn other(line: &[u8]) -> Line {
    match serde_json::from_slice::<Head>(line) {
        Err(_) if serde_json::from_slice::<IgnoredAny>(line).is_err() => Line::Skip(Skip::NotJson),
        Ok(Head { target: Some(target), rule, method, host, path }) if target == TARGET => match rule {
            None => Line::Skip(Skip::NoRule),
            Some(_) => Line::Incomplete(Sample { method, host, path }),
        },
        _ => Line::Skip(Skip::Other),
    }
}

/// `None`: another version wrote it.
fn asked(written: Written) -> Option<Asked> {
    let verdict = match written.verdict.as_str() {
        _ if written.limit.is_some() => Recorded::Ruling(Ruling::Forward),
        "forward" => Recorded::Ruling(Ruling::Forward),
        "sign_in" => Recorded::Ruling(Ruling::SignIn),
        "step_up" => Recorded::Ruling(Ruling::StepUp),
        "refuse" => Recorded::Ruling(Ruling::Refuse),
        "reject" => Recorded::Reject,
        _ => return None,
    };
    let credential = match written.credential.as_deref() {
        None => Credential::Settled,
        Some("failed") => Credential::Failed,
        Some("unread") => Credential::Unread,
        Some("out_of_scope") => Credential::OutOfScope,
        Some(_) => return None,
    };
    // A line tells of the end of a request, rules of its beginning.
    #[expect(clippy::cast_possible_truncation, reason = "a duration in milliseconds; what is none saturates")]
    let began =
        written.time.parse::<jiff::Timestamp>().ok()?.as_millisecond().saturating_sub(written.duration_ms as i64);
    let caller = match written.user {
        None => None,
        Some(name) => {
            let signed_in_at = Timestamp::from_unix_millis(began.saturating_sub(written.auth_age_ms?));
            let groups = written.groups?;
            let user = User::new(name, groups);
            let identity = Identity::new(&user, written.factor?, signed_in_at, None).ok()?;
            let identity = identity.with_claimed_roles(written.claimed_roles);
            Some(match written.account.as_deref() {
                None => identity,
                Some("service") => identity.as_service(),
                Some(_) => return None,
            })
        }
    };
    let facts = |written: BTreeMap<String, Readings>| -> Facts {
        written.into_iter().map(|(key, Readings(all))| (key, all)).collect()
    };
    let scheme = match written.scheme.as_str() {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    let record = Record {
        method: written.method,
        host: written.host,
        path: written.path,
        other_paths: written.other_paths,
        query: written.query.map(facts),
        headers: facts(written.headers),
        scheme,
        // Only the edge has routes.
        route: (written.role == Role::Edge.as_str()).then_some(written.route),
        client: written.client.map_or(ClientAddress::Unknown, ClientAddress::Known),
        caller,
        credential,
        at: Timestamp::from_unix_millis(began),
    };
    Some(Asked { record, verdict, rule: written.rule })
}
