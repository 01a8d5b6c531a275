//! Holds a tree against the JSON Schema that is generated from the raw types, since serde stops at the first fault and a
//! person wants all of them. What is faulty is taken out of the tree, so that serde can read the rest and its meaning is
//! checked too. Called before every deserialisation.

use std::{fmt, path::Path};

use serde_json::Value;

use super::{
    Fault,
    error::{Trail, did_you_mean, list},
    source::{Entry, Kind, Node, Place},
};

/// What a file may hold.
pub(super) struct Shape {
    pub(super) schema: Value,
    /// Keys of the contract that this version cannot honour yet: refused by name, never ignored.
    pub(super) later: &'static [&'static str],
    /// Top-level lists whose entries mean something only as a whole: a rule less its faulty `domain` would be another rule.
    pub(super) whole_items_of: &'static [&'static str],
}

/// What was found.
pub(super) struct Checked {
    pub(super) faults: Vec<Fault>,
    /// Top-level keys below which something was taken out: what refers to them cannot be judged.
    pub(super) pruned: Vec<String>,
}

impl Shape {
    /// Reports every fault of form and takes the faulty parts out of the tree.
    pub(super) fn check(&self, file: &Path, root: &mut Node) -> Checked {
        let mut walk = Walk { shape: self, file, checked: Checked { faults: Vec::new(), pruned: Vec::new() } };
        if !walk.value(root, &self.schema, &Way::Root) {
            root.kind = Kind::Map(Vec::new());
        }
        walk.checked
    }
}

/// As [`Trail`], borrowed from the walk: only a fault needs it written out.
enum Way<'w> {
    Root,
    Key(&'w Way<'w>, &'w str),
    Item(&'w Way<'w>, usize),
}

impl Way<'_> {
    /// Whether it is this key of the root.
    fn is_top(&self, name: &str) -> bool {
        matches!(self, Way::Key(Way::Root, key) if *key == name)
    }

    /// The first key; empty at the root.
    fn top(&self) -> &str {
        match self {
            Way::Key(Way::Root, key) => key,
            Way::Root => "",
            Way::Key(before, _) | Way::Item(before, _) => before.top(),
        }
    }

    fn trail(&self) -> Trail {
        match self {
            Way::Root => Trail::root(),
            Way::Key(before, key) => before.trail().key(key),
            Way::Item(before, index) => before.trail().item(*index),
        }
    }
}

impl fmt::Display for Way<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trail().fmt(f)
    }
}

struct Walk<'s> {
    shape: &'s Shape,
    file: &'s Path,
    checked: Checked,
}

impl<'s> Walk<'s> {
    /// Whether the value, pruned, can be kept.
    fn value(&mut self, node: &mut Node, field: &'s Value, way: &Way<'_>) -> bool {
        if matches!(node.kind, Kind::Broken) {
            return false;
        }
        let schema = self.resolve(field);
        if matches!(node.kind, Kind::Null) {
            let example = example_of(schema, field);
            let instead = if example.is_empty() { "; write one" } else { &example };
            self.fault(node.place, format!("`{way}` has no value{instead}, or take the key out"));
            return false;
        }
        if schema.is_boolean() || is_free(schema) {
            return true;
        }
        if let Some(fitting) = self.alternative(node, schema) {
            return self.value(node, fitting, way);
        }
        if is_choice(schema) {
            return self.choice(node, schema, way);
        }
        if !accepts(schema, &node.kind) {
            self.wrong_type(node, schema, field, way);
            return false;
        }
        match &mut node.kind {
            Kind::Map(entries) => self.entries(entries, node.place, schema, way),
            Kind::Seq(items) => {
                if let Some(inner) = schema.get("items") {
                    let whole = self.shape.whole_items_of.iter().any(|name| way.is_top(name));
                    let mut index = 0;
                    items.retain_mut(|item| {
                        let before = self.checked.faults.len();
                        let kept = self.value(item, inner, &Way::Item(way, index));
                        index += 1;
                        kept && !(whole && self.checked.faults.len() > before)
                    });
                }
                true
            }
            _ => true,
        }
    }

    fn entries(&mut self, entries: &mut Vec<Entry>, place: Place, schema: &'s Value, way: &Way<'_>) -> bool {
        // A whole section left empty is the same as none. Deeper down it is a fault: `subject:` or `client_ca:` with the value
        // forgotten must not open anything.
        if matches!(way, Way::Root) {
            entries.retain(|entry| !matches!(entry.value.kind, Kind::Null));
        }
        let required =
            || schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let missing: Vec<&str> = required().filter(|name| !entries.iter().any(|entry| entry.key == *name)).collect();
        for name in &missing {
            let example = schema
                .get("properties")
                .and_then(|properties| properties.get(*name))
                .map(|property| example_of(self.resolve(property), property))
                .unwrap_or_default();
            self.fault(place, format!("{}`{name}` is missing{example}", prefix(way)));
        }
        entries.retain_mut(|entry| self.entry(entry, schema, way));
        required().all(|name| entries.iter().any(|entry| entry.key == name))
    }

