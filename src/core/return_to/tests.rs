use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::core::{
    policy::{PolicyDraft, RuleSet},
    request::Role,
    route::{HostPattern, Route, RouteTable, Upstream, UpstreamTimeouts},
    session::Lifetimes,
    site::{ListenerSite, PortalSite, SameSite},
    tokens::{SigningAlgorithm, TokenSettings},
};

fn site(mount: Mount, roles: &[Role], domain: &str) -> Site {
    let second = Duration::from_secs(1);
    let upstream = Arc::new(Upstream {
        name: "app".to_owned(),
        servers: Vec::new(),
        timeouts: UpstreamTimeouts { connect: second, read: second, write: second },
    });
    let portal = match &mount {
        Mount::Host { url, .. } => Some(url.clone()),
        Mount::Path(_) => None,
    };
    Site {
        listeners: roles
            .iter()
            .map(|role| ListenerSite {
                role: *role,
                trusted_proxies: Vec::new(),
                authorization_is_apps: false,
                origins: Vec::new(),
                headers: Vec::new(),
                tls: false,
            })
            .collect(),
        portal: PortalSite { mount, title: "Postern".to_owned(), accent: "#0055aa".to_owned(), explain_to: Vec::new() },
        cookies: vec![CookieScope {
            domain: domain.to_owned(),
            name: "postern_session".to_owned(),
            same_site: SameSite::Lax,
            portal,
            default_redirect: None,
        }],
        lifetimes: Lifetimes { idle: second, lifetime: second, remember_me: second },
        routes: RouteTable::new(vec![Route {
            name: "app".to_owned(),
            host: HostPattern::Exact("app.example.com".to_owned()),
            prefix: "/app".to_owned(),
            upstream,
            headers: Vec::new(),
            authorization_is_apps: false,
            encoded_slashes: EncodedSlashes::Reject,
            origins: Vec::new(),
        }]),
        encoded_slashes: EncodedSlashes::Reject,
        upstreams: BTreeMap::new(),
        rules: RuleSet::compile(&PolicyDraft::default()).unwrap().0,
        tokens: TokenSettings {
            issuer: String::new(),
            audience: String::new(),
            access: second,
            trusted_issuers: Vec::new(),
            refresh: second,
            algorithm: SigningAlgorithm::EdDsa,
        },
        hands_over: false,
        tells_new_devices: false,
        knows_devices: false,
        own_cookies: Vec::new(),
    }
}

fn on_a_host(scheme: Scheme, roles: &[Role]) -> Site {
    let url = Url::parse(&format!("{}://auth.example.com", scheme.as_str())).unwrap();
    site(Mount::Host { url, host: "auth.example.com".to_owned(), scheme, base: String::new() }, roles, "example.com")
}

fn below_a_path(roles: &[Role]) -> Site {
    site(Mount::Path("/_postern".to_owned()), roles, "")
}

fn followed(rd: &str, site: &Site, scheme: Scheme, own_origin: &str) -> Option<String> {
    return_to(rd, site, site.cookies.first().unwrap(), scheme, own_origin).map(String::from)
}

/// On a portal of its own, https, with both roles.
fn usually(rd: &str) -> Option<String> {
    followed(rd, &on_a_host(Scheme::Https, &[Role::Edge, Role::ForwardAuth]), Scheme::Https, "https://auth.example.com")
}

#[test]
fn what_is_followed() {
    for rd in [
        "https://app.example.com/",
        "https://example.com/",
        "https://a.b.example.com/a/b?c=d&e=%2F#f",
        "https://app.example.com:8443/a",
        "https://auth.example.com/account",
        "https://app.example.com/a@b?c=d@e",
        "https://app.example.com/?next=https://evil.example/",
        "https://app.example.com/a;b=c",
        "https://app.example.com//a",
    ] {
        assert_eq!(usually(rd).as_deref(), Some(rd));
    }
    for (rd, url) in [
        ("https://app.example.com", "https://app.example.com/"),
        ("HTTPS://APP.Example.com/A", "https://app.example.com/A"),
        ("https://app.example.com:443/", "https://app.example.com/"),
        ("https://%61pp.example.com/", "https://app.example.com/"),
    ] {
        assert_eq!(usually(rd).as_deref(), Some(url));
    }
}

