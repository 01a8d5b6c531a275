//! A place where data lives, and nodes that share it: each its own pool, cache and follower, as separate processes have them.

use std::{
    fs,
    future::Future,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use postern::{
    config::{self, CountersPlace, DatabaseAddress, OnFailure, SessionsPlace, Storage, UsersSource},
    core::{
        identity::Factor,
        regulation::Budgets,
        session::{Lifetimes, Session, SessionFacts, SessionId, TokenHash},
        time::Timestamp,
        tokens::SigningAlgorithm,
        user::User,
    },
    observe::{metrics::Metrics, readiness::Readiness},
    ports::{Clock, LiveSession, Peek},
    store::{
        OpenError, Options, Stores, open_with,
        system::{SystemClock, SystemEntropy},
    },
};
use sqlx::{AnyConnection, Connection as _, Executor as _};
use tempfile::TempDir;
use tokio::{sync::watch, task::JoinHandle};

use crate::{in_redis, postgres::Postgres, redis::Redis, redis_cluster::Cluster};

pub(crate) struct Place {
    pub(crate) folder: TempDir,
    pub(crate) users: UsersSource,
    /// Of all that is opened here.
    metrics: Arc<Metrics>,
    address: DatabaseAddress,
    sessions: SessionsPlace,
    counters: (CountersPlace, OnFailure),
    /// Of Redis.
    pub(crate) sessions_url: Option<String>,
}

/// As the configuration would have it.
fn storage(line: &str) -> Storage {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("postern.yaml");
    let policies = folder.path().join("policies");
    fs::create_dir(&policies).unwrap();
    fs::write(policies.join("access.yaml"), "default: deny\n").unwrap();
    fs::write(&file, format!("storage: {{ {line} }}\npolicies: {}\n", policies.display())).unwrap();
    config::load(&file).unwrap().settings.storage
}

pub(crate) struct Node {
    pub(crate) stores: Stores,
    pub(crate) readiness: Arc<Readiness>,
    stop: watch::Sender<bool>,
    background: JoinHandle<()>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = in_memory();
        let address = DatabaseAddress::Sqlite(folder.path().join("data/postern.db"));
        Self::of(folder, address)
    }

    /// A database of its own on a server that others share.
    pub(crate) async fn postgres() -> Self {
        Self::at(&Postgres::shared_database().await)
    }

    pub(crate) fn at(url: &str) -> Self {
        Self::of(tempfile::tempdir().unwrap(), storage(&format!("database: '{url}'")).database)
    }

    fn of(folder: TempDir, address: DatabaseAddress) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let sessions = SessionsPlace::Database;
        let counters = (CountersPlace::Memory, OnFailure::Share);
        Self { folder, users: UsersSource::Database, metrics, address, sessions, counters, sessions_url: None }
    }

    /// SQLite, and sessions in Redis.
    pub(crate) async fn redis() -> Self {
        Self::sqlite().with_sessions_at(&Redis::shared().await)
    }

    /// PostgreSQL, and sessions in a cluster of Redis.
    pub(crate) async fn redis_cluster() -> Self {
        Self::postgres().await.with_sessions_at(&Cluster::shared().await)
    }

    pub(crate) fn with_sessions_at(self, url: &str) -> Self {
        let sessions = storage(&format!("sessions: '{url}'")).sessions;
        Self { sessions, sessions_url: Some(url.to_owned()), ..self }
    }

    /// Limits are counted there.
    pub(crate) fn with_counters_at(self, url: &str, on_failure: &str) -> Self {
        let storage = storage(&format!("counters: '{url}', counters_on_failure: {on_failure}"));
        Self { counters: (storage.counters, storage.counters_on_failure), ..self }
    }

    /// Of PostgreSQL.
    pub(crate) fn url(&self) -> &str {
        match &self.address {
            DatabaseAddress::Postgres(url) => url.expose(),
            DatabaseAddress::Sqlite(path) => panic!("{} has no URL", path.display()),
        }
    }

    /// The file of SQLite.
    pub(crate) fn database(&self) -> PathBuf {
        self.folder.path().join("data/postern.db")
    }

    pub(crate) fn key_file(&self) -> PathBuf {
        self.folder.path().join("data/postern.key")
    }

    /// How often each of these operations was asked of a store until now.
    pub(crate) fn asked<const N: usize>(&self, operations: [(&str, &str); N]) -> [u64; N] {
        let text = self.metrics.render();
        operations.map(|(store, operation)| {
            let labels = format!("operation_duration_seconds_count{{operation=\"{operation}\",store=\"{store}\"}} ");
            text.lines().find_map(|line| line.split_once(&labels)).map_or(0, |(_, count)| count.parse().unwrap())
        })
    }

    pub(crate) fn asked_since<const N: usize>(&self, operations: [(&str, &str); N], before: [u64; N]) -> [u64; N] {
        let mut before = before.into_iter();
        self.asked(operations).map(|now| now - before.next().unwrap_or_default())
    }

    pub(crate) fn metrics_text(&self) -> String {
        self.metrics.render()
    }

    pub(crate) async fn open(&self) -> Result<Stores, OpenError> {
        self.open_at(Arc::new(SystemClock::new())).await
    }

    /// At another time.
    pub(crate) async fn open_at(&self, clock: Arc<dyn Clock>) -> Result<Stores, OpenError> {
        let options = Options {
            storage: Storage {
                database: self.address.clone(),
                key_file: self.key_file(),
                sessions: self.sessions.clone(),
                counters: self.counters.0.clone(),
                counters_on_failure: self.counters.1,
            },
            users: self.users.clone(),
            source_limit: None,
            regulation: Some(Budgets::default()),
            lifetimes: Lifetimes {
                idle: Duration::from_secs(1_800),
                lifetime: Duration::from_secs(43_200),
                remember_me: Duration::from_secs(2_592_000),
            },
            algorithm: SigningAlgorithm::EdDsa,
        };
        open_with(options, Arc::clone(&self.metrics), clock, Arc::new(SystemEntropy)).await
    }

    pub(crate) fn is_in_redis(&self) -> bool {
        matches!(self.sessions, SessionsPlace::Redis(_))
    }

    pub(crate) fn counts_in_redis(&self) -> bool {
        !matches!(self.counters.0, CountersPlace::Memory)
    }

    pub(crate) fn is_sqlite(&self) -> bool {
        matches!(self.address, DatabaseAddress::Sqlite(_))
    }

    /// For what no port has.
    pub(crate) async fn connect(&self) -> AnyConnection {
        sqlx::any::install_default_drivers();
        let url = match &self.address {
            DatabaseAddress::Sqlite(path) => format!("sqlite://{}", path.display()),
            DatabaseAddress::Postgres(url) => url.expose().to_owned(),
        };
        AnyConnection::connect(&url).await.unwrap()
    }

    /// Statements that no port has.
    pub(crate) async fn execute(&self, sql: &str) {
        let mut connection = self.connect().await;
        connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        connection.close().await.unwrap();
    }

    /// The one text that answers it.
    pub(crate) async fn question(&self, sql: &'static str) -> String {
        let mut connection = self.connect().await;
        sqlx::query_scalar(sql).fetch_one(&mut connection).await.unwrap()
    }

    /// What is stored of this session cannot be read from now on.
    pub(crate) async fn damage(&self, session: &Session) {
        if self.is_in_redis() {
            let keys = in_redis::Connection::keys_of(self, session).await;
            let mut redis = in_redis::Connection::to(self).await;
            let _: i64 = redis.ask(::redis::cmd("HSET").arg(keys.record).arg("record").arg("{\"id\":\"wrong\"")).await;
        } else {
            self.execute(&format!("UPDATE sessions SET factor = 'wrong' WHERE id = '{}'", session.id)).await;
        }
    }

    /// A server: follows the log.
    pub(crate) async fn node(&self) -> Node {
        let beat = [("counters", "beat")];
        let before = self.asked(beat);
        let node = Node::following(self.open().await.unwrap());
        if self.counts_in_redis() {
            // As a server does before it is asked anything.
            eventually("its first beat", Duration::from_secs(10), || async { self.asked_since(beat, before)[0] > 0 })
                .await;
        }
        node
    }
}

