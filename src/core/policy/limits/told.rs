//! The limits that a request falls under, for people: `postern policy explain`. It asks what the live path asks, and counts nothing.

use serde::Serialize;

use super::{Limit, Source, Staged, key};
use crate::core::{
    limit::Rates,
    policy::{
        Mode, Question, RuleSet, Ruling,
        matcher::{Answer, Clause, Reading},
    },
    printable::printable,
    user::plan_of,
};

const REPORT: &str = "report";

/// One limit that is about a request, in the JSON of `policy explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LimitLine {
    pub limit: String,
    /// By what it counts, as it stands in the file.
    pub key: String,
    /// Of the plan, where there is one.
    pub rates: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// `enforce` or `report`.
    pub mode: &'static str,
    /// Whether the request adds one.
    pub counted: bool,
    pub because: String,
}

impl LimitLine {
    /// Without control characters: it goes to terminals, and rules quote what their writer put there.
    #[must_use]
    pub fn told(&self) -> String {
        let Self { key, rates, plan, because, .. } = self;
        let plan = plan.as_ref().map(|plan| format!(" (plan {plan})")).unwrap_or_default();
        let reports = if self.only_reports() { "; it only reports" } else { "" };
        printable(&format!("{} by {key}{plan}; {because}{reports}", rates.join(", ")))
    }

    #[must_use]
    pub fn only_reports(&self) -> bool {
        self.mode == REPORT
    }

    /// As before rules: `+` counts, `~` counts and never refuses, `-` does not count.
    #[must_use]
    pub fn mark(&self) -> &'static str {
        match (self.counted, self.only_reports()) {
            (true, false) => " +",
            (true, true) => " ~",
            (false, _) => " -",
        }
    }
}

impl RuleSet {
    /// The limits that a request falls under which the rules answer by `ruling`, in the order of the files, those by address first; those that it bypasses
    /// too. `client`: the OAuth client that the caller stands for.
    pub(in crate::core::policy) fn limits_told(
        &self,
        question: &Question<'_>,
        client: Option<&str>,
        source: Source<'_>,
        ruling: Ruling,
    ) -> Vec<LimitLine> {
        // As the gate asks: nobody is known yet.
        let arriving = Question { caller: None, ..*question };
        let mut lines = self.told_of(&self.limits.arrival, &arriving, None, |limit, reading| {
            limit.told(reading, source, "by address, before anybody is asked for")
        });
        lines.extend(self.told_of(&self.limits.forward, question, client, |limit, reading| match ruling {
            Ruling::Forward => limit.told(reading, source, "the rules let it pass"),
            _ => {
                let line = limit.told(reading, source, "");
                LimitLine { counted: false, because: "the rules do not let it pass".to_owned(), ..line }
            }
        }));
        lines
    }

    fn told_of(
        &self,
        staged: &Staged,
        question: &Question<'_>,
        client: Option<&str>,
        told: impl Fn(&Limit, &Reading<'_>) -> LimitLine,
    ) -> Vec<LimitLine> {
        let mut lines: Vec<(usize, LimitLine)> = Vec::new();
        for path in question.target.readings() {
            self.with_reading(question, path, client, |reading| {
                staged.each(reading, |place, limit| {
                    if !limit.matches(reading) {
                        return;
                    }
                    let line = told(limit, reading);
                    match lines.iter_mut().find(|(known, _)| *known == place) {
                        // One reading that is counted is enough.
                        Some((_, known)) if !known.counted => *known = line,
                        Some(_) => {}
                        None => lines.push((place, line)),
                    }
                });
            });
        }
        lines.sort_by_key(|(place, _)| *place);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

impl Limit {
    /// Of a request that it matches.
    fn told(&self, reading: &Reading<'_>, source: Source<'_>, counted: &str) -> LimitLine {
        let plan = reading.caller.and_then(|caller| plan_of(&caller.identity.attributes));
        let (plan, quota) = self.quota_by(plan);
        let refuses = self.mode == Mode::Enforce;
        let (counted, because) = match self.bypassed_by(reading) {
            Some(clauses) => (false, format!("bypass: {}", reasons(clauses, reading))),
            None => match self.key.value(quota, reading, source) {
                key::Value::Of(_) => (true, counted.to_owned()),
                key::Value::Nobody => (false, "the key is a caller's, and nobody is signed in".to_owned()),
                key::Value::Failed if refuses => (false, "its key cannot be worked out: the answer is 403".to_owned()),
                key::Value::Failed => (false, "its key cannot be worked out".to_owned()),
            },
        };
        LimitLine {
            limit: self.name.to_string(),
            key: self.key.written().into_owned(),
            rates: written(&quota.rates),
            plan: plan.map(str::to_owned),
            mode: if refuses { "enforce" } else { REPORT },
            counted,
            because,
        }
    }
}

fn reasons(clauses: &[Clause], reading: &Reading<'_>) -> String {
    let each: Vec<String> = clauses.iter().map(|clause| clause.reason(reading, Answer::Yes)).collect();
    each.join("; ")
}

fn written(rates: &Rates) -> Vec<String> {
    rates.iter().map(|rate| rate.to_string()).collect()
}
