//! SQLite: creating and opening the file, and watching it. Called by `database` alone.
//!
//! WAL lets readers go on while another process writes; a writer waits for at most [`BUSY`]. A file that is gone makes every operation
//! fail ([`DatabaseFile::is_gone`]), one that was replaced is opened anew.

use std::{
    fs,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use sqlx::{
    AnyPool, AssertSqlSafe, ConnectOptions, Connection, Executor, SqliteConnection,
    any::{AnyConnectOptions, AnyPoolOptions},
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::{DatabaseError, Look, OPENING};

static MIGRATIONS: Migrator = sqlx::migrate!("src/store/migrations/sqlite");

/// How long a writer waits for another process.
const BUSY: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(10);
const CONNECTIONS: u32 = 4;

/// Device and inode: tells a file from another that took its place.
type FileIdentity = (u64, u64);

pub(super) struct DatabaseFile {
    path: PathBuf,
    opened: Mutex<Opened>,
}

struct Opened {
    identity: FileIdentity,
    gone: bool,
}

impl DatabaseFile {
    pub(super) fn opened(path: &Path) -> std::io::Result<Self> {
        let opened = Mutex::new(Opened { identity: identity_of(path)?, gone: false });
        Ok(Self { path: path.to_owned(), opened })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn identity(&self) -> std::io::Result<FileIdentity> {
        identity_of(&self.path)
    }

    /// The file of this identity is the one that connections are open to.
    pub(super) fn adopt(&self, identity: FileIdentity) {
        *self.lock() = Opened { identity, gone: false };
    }

    pub(super) fn is_gone(&self) -> bool {
        self.lock().gone
    }

    /// One look at the file, microseconds; `None`: it is the one that was opened.
    fn look(&self) -> Option<Look> {
        let mut opened = self.lock();
        let look = match identity_of(&self.path) {
            Err(_) => Some(Look::Gone),
            Ok(identity) if identity == opened.identity => None,
            Ok(_) => Some(Look::Replaced),
        };
        opened.gone = look.is_some();
        look
    }

    fn lock(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `PRAGMA data_version` compares with what this connection saw.
#[derive(Default)]
pub(in crate::store) struct Watch {
    connection: Option<SqliteConnection>,
}

impl Watch {
    pub(super) async fn look(&mut self, file: &DatabaseFile) -> Result<Look, sqlx::Error> {
        if let Some(look) = file.look() {
            self.disconnect();
            return Ok(look);
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(options(&file.path).connect().await?),
        };
        sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await.map(Look::At)
    }

    pub(super) fn disconnect(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(connection.close());
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.disconnect();
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
pub(super) async fn open_pool(path: &Path) -> Result<AnyPool, DatabaseError> {
    let _lock = lock_folder(path).await?;
    let mut first = options(path).connect().await?;
    // What `run` does, which the compiler cannot see to be Send for a borrowed connection.
    let migrated = MIGRATIONS.run_direct(None, &mut first, false).await;
    let pool = match migrated {
        Ok(()) => pool_options().connect_with(any_options(path)?).await.map_err(DatabaseError::from),
        Err(error) => Err(error.into()),
    };
    // After the others are there: the last one to close would fold the write-ahead log away.
    first.close().await?;
    pool
}

/// Connects when it is asked.
pub(super) fn lazy_pool(path: &Path) -> Result<AnyPool, DatabaseError> {
    Ok(pool_options().connect_lazy_with(any_options(path)?))
}

/// A pool of either database takes nothing but a URL: what [`options`] says is said again on each connection.
fn pool_options() -> AnyPoolOptions {
    AnyPoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(OPENING).after_connect(|connection, _| {
        let pragmas = format!(
            "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON",
            BUSY.as_millis()
        );
        Box::pin(async move { connection.execute(AssertSqlSafe(pragmas)).await.map(drop) })
    })
}

/// Every character of the path is encoded, so that none of them means anything to a URL.
fn any_options(path: &Path) -> Result<AnyConnectOptions, DatabaseError> {
    let text = path.to_str().ok_or_else(|| std::io::Error::other("its path is not UTF-8"))?;
    let url = format!("sqlite:{}", utf8_percent_encode(text, NON_ALPHANUMERIC));
    Ok(url.parse::<AnyConnectOptions>()?.disable_statement_logging())
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

pub(super) fn create_missing(path: &Path) -> std::io::Result<()> {
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
