//! Works an expression out. Every step is counted, so that no request can make one take long; nothing here panics, and what cannot
//! be worked out is an error rather than a guess.

use std::borrow::Cow;

use super::{
    environment::{AttributeType, Fact},
    tree::{Fold, Node, Operation, Order, Search},
    value::Value,
};
use crate::core::{
    identity::Identity,
    policy::{
        matcher::{Caller, Reading},
        query::{self, Told},
        record::{Headers, Parameter, Query, Unreadable, header_value},
    },
    time::Timestamp,
    user::Attributes,
};

/// Steps of one evaluation: nodes looked at, entries and characters gone through.
const BUDGET: u32 = 100_000;
/// Bytes of a parameter or a header that cost about as much as a step.
const BYTES_A_STEP: usize = 4;

/// Why an expression has no value. An error on one side of `&&` and `||` counts only where the other side does not decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Stop {
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

    fn caller(&self) -> Result<Caller<'v>, Stop> {
        self.reading.caller.ok_or(Stop::Anonymous)
    }

    /// Of somebody in a record only the name, the groups and the sign-in are known.
    fn whole_identity(&self) -> Result<&'v Identity, Stop> {
        let caller = self.caller()?;
        match self.reading.query {
            Query::Raw(_) => Ok(caller.identity),
            Query::Recorded(_) => Err(Stop::Unrecorded),
        }
    }

    fn attributes(&self) -> Result<&'v Attributes, Stop> {
        self.whole_identity().map(|identity| &identity.attributes)
    }

    fn has_attribute(&self, name: &str) -> Result<bool, Stop> {
        Ok(self.attributes()?.contains_key(name))
    }

    fn fact(&mut self, fact: Fact) -> Outcome<'v> {
        let text = |text: &'v str| Ok(Value::String(Cow::Borrowed(text)));
        let reading = self.reading;
        match fact {
            Fact::UserName => match self.caller()?.client {
                // A client stands for no user.
                Some(_) => text(""),
                None => text(&self.caller()?.identity.user),
            },
            Fact::UserDisplayName => text(&self.whole_identity()?.display_name),
            Fact::UserEmail => text(self.whole_identity()?.email.as_deref().unwrap_or_default()),
            Fact::UserGroups => Ok(Value::Strings(&self.caller()?.identity.groups)),
            Fact::UserRoles => {
                let held = self.reading.roles.of(self.caller()?, reading.now);
                self.spend(held.len())?;
                Ok(Value::List(held.iter().map(|role| Value::String(Cow::Owned(role.to_string()))).collect()))
            }
            Fact::UserLevel => Ok(Value::Int(i64::from(self.reading.roles.level_of(self.caller()?, reading.now)))),
            Fact::UserClaims => Stop::failed("the claims are no value of their own"),
            Fact::RequestHost => text(reading.host),
            Fact::RequestPath => text(reading.path),
            Fact::RequestMethod => text(reading.method),
            Fact::RequestScheme => text(reading.scheme),
            Fact::RequestIp => match reading.address.known() {
                Some(address) => Ok(Value::String(Cow::Owned(address.to_string()))),
                None => Stop::failed("the client's address is unknown"),
            },
            Fact::RequestTime => Ok(Value::Timestamp(reading.now.unix_millis())),
            Fact::SessionFactor => text(self.caller()?.identity.factor.as_str()),
            Fact::SessionSignedInAt => Ok(Value::Timestamp(self.caller()?.identity.signed_in_at.unix_millis())),
            Fact::SessionAge => Ok(Value::Duration(age(self.caller()?.identity.signed_in_at, reading.now))),
            Fact::RouteName => text(reading.route.unwrap_or_default()),
        }
    }

    fn attribute(&self, name: &str, kind: AttributeType) -> Outcome<'v> {
        let Some(json) = self.attributes()?.get(name) else {
            return Stop::failed(format!("the user has no attribute {name:?}; ask has(user.{name}) first"));
        };
        let value = Value::of(json);
        let fits = match kind {
            AttributeType::String => matches!(value, Value::String(_)),
            AttributeType::Int => matches!(value, Value::Int(_)),
            AttributeType::Double => matches!(value, Value::Double(_) | Value::Int(_)),
            AttributeType::Bool => matches!(value, Value::Bool(_)),
            AttributeType::List => json.as_array().is_some_and(|items| items.iter().all(serde_json::Value::is_string)),
        };
        match value {
            #[expect(clippy::cast_precision_loss, reason = "declared as a double")]
            Value::Int(whole) if kind == AttributeType::Double => Ok(Value::Double(whole as f64)),
            value if fits => Ok(value),
            value => {
                Stop::failed(format!("the user's attribute {name:?} is a {}, not what was declared", value.kind()))
            }
        }
    }

    fn claim(&self, name: &str) -> Outcome<'v> {
        match self.attributes()?.get(name) {
            Some(json) => Ok(Value::of(json)),
            None => Stop::failed(format!("the user has no claim {name:?}; ask has(…) first")),
        }
    }

    fn header(&mut self, name: &str) -> Result<Option<&'v str>, Stop> {
        let value = match self.reading.headers {
            Headers::Raw(None) => None,
            Headers::Raw(Some(headers)) => header_value(headers, name).or_else(|why| {
                Stop::failed(match why {
                    Unreadable::NotUtf8 => format!("the header {name:?} is not UTF-8"),
                    Unreadable::Repeated => format!("the request has more than one header {name:?}"),
                })
            })?,
            Headers::Recorded(recorded) => match recorded.get(name).map(Vec::as_slice) {
                Some([Parameter::Absent]) => None,
                Some([Parameter::Value(value)]) => Some(value.as_str()),
                Some([]) => return Stop::failed(format!("the header {name:?} could not be read")),
                _ => return Err(Stop::Unrecorded),
            },
        };
        self.spend(value.unwrap_or_default().len() / BYTES_A_STEP)?;
        Ok(value)
    }

    fn has_header(&self, name: &str) -> Result<bool, Stop> {
        match self.reading.headers {
            Headers::Raw(headers) => Ok(headers.is_some_and(|headers| headers.contains_key(name))),
            Headers::Recorded(recorded) => match recorded.get(name) {
                Some(parameters) => Ok(!parameters.contains(&Parameter::Absent)),
                None => Err(Stop::Unrecorded),
            },
        }
    }

    fn parameter(&mut self, name: &'v str) -> Result<Option<Cow<'v, str>>, Stop> {
        let known = self.parameters.iter().find(|(known, _)| *known == name).map(|(_, told)| told.clone());
        let told = known.unwrap_or_else(|| {
            let told = told(query::value(self.reading.query, name), name);
            self.parameters.push((name, told.clone()));
            told
        })?;
        self.spend(told.as_deref().unwrap_or_default().len() / BYTES_A_STEP)?;
        Ok(told)
    }

    fn has_parameter(&mut self, name: &'v str) -> Result<bool, Stop> {
        let known = self.presences.iter().find(|(known, _)| *known == name).map(|(_, told)| told.clone());
        known.unwrap_or_else(|| {
            let told = told(query::is_present(self.reading.query, name), name);
            self.presences.push((name, told.clone()));
            told
        })
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

fn told<T>(told: Told<T>, name: &str) -> Result<T, Stop> {
    match told {
        Told::Known(value) => Ok(value),
        Told::Ambiguous => {
            Stop::failed(format!("applications read the parameter {name:?} of this query in different ways"))
        }
        Told::Unrecorded => Err(Stop::Unrecorded),
    }
}

/// A sign-in of the future is one of a wrong clock, and how old it is nobody knows: as old as it is far.
fn age(signed_in_at: Timestamp, now: Timestamp) -> i64 {
    let age = now.since(signed_in_at).max(signed_in_at.since(now));
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

fn overflow<'v>() -> Outcome<'v> {
    Stop::failed("a number is too large")
}

fn arithmetic<'v>(operation: Operation, left: Value<'v>, right: Value<'v>) -> Outcome<'v> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => {
            if right == 0 && matches!(operation, Operation::Divide | Operation::Remainder) {
                return Stop::failed("a number is divided by zero");
            }
            let value = match operation {
                Operation::Add => left.checked_add(right),
                Operation::Subtract => left.checked_sub(right),
                Operation::Multiply => left.checked_mul(right),
                Operation::Divide => left.checked_div(right),
                Operation::Remainder => left.checked_rem(right),
            };
            value.map_or_else(overflow, |value| Ok(Value::Int(value)))
        }
        (Value::Double(left), Value::Double(right)) => match operation {
            Operation::Add => Ok(Value::Double(left + right)),
            Operation::Subtract => Ok(Value::Double(left - right)),
            Operation::Multiply => Ok(Value::Double(left * right)),
            Operation::Divide => Ok(Value::Double(left / right)),
            Operation::Remainder => Stop::failed("% is for whole numbers"),
        },
        (Value::String(left), Value::String(right)) if operation == Operation::Add => {
            Ok(Value::String(Cow::Owned(format!("{left}{right}"))))
        }
        (Value::Timestamp(left), Value::Timestamp(right)) if operation == Operation::Subtract => {
            left.checked_sub(right).map_or_else(overflow, |value| Ok(Value::Duration(value)))
        }
        (Value::Timestamp(at), Value::Duration(length)) => match operation {
            Operation::Add => at.checked_add(length).map_or_else(overflow, |value| Ok(Value::Timestamp(value))),
            Operation::Subtract => at.checked_sub(length).map_or_else(overflow, |value| Ok(Value::Timestamp(value))),
            _ => Stop::failed("timestamps are only added to and subtracted from"),
        },
        (Value::Duration(length), Value::Timestamp(at)) if operation == Operation::Add => {
            at.checked_add(length).map_or_else(overflow, |value| Ok(Value::Timestamp(value)))
        }
        (Value::Duration(left), Value::Duration(right)) => match operation {
            Operation::Add => left.checked_add(right).map_or_else(overflow, |value| Ok(Value::Duration(value))),
            Operation::Subtract => left.checked_sub(right).map_or_else(overflow, |value| Ok(Value::Duration(value))),
            _ => Stop::failed("durations are only added and subtracted"),
        },
        (left, right) => match (operation, left.items(), right.items()) {
            (Operation::Add, Some(mut items), Some(more)) => {
                items.extend(more);
                Ok(Value::List(items))
            }
            _ => Stop::failed(format!("{} and {} cannot be reckoned with", left.kind(), right.kind())),
        },
    }
}

fn to_int(value: Value<'_>) -> Outcome<'_> {
    match value {
        Value::Int(whole) => Ok(Value::Int(whole)),
        Value::String(text) => {
            text.parse().map_or_else(|_| Stop::failed("a text is no whole number"), |whole| Ok(Value::Int(whole)))
        }
        #[expect(clippy::cast_possible_truncation, reason = "within the range of 53 bits")]
        Value::Double(real) if real.abs() < 9_007_199_254_740_992.0 => Ok(Value::Int(real as i64)),
        Value::Timestamp(at) => Ok(Value::Int(at.div_euclid(1000))),
        other => Stop::failed(format!("a {} is no whole number", other.kind())),
    }
}

fn to_double(value: Value<'_>) -> Outcome<'_> {
    match value {
        Value::Double(real) => Ok(Value::Double(real)),
        #[expect(clippy::cast_precision_loss, reason = "what a conversion to double is")]
        Value::Int(whole) => Ok(Value::Double(whole as f64)),
        Value::String(text) => {
            text.parse().map_or_else(|_| Stop::failed("a text is no number"), |real| Ok(Value::Double(real)))
        }
        other => Stop::failed(format!("a {} is no number", other.kind())),
    }
}

fn to_string(value: Value<'_>) -> Outcome<'_> {
    let text = match value {
        Value::String(text) => text,
        Value::Int(whole) => Cow::Owned(whole.to_string()),
        Value::Double(real) => Cow::Owned(real.to_string()),
        Value::Bool(held) => Cow::Borrowed(if held { "true" } else { "false" }),
        other => return Stop::failed(format!("a {} is no text", other.kind())),
    };
    Ok(Value::String(text))
}
