use super::*;
use crate::core::{
    identity::Factor,
    policy::{Level, PolicyDraft, QueryDraft, RuleDraft, Ruling},
    target::EncodedSlashes,
    user::User,
};

struct Scene {
    rules: RuleSet,
    target: Target,
}

fn scene(url: &str) -> Scene {
    let condition = |key: &str, value: Option<&str>| {
        vec![QueryDraft { key: key.to_owned(), operator: None, value: value.map(str::to_owned) }]
    };
    let rule = RuleDraft {
        domain: vec!["app.example.com".to_owned()],
        policy: Some(Level::OneFactor),
        query: vec![condition("action", Some("view")), condition("debug", None), condition("token", Some("1"))],
        ..RuleDraft::default()
    };
    let (rules, _) = RuleSet::compile(&PolicyDraft { rules: vec![rule], ..PolicyDraft::default() }).unwrap();
    Scene { rules, target: Target::parse_url(url).unwrap() }
}

fn entry(scene: &Scene) -> Entry<'_> {
    Entry {
        at: Timestamp::from_unix_millis(1_709_210_096_007),
        role: "forward_auth",
        request_id: "r1",
        trace_id: "t1",
        client: Some([192, 0, 2, 7].into()),
        caller: None,
        method: "GET",
        target: Some(&scene.target),
        route: "forward_auth",
        rule: Some("public"),
        verdict: "forward",
        reported: None,
        limit: None,
        reported_limit: None,
        headers: None,
        credential: Credential::Settled,
        decided_at: Some(Timestamp::from_unix_millis(1_709_210_096_006)),
        rules: &scene.rules,
        status: 200,
        took: Duration::from_micros(1234),
    }
}

fn plain() -> Scene {
    scene("https://app.example.com/a")
}

fn caller(name: &str, groups: &[&str]) -> Identity {
    let user = User::new(name, groups.iter().map(ToString::to_string).collect());
    Identity::new(&user, Factor::One, Timestamp::from_unix_millis(1_709_210_000_000), None).unwrap()
}

fn json(entry: &Entry<'_>) -> String {
    let mut line = String::new();
    line::json(&mut line, entry);
    line
}

fn text(entry: &Entry<'_>) -> String {
    let mut line = String::new();
    line::text(&mut line, entry);
    line
}

