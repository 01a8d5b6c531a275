//! The rules as a whole; what each clause matches, what the compiler says and the index are told apart below.

mod faults;
mod index;
mod matching;
mod record;

use std::{net::IpAddr, time::Duration};

use super::*;
use crate::core::{identity::Factor, target::EncodedSlashes, user::User};

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
    RuleSet::compile(&PolicyDraft { networks, rules, ..PolicyDraft::default() }).expect("sound rules").0
}

fn faults(rules: Vec<RuleDraft>) -> Vec<DraftFault> {
    let networks = vec![("office".to_owned(), strings(&["10.0.0.0/8"]))];
    RuleSet::compile(&PolicyDraft { networks, rules, ..PolicyDraft::default() }).expect_err("a fault")
}

fn warnings(rules: Vec<RuleDraft>) -> Vec<DraftFault> {
    RuleSet::compile(&PolicyDraft { rules, ..PolicyDraft::default() }).expect("sound rules").1
}

impl<'q> Question<'q> {
    /// GET, of nobody knows whom.
    pub(crate) fn anonymous(target: &'q Target) -> Self {
        Self {
            target,
            method: "GET",
            client: ClientAddress::Unknown,
            caller: None,
            now: Timestamp::default(),
            headers: None,
            route: None,
        }
    }
}

impl Imagined {
    /// GET, of nobody knows whom.
    pub(crate) fn anonymous(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            method: "GET".to_owned(),
            caller: None,
            client: None,
            now: Timestamp::default(),
            headers: http::HeaderMap::new(),
            route: None,
            address: ClientAddress::Unknown,
            encoded_slashes: EncodedSlashes::Reject,
        }
    }
}

fn caller(name: &str, groups: &[&str], factor: Factor) -> Identity {
    let user = User::new(name, strings(groups));
    Identity::new(&user, factor, Timestamp::default(), None).expect("a plain name")
}

/// One factor, and in the group `b` who is called so.
fn claiming(name: &str, claim: Option<serde_json::Value>) -> Identity {
    let groups = if name == "b" { vec!["b".to_owned()] } else { Vec::new() };
    let attributes = claim.into_iter().map(|claim| ("t".to_owned(), claim)).collect();
    let user = User { attributes, ..User::new(name, groups) };
    Identity::new(&user, Factor::One, Timestamp::default(), None).expect("a plain name")
}

/// What the rules say to a GET from 10.1.2.3.
fn said(rules: &RuleSet, url: &str, caller: Option<&Identity>) -> (Ruling, String) {
    asked(rules, url, "GET", Some("10.1.2.3"), caller)
}

