//! What each clause of a rule matches, a table of cases a clause.

use super::*;

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
    let question = Question { caller: Some(&robot), ..Question::anonymous(&target) };
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

/// `key operator value`, as conditions of which all must hold.
fn conditions(all: &[(&str, Option<Operator>, Option<&str>)]) -> Vec<QueryDraft> {
    let condition = |(key, operator, value): &(&str, Option<Operator>, Option<&str>)| QueryDraft {
        key: (*key).to_owned(),
        operator: *operator,
        value: value.map(str::to_owned),
    };
    all.iter().map(condition).collect()
}

/// What a condition on `x` says about a query: it holds, it does not, or nobody can say.
fn held(operator: Option<Operator>, value: Option<&str>, query: &str) -> &'static str {
    let conditional =
        RuleDraft { query: vec![conditions(&[("x", operator, value)])], ..rule("q", "a.test", Level::Bypass) };
    let rules = compiled(vec![conditional, rule("others", "a.test", Level::OneFactor)]);
    let (ruling, rule) = said(&rules, &format!("https://a.test/{query}"), None);
    match (ruling, rule.as_str()) {
        (Ruling::Forward, "q") => "yes",
        (Ruling::SignIn, "others") => "no",
        (Ruling::Refuse, "q") => "refused",
        other => panic!("{operator:?} {value:?} {query}: {other:?}"),
    }
}

#[test]
fn query_conditions_compare_what_a_parameter_holds() {
    use Operator::{Absent, Equal, NotEqual, NotPattern, Pattern, Present};
    for (operator, value, matching, others) in [
        (
            Some(Equal),
            Some("a b"),
            &["?x=a%20b", "?x=a+b", "?y=1&x=a+b", "?x=a+b&x=a%20b", "?%78=a+b"] as &[&str],
            &["", "?", "?x", "?x=", "?x=c", "?y=a+b", "?x=A+B", "?xx=a+b", "?x=a%2520b", "?x=a%2Bb", "?y[x]=a+b"]
                as &[&str],
        ),
        (Some(Equal), Some(""), &["?x", "?x=", "?x=&x="], &["", "?y", "?x=1"]),
        (Some(NotEqual), Some("1"), &["", "?y=1", "?x", "?x=2", "?x=2&x=3"], &["?x=1", "?x=1&x=1", "?x=%31"]),
        (Some(NotEqual), Some(""), &["?x=1"], &["", "?x", "?x=", "?y=1"]),
        (Some(Present), None, &["?x", "?x=", "?x=1", "?y&x", "?x&x=1"], &["", "?y", "?xx=1", "?y=x", "?y=%26x"]),
        (Some(Absent), None, &["", "?y", "?xx=1", "?y=x", "?a;b=1"], &["?x", "?x=", "?x=1", "?y&x"]),
        (Some(Pattern), Some("^(1|2)$"), &["?x=1", "?x=2", "?x=2&x=2"], &["", "?x", "?x=12", "?x=3", "?y=1"]),
        (Some(Pattern), Some("^$"), &["?x", "?x="], &["", "?y", "?x=1"]),
        // A line break is no way around.
        (Some(Pattern), Some("^.*admin"), &["?x=admin", "?x=%0Aadmin", "?x=a%0D%0Aadmin"], &["", "?x=1"]),
        (Some(NotPattern), Some("^(1|2)$"), &["", "?x", "?x=12", "?y=1"], &["?x=1", "?x=2&x=2"]),
        (Some(NotPattern), Some("^.*[.][.]"), &["", "?x=a"], &["?x=..", "?x=%0A../../a"]),
        (Some(NotPattern), Some("^$"), &["?x=1"], &["", "?x", "?y=1"]),
        // The default operator.
        (None, Some("1"), &["?x=1"], &["", "?x", "?x=2"]),
        (None, None, &["?x", "?x=1"], &["", "?y"]),
    ] {
        for (queries, expected) in [(matching, "yes"), (others, "no")] {
            for query in queries {
                assert_eq!(held(operator, value, query), expected, "{operator:?} {value:?} {query}");
            }
        }
    }
}

