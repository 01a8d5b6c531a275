//! Two nodes on one store, and what is asked of them while it is taken away.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tokio::task::JoinHandle;

use super::{
    as_soon,
    breaker::Breaker,
    eventually,
    port::Port,
    postgres::{IN_MEMORY, Postgres},
    server::{PASSWORD, Role, Server, Setup, SignedIn},
    upstream::Upstream,
    wire::Request,
};

/// A cookie that names no session.
pub(crate) const STRANGER: &str = "postern_session=BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB";
/// Cut off, no 200 later than this after an end was acknowledged.
pub(crate) const BOUND: Duration = Duration::from_secs(3);

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Two nodes with one storage key; each reaches the database by a URL of its own.
pub(crate) async fn nodes(upstream: &Upstream, first: &str, second: &str) -> (Server, Arc<Server>) {
    nodes_with(upstream, [(first, None), (second, None)]).await
}

/// The URLs of the database and, where sessions are there, of Redis, of either node.
pub(crate) async fn nodes_with(upstream: &Upstream, urls: [(&str, Option<&str>); 2]) -> (Server, Arc<Server>) {
    let [first, second] = urls;
    let setup = |(database, sessions): (&str, Option<&str>), key_folder: Option<&Path>| {
        let setup = Setup::with(upstream).postgres(database, key_folder);
        match sessions {
            Some(url) => setup.sessions(url),
            None => setup,
        }
    };
    let here = setup(first, None).start().await;
    let mut setup = setup(second, Some(here.folder()));
    // One portal for both: tokens carry its URL.
    setup.public_port = Some(here.edge());
    let mut there = setup.prepare_without_users();
    there.launch().await;
    (here, Arc::new(there))
}

/// `Authorization` by a new API token.
pub(crate) fn api_token(server: &Server, owner: &str) -> String {
    format!("Bearer {}", server.run(&["token", "create", owner, "--name", "stream"]).trim_end())
}

pub(crate) fn password_of(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{PASSWORD}")))
}

pub(crate) fn page(session: &SignedIn) -> Request {
    Request::get("/members/x").page().cookie(session.gate.clone())
}

pub(crate) async fn logout(server: &Server, session: &SignedIn) -> u16 {
    server.portal(Request::new("POST", "/auth/logout").cookie(session.both())).await.status
}

pub(crate) async fn status(server: &Server, role: Role, request: &Request) -> u16 {
    server.ask(role, request).await.status
}

/// Over, by both roles, whatever is asked later than `limit` from now on.
pub(crate) async fn ends(server: &Server, session: &SignedIn, limit: Duration) {
    as_soon(limit, "the session has ended on the other node", || async {
        let [edge, forward_auth] = Role::BOTH.map(|role| status_of(server, role, session));
        edge.await == 302 && forward_auth.await == 302
    })
    .await;
}

async fn status_of(server: &Server, role: Role, session: &SignedIn) -> u16 {
    status(server, role, &page(session)).await
}

/// Once it can be said at all: 302, and never 200.
pub(crate) async fn is_over(server: &Server, session: &SignedIn, after: &str) {
    for role in Role::BOTH {
        comes_to_refuse(&format!("{role:?}, {after}"), 302, || status_of(server, role, session)).await;
    }
}

/// As it is refused where the stores answer: 503 before, and never 200.
pub(crate) async fn comes_to_refuse<F: Future<Output = u16>>(what: &str, wanted: u16, mut ask: impl FnMut() -> F) {
    eventually(what, || {
        let asked = ask();
        async move {
            let status = asked.await;
            assert!([wanted, 503].contains(&status), "{status}: {what}");
            (status == wanted).then_some(())
        }
    })
    .await;
}

pub(crate) async fn is_accepted(server: &Server, session: &SignedIn) {
    for role in Role::BOTH {
        assert_eq!(status(server, role, &page(session)).await, 200, "{role:?}");
    }
}

/// Requests of one node, one after another by both roles, until told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Answers>>,
}

#[derive(Default)]
struct Answers {
    public: Vec<u16>,
    stranger: Vec<u16>,
    kept: Vec<u16>,
    /// With the moment at which it was asked.
    revoked: Vec<(Instant, u16)>,
}

impl Load {
    pub(crate) fn start(server: &Arc<Server>, kept: &SignedIn, revoked: &SignedIn) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let client = |role| {
            let (server, stop) = (Arc::clone(server), Arc::clone(&stop));
            let public = Request::get("/public/x");
            let stranger = Request::get("/members/x").page().cookie(STRANGER);
            let (kept, revoked) = (page(kept), page(revoked));
            tokio::spawn(async move {
                let mut answers = Answers::default();
                let mut is_last = false;
                while !is_last {
                    // One round more, so that everything was asked after whoever stops it did what it did.
                    is_last = stop.load(Ordering::SeqCst);
                    answers.public.push(status(&server, role, &public).await);
                    answers.stranger.push(status(&server, role, &stranger).await);
                    answers.kept.push(status(&server, role, &kept).await);
                    let asked = now();
                    answers.revoked.push((asked, status(&server, role, &revoked).await));
                }
                answers
            })
        };
        let clients = Role::BOTH.into_iter().cycle().take(6).map(client).collect();
        Self { stop, clients }
    }

    /// Nobody passed who must not, from `revoked_at` on at the latest after the bound, and everybody who needs no store did.
    pub(crate) async fn end(self, revoked_at: Instant) {
        self.end_where_the_kept_get(revoked_at, &[200, 503]).await;
    }

    /// As [`Load::end`].
    pub(crate) async fn end_where_the_kept_get(self, revoked_at: Instant, statuses: &[u16]) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            let answers = client.await.expect("a client");
            assert!(answers.public.iter().all(|status| *status == 200), "a bypass: {:?}", answers.public);
            assert!(answers.stranger.iter().all(|status| [302, 503].contains(status)), "{:?}", answers.stranger);
            assert!(answers.kept.iter().all(|status| statuses.contains(status)), "{:?}", answers.kept);
            let late = answers.revoked.iter().filter(|(asked, _)| *asked > revoked_at + BOUND);
            let mut late = late.map(|(_, status)| *status).peekable();
            assert!(late.peek().is_some(), "asked after the bound as well");
            assert!(late.all(|status| status != 200), "after the bound: {:?}", answers.revoked);
        }
    }
}

/// How a node loses the database.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    Cut,
    Silence,
}

impl Fault {
    pub(crate) fn strike(self, breaker: &Breaker) {
        match self {
            Self::Cut => breaker.cut(),
            Self::Silence => breaker.silence(),
        }
    }
}

/// A server that is reached by a port, so that something can stand before it.
pub(crate) struct Database {
    pub(crate) server: Postgres,
    pub(crate) port: Port,
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Database {
    pub(crate) async fn start() -> Self {
        let port = Port::free();
        let listening = ["listen_addresses=127.0.0.1".to_owned(), format!("port={}", port.number())];
        let settings: Vec<&str> = IN_MEMORY.into_iter().chain(listening.iter().map(String::as_str)).collect();
        let server = Postgres::start(&settings).await;
        let url = server.database().await;
        let name = url.rsplit('/').next().expect("a name").to_owned();
        Self { server, port, url, name }
    }
}

/// By this role, however long it takes.
pub(crate) async fn comes_to(server: &Server, role: Role, session: &SignedIn, wanted: u16) {
    eventually(&format!("{wanted} by {role:?}"), || async {
        (status(server, role, &page(session)).await == wanted).then_some(())
    })
    .await;
}
