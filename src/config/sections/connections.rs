//! `server.connections` and `server.source_connections`: how many connections are held at once. `server` reads them.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::error::{Report, Trail};

const CONNECTIONS: u32 = 16_384;

/// How many connections are held at once, at all listeners but admin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionBounds {
    pub all: u32,
    /// `None`: one source may hold all.
    pub per_source: Option<u32>,
}

impl ConnectionBounds {
    /// Of one source where nothing is said: it takes seven to shut others out; the last eighth is kept for trusted proxies.
    #[must_use]
    pub fn share_of(all: u32) -> u32 {
        (all / 8).max(1)
    }
}

/// A number, or `none`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawSourceConnections {
    Number(i64),
    Word(String),
}

/// `at`: the section.
pub(super) fn bounds(
    report: &mut Report,
    at: &Trail,
    all: Option<u32>,
    per_source: Option<&RawSourceConnections>,
) -> ConnectionBounds {
    let all = all.unwrap_or(CONNECTIONS);
    if all == 0 {
        report.fault(&at.key("connections"), "0 connections let nobody in; write for example `16384`");
    }
    let Some(raw) = per_source else {
        return ConnectionBounds { all, per_source: Some(ConnectionBounds::share_of(all)) };
    };
    let at = at.key("source_connections");
    let per_source = report.take(&at, of_one_source(raw)).flatten();
    if per_source.is_some_and(|per_source| per_source >= all) {
        let message =
            format!("one source may hold all {all} connections (`server.connections`); write a smaller number");
        report.warn(&at, message);
    }
    ConnectionBounds { all, per_source }
}

fn of_one_source(raw: &RawSourceConnections) -> Result<Option<u32>, String> {
    let fault = |written: &str| format!("`{written}` is no number of connections; write for example `2048`, or `none`");
    let number = match raw {
        RawSourceConnections::Number(number) => *number,
        RawSourceConnections::Word(word) if word == "none" => return Ok(None),
        RawSourceConnections::Word(word) => return Err(fault(word)),
    };
    match u32::try_from(number) {
        Ok(0) => Err("0 connections let nobody in; write for example `2048`, or `none` for no limit".to_owned()),
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(fault(&number.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::tests::{GOOD, RULES, faults, load_text};

    #[test]
    fn one_source_may_hold_an_eighth_of_all_unless_it_is_said() {
        for (written, expected, is_warned_of) in [
            ("", (16_384, Some(2048)), false),
            ("connections: 800", (800, Some(100)), false),
            ("connections: 5", (5, Some(1)), false),
            ("source_connections: 7", (16_384, Some(7)), false),
            ("connections: 800, source_connections: none", (800, None), false),
            ("connections: 800, source_connections: 800", (800, Some(800)), true),
        ] {
            let text = format!("{GOOD}server: {{ {written} }}");
            let loaded = load_text(&text, &[RULES]).unwrap_or_else(|fault| panic!("{written}: {fault}"));
            let bounds = loaded.settings.server.connections;
            assert_eq!((bounds.all, bounds.per_source), expected, "{written}");
            let is_told = loaded.warnings.iter().any(|warning| warning.message.contains("one source may hold all 800"));
            assert_eq!(is_told, is_warned_of, "{written}");
        }
    }

    #[test]
    fn faults_of_connections() {
        for (written, told) in [
            ("connections: 0", "0 connections let nobody in; write for example `16384`"),
            ("connections: none", "`server.connections`: expected a whole number, found `none`"),
            ("connections: -1", "invalid value: integer `-1`"),
            ("source_connections: 0", "0 connections let nobody in; write for example `2048`, or `none` for no limit"),
            ("source_connections: -1", "`-1` is no number of connections; write for example `2048`, or `none`"),
            ("source_connections: 4294967296", "`4294967296` is no number of connections"),
            ("source_connections: many", "`many` is no number of connections"),
            ("source_connections: [1]", "`server.source_connections`: expected a whole number or text, found a list"),
        ] {
            let faults = faults(&format!("{GOOD}server: {{ {written} }}"));
            assert!(faults.contains(told), "{written}: {faults}");
        }
    }
}
