//! The rows of the counters. Several at once go as JSON, in one statement, and are locked in the order of their ids, so that no two tries wait for each
//! other.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Counter, Counters};
use crate::{
    core::{regulation::Count, time::Timestamp},
    store::database::{Database, Dialect, Guard, Write},
};

/// Rows that a transaction of the background work deletes.
const STEP: i64 = 500;

/// A counter as it is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    pub(super) count: Count,
    /// Until when those that nobody has judged yet have their place: each its own time.
    pub(super) pending: Vec<Timestamp>,
    /// Nobody had counted by it before this transaction.
    pub(super) is_new: bool,
}

/// `ends_at` of a row that is inserted to be held; whoever writes it says when it really ends.
const NEW: i64 = -1;

/// By id.
pub(super) type Held = HashMap<String, Entry>;

type Row = (String, i64, i64, String, i64);

fn held(rows: Vec<Row>) -> Held {
    let entry = |(id, failures, at, pending, ends_at): Row| {
        let failures = u32::try_from(failures).unwrap_or(u32::MAX);
        let count = Count { failures, at: Timestamp::from_unix_millis(at) };
        let ends = pending.split(',').filter_map(|end| end.parse().ok());
        (id, Entry { count, pending: ends.map(Timestamp::from_unix_millis).collect(), is_new: ends_at == NEW })
    };
    rows.into_iter().map(entry).collect()
}

fn ids(counters: &Counters) -> String {
    counters.all.iter().map(|counter| counter.id.as_str()).collect::<Value>().to_string()
}

/// Those of them that there are, and all of them from now on, so that whoever comes at the same moment waits until this one is committed.
pub(super) async fn hold(write: &mut Write, counters: &Counters) -> Result<Held, sqlx::Error> {
    let hold = match write.dialect() {
        // WHERE TRUE tells the parser that ON begins no join (SQLite, "UPSERT", 3).
        Dialect::Sqlite => {
            "INSERT INTO sign_in_counts (id, failures, at, pending, ends_at) SELECT value, 0, 0, '', $2 FROM json_each($1) WHERE TRUE \
             ON CONFLICT (id) DO UPDATE SET failures = sign_in_counts.failures RETURNING id, failures, at, pending, ends_at"
        }
        Dialect::Postgres => {
            "INSERT INTO sign_in_counts (id, failures, at, pending, ends_at) \
             SELECT id, 0, 0, '', $2::bigint FROM json_array_elements_text($1::json) AS given (id) ORDER BY id COLLATE \"C\" \
             ON CONFLICT (id) DO UPDATE SET failures = sign_in_counts.failures RETURNING id, failures, at, pending, ends_at"
        }
    };
    let rows = sqlx::query_as(hold).bind(ids(counters)).bind(NEW).fetch_all(&mut **write).await?;
    Ok(held(rows))
}

/// Those of them that there are.
pub(super) async fn look(database: &Database, counters: &Counters) -> Result<Held, sqlx::Error> {
    let look = match database.dialect() {
        Dialect::Sqlite => {
            "SELECT id, failures, at, pending, ends_at FROM sign_in_counts WHERE id IN (SELECT value FROM json_each($1))"
        }
        Dialect::Postgres => {
            "SELECT id, failures, at, pending, ends_at FROM sign_in_counts WHERE id IN (SELECT json_array_elements_text($1::json))"
        }
    };
    Ok(held(sqlx::query_as(look).bind(ids(counters)).fetch_all(&database.pool()).await?))
}

/// Those that count for this account, for a look.
pub(super) async fn of_account(database: &Database, account: &str) -> Result<Held, sqlx::Error> {
    let look = "SELECT id, failures, at, pending, ends_at FROM sign_in_counts WHERE account = $1";
    Ok(held(sqlx::query_as(look).bind(account).fetch_all(&database.pool()).await?))
}

/// This one, if there is such.
pub(super) async fn find(database: &Database, id: &str) -> Result<Held, sqlx::Error> {
    let look = "SELECT id, failures, at, pending, ends_at FROM sign_in_counts WHERE id = $1";
    Ok(held(sqlx::query_as(look).bind(id).fetch_all(&database.pool()).await?))
}

