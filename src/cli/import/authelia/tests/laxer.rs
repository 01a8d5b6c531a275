//! Holds the imported rules against what Authelia decides, over made-up rules and requests.

use std::{collections::HashMap, net::IpAddr, sync::LazyLock};

use proptest::{prelude::*, sample::select};
use regex::Regex;

use super::{super::*, import};
use crate::core::{
    client_ip::ClientAddress,
    identity::Factor,
    policy::{Imagined, ImaginedCaller, Level, PolicyDraft, RuleSet, Ruling},
    target::EncodedSlashes,
    time::Timestamp,
    user::Attributes,
};

/// A rule as it stands in Authelia's file; entries as YAML.
#[derive(Debug, Clone)]
struct Rule {
    domain: Vec<&'static str>,
    domain_regex: Vec<&'static str>,
    resources: Vec<&'static str>,
    methods: Vec<&'static str>,
    networks: Vec<&'static str>,
    subject: Vec<&'static str>,
    query: Vec<&'static str>,
    policy: &'static str,
}

const DOMAINS: &[&str] = &[
    "app.example.com",
    "App.Example.com",
    "*.example.com",
    "{user}.example.com",
    "{group}.example.com",
    "{user}-x.example.com",
    "app.example.com:8443",
    "*example.com",
    "a.*.com",
    "$HOST",
    "${HOST}.example.com",
    "*.$ROOT",
    "{{ x }}",
    "<% env `HOST` %>",
    "((env HOST))",
];
const HOST_REGEXES: &[&str] = &[
    "^app\\.example\\.com$",
    "example",
    "^bob",
    "x|org$",
    "^(?P<User>\\w+)\\.example\\.com$",
    "(?P<Group>\\w+)\\.example",
    "{{ x }}",
    "^$HOST",
    "<% env \"HOST\" %>",
];
const RESOURCES: &[&str] = &[
    "^/a",
    "/b$",
    "b|^/c",
    "^/x\\?q=1$",
    "q=",
    "^/(?P<User>\\w+)",
    "(?P<Group>\\w+)$",
    "{{ x }}",
    "(?=a)",
    "^/a$$",
    "^(/a$|/bob$)",
    "^/$SECTION/",
    "^/a$-b",
    "^/[[ env \"SECTION\" ]]",
];
const METHODS: &[&str] = &["GET", "post", "$METHOD"];
const NETWORKS: &[&str] = &["10.0.0.0/8", "lan", "half", "nowhere", "{{ x }}", "$NET"];
const SUBJECTS: &[&str] = &[
    "user:bob",
    "group:dev",
    "group: dev",
    "[user:bob, group:dev]",
    "[user:alice, oops]",
    "oops",
    "group:$ADMINS",
    "[user:bob, 'group:$ADMINS']",
    "user:<% env `USER` %>",
];
/// What one of these becomes nobody knows; nor of what holds `{{`.
const UNKNOWN: &[&str] = &["$H", "${H", "$R", "$S", "$M", "$N", "$A", "$V", "a$-b", "<%", "[[", "(("];
const QUERIES: &[&str] = &[
    "{ key: q }",
    "{ key: q, value: '' }",
    "{ key: q, value: '1' }",
    "{ key: q, operator: equal, value: '' }",
    "{ key: q, operator: not equal, value: '1' }",
    "{ key: q, operator: absent }",
    "{ key: q, operator: pattern, value: '1' }",
    "{ key: q, operator: pattern, value: '^$|x' }",
    "{ key: q, operator: not pattern, value: '^1' }",
    "[{ key: q, operator: pattern, value: '.*' }, { key: r, operator: equal, value: '' }]",
    "{ key: q, operator: Equal, value: '1' }",
    "{ key: q, value: $VALUE }",
    "{ key: $VALUE }",
    "{ key: q, operator: not pattern, value: '^$VALUE' }",
    "{ key: q, operator: not equal, value: '<% env \"VALUE\" %>' }",
    "{ key: q, operator: not equal, value: 1$$ }",
];

