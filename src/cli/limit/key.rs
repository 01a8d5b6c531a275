//! KEY of `postern limit show`, as an operator thinks of it. Parsing alone: `whose` finds out who that is.

use std::{net::IpAddr, str::FromStr};

use http::{HeaderName, HeaderValue};

use crate::core::api_token::ApiTokenId;

/// How tokens themselves begin, which are not to stand in a command line.
const SECRETS: [&str; 2] = ["postern_pat_", "postern_svc_"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Ip(IpAddr),
    /// A proxy that did not say for whom it asked.
    Peer(IpAddr),
    User(String),
    Service(String),
    Session(String),
    Token(ApiTokenId),
    /// `value`: absent where the header is.
    Header {
        name: HeaderName,
        value: Option<HeaderValue>,
    },
    /// What an expression yields.
    Cel(String),
    /// Whatever it may be.
    Plain(String),
}

impl FromStr for Key {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A JWT is three parts of base64, of which the first is `{"`.
        let is_jwt = text.split(['=', ':', ' ']).any(|part| part.starts_with("eyJ") && part.split('.').count() == 3);
        if is_jwt || SECRETS.iter().any(|secret| text.contains(secret)) {
            // The text is not repeated.
            return Err("this is a token itself, which others on this machine may have seen now: give its id, as `postern token list` shows it".to_owned());
        }
        let (kind, rest) = text.split_once(':').unwrap_or(("", text));
        let some = |rest: &str| match rest {
            "" => Err(format!("{kind:?} needs something behind the colon")),
            rest => Ok(rest.to_owned()),
        };
        Ok(match kind {
            "ip" => Self::Ip(address(rest)?),
            "peer" => Self::Peer(address(rest)?),
            "user" => Self::User(some(rest)?),
            "client" => Self::Service(some(rest)?),
            "session" => Self::Session(some(rest)?),
            "token" => Self::Token(ApiTokenId(some(rest)?)),
            "header" => {
                let (name, value) = match rest.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (rest, None),
                };
                let value = value.map(HeaderValue::try_from).transpose();
                Self::Header {
                    name: HeaderName::try_from(name).map_err(|_| format!("{name:?} is not the name of a header"))?,
                    value: value.map_err(|_| "the value cannot stand in a header".to_owned())?,
                }
            }
            "cel" => Self::Cel(rest.to_owned()),
            _ if text.is_empty() => return Err("name somebody: an address, a user, a session".to_owned()),
            _ => Self::Plain(text.to_owned()),
        })
    }
}

fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no IP address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_says_what_it_is_and_without_one_it_may_be_anything() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let header = |name: &'static str, value: Option<&'static str>| Key::Header {
            name: HeaderName::from_static(name),
            value: value.map(HeaderValue::from_static),
        };
        let plain = |text: &str| Key::Plain(text.to_owned());
        for (text, key) in [
            ("ip:203.0.113.7", Key::Ip(ip("203.0.113.7"))),
            ("ip:2001:db8::1", Key::Ip(ip("2001:db8::1"))),
            ("peer:10.0.0.1", Key::Peer(ip("10.0.0.1"))),
            ("user:alice", Key::User("alice".to_owned())),
            ("user:idp:alice", Key::User("idp:alice".to_owned())),
            ("client:ci", Key::Service("ci".to_owned())),
            ("session:abc", Key::Session("abc".to_owned())),
            ("token:0123456789abcdef0123", Key::Token(ApiTokenId("0123456789abcdef0123".to_owned()))),
            ("header:X-Tenant=acme=1", header("x-tenant", Some("acme=1"))),
            ("header:X-Tenant=", header("x-tenant", Some(""))),
            ("header:X-Tenant", header("x-tenant", None)),
            ("cel:alice/GET", Key::Cel("alice/GET".to_owned())),
            ("cel:", Key::Cel(String::new())),
            ("alice", plain("alice")),
            ("203.0.113.7", plain("203.0.113.7")),
            ("2001:db8::1", plain("2001:db8::1")),
            ("acme:alice", plain("acme:alice")),
        ] {
            assert_eq!(text.parse(), Ok(key), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_a_token_is_not_repeated() {
        for (text, told) in [
            ("", "name somebody"),
            ("ip:alice", "is no IP address"),
            ("peer:", "is no IP address"),
            ("ip:203.0.113.0/24", "is no IP address"),
            ("user:", "needs something"),
            ("session:", "needs something"),
            ("header:=a", "not the name of a header"),
            ("header:a b=c", "not the name of a header"),
            ("header:a=\n", "cannot stand in a header"),
            ("postern_pat_abc", "is a token itself"),
            ("token:postern_svc_abc", "is a token itself"),
            ("eyJabc.eyJabc.abc", "is a token itself"),
            ("header:Authorization=Bearer eyJabc.eyJabc.abc", "is a token itself"),
        ] {
            let fault = text.parse::<Key>().unwrap_err();
            assert!(fault.contains(told) && !fault.contains("abc"), "{text}: {fault}");
        }
    }
}
