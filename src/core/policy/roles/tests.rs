//! Roles, permissions, bindings and organisations, asked through rules as the live path asks them.

use super::*;
use crate::core::{
    identity::{Factor, Identity},
    policy::{Case, Expected, Imagined, Level, Place, PolicyDraft, Question, RuleDraft, RuleSet, Ruling},
    target::Target,
    user::User,
};

fn strings(entries: &[&str]) -> Vec<String> {
    entries.iter().map(ToString::to_string).collect()
}

fn role(name: &str, inherits: &[&str], level: u32, permissions: &[&str]) -> RoleDraft {
    RoleDraft {
        name: name.to_owned(),
        inherits: strings(inherits),
        level: Some(level),
        permissions: strings(permissions),
    }
}

fn binding(role: &str, subjects: &[&str]) -> BindingDraft {
    BindingDraft { roles: strings(&[role]), subjects: strings(subjects), ..BindingDraft::default() }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_millis(seconds * 1000)
}

/// viewer < editor < admin, and acme with its team.
fn draft() -> PolicyDraft {
    PolicyDraft {
        roles: vec![
            role("admin", &["editor"], 60, &["manage:*"]),
            role("editor", &["viewer"], 40, &["write:dashboards"]),
            role("viewer", &[], 20, &["read:dashboards", "read:reports:public"]),
        ],
        bindings: vec![
            binding("viewer", &["everyone"]),
            binding("editor", &["group:dev", "client:ci"]),
            binding("admin", &["user:root"]),
            BindingDraft { org: Some("acme".to_owned()), ..binding("admin", &["user:ann"]) },
            BindingDraft { until: Some(at(100)), ..binding("admin", &["user:temp"]) },
        ],
        orgs: vec![OrgDraft {
            name: "acme".to_owned(),
            members: strings(&["group:acme"]),
            teams: vec![("web".to_owned(), strings(&["user:wes"]))],
        }],
        ..PolicyDraft::default()
    }
}

/// The draft with one rule for these subjects (OR of ANDs) on `a.test`.
fn with_rule(subject: &[&[&str]]) -> PolicyDraft {
    let rule = RuleDraft {
        domain: strings(&["a.test"]),
        policy: Some(Level::OneFactor),
        subject: subject.iter().map(|all| strings(all)).collect(),
        ..RuleDraft::default()
    };
    PolicyDraft { rules: vec![rule], ..draft() }
}

fn caller(name: &str, groups: &[&str]) -> Identity {
    let name = name.to_owned();
    let user = User::new(name, strings(groups));
    Identity::new(&user, Factor::One, Timestamp::default(), None).expect("a plain name")
}

fn may(rules: &RuleSet, who: &Identity, client: Option<&str>, now: i64) -> bool {
    let target = Target::parse_url("https://a.test/").expect("a URL");
    let question = Question { caller: Some(who), now: at(now), ..Question::anonymous(&target) };
    rules.explain(&question, client).ruling == Ruling::Forward
}

