//! Reads a YAML file into a tree that knows the place of every key and value. Called by `config::load`, `policy_file` and
//! `cli::import`, which reads another program's configuration. Says nothing about what the values mean.

use std::{fmt, path::Path, thread};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_yaml::Spanned;

use super::Fault;

/// Entries of a list that are read without letting others have the processor: a long file is read beside requests, on one core too.
const AT_ONCE: usize = 64;

/// Keys and values of one file: some hundred thousand rules. What is larger is no configuration.
const MOST_NODES: usize = 4_000_000;
const MERGE_FAULT: &str = "`<<` merges nothing here: write `<<: *NAME`, or take it out";
/// Takes the entries of other blocks into this one (YAML 1.1, "Merge Key").
const MERGE: &str = "<<";

/// Line and column, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    Seq(Vec<Node>),
    Map(Vec<Entry>),
    /// Its fault was reported already: nothing more is to be said of it.
    Broken,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Node,
}

/// The text of a file.
pub(crate) fn read(file: &Path) -> Result<String, Fault> {
    std::fs::read_to_string(file).map_err(|error| whole_file(file, format!("cannot be read: {error}")))
}

/// A fault of the file as a whole.
pub(super) fn whole_file(file: &Path, message: String) -> Fault {
    Fault { file: file.to_path_buf(), line: 0, column: 0, message }
}

/// The tree of a text. An empty file is an empty block.
pub(crate) fn parse(file: &Path, text: &str) -> Result<Node, Fault> {
    let options = serde_yaml::options! {
        // YAML 1.2: `off` and `yes` are words, not booleans.
        strict_booleans: true,
        // Merged here: the parser takes one of nothing for none.
        merge_keys: serde_yaml::MergeKeyPolicy::AsOrdinary,
        budget: serde_yaml::budget! {
            max_nodes: MOST_NODES,
            max_events: 2 * MOST_NODES,
            // Many rules may share one anchor. What all of them come to is bounded.
            max_aliases: MOST_NODES,
            enforce_alias_anchor_ratio: false,
        },
    };
    let mut root: Node =
        serde_yaml::from_str_with_options(text, options).map_err(|error| syntax_fault(file, &error))?;
    if matches!(root.kind, Kind::Null) {
        root.kind = Kind::Map(Vec::new());
    }
    Ok(root)
}

/// The parser's message brings its own place and an excerpt of the file over several lines: one line is kept, in our form. No value of
/// the file is: it may be a secret.
pub(crate) fn syntax_fault(file: &Path, error: &serde_yaml::Error) -> Fault {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let line = match line.split_once(": ") {
        Some((place, message)) if place.starts_with("line ") => message,
        _ => line,
    };
    // The parser also says where its excerpt stands, " at line 2, column 1": the place is ours to tell.
    let line = line.split(" at line ").next().unwrap_or(line);
    let message = match line.strip_prefix("duplicate mapping key: ") {
        Some(rest) => {
            let key = rest.split(", set DuplicateKeyPolicy").next().unwrap_or(rest);
            format!("the key `{key}` stands here a second time; keep one of the two")
        }
        None if line.starts_with(MERGE_FAULT) => line.to_owned(),
        None if line.contains("must be quoted") || line.contains("non-finite float") => {
            "this number is none that can be worked with; put it in quotes if it is text".to_owned()
        }
        None if line.starts_with("invalid type: ") || line.starts_with("invalid value: ") => {
            let expected = line.rsplit_once(", expected ").map_or("something else", |(_, expected)| expected);
            format!("this is no value that belongs here: expected {expected}")
        }
        None if line.contains("budget breached") || line.contains("alias replay limit") => {
            format!(
                "the file is larger or deeper than a configuration can be ({line}); split it, or write lists out less often"
            )
        }
        None if line.starts_with("missing field ") => format!("this is not complete: {line}"),
        // What it quotes stands between backticks.
        None => format!("this is not YAML: {}", line.split('`').step_by(2).collect::<Vec<_>>().join("…")),
    };
    let (line, column) = error.location().map_or((0, 0), |location| (location.line(), location.column()));
    Fault { file: file.to_path_buf(), line, column, message }
}

