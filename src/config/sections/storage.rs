//! `storage:`: the database and the key that encrypts secrets in it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::only;
use crate::config::{
    DatabaseAddress, NamedFile, PostgresUrl, Storage,
    error::{Report, Trail},
    postgres_url::{EXAMPLE, Protection},
};

const SQLITE: &str = "sqlite://";
const DATABASE: &str = "sqlite://data/postern.db";
const KEY_FILE: &str = "data/postern.key";

/// The database and the key that encrypts secrets in it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawStorage {
    /// Where users, sessions and keys are kept: `sqlite://PATH` or `postgres://USER@HOST/DATABASE` (default `sqlite://data/postern.db`).
    #[schemars(example = &"sqlite://data/postern.db")]
    database: Option<String>,
    /// A file that holds what `database` would say, since the URL of PostgreSQL may hold a password.
    #[schemars(example = &"secrets/database-url")]
    database_file: Option<String>,
    /// Encrypts signing keys and factor secrets in the database (default `data/postern.key`).
    #[schemars(example = &"data/postern.key")]
    key_file: Option<String>,
    /// Where sessions live (default `database`).
    #[schemars(example = &"database")]
    sessions: Option<String>,
    /// Where limits are counted (default `memory`).
    #[schemars(example = &"memory")]
    counters: Option<String>,
}

pub(in crate::config) fn storage(report: &mut Report, raw: &RawStorage) -> Storage {
    let at = Trail::root().key("storage");
    let database = database(report, &at, raw);
    let key_file = raw.key_file.as_deref().unwrap_or(KEY_FILE);
    if key_file.is_empty() {
        report.fault(&at.key("key_file"), format!("`storage.key_file` is empty; write a path such as `{KEY_FILE}`"));
    }
    only(report, &at.key("sessions"), raw.sessions.as_deref(), "database", &["redis", "memory"]);
    only(report, &at.key("counters"), raw.counters.as_deref(), "memory", &["redis"]);
    Storage { database, key_file: PathBuf::from(key_file) }
}

fn database(report: &mut Report, at: &Trail, raw: &RawStorage) -> DatabaseAddress {
    let default = || DatabaseAddress::Sqlite(PathBuf::from(DATABASE.trim_start_matches(SQLITE)));
    let (at, text) = match (&raw.database, &raw.database_file) {
        (text, None) => (at.key("database"), text.as_deref().unwrap_or(DATABASE).to_owned()),
        (None, Some(file)) => {
            let at = at.key("database_file");
            let read = std::fs::read_to_string(file).map_err(|error| format!("this file cannot be read: {error}"));
            let Some(text) = report.take(&at, read) else { return default() };
            report.name(&at, NamedFile::Value(PathBuf::from(file)));
            (at, text.trim().to_owned())
        }
        (Some(_), Some(_)) => {
            let fault = "`storage` has both `database` and `database_file`; keep one of the two";
            report.fault_of_key(&at.key("database_file"), fault);
            return default();
        }
    };
    let Some(address) = report.take(&at, address(&text)) else { return default() };
    if let DatabaseAddress::Postgres(url) = &address
        && url.protection() == Protection::Open
    {
        report.warn(
            &at,
            "whoever sits between this machine and PostgreSQL can read and change everything: add `sslmode=verify-full` to the URL",
        );
    }
    address
}

/// The text is not repeated: the URL of a database may hold a password.
fn address(text: &str) -> Result<DatabaseAddress, String> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return PostgresUrl::parse(text).map(DatabaseAddress::Postgres);
    }
    match text.strip_prefix(SQLITE) {
        Some(path) if !path.is_empty() && !path.starts_with(':') && !path.contains('?') => {
            Ok(DatabaseAddress::Sqlite(PathBuf::from(path)))
        }
        _ => Err(format!(
            "this is no database that Postern knows; write `sqlite://` and a path (`{DATABASE}`), or a URL such as `{EXAMPLE}`"
        )),
    }
}
