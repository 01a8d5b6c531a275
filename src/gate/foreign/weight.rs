//! What the claims of a verified token take in memory: far more than the token where they are many small ones, and whoever may write claims
//! chooses them. Called by the parent for what is remembered, whose sum is bounded.

use serde_json::{Map, Value};

/// The identity, the key and what finds it, whatever the claims are.
const ALWAYS: usize = 2048;
/// An object takes room for eleven entries with its first.
const OBJECT: usize = 704;
const ENTRY: usize = 128;
const ARRAY: usize = 128;
/// Arrays grow by doubling.
const ELEMENT: usize = 64;
/// A text and its copies as name, group, role and header.
const TEXT: usize = 128;
const COPIES: usize = 4;

/// Bytes, roughly, and rather too many.
pub(super) fn of(claims: &Map<String, Value>) -> u32 {
    u32::try_from(object(claims).saturating_add(ALWAYS)).unwrap_or(u32::MAX)
}

/// What the value holds beside itself. serde_json reads no deeper than 128 levels.
fn within(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len().saturating_mul(COPIES).saturating_add(TEXT),
        Value::Array(elements) => {
            elements.iter().fold(ARRAY, |sum, element| sum.saturating_add(ELEMENT).saturating_add(within(element)))
        }
        Value::Object(entries) => object(entries),
    }
}

fn object(entries: &Map<String, Value>) -> usize {
    entries.iter().fold(OBJECT, |sum, (name, inner)| {
        sum.saturating_add(ENTRY).saturating_add(name.len()).saturating_add(within(inner))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn weight(claims: Value) -> u32 {
        let Value::Object(claims) = claims else { panic!("no object") };
        of(&claims)
    }

    #[test]
    fn claims_weigh_what_they_take_and_not_what_they_are_long() {
        let plain = weight(json!({ "sub": "carol", "aud": "postern", "groups": ["staff"] }));
        assert!(plain < 8192, "{plain}");
        // Seven bytes of a token each, and a node of a map with eleven places (56 bytes each) in memory.
        let objects = weight(json!({ "x": vec![json!({ "": 0 }); 1000] }));
        assert!(objects > 1000 * 11 * 56, "{objects}");
        let arrays = weight(json!({ "x": vec![json!([0]); 1000] }));
        assert!(arrays > 1000 * (32 + 4 * 32), "{arrays}");
        let groups = weight(json!({ "x": vec!["a"; 1000] }));
        assert!(groups > 1000 * (32 + 3 * 24 + 3 * 16), "{groups}");
        let text = weight(json!({ "name": "n".repeat(10_000) }));
        assert!(text > 40_000, "{text}");
        let deep = (0..1000).fold(json!(0), |inner, _| json!([inner]));
        assert!(weight(json!({ "x": deep })) > 100_000);
    }
}
