//! What `postern limit show` prints.

use std::{fmt::Write as _, time::Duration};

use serde_json::{Value, json};

use super::whose::{Plan, Subject};
use crate::{
    app::Waits,
    core::{
        limit::{Allowance, Remaining},
        policy::Count,
        printable::printable,
        quota::whole_seconds,
        time::Timestamp,
    },
};

pub(super) struct Report {
    /// As it was typed.
    pub(super) key: String,
    /// Where it is counted, in words; and `memory` or `redis`.
    pub(super) place: String,
    pub(super) kind: &'static str,
    pub(super) is_of_one_node: bool,
    pub(super) limits: Vec<Counted>,
    pub(super) sign_ins: Vec<SignIn>,
    /// All limits with what they count by.
    pub(super) others: Vec<(String, String)>,
    pub(super) now: Timestamp,
}

/// What one limit has counted of one key.
pub(super) struct Counted {
    limit: String,
    /// By what it counts.
    key: String,
    /// Whose count it is, as KEY names it.
    pub(super) of: String,
    /// Whose rates are told; with how that is known.
    plan: Option<(String, Plan)>,
    /// Other rates that may hold for this count, where nobody knows which.
    perhaps: Vec<String>,
    reports_only: bool,
    is_guess: bool,
    left: Allowance,
}

/// Whether sign-ins have to wait.
pub(super) struct SignIn {
    pub(super) of: String,
    pub(super) waits: Waits,
}

impl Counted {
    pub(super) fn new(subject: &Subject, count: Count<'_>, left: Allowance) -> Self {
        let perhaps = match subject.plan {
            Plan::Unknown => count.plans.iter().map(|plan| (*plan).to_owned()).collect(),
            _ => Vec::new(),
        };
        Self {
            limit: count.quota.limit.to_string(),
            key: count.counts_by.into_owned(),
            of: subject.who.written(),
            plan: count.plan.map(|plan| (plan.to_owned(), subject.plan.clone())),
            perhaps,
            reports_only: count.reports_only,
            is_guess: subject.is_guess,
            left,
        }
    }

    pub(super) fn is_idle_guess(&self) -> bool {
        self.is_guess && self.left.rates.iter().all(|left| left.full.is_zero())
    }
}

/// Rounded up to whole seconds; none where there is nothing to wait for.
fn seconds(wait: Duration) -> u64 {
    if wait.is_zero() { 0 } else { whole_seconds(wait) }
}

fn used(left: &Remaining) -> u32 {
    left.rate.limit().saturating_sub(left.remaining)
}

