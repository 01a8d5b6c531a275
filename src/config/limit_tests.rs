//! What is wrong with limits of a policies file, told at its place.

use super::tests::policy_faults;

#[test]
fn faults_of_limits() {
    let with = |limit: &str| format!("default: deny\nlimits:\n  - {limit}");
    let files = [
        with("{ name: chat, key: user }"),
        with("{ name: chat, key: user, rates: 5/fortnight }"),
        with("{ name: chat, key: user, rates: [10/minute, 0/second, 5/minute, 3/hour burst 0, often] }"),
        with("{ name: 'ch\"at', key: users, rates: 1/second, plans: { pro: [] } }"),
        with("{ name: chat, key: user, rates: 1/second, plans: { free: 1/minute, pro: [2/minute, 3/minute] } }"),
        with("{ name: chat, key: user, plans: { free: 1/minute } }"),
        with(
            "{ name: chat, key: ip, rates: 1/second, plans: { free: 1/minute }, match: { domain: '{user}.example.com' } }",
        ),
        with(
            "{ name: chat, key: 'header:Remote-User', rates: 1/second, match: { path: [chat], methods: [G T] }, bypass: [{}] }",
        ),
        with("{ name: chat, key: 'user.level', rates: 1/second, match: { domain: [] }, bypass: [{ path: [] }] }"),
        with("{ name: chat, key: 'user.claims.org', rates: 1/second, mode: reports, matches: { path: / } }"),
        with("{ name: chat, key: user, rates: 1/second }\n  - { name: chat, key: ip, rates: 1/second }"),
        "limit_headers: [ratelimit, x-ratelimit]".to_owned(),
    ];
    let lines: Vec<String> =
        files.iter().map(|text| format!("{text}\n=> {}\n", policy_faults(&[("a.yaml", text)]))).collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn a_limit_has_its_name_for_itself_in_all_files() {
    let limit =
        "limits: [ { name: chat, match: { path: /chat/** }, key: user, rates: [10/second burst 20, 50/minute] } ]";
    let told = policy_faults(&[("a.yaml", limit), ("b.yaml", limit)]);
    assert!(told.starts_with("policies/b.yaml:1:19: another limit is called \"chat\""), "{told}");
    let other = limit.replace("name: chat", "name: mail");
    assert_eq!(policy_faults(&[("a.yaml", limit), ("b.yaml", &other)]), "no fault");
    let headers = "limit_headers: [ratelimit]";
    let told = policy_faults(&[("a.yaml", headers), ("b.yaml", headers)]);
    assert!(told.starts_with("policies/b.yaml:1:1: `limit_headers` stands in"), "{told}");
}
