//! Passwords of Basic that were verified a moment ago, in memory alone. Asked by `identity::passwords`.
//!
//! What is remembered is a SHA-256 under a key that this process made up, and whom it named; it hangs on the cache of sessions (`Leash`), so that a
//! new password, a disabled user, other groups or a silent log of changes end it as they would a session. A wrong password is never here.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use moka::{policy::EvictionPolicy, sync::Cache};
use secrecy::{ExposeSecret as _, SecretBox, SecretString};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex as AsyncMutex;

use super::session::{Generation, Leash, SessionCache};
use crate::{
    core::{identity::Identity, time::Timestamp, user::folded},
    ports::{Changes, Entropy, Mark, PasswordKey, PasswordTurn, Unavailable, VerifiedPasswords},
};

/// Pairs of name and password kept at most.
const CAPACITY: u64 = 100_000;
/// A password is verified anew after so long, however often it comes.
const LIFE: Duration = Duration::from_secs(600);
/// Turns that are over are forgotten when there are so many.
const MOST_ENDED: usize = 1_024;
/// How old the moment may look at which a caller presented the password (`max_auth_age`), who presents it with every request.
const STALE: Duration = Duration::from_secs(5);

pub(super) struct RememberedPasswords {
    key: SecretBox<[u8; 32]>,
    cache: Cache<PasswordKey, Arc<Entry>>,
    /// What says whether memory may be believed, and about whom.
    sessions: Arc<SessionCache>,
    changes: Arc<dyn Changes>,
    /// Those that are being verified now.
    turns: Mutex<HashMap<PasswordKey, Weak<AsyncMutex<()>>>>,
}

struct Entry {
    identity: ArcSwap<Identity>,
    leash: Leash,
}

impl RememberedPasswords {
    pub(super) fn new(sessions: Arc<SessionCache>, changes: Arc<dyn Changes>, entropy: &dyn Entropy) -> Self {
        let mut key = Box::new([0; 32]);
        entropy.fill(&mut *key);
        let cache =
            Cache::builder().max_capacity(CAPACITY).eviction_policy(EvictionPolicy::lru()).time_to_live(LIFE).build();
        Self { key: SecretBox::new(key), cache, sessions, changes, turns: Mutex::default() }
    }
}

#[async_trait]
impl VerifiedPasswords for RememberedPasswords {
    fn key(&self, user: &str, password: &SecretString) -> PasswordKey {
        let user = folded(user);
        let mut digest = Sha256::new();
        digest.update(self.key.expose_secret());
        // The length first, so that no two pairs give the same bytes.
        digest.update((user.len() as u64).to_le_bytes());
        digest.update(user.as_bytes());
        digest.update(password.expose_secret().as_bytes());
        PasswordKey(digest.finalize().into())
    }

