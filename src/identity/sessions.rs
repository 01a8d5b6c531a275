//! A caller's own sessions: list them, end one, end the others, sign out (CONTRACT 7). Called by the portal, which has made
//! sure who the caller is. Must never touch a session of somebody else.

use std::net::IpAddr;

use crate::{
    core::{
        session::{Lifetimes, Session, SessionId, Standing},
        time::Timestamp,
    },
    observe::metrics::Metrics,
    ports::{AuditEvent, AuditSink, End, LiveSession, Sessions, Unavailable},
};

/// What the caller may do with their sessions, and how it is put on record.
pub struct OwnSessions<'a> {
    pub sessions: &'a dyn Sessions,
    pub audit: &'a dyn AuditSink,
    pub metrics: &'a Metrics,
    pub address: Option<IpAddr>,
    pub request_id: &'a str,
}

impl OwnSessions<'_> {
    /// The caller's live sessions, newest first: one a sign-in, since those that were handed over end with it.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn list(
        &self,
        caller: &LiveSession,
        lifetimes: &Lifetimes,
        now: Timestamp,
    ) -> Result<Vec<Session>, Unavailable> {
        let mut sessions = self.sessions.list(Some(caller.user())).await?;
        // Last use is written behind: of the session that asks, memory knows better.
        for session in &mut sessions {
            if session.id == *caller.id() {
                session.last_used_at = session.last_used_at.max(caller.last_used());
            }
        }
        sessions.retain(|session| lifetimes.standing(session.age(), session.last_used_at, now) == Standing::Live);
        Ok(one_a_sign_in(sessions, caller.id()))
    }

    /// Ends one session of the caller. `false`: there is none of that id that is the caller's.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn end_one(&self, caller: &LiveSession, id: &SessionId) -> Result<bool, Unavailable> {
        // By the list of the caller's own, so that a foreign id and an unknown one look the same.
        let own = self.sessions.list(Some(caller.user())).await?;
        if !own.iter().any(|session| session.id == *id) {
            return Ok(false);
        }
        let ended = self.sessions.end(End::One(id)).await?;
        self.ended("session_ended", caller.user(), "by_user", ended);
        Ok(ended > 0)
    }

    /// Ends every session of the caller but the one that asks.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn end_others(&self, caller: &LiveSession) -> Result<u64, Unavailable> {
        let user = caller.user();
        let ended = self.sessions.end(End::AllBut { user, kept: caller.id() }).await?;
        self.ended("session_ended", user, "others", ended);
        Ok(ended)
    }

    /// Ends every session of the caller.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn end_all(&self, caller: &LiveSession) -> Result<u64, Unavailable> {
        let user = caller.user();
        let ended = self.sessions.end(End::AllOf { user }).await?;
        self.ended("sign_out", user, "everywhere", ended);
        Ok(ended)
    }

    /// Ends the sessions that a request's cookies name.
    ///
    /// # Errors
    /// The store cannot answer: the person is then still signed in, and is to be told so.
    pub async fn sign_out(&self, named: &[std::sync::Arc<LiveSession>]) -> Result<(), Unavailable> {
        for live in named {
            let ended = self.sessions.end(End::One(live.id())).await?;
            self.ended("sign_out", live.user(), "by_user", ended);
        }
        Ok(())
    }

    fn ended(&self, event: &'static str, user: &str, detail: &'static str, count: u64) {
        self.metrics.sessions_revoked(count);
        self.audit.record(AuditEvent {
            event,
            user: Some(user.to_owned()),
            address: self.address,
            request_id: Some(self.request_id.to_owned()),
            detail,
        });
    }
}

/// The one of the caller, else the one that it began with, else the newest; used when any of them was.
fn one_a_sign_in(sessions: Vec<Session>, caller: &SessionId) -> Vec<Session> {
    let mut told: Vec<Session> = Vec::with_capacity(sessions.len());
    for session in sessions {
        let rank = |session: &Session| (session.id == *caller, session.parent.is_none());
        match told.iter_mut().find(|other| other.sign_in() == session.sign_in()) {
            None => told.push(session),
            Some(other) => {
                let last_used_at = session.last_used_at.max(other.last_used_at);
                if rank(&session) > rank(other) {
                    *other = session;
                }
                other.last_used_at = last_used_at;
            }
        }
    }
    told
}
