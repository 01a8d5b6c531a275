//! A Redis: one server, a master found by sentinels, or a cluster. Connecting, time limits on every operation, and coming back after it was away.
//! Used by `session::redis` and `counters::redis`; [`beat`] tells whether that of sessions is there.
//!
//! What is kept here may be gone, or old, at any time: nothing but the database says what ended (`session::ends`).

mod beat;
mod script;

use std::{
    fmt, fs,
    future::Future,
    io, slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use futures_util::{
    FutureExt as _,
    future::{select_ok, try_join_all},
};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, FromRedisValue, IntoConnectionInfo as _,
    RedisError, RedisResult, TlsCertificates, TlsMode,
    aio::MultiplexedConnection,
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType},
};
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;

use crate::{
    config::{RedisKind, RedisLogin, RedisUrl},
    observe::metrics::Metrics,
    ports::{Clock, Unavailable},
};

pub(super) use beat::Heart;
pub(super) use script::{Call, Script};

/// The longest any operation may take, waiting for a connection included.
const MOST_TIME: Duration = Duration::from_millis(1_500);
/// One node of a cluster, or one sentinel, that hangs must leave time for the next.
const CONNECTING: Duration = Duration::from_millis(600);
/// Commands of one operation that are under way at once.
const AT_ONCE: usize = 256;
/// How long the first connection may take on a busy machine.
const OPENING: Duration = Duration::from_secs(10);

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum OpenError {
    #[error("{path}: {why} (`cacert`)")]
    Authorities { path: String, why: String },
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("no answer within {OPENING:?}")]
    Late,
    #[error("{0}")]
    Unfit(String),
}

pub(super) struct Redis {
    way: Way,
    held: ArcSwapOption<Connection>,
    /// One at a time makes a connection; whoever waits takes it.
    connecting: Mutex<()>,
    /// Nobody waits for what does not answer: the heart looks whether it is back.
    is_down: AtomicBool,
    name: String,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

/// How a connection is made.
enum Way {
    Single(Box<Client>),
    /// One for each sentinel: whoever asks them in turn waits for those that hang.
    Sentinels(Vec<Mutex<SentinelClient>>),
    Cluster(Box<ClusterClient>),
    /// There is none: a command that only ends sessions must not fail for it.
    None(String),
}

impl Way {
    fn to(url: &RedisUrl) -> Result<Self, OpenError> {
        let authorities = url
            .ca
            .as_ref()
            .map(|path| {
                let told = |why: String| OpenError::Authorities { path: path.display().to_string(), why };
                let pem = fs::read(path).map_err(|error| told(error.to_string()))?;
                if !pem.windows(BEGIN.len()).any(|window| window == BEGIN) {
                    return Err(told("there is no certificate in it".to_owned()));
                }
                Ok(pem)
            })
            .transpose()?;
        let certificates = TlsCertificates { client_tls: None, root_cert: authorities };
        Ok(match url.kind {
            RedisKind::Single => Self::Single(Box::new(single(url, certificates)?)),
            RedisKind::Sentinel => {
                let each = url.servers.iter().map(|server| sentinel(url, server, certificates.clone()).map(Mutex::new));
                Self::Sentinels(each.collect::<Result<_, _>>()?)
            }
            RedisKind::Cluster => Self::Cluster(Box::new(cluster(url, certificates)?)),
        })
    }
}

/// Shared by all who ask at the same time.
#[derive(Clone)]
pub(super) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self {
            Self::Single(connection) => command.query_async(&mut connection.clone()).await,
            Self::Cluster(connection) => command.query_async(&mut connection.clone()).await,
        }
    }

    /// The answers in the order of the commands; the commands are carried out in any.
    async fn ask_each<T: FromRedisValue>(&self, commands: &[Cmd]) -> RedisResult<Vec<T>> {
        let mut answers = Vec::with_capacity(commands.len());
        for step in commands.chunks(AT_ONCE) {
            match self {
                Self::Single(connection) => {
                    let mut pipeline = redis::Pipeline::with_capacity(step.len());
                    for command in step {
                        pipeline.add_command(command.clone());
                    }
                    answers.extend(pipeline.query_async::<Vec<T>>(&mut connection.clone()).await?);
                }
                // Each goes to the node that has its key.
                Self::Cluster(_) => answers.extend(try_join_all(step.iter().map(|command| self.ask(command))).await?),
            }
        }
        Ok(answers)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redis").field(&self.name).finish()
    }
}

