//! SIGKILL in the middle of writing, a hundred times: what was acknowledged holds afterwards, and what was not harms nobody.

use std::{sync::Arc, time::Duration};

use rand::RngExt as _;
use serde_json::json;

use crate::harness::{
    redis::Redis,
    server::{PASSWORD, Role, Server, Setup, SignedIn},
    upstream::Upstream,
    wire::{self, Reply, Request},
};

const KILLS: usize = 100;
/// The program lives so long at most, from when it is ready.
const LIFE: Duration = Duration::from_millis(250);
/// Sessions that a client keeps.
const KEPT: usize = 3;
/// Ended sessions that a client asks for after each start.
const REMEMBERED: usize = 3;

#[expect(clippy::disallowed_methods, reason = "a test kills at random; it makes no secrets")]
fn rng() -> rand::rngs::ThreadRng {
    rand::rng()
}

fn below(end: usize) -> usize {
    rng().random_range(0..end)
}

/// Signs in, refreshes and signs out until the program is gone, and keeps what it was told.
struct Client {
    user: &'static str,
    alive: Vec<SignedIn>,
    gone: Vec<SignedIn>,
    /// Sessions of which nobody told whether they were ended.
    signing_out: Vec<SignedIn>,
    /// What was acknowledged, over all lives of the program.
    acknowledged: usize,
    /// What was asked and never answered.
    lost: usize,
}

/// The whole answer, or `None` where the program was killed before it came. At the edge: who lost an answer is known by the address.
async fn ask(server: &Server, request: Request) -> Option<Reply> {
    let reply = wire::try_send(server.edge(), &request.host(server.auth()).bytes()).await?;
    let told = reply.header("Content-Length").and_then(|length| length.parse::<usize>().ok());
    told.is_none_or(|length| length == reply.body.len()).then_some(reply)
}

fn refreshing(session: &SignedIn) -> Request {
    Request::new("POST", "/auth/refresh").json(&json!({ "refresh_token": session.refresh_token }))
}

fn signing_out(session: &SignedIn) -> Request {
    Request::new("POST", "/auth/logout").cookie(session.both())
}

fn take(session: &mut SignedIn, reply: &Reply) {
    let body = reply.json();
    let text = |key: &str| body[key].as_str().unwrap_or_else(|| panic!("no {key} in {body}")).to_owned();
    session.access_token = text("access_token");
    session.refresh_token = text("refresh_token");
}

impl Client {
    fn new(user: &'static str) -> Self {
        Self { user, alive: Vec::new(), gone: Vec::new(), signing_out: Vec::new(), acknowledged: 0, lost: 0 }
    }

    /// Until the program is gone.
    async fn work(mut self, server: Arc<Server>) -> Self {
        while self.step(&server).await.is_some() {
            self.acknowledged += 1;
        }
        self.lost += 1;
        self
    }

    async fn step(&mut self, server: &Server) -> Option<()> {
        if self.alive.len() < KEPT {
            let login =
                Request::new("POST", "/auth/login").json(&json!({ "username": self.user, "password": PASSWORD }));
            let reply = ask(server, login).await?;
            assert_eq!(reply.status, 200, "{reply:?}");
            self.alive.push(SignedIn::from(&reply));
            return Some(());
        }
        let chosen = below(self.alive.len());
        if below(3) > 0 {
            let session = &mut self.alive[chosen];
            let reply = ask(server, refreshing(session)).await?;
            assert_eq!(reply.status, 200, "a refresh of a session that lives: {reply:?}");
            take(session, &reply);
        } else {
            let session = self.alive.remove(chosen);
            let reply = ask(server, signing_out(&session)).await;
            match reply {
                Some(reply) => {
                    assert_eq!(reply.status, 204, "{reply:?}");
                    self.gone.push(session);
                }
                None => {
                    self.signing_out.push(session);
                    return None;
                }
            }
        }
        Some(())
    }

    /// After a start: all that was acknowledged holds, and what was not can be asked again.
    async fn check(&mut self, server: &Server) {
        for session in &mut self.alive {
            for role in Role::BOTH {
                assert_eq!(by_cookie(server, role, session).await, 200, "{role:?}: a session was lost");
                assert_eq!(by_token(server, role, session).await, 200, "{role:?}: a token was lost");
            }
            // Whoever lost the answer to a refresh asks again.
            let reply = ask(server, refreshing(session)).await.expect("an answer");
            assert_eq!(reply.status, 200, "a refresh token was lost, or its loss punished: {reply:?}");
            take(session, &reply);
        }
        for session in self.signing_out.drain(..) {
            let reply = ask(server, signing_out(&session)).await.expect("an answer");
            assert!([204, 401].contains(&reply.status), "{reply:?}");
            self.gone.push(session);
        }
        for session in self.gone.iter().rev().take(REMEMBERED) {
            for role in Role::BOTH {
                assert_eq!(by_cookie(server, role, session).await, 302, "{role:?}: a session that was ended is back");
                assert_eq!(by_token(server, role, session).await, 401, "{role:?}: a token of an ended session is back");
            }
            let reply = ask(server, refreshing(session)).await.expect("an answer");
            assert_eq!(reply.status, 401, "a refresh token of an ended session is back: {reply:?}");
        }
    }
}

async fn by_cookie(server: &Server, role: Role, session: &SignedIn) -> u16 {
    server.ask(role, &Request::get("/members/x").page().cookie(session.gate.clone())).await.status
}

async fn by_token(server: &Server, role: Role, session: &SignedIn) -> u16 {
    let request = Request::get("/members/x").header("Authorization", format!("Bearer {}", session.access_token));
    server.ask(role, &request).await.status
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_hundred_kills() {
    let upstream = Upstream::start().await;
    outlives(Setup::with(&upstream)).await;
}

#[tokio::test]
async fn what_was_acknowledged_outlives_a_hundred_kills_with_sessions_in_redis() {
    let upstream = Upstream::start().await;
    outlives(Setup::with(&upstream).sessions(&Redis::shared().await)).await;
}

async fn outlives(setup: Setup) {
    let mut server = setup.prepare();
    let mut clients: Vec<Client> = ["alice", "bob", "bob"].into_iter().map(Client::new).collect();
    for _ in 0..KILLS {
        server.launch().await;
        for client in &mut clients {
            client.check(&server).await;
        }
        let shared = Arc::new(server);
        let working: Vec<_> = clients.drain(..).map(|client| tokio::spawn(client.work(Arc::clone(&shared)))).collect();
        tokio::time::sleep(LIFE.mul_f64(rng().random())).await;
        shared.program().signal("KILL");
        for client in working {
            clients.push(client.await.expect("a client"));
        }
        server = Arc::into_inner(shared).expect("every client has ended");
        assert!(server.running().end().await.code().is_none(), "it was killed");
    }
    server.launch().await;
    for client in &mut clients {
        client.check(&server).await;
    }
    let acknowledged: usize = clients.iter().map(|client| client.acknowledged).sum();
    let lost: usize = clients.iter().map(|client| client.lost).sum();
    let gone: usize = clients.iter().map(|client| client.gone.len()).sum();
    eprintln!("{KILLS} kills: {acknowledged} acknowledged, {lost} without an answer, {gone} sessions ended");
    assert!(acknowledged > KILLS && gone > KILLS / 10, "there was something to lose: {acknowledged}, {gone}");
}
