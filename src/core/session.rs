//! A session and the rules of its life. Stores keep sessions; whether one still counts is decided here.

use std::{
    fmt,
    net::IpAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{identity::Factor, time::Timestamp};

/// SHA-256 of a cookie's value: all that a store ever sees of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash(pub [u8; 32]);

impl TokenHash {
    #[must_use]
    pub fn of(value: &str) -> Self {
        Self(Sha256::digest(value.as_bytes()).into())
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

/// The public name of a session (`session_id`, `sid`): stays when a cookie's value changes, opens nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(Arc<str>);

impl SessionId {
    #[must_use]
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// No session's.
    #[must_use]
    pub fn nobodys() -> &'static Self {
        static NOBODYS: LazyLock<SessionId> = LazyLock::new(|| SessionId::new(""));
        &NOBODYS
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A session as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub id: SessionId,
    /// The user's name in its stored spelling.
    pub user: String,
    pub factor: Factor,
    /// The cookie domain it was signed in on; it counts on no other. Empty for `portal.path`, where the cookie has no Domain.
    pub domain: String,
    /// Hash of `postern_session`.
    pub gate_hash: TokenHash,
    /// Hash of the portal's own cookie, bound to this session.
    pub portal_hash: TokenHash,
    pub remembered: bool,
    pub created_at: Timestamp,
    pub signed_in_at: Timestamp,
    pub last_used_at: Timestamp,
    pub user_agent: String,
    pub address: Option<IpAddr>,
    /// The session whose sign-in was handed over to this one.
    pub parent: Option<SessionId>,
}

impl Session {
    /// The session that the sign-in began with: those of one sign-in end together.
    #[must_use]
    pub fn sign_in(&self) -> &SessionId {
        self.parent.as_ref().unwrap_or(&self.id)
    }

    #[must_use]
    pub fn age(&self) -> Age {
        Age { remembered: self.remembered, created_at: self.created_at, last_used_at: self.last_used_at }
    }
}

/// What every request needs of a session: memory keeps no more, since there may be a million. The identity knows the rest, its id too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionFacts {
    pub cookie: Arc<CookieFacts>,
    pub gate_hash: TokenHash,
    pub portal_hash: TokenHash,
    pub created_at: Timestamp,
    /// As stored.
    pub last_used_at: Timestamp,
    /// Few have one: a word for those that have none.
    pub parent: Option<Box<SessionId>>,
}

/// What sessions say of the cookie they were made with: few differ in that, so many share one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieFacts {
    pub domain: Box<str>,
    pub remembered: bool,
}

impl From<&Session> for SessionFacts {
    fn from(session: &Session) -> Self {
        let cookie = CookieFacts { domain: session.domain.as_str().into(), remembered: session.remembered };
        Self {
            cookie: Arc::new(cookie),
            gate_hash: session.gate_hash,
            portal_hash: session.portal_hash,
            created_at: session.created_at,
            last_used_at: session.last_used_at,
            parent: session.parent.clone().map(Box::new),
        }
    }
}

impl SessionFacts {
    #[must_use]
    pub fn age(&self) -> Age {
        Age { remembered: self.cookie.remembered, created_at: self.created_at, last_used_at: self.last_used_at }
    }
}

/// What the life of a session is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    pub remembered: bool,
    pub created_at: Timestamp,
    pub last_used_at: Timestamp,
}

/// How long sessions live (`session.idle`, `.lifetime`, `.remember_me`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    pub idle: Duration,
    pub lifetime: Duration,
    /// In place of both where the person asked to be remembered; zero: the offer is not made.
    pub remember_me: Duration,
}

/// What a look at a session's times says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Live,
    /// Unused for too long, as far as this record knows: another node may know better (invariant 8), so only a record
    /// just read from the store may be called dead for this.
    Idle,
    /// Older than its lifetime: dead whatever anybody knows.
    Expired,
}

impl Lifetimes {
    /// `last_used` may be later than the record's own.
    #[must_use]
    pub fn standing(&self, session: Age, last_used: Timestamp, now: Timestamp) -> Standing {
        let (idle, lifetime) =
            if session.remembered { (self.remember_me, self.remember_me) } else { (self.idle, self.lifetime) };
        if now.since(session.created_at) >= lifetime {
            Standing::Expired
        } else if now.since(last_used.max(session.last_used_at)) >= idle {
            Standing::Idle
        } else {
            Standing::Live
        }
    }

    /// When the session dies at the latest.
    #[must_use]
    pub fn end_of(&self, session: Age) -> Timestamp {
        session.created_at.after(if session.remembered { self.remember_me } else { self.lifetime })
    }
}
