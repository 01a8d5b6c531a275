//! What was written down of a decision, decided again.

use std::sync::LazyLock;

use http::HeaderMap;
use proptest::prelude::*;

use super::{
    index::{any_rule, sound},
    *,
};
use crate::core::verdict::Credential;

const LEVELS: [Level; 4] = [Level::Bypass, Level::OneFactor, Level::TwoFactor, Level::Deny];

/// As the access log writes it and reads it again.
fn recorded(rules: &RuleSet, question: &Question<'_>) -> Record {
    let target = question.target;
    let query = rules.recorded(target).map(|(key, readings)| (key.to_owned(), readings)).collect();
    let caller = question.caller.map(|identity| {
        let groups: Vec<&str> = identity.groups.iter().map(String::as_str).collect();
        let mut again = caller(&identity.user, &groups, identity.factor);
        again.signed_in_at = identity.signed_in_at;
        again
    });
    Record {
        method: question.method.to_owned(),
        host: target.host().to_owned(),
        path: target.path().to_owned(),
        other_paths: target.readings().skip(1).map(str::to_owned).collect(),
        query: target.query().map(|_| query),
        client: question.client,
        caller,
        credential: Credential::Settled,
        headers: rules.recorded_headers(target.host(), question.headers.expect("headers")).unwrap_or_default(),
        scheme: target.scheme(),
        route: question.route.map(str::to_owned),
        at: question.now,
    }
}

fn get<'q>(target: &'q Target, caller: Option<&'q Identity>) -> Question<'q> {
    static NONE: LazyLock<HeaderMap> = LazyLock::new(HeaderMap::new);
    let (client, now) = (ClientAddress::Unknown, Timestamp::default());
    Question { target, method: "GET", client, caller, now, headers: Some(&NONE), route: None }
}

fn querying(name: &str, policy: Level, key: &str, operator: Operator, value: Option<&str>) -> RuleDraft {
    let condition = QueryDraft { key: key.to_owned(), operator: Some(operator), value: value.map(str::to_owned) };
    RuleDraft { query: vec![vec![condition]], ..rule(name, "a.test", policy) }
}

/// Recorded under the first, decided by the second; `None` where nobody can say.
fn replayed(then: &RuleSet, now: &RuleSet, url: &str) -> Option<(Ruling, String)> {
    let target = Target::parse_url(url).expect("a URL");
    let record = recorded(then, &get(&target, None));
    now.replay(&record).ok().map(|decided| (decided.ruling, decided.rule.to_string()))
}

#[test]
fn what_is_written_of_a_query() {
    let rules = compiled(vec![
        querying("value", Level::Deny, "x", Operator::Equal, Some("1")),
        querying("presence", Level::Deny, "y", Operator::Present, None),
        querying("credential", Level::Deny, "access_token", Operator::Equal, Some("1")),
    ]);
    let value = |text: &str| Parameter::Value(text.to_owned());
    let (there, not_there) = (Parameter::Present, Parameter::Absent);
    for (query, x, y, token) in [
        ("", vec![not_there.clone()], vec![not_there.clone()], vec![not_there.clone()]),
        ("x=a+%C3%A9&y=b&access_token=c", vec![value("a é")], vec![there.clone()], vec![there.clone()]),
        ("x=1&x=2", vec![value("1"), value("2"), value("1,2")], vec![not_there.clone()], vec![not_there.clone()]),
        ("X=1&Y", vec![not_there.clone(), value("1")], vec![not_there.clone(), there.clone()], vec![not_there.clone()]),
        // What stands behind a `;` is another parameter to some.
        ("x=1;token=c", vec![there.clone(), not_there.clone()], vec![not_there.clone()], vec![not_there.clone()]),
        // So is what stands in brackets, and a look tells too.
        (
            "x[email]=a&x%5Bpassword%5D=hunter2",
            vec![not_there.clone(), there.clone()],
            vec![not_there.clone()],
            vec![not_there.clone()],
        ),
        ("x[]=1", vec![not_there.clone(), value("1")], vec![not_there.clone()], vec![not_there.clone()]),
        ("x=Bearer+abc", vec![there.clone()], vec![not_there.clone()], vec![not_there.clone()]),
        ("x=%zz", vec![], vec![not_there.clone()], vec![not_there.clone()]),
        ("other=c", vec![not_there.clone()], vec![not_there.clone()], vec![not_there.clone()]),
    ] {
        let target = Target::parse_url(&format!("https://a.test/?{query}")).expect("a URL");
        let written: Vec<_> = rules.recorded(&target).collect();
        assert_eq!(written, [("access_token", token), ("x", x), ("y", y)], "{query}");
    }
    let of = |url: &str| rules.recorded(&Target::parse_url(url).expect("a URL")).count();
    assert_eq!((of("https://a.test/"), of("https://b.test/?x=1")), (0, 0));
    let long = Target::parse_url(&format!("https://a.test/?x={}", "1".repeat(1025))).expect("a URL");
    assert_eq!(rules.recorded(&long).nth(1), Some(("x", vec![there])));
}

