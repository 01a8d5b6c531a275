//! What the compiler says of rules that are wrong or that no request can reach.

use super::*;

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

/// Where this engine and RE2 part, and a deny would be another rule than it seems.
#[test]
fn threat_12_what_re2_refuses_or_reads_otherwise() {
    for (regex, told) in [
        (r"^/files/[.-\w]+$", "ends in a class"),
        (r"^/[+-\d]", "ends in a class"),
        (r"^/[!-[:alpha:]]", "ends in a class"),
        ("^/users/[[:digits:]]+$", "no class that RE2 knows"),
        ("^/[[:x]", "no class that RE2 knows"),
        ("^/[a--z]", "--"),
        ("(?x)^/a b", "'x'"),
        ("^/(?u:a)", "'u'"),
        ("(?iR)^/a", "'R'"),
        ("^/a++$", "repeats a repetition"),
        ("^/a{2}*$", "repeats a repetition"),
        ("^/a+??b", "repeats a repetition"),
        ("^/a{ 2}$", "reads as text"),
        ("^/a{2 , 3}$", "reads as text"),
        ("^/a{,3}$", "reads as text"),
        (r"^/\u0041", r"\u"),
    ] {
        let found = faults(vec![RuleDraft { resources: strings(&[regex]), ..rule("r", "a.test", Level::Deny) }]);
        assert!(found.len() == 1 && found[0].message.contains(told), "{regex}: {:?}", found[0].message);
    }
    for (regex, path, matches) in [
        (r"^/[\w.-]+$", "/a.b-c", true),
        (r"^/[-\w]+$", "/a-b", true),
        (r"^/[\w-.]+$", "/a-b.c", true),
        (r"^/[a-z-9]+$", "/b-9", true),
        (r"^/[a-z-9]+$", "/5", false),
        (r"^/[^]a-]$", "/]", false),
        (r"^/[^]a-]$", "/b", true),
        (r"^/[[:^digit:]_]$", "/7", false),
        (r"^/[\p{L}-_]+$", "/a-_", true),
        (r"^/[\pL-]{2,3}?$", "/a-", true),
        (r"^/\x{41}+\x42{2}\p{Lu}*$", "/AABBZ", true),
        (r"^/[\x{41}-\x{43}-\d]+$", "/B-7", true),
        (r"^/(?:ab{1}?c){2}5*$", "/abcabc55", true),
        (r"^/a{2,}5+,*$", "/aa5,,", true),
        (r"^/a+(?:b+)*\++$", "/aabb+", true),
        (r"^/[[:word:]-]+$", "/a_-", true),
        (r"^/a\<b$", "/a<b", true),
        (r"^/a[\<]b$", "/a<b", true),
        (r"^/(?i:AB)(?P<x>c)(?:d)$", "/abcd", true),
    ] {
        let rules = compiled(vec![RuleDraft { resources: strings(&[regex]), ..rule("r", "a.test", Level::Bypass) }]);
        let target = Target::parse_url(&format!("https://a.test{path}")).expect("a URL");
        let ruling = rules.decide(&Question::anonymous(&target)).ruling;
        assert_eq!(ruling == Ruling::Forward, matches, "{regex} {path}");
    }
}

/// A deny that can match nobody, or no host, lets everybody by.
#[test]
fn what_nothing_can_be_is_a_fault() {
    for subject in ["user: bob", "group:banned ", "group: x", " user:bob", "org: acme"] {
        let found = faults(vec![RuleDraft { subject: vec![strings(&[subject])], ..rule("r", "a.test", Level::Deny) }]);
        assert!(found[0].message.contains("a blank too many"), "{subject:?}: {:?}", found[0].message);
    }
    for regex in [
        r"^Admin\.example\.com$",
        r"^[A-Z]+\.example\.com$",
        r"^(Ab|Cd)\.example\.com$",
        r"^admin\.example\.com:8443$",
        r"^admin/\.example\.com$",
        "^2001:db8::1$",
        "^é$",
    ] {
        let draft = RuleDraft { domain: vec![], domain_regex: strings(&[regex]), ..rule("r", "", Level::Deny) };
        let found = faults(vec![draft]);
        assert!(found[0].message.contains("no host can match"), "{regex}: {:?}", found[0].message);
    }
    for (regex, url) in [
        ("(?i)^Admin\\.example\\.com$", "https://admin.example.com/"),
        (r"^(?:app|App)\.example\.com$", "https://app.example.com/"),
        (r"^app\.example\.com(:\d+)?$", "https://app.example.com/"),
        (r"^[^/]+\.example\.com$", "https://app.example.com/"),
        (r"^\[2001:db8::1\]$", "https://[2001:db8::1]/"),
    ] {
        let draft = RuleDraft { domain: vec![], domain_regex: strings(&[regex]), ..rule("r", "", Level::Bypass) };
        let target = Target::parse_url(url).expect("a URL");
        assert_eq!(compiled(vec![draft]).decide(&Question::anonymous(&target)).ruling, Ruling::Forward, "{regex}");
    }
}

