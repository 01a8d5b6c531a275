//! The one table from a verdict to an answer (CONTRACT 5), for the edge and the four dialects. Roles only render it.

use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::{
    request::Facts,
    site::AUTHORIZATION_ONLY,
    verdict::{SignIn, Verdict},
};

const INVALID_TOKEN: &str = r#"Bearer error="invalid_token""#;
const INSUFFICIENT_SCOPE: &str = r#"Bearer error="insufficient_scope""#;
const BASIC: &str = r#"Basic realm="Authorization Required""#;

/// Who hears the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// A client, at the edge.
    Edge,
    /// Traefik, Caddy, HAProxy.
    ForwardAuth,
    /// NGINX: understands 2xx, 401 and 403.
    AuthRequest,
    /// Envoy: 5xx may open the gate.
    ExtAuthz,
    /// Older Authelia set-ups (`/api/verify`): faults are 401.
    Legacy,
}

/// An answer other than `forward`, before it has a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: StatusCode,
    /// Absolute.
    pub location: Option<String>,
    /// `X-Postern-Status`: what NGINX should answer in our place.
    pub postern_status: Option<u16>,
    /// `WWW-Authenticate`.
    pub challenge: Option<&'static str>,
    pub retry_after: Option<Duration>,
}

/// `portal`: base URL of the portal to sign in at; `None` where the legacy path named none, or for hosts in no cookie
/// domain (the caller has then rejected already). A target on http while the portal is on https is asked for again as https.
#[must_use]
pub fn answer(verdict: &Verdict, facts: &Facts<'_>, dialect: Dialect, portal: Option<&Url>) -> Answer {
    match verdict {
        Verdict::SignIn(SignIn::Nobody) | Verdict::StepUp => sign_in(facts, dialect, portal),
        _ => Answer::about_nothing(verdict, dialect),
    }
}

impl Answer {
    /// The answer where no request could be made out, or where what it wanted does not matter.
    #[must_use]
    pub fn about_nothing(verdict: &Verdict, dialect: Dialect) -> Self {
        match verdict {
            Verdict::Forward(_) => plain(StatusCode::OK),
            Verdict::SignIn(SignIn::FailedBearer) => failed(INVALID_TOKEN, dialect),
            Verdict::SignIn(SignIn::FailedBasic) => failed(BASIC, dialect),
            Verdict::SignIn(SignIn::Nobody) | Verdict::StepUp => plain(StatusCode::UNAUTHORIZED),
            Verdict::Refuse => plain(StatusCode::FORBIDDEN),
            Verdict::OutOfScope => Self { challenge: Some(INSUFFICIENT_SCOPE), ..plain(StatusCode::FORBIDDEN) },
            Verdict::SlowDown { retry_after } => Self {
                retry_after: Some(*retry_after),
                ..narrowed(StatusCode::TOO_MANY_REQUESTS, dialect == Dialect::AuthRequest)
            },
            Verdict::Unavailable { .. } => {
                narrowed(StatusCode::SERVICE_UNAVAILABLE, matches!(dialect, Dialect::AuthRequest | Dialect::ExtAuthz))
            }
            Verdict::Reject(_) if dialect == Dialect::Legacy => plain(StatusCode::UNAUTHORIZED),
            Verdict::Reject(rejection) => narrowed(rejection.status(), dialect == Dialect::AuthRequest),
        }
    }
}

/// `Location` of a sign-in: `<portal>/?rd=<original URL>&rm=<METHOD>`, form-encoded, the portal's own query kept.
#[must_use]
pub fn sign_in_url(portal: &Url, facts: &Facts<'_>) -> String {
    let wanted = if portal.scheme() == "https" { facts.target.over_https().url() } else { facts.target.url() };
    let mut url = portal.clone();
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", portal.path()));
    }
    url.query_pairs_mut().append_pair("rd", &wanted).append_pair("rm", facts.method);
    url.into()
}

fn sign_in(facts: &Facts<'_>, dialect: Dialect, portal: Option<&Url>) -> Answer {
    // A preflight cannot follow a redirect (Fetch standard §4.8).
    let portal = portal.filter(|_| !facts.is_preflight());
    let meant = match portal {
        Some(_) if facts.is_page_load() => match facts.method {
            "GET" | "HEAD" | "OPTIONS" => StatusCode::FOUND,
            _ => StatusCode::SEE_OTHER,
        },
        _ => StatusCode::UNAUTHORIZED,
    };
    let narrow = dialect == Dialect::AuthRequest;
    // `/api/verify?auth=basic` is for programs and for browsers that ask by a box of their own: both wait for a challenge.
    let asks_for_basic = dialect == Dialect::Legacy && facts.credentials_from == AUTHORIZATION_ONLY;
    Answer {
        status: if narrow { StatusCode::UNAUTHORIZED } else { meant },
        challenge: (asks_for_basic && meant == StatusCode::UNAUTHORIZED).then_some(BASIC),
        location: portal.map(|portal| sign_in_url(portal, facts)),
        postern_status: narrow.then_some(meant.as_u16()),
        ..plain(meant)
    }
}

/// A credential of ours failed: 401 with its challenge (RFC 6750 §3, RFC 7617 §2), no redirect.
fn failed(challenge: &'static str, dialect: Dialect) -> Answer {
    Answer {
        challenge: Some(challenge),
        postern_status: (dialect == Dialect::AuthRequest).then_some(StatusCode::UNAUTHORIZED.as_u16()),
        ..plain(StatusCode::UNAUTHORIZED)
    }
}

/// The status, or 403 beside it in `X-Postern-Status` for a proxy that takes it for a fault of the gate.
fn narrowed(status: StatusCode, narrow: bool) -> Answer {
    Answer {
        status: if narrow { StatusCode::FORBIDDEN } else { status },
        postern_status: narrow.then_some(status.as_u16()),
        ..plain(status)
    }
}

fn plain(status: StatusCode) -> Answer {
    Answer { status, location: None, postern_status: None, challenge: None, retry_after: None }
}

#[cfg(test)]
mod tests;
