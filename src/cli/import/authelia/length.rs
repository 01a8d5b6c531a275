//! Authelia's durations: a number of seconds, or numbers with units, `1h30m`, `5 minutes`, `1 month`, `1M`.

use std::time::Duration;

use super::spot::Spot;
use crate::config::source::Kind;

const DAY: u64 = 86_400_000;
/// In milliseconds. `M` is a month and `m` a minute.
#[rustfmt::skip]
const UNITS: &[(&[&str], u64)] = &[
    (&["ms", "millisecond", "milliseconds"], 1),
    (&["s", "second", "seconds"], 1_000),
    (&["m", "minute", "minutes"], 60_000),
    (&["h", "hour", "hours"], 3_600_000),
    (&["d", "day", "days"], DAY),
    (&["w", "week", "weeks"], 7 * DAY),
    (&["M", "month", "months"], 30 * DAY),
    (&["y", "year", "years"], 365 * DAY),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    /// Zero: Authelia takes its default.
    Default,
    /// Below zero.
    Off,
    Of(Duration),
}

/// `None`: no duration.
pub(super) fn length(spot: &Spot<'_>) -> Option<Length> {
    match &spot.node.kind {
        Kind::Int(seconds) => Some(match u64::try_from(*seconds) {
            Err(_) => Length::Off,
            Ok(0) => Length::Default,
            Ok(seconds) => Length::Of(Duration::from_secs(seconds)),
        }),
        Kind::Str(text) => parse(text),
        Kind::Null => Some(Length::Default),
        _ => None,
    }
}

fn parse(text: &str) -> Option<Length> {
    if text.trim() == "-1" {
        return Some(Length::Off);
    }
    let joined: String = text.replace("and", "").split_whitespace().collect();
    if joined.is_empty() {
        return Some(Length::Default);
    }
    let millis = if joined.bytes().all(|byte| byte.is_ascii_digit()) {
        joined.parse::<u64>().ok()?.checked_mul(1_000)?
    } else {
        let mut millis: u64 = 0;
        let mut rest = joined.as_str();
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| !letter.is_ascii_digit())?;
            let (number, behind) = rest.split_at_checked(digits)?;
            let letters = behind.find(|letter: char| letter.is_ascii_digit()).unwrap_or(behind.len());
            let (unit, next) = behind.split_at_checked(letters)?;
            let (_, factor) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
            millis = number.parse::<u64>().ok()?.checked_mul(*factor)?.checked_add(millis)?;
            rest = next;
        }
        millis
    };
    Some(if millis == 0 { Length::Default } else { Length::Of(Duration::from_millis(millis)) })
}

/// As Postern writes it: `15m`.
pub(super) fn spelt(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let (length, unit) = units.into_iter().find(|(length, _)| millis.is_multiple_of(*length)).unwrap_or((1, "ms"));
    format!("{}{unit}", millis / length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_authelia_is_read() {
        for (text, ours) in [
            ("5m", "5m"),
            ("300", "5m"),
            ("1 hour", "1h"),
            ("1h30m", "90m"),
            ("1 hour and 30 minutes", "90m"),
            ("1M", "30d"),
            ("1 month", "30d"),
            ("2w", "14d"),
            ("1 year", "365d"),
            ("1500ms", "1500ms"),
        ] {
            let Some(Length::Of(duration)) = parse(text) else { panic!("{text:?} is a duration") };
            assert_eq!(spelt(duration), ours, "{text:?}");
            assert_eq!(crate::config::duration(ours), Ok(duration), "{text:?}");
        }
        assert_eq!(parse("-1"), Some(Length::Off));
        for text in ["0", "", "0s", "0 hours"] {
            assert_eq!(parse(text), Some(Length::Default), "{text:?}");
        }
        for text in ["5 parsecs", "m", "1.5h", "-5m", "1h 30", "99999999999999999999y", "{{ env }}"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
