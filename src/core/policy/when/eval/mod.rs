//! Works an expression out. Every step is counted, so that no request can make one take long; nothing here panics, and what cannot
//! be worked out is an error rather than a guess.

mod facts;
mod numbers;

use std::borrow::Cow;

use self::numbers::{arithmetic, overflow, to_double, to_int, to_string};
use super::{
    environment::Fact,
    tree::{Fold, Node, Order, Search},
    value::Value,
};
use crate::core::policy::matcher::Reading;

/// Steps of one evaluation: nodes looked at, entries and characters gone through.
const BUDGET: u32 = 100_000;
/// Bytes of a parameter or a header that cost about as much as a step.
const BYTES_A_STEP: usize = 4;

/// Why an expression has no value. An error on one side of `&&` and `||` counts only where the other side does not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::core::policy) enum Stop {
    /// It reads the caller, and nobody is signed in.
    Anonymous,
    Failed(Cow<'static, str>),
    /// It reads what was not written down of a request that is decided again.
    Unrecorded,
}

impl Stop {
    fn failed<T>(why: impl Into<Cow<'static, str>>) -> Result<T, Self> {
        Err(Self::Failed(why.into()))
    }
}

type Outcome<'v> = Result<Value<'v>, Stop>;

pub(super) fn eval<'v>(root: &'v Node, reading: &'v Reading<'v>) -> Result<bool, Stop> {
    let mut evaluation = Evaluation::new(reading);
    evaluation.truth(root)
}

/// The same of an expression that yields a text.
pub(super) fn text<'v>(root: &'v Node, reading: &'v Reading<'v>) -> Result<Cow<'v, str>, Stop> {
    let mut evaluation = Evaluation::new(reading);
    evaluation.text(root)
}

/// How often the query was looked through.
#[cfg(test)]
pub(super) fn look_ups<'v>(root: &'v Node, reading: &'v Reading<'v>) -> usize {
    let mut evaluation = Evaluation::new(reading);
    let _ = evaluation.truth(root);
    evaluation.parameters.len() + evaluation.presences.len()
}

type Looked<T> = Result<T, Stop>;

struct Evaluation<'v> {
    reading: &'v Reading<'v>,
    variables: Vec<Outcome<'v>>,
    /// To find one parameter all of them are looked at, so that is done once for each name.
    parameters: Vec<(&'v str, Looked<Option<Cow<'v, str>>>)>,
    presences: Vec<(&'v str, Looked<bool>)>,
    left: u32,
}

impl<'v> Evaluation<'v> {
    fn new(reading: &'v Reading<'v>) -> Self {
        Self { reading, variables: Vec::new(), parameters: Vec::new(), presences: Vec::new(), left: BUDGET }
    }

