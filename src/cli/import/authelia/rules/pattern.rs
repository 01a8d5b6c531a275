//! Regexes: Authelia looks for one anywhere in the text, as Go's `regexp` does; ours are anchored. What is put around them is chosen so
//! that the same texts match, by the same leftmost match, which decides what the groups `User` and `Group` catch.

use super::{
    super::spot::is_templated_regex,
    probe::{deny, probe},
};
use crate::core::policy::{Operator, QueryDraft, RuleDraft};

/// A regex of ours, and whether something was put around it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Anchored {
    pub(super) regex: String,
    pub(super) is_changed: bool,
}

/// For `resources`: begins with `^`.
///
/// # Errors
/// Why there is no such regex.
pub(super) fn resource(text: &str) -> Result<Anchored, String> {
    is_sound(text)?;
    let regex = if is_anchored_at_start(text) { text.to_owned() } else { format!("^.*?{}", grouped(text)) };
    probe(RuleDraft { resources: vec![regex.clone()], ..deny() })?;
    Ok(Anchored { is_changed: regex != text, regex })
}

/// For `domain_regex`: anchored at both ends.
///
/// Authelia sees the host as the client spelt it, Postern in lower case: a rule that denies must not lose a host by that.
///
/// # Errors
/// Why there is no such regex.
pub(super) fn domain(text: &str, denies: bool) -> Result<Anchored, String> {
    is_sound(text)?;
    let grouped = grouped(text);
    let start = is_anchored_at_start(text);
    // In any case: only its anchors are asked about.
    let end = domain_probe(format!("(?i)^.*?{grouped}")).is_ok();
    let mut regex = match (start, end) {
        (true, true) => text.to_owned(),
        (true, false) => format!("{grouped}.*$"),
        (false, true) => format!("^.*?{grouped}"),
        (false, false) => format!("^.*?{grouped}.*$"),
    };
    let is_changed = regex != text;
    if denies && has_upper_case(text) {
        regex.insert_str(0, "(?i)");
    }
    domain_probe(regex.clone())?;
    Ok(Anchored { is_changed, regex })
}

/// For a condition of `query`. There our `.` is any character; Authelia's stops at a line break.
///
/// # Errors
/// Why there is no such regex.
pub(super) fn parameter(text: &str) -> Result<Anchored, String> {
    is_sound(text)?;
    let prefix = if is_anchored_at_start(text) { "" } else { "^.*?" };
    let regex = match text.replace("\\.", "").contains('.') {
        true => format!("{prefix}(?-s:{text})"),
        false if prefix.is_empty() => text.to_owned(),
        false => format!("{prefix}{}", grouped(text)),
    };
    let condition = QueryDraft { key: "key".to_owned(), operator: Some(Operator::Pattern), value: Some(regex.clone()) };
    probe(RuleDraft { query: vec![vec![condition]], ..deny() })?;
    Ok(Anchored { is_changed: !prefix.is_empty(), regex })
}

/// Whether both read it alike.
fn is_sound(text: &str) -> Result<(), String> {
    // `$$` is how one spells `$` where the environment is filled in; as a regex it is the same.
    if is_templated_regex(&text.replace("$$", "")) {
        return Err(
            "a template or the environment may fill in a part of it, if Authelia runs with `--config.experimental.filters`; if not, write \
             the rule by hand"
                .to_owned(),
        );
    }
    // To Go these are plain characters; to us a repetition, the edge of a word, and a condition on one.
    if let Some(sign) = ["{,", "\\<", "\\>", "\\b{"].into_iter().find(|sign| text.contains(sign)) {
        return Err(format!("the regex {text:?} holds `{sign}`, which Authelia and Postern read in different ways"));
    }
    match probe(RuleDraft { resources: vec![text.to_owned()], ..deny() }) {
        Ok(_) => Ok(()),
        Err(message) if is_about_anchors(&message) => Ok(()),
        Err(message) => Err(message),
    }
}

