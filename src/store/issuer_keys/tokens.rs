//! Verified tokens of other issuers in memory. Asked by `gate` on every request with one; it looks itself whether what it finds still
//! counts.
//!
//! That a user's name is no local one is remembered as sessions are: what the log of changes tells of a user ends it, and so does a log
//! that was not read for a while (invariant 7).

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use moka::{policy::EvictionPolicy, sync::Cache};

use crate::{
    core::{
        ground::Watch,
        issuer::{ForeignTokenKey, TrustedIssuer, jwks::KeySet},
        user::folded,
    },
    ports::{ForeignTokens, NameCheck, Unavailable, Users, VerifiedToken},
    store::{
        api_tokens::DatabaseApiTokens,
        database::can_be_stored,
        session::{Generation, Leash, SessionCache, Watched},
    },
};

/// Memory for tokens, in bytes, roughly.
const CAPACITY: u64 = 128 * 1024 * 1024;
/// Forgotten after so long without a look: frees the memory of tokens that expired.
const FORGET: Duration = Duration::from_secs(3600);
/// Refused tokens known at most: whoever makes up another one each time is none the wiser and takes no more memory.
const REFUSED: u64 = 10_000;
/// A refused one is verified anew after so long: a clock may have been wrong.
const REFUSED_FOR: Duration = Duration::from_secs(30);

pub(in crate::store) struct MemoryTokens {
    verified: Cache<ForeignTokenKey, Arc<VerifiedToken>>,
    /// By what they were refused.
    refused: Cache<ForeignTokenKey, (Arc<TrustedIssuer>, Arc<KeySet>)>,
    cache: Arc<SessionCache>,
    users: Arc<dyn Users>,
    accounts: Arc<DatabaseApiTokens>,
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
        let refused = Cache::builder()
            .max_capacity(REFUSED)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(REFUSED_FOR)
            .build();
        Self { verified, refused, cache, users, accounts }
    }

    /// Nobody was called so when the users were read, which was after `read_at`.
    fn free(&self, name: &str, read_at: Generation) -> NameCheck {
        let mut watch: Option<Arc<dyn Watch>> = None;
        self.cache.keep(&folded(name), read_at, |leash: Leash| {
            watch = Some(Arc::new(Watched { cache: Arc::clone(&self.cache), leash }));
        });
        NameCheck::Free(watch)
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

    fn is_refused(&self, key: &ForeignTokenKey, issuer: &Arc<TrustedIssuer>, keys: &Arc<KeySet>) -> bool {
        self.refused.get(key).is_some_and(|(by, with)| Arc::ptr_eq(&by, issuer) && Arc::ptr_eq(&with, keys))
    }

    fn refuse(&self, key: ForeignTokenKey, issuer: &Arc<TrustedIssuer>, keys: &Arc<KeySet>) {
        self.refused.insert(key, (Arc::clone(issuer), Arc::clone(keys)));
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
        Ok(self.free(name, read_at))
    }

    async fn check_names(&self, names: &[Arc<str>]) -> Result<HashMap<Arc<str>, NameCheck>, Unavailable> {
        let read_at = self.cache.generation();
        let users = self.users.find_each(&names.iter().map(|name| &**name).collect::<Vec<_>>()).await?;
        let storable = names.iter().filter(|name| can_be_stored(name)).map(|name| folded(name)).collect::<Vec<_>>();
        let accounts = self.accounts.accounts_among(&storable).await?;
        let said = names.iter().filter_map(|name| {
            let folded = folded(name);
            let is_taken = users.said(&folded)?.is_some() || accounts.contains(&folded);
            let said = if is_taken { NameCheck::Taken } else { self.free(name, read_at) };
            Some((Arc::clone(name), said))
        });
        Ok(said.collect())
    }

    fn forget_all(&self) {
        self.verified.invalidate_all();
        self.refused.invalidate_all();
    }
}
