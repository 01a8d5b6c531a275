//! The database locked by another process, or gone, under load: whoever needs it is refused, nobody is taken for somebody, what
//! needs no store goes on, and everything comes back by itself.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use sqlx::{Connection, Executor, SqliteConnection};
use tokio::task::JoinHandle;

use crate::harness::{
    as_soon, eventually,
    server::{PASSWORD, Role, Server, Setup, SignedIn, feed},
    upstream::Upstream,
    wire::{self, Reply, Request},
};

/// A cookie that names no session.
const STRANGER: &str = "postern_session=BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";

/// Requests one after another, by both roles, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Answers>>,
}

/// What came back, in order.
#[derive(Default)]
struct Answers {
    public: Vec<u16>,
    stranger: Vec<u16>,
    signed_in: Vec<u16>,
}

impl Load {
    /// Returns when every client has had its first answers.
    async fn start(server: &Arc<Server>, bob: &SignedIn) -> Self {
        let begun = Arc::new(AtomicUsize::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let public = Request::get("/public/x").cookie(bob.gate.clone());
        let stranger = Request::get("/members/x").page().cookie(STRANGER);
        let signed_in = Request::get("/members/x").page().cookie(bob.gate.clone());
        let client = |role| {
            let (server, stop, begun) = (Arc::clone(server), Arc::clone(&stop), Arc::clone(&begun));
            let (public, stranger, signed_in) = (public.clone(), stranger.clone(), signed_in.clone());
            tokio::spawn(async move {
                let mut answers = Answers::default();
                while !stop.load(Ordering::SeqCst) {
                    answers.public.push(server.ask(role, &public).await.status);
                    answers.stranger.push(server.ask(role, &stranger).await.status);
                    answers.signed_in.push(server.ask(role, &signed_in).await.status);
                    begun.fetch_add(usize::from(answers.signed_in.len() == 1), Ordering::SeqCst);
                }
                answers
            })
        };
        let clients: Vec<_> = Role::BOTH.into_iter().cycle().take(8).map(client).collect();
        eventually("every client is under way", || async {
            (begun.load(Ordering::SeqCst) == clients.len()).then_some(())
        })
        .await;
        Self { stop, clients }
    }

    async fn end(self) -> Vec<Answers> {
        self.stop.store(true, Ordering::SeqCst);
        let mut all = Vec::new();
        for client in self.clients {
            all.push(client.await.expect("a client"));
        }
        all
    }
}

async fn scene() -> (Upstream, Arc<Server>, SignedIn) {
    let upstream = Upstream::start().await;
    let server = Setup::with(&upstream).start().await;
    let bob = server.sign_in("bob").await;
    (upstream, Arc::new(server), bob)
}

/// The same question in each dialect of another proxy.
fn dialects(server: &Server, path: &str, cookie: &str) -> [(&'static str, Request); 4] {
    let url = format!("http://{}{path}", server.app());
    let portal: String = form_urlencoded::Serializer::new(String::new())
        .append_pair("rd", &format!("http://{}", server.auth()))
        .finish();
    let asked = |request: Request| request.page().header("X-Forwarded-For", "198.51.100.7").cookie(cookie);
    [
        (
            "forward-auth",
            asked(Request::get("/api/authz/forward-auth").host("postern"))
                .header("X-Forwarded-Proto", "http")
                .header("X-Forwarded-Host", server.app())
                .header("X-Forwarded-Method", "GET")
                .header("X-Forwarded-Uri", path),
        ),
        (
            "auth-request",
            asked(Request::get("/api/authz/auth-request").host("postern"))
                .header("X-Original-URL", &url)
                .header("X-Original-Method", "GET"),
        ),
        ("ext-authz", asked(Request::get(&format!("/api/authz/ext-authz{path}")).host(server.app()))),
        (
            "legacy",
            asked(Request::get(&format!("/api/verify?{portal}")).host("postern"))
                .header("X-Original-URL", &url)
                .header("X-Forwarded-Method", "GET"),
        ),
    ]
}

async fn readiness(server: &Server) -> Reply {
    wire::send(server.admin(), &Request::get("/readyz").host("localhost").bytes()).await
}

#[tokio::test]
async fn threat_32_67_a_database_that_is_gone_under_load_fails_closed_and_comes_back() {
    let (_upstream, server, bob) = scene().await;
    let page = Request::get("/members/x").page().cookie(bob.gate.clone());
    for role in Role::BOTH {
        assert_eq!(server.ask(role, &page).await.status, 200, "{role:?}");
    }
    let load = Load::start(&server, &bob).await;
    let file = server.folder().join("data/postern.db");
    let away = server.folder().join("data/away");
    fs::rename(&file, &away).expect("the database moved away");

    for role in Role::BOTH {
        // Two seconds that memory may go on, and what a busy machine needs.
        as_soon(Duration::from_secs(4), "memory does not outlive the store", || async {
            server.ask(role, &page).await.status == 503
        })
        .await;
    }
    for (dialect, status) in [("forward-auth", 503), ("auth-request", 403), ("ext-authz", 403), ("legacy", 503)] {
        for cookie in [bob.gate.as_str(), STRANGER] {
            let questions = dialects(&server, "/members/x", cookie);
            let question = &questions.iter().find(|(name, _)| *name == dialect).expect("the dialect").1;
            let reply = wire::send(server.forward_auth(), &question.bytes()).await;
            assert_eq!((reply.status, reply.header("Location")), (status, None), "{dialect}: {reply:?}");
            let told = reply.header("X-Postern-Status");
            assert_eq!(told, (status == 403).then_some("503"), "{dialect}: {reply:?}");
            assert!(reply.all("Remote-User").next().is_none_or(str::is_empty), "{dialect}: {reply:?}");
        }
    }
    for (dialect, question) in dialects(&server, "/public/x", &bob.gate) {
        let reply = wire::send(server.forward_auth(), &question.bytes()).await;
        assert_eq!(reply.status, 200, "a bypass asks no store ({dialect}): {reply:?}");
    }
    let public = server.ask(Role::Edge, &Request::get("/public/x").cookie(bob.gate.clone())).await;
    assert_eq!(public.status, 200, "a bypass asks no store at the edge: {public:?}");
    for role in Role::BOTH {
        let by_token = Request::get("/members/x").header("Authorization", format!("Bearer {}", bob.access_token));
        assert_eq!(server.ask(role, &by_token).await.status, 503, "a token dies with its session: {role:?}");
        let nobody = server.ask(role, &Request::get("/members/x").page()).await;
        assert_eq!(nobody.status, 302, "nobody needs no store: {role:?}");
    }
    let api =
        server.ask(Role::Edge, &Request::get("/members/x").header("Accept", "application/json").cookie(STRANGER)).await;
    assert_eq!((api.status, api.header("Content-Type")), (503, Some("application/problem+json")));
    let login = server.login("bob", PASSWORD, &[]).await;
    assert_eq!((login.status, login.set_cookie("postern_session")), (503, None), "{login:?}");
    for path in ["/auth/me", "/auth/sessions", "/account"] {
        let reply = server.portal(Request::get(path).cookie(bob.both())).await;
        assert_eq!(reply.status, 503, "{path}: {reply:?}");
    }
    let told = eventually("/readyz names the stores", || async {
        let reply = readiness(&server).await;
        reply.body.contains("stores_down").then_some(reply)
    })
    .await;
    assert_eq!(told.status, 200, "a store that is down is no reason to take the gate away: {told:?}");
    assert_eq!(server.metric("postern_store_up", &["store=\"sessions\""]).await, 0.0);

    fs::rename(&away, &file).expect("the database moved back");
    for role in Role::BOTH {
        eventually("the session counts again", || async {
            (server.ask(role, &page).await.status == 200).then_some(())
        })
        .await;
        let stranger = Request::get("/members/x").page().cookie(STRANGER);
        eventually("a stranger is told so again", || async {
            let status = server.ask(role, &stranger).await.status;
            assert!([302, 503].contains(&status), "{role:?}: {status}");
            (status == 302).then_some(())
        })
        .await;
    }
    eventually("bob may sign in again", || async {
        (server.login("bob", PASSWORD, &[]).await.status == 200).then_some(())
    })
    .await;
    eventually("/readyz has forgotten it", || async {
        (!readiness(&server).await.body.contains("stores_down")).then_some(())
    })
    .await;
    assert_eq!(server.metric("postern_store_up", &["store=\"sessions\""]).await, 1.0);

    for answers in load.end().await {
        assert!(answers.public.iter().all(|status| *status == 200), "a bypass: {:?}", answers.public);
        assert!(
            answers.stranger.iter().all(|status| [302, 503].contains(status)),
            "a stranger: {:?}",
            answers.stranger
        );
        assert!(answers.signed_in.iter().all(|status| [200, 503].contains(status)), "bob: {:?}", answers.signed_in);
        assert_eq!(answers.signed_in.first(), Some(&200));
    }
}

#[tokio::test]
async fn threat_32_a_database_locked_under_load_stops_what_writes_and_nothing_else() {
    let (_upstream, server, bob) = scene().await;
    let alice = server.sign_in("alice").await;
    let load = Load::start(&server, &bob).await;
    let path = format!("sqlite://{}", server.folder().join("data/postern.db").display());
    let mut other = SqliteConnection::connect(&path).await.expect("the database");
    other.execute("PRAGMA busy_timeout = 30000").await.expect("patience");
    other.execute("BEGIN EXCLUSIVE").await.expect("the lock");

    let login = server.login("bob", PASSWORD, &[]).await;
    assert_eq!((login.status, login.set_cookie("postern_session")), (503, None), "{login:?}");
    assert_eq!(login.header("Content-Type"), Some("application/problem+json"));
    let left = server.portal(Request::new("POST", "/auth/logout").cookie(alice.both())).await;
    assert_eq!(left.status, 503, "never told that it is over while it is not: {left:?}");
    let revoked = feed(&mut server.command(&["session", "revoke", &alice.session_id]), "");
    let said = String::from_utf8_lossy(&revoked.stderr).into_owned();
    assert_eq!((revoked.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    let page = Request::get("/members/x").page().cookie(alice.gate.clone());
    assert_eq!(server.ask(Role::Edge, &page).await.status, 200, "nothing has ended");

    other.execute("ROLLBACK").await.expect("the lock given back");
    other.close().await.expect("the end");
    assert_eq!(server.login("bob", PASSWORD, &[]).await.status, 200, "at once");
    assert_eq!(server.portal(Request::new("POST", "/auth/logout").cookie(alice.both())).await.status, 204);
    assert_eq!(server.ask(Role::Edge, &page).await.status, 302);

    for answers in load.end().await {
        assert!(answers.public.iter().all(|status| *status == 200), "a bypass: {:?}", answers.public);
        assert!(answers.stranger.iter().all(|status| *status == 302), "readers go on: {:?}", answers.stranger);
        assert!(answers.signed_in.iter().all(|status| *status == 200), "readers go on: {:?}", answers.signed_in);
    }
}
