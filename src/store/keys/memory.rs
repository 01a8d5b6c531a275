//! The keys in memory: a look on every request that comes with a token, so never more than that. Several may read the store at once (the follower, a rotation,
//! requests while memory is unsure): what an older reading found never takes the place of what a newer one did.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;

use crate::ports::SigningKeys;

pub(super) struct Memory {
    held: ArcSwap<Held>,
    begun: AtomicU64,
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
        Self { held: ArcSwap::from_pointee(held), begun: AtomicU64::new(0) }
    }

    pub(super) fn keys(&self) -> Arc<SigningKeys> {
        self.held.load().keys.clone()
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
}