#[test]
fn what_the_log_lacks_is_never_made_up() {
    let members = || rule("members", "a.test", Level::OneFactor);
    let then = compiled(vec![querying("debug", Level::Deny, "debug", Operator::Present, None), members()]);
    let decided = |ruling, name: &str| Some((ruling, name.to_owned()));
    for (rules, query, expected) in [
        // The value was not written down, but that it is there was.
        (vec![querying("r", Level::Deny, "debug", Operator::Equal, Some("1")), members()], "debug=1", None),
        (vec![querying("r", Level::Deny, "debug", Operator::Present, None)], "debug=1", decided(Ruling::Refuse, "r")),
        (
            vec![querying("r", Level::Deny, "debug", Operator::Equal, Some("1")), members()],
            "x",
            decided(Ruling::SignIn, "members"),
        ),
        // Another key was not written down at all.
        (vec![querying("r", Level::Deny, "x", Operator::Present, None), members()], "x", None),
        // Something else already says that the rule does not match, or another entry that it does.
        (
            vec![
                RuleDraft { methods: strings(&["POST"]), ..querying("r", Level::Deny, "x", Operator::Present, None) },
                members(),
            ],
            "x",
            decided(Ruling::SignIn, "members"),
        ),
        (
            vec![RuleDraft {
                query: [
                    querying("", Level::Deny, "x", Operator::Present, None).query,
                    querying("", Level::Deny, "debug", Operator::Absent, None).query,
                ]
                .concat(),
                ..rule("r", "a.test", Level::Deny)
            }],
            "x",
            decided(Ruling::Refuse, "r"),
        ),
        // It stands behind a rule that decides, or decides nothing.
        (
            vec![members(), querying("r", Level::Deny, "x", Operator::Present, None)],
            "x",
            decided(Ruling::SignIn, "members"),
        ),
        (
            vec![
                RuleDraft { mode: Mode::Report, ..querying("r", Level::Deny, "x", Operator::Present, None) },
                members(),
            ],
            "x",
            decided(Ruling::SignIn, "members"),
        ),
    ] {
        let now = compiled(rules);
        assert_eq!(replayed(&then, &now, &format!("https://a.test/?{query}")), expected, "{query} {now:?}");
    }
    let x = compiled(vec![querying("r", Level::Deny, "x", Operator::NotEqual, Some("1")), members()]);
    assert_eq!(replayed(&then, &x, "https://a.test/"), decided(Ruling::Refuse, "r"), "no query holds no parameter");
}

#[test]
fn resources_see_a_query_that_nobody_wrote_down() {
    let none = compiled(vec![]);
    for (regex, url, expected) in [
        ("^/api/", "https://a.test/api/x?y", Some("r")),
        ("^/api/", "https://a.test/other?y", Some("default")),
        ("^/api/x$", "https://a.test/api/x?y", Some("default")),
        ("^/api([/?].*)?$", "https://a.test/api?y", Some("r")),
        ("^/api/x$", "https://a.test/api/x", Some("r")),
        (r"^/api/x\?y", "https://a.test/api/x?y", None),
        (r"^/api/x\b", "https://a.test/api/x?y", Some("r")),
        ("^/.*y$", "https://a.test/api/x?y", None),
        (r"^/(?P<User>\w+)", "https://a.test/api/x?y", None),
    ] {
        let now = compiled(vec![RuleDraft { resources: strings(&[regex]), ..rule("r", "a.test", Level::OneFactor) }]);
        assert_eq!(replayed(&none, &now, url).map(|(_, rule)| rule).as_deref(), expected, "{regex} {url}");
    }
}

