use std::{fs, path::Path};

use super::*;
use crate::core::time::Timestamp;

/// 2026-11-21T12:00:00Z.
const NOW: Timestamp = Timestamp::from_unix_millis(1_795_262_400_000);

/// A folder with a configuration (its `policies` key added) and one file of rules.
fn folder(config: &str, policies: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("policies");
    fs::create_dir(&rules).unwrap();
    for (name, text) in policies {
        fs::write(rules.join(name), text).unwrap();
    }
    // At the end, so that lines and columns of the test's own text stay.
    fs::write(folder.path().join("postern.yaml"), format!("{config}\npolicies: {}\n", rules.display())).unwrap();
    folder
}

pub(super) const RULES: (&str, &str) =
    ("a.yaml", "default: deny\nrules:\n  - { domain: app.example.com, policy: one_factor }\n");

fn environment(name: &str) -> Option<String> {
    (name == "PORTAL").then(|| "https://auth.example.com".to_owned())
}

pub(super) fn load_text(config: &str, policies: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = folder(config, policies);
    let shorter = |faults: &[Fault]| -> String {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        lines.join("\n").replace(&format!("{}/", folder.path().display()), "")
    };
    load_in(&folder.path().join("postern.yaml"), &environment, &|_| Ok(())).map_err(|faults| shorter(&faults.0))
}

/// Every fault line of a configuration with good rules.
pub(super) fn faults(config: &str) -> String {
    load_text(config, &[RULES]).err().unwrap_or_else(|| "no fault".to_owned())
}

pub(super) fn policy_faults(policies: &[(&str, &str)]) -> String {
    load_text("", policies).err().unwrap_or_else(|| "no fault".to_owned())
}

/// A whole configuration, in which each test changes what it is about.
pub(super) const GOOD: &str = r#"portal: { url: "https://auth.example.com" }
session: { cookies: [ { domain: example.com } ] }
upstreams: { app: { servers: ["http://127.0.0.1:3000"] } }
routes:
  - { host: app.example.com, upstream: app }
"#;

#[test]
fn a_file_with_four_faults_prints_four_lines() {
    let text = r#"server:
  drian: 30s
  drain_delay: [5]
portal: { url: "https://auth.example.com", colour: red }
session: { cookies: [ { domain: example.com } ] }
upstreams: { grafana: { servers: ["http://127.0.0.1:3000"] } }
routes:
  - { host: grafana.example.com, upstream: grafna }
"#;
    insta::assert_snapshot!(faults(text));
}

#[test]
fn faults_of_form() {
    let cases = [
        "server: 5",
        "server: { listeners: [ { serves: egde } ] }",
        "server: { listeners: [ { address: 8080, serves: edge } ] }",
        "session: { idle: }",
        "users: { source: fil }",
        "a: 1\na: 2",
        "server: [",
        "- list",
        "tokens: { refresh: 0s, algorithm: HS256 }",
        "upstreams: { app: { servers: [\"http://127.0.0.1:3000\"], health: { interval: 5s } } }",
        "portal: { url: \"${MISSING}\" }",
        "portal: { url: \"${PORTAL\" }",
    ];
    insta::assert_snapshot!(told(&cases));
}

