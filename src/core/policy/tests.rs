use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::core::{identity::Factor, user::User};

/// name, domain and policy; the rest by `..`.
fn rule(name: &str, domain: &str, policy: Level) -> RuleDraft {
    RuleDraft {
        name: Some(name.to_owned()),
        domain: vec![domain.to_owned()],
        policy: Some(policy),
        ..RuleDraft::default()
    }
}

fn strings(entries: &[&str]) -> Vec<String> {
    entries.iter().map(ToString::to_string).collect()
}

fn compiled(rules: Vec<RuleDraft>) -> RuleSet {
    let networks = vec![("office".to_owned(), strings(&["10.0.0.0/8", "fd00::/8"]))];
    RuleSet::compile(&PolicyDraft { default: None, networks, rules }).expect("sound rules").0
}

fn faults(rules: Vec<RuleDraft>) -> Vec<DraftFault> {
    let networks = vec![("office".to_owned(), strings(&["10.0.0.0/8"]))];
    RuleSet::compile(&PolicyDraft { default: None, networks, rules }).expect_err("a fault")
}

fn warnings(rules: Vec<RuleDraft>) -> Vec<DraftFault> {
    RuleSet::compile(&PolicyDraft { rules, ..PolicyDraft::default() }).expect("sound rules").1
}

fn caller(name: &str, groups: &[&str], factor: Factor) -> Identity {
    let user = User {
        name: name.to_owned(),
        display_name: name.to_owned(),
        email: None,
        groups: strings(groups),
        disabled: false,
        token_version: 0,
    };
    Identity::new(&user, factor, Timestamp::default(), None).expect("a plain name")
}

/// What the rules say to a GET from 10.1.2.3.
fn said(rules: &RuleSet, url: &str, caller: Option<&Identity>) -> (Ruling, String) {
    asked(rules, url, "GET", Some("10.1.2.3"), caller)
}

fn asked(rules: &RuleSet, url: &str, method: &str, ip: Option<&str>, caller: Option<&Identity>) -> (Ruling, String) {
    let target = Target::parse_url(url).expect("a URL");
    let client =
        ip.map_or(ClientAddress::Unknown, |ip| ClientAddress::Known(ip.parse::<IpAddr>().expect("an address")));
    let question = Question { target: &target, method, client, caller, now: Timestamp::default() };
    let decided = rules.decide(&question);
    let explained = rules.explain(&question, None);
    assert_eq!(
        (explained.ruling, explained.rule.as_str()),
        (decided.ruling, &**decided.rule),
        "explain and decide differ"
    );
    (decided.ruling, decided.rule.to_string())
}

fn matches(rule: RuleDraft, url: &str) -> bool {
    said(&compiled(vec![rule]), url, None).1 != "default"
}

#[test]
fn the_first_match_decides_and_else_the_default() {
    let rules = compiled(vec![
        rule("one", "a.example.com", Level::Bypass),
        RuleDraft { name: None, ..rule("", "*.example.com", Level::OneFactor) },
    ]);
    assert_eq!(said(&rules, "https://a.example.com/", None), (Ruling::Forward, "one".to_owned()));
    assert_eq!(said(&rules, "https://b.example.com/", None), (Ruling::SignIn, "rule 2".to_owned()));
    assert_eq!(said(&rules, "https://other.test/", None), (Ruling::Refuse, "default".to_owned()));
    let names: Vec<&str> = rules.rule_names().map(|name| &**name).collect();
    assert_eq!(names, ["one", "rule 2", "default"]);
}

#[test]
fn levels_and_factors() {
    let (one, two) = (caller("bob", &[], Factor::One), caller("bob", &[], Factor::Two));
    for (level, anonymous, by_one, by_two) in [
        (Level::Bypass, Ruling::Forward, Ruling::Forward, Ruling::Forward),
        (Level::OneFactor, Ruling::SignIn, Ruling::Forward, Ruling::Forward),
        (Level::TwoFactor, Ruling::SignIn, Ruling::StepUp, Ruling::Forward),
        (Level::Deny, Ruling::Refuse, Ruling::Refuse, Ruling::Refuse),
    ] {
        let as_rule = compiled(vec![rule("r", "a.test", level)]);
        let as_default =
            RuleSet::compile(&PolicyDraft { default: Some(level), ..PolicyDraft::default() }).expect("sound").0;
        for rules in [as_rule, as_default] {
            for (who, expected) in [(None, anonymous), (Some(&one), by_one), (Some(&two), by_two)] {
                assert_eq!(said(&rules, "https://a.test/", who).0, expected, "{level:?} {who:?}");
            }
        }
    }
}

