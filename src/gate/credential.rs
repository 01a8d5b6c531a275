//! What a request presents in `Authorization` (CONTRACT 4 "Who is asking", 2), and whom it turns out to be from. Asked by `Gate::check` where no
//! session cookie names anybody, and by both roles, which keep credentials of ours from upstreams.
//!
//! Only says whose a credential is; whether it holds is verified in `identify` and the modules it calls.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, header};

use super::{basic, foreign::ForeignToken, origin, tokens};
use crate::{
    core::{
        api_token, ground::Ground, identity::Identity, request::Facts, route::Route, session::TokenHash, site::Site,
    },
    ports::{ForeignTokens, LiveSession},
};

/// A credential that says it is for us; not verified yet.
pub(super) enum Presented<'r> {
    /// An access token with our issuer.
    AccessToken(&'r str),
    /// Says by its beginning that it is an API token.
    ApiToken(&'r str),
    /// What stands behind `Basic `: a user name and a password, for us unless the header is the application's.
    Basic(&'r str),
    /// A JWT with the issuer of one that is trusted.
    ForeignToken(ForeignToken<'r>),
}

/// Where it stood.
pub(super) struct Found<'r> {
    pub(super) presented: Presented<'r>,
    name: &'static HeaderName,
    value: &'r HeaderValue,
}

impl Presented<'_> {
    /// Ours by its form, whether it is read or not: never to be handed to an application.
    pub(super) fn is_our_token(&self) -> bool {
        match self {
            Self::AccessToken(_) | Self::ApiToken(_) => true,
            Self::Basic(payload) => basic::holds_api_token(payload),
            Self::ForeignToken(_) => false,
        }
    }

    /// A page of a foreign origin can open a WebSocket with a password that the browser remembers for this one, as it can with cookies: CORS does
    /// not stop it (THREATS 61).
    pub(super) fn may_be_used(&self, site: &Site, facts: &Facts<'_>, route: Option<&Route>) -> bool {
        !matches!(self, Self::Basic(_)) || !facts.is_websocket() || origin::may_use_session(site, facts, route)
    }
}

impl Found<'_> {
    pub(super) fn is_in_authorization(&self) -> bool {
        *self.name == header::AUTHORIZATION
    }
}

/// Somebody whose credential was verified.
#[derive(Clone)]
pub(super) enum Caller {
    Session(Arc<LiveSession>, Ground),
    /// By a credential that came with the request, without a session.
    Credential(Arc<Identity>, Ground),
}

impl Caller {
    pub(super) fn identity(&self) -> &Arc<Identity> {
        match self {
            Self::Session(live, _) => &live.identity,
            Self::Credential(identity, _) => identity,
        }
    }

    pub(super) fn into_ground(self) -> Ground {
        match self {
            Self::Session(_, ground) | Self::Credential(_, ground) => ground,
        }
    }
}

/// The first credential for us among the headers that this request may be identified by. Any other belongs to the application.
pub(super) fn presented<'r>(site: &'r Site, facts: &Facts<'r>, memory: &dyn ForeignTokens) -> Option<Found<'r>> {
    facts.credentials_from.iter().find_map(|name| {
        let mut values = facts.headers.get_all(name).iter();
        values.find_map(|value| Some(Found { presented: read(site, value, Some(memory))?, name, value }))
    })
}

/// `memory`: of tokens that were verified, where it may be asked in place of the token itself.
fn read<'h>(site: &'h Site, value: &'h HeaderValue, memory: Option<&dyn ForeignTokens>) -> Option<Presented<'h>> {
    let text = value.to_str().ok()?;
    if let Some(payload) = basic::payload(text) {
        return Some(Presented::Basic(payload));
    }
    let token = bearer(text)?;
    if api_token::says_it_is_one(token) {
        return Some(Presented::ApiToken(token));
    }
    let payload = tokens::payload_of(token)?;
    let trusted = &site.tokens.trusted_issuers;
    let hash = if trusted.is_empty() { None } else { Some(TokenHash::of(token)) };
    // What is remembered for an issuer names that issuer, and no two have one name (nor has one ours): it is not taken apart again.
    if let Some((memory, hash)) = memory.zip(hash) {
        let remembered = |issuer| Some(ForeignToken::known(issuer, token, hash, memory.peek(&issuer.key_of(hash))?));
        if let Some(known) = trusted.iter().find_map(remembered) {
            return Some(Presented::ForeignToken(known));
        }
    }
    let named = tokens::issuer_in(payload)?;
    if named == site.tokens.issuer {
        return Some(Presented::AccessToken(token));
    }
    let issuer = trusted.iter().find(|trusted| trusted.issuer == named)?;
    Some(Presented::ForeignToken(ForeignToken::new(issuer, token, hash?)))
}

/// Whether `Authorization` holds a token of ours, in whichever of its fields. What was found is not taken apart again.
pub(super) fn carries_our_token(site: &Site, found: &Found<'_>, facts: &Facts<'_>) -> bool {
    (found.is_in_authorization() && found.presented.is_our_token())
        || (facts.headers.get_all(header::AUTHORIZATION).iter())
            .any(|value| !std::ptr::eq(value, found.value) && is_our_token(site, value))
}

/// Whether this `Authorization` holds a token that says it is ours: never to be handed to an application.
#[must_use]
pub fn is_our_token(site: &Site, value: &HeaderValue) -> bool {
    read(site, value, None).is_some_and(|presented| presented.is_our_token())
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1); the scheme's case does not matter (RFC 9110 §11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
