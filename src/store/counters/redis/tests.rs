//! The script against `core::limit`, on a real Redis, under a clock of the test's own.

use ::redis::aio::MultiplexedConnection;
use proptest::{prelude::*, test_runner::TestRunner};

use super::*;
use crate::core::limit::{Tally, Unit};

#[path = "../../../../tests/support/port.rs"]
mod port;
#[expect(dead_code, reason = "the contract suite uses the rest")]
#[path = "../../../../tests/support/redis.rs"]
mod server;

/// With the time as its last two arguments.
fn script() -> ::redis::Script {
    let text = include_str!("scripts/take.lua");
    assert!(text.contains("redis.call('TIME')"));
    ::redis::Script::new(&text.replace("redis.call('TIME')", "{ ARGV[#ARGV - 1], ARGV[#ARGV] }"))
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
            for (place, (gap, only_looks)) in steps.iter().enumerate() {
                let passed = Duration::from_micros(gap.unsigned_abs());
                now = if *gap < 0 { now - passed } else { now + passed };
                let is_second = place >= steps.len() / 2;
                let rates = if is_second { &second } else { &first };
                // A bucket that was empty by the rate before: memory may have forgotten it, and Redis goes on with the new rate.
                if is_second && !is_changed && tally.is_idle(now) {
                    key = format!("case:{}:{place}", number.get());
                }
                // The script keeps what a clock that stepped back makes of it, also where it only looks.
                let only_looks = &(*only_looks && *gap >= 0);
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