    async fn turn(&self, key: &PasswordKey) -> PasswordTurn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() >= MOST_ENDED {
                turns.retain(|_, turn| turn.strong_count() > 0);
            }
            let known = turns.get(key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::default();
                turns.insert(*key, Arc::downgrade(&turn));
                turn
            })
        };
        PasswordTurn(Box::new(turn.lock_owned().await))
    }

    fn recall(&self, key: &PasswordKey, now: Timestamp) -> Option<Arc<Identity>> {
        let entry = self.cache.get(key).filter(|entry| self.sessions.holds(&entry.leash))?;
        let known = entry.identity.load_full();
        if now.since(known.signed_in_at) < STALE {
            return Some(known);
        }
        let fresh = Arc::new(known.presented_at(now));
        entry.identity.store(Arc::clone(&fresh));
        Some(fresh)
    }

    async fn mark(&self) -> Result<Mark, Unavailable> {
        let mark = Mark(self.sessions.generation().0);
        if !self.sessions.is_trusted() {
            // Users may live in a file, which is in memory too: without the database nobody learns whom it disables.
            self.changes.latest().await?;
        }
        Ok(mark)
    }

    fn remember(&self, key: PasswordKey, identity: &Arc<Identity>, read_at: Mark) {
        self.sessions.keep(&folded(&identity.user), Generation(read_at.0), |leash| {
            self.cache.insert(key, Arc::new(Entry { identity: ArcSwap::new(Arc::clone(identity)), leash }));
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{identity::Factor, user::User},
        ports::{Change, fakes::Stopped},
    };

    struct Log(bool);

    #[async_trait]
    impl Changes for Log {
        async fn latest(&self) -> Result<i64, Unavailable> {
            if self.0 { Ok(1) } else { Err(Unavailable { store: "changes", detail: "down".to_owned() }) }
        }
        async fn after(&self, _: i64) -> Result<Option<Vec<Change>>, Unavailable> {
            Ok(None)
        }
    }

    fn remembered(log: bool) -> (Arc<SessionCache>, RememberedPasswords) {
        let sessions = Arc::new(SessionCache::new(Arc::new(Stopped)));
        sessions.trust(Duration::ZERO);
        let passwords =
            RememberedPasswords::new(sessions.clone(), Arc::new(Log(log)), &crate::store::system::SystemEntropy);
        (sessions, passwords)
    }

    fn bob(at: i64) -> Arc<Identity> {
        let user = User::new("Bob", vec!["staff".to_owned()]);
        Arc::new(Identity::new(&user, Factor::One, Timestamp::from_unix_millis(at), None).unwrap())
    }

    #[tokio::test]
    async fn what_was_verified_is_recalled_until_the_user_changes() {
        let (sessions, passwords) = remembered(true);
        let key = passwords.key("bob", &"secret".into());
        let mark = passwords.mark().await.unwrap();
        passwords.remember(key, &bob(0), mark);
        let recalled = |word: &str, name: &str| {
            passwords.recall(&passwords.key(name, &word.into()), Timestamp::from_unix_millis(1)).is_some()
        };
        assert!(recalled("secret", "bob") && recalled("secret", " BOB"), "names are folded");
        assert!(!recalled("Secret", "bob") && !recalled("", "bob") && !recalled("secret", "ann"));
        assert!(!recalled("bsecret", "bo"), "the name's end is not the password's beginning");
        sessions.drop_user("ann");
        assert!(recalled("secret", "bob"), "somebody else's change");
        sessions.drop_user("bob");
        assert!(!recalled("secret", "bob"));
        passwords.remember(key, &bob(0), mark);
        assert!(!recalled("secret", "bob"), "verified before the change, remembered after it");
    }

    #[tokio::test]
    async fn nothing_is_recalled_while_memory_is_unsure() {
        let (sessions, passwords) = remembered(true);
        let key = passwords.key("bob", &"secret".into());
        passwords.remember(key, &bob(0), passwords.mark().await.unwrap());
        sessions.distrust();
        assert!(passwords.recall(&key, Timestamp::default()).is_none());
        sessions.trust(Duration::ZERO);
        assert!(passwords.recall(&key, Timestamp::default()).is_some());
        sessions.drop_all();
        assert!(passwords.recall(&key, Timestamp::default()).is_none());
    }

    #[tokio::test]
    async fn threat_32_no_password_counts_where_the_log_of_changes_is_out_of_reach() {
        let (sessions, passwords) = remembered(false);
        assert!(passwords.mark().await.is_ok(), "it was looked at a moment ago");
        sessions.distrust();
        assert!(passwords.mark().await.is_err());
    }

    /// `max_auth_age` asks when the password was presented: with this very request.
    #[tokio::test]
    async fn whoever_is_recalled_has_just_presented_it() {
        let (_sessions, passwords) = remembered(true);
        let key = passwords.key("bob", &"secret".into());
        passwords.remember(key, &bob(0), passwords.mark().await.unwrap());
        let at =
            |millis| passwords.recall(&key, Timestamp::from_unix_millis(millis)).unwrap().signed_in_at.unix_millis();
        assert_eq!((at(1), at(4_999)), (0, 0), "not a new one for every request");
        assert_eq!((at(600_000), at(600_001)), (600_000, 600_000));
    }

    #[tokio::test]
    async fn the_same_password_is_verified_by_one_after_another() {
        let (_sessions, passwords) = remembered(true);
        let key = |word: &str| passwords.key("bob", &word.into());
        let secret = key("secret");
        let first = passwords.turn(&secret).await;
        let other = passwords.turn(&key("other")).await;
        let waiting = passwords.turn(&secret);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            _ = &mut waiting => panic!("it is somebody else's turn"),
            () = std::future::ready(()) => {}
        }
        drop(first);
        waiting.await;
        drop(other);
        for number in 0..3 * MOST_ENDED {
            passwords.turn(&key(&number.to_string())).await;
        }
        assert!(passwords.turns.lock().unwrap().len() <= MOST_ENDED, "what is over is forgotten");
    }

    #[test]
    fn no_two_processes_share_keys() {
        let (_, one) = remembered(true);
        let (_, other) = remembered(true);
        assert!(one.key("bob", &"secret".into()) != other.key("bob", &"secret".into()));
    }
}
