//! Two Postern processes on one PostgreSQL: what one of them ends is over on the other, also where the database cannot be reached for a while.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
    time::Duration,
};

use crate::{
    harness::{
        as_soon,
        breaker::Breaker,
        eventually,
        fleet::{
            BOUND, Database, Fault, Load, api_token, comes_to, ends, is_accepted, is_over, logout, nodes, nodes_with,
            now, page, password_of, status,
        },
        port::Port,
        postgres::{IN_MEMORY, Postgres},
        server::{PASSWORD, Role, Server, Setup, feed, postern},
        tls,
        upstream::Upstream,
        wire::Request,
    },
    streams::Stream,
};

#[tokio::test]
async fn threat_36_what_one_node_ends_is_over_on_the_other_within_a_second() {
    let upstream = Upstream::start().await;
    let database = Postgres::shared_database().await;
    let (here, there) = nodes(&upstream, &database, &database).await;
    what_one_ends_the_other_knows(&here, &there).await;
}

/// Wherever sessions are.
pub(crate) async fn what_one_ends_the_other_knows(here: &Server, there: &Server) {
    let second = Duration::from_secs(1);

    let bob = here.sign_in("bob").await;
    is_accepted(there, &bob).await;
    assert_eq!(logout(here, &bob).await, 204);
    ends(there, &bob, second).await;

    let bob = there.sign_in("bob").await;
    is_accepted(here, &bob).await;
    is_accepted(there, &bob).await;
    let by_token = Request::get("/members/x").header("Authorization", format!("Bearer {}", bob.access_token));
    assert_eq!(status(here, Role::Edge, &by_token).await, 200, "both sign with one key");
    here.run(&["session", "revoke", &bob.session_id]);
    ends(there, &bob, second).await;
    ends(here, &bob, second).await;

    let (bob, another) = (here.sign_in("bob").await, there.sign_in("bob").await);
    is_accepted(there, &bob).await;
    let path = format!("/auth/sessions/{}", bob.session_id);
    assert_eq!(here.portal(Request::new("DELETE", &path).cookie(another.both())).await.status, 204);
    ends(there, &bob, second).await;
    is_accepted(there, &another).await;
    is_accepted(here, &another).await;
    assert_eq!(there.portal(Request::new("POST", "/auth/logout-all").cookie(another.both())).await.status, 200);
    ends(here, &another, second).await;

    let bob = here.sign_in("bob").await;
    is_accepted(there, &bob).await;
    here.run(&["user", "disable", "bob"]);
    ends(there, &bob, second).await;
    ends(here, &bob, second).await;
    assert_eq!(there.login("bob", PASSWORD, &[]).await.status, 401);

    let alice = there.sign_in("alice").await;
    is_accepted(here, &alice).await;
    here.run(&["user", "set-password", "alice", "--password-stdin"]);
    ends(there, &alice, second).await;
}

/// An open stream is no request: it ends all the same.
#[tokio::test]
async fn threat_36_what_one_node_ends_ends_the_streams_of_the_other() {
    let upstream = Upstream::start().await;
    let database = Postgres::shared_database().await;
    let (here, there) = nodes(&upstream, &database, &database).await;
    what_one_ends_ends_the_streams_of_the_other(&here, &there).await;
}

/// Wherever sessions are.
pub(crate) async fn what_one_ends_ends_the_streams_of_the_other(here: &Server, there: &Server) {
    let (bob, alice) = (here.sign_in("bob").await, here.sign_in("alice").await);
    let mut ended = Stream::websocket(there, &bob.gate).await;
    let mut kept = Stream::websocket(there, &alice.gate).await;
    here.run(&["session", "revoke", &bob.session_id]);
    ended.ends().await;
    assert!(kept.echoes().await);
    // By what comes with each request too.
    let mut of_alice = Stream::websocket_by(there, &api_token(here, "alice")).await;
    let mut by_token = Stream::websocket_by(there, &api_token(here, "bob")).await;
    here.run(&["token", "revoke", "--user", "bob"]);
    by_token.ends().await;
    let mut by_password = Stream::websocket_by(there, &password_of("bob")).await;
    let bob = here.sign_in("bob").await;
    let mut by_access_token = Stream::websocket_by(there, &format!("Bearer {}", bob.access_token)).await;
    assert!(by_password.echoes().await && by_access_token.echoes().await);
    here.run(&["user", "set-password", "bob", "--password-stdin"]);
    tokio::join!(by_password.ends(), by_access_token.ends());
    assert!(of_alice.echoes().await && kept.echoes().await);
}

