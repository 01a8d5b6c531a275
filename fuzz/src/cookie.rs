//! Whatever comes as cookies: what is found as ours was sent as ours, none of it goes on to an upstream, nothing of others is lost on the way, and no
//! `Set-Cookie` of an upstream brings about one that would be taken for ours (THREATS 29, 60).
//!
//! An input is lines, each a field `Cookie` of one request; each is also read as a `Set-Cookie` of an upstream, and as a value that we set.

use http::{HeaderMap, HeaderValue, header};
use postern::core::{
    cookie::{PORTAL_COOKIES, SetCookie, sets_ours, values, without_ours},
    site::SameSite,
};

const SESSION: &str = "postern_session";

/// How many cookies of ours were found.
pub(crate) fn run(input: &[u8]) -> usize {
    let ours: Vec<String> = [SESSION].into_iter().chain(PORTAL_COOKIES).map(str::to_owned).collect();
    let fields: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let mut headers = HeaderMap::new();
    for field in &fields {
        if let Ok(value) = HeaderValue::from_bytes(field) {
            set_by_upstream(&value, &ours);
            headers.append(header::COOKIE, value);
        }
        if let Ok(text) = str::from_utf8(field) {
            set_by_us(text);
        }
    }
    goes_on(&headers, &ours);
    ours.iter().map(|name| found(&headers, name)).sum()
}

fn found(headers: &HeaderMap, name: &str) -> usize {
    let mut count = 0;
    for value in values(headers, name) {
        assert!(!value.contains(';') && value.trim_ascii() == value, "{value:?}");
        assert!(pairs(headers).any(|(_, sent)| sent == value.as_bytes()), "{value:?} was never sent");
        count += 1;
    }
    count
}

/// What an upstream gets.
fn goes_on(headers: &HeaderMap, ours: &[String]) {
    let rest = without_ours(headers, ours);
    let mut kept = HeaderMap::new();
    if let Some(rest) = &rest {
        kept.append(header::COOKIE, rest.clone());
    }
    assert_eq!(without_ours(&kept, ours), rest, "once more takes nothing more");
    for name in ours {
        assert_eq!(values(&kept, name).count(), 0, "{rest:?}");
    }
    for (name, _) in pairs(&kept) {
        // As an application reads it that cares for no case.
        let name = name.to_ascii_lowercase();
        assert!(ours.iter().all(|own| own.to_ascii_lowercase().as_bytes() != name), "{rest:?}");
    }
    // What does not even contain one of our names is there, in the same order.
    let is_others = |pair: &&[u8]| {
        let pair = pair.to_ascii_lowercase();
        !pair.is_empty() && !ours.iter().any(|own| contains(&pair, own.to_ascii_lowercase().as_bytes()))
    };
    let mut left = raw(&kept).into_iter();
    for pair in raw(headers).into_iter().filter(is_others) {
        assert!(left.any(|kept| kept == pair), "{:?} is lost", String::from_utf8_lossy(pair));
    }
}

/// A browser keeps it and sends it again (RFC 6265bis, sections 5.6 and 5.8.3).
fn set_by_upstream(set_cookie: &HeaderValue, ours: &[String]) {
    let pair = set_cookie.as_bytes().split(|byte| *byte == b';').next().unwrap_or_default();
    let (name, value) = match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (&pair[..at], &pair[at + 1..]),
        None => (&pair[..0], pair),
    };
    let (name, value) = (blanks_cut(name), blanks_cut(value));
    let sent = if name.is_empty() { value.to_vec() } else { [name, b"=", value].concat() };
    let mut headers = HeaderMap::new();
    if let Ok(sent) = HeaderValue::from_bytes(&sent) {
        headers.append(header::COOKIE, sent);
    }
    if ours.iter().any(|name| values(&headers, name).next().is_some()) {
        assert!(sets_ours(set_cookie, ours), "{set_cookie:?} comes back as ours");
    }
}

/// Nothing that stands in a value begins an attribute, or a field.
fn set_by_us(value: &str) {
    let cookie =
        SetCookie { name: SESSION, value, domain: "", secure: true, same_site: SameSite::Lax, max_age: Some(60) };
    if let Ok(written) = cookie.header() {
        let parts: Vec<&[u8]> = written.as_bytes().split(|byte| *byte == b';').collect();
        let pair = [SESSION.as_bytes(), b"=", value.as_bytes()].concat();
        let attributes: [&[u8]; 5] = [b" Path=/", b" HttpOnly", b" Secure", b" SameSite=Lax", b" Max-Age=60"];
        assert!(parts[0] == pair && parts[1..] == attributes, "{written:?}");
    }
}

fn raw(headers: &HeaderMap) -> Vec<&[u8]> {
    let fields = headers.get_all(header::COOKIE).iter();
    fields.flat_map(|field| field.as_bytes().split(|byte| *byte == b';')).map(<[u8]>::trim_ascii).collect()
}

fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    raw(headers).into_iter().map(|pair| match pair.iter().position(|byte| *byte == b'=') {
        Some(at) => (pair[..at].trim_ascii(), pair[at + 1..].trim_ascii()),
        None => (pair, &pair[..0]),
    })
}

/// Spaces and tabs, as a browser does.
fn blanks_cut(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
