//! `regulation:`: how often a sign-in may go wrong before the next one waits.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::duration;
use crate::{
    config::error::{Report, Trail},
    core::regulation::Budgets,
};

/// How often a sign-in may go wrong before the next one waits: 5 s at first, then twice as long each time.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawRegulation {
    /// Tries that may go wrong with a name from one address (IPv6 by /64), and on a device where the user signed in before (default 5). 0: no sign-in is
    /// ever kept waiting.
    #[schemars(example = &5)]
    max_retries: Option<u32>,
    /// The same with a name from all addresses where nobody of that name is known (default: four times `max_retries`).
    #[schemars(example = &20)]
    max_retries_per_name: Option<u32>,
    /// The same from an address, whatever the names (default: ten times `max_retries`).
    #[schemars(example = &50)]
    max_retries_per_address: Option<u32>,
    /// In which so many wrong tries are forgotten, one after the other (default `1h`).
    #[schemars(example = &"1h")]
    find_time: Option<String>,
    /// The longest wait (default `15m`).
    #[schemars(example = &"15m")]
    ban_time: Option<String>,
}

/// Beyond it a number is a slip, and the counters would be remembered for too long.
const MOST: u32 = 100_000;
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

pub(in crate::config) fn regulation(report: &mut Report, raw: &RawRegulation) -> Option<Budgets> {
    let at = Trail::root().key("regulation");
    let default = Budgets::default();
    let max_retries = raw.max_retries.unwrap_or(default.max_retries);
    let find_time = duration(report, &at.key("find_time"), raw.find_time.as_deref(), default.find_time, true);
    let ban_time = duration(report, &at.key("ban_time"), raw.ban_time.as_deref(), default.ban_time, true);
    for (key, time) in [("find_time", find_time), ("ban_time", ban_time)] {
        if time > LONGEST {
            report.fault(&at.key(key), format!("`regulation.{key}` is longer than 30 days; write for example `1h`"));
        }
    }
    let of_all = |report: &mut Report, key: &str, written: Option<u32>, times: u32| {
        let least = max_retries.min(MOST);
        let tries = written.unwrap_or(least.saturating_mul(times));
        if tries < least {
            let message = format!("`regulation.{key}` must be {least} or more, as `max_retries` is");
            report.fault(&at.key(key), message);
        }
        tries
    };
    let per_name = of_all(report, "max_retries_per_name", raw.max_retries_per_name, 4);
    let per_address = of_all(report, "max_retries_per_address", raw.max_retries_per_address, 10);
    let written = [
        ("max_retries", raw.max_retries),
        ("max_retries_per_name", raw.max_retries_per_name),
        ("max_retries_per_address", raw.max_retries_per_address),
    ];
    for (key, tries) in written {
        if tries.is_some_and(|tries| tries > MOST) {
            report.fault(&at.key(key), format!("`regulation.{key}` is above {MOST}; write for example `5`"));
        }
    }
    if max_retries == 0 {
        report
            .warn(&at.key("max_retries"), "with 0 nobody who guesses passwords is kept waiting; write for example `5`");
        return None;
    }
    Some(Budgets { max_retries, per_name, per_address, find_time, ban_time })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::{GOOD, RULES, faults, load_text};

    fn read(regulation: &str) -> Option<Budgets> {
        let loaded =
            load_text(&format!("{GOOD}regulation: {regulation}"), &[RULES]).unwrap_or_else(|fault| panic!("{fault}"));
        assert_eq!(loaded.settings.site.knows_devices, loaded.settings.regulation.is_some());
        loaded.settings.regulation
    }

    #[test]
    fn what_is_not_written_follows_from_what_is() {
        assert_eq!(read("{}"), Some(Budgets::default()));
        let three = read("{ max_retries: 3, find_time: 2m, ban_time: 5m }").unwrap();
        assert_eq!((three.max_retries, three.per_name, three.per_address), (3, 12, 30));
        assert_eq!((three.find_time, three.ban_time), (Duration::from_secs(120), Duration::from_secs(300)));
        let offices = read("{ max_retries_per_address: 500, max_retries_per_name: 5 }").unwrap();
        assert_eq!((offices.max_retries, offices.per_name, offices.per_address), (5, 5, 500));
        assert_eq!(read("{ max_retries: 0 }"), None);
    }

    #[test]
    fn faults_of_regulation() {
        for (written, told) in [
            ("{ find_time: 0s }", "`regulation.find_time` must be longer than nothing"),
            ("{ ban_time: 31d }", "`regulation.ban_time` is longer than 30 days"),
            ("{ max_retries: 5, max_retries_per_name: 4 }", "`regulation.max_retries_per_name` must be 5 or more"),
            ("{ max_retries_per_address: 0 }", "`regulation.max_retries_per_address` must be 5 or more"),
            ("{ max_retries: 100001 }", "`regulation.max_retries` is above 100000"),
            ("{ max_retries: -1 }", "invalid value: integer `-1`"),
            ("{ retries: 3 }", "unknown key `regulation.retries`"),
        ] {
            let faults = faults(&format!("{GOOD}regulation: {written}"));
            assert!(faults.contains(told), "{written}: {faults}");
        }
    }
}