    fn spend(&mut self, steps: usize) -> Result<(), Stop> {
        match u32::try_from(steps).ok().and_then(|steps| self.left.checked_sub(steps)) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => {
                // Nothing that goes on after an error is for nothing.
                self.left = 0;
                Stop::failed("it takes too many steps")
            }
        }
    }

    fn spend_on(&mut self, value: &Value<'v>) -> Result<(), Stop> {
        self.spend(value.weight(self.left as usize))
    }

    fn truth(&mut self, node: &'v Node) -> Result<bool, Stop> {
        match self.value(node)? {
            Value::Bool(held) => Ok(held),
            other => Stop::failed(format!("a {} stands where a bool must", other.kind())),
        }
    }

    fn text(&mut self, node: &'v Node) -> Result<Cow<'v, str>, Stop> {
        match self.value(node)? {
            Value::String(text) => {
                self.spend(text.len())?;
                Ok(text)
            }
            other => Stop::failed(format!("a {} stands where a string must", other.kind())),
        }
    }

    fn value(&mut self, node: &'v Node) -> Outcome<'v> {
        self.spend(1)?;
        match node {
            Node::Faulty => Stop::failed("the expression is faulty"),
            Node::Null => Ok(Value::Null),
            Node::Bool(value) => Ok(Value::Bool(*value)),
            Node::Int(value) => Ok(Value::Int(*value)),
            Node::Double(value) => Ok(Value::Double(*value)),
            Node::String(text) => Ok(Value::String(Cow::Borrowed(text))),
            Node::Timestamp(at) => Ok(Value::Timestamp(*at)),
            Node::Duration(length) => Ok(Value::Duration(*length)),
            Node::Fact(fact) => self.fact(*fact),
            Node::Attribute(name, kind) => self.attribute(name, *kind),
            Node::HasAttribute(name) => self.has_attribute(name).map(Value::Bool),
            Node::Header(name) => match self.header(name)? {
                Some(value) => Ok(Value::String(Cow::Borrowed(value))),
                None => {
                    Stop::failed(format!("the request has no header {name:?}; ask {name:?} in request.headers first"))
                }
            },
            Node::HasHeader(name) => self.has_header(name).map(Value::Bool),
            Node::Parameter(name) => match self.parameter(name)? {
                Some(value) => Ok(Value::String(value)),
                None => {
                    Stop::failed(format!("the query has no parameter {name:?}; ask {name:?} in request.query first"))
                }
            },
            Node::HasParameter(name) => self.has_parameter(name).map(Value::Bool),
            Node::Variable(slot) => {
                let most = self.left as usize;
                let weight = self.variables.get(*slot).and_then(|value| Some(value.as_ref().ok()?.weight(most)));
                self.spend(weight.unwrap_or_default())?;
                self.variables.get(*slot).cloned().unwrap_or_else(|| Stop::failed("a variable has no value"))
            }
            Node::Select(of, name) if matches!(**of, Node::Fact(Fact::UserClaims)) => self.claim(name),
            Node::HasField(of, name) if matches!(**of, Node::Fact(Fact::UserClaims)) => {
                self.has_attribute(name).map(Value::Bool)
            }
            Node::Select(of, name) => {
                let of = self.value(of)?;
                of.field(name).map_or_else(|| Stop::failed(format!("there is no {name:?}; ask has(…) first")), Ok)
            }
            Node::HasField(of, name) => match self.value(of)? {
                of if of.is_object() => Ok(Value::Bool(of.field(name).is_some())),
                of => Stop::failed(format!("a {} has no fields", of.kind())),
            },
            Node::Index(of, index) => self.index(of, index),
            Node::List(nodes) => {
                let items: Result<Vec<Value<'v>>, Stop> = nodes.iter().map(|node| self.value(node)).collect();
                items.map(Value::List)
            }
            Node::Not(of) => self.truth(of).map(|held| Value::Bool(!held)),
            Node::Negate(of) => match self.value(of)? {
                Value::Int(value) => value.checked_neg().map_or_else(overflow, |value| Ok(Value::Int(value))),
                Value::Double(value) => Ok(Value::Double(-value)),
                Value::Duration(value) => value.checked_neg().map_or_else(overflow, |value| Ok(Value::Duration(value))),
                other => Stop::failed(format!("a {} cannot be negated", other.kind())),
            },
            Node::And(left, right) => self.both(left, right).map(Value::Bool),
            Node::Or(left, right) => self.either(left, right).map(Value::Bool),
            Node::Choose(parts) => {
                let [condition, yes, no] = &**parts;
                if self.truth(condition)? { self.value(yes) } else { self.value(no) }
            }
            Node::Equal(left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.equal(&left, &right).map(Value::Bool)
            }
            Node::Compare(order, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.spend_on(&left)?;
                self.spend_on(&right)?;
                match left.compared(&right) {
                    Some(ordering) => Ok(Value::Bool(match order {
                        Order::Less => ordering.is_lt(),
                        Order::LessOrEqual => ordering.is_le(),
                        Order::Greater => ordering.is_gt(),
                        Order::GreaterOrEqual => ordering.is_ge(),
                    })),
                    None => Stop::failed(format!("{} and {} cannot be compared", left.kind(), right.kind())),
                }
            }
            Node::In(wanted, list) => self.is_in(wanted, list).map(Value::Bool),
            Node::Arithmetic(operation, left, right) => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                self.spend_on(&left)?;
                self.spend_on(&right)?;
                arithmetic(*operation, left, right)
            }
            Node::Size(of) => {
                let of = self.value(of)?;
                self.spend_on(&of)?;
                match of.size().and_then(|size| i64::try_from(size).ok()) {
                    Some(size) => Ok(Value::Int(size)),
                    None => Stop::failed(format!("a {} has no size", of.kind())),
                }
            }
            Node::Text(search, text, part) => {
                let (text, part) = (self.text(text)?, self.text(part)?);
                Ok(Value::Bool(match search {
                    Search::Contains => text.contains(&*part),
                    Search::StartsWith => text.starts_with(&*part),
                    Search::EndsWith => text.ends_with(&*part),
                }))
            }
            Node::Matches(text, pattern) => {
                let text = self.text(text)?;
                match pattern.is_match(text.as_bytes()) {
                    Some(matched) => Ok(Value::Bool(matched)),
                    None => Stop::failed("the regex could not be worked out"),
                }
            }
            Node::Lower(text) => Ok(Value::String(Cow::Owned(self.text(text)?.to_ascii_lowercase()))),
            Node::Upper(text) => Ok(Value::String(Cow::Owned(self.text(text)?.to_ascii_uppercase()))),
            Node::ToInt(of) => to_int(self.value(of)?),
            Node::ToDouble(of) => to_double(self.value(of)?),
            Node::ToString(of) => to_string(self.value(of)?),
            Node::ToTimestamp(text) => {
                let text = self.text(text)?;
                super::time::timestamp(&text)
                    .map_or_else(|| Stop::failed("a text is no timestamp"), |at| Ok(Value::Timestamp(at)))
            }
            Node::ToDuration(text) => {
                let text = self.text(text)?;
                super::time::duration(&text)
                    .map_or_else(|| Stop::failed("a text is no duration"), |length| Ok(Value::Duration(length)))
            }
            Node::Part(part, of) => match self.value(of)? {
                Value::Timestamp(at) => {
                    part.of(at).map_or_else(|| Stop::failed("no calendar goes so far"), |value| Ok(Value::Int(value)))
                }
                other => Stop::failed(format!("a {} has no time of day", other.kind())),
            },
            Node::Length(of, unit) => match self.value(of)? {
                Value::Duration(length) => Ok(Value::Int(length / unit)),
                other => Stop::failed(format!("a {} has no length", other.kind())),
            },
            Node::Can(permission) => {
                Ok(Value::Bool(self.reading.roles.can(self.caller()?, permission, self.reading.now)))
            }
            Node::Fold(fold) => self.fold(fold),
            // An error does not stop the loop: a later entry may decide.
            Node::NotStrictlyFalse(of) => Ok(Value::Bool(!matches!(self.value(of), Ok(Value::Bool(false))))),
        }
    }

    fn both(&mut self, left: &'v Node, right: &'v Node) -> Result<bool, Stop> {
        let left = self.truth(left);
        if left == Ok(false) {
            return left;
        }
        match (left, self.truth(right)) {
            (_, Ok(false)) => Ok(false),
            (Ok(_), right) => right,
            (left, Ok(_)) => left,
            (Err(Stop::Unrecorded), _) | (_, Err(Stop::Unrecorded)) => Err(Stop::Unrecorded),
            // An error refuses, whoever may sign in.
            (Err(Stop::Anonymous), Err(right)) => Err(right),
            (left, Err(_)) => left,
        }
    }

    fn either(&mut self, left: &'v Node, right: &'v Node) -> Result<bool, Stop> {
        let left = self.truth(left);
        if left == Ok(true) {
            return left;
        }
        one_of(left, self.truth(right))
    }

    fn index(&mut self, of: &'v Node, index: &'v Node) -> Outcome<'v> {
        // The claims as a whole are looked into, never copied.
        if let Node::Fact(Fact::UserClaims) = of {
            let name = self.text(index)?;
            return self.claim(&name);
        }
        let of = self.value(of)?;
        match self.value(index)? {
            Value::String(name) => {
                of.field(&name).map_or_else(|| Stop::failed(format!("there is no {name:?}; ask has(…) first")), Ok)
            }
            Value::Int(place) => {
                self.spend_on(&of)?;
                let item = of.items().and_then(|items| items.into_iter().nth(usize::try_from(place).ok()?));
                item.map_or_else(|| Stop::failed(format!("there is no entry {place}")), Ok)
            }
            other => Stop::failed(format!("a {} is no index", other.kind())),
        }
    }

    fn is_in(&mut self, wanted: &'v Node, list: &'v Node) -> Result<bool, Stop> {
        let wanted = self.value(wanted)?;
        if let (Node::Fact(Fact::UserClaims), Value::String(name)) = (list, &wanted) {
            return self.has_attribute(name);
        }
        // A list that is written out is not built first.
        if let Node::List(nodes) = list {
            let mut held = Ok(false);
            for node in nodes {
                let is_this = self.value(node).and_then(|item| self.equal(&wanted, &item));
                held = one_of(held, is_this);
                if held == Ok(true) {
                    break;
                }
            }
            return held;
        }
        let list = self.value(list)?;
        match (&list, &wanted) {
            (Value::Strings(texts), Value::String(wanted)) => {
                self.spend(texts.len())?;
                Ok(texts.iter().any(|text| **text == **wanted))
            }
            (list, Value::String(name)) if list.is_object() => Ok(list.field(name).is_some()),
            _ => {
                self.spend_on(&list)?;
                let Some(items) = list.items() else { return Stop::failed(format!("a {} is no list", list.kind())) };
                let mut held = Ok(false);
                for item in &items {
                    held = one_of(held, self.equal(&wanted, item));
                    if held == Ok(true) {
                        break;
                    }
                }
                held
            }
        }
    }

    /// Two types that are only seen here to differ are no plain "not equal" (cel-spec has it so): a text `"true"` where a rule
    /// asks for `true` would pass a deny over without a word.
    fn equal(&mut self, left: &Value<'v>, right: &Value<'v>) -> Result<bool, Stop> {
        self.spend_on(left)?;
        self.spend_on(right)?;
        match left.equals(right) {
            Some(held) => Ok(held),
            None => Stop::failed(format!("a {} and a {} are never equal", left.kind(), right.kind())),
        }
    }

    fn fold(&mut self, fold: &'v Fold) -> Outcome<'v> {
        let over = self.value(&fold.over)?;
        self.spend_on(&over)?;
        let Some(items) = over.items() else { return Stop::failed(format!("a {} is no list", over.kind())) };
        let start = self.value(&fold.start);
        self.set(fold.accumulator, start);
        for item in items {
            if !self.truth(&fold.goes_on)? {
                break;
            }
            self.set(fold.item, Ok(item));
            let next = self.value(&fold.step);
            self.set(fold.accumulator, next);
        }
        self.value(&fold.result)
    }

    fn set(&mut self, slot: usize, value: Outcome<'v>) {
        if self.variables.len() <= slot {
            self.variables.resize(slot + 1, Ok(Value::Null));
        }
        if let Some(place) = self.variables.get_mut(slot) {
            *place = value;
        }
    }
}

/// Whether either holds; an error counts where the other does not hold.
fn one_of(left: Result<bool, Stop>, right: Result<bool, Stop>) -> Result<bool, Stop> {
    match (left, right) {
        (Ok(true), _) | (_, Ok(true)) => Ok(true),
        (Ok(_), right) => right,
        (left, Ok(_)) => left,
        (Err(Stop::Unrecorded), _) | (_, Err(Stop::Unrecorded)) => Err(Stop::Unrecorded),
        (_, Err(Stop::Anonymous)) => Err(Stop::Anonymous),
        (left, Err(_)) => left,
    }
}
