//! What a role learnt about the request that is to be decided: the input of `Gate::check`.

use std::{net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderName, header};

use super::{client_ip::ClientAddress, target::Target};

const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const X_REQUESTED_WITH: HeaderName = HeaderName::from_static("x-requested-with");

/// The two roles of a listener (CONTRACT 1). Label of metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    Edge,
    ForwardAuth,
}

impl Role {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::ForwardAuth => "forward_auth",
        }
    }
}

/// The facts of one request. At the edge they are the request's own; in `forward_auth` they are what a trusted proxy
/// said of it. Both roles build it, nobody else.
#[derive(Debug)]
pub struct Facts<'r> {
    pub role: Role,
    /// When the request was read, by the monotonic clock.
    pub began: Duration,
    /// Index of the listener in `Site::listeners`.
    pub listener: usize,
    pub target: Target,
    /// As it came: never upper-cased (THREATS 56).
    pub method: &'r str,
    /// The headers of the request that carries the credentials (`Cookie`, `Authorization`, `Origin`, `Sec-Fetch-*` …).
    pub headers: &'r HeaderMap,
    /// The other end of the connection.
    pub peer: IpAddr,
    pub peer_trusted: bool,
    pub client: ClientAddress,
    /// Name of the header read for credentials, first match wins (`Proxy-Authorization` before `Authorization` in `forward_auth`).
    pub credentials_from: &'static [http::HeaderName],
}

impl Facts<'_> {
    /// A WebSocket handshake. Never a page load, and a session counts only from a known origin.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        is_websocket(self.headers)
    }

    /// A CORS preflight (Fetch standard §4.8): decided like any request, never redirected.
    #[must_use]
    pub fn is_preflight(&self) -> bool {
        self.method == "OPTIONS"
            && self.headers.contains_key(header::ORIGIN)
            && self.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
    }

    /// Whether a person's browser is loading a page, so that a redirect or a page is of use (CONTRACT 5).
    #[must_use]
    pub fn is_page_load(&self) -> bool {
        is_page_load(self.headers)
    }
}

/// A token of upper-case letters (`GET`, not `get`; CONTRACT 5).
#[must_use]
pub fn is_method(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_uppercase())
}

/// A handshake of RFC 6455 §4.1. One that began on HTTP/2 has no key (RFC 8441 §5), and some proxies (HAProxy) ask about it before
/// they make one up, but always a version.
#[must_use]
pub fn is_websocket(headers: &HeaderMap) -> bool {
    headers.contains_key(header::SEC_WEBSOCKET_KEY) || headers.contains_key(header::SEC_WEBSOCKET_VERSION)
}

/// See [`Facts::is_page_load`].
#[must_use]
pub fn is_page_load(headers: &HeaderMap) -> bool {
    if is_websocket(headers) {
        return false;
    }
    if let Some(mode) = headers.get(SEC_FETCH_MODE) {
        return mode.as_bytes() == b"navigate";
    }
    if headers.get(X_REQUESTED_WITH).is_some_and(|by| by.as_bytes().eq_ignore_ascii_case(b"XMLHttpRequest")) {
        return false;
    }
    let mut entries = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|entry| entry.split(';').next().unwrap_or_default().trim())
        .enumerate();
    entries.any(|(place, entry)| entry.eq_ignore_ascii_case("text/html") || (place == 0 && entry == "*/*"))
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn headers_of(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn page_loads() {
        for (pairs, expected) in [
            (&[] as &[(&str, &str)], false),
            (&[("sec-fetch-mode", "navigate")], true),
            (&[("sec-fetch-mode", "navigate"), ("accept", "application/json")], true),
            (&[("sec-fetch-mode", "navigate"), ("x-requested-with", "XMLHttpRequest")], true),
            (&[("sec-fetch-mode", "cors"), ("accept", "text/html")], false),
            (&[("sec-fetch-mode", "no-cors"), ("accept", "*/*")], false),
            (&[("sec-fetch-mode", ""), ("accept", "text/html")], false),
            (&[("sec-fetch-mode", "websocket"), ("accept", "text/html")], false),
            (&[("accept", "text/html")], true),
            (&[("accept", "text/html,application/xhtml+xml,*/*;q=0.8")], true),
            (&[("accept", "application/json, text/html")], true),
            (&[("accept", "TEXT/HTML")], true),
            (&[("accept", "application/json, text/html;q=0")], true),
            (&[("accept", "application/json"), ("accept", "text/html")], true),
            (&[("accept", "*/*")], true),
            (&[("accept", "*/*;q=0.1")], true),
            (&[("accept", "*/*, application/json")], true),
            (&[("accept", "application/json, */*")], false),
            (&[("accept", "application/json"), ("accept", "*/*")], false),
            (&[("accept", "application/json")], false),
            (&[("accept", "text/*")], false),
            (&[("accept", "text/htmlx, xtext/html")], false),
            (&[("accept", "text/plain;a=text/html")], false),
            (&[("accept", "")], false),
            (&[("accept", "text/html"), ("x-requested-with", "XMLHttpRequest")], false),
            (&[("accept", "text/html"), ("x-requested-with", "xmlhttprequest")], false),
            (&[("accept", "text/html"), ("x-requested-with", "com.example.app")], true),
            (&[("accept", "text/html"), ("sec-websocket-key", "a")], false),
            (&[("sec-fetch-mode", "navigate"), ("sec-websocket-key", "a")], false),
        ] {
            assert_eq!(is_page_load(&headers_of(pairs)), expected, "{pairs:?}");
        }
    }
}
