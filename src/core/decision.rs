//! From a ruling to a verdict. The only place where a [`Permit`] is made (invariant 1).

use std::sync::Arc;

use super::{
    policy::{Question, Reported, RuleSet, Ruling},
    verdict::{SignIn, Verdict},
};

/// Leave to pass one request on to an upstream. Its field is private: whoever holds one got it from [`decide`].
#[derive(Debug)]
pub struct Permit {
    _made_here: (),
}

/// The verdict of the rules, and the rule that decided.
#[derive(Debug)]
pub struct Decision {
    pub verdict: Verdict,
    pub rule: Arc<str>,
    pub reported: Option<Reported>,
    /// It refuses since the `when` of the rule could not be worked out.
    pub has_failed: bool,
}

#[must_use]
pub fn decide(rules: &RuleSet, question: &Question<'_>) -> Decision {
    let decided = rules.decide(question);
    let verdict = match decided.ruling {
        Ruling::Forward => Verdict::Forward(Permit { _made_here: () }),
        Ruling::SignIn => Verdict::SignIn(SignIn::Nobody),
        Ruling::StepUp => Verdict::StepUp,
        Ruling::Refuse => Verdict::Refuse,
    };
    Decision { verdict, rule: Arc::clone(decided.rule), reported: decided.reported, has_failed: decided.has_failed }
}