#[test]
fn who_holds_what() {
    for (subject, name, groups, expected) in [
        (&[&["role:viewer"][..]][..], "bob", &[][..], true),
        (&[&["role:editor"]], "bob", &[], false),
        (&[&["role:editor"]], "bob", &["dev"], true),
        (&[&["role:viewer"]], "bob", &["dev"], true),
        (&[&["role:admin"]], "bob", &["dev"], false),
        (&[&["role:admin"]], "root", &[], true),
        (&[&["role:editor"]], "root", &[], true),
        // A name is exact, and a group is no user.
        (&[&["role:admin"]], "Root", &[], false),
        (&[&["role:admin"]], "bob", &["root"], false),
        (&[&["permission:read:dashboards"]], "bob", &[], true),
        (&[&["permission:write:dashboards"]], "bob", &[], false),
        (&[&["permission:write:dashboards"]], "root", &[], true),
        (&[&["permission:manage:users"]], "root", &[], true),
        (&[&["permission:manage:users:all"]], "root", &[], true),
        (&[&["permission:manage:users"]], "bob", &["dev"], false),
        // Within an organisation alone.
        (&[&["role:admin"]], "ann", &[], false),
        (&[&["role:admin", "org:acme"]], "ann", &[], true),
        (&[&["role:viewer", "org:acme"]], "ann", &[], true),
        (&[&["permission:manage:users", "org:acme"]], "ann", &[], true),
        (&[&["permission:manage:users"]], "ann", &[], false),
        (&[&["role:admin", "org:acme"]], "bob", &["acme"], false),
        (&[&["role:admin", "org:acme"]], "root", &[], false),
        (&[&["role:admin"], &["org:acme"]], "ann", &[], true),
        (&[&["role:editor"], &["group:none", "org:acme"]], "ann", &[], false),
        (&[&["org:acme"]], "bob", &["acme"], true),
        (&[&["org:acme"]], "wes", &[], true),
        (&[&["org:acme"]], "bob", &[], false),
        (&[&["team:acme/web"]], "wes", &[], true),
        (&[&["team:acme/web"]], "bob", &["acme"], false),
        (&[&["role:viewer", "user:bob"]], "bob", &[], true),
        (&[&["role:viewer", "user:bob"]], "eve", &[], false),
    ] {
        let (rules, _) = RuleSet::compile(&with_rule(subject)).expect("sound rules");
        assert_eq!(may(&rules, &caller(name, groups), None, 0), expected, "{name} {groups:?} as {subject:?}");
    }
}

#[test]
fn a_client_is_no_user_and_not_everyone() {
    let (rules, _) = RuleSet::compile(&with_rule(&[&["role:editor"]])).expect("sound rules");
    assert!(may(&rules, &caller("", &[]), Some("ci"), 0));
    assert!(!may(&rules, &caller("ci", &[]), None, 0), "a user called as the client");
    let (rules, _) = RuleSet::compile(&with_rule(&[&["role:viewer"]])).expect("sound rules");
    assert!(!may(&rules, &caller("", &[]), Some("other"), 0), "everyone are the users");
    let (rules, _) = RuleSet::compile(&with_rule(&[&["role:admin"]])).expect("sound rules");
    assert!(!may(&rules, &caller("root", &[]), Some("ci"), 0), "nor does a client's user count");
}

#[test]
fn a_binding_ends() {
    let (rules, _) = RuleSet::compile(&with_rule(&[&["role:admin"]])).expect("sound rules");
    let temp = caller("temp", &[]);
    assert!(may(&rules, &temp, None, 99));
    assert!(!may(&rules, &temp, None, 100));
    assert!(!may(&rules, &temp, None, 101));
    assert_eq!(rules.roles_header(&temp, at(99)), "admin,editor,viewer");
    assert_eq!(rules.roles_header(&temp, at(100)), "viewer");
}

#[test]
fn the_roles_of_somebody() {
    let (rules, _) = RuleSet::compile(&draft()).expect("sound roles");
    for (name, groups, expected) in [
        ("bob", &[][..], "viewer"),
        ("bob", &["dev"], "editor,viewer"),
        ("root", &[], "admin,editor,viewer"),
        ("ann", &[], "viewer,acme/admin,acme/editor"),
        ("ann", &["dev"], "editor,viewer,acme/admin"),
    ] {
        assert_eq!(rules.roles_header(&caller(name, groups), at(0)), expected, "{name} {groups:?}");
    }
}

#[test]
fn permissions() {
    let parse = |text: &str| Permission::parse(text).expect("a permission");
    for (held, wanted, expected) in [
        ("read:dashboards", "read:dashboards", true),
        ("read:dashboards", "read:dashboard", false),
        ("read:dashboards", "Read:dashboards", false),
        ("read:dashboards", "read:dashboards:one", false),
        ("read:dashboards", "read", false),
        ("manage:*", "manage:users", true),
        ("manage:*", "manage:users:roles", true),
        ("manage:*", "manage", false),
        ("manage:*", "manager:users", false),
        ("manage:*", "read:users", false),
        ("*:users", "read:users", true),
        ("*:users", "read:users:all", false),
        ("*:users", "read:groups", false),
        ("*", "read:users", true),
        ("*", "read", true),
        ("read:*:own", "read:users:own", true),
        ("read:*:own", "read:users:all", false),
    ] {
        assert_eq!(parse(held).grants(&parse(wanted)), expected, "{held} for {wanted}");
    }
    for text in ["", ":", "read:", ":users", "read users", "read:dash*", "read:a,b", "read:ü", "read:\n"] {
        assert!(Permission::parse(text).is_err(), "{text:?}");
    }
}

