//! Durations and rates as people write them: `30s`, `15m`, `2000/second burst 5000`. Called by `sections/`.

use std::time::Duration;

use super::SourceRate;
use crate::core::time::Timestamp;

const UNITS: &[(&str, u64)] = &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// `500ms 30s 15m 12h 30d`, also in a row: `1h30m`.
///
/// # Errors
/// What to write instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let fault = || format!("`{text}` is no duration; write a number and a unit: `500ms`, `30s`, `15m`, `12h` or `30d`");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(fault());
    }
    let mut millis: u64 = 0;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
        let (number, behind) = rest.split_at_checked(digits).ok_or_else(fault)?;
        let letters = behind.len() - behind.trim_start_matches(|letter: char| letter.is_ascii_alphabetic()).len();
        let (unit, next) = behind.split_at_checked(letters).ok_or_else(fault)?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(fault)?;
        let number: u64 = number.parse().map_err(|_| fault())?;
        millis = number.checked_mul(*factor).and_then(|part| millis.checked_add(part)).ok_or_else(fault)?;
        rest = next;
    }
    Ok(Duration::from_millis(millis))
}

/// `2027-06-30T18:00:00+02:00` (RFC 3339).
///
/// # Errors
/// What to write instead.
pub fn moment(text: &str) -> Result<Timestamp, String> {
    let moment: Result<jiff::Timestamp, _> = text.parse();
    moment
        .map(|moment| Timestamp::from_unix_millis(moment.as_millisecond()))
        .map_err(|_| format!("`{text}` is no moment; write one such as `2027-06-30T18:00:00+02:00`"))
}

/// The first moment that is no more: after the whole of a day such as `2027-06-30` (UTC), or at `2027-06-30T18:00:00+02:00` (RFC 3339).
///
/// # Errors
/// What to write instead.
pub(super) fn end(text: &str) -> Result<Timestamp, String> {
    let fault = || format!("`{text}` is no date; write `2027-06-30`, or a moment such as `2027-06-30T18:00:00+02:00`");
    let day_end = match text.parse::<jiff::civil::Date>() {
        // A moment parses as a date too, its time ignored.
        Ok(day) if text.len() == "2027-06-30".len() => {
            let next = day.tomorrow().map_err(|_| fault())?;
            next.to_zoned(jiff::tz::TimeZone::UTC).map_err(|_| fault())?.timestamp()
        }
        _ => return moment(text).map_err(|_| fault()),
    };
    Ok(Timestamp::from_unix_millis(day_end.as_millisecond()))
}

/// `N/unit burst B`, or `none`. Without `burst`, the bucket is as deep as the rate.
pub(super) fn source_rate(text: &str) -> Result<Option<SourceRate>, String> {
    let fault = || format!("`{text}` is no rate; write `2000/second burst 5000`, or `none`");
    if text == "none" {
        return Ok(None);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let (rate, burst) = match words.as_slice() {
        [rate] => (*rate, None),
        [rate, "burst", burst] => (*rate, Some(*burst)),
        _ => return Err(fault()),
    };
    let (count, unit) = rate.split_once('/').ok_or_else(fault)?;
    let seconds = match unit {
        "second" => 1,
        "minute" => 60,
        "hour" => 3_600,
        "day" => 86_400,
        _ => return Err(fault()),
    };
    let count: u32 = count.parse().map_err(|_| fault())?;
    let burst: u32 = burst.map_or(Ok(count), str::parse).map_err(|_| fault())?;
    if count == 0 || burst == 0 {
        return Err(format!("`{text}` would let nobody in; write a rate above zero, or `none` for no limit"));
    }
    Ok(Some(SourceRate { count, per: Duration::from_secs(seconds), burst }))
}
