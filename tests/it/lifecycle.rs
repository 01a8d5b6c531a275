//! Starting, reloading, draining, stopping; and a database that is locked or gone.

use std::{fs, net::TcpListener, path::Path, process::Command, time::Duration};

use crate::harness::{
    eventually,
    server::{Role, Server, Setup, feed},
    tool,
    upstream::Upstream,
    wire::{self, Request},
    within,
};

#[tokio::test]
async fn a_restart_signs_nobody_out() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).start().await;
    let bob = server.sign_in("bob").await;
    server.stop().await;
    server.launch().await;
    for role in Role::BOTH {
        let by_cookie = Request::get("/members/x").cookie(bob.gate.clone());
        assert_eq!(server.ask(role, &by_cookie).await.status, 200, "{role:?}");
        let by_token = Request::get("/members/x").header("Authorization", format!("Bearer {}", bob.access_token));
        assert_eq!(server.ask(role, &by_token).await.status, 200, "{role:?}");
    }
    assert_eq!(server.portal(Request::get("/auth/me").cookie(bob.both())).await.status, 200);
}

#[tokio::test]
async fn no_request_fails_through_a_reload() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).start().await;
    let bob = server.sign_in("bob").await;
    let (edge, host) = (server.edge(), server.app());
    let bytes = Request::get("/members/x").host(host).cookie(bob.gate).bytes();
    let clients: Vec<_> = (0..200)
        .map(|_| {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut statuses = Vec::new();
                for _ in 0..5 {
                    statuses.push(wire::send(edge, &bytes).await.status);
                }
                statuses
            })
        })
        .collect();
    let policies = crate::harness::server::POLICIES.replace("name: public,", "name: public once more,");
    server.write("policies/access.yaml", &policies);
    server.signal("HUP");
    eventually("the new rules hold", || async {
        let asked = Request::get("/public/../x");
        let _ = server.ask(Role::Edge, &asked).await;
        (server.metric("postern_config_reload_total", &["status=\"success\""]).await >= 1.0).then_some(())
    })
    .await;
    for client in clients {
        let statuses = client.await.expect("a client");
        assert_eq!(statuses, [200; 5]);
    }
}

#[tokio::test]
async fn changed_rules_hold_and_faulty_ones_change_nothing() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let page = Request::get("/opened/x").page();
    assert_eq!(server.ask(Role::Edge, &page).await.status, 302);
    let opened = "default: deny\nrules: [{ domain: app.test.localhost, path: ['/opened/**'], policy: bypass }]\n";
    // Without a signal: the folder is watched.
    server.write("policies/access.yaml", opened);
    eventually("the new rules hold", || async { (server.ask(Role::Edge, &page).await.status == 200).then_some(()) })
        .await;
    server.write("policies/access.yaml", "default: deny\nrules: [{ domain: app.test.localhost, polciy: bypass }]\n");
    let told = eventually("/readyz tells of the fault", || async {
        let reply = wire::send(server.admin(), &Request::get("/readyz").host("localhost").bytes()).await;
        (reply.body.contains("polciy")).then_some(reply)
    })
    .await;
    assert_eq!(told.status, 200, "a failed reload leaves the old rules, and the server ready");
    assert!(told.body.contains("access.yaml:2:"), "with its place: {}", told.body);
    for role in Role::BOTH {
        assert_eq!(server.ask(role, &page).await.status, 200, "{role:?}: the old rules hold");
    }
    assert!(server.metric("postern_config_reload_total", &["status=\"failure\""]).await >= 1.0);
}

