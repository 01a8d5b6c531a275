//! `postern limit show`: it tells what was counted, wherever that is, and takes nothing.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Output};

use serde_json::{Value, json};

use crate::harness::{
    eventually,
    fleet::api_token,
    redis::Redis,
    server::{POLICIES, Role, Server, Setup, feed},
    upstream::Upstream,
    wire::Request,
};

/// The address for which `Role::ForwardAuth` asks.
const CLIENT: &str = "198.51.100.7";
const SOCKET: &str = "data/postern.sock";

const LIMITS: &str = r"limits:
  - { name: chat, match: { path: /members/** }, key: user, rates: [3/hour, 1000/second burst 2000], plans: { pro: [50/hour] } }
  - { name: flood, key: ip, rates: [100/day] }
  - { name: trial, key: 'header:X-Tenant', rates: [1/hour], mode: report }
";

fn setup(upstream: &Upstream) -> Setup {
    Setup::with(upstream).policies(&format!("{POLICIES}{LIMITS}"))
}

/// The command, however it ends.
fn show(server: &Server, arguments: &[&str]) -> Output {
    feed(&mut server.command(&[&["limit", "show"], arguments].concat()), "")
}

fn text(server: &Server, key: &str) -> String {
    server.run(&["limit", "show", key])
}

fn shown(server: &Server, arguments: &[&str]) -> Value {
    let told = server.run(&[&["limit", "show", "--format", "json"], arguments].concat());
    serde_json::from_str(&told).expect("JSON")
}

/// Why it cannot be told, with exit code 1.
fn fault(server: &Server, key: &str) -> String {
    let output = show(server, &[key]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// The one limit that counts it: its name, what is used and left by its first rate, whether a request is refused.
fn only(server: &Server, arguments: &[&str]) -> (String, u64, u64, bool) {
    let told = shown(server, arguments);
    let limits = told["limits"].as_array().expect("a list");
    assert_eq!(limits.len(), 1, "{told}");
    let (limit, rate) = (&limits[0], &limits[0]["rates"][0]);
    let number = |key: &str| rate[key].as_u64().unwrap_or_else(|| panic!("no {key} in {told}"));
    (
        limit["limit"].as_str().expect("a name").to_owned(),
        number("used"),
        number("remaining"),
        limit["refused"].as_bool().expect("a word"),
    )
}

fn chat(used: u64, refused: bool) -> (String, u64, u64, bool) {
    ("chat".to_owned(), used, 3 - used, refused)
}

fn flood(used: u64) -> (String, u64, u64, bool) {
    ("flood".to_owned(), used, 100 - used, false)
}

#[tokio::test]
async fn what_was_used_is_told_before_and_after_a_refusal() {
    let upstream = Upstream::start().await;
    let server = setup(&upstream).start().await;
    let alice = server.sign_in("alice").await;
    let asked = Request::get("/members/x").cookie(alice.gate.clone()).header("Accept", "application/json");
    assert_eq!(only(&server, &["user:alice"]), chat(0, false));
    for used in 1..=3 {
        let reply = server.ask(Role::ForwardAuth, &asked).await;
        assert_eq!((reply.status, reply.header("X-RateLimit-Remaining")), (200, Some(&*(3 - used).to_string())));
        assert_eq!(only(&server, &["user:alice"]), chat(used, used == 3));
        assert_eq!(only(&server, &[&format!("ip:{CLIENT}")]), flood(used));
    }
    let refused = server.ask(Role::ForwardAuth, &asked).await;
    assert_eq!(refused.status, 429);
    let told = shown(&server, &["alice"]);
    assert_eq!(told["limits"].as_array().map(Vec::len), Some(1), "what nobody is and nobody used is not told: {told}");
    let limit = &told["limits"][0];
    assert_eq!(
        (&told["counted_in"], &told["one_node"], &limit["exceeded"]),
        (&json!("memory"), &json!(false), &json!("3/hour"))
    );
    assert_eq!(
        (&limit["key"], &limit["of"], &limit["mode"], &limit["plan"]),
        (&json!("user"), &json!("user:alice"), &json!("enforce"), &Value::Null)
    );
    let (wait, of_client) =
        (limit["retry_after"].as_u64(), refused.header("Retry-After").and_then(|wait| wait.parse().ok()));
    assert!(wait > Some(0) && wait <= of_client, "{told} {refused:?}");
    assert!(limit["rates"][0]["whole_in"].as_u64() >= wait, "{told}");
    assert_eq!(limit["rates"][1]["rate"], json!("1000/second burst 2000"));
    let words = text(&server, "alice");
    for told in [
        "alice, counted in memory of the server at data/postern.sock\n",
        "chat by user, for user:alice\n",
        "     3 used       0 left   whole again in ",
        "  a request is refused now, for ",
        " (3/hour)\n",
        "sign-ins of user:alice need not wait\n",
    ] {
        assert!(words.contains(told), "no {told:?} in {words}");
    }
    // A refusal took nothing of it, but one of what is counted before.
    assert_eq!((only(&server, &["user:alice"]), only(&server, &[CLIENT])), (chat(3, true), flood(4)));
    assert_eq!(only(&server, &["user:bob"]), chat(0, false));

    server.run(&["user", "set", "alice", "--attribute", "plan=pro"]);
    assert_eq!(only(&server, &["user:alice"]), ("chat".to_owned(), 3, 47, false));
    assert!(text(&server, "alice").contains("chat by user, for user:alice, plan pro (of the user)\n"));
    assert_eq!(only(&server, &["user:alice", "--plan", "none"]), chat(3, true));
    assert_eq!(only(&server, &["user:bob", "--plan", "pro"]), ("chat".to_owned(), 0, 50, false));

    let of_tenant = Request::get("/public/x").header("X-Tenant", "acme");
    for _ in 0..3 {
        assert_eq!(server.ask(Role::ForwardAuth, &of_tenant).await.status, 200);
    }
    let told = shown(&server, &["header:x-tenant=acme"]);
    let limit = &told["limits"][0];
    assert_eq!(
        (&limit["mode"], &limit["refused"], &limit["exceeded"]),
        (&json!("report"), &json!(false), &json!("1/hour"))
    );
    assert!(text(&server, "header:x-tenant=acme").contains("a request passes now, and is reported: by 1/hour"));
    assert_eq!(only(&server, &["header:X-Tenant"]).1, 1, "of all who sent none, and beyond the limit nothing is taken");
}

#[tokio::test]
async fn sessions_and_tokens_are_named_as_lists_show_them() {
    let upstream = Upstream::start().await;
    let limits = "limits:\n  - { name: chat, match: { path: /members/** }, key: token, rates: [3/hour] }\n";
    let server = Setup::with(&upstream).policies(&format!("{POLICIES}{limits}")).start().await;
    let alice = server.sign_in("alice").await;
    let token = api_token(&server, "bob");
    let list: Value = serde_json::from_str(&server.run(&["token", "list", "--format", "json"])).expect("JSON");
    let id = list[0]["id"].as_str().expect("an id");
    let by_session = Request::get("/members/x").cookie(alice.gate.clone());
    let by_token = Request::get("/members/x").header("Authorization", token);
    for (request, times) in [(by_session, 1), (by_token, 2)] {
        for _ in 0..times {
            assert_eq!(server.ask(Role::ForwardAuth, &request).await.status, 200);
        }
    }
    for (key, id, used) in [("session", alice.session_id.as_str(), 1), ("token", id, 2)] {
        assert_eq!(only(&server, &[&format!("{key}:{id}")]), chat(used, false));
        assert_eq!(only(&server, &[id]), chat(used, false), "whatever it may be");
    }
    assert_eq!(only(&server, &["user:bob"]), chat(0, false), "whoever has neither");
}

#[tokio::test]
async fn whom_no_limit_counts_and_what_cannot_be_meant() {
    let upstream = Upstream::start().await;
    let server = setup(&upstream).prepare();
    let told = text(&server, "cel:acme");
    assert_eq!(
        told,
        "no limit counts cel:acme; there are\n  flood by ip\n  chat by user\n  trial by header:x-tenant\n"
    );
    for wrong in [&["ip:alice"][..], &["postern_pat_secret"], &[""], &[], &["a", "b"]] {
        let output = show(&server, wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("pat_secret"), "{output:?}");
    }
    assert!(fault(&server, "token:00000000000000000000").contains("`postern token list`"));
}

#[tokio::test]
async fn the_socket_is_for_the_servers_user_alone_and_where_it_is_wanted() {
    let upstream = Upstream::start().await;
    let mode = |server: &Server, path: &str| {
        fs::metadata(server.folder().join(path)).map(|about| about.permissions().mode() & 0o7777).ok()
    };
    let server = setup(&upstream).start().await;
    assert_eq!(mode(&server, SOCKET), Some(0o600));

    let mut elsewhere = setup(&upstream);
    elsewhere.server = "  control: run/control.sock\n".to_owned();
    elsewhere.files = vec![("run/.keep".to_owned(), String::new())];
    let server = elsewhere.start().await;
    assert_eq!((mode(&server, "run/control.sock"), mode(&server, SOCKET)), (Some(0o600), None));
    assert_eq!(only(&server, &["user:alice"]), chat(0, false));

    let mut none = setup(&upstream);
    none.server = "  control: none\n".to_owned();
    let server = none.start().await;
    assert_eq!(mode(&server, SOCKET), None);
    assert!(fault(&server, "user:alice").contains("(server.control: none)"));

    let mut missing = setup(&upstream);
    missing.server = "  control: missing/control.sock\n".to_owned();
    let server = missing.start().await;
    assert!(server.log().contains("the control socket cannot be made"), "{}", server.log());
    assert!(fault(&server, "user:alice").contains("missing/control.sock"));
}

#[tokio::test]
async fn where_no_server_runs_it_says_so_and_the_next_server_takes_the_socket_over() {
    let upstream = Upstream::start().await;
    let mut server = setup(&upstream).prepare();
    let nobody = "none listens at data/postern.sock (server.control)";
    assert!(fault(&server, "user:alice").contains(nobody));
    server.launch().await;
    assert_eq!(only(&server, &["user:alice"]), chat(0, false));
    server.signal("KILL");
    server.running().end().await;
    assert!(server.folder().join(SOCKET).exists(), "nobody took it away");
    assert!(fault(&server, "user:alice").contains(nobody));
    server.launch().await;
    assert_eq!(only(&server, &["user:alice"]), chat(0, false));
    server.stop().await;
    assert!(fault(&server, "user:alice").contains(nobody));
}

#[tokio::test]
async fn of_two_servers_the_newer_one_is_asked_and_the_end_of_the_older_one_is_no_matter() {
    let upstream = Upstream::start().await;
    let mut older = setup(&upstream).start().await;
    let socket = older.folder().join(SOCKET);
    let mut relieving = setup(&upstream);
    relieving.server = format!("  control: \"{}\"\n", socket.display());
    let newer = relieving.start().await;
    assert_eq!(newer.ask(Role::ForwardAuth, &Request::get("/public/x")).await.status, 200);
    let told = || (only(&older, &[CLIENT]), only(&newer, &[CLIENT]));
    assert_eq!(told(), (flood(1), flood(1)));
    older.stop().await;
    assert_eq!(only(&newer, &[CLIENT]), flood(1));
}

#[tokio::test]
async fn what_is_counted_in_redis_is_read_there() {
    let upstream = Upstream::start().await;
    let mut redis = Redis::start().await;
    let with_counters = || {
        let mut setup = setup(&upstream);
        let rest = setup.storage.strip_suffix(" }").expect("a mapping").to_owned();
        setup.storage = format!("{rest}, counters: \"{}\" }}", redis.url());
        setup
    };
    let mut server = with_counters().start().await;
    let alice = server.sign_in("alice").await;
    let asked = Request::get("/members/x").cookie(alice.gate.clone());
    for used in 1..=3 {
        assert_eq!(server.ask(Role::ForwardAuth, &asked).await.status, 200);
        // Where Redis stood still for longer than a request waits, it is told with the next beat.
        eventually("it is counted", || async {
            (only(&server, &["user:alice"]) == chat(used, used == 3)).then_some(())
        })
        .await;
    }
    assert_eq!(server.ask(Role::ForwardAuth, &asked).await.status, 429);
    let told = shown(&server, &["alice"]);
    assert_eq!((&told["counted_in"], &told["limits"][0]["exceeded"]), (&json!("redis"), &json!("3/hour")));
    assert!(text(&server, "alice").starts_with("alice, counted in Redis: redis://"));
    assert!(!server.folder().join(SOCKET).exists(), "nobody would ask there");
    let nodes = redis.command(&["ZCOUNT", "postern:limit-nodes", "-inf", "(+inf"]).await;
    assert!(nodes.ends_with('1'), "a command is no node: {nodes}");
    server.stop().await;
    assert_eq!(only(&server, &["user:alice"]), chat(3, true), "no server need run");
    redis.kill();
    assert!(fault(&server, "user:alice").contains("the counters store cannot answer"));
}

#[tokio::test]
async fn who_has_to_wait_with_a_sign_in_is_told() {
    let upstream = Upstream::start().await;
    let server = setup(&upstream).start().await;
    for _ in 0..5 {
        assert_eq!(server.login("bob", "wrong", &[]).await.status, 401);
    }
    // Once more after that wait, so that the next one is longer than the commands take.
    eventually("another try", || async { (server.login("bob", "wrong again", &[]).await.status == 401).then_some(()) })
        .await;
    let told = shown(&server, &["bob"]);
    let sign_in = &told["sign_in"][0];
    assert_eq!((&sign_in["of"], &sign_in["wait"]), (&json!("user:bob"), &Value::Null));
    let elsewhere: Vec<u64> =
        sign_in["elsewhere"].as_array().expect("a list").iter().filter_map(Value::as_u64).collect();
    assert!(matches!(elsewhere.as_slice(), [1..=10]), "{told}");
    // Sign-ins by an address count for whose it is; and a key may come by standard input.
    let by_address = feed(&mut server.command(&["limit", "show", "--format", "json", "-"]), "user:bob@example.com");
    let by_address: Value = serde_json::from_slice(&by_address.stdout).expect("JSON");
    assert_eq!(by_address["sign_in"][0]["of"], "user:bob", "{by_address}");
    assert_eq!(by_address["sign_in"][0]["elsewhere"].as_array().map(Vec::len), Some(1), "{by_address}");
    let words = text(&server, "bob");
    assert!(words.contains("sign-ins of user:bob need not wait\n  but at 1 address or known device: "), "{words}");
    assert!(text(&server, "127.0.0.1").contains("sign-ins of ip:127.0.0.1 need not wait\n"));
}
