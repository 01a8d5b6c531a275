//! That sessions ended, in the database: what has the last word on those whose records are in Redis. Written by the statements that end sessions
//! (`rows` beside this file), in their transaction; asked by [`super::RedisRecords`] for every record that it reads.
//!
//! Redis may lose what was deleted last, be set back to yesterday, or throw anything away. So nothing here depends on it: a record counts only where it was
//! made at the present number of its user and of everybody, and neither it nor what it was handed over from ended by itself. A new number is the time in
//! milliseconds, or one more than the last where that is more: so a database that was restored from a backup never comes to a number again that it had given in the time it
//! does not know, and what was made at that one stays over.
//!
//! Numbers are raised wherever the records are: who moves sessions to Redis and back finds none alive that ended meanwhile.

use std::{collections::HashMap, collections::HashSet, time::Duration};

use super::record::Record;
use crate::{
    core::{session::SessionId, time::Timestamp, user::folded},
    store::database::{Database, Dialect, Write, can_be_stored},
};

/// The name of everybody: no user's is empty.
const EVERYBODY: &str = "";
/// Milliseconds; the shortest time that ends are kept beyond the longest life is as long.
const CLOCKS_APART: i64 = 600_000;
/// By so much the clock that made an unknown session may be ahead at most.
const AHEAD: Duration = Duration::from_secs(24 * 3600);
/// Rows that a step of the cleaning deletes.
const STEP: i64 = 500;

/// At which numbers a session is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) user: i64,
    pub(super) everybody: i64,
}

struct Epoch {
    number: i64,
    kept: String,
    kept_from: i64,
}

/// What the database says of the sessions that it was asked about.
#[derive(Default)]
pub(super) struct Ends {
    ended: HashSet<String>,
    epochs: HashMap<String, Epoch>,
    /// What was made before is over.
    forgotten_before: i64,
    /// By which name the sessions of the database that says this go in Redis.
    space: String,
}

impl Ends {
    /// Whether what was found below this name is what the database speaks of.
    pub(super) fn is_about(&self, space: &str) -> bool {
        self.space == space
    }

    pub(super) fn numbers_of(&self, folded_user: &str) -> Numbers {
        Numbers { user: self.number_of(folded_user), everybody: self.number_of(EVERYBODY) }
    }

    fn number_of(&self, folded_name: &str) -> i64 {
        self.epochs.get(folded_name).map_or(0, |epoch| epoch.number)
    }

    pub(super) fn has_ended(&self, record: &Record) -> bool {
        let session = &record.session;
        let by_itself = |id: &SessionId| self.ended.contains(id.as_str());
        if by_itself(&session.id) || session.parent.as_ref().is_some_and(by_itself) {
            return true;
        }
        let is_forgotten = session.created_at.unix_millis() < self.forgotten_before;
        if is_forgotten || record.made_at.everybody != self.number_of(EVERYBODY) {
            return true;
        }
        let made_at = record.made_at.user;
        match self.epochs.get(&folded(&session.user)) {
            None => made_at != 0,
            Some(epoch) if made_at == epoch.number => false,
            Some(epoch) => {
                let is_spared = epoch.kept == session.sign_in().as_str();
                !(is_spared && (epoch.kept_from..epoch.number).contains(&made_at))
            }
        }
    }
}

