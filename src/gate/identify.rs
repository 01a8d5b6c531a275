//! Who is asking: the session that a cookie names, else a token of ours or of a trusted issuer (CONTRACT 4 "Who is asking").

use std::sync::Arc;

use http::HeaderMap;

use super::{
    Gate,
    credential::{Caller, Presented},
    machines::Hindrance,
    origin, tokens,
};
use crate::{
    core::{
        cookie,
        ground::{Ground, OwnToken},
        request::Facts,
        route::Route,
        session::{SessionId, Standing, TokenHash},
        site::Site,
        time::Timestamp,
    },
    ports::{LiveSession, Peek, Unavailable},
};

/// How many values of the session cookie are looked up. More come only from somebody who tosses cookies, and who could so push the
/// browser's own beyond those that are looked at: then nobody is signed in (THREATS 33).
const MOST_COOKIES: usize = 4;

/// Length of a session cookie's value: 256 bits in base64url without padding. Anything else is not looked up at all.
const COOKIE_LENGTH: usize = 43;

/// What the cookies of a request name.
#[derive(Debug)]
pub enum Named {
    Nobody,
    One(Arc<LiveSession>),
    /// Cookies naming two live sessions, or too many to look at: nobody (THREATS 33), but signing in or out ends those found.
    Several(Vec<Arc<LiveSession>>),
}

impl Gate {
    /// The session that identifies this request, if its cookies name one and only one.
    pub(super) async fn session_for(
        &self,
        site: &Site,
        facts: &Facts<'_>,
        route: Option<&Route>,
        now: Timestamp,
    ) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        // A page of a foreign origin can open a WebSocket with the victim's cookies: CORS does not stop it (THREATS 61).
        if facts.is_websocket() && !origin::may_use_session(site, facts, route) {
            return Ok(None);
        }
        match self.sessions_named(site, facts.target.host(), facts.headers, now).await? {
            Named::One(session) => Ok(Some(session)),
            Named::Nobody => Ok(None),
            Named::Several(_) => {
                self.metrics.ambiguous_cookies();
                Ok(None)
            }
        }
    }

    /// The live sessions that the request's session cookies name on the scope of `host`.
    ///
    /// # Errors
    /// The store cannot answer for one of them: who is asking is then unknown, whatever the others say.
    pub async fn session_of(&self, site: &Site, host: &str, headers: &HeaderMap) -> Result<Named, Unavailable> {
        self.sessions_named(site, host, headers, self.clock.now()).await
    }

    async fn sessions_named(
        &self,
        site: &Site,
        host: &str,
        headers: &HeaderMap,
        now: Timestamp,
    ) -> Result<Named, Unavailable> {
        let Some(scope) = site.scope(host) else { return Ok(Named::Nobody) };
        let mut first: Option<Arc<LiveSession>> = None;
        let mut others = Vec::new();
        let mut values = cookie::values(headers, &scope.name).filter(|value| value.len() == COOKIE_LENGTH);
        for value in values.by_ref().take(MOST_COOKIES) {
            let Some(session) = self.live(site, &TokenHash::of(value), now).await? else { continue };
            if *session.session.cookie.domain != *scope.domain {
                continue;
            }
            match &first {
                None => first = Some(session),
                Some(known) if known.id() == session.id() => {}
                Some(_) => others.push(session),
            }
        }
        let are_all_seen = values.next().is_none();
        Ok(match first {
            None if are_all_seen => Named::Nobody,
            Some(session) if are_all_seen && others.is_empty() => Named::One(session),
            first => Named::Several(first.into_iter().chain(others).collect()),
        })
    }

    /// Whom a credential is from; `None` where it is for us but failed.
    ///
    /// # Errors
    /// What kept it from being judged; a store that cannot answer.
    pub(super) async fn caller_of(
        &self,
        site: &Site,
        facts: &Facts<'_>,
        presented: &Presented<'_>,
    ) -> Result<Option<Caller>, Hindrance> {
        match presented {
            Presented::AccessToken(token) => {
                let found = self.holder_of_token(site, token).await?;
                Ok(found.map(|(live, token)| Caller::Session(live, Ground::AccessToken(Arc::new(token)))))
            }
            Presented::ApiToken(token) => self.caller_of_api_token(facts, token).await,
            Presented::Basic(payload) => self.caller_of_basic(facts, payload).await,
            Presented::ForeignToken(token) => {
                let found = self.holder_of_foreign(token).await?;
                Ok(found.map(|(identity, ground)| Caller::Credential(identity, ground)))
            }
        }
    }

    /// The session behind one of our access tokens; `None` where it is ours but failed.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn session_of_token(&self, site: &Site, token: &str) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        Ok(self.holder_of_token(site, token).await?.map(|(session, _)| session))
    }

    async fn holder_of_token(
        &self,
        site: &Site,
        token: &str,
    ) -> Result<Option<(Arc<LiveSession>, OwnToken)>, Unavailable> {
        let now = self.clock.now();
        let (claims, kid) = match tokens::verified(token, &*self.keys, &site.tokens, now).await? {
            Ok(verified) => verified,
            Err(error) => {
                tracing::debug!(%error, "an access token of ours was refused");
                return Ok(None);
            }
        };
        if self.is_revoked(&claims.jti).await? {
            return Ok(None);
        }
        let id = SessionId::new(claims.sid);
        let session = match self.sessions.peek_id(&id) {
            Peek::Gone => return Ok(None),
            Peek::Hit(session) if self.stands(site, &session, now) == Standing::Live => Some(session),
            Peek::Hit(_) | Peek::Unsure => self.sessions.find_id(&id).await?,
        };
        let session = session.filter(|session| {
            self.stands(site, session, now) == Standing::Live
                && session.identity.token_version == claims.ver
                && *session.identity.user == *claims.sub
        });
        let until = Timestamp::from_unix_millis(claims.exp.saturating_mul(1000));
        Ok(session.map(|session| (session, OwnToken { jti: claims.jti, kid, version: claims.ver, until })))
    }

    /// The live session with this cookie hash: from memory where memory is sure, else from the store.
    async fn live(
        &self,
        site: &Site,
        hash: &TokenHash,
        now: Timestamp,
    ) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        match self.sessions.peek(hash) {
            Peek::Gone => return Ok(None),
            Peek::Hit(session) => match self.stands(site, &session, now) {
                Standing::Live => return Ok(Some(session)),
                Standing::Expired => return Ok(None),
                // Another node may have seen it used: only the store can say that it is dead (invariant 8).
                Standing::Idle => {}
            },
            Peek::Unsure => {}
        }
        let found = self.sessions.find(hash).await?;
        Ok(found.filter(|session| self.stands(site, session, now) == Standing::Live))
    }

    fn stands(&self, site: &Site, session: &LiveSession, now: Timestamp) -> Standing {
        site.lifetimes.standing(session.session.age(), session.last_used(), now)
    }
}
