//! Header hygiene (CONTRACT 6): what is taken out of every request before it goes on, and what is put in.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{
    identity::{Identity, IdentityHeaders},
    route::{HeaderTemplate, TemplatePart},
};

pub const REMOTE_USER: HeaderName = HeaderName::from_static("remote-user");
pub const REMOTE_NAME: HeaderName = HeaderName::from_static("remote-name");
pub const REMOTE_EMAIL: HeaderName = HeaderName::from_static("remote-email");
pub const REMOTE_GROUPS: HeaderName = HeaderName::from_static("remote-groups");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
pub const X_POSTERN_RULE: HeaderName = HeaderName::from_static("x-postern-rule");
pub const X_POSTERN_STATUS: HeaderName = HeaderName::from_static("x-postern-status");
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Names of which a client must never send any spelling on, beside the prefixes of [`is_identity_name`]. Lower case, with dashes.
const OTHERS: [&str; 9] = [
    "x-request-id",
    "traceparent",
    "tracestate",
    "forwarded",
    "x-real-ip",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
];

/// Whether a client must not send this header on: any `Remote-*`, any `X-Postern-*`, `X-Request-Id`, `traceparent`,
/// `tracestate`, `Forwarded`, `X-Real-IP`, `X-Original-*`, `X-Rewrite-URL`, `X-HTTP-Method`, `X-HTTP-Method-Override`, `X-Method-Override`,
/// `X-Forwarded-*`, and the names of `templates`; in any case and with `_` or `.` for `-`. (The last four kinds that we set
/// anew are included: the caller sets them afterwards.)
#[must_use]
pub fn is_spoofed(name: &str, templates: &[HeaderTemplate]) -> bool {
    // Every name on the list begins with one of these letters: most headers of a request end here.
    let may_be = matches!(name.as_bytes().first().map(u8::to_ascii_lowercase), Some(b'r' | b'x' | b't' | b'f'));
    (may_be
        && (is_identity_name(name)
            || begins(name, "x-forwarded-")
            || begins(name, "x-original-")
            || OTHERS.iter().any(|other| same(name, other))))
        || templates.iter().any(|template| same(name, template.name.as_str()))
}

/// An identity header (`Remote-*`, a template's name, `X-Postern-*`) in another spelling than with `-`, such as
/// `Remote_User`: in `forward_auth` this is a rejection (THREATS 24), since the asking proxy would pass it on.
#[must_use]
pub fn has_respelled(headers: &HeaderMap, templates: &[HeaderTemplate]) -> bool {
    // A `HeaderName` is in lower case, so that two of one spelling are equal.
    headers.keys().any(|name| {
        let is_respelled = |byte: u8| !byte.is_ascii_alphanumeric() && byte != b'-';
        (name.as_str().bytes().any(is_respelled) && is_identity_name(name.as_str()))
            || templates.iter().any(|template| same(name.as_str(), template.name.as_str()) && *name != template.name)
    })
}

fn is_identity_name(name: &str) -> bool {
    begins(name, "remote-") || begins(name, "x-postern-")
}

/// Same name, ignoring case and taking whatever is no letter or digit for `-`: many applications take `_` and `.` for it (WSGI,
/// PHP), CGI servers any such character (`Remote!User`).
fn same(name: &str, other: &str) -> bool {
    name.len() == other.len() && begins(name, other)
}

fn begins(name: &str, prefix: &str) -> bool {
    let plain = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_lowercase() } else { b'-' };
    name.len() >= prefix.len() && name.bytes().zip(prefix.bytes()).all(|(one, other)| plain(one) == plain(other))
}

/// The identity headers in order, for a caller or for nobody (empty values).
pub fn identity_headers(identity: Option<&Identity>) -> [(HeaderName, HeaderValue); 4] {
    let empty = || HeaderValue::from_static("");
    let headers = identity.map(|identity| identity.headers());
    [
        (REMOTE_USER, headers.map_or_else(empty, |headers| headers.user.clone())),
        (REMOTE_NAME, headers.map_or_else(empty, |headers| headers.name.clone())),
        (REMOTE_EMAIL, headers.map_or_else(empty, |headers| headers.email.clone())),
        (REMOTE_GROUPS, headers.map_or_else(empty, |headers| headers.groups.clone())),
    ]
}

