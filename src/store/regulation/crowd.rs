//! How many may stand at the counters at once, and how many new counters one address may make a node keep: so that whoever sends a flood is sent away
//! without a question, and nobody else waits behind it (THREATS 40). Of this node alone, in memory. Asked by [`super::DatabaseRegulation`].
//!
//! Must never let anybody in: it only sends away, and only for a moment.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Counter, Origin};
use crate::core::{client_ip::bucket_of, regulation::By};

/// Tries that wait for a place on this node.
const MOST_WAITING: usize = 256;
/// Those of known devices and places, which no stranger may fill.
const MOST_KNOWN_WAITING: usize = 64;
/// Of an address that ask the database or wait for a place.
const MOST_ASKING: usize = 64;
/// Of a known device.
const MOST_ASKING_OF_DEVICE: usize = 8;
/// New counters of a node between two cleanings.
const MOST_FRESH: u64 = 50_000;
/// Of these for one address, so that it takes as many as fifty to make a newcomer elsewhere feel it.
const MOST_FRESH_OF_ONE: u64 = 1_000;

/// Whoever stands somewhere, by where that is.
#[derive(Default)]
pub(super) struct Crowd(Mutex<HashMap<String, usize>>);

/// A place in the crowd; free again when it is dropped, also half-way.
pub(super) struct Standing<'c> {
    crowd: &'c Crowd,
    at: Vec<String>,
}

impl Crowd {
    /// At the database, or before it.
    pub(super) fn asks(&self, counters: &[Counter]) -> Result<Standing<'_>, By> {
        let asking = counters.iter().filter_map(|counter| {
            let most = match counter.by {
                By::Address => MOST_ASKING,
                By::Device => MOST_ASKING_OF_DEVICE,
                By::Name | By::AddressAndName => return None,
            };
            Some((format!("asks {}", counter.id), most, counter.by))
        });
        self.enter(asking.collect())
    }

    /// For a place at these.
    pub(super) fn waits(&self, counters: &[Counter], from: Origin) -> Result<Standing<'_>, By> {
        let mut at: Vec<_> =
            counters.iter().map(|counter| (counter.id.clone(), most_at(counter.by), counter.by)).collect();
        at.push(match from {
            Origin::Known => ("known".to_owned(), MOST_KNOWN_WAITING, By::Device),
            Origin::Stranger(_) => ("all".to_owned(), MOST_WAITING, By::Address),
        });
        self.enter(at)
    }

    /// Everywhere or nowhere; or where there is no room.
    fn enter(&self, at: Vec<(String, usize, By)>) -> Result<Standing<'_>, By> {
        let mut crowd = locked(&self.0);
        if let Some((.., by)) = at.iter().find(|(id, most, _)| crowd.get(id).is_some_and(|there| there >= most)) {
            return Err(*by);
        }
        for (id, ..) in &at {
            let there = crowd.entry(id.clone()).or_default();
            *there = there.saturating_add(1);
        }
        Ok(Standing { crowd: self, at: at.into_iter().map(|(id, ..)| id).collect() })
    }
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        let mut crowd = locked(&self.crowd.0);
        for id in &self.at {
            let left = crowd.get(id).copied().unwrap_or(0).saturating_sub(1);
            if left == 0 {
                crowd.remove(id);
            } else if let Some(there) = crowd.get_mut(id) {
                *there = left;
            }
        }
    }
}

/// Known devices of one account ask the database one after the other, and so do its known places: whoever has an account, and devices of their own, is in nobody's
/// way but their own, and whoever tries a name at an address that it is known at is in no device's. Accounts that nobody asks for are not kept.
#[derive(Default)]
pub(super) struct Queues(Mutex<HashMap<String, Arc<Semaphore>>>);

/// A place in an account's queue; whoever is at its head has the permit.
pub(super) struct Queued<'q> {
    queues: &'q Queues,
    account: String,
    head: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Queues {
    /// Waits until nobody of this account is before them.
    pub(super) async fn head_of(&self, account: &str) -> Queued<'_> {
        let head = locked(&self.0).entry(account.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(1))).clone();
        // Before the wait: who goes away in it leaves nothing behind.
        let mut queued = Queued { queues: self, account: account.to_owned(), head, permit: None };
        // It is never closed.
        queued.permit = queued.head.clone().acquire_owned().await.ok();
        queued
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut queues = locked(&self.queues.0);
        drop(self.permit.take());
        // Others are found by the same lock: this one and the map.
        if Arc::strong_count(&self.head) <= 2 {
            queues.remove(&self.account);
        }
    }
}

/// So many may wait at one counter.
const fn most_at(by: By) -> usize {
    match by {
        By::AddressAndName | By::Device => 8,
        By::Name | By::Address => 32,
    }
}

/// Counters of this node that are new since the last cleaning.
#[derive(Default)]
pub(super) struct Fresh(Mutex<Share>);

#[derive(Default)]
struct Share {
    all: u64,
    /// As many as there are counters at most.
    by: HashMap<Option<IpAddr>, u64>,
}

/// Why a try that needs new counters is refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Full {
    Node,
    Address,
}

impl Fresh {
    /// Whether whoever comes from there may have more of them.
    pub(super) fn admits(&self, from: Option<IpAddr>) -> Result<(), Full> {
        let share = locked(&self.0);
        if share.by.get(&from.map(network_of)).is_some_and(|made| *made >= MOST_FRESH_OF_ONE) {
            Err(Full::Address)
        } else if share.all >= MOST_FRESH {
            Err(Full::Node)
        } else {
            Ok(())
        }
    }

