//! Asks the compiler of the rules what it makes of one entry: what it refuses is no entry of ours, and its reason is the finding's.

use crate::core::policy::{Level, PolicyDraft, RuleDraft, RuleSet};

/// A rule that all could be well with; the caller adds the entry in question. A deny, since that may have any entry.
pub(super) fn deny() -> RuleDraft {
    RuleDraft { domain: vec!["example.com".to_owned()], policy: Some(Level::Deny), ..RuleDraft::default() }
}

/// # Errors
/// What is wrong with the rule.
pub(super) fn probe(rule: RuleDraft) -> Result<Judged, String> {
    probe_with(rule, &[])
}

/// What the compiler said of a rule that it took.
pub(super) struct Judged {
    /// A condition of `query` holds for an empty value.
    pub(super) takes_nothing: bool,
}

/// As [`probe`], with networks by name.
///
/// # Errors
/// What is wrong with the rule.
pub(super) fn probe_with(rule: RuleDraft, networks: &[(String, Vec<String>)]) -> Result<Judged, String> {
    let draft = PolicyDraft { networks: networks.to_vec(), rules: vec![rule], ..PolicyDraft::default() };
    match RuleSet::compile(&draft) {
        Ok((_, warnings)) => {
            let is_of_query = |place| matches!(place, crate::core::policy::Place::Rule { key: "query", .. });
            Ok(Judged { takes_nothing: warnings.iter().any(|warning| is_of_query(warning.place)) })
        }
        Err(faults) => {
            Err(faults.into_iter().next().map_or_else(|| "it cannot be compiled".to_owned(), |fault| fault.message))
        }
    }
}
