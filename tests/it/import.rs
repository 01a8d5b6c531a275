//! `postern import authelia`, as somebody uses it who moves from there.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use tempfile::TempDir;

use crate::harness::server::{feed, postern, write};

const CONFIGURATION: &str = r"---
theme: dark
server:
  address: tcp://:9091/
identity_validation:
  reset_password: { jwt_secret: hush-jwt }
authentication_backend:
  file:
    path: /config/users_database.yml
access_control:
  default_policy: deny
  networks:
    - { name: office, networks: [192.0.2.0/24] }
  rules:
    - domain: public.example.com
      policy: bypass
    - domain: app.example.com
      resources: [/admin]
      subject: group:admins
      policy: one_factor
    - domain: app.example.com
      resources: [/admin]
      policy: deny
    - domain: '*.example.com'
      networks: [office]
      policy: one_factor
session:
  secret: hush-session
  cookies:
    - domain: example.com
      authelia_url: https://auth.example.com
      inactivity: 10 minutes
storage:
  encryption_key: hush-storage
";

const USERS: &str = "# by hand\nusers:\n  bob:\n    displayname: Bob\n    password: '$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/'\n    groups: [admins]\n";

/// A folder in which `authelia` is as Authelia left it.
fn authelia(configuration: &str) -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    write(folder.path(), "authelia/configuration.yml", configuration);
    write(folder.path(), "authelia/users_database.yml", USERS);
    folder
}

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = feed(postern(arguments).current_dir(folder), "");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path.display().to_string());
        }
    }
    files.sort();
    files
}