fn told(draft: &PolicyDraft) -> Vec<(Place, String)> {
    let faults = RuleSet::compile(draft).expect_err("a fault");
    faults.into_iter().map(|fault| (fault.place, fault.message)).collect()
}

#[test]
fn faults_say_what_and_where() {
    let with =
        |roles: Vec<RoleDraft>, bindings: Vec<BindingDraft>| PolicyDraft { roles, bindings, ..PolicyDraft::default() };
    let plain = || role("viewer", &[], 1, &[]);
    for (draft, place, words) in [
        (
            with(vec![role("a", &["b"], 0, &[]), role("b", &["c"], 0, &[]), role("c", &["a"], 0, &[])], vec![]),
            Place::Role { role: 0, key: Some("inherits"), entry: None },
            "a -> b -> c -> a",
        ),
        (
            with(vec![role("a", &["a"], 0, &[])], vec![]),
            Place::Role { role: 0, key: Some("inherits"), entry: None },
            "a -> a",
        ),
        (
            with(vec![role("editor", &["viewr"], 2, &[]), plain()], vec![]),
            Place::Role { role: 0, key: Some("inherits"), entry: Some(0) },
            "did you mean \"viewer\"?",
        ),
        (
            with(vec![role("guest", &["viewer"], 0, &[]), plain()], vec![]),
            Place::Role { role: 0, key: Some("inherits"), entry: Some(0) },
            "stands above it",
        ),
        (
            with(vec![role("viewer", &[], 0, &["read dashboards"])], vec![]),
            Place::Role { role: 0, key: Some("permissions"), entry: Some(0) },
            "read:dashboards",
        ),
        (
            with(vec![role("a,b", &[], 0, &[])], vec![]),
            Place::Role { role: 0, key: None, entry: None },
            "cannot be the name",
        ),
        (with(vec![plain(), plain()], vec![]), Place::Role { role: 1, key: None, entry: None }, "there twice"),
        (
            with(vec![plain()], vec![binding("veiwer", &["everyone"])]),
            Place::Binding { binding: 0, key: "role", entry: Some(0) },
            "did you mean \"viewer\"?",
        ),
        (
            with(vec![plain()], vec![binding("viewer", &["bob"])]),
            Place::Binding { binding: 0, key: "subject", entry: Some(0) },
            "user:NAME",
        ),
        (
            with(vec![plain()], vec![binding("viewer", &["user: "])]),
            Place::Binding { binding: 0, key: "subject", entry: Some(0) },
            "names nobody",
        ),
        (
            with(vec![plain()], vec![binding("viewer", &[])]),
            Place::Binding { binding: 0, key: "subject", entry: None },
            "empty list",
        ),
        (
            with(
                vec![plain()],
                vec![BindingDraft { org: Some("acme".to_owned()), ..binding("viewer", &["everyone"]) }],
            ),
            Place::Binding { binding: 0, key: "org", entry: None },
            "under orgs",
        ),
    ] {
        let faults = told(&draft);
        assert!(faults.iter().any(|(at, message)| *at == place && message.contains(words)), "{words}: {faults:?}");
    }
}

