//! Whose count a request adds to: the key of a limit.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue};

use super::{Reading, Source};
use crate::core::{
    client_ip::{ClientAddress, bucket_of},
    ground::Ground,
    policy::{
        record::Headers,
        roles::Roles,
        when::{Attributes, Stop, TextExpression, readable_header},
    },
    quota::Quota,
};

#[derive(Debug)]
pub(in crate::core::policy) enum Key {
    Ip,
    User,
    UserOrIp,
    Session,
    Token,
    Header(HeaderName),
    Expression(Box<TextExpression>),
}

/// Why a key cannot be read; each with what to write instead.
pub(in crate::core::policy) struct BadKey(pub(in crate::core::policy) Vec<String>);

/// A key on one request.
pub(super) enum Value {
    /// It is a caller's, and nobody is known.
    Nobody,
    Failed,
    /// What is counted by.
    Of([u8; 16]),
}

impl Key {
    pub(in crate::core::policy) fn parse(
        written: &str,
        attributes: &Attributes,
        roles: &Roles,
    ) -> Result<Self, BadKey> {
        let one = |message: String| BadKey(vec![message]);
        Ok(match written {
            "" => {
                let message =
                    "the key is empty: write ip, user, user_or_ip, session, token, header:NAME or an expression";
                return Err(one(message.to_owned()));
            }
            "ip" => Self::Ip,
            "user" => Self::User,
            "user_or_ip" => Self::UserOrIp,
            "session" => Self::Session,
            "token" => Self::Token,
            _ => match written.strip_prefix("header:") {
                Some(name) => Self::Header(readable_header(name.trim()).map_err(one)?),
                None => {
                    let parsed = TextExpression::parse(written, attributes, roles);
                    Self::Expression(Box::new(parsed.map_err(BadKey)?))
                }
            },
        })
    }

    /// Whether it is known before anybody was asked for.
    pub(in crate::core::policy) fn is_of_arrival(&self) -> bool {
        matches!(self, Self::Ip)
    }

    /// No two kinds of keys share a count.
    pub(super) fn value(&self, quota: &Quota, reading: &Reading<'_>, source: Source<'_>) -> Value {
        match self {
            Self::Ip => address(quota, reading, source),
            Self::User => user(quota, reading),
            Self::UserOrIp => match user(quota, reading) {
                Value::Nobody => address(quota, reading, source),
                known => known,
            },
            Self::Session => session(quota, reading),
            Self::Token => match source.ground {
                Ground::ApiToken(hash) => of(quota, "api_token", &hash.0),
                // A new one every quarter of an hour: counted by itself it would be forgiven as often.
                _ => session(quota, reading),
            },
            // One that is not there counts as an empty one: leaving it out must not open a count of one's own.
            Self::Header(name) => match reading.headers {
                Headers::Raw(headers) => {
                    let lines = headers.into_iter().flat_map(|headers| headers.get_all(name));
                    Value::Of(quota.key("header", lines.map(HeaderValue::as_bytes)))
                }
                Headers::Recorded(_) => Value::Failed,
            },
            Self::Expression(expression) => match expression.value(reading) {
                Ok(text) => of(quota, "expression", text.as_bytes()),
                Err(Stop::Anonymous) => Value::Nobody,
                Err(Stop::Failed(_) | Stop::Unrecorded) => Value::Failed,
            },
        }
    }
}

fn of(quota: &Quota, kind: &str, text: &[u8]) -> Value {
    Value::Of(quota.key(kind, [text]))
}

/// Where nobody can say whose it is, one count for each peer that did not say (THREATS 57).
fn address(quota: &Quota, reading: &Reading<'_>, source: Source<'_>) -> Value {
    let (kind, address) = match reading.address {
        ClientAddress::Known(address) => ("ip", bucket_of(address)),
        ClientAddress::Unknown => ("peer", source.peer.to_canonical()),
    };
    match address {
        IpAddr::V4(address) => of(quota, kind, &address.octets()),
        IpAddr::V6(address) => of(quota, kind, &address.octets()),
    }
}

fn user(quota: &Quota, reading: &Reading<'_>) -> Value {
    match reading.caller {
        None => Value::Nobody,
        // A service account is no person of the same name.
        Some(caller) => {
            let kind = if caller.client.is_some() { "client" } else { "user" };
            of(quota, kind, caller.identity.user.as_bytes())
        }
    }
}

/// Whoever has none (a token of another kind, Basic) is counted as themselves: identified, and so never uncounted.
fn session(quota: &Quota, reading: &Reading<'_>) -> Value {
    match reading.caller.and_then(|caller| caller.identity.session.as_ref()) {
        Some(session) => of(quota, "session", session.as_str().as_bytes()),
        None => user(quota, reading),
    }
}
