//! Holds a tree against the JSON Schema that is generated from the raw types, since serde stops at the first fault and a
//! person wants all of them. What is faulty is taken out of the tree, so that serde can read the rest and its meaning is
//! checked too. Called before every deserialisation.

use std::path::Path;

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
        if !walk.value(root, &self.schema, &Trail::root()) {
            root.kind = Kind::Map(Vec::new());
        }
        walk.checked
    }
}

struct Walk<'s> {
    shape: &'s Shape,
    file: &'s Path,
    checked: Checked,
}

impl<'s> Walk<'s> {
    /// Whether the value, pruned, can be kept.
    fn value(&mut self, node: &mut Node, field: &'s Value, trail: &Trail) -> bool {
        if matches!(node.kind, Kind::Broken) {
            return false;
        }
        let schema = self.resolve(field);
        if matches!(node.kind, Kind::Null) {
            let example = example_of(schema, field);
            let instead = if example.is_empty() { "; write one" } else { &example };
            self.fault(node.place, format!("`{trail}` has no value{instead}, or take the key out"));
            return false;
        }
        if schema.is_boolean() || is_free(schema) {
            return true;
        }
        if let Some(fitting) = self.alternative(node, schema) {
            return self.value(node, fitting, trail);
        }
        if let Some(allowed) = choices(schema) {
            return self.choice(node, &allowed, trail);
        }
        if !accepts(schema, &node.kind) {
            self.wrong_type(node, schema, field, trail);
            return false;
        }
        match &mut node.kind {
            Kind::Map(entries) => self.entries(entries, node.place, schema, trail),
            Kind::Seq(items) => {
                if let Some(inner) = schema.get("items") {
                    let whole = self.shape.whole_items_of.iter().any(|name| trail.is_top(name));
                    let mut index = 0;
                    items.retain_mut(|item| {
                        let before = self.checked.faults.len();
                        let kept = self.value(item, inner, &trail.item(index));
                        index += 1;
                        kept && !(whole && self.checked.faults.len() > before)
                    });
                }
                true
            }
            _ => true,
        }
    }

    fn entries(&mut self, entries: &mut Vec<Entry>, place: Place, schema: &'s Value, trail: &Trail) -> bool {
        // A whole section left empty is the same as none. Deeper down it is a fault: `subject:` or `client_ca:` with the value
        // forgotten must not open anything.
        if trail.is_root() {
            entries.retain(|entry| !matches!(entry.value.kind, Kind::Null));
        }
        let required: Vec<&str> = schema
            .get("required")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let missing: Vec<&str> =
            required.iter().copied().filter(|name| !entries.iter().any(|entry| entry.key == *name)).collect();
        for name in &missing {
            let example = schema
                .get("properties")
                .and_then(|properties| properties.get(*name))
                .map(|property| example_of(self.resolve(property), property))
                .unwrap_or_default();
            self.fault(place, format!("{}`{name}` is missing{example}", prefix(trail)));
        }
        entries.retain_mut(|entry| self.entry(entry, schema, trail));
        required.iter().all(|name| entries.iter().any(|entry| entry.key == *name))
    }

    fn entry(&mut self, entry: &mut Entry, schema: &'s Value, trail: &Trail) -> bool {
        let properties = schema.get("properties").and_then(Value::as_object);
        let at = trail.key(&entry.key);
        let known = properties.and_then(|properties| properties.get(&entry.key));
        let inner =
            known.or_else(|| schema.get("additionalProperties").filter(|schema| **schema != Value::Bool(false)));
        let before = self.checked.faults.len();
        let broken = matches!(entry.value.kind, Kind::Broken);
        let kept = match inner {
            Some(inner) => self.value(&mut entry.value, inner, &at),
            None => {
                let names: Vec<&str> = properties.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let message = if self.shape.later.contains(&entry.key.as_str()) {
                    format!("`{at}` is not supported yet by this version; take it out")
                } else {
                    let meant = did_you_mean(&entry.key, names.iter().copied());
                    let end = if meant.is_empty() { "." } else { &meant };
                    format!("unknown key `{at}`{end} Known here: {}", list(names))
                };
                self.fault(entry.place, message);
                false
            }
        };
        if (broken || self.checked.faults.len() > before) && !self.checked.pruned.iter().any(|key| key == at.top()) {
            self.checked.pruned.push(at.top().to_owned());
        }
        kept
    }