#[test]
fn threat_43_what_leads_elsewhere_is_ignored() {
    for rd in [
        "",
        "/",
        "/app",
        "app",
        "?a",
        "#a",
        "//evil.example",
        "//app.example.com/",
        "///evil.example",
        "/\\evil.example",
        "\\\\evil.example",
        "/%09/evil.example",
        "/\t/evil.example",
        "https:evil.example",
        "https:app.example.com/",
        "https:/app.example.com/",
        "https:///app.example.com/",
        "https:////evil.example/",
        "https:app.example.com/://x",
        "https://",
        "https:///",
        "https://?",
        "https://ok@evil.example/",
        "https://app.example.com@evil.example/",
        "https://evil.example@app.example.com/",
        "https://user:pass@app.example.com/",
        "https://@app.example.com/",
        "https://:@app.example.com/",
        "https://ok.evil.example/",
        "https://example.com.evil.example/",
        "https://evilexample.com/",
        "https://com/",
        "https://example.com%2eevil.example/",
        "https://evil.example%2f.example.com/",
        "https://evil.example%5c.example.com/",
        "https://evil.example%23.example.com/",
        "https://evil.example%00.example.com/",
        "https://evil.example\\.example.com/",
        "https://evil.example\\@app.example.com/",
        "https://evil.example#.example.com/",
        "https://evil.example?.example.com/",
        "https://evil.example/.example.com/",
        "https://evil.example:443@app.example.com/",
        "https://app.example.com:x/",
        "https://app.example.com:99999/",
        "https://[::1]/",
        "https://127.0.0.1/",
        "https://2130706433/",
        " https://app.example.com/",
        "https://app.example.com/ ",
        "\thttps://app.example.com/",
        "https://app.example.com\t/",
        "ht\ntps://app.example.com/",
        "https://app.exa\nmple.com/",
        "https://app.example.com/\r\nSet-Cookie:a=b",
        "https://app.example.com/\0",
        "https://app.example.com/é",
        "https://\u{ff45}xample.com/",
        "https://evil\u{3002}example.com/",
        // What the gate itself would refuse to read.
        "https://app.example.com/a%2fb",
        "https://app.example.com/%5c",
        "https://app.example.com/%00",
        "https://app.example.com/%zz",
        "https://app.example.com/..;/b",
        "https://app.example.com./",
        "https://app.example.com.?",
        "https://example.com.:443/",
    ] {
        assert_eq!(usually(rd), None, "{rd:?}");
    }
}

#[test]
fn threat_44_other_schemes_and_https_to_http_are_ignored() {
    for rd in [
        "javascript:alert(1)",
        "javascript://app.example.com/%0aalert(1)",
        "JavaScript://app.example.com/",
        "data:text/html,a",
        "data://app.example.com/",
        "file://app.example.com/",
        "ftp://app.example.com/",
        "ws://app.example.com/",
        "wss://app.example.com/",
        "blob:https://app.example.com/",
        "view-source:https://app.example.com/",
        "://app.example.com/",
        "http://app.example.com/",
    ] {
        assert_eq!(usually(rd), None, "{rd:?}");
    }
    let on_http = on_a_host(Scheme::Http, &[Role::ForwardAuth]);
    for rd in ["http://app.example.com/", "https://app.example.com/"] {
        assert_eq!(followed(rd, &on_http, Scheme::Http, "http://auth.example.com").as_deref(), Some(rd));
    }
    assert_eq!(followed("ws://app.example.com/", &on_http, Scheme::Http, "http://auth.example.com"), None);
}