/// Nobody there can know whose session was ended meanwhile: all streams end, and in the same time as where it is known.
#[tokio::test]
async fn threat_36_the_streams_of_a_node_that_is_cut_off_end_as_soon() {
    let upstream = Upstream::start().await;
    let Database { server: _server, port, url: database, name } = Database::start().await;
    let breaker = Breaker::before(port.number()).await;
    let relayed = format!("postgres://postgres@127.0.0.1:{}/{name}", breaker.port());
    let (here, there) = nodes(&upstream, &database, &relayed).await;
    for fault in [Fault::Cut, Fault::Silence] {
        let (bob, alice) = (here.sign_in("bob").await, here.sign_in("alice").await);
        let mut ended = Stream::websocket(&there, &bob.gate).await;
        let mut kept = Stream::websocket(&there, &alice.gate).await;
        assert!(kept.echoes().await);
        let bearer = format!("Bearer {}", alice.access_token);
        let (mut by_access_token, mut by_token, mut by_password) = (
            Stream::websocket_by(&there, &bearer).await,
            Stream::websocket_by(&there, &api_token(&here, "alice")).await,
            Stream::websocket_by(&there, &password_of("alice")).await,
        );
        fault.strike(&breaker);
        here.run(&["session", "revoke", &bob.session_id]);
        tokio::join!(ended.ends(), kept.ends(), by_access_token.ends(), by_token.ends(), by_password.ends());
        assert_eq!(status(&there, Role::Edge, &page(&alice)).await, 503, "still cut off");
        breaker.mend();
        comes_to(&there, Role::Edge, &alice, 200).await;
        is_over(&there, &bob, "over for good").await;
        assert!(Stream::websocket(&there, &alice.gate).await.echoes().await);
    }
}

/// From the database, wherever sessions are.
pub(crate) async fn a_node_that_is_cut_off(fault: Fault, sessions: Option<&str>) {
    let upstream = Upstream::start().await;
    let Database { server: _server, port, url: database, name } = Database::start().await;
    let breaker = Breaker::before(port.number()).await;
    let relayed = format!("postgres://postgres@127.0.0.1:{}/{name}", breaker.port());
    let (here, there) = nodes_with(&upstream, [(&database, sessions), (&relayed, sessions)]).await;

    let (kept, revoked) = (here.sign_in("alice").await, here.sign_in("bob").await);
    is_accepted(&there, &kept).await;
    is_accepted(&there, &revoked).await;
    let load = Load::start(&there, &kept, &revoked);
    fault.strike(&breaker);
    assert_eq!(logout(&here, &revoked).await, 204);
    let revoked_at = now();
    for role in Role::BOTH {
        // Redis has no record of it any more: then nobody asks the database.
        let of_revoked = if sessions.is_some() { 302 } else { 503 };
        // Two seconds that memory may go on, one and a half that the store is given, and what a busy machine needs.
        as_soon(Duration::from_secs(6), "the node knows that it knows nothing", || async {
            status(&there, role, &page(&kept)).await == 503 && status(&there, role, &page(&revoked)).await == of_revoked
        })
        .await;
    }
    is_accepted(&here, &kept).await;
    // Past the bound, while the fault lasts.
    tokio::time::sleep_until((revoked_at + BOUND + Duration::from_millis(500)).into()).await;
    breaker.mend();
    for role in Role::BOTH {
        comes_to(&there, role, &kept, 200).await;
    }
    is_over(&there, &revoked, "over for good").await;
    load.end(revoked_at).await;
}