    fn choice(&mut self, node: &Node, allowed: &[&str], trail: &Trail) -> bool {
        if let Kind::Str(text) = &node.kind
            && allowed.contains(&text.as_str())
        {
            return true;
        }
        let meant = match &node.kind {
            Kind::Str(text) => did_you_mean(text, allowed.iter().copied()),
            _ => String::new(),
        };
        let meant = meant.trim_end_matches('?');
        let found = describe(&node.kind);
        self.fault(
            node.place,
            format!("`{trail}`: expected one of {}, found {found}{meant}", list(allowed.iter().copied())),
        );
        false
    }

    fn wrong_type(&mut self, node: &Node, schema: &'s Value, field: &Value, trail: &Trail) {
        let at = trail.to_string();
        let subject = if at.is_empty() { "the file".to_owned() } else { format!("`{at}`") };
        let expected = self.expected(schema);
        let example = example_of(schema, field);
        let found = describe(&node.kind);
        // YAML reads `y`, `no` and `on` as true and false.
        let quotes = if matches!(node.kind, Kind::Bool(_)) { "; put text in quotes" } else { "" };
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
            return type_names(schema).iter().map(|name| english(name)).collect::<Vec<_>>().join(" or ");
        }
        alternatives.map(|inner| self.expected(self.resolve(inner))).collect::<Vec<_>>().join(" or ")
    }
}

fn prefix(trail: &Trail) -> String {
    let at = trail.to_string();
    if at.is_empty() { at } else { format!("`{at}`: ") }
}

/// The alternatives of `anyOf`, without null: nothing is the same as no key.
fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    let all = schema.get("anyOf").and_then(Value::as_array);
    all.into_iter().flatten().filter(|inner| inner.get("type").and_then(Value::as_str) != Some("null"))
}

/// The values of an enumeration.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(values) = schema.get("enum").and_then(Value::as_array) {
        return Some(values.iter().filter_map(Value::as_str).collect());
    }
    let variants = schema.get("oneOf").and_then(Value::as_array)?;
    Some(
        variants
            .iter()
            .flat_map(|variant| match variant.get("const") {
                Some(value) => value.as_str().into_iter().collect(),
                None => choices(variant).unwrap_or_default(),
            })
            .collect(),
    )
}

fn is_free(schema: &Value) -> bool {
    ["type", "enum", "oneOf", "anyOf", "$ref"].iter().all(|key| schema.get(key).is_none())
}

fn type_names(schema: &Value) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).filter(|name| *name != "null").collect(),
        _ => Vec::new(),
    }
}

fn accepts(schema: &Value, kind: &Kind) -> bool {
    let names = type_names(schema);
    let name = match kind {
        Kind::Null | Kind::Broken => return false,
        Kind::Bool(_) => "boolean",
        Kind::Int(_) => return names.contains(&"integer") || names.contains(&"number"),
        Kind::Float(_) => "number",
        Kind::Str(_) => "string",
        Kind::Seq(_) => "array",
        Kind::Map(_) => "object",
    };
    names.contains(&name)
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

fn describe(kind: &Kind) -> String {
    match kind {
        Kind::Null | Kind::Broken => "nothing".to_owned(),
        Kind::Bool(value) => format!("`{value}`"),
        Kind::Int(value) => format!("the number `{value}`"),
        Kind::Float(value) => format!("the number `{value}`"),
        // Not the text itself: it may be a secret that slipped into the wrong line.
        Kind::Str(text) if text.len() > 24 || text.contains(|c: char| !c.is_ascii_graphic()) => "text".to_owned(),
        Kind::Str(text) => format!("`{text}`"),
        Kind::Seq(_) => "a list".to_owned(),
        Kind::Map(_) => "a block of keys".to_owned(),
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