fn rule() -> impl Strategy<Value = Rule> {
    let some = |pool: &'static [&'static str], most: usize| prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(select(pool), 1..=most)];
    (
        prop::collection::vec(select(DOMAINS), 1..=2),
        some(HOST_REGEXES, 1),
        some(RESOURCES, 2),
        some(METHODS, 2),
        some(NETWORKS, 2),
        some(SUBJECTS, 2),
        some(QUERIES, 2),
        select(&["bypass", "one_factor", "two_factor", "deny"][..]),
    )
        .prop_map(|(domain, domain_regex, resources, methods, networks, subject, query, policy)| Rule {
            domain,
            domain_regex,
            resources,
            methods,
            networks,
            subject,
            query,
            policy,
        })
}

fn file(rules: &[Rule], default: &str) -> String {
    let mut text = format!(
        "session: {{ domain: example.com }}\ndefinitions: {{ network: {{ lan: [192.0.2.0/24], half: [10.1.0.0/16, '{{{{ x }}}}'] }} }}\n\
         access_control:\n  default_policy: {default}\n  rules:\n"
    );
    for rule in rules {
        text += &format!("    - policy: {}\n", rule.policy);
        let quoted = |all: &[&str]| all.iter().map(|one| yaml::scalar(one)).collect::<Vec<_>>().join(", ");
        for (key, all) in [
            ("domain", quoted(&rule.domain)),
            ("domain_regex", quoted(&rule.domain_regex)),
            ("resources", quoted(&rule.resources)),
            ("methods", quoted(&rule.methods)),
            ("networks", quoted(&rule.networks)),
            (
                "subject",
                rule.subject
                    .iter()
                    .map(|one| if one.starts_with('[') { (*one).to_owned() } else { yaml::scalar(one) })
                    .collect::<Vec<_>>()
                    .join(", "),
            ),
            ("query", rule.query.join(", ")),
        ] {
            if !all.is_empty() {
                text += &format!("      {key}: [{all}]\n");
            }
        }
    }
    text
}

/// Somebody who asks for a page.
#[derive(Debug, Clone)]
struct Asking {
    host: &'static str,
    path: &'static str,
    method: &'static str,
    address: IpAddr,
    /// `None`: nobody is signed in.
    user: Option<(&'static str, Vec<&'static str>, Factor)>,
}

fn asking() -> impl Strategy<Value = Asking> {
    let hosts = &[
        "app.example.com",
        "bob.example.com",
        "dev.example.com",
        "bob-x.example.com",
        "example.com",
        "other.org",
        "a.b.com",
    ][..];
    let paths = &["/", "/a", "/a/b", "/c/dev", "/bob", "/x?q=1", "/a?q=", "/a?q=2x", "/a?q=1&r=2"][..];
    let users = prop_oneof![
        Just(None),
        (select(&["bob", "alice"][..]), select(vec![vec![], vec!["dev"]]), select(vec![Factor::One, Factor::Two]))
            .prop_map(Some),
    ];
    let addresses = select(&["10.1.2.3", "10.2.3.4", "192.0.2.1", "203.0.113.1"][..]);
    (select(hosts), select(paths), select(&["GET", "POST"][..]), addresses, users).prop_map(
        |(host, path, method, address, user)| Asking { host, path, method, address: address.parse().unwrap(), user },
    )
}

/// Whether what nobody can know matches: all of it, none, or some.
const LUCKS: &[u8] = &[0, 0xff, 0b0101_0101, 0b1010_1010, 0b0011_0011, 0b1100_1100, 0b0000_1111, 0b1111_0000];

/// Those that are valid.
static REGEXES: LazyLock<HashMap<&str, Regex>> = LazyLock::new(|| {
    let all = HOST_REGEXES.iter().chain(RESOURCES);
    all.filter_map(|text| Some((*text, Regex::new(text).ok()?))).collect()
});

