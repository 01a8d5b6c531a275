//! Whose count a request adds to: the key of a limit.

use std::{borrow::Cow, net::IpAddr};

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
    session::{SessionId, TokenHash},
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

/// Whose a count is. No two kinds share one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder<'h> {
    /// Of IPv6 the whole /64.
    Address(IpAddr),
    /// A proxy that did not say for whom it asked.
    Peer(IpAddr),
    User(&'h str),
    /// A service account is no person of the same name.
    Service(&'h str),
    Session(&'h SessionId),
    ApiToken(&'h TokenHash),
    /// `value`: absent where the header is.
    Header {
        name: &'h HeaderName,
        value: Option<&'h [u8]>,
    },
    Expression(&'h str),
}

impl Holder<'_> {
    pub(super) fn key(self, quota: &Quota) -> [u8; 16] {
        let of = |kind: &str, text: &[u8]| quota.key(kind, [text]);
        let of_address = |kind: &str, address: IpAddr| match address {
            IpAddr::V4(address) => of(kind, &address.octets()),
            IpAddr::V6(address) => of(kind, &address.octets()),
        };
        match self {
            Self::Address(address) => of_address("ip", bucket_of(address)),
            Self::Peer(address) => of_address("peer", address.to_canonical()),
            Self::User(name) => of("user", name.as_bytes()),
            Self::Service(name) => of("client", name.as_bytes()),
            Self::Session(id) => of("session", id.as_str().as_bytes()),
            Self::ApiToken(hash) => of("api_token", &hash.0),
            Self::Header { value, .. } => of_header(quota, value.into_iter()),
            Self::Expression(text) => of("expression", text.as_bytes()),
        }
    }
}

/// One that is not there counts as an empty one: leaving it out must not open a count of one's own.
fn of_header<'v>(quota: &Quota, lines: impl Iterator<Item = &'v [u8]>) -> [u8; 16] {
    quota.key("header", lines)
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

    /// As it stands in the file.
    pub(super) fn written(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Ip => "ip",
            Self::User => "user",
            Self::UserOrIp => "user_or_ip",
            Self::Session => "session",
            Self::Token => "token",
            Self::Header(name) => return Cow::Owned(format!("header:{name}")),
            Self::Expression(expression) => expression.written(),
        })
    }

    /// Whether there may be a request that is counted for this one.
    pub(super) fn fits(&self, holder: Holder<'_>) -> bool {
        let is_address = matches!(holder, Holder::Address(_) | Holder::Peer(_));
        let is_caller = matches!(holder, Holder::User(_) | Holder::Service(_));
        let is_session = matches!(holder, Holder::Session(_));
        match self {
            Self::Ip => is_address,
            Self::User => is_caller,
            Self::UserOrIp => is_caller || is_address,
            Self::Session => is_session || is_caller,
            Self::Token => is_session || is_caller || matches!(holder, Holder::ApiToken(_)),
            Self::Header(of) => matches!(holder, Holder::Header { name, .. } if name == of),
            Self::Expression(_) => matches!(holder, Holder::Expression(_)),
        }
    }

    pub(super) fn value(&self, quota: &Quota, reading: &Reading<'_>, source: Source<'_>) -> Value {
        let holder = match self {
            Self::Ip => Some(address(reading, source)),
            Self::User => user(reading),
            Self::UserOrIp => user(reading).or_else(|| Some(address(reading, source))),
            Self::Session => session(reading),
            Self::Token => match source.ground {
                Ground::ApiToken(hash) => Some(Holder::ApiToken(hash)),
                // A new one every quarter of an hour: counted by itself it would be forgiven as often.
                _ => session(reading),
            },
            Self::Header(name) => match reading.headers {
                Headers::Raw(headers) => {
                    let lines = headers.into_iter().flat_map(|headers| headers.get_all(name));
                    return Value::Of(of_header(quota, lines.map(HeaderValue::as_bytes)));
                }
                Headers::Recorded(_) => return Value::Failed,
            },
            Self::Expression(expression) => match expression.value(reading) {
                Ok(text) => return Value::Of(Holder::Expression(&text).key(quota)),
                Err(Stop::Anonymous) => None,
                Err(Stop::Failed(_) | Stop::Unrecorded) => return Value::Failed,
            },
        };
        holder.map_or(Value::Nobody, |holder| Value::Of(holder.key(quota)))
    }
}

/// Where nobody can say whose it is, one count for each peer that did not say (THREATS 57).
fn address(reading: &Reading<'_>, source: Source<'_>) -> Holder<'static> {
    match reading.address {
        ClientAddress::Known(address) => Holder::Address(address),
        ClientAddress::Unknown => Holder::Peer(source.peer),
    }
}

fn user<'r>(reading: &Reading<'r>) -> Option<Holder<'r>> {
    let caller = reading.caller?;
    let name: &str = &caller.identity.user;
    Some(if caller.client.is_some() { Holder::Service(name) } else { Holder::User(name) })
}

/// Whoever has none (a token of another kind, Basic) is counted as themselves: identified, and so never uncounted.
fn session<'r>(reading: &Reading<'r>) -> Option<Holder<'r>> {
    let session = reading.caller.and_then(|caller| caller.identity.session.as_ref());
    session.map(Holder::Session).or_else(|| user(reading))
}
