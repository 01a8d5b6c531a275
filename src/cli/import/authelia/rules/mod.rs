//! `access_control:` and the networks of `definitions:`. Every rule becomes one of ours with the same meaning. Where an entry of it cannot
//! be carried over, the rule keeps its other entries, and right behind it stands one that denies whatever the lost entry could have
//! matched: requests never fall through to a laxer rule below. Nothing here may make a rule match more than Authelia's, but for a deny.

mod domain;
mod network;
mod pattern;
mod probe;
mod query;
mod rule;
mod subject;

use self::{network::Networks, rule::Reading};
use super::{
    ledger::Ledger,
    spot::{Placed, Spot},
};
use crate::core::policy::{Level, RuleDraft};

const KEYS: &[&str] = &["default_policy", "networks", "rules"];

#[derive(Debug)]
pub(super) struct Policies {
    pub(super) default: Placed<Level>,
    pub(super) networks: Networks,
    pub(super) rules: Vec<WrittenRule>,
    /// How many rules Authelia had.
    pub(super) read: usize,
}

#[derive(Debug)]
pub(super) struct WrittenRule {
    pub(super) line: u64,
    /// Stands for what could not be carried over.
    pub(super) is_closed: bool,
    pub(super) draft: RuleDraft,
}

/// What is left of the entries of one key.
#[derive(Debug, Clone)]
struct Entries<T> {
    good: Vec<T>,
    /// An entry could not be carried over.
    lost: bool,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self { good: Vec::new(), lost: false }
    }
}

pub(super) fn policies(root: &Spot<'_>, ledger: &mut Ledger) -> Policies {
    let default = default(root, ledger);
    let networks = Networks::read(root, ledger);
    let spots = root.get("access_control.rules").map(|rules| rules.items()).unwrap_or_default();
    let mut rules = Vec::new();
    for (index, spot) in spots.iter().enumerate() {
        rules.extend(Reading::new(spot, index + 1, &networks).rules(ledger));
    }
    if let Some(none) = root.get("access_control.rules").filter(|_| spots.is_empty()) {
        ledger.carry(&none);
    }
    let default = if spots.is_empty() { without_rules(root, default, ledger) } else { default };
    tell_of_factors(root, &spots, ledger);
    tell_of_addresses(&spots, ledger);
    Policies { default, networks, read: spots.len(), rules }
}

fn default(root: &Spot<'_>, ledger: &mut Ledger) -> Placed<Level> {
    let Some(spot) = root.get("access_control.default_policy").filter(|spot| !spot.is_null()) else {
        return Placed::default(Level::Deny);
    };
    match spot.text().and_then(level) {
        Some(level) => {
            ledger.carry(&spot);
            Placed::at(&spot, level)
        }
        None if spot.text() == Some("") => {
            ledger.carry(&spot);
            Placed::at(&spot, Level::Deny)
        }
        None => {
            ledger.find(&spot, "is none of bypass, one_factor, two_factor and deny; `deny` was written");
            Placed::at(&spot, Level::Deny)
        }
    }
}

/// The default, where it alone would decide.
///
/// Authelia does not start with `bypass` and no rules, so that they must stand elsewhere; and a key that it does not know may become them.
fn without_rules(root: &Spot<'_>, default: Placed<Level>, ledger: &mut Ledger) -> Placed<Level> {
    let block = root.get("access_control");
    let unknown = block.iter().flat_map(Spot::named).find(|(name, _)| !KEYS.contains(name));
    let (at, why) = match (unknown, default.value) {
        (_, Level::Deny) => return default,
        (Some((_, spot)), _) => {
            (Some(spot), "is no key of Authelia's, and may become the rules, of which there are none")
        }
        (None, Level::Bypass) => (
            root.get("access_control.default_policy"),
            "lets everybody in, and there are no rules; Authelia does not start so, so that they must stand in another file",
        ),
        (None, _) => return default,
    };
    let at = at.unwrap_or_else(|| root.clone());
    ledger.leave_to_do(
        &at,
        format!("{why}; `deny` was written"),
        "write Authelia's rules into the file that is imported, and import again",
    );
    Placed::at(&at, Level::Deny)
}

/// Once, at the first rule that looks at the client's address.
fn tell_of_addresses(rules: &[Spot<'_>], ledger: &mut Ledger) {
    let looks = |networks: &Spot<'_>| !networks.items().is_empty() && networks.text() != Some("");
    let Some(first) = rules.iter().filter_map(|rule| rule.get("networks")).find(looks) else { return };
    ledger.leave_to_do(
        &first,
        "looks at the client's address: Authelia takes the leftmost of `X-Forwarded-For`, Postern the rightmost that is none of \
             `trusted_proxies`. A proxy or balancer that is missing there is taken for the client, and rules for its network \
             match everybody",
        "write every proxy and balancer between clients and Postern into `trusted_proxies`: rules with `networks` depend on it",
    );
}

/// Once for all rules, at the first: it is the same for each.
fn tell_of_factors(root: &Spot<'_>, rules: &[Spot<'_>], ledger: &mut Ledger) {
    let default = root.get("access_control.default_policy");
    let policies = default.into_iter().chain(rules.iter().filter_map(|rule| rule.get("policy")));
    let two: Vec<Spot<'_>> = policies.filter(|policy| policy.text() == Some("two_factor")).collect();
    let Some(first) = two.first() else { return };
    let more = match two.len() - 1 {
        0 => String::new(),
        1 => "; so does 1 more".to_owned(),
        more => format!("; so do {more} more"),
    };
    ledger.leave_to_do(
        first,
        format!(
            "asks for a second factor, and this version of Postern has none: it was carried over, and shows people a \
                 page that says so{more}"
        ),
        "decide which of the pages with `two_factor` are to stay closed until there are second factors",
    );
}

fn level(text: &str) -> Option<Level> {
    [Level::Bypass, Level::OneFactor, Level::TwoFactor, Level::Deny].into_iter().find(|level| level.as_str() == text)
}