#[test]
fn faults_of_meaning() {
    let cases = [
        "server: { listeners: [ { address: localhost, serves: edge } ] }",
        "server: { listeners: [ { address: \"127.0.0.1:1\", serves: edge }, { address: \"0.0.0.0:1\", serves: edge } ] }",
        "server: { listeners: [ { address: \"127.0.0.1:1\", serves: edge, tls: { certificates: [ { certificate: /none.pem, key: /none.key } ] } } ] }",
        "portal: { url: \"https://auth.example.com\" }\nsession: { cookies: [ { domain: example.com } ] }\nserver: { listeners: [ { address: \"127.0.0.1:1\", serves: forward_auth } ] }",
        "server: { trusted_proxies: [nobody], source_limit: 5, drain: 30 }",
        "server: { trusted_proxies: [nobody], source_limit: lots, drain: \"30\" }",
        "portal: { url: \"https://auth.example.com\", path: /_postern }",
        "portal: { url: \"https://auth.example.com\" }",
        "portal: { path: /_postern }\nsession: { cookies: [ { domain: example.com } ] }",
        "portal: { path: / , accent: red, title: \"\" }",
        "portal: { url: \"https://auth.example.com\", explain_to: [\"group:admins\", admins, \"user:bob\", \"group:\", \"group:a,b\"] }",
        "session: { cookies: [ { domain: example.com } ] }",
        "session: { hand_over: true, idle: 1x }",
        "portal: { path: /_postern }\nsession: { hand_over: true }",
        "portal: { url: \"https://auth.example.com\" }\nsession: { hand_over: true, cookies: [ { domain: example.com } ] }",
        "portal: { url: \"https://auth.example.com\" }\nsession: { hand_over: true, cookies: [ { domain: example.com }, { domain: example.net, portal: \"https://auth.example.net\", same_site: strict } ] }",
        "storage: { database: \"postgres://u:hunter2@db\", sessions: \"redis://:hunter2@r\" }",
        "storage: { database: \"postgres://u:hun?ter2@db/x\" }",
        "storage: { database_file: /none/database-url }",
        "storage: { database: \"sqlite://a.db\", database_file: /none/database-url }",
        "storage: { database: \"mysql://u:hunter2@db/x\" }",
        "users: { source: file }",
        "users: { source: file, path: /none.yaml }",
        "log: { level: loud }",
        "encoded_slashes: strictest",
        "upstreams: { app: { servers: [] } }",
        "upstreams: { app: { servers: [\"127.0.0.1:3000\", \"http://a/b\", \"http://user@a\"] } }",
    ];
    insta::assert_snapshot!(told(&cases));
}

#[test]
fn faults_of_cookie_domains() {
    let with = |cookies: &str| GOOD.replace("[ { domain: example.com } ]", cookies);
    let cases = [
        with("[ { domain: example.com }, { domain: sub.example.com } ]"),
        with("[ { domain: example.com }, { domain: EXAMPLE.com } ]"),
        with("[ { domain: co.uk } ]"),
        with("[ { domain: localhost } ]"),
        with("[ { domain: 192.0.2.7 } ]"),
        with("[ { domain: .example.com } ]"),
        with("[ { domain: other.org } ]"),
        with("[ { domain: example.com }, { domain: other.org, portal: \"https://auth.example.com\" } ]"),
        with("[ { domain: example.com, name: postern_portal } ]"),
        with("[ { domain: example.com, name: \"a b\" } ]"),
        with("[ { domain: example.com, default_redirect: \"http://home.example.com/\" } ]"),
        with("[ { domain: example.com, default_redirect: \"https://evil.org/\" } ]"),
    ];
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    insta::assert_snapshot!(told(&cases));
}

#[test]
fn faults_of_routes() {
    let with = |route: &str| format!("{GOOD}  - {route}\n");
    let cases = [
        with("{ host: app.example.com, path: /, upstream: app, name: two }"),
        with("{ host: b.example.com, upstream: ap }"),
        with("{ host: b.example.com }"),
        with("{ host: \"https://b.example.com\", upstream: app }"),
        with("{ host: b.example.com, path: b, upstream: app }"),
        with("{ host: b.example.com, upstream: app, headers: { Remote-User: x, Connection: z, X-Flag: true } }"),
        with("{ host: b.example.com, upstream: app, origins: [\"https://a/b\"] }"),
        with("{ host: b.example.com, upstream: app, name: app.example.com/ }"),
        "portal: { path: /_p }\nroutes: [ { upstream: app } ]\nupstreams: { app: { servers: 5 } }".to_owned(),
    ];
    let cases: Vec<&str> = cases.iter().map(String::as_str).collect();
    insta::assert_snapshot!(told(&cases));
}

