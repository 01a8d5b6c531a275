//! The script against `core::limit`, on a real Redis, under a clock of the test's own.

use ::redis::aio::MultiplexedConnection;
use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::{
    core::limit::{Tally, Unit},
    ports::fakes::Stopped,
};

#[path = "../../../../tests/support/port.rs"]
mod port;
#[expect(dead_code, reason = "the contract suite uses the rest")]
#[path = "../../../../tests/support/redis.rs"]
mod server;

/// With the time as its last two arguments.
fn script() -> ::redis::Script {
    timed(include_str!("scripts/take.lua"), "{ ARGV[#ARGV - 1], ARGV[#ARGV] }")
}

fn timed(text: &str, time: &str) -> ::redis::Script {
    assert!(text.contains("redis.call('TIME')"));
    ::redis::Script::new(&text.replace("redis.call('TIME')", time))
}

fn some_rates() -> impl Strategy<Value = Rates> {
    let unit = || prop::sample::select(Unit::ALL.to_vec());
    let rate = (1_u32..12, unit(), prop::option::of(1_u32..9))
        .prop_map(|(count, unit, burst)| Rate::new(count, unit, burst).unwrap());
    prop::collection::vec(rate, 1..5).prop_map(|mut rates| {
        let mut kinds = std::collections::BTreeSet::new();
        rates.retain(|rate| kinds.insert((rate.unit(), rate.burst().is_some())));
        Rates::new(rates).unwrap()
    })
}

/// Microseconds that pass, a second back at times, and whether it is only looked.
fn steps() -> impl Strategy<Value = Vec<(i64, bool)>> {
    let gap = prop_oneof![
        4 => 0_i64..10_000,
        3 => 0_i64..400_000,
        2 => 900_000_i64..1_100_000,
        2 => 0_i64..30_000_000,
        1 => 55_000_000_i64..65_000_000,
        1 => 0_i64..4_000_000_000,
        1 => -1_000_000_i64..0,
    ];
    prop::collection::vec((gap, prop::bool::weighted(0.1)), 1..120)
}

async fn run(mut connection: MultiplexedConnection, key: &str, rates: &Rates, takes: bool, now: Duration) -> Vec<i64> {
    let script = script();
    let mut call = script.key(key);
    call.arg(u8::from(takes)).arg(0).arg(0).arg(rates.iter().len());
    for rate in rates.iter() {
        call.arg(&arguments_of(rate));
    }
    call.arg(now.as_secs()).arg(now.subsec_micros());
    call.invoke_async(&mut connection).await.unwrap()
}

#[test]
fn the_script_counts_as_the_core_does() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(server::Redis::start());
    let client = ::redis::Client::open(server.url()).unwrap();
    let connection = runtime.block_on(client.get_multiplexed_async_connection()).unwrap();
    let number = std::cell::Cell::new(0);
    // The one key is asked by other rates later, as after a reload.
    let cases = (some_rates(), some_rates(), steps(), 0..1_000_000_000_u64);
    let mut runner = TestRunner::new(ProptestConfig { cases: 48, ..ProptestConfig::default() });
    runner
        .run(&cases, |(first, second, steps, start)| {
            number.set(number.get() + 1);
            let mut key = format!("case:{}", number.get());
            let mut now = Duration::from_micros(1_790_000_000_000_000 + start);
            let (mut tally, mut is_changed) = (Tally::default(), false);
            let steps_back = steps.iter().any(|(gap, _)| *gap < 0);
            for (place, (gap, only_looks)) in steps.iter().enumerate() {
                let passed = Duration::from_micros(gap.unsigned_abs());
                now = if *gap < 0 { now - passed } else { now + passed };
                let is_second = place >= steps.len() / 2;
                let rates = if is_second { &second } else { &first };
                // A bucket that was empty by the rate before: memory has forgotten it, and Redis may go on with the new rate.
                if is_second && !is_changed && tally.is_idle(now) {
                    key = format!("case:{}:{place}", number.get());
                    tally = Tally::default();
                }
                // The script keeps what it makes of a clock, also where it only looks: a clock that steps back finds that, and memory does not.
                let only_looks = &(*only_looks && !steps_back);
                let numbers = runtime.block_on(run(connection.clone(), &key, rates, !only_looks, now));
                let ask = Ask { limit: "chat", rates, key: CounterKey([0; 16]), reports_only: false };
                let answer = read(&numbers, &[&ask]).unwrap();
                let expected = if *only_looks { rates.look(&tally, now) } else { rates.take(&mut tally, now) };
                is_changed |= is_second && !only_looks && expected.is_granted();
                prop_assert_eq!(answer.is_granted, expected.is_granted());
                prop_assert_eq!(&answer.of_asks[0].allowance, &expected, "at step {}", place);
            }
            Ok(())
        })
        .unwrap();
}

