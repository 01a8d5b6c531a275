//! Callers without a session: API tokens, and a user name and password with each request (Basic). Asked by `Gate::caller_of` where anonymous may
//! not pass; one factor, whoever it is.
//!
//! What memory knows is answered without waiting; a wrong password is never remembered, and one whose owner changed counts no more.

use std::{sync::Arc, time::Duration};

use http::header;
use secrecy::ExposeSecret as _;

use super::{Gate, basic, credential::Caller};
use crate::{
    core::{api_token, ground::Ground, request::Facts, session::TokenHash, time::Timestamp, user::folded},
    ports::{Barred, LiveApiToken, Presentation, Recognised, Unavailable},
};

/// Why a credential was neither good nor bad.
#[derive(Debug)]
pub(super) enum Hindrance {
    /// The API token is good, and does not count for this request.
    OutOfScope,
    SlowDown(Duration),
    /// Too many passwords to verify at once.
    Busy,
    Unavailable(Unavailable),
}

impl From<Unavailable> for Hindrance {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl From<Barred> for Hindrance {
    fn from(barred: Barred) -> Self {
        match barred {
            Barred::SlowDown(wait) => Self::SlowDown(wait),
            Barred::Busy => Self::Busy,
            Barred::Unavailable(unavailable) => unavailable.into(),
        }
    }
}

impl Gate {
    /// Whom an API token speaks for; `None` where it failed.
    pub(super) async fn caller_of_api_token(
        &self,
        facts: &Facts<'_>,
        token: &str,
    ) -> Result<Option<Caller>, Hindrance> {
        let now = self.clock.now();
        match self.live_api_token(token, now).await? {
            Some(live) => self.within_scope(facts, &live, now).map(Some),
            None => {
                self.metrics.login("api_token", "failure");
                Ok(None)
            }
        }
    }

    /// Whose name and password these are; `None` where they failed. In place of the password an API token of that user will do.
    pub(super) async fn caller_of_basic(&self, facts: &Facts<'_>, payload: &str) -> Result<Option<Caller>, Hindrance> {
        let Some((user, password)) = basic::decoded(payload) else {
            self.metrics.login("basic", "failure");
            return Ok(None);
        };
        if api_token::says_it_is_one(password.expose_secret()) {
            let now = self.clock.now();
            let live = self.live_api_token(password.expose_secret(), now).await?;
            return match live.filter(|live| folded(live.token.owner.name()) == folded(&user)) {
                Some(live) => self.within_scope(facts, &live, now).map(Some),
                None => {
                    self.metrics.login("basic", "failure");
                    Ok(None)
                }
            };
        }
        let presented = Presentation { user, password, address: facts.client.known() };
        let recognised = match self.passwords.recall(&presented) {
            Some(recognised) => Some(recognised),
            None => self.passwords.identify(presented).await?,
        };
        Ok(recognised.map(|Recognised { identity, stamp, watch }| {
            Caller::Credential(identity, Ground::Password { watch, stamp })
        }))
    }

    /// Whether `Authorization`, which nobody had to read, holds a name and a password that memory knows as ours, or might: an application must not
    /// learn them.
    pub(super) fn carries_our_password(&self, facts: &Facts<'_>) -> bool {
        let values = facts.headers.get_all(header::AUTHORIZATION).iter().filter_map(|value| value.to_str().ok());
        values.filter_map(basic::payload).filter_map(basic::decoded).any(|(user, password)| {
            self.passwords.is_kept(&Presentation { user, password, address: facts.client.known() })
        })
    }

    async fn live_api_token(&self, token: &str, now: Timestamp) -> Result<Option<Arc<LiveApiToken>>, Unavailable> {
        if !api_token::is_well_formed(token) {
            return Ok(None);
        }
        let hash = TokenHash::of(token);
        let found = match self.api_tokens.peek(&hash) {
            Some(live) => Some(live),
            None => self.api_tokens.find(&hash).await?,
        };
        Ok(found.filter(|live| !live.token.is_expired(now)))
    }

    fn within_scope(&self, facts: &Facts<'_>, live: &Arc<LiveApiToken>, now: Timestamp) -> Result<Caller, Hindrance> {
        if !live.token.scopes.allow(facts.target.host(), facts.method, facts.is_websocket()) {
            return Err(Hindrance::OutOfScope);
        }
        self.api_tokens.used(live, now);
        Ok(Caller::Credential(Arc::clone(&live.identity), Ground::ApiToken(live.token.hash)))
    }
}