#[test]
fn faults_of_policies() {
    let files = [
        "rules: [ { domain: a.example.com, policy: one_factr } ]",
        "rules: [ { domain: a.example.com } ]",
        "rules: [ { domain: a.example.com, policy: bypass, subject: } ]",
        "rules: [ { domain: a.example.com, policy: one_factor, subject: [] } ]",
        "rules: [ { domain: 5, policy: one_factor } ]",
        "rules: [ { domain: a.example.com, policy: one_factor, when: \"true\", mode: reports } ]",
        "rules: [ { domain: a.example.com, policy: one_factor, max_auth_age: 5 min } ]",
        "rules: [ { domain: a.example.com, policy: deny, max_auth_age: 5m } ]",
        "rules: [ { domain: a.example.com, policy: one_factor, max_auth_age: 15 } ]",
        "limits: []\nrule: []",
        "rules:\n  - domain: a.example.com\n    policy: deny\n    query:\n      - { key: a, operator: equals, value: x }\n      - { key: a, value: 1 }\n      - - { key: a }\n        - { name: b }",
        "rules: [ { domain: a.example.com, policy: deny, query: [] } ]",
        "rules: [ { domain: a.example.com, policy: deny, query: [ { key: a }, [] ] } ]",
        "rules: [ { domain: a.example.com, policy: deny, query: } ]",
        "rules:\n  - domain: a.example.com\n    policy: deny\n    query:\n      - { key: a }\n      - [ { key: b, operator: absent }, { key: a, operator: pattern, value: x } ]",
        "default: deny\nrules:\n  - domain: a.example.com\n    policy: bypass\n    networks: [offic]",
    ];
    let lines: Vec<String> =
        files.iter().map(|text| format!("{text}\n=> {}\n", policy_faults(&[("a.yaml", text)]))).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn faults_of_roles() {
    let files = [
        "roles:\n  admin: { inherits: [editor, viewr], level: 1 }\n  editor: { inherits: admin, level: 2 }\n  viewer:\n    permissions:\n      - read dashboards",
        "roles: { admin: { permission: [\"manage:*\"], level: high } }",
        "roles: { admin: { level: 1 } }\nbindings:\n  - { role: admin, subject: bob }\n  - { role: admn, subject: \"user:bob\", org: acme, until: tomorrow }\n  - { role: admin, subject: [] }\n  - { subject: everyone }",
        "orgs:\n  acme:\n    members: [\"group:acme\", acme]\n    teams: { web: [\"user:\"], \"a/b\": [] }\n  \"a b\": {}",
        "roles: { admin: { level: 1 } }\nbindings: [ { role: admin, subject: everyone } ]\nrules:\n  - domain: a.example.com\n    policy: one_factor\n    subject:\n      - role:admn\n      - [\"permission:read:all\", \"org:x\"]\n      - team:web",
    ];
    let lines: Vec<String> =
        files.iter().map(|text| format!("{text}\n=> {}\n", policy_faults(&[("a.yaml", text)]))).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn roles_of_one_file_are_known_in_another() {
    let roles = "roles: { admin: { level: 1 } }\nbindings: [ { role: admin, subject: everyone, until: 2027-06-30 } ]";
    let rules = "rules: [ { domain: a.example.com, policy: one_factor, subject: \"role:admin\" } ]";
    assert_eq!(policy_faults(&[("a.yaml", rules), ("b.yaml", roles)]), "no fault");
}

#[test]
fn the_samples_hold() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/samples");
    let mut samples = 0;
    for sample in fs::read_dir(&folder).unwrap() {
        let sample = sample.unwrap().path();
        let (rules, warnings) = load_policies(&sample).unwrap_or_else(|faults| panic!("{faults:?}"));
        assert_eq!(warnings, [], "{}", sample.display());
        let cases = load_cases(&sample, &rules, NOW).unwrap_or_else(|faults| panic!("{faults:?}"));
        assert!(!cases.is_empty(), "{}", sample.display());
        for PlacedCase { case, .. } in &cases {
            assert!(case.failure(&rules).is_none(), "{}: {}", sample.display(), case.name);
        }
        for name in rules.rule_names() {
            let is_decisive = cases.iter().any(|placed| placed.case.rule.as_deref() == Some(name));
            assert!(is_decisive, "{}: no case is decided by {name:?}", sample.display());
        }
        samples += 1;
    }
    assert!(samples >= 5, "{samples}");
}

#[test]
fn default_in_two_files_is_a_fault() {
    let told = policy_faults(&[("a.yaml", "default: deny"), ("b.yaml", "rules: []\ndefault: bypass")]);
    assert!(told.starts_with("policies/b.yaml:2:1: `default` stands in"), "{told}");
}

#[test]
fn authelias_rules_are_read_as_they_are() {
    let text = "access_control:\n  default_policy: deny\n  networks:\n    - { name: office, networks: [10.0.0.0/8] }\n    - { name: home, networks: 192.0.2.1 }\n  rules:\n    - domain: a.example.com\n      policy: one_factor\n      networks: [office, home]\n      subject: [\"user:bob\", [\"group:a\", \"group:b\"]]\n      query:\n        - - { operator: present, key: secure }\n          - { operator: absent, key: insecure }\n        - - { operator: pattern, key: token, value: '^(abc123|zyx789)$' }\n          - { operator: not pattern, key: random, value: '^(1|2)$' }\n        - { operator: not equal, key: a, value: b }\n";
    assert_eq!(policy_faults(&[("a.yaml", text)]), "no fault");
}

#[test]
fn threat_18_the_default_trusts_nobody_and_listens_on_this_machine_alone() {
    let loaded = load_text("", &[RULES]).unwrap();
    let server = &loaded.settings.server;
    assert!(server.listeners.iter().all(|listener| listener.address.ip().is_loopback()));
    assert!(server.admin.is_some_and(|admin| admin.ip().is_loopback()));
    let site = &loaded.settings.site;
    assert!(matches!(&site.portal.mount, Mount::Path(path) if path == "/_postern"));
    assert!(site.listeners.iter().all(|listener| listener.trusted_proxies.is_empty()));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn defaults_are_the_contracts() {
    let loaded = load_text(GOOD, &[RULES]).unwrap();
    let Settings { server, storage, users, log, site, .. } = &loaded.settings;
    assert_eq!(server.drain, Duration::from_secs(30));
    assert_eq!(server.drain_delay, Duration::ZERO);
    assert_eq!(server.source_limit, Some(SourceRate { count: 2000, per: Duration::from_secs(1), burst: 5000 }));
    assert_eq!(storage.database, DatabaseAddress::Sqlite("data/postern.db".into()));
    assert_eq!(storage.key_file, Path::new("data/postern.key"));
    assert_eq!(*users, UsersSource::Database);
    assert_eq!((log.format, log.level.as_str(), &log.access), (LogFormat::Json, "info", &Sink::Stdout));
    assert_eq!(site.lifetimes.idle, Duration::from_secs(1800));
    assert_eq!(site.lifetimes.lifetime, Duration::from_secs(43_200));
    assert_eq!(site.lifetimes.remember_me, Duration::from_secs(2_592_000));
    assert_eq!(site.tokens.issuer, "https://auth.example.com");
    assert_eq!((site.tokens.audience.as_str(), site.tokens.access), ("postern", Duration::from_secs(900)));
    assert_eq!(site.cookies[0].name, "postern_session");
    assert_eq!(site.cookies[0].portal.as_ref().map(url::Url::as_str), Some("https://auth.example.com/"));
    assert_eq!(
        site.own_cookies,
        [
            "__Host-postern_csrf",
            "__Host-postern_device",
            "__Host-postern_portal",
            "__Host-postern_return",
            "postern_csrf",
            "postern_device",
            "postern_portal",
            "postern_return",
            "postern_session",
        ]
    );
}

#[test]
fn values_come_from_the_environment() {
    let loaded = load_text(&GOOD.replace("https://auth.example.com", "${PORTAL}"), &[RULES]).unwrap();
    assert_eq!(loaded.settings.site.tokens.issuer, "https://auth.example.com");
    let loaded = load_text("portal: { title: \"a $${PORTAL}\" }", &[RULES]).unwrap();
    assert_eq!(loaded.settings.site.portal.title, "a ${PORTAL}");
}

#[test]
fn warnings_do_not_fail() {
    let text = GOOD.replace("https://auth", "http://auth");
    let warnings = load_text(&text, &[RULES]).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.message.contains("plain http")), "{warnings:?}");
    let warnings = load_text("portal: { path: /_postern }", &[RULES]).unwrap().warnings;
    assert!(warnings.iter().any(|warning| warning.message.contains("trusted like Postern")), "{warnings:?}");
}

