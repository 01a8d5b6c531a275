//! PostgreSQL: connecting, bringing the tables up to date, and the follower's own connection, which LISTENs. Called by `database` alone.
//!
//! Never prints the URL, which holds the password: `PostgresUrl` shows itself without.

use std::{
    fmt::Display,
    io::ErrorKind,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use sqlx::{
    AnyPool, AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row,
    any::{AnyConnectOptions, AnyPoolOptions},
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use super::{DatabaseError, Look, OPENING};
use crate::{
    config::PostgresUrl,
    ports::Change,
    store::{
        changes::{self, CHANNEL},
        keys,
    },
};

/// Beside the follower's own one. Every node has so many.
const CONNECTIONS: u32 = 10;
/// Routers forget an idle connection without a word, and whoever uses it then waits in vain.
const IDLE: Duration = Duration::from_secs(60);
/// A connection that says nothing for so long when it is given back is given up; it would keep its place until TCP gives up.
const RELEASE: Duration = Duration::from_secs(1);
/// `server_version_num` of the oldest release that will do, and its name.
const OLDEST: (i32, &str) = (130_000, "13");

pub(super) struct Server {
    url: PostgresUrl,
    options: Box<PgConnectOptions>,
    /// Of the server whose tables are known to be up to date.
    opened: Mutex<Option<Identity>>,
    /// The watch has found another one than that.
    replaced: AtomicBool,
}

/// The connection of a [`Watch`].
pub(in crate::store) type Listener = PgListener;

/// Which server, since when, and which of its databases: after a restart or a change to another server the numbers of the log may begin anew.
type Identity = String;

const IDENTITY: &str = "concat_ws(' ', extract(epoch FROM pg_postmaster_start_time()), \
                        (SELECT oid FROM pg_database WHERE datname = current_database()))";

impl Server {
    pub(super) fn at(url: &PostgresUrl) -> Result<Self, DatabaseError> {
        let options: PgConnectOptions = url.expose().parse().map_err(|error| told(&error))?;
        let options = Box::new(options.disable_statement_logging());
        Ok(Self { url: url.clone(), options, opened: Mutex::default(), replaced: AtomicBool::new(false) })
    }

    /// Makes sure that the server will do and that its tables are up to date.
    pub(super) async fn open_pool(&self) -> Result<AnyPool, DatabaseError> {
        let opening = async {
            let mut connection = self.options.connect().await.map_err(|error| told(&error))?;
            let identity = prepare(&mut connection).await?;
            // A failure to say goodbye is none of ours.
            let _ = connection.close().await;
            let pool = pool_options().connect_with(self.any_options()?).await.map_err(|error| told(&error))?;
            *self.opened() = Some(identity);
            Ok(pool)
        };
        let opened = tokio::time::timeout(OPENING, opening).await;
        opened.unwrap_or_else(|_| Err(DatabaseError::Told(format!("no answer within {OPENING:?}"))))
    }

    /// Connects when it is asked.
    pub(super) fn lazy_pool(&self) -> Result<AnyPool, DatabaseError> {
        Ok(pool_options().connect_lazy_with(self.any_options()?))
    }

    fn any_options(&self) -> Result<AnyConnectOptions, DatabaseError> {
        let options: AnyConnectOptions = self.url.expose().parse().map_err(|error| told(&error))?;
        Ok(options.disable_statement_logging())
    }

    /// Nothing that is asked of the pool counts: it may lead to the old server, or to one whose tables are not those of this version.
    pub(super) fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Acquire)
    }

    /// The pool leads to the server that was prepared last.
    pub(super) fn adopted(&self) {
        self.replaced.store(false, Ordering::Release);
    }

    fn opened(&self) -> MutexGuard<'_, Option<Identity>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn listen(&self) -> Result<Listener, String> {
        self.listening().await.map_err(|error| told(&error).to_string())
    }

    async fn listening(&self) -> Result<Listener, sqlx::Error> {
        let pool = PgPoolOptions::new().max_connections(1).max_lifetime(None).idle_timeout(None);
        let mut listener = PgListener::connect_with(&pool.connect_with((*self.options).clone()).await?).await?;
        listener.ignore_pool_close_event(true);
        // A lost connection is the follower's to replace, which then reads what was missed.
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }
}