/// `entries` as they are held.
pub(super) async fn write(write: &mut Write, counters: &Counters, entries: &Held) -> Result<(), sqlx::Error> {
    let row = |counter: &Counter| {
        let Entry { count, pending, .. } = entries.get(&counter.id)?;
        let ends: Vec<String> = pending.iter().map(|end| end.unix_millis().to_string()).collect();
        let ends_at = pending.iter().copied().fold(count.forgotten_at(&counter.budget), Timestamp::max);
        Some(json!({
            "id": counter.id,
            "account": counter.account(counters),
            "failures": count.failures,
            "at": count.at.unix_millis(),
            "pending": ends.join(","),
            "ends_at": ends_at.unix_millis(),
        }))
    };
    let rows: Value = counters.all.iter().filter_map(row).collect();
    let update = match write.dialect() {
        Dialect::Sqlite => {
            "UPDATE sign_in_counts SET account = value ->> 'account', failures = value ->> 'failures', at = value ->> 'at', \
             pending = value ->> 'pending', ends_at = value ->> 'ends_at' FROM json_each($1) WHERE sign_in_counts.id = value ->> 'id'"
        }
        Dialect::Postgres => {
            "UPDATE sign_in_counts SET account = new.account, failures = new.failures, at = new.at, \
             pending = new.pending, ends_at = new.ends_at FROM json_to_recordset($1::json) \
             AS new (id text, account text, failures bigint, at bigint, pending text, ends_at bigint) \
             WHERE sign_in_counts.id = new.id COLLATE \"C\""
        }
    };
    sqlx::query(update).bind(rows.to_string()).execute(&mut **write).await?;
    Ok(())
}

/// Those that count for this account.
pub(super) async fn delete_of(write: &mut Write, account: &str) -> Result<u64, sqlx::Error> {
    let delete = match write.dialect() {
        Dialect::Sqlite => "DELETE FROM sign_in_counts WHERE account = $1",
        Dialect::Postgres => {
            "DELETE FROM sign_in_counts WHERE id IN (\
             SELECT id FROM sign_in_counts WHERE account = $1 ORDER BY id FOR UPDATE)"
        }
    };
    Ok(sqlx::query(delete).bind(account).execute(&mut **write).await?.rows_affected())
}

/// A step; whether there may be more.
pub(super) async fn delete_ended(database: &Database, now: Timestamp) -> Result<bool, sqlx::Error> {
    let delete = match database.dialect() {
        Dialect::Sqlite => {
            "DELETE FROM sign_in_counts WHERE id IN (\
             SELECT id FROM sign_in_counts WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2)"
        }
        // Rows that another node is at are left to it.
        Dialect::Postgres => {
            "DELETE FROM sign_in_counts WHERE id IN (\
             SELECT id FROM sign_in_counts WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED)"
        }
    };
    let done = sqlx::query(delete).bind(now.unix_millis()).bind(STEP).execute(&database.pool()).await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX) >= STEP)
}

/// A step; whether there may be more.
pub(super) async fn delete_beyond(database: &Database, most: i64) -> Result<bool, sqlx::Error> {
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM sign_in_counts").fetch_one(&database.pool()).await?;
    let beyond = rows.saturating_sub(most).min(STEP);
    if beyond <= 0 {
        return Ok(false);
    }
    let delete = match database.dialect() {
        Dialect::Sqlite => {
            "DELETE FROM sign_in_counts WHERE id IN (SELECT id FROM sign_in_counts ORDER BY ends_at LIMIT $1)"
        }
        Dialect::Postgres => {
            "DELETE FROM sign_in_counts WHERE id IN (\
             SELECT id FROM sign_in_counts ORDER BY ends_at LIMIT $1 FOR UPDATE SKIP LOCKED)"
        }
    };
    let done = sqlx::query(delete).bind(beyond).execute(&database.pool()).await?;
    Ok(done.rows_affected() > 0 && beyond == STEP)
}

/// A server that starts takes what nobody has judged yet for what one left behind that was killed. Those of other nodes have their place for less time by
/// it, once.
pub(super) async fn forget_pending(database: &Database) -> Result<(), sqlx::Error> {
    let mut write = database.begin(Guard::Rows).await?;
    let forget = match database.dialect() {
        Dialect::Sqlite => "UPDATE sign_in_counts SET pending = '' WHERE pending <> ''",
        Dialect::Postgres => {
            "UPDATE sign_in_counts SET pending = '' WHERE id IN (\
             SELECT id FROM sign_in_counts WHERE pending <> '' ORDER BY id FOR UPDATE)"
        }
    };
    sqlx::query(forget).execute(&mut *write).await?;
    write.commit().await
}
