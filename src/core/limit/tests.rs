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