impl Redis {
    /// Asks nothing yet. What is wrong with the settings is told by whoever asks first.
    pub(super) fn at(url: &RedisUrl, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        let way = Way::to(url).unwrap_or_else(|error| Way::None(error.to_string()));
        Self {
            way,
            held: ArcSwapOption::empty(),
            connecting: Mutex::new(()),
            is_down: AtomicBool::new(false),
            name: url.to_string(),
            metrics,
            clock,
        }
    }

    /// As it may be shown: without passwords.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// One command. It may be sent twice, where the connection turns out to be lost: whatever is asked here may be asked again.
    pub(super) async fn ask<T: FromRedisValue>(
        &self,
        store: &'static str,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<T, Unavailable> {
        let mut answers = self.ask_each(store, operation, slice::from_ref(command)).await?;
        answers.pop().ok_or_else(|| Unavailable { store, detail: format!("{operation}: no answer") })
    }

    /// The answers in the order of the commands, which are carried out in any, within the time limit of one operation. They may be sent twice.
    pub(super) async fn ask_each<T: FromRedisValue>(
        &self,
        store: &'static str,
        operation: &'static str,
        commands: &[Cmd],
    ) -> Result<Vec<T>, Unavailable> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        self.in_time(store, operation, self.attempts(commands)).await
    }

    /// Within the time limit of one operation, and counted.
    async fn in_time<T>(
        &self,
        store: &'static str,
        operation: &'static str,
        asking: impl Future<Output = RedisResult<T>>,
    ) -> Result<T, Unavailable> {
        let unavailable =
            |detail: String| Unavailable { store, detail: format!("{operation}: {}: {detail}", self.name) };
        if self.is_down.load(Ordering::Acquire) {
            return Err(unavailable("it does not answer".to_owned()));
        }
        let (started, held) = (self.clock.monotonic(), self.held.load_full());
        let done = tokio::time::timeout(MOST_TIME, asking).await;
        self.metrics.store_operation(store, operation, self.clock.monotonic().saturating_sub(started));
        match done {
            Ok(Ok(answers)) => Ok(answers),
            Ok(Err(error)) => {
                // After many questions to a node that is away, a cluster's answers none any more, also once that node is back: the next one makes another.
                if matches!(self.way, Way::Cluster(_))
                    && error.is_timeout()
                    && let Some(held) = &held
                {
                    self.let_go(held);
                }
                Err(unavailable(error.to_string()))
            }
            Err(_) => {
                // It may hang: the next one makes another. A cluster's mends itself, and belongs to the other nodes too.
                if let Some(held) = held.filter(|_| !matches!(self.way, Way::Cluster(_))) {
                    self.let_go(&held);
                }
                Err(unavailable(format!("no answer within {MOST_TIME:?}")))
            }
        }
    }

    async fn attempts<T: FromRedisValue>(&self, commands: &[Cmd]) -> RedisResult<Vec<T>> {
        let connection = self.connection().await?;
        match connection.ask_each(commands).await {
            Err(error) if self.is_lost(&error) => {
                self.let_go(&connection);
                self.connection().await?.ask_each(commands).await
            }
            done => done,
        }
    }

    /// Whether another connection may fare better: this one is cut, or leads to who is no master any more.
    fn is_lost(&self, error: &RedisError) -> bool {
        let is_cut = error.is_connection_dropped() || error.is_io_error() || error.is_unrecoverable_error();
        let has_moved = matches!(error.code(), Some("READONLY" | "MASTERDOWN" | "LOADING"));
        !matches!(self.way, Way::Cluster(_)) && (is_cut || has_moved)
    }

    fn let_go(&self, lost: &Arc<Connection>) {
        self.held.rcu(|held| held.as_ref().filter(|held| !Arc::ptr_eq(held, lost)).cloned());
    }

    async fn connection(&self) -> RedisResult<Arc<Connection>> {
        if let Some(held) = self.held.load_full() {
            return Ok(held);
        }
        let _alone = self.connecting.lock().await;
        if let Some(held) = self.held.load_full() {
            return Ok(held);
        }
        let made = Arc::new(self.connected().await?);
        self.held.store(Some(made.clone()));
        Ok(made)
    }

    async fn connected(&self) -> RedisResult<Connection> {
        // Operations have a limit of their own.
        let settings = AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECTING)).set_response_timeout(None);
        match &self.way {
            Way::Single(client) => {
                client.get_multiplexed_async_connection_with_config(&settings).await.map(Connection::Single)
            }
            Way::Sentinels(sentinels) => {
                let each = sentinels.iter().map(|sentinel| {
                    let settings = &settings;
                    async move { sentinel.lock().await.get_async_connection_with_config(settings).await }.boxed()
                });
                let (connection, _) = select_ok(each).await?;
                Ok(Connection::Single(connection))
            }
            Way::Cluster(client) => client.get_async_connection().await.map(Connection::Cluster),
            Way::None(why) => Err(RedisError::from(io::Error::other(why.clone()))),
        }
    }
}

