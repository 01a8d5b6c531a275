//! What the URL of a Redis says, held against servers that ask for it: certificates, passwords, names. What is not as it says ends the start, and shows no
//! password.

use std::{fs, process::Stdio};

use crate::harness::{
    DEADLINE, eventually,
    fleet::{comes_to, is_accepted},
    port::Port,
    redis::{Options, Redis, secret},
    redis_cluster::Cluster,
    redis_sentinel::Sentinels,
    repository,
    server::{PASSWORD, Role, Server, Setup},
    tls::Authority,
    upstream::Upstream,
    wire::{self, Request},
    within,
};

/// With the URL of Redis in a file, and beside it the certificates of two authorities, of which the first is the right one.
fn by_file(upstream: &Upstream, url: &str, [right, wrong]: [&Authority; 2]) -> Setup {
    let mut setup = Setup::with(upstream);
    setup.storage =
        "{ database: \"sqlite://data/postern.db\", sessions_file: secret, key_file: data/postern.key }".to_owned();
    setup.files = vec![
        ("secret".to_owned(), format!("{url}\n")),
        ("right.pem".to_owned(), right.certificate.clone()),
        ("wrong.pem".to_owned(), wrong.certificate.clone()),
        ("none.pem".to_owned(), "nothing".to_owned()),
    ];
    setup
}

async fn works(server: &Server) {
    for _ in 0..8 {
        is_accepted(server, &server.sign_in("bob").await).await;
    }
}

/// One line that says `word` and none of the secrets.
async fn is_refused(server: &Server, url: &str, word: &str, secrets: &[&str]) {
    server.write("secret", url);
    let mut serve = tokio::process::Command::from(server.command(&["serve"]));
    let output = within(DEADLINE, url, serve.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let output = output.expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), said.trim_end().lines().count()), (Some(1), 1), "{url}: {said}");
    assert!(said.contains("storage.sessions") && said.contains(word), "{url}: {said}");
    assert!(secrets.iter().all(|secret| !said.contains(secret)), "{said}");
    // None of the business of who only looks at the configuration, or puts somebody out.
    if !url.contains("cacert") {
        server.run(&["check"]);
        server.run(&["user", "disable", "bob"]);
    }
}

#[tokio::test]
async fn the_certificate_of_redis_is_checked() {
    let upstream = Upstream::start().await;
    let authorities = [&Authority::new(), &Authority::new()];
    let password = secret();
    let tls = Some(authorities[0].of_redis());
    let redis = Redis::with(Options { tls, password: Some(password.clone()), ..Options::default() }).await;
    let url = redis.url();
    let mut server = by_file(&upstream, &format!("{url}?cacert=right.pem"), authorities).start().await;
    works(&server).await;
    assert!(!server.log().contains(&password), "{}", server.log());
    server.stop().await;
    // Another authority, the operating system's, none at all, no file; and no TLS at all.
    for (url, word) in [
        (format!("{url}?cacert=wrong.pem"), "localhost"),
        (url.clone(), "localhost"),
        (format!("{url}?cacert=none.pem"), "none.pem"),
        (format!("{url}?cacert=missing.pem"), "missing.pem"),
        (url.replace("rediss", "redis"), "localhost"),
    ] {
        is_refused(&server, &url, word, &[&password]).await;
    }
}

#[tokio::test]
async fn the_certificates_and_passwords_of_a_cluster_are_checked() {
    let upstream = Upstream::start().await;
    let authorities = [&Authority::new(), &Authority::new()];
    let password = secret();
    let options =
        Options { tls: Some(authorities[0].of_redis()), password: Some(password.clone()), ..Options::default() };
    let cluster = Cluster::with(options).await;
    let url = format!("{}?cacert=right.pem", cluster.url());
    let mut server = by_file(&upstream, &url, authorities).start().await;
    works(&server).await;
    assert!(!server.log().contains(&password), "{}", server.log());
    server.stop().await;
    for url in [url.replace("right", "wrong"), cluster.url(), url.replace(&password, "hunter2")] {
        is_refused(&server, &url, "localhost", &[&password, "hunter2"]).await;
    }
}

#[tokio::test]
async fn the_certificates_and_passwords_of_sentinels_and_of_their_servers_are_checked() {
    let upstream = Upstream::start().await;
    let authorities = [&Authority::new(), &Authority::new()];
    let (of_servers, of_sentinels) = (secret(), secret());
    let secrets = [of_servers.as_str(), &of_sentinels, "hunter2"];
    let options =
        Options { tls: Some(authorities[0].of_redis()), password: Some(of_servers.clone()), ..Options::default() };
    let mut all = Sentinels::with(options, Some(of_sentinels.clone())).await;
    let url = format!("{}&cacert=right.pem", all.url());
    let mut server = by_file(&upstream, &url, authorities).start().await;
    let kept = server.sign_in("alice").await;
    is_accepted(&server, &kept).await;
    all.is_replicated().await;
    all.servers[0].kill();
    assert_eq!(all.master_after(0).await, 1);
    comes_to(&server, Role::Edge, &kept, 200).await;
    eventually("the new master takes a session", || async {
        (server.login("bob", PASSWORD, &[]).await.status == 200).then_some(())
    })
    .await;
    assert!(secrets.iter().all(|secret| !server.log().contains(secret)), "{}", server.log());
    server.stop().await;
    for url in [
        url.replace("right", "wrong"),
        all.url(),
        url.replace(&of_servers, "hunter2"),
        url.replace(&of_sentinels, "hunter2"),
        url.replace("/main", "/nobody"),
    ] {
        is_refused(&server, &url, "localhost", &secrets).await;
    }
}