    fn entry(&mut self, entry: &mut Entry, schema: &'s Value, way: &Way<'_>) -> bool {
        let properties = schema.get("properties").and_then(Value::as_object);
        let Entry { key, place, value } = entry;
        // Within braces, `password:hunter2` is a key without a value.
        if matches!(value.kind, Kind::Null)
            && let Some((name, _)) = key.split_once(':')
        {
            let at = Way::Key(way, name);
            self.fault(*place, format!("`{at}:` needs a blank between the colon and the value"));
            self.prune(&at);
            return false;
        }
        let at = Way::Key(way, key);
        let known = properties.and_then(|properties| properties.get(key));
        let inner =
            known.or_else(|| schema.get("additionalProperties").filter(|schema| **schema != Value::Bool(false)));
        let before = self.checked.faults.len();
        let broken = matches!(value.kind, Kind::Broken);
        let kept = match inner {
            Some(inner) => self.value(value, inner, &at),
            None => {
                let names: Vec<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let message = if self.shape.later.contains(&key.as_str()) {
                    format!("`{at}` is not supported yet by this version; take it out")
                } else {
                    let meant = did_you_mean(key, names.iter().copied());
                    let end = if meant.is_empty() { "." } else { &meant };
                    format!("unknown key `{at}`{end} Known here: {}", list(names))
                };
                self.fault(*place, message);
                false
            }
        };
        if broken || self.checked.faults.len() > before {
            self.prune(&at);
        }
        kept
    }

    fn prune(&mut self, way: &Way<'_>) {
        let top = way.top();
        if !self.checked.pruned.iter().any(|key| key == top) {
            self.checked.pruned.push(top.to_owned());
        }
    }

    fn choice(&mut self, node: &Node, schema: &'s Value, way: &Way<'_>) -> bool {
        if let Kind::Str(text) = &node.kind
            && is_among(schema, text)
        {
            return true;
        }
        let allowed = choices(schema);
        let meant = match &node.kind {
            Kind::Str(text) => did_you_mean(text, allowed.iter().copied()),
            _ => String::new(),
        };
        let meant = meant.trim_end_matches('?');
        let found = describe(&node.kind);
        self.fault(
            node.place,
            format!("`{way}`: expected one of {}, found {found}{meant}", list(allowed.iter().copied())),
        );
        false
    }

    fn wrong_type(&mut self, node: &Node, schema: &'s Value, field: &Value, way: &Way<'_>) {
        let at = way.to_string();
        let subject = if at.is_empty() { "the file".to_owned() } else { format!("`{at}`") };
        let expected = self.expected(schema);
        let example = example_of(schema, field);
        // Shown only in place of a number or a `true`: a password of digits is a number all the same, and a short URL may hold one.
        let found = if is_harmless(schema) { describe(&node.kind) } else { name_of(&node.kind).to_owned() };
        let is_unquoted = matches!(node.kind, Kind::Bool(_) | Kind::Int(_) | Kind::Float(_));
        let is_free_text = expected.contains(english("string")) && example.is_empty();
        let quotes = if is_unquoted && is_free_text { "; put it in quotes" } else { "" };
        self.fault(node.place, format!("{subject}: expected {expected}, found {found}{quotes}{example}"));
    }

    fn fault(&mut self, place: Place, message: String) {
        let fault = Fault { file: self.file.to_path_buf(), line: place.line, column: place.column, message };
        self.checked.faults.push(fault);
    }

    /// Follows references, and `X or null` to X.
    fn resolve(&self, schema: &'s Value) -> &'s Value {
        let mut schema = schema;
        // References of generated schemas form no loop without a value between; the bound only makes that sure.
        for _ in 0..8 {
            let reference = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix("#/$defs/"));
            if let Some(found) = reference.and_then(|name| self.shape.schema.get("$defs")?.get(name)) {
                schema = found;
                continue;
            }
            let mut all = alternatives(schema);
            match (all.next(), all.next()) {
                (Some(single), None) => schema = single,
                _ => break,
            }
        }
        schema
    }

