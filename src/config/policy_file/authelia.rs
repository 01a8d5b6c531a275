//! Authelia's spellings of what is ours too: its `access_control` may be laid into the policies folder as it is.

use std::collections::HashSet;

use super::super::source::{Entry, Kind, Node, Place};

/// A name that stands in a list once more. YAML's parser tells that of keys alone.
pub(super) struct Again {
    pub(super) name: String,
    pub(super) place: Place,
}

/// Rewrites Authelia's spellings in the tree, so that one shape describes both and every place stays.
pub(super) fn authelia_to_ours(mut root: Node) -> (Node, Vec<Again>) {
    let mut again = Vec::new();
    if let Kind::Map(entries) = &mut root.kind
        && let [only] = entries.as_mut_slice()
        && only.key == "access_control"
    {
        root = only.value.clone();
    }
    if let Kind::Map(entries) = &mut root.kind {
        let has_default = entries.iter().any(|entry| entry.key == "default");
        for entry in entries {
            match (entry.key.as_str(), &mut entry.value.kind) {
                ("default_policy", _) if !has_default => entry.key = "default".to_owned(),
                ("networks", kind) => networks_by_name(kind, &mut again),
                _ => {}
            }
        }
    }
    (root, again)
}

/// `[{ name: office, networks: [...] }]` as `{ office: [...] }`. Anything else is left for the shape to judge.
fn networks_by_name(kind: &mut Kind, again: &mut Vec<Again>) {
    let Kind::Seq(items) = kind else { return };
    let named: Option<Vec<Entry>> = items.iter().map(named_network).collect();
    if let Some(mut entries) = named {
        let mut names = HashSet::new();
        entries.retain(|entry| {
            let is_new = names.insert(entry.key.clone());
            if !is_new {
                again.push(Again { name: entry.key.clone(), place: entry.place });
            }
            is_new
        });
        *kind = Kind::Map(entries);
    }
}

fn named_network(item: &Node) -> Option<Entry> {
    let Kind::Map(entries) = &item.kind else { return None };
    let [first, second] = entries.as_slice() else { return None };
    let (name, networks) = if first.key == "name" { (first, second) } else { (second, first) };
    match &name.value.kind {
        Kind::Str(text) if name.key == "name" && networks.key == "networks" => {
            Some(Entry { key: text.clone(), place: name.value.place, value: networks.value.clone() })
        }
        _ => None,
    }
}