fn is_about_anchors(message: &str) -> bool {
    message.contains("is not anchored")
}

fn is_anchored_at_start(text: &str) -> bool {
    probe(RuleDraft { resources: vec![text.to_owned()], ..deny() }).is_ok()
}

fn domain_probe(regex: String) -> Result<(), String> {
    probe(RuleDraft { domain: Vec::new(), domain_regex: vec![regex], ..deny() }).map(|_| ())
}

/// Fit to have something put before and behind it.
fn grouped(text: &str) -> String {
    if text.contains('|') { format!("(?:{text})") } else { text.to_owned() }
}

/// But for escapes and the names of groups.
fn has_upper_case(text: &str) -> bool {
    let bare =
        text.replace("(?P<User>", "(").replace("(?P<Group>", "(").replace("(?<User>", "(").replace("(?<Group>", "(");
    let mut letters = bare.chars();
    while let Some(letter) = letters.next() {
        if letter == '\\' {
            letters.next();
        } else if letter.is_uppercase() {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_anchored_gets_anchors_that_match_the_same() {
        for (text, ours) in [
            ("^/api", "^/api"),
            ("/api", "^.*?/api"),
            ("^/a|/b", "^.*?(?:^/a|/b)"),
            ("^(/a|/b)$", "^(/a|/b)$"),
            ("^(/a$|/b$)", "^(/a$|/b$)"),
            ("^/a$$", "^/a$$"),
            ("(?i)/api", "^.*?(?i)/api"),
            ("\\A/api", "\\A/api"),
            ("", "^.*?"),
        ] {
            assert_eq!(resource(text).map(|anchored| anchored.regex), Ok(ours.to_owned()), "{text:?}");
        }
        for (text, ours) in [
            ("^app\\.example\\.com$", "^app\\.example\\.com$"),
            ("^app\\.example\\.com", "^app\\.example\\.com.*$"),
            ("app\\.example\\.com$", "^.*?app\\.example\\.com$"),
            ("app", "^.*?app.*$"),
            ("^a$|b", "^.*?(?:^a$|b).*$"),
            ("(?P<User>\\w+)\\.example\\.com", "^.*?(?P<User>\\w+)\\.example\\.com.*$"),
        ] {
            assert_eq!(domain(text, false).map(|anchored| anchored.regex), Ok(ours.to_owned()), "{text:?}");
        }
        for (text, ours) in [("^a.c$", "(?-s:^a.c$)"), ("a", "^.*?a"), ("^v2\\.0", "^v2\\.0"), ("a.c", "^.*?(?-s:a.c)")]
        {
            assert_eq!(parameter(text).map(|anchored| anchored.regex), Ok(ours.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_deny_loses_no_host_by_its_case() {
        let regex = |text, denies| domain(text, denies).map(|anchored| anchored.regex).unwrap();
        assert_eq!(regex("^App\\.example\\.com$", true), "(?i)^App\\.example\\.com$");
        assert!(domain("^App\\.example\\.com$", false).is_err_and(|message| message.contains("in lower case")));
        assert_eq!(regex("^(?P<User>\\S+)\\.example\\.com$", true), "^(?P<User>\\S+)\\.example\\.com$");
    }

    #[test]
    fn what_is_read_in_two_ways_or_in_none_is_refused() {
        for text in [
            "a)(?:b",
            "^[",
            "^\\K(a)$",
            "^a{,3}$",
            "^\\<a",
            "{{ env \"A\" }}",
            "^${A}$",
            "^/$A/",
            "^$$$A",
            "^a$-b",
            "^<% env `A` %>",
            "^[[ env \"A\" ]]",
            "^\\Qa.b\\E$",
            "^(?=a)",
            "^(?P<user>a)",
        ] {
            assert!(resource(text).is_err(), "{text:?}");
            assert!(domain(text, true).is_err(), "{text:?}");
            assert!(parameter(text).is_err(), "{text:?}");
        }
    }
}