#[test]
fn domains() {
    for (pattern, host, expected) in [
        ("a.example.com", "a.example.com", true),
        ("A.Example.COM", "a.example.com", true),
        ("a.example.com.", "a.example.com", true),
        ("*.example.com", "a.example.com", true),
        ("*.example.com", "a.b.example.com", true),
        ("*.example.com", "example.com", false),
        ("*.example.com", "badexample.com", false),
        ("a.example.com", "b.a.example.com", false),
    ] {
        assert_eq!(
            matches(rule("r", pattern, Level::Bypass), &format!("https://{host}/")),
            expected,
            "{pattern} {host}"
        );
    }
}

#[test]
fn placeholders_fold_case_and_subjects_are_exact() {
    let bob = caller("Bob", &["Dev"], Factor::One);
    let user = compiled(vec![rule("r", "{user}.home.test", Level::OneFactor)]);
    let group = compiled(vec![rule("r", "{group}.home.test", Level::OneFactor)]);
    let regex = compiled(vec![RuleDraft {
        domain: vec![],
        domain_regex: strings(&[r"^(?P<User>\w+)-(?P<Group>\w+)\.home\.test$"]),
        ..rule("r", "", Level::OneFactor)
    }]);
    let resource = compiled(vec![RuleDraft {
        resources: strings(&["^/~(?P<User>[^/]+)/"]),
        ..rule("r", "home.test", Level::OneFactor)
    }]);
    for (rules, mine, others) in [
        (&user, "https://bob.home.test/", "https://eve.home.test/"),
        (&group, "https://dev.home.test/", "https://ops.home.test/"),
        (&regex, "https://bob-dev.home.test/", "https://bob-ops.home.test/"),
        (&resource, "https://home.test/~BOB/x", "https://home.test/~eve/x"),
    ] {
        assert_eq!(said(rules, mine, Some(&bob)).0, Ruling::Forward, "{mine}");
        assert_eq!(said(rules, others, Some(&bob)), (Ruling::Refuse, "default".to_owned()), "{others}");
        assert_eq!(said(rules, others, None).0, Ruling::SignIn, "{others}");
    }
    for (subject, expected) in
        [("user:Bob", true), ("user:bob", false), ("group:Dev", true), ("group:dev", false), ("client:Bob", false)]
    {
        let rules =
            compiled(vec![RuleDraft { subject: vec![strings(&[subject])], ..rule("r", "a.test", Level::OneFactor) }]);
        assert_eq!(said(&rules, "https://a.test/", Some(&bob)).0 == Ruling::Forward, expected, "{subject}");
    }
}

#[test]
fn a_subject_is_an_or_of_ands_and_anonymous_could_be_anyone() {
    let rules = compiled(vec![
        RuleDraft { subject: vec![strings(&["group:banned"])], ..rule("banned", "a.test", Level::Deny) },
        RuleDraft {
            subject: vec![strings(&["group:admins"]), strings(&["user:bob", "group:dev"])],
            ..rule("staff", "a.test", Level::OneFactor)
        },
    ]);
    for (name, groups, expected, by) in [
        ("eve", &["admins"][..], Ruling::Forward, "staff"),
        ("bob", &["dev"], Ruling::Forward, "staff"),
        ("bob", &[], Ruling::Refuse, "default"),
        ("eve", &["dev"], Ruling::Refuse, "default"),
        ("bob", &["dev", "banned"], Ruling::Refuse, "banned"),
    ] {
        let who = caller(name, groups, Factor::One);
        assert_eq!(said(&rules, "https://a.test/", Some(&who)), (expected, by.to_owned()), "{name} {groups:?}");
    }
    assert_eq!(said(&rules, "https://a.test/", None), (Ruling::SignIn, "banned".to_owned()));
}

