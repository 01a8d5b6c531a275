//! The `subject` of a rule: a list is an OR, a list within it an AND.

use super::{
    super::{
        ledger::{Ledger, kind_of},
        spot::{Spot, is_templated},
    },
    Entries,
    probe::{deny, probe},
};
use crate::core::policy::RuleDraft;

pub(super) fn subjects(spot: &Spot<'_>, closes: &str, ledger: &mut Ledger) -> Entries<Vec<String>> {
    let mut entries = Entries::default();
    for item in spot.items() {
        let parts = if item.is_list() { item.items() } else { vec![item.clone()] };
        if parts.is_empty() {
            ledger.find(
                &item,
                format!("is an empty list, which to Authelia is nobody, or everybody where it stands alone; {closes}"),
            );
            entries.lost = true;
            continue;
        }
        let read: Vec<Result<String, String>> = parts.iter().map(subject).collect();
        for (part, subject) in parts.iter().zip(&read) {
            match subject {
                Ok(subject) => {
                    if subject.starts_with("client:") {
                        ledger.find(
                            part,
                            "is an OAuth client, and carried over; there are none in this version of \
                             Postern, so it fits nobody yet",
                        );
                    }
                    ledger.carry(part);
                }
                Err(message) => {
                    ledger.find(part, format!("{message}; {closes}"));
                    entries.lost = true;
                }
            }
        }
        // An AND without one of its parts would be wider.
        entries.good.extend(read.into_iter().collect::<Result<Vec<String>, String>>().ok());
    }
    entries
}

fn subject(spot: &Spot<'_>) -> Result<String, String> {
    let text = spot.text().ok_or_else(|| format!("is {}, not a subject", kind_of(spot)))?;
    if is_templated(text) {
        return Err("a template or the environment may fill this in".to_owned());
    }
    // Authelia cuts it there, in one of two ways.
    if text.contains(',') {
        return Err("holds a comma, at which Authelia cuts it; write a list".to_owned());
    }
    let text = text.strip_prefix("oauth2:").filter(|rest| rest.starts_with("client:")).unwrap_or(text);
    let (kind, name) = text.split_once(':').ok_or("begins with none of `user:`, `group:` and `oauth2:client:`")?;
    if !matches!(kind, "user" | "group" | "client") {
        return Err("begins with none of `user:`, `group:` and `oauth2:client:`".to_owned());
    }
    let subject = format!("{kind}:{}", name.trim_matches(' '));
    probe(RuleDraft { subject: vec![vec![subject.clone()]], ..deny() })?;
    Ok(subject)
}
