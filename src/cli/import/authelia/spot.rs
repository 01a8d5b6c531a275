//! A place in Authelia's file: a value, the way to it, and where it stands. Every part of the import walks the file by these.

use crate::config::source::{Kind, Node, Place};

#[derive(Debug, Clone)]
pub(super) struct Spot<'n> {
    pub(super) node: &'n Node,
    /// `session.cookies[0].domain`.
    pub(super) trail: String,
    /// Of the key, or of an entry of a list.
    pub(super) place: Place,
}

impl<'n> Spot<'n> {
    pub(super) fn root(node: &'n Node) -> Self {
        Self { node, trail: String::new(), place: node.place }
    }

    /// The value of a key, `key.key` for one further down. A key without a value is there as well.
    pub(super) fn get(&self, keys: &str) -> Option<Self> {
        keys.split('.').try_fold(self.clone(), |spot, key| spot.entries().find(|entry| entry.is_named(&spot, key)))
    }

    fn is_named(&self, parent: &Self, key: &str) -> bool {
        self.trail == below(&parent.trail, key)
    }

    /// The values of a block.
    pub(super) fn entries(&self) -> impl Iterator<Item = Self> + use<'n> {
        let trail = self.trail.clone();
        let entries = match &self.node.kind {
            Kind::Map(entries) => entries.as_slice(),
            _ => &[],
        };
        entries.iter().map(move |entry| Self {
            node: &entry.value,
            trail: below(&trail, &entry.key),
            place: entry.place,
        })
    }

    /// With their keys.
    pub(super) fn named(&self) -> impl Iterator<Item = (&'n str, Self)> + use<'n> {
        let keys: Vec<&'n str> = match &self.node.kind {
            Kind::Map(entries) => entries.iter().map(|entry| entry.key.as_str()).collect(),
            _ => Vec::new(),
        };
        keys.into_iter().zip(self.entries())
    }

    /// The texts of a list, or of a single text, which Authelia cuts at its commas; `None` for what is no text.
    pub(super) fn texts(&self) -> Vec<(Self, Option<&'n str>)> {
        match self.text() {
            // Nobody knows at which commas, once the template is filled in.
            Some(text) if is_templated(text) => vec![(self.clone(), Some(text))],
            Some(text) => text.split(',').map(|part| (self.clone(), Some(part))).collect(),
            None => self.items().into_iter().map(|item| (item.clone(), item.text())).collect(),
        }
    }

    /// The entries of a list; where there is a single value, that one.
    pub(super) fn items(&self) -> Vec<Self> {
        match &self.node.kind {
            Kind::Seq(items) => items
                .iter()
                .enumerate()
                .map(|(index, node)| Self { node, trail: format!("{}[{index}]", self.trail), place: node.place })
                .collect(),
            Kind::Null => Vec::new(),
            _ => vec![self.clone()],
        }
    }

    pub(super) fn text(&self) -> Option<&'n str> {
        match &self.node.kind {
            Kind::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_null(&self) -> bool {
        matches!(self.node.kind, Kind::Null)
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node.kind, Kind::Seq(_))
    }

    pub(super) fn is_block(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    pub(super) fn line(&self) -> u64 {
        self.place.line
    }
}

/// A key that is no plain word is quoted, so that no two ways are spelt alike.
fn below(trail: &str, key: &str) -> String {
    let is_plain =
        !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
    let key = if is_plain { key.to_owned() } else { format!("{key:?}") };
    if trail.is_empty() { key } else { format!("{trail}.{key}") }
}

/// What a template or the environment may put there: only Authelia can tell. The delimiters of a template can be others than `{{`;
/// these are the usual ones.
pub(super) fn is_templated(text: &str) -> bool {
    is_templated_regex(text) || DELIMITERS.iter().any(|delimiter| text.contains(delimiter)) || text.contains(['"', '`'])
}

/// In a regex brackets and quotes are nothing unusual, but both together are.
pub(super) fn is_templated_regex(text: &str) -> bool {
    let is_quoted = text.contains(['"', '`']) && DELIMITERS.iter().any(|delimiter| text.contains(delimiter));
    is_quoted || text.contains("{{") || text.contains("<%") || text.contains(".Values") || has_variable(text)
}

const DELIMITERS: &[&str] = &["[[", "((", "<<", "[%", "(%", "{%"];

/// What Go's `os.Expand` takes for a variable: `$NAME`, `${NAME}`, `$1`, `$-`.
fn has_variable(text: &str) -> bool {
    text.split('$').skip(1).any(|behind| behind.starts_with(is_first_of_variable)) || text.contains("$$")
}

fn is_first_of_variable(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '{' | '*' | '#' | '@' | '!' | '?' | '-')
}

/// A value, and the line that it came from; `None`: Authelia's default.
#[derive(Debug, Clone)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) line: Option<u64>,
}

impl<T> Placed<T> {
    pub(super) fn at(spot: &Spot<'_>, value: T) -> Self {
        Self { value, line: Some(spot.line()) }
    }

    pub(super) fn default(value: T) -> Self {
        Self { value, line: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_authelia_can_tell() {
        for text in [
            "{{ env \"A\" }}",
            "$A",
            "a$b",
            "${A}",
            "$_",
            "$1",
            "a$-b",
            "a$$",
            "$$$A",
            "<% env `A` %>",
            "[[ env \"A\" ]]",
            "((env `A`))",
            "group:[[ .Values.contractors ]]",
            "((.Values.x))",
        ] {
            assert!(is_templated(text) && is_templated_regex(text), "{text:?}");
        }
        for text in ["group:((x))", "[[ x ]]", "a\"b"] {
            assert!(is_templated(text) && !is_templated_regex(text), "{text:?}");
        }
        for text in ["", "a", "$", "a$", "(a$|b$)", "a$.", "user:bob", "{user}.example.com", "a{2}"] {
            assert!(!is_templated(text) && !is_templated_regex(text), "{text:?}");
        }
        for text in ["^/((a|b)/c)?$", "^/[[:alpha:]]+$", "^/share/[^\"]+$"] {
            assert!(!is_templated_regex(text), "{text:?}");
        }
    }
}
