use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::core::{
    client_ip::ClientAddress, request::Role, site::PROXY_AUTHORIZATION_FIRST, target::Target, verdict::Rejection,
};

const ALL: [Dialect; 5] =
    [Dialect::Edge, Dialect::ForwardAuth, Dialect::AuthRequest, Dialect::ExtAuthz, Dialect::Legacy];
const PAGE: &[(&str, &str)] = &[("sec-fetch-mode", "navigate")];
const API: &[(&str, &str)] = &[("accept", "application/json")];
const PREFLIGHT: &[(&str, &str)] =
    &[("accept", "*/*"), ("origin", "https://friend.test"), ("access-control-request-method", "PUT")];
const WEBSOCKET: &[(&str, &str)] = &[("accept", "text/html"), ("sec-websocket-key", "x")];
const LOCATION: &str = "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2Fa%3Fb%3Dc%26d&rm=";

fn with_facts<T>(url: &str, method: &str, pairs: &[(&str, &str)], ask: impl FnOnce(&Facts<'_>) -> T) -> T {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    ask(&Facts {
        role: Role::Edge,
        began: Duration::ZERO,
        listener: 0,
        target: Target::parse_url(url).unwrap(),
        method,
        headers: &headers,
        peer,
        peer_trusted: true,
        client: ClientAddress::Known(peer),
        credentials_from: PROXY_AUTHORIZATION_FIRST,
    })
}

fn portal() -> Url {
    Url::parse("https://auth.example.com").unwrap()
}

fn asked(verdict: &Verdict, method: &str, pairs: &[(&str, &str)], dialect: Dialect) -> Answer {
    with_facts("https://app.example.com/a?b=c&d", method, pairs, |facts| {
        answer(verdict, facts, dialect, Some(&portal()))
    })
}

/// Status, `X-Postern-Status`, and whether there is a `Location`.
fn seen(answer: &Answer) -> (u16, Option<u16>, bool) {
    (answer.status.as_u16(), answer.postern_status, answer.location.is_some())
}

#[test]
fn sign_in_and_step_up() {
    for (method, pairs, meant, location) in [
        ("GET", PAGE, 302, true),
        ("HEAD", PAGE, 302, true),
        ("OPTIONS", PAGE, 302, true),
        ("POST", PAGE, 303, true),
        ("PUT", PAGE, 303, true),
        ("DELETE", PAGE, 303, true),
        ("GET", API, 401, true),
        ("POST", API, 401, true),
        ("GET", &[], 401, true),
        ("GET", WEBSOCKET, 401, true),
        ("OPTIONS", PREFLIGHT, 401, false),
    ] {
        for verdict in [Verdict::SignIn(SignIn::Nobody), Verdict::StepUp] {
            for dialect in ALL {
                let got = asked(&verdict, method, pairs, dialect);
                let expected = if dialect == Dialect::AuthRequest {
                    (401, Some(meant), location)
                } else {
                    (meant, None, location)
                };
                assert_eq!(seen(&got), expected, "{dialect:?} {verdict:?} {method} {pairs:?}");
                assert_eq!((got.challenge, got.retry_after), (None, None));
                assert_eq!(got.location, location.then(|| format!("{LOCATION}{method}")));
            }
        }
    }
}

#[test]
fn without_a_portal_there_is_nowhere_to_go() {
    for (method, pairs) in [("GET", PAGE), ("POST", PAGE), ("GET", API)] {
        for dialect in ALL {
            let got = with_facts("https://app.example.com/", method, pairs, |facts| {
                answer(&Verdict::SignIn(SignIn::Nobody), facts, dialect, None)
            });
            let status = (dialect == Dialect::AuthRequest).then_some(401);
            assert_eq!(seen(&got), (401, status, false), "{dialect:?} {method}");
        }
    }
}

