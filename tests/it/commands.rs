//! The commands on their own: what `init` leaves works as the README says, nothing panics on a closed pipe, a password is
//! never an argument, lists come as JSON.

use std::{
    fs,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    client::Person,
    port::Port,
    program::Program,
    server::{PASSWORD, Setup, feed, postern},
    upstream::Upstream,
};

fn run(folder: &TempDir, arguments: &[&str], input: &str) -> Output {
    feed(postern(arguments).current_dir(folder.path()), input)
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("UTF-8")
}

#[tokio::test]
async fn what_init_leaves_is_checked_served_and_signed_in_to() {
    let upstream = Upstream::start().await;
    let folder = TempDir::new().expect("a temporary folder");
    let told = said(&run(&folder, &["init"], ""));
    let mut words = told.split_whitespace().skip_while(|word| *word != "password:");
    let password = words.nth(1).expect("a generated password").to_owned();
    assert!(password.len() >= 20, "{password}");
    said(&run(&folder, &["check"], ""));
    said(&run(&folder, &["check", "--strict"], ""));

    // As it stands but for the fixed ports, which a test must not take.
    let file = folder.path().join("config/postern.yaml");
    let (port, admin) = (Port::free(), Port::free());
    let config = fs::read_to_string(&file)
        .expect("the configuration")
        .replace("8080", &port.number().to_string())
        .replace("127.0.0.1:3000", &format!("127.0.0.1:{}", upstream.port()))
        .replace("# admin: \"127.0.0.1:9900\"", &format!("admin: \"127.0.0.1:{}\"", admin.number()));
    fs::write(&file, config).expect("the configuration");
    let mut server = Program::start("postern", folder.path(), &mut postern(&["serve"]));
    server.show_on_failure(file);
    server.answers(admin.number(), "/readyz").await;

    let app = format!("http://app.demo.localhost:{}/reports?year=2026", port.number());
    let person = Person::new();
    let form = person.browse(&app).await;
    let welcome = person.sign_in(&form, "admin", &password).await;
    assert_eq!((welcome.status, welcome.location().as_str()), (303, app.as_str()), "{}", welcome.body);
    let page = person.load(&app).await;
    assert_eq!(page.status, 200, "the first rules let the first administrator in: {}", page.body);
    server.signal("TERM");
    assert_eq!(server.end().await.code(), Some(0));
}

#[test]
fn init_leaves_what_is_there_alone() {
    for there in ["config/postern.yaml", "policies/access.yaml"] {
        let folder = TempDir::new().expect("a temporary folder");
        crate::harness::server::write(folder.path(), there, "mine\n");
        let output = run(&folder, &["init"], "");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(there), "{output:?}");
        let mut files: Vec<_> = walk(folder.path());
        files.retain(|file| file != there);
        assert!(files.is_empty(), "nothing beside it was written: {files:?}");
        assert_eq!(fs::read_to_string(folder.path().join(there)).expect("the file"), "mine\n");
    }
}

fn walk(folder: &std::path::Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(folder).expect("below").display().to_string();
                found.push(name);
            }
        }
    }
    found
}

/// Each prints more than one line; whoever reads takes none, or the first, and goes.
#[tokio::test]
async fn a_closed_pipe_is_no_failure() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).prepare();
    for command in [
        "--help",
        "serve --help",
        "completions bash",
        "user list",
        "user list --format json",
        "session list",
        "limit show alice",
        "limit show --help",
        "check",
        "check --print-schema config",
        "check --print-schema cases",
        "policy explain --policies policies --url http://app.test.localhost/",
        "policy test policies",
    ] {
        for reader in ["head -1", "true"] {
            // `pipefail`: the exit code is postern's. The pipe may close before or after the last write.
            let script = format!("set -o pipefail; {} {command} | {reader}", env!("CARGO_BIN_EXE_postern"));
            let output =
                Command::new("bash").arg("-c").arg(script).current_dir(server.folder()).output().expect("bash");
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!errors.contains("panicked"), "{command} | {reader}: {errors}");
            assert!(!errors.contains("roken pipe"), "{command} | {reader}: {errors}");
            assert_eq!(output.status.code(), Some(0), "{command} | {reader}: {errors}");
        }
    }
}

#[test]
fn a_password_is_never_an_argument() {
    let folder = TempDir::new().expect("a temporary folder");
    for arguments in [
        &["user", "add", "bob", "--password", PASSWORD][..],
        &["user", "add", "bob", PASSWORD],
        &["user", "set", "bob", "--password", PASSWORD],
        &["user", "set-password", "bob", PASSWORD],
        &["init", "--password", PASSWORD],
        &["hash", PASSWORD],
    ] {
        let output = run(&folder, arguments, "");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
    }
    // Without a terminal nobody can be asked: said, not waited for.
    let output = run(&folder, &["user", "add", "bob"], PASSWORD);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--password-stdin"), "{output:?}");
}

#[test]
fn a_wrong_command_line_is_2_and_a_refusal_is_1() {
    let folder = TempDir::new().expect("a temporary folder");
    for wrong in [
        &["session", "revoke"][..],
        &["session", "revoke", "x", "--all"],
        &["user", "add"],
        &["user", "list", "--format", "yaml"],
        &["completions", "no-such-shell"],
        &["policy", "explain", "--policies", "policies", "--url", "http://x/", "--factor", "three"],
        &["demo", "--port", "66000"],
        &["check", "--no-such-option"],
    ] {
        assert_eq!(run(&folder, wrong, "").status.code(), Some(2), "{wrong:?}");
    }
    for refused in [
        &["check"][..],
        &["serve"],
        &["user", "list"],
        &["session", "list"],
        &["health"],
        &["policy", "explain", "--policies", "no-such-folder", "--url", "http://x/"],
    ] {
        let output = run(&folder, refused, "");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), errors.trim_end().lines().count()), (Some(1), 1), "{refused:?}: {errors}");
    }
    assert_eq!(run(&folder, &["hash"], "short").status.code(), Some(1));
    assert!(walk(folder.path()).is_empty(), "none of them left anything: {:?}", walk(folder.path()));
}

#[tokio::test]
async fn every_list_comes_as_json() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).prepare();
    for (arguments, count) in [(&["user", "list"], 2), (&["session", "list"], 0)] {
        let text = server.run(&[&arguments[..], &["--format", "json"]].concat());
        let list: Value = serde_json::from_str(&text).unwrap_or_else(|fault| panic!("no JSON ({fault}): {text}"));
        assert_eq!(list.as_array().map(Vec::len), Some(count), "{text}");
        assert!(!text.contains("password") && !text.contains("argon2"), "{text}");
    }
}
