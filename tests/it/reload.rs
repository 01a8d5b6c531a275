//! A reload: what is read again, when it is noticed, what it leaves alone.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use sqlx::{Connection, Executor, SqliteConnection};

use crate::harness::{
    as_soon,
    client::Person,
    eventually,
    server::{PASSWORD, POLICIES, Role, Server, Setup, feed, postern, write},
    tls,
    upstream::Upstream,
    wire::{self, Reply, Request},
};

const CLOSED: &str = "default: deny\n";
const OPEN: &str = "default: deny\nrules: [{ domain: app.test.localhost, path: ['/opened/**'], policy: bypass }]\n";
const FAULTY: &str = "default: deny\nrules: [{ domain: app.test.localhost, polciy: bypass }]\n";

async fn readiness(server: &Server) -> Reply {
    wire::send(server.admin(), &Request::get("/readyz").host("localhost").bytes()).await
}

async fn is_opened(server: &Server) -> bool {
    let status = server.ask(Role::Edge, &Request::get("/opened/x").page()).await.status;
    assert!([200, 403].contains(&status), "{status}");
    status == 200
}

async fn opens(server: &Server, what: &str) {
    eventually(what, || async { is_opened(server).await.then_some(()) }).await;
}

#[tokio::test]
async fn no_request_fails_through_many_reloads_in_either_role() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).start().await;
    let bob = server.sign_in("bob").await;
    let as_asked = Request::get("/api/authz/ext-authz/members/x").host(server.app()).cookie(bob.gate.clone()).bytes();
    let as_sent = Request::get("/members/x").host(server.app()).cookie(bob.gate.clone()).bytes();
    let clients: Vec<_> = (0..200)
        .map(|number| {
            let (port, bytes) = if number % 2 == 0 {
                (server.edge(), as_sent.clone())
            } else {
                (server.forward_auth(), as_asked.clone())
            };
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for _ in 0..5 {
                    statuses.push(wire::send(port, &bytes).await.status);
                }
                statuses
            })
        })
        .collect();
    for round in 1..=5 {
        server.write("policies/access.yaml", &POLICIES.replace("name: public,", &format!("name: public {round},")));
        server.signal("HUP");
        eventually("the reload", || async {
            let done = server.metric("postern_config_reload_total", &["status=\"success\""]).await;
            (done >= f64::from(round)).then_some(())
        })
        .await;
    }
    for client in clients {
        assert_eq!(client.await.expect("a client"), [200; 5]);
    }
}

#[tokio::test]
async fn a_mended_file_is_taken_and_the_fault_forgotten() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).policies(CLOSED).start().await;
    server.write("policies/access.yaml", FAULTY);
    eventually("the fault is told", || async { readiness(&server).await.body.contains("reload_faults").then_some(()) })
        .await;
    assert!(!is_opened(&server).await);
    server.write("policies/access.yaml", OPEN);
    opens(&server, "the mended rules hold").await;
    eventually("the fault is forgotten", || async {
        (!readiness(&server).await.body.contains("reload_faults")).then_some(())
    })
    .await;
    assert!(server.metric("postern_config_last_reload_success_timestamp_seconds", &[]).await > 0.0);
}

/// A log, or a database, beside what is watched.
#[tokio::test]
async fn a_folder_that_is_never_at_rest_is_watched_all_the_same() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).policies(CLOSED).start().await;
    let noisy = ["config/access.log", "policies/editor.swp"].map(|name| server.folder().join(name));
    let noise = tokio::spawn(async move {
        for number in 0_u64.. {
            for file in &noisy {
                fs::write(file, number.to_string()).expect("a line");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    server.write("policies/access.yaml", OPEN);
    opens(&server, "the new rules hold").await;
    noise.abort();
}

/// The fault is in a file that the running configuration does not know yet.
#[tokio::test]
async fn a_faulty_new_folder_is_watched_until_it_is_mended() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).policies(CLOSED).start().await;
    write(server.folder(), "rules/new.yaml", FAULTY);
    let config = fs::read_to_string(server.folder().join("config/postern.yaml")).expect("the configuration");
    server.write("config/postern.yaml", &config.replace("policies: policies/", "policies: rules/"));
    eventually("the fault is told", || async {
        readiness(&server).await.body.contains("rules/new.yaml:2:").then_some(())
    })
    .await;
    write(server.folder(), "rules/new.yaml", OPEN);
    opens(&server, "the mended folder is taken").await;
}

/// As a mounted ConfigMap changes: the files are links through `..data`, and `..data` is swapped.
#[tokio::test]
async fn a_link_swapped_as_kubernetes_does_is_seen() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).policies(CLOSED).prepare();
    for (folder, file) in [("policies", "access.yaml"), ("config", "postern.yaml")] {
        let mount = server.folder().join(folder);
        let content = fs::read_to_string(mount.join(file)).expect("the file");
        fs::remove_file(mount.join(file)).expect("the file gone");
        write(&mount, &format!("..first/{file}"), &content);
        symlink("..first", mount.join("..data")).expect("a link");
        symlink(format!("..data/{file}"), mount.join(file)).expect("a link");
    }
    server.launch().await;
    assert!(!is_opened(&server).await);
    let policies = server.folder().join("policies");
    write(&policies, "..second/access.yaml", OPEN);
    swap(&policies, "..data", "..second");
    opens(&server, "the swapped rules hold").await;

    let config = server.folder().join("config");
    let content = fs::read_to_string(config.join("postern.yaml")).expect("the configuration");
    write(&config, "..second/postern.yaml", &content.replace("portal: {", "portal: { title: Swapped,"));
    swap(&config, "..data", "..second");
    eventually("the swapped configuration holds", || async {
        let page = server.portal(Request::get("/").page()).await;
        page.body.contains("Swapped").then_some(())
    })
    .await;
    // Once more: the folders watched now are other ones.
    write(&policies, "..third/access.yaml", CLOSED);
    swap(&policies, "..data", "..third");
    eventually("the third rules hold", || async { (!is_opened(&server).await).then_some(()) }).await;
}