#[test]
fn a_failed_bearer_gets_its_challenge_and_no_redirect() {
    for dialect in ALL {
        for pairs in [PAGE, API, PREFLIGHT] {
            let got = asked(&Verdict::SignIn(SignIn::FailedBearer), "GET", pairs, dialect);
            assert_eq!((got.status.as_u16(), got.location), (401, None), "{dialect:?}");
            assert_eq!(got.challenge, Some("Bearer error=\"invalid_token\""), "{dialect:?}");
        }
    }
}

#[test]
fn a_failed_basic_gets_its_challenge_and_no_redirect() {
    for dialect in ALL {
        for pairs in [PAGE, API, PREFLIGHT] {
            let got = asked(&Verdict::SignIn(SignIn::FailedBasic), "GET", pairs, dialect);
            assert_eq!((got.status.as_u16(), got.location), (401, None), "{dialect:?}");
            assert_eq!(got.challenge, Some("Basic realm=\"Authorization Required\""), "{dialect:?}");
            assert_eq!(got.postern_status, (dialect == Dialect::AuthRequest).then_some(401), "{dialect:?}");
        }
    }
}

/// RFC 6750 §3.1.
#[test]
fn a_token_out_of_scope_is_refused_and_told_why() {
    for dialect in ALL {
        for pairs in [PAGE, API, PREFLIGHT] {
            let got = asked(&Verdict::OutOfScope, "GET", pairs, dialect);
            assert_eq!(seen(&got), (403, None, false), "{dialect:?}");
            assert_eq!(got.challenge, Some("Bearer error=\"insufficient_scope\""), "{dialect:?}");
        }
    }
}

/// As Authelia answers `/api/verify?auth=basic`: programs and the browser's own box wait for a challenge.
#[test]
fn the_legacy_path_asks_for_basic_where_the_proxy_says_so() {
    let asked = |pairs, dialect, portal: Option<&Url>, basic: bool| {
        with_facts("https://app.example.com/", "GET", pairs, |facts| {
            let from = if basic { AUTHORIZATION_ONLY } else { PROXY_AUTHORIZATION_FIRST };
            let facts = Facts { target: facts.target.clone(), credentials_from: from, ..*facts };
            let got = answer(&Verdict::SignIn(SignIn::Nobody), &facts, dialect, portal);
            (got.status.as_u16(), got.location.is_some(), got.challenge.is_some())
        })
    };
    let portal = portal();
    for (pairs, dialect, portal, basic, expected) in [
        (PAGE, Dialect::Legacy, None, true, (401, false, true)),
        (API, Dialect::Legacy, None, true, (401, false, true)),
        (API, Dialect::Legacy, Some(&portal), true, (401, true, true)),
        (PAGE, Dialect::Legacy, Some(&portal), true, (302, true, false)),
        (PAGE, Dialect::Legacy, None, false, (401, false, false)),
        (API, Dialect::Edge, Some(&portal), true, (401, true, false)),
    ] {
        assert_eq!(asked(pairs, dialect, portal, basic), expected, "{dialect:?} {pairs:?} {basic}");
    }
}