#[test]
fn with_edge_listeners_alone_it_must_be_on_a_route_or_the_portal() {
    let edge_only = on_a_host(Scheme::Https, &[Role::Edge, Role::Edge]);
    for (rd, is_followed) in [
        ("https://app.example.com/app", true),
        ("https://app.example.com/app/x?y", true),
        ("https://app.example.com//app", true),
        ("https://app.example.com/application", false),
        ("https://app.example.com/", false),
        ("https://other.example.com/app", false),
        ("https://auth.example.com/", true),
        ("https://auth.example.com/account", true),
    ] {
        let got = followed(rd, &edge_only, Scheme::Https, "https://auth.example.com");
        assert_eq!(got.is_some(), is_followed, "{rd:?}");
        assert!(usually(rd).is_some(), "with another proxy in front nobody knows its routes: {rd:?}");
    }
}

#[test]
fn below_a_path_only_the_own_origin_counts() {
    let both = below_a_path(&[Role::Edge, Role::ForwardAuth]);
    for (rd, own_origin, is_followed) in [
        ("https://app.example.com/app", "https://app.example.com", true),
        ("https://app.example.com:443/app", "https://app.example.com", true),
        ("https://app.example.com:8443/app", "https://app.example.com:8443", true),
        ("https://app.example.com:8443/app", "https://app.example.com", false),
        ("https://app.example.com/app", "https://app.example.com:8443", false),
        ("https://other.example.com/app", "https://app.example.com", false),
        ("https://a.app.example.com/", "https://app.example.com", false),
        ("https://app.example.com.evil.example/", "https://app.example.com", false),
        ("http://app.example.com/app", "https://app.example.com", false),
        ("https://app.example.com/_postern/logout", "https://app.example.com", true),
        ("/app", "https://app.example.com", false),
    ] {
        assert_eq!(followed(rd, &both, Scheme::Https, own_origin).is_some(), is_followed, "{rd:?} on {own_origin}");
    }
    assert!(followed("http://app.example.com/app", &both, Scheme::Http, "http://app.example.com").is_some());
    let edge_only = below_a_path(&[Role::Edge]);
    for (rd, is_followed) in [
        ("https://app.example.com/app/x", true),
        ("https://app.example.com/_postern/", true),
        ("https://app.example.com/elsewhere", false),
    ] {
        assert_eq!(followed(rd, &edge_only, Scheme::Https, "https://app.example.com").is_some(), is_followed, "{rd:?}");
    }
}

/// URLs put together from what open redirects are made of.
fn hostile_url() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("https://"),
        Just("http://"),
        Just("https:"),
        Just("javascript:"),
        Just("//"),
        Just("/"),
        Just("\\"),
        Just("@"),
        Just(":"),
        Just("."),
        Just("?"),
        Just("#"),
        Just("%2e"),
        Just("%2f"),
        Just("%00"),
        Just("\t"),
        Just("\n"),
        Just(" "),
        Just("app.example.com"),
        Just("example.com"),
        Just("evil.example"),
        Just("443"),
        Just("a"),
        Just(";"),
        Just("[::1]"),
        Just("é"),
    ];
    proptest::collection::vec(piece, 1..9).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn whatever_comes_the_way_leads_home(rd in prop_oneof![
        hostile_url(),
        hostile_url().prop_map(|url| format!("https://{url}")),
        hostile_url().prop_map(|url| format!("https://app.example.com{url}")),
        any::<String>(),
    ]) {
        let on_host = on_a_host(Scheme::Https, &[Role::ForwardAuth]);
        if let Some(url) = followed(&rd, &on_host, Scheme::Https, "https://auth.example.com") {
            let parsed = Url::parse(&url).unwrap();
            prop_assert_eq!(parsed.scheme(), "https");
            prop_assert!(parsed.username().is_empty() && parsed.password().is_none());
            prop_assert!(on_host.cookies[0].covers(parsed.host_str().unwrap()), "{rd:?} gave {url:?}");
        }
        let below = below_a_path(&[Role::ForwardAuth]);
        if let Some(url) = followed(&rd, &below, Scheme::Https, "https://app.example.com") {
            prop_assert!(url.starts_with("https://app.example.com/"), "{rd:?} gave {url:?}");
        }
    }
}
