//! Cookies: finding ours in a request, taking ours out of what goes to an upstream, taking forged ones out of what an
//! upstream sets, and writing our own (RFC 6265; CONTRACT 7 "Two cookies").

use http::{HeaderMap, HeaderValue, header};

use super::site::SameSite;

/// All values of the cookies named `name`, over every `Cookie` header, in order (HTTP/2 sends several headers).
pub fn values<'h>(headers: &'h HeaderMap, name: &'h str) -> impl Iterator<Item = &'h str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|header| header.as_bytes().split(|byte| *byte == b';'))
        .filter_map(move |pair| {
            let (found, value) = split_pair(pair);
            (found == name.as_bytes()).then_some(value)
        })
        .filter_map(|value| std::str::from_utf8(value).ok())
}

/// The `Cookie` header that may go on: every pair that is not ours, as it came; several headers become one (RFC 9113 §8.2.3).
/// `None`: nothing is left. A cookie that a browser or an application would take for ours by a quirk (white space around the
/// name, another case, a nameless cookie `=postern_session=…`) counts as ours.
#[must_use]
pub fn without_ours(headers: &HeaderMap, ours: &[String]) -> Option<HeaderValue> {
    let mut kept: Vec<u8> = Vec::new();
    for header in headers.get_all(header::COOKIE) {
        for pair in header.as_bytes().split(|byte| *byte == b';') {
            let pair = pair.trim_ascii();
            if pair.is_empty() || is_ours(pair, ours) {
                continue;
            }
            if !kept.is_empty() {
                kept.extend_from_slice(b"; ");
            }
            kept.extend_from_slice(pair);
        }
    }
    if kept.is_empty() { None } else { HeaderValue::from_bytes(&kept).ok() }
}

/// Whether this `Set-Cookie` of an upstream sets one of our names, also by a quirk as above.
#[must_use]
pub fn sets_ours(set_cookie: &HeaderValue, ours: &[String]) -> bool {
    let pair = set_cookie.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    is_ours(pair, ours)
}

/// Browsers send a nameless cookie with the value `a=b` as `a=b` or `=a=b`: leading `=` are passed over.
fn is_ours(pair: &[u8], ours: &[String]) -> bool {
    let mut pair = pair.trim_ascii();
    while let Some(rest) = pair.strip_prefix(b"=") {
        pair = rest.trim_ascii();
    }
    let (name, _) = split_pair(pair);
    ours.iter().any(|own| own.as_bytes().eq_ignore_ascii_case(name))
}

fn split_pair(pair: &[u8]) -> (&[u8], &[u8]) {
    let pair = pair.trim_ascii();
    match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let (name, value) = pair.split_at(at);
            (name.trim_ascii(), value.get(1..).unwrap_or_default().trim_ascii())
        }
        None => (pair, &[]),
    }
}

/// A cookie of ours to be set. `Path=/; HttpOnly` always.
#[derive(Debug, Clone, Copy)]
pub struct SetCookie<'c> {
    pub name: &'c str,
    pub value: &'c str,
    /// Empty: host-only.
    pub domain: &'c str,
    pub secure: bool,
    pub same_site: SameSite,
    /// Seconds; `None`: until the browser closes; `Some(0)`: remove it.
    pub max_age: Option<u64>,
}

impl SetCookie<'_> {
    /// # Errors
    /// A name, value or domain that cannot stand in a header, or holds a `;`, which would begin an attribute.
    pub fn header(&self) -> Result<HeaderValue, http::header::InvalidHeaderValue> {
        if [self.name, self.value, self.domain].iter().any(|part| part.contains(';')) {
            // The error has no constructor; a control character brings it about.
            return HeaderValue::from_bytes(b"\0");
        }
        let mut text = format!("{}={}; Path=/; HttpOnly", self.name, self.value);
        if !self.domain.is_empty() {
            text.push_str("; Domain=");
            text.push_str(self.domain);
        }
        if self.secure {
            text.push_str("; Secure");
        }
        text.push_str(match self.same_site {
            SameSite::Lax => "; SameSite=Lax",
            SameSite::Strict => "; SameSite=Strict",
            SameSite::None => "; SameSite=None",
        });
        if let Some(seconds) = self.max_age {
            text.push_str("; Max-Age=");
            text.push_str(&seconds.to_string());
        }
        HeaderValue::try_from(text)
    }
}

/// Names of all cookies of the portal's own: an upstream neither gets nor sets one of them.
pub const PORTAL_COOKIES: [&str; 8] = [
    portal_cookie(true),
    portal_cookie(false),
    csrf_cookie(true),
    csrf_cookie(false),
    return_cookie(true),
    return_cookie(false),
    device_cookie(true),
    device_cookie(false),
];

/// Bound to a session: opens the account and the API. On http without the prefix, which browsers take only over https.
#[must_use]
pub const fn portal_cookie(secure: bool) -> &'static str {
    if secure { "__Host-postern_portal" } else { "postern_portal" }
}

/// Says which browser it is, whoever signs in there; opens nothing.
#[must_use]
pub const fn device_cookie(secure: bool) -> &'static str {
    if secure { "__Host-postern_device" } else { "postern_device" }
}

/// The pre-session that the tokens of forms are bound to.
#[must_use]
pub const fn csrf_cookie(secure: bool) -> &'static str {
    if secure { "__Host-postern_csrf" } else { "postern_csrf" }
}

/// Counts how often a browser comes back from the same page (THREATS 70).
#[must_use]
pub const fn return_cookie(secure: bool) -> &'static str {
    if secure { "__Host-postern_return" } else { "postern_return" }
}

#[cfg(test)]
mod tests;
