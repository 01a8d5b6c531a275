//! Passwords of Basic that were verified a moment ago, in memory alone. Asked by `identity::passwords`.
//!
//! What is remembered is a SHA-256 under a key that this process made up, and whom it named; it hangs on the cache of sessions (`Leash`), so that a
//! new password, a disabled user, other groups or a silent log of changes end it as they would a session. Of a wrong pair nothing is known but that it
//! was wrong a moment ago, and nobody is answered by that.

mod turns;

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use moka::{policy::EvictionPolicy, sync::Cache};
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::{Digest as _, Sha256};

use self::turns::{Joined, Turns};
use super::session::{Leash, SessionCache, Watched};
use crate::{
    core::{
        client_ip::bucket_of,
        ground::{Stamp, Watch},
        identity::Identity,
        time::Timestamp,
        user::folded,
    },
    ports::{
        Barred, Changes, Entropy, Mark, PasswordKey, PasswordTurn, Presentation, Recognised, Unavailable,
        VerifiedPasswords,
    },
};

/// Pairs of name and password kept at most.
const CAPACITY: u64 = 100_000;
/// A password is verified anew after so long, however often it comes.
const LIFE: Duration = Duration::from_secs(600);
/// Wrong pairs known at most.
const WRONG: u64 = 10_000;
/// How long anybody waits for another who verifies the same pair.
const WAIT: Duration = Duration::from_secs(5);
/// How old the moment may look at which a caller presented the password (`max_auth_age`), who presents it with every request.
const STALE: Duration = Duration::from_secs(5);

pub(super) struct RememberedPasswords {
    key: SecretBox<[u8; 32]>,
    cache: Cache<PasswordKey, Arc<Entry>>,
    /// What says whether memory may be believed, and about whom.
    sessions: Arc<SessionCache>,
    changes: Arc<dyn Changes>,
    turns: Turns,
    /// Those that regulation has counted.
    wrong: Cache<PasswordKey, ()>,
}

struct Entry {
    identity: ArcSwap<Identity>,
    stamp: Stamp,
    watch: Arc<dyn Watch>,
}

impl RememberedPasswords {
    pub(super) fn new(sessions: Arc<SessionCache>, changes: Arc<dyn Changes>, entropy: &dyn Entropy) -> Self {
        let mut key = Box::new([0; 32]);
        entropy.fill(&mut *key);
        let cache =
            Cache::builder().max_capacity(CAPACITY).eviction_policy(EvictionPolicy::lru()).time_to_live(LIFE).build();
        let wrong =
            Cache::builder().max_capacity(WRONG).eviction_policy(EvictionPolicy::lru()).time_to_live(LIFE).build();
        Self { key: SecretBox::new(key), cache, sessions, changes, turns: Turns::default(), wrong }
    }

    fn stands(&self, mark: &Mark) -> bool {
        self.sessions.stands(&mark.dropped, mark.era)
    }

    fn mark_of(&self, user: &str) -> Mark {
        let user = folded(user);
        let Leash { user_dropped: dropped, era } = self.sessions.leash(&user);
        Mark { user: user.into(), dropped, era }
    }

    /// Whether anybody can tell that users have changed.
    async fn can_be_told(&self) -> Result<(), Unavailable> {
        if !self.sessions.is_trusted() {
            // Users may live in a file, which is in memory too: without the database nobody learns whom it disables.
            self.changes.latest().await?;
        }
        Ok(())
    }

    async fn turn_of(&self, key: &PasswordKey, address: Option<IpAddr>) -> PasswordTurn {
        loop {
            let others = match self.turns.join(key, address) {
                Joined::Lead(lead) => return PasswordTurn::Lead(lead),
                Joined::TooMany => return PasswordTurn::Told(Err(Barred::Busy)),
                Joined::Waiting(waiting) => waiting,
            };
            // Whoever led may have gone away, or read what has changed since.
            if let Some((told, mark)) = others.heard().await
                && mark.is_none_or(|mark| self.stands(&mark))
            {
                return PasswordTurn::Told(told);
            }
        }
    }
}

#[async_trait]
impl VerifiedPasswords for RememberedPasswords {
    fn key(&self, presented: &Presentation) -> PasswordKey {
        let user = folded(&presented.user);
        let mut digest = Sha256::new();
        digest.update(self.key.expose_secret());
        match presented.address.map(bucket_of) {
            None => digest.update([0]),
            Some(IpAddr::V4(address)) => {
                digest.update([4]);
                digest.update(address.octets());
            }
            Some(IpAddr::V6(address)) => {
                digest.update([6]);
                digest.update(address.octets());
            }
        }
        // The length first, so that no two pairs give the same bytes.
        digest.update((user.len() as u64).to_le_bytes());
        digest.update(user.as_bytes());
        digest.update(presented.password.expose_secret().as_bytes());
        PasswordKey(digest.finalize().into())
    }

    async fn turn(&self, key: &PasswordKey, address: Option<IpAddr>) -> PasswordTurn {
        let turn = tokio::time::timeout(WAIT, self.turn_of(key, address.map(bucket_of))).await;
        turn.unwrap_or(PasswordTurn::Told(Err(Barred::Busy)))
    }

    fn recall(&self, key: &PasswordKey, now: Timestamp) -> Option<Recognised> {
        let entry = self.cache.get(key).filter(|entry| entry.watch.is_unchanged())?;
        let mut identity = entry.identity.load_full();
        if now.since(identity.signed_in_at) >= STALE {
            identity = Arc::new(identity.presented_at(now));
            entry.identity.store(Arc::clone(&identity));
        }
        Some(Recognised { identity, stamp: entry.stamp, watch: Arc::clone(&entry.watch) })
    }

    async fn mark(&self, user: &str) -> Result<Mark, Unavailable> {
        let mark = self.mark_of(user);
        self.can_be_told().await?;
        Ok(mark)
    }

    async fn marks(&self, users: &[&str]) -> Result<Vec<Mark>, Unavailable> {
        let marks = users.iter().map(|user| self.mark_of(user)).collect();
        self.can_be_told().await?;
        Ok(marks)
    }

    fn remember(&self, key: PasswordKey, recognised: &Recognised, read_at: &Mark) {
        let Recognised { identity, stamp, watch: _ } = recognised;
        // A change that came in between ended the leash too: what hangs on it is never recalled.
        if *folded(&identity.user) == *read_at.user && self.stands(read_at) {
            let (identity, watch) = (ArcSwap::new(Arc::clone(identity)), self.watch(read_at));
            self.cache.insert(key, Arc::new(Entry { identity, stamp: *stamp, watch }));
        }
    }

    fn watch(&self, read_at: &Mark) -> Arc<dyn Watch> {
        let leash = Leash { user_dropped: Arc::clone(&read_at.dropped), era: read_at.era };
        Arc::new(Watched { cache: Arc::clone(&self.sessions), leash })
    }

    fn was_wrong(&self, key: &PasswordKey, is_now: bool) -> bool {
        if is_now { !self.wrong.entry(*key).or_insert(()).is_fresh() } else { self.wrong.contains_key(key) }
    }
}

#[cfg(test)]
mod tests;
