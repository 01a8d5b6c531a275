use std::{
    io::{BufReader, Cursor, Read as _},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::*;
use crate::{
    core::{
        client_ip::ClientAddress,
        decision::decide,
        identity::{Factor, Identity},
        policy::{Level, Mode, Operator, PolicyDraft, QueryDraft, Question, RuleDraft},
        target::{EncodedSlashes, Target},
        time::Timestamp,
        user::User,
        verdict::Credential,
    },
    observe::access_log::{AccessLog, Entry, Sink},
};

fn rule(name: &str, path: &str, policy: Level) -> RuleDraft {
    RuleDraft {
        name: Some(name.to_owned()),
        domain: vec!["a.test".to_owned()],
        path: vec![path.to_owned()],
        policy: Some(policy),
        ..RuleDraft::default()
    }
}

fn compiled(rules: Vec<RuleDraft>) -> RuleSet {
    RuleSet::compile(&PolicyDraft { rules, ..PolicyDraft::default() }).unwrap().0
}

fn querying(key: &str, operator: Operator, value: Option<&str>) -> Vec<Vec<QueryDraft>> {
    vec![vec![QueryDraft { key: key.to_owned(), operator: Some(operator), value: value.map(str::to_owned) }]]
}

fn caller(name: &str, groups: &[&str]) -> Identity {
    let user = User::new(name, groups.iter().map(ToString::to_string).collect());
    Identity::new(&user, Factor::One, Timestamp::from_unix_millis(1_000_000), None).unwrap()
}

/// What a live decision would have written.
fn log(rules: &RuleSet, requests: &[(&str, Option<&Identity>)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let log = AccessLog::open(&Sink::File(path.clone()), true).unwrap();
    for (url, caller) in requests {
        let target = Target::parse_url_with(url, EncodedSlashes::Strictest).unwrap();
        // One second inside the `max_auth_age` of the rules below; the request then takes an hour.
        let decided_at = Timestamp::from_unix_millis(1_000_000 + 59_000);
        let client = ClientAddress::Known([10, 1, 2, 3].into());
        let decided = decide(
            rules,
            &Question {
                target: &target,
                method: "GET",
                client,
                caller: *caller,
                now: decided_at,
                headers: None,
                route: None,
            },
        );
        let took = Duration::from_secs(3600);
        log.record(&Entry {
            at: decided_at.after(took),
            role: "edge",
            request_id: "r",
            trace_id: "t",
            client: client.known(),
            caller: *caller,
            method: "GET",
            target: Some(&target),
            route: "app",
            rule: Some(&decided.rule),
            verdict: decided.verdict.as_str(),
            limit: None,
            reported_limit: None,
            reported: None,
            headers: None,
            credential: Credential::Settled,
            decided_at: Some(decided_at),
            rules,
            status: 200,
            took,
        });
    }
    drop(log);
    std::fs::read_to_string(path).unwrap()
}

fn replay(rules: &RuleSet, log: &str) -> Tally {
    tally(rules, Cursor::new(log.as_bytes()), |_| ()).unwrap()
}

fn before() -> RuleSet {
    compiled(vec![
        rule("public", "/public/**", Level::Bypass),
        RuleDraft { query: querying("action", Operator::Pattern, Some("^del")), ..rule("delete", "/**", Level::Deny) },
        RuleDraft { subject: vec![vec!["group:dev".to_owned()]], ..rule("dev", "/dev/**", Level::OneFactor) },
        RuleDraft { max_auth_age: Some(Duration::from_secs(60)), ..rule("fresh", "/fresh", Level::OneFactor) },
        RuleDraft { networks: vec!["10.0.0.0/8".to_owned()], ..rule("office", "/office/**", Level::OneFactor) },
    ])
}

fn requests<'i>(bob: &'i Identity, eve: &'i Identity) -> Vec<(&'static str, Option<&'i Identity>)> {
    vec![
        ("https://a.test/public/x?y=1", None),
        ("https://a.test/dev/x", None),
        ("https://a.test/dev/x", Some(bob)),
        ("https://a.test/dev/x?action=delete", Some(bob)),
        ("https://a.test/dev/x?action=view&action=delete", Some(bob)),
        ("https://a.test/dev/x?action=%22%C3%A9%0A", Some(bob)),
        ("https://a.test/dev/x", Some(eve)),
        ("https://a.test/fresh", Some(eve)),
        ("https://a.test/office/x", Some(eve)),
        ("https://a.test/public;v/x%2Fy", Some(eve)),
        ("https://b.test/", None),
    ]
}

/// A machine is no user of its name, also in yesterday's log.
#[test]
fn a_service_account_is_replayed_as_a_client() {
    let machines = |subject: &str| {
        compiled(vec![RuleDraft { subject: vec![vec![subject.to_owned()]], ..rule("r", "/**", Level::OneFactor) }])
    };
    let (rules, ci) = (machines("client:ci"), caller("ci", &[]).as_service());
    let log = log(&rules, &[("https://a.test/x", Some(&ci))]);
    assert_eq!(replay(&rules, &log).unchanged, 1);
    assert_eq!(replay(&machines("user:ci"), &log).unchanged, 0);
}

#[test]
fn a_log_replayed_under_its_own_rules_changes_nothing() {
    let (rules, bob, eve) = (before(), caller("bob", &["dev", "ops"]), caller("eve", &[]));
    let told = replay(&rules, &log(&rules, &requests(&bob, &eve)));
    assert_eq!((told.lines, told.unchanged, told.by_another_rule), (11, 11, 0), "{told:?}");
}

#[test]
fn other_rules_and_what_they_would_change() {
    let (rules, bob, eve) = (before(), caller("bob", &["dev"]), caller("eve\u{202e}", &[]));
    let log = log(&rules, &requests(&bob, &eve));
    let now = compiled(vec![
        rule("open", "/public/**", Level::Bypass),
        RuleDraft {
            query: querying("y", Operator::Absent, None),
            mode: Mode::Enforce,
            ..rule("y", "/fresh", Level::Deny)
        },
        RuleDraft { query: querying("x", Operator::Present, None), ..rule("x", "/dev/**", Level::Deny) },
        rule("everybody", "/dev/**", Level::OneFactor),
        rule("nobody", "/office/**", Level::Deny),
    ]);
    let told = replay(&now, &log);
    assert_eq!(told.changed, tally::Changed { opens: 1, closes: 2, other: 0 }, "{told:?}");
    assert_eq!((told.unknown, told.unchanged, told.by_another_rule), (3, 5, 3), "{told:?}");
    insta::assert_snapshot!(report::text(&told, false).unwrap());
    insta::assert_snapshot!("as_json", report::json(&told));
    let json: serde_json::Value = serde_json::from_str(&report::json(&told)).unwrap();
    assert_eq!(json["users"][0]["user"], "eve\u{202e}");
    let coloured = report::text(&told, true).unwrap();
    assert_eq!(coloured.matches('\u{1b}').count(), 6, "three headings, and nothing of what was sent: {coloured}");
}

#[test]
fn every_line_is_counted_as_something() {
    let rules = before();
    let good = log(&rules, &[("https://a.test/fresh", None)]);
    let line = good.trim_end();
    let (without_rule, unavailable) =
        (line.replace("\"rule\":\"fresh\"", "\"rule\":null"), line.replace("sign_in", "unavailable"));
    for (text, expected) in [
        ("{\"target\":\"postern::gate\",\"rule\":\"x\"}", Some(Skip::Other)),
        ("{}", Some(Skip::Other)),
        ("[1]", Some(Skip::Other)),
        ("\"x\"", Some(Skip::Other)),
        ("", Some(Skip::NotJson)),
        ("2024-02-29T12:34:56.007Z edge 200 forward \"GET\"", Some(Skip::NotJson)),
        (line.get(..line.len() - 9).unwrap(), Some(Skip::NotJson)),
        (&*without_rule, Some(Skip::NoRule)),
        (&*unavailable, Some(Skip::Unavailable)),
        (line, None),
    ] {
        let found = match line::parse(text.as_bytes()) {
            Line::Asked(_) => None,
            Line::Skip(skip) => Some(skip),
            Line::Incomplete(_) => panic!("incomplete: {text}"),
        };
        assert_eq!(found, expected, "{text}");
    }
    // What another version wrote may lack anything, and say what this one does not know.
    let (bob, and_more) = (caller("bob", &["dev"]), "https://a.test/dev/x?action=a");
    let line = log(&rules, &[(and_more, Some(&bob))]);
    for (field, instead) in [
        (",\"query\":{\"action\":\"a\"}", ""),
        (",\"groups\":[\"dev\"]", ""),
        (",\"factor\":\"one\"", ""),
        (",\"auth_age_ms\":59000", ""),
        (",\"client\":\"10.1.2.3\"", ""),
        (",\"user\":\"bob\"", ""),
        ("\"action\":\"a\"", "\"action\":7"),
        ("\"verdict\":\"forward\"", "\"verdict\":\"maybe\""),
        ("\"verdict\"", "\"credential\":\"other\",\"verdict\""),
        ("\"user\":\"bob\"", "\"user\":\"bob\\n\""),
    ] {
        assert!(line.contains(field), "no {field} in {line}");
        let told = replay(&rules, &line.replacen(field, instead, 1));
        assert_eq!((told.lines, told.unknown, told.all_decided()), (1, 1, 0), "{field}: {told:?}");
    }
    assert_eq!(replay(&rules, &line).unchanged, 1);
    let cut = format!("{line}{}", line.get(..100).unwrap());
    assert_eq!(replay(&rules, &cut).skipped.get(&Skip::Cut), Some(&1));
    assert_eq!(replay(&rules, line.trim_end()).unchanged, 1, "a last line without an end");
    assert!(replay(&rules, "text\n{}\n").holds_no_access_line() && !replay(&rules, &line).holds_no_access_line());
}

/// What a limit stopped, the rules had let pass: whether they would again is a question to the rules alone.
#[test]
fn what_a_limit_stopped_was_let_pass_by_the_rules() {
    let (rules, bob) = (before(), caller("bob", &["dev"]));
    let line = log(&rules, &[("https://a.test/dev/x", Some(&bob))]);
    for verdict in ["slow_down", "refuse"] {
        let stopped =
            line.replacen("\"verdict\":\"forward\"", &format!("\"verdict\":\"{verdict}\",\"limit\":\"chat\""), 1);
        assert_eq!(replay(&rules, &stopped).unchanged, 1, "{stopped}");
        assert_eq!(replay(&compiled(Vec::new()), &stopped).changed.closes, 1, "{stopped}");
    }
}

/// Asked to sign in where no cookie reaches, people got 400: they would again.
#[test]
fn a_foreign_host_is_no_change() {
    let rules = before();
    let log = log(&rules, &[("https://a.test/fresh", None)]).replace("sign_in", "reject");
    assert_eq!(replay(&rules, &log).unchanged, 1);
    let open = compiled(vec![rule("open", "/**", Level::Bypass)]);
    assert_eq!(replay(&open, &log).changed.opens, 1);
}

#[test]
fn a_line_of_any_length_takes_bounded_memory() {
    let rules = before();
    let good = log(&rules, &[("https://a.test/fresh", None)]);
    let endless = std::io::repeat(b'x').take(64 * 1024 * 1024);
    let longest = [b"x".repeat(lines::LONGEST - 1), b"\n".to_vec()].concat();
    let longer = [b"x".repeat(lines::LONGEST + 1), b"\n".to_vec()].concat();
    let all = good.as_bytes().chain(endless).chain(&b"\n"[..]).chain(&*longest).chain(&*longer).chain(good.as_bytes());
    let mut lines = Lines::new(BufReader::new(all));
    let mut seen = Vec::new();
    while let Some(found) = lines.next().unwrap() {
        seen.push(match found {
            Read::Line { text, is_cut } => (text.len(), is_cut),
            Read::TooLong => (0, false),
        });
    }
    let whole = good.len() - 1;
    assert_eq!(seen, [(whole, false), (0, false), (lines::LONGEST - 1, false), (0, false), (whole, false)]);
    assert!(lines.line.capacity() <= 4 * lines::LONGEST, "{}", lines.line.capacity());
    assert_eq!(lines.bytes, (2 * good.len() + 64 * 1024 * 1024 + 1 + longest.len() + longer.len()) as u64);
}

#[test]
fn names_without_end_take_bounded_memory() {
    let rules = before();
    let bob = caller("bob", &["dev"]);
    let line = log(&rules, &[("https://a.test/dev/x", Some(&bob))]);
    let closed = compiled(vec![]);
    let mut all = String::new();
    for number in 0..12_000 {
        let name = format!("{number} {}", "n".repeat(300));
        let line = line.replace("\"user\":\"bob\"", &format!("\"user\":\"{name}\""));
        all += &line.replace("\"rule\":\"dev\"", &format!("\"rule\":\"{name}\""));
    }
    let told = replay(&closed, &all);
    assert_eq!((told.changed.closes, told.changes.entries.len(), told.users.entries.len()), (12_000, 1_000, 10_000));
    assert_eq!((told.changes.beyond, told.users.beyond), (11_000, 2_000));
    assert!(told.users.entries.keys().all(|user| user.as_ref().unwrap().len() < 210));
    let text = report::text(&told, false).unwrap();
    assert!(text.contains("and 980 more") && text.contains("2000  changes of further users"), "{text}");
}

struct Ticking(AtomicU64);

impl crate::app::Clock for Ticking {
    fn now(&self) -> Timestamp {
        Timestamp::default()
    }
    /// A tenth of a second later each time.
    fn monotonic(&self) -> Duration {
        Duration::from_millis(100 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

#[test]
fn progress_is_drawn_for_whoever_looks_and_taken_away_again() {
    let drawn = |length, is_seen, shown: u64| {
        let clock = Ticking(AtomicU64::new(0));
        let mut progress = Progress::new(&clock, length, is_seen);
        let mut notes = Vec::new();
        for step in 1..=shown {
            progress.show(&mut notes, step * 10_000_000);
        }
        progress.clear(&mut notes);
        String::from_utf8(notes).unwrap()
    };
    assert_eq!(drawn(Some(40_000_000), false, 4), "");
    assert_eq!(drawn(Some(40_000_000), true, 1), "", "what is done at once draws nothing");
    let start = "\r\u{1b}[K";
    assert_eq!(
        drawn(Some(40_000_000), true, 4),
        format!(
            "{start}[{}{}] 50 %  100 MB/s{start}[{}] 100 %  100 MB/s{start}",
            "#".repeat(15),
            ".".repeat(15),
            "#".repeat(30)
        )
    );
    assert_eq!(drawn(None, true, 2), format!("{start}20 MB  100 MB/s{start}"));
    assert!(drawn(Some(0), true, 2).contains("100 %"));
}