#[test]
fn durations() {
    for (text, millis) in [("500ms", 500), ("30s", 30_000), ("15m", 900_000), ("12h", 43_200_000), ("1h30m", 5_400_000)]
    {
        assert_eq!(quantity::duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "30", "s", "-1s", "1.5h", "30 s", "30x", "99999999999999999999d", "9999999999999999d"] {
        assert!(quantity::duration(text).is_err(), "{text}");
    }
}

#[test]
fn the_example_loads_without_a_fault_or_warning() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/postern.yaml")).unwrap();
    let loaded = load_text(&text, &[RULES]).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn the_sample_policies_load() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let (rules, warnings) = load_policies(&folder).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    let cases = load_cases(&folder, &rules, NOW).unwrap();
    assert!(!cases.is_empty());
    for placed in cases {
        assert!(placed.case.failure(&rules).is_none(), "{:?}", placed.case);
    }
}

#[test]
fn faults_of_cases() {
    let rules = "rules: [ { name: app, domain: a.example.com, policy: one_factor } ]";
    let files = [
        "cases: [ { url: \"https://a.example.com\", expect: forwards }, { name: 5, expect: forward } ]",
        "cases: [ { url: \"https://a.example.com\", expect: forward, rule: apq, groups: [x], factor: two, auth_age: 5m } ]",
        "cases: [ { url: \"https://a.example.com\", expect: forward, user: a, client: b, ip: nowhere, auth_age: 5 min } ]",
        "cases: [ { url: \"https://a.example.com\", expect: forward, user: \"a\\tb\", colour: red } ]",
        "cases: [ { url: \"https://a.example.com\", expect: forward, user: \"a\\nb\" } ]",
        "case: []\nrules: []",
        "cases: 5",
        "cases: [",
    ];
    let told = files.map(|text| {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), rules).unwrap();
        fs::write(folder.path().join("a.cases.yaml"), text).unwrap();
        let (rules, _) = load_policies(folder.path()).unwrap();
        let faults = load_cases(folder.path(), &rules, NOW).unwrap_err().to_string();
        format!("{text}\n=> {}\n", faults.replace(&format!("{}/", folder.path().display()), ""))
    });
    insta::assert_snapshot!(told.join("\n"));
}