    /// The alternative whose type fits.
    fn alternative(&self, node: &Node, schema: &'s Value) -> Option<&'s Value> {
        alternatives(schema).find(|inner| {
            let resolved = self.resolve(inner);
            accepts(resolved, &node.kind) || self.alternative(node, resolved).is_some()
        })
    }

    fn expected(&self, schema: &'s Value) -> String {
        let mut alternatives = alternatives(schema).peekable();
        if alternatives.peek().is_none() {
            return type_names(schema).map(english).collect::<Vec<_>>().join(" or ");
        }
        alternatives.map(|inner| self.expected(self.resolve(inner))).collect::<Vec<_>>().join(" or ")
    }
}

fn prefix(way: &Way<'_>) -> String {
    let at = way.to_string();
    if at.is_empty() { at } else { format!("`{at}`: ") }
}

/// The alternatives of `anyOf`, without null: nothing is the same as no key.
fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let all = schema.get("anyOf").and_then(Value::as_array);
    all.into_iter().flatten().filter(|inner| inner.get("type").and_then(Value::as_str) != Some("null"))
}

/// Whether it lists the values that may stand here.
fn is_choice(schema: &Value) -> bool {
    schema.get("enum").is_some_and(Value::is_array) || schema.get("oneOf").is_some_and(Value::is_array)
}

fn is_among(schema: &Value, text: &str) -> bool {
    let listed = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    listed("enum").any(|value| value.as_str() == Some(text))
        || listed("oneOf").any(|variant| match variant.get("const") {
            Some(value) => value.as_str() == Some(text),
            None => is_among(variant, text),
        })
}

/// The values of an enumeration.
fn choices(schema: &Value) -> Vec<&str> {
    let listed = |key: &str| schema.get(key).and_then(Value::as_array).into_iter().flatten();
    listed("enum")
        .filter_map(Value::as_str)
        .chain(listed("oneOf").flat_map(|variant| match variant.get("const") {
            Some(value) => value.as_str().into_iter().collect(),
            None => choices(variant),
        }))
        .collect()
}

fn is_free(schema: &Value) -> bool {
    ["type", "enum", "oneOf", "anyOf", "$ref"].iter().all(|key| schema.get(key).is_none())
}

fn type_names(schema: &Value) -> impl Iterator<Item = &str> {
    let one = schema.get("type").and_then(Value::as_str);
    let several = schema.get("type").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    one.into_iter().chain(several.filter(|name| *name != "null"))
}

fn accepts(schema: &Value, kind: &Kind) -> bool {
    let fits = |wanted: &str| type_names(schema).any(|name| name == wanted);
    match kind {
        Kind::Null | Kind::Broken => false,
        Kind::Bool(_) => fits("boolean"),
        Kind::Int(_) => fits("integer") || fits("number"),
        Kind::Float(_) => fits("number"),
        Kind::Str(_) => fits("string"),
        Kind::Seq(_) => fits("array"),
        Kind::Map(_) => fits("object"),
    }
}

fn english(type_name: &str) -> &'static str {
    match type_name {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "`true` or `false`",
        "array" => "a list",
        _ => "a block of keys",
    }
}

/// Whether what stands in a value's place may be repeated: nobody puts a secret where a number, or `true`, is asked for.
fn is_harmless(schema: &Value) -> bool {
    let mut names = type_names(schema).peekable();
    names.peek().is_some() && names.all(|name| matches!(name, "boolean" | "integer" | "number"))
}

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Bool(value) => format!("`{value}`"),
        Kind::Int(value) => format!("the number `{value}`"),
        Kind::Float(value) => format!("the number `{value}`"),
        // Not the text itself: it may be a secret that slipped into the wrong line.
        Kind::Str(text) if text.len() <= 24 && text.chars().all(|letter| letter.is_ascii_graphic()) => {
            format!("`{text}`")
        }
        other => name_of(other).to_owned(),
    }
}

fn name_of(kind: &Kind) -> &'static str {
    match kind {
        Kind::Null | Kind::Broken => "nothing",
        Kind::Bool(_) => "a truth value",
        Kind::Int(_) | Kind::Float(_) => "a number",
        Kind::Str(_) => "text",
        Kind::Seq(_) => "a list",
        Kind::Map(_) => "a block of keys",
    }
}

/// "; write for example `30s`": from the examples of the field, else of its type.
fn example_of(resolved: &Value, field: &Value) -> String {
    let example = [field, resolved].into_iter().find_map(|schema| schema.get("examples")?.get(0));
    match example {
        Some(Value::String(text)) => format!("; write for example `{text}`"),
        Some(other) => format!("; write for example `{other}`"),
        None => String::new(),
    }
}