#[tokio::test]
async fn a_redis_that_does_not_let_us_in_or_is_no_place_for_sessions_ends_the_start() {
    let upstream = Upstream::start().await;
    let password = secret();
    let redis = Redis::with(Options { password: Some(password.clone()), ..Options::default() }).await;
    let authority = Authority::new();
    let mut server = by_file(&upstream, &redis.url(), [&authority; 2]).start().await;
    works(&server).await;
    let changed = redis.url().replace(&password, "hunter2");
    server.write("secret", &changed);
    eventually("the reload says that a new URL needs a restart", || async {
        let metric = server.metric("postern_config_restart_needed", &["setting=\"storage\""]).await;
        (metric >= 1.0).then_some(())
    })
    .await;
    server.stop().await;
    let nobody = Port::free();
    let more = vec![format!("replicaof 127.0.0.1 {}", nobody.number())];
    let replica = Redis::with(Options { more, ..Options::default() }).await;
    let here = "127.0.0.1:";
    for (url, word) in [
        (changed, here),
        (redis.url().replace(&format!(":{password}@"), ""), here),
        (format!("redis://:hunter2@127.0.0.1:{}", nobody.number()), here),
        (format!("redis+cluster://:hunter2@127.0.0.1:{}", nobody.number()), here),
        (format!("redis+sentinel://:hunter2@127.0.0.1:{}/main", nobody.number()), here),
        (replica.url(), "no master"),
        (redis.url().replace("redis://", "redis+cluster://"), here),
        (redis.url().replace("redis://", "redis+sentinel://") + "/main", here),
    ] {
        is_refused(&server, &url, word, &["hunter2", &password]).await;
    }
}

/// It answers, and for a third of all keys.
#[tokio::test]
async fn a_node_of_a_cluster_is_no_single_redis() {
    let upstream = Upstream::start().await;
    let url = Cluster::shared().await.replace("redis+cluster://", "redis://");
    let authority = Authority::new();
    let server = by_file(&upstream, "redis://127.0.0.1:1", [&authority; 2]).prepare();
    is_refused(&server, url.split(',').next().expect("a URL"), "redis+cluster://", &[]).await;
}

/// Of a Redis that others share.
#[tokio::test]
async fn a_user_of_redis_who_may_do_what_the_guide_says_may_do_enough() {
    let upstream = Upstream::start().await;
    let redis = Redis::start().await;
    let guide = fs::read_to_string(repository("docs/fleet.md")).expect("the guide");
    let rights = guide.lines().find(|line| line.starts_with("ACL SETUSER postern ")).expect("the user's rights");
    redis.command(&rights.split_whitespace().collect::<Vec<_>>()).await;
    let authority = Authority::new();
    let url = redis.url().replace("redis://", "redis://postern:PASSWORD@");
    let mut server = by_file(&upstream, &url, [&authority; 2]).start().await;
    works(&server).await;
    let session = server.sign_in("bob").await;
    assert_eq!(server.portal(Request::get("/auth/sessions").cookie(session.both())).await.status, 200);
    server.run(&["session", "list"]);
    server.run(&["session", "revoke", &session.session_id]);
    server.run(&["user", "disable", "bob"]);
    server.run(&["session", "revoke", "--all"]);
    comes_to(&server, Role::Edge, &session, 302).await;
    server.stop().await;
    assert_eq!(redis.command(&["ACL", "LOG"]).await, "", "nothing was asked that it may not do");
}

#[tokio::test]
async fn a_password_that_is_changed_under_a_running_node_is_told_and_not_shown() {
    let upstream = Upstream::start().await;
    let password = secret();
    let redis = Redis::with(Options { password: Some(password.clone()), ..Options::default() }).await;
    let authority = Authority::new();
    let server = by_file(&upstream, &redis.url(), [&authority; 2]).start().await;
    let kept = server.sign_in("alice").await;
    is_accepted(&server, &kept).await;
    redis.command(&["CONFIG", "SET", "requirepass", "another"]).await;
    redis.by_password("another", &["CLIENT", "KILL", "TYPE", "normal"]).await;
    comes_to(&server, Role::Edge, &kept, 503).await;
    let told = eventually("/readyz says why", || async {
        let ready = wire::send(server.admin(), &Request::get("/readyz").host("localhost").bytes()).await;
        ready.body.contains("redis").then_some(ready.body)
    })
    .await;
    for text in [told, server.log()] {
        assert!(!text.contains(&password), "{text}");
    }
    redis.by_password("another", &["CONFIG", "SET", "requirepass", &password]).await;
    comes_to(&server, Role::Edge, &kept, 200).await;
}