/// What Authelia decides, written down from its documentation anew.
fn authelia(rules: &[Rule], default: &str, asking: &Asking, luck: u8) -> Ruling {
    // The same text is always the same.
    let luck = |text: &str| luck >> (text.bytes().map(u32::from).sum::<u32>() % 8) & 1 == 1;
    let is_unknown = |text: &str| text.contains("{{") || UNKNOWN.iter().any(|unknown| text.contains(unknown));
    let (path, query) = asking.path.split_once('?').unwrap_or((asking.path, ""));
    let parameters: HashMap<String, String> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    assert!(path.starts_with('/'));
    let is_caught = |regex: &Regex, text: &str| {
        let Some(caught) = regex.captures(text) else { return false };
        let Some((user, groups, _)) = &asking.user else { return true };
        caught.name("User").is_none_or(|name| name.as_str() == *user)
            && caught.name("Group").is_none_or(|name| groups.contains(&name.as_str()))
    };
    let matches_regex = |text: &str, in_text: &str| match REGEXES.get(text) {
        Some(regex) if !is_unknown(text) => is_caught(regex, in_text),
        _ => luck(text),
    };
    let matches_domain = |text: &&str| {
        if is_unknown(text) {
            return luck(text);
        }
        let text = text.to_lowercase();
        let user = asking.user.as_ref();
        if let Some(suffix) = text.strip_prefix("{user}") {
            return user.map_or(asking.host.ends_with(suffix) && asking.host.len() > suffix.len(), |(user, _, _)| {
                asking.host == format!("{user}{suffix}")
            });
        }
        if let Some(suffix) = text.strip_prefix("{group}") {
            let label = asking.host.strip_suffix(suffix);
            return label
                .is_some_and(|label| !label.is_empty() && user.is_none_or(|(_, groups, _)| groups.contains(&label)));
        }
        text.strip_prefix("*.").map_or(asking.host == text, |suffix| asking.host.ends_with(&format!(".{suffix}")))
    };
    let matches_network = |text: &&str| {
        let is_in = |network: &str| network.parse::<ipnet::IpNet>().unwrap().contains(&asking.address);
        match *text {
            "lan" => is_in("192.0.2.0/24"),
            "half" => is_in("10.1.0.0/16") || luck("half"),
            text if text == "nowhere" || is_unknown(text) => luck(text),
            network => is_in(network),
        }
    };
    let is_subject = |text: &str, user: &str, groups: &[&str]| match text.split_once(':') {
        _ if is_unknown(text) => luck(text),
        Some(("user", name)) => name.trim() == user,
        Some(("group", name)) => groups.contains(&name.trim()),
        _ => luck(text),
    };
    let is_method = |text: &&str| if is_unknown(text) { luck(text) } else { text.to_uppercase() == asking.method };
    let matches_subject = |text: &&str| match &asking.user {
        None => true,
        Some((user, groups, _)) => text.trim_matches(['[', ']']).split(", ").all(|one| is_subject(one, user, groups)),
    };
    let value = |key: &str| parameters.get(key).map(String::as_str);
    let q = value("q");
    let text = q.unwrap_or_default();
    let matches_query = |written: &&str| match QUERIES.iter().position(|query| query == written).unwrap() {
        0 | 1 => q.is_some(),
        2 => text == "1",
        3 => text.is_empty(),
        4 => text != "1",
        5 => q.is_none(),
        6 => text.contains('1'),
        7 => text.is_empty() || text.contains('x'),
        8 => !text.starts_with('1'),
        9 => value("r").unwrap_or_default().is_empty(),
        // It refuses to start with that operator, or nobody knows what stands there.
        _ => luck(written),
    };
    let ruling = |policy: &str, has_subject: bool| match (policy, asking.user.as_ref().map(|(_, _, factor)| *factor)) {
        ("bypass", _) => Ruling::Forward,
        ("deny", None) if has_subject => Ruling::SignIn,
        ("deny", _) => Ruling::Refuse,
        (_, None) => Ruling::SignIn,
        ("two_factor", Some(Factor::One)) => Ruling::StepUp,
        _ => Ruling::Forward,
    };
    let matched = rules.iter().find(|rule| {
        (rule.domain.iter().any(matches_domain)
            || rule.domain_regex.iter().any(|regex| matches_regex(regex, asking.host)))
            && (rule.resources.is_empty() || rule.resources.iter().any(|regex| matches_regex(regex, asking.path)))
            && (rule.methods.is_empty() || rule.methods.iter().any(is_method))
            && (rule.networks.is_empty() || rule.networks.iter().any(matches_network))
            && (rule.subject.is_empty() || rule.subject.iter().any(matches_subject))
            && (rule.query.is_empty() || rule.query.iter().any(matches_query))
    });
    let names_subject = |rule: &Rule| {
        let all = [&rule.domain, &rule.domain_regex, &rule.resources];
        let is_named = |text: &&str| text.starts_with("{user}") || text.starts_with("{group}") || text.contains("(?P<");
        !rule.subject.is_empty() || all.into_iter().flatten().any(is_named)
    };
    matched.map_or_else(|| ruling(default, false), |rule| ruling(rule.policy, names_subject(rule)))
}

