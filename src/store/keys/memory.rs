//! The keys in memory: a look on every request that comes with a token, so never more than that. Several may read the store at once (the follower, a rotation,
//! requests while memory is unsure): what an older reading found never takes the place of what a newer one did. Requests share one, so that whoever sends
//! tokens by the thousand has the keys read and opened no more often than one after the other.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;

use crate::ports::{SigningKeys, Unavailable};

pub(super) struct Memory {
    held: ArcSwap<Held>,
    begun: AtomicU64,
    /// Held by the reading that requests share; within it what became of the last one that failed.
    shared: tokio::sync::Mutex<Option<(Reading, Unavailable)>>,
}

struct Held {
    reading: Reading,
    keys: Arc<SigningKeys>,
}

/// A reading of the store, by when it began: what was changed before, it has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reading(u64);

impl Memory {
    pub(super) fn of(keys: SigningKeys) -> Self {
        let held = Held { reading: Reading(0), keys: Arc::new(keys) };
        Self { held: ArcSwap::from_pointee(held), begun: AtomicU64::new(0), shared: tokio::sync::Mutex::default() }
    }

    pub(super) fn keys(&self) -> Arc<SigningKeys> {
        self.held.load().keys.clone()
    }

    /// What `load` finds, or what another reading found that began after this was called: an older one may have missed what was removed by then. One
    /// at a time; where one fails, it fails for all that waited.
    pub(super) async fn shared(
        &self,
        load: impl Future<Output = Result<SigningKeys, Unavailable>>,
    ) -> Result<Arc<SigningKeys>, Unavailable> {
        let newest = Reading(self.begun.load(Ordering::SeqCst));
        let mut failed = self.shared.lock().await;
        let held = self.held.load();
        if held.reading > newest {
            return Ok(held.keys.clone());
        }
        if let Some((reading, error)) = &*failed
            && *reading > newest
        {
            return Err(error.clone());
        }
        let reading = self.begin();
        match load.await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                self.take(reading, &keys);
                Ok(keys)
            }
            Err(error) => {
                *failed = Some((reading, error.clone()));
                Err(error)
            }
        }
    }

    /// To be taken before the store is read.
    pub(super) fn begin(&self) -> Reading {
        Reading(self.begun.fetch_add(1, Ordering::SeqCst) + 1)
    }

    pub(super) fn take(&self, reading: Reading, keys: &Arc<SigningKeys>) {
        let new = Arc::new(Held { reading, keys: keys.clone() });
        self.held.rcu(|held| if held.reading < reading { new.clone() } else { held.clone() });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::ports::fakes::key;

    fn keys(seed: u8) -> Arc<SigningKeys> {
        Arc::new(SigningKeys::new(vec![key(seed)]))
    }

    #[test]
    fn an_older_reading_never_takes_the_place_of_a_newer_one() {
        let memory = Memory::of(SigningKeys::new(vec![key(1)]));
        let kid = || memory.keys().newest().unwrap().kid.clone();
        let (older, newer) = (memory.begin(), memory.begin());
        memory.take(newer, &keys(3));
        memory.take(older, &keys(2));
        assert_eq!(kid(), "key-3");
        memory.take(memory.begin(), &keys(4));
        assert_eq!(kid(), "key-4");
        // One that began and failed stands in nobody's way.
        let (older, _failed) = (memory.begin(), memory.begin());
        memory.take(older, &keys(5));
        assert_eq!(kid(), "key-5");
    }

    /// Every reading waits until it may end; answers how many there were when all have asked.
    async fn asked_at_once(found: impl Fn() -> Result<SigningKeys, Unavailable>) -> (usize, Vec<bool>) {
        let memory = Memory::of(SigningKeys::new(vec![key(1)]));
        let (readings, gate) = (AtomicUsize::new(0), Semaphore::new(0));
        let load = || async {
            readings.fetch_add(1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            found()
        };
        let first = memory.shared(load());
        let others = futures_util::future::join_all((0..100).map(|_| memory.shared(load())));
        let open = async {
            // By now all have been polled.
            gate.add_permits(2);
        };
        let (first, others, ()) = tokio::join!(first, others, open);
        (readings.into_inner(), std::iter::once(first).chain(others).map(|answer| answer.is_ok()).collect())
    }

    #[tokio::test]
    async fn many_who_ask_at_once_share_a_reading_that_began_after_they_asked() {
        let (readings, answers) = asked_at_once(|| Ok(SigningKeys::new(vec![key(2)]))).await;
        assert_eq!(readings, 2, "the one that was under way, and one for all who came after it began");
        assert!(answers.into_iter().all(|is_ok| is_ok));
    }

    #[tokio::test]
    async fn a_reading_that_fails_fails_for_all_who_waited() {
        let down = || Err(Unavailable { store: "keys", detail: "down".to_owned() });
        let (readings, answers) = asked_at_once(down).await;
        assert_eq!(readings, 2);
        assert!(answers.into_iter().all(|is_ok| !is_ok));
    }

    #[tokio::test]
    async fn what_failed_before_is_asked_again() {
        let memory = Memory::of(SigningKeys::new(vec![key(1)]));
        let down = async { Err(Unavailable { store: "keys", detail: "down".to_owned() }) };
        assert!(memory.shared(down).await.is_err());
        let found = memory.shared(async { Ok(SigningKeys::new(vec![key(2)])) }).await.unwrap();
        assert_eq!(found.newest().unwrap().kid, "key-2");
        // Whoever gives up in the middle stands in nobody's way.
        drop(tokio::time::timeout(std::time::Duration::ZERO, memory.shared(std::future::pending())).await);
        let found = memory.shared(async { Ok(SigningKeys::new(vec![key(3)])) }).await.unwrap();
        assert_eq!(found.newest().unwrap().kid, "key-3");
    }
}
