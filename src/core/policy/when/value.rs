//! What an expression yields while it is worked out. Texts are borrowed from the request and the caller wherever they can be.

use std::{borrow::Cow, cmp::Ordering};

use serde_json::Value as Json;

#[derive(Clone, Debug)]
pub(super) enum Value<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(Cow<'v, str>),
    /// In milliseconds.
    Timestamp(i64),
    Duration(i64),
    List(Vec<Value<'v>>),
    /// A caller's groups, as they lie.
    Strings(&'v [String]),
    /// A list or an object among the claims.
    Json(&'v Json),
}

impl<'v> Value<'v> {
    pub(super) fn of(json: &'v Json) -> Self {
        match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(whole), _) => Self::Int(whole),
                (None, Some(real)) => Self::Double(real),
                (None, None) => Self::Null,
            },
            Json::String(text) => Self::String(Cow::Borrowed(text)),
            Json::Array(_) | Json::Object(_) => Self::Json(json),
        }
    }

    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Double(_) => "double",
            Self::String(_) => "string",
            Self::Timestamp(_) => "timestamp",
            Self::Duration(_) => "duration",
            Self::List(_) | Self::Strings(_) | Self::Json(Json::Array(_)) => "list",
            Self::Json(_) => "map",
        }
    }

    /// The entries of a list; `None` where it is none.
    pub(super) fn items(&self) -> Option<Vec<Self>> {
        match self {
            Self::List(items) => Some(items.clone()),
            Self::Strings(texts) => Some(texts.iter().map(|text| Self::String(Cow::Borrowed(text.as_str()))).collect()),
            Self::Json(Json::Array(items)) => Some(items.iter().map(Self::of).collect()),
            _ => None,
        }
    }

    /// Characters of a text, entries of a list or an object.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Self::String(text) => Some(text.chars().count()),
            Self::List(items) => Some(items.len()),
            Self::Strings(texts) => Some(texts.len()),
            Self::Json(Json::Array(items)) => Some(items.len()),
            Self::Json(Json::Object(entries)) => Some(entries.len()),
            _ => None,
        }
    }

    pub(super) fn field(&self, name: &str) -> Option<Self> {
        match self {
            Self::Json(Json::Object(entries)) => entries.get(name).map(Self::of),
            _ => None,
        }
    }

    pub(super) fn is_object(&self) -> bool {
        matches!(self, Self::Json(Json::Object(_)))
    }

    /// What it takes to go through it, or to copy it; counted no further than a little beyond `most`.
    pub(super) fn weight(&self, most: usize) -> usize {
        let mut sum = 0;
        let mut add = |item: &Value<'_>| {
            if sum <= most {
                sum += item.weight(most - sum) + 1;
            }
            sum <= most
        };
        match self {
            Self::String(text) => return text.len(),
            Self::Strings(texts) => return texts.len(),
            Self::List(items) => _ = items.iter().all(&mut add),
            Self::Json(Json::Array(items)) => _ = items.iter().map(Value::of).all(|item| add(&item)),
            Self::Json(Json::Object(entries)) => _ = entries.values().map(Value::of).all(|item| add(&item)),
            _ => {}
        }
        sum
    }

    /// `None`: of two types, neither of them null, so that somebody is mistaken. The two kinds of numbers compare.
    pub(super) fn equals(&self, other: &Self) -> Option<bool> {
        match (self, other) {
            (Self::Null, Self::Null) => Some(true),
            (Self::Null, _) | (_, Self::Null) => Some(false),
            (Self::Bool(left), Self::Bool(right)) => Some(left == right),
            (Self::String(left), Self::String(right)) => Some(left == right),
            (Self::Timestamp(left), Self::Timestamp(right)) | (Self::Duration(left), Self::Duration(right)) => {
                Some(left == right)
            }
            (Self::Int(_) | Self::Double(_), Self::Int(_) | Self::Double(_)) => {
                Some(self.compared(other) == Some(Ordering::Equal))
            }
            (Self::Json(Json::Object(left)), Self::Json(Json::Object(right))) => {
                if left.len() != right.len() || left.keys().any(|key| !right.contains_key(key)) {
                    return Some(false);
                }
                let pairs = left.iter().filter_map(|(key, one)| Some((one, right.get(key)?)));
                all_equal(pairs.map(|(one, other)| Value::of(one).equals(&Value::of(other))))
            }
            _ => {
                let (left, right) = (self.items()?, other.items()?);
                if left.len() != right.len() {
                    return Some(false);
                }
                all_equal(left.iter().zip(&right).map(|(left, right)| left.equals(right)))
            }
        }
    }

    /// `None`: not comparable.
    pub(super) fn compared(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(left), Self::Bool(right)) => Some(left.cmp(right)),
            (Self::Int(left), Self::Int(right))
            | (Self::Timestamp(left), Self::Timestamp(right))
            | (Self::Duration(left), Self::Duration(right)) => Some(left.cmp(right)),
            (Self::Double(left), Self::Double(right)) => left.partial_cmp(right),
            (Self::Int(left), Self::Double(right)) => compare(*left, *right),
            (Self::Double(left), Self::Int(right)) => compare(*right, *left).map(Ordering::reverse),
            (Self::String(left), Self::String(right)) => Some(left.cmp(right)),
            _ => None,
        }
    }
}

/// Two that differ say "not equal", whatever the types of the others.
fn all_equal(pairs: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut all = Some(true);
    for pair in pairs {
        match pair {
            Some(true) => {}
            Some(false) => return Some(false),
            None => all = None,
        }
    }
    all
}

/// Exactly: a whole number of more than 53 bits is not rounded first.
fn compare(whole: i64, real: f64) -> Option<Ordering> {
    if real.is_nan() {
        return None;
    }
    // 2^63: every whole number lies below it, and not below its negative.
    const BEYOND: f64 = 9_223_372_036_854_775_808.0;
    if real >= BEYOND {
        return Some(Ordering::Less);
    }
    if real < -BEYOND {
        return Some(Ordering::Greater);
    }
    #[expect(clippy::cast_possible_truncation, reason = "it is whole, and within the range")]
    let floor = real.floor() as i64;
    Some(whole.cmp(&floor).then_with(|| if real > real.floor() { Ordering::Less } else { Ordering::Equal }))
}