/// The machine's clock, so many seconds later.
pub(crate) struct Later {
    clock: SystemClock,
    by: Duration,
}

impl Later {
    pub(crate) fn by(seconds: u64) -> Arc<Self> {
        Arc::new(Self { clock: SystemClock::new(), by: Duration::from_secs(seconds) })
    }
}

impl Clock for Later {
    fn now(&self) -> Timestamp {
        self.clock.now().after(self.by)
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// The machine's clock, whose hands stand still: nothing comes to its end, however long a busy machine takes.
pub(crate) struct Standing {
    clock: SystemClock,
    now: Timestamp,
}

impl Standing {
    pub(crate) fn still() -> Arc<Self> {
        let clock = SystemClock::new();
        Arc::new(Self { now: clock.now(), clock })
    }
}

impl Clock for Standing {
    fn now(&self) -> Timestamp {
        self.now
    }

    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
}

impl Node {
    pub(crate) fn following(stores: Stores) -> Self {
        let (stop, stopped) = watch::channel(false);
        let readiness = Arc::new(Readiness::default());
        let background = stores.follow(readiness.clone(), stopped);
        Self { stores, readiness, stop, background }
    }

    /// As if it were killed.
    pub(crate) fn die(self) {
        self.background.abort();
    }

    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        self.background.await.unwrap();
    }

    pub(crate) fn knows(&self, session: &Session) -> bool {
        matches!(self.stores.sessions.peek(&session.gate_hash), Peek::Hit(_))
    }

    /// Reads the session until memory holds it: the follower may just be emptying the cache for the first time.
    pub(crate) async fn warm(&self, session: &Session) {
        eventually("the session is remembered", Duration::from_secs(5), || async {
            self.stores.sessions.find(&session.gate_hash).await.unwrap().unwrap();
            self.knows(session)
        })
        .await;
    }

    pub(crate) async fn add_user(&self, name: &str) {
        self.stores
            .users
            .insert(user(name), Some("$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/".to_owned()))
            .await
            .unwrap();
    }

    pub(crate) async fn sign_in(&self, name: &str) -> Session {
        let session = session(name);
        self.stores.sessions.create(session.clone(), &[]).await.unwrap();
        session
    }
}

/// On no disk where the system allows it: what is acknowledged is forced onto one, and tests beside each other on a slow disk would wait longer for that than
/// an operation may take.
fn in_memory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// Asks until it holds; panics after `within`.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, within: Duration, mut holds: impl FnMut() -> F) {
    let asking = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(tokio::time::timeout(within, asking).await.is_ok(), "not within {within:?}: {what}");
}

pub(crate) fn user(name: &str) -> User {
    User {
        display_name: format!("{name} of the tests"),
        email: Some(format!("{name}@example.com")),
        ..User::new(name, vec!["staff".to_owned()])
    }
}

/// What memory tells of a session.
pub(crate) fn told_of(live: &LiveSession) -> (SessionId, SessionFacts) {
    (live.id().clone(), live.session.clone())
}

/// Times are whole milliseconds of the present: the stores run on the machine's clock here.
pub(crate) fn session(user: &str) -> Session {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let now = Timestamp::from_unix_millis(jiff::Timestamp::now().as_millisecond());
    Session {
        id: SessionId::new(format!("session-{number}")),
        user: user.to_owned(),
        factor: Factor::One,
        domain: "example.com".to_owned(),
        gate_hash: TokenHash::of(&format!("gate-{number}")),
        portal_hash: TokenHash::of(&format!("portal-{number}")),
        remembered: number % 2 == 1,
        created_at: now,
        signed_in_at: now,
        last_used_at: now,
        user_agent: "contract suite".to_owned(),
        address: Some([192, 0, 2, 1].into()),
        parent: None,
    }
}