#[test]
fn a_credential_that_failed_did_not_count_or_was_not_looked_at() {
    let target = Target::parse_url("https://a.test/").expect("a URL");
    let (forward, sign_in, refuse) = (Some(Ruling::Forward), Some(Ruling::SignIn), Some(Ruling::Refuse));
    for (level, failed, out_of_scope, unread) in [
        (Level::Bypass, forward, forward, forward),
        (Level::OneFactor, sign_in, refuse, None),
        (Level::Deny, sign_in, refuse, None),
    ] {
        let rules = compiled(vec![rule("r", "a.test", level)]);
        for (credential, expected) in
            [(Credential::Failed, failed), (Credential::OutOfScope, out_of_scope), (Credential::Unread, unread)]
        {
            let record = Record { credential, ..recorded(&rules, &get(&target, None)) };
            let decided = rules.replay(&record).map(|decided| decided.ruling);
            assert_eq!(decided.clone().ok(), expected, "{level:?} {credential:?}");
            assert!(decided.is_ok() || decided == Err(Unrecorded::Caller));
        }
    }
}

proptest! {
    /// Under the same rules the same comes out, and under others what they say live, or nothing.
    #[test]
    fn replayed_is_as_live_or_unknown(
        then in prop::collection::vec(any_rule(), 0..10),
        now in prop::collection::vec(any_rule(), 0..10),
        default in prop::sample::select(&LEVELS[..]),
        host in prop::sample::select(vec!["a.test", "b.test", "c.a.test", "b.a.test", "test"]),
        path in prop::sample::select(vec!["/", "/a", "/a/", "/a/b", "/b/b", "/A/b", "/a;v/b", "/a%2fb", "/%C3%A9"]),
        query in prop::sample::select(vec![
            "", "?", "?x", "?x=/a", "?y=1&x=/a", "?X=/a", "?x=/a&x=2", "?x[]=1", "?x=%zz", "?y=/a;x=2", "?z=1", "?y",
        ]),
        method in prop::sample::select(vec!["GET", "POST", "get"]),
        ip in prop::sample::select(vec![None, Some("10.1.1.1"), Some("192.0.2.1"), Some("198.51.100.1")]),
        who in prop::sample::select(vec![None, Some("a"), Some("b"), Some("c")]),
        age in prop::sample::select(vec![0, 60, 61]),
        header in prop::sample::select(vec![None, Some("1"), Some("2"), Some("\u{e9}")]),
    ) {
        let reads_attributes = then.iter().any(|draft| draft.when.as_ref().is_some_and(|when| when.contains("user.claims")));
        let has_resources = then.iter().any(|draft| !draft.resources.is_empty());
        let (then, now) = (sound(then, default), sound(now, default));
        let url = format!("https://{host}{path}{query}");
        let target = Target::parse_url_with(&url, EncodedSlashes::Strictest).expect("a URL");
        let who = who.map(|name| claiming(name, Some(serde_json::json!(name))));
        let mut headers = HeaderMap::new();
        headers.extend(header.map(|value| (http::HeaderName::from_static("x-h"), value.parse::<http::HeaderValue>().expect("a value"))));
        let client = ip.map_or(ClientAddress::Unknown, |ip| ClientAddress::Known(ip.parse().expect("an address")));
        let at = Timestamp::default().after(Duration::from_secs(age));
        let question = Question { target: &target, method, client, caller: who.as_ref(), now: at, headers: Some(&headers), route: Some("r") };
        let record = recorded(&then, &question);
        for (rules, is_same) in [(&then, true), (&now, false)] {
            let live = rules.decide(&question);
            match rules.replay(&record) {
                Ok(again) => {
                    prop_assert_eq!((again.ruling, again.rule, again.is_stale), (live.ruling, live.rule, live.is_stale));
                }
                // A query as a whole is never written down, nor a value with a `;`, nor what is known of somebody.
                Err(_) => prop_assert!(
                    !is_same || (has_resources && !query.is_empty()) || query.contains(';') || reads_attributes, "{url}"
                ),
            }
        }
    }
}