/// `everyone` within an organisation is each of its members; it does not put everybody into it.
#[test]
fn everyone_within_an_organisation() {
    let globex = OrgDraft { name: "globex".to_owned(), members: strings(&["group:globex"]), teams: Vec::new() };
    let compiled = |subject: &[&[&str]]| {
        let mut draft = with_rule(subject);
        draft.roles.push(role("reader", &[], 1, &["read:wiki"]));
        draft.bindings.push(BindingDraft { org: Some("acme".to_owned()), ..binding("reader", &["everyone"]) });
        draft.orgs.push(globex.clone());
        RuleSet::compile(&draft).expect("sound rules").0
    };
    for (subject, name, groups, expected) in [
        (&[&["org:acme"][..]][..], "bob", &["globex"][..], false),
        (&[&["org:acme"]], "bob", &["acme"], true),
        (&[&["role:reader", "org:acme"]], "bob", &["globex"], false),
        (&[&["permission:read:wiki", "org:acme"]], "bob", &["globex"], false),
        (&[&["role:reader", "org:acme"]], "bob", &["acme"], true),
        (&[&["role:reader", "org:acme"]], "ann", &[], true),
        (&[&["role:reader", "org:globex"]], "bob", &["globex"], false),
    ] {
        assert_eq!(
            may(&compiled(subject), &caller(name, groups), None, 0),
            expected,
            "{name} {groups:?} as {subject:?}"
        );
    }
    let rules = compiled(&[&["org:acme"]]);
    let held =
        |name, groups| rules.roles_of(&caller(name, groups), None, at(0)).iter().map(ToString::to_string).collect();
    let (inside, outside): (Vec<String>, Vec<String>) = (held("bob", &["acme"]), held("bob", &["globex"]));
    assert!(inside.contains(&"acme/reader".to_owned()), "{inside:?}");
    assert!(!outside.iter().any(|role| role.contains("reader")), "{outside:?}");
}

/// However far it inherits: what it would have stands above it.
#[test]
fn a_role_without_a_level_is_no_bridge_to_one_above() {
    let draft = PolicyDraft {
        roles: vec![
            role("intern", &["bridge"], 10, &[]),
            RoleDraft { level: None, ..role("bridge", &["admin"], 0, &[]) },
            role("admin", &[], 90, &[]),
        ],
        ..PolicyDraft::default()
    };
    let place = Place::Role { role: 0, key: Some("inherits"), entry: None };
    let faults = told(&draft);
    assert!(matches!(&faults[..], [(at, message)] if *at == place && message.contains("\"admin\" has")), "{faults:?}");
}

#[test]
fn a_blank_around_a_bound_name_is_a_fault() {
    let draft = PolicyDraft {
        roles: vec![role("admin", &[], 90, &[])],
        bindings: vec![binding("admin", &["group:admins ", "user: bob"])],
        ..PolicyDraft::default()
    };
    let faults = told(&draft);
    assert_eq!(faults.iter().filter(|(_, message)| message.contains("a blank too many")).count(), 2, "{faults:?}");
}

#[test]
fn a_role_beside_two_organisations_is_a_fault() {
    let mut draft = with_rule(&[&["org:acme", "role:admin", "org:globex"]]);
    draft.orgs.push(OrgDraft { name: "globex".to_owned(), ..OrgDraft::default() });
    let faults = told(&draft);
    assert!(faults.iter().any(|(_, message)| message.contains("[[role:admin, org:acme], …]")), "{faults:?}");
    // Whoever is in both.
    draft.rules[0].subject = vec![strings(&["org:acme", "org:globex"])];
    assert!(RuleSet::compile(&draft).is_ok());
}

#[test]
fn faults_of_subjects() {
    for (subject, words) in [
        ("role:admn", "did you mean \"admin\"?"),
        ("role:nobody-knows", "under roles"),
        ("permission:read:dashboard", "did you mean \"read:dashboards\"?"),
        ("permission:fly:planes", "among a role's permissions"),
        ("permission:manage:*", "wildcard"),
        ("org:acne", "did you mean \"acme\"?"),
        ("team:web", "ORGANISATION/TEAM"),
        ("roles:admin", "did you mean role:admin?"),
        ("cert:x", "do not exist in this version"),
    ] {
        let faults = told(&with_rule(&[&[subject]]));
        let expected = Place::Rule { rule: 0, key: "subject", entry: Some(0) };
        assert!(faults.iter().any(|(at, message)| *at == expected && message.contains(words)), "{subject}: {faults:?}");
    }
}