/// Settings of every connection, whatever the server's own are: nothing that is given up half-way holds a lock for long.
const SETTINGS: &str = "SET default_transaction_isolation = 'read committed'; SET statement_timeout = 1500; \
                        SET idle_in_transaction_session_timeout = 2000; SET lock_timeout = 1000";

/// Asked of every connection that is given back. A `BEGIN` that was given up before its answer leaves one within a transaction that nobody knows of, where
/// what is asked later would never be committed: there the time of the transaction is not that of the statement. Sent by the simple protocol,
/// which has one time for both otherwise.
const IS_OUTSIDE_TRANSACTIONS: &str = "SELECT (now() = statement_timestamp())::int4";

/// A standby says what was true a while ago: a session that was ended would live on there.
fn pool_options() -> AnyPoolOptions {
    AnyPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(OPENING)
        .idle_timeout(IDLE)
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute(SETTINGS).await?;
                match sqlx::query("SELECT pg_is_in_recovery()").fetch_one(connection).await?.try_get(0)? {
                    true => Err(sqlx::Error::Configuration(STANDBY.into())),
                    false => Ok(()),
                }
            })
        })
        .after_release(|connection, _| {
            Box::pin(async move {
                let asking = sqlx::raw_sql(IS_OUTSIDE_TRANSACTIONS).fetch_one(connection);
                let asked = tokio::time::timeout(RELEASE, asking).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))?;
                Ok(asked.try_get::<i32, _>(0)? == 1)
            })
        })
}

const STANDBY: &str = "it is a standby that cannot be written to: name the primary";

async fn prepare(connection: &mut PgConnection) -> Result<Identity, DatabaseError> {
    let about = format!(
        "SELECT current_setting('server_version_num')::int4, current_setting('server_version'), \
         current_setting('server_encoding'), pg_is_in_recovery(), {IDENTITY}"
    );
    let (number, version, encoding, standby, identity): (i32, String, String, bool, Identity) =
        sqlx::query_as(AssertSqlSafe(about)).fetch_one(&mut *connection).await.map_err(|error| told(&error))?;
    let (oldest, name) = OLDEST;
    if number < oldest {
        return Err(DatabaseError::Told(format!("it is PostgreSQL {version}; PostgreSQL {name} or newer is needed")));
    }
    if encoding != "UTF8" {
        return Err(DatabaseError::Told(format!(
            "its encoding is {encoding}; make one with `createdb --encoding UTF8 --template template0`"
        )));
    }
    if standby {
        return Err(DatabaseError::Told(STANDBY.to_owned()));
    }
    migrate(connection).await?;
    Ok(identity)
}

/// All within one transaction, the lock too, which sqlx's own would leave behind on a connection of pgbouncer's.
async fn migrate(connection: &mut PgConnection) -> Result<(), DatabaseError> {
    let mut migrations = sqlx::migrate!("src/store/migrations/postgres");
    migrations.set_locking(false);
    let mut transaction = connection.begin().await.map_err(|error| told(&error))?;
    // Without the notices that tables are there already.
    let lock = "SELECT set_config('client_min_messages', 'warning', true), \
                pg_advisory_xact_lock(hashtextextended('postern migrations', 0))";
    sqlx::query(lock).execute(&mut *transaction).await.map_err(|error| told(&error))?;
    // What `run` does, which the compiler cannot see to be Send for a borrowed connection.
    match migrations.run_direct(None, &mut *transaction, false).await {
        Ok(()) => {}
        Err(sqlx::migrate::MigrateError::Execute(error) | sqlx::migrate::MigrateError::ExecuteMigration(error, _)) => {
            return Err(told(&error));
        }
        Err(error) => return Err(error.into()),
    }
    transaction.commit().await.map_err(|error| told(&error))
}

