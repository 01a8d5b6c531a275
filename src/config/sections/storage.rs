//! `storage:`: the database and the key that encrypts secrets in it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::{
    CountersPlace, DatabaseAddress, NamedFile, OnFailure, PostgresUrl, RedisUrl, SessionsPlace, Storage,
    error::{Report, Trail},
    postgres_url::{EXAMPLE, Protection},
    redis_url,
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
    /// Where sessions live: `database`, or a Redis (`redis://HOST`, `rediss://` with TLS, `redis+sentinel://HOST,HOST/MASTER`,
    /// `redis+cluster://HOST,HOST`; default `database`).
    #[schemars(example = &"database")]
    sessions: Option<String>,
    /// A file that holds what `sessions` would say, since the URL of a Redis may hold a password.
    #[schemars(example = &"secrets/redis-url")]
    sessions_file: Option<String>,
    /// Where limits are counted: `memory`, by each node for itself, or a Redis that nodes share, as for `sessions` (default `memory`).
    #[schemars(example = &"memory")]
    counters: Option<String>,
    /// A file that holds what `counters` would say, since the URL of a Redis may hold a password.
    #[schemars(example = &"secrets/redis-url")]
    counters_file: Option<String>,
    /// While that Redis is away: `share`, each node counts its own part of every limit, or `refuse`, nobody passes where a limit holds (default `share`).
    #[schemars(example = &"share")]
    counters_on_failure: Option<String>,
}

pub(in crate::config) fn storage(report: &mut Report, raw: &RawStorage) -> Storage {
    let at = Trail::root().key("storage");
    let database = database(report, &at, raw);
    let key_file = raw.key_file.as_deref().unwrap_or(KEY_FILE);
    if key_file.is_empty() {
        report.fault(&at.key("key_file"), format!("`storage.key_file` is empty; write a path such as `{KEY_FILE}`"));
    }
    let (counters, sessions) = (counters(report, &at, raw), sessions(report, &at, raw));
    let counters_on_failure = match raw.counters_on_failure.as_deref() {
        None | Some("share") => OnFailure::Share,
        Some("refuse") => OnFailure::Refuse,
        Some(_) => {
            report.fault(&at.key("counters_on_failure"), "there is no such choice; write `share` or `refuse`");
            OnFailure::default()
        }
    };
    Storage { database, key_file: PathBuf::from(key_file), sessions, counters, counters_on_failure }
}

fn counters(report: &mut Report, at: &Trail, raw: &RawStorage) -> CountersPlace {
    let (value, file) = (raw.counters.as_deref(), raw.counters_file.as_deref());
    let Some((at, text)) = value_or_file(report, at, ("counters", value), ("counters_file", file)) else {
        return CountersPlace::Memory;
    };
    let place = match text.as_str() {
        "memory" => Ok(CountersPlace::Memory),
        text if RedisUrl::is_meant(text) => RedisUrl::parse(text).map(|url| CountersPlace::Redis(Box::new(url))),
        // The text is not repeated: it may hold a password.
        _ => Err(format!("limits cannot be counted there; write `memory`, or a URL such as `{}`", redis_url::EXAMPLE)),
    };
    let Some(place) = report.take(&at, place) else { return CountersPlace::Memory };
    if let CountersPlace::Redis(url) = &place
        && url.is_open()
    {
        report.warn(&at, "whoever sits between this machine and Redis can lift every limit: write `rediss` for TLS");
    }
    place
}

/// A value, or the content of the file that holds it. `None`: neither is there, or it cannot be had, which is told.
fn value_or_file(
    report: &mut Report,
    at: &Trail,
    (key, value): (&'static str, Option<&str>),
    (file_key, file): (&'static str, Option<&str>),
) -> Option<(Trail, String)> {
    match (value, file) {
        (None, None) => None,
        (Some(text), None) => Some((at.key(key), text.to_owned())),
        (None, Some(file)) => {
            let at = at.key(file_key);
            let read = std::fs::read_to_string(file).map_err(|error| format!("this file cannot be read: {error}"));
            let text = report.take(&at, read)?;
            report.name(&at, NamedFile::Value(PathBuf::from(file)));
            Some((at, text.trim().to_owned()))
        }
        (Some(_), Some(_)) => {
            let fault = format!("`storage` has both `{key}` and `{file_key}`; keep one of the two");
            report.fault_of_key(&at.key(file_key), fault);
            None
        }
    }
}

fn sessions(report: &mut Report, at: &Trail, raw: &RawStorage) -> SessionsPlace {
    let (value, file) = (raw.sessions.as_deref(), raw.sessions_file.as_deref());
    let Some((at, text)) = value_or_file(report, at, ("sessions", value), ("sessions_file", file)) else {
        return SessionsPlace::Database;
    };
    let place = match text.as_str() {
        "database" => Ok(SessionsPlace::Database),
        text if RedisUrl::is_meant(text) => RedisUrl::parse(text).map(|url| SessionsPlace::Redis(Box::new(url))),
        // The text is not repeated: it may hold a password.
        _ => Err(format!("sessions cannot be kept there; write `database`, or a URL such as `{}`", redis_url::EXAMPLE)),
    };
    let Some(place) = report.take(&at, place) else { return SessionsPlace::Database };
    if let SessionsPlace::Redis(url) = &place
        && url.is_open()
    {
        report.warn(
            &at,
            "whoever sits between this machine and Redis can read and change everything, and sign in as anybody: write `rediss` for TLS",
        );
    }
    place
}

fn database(report: &mut Report, at: &Trail, raw: &RawStorage) -> DatabaseAddress {
    let default = || DatabaseAddress::Sqlite(PathBuf::from(DATABASE.trim_start_matches(SQLITE)));
    let (value, file) = (raw.database.as_deref(), raw.database_file.as_deref());
    if value.is_none() && file.is_none() {
        return default();
    }
    let Some((at, text)) = value_or_file(report, at, ("database", value), ("database_file", file)) else {
        return default();
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
