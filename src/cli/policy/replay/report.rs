//! What is printed of a replay: what it opens first, since that is what nobody wants by mistake.

use std::fmt::{self, Write as _};

use serde_json::{Value, json};

use super::{
    line::{Sample, Skip},
    tally::{Capped, Change, Changed, Effect, Group, Groups, Tally, Why},
};

/// Rows of a table for people; the JSON has all that were kept.
const MOST_ROWS: usize = 20;
const RED: &str = "\u{1b}[1;31m";
const YELLOW: &str = "\u{1b}[1;33m";
const PLAIN: &str = "\u{1b}[0m";

const EFFECTS: [(Effect, &str, &str, &str); 3] = [
    (Effect::Opens, "opens", "OPENS: was not forwarded, would be", RED),
    (Effect::Closes, "closes", "CLOSES: was forwarded, would not be", YELLOW),
    (Effect::Other, "other", "OTHER: forwarded neither then nor now", ""),
];

pub(super) fn text(tally: &Tally, colour: bool) -> Result<String, fmt::Error> {
    let mut text = String::new();
    writeln!(text, "{:>10}  {}", tally.lines, if tally.lines == 1 { "line" } else { "lines" })?;
    let mut total = |count: u64, what: &str| writeln!(text, "{count:>10}  {what}");
    match tally.by_another_rule {
        0 => total(tally.unchanged, "unchanged")?,
        others => total(tally.unchanged, &format!("unchanged, {others} of them by a rule of another name"))?,
    }
    total(tally.changed.opens, "would open")?;
    total(tally.changed.closes, "would close")?;
    total(tally.changed.other, "would change otherwise")?;
    total(tally.unknown, "unknown: the log does not hold what the rules look at")?;
    total(tally.all_skipped(), "skipped")?;
    let changes = sorted(&tally.changes, |group| group.count);
    for (effect, _, title, paint) in EFFECTS {
        let rows: Vec<_> = changes.iter().filter(|(change, _)| change.effect() == effect).collect();
        if rows.is_empty() {
            continue;
        }
        heading(&mut text, title, if colour { paint } else { "" })?;
        let table = rows.iter().map(|(change, group)| (told(change), *group));
        groups(&mut text, table, rows.len())?;
    }
    if tally.changes.beyond > 0 {
        writeln!(text, "\n{:>10}  changes of further kinds, not told apart", tally.changes.beyond)?;
    }
    if tally.changed.all() > 0 {
        users(&mut text, tally)?;
    }
    if tally.unknown > 0 {
        heading(&mut text, "UNKNOWN", if colour { YELLOW } else { "" })?;
        let unknowns = sorted(&tally.unknowns, |group| group.count);
        groups(&mut text, unknowns.iter().map(|(why, group)| (because(why), *group)), unknowns.len())?;
    }
    if !tally.skipped.is_empty() {
        heading(&mut text, "SKIPPED", "")?;
        for (skip, count) in &tally.skipped {
            writeln!(text, "{count:>10}  {}", skipped(*skip).1)?;
        }
    }
    Ok(text)
}

fn heading(text: &mut String, title: &str, paint: &str) -> fmt::Result {
    let plain = if paint.is_empty() { "" } else { PLAIN };
    writeln!(text, "\n{paint}{title}{plain}")
}

fn groups<'g>(text: &mut String, rows: impl Iterator<Item = (String, &'g Group)>, count: usize) -> fmt::Result {
    for (what, group) in rows.take(MOST_ROWS) {
        writeln!(text, "{:>10}  {what}", group.count)?;
        for Sample { method, host, path } in &group.samples {
            writeln!(text, "{:14}{} {}{}", "", harmless(method), harmless(host), harmless(path))?;
        }
    }
    and_more(text, count)
}

fn users(text: &mut String, tally: &Tally) -> fmt::Result {
    heading(text, "BY USER", "")?;
    let users = sorted(&tally.users, |changed| changed.all());
    let name = |user: &Option<String>| user.as_ref().map_or_else(|| "(nobody)".to_owned(), |user| harmless(user));
    writeln!(text, "{:>10}  {:>10}  {:>10}", "opens", "closes", "other")?;
    for (user, Changed { opens, closes, other }) in users.iter().take(MOST_ROWS) {
        writeln!(text, "{opens:>10}  {closes:>10}  {other:>10}  {}", name(user))?;
    }
    and_more(text, users.len())?;
    if tally.users.beyond > 0 {
        writeln!(text, "{:>10}  changes of further users, not told apart", tally.users.beyond)?;
    }
    Ok(())
}

fn and_more(text: &mut String, count: usize) -> fmt::Result {
    if let Some(more) = count.checked_sub(MOST_ROWS).filter(|more| *more > 0) {
        writeln!(text, "{:12}and {more} more: --format json has all", "")?;
    }
    Ok(())
}

