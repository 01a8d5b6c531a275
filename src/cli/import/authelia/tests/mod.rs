//! That nothing is dropped in silence, and what the result looks like. That nothing becomes laxer: `laxer`.

mod laxer;

use super::*;
use crate::{
    config::source::{Entry, Kind, Place},
    core::policy::Level,
};

/// Keys of every kind, known and unknown. Whatever begins with `hush` is a secret.
const ALL: &str = r#"
certificates_directory: /certs
theme: dark
jwt_secret: hush-jwt
surprise: hush-1
default_2fa_method: totp
server:
  address: tcp://:9091/
  asset_path: /assets
  timeouts: { read: 6s, write: 6s }
  tls: { key: /hush.pem, certificate: /cert.pem, client_certificates: [a.pem] }
  endpoints:
    enable_pprof: true
    surprise: hush-2
    authz: { forward-auth: { implementation: ForwardAuth } }
log: { level: debug, format: json, file_path: /log, keep_stdout: true, surprise: hush-3 }
telemetry: { metrics: { enabled: true } }
totp: { issuer: example.com }
identity_validation: { reset_password: { jwt_secret: hush-reset } }
definitions:
  network: { lan: [10.0.0.0/8, nonsense], vpn: 10.9.0.0/16 }
  user_attributes: { admin: { expression: '"admin" in groups' } }
  surprise: hush-4
authentication_backend:
  password_reset: { disable: true }
  refresh_interval: 5m
  file: { path: /config/users.yml, watch: true, password: { algorithm: argon2 }, surprise: hush-5 }
  ldap: { password: hush-ldap }
access_control:
  default_policy: two_factor
  surprise: hush-6
  networks:
    - { name: office, networks: [192.0.2.0/24], surprise: 1 }
    - [hush-7]
  rules:
    - domain: [app.example.com, 'app.example.com:8443']
      domain_regex: [app, '{{ env "A" }}']
      resources: [^/a, b, '[']
      methods: [get, 7]
      networks: [lan, vpn, office, nowhere]
      subject: ['user:bob', ['group:dev', oops], oauth2:client:abc]
      query:
        - - { key: a, operator: pattern, value: b }
          - { key: c, value: d, surprise: e }
        - { key: f }
      policy: one_factor
    - { domain: '{user}.example.com', policy: two_factor }
    - { domain: x.example.com, policy: bypass, surprise: y }
    - a text
session:
  secret: hush-session
  name: authelia_session
  inactivity: 10m
  remember_me_duration: 1M
  surprise: hush-8
  cookies:
    - { domain: example.com, authelia_url: 'https://auth.example.com', expiration: 2h, surprise: hush-9 }
    - { domain: example.org, authelia_url: 'https://auth.example.org/x?y', same_site: odd, remember_me: -1, default_redirection_url: 'http://else.example.net' }
  redis: { password: hush-redis }
regulation: { max_retries: 3, find_time: 2 minutes, ban_time: 99y, modes: [user], surprise: 1 }
storage: { encryption_key: hush-storage, local: { path: /db } }
notifier: { smtp: { password: hush-smtp } }
identity_providers: { oidc: { hmac_secret: hush-oidc } }
"#;

fn import(text: &str) -> (Ledger, Import) {
    import_of(&parse(Path::new("configuration.yml"), text).unwrap())
}

fn import_of(root: &Node) -> (Ledger, Import) {
    let mut ledger = Ledger::new(PathBuf::from("configuration.yml"));
    let import = translate(root, Path::new("/nowhere"), &mut ledger);
    (ledger, import)
}

fn leaves(spot: &Spot<'_>) -> Vec<String> {
    let items = if matches!(spot.node.kind, Kind::Seq(_)) { spot.items() } else { Vec::new() };
    let inner: Vec<Spot<'_>> = spot.entries().chain(items).collect();
    if inner.is_empty() { vec![spot.trail.clone()] } else { inner.iter().flat_map(leaves).collect() }
}

#[test]
fn every_key_is_carried_over_or_told_of() {
    let root = parse(Path::new("configuration.yml"), ALL).unwrap();
    let (ledger, _) = import_of(&root);
    let leaves = leaves(&Spot::root(&root));
    assert!(leaves.len() > 80, "{leaves:?}");
    for leaf in &leaves {
        assert!(ledger.accounts_for(leaf), "{leaf} is neither carried over nor told of");
    }
    // What nobody knows must be told of, wherever it stands.
    for leaf in leaves.iter().filter(|leaf| leaf.ends_with("surprise")) {
        let is_told = ledger.findings.iter().any(|finding| leaf.starts_with(&finding.key));
        assert!(is_told, "{leaf} is not told of");
    }
}