fn condition(key: &str, operator: Option<Operator>, value: Option<&str>) -> QueryDraft {
    QueryDraft { key: key.to_owned(), operator, value: value.map(str::to_owned) }
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
        RuleDraft {
            query: vec![
                vec![condition("", None, None), condition("x", Some(Operator::Present), Some("1"))],
                vec![condition("x", Some(Operator::Equal), None)],
                vec![condition("x", Some(Operator::Pattern), Some("1"))],
                vec![condition("x", Some(Operator::NotPattern), Some("^("))],
                vec![condition("x", Some(Operator::Pattern), Some("^(?P<User>.*)$"))],
                vec![],
                vec![condition("x", None, Some("")), condition("user%20id", None, None)],
                vec![condition("x", Some(Operator::NotEqual), Some("a%2Fb"))],
            ],
            ..rule("q", "a.test", Level::Deny)
        },
        RuleDraft { max_auth_age: Some(Duration::from_secs(60)), ..rule("o", "a.test", Level::Bypass) },
        RuleDraft { max_auth_age: Some(Duration::from_secs(60)), ..rule("p", "a.test", Level::Deny) },
        RuleDraft { max_auth_age: Some(Duration::ZERO), ..rule("z", "a.test", Level::OneFactor) },
        RuleDraft { methods: strings(&["m-search"]), ..rule("h", "a.test", Level::Deny) },
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
        (5, "subject", Some(0), "there is no role \"x\""),
        (5, "subject", Some(1), "did you mean group:x?"),
        (5, "subject", Some(2), "user:bob or group:bob"),
        (5, "subject", Some(3), "everybody"),
        (5, "subject", Some(4), "names nobody"),
        (6, "methods", Some(0), "leave the key out"),
        (7, "policy", None, "bypass"),
        (8, "policy", None, "bypass"),
        (9, "policy", None, "bypass"),
        (10, "query", Some(0), "names no parameter"),
        (10, "query", Some(0), "looks at no value"),
        (10, "query", Some(1), "needs something to compare with"),
        (10, "query", Some(2), "not anchored"),
        (10, "query", Some(3), "not valid"),
        (10, "query", Some(4), "another name"),
        (10, "query", Some(5), "hold for everything"),
        (10, "query", Some(6), "the value of \"x\" is empty"),
        (10, "query", Some(6), "would never match"),
        (10, "query", Some(7), "would never match"),
        (11, "max_auth_age", None, "too old"),
        (12, "max_auth_age", None, "too old"),
        (13, "max_auth_age", None, "15m"),
        (14, "methods", Some(0), "leave the key out"),
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
        (
            RuleDraft { query: vec![vec![condition("x", None, None)]], ..rule("e", "a.test", Level::Bypass) },
            rule("l", "a.test", Level::Deny),
            false,
        ),
        (rule("e", "a.test", Level::Bypass), some, true),
    ] {
        let case = format!("{earlier:?} {later:?}");
        let found = warnings(vec![earlier, later]);
        assert_eq!(found.len(), usize::from(expected), "{case} {found:?}");
    }
}