#[tokio::test]
async fn threat_36_a_node_whose_connections_to_the_database_are_cut() {
    a_node_that_is_cut_off(Fault::Cut, None).await;
}

#[tokio::test]
async fn threat_36_a_node_that_loses_every_packet_to_the_database() {
    a_node_that_is_cut_off(Fault::Silence, None).await;
}

/// To open a database anew is some fifty questions and answers: more than a poll may take, across a network like this.
#[tokio::test]
async fn a_node_far_from_the_database_comes_back_after_a_crash_of_it() {
    let upstream = Upstream::start().await;
    let Database { mut server, port, url: database, name } = Database::start().await;
    let relay = Breaker::far_from(port.number(), Duration::from_millis(35)).await;
    let relayed = format!("postgres://postgres@127.0.0.1:{}/{name}", relay.port());
    let (here, there) = nodes(&upstream, &database, &relayed).await;
    let (kept, revoked) = (here.sign_in("alice").await, here.sign_in("bob").await);
    for role in Role::BOTH {
        comes_to(&there, role, &kept, 200).await;
        comes_to(&there, role, &revoked, 200).await;
    }
    server.stop();
    comes_to(&there, Role::Edge, &kept, 503).await;
    server.restart().await;
    comes_to(&there, Role::Edge, &kept, 200).await;
    eventually("the other one too", || async { (logout(&here, &revoked).await == 204).then_some(()) }).await;
    // An answer that asks the database takes a good part of a second by itself.
    ends(&there, &revoked, BOUND).await;
}

/// A users file that disables somebody while the database cannot take it is taken up afterwards, by every node.
#[tokio::test]
async fn threat_36_a_users_file_that_changes_during_an_outage_holds_afterwards() {
    let upstream = Upstream::start().await;
    let server = Postgres::start(&IN_MEMORY).await;
    let database = server.database().await;
    let hash = feed(&mut postern(&["hash"]), PASSWORD);
    let hash = String::from_utf8(hash.stdout).expect("UTF-8");
    let users = |disabled: bool| {
        format!(
            "users:\n  bob: {{ displayname: Bob, password: '{}', groups: [dev], disabled: {disabled} }}\n",
            hash.trim()
        )
    };
    let with_file = |mut setup: Setup| {
        setup.more = "users: { source: file, path: config/users.yaml }\n".to_owned();
        setup.files = vec![("config/users.yaml".to_owned(), users(false))];
        setup
    };
    let mut here = with_file(Setup::with(&upstream).postgres(&database, None)).prepare_without_users();
    here.launch().await;
    let mut setup = with_file(Setup::with(&upstream).postgres(&database, Some(here.folder())));
    setup.public_port = Some(here.edge());
    let mut there = setup.prepare_without_users();
    there.launch().await;
    let bob = here.sign_in("bob").await;
    is_accepted(&here, &bob).await;
    is_accepted(&there, &bob).await;
    server.pause();
    for node in [&here, &there] {
        node.write("config/users.yaml", &users(true));
        comes_to(node, Role::Edge, &bob, 503).await;
    }
    server.resume();
    for node in [&here, &there] {
        comes_to(node, Role::Edge, &bob, 302).await;
        eventually("and stays out", || async { (node.login("bob", PASSWORD, &[]).await.status == 401).then_some(()) })
            .await;
    }
}

