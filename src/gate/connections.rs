//! Counts connections, in all and by source, and refuses what is beyond `server.connections` and `server.source_connections` (THREATS 57, 58).
//! Asked by the listeners of both roles once a connection, before it has cost anything, never for a request.
//!
//! A place that was taken is a value, [`Place`]: whatever ends a connection drops it, also a panic, a task that is cancelled or a
//! handshake that fails. Memory is bounded by `server.connections`: a source without connections has no entry.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::{BuildHasher, RandomState},
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
};

use crate::{core::client_ip::bucket_of, observe::metrics::Metrics, ports::Clock};

/// Each with a lock of its own, which is held for one look into a table.
const SHARDS: usize = 32;
/// A part of all that is kept for trusted proxies: or whoever comes by none could shut out all who come by one.
const RESERVE: usize = 8;
/// Between two warnings of one kind: a flood must not flood the log.
const QUIET_MILLIS: i64 = 60_000;
/// Whoever has no address shares one (never seen on TCP).
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// What every listener of a process counts in together.
pub struct Connections {
    most: AtomicUsize,
    most_per_source: AtomicUsize,
    open: AtomicUsize,
    /// How many connections each source has; exempt ones are in none.
    sources: [Mutex<HashMap<IpAddr, usize>>; SHARDS],
    /// Seeded by chance, so that nobody aims at one shard.
    hashes: RandomState,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    /// When each kind of refusal was last warned of, in Unix milliseconds.
    warned_at: [AtomicI64; 2],
}

/// What is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Full {
    Source,
    All,
}

