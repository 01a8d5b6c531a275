//! Warns of rules that no request can reach, because one rule above them, without any other condition, takes all they could match.
//! It only ever warns of what is certain; `compile` asks it once all rules are known to be sound.

mod folder;

use std::collections::HashMap;

use super::{
    DraftFault, Level, Mode, Place,
    glob::Glob,
    matcher::{Clause, Domain},
    rule::Rule,
};

/// A domain as written.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Hosts<'r> {
    One(&'r str),
    Below(&'r str),
}

/// Paths that are taken whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Paths<'r> {
    All,
    /// `/a/` for all below.
    Below(&'r str),
    /// Those of one glob.
    Entry(&'r str),
}

/// What one rule takes whole.
type Taken<'r> = HashMap<Hosts<'r>, HashMap<Paths<'r>, usize>>;

pub(super) fn warnings(rules: &[Rule], default: Level) -> Vec<DraftFault> {
    let mut taken = Taken::new();
    let mut warnings = Vec::new();
    for (place, rule) in rules.iter().enumerate() {
        if let Some(earlier) = taken_by(&taken, rule).and_then(|earlier| rules.get(earlier)) {
            warnings.push(DraftFault {
                place: Place::Rule { rule: place, key: "domain", entry: None },
                message: format!(
                    "no request can reach {:?}: {:?} above takes all that it could match; move it up, or take it out",
                    rule.name, earlier.name
                ),
            });
        } else {
            take(&mut taken, rule, place);
        }
    }
    warnings.extend(folder::warnings(rules, default));
    warnings
}

/// The clauses apart: domains, path globs, and whether there is anything else.
fn parts(rule: &Rule) -> (&[Domain], Option<&[Glob]>, bool) {
    let (mut domains, mut globs, mut more): (&[Domain], Option<&[Glob]>, bool) = (&[], None, false);
    for clause in &rule.clauses {
        match clause {
            Clause::Domain(all) => domains = all,
            Clause::Path(all) => globs = Some(all),
            Clause::Methods(_)
            | Clause::Networks { .. }
            | Clause::Query(_)
            | Clause::Resources(_)
            | Clause::Subject(_)
            | Clause::When(_) => more = true,
        }
    }
    (domains, globs, more)
}

fn take<'r>(taken: &mut Taken<'r>, rule: &'r Rule, place: usize) {
    let (domains, globs, more) = parts(rule);
    if more || rule.mode == Mode::Report {
        return;
    }
    for domain in domains {
        let Some(key) = hosts(domain) else { continue };
        let paths = taken.entry(key).or_default();
        match globs {
            None => {
                paths.entry(Paths::All).or_insert(place);
            }
            Some(globs) => {
                for glob in globs {
                    let path = match glob.is_below() {
                        true => Paths::Below(glob.literal_prefix()),
                        false => Paths::Entry(glob.written()),
                    };
                    paths.entry(path).or_insert(place);
                }
            }
        }
    }
}

/// `None` where it depends on more than the host.
fn hosts(domain: &Domain) -> Option<Hosts<'_>> {
    match domain {
        Domain::Exact(host) => Some(Hosts::One(host)),
        Domain::Below(suffix) => Some(Hosts::Below(suffix)),
        Domain::User(_) | Domain::Group(_) | Domain::Regex(_) => None,
    }
}

/// The last of the rules that together take everything; `None` where something is left.
fn taken_by(taken: &Taken<'_>, rule: &Rule) -> Option<usize> {
    if taken.is_empty() {
        return None;
    }
    let (domains, globs, _) = parts(rule);
    let mut last = None;
    for domain in domains {
        let taken: Vec<_> = covering_domains(domain)?.iter().filter_map(|key| taken.get(key)).collect();
        if taken.is_empty() {
            return None;
        }
        let path_taken = |path: Paths<'_>| taken.iter().filter_map(|paths| paths.get(&path).copied()).min();
        let by = match globs {
            None => path_taken(Paths::All).or_else(|| path_taken(Paths::Below("/")))?,
            Some(globs) => {
                let mut by = 0;
                for glob in globs {
                    by = by.max(glob_taken_by(glob, &path_taken)?);
                }
                by
            }
        };
        last = last.max(Some(by));
    }
    last
}

fn glob_taken_by(glob: &Glob, path_taken: &impl Fn(Paths<'_>) -> Option<usize>) -> Option<usize> {
    let literal = glob.literal_prefix();
    let folders =
        literal.char_indices().filter(|(_, character)| *character == '/').filter_map(|(at, _)| literal.get(..=at));
    path_taken(Paths::All)
        .or_else(|| path_taken(Paths::Entry(glob.written())))
        .or_else(|| folders.filter_map(|folder| path_taken(Paths::Below(folder))).min())
}

/// The ways to write a domain that takes in this one whole.
fn covering_domains(domain: &Domain) -> Option<Vec<Hosts<'_>>> {
    let (own, inside) = match domain {
        Domain::Exact(host) => (Hosts::One(host), host),
        Domain::Below(suffix) | Domain::User(suffix) | Domain::Group(suffix) => (Hosts::Below(suffix), suffix),
        Domain::Regex(_) => return None,
    };
    let mut all = vec![own];
    let mut rest: &str = inside;
    while let Some((_, parent)) = rest.split_once('.') {
        all.push(Hosts::Below(parent));
        rest = parent;
    }
    Some(all)
}
