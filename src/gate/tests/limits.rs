//! Which limits are counted when, and what becomes of a request that one of them refuses.

use std::net::Ipv6Addr;

use super::*;
use crate::{
    core::policy::{LimitDraft, MatchDraft, Mode},
    ports::fakes::{limit, limited_site},
};

fn with(limits: Vec<LimitDraft>) -> Fixture {
    let mut f = fixture().cookie("a");
    f.stores.remember(&session('a', 1));
    f.site = limited_site(listener(Role::Edge), vec![route("app.example.com")], limits);
    f
}

impl Fixture {
    /// The verdicts of so many requests.
    async fn verdicts(&self, path: &str, count: usize) -> Vec<&'static str> {
        let mut verdicts = Vec::new();
        for _ in 0..count {
            verdicts.push(self.verdict(path).await);
        }
        verdicts
    }

    /// Values of `rate_limit_requests_total` and `rate_limit_exceeded_total`.
    fn metric(&self, line: &str) -> Option<String> {
        let rendered = self.gate.metrics.render();
        rendered.lines().find_map(|found| found.strip_prefix(line).map(|value| value.trim().to_owned()))
    }
}

#[tokio::test]
async fn so_many_go_on_then_they_wait_then_they_go_on_again() {
    let f = with(vec![limit("chat", "user", &["2/second"])]);
    assert_eq!(f.verdicts("/staff/x", 3).await, ["forward", "forward", "slow_down"]);
    let outcome = f.ask("app.example.com", "/staff/x").await;
    let Verdict::SlowDown { retry_after } = outcome.verdict else { panic!("{:?}", outcome.verdict) };
    assert_eq!(outcome.rule.as_deref(), Some("staff"), "the rules let it pass");
    let standing = outcome.standing.expect("a limit");
    assert_eq!(standing.stopped_by(), Some("chat"));
    assert_eq!(standing.refusal().map(|refusal| refusal.retry_after), Some(retry_after));
    f.counting.now.store(u64::try_from(retry_after.as_millis()).unwrap() + 1, Ordering::SeqCst);
    assert_eq!(f.verdict("/staff/x").await, "forward");
    assert_eq!(f.metric(r#"postern_rate_limit_requests_total{limit="chat",status="allowed"}"#).as_deref(), Some("3"));
    assert_eq!(f.metric(r#"postern_rate_limit_requests_total{limit="chat",status="limited"}"#).as_deref(), Some("2"));
    assert_eq!(f.metric(r#"postern_rate_limit_exceeded_total{limit="chat"}"#).as_deref(), Some("2"));
}

#[tokio::test]
async fn what_the_rules_do_not_let_pass_is_counted_by_address_alone() {
    let f = with(vec![limit("by user", "user_or_ip", &["2/second"])]);
    assert_eq!(f.verdicts("/elsewhere", 3).await, ["refuse"; 3]);
    assert_eq!(f.verdicts("/admin/x", 3).await, ["step_up"; 3]);
    assert_eq!(f.verdicts("/staff/x", 3).await, ["forward", "forward", "slow_down"]);
    let f = with(vec![limit("by address", "ip", &["2/second"])]);
    assert_eq!(f.verdicts("/elsewhere", 3).await, ["refuse", "refuse", "slow_down"]);
    assert_eq!(f.verdict("/staff/x").await, "slow_down");
}

#[tokio::test]
async fn an_address_that_has_to_wait_asks_no_store() {
    let f = with(vec![limit("by address", "ip", &["1/second"])]);
    f.stores.forget();
    f.stores.store(&session('a', 1));
    assert_eq!(f.verdict("/staff/x").await, "forward");
    let reads = f.stores.reads.load(Ordering::SeqCst);
    let outcome = f.ask("app.example.com", "/staff/x").await;
    assert_eq!((outcome.verdict.as_str(), outcome.rule), ("slow_down", None), "no rule was asked");
    assert_eq!(outcome.route.map(|route| route.name.clone()).as_deref(), Some("app.example.com"));
    assert_eq!(f.stores.reads.load(Ordering::SeqCst), reads);
}

#[tokio::test]
async fn threat_57_a_64_is_one_source_and_a_spoofed_address_is_the_peers() {
    let f = with(vec![limit("by address", "ip", &["2/second"])]);
    let from = async |host: u16| {
        let peer = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, host));
        f.ask_from("app.example.com", "/staff/x", peer, "GET").await.verdict.as_str()
    };
    assert_eq!([from(1).await, from(2).await, from(3).await], ["forward", "forward", "slow_down"]);
}

#[tokio::test]
async fn of_several_limits_all_are_taken_or_none() {
    let f = with(vec![limit("few", "user", &["1/second"]), limit("many", "session", &["3/second"])]);
    assert_eq!(f.verdicts("/staff/x", 4).await, ["forward", "slow_down", "slow_down", "slow_down"]);
    f.counting.now.store(1_100, Ordering::SeqCst);
    let outcome = f.ask("app.example.com", "/staff/x").await;
    let mut told = Vec::new();
    let standing = outcome.standing.expect("limits");
    standing.each_header(f.site.rules.limit_headers(), |name, value| told.push((name, value)));
    let limit = told.iter().find(|(name, _)| name == "ratelimit").expect("a header").1.to_str().unwrap();
    assert!(limit.starts_with("\"few-second\";r=0;t=") && limit.contains("\"many-second\";r=2;"), "{limit}");
}

#[tokio::test]
async fn the_first_stage_stays_counted_where_the_second_refuses() {
    let f = with(vec![limit("few", "user", &["1/minute"]), limit("by address", "ip", &["3/minute"])]);
    assert_eq!(f.verdicts("/staff/x", 3).await, ["forward", "slow_down", "slow_down"]);
    assert_eq!(f.ask("app.example.com", "/staff/x").await.standing.unwrap().stopped_by(), Some("by address"));
}

#[tokio::test]
async fn a_limit_that_reports_is_counted_and_never_in_the_way() {
    let report = |limit: LimitDraft| LimitDraft { mode: Mode::Report, ..limit };
    let f = with(vec![report(limit("new", "user", &["1/minute"])), limit("old", "user", &["3/minute"])]);
    assert_eq!(f.verdicts("/staff/x", 2).await, ["forward", "forward"]);
    let outcome = f.ask("app.example.com", "/staff/x").await;
    assert_eq!(outcome.verdict.as_str(), "forward");
    let standing = outcome.standing.expect("limits");
    assert_eq!((standing.stopped_by(), standing.reported()), (None, Some("new")));
    let mut names = String::new();
    standing.each_header(f.site.rules.limit_headers(), |_, value| names += value.to_str().unwrap());
    assert!(names.contains("old-minute") && !names.contains("new"), "clients are not told: {names}");
    assert_eq!(f.verdict("/staff/x").await, "slow_down");
    assert_eq!(f.metric(r#"postern_rate_limit_requests_total{limit="new",status="reported"}"#).as_deref(), Some("3"));
    assert_eq!(f.metric(r#"postern_rate_limit_exceeded_total{limit="new"}"#), None);
    // What cannot be worked out is in nobody's way either.
    let f = with(vec![report(limit("new", "request.headers[\"x-tenant\"]", &["1/minute"]))]);
    assert_eq!(f.verdicts("/staff/x", 2).await, ["forward", "forward"]);
    assert_eq!(f.metric(r#"postern_rate_limit_requests_total{limit="new",status="failed"}"#).as_deref(), Some("2"));
}

#[tokio::test]
async fn a_key_that_cannot_be_worked_out_lets_nobody_pass() {
    let f = with(vec![limit("tenants", "request.headers[\"x-tenant\"]", &["1/minute"])]);
    let outcome = f.ask("app.example.com", "/staff/x").await;
    assert_eq!((outcome.verdict.as_str(), outcome.rule.as_deref()), ("refuse", Some("staff")));
    assert_eq!(outcome.standing.unwrap().stopped_by(), Some("tenants"));
    let f = f.header("x-tenant", "acme");
    assert_eq!(f.verdicts("/staff/x", 2).await, ["forward", "slow_down"]);
}

#[tokio::test]
async fn counters_that_are_afar_are_waited_for_and_that_cannot_answer_let_nobody_pass() {
    for (key, mode, expected) in [
        ("user", Mode::Enforce, "unavailable"),
        ("ip", Mode::Enforce, "unavailable"),
        ("user", Mode::Report, "forward"),
    ] {
        let f = with(vec![LimitDraft { mode, ..limit("chat", key, &["1/minute"]) }]);
        f.counting.afar.store(true, Ordering::SeqCst);
        assert_eq!(f.verdict("/staff/x").await, "forward", "{key} {mode:?}");
        f.counting.down.store(true, Ordering::SeqCst);
        assert_eq!(f.verdict("/staff/x").await, expected, "{key} {mode:?}");
        let counted = f.metric(r#"postern_rate_limit_requests_total{limit="chat",status="unavailable"}"#);
        assert_eq!(counted.as_deref(), Some("1"), "{key} {mode:?}");
    }
}

#[tokio::test]
async fn what_is_public_is_counted_by_address_where_nobody_is_known() {
    let mut f = with(vec![limit("all", "user_or_ip", &["1/minute"])]);
    f.headers.clear();
    assert_eq!(f.verdicts("/public/x", 2).await, ["forward", "slow_down"]);
    let mut f = with(vec![limit("people", "user", &["1/minute"])]);
    f.headers.clear();
    assert_eq!(f.verdicts("/public/x", 2).await, ["forward", "forward"], "nobody is no user");
}

#[tokio::test]
async fn what_no_limit_is_about_has_no_standing() {
    let matches = MatchDraft { path: vec!["/staff/chat/**".to_owned()], ..MatchDraft::default() };
    let f = with(vec![LimitDraft { matches, ..limit("chat", "user", &["1/minute"]) }]);
    assert!(f.ask("app.example.com", "/staff/x").await.standing.is_none());
    assert!(f.ask("app.example.com", "/staff/chat/x").await.standing.is_some());
}

/// A name that a reload took away leaves nothing behind; those that stay go on.
#[tokio::test]
async fn metrics_of_limits_that_are_gone_are_gone() {
    let f = with(vec![limit("old", "user", &["1/minute"]), limit("stays", "user", &["9/minute"])]);
    assert_eq!(f.verdicts("/staff/x", 2).await, ["forward", "slow_down"]);
    f.gate.metrics.limits.keep(["stays"].into_iter());
    let rendered = f.gate.metrics.render();
    assert!(!rendered.contains(r#"limit="old""#), "{rendered}");
    assert_eq!(f.metric(r#"postern_rate_limit_requests_total{limit="stays",status="allowed"}"#).as_deref(), Some("1"));
    assert_eq!(f.verdict("/staff/x").await, "slow_down");
    assert_eq!(
        f.metric(r#"postern_rate_limit_exceeded_total{limit="old"}"#).as_deref(),
        Some("1"),
        "a late one is counted"
    );
}