#[test]
fn the_schemas_are_those_checked_in() {
    for (name, file, schema) in [
        ("config", "postern.schema.json", schema()),
        ("policies", "policies.schema.json", policies_schema()),
        ("cases", "cases.schema.json", cases_schema()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file);
        let checked_in = fs::read_to_string(path).unwrap_or_default();
        assert!(checked_in == schema, "run: cargo run -- check --print-schema {name} > config/{file}");
    }
}

pub(super) fn told(cases: &[&str]) -> String {
    let lines: Vec<String> = cases.iter().map(|text| format!("{}\n=> {}\n", text.trim_end(), faults(text))).collect();
    lines.join("\n")
}

#[test]
fn faults_of_expressions_are_told_at_their_place() {
    let text = "attributes: { tier: string, seats: whole, name: string, \"a-b\": int }\nrules:\n  - domain: a.example.com\n    policy: one_factor\n    when: user.tear == \"x\" && request.tyme > 1\n  - { domain: b.example.com, policy: bypass, when: 'user.level > 1' }\n  - { domain: c.example.com, policy: bypass, when: 'user.name ==' }";
    insta::assert_snapshot!(policy_faults(&[("a.yaml", text)]));
    let sound = text.replace(", seats: whole, name: string, \"a-b\": int", "");
    insta::assert_snapshot!(policy_faults(&[("a.yaml", &sound)]));
    let other = policy_faults(&[("a.yaml", "attributes: { tier: string }"), ("b.yaml", "attributes: { tier: int }")]);
    insta::assert_snapshot!(other);
}

#[test]
fn a_text_is_read_as_a_file_is() {
    let file = Path::new("a.yaml");
    for text in [RULES.1, "", "rules: [ { domain: a.test, policy: bypass, path: x } ]", "rules: {", "default: never"] {
        let told = parse_policies(file, text).map_or_else(|faults| faults.to_string(), |_| "no fault".to_owned());
        assert_eq!(told.replace("a.yaml", "policies/a.yaml"), policy_faults(&[("a.yaml", text)]), "{text}");
    }
}

/// Of any key, name or value that a file holds: a fault stays one line, and writes no escape sequence to a terminal.
#[test]
fn a_fault_is_one_line_whatever_it_quotes() {
    let text = "rules:\n  - { \"p\\nath\\e[2J\": x, domain: a.test, policy: deny }\n";
    let told = policy_faults(&[("a.yaml", text)]);
    assert!(told.starts_with("policies/a.yaml:2:7: unknown key `rules[0].p\\nath\\u{1b}[2J`"), "{told}");
    assert_eq!(told.lines().count(), 1, "{told}");
    assert!(!told.chars().any(char::is_control), "{told}");
}

