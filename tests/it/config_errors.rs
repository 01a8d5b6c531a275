//! What `postern check` says of a faulty configuration: every fault at once, each with its place and what to write instead.

use tempfile::TempDir;

use crate::harness::server::{feed, postern, write};

const GOOD: &str = r#"server:
  listeners:
    - { address: "127.0.0.1:8080", serves: edge }
    - { address: "127.0.0.1:9091", serves: forward_auth, trusted_proxies: [127.0.0.1/32] }
portal: { url: "https://auth.example.com" }
session: { cookies: [{ domain: example.com }] }
upstreams:
  app: { servers: ["http://127.0.0.1:3000"] }
routes:
  - { name: app, host: app.example.com, upstream: app }
policies: policies/
"#;

const RULES: &str = "default: deny\nrules:\n  - { domain: app.example.com, policy: one_factor }\n";

/// The lines of `check`, and its exit code.
fn check(config: &str, rules: &str, options: &[&str]) -> (Option<i32>, Vec<String>) {
    let folder = TempDir::new().expect("a temporary folder");
    write(folder.path(), "config/postern.yaml", config);
    write(folder.path(), "policies/access.yaml", rules);
    let arguments = [&["check"], options].concat();
    let output = feed(postern(&arguments).current_dir(folder.path()), "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said.lines().map(str::to_owned).collect())
}

/// Exactly one fault, in `file` at `line`, that says all of `told`.
fn one_fault(config: &str, rules: &str, file: &str, line: usize, told: &[&str]) {
    let (code, lines) = check(config, rules, &[]);
    let all = lines.join("\n");
    assert_eq!(code, Some(1), "{all}");
    let place = format!("{file}:{line}:");
    let faults: Vec<&String> =
        lines.iter().filter(|line| line.contains(".yaml:") && !line.contains("warning")).collect();
    assert_eq!(faults.len(), 1, "one fault, not {}:\n{all}", faults.len());
    assert!(faults[0].contains(&place), "at {place}\n{all}");
    let column = faults[0].split(&place).nth(1).and_then(|rest| rest.split(':').next());
    assert!(column.is_some_and(|column| column.parse::<u32>().is_ok()), "a column: {all}");
    for word in told {
        assert!(faults[0].contains(word), "no {word:?} in {all}");
    }
}

#[test]
fn a_good_configuration_passes() {
    let (code, lines) = check(GOOD, RULES, &[]);
    assert_eq!(code, Some(0), "{lines:?}");
    let (code, lines) = check(GOOD, RULES, &["--strict"]);
    assert_eq!(code, Some(0), "{lines:?}");
}

#[test]
fn a_wrong_key() {
    let config = GOOD
        .replace("upstreams:", "upstreamz:")
        .replace("  - { name: app, host: app.example.com, upstream: app }", "  []");
    one_fault(&config, "default: deny\n", "config/postern.yaml", 7, &["upstreamz", "upstreams"]);
    let config = GOOD.replace("serves: edge }", "serves: edge, tsl: {} }");
    one_fault(&config, RULES, "config/postern.yaml", 3, &["tsl", "tls"]);
}

#[test]
fn an_unknown_upstream() {
    let config = GOOD.replace("upstream: app }", "upstream: ap }");
    one_fault(&config, RULES, "config/postern.yaml", 10, &["ap", "app"]);
}

#[test]
fn a_route_without_upstream() {
    let config = GOOD.replace(", upstream: app }", " }");
    one_fault(&config, RULES, "config/postern.yaml", 10, &["upstream"]);
}

#[test]
fn two_routes_alike() {
    let again = "  - { name: other, host: APP.example.com., path: /, upstream: app }\npolicies:";
    let config = GOOD.replace("policies:", again);
    one_fault(&config, RULES, "config/postern.yaml", 11, &["`app`", "host", "path"]);
}

#[test]
fn an_unknown_network() {
    let rules = "default: deny\nrules:\n  - { domain: app.example.com, policy: one_factor, networks: [ofice] }\n";
    one_fault(GOOD, rules, "policies/access.yaml", 3, &["ofice", "networks"]);
}

#[test]
fn a_cookie_domain_that_nothing_belongs_to() {
    let config = GOOD.replace(
        "[{ domain: example.com }]",
        "[{ domain: example.com }, { domain: example.org, portal: \"https://auth.example.org\" }]",
    );
    let (code, lines) = check(&config, RULES, &[]);
    assert_eq!(code, Some(0), "a portal of its own belongs to it: {lines:?}");
    let config = GOOD.replace("domain: example.com", "domain: example.org");
    one_fault(&config, RULES, "config/postern.yaml", 6, &["example.org"]);
}

#[test]
fn forward_auth_without_a_trusted_proxy() {
    let config = GOOD.replace(", trusted_proxies: [127.0.0.1/32]", "");
    one_fault(&config, RULES, "config/postern.yaml", 4, &["trusted_proxies"]);
}

#[test]
fn threat_12_an_unanchored_regex() {
    for (rule, told) in [
        ("{ domain: app.example.com, resources: ['/public/'], policy: bypass }", "^"),
        ("{ domain_regex: 'app\\.example\\.com', policy: bypass }", "^"),
        ("{ domain_regex: '^app\\.example\\.com', policy: bypass }", "$"),
    ] {
        one_fault(GOOD, &format!("default: deny\nrules:\n  - {rule}\n"), "policies/access.yaml", 3, &[told]);
    }
}

#[test]
fn a_bypass_with_a_subject() {
    let rules = "default: deny\nrules:\n  - { domain: app.example.com, policy: bypass, subject: 'user:bob' }\n";
    one_fault(GOOD, rules, "policies/access.yaml", 3, &["bypass", "subject"]);
}

#[test]
fn a_cookie_domain_that_is_no_domain() {
    for (domain, told) in [("com", "public suffix"), ("192.0.2.1", "address"), ("co.uk", "public suffix")] {
        let config = GOOD.replace("domain: example.com", &format!("domain: {domain}"));
        let (code, lines) = check(&config, RULES, &[]);
        assert_eq!(code, Some(1), "{lines:?}");
        assert!(
            lines.iter().any(|line| line.contains("postern.yaml:6:") && line.contains(told)),
            "{domain}: {lines:?}"
        );
    }
    let nested = "[{ domain: example.com }, { domain: sub.example.com, portal: \"https://auth.sub.example.com\" }]";
    let config = GOOD.replace("[{ domain: example.com }]", nested);
    one_fault(&config, RULES, "config/postern.yaml", 6, &["sub.example.com", "example.com"]);
}

#[test]
fn an_http_portal_is_a_warning_but_on_loopback() {
    let config = GOOD.replace("https://auth.example.com", "http://auth.example.com");
    let (code, lines) = check(&config, RULES, &[]);
    assert_eq!(code, Some(0), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("postern.yaml:5:") && line.contains("http")), "{lines:?}");
    assert_eq!(check(&config, RULES, &["--strict"]).0, Some(1));
    let config = GOOD
        .replace("https://auth.example.com", "http://auth.demo.localhost:8080")
        .replace("example.com", "demo.localhost");
    assert_eq!(check(&config, &RULES.replace("example.com", "demo.localhost"), &["--strict"]).0, Some(0));
}