const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn address(url: &RedisUrl, host: &str, port: u16) -> ConnectionAddr {
    match url.tls {
        true => ConnectionAddr::TcpTls { host: host.to_owned(), port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host.to_owned(), port),
    }
}

fn info(url: &RedisUrl, host: &str, port: u16) -> RedisResult<ConnectionInfo> {
    let info = address(url, host, port).into_connection_info()?;
    let mut settings = info.redis_settings().clone().set_db(url.database);
    if let Some(username) = &url.login.username {
        settings = settings.set_username(username);
    }
    if let Some(password) = &url.login.password {
        settings = settings.set_password(password.expose_secret());
    }
    Ok(info.set_redis_settings(settings))
}

fn single(url: &RedisUrl, certificates: TlsCertificates) -> Result<Client, OpenError> {
    let Some((host, port)) = url.servers.first() else {
        return Err(OpenError::Unfit("the URL names no server".to_owned()));
    };
    let info = info(url, host, *port)?;
    Ok(if url.tls { Client::build_with_tls(info, certificates)? } else { Client::open(info)? })
}

/// The master, as this sentinel knows it.
fn sentinel(
    url: &RedisUrl,
    (host, port): &(String, u16),
    certificates: TlsCertificates,
) -> Result<SentinelClient, OpenError> {
    let mut builder =
        SentinelClientBuilder::new([address(url, host, *port)], &url.service, SentinelServerType::Master)?
            .set_client_to_redis_db(url.database);
    if url.tls {
        builder = builder
            .set_client_to_redis_tls_mode(TlsMode::Secure)
            .set_client_to_redis_certificates(certificates.clone())
            .set_client_to_sentinel_certificates(certificates);
    }
    let RedisLogin { username, password } = &url.login;
    if let Some(username) = username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = password {
        builder = builder.set_client_to_redis_password(password.expose_secret());
    }
    let RedisLogin { username, password } = &url.sentinel_login;
    if let Some(username) = username {
        builder = builder.set_client_to_sentinel_username(username);
    }
    if let Some(password) = password {
        builder = builder.set_client_to_sentinel_password(password.expose_secret());
    }
    Ok(builder.build()?)
}

fn cluster(url: &RedisUrl, certificates: TlsCertificates) -> Result<ClusterClient, OpenError> {
    let nodes: Vec<ConnectionInfo> =
        url.servers.iter().map(|(host, port)| info(url, host, *port)).collect::<RedisResult<_>>()?;
    let mut builder = ClusterClientBuilder::new(nodes)
        .connection_timeout(CONNECTING)
        .response_timeout(MOST_TIME)
        // What fails may be tried again until the operation's own limit.
        .retries(2)
        .min_retry_wait(20)
        .max_retry_wait(200);
    if url.tls {
        builder = builder.tls(TlsMode::Secure).certs(certificates);
    }
    Ok(builder.build()?)
}