#[test]
fn a_database_may_be_named_by_a_file_and_an_open_way_to_it_is_warned_of() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    fs::write(secret.path(), "postgres://u:hunter2@db.example.com/postern\n").unwrap();
    let config = format!("storage: {{ database_file: {} }}", secret.path().display());
    let loaded = load_text(&config, &[RULES]).unwrap();
    let shown = format!("{:?} {}", loaded.settings, loaded.settings.storage.database);
    assert!(shown.contains("postgres://u@db.example.com/postern (storage.database)"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    assert!(loaded.sources.iter().any(|path| path == secret.path()), "watched: {:?}", loaded.sources);
    let warnings: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(matches!(warnings.as_slice(), [one] if one.contains("add `sslmode=verify-full`")), "{warnings:?}");
    fs::write(secret.path(), "postgres://u:hunter2@db.example.com/postern?sslmode=verify-full").unwrap();
    assert!(load_text(&config, &[RULES]).unwrap().warnings.is_empty());
}

/// Which of the two lists would have held nobody could see.
#[test]
fn a_network_that_is_named_twice_is_a_fault_in_either_spelling() {
    let twice = "networks: [{name: banned, networks: [203.0.113.0/24]}, {name: banned, networks: [198.51.100.0/24]}]";
    let rules =
        "rules:\n- {domain: a.example.com, networks: banned, policy: deny}\n- {domain: a.example.com, policy: bypass}";
    let told = policy_faults(&[("a.yaml", &format!("{twice}\n{rules}"))]);
    assert_eq!(told, "policies/a.yaml:1:63: the network \"banned\" stands here a second time; keep one of the two");
    let ours = "networks: { banned: 203.0.113.0/24, banned: 198.51.100.0/24 }";
    let told = policy_faults(&[("a.yaml", &format!("{ours}\n{rules}"))]);
    assert!(told.contains("`banned` stands here a second time"), "{told}");
}

/// A rule without the subject that it was to share would be for everybody.
#[test]
fn a_merge_of_nothing_is_a_fault_and_one_of_something_is_merged() {
    let rules = |merge: &str, more: &str| {
        format!(
            "rules:\n- &staff {{ domain: a.example.com, path: /a, subject: 'group:staff', policy: one_factor }}\n\
             - &named {{ <<: *staff, path: /b, name: named }}\n- {{ {merge}, domain: b.example.com, policy: one_factor }}\n{more}"
        )
    };
    for merge in ["<<: ", "<<: []", "<<: {}", "<<: [{}]", "<<: text", "<<: [*staff, null]"] {
        let told = policy_faults(&[("a.yaml", &rules(merge, ""))]);
        assert!(told.starts_with("policies/a.yaml:") && told.contains("`<<` merges nothing here"), "{merge}: {told}");
    }
    let faulty = "- { domain: c.example.com, subject: bob, policy: deny }";
    let told = policy_faults(&[("a.yaml", &rules("<<: [{ name: first }, *named]", faulty))]);
    assert!(told.starts_with("policies/a.yaml:5:") && told.lines().count() == 1, "the others are sound: {told}");
    let parsed = parse_policies(Path::new("a.yaml"), &rules("<<: [{ name: first }, *named]", "")).unwrap().0;
    let asked = |url: &str| {
        let target = crate::core::target::Target::parse_url(url).unwrap();
        let explained = parsed.explain(&crate::core::policy::Question::anonymous(&target), None);
        (explained.rule, explained.ruling)
    };
    use crate::core::policy::Ruling::{Refuse, SignIn};
    assert_eq!(asked("https://a.example.com/b"), ("named".to_owned(), SignIn));
    // Its own domain, the first block's name, the second one's path and subject.
    assert_eq!(asked("https://b.example.com/b"), ("first".to_owned(), SignIn));
    assert_eq!(asked("https://b.example.com/c"), ("default".to_owned(), Refuse));
}

/// As large as people are promised, with whatever a rule may hold, and one anchor shared by many.
#[test]
fn ten_thousand_long_rules_load() {
    let mut text =
        "rules:\n- { domain: a.example.com, subject: &staff ['group:a', 'group:b'], policy: deny }\n".to_owned();
    for number in 0..10_000 {
        text += &format!(
            "- name: rule-{number}\n  domain: [h{number}.example.com, i{number}.example.com]\n  path: [/a/**, /b, /c, /d]\n  \
             methods: [GET, POST]\n  networks: [10.0.0.0/8, 192.168.0.0/16]\n  subject: *staff\n  \
             query: [[{{ key: x, operator: present }}, {{ key: y, operator: absent }}]]\n  policy: one_factor\n"
        );
    }
    assert!(parse_policies(Path::new("a.yaml"), &text).is_ok_and(|(_, warnings)| warnings.is_empty()));
}
