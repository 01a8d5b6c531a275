//! Warns of a rule for all below a folder (`/admin/**`) where the folder by its bare name (`/admin`), which most applications take for
//! the same page, falls to a laxer rule below or to a laxer default.

use std::collections::HashMap;

use super::{Hosts, covering_domains, hosts, parts};
use crate::core::policy::{
    DraftFault, Level, Mode, Place,
    matcher::{Clause, Domain},
    rule::Rule,
};

/// Stands for the domains of which nobody can tell without a request whose they are.
const UNCLEAR: Hosts<'static> = Hosts::One("");

/// Rules by a domain as written and by what their paths begin with; "" where that is not known.
type ByPath<'r> = HashMap<Hosts<'r>, HashMap<&'r str, Vec<usize>>>;

pub(super) fn warnings(rules: &[Rule], default: Level) -> Vec<DraftFault> {
    let by_path = by_path(rules);
    let mut warnings = Vec::new();
    for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.mode == Mode::Enforce) {
        let (domains, Some(globs), _) = parts(rule) else { continue };
        for (entry, glob) in globs.iter().enumerate().filter(|(_, glob)| glob.is_below()) {
            let Some(folder) = glob.literal_prefix().strip_suffix('/').filter(|folder| !folder.is_empty()) else {
                continue;
            };
            if globs.iter().any(|glob| glob.matches(folder) != Some(false)) {
                continue;
            }
            let laxer = domains.iter().find_map(|domain| {
                let next = next(rules, &by_path, domain, place, folder)?;
                let (name, level) = next.map_or(("default", default), |next| (&*next.name, next.level));
                (level < rule.level).then_some((name, level))
            });
            if let Some((name, level)) = laxer {
                let message = format!(
                    "{:?} does not match {folder:?} itself, which falls to {name:?} ({}): write [{folder:?}, {:?}], or give {folder:?} a rule of its own",
                    glob.written(),
                    level.as_str(),
                    glob.written()
                );
                warnings
                    .push(DraftFault { place: Place::Rule { rule: place, key: "path", entry: Some(entry) }, message });
            }
        }
    }
    warnings
}

fn by_path(rules: &[Rule]) -> ByPath<'_> {
    let mut by_path = ByPath::new();
    for (place, rule) in rules.iter().enumerate().filter(|(_, rule)| rule.mode == Mode::Enforce) {
        let (domains, globs, _) = parts(rule);
        for key in domains.iter().map(|domain| hosts(domain).unwrap_or(UNCLEAR)) {
            let paths = by_path.entry(key).or_default();
            let mut add = |prefix| {
                let all: &mut Vec<usize> = paths.entry(prefix).or_default();
                if all.last() != Some(&place) {
                    all.push(place);
                }
            };
            match globs {
                None => add(""),
                Some(globs) => globs.iter().for_each(|glob| add(glob.literal_prefix())),
            }
        }
    }
    by_path
}

/// The rule that the folder's bare name falls to, on all of the domain: `Some(None)` is the default. `None`: a rule above `place` takes
/// it, one names it, or one may take it that nobody can tell of without a request.
fn next<'r>(
    rules: &'r [Rule],
    by_path: &ByPath<'_>,
    domain: &Domain,
    place: usize,
    folder: &str,
) -> Option<Option<&'r Rule>> {
    let mut next: Option<usize> = None;
    let begins = folder.char_indices().map(|(at, _)| at).chain([folder.len()]);
    let begins: Vec<&str> = begins.filter_map(|at| folder.get(..at)).collect();
    let mut unclear = begins.iter().filter_map(|begin| by_path.get(&UNCLEAR)?.get(begin)).flatten();
    let may_take = |other: &usize| *other != place && rules.get(*other).is_some_and(|rule| rule_takes(rule, folder));
    if unclear.any(may_take) {
        return None;
    }
    for paths in covering_domains(domain)?.iter().filter_map(|key| by_path.get(key)) {
        for all in begins.iter().filter_map(|begin| paths.get(begin)) {
            for other in all {
                let Some(candidate) = rules.get(*other) else { continue };
                if next.is_some_and(|next| next < *other) {
                    break;
                }
                let (_, globs, has_more) = parts(candidate);
                let takes = rule_takes(candidate, folder);
                let is_named = globs.is_some_and(|globs| globs.iter().any(|glob| glob.written() == folder));
                if is_named || *other < place && takes && (!has_more || has_resources(candidate)) {
                    return None;
                }
                if *other > place && takes && shares_a_method(rules.get(place)?, candidate) {
                    next = Some(*other);
                }
            }
        }
    }
    let Some(next) = next else { return Some(None) };
    let next = rules.get(next)?;
    (!has_resources(next)).then_some(Some(next))
}

fn has_resources(rule: &Rule) -> bool {
    rule.clauses.iter().any(|clause| matches!(clause, Clause::Resources(_)))
}

/// As far as its paths go.
fn rule_takes(rule: &Rule, folder: &str) -> bool {
    let (_, globs, _) = parts(rule);
    globs.is_none_or(|globs| globs.iter().any(|glob| glob.matches(folder) != Some(false)))
}

fn shares_a_method(one: &Rule, other: &Rule) -> bool {
    let methods = |rule: &Rule| {
        rule.clauses.iter().find_map(|clause| match clause {
            Clause::Methods(methods) => Some(methods.clone()),
            _ => None,
        })
    };
    match (methods(one), methods(other)) {
        (Some(one), Some(other)) => one.iter().any(|method| other.contains(method)),
        _ => true,
    }
}