impl Connections {
    /// Without bounds until [`Self::configure`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        Self {
            most: AtomicUsize::new(usize::MAX),
            most_per_source: AtomicUsize::new(usize::MAX),
            open: AtomicUsize::new(0),
            sources: Default::default(),
            hashes: RandomState::new(),
            clock,
            metrics,
            warned_at: Default::default(),
        }
    }

    /// Holds for connections that come from now on: whoever is in stays in. `None`: no bound for one source.
    pub fn configure(&self, most: usize, most_per_source: Option<usize>) {
        self.most.store(most, Ordering::Relaxed);
        self.most_per_source.store(most_per_source.unwrap_or(usize::MAX), Ordering::Relaxed);
    }

    /// A place for a connection, or `None`: to be closed at once. `is_exempt`: a trusted proxy of that listener, by which everybody comes, so that it
    /// counts in all alone, of which the last eighth is theirs.
    #[must_use]
    pub fn enter(self: &Arc<Self>, peer: Option<IpAddr>, is_exempt: bool) -> Option<Place> {
        let source = bucket_of(peer.unwrap_or(NOBODY));
        let most_per_source = self.most_per_source.load(Ordering::Relaxed);
        // The source first: whoever has used up its own must not hold a place of all for even a moment.
        if !is_exempt && !self.count(source, most_per_source) {
            self.refused(Full::Source, source, most_per_source);
            return None;
        }
        let all = self.most.load(Ordering::Relaxed);
        let most = if is_exempt { all } else { all - all / RESERVE };
        let one_more = |open| (open < most).then_some(open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_err() {
            if !is_exempt {
                self.discount(source);
            }
            self.refused(Full::All, source, all);
            return None;
        }
        self.metrics.connection_opened();
        Some(Place { connections: Arc::clone(self), source: (!is_exempt).then_some(source) })
    }

    /// Whether there was room for one more.
    fn count(&self, source: IpAddr, most: usize) -> bool {
        let Some(mut shard) = self.shard(source) else { return false };
        match shard.entry(source) {
            Entry::Occupied(entry) if *entry.get() >= most => false,
            Entry::Occupied(mut entry) => {
                *entry.get_mut() += 1;
                true
            }
            Entry::Vacant(_) if most == 0 => false,
            Entry::Vacant(entry) => {
                entry.insert(1);
                true
            }
        }
    }

    fn discount(&self, source: IpAddr) {
        let Some(mut shard) = self.shard(source) else { return };
        if let Entry::Occupied(mut entry) = shard.entry(source) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    /// There is one for each.
    fn shard(&self, source: IpAddr) -> Option<MutexGuard<'_, HashMap<IpAddr, usize>>> {
        let index = self.hashes.hash_one(source) % SHARDS as u64;
        let shard = self.sources.get(usize::try_from(index).unwrap_or_default())?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn refused(&self, full: Full, source: IpAddr, most: usize) {
        let why = match full {
            Full::Source => "source",
            Full::All => "all",
        };
        self.metrics.connection_refused(why);
        tracing::debug!(%source, why, "a connection too many was closed");
        let [by_source, in_all] = &self.warned_at;
        match full {
            Full::Source if self.is_due(by_source) => tracing::warn!(
                %source,
                most,
                "a source has as many connections open as server.source_connections allows: more of it are closed at once. \
                 If it is your proxy, name it in trusted_proxies; others are not told of for a minute"
            ),
            Full::All if self.is_due(in_all) => tracing::warn!(
                most,
                "as many connections are open as server.connections allows (an eighth is kept for trusted proxies): more are closed at once; not told again for a minute"
            ),
            Full::Source | Full::All => {}
        }
    }

    fn is_due(&self, warned_at: &AtomicI64) -> bool {
        let now = self.clock.now().unix_millis();
        let last = warned_at.load(Ordering::Relaxed);
        now.saturating_sub(last) >= QUIET_MILLIS
            && warned_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

/// Of one connection, until it is dropped.
pub struct Place {
    connections: Arc<Connections>,
    /// `None`: exempt.
    source: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        // Told last: who reads it may count on the place.
        if let Some(source) = self.source {
            self.connections.discount(source);
        }
        self.connections.open.fetch_sub(1, Ordering::Relaxed);
        self.connections.metrics.connection_closed();
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("source", &self.source).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{panic, thread};

    use proptest::prelude::*;

    use super::*;
    use crate::ports::fakes::Stopped;

    fn connections(most: usize, most_per_source: Option<usize>) -> Arc<Connections> {
        let connections = Connections::new(Arc::new(Stopped), Arc::new(Metrics::new().unwrap()));
        connections.configure(most, most_per_source);
        Arc::new(connections)
    }

    impl Connections {
        fn open_from(self: &Arc<Self>, peer: &str) -> Option<Place> {
            self.enter(Some(peer.parse().unwrap()), false)
        }

        fn held(&self) -> (usize, usize) {
            let sources = self.sources.iter().map(|shard| shard.lock().unwrap().len()).sum();
            (self.open.load(Ordering::SeqCst), sources)
        }
    }

    #[test]
    fn threat_58_one_source_has_its_share_and_leaves_the_others_theirs() {
        let connections = connections(100, Some(3));
        let mut held: Vec<_> = (0..3).map(|_| connections.open_from("192.0.2.1").unwrap()).collect();
        assert!(connections.open_from("192.0.2.1").is_none());
        assert!(connections.open_from("192.0.2.2").is_some());
        held.pop();
        let again = connections.open_from("192.0.2.1");
        assert!(again.is_some(), "a place was given back");
        assert!(connections.open_from("192.0.2.1").is_none());
        drop((held, again));
        assert_eq!(connections.held(), (0, 0), "a source without connections is forgotten");
    }

    #[test]
    fn threat_57_the_addresses_of_one_source_are_one() {
        for (addresses, other) in [
            (["2001:db8:0:1::1", "2001:db8:0:1:ffff::2"], "2001:db8:0:2::1"),
            (["192.0.2.1", "::ffff:192.0.2.1"], "::ffff:192.0.2.2"),
        ] {
            let connections = connections(100, Some(2));
            let held = addresses.map(|address| connections.open_from(address).unwrap());
            for address in addresses {
                assert!(connections.open_from(address).is_none(), "{address}");
            }
            assert!(connections.open_from(other).is_some(), "{other}");
            drop(held);
            assert_eq!(connections.held(), (0, 0));
        }
    }

    #[test]
    fn those_without_an_address_are_one_source() {
        let connections = connections(100, Some(1));
        let held = connections.enter(None, false);
        assert!(held.is_some() && connections.enter(None, false).is_none());
    }

    #[test]
    fn a_trusted_proxy_has_no_share_but_counts_in_all() {
        let connections = connections(4, Some(1));
        let proxy = Some("192.0.2.1".parse().unwrap());
        let held: Vec<_> = (0..3).map(|_| connections.enter(proxy, true).unwrap()).collect();
        let stranger = connections.open_from("192.0.2.1");
        assert!(stranger.is_some(), "by a listener that does not trust it, it is a source like any other");
        assert!(connections.enter(proxy, true).is_none(), "all places are taken");
        drop((held, stranger));
        assert_eq!(connections.held(), (0, 0));
    }

    /// By whom everybody comes, also those who have nothing to do with the flood.
    #[test]
    fn threat_58_strangers_however_many_leave_room_for_trusted_proxies() {
        let connections = connections(16, None);
        let strangers: Vec<_> =
            (0..20).filter_map(|number| connections.open_from(&format!("192.0.2.{number}"))).collect();
        assert_eq!(strangers.len(), 14);
        let enter = || connections.enter(Some("192.0.2.99".parse().unwrap()), true);
        let proxies: Vec<_> = (0..5).filter_map(|_| enter()).collect();
        assert_eq!(proxies.len(), 2);
        drop(strangers);
        assert!(enter().is_some());
    }

    #[test]
    fn what_is_full_in_all_takes_nothing_of_the_sources_share() {
        let connections = connections(2, Some(2));
        let held = ["192.0.2.1", "192.0.2.2"].map(|address| connections.open_from(address).unwrap());
        for _ in 0..5 {
            assert!(connections.open_from("192.0.2.3").is_none());
        }
        assert_eq!(connections.held(), (2, 2));
        drop(held);
        let held: Vec<_> = (0..2).filter_map(|_| connections.open_from("192.0.2.3")).collect();
        assert_eq!(held.len(), 2);
    }

    #[test]
    fn other_bounds_hold_for_whoever_comes_from_then_on() {
        let connections = connections(100, None);
        let mut held: Vec<_> = (0..9).map(|_| connections.open_from("192.0.2.1").unwrap()).collect();
        connections.configure(100, Some(5));
        held.truncate(5);
        assert!(connections.open_from("192.0.2.1").is_none(), "those that were there before count");
        held.truncate(4);
        assert!(connections.open_from("192.0.2.1").is_some());
        connections.configure(4, Some(5));
        assert!(connections.open_from("192.0.2.2").is_none());
    }

    #[test]
    fn a_panic_gives_a_place_back() {
        let connections = connections(1, Some(1));
        let theirs = Arc::clone(&connections);
        let ended = thread::spawn(move || {
            let _place = theirs.open_from("192.0.2.1").unwrap();
            panic::resume_unwind(Box::new("as a connection's task might"));
        });
        assert!(ended.join().is_err());
        assert_eq!(connections.held(), (0, 0));
    }

    #[test]
    fn never_more_than_allowed_however_many_come_at_once() {
        let connections = connections(40, Some(15));
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let connections = Arc::clone(&connections);
                thread::spawn(move || {
                    let mut held = Vec::new();
                    for turn in 0..2000_usize {
                        held.extend(connections.open_from(&format!("192.0.2.{}", (turn + number) % 4)));
                        assert!(connections.open.load(Ordering::SeqCst) <= 40);
                        if turn % 3 == 0 {
                            held.clear();
                        }
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(connections.held(), (0, 0));
    }

    #[test]
    fn a_flood_is_warned_of_once_a_minute() {
        let connections = connections(1, Some(1));
        let [by_source, in_all] = &connections.warned_at;
        assert!(connections.is_due(by_source) && !connections.is_due(by_source));
        assert!(connections.is_due(in_all), "each kind for itself");
        by_source.fetch_sub(QUIET_MILLIS, Ordering::SeqCst);
        assert!(connections.is_due(by_source));
    }

    proptest! {
        /// Against a list of who is in.
        #[test]
        fn as_a_simple_model_says(steps in prop::collection::vec((0..6_u8, any::<bool>(), any::<bool>()), 1..200)) {
            let connections = connections(9, Some(3));
            let mut held: Vec<(Option<u8>, Place)> = Vec::new();
            for (source, is_exempt, leaves) in steps {
                let who = (!is_exempt).then_some(source);
                if leaves {
                    if let Some(at) = held.iter().position(|(held, _)| *held == who) {
                        held.swap_remove(at);
                    }
                } else {
                    let of_one = held.iter().filter(|(held, _)| held.is_some() && *held == who).count();
                    let place = connections.enter(Some(IpAddr::from([192, 0, 2, source])), is_exempt);
                    let most = if is_exempt { 9 } else { 8 };
                    prop_assert_eq!(place.is_some(), held.len() < most && of_one < 3);
                    held.extend(place.map(|place| (who, place)));
                }
                let mut sources: Vec<u8> = held.iter().filter_map(|(held, _)| *held).collect();
                sources.sort_unstable();
                sources.dedup();
                prop_assert_eq!(connections.held(), (held.len(), sources.len()));
            }
        }
    }
}
