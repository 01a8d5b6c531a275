use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use async_trait::async_trait;

use super::{Each, Unavailable};
use crate::core::{
    api_token::{ApiToken, ApiTokenId, Owner},
    identity::Identity,
    session::TokenHash,
    time::Timestamp,
    user::BadUser,
};

/// A token whose owner may use it, with the owner as they are now. Whether it has expired is asked of it by whoever knows the time.
#[derive(Debug)]
pub struct LiveApiToken {
    pub token: ApiToken,
    pub identity: Arc<Identity>,
    /// Milliseconds since 1970.
    last_used: AtomicI64,
}

impl LiveApiToken {
    #[must_use]
    pub fn new(token: ApiToken, identity: Arc<Identity>) -> Self {
        let last_used = token.last_used_at.map_or(i64::MIN, Timestamp::unix_millis);
        Self { token, identity, last_used: AtomicI64::new(last_used) }
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

/// Which tokens to revoke.
#[derive(Debug, Clone, Copy)]
pub enum Revoke<'r> {
    One(&'r ApiTokenId),
    /// Of a service account also the account itself.
    AllOf(&'r Owner),
}

#[derive(Debug, thiserror::Error)]
pub enum ApiTokenError {
    #[error("there is no user {0:?}, or the user is disabled")]
    NoUser(String),
    #[error("{0:?} is a user's name; a service account needs one of its own")]
    UsersName(String),
    #[error(transparent)]
    Bad(#[from] BadUser),
    #[error("{0:?} has {1} tokens already: revoke one that is not used any more")]
    TooMany(String, u64),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// API tokens and service accounts, shared by all nodes. A token of a user who is disabled or gone, or who has another token version than when it
/// was made, is not found.
#[async_trait]
pub trait ApiTokens: Send + Sync {
    /// What memory knows, without asking any store (invariant 3); `None`: ask the store.
    fn peek(&self, hash: &TokenHash) -> Option<Arc<LiveApiToken>>;
    /// Reads the store, whatever memory says, and remembers the answer.
    async fn find(&self, hash: &TokenHash) -> Result<Option<Arc<LiveApiToken>>, Unavailable>;
    /// Those of them that there are; in as few questions as the store can be asked them in.
    async fn find_each(&self, hashes: &[TokenHash]) -> Result<Each<TokenHash, Arc<LiveApiToken>>, Unavailable> {
        let mut each = Each::default();
        for hash in hashes {
            each.found.extend(self.find(hash).await?.map(|live| (*hash, live)));
        }
        Ok(each)
    }
    /// Stores a token under the owner's present token version. Where it names one (not 0), the owner must still have that: whoever asked may be somebody
    /// whose sessions ended meanwhile. `groups`: those of the service account from now on, in place of any before;
    /// an account that is missing is made.
    async fn create(&self, token: ApiToken, groups: Option<Vec<String>>) -> Result<ApiToken, ApiTokenError>;
    /// Notes a use; written behind in batches, so never waits.
    fn used(&self, live: &Arc<LiveApiToken>, at: Timestamp);
    /// Newest first, the expired included. `None`: of everybody.
    async fn list(&self, owner: Option<&Owner>) -> Result<Vec<ApiToken>, Unavailable>;
    /// How many there were. This node forgets them before it answers, the others by the log of changes.
    async fn revoke(&self, which: Revoke<'_>) -> Result<u64, Unavailable>;
}