#[tokio::test]
async fn a_request_that_ends_within_the_drain_is_not_cut() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).start().await;
    let (edge, admin) = (server.edge(), server.admin());
    let bytes = Request::get("/public/held").host(server.app()).bytes();
    let held = tokio::spawn(async move { wire::send(edge, &bytes).await });
    eventually("the request is under way", || async { (!upstream.seen().is_empty()).then_some(()) }).await;
    server.signal("TERM");
    let unready = eventually("the server says that it is draining", || async {
        let reply = wire::try_get(admin, "/readyz").await?;
        (reply.status == 503).then_some(reply)
    })
    .await;
    assert!(unready.body.contains("draining"), "{}", unready.body);
    eventually("nothing listens any more", || async {
        tokio::net::TcpStream::connect(("127.0.0.1", edge)).await.err().map(drop)
    })
    .await;
    upstream.release();
    let reply = held.await.expect("the request");
    assert_eq!(reply.status, 200, "{reply:?}");
    let status = within(Duration::from_secs(5), "the end after the last request", server.running().end()).await;
    assert_eq!(status.code(), Some(0));
}

#[tokio::test]
async fn a_request_that_outlives_the_drain_is_cut() {
    let upstream = Upstream::start().await;
    let mut setup = Setup::with(&upstream);
    setup.server = "  drain: 300ms\n".to_owned();
    let mut server = setup.start().await;
    let edge = server.edge();
    let bytes = Request::get("/public/silent").host(server.app()).bytes();
    let silent = tokio::spawn(async move { wire::try_send(edge, &bytes).await });
    eventually("the request is under way", || async { (!upstream.seen().is_empty()).then_some(()) }).await;
    server.signal("INT");
    let status = within(Duration::from_secs(10), "the end", server.running().end()).await;
    assert_eq!(status.code(), Some(0));
    assert!(silent.await.expect("the request").is_none_or(|reply| reply.status >= 500));
}

