use http::HeaderName;

use super::*;
use crate::core::limit::{Refused, Tally};

fn quota(limit: &str, rates: &[&str]) -> Arc<Quota> {
    let rates = rates.iter().map(|rate| rate.parse().unwrap()).collect();
    Arc::new(Quota::new(Arc::from(limit), Rates::new(rates).unwrap()))
}

/// So many are taken at once, then another one is asked for after `wait`.
fn taken(quota: &Quota, times: u32, wait: Duration) -> Allowance {
    let (mut tally, start) = (Tally::default(), Duration::from_secs(1_000));
    for _ in 0..times {
        assert!(quota.rates.take(&mut tally, start).is_granted());
    }
    quota.rates.take(&mut tally, start + wait)
}

fn told(standing: &Standing, families: Families) -> Vec<String> {
    let mut lines = Vec::new();
    standing
        .each_header(families, |name: HeaderName, value| lines.push(format!("{name}: {}", value.to_str().unwrap())));
    lines
}

const DRAFT: Families = Families { draft: true, plain: false, by_window: false };
const NOW: Timestamp = Timestamp::from_unix_millis(1_800_000_000_500);

fn standing(counted: &[(&Arc<Quota>, Allowance)]) -> Standing {
    let mut standing = Standing::new(NOW);
    for (quota, allowance) in counted {
        standing.add(Arc::clone(quota), allowance.clone());
    }
    standing
}

#[test]
fn what_is_left_of_one_rate() {
    let chat = quota("chat", &["50/minute"]);
    let standing = standing(&[(&chat, taken(&chat, 2, Duration::ZERO))]);
    assert_eq!(
        told(&standing, Families::default()),
        [
            "ratelimit-policy: \"chat-minute\";q=50;w=60",
            "ratelimit: \"chat-minute\";r=47;t=61",
            "x-ratelimit-limit: 50",
            "x-ratelimit-remaining: 47",
            "x-ratelimit-reset: 1800000062",
            "x-ratelimit-limit-minute: 50",
            "x-ratelimit-remaining-minute: 47",
            "x-ratelimit-reset-minute: 1800000062",
        ]
    );
}

#[test]
fn several_rates_of_several_limits() {
    let (chat, all) =
        (quota("chat", &["10/second burst 20", "50/minute", "500/hour"]), quota("all of us", &["3/second"]));
    let standing = standing(&[(&all, taken(&all, 0, Duration::ZERO)), (&chat, taken(&chat, 4, Duration::ZERO))]);
    let lines = told(&standing, Families::default());
    assert_eq!(
        lines[0],
        "ratelimit-policy: \"all of us-second\";q=3;w=1, \"chat-second\";q=20;w=2, \"chat-minute\";q=50;w=60, \"chat-hour\";q=500;w=3600"
    );
    assert_eq!(
        lines[1],
        "ratelimit: \"all of us-second\";r=2;t=2, \"chat-second\";r=15;t=1, \"chat-minute\";r=45;t=61, \"chat-hour\";r=495;t=3637"
    );
    assert_eq!(lines[2..5], ["x-ratelimit-limit: 3", "x-ratelimit-remaining: 2", "x-ratelimit-reset: 1800000002"]);
    assert!(lines.contains(&"x-ratelimit-remaining-second: 2".to_owned()), "the nearest of both by the second");
    assert!(lines.contains(&"x-ratelimit-limit-hour: 500".to_owned()));
    assert!(!lines.iter().any(|line| line.contains("-day")), "{lines:?}");
}

/// A time that lies behind `Retry-After` is left out (§"Server Behavior").
#[test]
fn who_has_to_wait_is_told_when_there_is_one_more() {
    let chat = quota("chat", &["2/second", "50/hour"]);
    let allowance = taken(&chat, 2, Duration::from_millis(300));
    let Some(Refused { rate, retry_after }) = allowance.refused else { panic!("it is granted") };
    let mut standing = standing(&[(&chat, allowance)]);
    standing.refuse(Refusal { limit: Arc::clone(&chat.limit), rate, retry_after });
    assert_eq!(told(&standing, DRAFT)[1], "ratelimit: \"chat-second\";r=0;t=1, \"chat-hour\";r=48");
    assert_eq!(whole_seconds(retry_after), 1);
    assert_eq!(standing.refusal().map(|refusal| &*refusal.limit), Some("chat"));
}

#[test]
fn a_bucket_and_a_window_by_one_unit_are_two_items() {
    let chat = quota("chat", &["10/second burst 25", "20/second"]);
    let standing = standing(&[(&chat, taken(&chat, 0, Duration::ZERO))]);
    assert_eq!(told(&standing, DRAFT)[0], "ratelimit-policy: \"chat-second-burst\";q=25;w=3, \"chat-second\";q=20;w=1");
}

#[test]
fn nothing_is_told_where_nothing_counts_or_nobody_is_to_be_told() {
    assert_eq!(told(&Standing::new(NOW), Families::default()), [""; 0]);
    let chat = quota("chat", &["50/minute"]);
    let standing = standing(&[(&chat, taken(&chat, 2, Duration::ZERO))]);
    let none = Families { draft: false, plain: false, by_window: false };
    assert_eq!(told(&standing, none), [""; 0]);
}

#[test]
fn seconds_are_rounded_up_and_never_none() {
    for (wait, told) in [(0, 1), (1, 1), (999, 1), (1000, 1), (1001, 2), (59_999, 60)] {
        assert_eq!(whole_seconds(Duration::from_millis(wait)), told, "{wait}");
    }
}

#[test]
fn no_two_keys_are_one() {
    let (chat, mail) = (quota("chat", &["50/minute"]), quota("mail", &["50/minute"]));
    let parts = |quota: &Quota, kind: &str, parts: &[&[u8]]| quota.key(kind, parts.iter().copied());
    let keys = [
        parts(&chat, "user", &[b"bob"]),
        parts(&mail, "user", &[b"bob"]),
        parts(&chat, "client", &[b"bob"]),
        parts(&chat, "header", &[b"bo", b"b"]),
        parts(&chat, "header", &[b"b", b"ob"]),
        parts(&chat, "header", &[]),
        parts(&chat, "header", &[b""]),
    ];
    for (place, one) in keys.iter().enumerate() {
        assert!(keys.iter().skip(place + 1).all(|other| other != one), "{place}");
    }
    let more = quota("chat", &["500/minute"]);
    assert_eq!(keys[0], parts(&more, "user", &[b"bob"]), "other rates go on with what was taken");
}
