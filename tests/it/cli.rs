//! The command line, as a person and a script use it.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    client::Person,
    eventually,
    port::Port,
    program::Program,
    server::{PASSWORD, Role, Setup, feed, postern, write},
    upstream::Upstream,
    wire::Request,
};

fn run(folder: &Path, arguments: &[&str], input: &str) -> Output {
    feed(postern(arguments).current_dir(folder), input)
}

fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

fn json(output: &Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|fault| panic!("no JSON ({fault}): {output:?}"))
}

const COMMANDS: &[&str] =
    &["demo", "init", "serve", "check", "policy", "user", "session", "import", "hash", "completions", "health"];

#[test]
fn help_names_every_command_and_each_has_help() {
    let folder = TempDir::new().expect("a temporary folder");
    let help = stdout(&run(folder.path(), &["--help"], ""));
    for command in COMMANDS {
        assert!(help.contains(command), "no {command} in {help}");
        let of_command = stdout(&run(folder.path(), &[command, "--help"], ""));
        assert!(of_command.contains("Usage: postern"), "{of_command}");
        assert!(!of_command.starts_with("Usage"), "no word on what it does: {of_command}");
    }
    for wrong in [&["no-such-command"][..], &["serve", "--no-such-option"], &["user"], &["policy", "explain"]] {
        assert_eq!(run(folder.path(), wrong, "").status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    let folder = TempDir::new().expect("a temporary folder");
    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&run(folder.path(), &["completions", shell], ""));
        assert!(script.contains("postern") && script.contains("explain"), "{shell}");
    }
}

#[test]
fn init_writes_what_check_accepts_and_never_overwrites() {
    let folder = TempDir::new().expect("a temporary folder");
    let here = folder.path();
    let arguments = ["init", "gate", "--admin", "root", "--password-stdin"];
    stdout(&run(here, &arguments, PASSWORD));
    let gate = here.join("gate");
    for file in ["data/postern.db", "data/postern.key"] {
        assert!(gate.join(file).is_file(), "{file}");
    }
    // Each names, in its first line, the schema by which editors check it.
    for (file, schema) in [
        ("config/postern.yaml", "postern.schema.json"),
        ("policies/access.yaml", "../config/policies.schema.json"),
        ("policies/access.cases.yaml", "../config/cases.schema.json"),
    ] {
        let text = fs::read_to_string(gate.join(file)).expect(file);
        assert_eq!(text.lines().next(), Some(&*format!("# yaml-language-server: $schema={schema}")));
        let beside = gate.join(file).parent().expect("a folder").join(schema);
        assert!(fs::read_to_string(beside).expect(schema).contains("json-schema.org"), "{schema}");
    }
    let mode = fs::metadata(gate.join("data/postern.key")).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!stdout(&run(&gate, &["check"], "")).contains(" 0 cases"));
    let users = json(&run(&gate, &["user", "list", "--format", "json"], ""));
    assert_eq!((users[0]["name"].as_str(), users.as_array().map(Vec::len)), (Some("root"), Some(1)), "{users}");

    let config = fs::read(gate.join("config/postern.yaml")).expect("the configuration");
    let again = run(here, &arguments, PASSWORD);
    assert_eq!(again.status.code(), Some(1), "{again:?}");
    assert_eq!(fs::read(gate.join("config/postern.yaml")).expect("the configuration"), config);
}

