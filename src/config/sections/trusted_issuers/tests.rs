//! Faults of trusted issuers, what they are without any key said, and the samples of the docs.

use std::fs;

use super::*;
use crate::{
    config::tests::{GOOD, RULES, faults, load_text, told},
    core::issuer::KeySource,
};

#[test]
fn faults_of_trusted_issuers() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (html, empty) = (file("html", "<html>"), file("empty", r#"{"keys":[{"kty":"oct","k":"AA"}]}"#));
    let short = file("short", "hunter2\n");
    let one = |keys: &str| format!("tokens: {{ trusted_issuers: [ {{ issuer: \"https://idp.test\", {keys} }} ] }}");
    let good = "audiences: [postern], jwks: \"https://idp.test/jwks\"";
    let with = |more: &str| one(&format!("{good}, {more}"));
    let two = |left: &str, right: &str| {
        format!("tokens: {{ trusted_issuers: [ {{ issuer: {left}, {good} }}, {{ issuer: {right}, {good} }} ] }}")
    };
    let cases = [
        one("audiences: [], discovery: true"),
        one("audiences: [\"\"], discovery: true"),
        one("discovery: true"),
        one("audiences: [postern]"),
        one("audiences: [postern], discovery: false"),
        with("discovery: true"),
        one("audiences: [postern], jwks: \"http://idp.test/jwks\""),
        one("audiences: [postern], jwks: \"file:///etc/passwd\""),
        one("audiences: [postern], jwks: \"https://user:pw@idp.test/jwks\""),
        one("audiences: [postern], discovery: \"http://10.0.0.1/.well-known/openid-configuration\""),
        "tokens: { trusted_issuers: [ { issuer: idp, audiences: [postern], discovery: true } ] }".to_owned(),
        one("audiences: [postern], jwks_file: /none.json"),
        one(&format!("audiences: [postern], jwks_file: {html}")),
        one(&format!("audiences: [postern], jwks_file: {empty}")),
        one("audiences: [postern], secret: hunter2"),
        one(&format!("audiences: [postern], secret_file: {short}")),
        one("audiences: [postern], secret: 0123456789abcdef0123456789abcdef, algorithms: [HS256, RS256]"),
        with("algorithms: [RS256, HS256]"),
        with("algorithms: []"),
        with("algorithms: [none]"),
        with("algorithms: [rs256]"),
        with("clock_skew: 10m"),
        with("interval: 0s"),
        with("interval: 999ms"),
        with("interval: 13h"),
        with("interval: 13h, refresh: 14h"),
        with("interval: 10m, refresh: 1m"),
        with("refresh: 2d"),
        with("prefix: \" x\""),
        with("prefix: \"a,b\""),
        with("claims: { user: \"\", groups: a..b, roles: [], name: [\"\"] }"),
        with("claims: { factor: { claim: amr, two: [] } }"),
        with("claims: { factor: { claim: amr } }"),
        with("claims: { sub: sub }"),
        two("\"\"", "\"https://auth.example.com\""),
        two("a, prefix: \"x:\"", "a, prefix: \"y:\""),
        two("a, prefix: \"x:\"", "b, prefix: \"X:y\""),
        two("a, prefix: \"x:\"", "b, prefix: \"x:\""),
    ];
    let cases: Vec<String> = cases.iter().map(|case| format!("{case}\n{GOOD}")).collect();
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    let told = told(&cases).replace(&format!("{}/", folder.path().display()), "/").replace(&format!("\n{GOOD}"), "");
    assert!(!faults(cases[14]).contains("hunter2") && !faults(cases[15]).contains("hunter2"), "no secret is told");
    insta::assert_snapshot!(told);
}

#[test]
fn trusted_issuers_as_the_contract_has_them() {
    let text = format!(
        "{GOOD}tokens:\n  trusted_issuers:\n    - {{ issuer: https://idp.example.com, audiences: [postern], jwks: https://idp.example.com/jwks.json }}\n"
    );
    let loaded = load_text(&text, &[RULES]).unwrap();
    let [issuer] = loaded.settings.site.tokens.trusted_issuers.as_slice() else { panic!("one issuer") };
    assert_eq!(issuer.issuer, "https://idp.example.com");
    assert_eq!(issuer.claims, ClaimMapping::default());
    assert_eq!(issuer.clock_skew, Duration::from_secs(30));
    assert!(!issuer.id_tokens);
    assert!(!issuer.algorithms.contains(&JwtAlgorithm::HS256));
    let KeySource::Fetched(address) = &issuer.keys else { panic!("an address") };
    assert_eq!(address.place.to_string(), "https://idp.example.com/jwks.json");
    assert_eq!((address.interval, address.refresh), (Duration::from_secs(60), Duration::from_secs(600)));
    assert!(loaded.warnings.is_empty());

    for pace in ["interval: 1s", "interval: 12h", "interval: 12h, refresh: 12h"] {
        let paced = text.replace("jwks.json }", &format!("jwks.json, {pace} }}"));
        assert_ne!(paced, text);
        assert!(load_text(&paced, &[RULES]).is_ok(), "{pace}");
    }

    let two = text.clone() + "    - { issuer: https://b.test, audiences: [x], discovery: true }\n";
    let loaded = load_text(&two, &[RULES]).unwrap();
    assert!(loaded.warnings.iter().any(|warning| warning.message.contains("give each")), "{:?}", loaded.warnings);
    let secret = text.clone()
        + "    - { issuer: b, audiences: [x], secret: 0123456789abcdef0123456789abcdef, prefix: \"b:\" }\n";
    let loaded = load_text(&secret, &[RULES]).unwrap();
    assert!(!format!("{:?}", loaded.settings).contains("0123456789abcdef"), "a secret shows itself nowhere");
}

/// Also of keys that come over http: whoever answers for a name below `localhost` could be anybody.
#[test]
fn keys_come_over_http_from_this_machine_alone() {
    for (host, is_ours) in [
        ("localhost", true),
        ("127.0.0.9:8080", true),
        ("[::1]", true),
        ("idp.localhost", false),
        ("localhost.example.com", false),
        ("10.0.0.1", false),
    ] {
        for keys in ["jwks", "discovery"] {
            let text = format!(
                "{GOOD}tokens:\n  trusted_issuers:\n    - {{ issuer: idp, audiences: [x], {keys}: \"http://{host}/keys\" }}\n"
            );
            let told = load_text(&text, &[RULES]).err().unwrap_or_default();
            assert_eq!(told.is_empty(), is_ours, "{keys} {host}: {told}");
            assert!(is_ours || told.contains("over plain http"), "{told}");
        }
    }
}

#[test]
fn the_samples_of_issuers_load() {
    let page = include_str!("../../../../docs/jwt.md");
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).filter_map(|after| after.split("```").next()).collect();
    assert_eq!(blocks.len(), 5);
    for block in blocks {
        let issuers = if block.starts_with("tokens:") {
            block.to_owned()
        } else {
            let indented: String = block.lines().map(|line| format!("    {line}\n")).collect();
            format!("tokens:\n  trusted_issuers:\n{indented}")
        };
        let loaded =
            load_text(&format!("{GOOD}{issuers}"), &[RULES]).unwrap_or_else(|faults| panic!("{block}: {faults}"));
        assert_eq!(loaded.settings.site.tokens.trusted_issuers.len(), 1, "{block}");
        assert!(loaded.warnings.is_empty(), "{block}: {:?}", loaded.warnings);
    }
}
