//! What an expression reads: of the caller, the request, the session and the route. Nothing here is worked out, and what is not there is
//! an error.

use std::borrow::Cow;

use super::{BYTES_A_STEP, Evaluation, Outcome, Stop};
use crate::core::{
    identity::Identity,
    policy::{
        matcher::Caller,
        query::{self, Told},
        record::{Headers, Parameter, Query, Unreadable, header_value},
        when::{
            environment::{AttributeType, Fact},
            value::Value,
        },
    },
    time::Timestamp,
    user::Attributes,
};

impl<'v> Evaluation<'v> {
    pub(super) fn caller(&self) -> Result<Caller<'v>, Stop> {
        self.reading.caller.ok_or(Stop::Anonymous)
    }

    /// Of somebody in a record only the name, the groups and the sign-in are known.
    pub(super) fn whole_identity(&self) -> Result<&'v Identity, Stop> {
        let caller = self.caller()?;
        match self.reading.query {
            Query::Raw(_) => Ok(caller.identity),
            Query::Recorded(_) => Err(Stop::Unrecorded),
        }
    }

    pub(super) fn attributes(&self) -> Result<&'v Attributes, Stop> {
        self.whole_identity().map(|identity| &identity.attributes)
    }

    pub(super) fn has_attribute(&self, name: &str) -> Result<bool, Stop> {
        Ok(self.attributes()?.contains_key(name))
    }

    pub(super) fn fact(&mut self, fact: Fact) -> Outcome<'v> {
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

    pub(super) fn attribute(&self, name: &str, kind: AttributeType) -> Outcome<'v> {
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

    pub(super) fn claim(&self, name: &str) -> Outcome<'v> {
        match self.attributes()?.get(name) {
            Some(json) => Ok(Value::of(json)),
            None => Stop::failed(format!("the user has no claim {name:?}; ask has(…) first")),
        }
    }

    pub(super) fn header(&mut self, name: &str) -> Result<Option<&'v str>, Stop> {
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

    pub(super) fn has_header(&self, name: &str) -> Result<bool, Stop> {
        match self.reading.headers {
            Headers::Raw(headers) => Ok(headers.is_some_and(|headers| headers.contains_key(name))),
            Headers::Recorded(recorded) => match recorded.get(name) {
                Some(parameters) => Ok(!parameters.contains(&Parameter::Absent)),
                None => Err(Stop::Unrecorded),
            },
        }
    }

    pub(super) fn parameter(&mut self, name: &'v str) -> Result<Option<Cow<'v, str>>, Stop> {
        let known = self.parameters.iter().find(|(known, _)| *known == name).map(|(_, told)| told.clone());
        let told = known.unwrap_or_else(|| {
            let told = told(query::value(self.reading.query, name), name);
            self.parameters.push((name, told.clone()));
            told
        })?;
        self.spend(told.as_deref().unwrap_or_default().len() / BYTES_A_STEP)?;
        Ok(told)
    }

    pub(super) fn has_parameter(&mut self, name: &'v str) -> Result<bool, Stop> {
        let known = self.presences.iter().find(|(known, _)| *known == name).map(|(_, told)| told.clone());
        known.unwrap_or_else(|| {
            let told = told(query::is_present(self.reading.query, name), name);
            self.presences.push((name, told.clone()));
            told
        })
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