#[test]
fn the_limit_in_the_way_is_told_and_one_that_only_reports() {
    let scene = plain();
    let entry =
        Entry { limit: Some("chat"), reported_limit: Some("mail"), verdict: "slow_down", status: 429, ..entry(&scene) };
    let line = json(&entry);
    assert!(line.contains(r#""verdict":"slow_down","limit":"chat","reported_limit":"mail","status":429"#), "{line}");
    let line = text(&entry);
    assert!(line.contains(r#" limit="chat" reported_limit="mail" request_id="#), "{line}");
}

#[test]
fn what_a_rule_would_have_said_stands_beside_the_verdict() {
    let (scene, reported) = (plain(), Reported { rule: Arc::from("new \"rule\""), ruling: Ruling::Refuse });
    let entry = Entry { reported: Some(&reported), ..entry(&scene) };
    assert!(json(&entry).contains(
        "\"verdict\":\"forward\",\"reported_rule\":\"new \\\"rule\\\"\",\"reported_verdict\":\"refuse\",\"status\":200"
    ));
    assert!(
        text(&entry)
            .contains("rule=\"public\" reported_rule=\"new \\\"rule\\\"\" reported_verdict=\"refuse\" request_id")
    );
}

#[test]
fn the_fields_are_a_contract() {
    let scene = plain();
    let entry = || entry(&scene);
    assert_eq!(
        json(&entry()),
        "{\"time\":\"2024-02-29T12:34:56.007Z\",\"level\":\"INFO\",\"target\":\"postern::access\",\"role\":\"forward_auth\",\
         \"request_id\":\"r1\",\"trace_id\":\"t1\",\"client\":\"192.0.2.7\",\"user\":null,\"method\":\"GET\",\
         \"scheme\":\"https\",\"host\":\"app.example.com\",\"path\":\"/a\",\"query\":null,\"route\":\"forward_auth\",\"rule\":\"public\",\
         \"verdict\":\"forward\",\"status\":200,\"duration_ms\":1.234}\n"
    );
    assert_eq!(
        text(&entry()),
        "2024-02-29T12:34:56.007Z forward_auth 200 forward \"GET\" \"https://app.example.com/a\" client=192.0.2.7 \
         route=\"forward_auth\" rule=\"public\" request_id=\"r1\" trace_id=\"t1\" 1.234ms\n"
    );
}

/// What a replay decides by.
#[test]
fn what_a_decision_looked_at_stands_in_the_line() {
    let value = |scene: &Scene, change: fn(&mut Entry<'_>)| -> serde_json::Value {
        let mut entry = entry(scene);
        change(&mut entry);
        serde_json::from_str(&json(&entry)).unwrap()
    };
    let keep = |_: &mut Entry<'_>| {};
    let bob = caller("bob", &["dev", "ops"]);
    let scene = plain();
    let line = json(&Entry { caller: Some(&bob), ..entry(&scene) });
    assert!(
        line.contains(
            "\"user\":\"bob\",\"groups\":[\"dev\",\"ops\"],\"factor\":\"one\",\"auth_age_ms\":96006,\"method\""
        ),
        "{line}"
    );
    let claiming = caller("bob", &[]).with_claimed_roles(vec!["editor".to_owned()]);
    let line = json(&Entry { caller: Some(&claiming), ..entry(&scene) });
    assert!(line.contains("\"groups\":[],\"claimed_roles\":[\"editor\"],\"factor\""), "{line}");
    let ahead =
        Entry { caller: Some(&bob), decided_at: Some(Timestamp::from_unix_millis(1_709_209_999_999)), ..entry(&scene) };
    assert!(json(&ahead).contains("\"auth_age_ms\":-1,"));

    for (query, expected) in [
        ("", serde_json::json!({ "action": null, "debug": null, "token": null })),
        ("action=view&x=secret", serde_json::json!({ "action": "view", "debug": null, "token": null })),
        ("debug=secret&token=secret", serde_json::json!({ "action": null, "debug": true, "token": true })),
        ("action=a&action=%22b", serde_json::json!({ "action": ["a", "\"b", "a,\"b"], "debug": null, "token": null })),
        ("Debug&action=%zz", serde_json::json!({ "action": [], "debug": [null, true], "token": null })),
    ] {
        let scene = self::scene(&format!("https://app.example.com/a?{query}"));
        let line = value(&scene, keep);
        assert_eq!(line["query"], expected, "{query}");
        assert!(!line.to_string().contains("secret") && line.get("other_paths").is_none(), "{line}");
    }
    // No rule of this host reads anything; none was asked.
    assert_eq!(value(&self::scene("https://b.example.com/a?action=secret"), keep)["query"], serde_json::json!({}));
    let line = value(&self::scene("https://app.example.com/a?action=secret"), |entry| entry.rule = None);
    assert!(line.get("query").is_none(), "{line}");

    let target = Target::parse_url_with("https://app.example.com/a;v/b%2Fc", EncodedSlashes::Strictest).unwrap();
    let line = value(&Scene { target, ..plain() }, keep);
    assert_eq!(line["path"], "/a;v/b%2Fc");
    assert_eq!(line["other_paths"], serde_json::json!(["/a/b%2Fc", "/a/b/c", "/a;v/b/c"]));
    let line = value(&plain(), |entry| entry.credential = Credential::Failed);
    assert_eq!((&line["credential"], value(&plain(), keep).get("credential")), (&"failed".into(), None));
    let line = value(&plain(), |entry| entry.credential = Credential::OutOfScope);
    assert_eq!(line["credential"], "out_of_scope");
    let (scene, person, machine) = (plain(), caller("ci", &[]), caller("ci", &[]).as_service());
    let account = |caller| {
        let line = json(&Entry { caller: Some(caller), ..entry(&scene) });
        serde_json::from_str::<serde_json::Value>(&line).unwrap().get("account").cloned()
    };
    assert_eq!((account(&machine), account(&person)), (Some("service".into()), None));
}

#[test]
fn nothing_a_client_sends_can_end_a_line_or_a_string() {
    let nasty = "/\r\n{\"user\":\"admin\"}\\\u{1b}[2J\u{7f}\u{85}\u{2028}\u{202e}é";
    let target =
        Target::parse_url("https://app.example.com/%E2%80%AE%E2%80%A8%22%5B%1B".trim_end_matches("%1B")).unwrap();
    let (scene, somebody) = (Scene { target, ..plain() }, caller("\u{202e}\\\"é", &["\u{2028}", "b"]));
    let entry = Entry { method: nasty, route: nasty, caller: Some(&somebody), ..entry(&scene) };
    let line = json(&entry);
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&parsed["method"], &parsed["path"]), (&nasty.into(), &"/\u{202e}\u{2028}\"[".into()));
    assert_eq!((&parsed["user"], &parsed["groups"][0]), (&"\u{202e}\\\"é".into(), &"\u{2028}".into()));
    for line in [line, text(&entry)] {
        let body = line.strip_suffix('\n').unwrap();
        assert!(!body.chars().any(char::is_control), "{body}");
        assert!(!body.contains(['\u{2028}', '\u{202e}']), "{body}");
    }
}

#[test]
fn lines_are_written_before_the_end_and_a_moved_file_is_opened_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
    let log = AccessLog::open(&Sink::File(path.clone()), true).unwrap();
    std::fs::rename(&path, &moved).unwrap();
    log.reopen();
    for _ in 0..100 {
        log.record(&entry(&plain()));
    }
    drop(log);
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 100);
    assert_eq!(std::fs::read_to_string(&moved).unwrap(), "");
}

#[test]
fn a_full_queue_drops_and_counts() {
    let log = AccessLog {
        json: true,
        dropped: IntCounter::new("dropped", "dropped").unwrap(),
        queue: Some(Queue { lines: Arc::default(), thread: std::thread::spawn(|| ()) }),
    };
    let scene = plain();
    let fitting = LONGEST_QUEUE / json(&entry(&scene)).len();
    for _ in 0..fitting + 3 {
        log.record(&entry(&scene));
    }
    assert_eq!(log.dropped().get(), 3);
}