/// What went wrong, and what to do about it, in one line.
fn told(error: &sqlx::Error) -> DatabaseError {
    let text = match error {
        // What rustls finds wrong with a certificate comes like this.
        sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => refused_tls(error),
        sqlx::Error::Io(error) if error.kind() == ErrorKind::NotFound => {
            format!("nobody answers there, or a file that the URL names is missing ({error})")
        }
        sqlx::Error::Io(error) => format!("nobody answers there ({error})"),
        sqlx::Error::Tls(error) => refused_tls(error),
        sqlx::Error::PoolTimedOut => format!("no connection within {OPENING:?}"),
        sqlx::Error::Configuration(error) => error.to_string(),
        sqlx::Error::Database(error) => {
            let said = error.message();
            match error.code().as_deref() {
                Some("28P01") => format!("the server refuses the password ({said})"),
                Some("28000") => format!("the server lets this user not in from here ({said}); see its pg_hba.conf"),
                Some("3D000") => format!("the server has no such database ({said}); make it with `createdb`"),
                Some("42501") => {
                    format!("the user may not make its tables ({said}); make them the owner of the database")
                }
                Some("53300") => format!("the server has no connection left ({said}); raise its max_connections"),
                _ => said.to_owned(),
            }
        }
        other => other.to_string(),
    };
    DatabaseError::Told(text.lines().collect::<Vec<_>>().join(" "))
}

fn refused_tls(error: &impl Display) -> String {
    format!("TLS is refused ({error}); see `sslmode` and `sslrootcert` in docs/fleet.md")
}

/// One connection for looking and listening, so that one that is dead is noticed by the next look.
#[derive(Default)]
pub(in crate::store) struct Watch {
    listener: Option<Listener>,
}

impl Watch {
    pub(super) async fn look(&mut self, server: &Server) -> Result<Look, String> {
        let Some(listener) = &mut self.listener else { return Err("there is no connection".to_owned()) };
        let query = format!("SELECT {IDENTITY}, pg_is_in_recovery()");
        let (identity, standby): (Identity, bool) =
            sqlx::query_as(AssertSqlSafe(query)).fetch_one(&mut *listener).await.map_err(|error| error.to_string())?;
        if standby {
            return Err(STANDBY.to_owned());
        }
        // Before its tables are asked: another database may have none yet.
        if server.opened().as_ref() != Some(&identity) {
            server.replaced.store(true, Ordering::Release);
            return Ok(Look::Replaced);
        }
        let seq = sqlx::query_scalar("SELECT seq FROM change_counter").fetch_one(listener).await;
        seq.map(Look::At).map_err(|error| error.to_string())
    }

    /// As [`Changes::after`](crate::ports::Changes::after).
    pub(super) async fn after(&mut self, seq: i64) -> Result<Option<Vec<Change>>, sqlx::Error> {
        let Some(listener) = &mut self.listener else { return Err(sqlx::Error::PoolClosed) };
        let bounds = sqlx::query_as(changes::BOUNDS_OF_POSTGRES).fetch_one(&mut *listener).await?;
        let rows = sqlx::query_as(changes::AFTER).bind(seq).bind(changes::STEP).fetch_all(listener).await?;
        Ok(changes::changes_after(seq, bounds, rows))
    }

    pub(super) async fn signing_keys(&mut self) -> Result<Vec<keys::Row>, sqlx::Error> {
        let Some(listener) = &mut self.listener else { return Err(sqlx::Error::PoolClosed) };
        sqlx::query_as(keys::ROWS).fetch_all(listener).await
    }

    pub(super) fn is_connected(&self) -> bool {
        self.listener.is_some()
    }

    pub(super) fn connected(&mut self, listener: Listener) {
        self.listener = Some(listener);
    }

    pub(super) async fn woken(&mut self) {
        let Some(listener) = &mut self.listener else { return std::future::pending().await };
        match listener.try_recv().await {
            // Many at once are one.
            Ok(Some(_)) => while listener.next_buffered().is_some() {},
            Ok(None) | Err(_) => self.listener = None,
        }
    }

    pub(super) fn disconnect(&mut self) {
        self.listener = None;
    }
}
