//! What a request presents in `Authorization` (CONTRACT 4 "Who is asking", 2), and whom it turns out to be from. Asked by `Gate::check` where no
//! session cookie names anybody, and by both roles, which keep credentials of ours from upstreams.
//!
//! Only says whose a credential is; whether it holds is verified in `identify` and the modules it calls.

use std::sync::Arc;

use http::HeaderValue;

use super::tokens;
use crate::{
    core::{identity::Identity, issuer::TrustedIssuer, request::Facts, site::Site},
    ports::LiveSession,
};

/// A credential that says it is for us; not verified yet.
#[derive(Clone, Copy)]
pub(super) enum Presented<'r> {
    /// An access token with our issuer.
    AccessToken(&'r str),
    /// A JWT with the issuer of one that is trusted.
    ForeignToken { issuer: &'r Arc<TrustedIssuer>, token: &'r str },
}

/// Somebody whose credential was verified.
#[derive(Clone)]
pub(super) enum Caller {
    Session(Arc<LiveSession>),
    /// By a credential that has no session.
    Credential(Arc<Identity>),
}

impl Caller {
    pub(super) fn identity(&self) -> &Arc<Identity> {
        match self {
            Self::Session(live) => &live.identity,
            Self::Credential(identity) => identity,
        }
    }
}

/// The first credential for us among the headers that this request may be identified by, any other belongs to the application; and
/// whether one of them all is a token of ours, also behind a foreign one that identifies the caller.
pub(super) fn presented<'r>(site: &'r Site, facts: &Facts<'r>) -> (Option<Presented<'r>>, bool) {
    let mut all = facts.credentials_from.iter().flat_map(|name| facts.headers.get_all(name));
    let first = all.find_map(|value| read(site, value));
    let is_ours = match first {
        None => false,
        Some(Presented::AccessToken(_)) => true,
        Some(Presented::ForeignToken { .. }) => all.any(|value| is_our_bearer(site, value)),
    };
    (first, is_ours)
}

fn read<'h>(site: &'h Site, value: &'h HeaderValue) -> Option<Presented<'h>> {
    let token = bearer(value.to_str().ok()?)?;
    let named = tokens::issuer_of(token)?;
    if named == site.tokens.issuer {
        return Some(Presented::AccessToken(token));
    }
    let issuer = site.tokens.trusted_issuers.iter().find(|trusted| trusted.issuer == named)?;
    Some(Presented::ForeignToken { issuer, token })
}

/// Whether this `Authorization` holds a token that says it is ours: never to be handed to an application.
#[must_use]
pub fn is_our_bearer(site: &Site, value: &HeaderValue) -> bool {
    matches!(read(site, value), Some(Presented::AccessToken(_)))
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1); the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