#[test]
fn a_client_is_no_user() {
    let rules = compiled(vec![
        RuleDraft { subject: vec![strings(&["user:robot"])], ..rule("user", "a.test", Level::Deny) },
        RuleDraft { subject: vec![strings(&["oauth2:client:robot"])], ..rule("client", "a.test", Level::OneFactor) },
    ]);
    let target = Target::parse_url("https://a.test/").expect("a URL");
    let robot = caller("robot", &[], Factor::One);
    let question = Question {
        target: &target,
        method: "GET",
        client: ClientAddress::Unknown,
        caller: Some(&robot),
        now: Timestamp::default(),
    };
    let explained = rules.explain(&question, Some("robot"));
    assert_eq!((explained.ruling, explained.rule.as_str()), (Ruling::Forward, "client"));
    assert_eq!(rules.explain(&question, None).rule, "user");
}

#[test]
fn threat_09_globs_see_the_path_and_never_the_query() {
    for (glob, path, expected) in [
        ("/a", "/a", true),
        ("/a", "/a/", false),
        ("/a", "/a?x=1", true),
        ("/a/*", "/a/b", true),
        ("/a/*", "/a/", true),
        ("/a/*", "/a/b/c", false),
        ("/a/**", "/a/", true),
        ("/a/**", "/a/b/c", true),
        ("/a/**", "/a", false),
        ("/a/**", "/ab", false),
        ("/**", "/", true),
        ("/*/edit", "/x/edit", true),
        ("/*/edit", "/x/y/edit", false),
        ("/a/**/edit", "/a/edit", true),
        ("/a/**/edit", "/a/b/c/edit", true),
        ("/a/**/edit", "/a/b/cedit", false),
        ("/*.png", "/x.png", true),
        ("/*.png", "/xpng", false),
        ("/**.png", "/a/b/x.png", true),
        ("/public/**", "/admin?x=/public/", false),
    ] {
        let rule = RuleDraft { path: strings(&[glob]), ..rule("r", "a.test", Level::Bypass) };
        assert_eq!(matches(rule, &format!("https://a.test{path}")), expected, "{glob} {path}");
    }
}

#[test]
fn resources_see_the_raw_query_and_ascii_classes() {
    for (regex, path, expected) in [
        ("^/a$", "/a", true),
        ("^/a$", "/a?x", false),
        (r"^/a\?x=1$", "/a?x=1", true),
        (r"^/a([/?].*)?$", "/a?x=%2F", true),
        (r"^/a([/?].*)?$", "/ab", false),
        ("^/$", "/", true),
        (r"^/\d+$", "/12", true),
        (r"^/[\w-]+$", "/a_b-c", true),
        (r"^/[^\d]$", "/a", true),
        (r"^/[^\d]$", "/1", false),
        (r"^/a\b", "/a-b", true),
        (r"^/[[:alpha:]]+$", "/ab", true),
        (r"^/[]x]$", "/x", true),
        (r"^/[a&&b]$", "/b", true),
        ("^/(?i)admin", "/ADMIN/x", true),
        ("^(/a|/b)/", "/b/x", true),
        ("^/a|^/b", "/bc", true),
    ] {
        let rule = RuleDraft { resources: strings(&[regex]), ..rule("r", "a.test", Level::Bypass) };
        assert_eq!(matches(rule, &format!("https://a.test{path}")), expected, "{regex} {path}");
    }
    // Not Unicode's: an Arabic digit is no \d, an umlaut no \w; but a character stays one character.
    for (regex, text, expected) in
        [(r"^\d$", "\u{661}", false), (r"^\w$", "ä", false), (r"^\W$", "ä", true), ("^.$", "ä", true)]
    {
        let (pattern, _) = pattern::Pattern::parse(regex).expect("sound");
        assert_eq!(pattern.is_match(text.as_bytes()), Some(expected), "{regex} {text}");
    }
}

#[test]
fn a_long_query_does_not_fit_the_stack_and_is_seen_all_the_same() {
    let rules =
        compiled(vec![RuleDraft { resources: strings(&["^/a[?].*end$"]), ..rule("r", "a.test", Level::Bypass) }]);
    for length in [1, 900, 1018, 1019, 1020, 1021, 1022, 1023, 5000] {
        let url = format!("https://a.test/a?{}end", "x".repeat(length));
        assert_eq!(said(&rules, &url, None).0, Ruling::Forward, "{length}");
    }
}