fn counted(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

impl Report {
    fn at(&self, wait: Duration) -> String {
        // Never before it is over.
        let second = self.now.after(wait).unix_millis().saturating_add(999).div_euclid(1_000);
        jiff::Timestamp::from_second(second).map(|at| at.to_string()).unwrap_or_default()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "key": self.key,
            "counted_in": self.kind,
            "place": self.place,
            "one_node": self.is_of_one_node,
            "limits": self.limits.iter().map(|counted| self.json_of(counted)).collect::<Value>(),
            "sign_in": self.sign_ins.iter().map(|sign_in| {
                let SignIn { of, waits: Waits { everywhere, elsewhere } } = sign_in;
                json!({
                    "of": of,
                    "wait": everywhere.map(seconds),
                    "until": everywhere.map(|wait| self.at(wait)),
                    "elsewhere": elsewhere.iter().copied().map(seconds).collect::<Value>(),
                })
            }).collect::<Value>(),
        })
    }

    fn json_of(&self, counted: &Counted) -> Value {
        let refused = counted.left.refused;
        let rates: Value = counted
            .left
            .rates
            .iter()
            .map(|left| {
                let whole_at = (!left.full.is_zero()).then(|| self.at(left.full));
                json!({
                    "rate": left.rate.to_string(),
                    "allowed": left.rate.limit(),
                    "used": used(left),
                    "remaining": left.remaining,
                    "whole_in": seconds(left.full),
                    "whole_at": whole_at,
                })
            })
            .collect();
        json!({
            "limit": counted.limit,
            "key": counted.key,
            "of": counted.of,
            "plan": counted.plan.as_ref().map(|(plan, _)| plan),
            "mode": if counted.reports_only { "report" } else { "enforce" },
            "rates": rates,
            "refused": refused.is_some() && !counted.reports_only,
            "exceeded": refused.map(|by| by.rate.to_string()),
            "retry_after": refused.map(|by| seconds(by.retry_after)),
            "retry_at": refused.map(|by| self.at(by.retry_after)),
        })
    }

    /// Files, stores and the command line wrote what it quotes.
    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        if self.limits.is_empty() {
            self.no_limit(&mut text);
        } else {
            let whose = if self.is_of_one_node { "; other nodes count for themselves" } else { "" };
            line(&mut text, &format!("{}, counted in {}{whose}", self.key, self.place));
        }
        for counted in &self.limits {
            text.push('\n');
            self.limit(&mut text, counted);
        }
        if !self.sign_ins.is_empty() {
            text.push('\n');
        }
        for SignIn { of, waits } in &self.sign_ins {
            let Waits { everywhere, elsewhere } = waits;
            let told = match everywhere {
                None => "need not wait".to_owned(),
                Some(wait) => format!("have to wait {} s, until {}", seconds(*wait), self.at(*wait)),
            };
            line(&mut text, &format!("sign-ins of {of} {told}"));
            if let Some(longest) = elsewhere.last() {
                let places = counted(elsewhere.len(), "address or known device", "addresses or known devices");
                let (wait, until) = (seconds(*longest), self.at(*longest));
                line(&mut text, &format!("  but at {places}: {wait} s at the longest, until {until}"));
            }
        }
        text
    }

    fn no_limit(&self, text: &mut String) {
        if self.others.is_empty() {
            return line(text, "there are no limits in the policies");
        }
        line(text, &format!("no limit counts {}; there are", self.key));
        for (limit, key) in &self.others {
            line(text, &format!("  {limit} by {key}"));
        }
    }

    fn limit(&self, text: &mut String, counted: &Counted) {
        let mut head = format!("{} by {}, for {}", counted.limit, counted.key, counted.of);
        if let Some((plan, known)) = &counted.plan {
            let from = if matches!(known, Plan::Known(_)) { "of the user" } else { "as you say" };
            let _ = write!(head, ", plan {plan} ({from})");
        }
        if counted.reports_only {
            head.push_str(", only reports");
        }
        line(text, &head);
        let names: Vec<String> = counted.left.rates.iter().map(|left| left.rate.to_string()).collect();
        let width = names.iter().map(String::len).max().unwrap_or_default();
        for (name, left) in names.iter().zip(&counted.left.rates) {
            let whole = match left.full.is_zero() {
                true => String::new(),
                false => format!("   whole again in {} s, at {}", seconds(left.full), self.at(left.full)),
            };
            line(text, &format!("  {name:width$}  {:>6} used  {:>6} left{whole}", used(left), left.remaining));
        }
        let told = match (counted.left.refused, counted.reports_only) {
            (None, _) => "a request passes now".to_owned(),
            (Some(by), false) => {
                let (wait, until) = (seconds(by.retry_after), self.at(by.retry_after));
                format!("a request is refused now, for {wait} s, until {until} ({})", by.rate)
            }
            (Some(by), true) => {
                format!(
                    "a request passes now, and is reported: by {} it would have to wait {} s",
                    by.rate,
                    seconds(by.retry_after)
                )
            }
        };
        line(text, &format!("  {told}"));
        if !counted.perhaps.is_empty() {
            let plans = counted.perhaps.join(", ");
            line(
                text,
                &format!(
                    "  by the rates of nobody's plan: who asks may be on another ({plans}); --plan NAME tells by that"
                ),
            );
        }
    }
}

fn line(text: &mut String, said: &str) {
    text.push_str(&printable(said));
    text.push('\n');
}