fn compiled(import: &Import) -> RuleSet {
    let policies = &import.policies;
    let draft = PolicyDraft {
        default: Some(policies.default.value),
        networks: policies.networks.written.iter().map(|(name, all)| (name.value.clone(), all.clone())).collect(),
        rules: policies.rules.iter().map(|rule| rule.draft.clone()).collect(),
        ..PolicyDraft::default()
    };
    RuleSet::compile(&draft).unwrap_or_else(|faults| panic!("{faults:?}")).0
}

fn postern(rules: &RuleSet, asking: &Asking) -> Ruling {
    let caller = asking.user.as_ref().map(|(user, groups, factor)| {
        let who = ImaginedCaller {
            user: Some(user.to_string()),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            factor: *factor,
            signed_in_at: Timestamp::default(),
            attributes: Attributes::default(),
        };
        Imagined::caller(who).unwrap()
    });
    let request = Imagined {
        url: format!("https://{}{}", asking.host, asking.path),
        method: asking.method.to_owned(),
        caller,
        client: None,
        now: Timestamp::default(),
        headers: http::HeaderMap::new(),
        route: None,
        address: ClientAddress::Known(asking.address),
        encoded_slashes: EncodedSlashes::Reject,
    };
    rules.imagine(&request).unwrap().ruling
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Nobody gets in who did not; and where all was carried over, all is as it was.
    #[test]
    fn the_rules_are_never_laxer(
        rules in prop::collection::vec(rule(), 1..4),
        default in select(&["bypass", "one_factor", "deny"][..]),
        asking in prop::collection::vec(asking(), 12),
    ) {
        let text = file(&rules, default);
        let (ledger, import) = import(&text);
        let compiled = compiled(&import);
        let drafts = &import.policies.rules;
        let is_same = drafts.len() == rules.len()
            && drafts.iter().zip(&rules).all(|(draft, rule)| !draft.is_closed && draft.draft.policy.map(Level::as_str) == Some(rule.policy));
        for asking in &asking {
            let ours = postern(&compiled, asking);
            let theirs: Vec<Ruling> = LUCKS.iter().map(|luck| authelia(&rules, default, asking, *luck)).collect();
            if ours == Ruling::Forward {
                let is_laxer = theirs.iter().any(|theirs| *theirs != Ruling::Forward);
                prop_assert!(!is_laxer, "{:?}: {:?}\n{}\n{}", asking, theirs, text, write::policies(&import, "a"));
            }
            // A deny of which one domain names nobody asks nobody to sign in for that one; with Authelia it does for all.
            let is_as_good = |theirs: Ruling| ours == theirs || (ours == Ruling::Refuse && theirs == Ruling::SignIn);
            if is_same {
                prop_assert!(theirs.iter().copied().all(is_as_good), "{:?}, not {:?}: {:?}\n{}\n{:?}", ours, theirs, asking, text, ledger.findings);
            }
        }
    }
}
