//! Globs over the canonical path: `*` stays within a segment, `**` does not. `compile` builds them, `matcher` asks them.

use super::pattern::Pattern;

#[derive(Debug)]
pub(super) struct Glob {
    written: Box<str>,
    shape: Shape,
}

/// What nearly all globs are is matched without a regex.
#[derive(Debug)]
enum Shape {
    Exact,
    /// A literal, then `**`; its length.
    Below(usize),
    /// A literal, then `*`; its length.
    Within(usize),
    Other(Pattern),
}

impl Glob {
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub(super) fn parse(written: &str) -> Result<Self, String> {
        check(written)?;
        let shape = match literal_prefix(written) {
            literal if literal.len() == written.len() => Shape::Exact,
            literal if written.get(literal.len()..) == Some("**") => Shape::Below(literal.len()),
            literal if written.get(literal.len()..) == Some("*") => Shape::Within(literal.len()),
            _ => Shape::Other(Pattern::from_glob(written, as_regex(written))),
        };
        Ok(Self { written: Box::from(written), shape })
    }

    /// `None`: it could not be worked out.
    pub(super) fn matches(&self, path: &str) -> Option<bool> {
        let after = |length: usize| self.written.get(..length).and_then(|literal| path.strip_prefix(literal));
        match &self.shape {
            Shape::Exact => Some(path == &*self.written),
            Shape::Below(length) => Some(after(*length).is_some()),
            Shape::Within(length) => Some(after(*length).is_some_and(|rest| !rest.contains('/'))),
            Shape::Other(pattern) => pattern.is_match(path.as_bytes()),
        }
    }

    pub(super) fn written(&self) -> &str {
        &self.written
    }

    /// What every path that it matches begins with.
    pub(super) fn literal_prefix(&self) -> &str {
        literal_prefix(&self.written)
    }

    /// `/a/**`: everything below a folder, that folder with its slash included.
    pub(super) fn is_below(&self) -> bool {
        matches!(self.shape, Shape::Below(_)) && self.written.ends_with("/**")
    }
}

fn literal_prefix(written: &str) -> &str {
    written.split('*').next().unwrap_or(written)
}

fn check(written: &str) -> Result<(), String> {
    if !written.starts_with('/') {
        return Err(format!(
            "the path {written:?} does not begin with /: write \"/{}\"",
            written.trim_start_matches('/')
        ));
    }
    if written.contains("***") {
        return Err(format!("{written:?}: write * for one segment or ** for any depth"));
    }
    let instead = |character: char| {
        Some(match character {
            '?' => "a path never sees the query, and ? is no wildcard: write * for it, or use resources with a regex",
            '{' | '}' | '[' | ']' => {
                "only * and ** are wildcards: write each alternative as an entry of its own, or use resources"
            }
            '\\' => {
                "a path with a backslash is never let through; to escape is not possible, use resources with a regex"
            }
            '%' => "rules see the decoded path: write the character itself",
            '#' => "a fragment is never sent to a server: leave it out",
            _ if character.is_control() => "a path with a control character is never let through",
            _ => return None,
        })
    };
    if let Some(why) = written.chars().find_map(instead) {
        return Err(format!("the path {written:?} cannot match as it seems to want: {why}"));
    }
    if written.contains("//") {
        return Err(format!("{written:?}: rules see // as /, so write {:?}", written.replace("//", "/")));
    }
    if written.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(format!("{written:?}: a path with . or .. as a segment is never let through"));
    }
    Ok(())
}

/// `/**/` stands for one slash too, as in git and every shell that knows `**`.
fn as_regex(written: &str) -> String {
    let mut regex = String::from("^");
    let mut rest = written;
    while !rest.is_empty() {
        let (text, length) = if rest.starts_with("/**/") {
            ("/(?s:.*/)?".to_owned(), 4)
        } else if rest.starts_with("**") {
            ("(?s:.*)".to_owned(), 2)
        } else if rest.starts_with('*') {
            ("[^/]*".to_owned(), 1)
        } else {
            let length = rest.chars().next().map_or(rest.len(), char::len_utf8);
            (regex::escape(rest.get(..length).unwrap_or(rest)), length)
        };
        regex.push_str(&text);
        rest = rest.get(length..).unwrap_or_default();
    }
    regex.push('$');
    regex
}
