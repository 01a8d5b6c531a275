//! One line of the access log, as JSON or for people. Whatever a client sent is quoted and escaped in both, so that nobody
//! can forge a line or speak to a terminal.

use std::fmt::Write as _;

use super::Entry;
use crate::core::{
    identity::Identity,
    policy::{Parameter, Recorded, RuleSet},
    target::{Scheme, Target},
    time::Timestamp,
};

/// Appends the line to `line`.
pub(super) fn json(line: &mut String, entry: &Entry<'_>) {
    line.push_str("{\"time\":\"");
    push_time(line, entry.at);
    line.push_str("\",\"level\":\"INFO\",\"target\":\"postern::access\"");
    push_field(line, "role", Some(entry.role));
    push_field(line, "request_id", Some(entry.request_id));
    push_field(line, "trace_id", Some(entry.trace_id));
    match entry.client {
        // An address needs no escape. Writing to a `String` cannot fail, here and below.
        Some(client) => drop(write!(line, ",\"client\":\"{client}\"")),
        None => line.push_str(",\"client\":null"),
    }
    push_field(line, "user", entry.caller.map(|caller| &*caller.user));
    if let Some(caller) = entry.caller {
        push_caller(line, caller, entry.decided_at);
    }
    push_field(line, "method", Some(entry.method));
    push_field(line, "scheme", Some(scheme(entry)));
    push_field(line, "host", Some(host(entry)));
    push_field(line, "path", Some(path(entry)));
    if let (Some(target), Some(_)) = (entry.target, entry.rule) {
        push_other_paths(line, target);
        push_query(line, entry.rules, target);
        if let Some(headers) = entry.headers {
            push_headers(line, headers);
        }
    }
    push_field(line, "route", Some(entry.route));
    push_field(line, "rule", entry.rule);
    push_field(line, "verdict", Some(entry.verdict));
    if let Some(credential) = entry.credential.as_str() {
        push_field(line, "credential", Some(credential));
    }
    if let Some(reported) = entry.reported {
        push_field(line, "reported_rule", Some(&reported.rule));
        push_field(line, "reported_verdict", Some(reported.ruling.as_str()));
    }
    for (name, limit) in [("limit", entry.limit), ("reported_limit", entry.reported_limit)] {
        if limit.is_some() {
            push_field(line, name, limit);
        }
    }
    line.push_str(",\"status\":");
    push_number(line, u64::from(entry.status), 1);
    line.push_str(",\"duration_ms\":");
    push_millis(line, entry);
    line.push_str("}\n");
}

/// Appends the line to `line`.
pub(super) fn text(line: &mut String, entry: &Entry<'_>) {
    push_time(line, entry.at);
    let _ = write!(line, " {} {} {} ", entry.role, entry.status, entry.verdict);
    push_quoted(line, entry.method);
    line.push_str(" \"");
    line.push_str(scheme(entry));
    line.push_str("://");
    push_escaped(line, host(entry));
    push_escaped(line, path(entry));
    line.push('"');
    if let Some(client) = entry.client {
        let _ = write!(line, " client={client}");
    }
    for (name, value) in [
        ("user", entry.caller.map(|caller| &*caller.user)),
        ("route", Some(entry.route)),
        ("rule", entry.rule),
        ("reported_rule", entry.reported.map(|reported| &*reported.rule)),
        ("reported_verdict", entry.reported.map(|reported| reported.ruling.as_str())),
        ("limit", entry.limit),
        ("reported_limit", entry.reported_limit),
        ("request_id", Some(entry.request_id)),
        ("trace_id", Some(entry.trace_id)),
    ] {
        if let Some(value) = value {
            line.push(' ');
            line.push_str(name);
            line.push('=');
            push_quoted(line, value);
        }
    }
    line.push(' ');
    push_millis(line, entry);
    line.push_str("ms\n");
}

fn scheme(entry: &Entry<'_>) -> &'static str {
    entry.target.map_or("", |target| Scheme::as_str(target.scheme()))
}

fn host<'e>(entry: &Entry<'e>) -> &'e str {
    entry.target.map_or("", Target::host)
}

/// The canonical path.
fn path<'e>(entry: &Entry<'e>) -> &'e str {
    entry.target.map_or("", Target::path)
}

/// What rules may look at of somebody. How old the sign-in was when they did: a request may last for hours after that.
fn push_caller(line: &mut String, caller: &Identity, decided_at: Option<Timestamp>) {
    line.push_str(",\"groups\":[");
    push_list(line, &caller.groups, |line, group| push_quoted(line, group));
    line.push(']');
    if !caller.claimed_roles().is_empty() {
        line.push_str(",\"claimed_roles\":[");
        push_list(line, caller.claimed_roles(), |line, role| push_quoted(line, role));
        line.push(']');
    }
    push_field(line, "factor", Some(caller.factor.as_str()));
    if caller.client().is_some() {
        push_field(line, "account", Some("service"));
    }
    if let Some(decided_at) = decided_at {
        line.push_str(",\"auth_age_ms\":");
        let (now, then) = (decided_at.unix_millis(), caller.signed_in_at.unix_millis());
        if now < then {
            line.push('-');
        }
        push_number(line, now.abs_diff(then), 1);
    }
}