fn asked(rules: &RuleSet, url: &str, method: &str, ip: Option<&str>, caller: Option<&Identity>) -> (Ruling, String) {
    let target = Target::parse_url(url).expect("a URL");
    let client =
        ip.map_or(ClientAddress::Unknown, |ip| ClientAddress::Known(ip.parse::<IpAddr>().expect("an address")));
    let question =
        Question { target: &target, method, client, caller, now: Timestamp::default(), headers: None, route: None };
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
fn a_rule_that_reports_never_decides() {
    let report = |name, level| RuleDraft { mode: Mode::Report, ..rule(name, "*.test", level) };
    let members = RuleDraft { subject: vec![strings(&["group:staff"])], ..report("members", Level::OneFactor) };
    let rules = compiled(vec![
        RuleDraft { path: strings(&["/new/**"]), ..report("close", Level::Deny) },
        members,
        report("open", Level::Bypass),
        rule("app", "a.test", Level::OneFactor),
        report("late", Level::Deny),
    ]);
    let (bob, alice) = (caller("bob", &[], Factor::One), caller("alice", &["staff"], Factor::One));
    for (url, who, ruling, decisive, reported) in [
        ("https://a.test/new/x", Some(&bob), Ruling::Forward, "app", ("close", Ruling::Refuse)),
        ("https://a.test/x", Some(&bob), Ruling::Forward, "app", ("open", Ruling::Forward)),
        ("https://a.test/x", Some(&alice), Ruling::Forward, "app", ("members", Ruling::Forward)),
        ("https://a.test/x", None, Ruling::SignIn, "app", ("members", Ruling::SignIn)),
        ("https://b.test/x", Some(&bob), Ruling::Refuse, "default", ("open", Ruling::Forward)),
    ] {
        let target = Target::parse_url(url).expect("a URL");
        let question = Question { caller: who, ..Question::anonymous(&target) };
        let decided = rules.decide(&question);
        assert_eq!((decided.ruling, &**decided.rule), (ruling, decisive), "{url}");
        let told = decided.reported.expect("a report");
        assert_eq!((&*told.rule, told.ruling), reported, "{url}");
        let explained = rules.explain(&question, None);
        let line = explained.trace.iter().find(|line| line.rule == reported.0).expect("its line");
        assert_eq!((line.matched, line.mode), (true, Some("report")));
        assert!(line.because.ends_with(&format!("it only reports: it would say {}", reported.1.as_str())), "{line:?}");
    }
    let target = Target::parse_url("https://elsewhere.example/").expect("a URL");
    let nobody = Question::anonymous(&target);
    assert_eq!(rules.decide(&nobody).reported, None);
    // It takes nothing from the rules below it.
    assert!(warnings(vec![report("r", Level::Deny), rule("app", "a.test", Level::OneFactor)]).is_empty());
}

#[test]
fn a_sign_in_may_be_too_old_for_a_rule() {
    let (one, two) = (caller("bob", &[], Factor::One), caller("bob", &[], Factor::Two));
    let target = Target::parse_url("https://a.test/").expect("a URL");
    let of = |level| {
        let rule = RuleDraft { max_auth_age: Some(Duration::from_secs(900)), ..rule("r", "a.test", level) };
        compiled(vec![rule])
    };
    for (level, who, age, ruling, is_stale) in [
        (Level::OneFactor, Some(&one), 0, Ruling::Forward, false),
        (Level::OneFactor, Some(&one), 900_000, Ruling::Forward, false),
        (Level::OneFactor, Some(&one), 900_001, Ruling::StepUp, true),
        (Level::OneFactor, None, 900_001, Ruling::SignIn, false),
        (Level::TwoFactor, Some(&two), 900_000, Ruling::Forward, false),
        (Level::TwoFactor, Some(&two), 900_001, Ruling::StepUp, true),
        // A fresh sign-in alone would not do.
        (Level::TwoFactor, Some(&one), 900_001, Ruling::StepUp, false),
    ] {
        let rules = of(level);
        let question = Question {
            caller: who,
            now: Timestamp::default().after(Duration::from_millis(age)),
            ..Question::anonymous(&target)
        };
        let decided = rules.decide(&question);
        assert_eq!((decided.ruling, decided.is_stale), (ruling, is_stale), "{level:?} {age}");
        let explained = rules.explain(&question, None);
        assert_eq!(explained.ruling, ruling);
        let because = &explained.trace[0].because;
        let is_told = who.is_some() && age > 900_000;
        assert_eq!(because.contains("the sign-in is not of the last 15m"), is_told, "{because}");
    }
    // Clocks of two nodes differ a little; a clock that jumped back does not keep a sign-in fresh until it is there again.
    let mut ahead = one;
    for (seconds, expected) in [(900, Ruling::Forward), (901, Ruling::StepUp), (99_999_999, Ruling::StepUp)] {
        ahead.signed_in_at = Timestamp::default().after(Duration::from_secs(seconds));
        assert_eq!(said(&of(Level::OneFactor), "https://a.test/", Some(&ahead)).0, expected, "{seconds}");
    }
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
fn threat_07_the_strictest_reading_holds_and_the_trace_says_which() {
    let rules = compiled(vec![
        RuleDraft { path: strings(&["/admin/**"]), ..rule("admin", "a.test", Level::TwoFactor) },
        RuleDraft { path: strings(&["/**"]), ..rule("rest", "a.test", Level::Bypass) },
    ]);
    let target = Target::parse_url("https://a.test/admin;v=1/x").expect("a URL");
    let question = Question::anonymous(&target);
    assert_eq!(rules.decide(&question).ruling, Ruling::SignIn);
    let explained = rules.explain(&question, None);
    assert_eq!(explained.reading.as_deref(), Some("/admin/x"));
    assert_eq!(explained.other_reading.as_ref().map(|other| other.rule.as_str()), Some("rest"));
    assert!(explained.to_string().contains("decided for the path read as /admin/x"), "{explained}");
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
    let question = Question { caller: Some(&bob), ..Question::anonymous(&target) };
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
        "limits": [],
    });
    assert_eq!(json, expected);
    assert!(explained.to_string().starts_with("step_up   rule \"dev\", policy two_factor\n"), "{explained}");
}
