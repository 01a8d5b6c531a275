//! A made-up request, and what the rules should say to it: for `policy explain` and for the cases that stand beside the policies. It
//! asks the very rules that the live path asks (invariant 6).

use std::net::{IpAddr, Ipv4Addr};

use http::HeaderMap;

use super::{Explanation, Question, RuleSet, Ruling, Source};
use crate::core::{
    client_ip::ClientAddress,
    ground::Ground,
    identity::{Factor, Identity, Unsendable},
    request::is_method,
    target::{EncodedSlashes, Target},
    time::Timestamp,
    user::{Attributes, User},
    verdict::Rejection,
};

#[derive(Debug)]
pub struct Imagined {
    /// With scheme and host.
    pub url: String,
    pub method: String,
    /// `None`: nobody is signed in.
    pub caller: Option<Identity>,
    /// The OAuth client that the caller stands for.
    pub client: Option<String>,
    /// When it is asked; the caller signed in before that.
    pub now: Timestamp,
    pub headers: HeaderMap,
    /// Name of the route, at the edge.
    pub route: Option<String>,
    pub address: ClientAddress,
    pub encoded_slashes: EncodedSlashes,
}

impl Imagined {
    /// An OAuth client has no user name, so that no `user:` can be it.
    ///
    /// # Errors
    /// A name that could not be sent in a header, so that nobody can have it.
    pub fn caller(who: ImaginedCaller) -> Result<Identity, Unsendable> {
        let ImaginedCaller { user, groups, factor, signed_in_at, attributes } = who;
        let user = User { attributes, ..User::new(user.unwrap_or_default(), groups) };
        Identity::new(&user, factor, signed_in_at, None)
    }
}

#[derive(Debug)]
pub struct ImaginedCaller {
    /// `None`: an OAuth client asks in its own name.
    pub user: Option<String>,
    pub groups: Vec<String>,
    pub factor: Factor,
    pub signed_in_at: Timestamp,
    pub attributes: Attributes,
}

impl RuleSet {
    /// # Errors
    /// The request is one that no rule is asked about.
    pub fn imagine(&self, request: &Imagined) -> Result<Explanation, Rejection> {
        let target = Target::parse_url_with(&request.url, request.encoded_slashes)?;
        if !is_method(&request.method) {
            return Err(Rejection::Method);
        }
        let question = Question {
            target: &target,
            method: &request.method,
            client: request.address,
            caller: request.caller.as_ref(),
            now: request.now,
            headers: Some(&request.headers),
            route: request.route.as_deref(),
        };
        let client = request.client.as_deref();
        let explained = self.explain(&question, client);
        // Whoever asks in place of an unknown client is nobody in particular here.
        let source = Source { peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED), ground: &Ground::Session };
        let limits = self.limits_told(&question, client, source, explained.ruling);
        Ok(Explanation { limits, ..explained })
    }
}

/// What a case expects; `reject` is an answer of 400 before any rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Ruling(Ruling),
    Reject,
}

impl Expected {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ruling(ruling) => ruling.as_str(),
            Self::Reject => "reject",
        }
    }
}

#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub request: Imagined,
    pub expected: Expected,
    /// The rule that should decide; `None`: any.
    pub rule: Option<String>,
}

/// A case that does not hold.
#[derive(Debug)]
pub struct Failure {
    /// `refuse by "dashboards"`.
    pub expected: String,
    pub got: String,
    /// Every rule with its reason; `Err` where no rule was asked.
    pub explanation: Result<Explanation, Rejection>,
}

impl Case {
    #[must_use]
    pub fn failure(&self, rules: &RuleSet) -> Option<Failure> {
        let explanation = rules.imagine(&self.request);
        let (got, by) = match &explanation {
            Ok(explained) => (Expected::Ruling(explained.ruling), Some(explained.rule.as_str())),
            Err(_) => (Expected::Reject, None),
        };
        if got == self.expected && (self.rule.is_none() || self.rule.as_deref() == by) {
            return None;
        }
        let told = |verdict: Expected, rule: Option<&str>| match rule {
            Some(rule) => format!("{} by {rule:?}", verdict.as_str()),
            None => verdict.as_str().to_owned(),
        };
        Some(Failure { expected: told(self.expected, self.rule.as_deref()), got: told(got, by), explanation })
    }
}
