use std::thread;

use super::*;
use crate::core::{limit::Rates, time::Timestamp};

/// Milliseconds.
#[derive(Default)]
struct FakeClock(AtomicU64);

impl FakeClock {
    fn pass(&self, time: Duration) {
        self.0.fetch_add(u64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }
}

fn counters(most_keys: usize) -> (Arc<MemoryCounters>, Arc<FakeClock>) {
    let clock = Arc::new(FakeClock::default());
    clock.pass(Duration::from_secs(100_000));
    let metrics = Arc::new(Metrics::new().unwrap());
    (Arc::new(MemoryCounters::bounded(most_keys, MOST_HEAP, clock.clone(), metrics)), clock)
}

fn rates(texts: &[&str]) -> Rates {
    Rates::new(texts.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
}

fn key(number: u64) -> CounterKey {
    let mut bytes = [7; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    CounterKey(bytes)
}

fn ask(rates: &Rates, number: u64) -> Ask<'_> {
    Ask { limit: "chat", rates, key: key(number), reports_only: false }
}

fn ask_other(rates: &Rates, number: u64) -> Ask<'_> {
    Ask { limit: "files", ..ask(rates, number) }
}

fn granted(counters: &MemoryCounters, asks: &[Ask<'_>]) -> bool {
    counters.try_take(asks).unwrap().refused.is_none()
}

fn remaining(counters: &MemoryCounters, rates: &Rates, number: u64) -> u32 {
    counters.look_now(&ask(rates, number)).rates[0].remaining
}

#[test]
fn asks_of_one_request_are_taken_together_or_not_at_all() {
    let (counters, clock) = counters(1_000);
    let (wide, narrow) = (rates(&["10/minute"]), rates(&["2/hour"]));
    let both = [ask(&wide, 1), ask(&narrow, 2)];
    assert!(granted(&counters, &both) && granted(&counters, &both));
    let taken = counters.take_now(&both);
    let refused = taken.refused.unwrap();
    assert_eq!(refused.ask, 1);
    assert!(taken.allowances[0].is_granted() && !taken.allowances[1].is_granted());
    assert_eq!((taken.allowances[0].rates[0].remaining, remaining(&counters, &wide, 1)), (8, 8));
    clock.pass(refused.retry_after);
    assert!(granted(&counters, &both));
}

#[test]
fn one_that_only_reports_is_counted_and_stands_in_no_way() {
    let (counters, _) = counters(1_000);
    let (wide, narrow) = (rates(&["3/minute"]), rates(&["1/hour"]));
    let reports = Ask { reports_only: true, ..ask(&narrow, 1) };
    let asks = [reports, ask(&wide, 2), Ask { key: key(3), ..reports }];
    for _ in 0..3 {
        let taken = counters.take_now(&asks);
        assert_eq!((taken.refused, taken.allowances.len()), (None, 3));
    }
    let taken = counters.take_now(&asks);
    assert_eq!(taken.refused.map(|refused| refused.ask), Some(1));
    assert!(taken.allowances.iter().all(|allowance| !allowance.is_granted()));
    // Counted though the request was refused.
    let taken = counters.take_now(&[Ask { key: key(4), ..reports }, ask(&wide, 2)]);
    assert!(taken.refused.is_some() && taken.allowances[0].is_granted());
    assert_eq!(remaining(&counters, &narrow, 4), 0);
}

#[test]
fn a_limit_whose_rates_change_forgives_nobody() {
    let (counters, _) = counters(1_000);
    let before = rates(&["5/minute"]);
    while granted(&counters, &[ask(&before, 1)]) {}
    assert!(!granted(&counters, &[ask(&rates(&["5/minute"]), 1)]));
    assert_eq!(remaining(&counters, &rates(&["8/minute", "3/second"]), 1), 3);
}

#[test]
fn idle_keys_are_forgotten_by_whoever_takes() {
    let (counters, clock) = counters(1_000_000);
    let rates = rates(&["5/second"]);
    for number in 0..20_000 {
        assert!(granted(&counters, &[ask(&rates, number)]));
    }
    assert_eq!(counters.keys.load(Ordering::Relaxed), 20_000);
    clock.pass(Duration::from_secs(2));
    for _ in 0..SHARDS * TAKES_BETWEEN_CLEANINGS {
        counters.take_now(&[ask(&rates, 1)]);
    }
    assert_eq!(counters.keys.load(Ordering::Relaxed), 1);
    let heap: usize = counters
        .shards
        .iter()
        .flat_map(|shard| shard.lock().unwrap().tallies.values().map(|held| held.tally.heap()).collect::<Vec<_>>())
        .sum();
    assert_eq!(counters.heap.load(Ordering::Relaxed), heap);
}

#[test]
fn whatever_keys_come_memory_is_bounded_and_the_gate_stays_shut() {
    const MOST: usize = 5_000;
    // That one limit may hold no more.
    let (counters, clock) = counters(6_666);
    assert_eq!(counters.most_of_a_limit(), MOST);
    let rates = rates(&["4/minute"]);
    // Living keys, one of them used up.
    while granted(&counters, &[ask(&rates, 0)]) {}
    for number in 1..MOST as u64 {
        assert!(granted(&counters, &[ask(&rates, number)]));
    }
    // A flood of new ones shares what a fixed number of buckets allow.
    let flood = (0..20_000).filter(|number| granted(&counters, &[ask(&rates, 1_000_000 + number)])).count();
    assert_eq!(flood, 4 * usize::try_from(SHARED).unwrap());
    assert!(counters.keys.load(Ordering::Relaxed) <= MOST + usize::try_from(SHARED).unwrap());
    assert!(counters.metrics.render().contains("postern_rate_limit_keys_shared_total 1024"));
    // Nobody's count was forgotten for it.
    assert!(!granted(&counters, &[ask(&rates, 0)]));
    assert_eq!(remaining(&counters, &rates, 17), 3);
    clock.pass(Duration::from_secs(61));
    // There is room again.
    let fresh = (0..MOST as u64 / 2).filter(|number| granted(&counters, &[ask(&rates, 2_000_000 + number)])).count();
    // The first of them may have had to share.
    assert!(fresh > MOST / 2 / 10 * 9, "{fresh}");
    assert!(counters.keys.load(Ordering::Relaxed) <= MOST + usize::try_from(SHARED).unwrap());
}

#[test]
fn a_key_that_was_counted_with_others_begins_with_what_they_took() {
    let (counters, clock) = counters(133);
    assert_eq!(counters.most_of_a_limit(), 100);
    let (short, long) = (rates(&["100/second"]), rates(&["3/hour"]));
    for number in 0..100 {
        assert!(granted(&counters, &[ask(&short, number)]));
    }
    assert!(granted(&counters, &[ask(&long, 7_000)]));
    clock.pass(Duration::from_secs(2));
    for shard in &counters.shards {
        let forgotten = shard.lock().unwrap().clean(counters.clock.monotonic(), &counters.of_limits);
        counters.forget(forgotten);
    }
    assert!(!counters.is_scarce());
    assert!(granted(&counters, &[ask(&long, 7_000)]) && granted(&counters, &[ask(&long, 7_000)]));
    assert!(!granted(&counters, &[ask(&long, 7_000)]));
}

#[test]
fn windows_that_hold_too_much_are_made_coarser() {
    let clock = Arc::new(FakeClock::default());
    let metrics = Arc::new(Metrics::new().unwrap());
    let counters = MemoryCounters::bounded(1_000, 100_000, clock.clone(), metrics);
    let rates = rates(&["1000000/second", "1000000/minute"]);
    for _ in 0..300 {
        clock.pass(Duration::from_millis(240));
        for number in 0..200 {
            assert!(granted(&counters, &[ask(&rates, number)]));
        }
    }
    let heap = counters.heap.load(Ordering::Relaxed);
    assert!(heap < 200_000, "{heap}");
}

#[test]
fn many_at_once_are_never_granted_more_and_never_wait_for_each_other() {
    let (counters, _) = counters(10_000);
    let (wide, narrow) = (rates(&["1000/minute"]), rates(&["700/hour"]));
    let granted: usize = thread::scope(|scope| {
        let take = |turned: bool| {
            let mut asks = vec![ask(&wide, 1), ask(&narrow, 2), ask(&wide, 3)];
            if turned {
                asks.reverse();
            }
            (0..1_000).filter(|_| granted(&counters, &asks)).count()
        };
        let threads: Vec<_> = (0..4).map(|number| scope.spawn(move || take(number % 2 == 0))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(granted, 700);
    assert_eq!((remaining(&counters, &wide, 1), remaining(&counters, &wide, 3)), (300, 300));
}

/// What a table of so many takes, and the smallest piece that an allocator gives for each key's window.
fn size(counters: &MemoryCounters) -> usize {
    let of_shard = |shard: &Mutex<Shard>| {
        let shard = shard.lock().unwrap();
        shard.tallies.capacity() * 8 / 7 * (size_of::<(CounterKey, Held)>() + 1) + shard.tallies.len() * 32
    };
    counters.shards.iter().map(of_shard).sum()
}

#[test]
fn a_million_keys_take_little_and_more_take_no_more() {
    let (counters, _) = counters(MOST_KEYS);
    let rates = rates(&["100/minute"]);
    let take =
        |numbers: std::ops::Range<u64>| numbers.for_each(|number| drop(counters.take_now(&[ask(&rates, number)])));
    take(0..1_000_000);
    let others = 750_000..1_010_000;
    others.for_each(|number| drop(counters.take_now(&[ask_other(&rates, number)])));
    let full = size(&counters);
    assert!(full < 120 << 20, "{full}");
    take(1_000_000..1_200_000);
    assert!(size(&counters) <= full + (1 << 20));
    // The shared ones of the first limit came before the last of the other's.
    assert_eq!(counters.keys.load(Ordering::Relaxed), MOST_KEYS + usize::try_from(SHARED).unwrap());
}

#[test]
fn a_flood_of_one_limit_leaves_room_for_the_others() {
    let (counters, _) = counters(4_000);
    let rates = rates(&["2/hour"]);
    for number in 0..20_000 {
        counters.take_now(&[ask(&rates, number)]);
    }
    assert_eq!(counters.keys.load(Ordering::Relaxed), 3_000 + usize::try_from(SHARED).unwrap());
    for number in 100_000..100_700 {
        assert!(granted(&counters, &[ask_other(&rates, number)]) && granted(&counters, &[ask_other(&rates, number)]));
        assert!(!granted(&counters, &[ask_other(&rates, number)]));
    }
}

#[test]
fn what_was_taken_days_ago_never_counts_as_taken_now() {
    let (counters, clock) = counters(1_000);
    let rates = rates(&["1/second"]);
    assert!(granted(&counters, &[ask(&rates, 1)]));
    // So that the numbers of a second's slots have begun anew: it seems to lie a bit ahead.
    clock.pass(Duration::from_millis((1 << 28) * 4 - 400));
    assert!(granted(&counters, &[ask(&rates, 1)]));
}

/// Nobody elsewhere knows keys that count together by the name that they have here.
#[test]
fn what_is_told_elsewhere_is_only_what_counts_for_one_key() {
    let (counters, _) = counters(4);
    let rates = rates(&["10/minute"]);
    for number in 0..8 {
        counters.note(&ask(&rates, number));
    }
    let told = |forgets| {
        let mut keys: Vec<_> =
            (0..SHARDS).flat_map(|shard| counters.export(shard, forgets)).map(|(key, _)| key.0).collect();
        keys.sort_unstable();
        keys
    };
    let alone = told(false);
    assert!((1..8).contains(&alone.len()) && alone.iter().all(|told| (0..8).any(|number| key(number).0 == *told)));
    assert_eq!(told(true), alone);
    assert!(counters.is_empty(), "nor does it stay");
}
