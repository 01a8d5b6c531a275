//! The arithmetic against an exact log of time stamps, under a clock of the test's own.

use proptest::prelude::*;

use super::*;

/// A gap between requests, in microseconds: none, within a slot, about a slot, a good part of the window.
fn gap(unit: Unit) -> impl Strategy<Value = u64> {
    let (slot, window) = (slot_length(unit), unit.micros());
    prop_oneof![
        3 => Just(0),
        3 => 0..slot,
        3 => slot - 2..slot + 2,
        2 => 0..window / 4,
        1 => window - 3 * slot..window + 5 * slot,
    ]
}

fn any_unit() -> impl Strategy<Value = Unit> {
    prop::sample::select(Unit::ALL.to_vec())
}

fn window() -> impl Strategy<Value = Rate> {
    (1_u32..60, any_unit()).prop_map(|(count, unit)| Rate::new(count, unit, None).expect("a rate"))
}

fn bucket() -> impl Strategy<Value = Rate> {
    (1_u32..60, any_unit(), 1_u32..40)
        .prop_map(|(count, unit, burst)| Rate::new(count, unit, Some(burst)).expect("a rate"))
}

/// Of several rates those that can stand together.
fn some_rates() -> impl Strategy<Value = Rates> {
    prop::collection::vec(prop_oneof![window(), bucket()], 1..5).prop_map(|mut rates| {
        let mut kinds = std::collections::BTreeSet::new();
        rates.retain(|rate| kinds.insert((rate.unit(), rate.burst().is_some())));
        Rates::new(rates).expect("rates")
    })
}

/// Where requests come, since a start that hits any part of a slot.
fn requests() -> impl Strategy<Value = Vec<u64>> {
    (any_unit(), 0..Unit::Day.micros()).prop_flat_map(|(unit, start)| {
        prop::collection::vec(gap(unit), 1..300).prop_map(move |gaps| {
            let mut at = start;
            gaps.iter()
                .map(|gap| {
                    at += gap;
                    at
                })
                .collect()
        })
    })
}

/// Whether what was granted at these moments keeps to the rate, wherever a stretch begins.
fn keeps_to(rate: Rate, granted: &[u64]) -> Result<(), TestCaseError> {
    let (count, unit) = (u64::from(rate.count()), rate.unit().micros());
    for (first, from) in granted.iter().enumerate() {
        for (until, had) in granted[first..].iter().zip(1_u64..) {
            match rate.burst() {
                None => prop_assert!(until - from > unit || had <= count, "{had} within {} by {rate}", until - from),
                // had <= B + N t / unit
                Some(burst) => {
                    let most = u128::from(burst) * u128::from(unit) + u128::from(count) * u128::from(until - from);
                    prop_assert!(u128::from(had) * u128::from(unit) <= most, "{had} within {} by {rate}", until - from);
                }
            }
        }
    }
    Ok(())
}

