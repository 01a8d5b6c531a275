//! The `query` of a rule: a list is an OR, a list within it an AND.

use super::{
    super::{
        ledger::{Ledger, kind_of},
        spot::{Spot, is_templated},
    },
    Entries, pattern,
    probe::{deny, probe},
};
use crate::core::policy::{Operator, QueryDraft, RuleDraft};

const OPERATORS: [Operator; 6] =
    [Operator::Equal, Operator::NotEqual, Operator::Present, Operator::Absent, Operator::Pattern, Operator::NotPattern];
/// More ways to fulfil one entry are not written out.
const MOST_ALTERNATIVES: usize = 16;

pub(super) fn conditions(spot: &Spot<'_>, closes: &str, ledger: &mut Ledger) -> Entries<Vec<QueryDraft>> {
    let mut entries = Entries::default();
    for item in spot.items() {
        let parts = if item.is_list() { item.items() } else { vec![item.clone()] };
        if parts.is_empty() {
            ledger.find(&item, format!("is an empty list, which to Authelia holds for any query; {closes}"));
            entries.lost = true;
            continue;
        }
        let read: Vec<Result<Vec<QueryDraft>, String>> = parts.iter().map(|part| condition(part, ledger)).collect();
        for (part, condition) in parts.iter().zip(&read) {
            match condition {
                Ok(_) => carry(part, ledger),
                Err(message) => {
                    ledger.find(part, format!("{message}; {closes}"));
                    entries.lost = true;
                }
            }
        }
        let Ok(all) = read.into_iter().collect::<Result<Vec<_>, _>>() else { continue };
        let ways = product(&all);
        if ways.len() > MOST_ALTERNATIVES {
            ledger.find(&item, format!("asks in too many ways for parameters that may be missing; {closes}"));
            entries.lost = true;
        } else {
            entries.good.extend(ways);
        }
    }
    entries
}

fn carry(spot: &Spot<'_>, ledger: &mut Ledger) {
    for key in ["key", "operator", "value"] {
        if let Some(spot) = spot.get(key) {
            ledger.carry(&spot);
        }
    }
}

/// One condition, as the alternatives that together mean the same.
fn condition(spot: &Spot<'_>, ledger: &mut Ledger) -> Result<Vec<QueryDraft>, String> {
    if !spot.is_block() {
        return Err(format!("is {}, not a condition", kind_of(spot)));
    }
    if let Some((name, _)) = spot.named().find(|(name, _)| !["key", "operator", "value"].contains(name)) {
        return Err(format!("holds the key {name:?}, which a condition of Authelia's has not"));
    }
    let is_pattern = spot.get("operator").and_then(|spot| spot.text()).is_some_and(|text| text.ends_with("pattern"));
    let text = |key: &str| match spot.get(key).filter(|spot| !spot.is_null()) {
        None => Ok(None),
        Some(spot) => match spot.text() {
            // A regex is looked at as such.
            Some(text) if is_templated(text) && !(is_pattern && key == "value") => {
                Err(format!("a template or the environment may fill in `{key}`"))
            }
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(format!("`{key}` is {}, where Authelia takes text only", kind_of(&spot))),
        },
    };
    let (key, operator, value) = (text("key")?.unwrap_or_default(), text("operator")?, text("value")?);
    // To Authelia an empty value is none.
    let value = value.filter(|value| !value.is_empty() || operator.is_some());
    let operator = match operator.filter(|operator| !operator.is_empty()) {
        None if value.is_none() => Operator::Present,
        None => Operator::Equal,
        Some(name) => OPERATORS
            .into_iter()
            .find(|operator| operator.as_str() == name)
            .ok_or_else(|| format!("there is no operator {name:?}"))?,
    };
    let value = match operator {
        Operator::Present | Operator::Absent if value.as_deref().is_none_or(str::is_empty) => None,
        Operator::Pattern | Operator::NotPattern => {
            let written = value.ok_or("has no value")?;
            let anchored = pattern::parameter(&written)?;
            if anchored.is_changed
                && let Some(spot) = spot.get("value")
            {
                ledger.find(
                    &spot,
                    format!(
                        "Authelia looks for it anywhere in the value; `{}` does the same: anchor \
                     it if that was not meant",
                        anchored.regex
                    ),
                );
            }
            Some(anchored.regex)
        }
        _ => value,
    };
    let draft = QueryDraft { key, operator: Some(operator), value };
    let judged = probe(RuleDraft { query: vec![vec![draft.clone()]], ..deny() })?;
    let mut ways = vec![draft];
    if judged.takes_nothing {
        // A parameter that is missing is "" to Authelia, and nothing to us.
        let key = ways.first().map(|draft| draft.key.clone()).unwrap_or_default();
        ways.push(QueryDraft { key, operator: Some(Operator::Absent), value: None });
    }
    Ok(ways)
}

/// An AND of ORs as an OR of ANDs.
fn product(all: &[Vec<QueryDraft>]) -> Vec<Vec<QueryDraft>> {
    let mut ways: Vec<Vec<QueryDraft>> = vec![Vec::new()];
    for alternatives in all {
        ways = ways
            .iter()
            .flat_map(|way| alternatives.iter().map(move |one| [way.as_slice(), std::slice::from_ref(one)].concat()))
            .take(MOST_ALTERNATIVES + 1)
            .collect();
    }
    ways
}
