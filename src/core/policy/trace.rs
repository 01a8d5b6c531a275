//! Why the rules say what they say, for `postern policy explain` and the denied page. It asks the very rules that `decide` asks; it must never decide
//! anything by itself.

use std::{
    collections::HashSet,
    fmt::{self, Write as _},
};

use serde::Serialize;

use super::{Decided, Level, LimitLine, Mode, Question, RuleSet, Ruling, matcher::Answer};
use crate::core::printable::printable;

/// The JSON of CONTRACT 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    #[serde(rename = "verdict")]
    pub ruling: Ruling,
    #[serde(rename = "policy")]
    pub level: Level,
    /// `default` where no rule matched.
    pub rule: String,
    /// The reading of the path that decided, and what the other one would have got, where there are two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reading: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other_reading: Option<OtherReading>,
    /// The roles that the caller holds: `editor`, `acme/admin` within an organisation.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Every rule in its order, under the reading that decided.
    pub trace: Vec<Line>,
    /// The limits that are about a made-up request; of others they are not told.
    pub limits: Vec<LimitLine>,
    /// Rules that are not in the trace, since it has become long enough.
    #[serde(skip)]
    pub untold: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OtherReading {
    pub path: String,
    #[serde(rename = "verdict")]
    pub ruling: Ruling,
    pub rule: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub rule: String,
    pub matched: bool,
    /// `report` where the rule only reports.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<&'static str>,
    pub because: String,
    /// Its domain rules the request's host out, whoever asks: of no interest beside rules that come near.
    #[serde(skip)]
    pub is_for_other_hosts: bool,
}

impl Explanation {
    /// Which of the trace decided; `None`: no rule matched.
    #[must_use]
    pub fn decisive(&self) -> Option<usize> {
        self.trace.iter().position(|line| line.matched && line.mode.is_none())
    }
}

impl RuleSet {
    /// Decides as [`RuleSet::decide`] does and tells of every rule. `client` is the OAuth client that `question.caller` stands for, if any.
    #[must_use]
    pub fn explain(&self, question: &Question<'_>, client: Option<&str>) -> Explanation {
        self.explain_within(question, client, usize::MAX)
    }

    /// As [`RuleSet::explain`], with no more than `most` rules for the host in the trace and as many for others, beside the one that
    /// decides: what a request may ask for must not take longer the more rules there are.
    #[must_use]
    pub fn explain_within(&self, question: &Question<'_>, client: Option<&str>, most: usize) -> Explanation {
        let decided: Vec<(&str, Decided<'_>)> =
            question.target.readings().map(|path| (path, self.decide_path(question, path, client))).collect();
        // The first of the strictest, as `decide` has it; `max_by_key` alone would take the last.
        let strictest = decided.iter().rev().max_by_key(|(_, decided)| decided.ruling).cloned();
        let (path, holds) = strictest.unwrap_or_else(|| ("/", self.decide_path(question, "/", client)));
        let other = decided.iter().find(|(other, _)| *other != path);
        let (trace, untold) = self.trace(question, path, client, most);
        Explanation {
            ruling: holds.ruling,
            level: holds.level,
            rule: holds.rule.to_string(),
            reading: other.map(|_| path.to_owned()),
            other_reading: other.map(|(path, decided)| OtherReading {
                path: (*path).to_owned(),
                ruling: decided.ruling,
                rule: decided.rule.to_string(),
            }),
            roles: question.caller.map_or_else(Vec::new, |identity| {
                self.roles_of(identity, client, question.now).iter().map(ToString::to_string).collect()
            }),
            trace,
            limits: Vec::new(),
            untold,
        }
    }

    /// The second value: how many rules are left out.
    fn trace(&self, question: &Question<'_>, path: &str, client: Option<&str>, most: usize) -> (Vec<Line>, usize) {
        self.with_reading(question, path, client, |reading| {
            let candidates: Option<HashSet<u32>> =
                self.index.candidates(reading.host, reading.path.as_bytes()).map(Iterator::collect);
            let mut decided_by: Option<&str> = None;
            let (mut here, mut elsewhere, mut untold) = (0, 0, 0);
            let mut lines = Vec::with_capacity(self.rules.len().min(most));
            for (place, rule) in (0_u32..).zip(&self.rules) {
                let is_candidate = candidates.as_ref().is_none_or(|candidates| candidates.contains(&place));
                // Nobody is to build a thousand automata for a page.
                if !is_candidate && (elsewhere >= most || here >= most) && rule.has_domain_regex() {
                    untold += 1;
                    continue;
                }
                let is_for_other_hosts = rule.is_for_other_hosts(reading);
                let told = if is_for_other_hosts { &mut elsewhere } else { &mut here };
                let is_over = *told >= most;
                if is_over && (decided_by.is_some() || !is_candidate) {
                    untold += 1;
                    continue;
                }
                let answer = rule.answer(reading);
                let matched = answer != Answer::No;
                let reports = (rule.mode == Mode::Report).then_some("report");
                if is_over && (!matched || reports.is_some()) {
                    untold += 1;
                    continue;
                }
                *told += 1;
                let mut because = rule.reason(reading, answer);
                match decided_by {
                    _ if !matched => {}
                    Some(earlier) => {
                        because = format!("{because}; it does not count, since {earlier:?} above decided");
                    }
                    None if reports.is_some() => {
                        let (ruling, _) = rule.ruling(answer, reading);
                        because = format!("{because}; it only reports: it would say {}", ruling.as_str());
                    }
                    None => decided_by = Some(&rule.name),
                }
                lines.push(Line { rule: rule.name.to_string(), matched, mode: reports, because, is_for_other_hosts });
            }
            (lines, untold)
        })
    }
}

/// A table to read at a glance: the verdict, then every rule. It goes to terminals, and rules quote what their writer put there.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decisive = self.decisive();
        match decisive {
            Some(_) => writeln!(f, "{}   rule {:?}, policy {}", self.ruling.as_str(), self.rule, self.level.as_str())?,
            None => writeln!(f, "{}   no rule matched, default {}", self.ruling.as_str(), self.level.as_str())?,
        }
        if let (Some(reading), Some(other)) = (&self.reading, &self.other_reading) {
            writeln!(
                f,
                "decided for the path read as {}; read as {} it would be {} (rule {:?}); the stricter holds",
                printable(reading),
                printable(&other.path),
                other.ruling.as_str(),
                other.rule
            )?;
        }
        if !self.roles.is_empty() {
            writeln!(f, "roles held: {}", printable(&self.roles.join(", ")))?;
        }
        let width = self.trace.iter().map(|line| line.rule.chars().count()).max().unwrap_or_default();
        let mut table = String::new();
        for (place, line) in self.trace.iter().enumerate() {
            let mark = match line.matched {
                true if decisive == Some(place) => "=>",
                true if line.mode.is_some() => " ~",
                true => " +",
                false => " -",
            };
            writeln!(table, "{mark} {:width$}  {}", printable(&line.rule), printable(&line.because))?;
        }
        if !table.is_empty() {
            write!(f, "\n{table}")?;
        }
        if self.limits.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nlimits:")?;
        let width = self.limits.iter().map(|line| line.limit.chars().count()).max().unwrap_or_default();
        for line in &self.limits {
            writeln!(f, "{} {:width$}  {}", line.mark(), line.limit, line.told())?;
        }
        Ok(())
    }
}
