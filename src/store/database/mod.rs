//! The database: a SQLite file or a PostgreSQL server. Opening, time limits on every operation, and coming back after it was away. Used by
//! every adapter here.
//!
//! Every operation ends within [`MOST_TIME`] and tells its time to the metrics. Adapters write one SQL for both (`$1`; numbers, text and
//! bytes alone) and ask [`Database::dialect`] where the two differ; what changes something goes through [`Database::begin`], so that
//! its rows of the log are written with it. What is peculiar to one of the two is in `sqlite` and `postgres`; the follower sees through [`Watch`].

mod postgres;
mod sqlite;
mod write;

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use sqlx::AnyPool;

use crate::{
    config::DatabaseAddress,
    observe::metrics::Metrics,
    ports::{Change, Changes, Clock, Unavailable},
    store::keys,
};

pub(super) use write::{Guard, Write};

/// How long the first connection may take on a busy machine; whatever comes after is bound by [`MOST_TIME`].
const OPENING: Duration = Duration::from_secs(10);
/// The longest any operation may take, waiting for a connection included.
const MOST_TIME: Duration = Duration::from_millis(1_500);
/// How long the end waits for connections that hang.
const CLOSING: Duration = Duration::from_secs(2);

pub(super) struct Database {
    place: Place,
    pool: ArcSwap<AnyPool>,
    metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
}

enum Place {
    Sqlite(sqlite::DatabaseFile),
    Postgres(postgres::Server),
}

/// Whose SQL is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    #[error("its tables cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// In words of our own.
    #[error("{0}")]
    Told(String),
}

/// What the follower sees of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Another number than the last time: something may have changed.
    At(i64),
    /// Away for certain; nothing that is remembered counts.
    Gone,
    /// Another one took its place: nothing that is remembered counts, and it has to be opened.
    Replaced,
}

