//! Arithmetic and conversions: what does not fit is an error, never a wrapped or a lost number.

use std::borrow::Cow;

use super::{Outcome, Stop};
use crate::core::policy::when::{tree::Operation, value::Value};

pub(super) fn overflow<'v>() -> Outcome<'v> {
    Stop::failed("a number is too large")
}

pub(super) fn arithmetic<'v>(operation: Operation, left: Value<'v>, right: Value<'v>) -> Outcome<'v> {
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

pub(super) fn to_int(value: Value<'_>) -> Outcome<'_> {
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

pub(super) fn to_double(value: Value<'_>) -> Outcome<'_> {
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

pub(super) fn to_string(value: Value<'_>) -> Outcome<'_> {
    let text = match value {
        Value::String(text) => text,
        Value::Int(whole) => Cow::Owned(whole.to_string()),
        Value::Double(real) => Cow::Owned(real.to_string()),
        Value::Bool(held) => Cow::Borrowed(if held { "true" } else { "false" }),
        other => return Stop::failed(format!("a {} is no text", other.kind())),
    };
    Ok(Value::String(text))
}
