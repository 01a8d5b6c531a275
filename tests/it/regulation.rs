//! Regulation of sign-ins in front of the real server: by forward-auth, over a SIGKILL, and by the command that lets somebody off.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::harness::{
    as_soon, eventually,
    server::{PASSWORD, Role, Server, Setup},
    upstream::Upstream,
    wire::{Reply, Request},
};

/// What forward-auth says to a name and a password.
async fn asked(server: &Server, user: &str, password: &str) -> Reply {
    let pair = STANDARD.encode(format!("{user}:{password}"));
    let request = Request::get("/members/x").header("Accept", "application/json");
    server.ask(Role::ForwardAuth, &request.header("Authorization", format!("Basic {pair}"))).await
}

fn wait_of(reply: &Reply) -> u64 {
    reply.header("Retry-After").map_or(0, |seconds| seconds.parse().expect("seconds"))
}

#[tokio::test]
async fn threat_37_a_hundred_wrong_passwords_by_forward_auth_wait_as_those_of_the_page_do() {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let mut counted = [0, 0];
    for number in 0..100 {
        match asked(&server, "bob", &format!("guess {number}")).await.status {
            401 => counted[0] += 1,
            429 => counted[1] += 1,
            other => panic!("{other}"),
        }
    }
    let [wrong, delayed] = counted;
    assert!((5..10).contains(&wrong), "five, and one after each wait: {wrong} of {}", wrong + delayed);
    // A wait that is long enough for what follows; each guess another one, or it would not count.
    let mut number = 100;
    while wait_of(&asked(&server, "bob", &format!("guess {number}")).await) < 4 {
        number += 1;
    }
    let there = [("X-Forwarded-For", "198.51.100.7")];
    let page = server.login("BOB", PASSWORD, &there).await;
    assert!(page.status == 429 && wait_of(&page) > 0, "{page:?}");
    assert_eq!(server.login("alice", PASSWORD, &there).await.status, 200, "nobody else waits");
    let told = server.metric("postern_auth_login_total", &["provider=\"basic\"", "status=\"slow_down\""]).await;
    assert!(told >= f64::from(delayed), "{told}");
    assert!(server.log().contains("sign_in_delayed"), "{}", server.log());
    assert!(!server.log().contains("guess 1"), "THREATS 68");
}

#[tokio::test]
async fn a_wait_outlives_a_kill_and_the_command_ends_it_within_a_second() {
    let upstream = Upstream::start().await;
    let mut server = Setup::with(&upstream).start().await;
    // So many that the wait outlasts what follows: 20 s.
    let mut wrong = 0;
    while wrong < 7 {
        match server.login("bob", &format!("guess {wrong}"), &[]).await.status {
            401 => wrong += 1,
            429 => tokio::time::sleep(Duration::from_millis(100)).await,
            other => panic!("{other}"),
        }
    }
    server.signal("KILL");
    assert!(server.running().end().await.code().is_none(), "it was killed");
    server.launch().await;
    assert_eq!(server.login("bob", PASSWORD, &[]).await.status, 429, "the count is kept");
    assert!(server.run(&["user", "unlock", "bob"]).contains("bob may sign in"), "said so");
    as_soon(Duration::from_secs(1), "let off", || async { server.login("bob", PASSWORD, &[]).await.status == 200 })
        .await;
    // Each server puts it on record when it hears of it.
    eventually("it is on record", || async { server.log().contains("user_unlocked").then_some(()) }).await;
    let nobody = crate::harness::server::feed(&mut server.command(&["user", "unlock", "nobody"]), "");
    assert_eq!(nobody.status.code(), Some(1), "{nobody:?}");
}
