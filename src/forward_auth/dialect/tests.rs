//! Each dialect's headers, present, absent, doubled, joined and contradicting (CONTRACT 5; THREATS 17, 21, 56, 62, 65).

use http::{HeaderName, HeaderValue, Request, request::Parts};

use super::{credentials, describe, of};
use crate::core::{
    answer::Dialect,
    target::{EncodedSlashes, Scheme},
    verdict::Rejection::{self, Contradiction, Host, Method, Missing, Path, Repeated},
};

/// `name: value` lines on a request for `uri`.
fn request(method: &str, uri: &str, headers: &[&str]) -> Parts {
    let (mut parts, ()) = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
    for line in headers {
        let (name, value) = line.split_once(": ").unwrap();
        let name = HeaderName::try_from(name).unwrap();
        parts.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    parts
}

/// `METHOD URL [portal]`, or why not.
fn described(dialect: Dialect, request: &Parts) -> Result<String, Rejection> {
    let described = describe(dialect, request, Scheme::Http, EncodedSlashes::Reject)?;
    let portal = described.portal.map(|portal| format!(" {portal}")).unwrap_or_default();
    Ok(format!("{} {}{portal}", described.method, described.target.url()))
}

/// The lines of `all` with those of their names replaced that `with` gives; a name without a value takes the line out.
fn changed<'l>(all: &[&'l str], with: &[&'l str]) -> Vec<&'l str> {
    let name = |line: &'l str| line.split(": ").next().unwrap();
    let kept = all.iter().copied().filter(|line| !with.iter().any(|other| name(line) == name(other)));
    kept.chain(with.iter().copied().filter(|line| line.contains(": "))).collect()
}

const PROTO: &str = "x-forwarded-proto";
const HOST: &str = "x-forwarded-host";
const METHOD: &str = "x-forwarded-method";
const URI: &str = "x-forwarded-uri";
const ORIGINAL_URL: &str = "x-original-url";
const ORIGINAL_METHOD: &str = "x-original-method";

#[test]
fn paths_name_dialects_exactly() {
    for (path, dialect) in [
        ("/api/authz/forward-auth", Some(Dialect::ForwardAuth)),
        ("/api/authz/auth-request", Some(Dialect::AuthRequest)),
        ("/api/verify", Some(Dialect::Legacy)),
        ("/api/authz/ext-authz/", Some(Dialect::ExtAuthz)),
        ("/api/authz/ext-authz/a/b", Some(Dialect::ExtAuthz)),
        ("/api/authz/ext-authz//a", Some(Dialect::ExtAuthz)),
        ("/api/authz/ext-authz", None),
        ("/api/authz/ext-authzx/a", None),
        ("/api/authz/forward-auth/", None),
        ("/api/authz/forward-auth/x", None),
        ("/api/authz/Forward-Auth", None),
        ("/api/authz/%66orward-auth", None),
        ("//api/verify", None),
        ("/api/verify/", None),
        ("/", None),
        ("", None),
    ] {
        assert_eq!(of(path), dialect, "{path:?}");
    }
}

#[test]
fn threat_17_21_56_65_forward_auth() {
    const FULL: &[&str] = &[
        "x-forwarded-proto: https",
        "x-forwarded-host: app.example.com",
        "x-forwarded-method: GET",
        "x-forwarded-uri: /a?b=c",
    ];
    let ask = |uri: &str, with: &[&str]| described(Dialect::ForwardAuth, &request("GET", uri, &changed(FULL, with)));
    let plain = |with: &[&str]| ask("/api/authz/forward-auth", with);
    let cases: &[(&[&str], Result<&str, Rejection>)] = &[
        (&[], Ok("GET https://app.example.com/a?b=c")),
        // Missing.
        (&["x-forwarded-proto"], Err(Missing(PROTO))),
        (&["x-forwarded-host"], Err(Missing(HOST))),
        (&["x-forwarded-method"], Err(Missing(METHOD))),
        (&["x-forwarded-uri"], Err(Missing(URI))),
        // Twice, also where both are alike.
        (&["x-forwarded-proto: https", "x-forwarded-proto: https"], Err(Repeated(PROTO))),
        (&["x-forwarded-host: a.example.com", "x-forwarded-host: b.example.com"], Err(Repeated(HOST))),
        (&["x-forwarded-method: GET", "x-forwarded-method: POST"], Err(Repeated(METHOD))),
        (&["x-forwarded-uri: /public/", "x-forwarded-uri: /admin"], Err(Repeated(URI))),
        // Joined into one.
        (&["x-forwarded-proto: https,http"], Err(Repeated(PROTO))),
        (&["x-forwarded-host: a.example.com,b.example.com"], Err(Repeated(HOST))),
        (&["x-forwarded-host: a.example.com, b.example.com"], Err(Repeated(HOST))),
        (&["x-forwarded-method: GET,POST"], Err(Repeated(METHOD))),
        (&["x-forwarded-uri: /public/,/admin"], Err(Repeated(URI))),
        (&["x-forwarded-uri: /public/, /admin"], Err(Repeated(URI))),
        (&["x-forwarded-uri: /public/?x=,/admin"], Err(Repeated(URI))),
        // A comma inside a URL is an ordinary character.
        (&["x-forwarded-uri: /a,b/c?d=e,f"], Ok("GET https://app.example.com/a,b/c?d=e,f")),
        // Not text.
        (&["x-forwarded-host: \u{e9}.example.com"], Err(Repeated(HOST))),
        // Schemes.
        (&["x-forwarded-proto: http"], Ok("GET http://app.example.com/a?b=c")),
        (&["x-forwarded-proto: ws"], Ok("GET http://app.example.com/a?b=c")),
        (&["x-forwarded-proto: wss"], Ok("GET https://app.example.com/a?b=c")),
        (&["x-forwarded-proto: HTTPS"], Ok("GET https://app.example.com/a?b=c")),
        (&["x-forwarded-proto: javascript"], Err(Rejection::Scheme)),
        (&["x-forwarded-proto: ftp"], Err(Rejection::Scheme)),
        (&["x-forwarded-proto: https:"], Err(Rejection::Scheme)),
        (&["x-forwarded-proto: "], Err(Rejection::Scheme)),
        // Methods.
        (&["x-forwarded-method: PROPFIND"], Ok("PROPFIND https://app.example.com/a?b=c")),
        (&["x-forwarded-method: get"], Err(Method)),
        (&["x-forwarded-method: Get"], Err(Method)),
        (&["x-forwarded-method: GET POST"], Err(Method)),
        (&["x-forwarded-method: G3T"], Err(Method)),
        (&["x-forwarded-method: "], Err(Method)),
        // Hosts.
        (&["x-forwarded-host: APP.Example.com.:8443"], Ok("GET https://app.example.com:8443/a?b=c")),
        (&["x-forwarded-host: user@app.example.com"], Err(Host)),
        (&["x-forwarded-host: app.example.com/x"], Err(Host)),
        (&["x-forwarded-host: app.example.com:http"], Err(Host)),
        (&["x-forwarded-host: "], Err(Host)),
        // Targets.
        (&["x-forwarded-uri: /"], Ok("GET https://app.example.com/")),
        (&["x-forwarded-uri: //evil.test/x"], Ok("GET https://app.example.com//evil.test/x")),
        (&["x-forwarded-uri: /?x=/public/../.."], Ok("GET https://app.example.com/?x=/public/../..")),
    ];
    for (with, expected) in cases {
        assert_eq!(plain(with).as_deref(), expected.as_ref().copied(), "{with:?}");
    }
    for uri in [
        "/public/../admin",
        "/public/%2e%2e/admin",
        "/public%2f..%2fadmin",
        "/public/..;/admin",
        "/a\\b",
        "/a%5cb",
        "/a%00",
        "/a%0d%0a",
        "/a%zz",
        "/a b",
        "/a#b",
        "https://app.example.com/a",
        "a",
        "*",
    ] {
        assert!(matches!(plain(&[&format!("x-forwarded-uri: {uri}")]), Err(Path(_))), "{uri}");
    }
    assert_eq!(
        ask("/api/authz/forward-auth?authelia_url=https%3A%2F%2Fauth.example.com%2F&authelia_url=https%3A%2F%2Fx", &[]),
        Ok("GET https://app.example.com/a?b=c https://auth.example.com/".to_owned()),
        "the first counts"
    );
    // The asking request's own method, and what other dialects read, mean nothing.
    let asked =
        request("DELETE", "/api/authz/forward-auth?rd=https://x", &changed(FULL, &["x-original-url: http://b/"]));
    assert_eq!(described(Dialect::ForwardAuth, &asked).as_deref(), Ok("GET https://app.example.com/a?b=c"));
}

#[test]
fn threat_17_21_65_auth_request() {
    const FULL: &[&str] = &["x-original-url: https://app.example.com/a?b=c", "x-original-method: POST"];
    let cases: &[(&[&str], Result<&str, Rejection>)] = &[
        (&[], Ok("POST https://app.example.com/a?b=c")),
        (&["x-original-url"], Err(Missing(ORIGINAL_URL))),
        (&["x-original-method"], Err(Missing(ORIGINAL_METHOD))),
        (
            &["x-original-url: https://a.example.com/", "x-original-url: https://a.example.com/"],
            Err(Repeated(ORIGINAL_URL)),
        ),
        (&["x-original-method: GET", "x-original-method: GET"], Err(Repeated(ORIGINAL_METHOD))),
        (&["x-original-method: GET,POST"], Err(Repeated(ORIGINAL_METHOD))),
        (&["x-original-method: post"], Err(Method)),
        (&["x-original-url: https://app.example.com/a,b?c=d,e"], Ok("POST https://app.example.com/a,b?c=d,e")),
        (
            &["x-original-url: https://app.example.com/public/,https://app.example.com/admin"],
            Err(Repeated(ORIGINAL_URL)),
        ),
        (&["x-original-url: https://app.example.com/public/, HTTP://app.example.com/"], Err(Repeated(ORIGINAL_URL))),
        (&["x-original-url: wss://app.example.com:8443"], Ok("POST https://app.example.com:8443/")),
        (&["x-original-url: https://app.example.com?x=1"], Ok("POST https://app.example.com/?x=1")),
        (&["x-original-url: javascript://app.example.com/"], Err(Rejection::Scheme)),
        (&["x-original-url: //app.example.com/"], Err(Rejection::Scheme)),
        (&["x-original-url: /a"], Err(Rejection::Scheme)),
        (&["x-original-url: "], Err(Rejection::Scheme)),
        (&["x-original-url: https:///a"], Err(Host)),
        (&["x-original-url: https://evil@app.example.com/"], Err(Host)),
        (&["x-original-url: https://app.example.com\\@evil.test/"], Err(Host)),
        // The other way of describing means nothing here.
        (&["x-forwarded-uri: /public", "x-forwarded-method: GET"], Ok("POST https://app.example.com/a?b=c")),
    ];
    for (with, expected) in cases {
        let asked = request("GET", "/api/authz/auth-request", &changed(FULL, with));
        assert_eq!(described(Dialect::AuthRequest, &asked).as_deref(), expected.as_ref().copied(), "{with:?}");
    }
    let with_fragment = request("GET", "/", &changed(FULL, &["x-original-url: https://app.example.com/a#b"]));
    assert!(matches!(described(Dialect::AuthRequest, &with_fragment), Err(Path(_))));
}

#[test]
fn ext_authz_takes_one_prefix_off() {
    let host = "host: app.example.com";
    for (uri, expected) in [
        ("/api/authz/ext-authz/", "GET http://app.example.com/"),
        ("/api/authz/ext-authz//", "GET http://app.example.com/"),
        ("/api/authz/ext-authz/a/b?c=d", "GET http://app.example.com/a/b?c=d"),
        ("/api/authz/ext-authz//a/b?c=d", "GET http://app.example.com/a/b?c=d"),
        ("/api/authz/ext-authz///admin", "GET http://app.example.com//admin"),
        // Exactly one: the rest is the application's.
        ("/api/authz/ext-authz/api/authz/ext-authz/a", "GET http://app.example.com/api/authz/ext-authz/a"),
        ("/api/authz/ext-authz//api/verify", "GET http://app.example.com/api/verify"),
        ("/api/authz/ext-authz/?x=/../y", "GET http://app.example.com/?x=/../y"),
        ("/api/authz/ext-authz/a%20b", "GET http://app.example.com/a%20b"),
    ] {
        assert_eq!(described(Dialect::ExtAuthz, &request("GET", uri, &[host])).as_deref(), Ok(expected), "{uri}");
    }
    for uri in
        ["/api/authz/ext-authz/../verify", "/api/authz/ext-authz//public/%2e%2e/admin", "/api/authz/ext-authz//a%2fb"]
    {
        assert!(matches!(described(Dialect::ExtAuthz, &request("GET", uri, &[host])), Err(Path(_))), "{uri}");
    }
}

#[test]
fn threat_15_17_21_ext_authz() {
    let ask = |method: &str, headers: &[&str]| {
        described(Dialect::ExtAuthz, &request(method, "/api/authz/ext-authz/a", headers))
    };
    let cases: &[(&[&str], Result<&str, Rejection>)] = &[
        (&["host: app.example.com:8443"], Ok("GET http://app.example.com:8443/a")),
        (&["host: app.example.com", "x-forwarded-proto: https"], Ok("GET https://app.example.com/a")),
        (&["host: app.example.com", "x-forwarded-proto: javascript"], Err(Rejection::Scheme)),
        (&["host: app.example.com", "x-forwarded-proto: https,http"], Err(Repeated(PROTO))),
        (&["host: app.example.com", "x-forwarded-proto: https", "x-forwarded-proto: https"], Err(Repeated(PROTO))),
        (&["host: a.example.com", "host: b.example.com"], Err(Host)),
        (&[], Err(Host)),
        // A body's headers and an upgrade were copied along; another's description is none.
        (&["host: app.example.com", "upgrade: websocket", "content-length: 99"], Ok("GET http://app.example.com/a")),
        (
            &["host: app.example.com", "x-forwarded-uri: /public", "x-forwarded-host: evil"],
            Ok("GET http://app.example.com/a"),
        ),
        (
            &["host: app.example.com", "x-authelia-url: https://auth.example.com"],
            Ok("GET http://app.example.com/a https://auth.example.com"),
        ),
    ];
    for (headers, expected) in cases {
        assert_eq!(ask("GET", headers).as_deref(), expected.as_ref().copied(), "{headers:?}");
    }
    assert_eq!(ask("POST", &["host: app.example.com"]).as_deref(), Ok("POST http://app.example.com/a"));
    assert_eq!(ask("post", &["host: app.example.com"]), Err(Method));
    let tls = request("GET", "/api/authz/ext-authz/a", &["host: app.example.com"]);
    assert_eq!(
        describe(Dialect::ExtAuthz, &tls, Scheme::Https, EncodedSlashes::Reject).unwrap().target.url(),
        "https://app.example.com/a"
    );
    // HTTP/2: the authority stands in the target; a Host beside it must be the same.
    let absolute = |host: &[&str]| {
        described(Dialect::ExtAuthz, &request("GET", "http://app.example.com/api/authz/ext-authz/a", host))
    };
    assert_eq!(absolute(&[]).as_deref(), Ok("GET http://app.example.com/a"));
    assert_eq!(absolute(&["host: App.example.com"]).as_deref(), Ok("GET http://app.example.com/a"));
    assert_eq!(absolute(&["host: evil.test"]), Err(Host));
}

#[test]
fn threat_65_legacy_takes_either_description_but_no_contradiction() {
    const FORWARDED: &[&str] = &[
        "x-forwarded-proto: https",
        "x-forwarded-host: app.example.com",
        "x-forwarded-method: POST",
        "x-forwarded-uri: /a?b=c",
    ];
    const ORIGINAL: &[&str] = &["x-original-url: https://app.example.com/a?b=c"];
    let both = |with: &[&'static str]| changed(&[FORWARDED, ORIGINAL].concat(), with);
    let cases: &[(Vec<&str>, Result<&str, Rejection>)] = &[
        (FORWARDED.to_vec(), Ok("POST https://app.example.com/a?b=c")),
        // Older set-ups say no method beside the URL: it is that of the question.
        (ORIGINAL.to_vec(), Ok("GET https://app.example.com/a?b=c")),
        (changed(ORIGINAL, &["x-original-method: PUT"]), Ok("PUT https://app.example.com/a?b=c")),
        (changed(ORIGINAL, &["x-forwarded-method: PUT"]), Ok("PUT https://app.example.com/a?b=c")),
        (both(&[]), Ok("POST https://app.example.com/a?b=c")),
        (both(&["x-original-method: POST"]), Ok("POST https://app.example.com/a?b=c")),
        // What is there beside the URL must agree with it; what is not there does not matter.
        (both(&["x-forwarded-uri"]), Ok("POST https://app.example.com/a?b=c")),
        (changed(ORIGINAL, &["x-forwarded-proto: https"]), Ok("GET https://app.example.com/a?b=c")),
        (changed(ORIGINAL, &["x-forwarded-host: app.example.com:443"]), Ok("GET https://app.example.com/a?b=c")),
        (both(&["x-forwarded-uri: /public"]), Err(Contradiction)),
        (both(&["x-forwarded-uri: /a"]), Err(Contradiction)),
        (both(&["x-forwarded-uri: /a?b=d"]), Err(Contradiction)),
        (both(&["x-forwarded-host: other.example.com"]), Err(Contradiction)),
        (both(&["x-forwarded-host: app.example.com:8443"]), Err(Contradiction)),
        (both(&["x-forwarded-proto: http"]), Err(Contradiction)),
        (both(&["x-original-method: GET"]), Err(Contradiction)),
        (changed(ORIGINAL, &["x-forwarded-uri: /public"]), Err(Contradiction)),
        (changed(ORIGINAL, &["x-forwarded-host: other.example.com"]), Err(Contradiction)),
        (both(&["x-forwarded-uri: /a?b=c", "x-forwarded-uri: /a?b=c"]), Err(Repeated(URI))),
        (both(&["x-forwarded-proto: javascript"]), Err(Rejection::Scheme)),
        (
            both(&["x-original-url: https://app.example.com/", "x-original-url: https://app.example.com/"]),
            Err(Repeated(ORIGINAL_URL)),
        ),
        (changed(FORWARDED, &["x-forwarded-uri"]), Err(Missing(URI))),
        (changed(FORWARDED, &["x-forwarded-host"]), Err(Missing(HOST))),
        (changed(FORWARDED, &["x-forwarded-proto"]), Err(Missing(PROTO))),
        (changed(FORWARDED, &["x-forwarded-method"]), Err(Missing(METHOD))),
        (vec![], Err(Missing(PROTO))),
    ];
    for (headers, expected) in cases {
        let asked = request("GET", "/api/verify", headers);
        assert_eq!(described(Dialect::Legacy, &asked).as_deref(), expected.as_ref().copied(), "{headers:?}");
    }
    for (uri, header, portal) in [
        ("/api/verify?rd=https%3A%2F%2Fauth.example.com", "x: y", " https://auth.example.com"),
        ("/api/verify", "x-authelia-url: https://auth.example.com", " https://auth.example.com"),
        (
            "/api/verify?rd=https://one.example.com",
            "x-authelia-url: https://two.example.com",
            " https://one.example.com",
        ),
        ("/api/verify?authelia_url=https://auth.example.com", "x: y", ""),
    ] {
        let asked = request("GET", uri, &changed(ORIGINAL, &[header]));
        let expected = format!("GET https://app.example.com/a?b=c{portal}");
        assert_eq!(described(Dialect::Legacy, &asked), Ok(expected), "{uri}");
    }
}

#[test]
fn credentials_are_read_where_each_dialect_says() {
    let names = |dialect, uri: &str| -> Vec<&str> {
        credentials(dialect, &request("GET", uri, &[])).iter().map(HeaderName::as_str).collect()
    };
    for dialect in [Dialect::ForwardAuth, Dialect::AuthRequest, Dialect::ExtAuthz] {
        assert_eq!(names(dialect, "/x?auth=basic"), ["proxy-authorization", "authorization"]);
    }
    assert_eq!(names(Dialect::Legacy, "/api/verify"), ["proxy-authorization"]);
    assert_eq!(names(Dialect::Legacy, "/api/verify?auth=cookie"), ["proxy-authorization"]);
    assert_eq!(names(Dialect::Legacy, "/api/verify?rd=x&auth=basic"), ["authorization"]);
}