fn at(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn no_stretch_holds_more_than_a_rate_allows(rates in some_rates(), requests in requests()) {
        let mut tally = Tally::default();
        let granted: Vec<u64> =
            requests.iter().copied().filter(|moment| rates.take(&mut tally, at(*moment)).is_granted()).collect();
        for rate in rates.iter() {
            keeps_to(rate, &granted)?;
        }
    }

    #[test]
    fn a_tally_made_coarser_grants_no_more(
        rates in some_rates(),
        requests in requests(),
        coarser in prop::collection::vec(0_usize..300, 1..6),
    ) {
        let (mut tally, mut exact) = (Tally::default(), Tally::default());
        let mut granted = Vec::new();
        for (number, moment) in requests.iter().enumerate() {
            if rates.take(&mut tally, at(*moment)).is_granted() {
                granted.push(*moment);
            }
            if coarser.contains(&number) {
                exact.clone_from(&tally);
                tally.coarsen(at(*moment));
                let sum = |tally: &Tally| rates.remaining(tally, at(*moment)).iter().map(|left| left.remaining).collect::<Vec<_>>();
                prop_assert_eq!(sum(&exact), sum(&tally));
                prop_assert!(tally.heap() <= exact.heap().max(64));
            }
        }
        for rate in rates.iter() {
            keeps_to(rate, &granted)?;
        }
    }

    #[test]
    fn a_clock_that_steps_back_opens_nothing(
        rates in some_rates(),
        requests in requests(),
        steps in prop::collection::vec((0_usize..300, 0..Unit::Hour.micros()), 1..4),
    ) {
        let mut tally = Tally::default();
        let ahead = Unit::Day.micros();
        let mut granted = Vec::new();
        for (number, moment) in requests.iter().enumerate() {
            let back: u64 = steps.iter().filter(|(from, _)| *from <= number).map(|(_, back)| *back).sum();
            if rates.take(&mut tally, at(ahead + moment - back)).is_granted() {
                granted.push(*moment);
            }
        }
        for rate in rates.iter() {
            keeps_to(rate, &granted)?;
        }
    }

    #[test]
    fn a_refusal_takes_nothing_and_says_the_first_moment_that_grants(rates in some_rates(), requests in requests()) {
        let mut tally = Tally::default();
        for moment in requests {
            let before = rates.remaining(&tally, at(moment));
            let allowance = rates.take(&mut tally, at(moment));
            let Some(refused) = allowance.refused else { continue };
            prop_assert_eq!(&before, &allowance.rates);
            let again = at(moment) + refused.retry_after;
            prop_assert!(rates.refusal(&tally, again - at(1)).is_some());
            prop_assert!(rates.look(&tally, again).is_granted());
            let alone = Rates::new(vec![refused.rate]).expect("a rate");
            prop_assert_eq!(alone.refusal(&tally, at(moment)).map(|alone| alone.retry_after), Some(refused.retry_after));
        }
    }

    #[test]
    fn what_is_left_is_what_can_be_had(rates in some_rates(), requests in requests()) {
        let mut tally = Tally::default();
        for moment in requests {
            let allowance = rates.take(&mut tally, at(moment));
            for left in allowance.rates {
                let alone = Rates::new(vec![left.rate]).expect("a rate");
                let remaining = |tally: &Tally, moment| alone.remaining(tally, moment)[0].remaining;
                let mut copy = tally.clone();
                let had = (0..200).filter(|_| alone.take(&mut copy, at(moment)).is_granted()).count();
                prop_assert_eq!(had, left.remaining as usize);
                if left.next > Duration::ZERO {
                    prop_assert_eq!(remaining(&tally, at(moment) + left.next - at(1)), left.remaining);
                    prop_assert!(remaining(&tally, at(moment) + left.next) > left.remaining);
                }
                if left.full > Duration::ZERO {
                    prop_assert!(alone.remaining(&tally, at(moment) + left.full - at(1))[0].full > Duration::ZERO);
                }
                prop_assert_eq!(remaining(&tally, at(moment) + left.full), left.rate.limit());
            }
        }
    }

    #[test]
    fn what_is_idle_may_be_forgotten(rates in some_rates(), requests in requests(), later in 0..2 * Unit::Day.micros()) {
        let mut tally = Tally::default();
        let last = *requests.last().expect("a request");
        for moment in requests {
            rates.take(&mut tally, at(moment));
        }
        let (now, fresh) = (at(last + later), Tally::default());
        let holds_nothing = rates.remaining(&tally, now) == rates.remaining(&fresh, now);
        prop_assert_eq!(tally.is_idle(now), holds_nothing);
    }

    #[test]
    fn a_bucket_is_virtual_scheduling(rate in bucket(), requests in requests()) {
        let rates = Rates::new(vec![rate]).expect("a rate");
        let (count, unit) = (u128::from(rate.count()), u128::from(rate.unit().micros()));
        let burst = u128::from(rate.burst().expect("a bucket"));
        let mut tally = Tally::default();
        // The theoretical arrival time, N times as fine as a microsecond.
        let mut arrival = 0_u128;
        for moment in requests {
            let now = u128::from(moment) * count;
            let conforms = arrival <= now + (burst - 1) * unit;
            prop_assert_eq!(rates.take(&mut tally, at(moment)).is_granted(), conforms);
            if conforms {
                arrival = arrival.max(now) + unit;
            }
        }
    }
}

/// How demand comes about.
#[derive(Clone, Copy, Debug)]
enum Pattern {
    Even,
    /// So many at once.
    Together(u64),
    /// Each a bit early or late.
    Jittered(u64),
}

fn pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![Just(Pattern::Even), (2_u64..8).prop_map(Pattern::Together), any::<u64>().prop_map(Pattern::Jittered)]
}

/// How many of the demand of so many windows are granted, `permille` of the rate being asked for.
fn granted(rate: Rate, permille: u64, pattern: Pattern, start: u64, windows: u64) -> u64 {
    let rates = Rates::new(vec![rate]).expect("a rate");
    let (unit, mut tally) = (rate.unit().micros(), Tally::default());
    let asked = u64::from(rate.count()) * permille * windows / 1_000;
    let mut chance = 1_u64;
    (0..asked)
        .filter(|number| {
            let even = |number: u64| u128::from(number) * u128::from(unit) * u128::from(windows) / u128::from(asked);
            let moment = match pattern {
                Pattern::Even => even(*number),
                Pattern::Together(many) => even(number - number % many),
                Pattern::Jittered(seed) => {
                    chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
                    even(*number)
                        + u128::from(chance >> 33) * u128::from(unit) / u128::from(asked / windows) / (1 << 31)
                }
            };
            let now = at(start + u64::try_from(moment).expect("a moment"));
            let is_granted = rates.refusal(&tally, now).is_none();
            if is_granted {
                rates.add(&mut tally, now);
            }
            is_granted
        })
        .count() as u64
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn steady_demand_a_little_above_is_granted_nearly_all(
        count in 300_u32..1_000,
        unit in any_unit(),
        permille in 1_000_u64..1_300,
        pattern in pattern(),
        start in 0..Unit::Day.micros(),
    ) {
        let rate = Rate::new(count, unit, None).expect("a rate");
        let granted = granted(rate, permille, pattern, start, 5);
        prop_assert!(granted * 100 >= u64::from(count) * 5 * 98, "{granted} of {count} in each of 5");
    }

    /// Of a small number a tenth is lost where demand comes ten times a window, whatever is counted by; so it comes often enough here.
    #[test]
    fn steady_demand_far_above_is_granted_nearly_all(count in 1_u32..200, unit in any_unit(), start in 0..Unit::Day.micros()) {
        let rate = Rate::new(count, unit, None).expect("a rate");
        let permille = 1_000_000_u64.div_ceil(u64::from(count)).max(3_000);
        let granted = granted(rate, permille, Pattern::Even, start, 5);
        prop_assert!(granted * 100 >= u64::from(count) * 5 * 98, "{granted} of {count} in each of 5");
    }
}
