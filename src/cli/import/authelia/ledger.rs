//! What became of each key of Authelia's file: carried over, or named in a finding. Whatever is in neither at the end is found by
//! [`Ledger::sweep`], so that nothing can be dropped in silence. Findings never hold a value that may be a secret.

use std::{collections::HashSet, fmt, path::PathBuf};

use super::spot::Spot;
use crate::config::source::Kind;

/// Something that is not as it was in Authelia.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Finding {
    pub(super) line: u64,
    pub(super) column: u64,
    /// The key of Authelia's file.
    pub(super) key: String,
    pub(super) message: String,
    /// What has to be done by hand before Postern can take over, in a few words.
    pub(super) to_do: Option<String>,
}

#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) file: PathBuf,
    carried: HashSet<String>,
    pub(super) findings: Vec<Finding>,
    /// Why there can be no configuration at all.
    pub(super) faults: Vec<Finding>,
}

impl Ledger {
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, carried: HashSet::new(), findings: Vec::new(), faults: Vec::new() }
    }

    /// The value, with all below it, stands in the result.
    pub(super) fn carry(&mut self, spot: &Spot<'_>) {
        self.carried.insert(spot.trail.clone());
    }

    /// What it did in Authelia, and what to do instead.
    pub(super) fn find(&mut self, spot: &Spot<'_>, message: impl Into<String>) {
        self.findings.push(finding(spot, message, None));
    }

    /// As [`Ledger::find`], where Postern does not run as it should until somebody has done something.
    pub(super) fn leave_to_do(&mut self, spot: &Spot<'_>, message: impl Into<String>, to_do: impl Into<String>) {
        self.findings.push(finding(spot, message, Some(to_do.into())));
    }

    pub(super) fn fault(&mut self, spot: &Spot<'_>, message: impl Into<String>) {
        self.faults.push(finding(spot, message, None));
    }

    /// Finds what nobody spoke of, and puts all in order.
    pub(super) fn sweep(&mut self, root: &Spot<'_>) {
        let mut told = std::mem::take(&mut self.carried);
        told.extend(self.findings.iter().chain(&self.faults).map(|finding| finding.key.clone()));
        for spot in root.entries() {
            self.sweep_below(&spot, &told);
        }
        self.carried = told;
        self.findings.sort();
        self.findings.dedup();
        self.faults.sort();
    }

    fn sweep_below(&mut self, spot: &Spot<'_>, told: &HashSet<String>) {
        if told.contains(&spot.trail) {
            return;
        }
        let is_below = |trail: &String| {
            trail.strip_prefix(&spot.trail).is_some_and(|rest| rest.starts_with('.') || rest.starts_with('['))
        };
        if told.iter().any(is_below) {
            let items = if spot.is_list() { spot.items() } else { Vec::new() };
            for inner in spot.entries().chain(items) {
                self.sweep_below(&inner, told);
            }
        } else {
            self.find(
                spot,
                "this import does not know the key, and left it out; look up what it does, and set Postern up for it",
            );
        }
    }

    /// Whether the sweep would have nothing to say of it.
    #[cfg(test)]
    pub(super) fn accounts_for(&self, trail: &str) -> bool {
        let told = self.carried.iter().chain(self.findings.iter().map(|finding| &finding.key));
        told.into_iter().any(|key| {
            trail.strip_prefix(key.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
    }
}

fn finding(spot: &Spot<'_>, message: impl Into<String>, to_do: Option<String>) -> Finding {
    let key = if spot.trail.is_empty() { "(the file)".to_owned() } else { spot.trail.clone() };
    Finding { line: spot.place.line, column: spot.place.column, key, message: message.into(), to_do }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}: {}", self.line, self.column, self.key, self.message)
    }
}

/// What kind of value it is, never the value.
pub(super) fn kind_of(spot: &Spot<'_>) -> &'static str {
    match spot.node.kind {
        Kind::Null | Kind::Broken => "nothing",
        Kind::Bool(_) => "true or false",
        Kind::Int(_) | Kind::Float(_) => "a number",
        Kind::Str(_) => "text",
        Kind::Seq(_) => "a list",
        Kind::Map(_) => "a block of keys",
    }
}