/// An unknown key in every block, one at a time.
#[test]
fn an_unknown_key_is_told_of_wherever_it_stands() {
    let root = parse(Path::new("configuration.yml"), ALL).unwrap();
    let mut count = 0;
    while let Some(changed) = with_surprise(&root, &mut { count }) {
        let (ledger, _) = import_of(&changed);
        let mut leaves = leaves(&Spot::root(&changed));
        leaves.retain(|leaf| leaf.ends_with("astonishment"));
        let [leaf] = leaves.as_slice() else { panic!("one: {leaves:?}") };
        let is_told = ledger.findings.iter().any(|finding| leaf.starts_with(&finding.key));
        assert!(is_told, "{leaf} is not told of");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

/// The tree with one key more in the block of that number.
fn with_surprise(node: &Node, left: &mut usize) -> Option<Node> {
    let mut node = node.clone();
    let nothing = Place { line: 0, column: 0 };
    match &mut node.kind {
        Kind::Map(entries) => {
            if *left == 0 {
                let value = Node { place: nothing, kind: Kind::Int(1) };
                entries.push(Entry { key: "astonishment".to_owned(), place: nothing, value });
                return Some(node);
            }
            *left -= 1;
            for entry in entries {
                if let Some(changed) = with_surprise(&entry.value, left) {
                    entry.value = changed;
                    return Some(node);
                }
            }
        }
        Kind::Seq(items) => {
            for item in items {
                if let Some(changed) = with_surprise(item, left) {
                    *item = changed;
                    return Some(node);
                }
            }
        }
        _ => {}
    }
    None
}

#[test]
fn no_secret_is_told_or_written() {
    let (ledger, import) = import(ALL);
    let told: String = ledger.findings.iter().chain(&ledger.faults).map(|finding| format!("{finding}\n")).collect();
    let written = write::config(&import, "configuration.yml") + &write::policies(&import, "configuration.yml");
    for (text, what) in [(told, "told"), (written, "written")] {
        assert!(!text.contains("hush"), "{what}: {text}");
    }
}

#[test]
fn what_is_found_and_written() {
    let (ledger, import) = import(ALL);
    let told: Vec<String> = ledger.findings.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!("findings", told.join("\n"));
    insta::assert_snapshot!("config", write::config(&import, "configuration.yml"));
    insta::assert_snapshot!("policies", write::policies(&import, "configuration.yml"));
}

/// Authelia's defaults are shorter than ours, and so must be written.
#[test]
fn what_stands_nowhere_is_no_longer_than_with_authelia() {
    let (_, import) = import("session: { domain: example.com }\n");
    let written = write::config(&import, "configuration.yml");
    for line in ["idle: 5m", "lifetime: 1h", "remember_me: 30d"] {
        assert!(written.contains(line), "{written}");
    }
    assert!(write::policies(&import, "configuration.yml").contains("default: deny"));
}

#[test]
fn what_is_left_of_a_rule_stands_before_a_deny_for_the_rest() {
    for (rule, ours) in [
        (
            "{ domain: a.example.com, resources: [^/a, '['], policy: bypass }",
            "a.example.com ^/a bypass | a.example.com  deny",
        ),
        ("{ domain: a.example.com, resources: ['['], policy: bypass }", "a.example.com  deny"),
        (
            "{ domain: [a.example.com, 'b.example.com:80'], policy: bypass }",
            "a.example.com  bypass | b.example.com  deny",
        ),
        ("{ domain: '*b.example.com', policy: two_factor }", "^.*b\\.example\\.com$  deny"),
        ("{ domain: '*', policy: bypass }", "^.*$  deny"),
        ("{ policy: bypass }", "^.*$  deny"),
        ("{ domain: a.example.com, method: GET, policy: bypass }", "a.example.com  deny"),
        ("{ domain: a.example.com, resources: [^/a], policy: open }", "a.example.com ^/a deny"),
        ("{ domain: a.example.com, policy: bypass, subject: 'user:bob' }", "a.example.com  one_factor"),
        ("{ domain: 'a.example.com,b.example.com', policy: bypass }", "a.example.com b.example.com  bypass"),
        ("{ domain: a.example.com, resources: '^/a{1,2}', policy: bypass }", "a.example.com  deny"),
        ("nothing", "^.*$  deny"),
        // Nobody knows which hosts these mean.
        ("{ domain: $ADMIN_HOST, policy: deny }", "^.*$  deny"),
        ("{ domain: 'a.${ROOT}', policy: deny }", "^.*$  deny"),
        ("{ domain: '<% env `A` %>', policy: deny }", "^.*$  deny"),
        ("{ domain: '((env A)).example.com', policy: deny }", "^.*$  deny"),
        ("{ domain: '{env}.example.com', policy: deny }", "^.*$  deny"),
        ("{ domain: '{{ f \"a.example.com,b.example.com,c\" }}', policy: bypass }", "^.*$  deny"),
        ("{ domain: 'a.{user}.example.com', policy: deny }", "^a\\..*\\.example\\.com$  deny"),
        ("{ domain: a.example.com, resources: ['^/$SECTION/'], policy: bypass }", "a.example.com  deny"),
        ("{ domain: a.example.com, resources: ['^/<% env \"A\" %>'], policy: bypass }", "a.example.com  deny"),
        ("{ domain: a.example.com, resources: ['^(/a$|/b$)'], policy: deny }", "a.example.com ^(/a$|/b$) deny"),
        ("{ domain: a.example.com, subject: 'group:$ADMINS', policy: deny }", "a.example.com  deny"),
        ("{ domain: a.example.com, subject: 'user:<%x%>', policy: one_factor }", "a.example.com  deny"),
        ("{ domain: a.example.com, methods: [$METHOD], policy: bypass }", "a.example.com  deny"),
        ("{ domain: a.example.com, methods: '{{ f \"A,GET,B\" }}', policy: bypass }", "a.example.com  deny"),
        ("{ domain: a.example.com, networks: [$NET], policy: bypass }", "a.example.com  deny"),
        ("{ domain: a.example.com, query: [[{ key: a, value: $VALUE }]], policy: bypass }", "a.example.com  deny"),
        ("{ domain: a.example.com, query: [[{ key: a, value: x$$ }]], policy: bypass }", "a.example.com  deny"),
    ] {
        let (ledger, import) = import(&format!("access_control: {{ rules: [{rule}] }}\n"));
        let written: Vec<String> = import
            .policies
            .rules
            .iter()
            .map(|rule| {
                let rule = &rule.draft;
                let domains = [rule.domain.clone(), rule.domain_regex.clone()].concat().join(" ");
                format!("{domains} {} {}", rule.resources.join(" "), rule.policy.map(Level::as_str).unwrap_or_default())
            })
            .collect();
        assert_eq!(written.join(" | "), ours, "{rule}: {:?}", ledger.findings);
    }
}

#[test]
fn a_default_that_lets_all_in_is_none_of_authelia_s_without_rules() {
    for (block, ours) in [
        ("{ default_policy: bypass }", Level::Deny),
        ("{ default_policy: bypass, rules: [] }", Level::Deny),
        ("{ default_policy: one_factor }", Level::OneFactor),
        ("{ default_policy: bypass, rules: [{ domain: a.example.com, policy: deny }] }", Level::Bypass),
        // What could be the rules.
        ("{ default_policy: one_factor, $RULES: [{ domain: a.example.com, policy: deny }] }", Level::Deny),
    ] {
        let (ledger, import) = import(&format!("access_control: {block}\n"));
        assert_eq!(import.policies.default.value, ours, "{block}");
        let is_told = ledger.findings.iter().any(|finding| finding.message.contains("`deny` was written"));
        assert_eq!(is_told, ours == Level::Deny, "{block}: {:?}", ledger.findings);
    }
}

/// Older versions of Authelia take it for a block within a block.
#[test]
fn a_dotted_key_is_a_fault() {
    for text in [
        "access_control.rules: [{ domain: a.example.com, policy: deny }]\n",
        "access_control: { rules.x: 1 }\n",
        "server: { endpoints.authz: {} }\n",
    ] {
        let (ledger, _) = import(&format!("session: {{ domain: example.com }}\n{text}"));
        assert!(ledger.faults.iter().any(|fault| fault.message.contains("a dot")), "{text}: {:?}", ledger.faults);
    }
}

#[test]
fn rules_that_look_at_addresses_are_told_of_once() {
    let rule = |networks: &str| format!("{{ domain: a.example.com, policy: bypass{networks} }}");
    let told = |rules: [&str; 3]| {
        let rules = rules.map(rule).join(", ");
        let (ledger, _) = import(&format!("access_control: {{ rules: [{rules}] }}\n"));
        let told = ledger.findings.into_iter().filter(|finding| finding.message.contains("X-Forwarded-For"));
        told.map(|finding| (finding.key, finding.to_do.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(
        told(["", ", networks: [10.0.0.0/8]", ", networks: 10.0.0.0/8"]),
        [("access_control.rules[1].networks".to_owned(), true)]
    );
    assert_eq!(told(["", ", networks: []", ""]), []);
}

#[test]
fn a_user_s_name_in_a_host_is_told_to_be_compared_ignoring_case() {
    for domain in ["{user}.example.com", "{user}-app.example.com", "{USER}-app.example.com"] {
        let (ledger, _) =
            import(&format!("access_control: {{ rules: [{{ domain: '{domain}', policy: one_factor }}] }}\n"));
        assert!(ledger.findings.iter().any(|finding| finding.message.contains("ignoring case")), "{domain}");
    }
}