const NOW: Duration = Duration::from_secs(1_790_000_000);
const AT_NOW: &str = "{ 1790000000, 0 }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_far_apart_are_never_walked_and_what_is_dead_is_dropped() {
    let server = server::Redis::start().await;
    let client = ::redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let rates = Rates::new(vec!["10/second".parse().unwrap()]).unwrap();
    let at = NOW.as_millis() / 4;
    let fill = async |key: &str, newest: u128| {
        let (one, two) = (format!("1:{}", at - 400_000_000_000), format!("1:{newest}"));
        let (oldest, newest) = ((at - 400_000_000_000).to_string(), newest.to_string());
        let fields = ["HSET", key, &one, "4", &two, "3", "1s", "7", "1o", &oldest, "1n", &newest, "1l", "5"];
        server.command(&fields).await;
        server.command(&["PEXPIRE", key, "100000"]).await;
    };
    // By walking this would take hours.
    fill("wide", at).await;
    let answer = run(connection.clone(), "wide", &rates, true, NOW).await;
    assert_eq!(answer[3..6], [4, i64::try_from(at).unwrap(), i64::try_from(at).unwrap()]);
    // A clock that stepped back by years.
    fill("ahead", at + 300_000_000_000).await;
    let answer = run(connection.clone(), "ahead", &rates, true, NOW).await;
    assert_eq!(answer[3], 4);

    let restore = timed(include_str!("scripts/restore.lua"), AT_NOW);
    let restored = async |key: &str, arguments: &[&str]| {
        let mut call = restore.key(key);
        for argument in arguments {
            call.arg(argument);
        }
        let _: i64 = call.invoke_async(&mut connection.clone()).await.unwrap();
    };
    fill("dead", at - 399_000_000_000).await;
    restored("dead", &["node", "1", "2000", "w", "1", "2", "5"]).await;
    let slot = (at - 2).to_string();
    let held = server.command(&["HMGET", "dead", "1s", "1o", "1n"]).await;
    assert_eq!(held.lines().collect::<Vec<_>>(), ["5", &slot, &slot]);
    assert_eq!(server.command(&["HLEN", "dead"]).await, "6");
    // Two buckets run out one after the other, and so long the key must live.
    restored("bucket", &["node", "1", "50000", "b", "60", "0", "3000000"]).await;
    restored("bucket", &["node", "2", "50000", "b", "60", "0", "3000000"]).await;
    let lives: u64 = server.command(&["PTTL", "bucket"]).await.parse().unwrap();
    assert!((90_000..=100_000).contains(&lives), "{lives}");
}

