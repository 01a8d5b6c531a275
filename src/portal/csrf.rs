//! Against requests forged by other sites (CONTRACT 7 "CSRF", THREATS 42): where a request comes from, and the token of a
//! form, bound to a cookie that only the portal's own origin can have set.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, Method, header};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Whether a request that changes something may come from where it says it does. Absent headers pass: programs send none.
pub(super) fn is_own(method: &Method, headers: &HeaderMap, own_origin: &str) -> bool {
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return true;
    }
    let origins_agree = headers.get_all(header::ORIGIN).iter().all(|origin| origin.as_bytes() == own_origin.as_bytes());
    let sites_agree =
        headers.get_all("sec-fetch-site").iter().all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
    origins_agree && sites_agree
}

/// The form token of a pre-session cookie. Not the cookie itself, so that a page that leaks does not leak the cookie.
pub(super) fn form_token(cookie: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(b"postern form token v1\0");
    hash.update(cookie.as_bytes());
    URL_SAFE_NO_PAD.encode(hash.finalize())
}

/// In constant time.
pub(super) fn is_token_of(token: &str, cookie: &str) -> bool {
    form_token(cookie).as_bytes().ct_eq(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_42_only_our_own_origin_may_change_anything() {
        let own = "https://auth.example.com";
        for (origin, site, passes) in [
            (None, None, true),
            (Some(own), None, true),
            (Some(own), Some("same-origin"), true),
            (None, Some("none"), true),
            (Some("https://app.example.com"), None, false),
            (Some("https://auth.example.com:8443"), None, false),
            (Some("http://auth.example.com"), None, false),
            (Some("null"), None, false),
            (None, Some("same-site"), false),
            (None, Some("cross-site"), false),
            (Some(own), Some("cross-site"), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(origin) = origin {
                headers.insert(header::ORIGIN, origin.parse().unwrap());
            }
            if let Some(site) = site {
                headers.insert("sec-fetch-site", site.parse().unwrap());
            }
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert_eq!(is_own(&method, &headers, own), passes, "{method} {origin:?} {site:?}");
            }
            assert!(is_own(&Method::GET, &headers, own));
        }
    }

    #[test]
    fn threat_42_a_token_holds_for_its_cookie_alone() {
        assert!(is_token_of(&form_token("a"), "a"));
        assert!(!is_token_of(&form_token("a"), "b"));
        assert!(!is_token_of("", "a"));
        assert!(!is_token_of("a", "a"));
    }
}
