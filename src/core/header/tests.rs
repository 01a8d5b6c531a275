use super::*;
use crate::core::{identity::Factor, time::Timestamp, user::User};

fn templates(names: &[&str]) -> Vec<HeaderTemplate> {
    names.iter().map(|name| HeaderTemplate::parse(name, "{user.name}").unwrap()).collect()
}

fn headers_of(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn bob() -> Identity {
    let user = User {
        display_name: "Böb".to_owned(),
        email: Some("bob@example.com".to_owned()),
        ..User::new("bob", vec!["dev".to_owned(), "ops".to_owned()])
    };
    Identity::new(&user, Factor::One, Timestamp::default(), None).unwrap()
}

/// Every spelling of a name that some application takes for it.
fn spellings(name: &str) -> Vec<String> {
    let mut all = vec![name.to_owned(), name.to_ascii_lowercase(), name.to_ascii_uppercase()];
    all.extend([
        name.replace('-', "_"),
        name.replace('-', "."),
        name.replacen('-', "_", 1),
        name.replacen('-', ".", 1),
    ]);
    all.push(name.to_ascii_uppercase().replace('-', "_"));
    all
}

#[test]
fn threat_22_23_24_names_that_no_client_may_send_on() {
    for name in [
        "Remote-User",
        "Remote-Name",
        "Remote-Email",
        "Remote-Groups",
        "Remote-Anything",
        "Remote-",
        "X-Request-Id",
        "traceparent",
        "tracestate",
        "X-Postern-Assertion",
        "X-Postern-Rule",
        "X-Postern-Status",
        "X-Postern-",
        "Forwarded",
        "X-Real-IP",
        "X-Original-URL",
        "X-Original-Method",
        "X-Original-URI",
        "X-Rewrite-URL",
        "X-HTTP-Method",
        "X-HTTP-Method-Override",
        "X-Method-Override",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Uri",
        "X-Forwarded-Prefix",
        "X-WEBAUTH-USER",
        "Authorization",
    ] {
        for spelling in spellings(name) {
            assert!(is_spoofed(&spelling, &templates(&["x-webauth-user", "authorization"])), "{spelling}");
        }
    }
}

#[test]
fn a_template_whose_name_has_other_separators_is_guarded_too() {
    for spelling in ["x_app.user", "X-App-User", "x-app_user", "X.APP.USER"] {
        assert!(is_spoofed(spelling, &templates(&["x_app.user"])), "{spelling}");
    }
}

#[test]
fn all_other_names_go_on() {
    for name in [
        "",
        "Accept",
        "Authorization",
        "Cookie",
        "Host",
        "Origin",
        "Referer",
        "Remote",
        "RemoteUser",
        "X-Remote-User",
        "X-Requested-With",
        "X-Request-Identity",
        "X-Forwarded",
        "X-Frame-Options",
        "X-Postern",
        "X-WebAuth-User",
        "X-Real-IP-2",
        "X-Method",
        "X-Original",
        "Forwarded-For",
        "Trace-Parent",
        "TE",
        "Transfer-Encoding",
        "Range",
        "Via",
        "X-Api-Key",
        "X",
    ] {
        assert!(!is_spoofed(name, &[]), "{name}");
    }
}

#[test]
fn threat_24_respelled_identity_headers() {
    let templates = templates(&["x-webauth-user", "x_app_user"]);
    for (name, respelled) in [
        ("Remote-User", false),
        ("REMOTE-USER", false),
        ("Remote_User", true),
        ("Remote.User", true),
        ("REMOTE_GROUPS", true),
        ("remote_anything", true),
        ("X_Postern-Rule", true),
        ("X-Postern.Assertion", true),
        ("X-Postern-Rule", false),
        ("X-WebAuth-User", false),
        ("X_WebAuth-User", true),
        ("x.webauth.user", true),
        // A template may be named so; then its name with dashes is the other spelling.
        ("X_App_User", false),
        ("X-App-User", true),
        // Not identity.
        ("X_Forwarded_For", false),
        ("X_Request_Id", false),
        ("x_other", false),
        ("some.thing", false),
    ] {
        assert_eq!(has_respelled(&headers_of(&[("accept", "*/*"), (name, "admin")]), &templates), respelled, "{name}");
    }
    assert!(!has_respelled(&HeaderMap::new(), &templates));
}

#[test]
fn identity_headers_of_a_caller_and_of_nobody() {
    let pairs = |identity: Option<&Identity>| {
        identity_headers(identity).map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
    };
    assert_eq!(
        pairs(Some(&bob())),
        ["remote-user: bob", "remote-name: Böb", "remote-email: bob@example.com", "remote-groups: dev,ops"]
    );
    assert_eq!(pairs(None), ["remote-user: ", "remote-name: ", "remote-email: ", "remote-groups: "]);
}

#[test]
fn templates_are_rendered() {
    let bob = bob();
    for (template, for_bob, for_nobody) in [
        ("{user.name}", Some("bob"), None),
        ("{user.display_name}", Some("Böb"), None),
        ("{user.email}", Some("bob@example.com"), None),
        ("{user.groups}", Some("dev,ops"), None),
        ("u={user.name}; g={user.groups}", Some("u=bob; g=dev,ops"), None),
        ("fixed", Some("fixed"), Some("fixed")),
        ("", Some(""), Some("")),
    ] {
        let template = HeaderTemplate::parse("x-app", template).unwrap();
        let rendered = |identity| {
            render(&template, identity, None).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        assert_eq!(rendered(Some(&bob)).as_deref(), for_bob, "{template:?}");
        assert_eq!(rendered(None).as_deref(), for_nobody, "{template:?}");
    }
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn correlation(pairs: &[(&str, &str)], trusted: bool) -> Correlation {
    Correlation::of(&headers_of(pairs), trusted, std::array::from_fn(|place| u8::try_from(place).unwrap() + 1))
}

fn is_new(correlation: &Correlation) -> bool {
    correlation.traceparent == "00-0102030405060708090a0b0c0d0e0f10-1112131415161718-00"
        && correlation.tracestate.is_none()
}

#[test]
fn without_a_trusted_word_everything_is_new() {
    for (pairs, trusted) in [
        (&[] as &[(&str, &str)], true),
        (&[("traceparent", TRACE), ("tracestate", "a=b"), ("x-request-id", "theirs")], false),
        (&[("tracestate", "a=b")], true),
    ] {
        let made = correlation(pairs, trusted);
        assert!(is_new(&made), "{made:?}");
        assert_eq!(made.request_id(), "191a1b1c1d1e1f202122232425262728");
        assert_eq!(made.trace_id(), "0102030405060708090a0b0c0d0e0f10");
    }
}

#[test]
fn a_trusted_trace_is_continued_with_a_new_parent() {
    for (parent, continued) in [
        (TRACE, "00-4bf92f3577b34da6a3ce929d0e0e4736-1112131415161718-01"),
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-1112131415161718-00",
        ),
        // Flags that version 00 does not know are set to zero (§3.2.2.5); "random" of level 2 stays.
        (
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-1112131415161718-03",
        ),
        // Later versions may be longer.
        (
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-1112131415161718-01",
        ),
        (
            "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future-brings",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-1112131415161718-01",
        ),
    ] {
        let made = correlation(&[("traceparent", parent), ("tracestate", "a=b")], true);
        assert_eq!(made.traceparent, continued, "{parent}");
        assert_eq!(made.tracestate.as_ref().unwrap(), "a=b", "{parent}");
        assert_eq!(made.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }
    let several = correlation(&[("traceparent", TRACE), ("tracestate", "a=b"), ("tracestate", "c=d")], true);
    assert_eq!(several.tracestate.unwrap(), "a=b,c=d", "several headers are one list, in order");
}

#[test]
fn a_trace_that_is_not_well_formed_is_not_continued() {
    for parent in [
        "",
        "00",
        "00-",
        "nonsense",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "0g-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "FF-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00F067AA0BA902B7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e47366-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-extra",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.extra",
        " 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\t",
    ] {
        let made = correlation(&[("traceparent", parent), ("tracestate", "a=b")], true);
        assert!(is_new(&made), "{parent:?} gave {made:?}");
    }
    let twice = correlation(&[("traceparent", TRACE), ("traceparent", TRACE), ("tracestate", "a=b")], true);
    assert!(is_new(&twice), "{twice:?}");
}

#[test]
fn request_ids() {
    let long = "a".repeat(128);
    for id in ["a", "0190e6c8-7c0b-7b7a-a2ce-0b5d6b2f5c11", "A/b+c=:._~", long.as_str()] {
        assert_eq!(correlation(&[("x-request-id", id)], true).request_id(), id);
        assert_ne!(correlation(&[("x-request-id", id)], false).request_id(), id);
    }
    let too_long = "a".repeat(129);
    for id in ["", "a b", "a\"b", "a,b", "a;b", "é", "a\tb", too_long.as_str()] {
        assert_eq!(correlation(&[("x-request-id", id)], true).request_id().len(), 32, "{id:?}");
    }
    assert_eq!(correlation(&[("x-request-id", "a"), ("x-request-id", "a")], true).request_id().len(), 32);
}