/// `/x/**` leaves `/x` to whatever comes next.
#[test]
fn folders_whose_bare_name_falls_to_a_laxer_rule() {
    let paths = |name, domain, path: &[&str]| RuleDraft { path: strings(path), ..rule(name, domain, Level::Deny) };
    let closed = || paths("closed", "a.test", &["/x/**"]);
    let open = |domain| rule("open", domain, Level::OneFactor);
    let by_method = |method: &str, rule: RuleDraft| RuleDraft { methods: strings(&[method]), ..rule };
    for (rules, expected) in [
        (vec![closed(), open("a.test")], Some("falls to \"open\" (one_factor): write [\"/x\", \"/x/**\"]")),
        (vec![closed(), open("*.test")], Some("\"open\"")),
        (vec![paths("closed", "*.test", &["/x/**"]), open("*.test")], Some("\"open\"")),
        // It is not the next for all of the domain.
        (vec![paths("closed", "*.test", &["/x/**"]), open("a.test")], None),
        (vec![closed(), open("b.test")], None),
        (vec![paths("closed", "a.test", &["/x/**", "/x"]), open("a.test")], None),
        (vec![paths("closed", "a.test", &["/x/**", "/x*"]), open("a.test")], None),
        (vec![paths("bare", "a.test", &["/x"]), closed(), open("a.test")], None),
        (vec![closed(), paths("bare", "a.test", &["/x"]), open("a.test")], None),
        (vec![closed(), rule("strict", "a.test", Level::Deny), open("*.test")], None),
        (vec![paths("closed", "a.test", &["/x/y/**", "/z/**"]), paths("inner", "a.test", &["/x/**"])], None),
        (vec![RuleDraft { policy: Some(Level::Bypass), ..closed() }, open("a.test")], None),
        (vec![RuleDraft { mode: Mode::Report, ..closed() }, open("a.test")], None),
        (vec![closed(), RuleDraft { mode: Mode::Report, ..open("a.test") }], None),
        (vec![by_method("POST", closed()), by_method("GET", open("a.test"))], None),
        (vec![by_method("POST", closed()), by_method("POST", open("a.test"))], Some("\"open\"")),
        // It has a rule of its own, whatever that says.
        (
            vec![
                closed(),
                RuleDraft { policy: Some(Level::Bypass), ..paths("bare", "a.test", &["/x"]) },
                open("a.test"),
            ],
            None,
        ),
        // Nobody can tell whether that takes it.
        (
            vec![
                closed(),
                RuleDraft { domain: vec![], domain_regex: strings(&["^(a|b)\\.test$"]), ..paths("r", "", &["/x*"]) },
                open("*.test"),
            ],
            None,
        ),
        (
            vec![
                closed(),
                RuleDraft { domain: vec![], domain_regex: strings(&["^(a|b)\\.test$"]), ..paths("r", "", &["/y"]) },
                open("*.test"),
            ],
            Some("\"open\""),
        ),
        (
            vec![paths("closed", "{user}.test", &["/x/**"]), rule("rest", "{user}.test", Level::Deny), open("*.test")],
            None,
        ),
        (vec![paths("closed", "{user}.test", &["/x/**"]), open("*.test")], Some("\"open\"")),
        (vec![closed(), RuleDraft { resources: strings(&["^/x$"]), ..rule("r", "a.test", Level::Bypass) }], None),
        // All of the site has no bare name.
        (vec![paths("site", "a.test", &["/**"])], None),
        (vec![closed()], None),
    ] {
        let case = format!("{rules:?}");
        let found = warnings(rules);
        assert_eq!(found.len(), usize::from(expected.is_some()), "{case} {found:?}");
        for (warning, expected) in found.iter().zip(expected) {
            assert!(warning.message.contains(expected), "{case} {warning:?}");
        }
    }
    let lax = PolicyDraft { rules: vec![closed()], default: Some(Level::OneFactor), ..PolicyDraft::default() };
    let (_, found) = RuleSet::compile(&lax).expect("sound rules");
    assert!(matches!(&found[..], [one] if one.message.contains("falls to \"default\"")), "{found:?}");
}

#[test]
fn what_holds_and_is_hardly_meant_is_a_warning() {
    let query = |operator, value| RuleDraft {
        query: vec![vec![condition("x", Some(operator), Some(value))]],
        ..rule("q", "a.test", Level::Deny)
    };
    let fresh = |seconds| RuleDraft {
        max_auth_age: Some(Duration::from_secs(seconds)),
        ..rule("m", "a.test", Level::OneFactor)
    };
    for (written, expected) in [
        (query(Operator::Equal, ""), Some("operator: absent")),
        (query(Operator::Pattern, "^$"), Some("operator: absent")),
        (query(Operator::Pattern, "^[a-z]*"), Some("operator: absent")),
        (query(Operator::Pattern, "^a"), None),
        (query(Operator::NotPattern, "^$"), None),
        (query(Operator::NotEqual, ""), None),
        (fresh(9), Some("asked without end")),
        (fresh(10), None),
    ] {
        let case = format!("{written:?}");
        let found = warnings(vec![written]);
        assert_eq!(found.len(), usize::from(expected.is_some()), "{case} {found:?}");
        for (warning, expected) in found.iter().zip(expected) {
            assert!(warning.message.contains(expected), "{case} {warning:?}");
        }
    }
}

#[test]
fn networks_that_overlap_are_warned_of() {
    let networks = [
        ("office", &["10.0.0.0/8", "fd00::/8"][..]),
        ("home", &["192.0.2.7", "192.0.2.0/24"]),
        ("lab", &["10.1.0.0/16", "::ffff:198.51.100.0/120"]),
        ("guests", &["198.51.0.0/16"]),
    ];
    let networks = networks.map(|(name, all)| (name.to_owned(), strings(all))).into();
    let (_, warnings) = RuleSet::compile(&PolicyDraft { networks, ..PolicyDraft::default() }).expect("sound networks");
    let told: Vec<_> = warnings.iter().map(|warning| (warning.place, warning.message.as_str())).collect();
    let at = |network, entry| Place::Network { network, entry: Some(entry) };
    assert_eq!(
        told,
        [
            (at(1, 1), "192.0.2.0/24 overlaps with 192.0.2.7/32 of the same network: keep the wider one"),
            (
                at(2, 0),
                "10.1.0.0/16 overlaps with 10.0.0.0/8 of the network \"office\": an address in both is in either, whichever a rule names"
            ),
            (
                at(3, 0),
                "198.51.0.0/16 overlaps with 198.51.100.0/24 of the network \"lab\": an address in both is in either, whichever a rule names"
            ),
        ]
    );
}
