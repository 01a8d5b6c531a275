//! The sessions that memory holds, by both their names, and how it forgets those that nobody looks at. Called by `cache` alone, which says what may be
//! remembered and what is over; nothing here reads a store or decides that a session counts.
//!
//! Why no cache of a library: there may be a million sessions, and moka's own record of an entry weighs more than the session does (PERFORMANCE.md has
//! the goal). Here an entry is three words in a table, and one more in the index by id. To look one up takes a read lock of one of many shards; whoever
//! writes holds one for as long as it takes to go over the two thousand entries that a full one has, at most: where its table grows, or the oldest is looked for.

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use hashbrown::HashTable;

use crate::{
    core::session::{SessionId, TokenHash},
    ports::LiveSession,
};

/// As many as may be had of a shard before another is worth its while.
const IN_A_SHARD: usize = 1_024;
/// So many that with a million sessions, and with two, a table is a bit smaller than it may be before it doubles.
const MOST_SHARDS: usize = 1_200;

struct Entry {
    live: Arc<LiveSession>,
    /// Shared with whoever drops the user.
    user_dropped: Arc<AtomicBool>,
    /// When it was last looked up: monotonic seconds.
    used_at: AtomicU32,
}

#[derive(Default)]
struct Shard {
    by_hash: RwLock<HashTable<Entry>>,
    /// What is in some shard's `by_hash`, or about to be, and no more.
    by_id: RwLock<HashTable<Arc<LiveSession>>>,
}

pub(super) struct Entries {
    shards: Box<[Shard]>,
    most_in_a_shard: usize,
    hasher: RandomState,
    /// All of them were dropped at once.
    is_over: AtomicBool,
}

impl Entries {
    pub(super) fn none(capacity: usize) -> Arc<Self> {
        let shards = (capacity / IN_A_SHARD).clamp(1, MOST_SHARDS);
        Arc::new(Self {
            shards: (0..shards).map(|_| Shard::default()).collect(),
            most_in_a_shard: capacity.div_ceil(shards),
            hasher: RandomState::new(),
            is_over: AtomicBool::new(false),
        })
    }

    pub(super) fn by_hash(&self, hash: &TokenHash, now: Duration) -> Option<Arc<LiveSession>> {
        let place = place_of(hash);
        let entries = read(&self.shard(place)?.by_hash);
        let entry = entries.find(place, |entry| entry.live.session.gate_hash == *hash)?;
        if entry.user_dropped.load(Ordering::Acquire) || self.is_over.load(Ordering::Acquire) {
            return None;
        }
        // Written once a second at most, so that processors need not fetch the line from one another.
        let now = seconds(now);
        if entry.used_at.load(Ordering::Relaxed) != now {
            entry.used_at.store(now, Ordering::Relaxed);
        }
        Some(entry.live.clone())
    }

    pub(super) fn by_id(&self, id: &SessionId, now: Duration) -> Option<Arc<LiveSession>> {
        let live = self.known(id)?;
        // What counts is what is found by hash: it is taken out there first.
        self.by_hash(&live.session.gate_hash, now).filter(|found| Arc::ptr_eq(found, &live))
    }

    /// Whether it still counts or not.
    pub(super) fn known(&self, id: &SessionId) -> Option<Arc<LiveSession>> {
        let place = self.hasher.hash_one(id);
        read(&self.shard(place)?.by_id).find(place, |live| live.id() == id).cloned()
    }

    /// In place of whatever was there by either name; where there is no room, of what was not looked up for the longest time.
    pub(super) fn insert(&self, live: &Arc<LiveSession>, user_dropped: Arc<AtomicBool>, now: Duration) {
        drop(self.remove(live.id()));
        let place = self.hasher.hash_one(live.id());
        if let Some(shard) = self.shard(place) {
            // First: whatever takes it out by its hash finds it here.
            write(&shard.by_id).insert_unique(place, live.clone(), |live| self.hasher.hash_one(live.id()));
        }
        let place = place_of(&live.session.gate_hash);
        let Some(shard) = self.shard(place) else { return };
        let out = {
            let mut entries = write(&shard.by_hash);
            let out = match take(&mut entries, place, |entry| entry.live.session.gate_hash == live.session.gate_hash) {
                None if entries.len() >= self.most_in_a_shard => oldest(&mut entries),
                out => out,
            };
            let entry = Entry { live: live.clone(), user_dropped, used_at: AtomicU32::new(seconds(now)) };
            entries.insert_unique(place, entry, |entry| place_of(&entry.live.session.gate_hash));
            out
        };
        if let Some(out) = out {
            self.unlist(&out.live);
        }
    }