/// The value of a template for this caller, with the roles as [`Outcome`](super::verdict::Outcome) has them; `None` where it speaks of a
/// user and there is none, or cannot stand in a header.
#[must_use]
pub fn render(template: &HeaderTemplate, identity: Option<&Identity>, roles: Option<&str>) -> Option<HeaderValue> {
    let mut value = Vec::new();
    for part in &template.parts {
        let of_user =
            |pick: fn(&IdentityHeaders) -> &HeaderValue| identity.map(|identity| pick(identity.headers()).as_bytes());
        match part {
            TemplatePart::Text(text) => value.extend_from_slice(text.as_bytes()),
            TemplatePart::UserName => value.extend_from_slice(of_user(|headers| &headers.user)?),
            TemplatePart::UserDisplayName => value.extend_from_slice(of_user(|headers| &headers.name)?),
            TemplatePart::UserEmail => value.extend_from_slice(of_user(|headers| &headers.email)?),
            TemplatePart::UserGroups => value.extend_from_slice(of_user(|headers| &headers.groups)?),
            TemplatePart::UserRoles => value.extend_from_slice(roles?.as_bytes()),
        }
    }
    HeaderValue::from_bytes(&value).ok()
}

/// The request id and trace context that go on (CONTRACT 6): a trusted proxy's are continued where they are well-formed
/// (W3C Trace Context; a request id of 1 to 128 visible ASCII characters without `"` `,` `;`), else new from `random`.
#[derive(Debug, Clone)]
pub struct Correlation {
    pub request_id: HeaderValue,
    pub traceparent: HeaderValue,
    /// Continued only together with the traceparent.
    pub tracestate: Option<HeaderValue>,
}

impl Correlation {
    #[must_use]
    pub fn of(headers: &HeaderMap, peer_trusted: bool, random: [u8; 40]) -> Self {
        let (trace_random, id_random) = random.split_at(24);
        let (trace_id, parent_id) = trace_random.split_at(16);
        let told = |name: &HeaderName| if peer_trusted { only(headers, name) } else { None };
        let request_id = told(&X_REQUEST_ID).filter(|id| is_request_id(id.as_bytes())).cloned().unwrap_or_else(|| {
            let mut text = String::with_capacity(2 * id_random.len());
            push_hex(&mut text, id_random);
            value(text)
        });
        match told(&TRACEPARENT).and_then(|parent| parent.to_str().ok()).and_then(Trace::parse) {
            Some(trace) => Self {
                request_id,
                traceparent: traceparent(|text| text.push_str(trace.trace_id), parent_id, trace.flags),
                tracestate: trace_state(headers),
            },
            None => Self {
                request_id,
                traceparent: traceparent(|text| push_hex(text, trace_id), parent_id, 0),
                tracestate: None,
            },
        }
    }

    /// For logs.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        self.traceparent.to_str().ok().and_then(|parent| parent.get(3..35)).unwrap_or_default()
    }

    /// For logs and pages.
    #[must_use]
    pub fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

/// The parts of a traceparent that go on (W3C Trace Context §3.2).
struct Trace<'t> {
    trace_id: &'t str,
    /// "sampled" and, of level 2, "random"; the others must be zero where they are not understood.
    flags: u8,
}

impl<'t> Trace<'t> {
    fn parse(text: &'t str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace_id, parent_id, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        let well_formed = is_hex(version, 2)
            && version != "ff"
            && (version != "00" || parts.next().is_none())
            && is_hex(trace_id, 32)
            && !is_zero(trace_id)
            && is_hex(parent_id, 16)
            && !is_zero(parent_id)
            && is_hex(flags, 2);
        let flags = u8::from_str_radix(flags, 16).ok()? & 0b11;
        well_formed.then_some(Self { trace_id, flags })
    }
}

/// Several headers are one list, in order (W3C Trace Context §3.3.1).
fn trace_state(headers: &HeaderMap) -> Option<HeaderValue> {
    let lists: Vec<&[u8]> = headers.get_all(TRACESTATE).iter().map(HeaderValue::as_bytes).collect();
    if lists.is_empty() { None } else { HeaderValue::from_bytes(&lists.join(&b',')).ok() }
}

fn is_request_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b',' | b';'))
}

/// The value of a header that came exactly once.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() { None } else { first }
}

/// Written by hand: this runs on every request, and `format!` costs more than the random bytes.
fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| DIGITS.get(usize::from(value)).copied().map_or('0', char::from);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
}

/// `00-<trace id>-<parent id>-<flags>`
fn traceparent(push_trace_id: impl FnOnce(&mut String), parent_id: &[u8], flags: u8) -> HeaderValue {
    let mut text = String::with_capacity(55);
    text.push_str("00-");
    push_trace_id(&mut text);
    text.push('-');
    push_hex(&mut text, parent_id);
    text.push('-');
    push_hex(&mut text, &[flags]);
    value(text)
}

/// Hexadecimal digits and dashes always stand in a header.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests;
