//! The index against a naive walk from top to bottom, on random rules and requests.

use proptest::prelude::*;

use super::*;

/// Ruling, rule, whether the sign-in is too old, and what a rule would have said that only reports.
type Naive = (Ruling, String, bool, Option<Reported>);

/// Everything from the top, without the index.
fn naive(rules: &RuleSet, question: &Question<'_>) -> Naive {
    let decide = |path: &str| {
        rules.with_reading(question, path, None, |reading| {
            let matching = || rules.rules.iter().filter(|rule| rule.answer(reading) != Answer::No);
            let decisive = matching().find(|rule| rule.mode == Mode::Enforce);
            let reported = matching()
                .take_while(|rule| rule.mode == Mode::Report)
                .map(|rule| Reported {
                    rule: Arc::clone(&rule.name),
                    ruling: rule.ruling(rule.answer(reading), reading).0,
                })
                .next();
            match decisive {
                Some(rule) => {
                    let (ruling, is_stale) = rule.ruling(rule.answer(reading), reading);
                    (ruling, rule.name.to_string(), is_stale, reported)
                }
                None => {
                    let ruling = rule::ruling(rules.default, Answer::Yes, reading.caller);
                    (ruling, "default".to_owned(), false, reported)
                }
            }
        })
    };
    let all: Vec<_> = question.target.readings().map(decide).collect();
    let strictest = all.iter().map(|naive| naive.0).max().expect("a reading");
    all.into_iter().find(|naive| naive.0 == strictest).expect("a reading")
}

fn some_of(entries: &'static [&'static str], most: usize) -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(prop::sample::select(entries), 0..=most).prop_map(|all| strings(&all))
}

prop_compose! {
    fn any_condition()(
        key in prop::sample::select(vec!["x", "y"]),
        operator in prop::option::of(prop::sample::select(vec![
            Operator::Equal, Operator::NotEqual, Operator::Present, Operator::Absent, Operator::Pattern, Operator::NotPattern,
        ])),
    ) -> QueryDraft {
        let needs_none = matches!(operator, None | Some(Operator::Present | Operator::Absent));
        QueryDraft { key: key.to_owned(), operator, value: (!needs_none).then(|| "^/a".to_owned()) }
    }
}

prop_compose! {
    pub(super) fn any_rule()(
        domain in some_of(&["a.test", "b.test", "*.test", "*.a.test", "{user}.test", "{group}.a.test"], 2),
        domain_regex in some_of(&[r"^a\.test$", r"^(a|b)\.test$", r"^.*\.test$", r"^(?P<User>\w+)\.a\.test$"], 1),
        path in some_of(&["/", "/a", "/a/**", "/a/*", "/a/b", "/*/b", "/**", "/**/c"], 2),
        resources in some_of(&["^/a", "^/a/b$", "^/(a|b)/", r"^/.*\?x", "^/(?P<Group>[a-z]+)", "^/a?", "^/(?i)a/"], 2),
        methods in some_of(&["GET", "post"], 1),
        networks in some_of(&["office", "192.0.2.0/24"], 1),
        query in prop::collection::vec(prop::collection::vec(any_condition(), 1..3), 0..2),
        subject in prop::collection::vec(some_of(&["user:a", "group:b", "user:c", "role:member", "org:o"], 2), 0..2),
        policy in prop::sample::select(vec![Level::Bypass, Level::OneFactor, Level::TwoFactor, Level::Deny]),
        max_auth_age in prop::sample::select(vec![None, None, Some(Duration::from_secs(60))]),
        mode in prop::sample::select(vec![Mode::Enforce, Mode::Enforce, Mode::Report]),
        when in prop::sample::select(vec![
            "", "", "", r#"user.name == "a""#, r#""b" in user.groups"#, r#"request.method == "GET""#, r#"request.query.x == "/a""#,
            r#"request.headers["x-h"] == "1" || user.name == "a""#, r#"!("x-h" in request.headers) && route.name == "r""#,
            r#"user.claims.t == "a" && request.scheme == "https""#,
            r#"request.path.startsWith("/a") || user.level / 0 == 1"#, r#"!(user.name == "a") && has(request.query.y)"#,
        ]),
    ) -> RuleDraft {
        let subject = subject.into_iter().filter(|all| !all.is_empty()).collect();
        let domain = if domain.is_empty() && domain_regex.is_empty() { strings(&["a.test"]) } else { domain };
        let when = (!when.is_empty()).then(|| when.to_owned());
        RuleDraft { name: None, when, domain, domain_regex, policy: Some(policy), path, resources, methods, networks, subject, query, max_auth_age, mode }
    }
}

