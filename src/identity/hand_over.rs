//! Handing a sign-in over from the portal of one cookie domain to another's (`session.hand_over`). Called by the portal alone.
//!
//! A code is 256 random bits, known by its hash, redeemed once and within `HOLDS`. It says whose sign-in it is, to which domain, for which browser
//! and for which page; whoever has it without that browser has nothing. What is handed over is no more than what was there: same user, factor and
//! age, and it ends together with the session that it came from.

use std::{net::IpAddr, sync::Arc, time::Duration};

use secrecy::SecretString;

use super::sign_in::{kept_user_agent, random_value, session_id};
use crate::{
    core::{
        session::{Session, SessionId, Standing, TokenHash},
        site::Site,
    },
    ports::{AuditEvent, AuditSink, Clock, Entropy, HandOver, HandOvers, LiveSession, Sessions, Unavailable},
};

/// From one redirect to the next.
const HOLDS: Duration = Duration::from_secs(30);

/// What handing over needs; one a process.
pub struct HandingOver {
    pub hand_overs: Arc<dyn HandOvers>,
    pub sessions: Arc<dyn Sessions>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub audit: Arc<dyn AuditSink>,
}

/// What the portal that asked wants, as it came back in a code.
pub struct Asked {
    /// Its cookie domain.
    pub domain: String,
    pub state: String,
    pub rd: String,
    pub rm: String,
}

/// Whoever brings a code.
pub struct Bearer<'b> {
    /// Cookie domain of the portal that they brought it to.
    pub domain: &'b str,
    /// Whether a state was made for this browser and this page.
    pub is_state: &'b (dyn Fn(&Asked) -> bool + Sync),
    pub user_agent: &'b str,
    pub address: Option<IpAddr>,
    pub request_id: &'b str,
    /// Sessions named by the request's cookies: ended with the sign-in.
    pub replaced: &'b [SessionId],
}

/// The secrets of the session that came out of it.
pub struct HandedOver {
    pub session: Arc<LiveSession>,
    pub gate_cookie: SecretString,
    pub portal_cookie: SecretString,
    pub asked: Asked,
}

#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The word is for the audit log; whoever asks is told the same for all.
    #[error("the hand-over does not count: {0}")]
    Refused(&'static str),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl HandingOver {
    /// A code for the sign-in of `live`, whom the caller has seen by both cookies.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn give(&self, live: &LiveSession, asked: Asked) -> Result<SecretString, Unavailable> {
        let Asked { domain, state, rd, rm } = asked;
        let code = random_value(&*self.entropy);
        let expires_at = self.clock.now().after(HOLDS);
        let session = live.id().clone();
        let hand_over = HandOver { session, domain, state, rd, rm, expires_at };
        self.hand_overs.give(&TokenHash::of(&code), hand_over).await?;
        Ok(code.into())
    }

    /// A session for whoever brings a code. The code is gone, whatever comes of it.
    ///
    /// # Errors
    /// As [`HandOverError`] says.
    pub async fn accept(&self, site: &Site, code: &str, bearer: &Bearer<'_>) -> Result<HandedOver, HandOverError> {
        let accepted = match self.found(site, code, bearer).await {
            Ok((from, asked)) => self.opened(&from, asked, bearer).await,
            Err(error) => Err(error),
        };
        let (user, detail) = match &accepted {
            Ok(handed_over) => (Some(handed_over.session.user().to_owned()), "accepted"),
            Err(HandOverError::Refused(why)) => (None, *why),
            Err(HandOverError::Unavailable(_)) => return accepted,
        };
        self.audit.record(AuditEvent {
            event: "hand_over",
            user,
            address: bearer.address,
            request_id: Some(bearer.request_id.to_owned()),
            detail,
        });
        accepted
    }

    async fn found(
        &self,
        site: &Site,
        code: &str,
        bearer: &Bearer<'_>,
    ) -> Result<(Arc<LiveSession>, Asked), HandOverError> {
        let refused = |why| Err(HandOverError::Refused(why));
        let Some(hand_over) = self.hand_overs.redeem(&TokenHash::of(code)).await? else { return refused("unknown") };
        let HandOver { session, domain, state, rd, rm, expires_at } = hand_over;
        let now = self.clock.now();
        if now >= expires_at {
            return refused("expired");
        }
        if domain != bearer.domain {
            return refused("other_domain");
        }
        let asked = Asked { domain, state, rd, rm };
        if !(bearer.is_state)(&asked) {
            return refused("other_browser");
        }
        // As the store has it now: nothing that was ended since the code was given is handed over.
        let Some(from) = self.sessions.find_id(&session).await? else { return refused("session_ended") };
        if site.lifetimes.standing(from.session.age(), from.last_used(), now) != Standing::Live {
            return refused("session_ended");
        }
        Ok((from, asked))
    }

    async fn opened(&self, from: &LiveSession, asked: Asked, bearer: &Bearer<'_>) -> Result<HandedOver, HandOverError> {
        let gate_cookie = random_value(&*self.entropy);
        let portal_cookie = random_value(&*self.entropy);
        let session = Session {
            id: session_id(&*self.entropy),
            user: from.user().to_owned(),
            factor: from.identity.factor,
            domain: asked.domain.clone(),
            gate_hash: TokenHash::of(&gate_cookie),
            portal_hash: TokenHash::of(&portal_cookie),
            remembered: from.session.cookie.remembered,
            // As old as the sign-in itself: to be handed over does not make it younger.
            created_at: from.session.created_at,
            signed_in_at: from.identity.signed_in_at,
            last_used_at: self.clock.now(),
            user_agent: kept_user_agent(bearer.user_agent),
            address: bearer.address,
            parent: Some(from.id().clone()),
        };
        let session = match self.sessions.create(session, bearer.replaced).await {
            Ok(session) => session,
            // It may have ended after it was found: then that is what there is to say.
            Err(error) => match self.sessions.find_id(from.id()).await {
                Ok(None) => return Err(HandOverError::Refused("session_ended")),
                Ok(Some(_)) | Err(_) => return Err(error.into()),
            },
        };
        Ok(HandedOver { session, gate_cookie: gate_cookie.into(), portal_cookie: portal_cookie.into(), asked })
    }
}