/// Most frequent first, and the same in every run.
fn sorted<K: Ord, V>(all: &Capped<K, V>, count: impl Fn(&V) -> u64) -> Vec<(&K, &V)> {
    let mut all: Vec<(&K, &V)> = all.entries.iter().collect();
    all.sort_by(|(left, of_left), (right, of_right)| count(of_right).cmp(&count(of_left)).then(left.cmp(right)));
    all
}

fn told(Change { then, now }: &Change) -> String {
    format!("{} by {:?} -> {} by {:?}", then.0.as_str(), then.1, now.0.as_str(), now.1)
}

fn because(why: &Why) -> String {
    match why {
        Why::Rule(rule) => {
            format!("rule {rule:?} reads something of the request or the user that the log does not hold")
        }
        Why::Credential => "a credential came along that was not looked at then, and would be now".to_owned(),
        Why::Incomplete => "the line lacks fields: another version of Postern wrote it".to_owned(),
    }
}

/// In JSON, and for people.
const fn skipped(skip: Skip) -> (&'static str, &'static str) {
    match skip {
        Skip::NoRule => ("no_rule", "no rule was asked (portal, reject, slow_down)"),
        Skip::Unavailable => ("unavailable", "a store could not say who asked (unavailable)"),
        Skip::Other => ("other", "other JSON than the access log"),
        Skip::NotJson => ("not_json", "not JSON"),
        Skip::TooLong => ("too_long", "longer than 1 MiB"),
        Skip::Cut => ("cut", "cut off at the end of the log"),
    }
}

/// What a client sent may speak to a terminal, were it shown as it is.
fn harmless(text: &str) -> String {
    let quoted = format!("{text:?}");
    quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default().to_owned()
}

/// One object, with everything that was kept.
pub(super) fn json(tally: &Tally) -> String {
    let told = format!("{:#}", value(tally));
    let mut json = String::with_capacity(told.len());
    for character in told.chars() {
        match character {
            // Between strings; in them it is escaped already.
            '\n' => json.push('\n'),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                json += &format!("\\u{:04x}", u32::from(character));
            }
            _ if character.is_control() => json += &format!("\\u{:04x}", u32::from(character)),
            _ => json.push(character),
        }
    }
    json
}

fn value(tally: &Tally) -> Value {
    let samples = |group: &Group| -> Vec<Value> {
        let sample = |Sample { method, host, path }: &Sample| json!({ "method": method, "host": host, "path": path });
        group.samples.iter().map(sample).collect()
    };
    let changes = |all: &Groups<Change>| -> Vec<Value> {
        let mut all = sorted(all, |group| group.count);
        // The order of before stays within each kind.
        all.sort_by_key(|(change, _)| change.effect());
        let change = |(change, group): (&Change, &Group)| {
            let effect = EFFECTS.iter().find(|(effect, ..)| *effect == change.effect()).map(|(_, name, ..)| name);
            json!({
                "effect": effect,
                "recorded": { "verdict": change.then.0.as_str(), "rule": change.then.1 },
                "replayed": { "verdict": change.now.0.as_str(), "rule": change.now.1 },
                "count": group.count,
                "samples": samples(group),
            })
        };
        all.into_iter().map(change).collect()
    };
    let user = |(user, changed): (&Option<String>, &Changed)| json!({ "user": user, "opens": changed.opens, "closes": changed.closes, "other": changed.other });
    let unknown = |(why, group): (&Why, &Group)| {
        let rule = match why {
            Why::Rule(rule) => Some(rule),
            Why::Credential | Why::Incomplete => None,
        };
        json!({ "rule": rule, "because": because(why), "count": group.count, "samples": samples(group) })
    };
    let skipped: serde_json::Map<String, Value> =
        tally.skipped.iter().map(|(skip, count)| (skipped(*skip).0.to_owned(), json!(count))).collect();
    let Changed { opens, closes, other } = tally.changed;
    json!({
        "lines": tally.lines,
        "decided": tally.all_decided(),
        "unchanged": tally.unchanged,
        "by_another_rule": tally.by_another_rule,
        "changed": { "opens": opens, "closes": closes, "other": other },
        "unknown": tally.unknown,
        "skipped": skipped,
        "changes": changes(&tally.changes),
        "changes_not_listed": tally.changes.beyond,
        "users": sorted(&tally.users, |changed| changed.all()).into_iter().map(user).collect::<Vec<_>>(),
        "users_not_listed": tally.users.beyond,
        "unknowns": sorted(&tally.unknowns, |group| group.count).into_iter().map(unknown).collect::<Vec<_>>(),
        "unknowns_not_listed": tally.unknowns.beyond,
    })
}
