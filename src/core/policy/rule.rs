//! One compiled rule. `RuleSet` asks it, for a decision and for an explanation alike.

use std::{sync::Arc, time::Duration};

use super::{
    Level, Mode, Ruling,
    matcher::{Answer, Caller, Clause, Domain, Reading},
};
use crate::core::identity::Factor;

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) level: Level,
    pub(super) mode: Mode,
    /// An older sign-in does not do.
    pub(super) max_auth_age: Option<Duration>,
    /// The domain first, then in the order of what they cost.
    pub(super) clauses: Vec<Clause>,
}

impl Rule {
    pub(super) fn answer(&self, reading: &Reading<'_>) -> Answer {
        let mut greatest = Answer::Yes;
        for clause in &self.clauses {
            greatest = greatest.max(clause.answer(reading));
            if greatest == Answer::No {
                break;
            }
        }
        greatest
    }

    /// Whether the host is none that the rule is about, whoever asks.
    pub(super) fn is_for_other_hosts(&self, reading: &Reading<'_>) -> bool {
        let of_anybody = Reading { caller: None, ..*reading };
        self.clauses
            .first()
            .is_some_and(|first| matches!(first, Clause::Domain(_)) && first.answer(&of_anybody) == Answer::No)
    }

    pub(super) fn has_domain_regex(&self) -> bool {
        let is_regex = |domain: &Domain| matches!(domain, Domain::Regex(_));
        matches!(self.clauses.first(), Some(Clause::Domain(domains)) if domains.iter().any(is_regex))
    }

    /// What the rule says to somebody whom it matches, and whether a fresh sign-in is all that is missing.
    pub(super) fn ruling(&self, answer: Answer, reading: &Reading<'_>) -> (Ruling, bool) {
        let ruling = ruling(self.level, answer, reading.caller);
        if ruling == Ruling::Forward && self.is_stale(reading) { (Ruling::StepUp, true) } else { (ruling, false) }
    }

    /// Whether its `when` could not be worked out.
    pub(super) fn has_failed(&self, reading: &Reading<'_>) -> bool {
        self.clauses.iter().any(|clause| matches!(clause, Clause::When(_)) && clause.answer(reading) == Answer::Unknown)
    }

    fn is_stale(&self, reading: &Reading<'_>) -> bool {
        let (Some(most), Some(caller)) = (self.max_auth_age, reading.caller) else { return false };
        let signed_in_at = caller.identity.signed_in_at;
        // A sign-in of the future: one of the clocks was wrong, and how old it is nobody knows. A little of that is no matter.
        reading.now.since(signed_in_at).max(signed_in_at.since(reading.now)) > most
    }

    /// Why [`Rule::answer`] said what it said: where it is a no, the clauses that said no.
    pub(super) fn reason(&self, reading: &Reading<'_>, answer: Answer) -> String {
        let mut reasons = Vec::new();
        for (place, clause) in self.clauses.iter().enumerate() {
            let said = clause.answer(reading);
            if answer != Answer::No || said == Answer::No {
                reasons.push(clause.reason(reading, said));
            }
            // On another host nothing else about a rule is of interest.
            if place == 0 && said == Answer::No {
                break;
            }
        }
        if answer != Answer::No && self.is_stale(reading) {
            let most = self.max_auth_age.unwrap_or_default();
            reasons.push(format!("the sign-in is not of the last {}", spelt(most)));
        }
        reasons.join("; ")
    }
}

/// `15m` for 900 s.
fn spelt(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration.subsec_millis() != 0 {
        return format!("{}ms", duration.as_millis());
    }
    let units = [(86_400, "d"), (3_600, "h"), (60, "m"), (1, "s")];
    let (length, unit) = units.into_iter().find(|(length, _)| seconds.is_multiple_of(*length)).unwrap_or((1, "s"));
    format!("{}{unit}", seconds / length)
}

/// What a rule of this level that matched (or the default) says.
pub(super) fn ruling(level: Level, answer: Answer, caller: Option<Caller<'_>>) -> Ruling {
    match (answer, level) {
        // Passing over a deny would open, and so would taking a bypass.
        (Answer::Unknown | Answer::No, _) => Ruling::Refuse,
        (Answer::Anyone, _) => Ruling::SignIn,
        (Answer::Yes, Level::Bypass) => Ruling::Forward,
        (Answer::Yes, Level::Deny) => Ruling::Refuse,
        (Answer::Yes, Level::OneFactor) => match caller {
            None => Ruling::SignIn,
            Some(_) => Ruling::Forward,
        },
        (Answer::Yes, Level::TwoFactor) => match caller.map(|caller| caller.identity.factor) {
            None => Ruling::SignIn,
            Some(Factor::One) => Ruling::StepUp,
            Some(Factor::Two) => Ruling::Forward,
        },
    }
}
