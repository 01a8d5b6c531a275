//! Moments and lengths of time in expressions: CEL's own spellings, in milliseconds. Time zones come from the table that is built in, so
//! that nothing is read.

use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

/// A part of a moment in a time zone: `getHours("Europe/Berlin")`.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) kind: Kind,
    pub(super) zone: TimeZone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    FullYear,
    /// From 0, as CEL counts.
    Month,
    /// From 1.
    Date,
    /// From 0.
    DayOfMonth,
    /// Sunday is 0.
    DayOfWeek,
    /// From 0.
    DayOfYear,
    Hours,
    Minutes,
    Seconds,
    Milliseconds,
}

pub(super) const PARTS: [(&str, Kind); 10] = [
    ("getFullYear", Kind::FullYear),
    ("getMonth", Kind::Month),
    ("getDate", Kind::Date),
    ("getDayOfMonth", Kind::DayOfMonth),
    ("getDayOfWeek", Kind::DayOfWeek),
    ("getDayOfYear", Kind::DayOfYear),
    ("getHours", Kind::Hours),
    ("getMinutes", Kind::Minutes),
    ("getSeconds", Kind::Seconds),
    ("getMilliseconds", Kind::Milliseconds),
];

impl Part {
    /// `None`: no calendar goes so far.
    pub(super) fn of(&self, millis: i64) -> Option<i64> {
        let at = jiff::Timestamp::from_millisecond(millis).ok()?.to_zoned(self.zone.clone());
        Some(i64::from(match self.kind {
            Kind::FullYear => at.year(),
            Kind::Month => i16::from(at.month()) - 1,
            Kind::Date => i16::from(at.day()),
            Kind::DayOfMonth => i16::from(at.day()) - 1,
            Kind::DayOfWeek => i16::from(at.weekday().to_sunday_zero_offset()),
            Kind::DayOfYear => at.day_of_year() - 1,
            Kind::Hours => i16::from(at.hour()),
            Kind::Minutes => i16::from(at.minute()),
            Kind::Seconds => i16::from(at.second()),
            Kind::Milliseconds => at.millisecond(),
        }))
    }
}

/// `Europe/Berlin`, `UTC` or `+02:00`.
pub(super) fn zone(text: &str) -> Option<TimeZone> {
    if text == "UTC" {
        return Some(TimeZone::UTC);
    }
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, text.get(1..)?),
        b'-' => (-1, text.get(1..)?),
        b'0'..=b'9' => (1, text),
        _ => return TimeZoneDatabase::bundled().get(text).ok(),
    };
    let (hours, minutes) = rest.split_once(':')?;
    let two_digits = |text: &str| (text.len() == 2).then(|| text.parse::<u8>().ok()).flatten();
    let (hours, minutes) =
        (two_digits(hours).filter(|hours| *hours < 24)?, two_digits(minutes).filter(|part| *part < 60)?);
    let seconds = sign * (i32::from(hours) * 3600 + i32::from(minutes) * 60);
    Some(TimeZone::fixed(Offset::from_seconds(seconds).ok()?))
}

/// RFC 3339, in milliseconds since 1970.
pub(super) fn timestamp(text: &str) -> Option<i64> {
    text.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

/// `1h30m`, `-1.5s`, `250ms`: numbers with the units `h m s ms`, in milliseconds.
pub(super) fn duration(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut millis: i64 = 0;
    while !rest.is_empty() {
        let number_ends = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at_checked(number_ends)?;
        let unit_ends = after.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at_checked(unit_ends)?;
        let factor: i64 = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        millis = millis.checked_add(scaled(number, factor)?)?;
        rest = next;
    }
    Some(sign * millis)
}

/// `1.5` times 1000, exactly; what is finer than a millisecond is no length that we know.
fn scaled(number: &str, factor: i64) -> Option<i64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let mut millis = whole.parse::<i64>().ok()?.checked_mul(factor)?;
    if number.contains('.') {
        let digits = u32::try_from(fraction.len()).ok().filter(|digits| (1..=9).contains(digits))?;
        let parts = fraction.parse::<i64>().ok()?.checked_mul(factor)?;
        let unit = 10_i64.checked_pow(digits)?;
        if parts % unit != 0 {
            return None;
        }
        millis = millis.checked_add(parts / unit)?;
    }
    Some(millis)
}