    pub(super) fn remove(&self, id: &SessionId) -> Option<Arc<LiveSession>> {
        let live = self.known(id)?;
        let place = place_of(&live.session.gate_hash);
        let out = self
            .shard(place)
            .and_then(|shard| take(&mut write(&shard.by_hash), place, |entry| Arc::ptr_eq(&entry.live, &live)));
        drop(out);
        self.unlist(&live);
        Some(live)
    }

    /// Out of the index by id, if it is there and not another one by that id.
    fn unlist(&self, live: &Arc<LiveSession>) {
        let place = self.hasher.hash_one(live.id());
        let out = self
            .shard(place)
            .and_then(|shard| take(&mut write(&shard.by_id), place, |listed| Arc::ptr_eq(listed, live)));
        drop(out);
    }

    /// None of them counts any more, for whoever still looks into these.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Of [`Entries::clean`].
    pub(super) fn steps(&self) -> usize {
        self.shards.len()
    }

    /// Forgets of one shard what was not looked up for so `long`, as what was dropped with its user is not. What was held is freed under no lock.
    pub(super) fn clean(&self, step: usize, now: Duration, long: Duration) {
        let Some(shard) = self.shards.get(step) else { return };
        let since = seconds(now).saturating_sub(seconds(long));
        let gone: Vec<Entry> = {
            let mut entries = write(&shard.by_hash);
            let gone = entries.extract_if(|entry| *entry.used_at.get_mut() < since).collect();
            shrink(&mut entries, |entry| place_of(&entry.live.session.gate_hash));
            gone
        };
        for Entry { live, .. } in &gone {
            self.unlist(live);
        }
        shrink(&mut write(&shard.by_id), |live| self.hasher.hash_one(live.id()));
    }

    /// By hash and by id.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let sizes = self.shards.iter().map(|shard| (read(&shard.by_hash).len(), read(&shard.by_id).len()));
        sizes.fold((0, 0), |all, each| (all.0 + each.0, all.1 + each.1))
    }

    fn shard(&self, place: u64) -> Option<&Shard> {
        // The table itself goes by the lowest bits and the seven highest: these are 32 from between them, scaled to the number of shards.
        let (between, shards) = (place >> 16 & 0xFFFF_FFFF, self.shards.len() as u64);
        self.shards.get(usize::try_from((between * shards) >> 32).unwrap_or_default())
    }
}

/// Nobody but this server makes up what these are hashes of, so nobody can heap them up in one place.
fn place_of(TokenHash(bytes): &TokenHash) -> u64 {
    bytes.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}

fn take<T>(table: &mut HashTable<T>, place: u64, is_it: impl FnMut(&T) -> bool) -> Option<T> {
    table.find_entry(place, is_it).ok().map(|found| found.remove().0)
}

/// Whoever brings one more read the store for it: to look at all of a shard costs little beside that.
fn oldest(entries: &mut HashTable<Entry>) -> Option<Entry> {
    let (place, live) = entries
        .iter()
        .min_by_key(|entry| entry.used_at.load(Ordering::Relaxed))
        .map(|entry| (place_of(&entry.live.session.gate_hash), entry.live.clone()))?;
    take(entries, place, |entry| Arc::ptr_eq(&entry.live, &live))
}

/// Gives back what a table does not need any more, once that is most of it.
fn shrink<T>(table: &mut HashTable<T>, place: impl Fn(&T) -> u64) {
    if table.capacity() / 4 > table.len() {
        table.shrink_to_fit(place);
    }
}

fn seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

const _: () = assert!(size_of::<Entry>() == 24, "of these there may be millions");