/// One line on standard error, exit code 1, at once.
fn refuses_to_start(server: &Server, told: &[&str]) {
    let output = feed(&mut server.command(&["serve"]), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(said.trim_end().lines().count(), 1, "one line: {said}");
    for word in told {
        assert!(said.contains(word), "no {word:?} in {said}");
    }
}

#[tokio::test]
async fn a_port_in_use_ends_at_once() {
    let upstream = Upstream::start().await;
    for of in [Server::edge, Server::forward_auth, Server::admin] {
        let server = Setup::with(&upstream).prepare();
        let port = of(&server);
        let _taken = TcpListener::bind(("127.0.0.1", port)).expect("the port");
        refuses_to_start(&server, &[&format!("127.0.0.1:{port}"), "server.listeners"]);
    }
}

#[tokio::test]
async fn a_bad_certificate_ends_at_once() {
    let upstream = Upstream::start().await;
    let identity = crate::harness::tls::certificate();
    let other = crate::harness::tls::certificate();
    let good = identity.files();
    let mut crossed = identity.files();
    crossed[1].1.clone_from(&other.files()[1].1);
    let mut garbage = identity.files();
    garbage[0].1 = "no certificate".to_owned();
    let missing = vec![good[1].clone()];
    for (what, files) in [("crossed", crossed), ("garbage", garbage), ("missing", missing)] {
        let mut setup = Setup::with(&upstream);
        setup.edge = ", tls: { certificates: [{ certificate: tls/certificate.pem, key: tls/key.pem }] }".to_owned();
        setup.portal = "{ url: \"https://auth.test.localhost:PORT\" }".to_owned();
        setup.policies = "default: deny\n".to_owned();
        let server = setup.prepare_without_users();
        for (name, content) in &files {
            server.write(name, content);
        }
        eprintln!("{what}");
        refuses_to_start(&server, &["tls/"]);
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_ends_at_once() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).prepare();
    let database = server.folder().join("data/postern.db");
    fs::write(&database, "this is not a database, and long enough to be looked at".repeat(100)).expect("a file");
    for rest in ["data/postern.db-wal", "data/postern.db-shm"] {
        let _ = fs::remove_file(server.folder().join(rest));
    }
    refuses_to_start(&server, &["data/postern.db"]);
    fs::remove_dir_all(server.folder().join("data")).expect("the folder");
    fs::write(server.folder().join("data"), "a file where a folder should be").expect("a file");
    refuses_to_start(&server, &["data"]);
}

/// SQLite's own shell holds the lock, as another process would.
#[tokio::test]
async fn threat_32_a_locked_database_fails_closed_and_comes_back() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let bob = server.sign_in("bob").await;
    let cached = Request::get("/members/x").page().cookie(bob.gate.clone());
    assert_eq!(server.ask(Role::Edge, &cached).await.status, 200);
    let lock = Lock::take(&server.folder().join("data/postern.db")).await;
    let public = Request::get("/public/x");
    for role in Role::BOTH {
        assert_eq!(server.ask(role, &public).await.status, 200, "a bypass asks no store");
        let status = server.ask(role, &cached).await.status;
        assert!(
            [200, 503].contains(&status),
            "a session in memory still counts while nothing says otherwise: {status}"
        );
    }
    // In WAL mode readers go on beside a writer; what has to write says that it cannot.
    let login = server.login("bob", crate::harness::server::PASSWORD, &[]).await;
    assert_eq!(login.status, 503, "{login:?}");
    assert_eq!(login.set_cookie("postern_session"), None);
    lock.release();
    eventually("sign-ins work again", || async {
        (server.login("bob", crate::harness::server::PASSWORD, &[]).await.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn threat_32_a_lost_database_fails_closed_and_comes_back() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let bob = server.sign_in("bob").await;
    let strange =
        Request::get("/members/x").page().cookie("postern_session=BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB");
    let file = server.folder().join("data/postern.db");
    let whole: Vec<(std::path::PathBuf, Vec<u8>)> = ["", "-wal"]
        .iter()
        .map(|end| file.with_file_name(format!("postern.db{end}")))
        .filter_map(|path| fs::read(&path).ok().map(|bytes| (path, bytes)))
        .collect();
    // As a disk that goes away: the very file turns to garbage under the running server.
    for (path, bytes) in &whole {
        fs::write(path, vec![b'x'; bytes.len()]).expect("a ruined file");
    }
    for role in Role::BOTH {
        assert_eq!(server.ask(role, &Request::get("/public/x")).await.status, 200, "a bypass asks no store");
    }
    eventually("the loss is noticed", || async {
        let status = server.ask(Role::Edge, &strange).await.status;
        assert_ne!(status, 200);
        (status == 503).then_some(())
    })
    .await;
    // A connection that still has the right pages in memory may answer once more; what it says is true.
    let refused = eventually("by both roles", || async {
        let refused = server.ask(Role::ForwardAuth, &strange).await;
        assert_ne!(refused.status, 200);
        (refused.status == 503).then_some(refused)
    })
    .await;
    assert_eq!(refused.header("Location"), None, "never taken for anonymous");
    for (path, bytes) in &whole {
        fs::write(path, bytes).expect("the file");
    }
    let page = Request::get("/members/x").page().cookie(bob.gate);
    eventually("the session counts again", || async {
        (server.ask(Role::Edge, &page).await.status == 200).then_some(())
    })
    .await;
}

/// A writer's lock on a SQLite file.
struct Lock(std::process::Child);

impl Lock {
    async fn take(database: &Path) -> Self {
        use std::io::Write as _;
        let taken = database.with_extension("locked");
        let mut shell = Command::new(tool("sqlite3"))
            .arg(database)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("sqlite3 starts");
        let script = format!(".timeout 10000\nBEGIN EXCLUSIVE;\n.output {}\n.print locked\n.output\n", taken.display());
        let stdin = shell.stdin.as_mut().expect("a pipe");
        stdin.write_all(script.as_bytes()).and_then(|()| stdin.flush()).expect("the script");
        eventually("the database is locked", || {
            let taken = taken.clone();
            async move { taken.exists().then_some(()) }
        })
        .await;
        Self(shell)
    }

    fn release(self) {}
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