impl Database {
    /// Brings the tables up to date; a missing SQLite file is created (0600), and its folder.
    pub(super) async fn open(
        address: &DatabaseAddress,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, DatabaseError> {
        sqlx::any::install_default_drivers();
        let (place, pool) = match address {
            DatabaseAddress::Sqlite(path) => {
                sqlite::create_missing(path)?;
                let pool = sqlite::open_pool(path).await?;
                (Place::Sqlite(sqlite::DatabaseFile::opened(path)?), pool)
            }
            DatabaseAddress::Postgres(url) => {
                let server = postgres::Server::at(url)?;
                let pool = server.open_pool().await?;
                (Place::Postgres(server), pool)
            }
        };
        Ok(Self { place, pool: ArcSwap::from_pointee(pool), metrics, clock })
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self.place {
            Place::Sqlite(_) => Dialect::Sqlite,
            Place::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Opens a database that took the place of the old one, its tables brought up to date: within [`OPENING`].
    pub(super) async fn reopen(&self) -> Result<(), DatabaseError> {
        let opening = async {
            match &self.place {
                Place::Sqlite(file) => {
                    let identity = file.identity()?;
                    self.replace_pool(sqlite::open_pool(file.path()).await?);
                    // Last: as long as the file counts as gone, nobody asks the old connections, which may still have it open.
                    file.adopt(identity);
                }
                Place::Postgres(server) => {
                    self.replace_pool(server.open_pool().await?);
                    server.adopted();
                }
            }
            Ok(())
        };
        let opened = tokio::time::timeout(OPENING, opening).await;
        opened.unwrap_or_else(|_| Err(DatabaseError::Told(format!("no answer within {OPENING:?}"))))
    }

    /// Fresh connections to the database that is open, after an outage: the old ones may hang, and each would cost a request its whole
    /// time. Waits for nothing.
    pub(super) fn renew(&self) -> Result<(), DatabaseError> {
        match &self.place {
            Place::Sqlite(file) => self.replace_pool(sqlite::lazy_pool(file.path())?),
            Place::Postgres(server) => self.replace_pool(server.lazy_pool()?),
        }
        Ok(())
    }

    fn replace_pool(&self, pool: AnyPool) {
        let old = self.pool.swap(Arc::new(pool));
        tokio::spawn(async move { old.close().await });
    }

    pub(super) fn pool(&self) -> AnyPool {
        AnyPool::clone(&self.pool.load())
    }

    /// A transaction that may write. `guard`: what no other transaction may change meanwhile.
    pub(super) async fn begin(&self, guard: Guard<'_>) -> Result<Write, sqlx::Error> {
        Write::begin(&self.pool(), self.dialect(), guard, self.clock.now()).await
    }

    /// Runs one operation within the time limit. What is dropped half-way is rolled back.
    pub(super) async fn run<T>(
        &self,
        store: &'static str,
        operation: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Unavailable> {
        if let Some(detail) = self.place.barred() {
            return Err(Unavailable { store, detail });
        }
        let started = self.clock.monotonic();
        let done = tokio::time::timeout(MOST_TIME, work).await;
        self.metrics.store_operation(store, operation, self.clock.monotonic().saturating_sub(started));
        match done {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => Err(Unavailable { store, detail: format!("{operation}: {error}") }),
            Err(_) => Err(Unavailable { store, detail: format!("{operation}: no answer within {MOST_TIME:?}") }),
        }
    }

    pub(super) async fn close(&self) {
        // Nobody waits for a connection that hangs: the server ends what is left of it.
        let _ = tokio::time::timeout(CLOSING, self.pool().close()).await;
    }
}

impl Place {
    /// Why nothing that the old connections say counts; until the database is opened anew.
    fn barred(&self) -> Option<String> {
        match self {
            Self::Sqlite(file) => file.is_gone().then(|| format!("the file {} is gone", file.path().display())),
            Self::Postgres(server) => server.is_replaced().then(|| "another server has to be opened first".to_owned()),
        }
    }
}

/// The follower's own connection, outside the pool: it is never kept waiting by requests.
pub(super) enum Watch {
    Sqlite(sqlite::Watch),
    Postgres(postgres::Watch),
}

impl Watch {
    pub(super) fn of(database: &Database) -> Self {
        match database.place {
            Place::Sqlite(_) => Self::Sqlite(sqlite::Watch::default()),
            Place::Postgres(_) => Self::Postgres(postgres::Watch::default()),
        }
    }

    /// The connection that is to be made before the next look, across however slow a network, and given to [`Watch::connected`].
    pub(super) fn connecting<'d>(
        &self,
        database: &'d Database,
    ) -> Option<impl Future<Output = Result<postgres::Listener, String>> + use<'d>> {
        match (self, &database.place) {
            (Self::Postgres(watch), Place::Postgres(server)) if !watch.is_connected() => Some(server.listen()),
            // A file is opened within a look.
            _ => None,
        }
    }

    pub(super) fn connected(&mut self, listener: postgres::Listener) {
        match self {
            Self::Sqlite(_) => {}
            Self::Postgres(watch) => watch.connected(listener),
        }
    }

    /// One look.
    pub(super) async fn look(&mut self, database: &Database) -> Result<Look, String> {
        match (self, &database.place) {
            (Self::Sqlite(watch), Place::Sqlite(file)) => watch.look(file).await.map_err(|error| error.to_string()),
            (Self::Postgres(watch), Place::Postgres(server)) => watch.look(server).await,
            _ => Err("this watch is another database's".to_owned()),
        }
    }

    /// What was changed after `seq`, as [`Changes::after`] has it. Not by the pool, where requests may have all connections, and which may lead to
    /// another server than this watch.
    pub(super) async fn after(&mut self, changes: &dyn Changes, seq: i64) -> Result<Option<Vec<Change>>, String> {
        match self {
            Self::Sqlite(_) => changes.after(seq).await.map_err(|error| error.detail),
            Self::Postgres(watch) => watch.after(seq).await.map_err(|error| error.to_string()),
        }
    }

    /// The signing keys, by the same connection; `None`: to be asked of the pool.
    pub(super) async fn signing_keys(&mut self) -> Result<Option<Vec<keys::Row>>, String> {
        match self {
            Self::Sqlite(_) => Ok(None),
            Self::Postgres(watch) => watch.signing_keys().await.map(Some).map_err(|error| error.to_string()),
        }
    }

    /// The newest number of the log; `looked`: what the last look saw.
    pub(super) async fn latest(&self, changes: &dyn Changes, looked: i64) -> Result<i64, String> {
        match self {
            Self::Sqlite(_) => changes.latest().await.map_err(|error| error.detail),
            Self::Postgres(_) => Ok(looked),
        }
    }

    /// Whether all that the last look saw is applied for certain: what came since then is found by the next look.
    pub(super) fn has_reached(&self, looked: i64, seq: i64) -> bool {
        match self {
            Self::Sqlite(_) => false,
            Self::Postgres(_) => seq >= looked,
        }
    }

    /// Whether all is applied that the last look saw, once all up to `seq` is.
    pub(super) fn is_level(&self, looked: i64, seq: i64) -> bool {
        match self {
            // Which counts what it will.
            Self::Sqlite(_) => true,
            Self::Postgres(_) => seq >= looked,
        }
    }

    /// Returns when the database says by itself that there is something to see; that it says nothing means nothing. Safe to drop at any time.
    pub(super) async fn woken(&mut self) {
        match self {
            Self::Sqlite(_) => std::future::pending().await,
            Self::Postgres(watch) => watch.woken().await,
        }
    }

    /// Gives the connection up: the next look makes another.
    pub(super) fn disconnect(&mut self) {
        match self {
            Self::Sqlite(watch) => watch.disconnect(),
            Self::Postgres(watch) => watch.disconnect(),
        }
    }
}

/// PostgreSQL keeps no NUL in a text, and answers a question about one with an error: nothing of that name can be stored.
pub(super) fn can_be_stored(text: &str) -> bool {
    !text.contains('\0')
}
