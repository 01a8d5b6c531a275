//! Refresh tokens: a program's way to a new access token without the password (CONTRACT 7), and the end of a token before its time. Called by the
//! portal's API alone.
//!
//! A refresh token is 256 bits of chance, stored as SHA-256, and used once: each use answers a new one. The tokens that follow each other are a family,
//! and the family is the session: it dies with it, and a use of it is a use of the session. Whoever uses a token a second time shows that two hold
//! it, a thief and somebody robbed, and nobody can say which is which: the session ends, and with it every token (RFC 9700, section 4.14).
//!
//! **Who lost an answer is not punished.** The same token again, within [`crate::core::tokens::GRACE`], from the same address and browser, and before
//! anything that came of it was used, is answered with a fresh pair, beside the one of the first answer: a request that was given up may be worked on after
//! the one that followed it, so nobody can say which answer arrived. The first use of either spends the other. It costs this: a thief at the same address, with the
//! same browser and as quick, is answered where without the grace the session would have ended at once; it ends at the next use by whoever of both is second, and
//! not before. So it is put on record. Of many answers to one use the latest few hold, so that neither of both can be kept from being second by asking often; far
//! too many end the session.
//!
//! Must never log a token or answer why one was refused.

use std::{net::IpAddr, sync::Arc, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};

use super::{sign_in::random_value, tokens};
use crate::{
    core::{
        session::{SessionId, Standing, TokenHash},
        site::Site,
        time::Timestamp,
        tokens::{end_of_refresh, place_of},
    },
    observe::metrics::Metrics,
    ports::{
        AuditEvent, AuditSink, Clock, End, Entropy, Exchange, Exchanged, Guess, Keys, Known, LiveSession, RefreshToken,
        Regulation, Revoked, Sessions, Tokens, Try, Unavailable,
    },
};

/// Length of a refresh token: 256 bits in base64url without padding. Anything else is not looked up at all.
const LENGTH: usize = 43;

/// What refreshing needs, for one request.
pub struct Refreshing<'a> {
    pub site: &'a Site,
    pub tokens: &'a dyn Tokens,
    pub sessions: &'a dyn Sessions,
    pub keys: &'a dyn Keys,
    pub clock: &'a dyn Clock,
    pub entropy: &'a dyn Entropy,
    pub audit: &'a dyn AuditSink,
    pub metrics: &'a Metrics,
    pub regulation: &'a dyn Regulation,
    pub address: Option<IpAddr>,
    pub user_agent: &'a str,
    pub request_id: &'a str,
}

/// A new pair.
pub struct Refreshed {
    pub session: Arc<LiveSession>,
    pub access_token: SecretString,
    /// None where the caller has cookies in its place.
    pub refresh_token: Option<SecretString>,
}

