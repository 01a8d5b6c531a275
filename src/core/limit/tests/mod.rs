mod properties;

use super::*;

fn rates(texts: &[&str]) -> Rates {
    Rates::new(texts.iter().map(|text| text.parse().expect("a rate")).collect()).expect("rates")
}

#[test]
fn a_rate_is_read_as_it_is_written() {
    for text in ["50/minute", "10/second burst 20", "500/hour", "5000/day", "100/day burst 100"] {
        assert_eq!(text.parse::<Rate>().map(|rate| rate.to_string()).as_deref(), Ok(text));
    }
    for (text, told) in [
        ("", "is no rate"),
        ("50", "is no rate"),
        ("50/", "unknown unit"),
        ("50/minutes", "unknown unit"),
        ("50/Minute", "unknown unit"),
        ("+5/minute", "is no rate"),
        ("-5/minute", "is no rate"),
        ("5.5/minute", "is no rate"),
        ("/minute", "is no rate"),
        ("50/minute burst", "is no rate"),
        ("50/minute burst x", "is no rate"),
        ("50/minute 20", "is no rate"),
        ("0/minute", "nobody"),
        ("5/minute burst 0", "nobody"),
        ("1000000001/second", "too high"),
        ("99999999999/second", "is no rate"),
        ("5/day burst 200000", "at most 104249 deep"),
    ] {
        let fault = text.parse::<Rate>().expect_err(text).to_string();
        assert!(fault.contains(told), "{text}: {fault}");
    }
}

#[test]
fn a_limit_has_a_rate_and_none_twice() {
    assert!(Rates::new(Vec::new()).is_err());
    let parsed = |texts: &[&str]| Rates::new(texts.iter().map(|text| text.parse().expect("a rate")).collect());
    assert!(parsed(&["10/second burst 20", "10/second", "50/minute"]).is_ok());
    assert!(parsed(&["50/minute", "60/minute"]).is_err_and(|fault| fault.to_string().contains("window by the minute")));
}

#[test]
fn parts_make_the_whole() {
    for nodes in 1..9 {
        for text in ["1/minute", "7/second burst 3", "1000/hour"] {
            let whole: Rate = text.parse().expect("a rate");
            let parts: Vec<Rates> = (0..nodes).map(|rank| rates(&[text]).share(rank, nodes)).collect();
            let sum = |of: fn(Rate) -> u32| parts.iter().flat_map(Rates::iter).map(of).sum::<u32>();
            assert_eq!(sum(Rate::count), whole.count());
            assert_eq!(sum(Rate::limit), whole.limit());
        }
    }
}

#[test]
fn a_window_grants_its_number_and_says_when_again() {
    let rates = rates(&["3/minute"]);
    let mut tally = Tally::default();
    let start = Duration::from_secs(1_000);
    for left in [2, 1, 0] {
        let allowance = rates.take(&mut tally, start);
        assert!(allowance.is_granted());
        assert_eq!(allowance.rates.first().map(|rate| rate.remaining), Some(left));
    }
    let refused = rates.take(&mut tally, start).refused.expect("a refusal");
    // 253 slots of 240 ms after the beginning of the slot it was taken in, which began 160 ms before.
    assert_eq!(refused.retry_after, Duration::from_millis(253 * 240 - 160));
    assert!(rates.refusal(&tally, start + refused.retry_after - Duration::from_micros(1)).is_some());
    assert!(rates.take(&mut tally, start + refused.retry_after).is_granted());
}

#[test]
fn a_bucket_grants_its_depth_and_then_its_rate() {
    let rates = rates(&["10/second burst 20"]);
    let mut tally = Tally::default();
    let start = Duration::from_secs(1_000);
    let mut take = |at| rates.take(&mut tally, at);
    assert_eq!((0..30).filter(|_| take(start).is_granted()).count(), 20);
    let refused = take(start).refused.expect("a refusal");
    assert_eq!(refused.retry_after, Duration::from_millis(100));
    assert!(take(start + Duration::from_millis(100)).is_granted());
    assert!(!take(start + Duration::from_millis(199)).is_granted());
    assert_eq!((0..90).filter(|_| take(start + Duration::from_millis(1_100)).is_granted()).count(), 10);
}

#[test]
fn rates_that_change_go_on_with_what_was_taken() {
    let mut tally = Tally::default();
    let now = Duration::from_secs(1_000);
    let (before, after) =
        (rates(&["50/minute", "5/second burst 10"]), rates(&["60/minute", "500/hour", "20/second burst 12"]));
    for _ in 0..9 {
        assert!(before.take(&mut tally, now).is_granted());
    }
    let left: Vec<u32> = after.look(&tally, now).rates.iter().map(|rate| rate.remaining).collect();
    assert_eq!(left, [51, 500, 3]);
    // Lowered below what was taken.
    let refused = rates(&["5/minute"]).look(&tally, now).refused.expect("a refusal");
    assert!(refused.retry_after > Duration::from_secs(60));
}

#[test]
fn a_share_that_is_nothing_grants_nothing() {
    let rates = rates(&["2/minute", "2/second burst 2"]).share(2, 3);
    let mut tally = Tally::default();
    let refused = rates.take(&mut tally, Duration::from_secs(1)).refused.expect("a refusal");
    assert_eq!(refused.retry_after, Duration::from_secs(60));
    assert_eq!(tally, Tally::default());
}

#[test]
fn a_key_is_small() {
    assert!(size_of::<Tally>() <= 40);
    let rates = rates(&["100/second", "1000/minute"]);
    let mut tally = Tally::default();
    rates.take(&mut tally, Duration::from_secs(1));
    assert!(tally.heap() <= 16);
    for milli in 0..200_000 {
        rates.take(&mut tally, Duration::from_secs(2) + Duration::from_millis(milli));
    }
    assert!(tally.heap() <= 2 * 2 * 253 * 8, "{}", tally.heap());
}

#[test]
fn whatever_time_it_is_nothing_overflows() {
    let rates = rates(&["1000000000/day", "1000000000/second burst 1000000000", "1/day burst 104249", "1/hour"]);
    for at in [Duration::ZERO, Duration::from_micros(1), Duration::from_micros(u64::MAX / 4), Duration::MAX] {
        let mut tally = Tally::default();
        for step in [at, Duration::ZERO, at, Duration::from_secs(4_000_000_000)] {
            rates.take(&mut tally, step);
            let _ = rates.look(&tally, Duration::ZERO);
        }
    }
}

/// A bucket that takes longer to empty than the numbers of a second's slots go round keeps nothing of that window.
#[test]
fn a_bucket_that_empties_for_days_keeps_no_window_alive() {
    let rates = rates(&["2/second", "1/day burst 10"]);
    let mut tally = Tally::default();
    let mut now = Duration::from_secs(1_000);
    for _ in 0..5 {
        assert!(rates.take(&mut tally, now).is_granted() && rates.take(&mut tally, now).is_granted());
        now += Duration::from_secs(2);
    }
    assert!(!rates.take(&mut tally, now).is_granted(), "the bucket is empty");
    for day in [1, 5, 7, 9] {
        let later = now + Duration::from_secs(day * 86_400);
        assert!(!tally.is_idle(later));
        assert_eq!(rates.refusal(&tally, later), None, "after {day} days");
        assert_eq!(rates.look(&tally, later).rates[0].remaining, 2, "after {day} days");
    }
}