#[test]
fn what_is_imported_passes_check_and_decides_as_before() {
    let folder = authelia(CONFIGURATION);
    let here = folder.path();
    let (code, told, errors) = run(here, &["import", "authelia", "authelia", "--output", "gate"]);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{told}");
    insta::assert_snapshot!("import", told);

    let gate = here.join("gate");
    let (code, checked, errors) = run(&gate, &["check"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(checked.contains("4 rules"), "{checked}");

    let users = gate.join("config/users.yaml");
    assert_eq!(fs::read_to_string(&users).expect("the users"), USERS);
    assert_eq!(fs::metadata(&users).expect("the users").permissions().mode() & 0o777, 0o600);
    for file in files_below(&gate) {
        assert!(!fs::read_to_string(&file).expect("a file").contains("hush"), "{file} holds a secret");
    }
    assert!(!told.contains("hush"), "{told}");

    let explained = |arguments: &[&str]| {
        let (code, told, errors) = run(&gate, &[&["policy", "explain", "--policies", "policies"], arguments].concat());
        assert_eq!(code, Some(0), "{errors}");
        told.lines().next().unwrap_or_default().to_owned()
    };
    let admin = "https://app.example.com/x/admin?y";
    assert!(explained(&["--url", "https://public.example.com/"]).contains("forward"));
    assert!(explained(&["--url", admin, "--user", "bob", "--groups", "admins"]).contains("forward"));
    assert!(explained(&["--url", admin, "--user", "eve", "--ip", "192.0.2.7"]).contains("refuse"));
    assert!(
        explained(&["--url", "https://app.example.com/", "--user", "eve", "--ip", "203.0.113.1"]).contains("refuse")
    );
}

#[test]
fn the_file_itself_may_be_named_and_the_working_directory_is_the_default() {
    let folder = authelia(CONFIGURATION);
    let (code, told, errors) = run(folder.path(), &["import", "authelia", "authelia/configuration.yml"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(told.contains("wrote    config/postern.yaml\n"), "{told}");
    assert!(told.contains(". postern check\n"), "{told}");
    assert_eq!(run(folder.path(), &["check"]).0, Some(0));
}

#[test]
fn nothing_is_ever_overwritten() {
    for file in ["config/postern.yaml", "policies/access.yaml", "config/users.yaml", "policies/other.yml"] {
        let folder = authelia(CONFIGURATION);
        write(folder.path(), file, "mine\n");
        let before = files_below(folder.path());
        let (code, _, errors) = run(folder.path(), &["import", "authelia", "authelia"]);
        assert_eq!(code, Some(1), "{file}");
        assert!(errors.contains(file), "{errors}");
        assert_eq!(files_below(folder.path()), before, "{file}");
        assert_eq!(fs::read_to_string(folder.path().join(file)).expect("mine"), "mine\n");
    }
}

#[test]
fn what_would_not_pass_check_is_not_written() {
    for (configuration, told) in [
        (
            CONFIGURATION
                .replace("domain: example.com", "domain: co.uk")
                .replace("https://auth.example.com", "https://auth.co.uk"),
            "public suffix",
        ),
        (CONFIGURATION.replace("domain: example.com", "domain: '{{ env \"ROOT\" }}'"), "no cookie domain"),
        (
            CONFIGURATION.replace("secret: hush-session", "secret: {{ secret \"a\" | nindent 2 }}"),
            "authelia config template",
        ),
        (CONFIGURATION.replace("session:", "session: ["), "configuration.yml:"),
    ] {
        let folder = authelia(&configuration);
        let before = files_below(folder.path());
        let (code, _, errors) = run(folder.path(), &["import", "authelia", "authelia", "--output", "gate"]);
        assert_eq!(code, Some(1), "{errors}");
        assert!(errors.contains(told), "no {told:?} in {errors}");
        assert!(!errors.contains("hush"), "{errors}");
        assert_eq!(files_below(folder.path()), before, "{told}");
        assert!(!folder.path().join("gate").exists(), "{told}");
    }
    // A fault of the users is told at its place in Authelia's file, without the hash.
    let folder = authelia(CONFIGURATION);
    write(folder.path(), "authelia/users_database.yml", "users:\n  bob:\n    password: hush-hash\n");
    let (code, _, errors) = run(folder.path(), &["import", "authelia", "authelia", "--output", "gate"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("authelia/users_database.yml:3:") && !errors.contains("hush"), "{errors}");
    assert!(!folder.path().join("gate").exists());
}

/// Authelia reads all files of a folder as one.
#[test]
fn a_second_file_of_the_configuration_is_not_passed_over() {
    const FIRST: &str = "session: { cookies: [{ domain: example.com, authelia_url: 'https://auth.example.com' }] }\n\
                         access_control: { default_policy: bypass }\n";
    let rules = "access_control: { rules: [{ domain: admin.example.com, policy: deny }] }\n";
    for (name, content) in [
        ("acl.yml", rules),
        ("configuration.acl.yaml", "# rules\naccess_control.rules: {{ fileContent \"x\" }}\n"),
        ("acl.toml", "[access_control]\n"),
        ("acl.json", "{ \"access_control\": {} }"),
    ] {
        let folder = authelia(FIRST);
        write(folder.path(), &format!("authelia/{name}"), content);
        let (code, _, errors) = run(folder.path(), &["import", "authelia", "authelia", "--output", "gate"]);
        assert_eq!(code, Some(1), "{name}: {errors}");
        assert!(errors.contains(name) && errors.contains("merge") && !errors.contains("users_database"), "{errors}");
        assert!(!folder.path().join("gate").exists(), "{name}");
        // Whoever names the file means that one; its default is not believed.
        let (code, told, errors) =
            run(folder.path(), &["import", "authelia", "authelia/configuration.yml", "--output", "gate"]);
        assert_eq!(code, Some(0), "{name}: {errors}");
        assert!(told.contains("default deny") && told.contains("beside it may be part"), "{told}");
    }
    // Nor does a default that Authelia would start with count then.
    let folder = authelia(&FIRST.replace("bypass", "one_factor"));
    let import = |folder: &Path| run(folder, &["import", "authelia", "authelia/configuration.yml", "--output", "gate"]);
    assert!(import(folder.path()).1.contains("default one_factor"));
    let folder = authelia(&FIRST.replace("bypass", "one_factor"));
    write(folder.path(), "authelia/acl.yml", rules);
    let (_, told, errors) = import(folder.path());
    assert!(told.contains("default deny") && told.contains("acl.yml beside it"), "{told}{errors}");
    let folder = authelia(CONFIGURATION);
    fs::rename(folder.path().join("authelia/configuration.yml"), folder.path().join("authelia/a.yml")).expect("moved");
    write(folder.path(), "authelia/acl.yml", rules);
    let (code, _, errors) = run(folder.path(), &["import", "authelia", "authelia"]);
    assert!(code == Some(1) && errors.contains("a.yml, acl.yml"), "{errors}");
}

#[test]
fn what_the_file_holds_does_not_speak_to_the_terminal() {
    let evil = CONFIGURATION.replace("domain: public.example.com", "domain: [public.example.com, \"b\\e]0;owned\\a\"]");
    let evil = evil.replace("subject: group:admins", "subject: group:admins # {{ x }}") + "\"top\\e[2J\": 1\n";
    let folder = authelia(&evil.replace("resources: [/admin]", "resources: [\"/admin\\ec\"]"));
    let (code, told, errors) = run(folder.path(), &["import", "authelia", "authelia"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        told.contains("holds a control character") && told.contains("holds a template, which Authelia fills in"),
        "{told}"
    );
    assert!(!told.chars().any(|letter| letter.is_control() && letter != '\n'), "{told:?}");
}

#[test]
fn a_wrong_command_line_and_a_missing_folder() {
    let folder = authelia(CONFIGURATION);
    for wrong in [&["import"][..], &["import", "authelia"], &["import", "keycloak", "a"]] {
        assert_eq!(run(folder.path(), wrong).0, Some(2), "{wrong:?}");
    }
    let (code, _, errors) = run(folder.path(), &["import", "authelia", "nowhere"]);
    assert_eq!(code, Some(1));
    assert!(errors.contains("nowhere") && errors.contains("configuration.yml"), "{errors}");
}