#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Unknown, spent, expired, or of a session that is over: one answer for all.
    #[error("the refresh token does not hold")]
    Refused,
    /// By regulation, since so many from this address did not hold.
    #[error("too many refresh tokens that do not hold; again in {0:?}")]
    SlowDown(Duration),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl Refreshing<'_> {
    /// The first refresh token of a fresh session. Where it cannot be stored the session ends again: its secrets reach nobody.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn begin(&self, live: &LiveSession) -> Result<SecretString, Unavailable> {
        let (value, token) = self.fresh(live, self.clock.now());
        if let Err(error) = self.tokens.insert_refresh(token).await {
            self.sessions.end(End::One(live.id())).await?;
            return Err(error);
        }
        Ok(value.into())
    }

    /// A new pair for a refresh token.
    ///
    /// # Errors
    /// As [`RefreshError`] says.
    pub async fn by_token(&self, presented: &SecretString) -> Result<Refreshed, RefreshError> {
        let result = self.regulated(presented.expose_secret()).await;
        self.metrics.token_refresh(match &result {
            Ok((_, status)) => status,
            Err(RefreshError::Refused) => "failure",
            Err(RefreshError::SlowDown(_)) => "slow_down",
            Err(RefreshError::Unavailable(_)) => "unavailable",
        });
        let (refreshed, _) = result?;
        refreshed.ok_or(RefreshError::Refused)
    }

    /// A new access token for whoever showed both cookies of this session.
    ///
    /// # Errors
    /// The token cannot be signed.
    pub async fn by_cookies(&self, session: Arc<LiveSession>) -> Result<Refreshed, RefreshError> {
        let result = self.access_token(&session, self.clock.now()).await;
        self.metrics.token_refresh(if result.is_ok() { "success" } else { "unavailable" });
        Ok(Refreshed { access_token: result?, refresh_token: None, session })
    }

    /// Tokens that hold cost regulation nothing but a look at memory: nobody guesses 256 bits, so that what did not hold may be counted afterwards. Where
    /// what others sent from there bars the address, a token that is known goes on all the same (THREATS 40).
    async fn regulated(&self, presented: &str) -> Result<(Option<Refreshed>, &'static str), RefreshError> {
        let hash = TokenHash::of(presented);
        let tried = Try {
            guess: Guess::RefreshToken(&hash),
            account: "",
            address: self.address,
            provider: "refresh",
            known: Known::Nothing,
            is_repeated: false,
        };
        if let Some(wait) = self.regulation.bars(tried)
            && self.found(presented, &hash).await?.is_none()
        {
            return Err(RefreshError::SlowDown(wait));
        }
        let result = self.exchanged(presented, hash).await;
        if matches!(result, Err(RefreshError::Refused) | Ok((None, _)))
            && let Ok(admitted) = self.regulation.admit(tried).await
            && let Ok(Some(by)) = self.regulation.settle(admitted, true).await
        {
            self.audit.record(AuditEvent {
                event: "sign_in_delayed",
                user: None,
                address: self.address,
                request_id: Some(self.request_id.to_owned()),
                detail: by.as_str(),
            });
        }
        result
    }

    async fn found(&self, presented: &str, hash: &TokenHash) -> Result<Option<RefreshToken>, Unavailable> {
        if presented.len() == LENGTH { self.tokens.find_refresh(hash).await } else { Ok(None) }
    }

    /// `None`: refused for what was counted and put on record here.
    async fn exchanged(
        &self,
        presented: &str,
        hash: TokenHash,
    ) -> Result<(Option<Refreshed>, &'static str), RefreshError> {
        let now = self.clock.now();
        let found = self.found(presented, &hash).await?.ok_or(RefreshError::Refused)?;
        // By the store, whatever memory says: seldom asked, and it must not be behind.
        let session = self.sessions.find_id(&found.session).await?;
        let is_live = |live: &Arc<LiveSession>| {
            self.site.lifetimes.standing(live.session.age(), live.last_used(), now) == Standing::Live
        };
        let session = session.filter(is_live).ok_or(RefreshError::Refused)?;
        // Before the exchange: a token that is spent must not be lost for want of a key.
        let access_token = self.access_token(&session, now).await?;
        let (value, next) = self.fresh(&session, now);
        let place = place_of(self.address, self.user_agent);
        let end_of_session = self.site.lifetimes.end_of(session.session.age());
        let exchange = Exchange { presented: hash, next, now, end_of_session, place };
        let status = match self.tokens.exchange(exchange).await? {
            Exchanged::Done => "success",
            Exchanged::Again => {
                // Whoever lost the answer, or a thief at the same address: an administrator may want to know.
                self.record("refresh_repeated", &session, "within_grace");
                "repeated"
            }
            Exchanged::Unknown => return Err(RefreshError::Refused),
            Exchanged::Reused => {
                self.record("refresh_reused", &session, "family_revoked");
                self.metrics.sessions_revoked(1);
                return Ok((None, "reused"));
            }
            Exchanged::TooMany => {
                self.record("refresh_limit", &session, "family_revoked");
                self.metrics.sessions_revoked(1);
                return Ok((None, "failure"));
            }
        };
        self.sessions.used(&session, now);
        Ok((Some(Refreshed { session, access_token, refresh_token: Some(value.into()) }), status))
    }

    /// Ends the family of a refresh token, with its session. `false`: there is nothing to end.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn revoke(&self, presented: &SecretString) -> Result<bool, Unavailable> {
        let presented = presented.expose_secret();
        if presented.len() != LENGTH {
            return Ok(false);
        }
        let Some(found) = self.tokens.find_refresh(&TokenHash::of(presented)).await? else { return Ok(false) };
        let Some(session) = self.sessions.find_id(&found.session).await? else { return Ok(false) };
        let ended = self.sessions.end(End::One(session.id())).await?;
        self.metrics.sessions_revoked(ended);
        self.revoked(session.user(), "refresh_token");
        Ok(ended > 0)
    }

    /// An access token, whose signature was verified, holds no longer.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn revoke_access(
        &self,
        user: &str,
        session: &SessionId,
        jti: &str,
        until: Timestamp,
    ) -> Result<bool, Unavailable> {
        // It died with its session: not one more for every node to remember.
        if self.sessions.find_id(session).await?.is_none() {
            return Ok(false);
        }
        let revoked = self.tokens.revoke(jti, until).await?;
        if revoked != Revoked::Before {
            self.revoked(user, "access_token");
        }
        if let Revoked::WithSession(ended) = revoked {
            self.metrics.sessions_revoked(ended);
            self.told(user, "revocation_limit", "session_ended");
        }
        Ok(revoked != Revoked::Before)
    }

    fn revoked(&self, user: &str, detail: &'static str) {
        self.metrics.token_revoked();
        self.told(user, "token_revoked", detail);
    }

    fn record(&self, event: &'static str, session: &LiveSession, detail: &'static str) {
        self.told(session.user(), event, detail);
    }

    fn told(&self, user: &str, event: &'static str, detail: &'static str) {
        self.audit.record(AuditEvent {
            event,
            user: Some(user.to_owned()),
            address: self.address,
            request_id: Some(self.request_id.to_owned()),
            detail,
        });
    }

    async fn access_token(&self, session: &LiveSession, now: Timestamp) -> Result<SecretString, Unavailable> {
        let keys = self.keys.sure().await?;
        Ok(tokens::issue(&keys, &self.site.tokens, session, now, self.entropy)?)
    }

    /// Its value and what is stored of it.
    fn fresh(&self, live: &LiveSession, now: Timestamp) -> (String, RefreshToken) {
        let value = random_value(self.entropy);
        let session: &SessionId = live.id();
        let expires_at = end_of_refresh(&self.site.tokens, now, self.site.lifetimes.end_of(live.session.age()));
        let token = RefreshToken { hash: TokenHash::of(&value), session: session.clone(), expires_at };
        (value, token)
    }
}