/// As a checkout that is swapped whole: the link stands above the folder that is read.
#[tokio::test]
async fn a_link_above_the_folder_is_seen_when_it_is_swapped() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).prepare();
    let here = server.folder().to_owned();
    write(&here, "releases/1/rules/access.yaml", CLOSED);
    write(&here, "releases/2/rules/access.yaml", OPEN);
    symlink("releases/1", here.join("current")).expect("a link");
    let config = fs::read_to_string(here.join("config/postern.yaml")).expect("the configuration");
    server.write("config/postern.yaml", &config.replace("policies: policies/", "policies: current/rules/"));
    server.launch().await;
    assert!(!is_opened(&server).await);
    swap(&here, "current", "releases/2");
    opens(&server, "the swapped rules hold").await;
}

/// Puts a link in the place of another in one step.
fn swap(folder: &Path, link: &str, target: &str) {
    let new = folder.join("..new-link");
    symlink(target, &new).expect("a link");
    fs::rename(&new, folder.join(link)).expect("the swap");
}

#[tokio::test]
async fn certificates_are_taken_without_a_restart_in_both_roles() {
    let upstream = Upstream::start().await;
    let first = tls::certificate();
    let server = Setup::with(&upstream).over_tls(&first).start().await;
    let urls =
        [server.edge(), server.forward_auth()].map(|port| format!("https://auth.test.localhost:{port}/auth/health"));
    for url in &urls {
        assert_eq!(Person::over_tls(&first.certificate, true).load(url).await.status, 200);
    }
    let second = tls::certificate();
    for (name, content) in second.files() {
        server.write(&name, &content);
    }
    eventually("the reload", || async {
        (server.metric("postern_config_reload_total", &["status=\"success\""]).await >= 1.0).then_some(())
    })
    .await;
    for url in &urls {
        assert_eq!(Person::over_tls(&second.certificate, true).load(url).await.status, 200);
    }
    // A pair that does not belong together changes nothing.
    server.write(tls::CERTIFICATE, &first.certificate);
    eventually("the fault is told", || async { readiness(&server).await.body.contains("tls/key.pem").then_some(()) })
        .await;
    for url in &urls {
        assert_eq!(Person::over_tls(&second.certificate, false).load(url).await.status, 200);
    }
}

#[tokio::test]
async fn what_needs_a_restart_is_named_and_the_rest_applies() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).policies(CLOSED).start().await;
    let config = fs::read_to_string(server.folder().join("config/postern.yaml")).expect("the configuration");
    server.write("config/postern.yaml", &config.replace("data/postern.db", "data/other.db"));
    server.write("policies/access.yaml", OPEN);
    opens(&server, "the rest applies").await;
    let told = eventually("/readyz names it", || async {
        let reply = readiness(&server).await;
        reply.body.contains("needs_restart").then_some(reply)
    })
    .await;
    assert_eq!((told.status, told.json()["needs_restart"][0].as_str()), (200, Some("storage")), "{told:?}");
    assert!(!server.folder().join("data/other.db").exists());
    assert_eq!(server.login("bob", PASSWORD, &[]).await.status, 200, "still from the old database");
}

