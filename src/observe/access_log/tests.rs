use super::*;

fn entry() -> Entry<'static> {
    Entry {
        at: Timestamp::from_unix_millis(1_709_210_096_007),
        role: "forward_auth",
        request_id: "r1",
        trace_id: "t1",
        client: Some([192, 0, 2, 7].into()),
        user: None,
        method: "GET",
        scheme: "https",
        host: "app.example.com",
        path: "/a",
        route: "forward_auth",
        rule: Some("public"),
        verdict: "forward",
        reported: None,
        status: 200,
        took: Duration::from_micros(1234),
    }
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
fn what_a_rule_would_have_said_stands_beside_the_verdict() {
    let entry = Entry { reported: Some(("new \"rule\"", "refuse")), ..entry() };
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
    assert_eq!(
        json(&entry()),
        "{\"time\":\"2024-02-29T12:34:56.007Z\",\"level\":\"INFO\",\"target\":\"postern::access\",\"role\":\"forward_auth\",\
         \"request_id\":\"r1\",\"trace_id\":\"t1\",\"client\":\"192.0.2.7\",\"user\":null,\"method\":\"GET\",\
         \"scheme\":\"https\",\"host\":\"app.example.com\",\"path\":\"/a\",\"route\":\"forward_auth\",\"rule\":\"public\",\
         \"verdict\":\"forward\",\"status\":200,\"duration_ms\":1.234}\n"
    );
    assert_eq!(
        text(&entry()),
        "2024-02-29T12:34:56.007Z forward_auth 200 forward \"GET\" \"https://app.example.com/a\" client=192.0.2.7 \
         route=\"forward_auth\" rule=\"public\" request_id=\"r1\" trace_id=\"t1\" 1.234ms\n"
    );
}

#[test]
fn nothing_a_client_sends_can_end_a_line_or_a_string() {
    let nasty = "/\r\n{\"user\":\"admin\"}\\\u{1b}[2J\u{7f}\u{85}\u{2028}\u{202e}é";
    let entry = Entry { path: nasty, user: Some(nasty), method: nasty, ..entry() };
    let line = json(&entry);
    let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(parsed["path"], nasty);
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
        log.record(&entry());
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
    let fitting = LONGEST_QUEUE / json(&entry()).len();
    for _ in 0..fitting + 3 {
        log.record(&entry());
    }
    assert_eq!(log.dropped().get(), 3);
}