#[test]
fn every_other_verdict_in_every_dialect() {
    let slow_down = || Verdict::SlowDown { retry_after: Duration::from_secs(7) };
    let unavailable = || Verdict::Unavailable { store: "sessions" };
    let reject = Verdict::Reject;
    for (verdict, edge, forward_auth, auth_request, ext_authz, legacy) in [
        (Verdict::Refuse, (403, None), (403, None), (403, None), (403, None), (403, None)),
        (slow_down(), (429, None), (429, None), (403, Some(429)), (429, None), (429, None)),
        (unavailable(), (503, None), (503, None), (403, Some(503)), (403, Some(503)), (503, None)),
        (reject(Rejection::Host), (400, None), (400, None), (403, Some(400)), (400, None), (401, None)),
        (reject(Rejection::Path("")), (400, None), (400, None), (403, Some(400)), (400, None), (401, None)),
        (reject(Rejection::Contradiction), (400, None), (400, None), (403, Some(400)), (400, None), (401, None)),
        (reject(Rejection::NoRoute), (404, None), (404, None), (403, Some(404)), (404, None), (401, None)),
        (reject(Rejection::Connect), (405, None), (405, None), (403, Some(405)), (405, None), (401, None)),
        (reject(Rejection::Misdirected), (421, None), (421, None), (403, Some(421)), (421, None), (401, None)),
        (reject(Rejection::ServiceWorker), (403, None), (403, None), (403, Some(403)), (403, None), (401, None)),
        (reject(Rejection::HeadersTooLarge), (431, None), (431, None), (403, Some(431)), (431, None), (401, None)),
    ] {
        let expected = [edge, forward_auth, auth_request, ext_authz, legacy];
        for (dialect, (status, postern_status)) in ALL.into_iter().zip(expected) {
            for pairs in [PAGE, API, PREFLIGHT] {
                let got = asked(&verdict, "GET", pairs, dialect);
                assert_eq!(seen(&got), (status, postern_status, false), "{dialect:?} {verdict:?}");
                assert_eq!(got.retry_after.is_some(), matches!(verdict, Verdict::SlowDown { .. }));
                assert_eq!(got.challenge, None);
                assert_eq!(Answer::about_nothing(&verdict, dialect), got, "it does not matter what was asked for");
            }
        }
    }
}

#[test]
fn no_answer_but_forward_opens_a_gate() {
    for verdict in [
        Verdict::SignIn(SignIn::Nobody),
        Verdict::SignIn(SignIn::FailedBearer),
        Verdict::SignIn(SignIn::FailedBasic),
        Verdict::StepUp,
        Verdict::Refuse,
        Verdict::OutOfScope,
        Verdict::SlowDown { retry_after: Duration::ZERO },
        Verdict::Unavailable { store: "sessions" },
        Verdict::Reject(Rejection::Method),
    ] {
        for dialect in ALL {
            let status = asked(&verdict, "GET", PAGE, dialect).status;
            assert!(!status.is_success() && !Answer::about_nothing(&verdict, dialect).status.is_success());
            if dialect == Dialect::AuthRequest {
                assert!(matches!(status.as_u16(), 401 | 403), "nginx makes 500 of {status}");
            }
            if dialect == Dialect::ExtAuthz {
                assert!(!status.is_server_error(), "Envoy may let {status} through");
            }
        }
    }
}

#[test]
fn where_to_sign_in() {
    for (portal, url, location) in [
        (
            "https://auth.example.com",
            "https://app.example.com/",
            "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2F&rm=GET",
        ),
        (
            "https://example.com/auth",
            "https://app.example.com:8443/a+b?c=%20&d",
            "https://example.com/auth/?rd=https%3A%2F%2Fapp.example.com%3A8443%2Fa%2Bb%3Fc%3D%2520%26d&rm=GET",
        ),
        (
            "https://auth.example.com/?theme=dark",
            "https://app.example.com/",
            "https://auth.example.com/?theme=dark&rd=https%3A%2F%2Fapp.example.com%2F&rm=GET",
        ),
        // Where the portal is on https, a target on http is asked for again as https; not the other way round.
        (
            "https://auth.example.com",
            "http://app.example.com/a",
            "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2Fa&rm=GET",
        ),
        (
            "https://auth.example.com",
            "ws://app.example.com/a",
            "https://auth.example.com/?rd=https%3A%2F%2Fapp.example.com%2Fa&rm=GET",
        ),
        (
            "http://auth.localhost:8080",
            "http://app.localhost:8080/",
            "http://auth.localhost:8080/?rd=http%3A%2F%2Fapp.localhost%3A8080%2F&rm=GET",
        ),
        (
            "http://auth.localhost",
            "https://app.localhost/",
            "http://auth.localhost/?rd=https%3A%2F%2Fapp.localhost%2F&rm=GET",
        ),
    ] {
        let got = with_facts(url, "GET", PAGE, |facts| sign_in_url(&Url::parse(portal).unwrap(), facts));
        assert_eq!(got, location);
    }
}