/// As the promise goes: two unknown keys, a wrong type and a dangling upstream are four lines.
#[test]
fn all_faults_are_told_at_once() {
    let config = GOOD
        .replace("serves: edge }", "serves: edge, tsl: {} }")
        .replace("session: {", "session: { idel: 5m,")
        .replace("upstream: app }", "upstream: ap }")
        .replace("portal: {", "portal: { title: [x],");
    let (code, lines) = check(&config, RULES, &[]);
    assert_eq!(code, Some(1));
    let places: Vec<&str> =
        lines.iter().filter_map(|line| line.split("postern.yaml:").nth(1)?.split(':').next()).collect();
    assert_eq!(places, ["3", "5", "6", "10"], "{lines:#?}");
}

#[test]
fn a_file_that_is_no_yaml_names_its_place() {
    let (code, lines) = check("server:\n  listeners: [\n", RULES, &[]);
    assert_eq!(code, Some(1));
    assert!(lines.iter().any(|line| line.contains("config/postern.yaml:")), "{lines:?}");
    let (code, lines) = check(GOOD, "rules: [}\n", &[]);
    assert_eq!(code, Some(1));
    assert!(lines.iter().any(|line| line.contains("policies/access.yaml:1:")), "{lines:?}");
}

#[test]
fn a_missing_file_is_named() {
    let folder = TempDir::new().expect("a temporary folder");
    let output = feed(postern(&["check"]).current_dir(folder.path()), "");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("config/postern.yaml"), "{output:?}");
}
