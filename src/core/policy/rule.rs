//! One compiled rule. `RuleSet` asks it, for a decision and for an explanation alike.

use std::sync::Arc;

use super::{
    Level, Ruling,
    matcher::{Answer, Caller, Clause, Reading},
};
use crate::core::identity::Factor;

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: Arc<str>,
    pub(super) level: Level,
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
        reasons.join("; ")
    }
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
