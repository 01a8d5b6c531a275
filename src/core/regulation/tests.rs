use super::*;

const START: i64 = 1_800_000_000_000;
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn budget() -> Budget {
    Budgets::default().of(By::AddressAndName)
}

fn start() -> Timestamp {
    Timestamp::from_unix_millis(START)
}

/// Tries as soon as it may, again and again; the waits.
fn pressed(budget: &Budget, tries: u32) -> (Vec<u64>, Count, Timestamp) {
    let (mut now, mut count, mut waits) = (start(), Count::default(), Vec::new());
    for _ in 0..tries {
        let wait = count.wait(budget, now).unwrap_or_default();
        waits.push(wait.as_secs());
        now = now.after(wait);
        count = count.taken(budget, now);
    }
    (waits, count, now)
}

#[test]
fn five_tries_are_free_and_each_further_one_waits_twice_as_long() {
    let (waits, count, now) = pressed(&budget(), 16);
    assert_eq!(waits, [0, 0, 0, 0, 0, 5, 10, 20, 40, 80, 160, 320, 640, 900, 900, 900]);
    assert_eq!(count.wait(&budget(), now), Some(MINUTE * 15));
    assert_eq!(count.wait(&budget(), now.after(MINUTE * 15)), None, "it is no lock");
    assert_eq!(count.wait(&budget(), now.after(MINUTE * 14)), Some(MINUTE));
}

#[test]
fn a_counter_leaks_one_each_share_of_the_time_and_nothing_while_it_waits() {
    let budget = budget();
    let mut count = Count::default();
    for _ in 0..4 {
        count = count.taken(&budget, start());
    }
    // One each 12 minutes.
    let later = start().after(MINUTE * 11);
    assert_eq!(count.taken(&budget, later).failures, 5);
    let later = start().after(MINUTE * 25);
    let after = count.taken(&budget, later);
    assert_eq!((after.failures, after.at), (3, start().after(MINUTE * 24)), "what is left of a share is kept");
    // At five it waits 5 s, and leaks from there.
    let fifth = count.taken(&budget, start());
    assert_eq!(fifth.taken(&budget, start().after(MINUTE * 12)).failures, 6);
    assert_eq!(fifth.taken(&budget, start().after(MINUTE * 12 + SECOND * 5)).failures, 5);
    assert_eq!(fifth.forgotten_at(&budget), start().after(MINUTE * 60 + SECOND * 5));
    let fresh = fifth.taken(&budget, fifth.forgotten_at(&budget));
    assert_eq!((fresh.failures, fresh.at), (1, fifth.forgotten_at(&budget)));
}

/// However somebody guesses who never waits in vain: at most the tries of one `find_time` beyond those that were free.
#[test]
fn a_patient_guesser_gets_no_more_than_the_rate() {
    for by in [By::Name, By::Address, By::AddressAndName] {
        let budget = Budgets::default().of(by);
        for pause in [Duration::ZERO, SECOND, MINUTE, MINUTE * 3, MINUTE * 12, MINUTE * 20] {
            let (mut now, mut count, mut guesses) = (start(), Count::default(), 0_u32);
            let end = start().after(MINUTE * 60 * 24);
            while now < end {
                now = now.after(count.wait(&budget, now).unwrap_or_default());
                count = count.taken(&budget, now);
                guesses += 1;
                // Once the free ones are gone.
                if count.failures >= budget.tries {
                    now = now.after(pause);
                }
            }
            assert!(guesses <= budget.tries * 25, "{by:?}, {pause:?}: {guesses}");
        }
    }
}

#[test]
fn as_many_are_looked_at_at_once_as_may_go_wrong() {
    let budget = budget();
    let mut count = Count::default();
    for room in [5, 4, 3, 2, 1, 1, 1] {
        assert_eq!(count.room(&budget, start()), room);
        count = count.taken(&budget, start());
    }
    assert_eq!(count.room(&budget, start().after(MINUTE * 60 * 24)), 5);
}

#[test]
fn a_count_is_bounded_and_so_is_its_memory() {
    let budget = budget();
    let (_, count, now) = pressed(&budget, 1_000);
    assert_eq!(count.failures, 21);
    assert!(count.forgotten_at(&budget).since(now) < MINUTE * 60 * 5);
    let huge = Budget { tries: u32::MAX, find_time: SECOND, ban_time: Duration::MAX };
    let count = Count { failures: u32::MAX, at: now }.taken(&huge, now);
    assert_eq!(count.failures, u32::MAX);
    assert!(count.wait(&huge, now).is_some());
}

#[test]
fn a_clock_that_was_ahead_keeps_nobody_waiting_for_it() {
    let budget = budget();
    let ahead = start().after(MINUTE * 60 * 24 * 365);
    let (_, count, _) = pressed(&budget, 5);
    let count = Count { at: ahead, ..count };
    assert_eq!(count.wait(&budget, start()), Some(SECOND * 5), "from now on, once it is seen");
    assert_eq!(count.seen_at(start()).wait(&budget, start().after(SECOND * 5)), None);
}

#[test]
fn a_place_is_known_by_its_64() {
    let place = |text: &str| place_of(text.parse().unwrap());
    assert!(place("2001:db8::1") == place("2001:db8::2"));
    assert!(place("2001:db8::1") != place("2001:db8:0:1::1"));
    assert!(place("::ffff:192.0.2.1") == place("192.0.2.1"));
}