#[tokio::test]
async fn threat_32_36_a_database_that_stands_still_under_load() {
    let upstream = Upstream::start().await;
    let server = Postgres::start(&IN_MEMORY).await;
    let database = server.database().await;
    let (here, there) = nodes(&upstream, &database, &database).await;
    let (kept, revoked) = (here.sign_in("alice").await, here.sign_in("bob").await);
    is_accepted(&there, &kept).await;
    is_accepted(&there, &revoked).await;
    let load = Load::start(&there, &kept, &revoked);
    assert_eq!(logout(&here, &revoked).await, 204);
    let revoked_at = now();
    server.pause();
    for role in Role::BOTH {
        for node in [&here, &*there] {
            comes_to(node, role, &kept, 503).await;
        }
    }
    let login = here.login("bob", PASSWORD, &[]).await;
    assert_eq!((login.status, login.set_cookie("postern_session")), (503, None), "{login:?}");
    let refused = feed(&mut here.command(&["session", "list"]), "");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!((refused.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    tokio::time::sleep_until((revoked_at + BOUND + Duration::from_millis(500)).into()).await;
    server.resume();
    for role in Role::BOTH {
        for node in [&here, &*there] {
            comes_to(node, role, &kept, 200).await;
        }
    }
    for node in [&here, &*there] {
        is_over(node, &revoked, "over for good").await;
    }
    load.end(revoked_at).await;
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_ends_the_start_at_once_and_is_none_of_checks_business() {
    let upstream = Upstream::start().await;
    let port = Port::free();
    let url = format!("postgres://postern:hunter2@127.0.0.1:{}/postern", port.number());
    let server = Setup::with(&upstream).postgres(&url, None).prepare_without_users();
    server.run(&["check"]);
    let output = feed(&mut server.command(&["serve"]), "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.trim_end().lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("storage.database") && said.contains("nobody answers there"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}

#[tokio::test]
async fn the_servers_certificate_is_checked_and_the_url_may_stand_in_a_file() {
    let upstream = Upstream::start().await;
    let Database { server: mut postgres, port, url: _, name } = Database::start().await;
    postgres.stop();
    let (right, wrong) = (tls::certificate_for(&["localhost"]), tls::certificate_for(&["localhost"]));
    let data = postgres.data();
    let owner = fs::metadata(&data).expect("the data");
    for (file, content) in [("server.crt", &right.certificate), ("server.key", &right.key)] {
        let path = data.join(file);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("its mode");
        chown(&path, Some(owner.uid()), Some(owner.gid())).expect("its owner");
    }
    fs::write(data.join("pg_hba.conf"), "hostssl all all 127.0.0.1/32 trust\n").expect("the rules of access");
    let config = fs::read_to_string(data.join("postgresql.conf")).expect("its configuration");
    fs::write(data.join("postgresql.conf"), config + "\nssl = on\n").expect("its configuration");
    postgres.restart().await;

    let url = |mode: &str| format!("postgres://postgres:hunter2@localhost:{}/{name}?sslmode={mode}", port.number());
    let mut setup = Setup::with(&upstream);
    setup.storage = "{ database_file: secret, key_file: data/postern.key }".to_owned();
    setup.files = vec![
        ("secret".to_owned(), url("verify-full&sslrootcert=right.pem") + "\n"),
        ("right.pem".to_owned(), right.certificate),
        ("wrong.pem".to_owned(), wrong.certificate),
    ];
    let server = setup.start().await;
    is_accepted(&server, &server.sign_in("bob").await).await;
    for (mode, word) in [
        ("verify-full", "TLS is refused"),
        ("verify-full&sslrootcert=wrong.pem", "TLS is refused"),
        ("disable", "pg_hba.conf"),
    ] {
        server.write("secret", &url(mode));
        let refused = feed(&mut server.command(&["user", "list"]), "");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!((refused.status.code(), said.trim_end().lines().count()), (Some(1), 1), "{said}");
        assert!(said.contains(word) && said.contains("storage.database") && !said.contains("hunter2"), "{said}");
    }
    server.write("secret", &url("require"));
    server.run(&["user", "list"]);
    let ready = eventually("the reload says that a new URL needs a restart", || async {
        let metric = server.metric("postern_config_restart_needed", &["setting=\"storage\""]).await;
        (metric >= 1.0).then_some(())
    });
    ready.await;
}
