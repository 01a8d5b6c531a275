//! What is to be done with a request: the output of `Gate::check` (CONTRACT 4, Verdicts).

use std::{sync::Arc, time::Duration};

use http::StatusCode;

use super::{
    decision::Permit,
    ground::Ground,
    identity::Identity,
    policy::{Recorded, Reported},
    quota::Standing,
    route::Route,
    time::Timestamp,
};

/// Everything the gate found out about one request.
#[derive(Debug)]
pub struct Outcome {
    pub verdict: Verdict,
    /// The rule that decided (`default` where none matched); absent where no rule was asked.
    pub rule: Option<Arc<str>>,
    /// The route at the edge; absent in `forward_auth`.
    pub route: Option<Arc<Route>>,
    /// Who is asking; also on a refusal, so that the page and the log can say so.
    pub identity: Option<Arc<Identity>>,
    /// By what; of nobody it says nothing.
    pub ground: Ground,
    /// `Authorization` holds a token of ours, or the user name and password by which the caller was identified: it is taken out of what goes on
    /// to an upstream.
    pub carries_our_token: bool,
    /// What a rule in `mode: report` would have said.
    pub reported: Option<Reported>,
    /// The caller's roles, comma separated, where a header of the route or the listener asks for them.
    pub roles: Option<Box<str>>,
    /// What rules of this host read of the request's headers, for the access log; absent where they read none.
    pub headers: Option<Recorded>,
    /// How the request stands with limits; absent where it fell under none.
    pub standing: Option<Box<Standing>>,
    pub credential: Credential,
    /// When the rules were asked; absent where none was.
    pub decided_at: Option<Timestamp>,
}

/// What `Outcome::identity` does not say of a request that has none. The access log does, since under other rules it would matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Credential {
    /// Nothing more is to be known.
    #[default]
    Settled,
    /// A credential of ours or of a trusted issuer failed, so that whatever else than `forward` the rules say is `sign_in`.
    Failed,
    /// An API token does not count for this request, so that whatever else than `forward` the rules say is `refuse`.
    OutOfScope,
    /// The rules let anybody pass, so a token was not looked at, or a store was not waited for.
    Unread,
}

impl Credential {
    /// For the access log; absent where there is nothing to tell.
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        match self {
            Self::Settled => None,
            Self::Failed => Some("failed"),
            Self::OutOfScope => Some("out_of_scope"),
            Self::Unread => Some("unread"),
        }
    }
}

impl Outcome {
    /// No rule was asked.
    #[must_use]
    pub fn undecided(verdict: Verdict) -> Self {
        Self {
            verdict,
            rule: None,
            route: None,
            identity: None,
            ground: Ground::default(),
            carries_our_token: false,
            reported: None,
            roles: None,
            headers: None,
            standing: None,
            credential: Credential::Settled,
            decided_at: None,
        }
    }
}

#[derive(Debug)]
pub enum Verdict {
    /// Pass it on. Without the permit inside nothing reaches an upstream.
    Forward(Permit),
    /// Nobody is signed in, or the credential that came failed.
    SignIn(SignIn),
    /// Signed in, but the rule asks for a second factor or a fresher sign-in.
    StepUp,
    Refuse,
    /// Refused whatever the rules say: the API token does not count for this request (RFC 6750 §3.1, `insufficient_scope`).
    OutOfScope,
    SlowDown {
        retry_after: Duration,
    },
    /// A store cannot answer; the name says which, for the log alone.
    Unavailable {
        store: &'static str,
    },
    /// Not understood, or not served at all.
    Reject(Rejection),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignIn {
    /// No credential of ours came along.
    Nobody,
    /// A Bearer token that is ours or a trusted issuer's failed: 401 with its challenge, no `Location`.
    FailedBearer,
    /// User name and password of Basic failed, and it is no page load: 401 with its challenge, no `Location`.
    FailedBasic,
}

/// Why a request is not decided at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    #[error("the path cannot be read in one way: {0}")]
    Path(&'static str),
    #[error("the host is missing or not a host name")]
    Host,
    #[error("the scheme is not http, https, ws or wss")]
    Scheme,
    #[error("the method is not a token of upper-case letters")]
    Method,
    #[error("the header {0} is missing")]
    Missing(&'static str),
    #[error("the header {0} came twice or holds a comma")]
    Repeated(&'static str),
    #[error("Content-Length and Transfer-Encoding in one request")]
    Framing,
    #[error("what came is not HTTP/1.1 (TLS on a port without it?)")]
    Malformed,
    #[error("an identity header came in another spelling")]
    Respelled,
    #[error("the described URLs differ")]
    Contradiction,
    #[error("the host belongs to no cookie domain, so nobody can sign in for it")]
    ForeignHost,
    #[error("the named portal lies outside the cookie domain")]
    ForeignPortal,
    #[error("CONNECT is not served")]
    Connect,
    #[error("the host belongs to another certificate than the connection began with")]
    Misdirected,
    #[error("no route fits")]
    NoRoute,
    #[error("a service worker may not be installed on the portal's origin")]
    ServiceWorker,
    #[error("the header section is too large")]
    HeadersTooLarge,
}

impl Rejection {
    /// The status for a client or a proxy that can take any (CONTRACT 5; `auth_request` and the legacy path narrow it).
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::ServiceWorker => StatusCode::FORBIDDEN,
            Self::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl Verdict {
    /// The label of metrics and the access log.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::SignIn(_) => "sign_in",
            Self::StepUp => "step_up",
            Self::Refuse | Self::OutOfScope => "refuse",
            Self::SlowDown { .. } => "slow_down",
            Self::Unavailable { .. } => "unavailable",
            Self::Reject(_) => "reject",
        }
    }
}