#[test]
fn threat_10_an_encoded_question_mark_or_hash_stays_in_the_path() {
    let rules = compiled(vec![
        RuleDraft { path: strings(&["/admin/**"]), ..rule("admin", "a.test", Level::TwoFactor) },
        RuleDraft { path: strings(&["/**/public"]), ..rule("public", "a.test", Level::Bypass) },
    ]);
    for path in ["/admin/x%23/public", "/admin/x%3f/public", "/admin/?/public"] {
        assert_eq!(
            said(&rules, &format!("https://a.test{path}"), None),
            (Ruling::SignIn, "admin".to_owned()),
            "{path}"
        );
    }
}

#[test]
fn threat_11_case_of_a_path_matters_and_falls_to_the_default() {
    let rules = compiled(vec![
        RuleDraft { path: strings(&["/admin/**"]), ..rule("admin", "a.test", Level::TwoFactor) },
        RuleDraft { path: strings(&["/public/**"]), ..rule("public", "a.test", Level::Bypass) },
    ]);
    assert_eq!(said(&rules, "https://a.test/Admin/x", None), (Ruling::Refuse, "default".to_owned()));
}

#[test]
fn threat_12_an_unanchored_regex_is_a_fault() {
    for regex in ["/admin", "^/admin|/x", "(?m)^/a", ".*", "(^/a)?b"] {
        let found = faults(vec![RuleDraft { resources: strings(&[regex]), ..rule("r", "a.test", Level::Deny) }]);
        assert_eq!(found.len(), 1, "{regex}");
        assert_eq!(found[0].place, Place::Rule { rule: 0, key: "resources", entry: Some(0) });
        assert!(found[0].message.contains("begin it with ^"), "{}", found[0].message);
    }
    for regex in ["^a", "a$", "a", "^a|b$", "^a$|^b", r"^a\.test(?m)$"] {
        let rule = RuleDraft { domain: vec![], domain_regex: strings(&[regex]), ..rule("r", "", Level::Deny) };
        assert!(faults(vec![rule])[0].message.contains("not anchored at both ends"), "{regex}");
    }
}

#[test]
fn threat_56_a_method_is_compared_as_it_came() {
    let rules = compiled(vec![RuleDraft { methods: strings(&["get", "HEAD"]), ..rule("r", "a.test", Level::Bypass) }]);
    for (method, expected) in [("GET", true), ("HEAD", true), ("get", false), ("POST", false), ("TRACE", false)] {
        assert_eq!(asked(&rules, "https://a.test/", method, None, None).0 == Ruling::Forward, expected, "{method}");
    }
}

#[test]
fn threat_67_a_rule_with_networks_refuses_an_unknown_address() {
    let bob = caller("bob", &[], Factor::Two);
    for level in [Level::Bypass, Level::OneFactor, Level::Deny] {
        let rules = compiled(vec![
            RuleDraft {
                networks: strings(&["office", "192.0.2.7/32"]),
                path: strings(&["/x/**"]),
                ..rule("net", "a.test", level)
            },
            rule("open", "a.test", Level::Bypass),
        ]);
        for who in [None, Some(&bob)] {
            let refused = (Ruling::Refuse, "net".to_owned());
            assert_eq!(asked(&rules, "https://a.test/x/", "GET", None, who), refused, "{level:?}");
            // Another clause of the rule says no: the address does not matter.
            assert_eq!(asked(&rules, "https://a.test/y", "GET", None, who).1, "open");
            assert_eq!(asked(&rules, "https://a.test/x/", "GET", Some("198.51.100.1"), who).1, "open");
            for inside in ["10.9.9.9", "192.0.2.7", "fd00::1"] {
                assert_eq!(asked(&rules, "https://a.test/x/", "GET", Some(inside), who).1, "net");
            }
        }
    }
}

#[test]
fn threat_07_the_strictest_reading_holds_and_the_trace_says_which() {
    let rules = compiled(vec![
        RuleDraft { path: strings(&["/admin/**"]), ..rule("admin", "a.test", Level::TwoFactor) },
        RuleDraft { path: strings(&["/**"]), ..rule("rest", "a.test", Level::Bypass) },
    ]);
    let target = Target::parse_url("https://a.test/admin;v=1/x").expect("a URL");
    let question = Question {
        target: &target,
        method: "GET",
        client: ClientAddress::Unknown,
        caller: None,
        now: Timestamp::default(),
    };
    assert_eq!(rules.decide(&question).ruling, Ruling::SignIn);
    let explained = rules.explain(&question, None);
    assert_eq!(explained.reading.as_deref(), Some("/admin/x"));
    assert_eq!(explained.other_reading.as_ref().map(|other| other.rule.as_str()), Some("rest"));
    assert!(explained.to_string().contains("decided for the path read as /admin/x"), "{explained}");
}

