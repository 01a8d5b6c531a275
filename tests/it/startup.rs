//! What cannot work ends at the start: at once, with one clear line, exit code 1, and nothing changed.

use std::{fs, process::Stdio};

use crate::harness::{
    DEADLINE,
    server::{Server, Setup, feed},
    tls,
    upstream::Upstream,
    within,
};

/// One line on standard error that says all of `told`.
fn refuses(server: &Server, told: &[&str]) {
    let output = feed(&mut server.command(&["serve"]), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
    for word in told {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[tokio::test]
async fn a_key_file_that_is_not_the_databases_own() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).prepare();
    let (file, database) = (server.folder().join("data/postern.key"), server.folder().join("data/postern.db"));
    let right = fs::read(&file).expect("the key");
    let before = fs::read(&database).expect("the database");
    for wrong in ["AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n", "short\n", ""] {
        fs::write(&file, wrong).expect("another key");
        refuses(&server, &["data/postern.key"]);
        assert_eq!(fs::read_to_string(&file).expect("the key"), wrong, "never overwritten");
    }
    fs::remove_file(&file).expect("no key");
    refuses(&server, &["data/postern.key"]);
    assert!(!file.exists(), "a new key would make the database useless for ever");
    assert_eq!(fs::read(&database).expect("the database"), before);
    fs::write(&file, right).expect("the right key");
    server.run(&["user", "list"]);
}

#[tokio::test]
async fn a_database_that_is_a_folder_or_no_database() {
    let upstream = Upstream::start().await;
    for make in [
        (|server| fs::create_dir(server.folder().join("data/postern.db"))) as fn(&Server) -> std::io::Result<()>,
        |server| fs::write(server.folder().join("data/postern.db"), "no database, however long one looks at it"),
    ] {
        let server = Setup::with(&upstream).prepare_without_users();
        make(&server).expect("what is no database");
        refuses(&server, &["data/postern.db"]);
    }
}

#[tokio::test]
async fn a_certificate_that_is_none_is_found_by_check_as_well() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    let identity = tls::certificate();
    setup.files = vec![("tls/a.pem".to_owned(), "no certificate".to_owned()), ("tls/a.key".to_owned(), identity.key)];
    let server = setup.prepare_without_users();
    let file = server.folder().join("config/postern.yaml");
    let config = fs::read_to_string(&file).expect("the configuration");
    let tls = "serves: edge, tls: { certificates: [ { certificate: tls/a.pem, key: tls/a.key } ] }";
    fs::write(&file, config.replacen("serves: edge", tls, 1)).expect("the configuration");
    refuses(&server, &["tls/a.pem: holds no certificate"]);
    let checked = feed(&mut server.command(&["check"]), "");
    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&checked.stderr).contains("tls/a.pem: holds no certificate"), "{checked:?}");
}

#[tokio::test]
async fn what_is_wrong_with_certificates_users_and_configuration_is_told_at_once_with_its_place() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    let (first, second) = (tls::certificate(), tls::certificate());
    setup.more = "users: { source: file, path: config/users.yaml }\npolices: x\n".to_owned();
    setup.files = [
        ("config/users.yaml", "users:\n  ann: { displayname: Ann, password: plain }\n  bob: { displayname: Bob }\n"),
        ("tls/a.pem", "no certificate"),
        ("tls/a.key", "no key"),
        ("tls/b.pem", first.certificate.as_str()),
        ("tls/b.key", second.key.as_str()),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into();
    let server = setup.prepare_without_users();
    let file = server.folder().join("config/postern.yaml");
    let config = fs::read_to_string(&file).expect("the configuration");
    let pair = |name: &str| format!("{{ certificate: tls/{name}.pem, key: tls/{name}.key }}");
    let tls =
        format!("serves: edge,\n      tls: {{ client_ca: tls/a.pem, certificates: [{}, {}] }}", pair("a"), pair("b"));
    let text = config.replacen("serves: edge", &tls, 1);
    fs::write(&file, &text).expect("the configuration");
    let place = |key: &str, of: &str| {
        let at = text.find(&format!("{key}{of}")).expect("the place") + key.len();
        let before = &text[..at];
        let line = before.matches('\n').count() + 1;
        format!("config/postern.yaml:{line}:{}:", at - before.rfind('\n').map_or(0, |end| end + 1) + 1)
    };
    for command in ["check", "serve"] {
        let output = feed(&mut server.command(&[command]), "");
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        for told in [
            format!("{} tls/a.pem: holds no certificate", place("client_ca: ", "tls/a.pem")),
            format!("{} tls/a.pem: holds no certificate", place("certificate: ", "tls/a.pem")),
            format!("{} tls/a.key: no private key", place("key: ", "tls/a.key")),
            format!("{} tls/b.key: the key does not belong", place("key: ", "tls/b.key")),
            place("", "polices"),
            "config/users.yaml:2:".to_owned(),
            "config/users.yaml:3:".to_owned(),
        ] {
            assert!(said.contains(&told), "no {told:?} in {said}");
        }
        assert_eq!(said.trim_end().lines().count(), 7, "{said}");
    }
}

#[tokio::test]
async fn a_faulty_file_of_each_kind() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.more = "users: { source: file, path: config/users.yaml }\n".to_owned();
    setup.files =
        vec![("config/users.yaml".to_owned(), "users:\n  ann: { displayname: Ann, password: plain }\n".to_owned())];
    refuses(&setup.prepare_without_users(), &["config/users.yaml:2:", "ann"]);

    let mut setup = Setup::with(&upstream);
    setup.policies = "default: denied\n".to_owned();
    refuses(&setup.prepare_without_users(), &["policies/access.yaml:1:", "denied"]);

    let mut setup = Setup::with(&upstream);
    setup.more = "polices: x\n".to_owned();
    refuses(&setup.prepare_without_users(), &["config/postern.yaml:", "polices"]);

    let server = Setup::with(&upstream).prepare_without_users();
    fs::remove_file(server.folder().join("config/postern.yaml")).expect("no configuration");
    refuses(&server, &["config/postern.yaml"]);
}

#[tokio::test]
async fn processes_that_start_on_one_new_database_wait_for_each_other() {
    let upstream = Upstream::start().await;
    for _ in 0..5 {
        let server = Setup::with(&upstream).prepare_without_users();
        let started: Vec<_> = (0..16)
            .map(|_| {
                let mut command = server.command(&["user", "list"]);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("postern")
            })
            .collect();
        for child in started {
            let output = child.wait_with_output().expect("its end");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

#[tokio::test]
async fn a_folder_that_somebody_else_has_locked_is_told_and_not_waited_for() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).prepare();
    let held = fs::File::open(server.folder().join("data")).expect("the folder");
    held.lock().expect("the lock");
    let mut command = server.command(&["user", "list"]);
    let command = tokio::task::spawn_blocking(move || feed(&mut command, ""));
    let output = within(DEADLINE, "its end", command).await.expect("an output");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.trim_end().lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("held the lock on the folder data"), "{said}");
    drop(held);
    server.run(&["user", "list"]);
}
