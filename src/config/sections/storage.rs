//! `storage:`: the database and the key that encrypts secrets in it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::only;
use crate::config::{
    Storage,
    error::{Report, Trail},
};

const DATABASE: &str = "sqlite://data/postern.db";
const KEY_FILE: &str = "data/postern.key";

/// The database and the key that encrypts secrets in it.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawStorage {
    /// Where users, sessions and keys are kept (default `sqlite://data/postern.db`).
    #[schemars(example = &"sqlite://data/postern.db")]
    database: Option<String>,
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
    let text = raw.database.as_deref().unwrap_or(DATABASE);
    let database = report.take(&at.key("database"), database(text)).unwrap_or_default();
    let key_file = raw.key_file.as_deref().unwrap_or(KEY_FILE);
    if key_file.is_empty() {
        report.fault(&at.key("key_file"), format!("`storage.key_file` is empty; write a path such as `{KEY_FILE}`"));
    }
    only(report, &at.key("sessions"), raw.sessions.as_deref(), "database", &["redis", "memory"]);
    only(report, &at.key("counters"), raw.counters.as_deref(), "memory", &["redis"]);
    Storage { database, key_file: PathBuf::from(key_file) }
}

/// The text is not repeated: the URL of a database may hold a password.
fn database(text: &str) -> Result<PathBuf, String> {
    if text.starts_with("postgres") {
        return Err(format!("PostgreSQL is not supported yet by this version; write for example `{DATABASE}`"));
    }
    match text.strip_prefix("sqlite://") {
        Some(path) if !path.is_empty() && !path.starts_with(':') && !path.contains('?') => Ok(PathBuf::from(path)),
        _ => Err(format!("this is no database that Postern knows; write `sqlite://` and a path: `{DATABASE}`")),
    }
}