/// What the database says of these sessions, and at which numbers these users (by folded name) are.
pub(super) async fn ends_of<'r>(
    database: &Database,
    records: impl IntoIterator<Item = &'r Record>,
    folded_users: &[&str],
) -> Result<Ends, sqlx::Error> {
    let mut ids = HashSet::new();
    let mut names: HashSet<String> = folded_users.iter().map(ToString::to_string).collect();
    names.insert(EVERYBODY.to_owned());
    for Record { session, .. } in records {
        ids.insert(session.id.as_str());
        ids.extend(session.parent.as_ref().map(|parent| parent.as_str()));
        names.insert(folded(&session.user));
    }
    let select = match database.dialect() {
        Dialect::Sqlite => {
            "SELECT id, NULL, '', 0 FROM ended_sessions WHERE id IN (SELECT value FROM json_each($1)) \
             UNION ALL SELECT folded, number, kept, kept_from FROM session_epochs \
             WHERE folded IN (SELECT value FROM json_each($2)) \
             UNION ALL SELECT name, NULL, NULL, forgotten_before FROM session_space"
        }
        Dialect::Postgres => {
            "SELECT id, NULL::bigint, '', 0::bigint FROM ended_sessions WHERE id IN (SELECT json_array_elements_text($1::json)) \
             UNION ALL SELECT folded, number, kept, kept_from FROM session_epochs \
             WHERE folded IN (SELECT json_array_elements_text($2::json)) \
             UNION ALL SELECT name, NULL, NULL, forgotten_before FROM session_space"
        }
    };
    let rows: Vec<(String, Option<i64>, Option<String>, i64)> = sqlx::query_as(select)
        .bind(list(ids))
        .bind(list(names.iter().map(String::as_str)))
        .fetch_all(&database.pool())
        .await?;
    let mut ends = Ends::default();
    for (name, number, kept, kept_from) in rows {
        match (number, kept) {
            (Some(number), Some(kept)) => drop(ends.epochs.insert(name, Epoch { number, kept, kept_from })),
            (_, Some(_)) => drop(ends.ended.insert(name)),
            (_, None) => (ends.space, ends.forgotten_before) = (name, kept_from),
        }
    }
    Ok(ends)
}

fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let names: serde_json::Value = names.into_iter().filter(|name| can_be_stored(name)).collect();
    names.to_string()
}

/// These sessions, which were made at `made_at`, are over, and what was or will be handed over from them. The end is never told to be older than the
/// session, whatever the clocks say: once it is forgotten, so is everything that was made before it.
pub(super) async fn end_each(write: &mut Write, ids: &[SessionId], made_at: Timestamp) -> Result<(), sqlx::Error> {
    let insert = match write.dialect() {
        Dialect::Sqlite => {
            "INSERT INTO ended_sessions (id, at) SELECT value, $2 FROM json_each($1) WHERE true \
             ON CONFLICT (id) DO UPDATE SET at = excluded.at WHERE ended_sessions.at < excluded.at"
        }
        Dialect::Postgres => {
            "INSERT INTO ended_sessions (id, at) SELECT DISTINCT id, $2::bigint FROM json_array_elements_text($1::json) AS id \
             ORDER BY id ON CONFLICT (id) DO UPDATE SET at = excluded.at WHERE ended_sessions.at < excluded.at"
        }
    };
    let at = write.at().max(made_at).unix_millis();
    sqlx::query(insert).bind(list(ids.iter().map(SessionId::as_str))).bind(at).execute(&mut **write).await?;
    Ok(())
}

/// One is over of which nothing is known, nor when it was made: as if that were tomorrow, for a clock that is ahead. Whether that is news.
pub(super) async fn end_unknown(write: &mut Write, id: &SessionId) -> Result<bool, sqlx::Error> {
    let insert = "INSERT INTO ended_sessions (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING";
    let at = write.at().after(AHEAD).unix_millis();
    let done = sqlx::query(insert).bind(id.as_str()).bind(at).execute(&mut **write).await?;
    Ok(done.rows_affected() > 0)
}

