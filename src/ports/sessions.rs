use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;

use super::{Each, Unavailable};
use crate::core::{
    identity::Identity,
    session::{Session, SessionFacts, SessionId, TokenHash},
    time::Timestamp,
};

/// A session with its user as they are now, shared by all requests that use it.
#[derive(Debug)]
pub struct LiveSession {
    pub session: SessionFacts,
    /// Names the session too.
    pub identity: Arc<Identity>,
    last_used: AtomicI64,
}

impl LiveSession {
    /// `identity` becomes this session's, whatever it was before.
    #[must_use]
    pub fn new(session: &Session, identity: Identity) -> Self {
        Self::of(session.id.clone(), SessionFacts::from(session), identity)
    }

    /// The same of what is shared with other sessions as far as it can be.
    #[must_use]
    pub fn of(id: SessionId, session: SessionFacts, mut identity: Identity) -> Self {
        identity.session = Some(id);
        let last_used = AtomicI64::new(session.last_used_at.unix_millis());
        Self { session, identity: Arc::new(identity), last_used }
    }

    #[must_use]
    pub fn id(&self) -> &SessionId {
        // It has one since it was made here.
        self.identity.session.as_ref().unwrap_or(SessionId::nobodys())
    }

    /// The user's name in its stored spelling.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.identity.user
    }

    #[must_use]
    pub fn last_used(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.last_used.load(Ordering::Relaxed))
    }

    /// Notes a use; returns the use before.
    pub fn touch(&self, at: Timestamp) -> Timestamp {
        Timestamp::from_unix_millis(self.last_used.fetch_max(at.unix_millis(), Ordering::Relaxed))
    }
}

/// What memory knows about a session without asking any store (invariant 3).
#[derive(Debug, Clone)]
pub enum Peek {
    Hit(Arc<LiveSession>),
    /// Known not to exist.
    Gone,
    /// Not in memory, or memory may be stale: ask the store.
    Unsure,
}

/// Which sessions to end.
#[derive(Debug, Clone, Copy)]
pub enum End<'e> {
    /// With all that belongs to the same sign-in: what was handed over from it, and what it was handed over from.
    One(&'e SessionId),
    AllOf {
        user: &'e str,
    },
    /// What belongs to the same sign-in as `kept` stays too.
    AllBut {
        user: &'e str,
        kept: &'e SessionId,
    },
}

/// Sessions, shared by all nodes. A session of a user who is disabled or gone is not found.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// By the hash of the session cookie; never waits.
    fn peek(&self, gate_hash: &TokenHash) -> Peek;
    /// By public id; never waits.
    fn peek_id(&self, id: &SessionId) -> Peek;
    /// The same for no request: nothing that counts requests counts it.
    fn glance(&self, id: &SessionId) -> Peek;
    /// Reads the store, whatever memory says, and remembers the answer.
    async fn find(&self, gate_hash: &TokenHash) -> Result<Option<Arc<LiveSession>>, Unavailable>;
    async fn find_id(&self, id: &SessionId) -> Result<Option<Arc<LiveSession>>, Unavailable>;
    /// Which of these the store does not have, whatever memory says: for tidying up after them. A session of a user who is disabled is there all the
    /// same, so no answer of [`Sessions::find_id`] tells this.
    async fn absent(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Unavailable>;
    /// Those of them that there are; in as few questions as the store can be asked them in.
    async fn find_ids(&self, ids: &[SessionId]) -> Result<Each<SessionId, Arc<LiveSession>>, Unavailable> {
        let mut each = Each::default();
        for id in ids {
            each.found.extend(self.find_id(id).await?.map(|live| (id.clone(), live)));
        }
        Ok(each)
    }
    /// Stores a session and ends those that the request's cookies named, with what was handed over from them, in one transaction. One that was
    /// handed over itself is only stored where the session that it came from still is.
    async fn create(&self, session: Session, ended: &[SessionId]) -> Result<Arc<LiveSession>, Unavailable>;
    /// Notes a use; written behind in batches, so never waits.
    fn used(&self, session: &Arc<LiveSession>, at: Timestamp);
    /// Newest first. `None`: of every user.
    async fn list(&self, user: Option<&str>) -> Result<Vec<Session>, Unavailable>;
    /// How many ended. This node forgets them before it answers, the others by the log of changes.
    async fn end(&self, which: End<'_>) -> Result<u64, Unavailable>;
}
