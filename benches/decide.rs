//! What a decision and a load cost by the number of rules (PERFORMANCE.md): each rule on a host of its own, and all on one host.

#![expect(clippy::expect_used, reason = "a benchmark that cannot be set up has nothing to measure")]

use std::{hint::black_box, path::Path};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use postern::{
    config::parse_policies,
    core::{
        client_ip::ClientAddress,
        identity::{Factor, Identity},
        policy::{AttributeType, BindingDraft, Level, PolicyDraft, Question, RoleDraft, RuleDraft, RuleSet, Ruling},
        target::Target,
        time::Timestamp,
        user::{Attributes, User},
    },
};

/// As in the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const SIZES: [usize; 3] = [10, 1_000, 10_000];

fn rule(number: usize, own_host: bool) -> RuleDraft {
    let mut rule = RuleDraft {
        domain: vec![if own_host { format!("app{number}.example.com") } else { "app.example.com".to_owned() }],
        policy: Some(Level::OneFactor),
        subject: vec![vec!["group:admins".to_owned()], vec!["group:staff".to_owned()]],
        ..RuleDraft::default()
    };
    // Every other rule is a regex, as Authelia's users have them.
    if number.is_multiple_of(2) {
        rule.path = vec![format!("/service{number}/**")];
    } else {
        rule.resources = vec![format!("^/service{number}([/?].*)?$")];
    }
    rule
}

fn draft(size: usize, own_host: bool) -> PolicyDraft {
    PolicyDraft { rules: (0..size).map(|number| rule(number, own_host)).collect(), ..PolicyDraft::default() }
}

fn staff() -> Identity {
    staff_with(Attributes::default())
}

fn staff_with(attributes: Attributes) -> Identity {
    let user = User { display_name: "Alice".to_owned(), attributes, ..User::new("alice", vec!["staff".to_owned()]) };
    Identity::new(&user, Factor::One, Timestamp::default(), None).expect("a plain name")
}

fn asked<'q>(target: &'q Target, caller: &'q Identity) -> Question<'q> {
    Question {
        target,
        method: "GET",
        client: ClientAddress::Unknown,
        caller: Some(caller),
        now: Timestamp::default(),
        headers: None,
        route: None,
    }
}

fn decide(criterion: &mut Criterion) {
    let alice = staff();
    for (shape, own_host) in [("own host", true), ("one host", false)] {
        let mut group = criterion.benchmark_group(format!("decide, {shape}"));
        for size in SIZES {
            let (rules, _) = RuleSet::compile(&draft(size, own_host)).expect("sound rules");
            // The last rules, one glob and one regex: whatever goes through the list from the top meets them last.
            for (kind, number) in [("glob", size - 2), ("regex", size - 1)] {
                let host = if own_host { format!("app{number}.example.com") } else { "app.example.com".to_owned() };
                let target =
                    Target::parse_url(&format!("https://{host}/service{number}/some/page?id=17")).expect("a URL");
                let question = asked(&target, &alice);
                assert_eq!(rules.decide(&question).ruling, Ruling::Forward);
                group.bench_function(BenchmarkId::new(kind, size), |bencher| {
                    bencher.iter(|| rules.decide(black_box(&question)).ruling);
                });
            }
        }
    }
}

/// What a role and an expression cost beside a group.
fn one_rule(criterion: &mut Criterion) {
    let alice = staff_with([("tier".to_owned(), "premium".into())].into());
    let target = Target::parse_url("https://app.example.com/some/page?id=17").expect("a URL");
    let roles = RoleDraft { name: "admin".to_owned(), level: Some(60), ..RoleDraft::default() };
    let binding = BindingDraft {
        roles: vec!["admin".to_owned()],
        subjects: vec!["group:staff".to_owned()],
        ..BindingDraft::default()
    };
    let mut group = criterion.benchmark_group("decide, one rule");
    for kind in ["role", "when"] {
        let mut rule = rule(0, false);
        rule.path = Vec::new();
        match kind {
            "role" => rule.subject = vec![vec!["role:admin".to_owned()]],
            _ => rule.when = Some(r#"user.tier in ["gold", "premium"] && request.path.startsWith("/some")"#.to_owned()),
        }
        let draft = PolicyDraft {
            roles: vec![roles.clone()],
            bindings: vec![binding.clone()],
            attributes: vec![("tier".to_owned(), AttributeType::String)],
            rules: vec![rule],
            ..PolicyDraft::default()
        };
        let (rules, _) = RuleSet::compile(&draft).expect("a sound rule");
        let question = asked(&target, &alice);
        assert_eq!(rules.decide(&question).ruling, Ruling::Forward);
        group.bench_function(BenchmarkId::new(kind, 1), |bencher| {
            bencher.iter(|| rules.decide(black_box(&question)).ruling);
        });
    }
}

fn compile(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("compile");
    group.sample_size(20);
    for (shape, own_host) in [("own host", true), ("one host", false)] {
        let draft = draft(10_000, own_host);
        group.bench_function(BenchmarkId::new(shape, 10_000), |bencher| {
            bencher.iter(|| RuleSet::compile(black_box(&draft)).is_ok());
        });
    }
}

/// A policies file, from its text to rules: what a start and a reload cost.
fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load");
    group.sample_size(20);
    for (shape, own_host) in [("own host", true), ("one host", false)] {
        let text = written(&draft(10_000, own_host));
        group.bench_function(BenchmarkId::new(shape, 10_000), |bencher| {
            bencher.iter(|| parse_policies(Path::new("access.yaml"), black_box(&text)).is_ok());
        });
        assert!(parse_policies(Path::new("access.yaml"), &text).is_ok());
    }
}

fn written(draft: &PolicyDraft) -> String {
    let mut text = "default: deny\nrules:\n".to_owned();
    for rule in &draft.rules {
        let subjects: Vec<String> = rule.subject.iter().flatten().map(|subject| format!("{subject:?}")).collect();
        text += &format!(
            "  - domain: {}\n    policy: one_factor\n    subject: [{}]\n",
            rule.domain.join(""),
            subjects.join(", ")
        );
        match (rule.path.first(), rule.resources.first()) {
            (Some(path), _) => text += &format!("    path: {path}\n"),
            (None, Some(regex)) => text += &format!("    resources: '{regex}'\n"),
            (None, None) => {}
        }
    }
    text
}

criterion_group!(benches, decide, one_rule, compile, load);
criterion_main!(benches);