#[test]
fn a_rule_that_nobody_can_meet_is_warned_of() {
    let bound_in_acme = |subject: &[&str]| {
        let rule = RuleDraft { subject: vec![strings(subject)], ..with_rule(&[]).rules.remove(0) };
        let draft = PolicyDraft {
            roles: vec![role("owner", &[], 1, &[])],
            bindings: vec![BindingDraft { org: Some("acme".to_owned()), ..binding("owner", &["user:ann"]) }],
            orgs: draft().orgs,
            rules: vec![rule],
            ..PolicyDraft::default()
        };
        RuleSet::compile(&draft).expect("sound rules").1
    };
    assert_eq!(bound_in_acme(&["role:owner", "org:acme"]), []);
    let warnings = bound_in_acme(&["role:owner"]);
    assert!(warnings.iter().any(|warning| warning.message.contains("[role:owner, org:NAME]")), "{warnings:?}");
    let unbound = PolicyDraft { roles: vec![role("idle", &[], 1, &[])], ..PolicyDraft::default() };
    let (_, warnings) = RuleSet::compile(&unbound).expect("sound rules");
    assert!(warnings.iter().any(|warning| warning.message.contains("nobody is bound")), "{warnings:?}");
}

#[test]
fn a_bypass_names_no_role() {
    let mut draft = with_rule(&[&["role:viewer"]]);
    draft.rules[0].policy = Some(Level::Bypass);
    assert!(told(&draft)[0].1.contains("bypass lets everybody in"));
}

#[test]
fn nobody_signed_in_is_asked_to() {
    let (rules, _) = RuleSet::compile(&with_rule(&[&["role:admin", "org:acme"]])).expect("sound rules");
    let request = Imagined::anonymous("https://a.test/");
    let case = Case { name: String::new(), request, expected: Expected::Ruling(Ruling::SignIn), rule: None };
    assert!(case.failure(&rules).is_none());
}

#[test]
fn a_role_by_a_tokens_claim() {
    let claiming = |roles: &[&str]| caller("foreign", &[]).with_claimed_roles(strings(roles));
    let draft = |subject: &[&str]| PolicyDraft { roles_by_claim: true, ..with_rule(&[subject]) };
    let rules = |subject: &[&str]| RuleSet::compile(&draft(subject)).expect("sound rules").0;
    let nobody = caller("foreign", &[]);
    assert!(!may(&rules(&["role:admin"]), &nobody, None, 0));
    assert!(may(&rules(&["role:admin"]), &claiming(&["admin"]), None, 0));
    assert!(may(&rules(&["role:viewer"]), &claiming(&["admin"]), None, 0), "a role includes those it inherits");
    assert!(!may(&rules(&["role:admin"]), &claiming(&["viewer"]), None, 0), "and none above it");
    assert!(!may(&rules(&["role:admin"]), &claiming(&["Admin", "unknown"]), None, 0), "names are exact");
    assert!(!may(&rules(&["role:admin"]), &caller("foreign", &["admin"]), None, 0), "a group is no role");
    let held = rules(&["role:viewer"]);
    assert!(held.roles_header(&claiming(&["viewer", "unknown"]), at(0)).contains("viewer"));
    assert!(!held.roles_header(&claiming(&["viewer", "unknown"]), at(0)).contains("unknown"));
    let (unmapped, _) = RuleSet::compile(&with_rule(&[&["role:admin"]])).expect("sound rules");
    assert!(!may(&unmapped, &claiming(&["admin"]), None, 0), "where no issuer gives roles");
    let roles = vec![role("idle", &[], 1, &[])];
    let idle = PolicyDraft { roles, bindings: Vec::new(), orgs: Vec::new(), ..draft(&["role:idle"]) };
    assert_eq!(RuleSet::compile(&idle).expect("sound rules").1, [], "it needs no binding");
}