/// Whoever heard no answer tells it again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_told_twice_is_added_once() {
    let server = server::Redis::start().await;
    let client = ::redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let restore = timed(include_str!("scripts/restore.lua"), AT_NOW);
    let told = async |node: &str, number: &str| {
        let mut call = restore.key("key");
        for argument in [node, number, "60000", "w", "60", "2", "3", "b", "60", "0", "5"] {
            call.arg(argument);
        }
        let _: i64 = call.invoke_async(&mut connection.clone()).await.unwrap();
        let held = server.command(&["HMGET", "key", "60s", "60l"]).await;
        held.lines().map(|held| held.parse().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(told("node", "7").await, [3, 5]);
    assert_eq!(told("node", "7").await, [3, 5]);
    assert_eq!(told("node", "8").await, [6, 10]);
    assert_eq!(told("node", "7").await, [6, 10], "it comes late, and was added");
    // What was given back has numbers of its own.
    server.command(&["HSET", "key", "gother", "9 1790000000000000"]).await;
    assert_eq!(told("other", "1").await, [9, 15]);
    server.command(&["HSET", "key", "rgone", "9 1789900000000000"]).await;
    assert_eq!(told("newest", "1").await, [12, 20]);
    assert_eq!(server.command(&["HEXISTS", "key", "rgone"]).await, "0");
    assert_eq!(told("other", "1").await, [12, 20], "a moment ago");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_back_twice_is_given_once_and_never_more_than_was_taken() {
    let server = server::Redis::start().await;
    let client = ::redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let give = timed(include_str!("scripts/give.lua"), AT_NOW);
    let given = async |arguments: &[&str]| {
        let mut call = give.key("key");
        for argument in arguments {
            call.arg(argument);
        }
        let given: i64 = call.invoke_async(&mut connection.clone()).await.unwrap();
        given
    };
    let window = ["node", "7", "w", "60", "3", "100", "0"];
    assert_eq!(given(&window).await, 0, "no key");
    assert_eq!(server.command(&["EXISTS", "key"]).await, "0");
    server.command(&["HSET", "key", "60:100", "8", "60s", "9", "60l", "100000000", "60t", "1"]).await;
    server.command(&["PEXPIRE", "key", "100000"]).await;
    assert_eq!((given(&window).await, given(&window).await), (1, 0));
    let held = server.command(&["HMGET", "key", "60:100", "60s"]).await;
    assert_eq!(held.lines().collect::<Vec<_>>(), ["5", "6"]);
    // Another node's; and no more than there is.
    assert_eq!(given(&["other", "1", "w", "60", "30", "100", "0"]).await, 1);
    assert_eq!(server.command(&["HEXISTS", "key", "60:100"]).await, "0");
    assert_eq!(server.command(&["HGET", "key", "60s"]).await, "1");
    // Of one that was poured in a second ago at 10 a minute, 10 seconds' worth may have run out of nothing.
    let second_ago = (NOW - Duration::from_secs(1)).as_micros().to_string();
    assert_eq!(given(&["other", "2", "b", "60", "1", &second_ago, "10"]).await, 1);
    assert_eq!(server.command(&["HGET", "key", "60l"]).await, "50000000");
    // Nodes that gave something long ago and are gone leave nothing, and those that were there a moment ago cannot give it twice.
    server.command(&["HSET", "key", "ggone", "9 1789990000000000"]).await;
    assert_eq!(given(&["newest", "1", "w", "60", "1", "100", "0"]).await, 1);
    assert_eq!(server.command(&["HEXISTS", "key", "ggone"]).await, "0");
    assert_eq!(given(&window).await, 0);
    assert_eq!(given(&["other", "2", "w", "60", "1", "100", "0"]).await, 0);
}

/// An answer may be lost, and a question sent twice: who asks again finds out all the same that Redis has forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgot_says_so_until_it_was_heard() {
    let server = server::Redis::start().await;
    let client = ::redis::Client::open(server.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    let beat = ::redis::Script::new(include_str!("scripts/beat.lua"));
    let asked = async |node: &str, set: &str| -> Vec<String> {
        beat.key("nodes").arg(node).arg(5_000).arg(set).invoke_async(&mut connection.clone()).await.unwrap()
    };
    assert_eq!(asked("a", "first").await, ["first", "a"]);
    assert_eq!(asked("b", "second").await, ["first", "a", "b"]);
    server.command(&["DEL", "nodes"]).await;
    // This answer is lost.
    asked("a", "third").await;
    assert_eq!(asked("a", "fourth").await, ["third", "a"]);
    assert_eq!(asked("b", "fifth").await, ["third", "a", "b"]);
}

#[test]
fn what_was_spent_of_a_lease_goes_back_to_the_same_one() {
    let leases = Leases::new(Arc::new(Stopped));
    let plans = ["50000/minute", "100000/minute"].map(|rate| Rates::new(vec![rate.parse().unwrap()]).unwrap());
    let [free, pro] =
        [&plans[0], &plans[1]].map(|rates| Ask { limit: "chat", rates, key: CounterKey([1; 16]), reports_only: false });
    let elsewhere = Ask { key: CounterKey([2; 16]), ..pro };
    for ask in [&free, &pro] {
        leases.hold(ask, Lease::new(ask.rates, 1, NOW, Duration::ZERO, Vec::new()));
    }
    assert!(leases.spend(&[free]).is_some());
    assert!(leases.spend(&[pro, elsewhere]).is_none(), "there is no lease of the other limit");
    assert!(leases.spend(&[free]).is_none(), "this one is used up");
    assert!(leases.spend(&[pro]).is_some());
    assert!(leases.spend(&[pro]).is_none());
}
