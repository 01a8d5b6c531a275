//! The SQLite file: opening, time limits on every operation, and coming back after it was away. Used by every adapter here.
//!
//! Every operation ends within [`MOST_TIME`] and tells its time to the metrics. WAL lets readers go on while another process
//! writes; a writer waits for at most [`BUSY`]. The file itself is watched by the follower (`follow`): a file that is gone makes
//! every operation fail ([`Database::gone`]), one that was replaced is opened anew.

use std::{
    fs,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use sqlx::{
    ConnectOptions, Sqlite, SqliteConnection, SqlitePool, Transaction,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{
    observe::metrics::Metrics,
    ports::{Clock, Unavailable},
};

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations");

/// How long a writer waits for another process.
const BUSY: Duration = Duration::from_secs(1);
/// How long the first connection may take on a busy machine; whatever comes after is bound by [`MOST_TIME`].
const OPENING: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// The longest any operation may take, waiting for a connection included.
const MOST_TIME: Duration = Duration::from_millis(1_500);
const CONNECTIONS: u32 = 4;

/// Device and inode: tells a file from another that took its place.
type FileIdentity = (u64, u64);

pub(super) struct Database {
    path: PathBuf,
    pool: ArcSwap<SqlitePool>,
    opened: Mutex<Opened>,
    metrics: Arc<Metrics>,
    pub(super) clock: Arc<dyn Clock>,
}

struct Opened {
    identity: FileIdentity,
    gone: bool,
}

/// What the watch on the file found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileState {
    Same,
    Gone,
    Replaced,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum DatabaseError {
    #[error(transparent)]
    File(#[from] std::io::Error),
    #[error("{0}")]
    Sql(#[from] sqlx::Error),
    #[error("its tables cannot be brought up to date: {0}")]
    Migrate(#[from] sqlx::migrate::MigrateError),
}

impl Database {
    /// Creates a missing file (0600) and its folder, and brings the tables up to date.
    pub(super) async fn open(path: &Path, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Result<Self, DatabaseError> {
        create_missing(path)?;
        let pool = open_pool(path).await?;
        let opened = Mutex::new(Opened { identity: identity_of(path)?, gone: false });
        Ok(Self { path: path.to_owned(), pool: ArcSwap::from_pointee(pool), opened, metrics, clock })
    }

    /// A connection of the follower's own, outside the pool: `PRAGMA data_version` compares with what this connection saw.
    pub(super) async fn own_connection(&self) -> Result<SqliteConnection, sqlx::Error> {
        options(&self.path).connect().await
    }

    /// One look at the file, microseconds.
    pub(super) fn look(&self) -> FileState {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        let state = match identity_of(&self.path) {
            Err(_) => FileState::Gone,
            Ok(identity) if identity == opened.identity => FileState::Same,
            Ok(_) => FileState::Replaced,
        };
        opened.gone = state != FileState::Same;
        state
    }

    /// Fresh connections, after an outage or to a file that took the place of the old one (its tables brought up to date).
    pub(super) async fn reopen(&self) -> Result<(), DatabaseError> {
        let identity = identity_of(&self.path)?;
        let pool = open_pool(&self.path).await?;
        let old = self.pool.swap(Arc::new(pool));
        tokio::spawn(async move { old.close().await });
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        *opened = Opened { identity, gone: false };
        Ok(())
    }

    fn gone(&self) -> bool {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).gone
    }

    pub(super) fn pool(&self) -> SqlitePool {
        SqlitePool::clone(&self.pool.load())
    }

    /// A transaction that may write: takes the write lock at once, so that it never fails half-way for want of it.
    pub(super) async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.pool().begin_with("BEGIN IMMEDIATE").await
    }

    /// Runs one operation within the time limit. What is dropped half-way is rolled back.
    pub(super) async fn run<T>(
        &self,
        store: &'static str,
        operation: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Unavailable> {
        if self.gone() {
            return Err(Unavailable { store, detail: format!("the file {} is gone", self.path.display()) });
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
        self.pool().close().await;
    }
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        // FULL: an acknowledged revocation must outlive a power cut.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .foreign_keys(true)
        .disable_statement_logging()
}

/// Two processes may start on one new file: they go one after the other, since neither its switch to a write-ahead log nor sqlx's
/// migrations wait for a lock of SQLite's.
async fn open_pool(path: &Path) -> Result<SqlitePool, DatabaseError> {
    let _lock = lock_folder(path).await?;
    let pool = SqlitePoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(OPENING)
        .connect_with(options(path))
        .await?;
    let migrated = MIGRATIONS.run(&pool).await;
    if migrated.is_err() {
        pool.close().await;
    }
    Ok(migrated.map(|()| pool)?)
}

/// The folder and not the file, since closing a second descriptor of the file would end SQLite's own locks on it (fcntl(2), "Record
/// locks"). Held until the drop; asked for again and again rather than waited for, which would take a thread that nothing ends.
async fn lock_folder(path: &Path) -> std::io::Result<fs::File> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let lock = fs::File::open(folder)?;
    let waiting = async {
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(fs::TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
                Err(fs::TryLockError::Error(error)) => return Err(error),
            }
        }
    };
    let waited = tokio::time::timeout(OPENING, waiting).await;
    waited.unwrap_or_else(|_| {
        let folder = folder.display();
        Err(std::io::Error::other(format!(
            "another process has held the lock on the folder {folder} for {OPENING:?}; see who does (lsof {folder}), and try again"
        )))
    })?;
    Ok(lock)
}

fn create_missing(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn identity_of(path: &Path) -> std::io::Result<FileIdentity> {
    fs::metadata(path).map(|found| (found.dev(), found.ino()))
}
