//! Templates in comments. To YAML they are nothing; Authelia fills them in before it reads the YAML, and what they become can be a rule.

use super::{ledger::Ledger, spot::Spot};
use crate::config::source::Place;

const TEMPLATES: &[&str] = &["{{", "<%", "[[ ", "${"];

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
            "this comment holds a template, which Authelia fills in before it looks for comments: it may become rules that stand nowhere \
                 here, or switch off those that do{more}"
        ),
        "let Authelia fill in the templates (`authelia config template`) and import the result, if it runs with \
             `--config.experimental.filters`",
    );
}

/// A file that is read together with others counts even if all of it is comments.
pub(super) fn is_templated(text: &str) -> bool {
    places(text).next().is_some()
}

/// A `#` within quotes is taken for a comment as well: better told of once too often.
fn places(text: &str) -> impl Iterator<Item = Place> {
    text.lines().zip(1..).filter_map(|(line, number)| {
        let is_comment =
            |(at, _): &(usize, &str)| line.split_at(*at).0.chars().next_back().is_none_or(char::is_whitespace);
        let (start, _) = line.match_indices('#').find(is_comment)?;
        let (before, comment) = line.split_at(start);
        let at = TEMPLATES.iter().filter_map(|template| comment.find(template)).min()?;
        let column = before.chars().count() + comment.split_at(at).0.chars().count() + 1;
        Some(Place { line: number, column: u64::try_from(column).unwrap_or(u64::MAX) })
    })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    #[test]
    fn a_template_in_a_comment_is_told_of_where_it_stands() {
        for (text, told) in [
            ("# {{ fileContent \"acl.yml\" | nindent 2 }}\n", Some("1:3: (the file): ")),
            ("a: 1\n  # if: {{ if x }}\n#{{ end }}\n", Some("2:9: (the file): ")),
            ("a: b # <% x %>\n", Some("1:8: (the file): ")),
            ("a: b # ${X}\n", Some("1:8: (the file): ")),
            ("a: b#{{ x }}\n", None),
            ("# costs $5, see [[1]]\na: '{{ x }}'\n", None),
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