#[tokio::test]
async fn the_demo_shows_the_gate_and_leaves_nothing() {
    let folder = TempDir::new().expect("a temporary folder");
    let scratch = folder.path().join("tmp");
    fs::create_dir(&scratch).expect("a folder");
    let port = Port::free();
    let number = port.number().to_string();
    let mut command = postern(&["demo", "--port", &number]);
    let mut demo = Program::start("demo", folder.path(), command.env("TMPDIR", &scratch));
    demo.listens(port.number()).await;
    let said = eventually("the demo says where to go", || {
        let log = demo.log();
        async move { log.contains("Ctrl-C").then_some(log) }
    })
    .await;
    let app = format!("http://app.demo.localhost:{number}");
    assert!(said.contains(&app), "{said}");
    let mut words = said.split_whitespace().skip_while(|word| *word != "alice").skip_while(|word| *word != "password");
    let password = words.nth(1).expect("a password").to_owned();

    let person = Person::new();
    let form = person.browse(format!("{app}/some/page?with=query")).await;
    let welcome = person.sign_in(&form, "alice", &password).await;
    assert_eq!(welcome.location().as_str(), format!("{app}/some/page?with=query"));
    let page = person.browse(welcome.location()).await;
    assert!(page.status == 200 && page.body.contains("alice"), "{} {}", page.status, page.body);
    let moved = person.load(format!("http://127.0.0.1:{number}/")).await;
    assert_eq!((moved.status / 100, moved.location().host_str()), (3, Some("app.demo.localhost")));

    demo.signal("INT");
    assert_eq!(demo.end().await.code(), Some(0), "{}", demo.log());
    assert_eq!(fs::read_dir(&scratch).expect("the folder").count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn users_are_managed() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let here = server.folder();
    server.add_user("Carol", &["--name", "Carol C.", "--email", "carol@example.com", "--groups", "dev,ops"]);
    let shown = json(&run(here, &["user", "show", "carol", "--format", "json"], ""));
    assert_eq!((shown["name"].as_str(), shown["groups"][1].as_str()), (Some("Carol"), Some("ops")), "{shown}");
    assert_eq!(run(here, &["user", "add", "CAROL", "--password-stdin"], PASSWORD).status.code(), Some(1));
    assert_eq!(run(here, &["user", "show", "nobody"], "").status.code(), Some(1));

    server.run(&["user", "set", "carol", "--groups", "ops", "--email", "c@example.com"]);
    let listed = stdout(&run(here, &["user", "list"], ""));
    assert!(["alice", "bob", "Carol"].iter().all(|name| listed.contains(name)), "{listed}");
    assert!(!listed.contains("argon2"), "{listed}");

    let changed = run(here, &["user", "set-password", "carol", "--password-stdin"], "another long password");
    assert!(changed.status.success(), "{changed:?}");
    assert_eq!(server.login("carol", PASSWORD, &[]).await.status, 401);
    let reply = server.login("carol", "another long password", &[]).await;
    assert_eq!(reply.status, 200);
    server.run(&["user", "disable", "carol"]);
    assert_eq!(server.login("carol", "another long password", &[]).await.status, 401);
    server.run(&["user", "enable", "carol"]);
    assert_eq!(server.login("carol", "another long password", &[]).await.status, 200);
    server.run(&["user", "delete", "carol"]);
    assert_eq!(run(here, &["user", "show", "carol"], "").status.code(), Some(1));
}

#[tokio::test]
async fn sessions_are_listed_and_revoked() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let bob = server.sign_in("bob").await;
    let listed = json(&run(server.folder(), &["session", "list", "--format", "json"], ""));
    let one = &listed[0];
    assert_eq!((one["id"].as_str(), one["user"].as_str()), (Some(bob.session_id.as_str()), Some("bob")), "{listed}");
    let text = stdout(&run(server.folder(), &["session", "list"], ""));
    assert!(text.contains(&bob.session_id), "{text}");
    for secret in [&bob.gate, &bob.portal] {
        let value = secret.split_once('=').expect("a cookie").1;
        assert!(!text.contains(value) && !listed.to_string().contains(value));
    }
    server.run(&["session", "revoke", &bob.session_id]);
    assert_eq!(run(server.folder(), &["session", "revoke", "no-such-session"], "").status.code(), Some(1));
    let page = Request::get("/members/x").page().cookie(bob.gate);
    eventually("the session is over", || async { (server.ask(Role::Edge, &page).await.status == 302).then_some(()) })
        .await;
}

#[test]
fn hash_prints_an_argon2id_hash_and_never_the_password() {
    let folder = TempDir::new().expect("a temporary folder");
    let hash = stdout(&run(folder.path(), &["hash"], PASSWORD));
    assert!(hash.starts_with("$argon2id$v=19$"), "{hash}");
    assert_eq!(hash.trim().lines().count(), 1);
    assert!(!hash.contains(PASSWORD));
    assert_ne!(hash, stdout(&run(folder.path(), &["hash"], PASSWORD)), "salted");
}

#[tokio::test]
async fn health_tells_whether_the_server_is_alive() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).start().await;
    server.run(&["health"]);
    server.stop().await;
    assert_eq!(run(server.folder(), &["health"], "").status.code(), Some(1));
}

const RULES: &str = "\
default: deny
rules:
  - { name: public, domain: app.example.com, path: ['/public/**'], policy: bypass }
  - { name: admins, domain: app.example.com, path: ['/admin/**'], subject: 'group:admins', policy: two_factor }
  - { name: members, domain: app.example.com, methods: [GET], policy: one_factor }
";

fn explain(options: &[&str]) -> Output {
    let folder = TempDir::new().expect("a temporary folder");
    write(folder.path(), "policies/access.yaml", RULES);
    run(folder.path(), &[&["policy", "explain", "--policies", "policies"], options].concat(), "")
}