#[test]
fn every_fault_at_once_with_its_place_and_what_to_write_instead() {
    let bad = vec![
        RuleDraft {
            domain: strings(&["a.test:8080", "https://a.test", "a.test/x", "*", "a.*.test"]),
            ..rule("r", "", Level::Deny)
        },
        RuleDraft { domain: vec![], policy: None, ..rule("r", "", Level::Deny) },
        RuleDraft {
            path: strings(&["x", "/a?b", "/{a,b}", "/a/../b", "/***"]),
            ..rule("default", "a.test", Level::Deny)
        },
        RuleDraft { networks: strings(&["ofice", "10.0.0.0/33", "nowhere"]), ..rule("n", "a.test", Level::Deny) },
        RuleDraft {
            resources: strings(&["^(", r"^/(?P<user>\w+)", "^/(a{1000}){1000}"]),
            ..rule("x", "a.test", Level::Deny)
        },
        RuleDraft {
            subject: vec![strings(&["role:x"]), strings(&["grup:x"]), strings(&["bob"]), vec![], strings(&["user:"])],
            ..rule("s", "a.test", Level::Deny)
        },
        RuleDraft { methods: strings(&["*"]), ..rule("m", "a.test", Level::Deny) },
        RuleDraft { subject: vec![strings(&["user:bob"])], ..rule("b", "a.test", Level::Bypass) },
        rule("u", "{user}.a.test", Level::Bypass),
        RuleDraft { resources: strings(&["^/(?P<User>.+)"]), ..rule("g", "a.test", Level::Bypass) },
    ];
    let expected: &[(usize, &str, Option<usize>, &str)] = &[
        (0, "domain", Some(0), "has a port"),
        (0, "domain", Some(1), "has a scheme"),
        (0, "domain", Some(2), "has a path"),
        (0, "domain", Some(3), "domain_regex"),
        (0, "domain", Some(4), "domain_regex"),
        (1, "name", None, "another rule is called \"r\""),
        (1, "domain", None, "no domain"),
        (1, "policy", None, "no policy"),
        (2, "name", None, "choose another name"),
        (2, "path", Some(0), "write \"/x\""),
        (2, "path", Some(1), "query"),
        (2, "path", Some(2), "entry of its own"),
        (2, "path", Some(3), "segment"),
        (2, "path", Some(4), "**"),
        (3, "networks", Some(0), "did you mean \"office\"?"),
        (3, "networks", Some(1), "not an address or a network"),
        (3, "networks", Some(2), "define it under networks"),
        (4, "resources", Some(0), "not valid"),
        (4, "resources", Some(1), "write \"User\""),
        (4, "resources", Some(2), "too large"),
        (5, "subject", Some(0), "\"role\" do not exist"),
        (5, "subject", Some(1), "did you mean group:x?"),
        (5, "subject", Some(2), "user:bob or group:bob"),
        (5, "subject", Some(3), "everybody"),
        (5, "subject", Some(4), "names nobody"),
        (6, "methods", Some(0), "leave the key out"),
        (7, "policy", None, "bypass"),
        (8, "policy", None, "bypass"),
        (9, "policy", None, "bypass"),
    ];
    let found = faults(bad);
    for (fault, (rule, key, entry, words)) in found.iter().zip(expected) {
        assert_eq!(fault.place, Place::Rule { rule: *rule, key, entry: *entry }, "{}", fault.message);
        assert!(fault.message.contains(words), "{:?} lacks {words:?}", fault.message);
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn faults_of_networks() {
    let networks = vec![("a".to_owned(), strings(&["10.0.0.0/8", "x"])), ("a".to_owned(), vec![])];
    let found = RuleSet::compile(&PolicyDraft { networks, ..PolicyDraft::default() }).expect_err("faults");
    let places: Vec<Place> = found.into_iter().map(|fault| fault.place).collect();
    let second = Place::Network { network: 1, entry: None };
    assert_eq!(places, [Place::Network { network: 0, entry: Some(1) }, second, second]);
}

#[test]
fn rules_that_no_request_can_reach() {
    let paths = |name, domain, path: &[&str]| RuleDraft { path: strings(path), ..rule(name, domain, Level::Deny) };
    let some = RuleDraft { methods: strings(&["GET"]), ..rule("some", "a.test", Level::Deny) };
    for (earlier, later, expected) in [
        (rule("e", "a.test", Level::Bypass), rule("l", "a.test", Level::Deny), true),
        (rule("e", "*.test", Level::Bypass), rule("l", "a.test", Level::Deny), true),
        (rule("e", "*.test", Level::Bypass), rule("l", "{user}.a.test", Level::Deny), true),
        (rule("e", "*.a.test", Level::Bypass), rule("l", "a.test", Level::Deny), false),
        (rule("e", "a.test", Level::Bypass), paths("l", "a.test", &["/x"]), true),
        (paths("e", "a.test", &["/x/**"]), paths("l", "a.test", &["/x/y/*", "/x/z"]), true),
        (paths("e", "a.test", &["/x/**"]), paths("l", "a.test", &["/x/y/*", "/z"]), false),
        (paths("e", "a.test", &["/x/**"]), paths("l", "a.test", &["/x"]), false),
        (paths("e", "a.test", &["/**"]), rule("l", "a.test", Level::Deny), true),
        (some.clone(), rule("l", "a.test", Level::Deny), false),
        (rule("e", "a.test", Level::Bypass), some, true),
    ] {
        let case = format!("{earlier:?} {later:?}");
        let found = warnings(vec![earlier, later]);
        assert_eq!(found.len(), usize::from(expected), "{case} {found:?}");
    }
}

#[test]
fn the_trace_speaks_to_a_person() {
    let rules = compiled(vec![
        RuleDraft { path: strings(&["/public/**"]), ..rule("public", "a.test", Level::Bypass) },
        rule("elsewhere", "b.test", Level::Bypass),
        RuleDraft { subject: vec![strings(&["group:dev"])], ..rule("dev", "*.test", Level::TwoFactor) },
        rule("late", "a.test", Level::Deny),
    ]);
    let bob = caller("bob", &["dev"], Factor::One);
    let target = Target::parse_url("https://a.test/x").expect("a URL");
    let question = Question {
        target: &target,
        method: "GET",
        client: ClientAddress::Unknown,
        caller: Some(&bob),
        now: Timestamp::default(),
    };
    let explained = rules.explain(&question, None);
    let json = serde_json::to_value(&explained).expect("JSON");
    let expected = serde_json::json!({
        "verdict": "step_up", "policy": "two_factor", "rule": "dev",
        "trace": [
            { "rule": "public", "matched": false, "because": "path /x is not below /public/**" },
            { "rule": "elsewhere", "matched": false, "because": "host a.test is not b.test" },
            { "rule": "dev", "matched": true, "because": "host a.test is *.test; user bob of dev is group:dev" },
            { "rule": "late", "matched": true,
              "because": "host is a.test; it does not count, since \"dev\" above decided" },
        ],
    });
    assert_eq!(json, expected);
    assert!(explained.to_string().starts_with("step_up   rule \"dev\", policy two_factor\n"), "{explained}");
}

/// Everything from the top, without the index.
fn naive(rules: &RuleSet, question: &Question<'_>) -> (Ruling, String) {
    let decide = |path: &str| {
        rules.with_reading(question, path, None, |reading| {
            let decided = rules.first_match(reading, rules.rules.iter());
            decided
                .map_or((rule::ruling(rules.default, Answer::Yes, reading.caller), "default".to_owned()), |decided| {
                    (decided.ruling, decided.rule.to_string())
                })
        })
    };
    let all: Vec<_> = question.target.readings().map(decide).collect();
    let strictest = all.iter().map(|(ruling, _)| *ruling).max().expect("a reading");
    all.into_iter().find(|(ruling, _)| *ruling == strictest).expect("a reading")
}

fn some_of(entries: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(entries), 0..=most).prop_map(|all| strings(&all))
}

prop_compose! {
    fn any_rule()(
        domain in some_of(&["a.test", "b.test", "*.test", "*.a.test", "{user}.test", "{group}.a.test"], 2),
        domain_regex in some_of(&[r"^a\.test$", r"^(a|b)\.test$", r"^.*\.test$", r"^(?P<User>\w+)\.a\.test$"], 1),
        path in some_of(&["/", "/a", "/a/**", "/a/*", "/a/b", "/*/b", "/**", "/**/c"], 2),
        resources in some_of(&["^/a", "^/a/b$", "^/(a|b)/", r"^/.*\?x", "^/(?P<Group>[a-z]+)", "^/a?", "^/(?i)a/"], 2),
        methods in some_of(&["GET", "post"], 1),
        networks in some_of(&["office", "192.0.2.0/24"], 1),
        subject in prop::collection::vec(some_of(&["user:a", "group:b", "user:c"], 2), 0..2),
        policy in prop::sample::select(vec![Level::Bypass, Level::OneFactor, Level::TwoFactor, Level::Deny]),
    ) -> RuleDraft {
        let subject = subject.into_iter().filter(|all| !all.is_empty()).collect();
        let domain = if domain.is_empty() && domain_regex.is_empty() { strings(&["a.test"]) } else { domain };
        RuleDraft { name: None, domain, domain_regex, policy: Some(policy), path, resources, methods, networks, subject }
    }
}

proptest! {
    #[test]
    fn index_and_naive_agree_and_nobody_is_forwarded_but_by_bypass(
        drafts in prop::collection::vec(any_rule(), 0..12),
        default in prop::sample::select(vec![Level::Bypass, Level::OneFactor, Level::TwoFactor, Level::Deny]),
        host in prop::sample::select(vec!["a.test", "b.test", "c.a.test", "b.a.test", "x.test", "test"]),
        path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/b/b", "/a/b/c", "/A/b", "/a?x", "/b/c?x=/a", "/a;v/b"]),
        method in prop::sample::select(vec!["GET", "POST", "get"]),
        ip in prop::sample::select(vec![None, Some("10.1.1.1"), Some("192.0.2.1"), Some("198.51.100.1")]),
        who in prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]),
    ) {
        // A bypass that names a subject is a fault, so such rules ask for one factor here.
        let rules: Vec<RuleDraft> = drafts.into_iter().map(|mut draft| {
            let alone = PolicyDraft {
                networks: vec![("office".to_owned(), strings(&["10.0.0.0/8"]))],
                rules: vec![draft.clone()],
                ..PolicyDraft::default()
            };
            if RuleSet::compile(&alone).is_err() {
                draft.policy = Some(Level::OneFactor);
            }
            draft
        }).collect();
        let networks = vec![("office".to_owned(), strings(&["10.0.0.0/8"]))];
        let rules = RuleSet::compile(&PolicyDraft { default: Some(default), networks, rules }).expect("sound").0;
        let who = who.map(|name| caller(name, &["b"], Factor::One));
        let target = Target::parse_url(&format!("https://{host}{path}")).expect("a URL");
        let client = ip.map_or(ClientAddress::Unknown, |ip| ClientAddress::Known(ip.parse().expect("an address")));
        let question = Question { target: &target, method, client, caller: who.as_ref(), now: Timestamp::default() };
        let decided = rules.decide(&question);
        prop_assert_eq!((decided.ruling, decided.rule.to_string()), naive(&rules, &question));
        let explained = rules.explain(&question, None);
        prop_assert_eq!((explained.ruling, explained.level, explained.rule.as_str()), (decided.ruling, decided.level, &**decided.rule));
        if who.is_none() && decided.ruling == Ruling::Forward {
            prop_assert_eq!(decided.level, Level::Bypass);
        }
    }
}

#[test]
fn more_nested_rules_than_the_index_merges_are_asked_all_the_same() {
    let nested = (1..60).map(|depth| RuleDraft {
        path: vec![format!("{}**", "/a".repeat(depth) + "/")],
        methods: strings(&["POST"]),
        ..rule(&format!("depth {depth}"), "a.test", Level::Deny)
    });
    let rules = compiled(nested.chain([rule("last", "a.test", Level::Bypass)]).collect());
    let url = format!("https://a.test{}/x", "/a".repeat(59));
    assert_eq!(said(&rules, &url, None).1, "last");
    assert_eq!(asked(&rules, &url, "POST", None, None).1, "depth 1");
}