/// What the rules may name: a network, a role that `a` holds within an organisation and the group `b` everywhere.
fn names() -> PolicyDraft {
    let binding = |subject: &str, org: Option<&str>| BindingDraft {
        roles: strings(&["member"]),
        subjects: strings(&[subject]),
        org: org.map(ToOwned::to_owned),
        until: None,
    };
    PolicyDraft {
        networks: vec![("office".to_owned(), strings(&["10.0.0.0/8"]))],
        roles: vec![RoleDraft { name: "member".to_owned(), ..RoleDraft::default() }],
        bindings: vec![binding("user:a", Some("o")), binding("group:b", None)],
        orgs: vec![OrgDraft { name: "o".to_owned(), ..OrgDraft::default() }],
        ..PolicyDraft::default()
    }
}

/// A bypass that names a subject is a fault, so such rules ask for one factor here, as does a deny with an age.
pub(super) fn sound(drafts: Vec<RuleDraft>, default: Level) -> RuleSet {
    let rules = drafts
        .into_iter()
        .map(|mut draft| {
            let alone = PolicyDraft { rules: vec![draft.clone()], ..names() };
            if RuleSet::compile(&alone).is_err() {
                draft.policy = Some(Level::OneFactor);
            }
            draft
        })
        .collect();
    RuleSet::compile(&PolicyDraft { default: Some(default), rules, ..names() }).expect("sound").0
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
        age in prop::sample::select(vec![0, 60, 61]),
        header in prop::sample::select(vec![&[][..], &["1"], &["2"], &["1", "1"]]),
        claim in prop::sample::select(vec![None, Some(serde_json::json!("a")), Some(serde_json::json!(1))]),
        route in prop::sample::select(vec![None, Some("r")]),
    ) {
        let rules = sound(drafts, default);
        let who = who.map(|name| claiming(name, claim));
        let mut headers = http::HeaderMap::new();
        for value in header {
            headers.append("x-h", http::HeaderValue::from_static(value));
        }
        let target = Target::parse_url(&format!("https://{host}{path}")).expect("a URL");
        let client = ip.map_or(ClientAddress::Unknown, |ip| ClientAddress::Known(ip.parse().expect("an address")));
        let now = Timestamp::default().after(Duration::from_secs(age));
        let question = Question { target: &target, method, client, caller: who.as_ref(), now, headers: Some(&headers), route };
        let decided = rules.decide(&question);
        let told = (decided.ruling, decided.rule.to_string(), decided.is_stale, decided.reported.clone());
        prop_assert_eq!(told, naive(&rules, &question));
        let explained = rules.explain(&question, None);
        prop_assert_eq!((explained.ruling, explained.level, explained.rule.as_str()), (decided.ruling, decided.level, &**decided.rule));
        if who.is_none() && decided.ruling == Ruling::Forward {
            prop_assert_eq!(decided.level, Level::Bypass);
        }
    }
}

proptest! {
    /// Whoever stands behind may read an encoded slash as a character or as a slash, and parameters or not: none of them is to hear of
    /// a request that the rules forbid for the path it reads.
    #[test]
    fn strictest_is_never_laxer_than_any_reading(
        drafts in prop::collection::vec(any_rule(), 0..8),
        default in prop::sample::select(vec![Level::Bypass, Level::OneFactor, Level::Deny]),
        path in "(/(a|b|%2f|%5C|%2F|\\.\\.|;|c){1,5}){1,3}",
        who in prop::sample::select(vec![None, Some("a"), Some("b")]),
    ) {
        let rules: Vec<RuleDraft> = drafts
            .into_iter()
            .map(|draft| RuleDraft { networks: Vec::new(), domain: strings(&["a.test"]), domain_regex: Vec::new(), resources: Vec::new(), ..draft })
            .collect();
        let rules = sound(rules, default);
        let who = who.map(|name| caller(name, &["b"], Factor::One));
        let decide = |target: &Target| {
            let question = Question { target, method: "GET", client: ClientAddress::Unknown, caller: who.as_ref(), now: Timestamp::default(), headers: None, route: None };
            rules.decide(&question).ruling
        };
        let url = format!("https://a.test{path}");
        if let Ok(target) = Target::parse_url_with(&url, EncodedSlashes::Strictest) {
            let ruling = decide(&target);
            // As somebody reads it who takes all encoded slashes for slashes and resolves what that makes, parameters and all.
            let decoded = path.replace("%2f", "/").replace("%2F", "/").replace("%5C", "/");
            let url = url::Url::parse(&format!("https://a.test{decoded}")).expect("a URL");
            if let Ok(plain) = Target::parse_url(url.as_str()) {
                prop_assert!(ruling >= decide(&plain), "{path} as {url}");
            }
            // And as a character, which no plain path can hold: another one in its place.
            let kept = path.replace("%2f", "x").replace("%2F", "x").replace("%5C", "x");
            if let Ok(plain) = Target::parse_url(&format!("https://a.test{kept}")) {
                prop_assert!(ruling >= decide(&plain), "{path} as {kept}");
            }
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