fn hash() -> String {
    let output = feed(&mut postern(&["hash"]), PASSWORD);
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// A user of the file: name, hash, disabled.
type Entry = (&'static str, String, bool);

fn users_file(entries: &[Entry]) -> String {
    let entry = |(name, hash, disabled): &Entry| {
        format!("  {name}: {{ displayname: {name}, password: '{hash}', groups: [dev], disabled: {disabled} }}\n")
    };
    entries.iter().map(entry).fold("users:\n".to_owned(), |file, entry| file + &entry)
}

/// A changed, disabled or removed entry ends that user's sessions as the command would; nobody else's.
#[tokio::test]
async fn threat_36_a_changed_users_file_ends_the_sessions_of_whoever_changed() {
    let upstream = Upstream::start().await;
    let first = hash();
    let mut users: Vec<Entry> = ["ann", "bea", "cid", "dan"].map(|name| (name, first.clone(), false)).into();
    let mut setup = Setup::with(&upstream);
    setup.more = "users: { source: file, path: config/users.yaml }\n".to_owned();
    setup.files = vec![("config/users.yaml".to_owned(), users_file(&users))];
    let mut server = setup.prepare_without_users();
    server.launch().await;
    let mut pages = Vec::new();
    for (name, ..) in &users {
        let session = server.sign_in(name).await;
        pages.push(Request::get("/members/x").page().cookie(session.gate));
    }
    users[0].2 = true;
    users[1].1 = hash();
    users.remove(2);
    server.write("config/users.yaml", &users_file(&users));
    for (page, who) in pages.iter().zip(["disabled", "with another password", "removed"]) {
        // The pause after a change, and the second that a command has.
        as_soon(Duration::from_secs(3), who, || async { server.ask(Role::Edge, page).await.status == 302 }).await;
        assert_eq!(server.ask(Role::ForwardAuth, page).await.status, 302, "{who}");
    }
    assert_eq!(server.ask(Role::Edge, &pages[3]).await.status, 200, "nothing of dan's was touched");
    assert_eq!(server.login("ann", PASSWORD, &[]).await.status, 401);
    assert_eq!(server.login("bea", PASSWORD, &[]).await.status, 200);

    server.write("config/users.yaml", "users:\n  dan:\n    password: plain\n");
    eventually("the fault is told", || async {
        let body = readiness(&server).await.body;
        (body.contains("users.yaml") && body.contains("dan")).then_some(())
    })
    .await;
    assert_eq!(server.ask(Role::Edge, &pages[3]).await.status, 200, "the old users stay");
}

/// The authority of mails is the fault: a file that TLS takes, and the library that sends mails does not.
#[tokio::test]
async fn a_reload_that_fails_takes_nothing_of_the_users_either() {
    const UNFIT: &str = "-----BEGIN FOO-----\n-----END CERTIFICATE-----\n-----END FOO-----\n";
    let mut users: Vec<Entry> = vec![("ann", hash(), false)];
    let authority = tls::certificate().certificate;
    let mut setup = Setup::with_upstream_at(9);
    setup.more = "users: { source: file, path: config/users.yaml }\n\
                  notifier: { smtp: { address: \"smtps://localhost:9\", ca: tls/smtp.pem } }\n"
        .to_owned();
    setup.files =
        vec![("config/users.yaml".to_owned(), users_file(&users)), ("tls/smtp.pem".to_owned(), authority.clone())];
    let mut server = setup.prepare_without_users();
    server.launch().await;
    let ann = Request::get("/auth/me").cookie(server.sign_in("ann").await.both());
    server.write("tls/smtp.pem", &format!("{UNFIT}{authority}"));
    let failed = || async { server.metric("postern_config_reload_total", &["status=\"failure\""]).await };
    eventually("the fault is told", || async {
        readiness(&server).await.body.contains("notifier.smtp.ca").then_some(())
    })
    .await;
    let before = failed().await;
    users[0].2 = true;
    users.push(("bea", hash(), false));
    server.write("config/users.yaml", &users_file(&users));
    eventually("the next reload fails too", || async { (failed().await > before).then_some(()) }).await;
    assert_eq!(server.portal(ann.clone()).await.status, 200, "ann is not disabled yet");
    assert_eq!(server.login("bea", PASSWORD, &[]).await.status, 401, "nor is there bea");

    server.write("tls/smtp.pem", &authority);
    eventually("all of it is taken", || async {
        (server.login("bea", PASSWORD, &[]).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(server.portal(ann).await.status, 401);
}

/// Nobody touches the file once more: what it says holds as soon as the database can take it.
#[tokio::test]
async fn threat_36_a_users_file_that_changed_while_the_database_was_locked_is_taken_up() {
    let upstream = Upstream::start().await;
    let mut users: Vec<Entry> = vec![("ann", hash(), false)];
    let mut setup = Setup::with(&upstream);
    setup.more = "users: { source: file, path: config/users.yaml }\n".to_owned();
    setup.files = vec![("config/users.yaml".to_owned(), users_file(&users))];
    let mut server = setup.prepare_without_users();
    server.launch().await;
    let ann = server.sign_in("ann").await;
    let page = Request::get("/members/x").page().cookie(ann.gate);
    assert_eq!(server.ask(Role::Edge, &page).await.status, 200);

    let path = format!("sqlite://{}", server.folder().join("data/postern.db").display());
    let mut other = SqliteConnection::connect(&path).await.expect("the database");
    other.execute("PRAGMA busy_timeout = 30000").await.expect("patience");
    other.execute("BEGIN EXCLUSIVE").await.expect("the lock");
    users[0].2 = true;
    server.write("config/users.yaml", &users_file(&users));
    eventually("the reload fails", || async { readiness(&server).await.body.contains("reload_file").then_some(()) })
        .await;
    other.execute("ROLLBACK").await.expect("the lock given back");
    other.close().await.expect("the end");

    eventually("ann is out", || async { (server.ask(Role::Edge, &page).await.status == 302).then_some(()) }).await;
    eventually("nothing is wrong any more", || async {
        (!readiness(&server).await.body.contains("reload_file")).then_some(())
    })
    .await;
}