#[test]
fn explain_says_the_verdict_and_why_each_rule_matched_or_not() {
    for (url, options, verdict, rule) in [
        ("https://app.example.com/public/x", &[][..], "forward", Some("public")),
        ("https://app.example.com/x", &[], "sign_in", Some("members")),
        ("https://app.example.com/x", &["--user", "bob"], "forward", Some("members")),
        ("https://app.example.com/x", &["--user", "bob", "--method", "POST"], "refuse", Some("default")),
        ("https://app.example.com/admin/x", &["--user", "eve", "--groups", "admins"], "step_up", Some("admins")),
        (
            "https://app.example.com/admin/x",
            &["--user", "eve", "--groups", "admins", "--factor", "two"],
            "forward",
            Some("admins"),
        ),
        ("https://elsewhere.example.com/", &["--user", "bob"], "refuse", Some("default")),
        ("https://app.example.com/a/../b", &["--user", "bob"], "reject", None),
    ] {
        let answer = json(&explain(&[&["--url", url, "--format", "json"], options].concat()));
        assert_eq!(answer["verdict"], verdict, "{url} {options:?}: {answer}");
        if let Some(rule) = rule {
            assert_eq!(answer["rule"], rule, "{url} {options:?}: {answer}");
            let trace = answer["trace"].as_array().expect("a trace");
            assert!(!trace.is_empty());
            for step in trace {
                assert!(
                    step["rule"].is_string() && step["matched"].is_boolean() && step["because"].is_string(),
                    "{step}"
                );
            }
        }
    }
    let text = stdout(&explain(&["--url", "https://app.example.com/x", "--user", "bob"]));
    for word in ["forward", "members", "public", "admins"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    assert!(!text.contains('\u{1b}'), "no colour where nobody looks");
}

const CASES: &str = r#"
cases:
  - { name: anonymous, url: "https://app.example.com/x", expect: sign_in, rule: members }
  - { name: a member, url: "https://app.example.com/x?a=b", user: bob, expect: forward }
  - { name: admins need two, url: "https://app.example.com/admin/x", user: eve, groups: admins, expect: step_up, rule: admins }
  - { name: two are enough, url: "https://app.example.com/admin/x", user: eve, groups: [dev, admins], factor: two, expect: forward }
  - { name: others, url: "https://app.example.com/x", user: bob, method: POST, expect: refuse, rule: default }
  - { name: dots, url: "https://app.example.com/public/../x", expect: reject }
"#;

#[test]
fn cases_that_hold_are_counted_and_those_that_fail_are_explained() {
    let folder = TempDir::new().expect("a temporary folder");
    let here = folder.path();
    write(here, "policies/access.yaml", RULES);
    write(here, "policies/access.cases.yaml", CASES);
    let test = |arguments: &[&str]| run(here, &[&["policy", "test"], arguments].concat(), "");
    assert_eq!(stdout(&test(&["policies"])), "6 cases hold.\n");
    assert_eq!(stdout(&test(&[])), "6 cases hold.\n", "the folder that `init` makes");

    // Another verdict, the right one by another rule, and a verdict where no rule is asked.
    let wrong = CASES
        .replace("expect: sign_in, rule: members", "expect: refuse")
        .replace("expect: refuse, rule: default", "expect: refuse, rule: members")
        .replace("expect: reject", "expect: refuse");
    write(here, "policies/access.cases.yaml", &wrong);
    let failed = test(&["policies"]);
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let told = String::from_utf8(failed.stdout).expect("UTF-8");
    for part in [
        "policies/access.cases.yaml:3:5: anonymous\n  expected  refuse\n  got       sign_in by \"members\"\n",
        "others\n  expected  refuse by \"members\"\n  got       refuse by \"default\"\n",
        "dots\n  expected  refuse\n  got       reject\n    no rule was asked",
        "method POST is not GET",
        "3 of 6 cases failed.\n",
    ] {
        assert!(told.contains(part), "no {part} in {told}");
    }
    for holds in ["a member", "admins need two", "two are enough"] {
        assert!(!told.contains(holds), "{told}");
    }

    fs::remove_file(here.join("policies/access.cases.yaml")).expect("the cases");
    let none = test(&["policies"]);
    assert!(none.status.success() && String::from_utf8_lossy(&none.stderr).contains("nothing was tested"), "{none:?}");
    assert_eq!(test(&["no-such-folder"]).status.code(), Some(1));
}

#[test]
fn check_fails_where_a_case_does_not_hold_and_says_where() {
    let folder = TempDir::new().expect("a temporary folder");
    let here = folder.path();
    let arguments = ["init", ".", "--password-stdin"];
    stdout(&run(here, &arguments, PASSWORD));
    let cases = here.join("policies/access.cases.yaml");
    let text = fs::read_to_string(&cases).expect("the cases");
    fs::write(&cases, text.replace("expect: forward\n    rule: admin area", "expect: sign_in")).expect("the cases");
    let failed = run(here, &["check"], "");
    assert_eq!(failed.status.code(), Some(1), "{failed:?}");
    let told = String::from_utf8(failed.stderr).expect("UTF-8");
    assert!(told.starts_with("policies/access.cases.yaml:"), "{told}");
    assert!(
        told.contains("expected sign_in, got forward by \"admin area\"") && told.contains("postern policy test"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");

    fs::write(&cases, "cases: [ { url: 'http://a', expect: forwad }, { expect: reject } ]").expect("the cases");
    let told = String::from_utf8(run(here, &["check"], "").stderr).expect("UTF-8");
    assert!(told.contains("did you mean `forward`") && told.contains("`url` is missing"), "{told}");
}
