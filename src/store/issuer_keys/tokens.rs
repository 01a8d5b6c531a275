//! Verified tokens of other issuers in memory. Asked by `gate` on every request with one; it looks itself whether what it finds still
//! counts.
//!
//! That a user's name is no local one is remembered as sessions are: what the log of changes tells of a user ends it, and so does a log
//! that was not read for a while (invariant 7).

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use moka::{policy::EvictionPolicy, sync::Cache};

use crate::{
    core::{issuer::ForeignTokenKey, user::folded},
    ports::{ForeignTokens, FreeName, NameCheck, Unavailable, Users, VerifiedToken},
    store::{
        api_tokens::DatabaseApiTokens,
        database::can_be_stored,
        session::{SessionCache, UserWatch},
    },
};

/// Memory for tokens, in bytes, roughly.
const CAPACITY: u64 = 128 * 1024 * 1024;
/// Forgotten after so long without a look: frees the memory of tokens that expired.
const FORGET: Duration = Duration::from_secs(3600);

pub(in crate::store) struct MemoryTokens {
    verified: Cache<ForeignTokenKey, Arc<VerifiedToken>>,
    cache: Arc<SessionCache>,
    users: Arc<dyn Users>,
    accounts: Arc<DatabaseApiTokens>,
}

struct Watched {
    cache: Arc<SessionCache>,
    watch: UserWatch,
}

impl FreeName for Watched {
    fn is_still_free(&self) -> bool {
        self.cache.knows_no_change(&self.watch)
    }
}

impl MemoryTokens {
    pub(in crate::store) fn new(
        cache: Arc<SessionCache>,
        users: Arc<dyn Users>,
        accounts: Arc<DatabaseApiTokens>,
    ) -> Self {
        let verified = Cache::builder()
            .max_capacity(CAPACITY)
            .weigher(|_, token: &Arc<VerifiedToken>| token.weight)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(FORGET)
            .build();
        Self { verified, cache, users, accounts }
    }
}

#[async_trait]
impl ForeignTokens for MemoryTokens {
    fn peek(&self, key: &ForeignTokenKey) -> Option<Arc<VerifiedToken>> {
        self.verified.get(key)
    }

    fn remember(&self, key: ForeignTokenKey, token: Arc<VerifiedToken>) {
        self.verified.insert(key, token);
    }

    async fn check_name(&self, name: &str) -> Result<NameCheck, Unavailable> {
        // Before the look: a user who is made meanwhile is not overlooked.
        let read_at = self.cache.generation();
        // An application tells callers apart by name: nobody is taken for a person or a machine of ours.
        if self.users.find(name).await?.is_some()
            || (can_be_stored(name) && self.accounts.has_account(&folded(name)).await?)
        {
            return Ok(NameCheck::Taken);
        }
        let watch = self.cache.watch(&folded(name), read_at);
        Ok(NameCheck::Free(
            watch.map(|watch| Arc::new(Watched { cache: Arc::clone(&self.cache), watch }) as Arc<dyn FreeName>),
        ))
    }

    fn forget_all(&self) {
        self.verified.invalidate_all();
    }
}