/// All sessions of a user are over, or of everybody (`None`), but for the sign-in that is `kept`: as long as it was not over before. `write` guards them.
pub(super) async fn raise(
    write: &mut Write,
    folded_user: Option<&str>,
    kept: Option<&SessionId>,
) -> Result<(), sqlx::Error> {
    let next = next_number(write.dialect());
    let raise = format!(
        "INSERT INTO session_epochs (folded, number, kept, kept_from) VALUES ($1, $3, $2, 0) ON CONFLICT (folded) DO UPDATE SET \
         number = {next}, kept = excluded.kept, \
         kept_from = CASE WHEN session_epochs.kept = excluded.kept AND excluded.kept <> '' \
         THEN session_epochs.kept_from ELSE session_epochs.number END"
    );
    sqlx::query(sqlx::AssertSqlSafe(raise))
        .bind(folded_user.unwrap_or(EVERYBODY))
        .bind(kept.map_or("", SessionId::as_str))
        .bind(write.at().unix_millis())
        .execute(&mut **write)
        .await?;
    Ok(())
}

/// Of a row that is there, where one that is not would get the present time.
fn next_number(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => "max(session_epochs.number + 1, excluded.number)",
        Dialect::Postgres => "greatest(session_epochs.number + 1, excluded.number)",
    }
}

/// All sessions of these users are over. `write` guards all users.
pub(super) async fn raise_each(write: &mut Write, folded_users: &[String]) -> Result<(), sqlx::Error> {
    let users = match write.dialect() {
        Dialect::Sqlite => "SELECT value, $2, '', 0 FROM json_each($1) WHERE true",
        Dialect::Postgres => {
            "SELECT DISTINCT folded, $2::bigint, '', 0 FROM json_array_elements_text($1::json) AS folded ORDER BY folded"
        }
    };
    let next = next_number(write.dialect());
    let insert = format!(
        "INSERT INTO session_epochs (folded, number, kept, kept_from) {users} ON CONFLICT (folded) DO UPDATE SET \
         number = {next}, kept = '', kept_from = 0"
    );
    let names = list(folded_users.iter().map(String::as_str));
    let at = write.at().unix_millis();
    sqlx::query(sqlx::AssertSqlSafe(insert)).bind(names).bind(at).execute(&mut **write).await?;
    Ok(())
}

/// Forgets the ends of sessions that their age alone ends, now; and says that it does, first of all: a longer lifetime may be configured later, or on another node. Rows that
/// another node is at are left to it. How many rows there were.
pub(super) async fn clean(database: &Database, longest: Duration) -> Result<u64, sqlx::Error> {
    let longest = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX);
    let before = database.clock.now().unix_millis().saturating_sub(longest);
    let newest: Option<i64> = sqlx::query_scalar("SELECT max(at) FROM ended_sessions WHERE at < $1")
        .bind(before)
        .fetch_one(&database.pool())
        .await?;
    let Some(newest) = newest else { return Ok(0) };
    // By the ends themselves: a clock that is ahead for a moment must not end what is made later. What is made by a clock that was ahead of the one that ended it counts too.
    let forgotten = newest.saturating_add(CLOCKS_APART);
    let remember = "UPDATE session_space SET forgotten_before = $1 WHERE forgotten_before < $1";
    sqlx::query(remember).bind(forgotten).execute(&database.pool()).await?;
    let delete = match database.dialect() {
        Dialect::Sqlite => {
            "DELETE FROM ended_sessions WHERE id IN (SELECT id FROM ended_sessions WHERE at < $1 LIMIT $2)"
        }
        Dialect::Postgres => {
            "DELETE FROM ended_sessions WHERE id IN (\
             SELECT id FROM ended_sessions WHERE at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"
        }
    };
    let done = sqlx::query(delete).bind(before).bind(STEP).execute(&database.pool()).await?;
    Ok(done.rows_affected())
}

/// By which name the sessions of this database go in Redis; `fresh` where they have none yet.
pub(in crate::store) async fn space(database: &Database, fresh: &str) -> Result<String, sqlx::Error> {
    let mut connection = database.pool().acquire().await?;
    sqlx::query(
        "INSERT INTO session_space (one, name, forgotten_before) VALUES (1, $1, 0) ON CONFLICT (one) DO NOTHING",
    )
    .bind(fresh)
    .execute(&mut *connection)
    .await?;
    sqlx::query_scalar("SELECT name FROM session_space").fetch_one(&mut *connection).await
}
