//! A decision that forwards allocates nothing, but where an expression is asked (PERFORMANCE.md). A binary of its own, since it counts
//! with an allocator of its own.
#![expect(clippy::expect_used, reason = "a test that cannot go on ends")]

use postern::core::{
    client_ip::ClientAddress,
    ground::Ground,
    identity::{Factor, Identity},
    policy::{
        BindingDraft, Level, LimitDraft, MatchDraft, OrgDraft, PolicyDraft, QueryDraft, Question, RoleDraft, RuleDraft,
        RuleSet, Ruling, Source, Stage,
    },
    target::Target,
    time::Timestamp,
    user::User,
};

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// One rule of every kind, and enough others to choose from.
fn rules() -> RuleSet {
    let rule =
        |domain: &str| RuleDraft { domain: strings(&[domain]), policy: Some(Level::OneFactor), ..RuleDraft::default() };
    let mut rules: Vec<RuleDraft> =
        (0..200).map(|number| RuleDraft { path: vec![format!("/service{number}/**")], ..rule("app.test") }).collect();
    let debug = QueryDraft { key: "debug".to_owned(), operator: None, value: Some("1".to_owned()) };
    rules.extend([
        RuleDraft { path: strings(&["/exact", "/within/*", "/a/*/b"]), ..rule("glob.test") },
        RuleDraft { resources: strings(&[r"^/api/v[0-9]+/(?P<User>[a-z]+)([/?].*)?$"]), ..rule("regex.test") },
        RuleDraft { domain_regex: strings(&[r"^(?P<User>[a-z]+)\.home\.test$"]), domain: vec![], ..rule("") },
        RuleDraft {
            subject: vec![strings(&["group:none"]), strings(&["user:alice", "group:staff"])],
            ..rule("subject.test")
        },
        RuleDraft { subject: vec![strings(&["role:viewer"])], ..rule("role.test") },
        RuleDraft { subject: vec![strings(&["permission:read:pages", "org:acme"])], ..rule("permission.test") },
        RuleDraft { networks: strings(&["office"]), methods: strings(&["GET"]), ..rule("network.test") },
        RuleDraft { query: vec![vec![debug]], ..rule("query.test") },
        RuleDraft { max_auth_age: Some(std::time::Duration::from_secs(900)), ..rule("fresh.test") },
        RuleDraft { policy: Some(Level::Bypass), ..rule("public.test") },
    ]);
    let draft = PolicyDraft {
        rules,
        networks: vec![("office".to_owned(), strings(&["10.0.0.0/8"]))],
        roles: vec![
            RoleDraft { name: "viewer".to_owned(), permissions: strings(&["read:*"]), ..RoleDraft::default() },
            RoleDraft { name: "admin".to_owned(), inherits: strings(&["viewer"]), ..RoleDraft::default() },
        ],
        bindings: vec![
            BindingDraft { roles: strings(&["admin"]), subjects: strings(&["group:staff"]), ..BindingDraft::default() },
            BindingDraft {
                roles: strings(&["viewer"]),
                subjects: strings(&["everyone"]),
                org: Some("acme".to_owned()),
                until: None,
            },
        ],
        orgs: vec![OrgDraft { name: "acme".to_owned(), members: strings(&["user:alice"]), teams: vec![] }],
        ..PolicyDraft::default()
    };
    RuleSet::compile(&draft).expect("sound rules").0
}

#[test]
fn a_decision_that_forwards_allocates_nothing() {
    let rules = rules();
    let user = User {
        name: "alice".to_owned(),
        display_name: "Alice".to_owned(),
        email: None,
        groups: strings(&["dev", "staff"]),
        disabled: false,
        token_version: 1,
        attributes: Default::default(),
    };
    let alice = Identity::new(&user, Factor::One, Timestamp::default(), None).expect("a plain name");
    let mut allocating = Vec::new();
    for url in [
        "https://app.test/service7/x",
        "https://app.test/service199/x?a=1",
        "https://app.test/service199/x;v=1/y",
        "https://glob.test/exact",
        "https://glob.test/a/x/b",
        "https://regex.test/api/v1/alice",
        "https://regex.test/api/v1/alice?page=2",
        "https://alice.home.test/",
        "https://subject.test/",
        "https://role.test/",
        "https://permission.test/",
        "https://network.test/",
        "https://query.test/?debug=1&x=y",
        "https://fresh.test/",
        "https://public.test/",
    ] {
        let target = Target::parse_url(url).expect("a URL");
        let question = Question {
            target: &target,
            method: "GET",
            client: ClientAddress::Known([10, 1, 2, 3].into()),
            caller: Some(&alice),
            now: Timestamp::default(),
            headers: None,
            route: Some("app"),
        };
        // The first builds the automata of regexes.
        assert_eq!(rules.decide(&question).ruling, Ruling::Forward, "{url}");
        let counted = allocation_counter::measure(|| _ = rules.decide(&question));
        if counted.count_total > 0 {
            allocating.push(format!("{url}: {} of {} bytes", counted.count_total, counted.bytes_total));
        }
    }
    assert!(allocating.is_empty(), "{allocating:#?}");
}

/// A hundred limits on other hosts and paths are nothing to a request that none of them is about.
#[test]
fn limits_that_are_not_about_a_request_allocate_nothing() {
    let limit = |number: usize| LimitDraft {
        name: format!("limit {number}"),
        matches: MatchDraft {
            domain: strings(&[if number.is_multiple_of(2) { "app.test" } else { "*.other.test" }]),
            path: vec![format!("/service{number}/**")],
            methods: strings(&["POST"]),
        },
        key: if number.is_multiple_of(3) { "ip" } else { "user" }.to_owned(),
        rates: strings(&["50/minute"]),
        ..LimitDraft::default()
    };
    let draft = PolicyDraft { limits: (0..100).map(limit).collect(), ..PolicyDraft::default() };
    let rules = RuleSet::compile(&draft).expect("sound limits").0;
    let (peer, ground) = ([127, 0, 0, 1].into(), Ground::Session);
    for (url, due) in
        [("https://app.test/x", 0), ("https://app.test/service2/x", 0), ("https://a.other.test/service3/x", 1)]
    {
        let target = Target::parse_url(url).expect("a URL");
        let question = Question {
            target: &target,
            method: if due == 0 { "GET" } else { "POST" },
            client: ClientAddress::Known([10, 1, 2, 3].into()),
            caller: None,
            now: Timestamp::default(),
            headers: None,
            route: Some("app"),
        };
        let mut found = 0;
        let counted = allocation_counter::measure(|| {
            for stage in [Stage::Arrival, Stage::Forward] {
                found += rules.limits_due(stage, &question, Source { peer, ground: &ground }).len();
            }
        });
        assert_eq!(found, due, "{url}");
        // Of one that is: what is due, and which was found.
        assert!(
            counted.count_total <= 2 * due as u64,
            "{url}: {} of {} bytes",
            counted.count_total,
            counted.bytes_total
        );
    }
}
