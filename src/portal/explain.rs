//! What the rules say, beside a refusal: for people of the groups in `portal.explain_to`, and for nobody else, since it tells the
//! rules. It asks the very rules that refused (invariant 6), and decides nothing.
//!
//! On an application's own origin only the rules for its host are told: code of the application may read the page.

use crate::core::{
    identity::Identity,
    policy::{Explanation, Line, Question, Ruling},
    site::Site,
};

/// Rules for the host that are shown unfolded; with more of them only those that matched are.
const SHOWN: usize = 20;
/// Rules for the host, and as many for others; the command shows the rest.
const LISTED: usize = 500;

/// For the template.
pub(super) struct Explained {
    pub(super) request: String,
    pub(super) verdict: &'static str,
    pub(super) policy: &'static str,
    /// `None`: no rule matched.
    pub(super) rule: Option<String>,
    /// That the caller holds; empty: none.
    pub(super) roles: String,
    /// The reading of the path that decided, the other one, its verdict and rule.
    pub(super) readings: Option<(String, String, &'static str, String)>,
    pub(super) rows: Vec<Row>,
    pub(super) folded: Vec<Folded>,
    /// Rules of other hosts are not told here.
    pub(super) hides_other_hosts: bool,
    /// Rules beyond those that fit.
    pub(super) more: usize,
}

/// A list behind a click.
pub(super) struct Folded {
    pub(super) title: String,
    pub(super) rows: Vec<Row>,
}

#[derive(Clone)]
pub(super) struct Row {
    pub(super) rule: String,
    /// Also the class by which it is painted.
    pub(super) said: Said,
    pub(super) because: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Decides,
    Matched,
    Reports,
    No,
}

impl Said {
    pub(super) const fn class(self) -> &'static str {
        match self {
            Self::Decides => "decides",
            Self::Matched | Self::Reports => "matched",
            Self::No => "no",
        }
    }

    pub(super) const fn words(self) -> &'static str {
        match self {
            Self::Decides => "decides",
            Self::Matched => "yes, too late",
            Self::Reports => "yes, only reports",
            Self::No => "no",
        }
    }
}

/// Beside a refusal on an application's origin.
pub(super) fn on_an_application(site: &Site, question: &Question<'_>) -> Option<Explained> {
    explained(site, question, false)
}

/// Beside a refusal on the portal's own origin.
pub(super) fn on_the_portal(site: &Site, question: &Question<'_>) -> Option<Explained> {
    explained(site, question, true)
}

fn explained(site: &Site, question: &Question<'_>, tells_other_hosts: bool) -> Option<Explained> {
    question.caller.filter(|caller| may_read(site, caller))?;
    let explanation = site.rules.explain_within(question, question.caller.and_then(|caller| caller.client()), LISTED);
    // A moment has passed since the rules refused: what they would say now by another time of day explains nothing.
    (explanation.ruling == Ruling::Refuse).then(|| told(question, &explanation, tells_other_hosts))
}

fn may_read(site: &Site, caller: &Identity) -> bool {
    caller.groups.iter().any(|group| site.portal.explain_to.contains(group))
}

fn told(question: &Question<'_>, explanation: &Explanation, tells_other_hosts: bool) -> Explained {
    let decisive = explanation.decisive();
    let row = |(place, line): (usize, &Line)| Row {
        rule: line.rule.clone(),
        said: match line.matched {
            true if decisive == Some(place) => Said::Decides,
            true if line.mode.is_some() => Said::Reports,
            true => Said::Matched,
            false => Said::No,
        },
        because: line.because.clone(),
    };
    let all = || explanation.trace.iter().enumerate();
    let here: Vec<Row> = all().filter(|(_, line)| !line.is_for_other_hosts).map(row).collect();
    let elsewhere = explanation.trace.len() - here.len();
    let mut folded = Vec::new();
    let rows = if here.len() > SHOWN {
        let matched = here.iter().filter(|row| row.said != Said::No).take(SHOWN).cloned().collect();
        let which = if here.len() < LISTED { "All" } else { "The first" };
        folded.push(Folded { title: format!("{which} {} rules for this host", here.len()), rows: here });
        matched
    } else {
        here
    };
    if tells_other_hosts && elsewhere > 0 {
        let others = all().filter(|(_, line)| line.is_for_other_hosts).map(row).collect();
        let which = if explanation.untold == 0 { "" } else { "The first " };
        folded.push(Folded { title: format!("{which}{} for other hosts", counted(elsewhere)), rows: others });
    }
    Explained {
        request: format!("{} {}{}", question.method, question.target.host(), question.target.path()),
        verdict: explanation.ruling.as_str(),
        policy: explanation.level.as_str(),
        rule: decisive.map(|_| explanation.rule.clone()),
        roles: explanation.roles.join(", "),
        readings: explanation
            .reading
            .clone()
            .zip(explanation.other_reading.as_ref())
            .map(|(reading, other)| (reading, other.path.clone(), other.ruling.as_str(), other.rule.clone())),
        rows,
        folded,
        hides_other_hosts: !tells_other_hosts && elsewhere > 0,
        more: explanation.untold,
    }
}

pub(super) fn counted(rules: usize) -> String {
    if rules == 1 { "1 rule".to_owned() } else { format!("{rules} rules") }
}