impl Node {
    /// Replaces `${NAME}` in every value by what `environment` says; `$${` stands for `${`.
    pub(super) fn expand(
        &mut self,
        file: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
        faults: &mut Vec<Fault>,
    ) {
        let place = self.place;
        match &mut self.kind {
            Kind::Str(text) if text.contains("${") => match expanded(text, environment) {
                Ok(value) => *text = value,
                Err(message) => {
                    faults.push(Fault { file: file.to_path_buf(), line: place.line, column: place.column, message });
                    self.kind = Kind::Broken;
                }
            },
            Kind::Seq(items) => items.iter_mut().for_each(|item| item.expand(file, environment, faults)),
            Kind::Map(entries) => entries.iter_mut().for_each(|entry| entry.value.expand(file, environment, faults)),
            _ => {}
        }
    }
}

fn expanded(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            result.push_str(before);
            result.push_str("${");
            rest = after;
            continue;
        }
        let Some((name, behind)) = after.split_once('}') else {
            return Err("`${` without `}`; write `${NAME}`, or `$${` for the characters themselves".to_owned());
        };
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        // Neither here nor below is repeated what may be a piece of a password.
        if !is_name {
            let fault = "what stands between `${` and `}` is no environment variable; write `${NAME}`, or `$${` for the characters themselves";
            return Err(fault.to_owned());
        }
        let value = environment(name).ok_or_else(|| match name.bytes().any(|byte| byte.is_ascii_lowercase()) {
            false => format!("the environment variable `{name}` is not set; set it, or write the value here"),
            true => "the environment variable that is named between `${` and `}` is not set; set it, or write `$${` for the \
                     characters themselves"
                .to_owned(),
        })?;
        result.push_str(before);
        result.push_str(&value);
        rest = behind;
    }
    result.push_str(rest);
    Ok(result)
}

/// Adds what is not there yet: of several blocks the first one that has it. A merge of nothing is a name that was forgotten: `<<: *staff` without
/// `*staff` would be a rule without its subject.
fn merged(entries: &mut Vec<Entry>, value: Node) -> Result<(), &'static str> {
    let blocks = match value.kind {
        Kind::Map(_) => vec![value],
        Kind::Seq(blocks) => blocks,
        _ => return Err(MERGE_FAULT),
    };
    if blocks.is_empty() {
        return Err(MERGE_FAULT);
    }
    for block in blocks {
        match block.kind {
            Kind::Map(all) if !all.is_empty() => {
                for entry in all {
                    if !entries.iter().any(|known| known.key == entry.key) {
                        entries.push(entry);
                    }
                }
            }
            _ => return Err(MERGE_FAULT),
        }
    }
    Ok(())
}

impl From<serde_yaml::Location> for Place {
    fn from(location: serde_yaml::Location) -> Self {
        Self { line: location.line(), column: location.column() }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Kind>::deserialize(deserializer)?;
        Ok(Self { place: spanned.referenced.into(), kind: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyKind)
    }
}

struct AnyKind;

impl<'de> Visitor<'de> for AnyKind {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        Kind::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Int(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Kind, E> {
        i64::try_from(value).map(Kind::Int).map_err(|_| E::custom("a number that large has no meaning here"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Kind, E> {
        Ok(Kind::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Str(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
            if items.len().is_multiple_of(AT_ONCE) {
                thread::yield_now();
            }
        }
        Ok(Kind::Seq(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Kind, A::Error> {
        let mut entries: Vec<Entry> = Vec::new();
        while let Some((key, value)) = access.next_entry::<Spanned<String>, Node>()? {
            if entries.iter().any(|entry| entry.key == key.value) {
                return Err(A::Error::custom(format!("duplicate mapping key: {}", key.value)));
            }
            entries.push(Entry { key: key.value, place: key.referenced.into(), value });
        }
        if let Some(merge) = entries.iter().position(|entry| entry.key == MERGE) {
            let merge = entries.remove(merge);
            merged(&mut entries, merge.value).map_err(A::Error::custom)?;
        }
        Ok(Kind::Map(entries))
    }
}