/// Two values, of which applications take the one or the other; names that only some take for the same; `;` that only some take for an
/// end; what only some can read. Whatever the rule is about, nobody gets around it.
#[test]
fn a_query_that_is_read_in_two_ways_is_refused_where_it_matters() {
    use Operator::{Absent, Equal, NotEqual, Pattern, Present};
    let long = format!("?{}", "a&".repeat(600));
    let many = format!("?{}", "x=1&".repeat(20));
    for (operator, value, doubtful, plain) in [
        (
            Equal,
            Some("1"),
            &[
                "?x=1&x=2",
                "?x=2&x=1",
                "?x=1&x",
                "?X=1",
                "?x[]=1",
                "?x[0]=1",
                "?+x=1",
                "?%20x=1",
                "?x%00=1",
                "?x%00y=1",
                "?a=b;x=1",
                "?x=1;a=b",
                "?x=1;",
                "?a;x=1",
                "?x=1&y&x=3",
                "?[x]=1",
                "?%5Bx%5D=1",
                "?x]=1",
                "?]x=1",
                "?_x=1",
                "?%u0078=1",
                "?a=1;%u0078=1",
                "?x=%u0031",
                "?x=1%00",
                "?x=1%zz",
            ] as &[&str],
            &["?x=1&y=2", "?x=1&x=1", "?y=2&z=1", "?x=2&X=3", "?a=1;b=1", "?a=%zz", "?xy=1", "?x1=1"] as &[&str],
        ),
        (NotEqual, Some("1"), &["?x=1&x=2", "?x=2&X=1", "?a;x=1", "?x[]=1"], &["?x=2&x=3", "?a;x=2"]),
        (
            Present,
            None,
            &["?X", "?x[]=1", "?a;x", "?x=1;a", "?x=%zz", "?x=%", "?%09x=1"],
            &["?x&x", "?a;b", "?y=%zz", "?x=%41"],
        ),
        (Absent, None, &["?X", "?x[]=1", "?a;x", "?x=%zz"], &["?x", "?a;y", "?y=%zz"]),
        (Pattern, Some("^a"), &["?x=a&x=b", "?x=a;", "?x=a%zz", "?x=b&x%5B1%5D=a"], &["?x=a&x=ab", "?x=b"]),
        (Pattern, Some("^[0-9]+$"), &["?x=1&x=2", "?x=1&[x]=../../y"], &["?x=1", "?x=a&x=b"]),
    ] {
        for (queries, expected) in [(doubtful, true), (plain, false)] {
            for query in queries {
                assert_eq!(held(Some(operator), value, query) == "refused", expected, "{operator:?} {value:?} {query}");
            }
        }
        for query in [&long, &many] {
            assert_eq!(held(Some(operator), value, query), "refused", "{operator:?} {value:?}");
        }
    }
}

#[test]
fn query_conditions_are_an_or_of_ands_and_name_nobody() {
    let either = vec![
        conditions(&[("x", None, Some("1")), ("y", Some(Operator::Absent), None)]),
        conditions(&[("z", None, None)]),
    ];
    let rules = compiled(vec![
        RuleDraft { query: either, ..rule("some", "a.test", Level::Bypass) },
        rule("others", "a.test", Level::OneFactor),
    ]);
    for (query, expected) in [
        ("?x=1", (Ruling::Forward, "some")),
        ("?x=1&y", (Ruling::SignIn, "others")),
        ("?x=2", (Ruling::SignIn, "others")),
        ("?x=1&y&z", (Ruling::Forward, "some")),
        ("?z=anything", (Ruling::Forward, "some")),
        ("", (Ruling::SignIn, "others")),
        (&*format!("?long={}&z", "x".repeat(5000)), (Ruling::Forward, "some")),
    ] {
        let (ruling, rule) = said(&rules, &format!("https://a.test/p{query}"), None);
        assert_eq!((ruling, rule.as_str()), expected, "{query}");
    }
}

/// A page on one host tells nothing of the others that a rule is for.
#[test]
fn the_reason_names_the_domain_that_matched() {
    let draft =
        RuleDraft { domain: strings(&["a.test", "payroll.test", "*.b.test"]), ..rule("r", "a.test", Level::OneFactor) };
    let rules = compiled(vec![draft]);
    let because = |url: &str| {
        let target = Target::parse_url(url).expect("a URL");
        let question = Question::anonymous(&target);
        rules.explain(&question, None).trace.remove(0).because
    };
    assert_eq!(because("https://a.test/"), "host is a.test");
    assert_eq!(because("https://x.b.test/"), "host x.b.test is *.b.test");
    assert_eq!(because("https://c.test/"), "host c.test is not a.test or payroll.test or *.b.test");
}

/// A page is told no more than it asks for, and the rule that decides always.
#[test]
fn a_trace_within_bounds_holds_what_decides() {
    let many = |domain: &str, count: usize| -> Vec<RuleDraft> {
        let folder = |number| RuleDraft {
            path: vec![format!("/{number}")],
            ..rule(&format!("{domain} {number}"), domain, Level::Deny)
        };
        (0..count).map(folder).collect()
    };
    let rules =
        compiled([many("b.test", 40), many("a.test", 40), vec![rule("last", "a.test", Level::Bypass)]].concat());
    for (path, decisive, here) in [("7", "a.test 7", 10), ("33", "a.test 33", 11), ("none", "last", 11)] {
        let target = Target::parse_url(&format!("https://a.test/{path}")).expect("a URL");
        let question = Question::anonymous(&target);
        let (whole, bounded) = (rules.explain(&question, None), rules.explain_within(&question, None, 10));
        assert_eq!((whole.trace.len(), whole.untold), (81, 0));
        assert_eq!((bounded.ruling, &bounded.rule), (whole.ruling, &whole.rule));
        assert_eq!(bounded.decisive().map(|place| &*bounded.trace[place].rule), Some(decisive));
        let elsewhere = bounded.trace.iter().filter(|line| line.is_for_other_hosts).count();
        assert_eq!((elsewhere, bounded.trace.len() - elsewhere, bounded.untold), (10, here, 81 - 10 - here), "{path}");
        assert!(bounded.trace.iter().all(|line| whole.trace.contains(line)));
    }
}