    pub(super) fn made(&self, from: Option<IpAddr>, count: u64) {
        let mut share = locked(&self.0);
        share.all = share.all.saturating_add(count);
        let of_one = share.by.entry(from.map(network_of)).or_default();
        *of_one = of_one.saturating_add(count);
    }

    pub(super) fn clear(&self) {
        *locked(&self.0) = Share::default();
    }
}

/// Whoever has one /64 may have a /48 full of them.
fn network_of(address: IpAddr) -> IpAddr {
    match bucket_of(address) {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 80))),
        address @ IpAddr::V4(_) => address,
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::core::regulation::Budget;

    fn counter(id: &str, by: By) -> Counter {
        let budget = Budget { tries: 5, find_time: Duration::from_secs(1), ban_time: Duration::from_secs(1) };
        Counter { id: id.to_owned(), by, budget }
    }

    fn of(address: usize, name: &str) -> [Counter; 3] {
        let pair = counter(&format!("{name} at {address}"), By::AddressAndName);
        [counter(&format!("{address}"), By::Address), pair, counter(name, By::Name)]
    }

    #[test]
    fn threat_40_who_waits_fills_no_more_than_a_share_and_no_stranger_that_of_known_devices() {
        let crowd = Crowd::default();
        let filled = |counters: &dyn Fn(usize) -> Vec<Counter>| {
            let mut all = Vec::new();
            loop {
                let counters = counters(all.len());
                let is_device = counters.iter().any(|counter| counter.by == By::Device);
                let from = if is_device { Origin::Known } else { Origin::Stranger(None) };
                match crowd.waits(&counters, from) {
                    Ok(standing) => all.push(standing),
                    Err(by) => return (all, by),
                }
            }
        };
        let (pair, by) = filled(&|_| of(1, "bob").to_vec());
        assert_eq!((pair.len(), by), (8, By::AddressAndName));
        let (address, by) = filled(&|number| of(1, &format!("user{number}")).to_vec());
        assert_eq!((pair.len() + address.len(), by), (32, By::Address));
        let (name, by) = filled(&|number| of(100 + number, "bob").to_vec());
        assert_eq!((pair.len() + name.len(), by), (32, By::Name));
        let (node, _) = filled(&|number| of(1000 + number, &format!("another{number}")).to_vec());
        assert_eq!(pair.len() + address.len() + name.len() + node.len(), MOST_WAITING);
        let (device, by) = filled(&|_| vec![counter("bob's", By::Device)]);
        assert_eq!((device.len(), by), (8, By::Device));
        let place = [counter("1", By::Address), counter("alice at 1000000", By::AddressAndName)];
        assert!(crowd.waits(&place, Origin::Known).is_err(), "strangers wait at the same address");
        let elsewhere = [counter("1000000", By::Address), counter("alice at 1000000", By::AddressAndName)];
        assert!(
            crowd.waits(&elsewhere, Origin::Known).is_ok(),
            "a place that somebody is known at waits behind no stranger"
        );
        drop((pair, address, name, node, device));
        assert!(locked(&crowd.0).is_empty());
        let asking: Vec<_> = (0..MOST_ASKING).map_while(|_| crowd.asks(&of(1, "bob")).ok()).collect();
        assert_eq!((asking.len(), crowd.asks(&of(1, "ann")).err()), (MOST_ASKING, Some(By::Address)));
        assert!(crowd.asks(&of(2, "bob")).is_ok());
        let ask_by = |device: &str| crowd.asks(&[counter(device, By::Device)]);
        let of_device: Vec<_> = (0..MOST_ASKING).map_while(|_| ask_by("bob's").ok()).collect();
        assert_eq!((of_device.len(), ask_by("bob's").err()), (8, Some(By::Device)), "one device is not in the way");
        assert!(ask_by("alice's").is_ok(), "of another");
    }

    #[test]
    fn threat_40_57_one_network_makes_no_more_than_its_share() {
        let fresh = Fresh::default();
        for number in 0..MOST_FRESH_OF_ONE {
            let address = format!("2001:db8:0:{number:x}::1").parse().unwrap();
            assert_eq!(fresh.admits(Some(address)), Ok(()));
            fresh.made(Some(address), 1);
        }
        assert_eq!(fresh.admits("2001:db8:0:ffff::1".parse().ok()), Err(Full::Address));
        for other in ["2001:db8:1::1", "192.0.2.7"] {
            assert_eq!(fresh.admits(other.parse().ok()), Ok(()), "{other}");
        }
        fresh.made(None, MOST_FRESH);
        assert_eq!(fresh.admits("192.0.2.7".parse().ok()), Err(Full::Node));
        fresh.clear();
        assert_eq!(fresh.admits(None), Ok(()));
    }

    #[tokio::test]
    async fn threat_40_who_has_an_account_stands_in_the_way_of_that_account_alone() {
        let queues = Queues::default();
        let mallory = queues.head_of("mallory").await;
        let mut behind: Vec<_> = (0..100).map(|_| Box::pin(queues.head_of("mallory"))).collect();
        for one in &mut behind {
            assert!(futures_util::poll!(one).is_pending());
        }
        let alice = Box::pin(queues.head_of("alice")).now_or_never();
        assert!(alice.is_some(), "nobody of hers is before her");
        drop(alice);
        assert_eq!(locked(&queues.0).len(), 1);
        // One who went away in between is waited for by nobody.
        drop(behind.remove(0));
        drop(mallory);
        let next = behind.remove(0).now_or_never();
        assert!(next.is_some() && futures_util::poll!(&mut behind[0]).is_pending());
        drop(next);
        drop(behind);
        assert!(locked(&queues.0).is_empty(), "nothing is left of them");
    }
}
