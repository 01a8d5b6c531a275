//! Where the records of sessions are kept: in the database, or in Redis. What both have to do for [`super::CachedSessions`], which keeps the
//! memory in front of them and knows the users; a keeper of records knows neither.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::cache::SessionCache;
use crate::{
    core::session::{Lifetimes, Session, SessionId, TokenHash},
    ports::{End, LiveSession, Unavailable},
};

/// The name in errors and metrics.
pub(super) const STORE: &str = "sessions";
/// Records that a step of the background work touches: others get their turn in between.
pub(super) const STEP: usize = 500;
/// Another node may hold a later use that it has not written yet: idle records stay for so long beyond their time.
pub(super) const IDLE_MARGIN: Duration = Duration::from_secs(600);

/// What one session is looked up by.
#[derive(Clone, Copy)]
pub(in crate::store) enum Key<'k> {
    GateHash(&'k TokenHash),
    Id(&'k SessionId),
}

/// What is there of many that were asked for.
#[derive(Default)]
pub(in crate::store) struct Found {
    pub(super) sessions: Vec<Session>,
    /// They are there, and cannot be read.
    pub(super) damaged: Vec<(SessionId, String)>,
}

/// What memory must no longer hold, whatever became of the operation: it may be that only the answer to it was lost.
#[derive(Default)]
pub(in crate::store) struct Forget {
    pub(super) sessions: Vec<SessionId>,
    /// By folded name: all sessions of theirs.
    pub(super) users: Vec<String>,
}

impl Forget {
    pub(super) fn apply(&self, cache: &SessionCache) {
        for id in &self.sessions {
            cache.drop_session(id);
        }
        for user in &self.users {
            cache.drop_user(user);
        }
    }
}

/// Every end is written to the log of changes in one step with what makes it hold.
#[async_trait]
pub(in crate::store) trait SessionRecords: Send + Sync {
    async fn find(&self, operation: &'static str, key: Key<'_>) -> Result<Option<Session>, Unavailable>;

    async fn find_each(&self, ids: &[SessionId]) -> Result<Found, Unavailable>;

    /// Those of these that there is no record of.
    async fn absent(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Unavailable>;

    /// With the end of those that are `named`, and of all that was handed over from them. `false`: it comes from a session that is over, and nothing was done.
    async fn insert(&self, session: &Session, named: &[SessionId], forget: &mut Forget) -> Result<bool, Unavailable>;

    /// Newest first.
    async fn list(&self, folded_user: Option<&str>) -> Result<Vec<Session>, Unavailable>;

    /// How many ended.
    async fn end(&self, which: End<'_>, forget: &mut Forget) -> Result<u64, Unavailable>;

    /// [`STEP`] at most. A use never goes back in time: another node may have written a later one.
    async fn write_uses(&self, uses: &[Arc<LiveSession>]) -> Result<(), Unavailable>;

    /// Deletes what no lifetime can bring back. Nothing is told: such a session is dead by its times wherever it is.
    async fn clean(&self, lifetimes: Lifetimes) -> Result<(), Unavailable>;

    async fn count(&self) -> Result<u64, Unavailable>;
}
