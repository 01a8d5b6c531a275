//! Passwords of Basic that were verified a moment ago, in memory alone. Asked by `identity::passwords`.
//!
//! What is remembered is a SHA-256 under a key that this process made up, and whom it named; it hangs on the cache of sessions (`Leash`), so that a
//! new password, a disabled user, other groups or a silent log of changes end it as they would a session. Of a wrong pair nothing is known but that it
//! was wrong a moment ago, and nobody is answered by that.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use moka::{policy::EvictionPolicy, sync::Cache};
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::{Digest as _, Sha256};

use super::{
    limit::bucket_of,
    session::{Leash, SessionCache},
    turns::{Joined, Turns},
};
use crate::{
    core::{identity::Identity, time::Timestamp, user::folded},
    ports::{Barred, Changes, Entropy, Mark, PasswordKey, PasswordTurn, Presentation, Unavailable, VerifiedPasswords},
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
    /// Those that regulation was told of.
    wrong: Cache<PasswordKey, ()>,
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
        let wrong =
            Cache::builder().max_capacity(WRONG).eviction_policy(EvictionPolicy::lru()).time_to_live(LIFE).build();
        Self { key: SecretBox::new(key), cache, sessions, changes, turns: Turns::default(), wrong }
    }

    fn stands(&self, mark: &Mark) -> bool {
        self.sessions.stands(&mark.dropped, mark.era)
    }

    async fn turn_of(&self, key: &PasswordKey) -> PasswordTurn {
        loop {
            let others = match self.turns.join(key) {
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

    async fn turn(&self, key: &PasswordKey) -> PasswordTurn {
        let turn = tokio::time::timeout(WAIT, self.turn_of(key)).await;
        turn.unwrap_or(PasswordTurn::Told(Err(Barred::Busy)))
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

    async fn mark(&self, user: &str) -> Result<Mark, Unavailable> {
        let user = folded(user);
        let Leash { user_dropped: dropped, era } = self.sessions.leash(&user);
        if !self.sessions.is_trusted() {
            // Users may live in a file, which is in memory too: without the database nobody learns whom it disables.
            self.changes.latest().await?;
        }
        Ok(Mark { user: user.into(), dropped, era })
    }

    fn remember(&self, key: PasswordKey, identity: &Arc<Identity>, read_at: &Mark) {
        // A change that came in between ended the leash too: what hangs on it is never recalled.
        if *folded(&identity.user) == *read_at.user && self.stands(read_at) {
            let leash = Leash { user_dropped: Arc::clone(&read_at.dropped), era: read_at.era };
            self.cache.insert(key, Arc::new(Entry { identity: ArcSwap::new(Arc::clone(identity)), leash }));
        }
    }

    fn is_newly_wrong(&self, key: &PasswordKey) -> bool {
        self.wrong.entry(*key).or_insert(()).is_fresh()
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

    fn presented(user: &str, word: &str, from: Option<&str>) -> Presentation {
        let address = from.map(|address| address.parse().unwrap());
        Presentation { user: user.to_owned(), password: word.into(), address }
    }

    fn key(passwords: &RememberedPasswords, user: &str, word: &str) -> PasswordKey {
        passwords.key(&presented(user, word, Some("192.0.2.7")))
    }

    #[tokio::test]
    async fn what_was_verified_is_recalled_until_the_user_changes() {
        let (sessions, passwords) = remembered(true);
        let secret = key(&passwords, "bob", "secret");
        let mark = passwords.mark("Bob").await.unwrap();
        passwords.remember(secret, &bob(0), &mark);
        let recalled = |word: &str, name: &str| {
            passwords.recall(&key(&passwords, name, word), Timestamp::from_unix_millis(1)).is_some()
        };
        assert!(recalled("secret", "bob") && recalled("secret", " BOB"), "names are folded");
        assert!(!recalled("Secret", "bob") && !recalled("", "bob") && !recalled("secret", "ann"));
        assert!(!recalled("bsecret", "bo"), "the name's end is not the password's beginning");
        sessions.drop_user("ann");
        assert!(recalled("secret", "bob"), "somebody else's change");
        sessions.drop_user("bob");
        assert!(!recalled("secret", "bob"));
        passwords.remember(secret, &bob(0), &mark);
        assert!(!recalled("secret", "bob"), "verified before the change, remembered after it");
    }

    #[tokio::test]
    async fn nothing_is_recalled_while_memory_is_unsure() {
        let (sessions, passwords) = remembered(true);
        let key = key(&passwords, "bob", "secret");
        passwords.remember(key, &bob(0), &passwords.mark("bob").await.unwrap());
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
        assert!(passwords.mark("bob").await.is_ok(), "it was looked at a moment ago");
        sessions.distrust();
        assert!(passwords.mark("bob").await.is_err());
    }

    /// `max_auth_age` asks when the password was presented: with this very request.
    #[tokio::test]
    async fn whoever_is_recalled_has_just_presented_it() {
        let (_sessions, passwords) = remembered(true);
        let key = key(&passwords, "bob", "secret");
        passwords.remember(key, &bob(0), &passwords.mark("bob").await.unwrap());
        let at =
            |millis| passwords.recall(&key, Timestamp::from_unix_millis(millis)).unwrap().signed_in_at.unix_millis();
        assert_eq!((at(1), at(4_999)), (0, 0), "not a new one for every request");
        assert_eq!((at(600_000), at(600_001)), (600_000, 600_000));
    }

    /// Where many sign out all the time, what was verified meanwhile is remembered all the same.
    #[tokio::test]
    async fn a_change_of_somebody_else_keeps_nothing_from_being_remembered() {
        let (sessions, passwords) = remembered(true);
        let key = key(&passwords, "bob", "secret");
        let recalled = || passwords.recall(&key, Timestamp::default()).is_some();
        let mark = passwords.mark("bob").await.unwrap();
        sessions.drop_user("ann");
        sessions.drop_session(&crate::core::session::SessionId("of ann".to_owned()));
        passwords.remember(key, &bob(0), &mark);
        assert!(recalled());
        for change in [|sessions: &SessionCache| sessions.drop_user("bob"), SessionCache::drop_all] {
            let mark = passwords.mark("bob").await.unwrap();
            change(&sessions);
            passwords.remember(key, &bob(0), &mark);
            assert!(!recalled());
        }
        passwords.remember(key, &bob(0), &passwords.mark("ann").await.unwrap());
        assert!(!recalled(), "whose changes nobody watched");
    }

    #[tokio::test]
    async fn names_of_nobody_take_no_room_for_long() {
        let (sessions, passwords) = remembered(true);
        let kept = passwords.mark("bob").await.unwrap();
        for number in 0..20_000 {
            drop(passwords.mark(&number.to_string()).await.unwrap());
        }
        assert!(sessions.known_users() < 10_000, "{}", sessions.known_users());
        sessions.drop_user("bob");
        assert!(!passwords.stands(&kept));
    }

    /// Regulation bars by address too: memory answers nobody from elsewhere.
    #[test]
    fn a_pair_is_another_from_another_address() {
        let (_, passwords) = remembered(true);
        let from = |from| passwords.key(&presented("bob", "secret", from)).0;
        let different = [None, Some("192.0.2.7"), Some("192.0.2.8"), Some("2001:db8::1"), Some("2001:db8:0:1::1")];
        let keys: std::collections::HashSet<[u8; 32]> = different.map(from).into();
        assert_eq!(keys.len(), different.len());
        assert_eq!(from(Some("2001:db8::1")), from(Some("2001:db8::ffff")), "one /64");
        assert_eq!(from(Some("::ffff:192.0.2.7")), from(Some("192.0.2.7")));
    }

    #[test]
    fn a_wrong_pair_is_newly_wrong_once() {
        let (_, passwords) = remembered(true);
        let (one, other) = (key(&passwords, "bob", "one"), key(&passwords, "bob", "other"));
        assert!(passwords.is_newly_wrong(&one) && passwords.is_newly_wrong(&other));
        assert!(!passwords.is_newly_wrong(&one));
        assert!(passwords.recall(&one, Timestamp::default()).is_none());
    }

    #[test]
    fn no_two_processes_share_keys() {
        let (_, one) = remembered(true);
        let (_, other) = remembered(true);
        assert!(key(&one, "bob", "secret") != key(&other, "bob", "secret"));
    }
}