/// Most paths are read in one way.
fn push_other_paths(line: &mut String, target: &Target) {
    let mut others = target.readings().skip(1).peekable();
    if others.peek().is_some() {
        line.push_str(",\"other_paths\":[");
        push_list(line, others, push_quoted);
        line.push(']');
    }
}

/// `null` where there was none; else an object of the parameters that a rule of this host asks about, and of nothing else.
fn push_query(line: &mut String, rules: &RuleSet, target: &Target) {
    if target.query().is_none() {
        line.push_str(",\"query\":null");
        return;
    }
    line.push_str(",\"query\":{");
    push_list(line, rules.recorded(target), |line, (key, readings)| push_readings(line, key, &readings));
    line.push('}');
}

/// The headers that a rule of this host asks about; nothing where none does.
fn push_headers(line: &mut String, headers: &Recorded) {
    line.push_str(",\"headers\":{");
    push_list(line, headers, |line, (name, readings)| push_readings(line, name, readings));
    line.push('}');
}

fn push_readings(line: &mut String, name: &str, readings: &[Parameter]) {
    push_quoted(line, name);
    line.push(':');
    match readings {
        [one] => push_parameter(line, one),
        several => {
            line.push('[');
            push_list(line, several, push_parameter);
            line.push(']');
        }
    }
}

fn push_parameter(line: &mut String, parameter: &Parameter) {
    match parameter {
        Parameter::Absent => line.push_str("null"),
        Parameter::Present => line.push_str("true"),
        Parameter::Value(value) => push_quoted(line, value),
    }
}

fn push_list<T>(line: &mut String, entries: impl IntoIterator<Item = T>, push: impl Fn(&mut String, T)) {
    for (place, entry) in entries.into_iter().enumerate() {
        if place > 0 {
            line.push(',');
        }
        push(line, entry);
    }
}

fn push_field(line: &mut String, name: &str, value: Option<&str>) {
    line.push_str(",\"");
    line.push_str(name);
    line.push_str("\":");
    match value {
        Some(value) => push_quoted(line, value),
        None => line.push_str("null"),
    }
}

fn push_quoted(line: &mut String, value: &str) {
    line.push('"');
    push_escaped(line, value);
    line.push('"');
}

/// JSON's escapes (RFC 8259 §7), and beyond them what a terminal or a viewer obeys: C1 controls, DEL, line separators and
/// bidirectional overrides.
fn push_escaped(line: &mut String, value: &str) {
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\') {
        line.push_str(value);
        return;
    }
    for character in value.chars() {
        match character {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => drop(write!(line, "\\u{:04x}", u32::from(character))),
            _ if character.is_control() => drop(write!(line, "\\u{:04x}", u32::from(character))),
            _ => line.push(character),
        }
    }
}

fn push_millis(line: &mut String, entry: &Entry<'_>) {
    let micros = u64::try_from(entry.took.as_micros()).unwrap_or(u64::MAX);
    push_number(line, micros / 1000, 1);
    line.push('.');
    push_number(line, micros % 1000, 3);
}

/// At least `width` digits, at most 20. By hand: seven numbers a line through the formatting machinery cost as much as the rest of it.
fn push_number(line: &mut String, value: u64, width: usize) {
    let mut digits = [b'0'; 20];
    let mut rest = value;
    let mut count = 0;
    for digit in digits.iter_mut().rev() {
        *digit += u8::try_from(rest % 10).unwrap_or_default();
        rest /= 10;
        count += 1;
        if rest == 0 {
            break;
        }
    }
    let shown = digits.len().saturating_sub(width.max(count));
    line.push_str(digits.get(shown..).and_then(|shown| std::str::from_utf8(shown).ok()).unwrap_or_default());
}

/// RFC 3339 in UTC with milliseconds. The date by Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
fn push_time(line: &mut String, at: Timestamp) {
    let millis = at.unix_millis();
    let (day, within) = (millis.div_euclid(86_400_000), millis.rem_euclid(86_400_000));
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (within / 3_600_000, within / 60_000 % 60, within / 1000 % 60);
    for (value, width, behind) in [
        (year, 4, '-'),
        (month, 2, '-'),
        (day, 2, 'T'),
        (hour, 2, ':'),
        (minute, 2, ':'),
        (second, 2, '.'),
        (within % 1000, 3, 'Z'),
    ] {
        push_number(line, u64::try_from(value).unwrap_or_default(), width);
        line.push(behind);
    }
}
