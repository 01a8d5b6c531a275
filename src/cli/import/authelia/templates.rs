//! Templates, as far as the parser of YAML does not see what they are. Authelia fills them in before it reads the YAML: one in a comment, or
//! behind the value of a key, can become a rule.

use super::{ledger::Ledger, spot::Spot};
use crate::config::source::Place;

/// What fills in whole blocks, wherever it stands.
const TEMPLATES: &[&str] = &["{{", "<%"];
/// In a comment these are unlikely to be anything else.
const IN_COMMENTS: &[&str] = &["{{", "<%", "[[ ", "${"];

/// Told once, at the first.
pub(super) fn report(text: &str, root: &Spot<'_>, ledger: &mut Ledger) {
    let all: Vec<Place> = places(text).collect();
    let Some((first, others)) = all.split_first() else { return };
    let more = match others.len() {
        0 => String::new(),
        1 => "; so does 1 more".to_owned(),
        more => format!("; so do {more} more"),
    };
    let spot = Spot { place: *first, ..root.clone() };
    ledger.leave_to_do(
        &spot,
        format!(
            "holds a template, which Authelia fills in before it looks for keys and comments: it may become rules that stand nowhere \
                 here, or switch off those that do{more}"
        ),
        "let Authelia fill in the templates (`authelia config template`) and import the result, if it runs with \
             `--config.experimental.filters`",
    );
}

/// A file that is read together with others counts even if all of it is comments.
pub(super) fn in_comments(text: &str) -> bool {
    text.lines().filter_map(comment).any(|start| first_of(TEMPLATES, start.1).is_some())
}

fn places(text: &str) -> impl Iterator<Item = Place> {
    text.lines().zip(1..).filter_map(|(line, number)| {
        let commented = || {
            let (before, comment) = comment(line)?;
            first_of(IN_COMMENTS, comment).map(|at| before.len() + at)
        };
        let at = first_of(TEMPLATES, line).or_else(commented)?;
        let column = line.split_at(at).0.chars().count() + 1;
        Some(Place { line: number, column: u64::try_from(column).unwrap_or(u64::MAX) })
    })
}

fn first_of(all: &[&str], text: &str) -> Option<usize> {
    all.iter().filter_map(|one| text.find(one)).min()
}

/// What stands before it, and itself. A `#` within quotes is taken for a comment as well: better told of once too often.
fn comment(line: &str) -> Option<(&str, &str)> {
    let begins = |(at, _): &(usize, &str)| line.split_at(*at).0.chars().next_back().is_none_or(char::is_whitespace);
    let (start, _) = line.match_indices('#').find(begins)?;
    Some(line.split_at(start))
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn a_template_is_told_of_where_it_stands() {
        for (text, told) in [
            ("# {{ fileContent \"acl.yml\" | nindent 2 }}\n", Some("1:3: (the file): ")),
            ("a: 1\n  # if: {{ if x }}\n#{{ end }}\n", Some("2:9: (the file): ")),
            ("a: b # <% x %>\n", Some("1:8: (the file): ")),
            ("a: b # ${X}\n", Some("1:8: (the file): ")),
            ("a: b#{{ x }}\n", Some("1:6: (the file): ")),
            ("# costs $5, see [[1]]\ntheme: dark {{ fileContent \"acl.yml\" }}\n", Some("2:13: (the file): ")),
            ("# costs $5, see [[1]]\na: ${X}\n", None),
        ] {
            let root = crate::config::source::parse(Path::new("a.yml"), "a: 1").unwrap();
            let mut ledger = Ledger::new(PathBuf::from("a.yml"));
            report(text, &Spot::root(&root), &mut ledger);
            match (ledger.findings.as_slice(), told) {
                ([], None) => {}
                ([finding], Some(told)) => {
                    assert!(finding.to_string().starts_with(told) && finding.to_do.is_some(), "{text:?}: {finding}");
                }
                (findings, _) => panic!("{text:?}: {findings:?}"),
            }
        }
    }
}
