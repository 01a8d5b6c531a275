//! Rows of the table `sessions`, and the statements that change them. Used by `database` beside it, and by the users' adapters, which end
//! sessions in the transaction that takes something away from a user.
//!
//! Where a statement of PostgreSQL touches several rows it takes them in the order of their ids, so that no two wait for each other; what is
//! only tidied up passes over rows that somebody else holds, so that several nodes can do it at once.

use std::sync::Arc;

use sqlx::{AnyConnection, AnyPool, FromRow};

use super::ends;
use crate::{
    core::{
        identity::Factor,
        session::{Session, SessionId, TokenHash},
        time::Timestamp,
        user::folded,
    },
    ports::{ChangeKind, LiveSession},
    store::database::{Dialect, Write, can_be_stored},
};

/// Ends sessions by their ids. The row of the log is written even where nothing was deleted: a node may still remember what cleaning took away.
pub(super) async fn delete_each(write: &mut Write, ids: &[SessionId]) -> Result<u64, sqlx::Error> {
    let mut ids: Vec<&str> = ids.iter().map(|id| id.as_str()).filter(|id| can_be_stored(id)).collect();
    ids.sort_unstable();
    let mut deleted = 0;
    for id in ids {
        let done = sqlx::query("DELETE FROM sessions WHERE id = $1").bind(id).execute(&mut **write).await?;
        write.record(ChangeKind::Session, id);
        deleted += done.rows_affected();
    }
    Ok(deleted)
}

/// How often all is let go again for what was handed over meanwhile. Whoever hands over again and again keeps nobody from ending it.
const ROUNDS: u32 = 3;

/// Takes hold of sessions, of all that was handed over from them, and of `parent`, in the order of their ids: from here on nobody changes or ends
/// them, or hands over from them, but `write`. Those that are there.
///
/// What is handed over while we wait is not seen by the statement that waits, and may come before what it took: then all is let go, and taken anew
/// in order.
pub(super) async fn hold_with_children(
    write: &mut Write,
    ids: &[SessionId],
    parent: Option<&SessionId>,
) -> Result<Vec<SessionId>, sqlx::Error> {
    if ids.is_empty() && parent.is_none() {
        return Ok(Vec::new());
    }
    let select = match write.dialect() {
        Dialect::Sqlite => {
            "SELECT id FROM sessions WHERE id IN (SELECT value FROM json_each($1) \
             UNION SELECT id FROM sessions WHERE parent IN (SELECT value FROM json_each($2)))"
        }
        Dialect::Postgres => {
            "SELECT id FROM sessions WHERE id IN (SELECT json_array_elements_text($1::json) \
             UNION SELECT children.id FROM sessions AS children \
             WHERE children.parent IN (SELECT json_array_elements_text($2::json))) ORDER BY id FOR UPDATE"
        }
    };
    let (all, parents) = (list(ids.iter().chain(parent)), list(ids));
    let mut round = 1;
    loop {
        // SQLite has one writer at a time: nothing is handed over meanwhile.
        let may_be_late = write.dialect() == Dialect::Postgres && !ids.is_empty() && round < ROUNDS;
        if may_be_late {
            sqlx::query("SAVEPOINT before_hold").execute(&mut **write).await?;
        }
        let held: Vec<String> = sqlx::query_scalar(select).bind(&all).bind(&parents).fetch_all(&mut **write).await?;
        if !may_be_late || !is_any_late(write, &parents, &held).await? {
            return Ok(held.into_iter().map(SessionId::new).collect());
        }
        sqlx::query("ROLLBACK TO SAVEPOINT before_hold").execute(&mut **write).await?;
        round += 1;
    }
}

/// Whether something was handed over from `parents` that is not held.
async fn is_any_late(write: &mut Write, parents: &str, held: &[String]) -> Result<bool, sqlx::Error> {
    let select = "SELECT id FROM sessions WHERE parent IN (SELECT json_array_elements_text($1::json))";
    let children: Vec<String> = sqlx::query_scalar(select).bind(parents).fetch_all(&mut **write).await?;
    Ok(children.iter().any(|child| !held.contains(child)))
}

/// Ends sessions with all that was handed over from them; adds those to `ids`. `held`: of [`hold_with_children`].
pub(super) async fn delete_with_children(
    write: &mut Write,
    ids: &mut Vec<SessionId>,
    held: Vec<SessionId>,
) -> Result<u64, sqlx::Error> {
    if ids.is_empty() {
        return Ok(0);
    }
    let parents = list(&*ids);
    ids.extend(held);
    ids.sort_unstable_by(|one, other| one.as_str().cmp(other.as_str()));
    ids.dedup();
    let mut deleted = delete_each(write, ids).await?;
    // What was handed over in the last round of taking hold is there now, and more does not come.
    let select = match write.dialect() {
        Dialect::Sqlite => "SELECT id FROM sessions WHERE parent IN (SELECT value FROM json_each($1))",
        Dialect::Postgres => {
            "SELECT id FROM sessions WHERE parent IN (SELECT json_array_elements_text($1::json)) ORDER BY id FOR UPDATE"
        }
    };
    let late: Vec<String> = sqlx::query_scalar(select).bind(parents).fetch_all(&mut **write).await?;
    let late: Vec<SessionId> = late.into_iter().map(SessionId::new).collect();
    deleted += delete_each(write, &late).await?;
    ids.extend(late);
    Ok(deleted)
}

/// Those of these that are there.
pub(super) async fn those_there(
    pool: &AnyPool,
    dialect: Dialect,
    ids: &[SessionId],
) -> Result<Vec<String>, sqlx::Error> {
    let select = match dialect {
        Dialect::Sqlite => "SELECT id FROM sessions WHERE id IN (SELECT value FROM json_each($1))",
        Dialect::Postgres => "SELECT id FROM sessions WHERE id IN (SELECT json_array_elements_text($1::json))",
    };
    sqlx::query_scalar(select).bind(list(ids)).fetch_all(pool).await
}

/// As JSON, to be bound.
pub(super) fn list<'i>(ids: impl IntoIterator<Item = &'i SessionId>) -> String {
    let ids: serde_json::Value = ids.into_iter().map(|id| id.as_str()).filter(|id| can_be_stored(id)).collect();
    ids.to_string()
}

/// What ends together with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Belongs {
    /// Its row says.
    ByRow,
    /// Its record is in Redis: whose it is (by folded name), what it was handed over from, and when it was made, as that was.
    To { user: String, parent: Option<SessionId>, made_at: Timestamp },
    /// Its record was in Redis, and is there no more.
    Lost,
}

/// Ends one session within what somebody else does: with what it was handed over from, and all that was handed over from that.
pub(in crate::store) async fn delete_session(
    write: &mut Write,
    id: &SessionId,
    belongs: &Belongs,
) -> Result<u64, sqlx::Error> {
    if !can_be_stored(id.as_str()) {
        return Ok(0);
    }
    let mut ids = vec![id.clone()];
    match belongs {
        Belongs::ByRow => {}
        Belongs::To { user, parent, made_at } => {
            ids.extend(parent.clone());
            ends::end_each(write, &ids, *made_at).await?;
            write.record(ChangeKind::Session, id.as_str());
            // Nobody can tell what is being handed over from it just now: all of theirs are read anew, wherever they are remembered.
            write.record(ChangeKind::User, user);
            return Ok(0);
        }
        Belongs::Lost => {
            let is_new = ends::end_unknown(write, id).await?;
            write.record(ChangeKind::Session, id.as_str());
            // What was handed over from it may be remembered still, and nobody knows whose it is. Once is enough: nothing is remembered of it afterwards.
            if is_new {
                write.record(ChangeKind::AllUsers, "");
            }
            return Ok(0);
        }
    }
    // No session is ever given another parent.
    let parent: Option<Option<String>> = sqlx::query_scalar("SELECT parent FROM sessions WHERE id = $1")
        .bind(id.as_str())
        .fetch_optional(&mut **write)
        .await?;
    ids.extend(parent.flatten().map(SessionId::new));
    let held = hold_with_children(write, &ids, None).await?;
    delete_with_children(write, &mut ids, held).await
}

/// All of theirs. One row of the log for them all. `write` guards the user.
pub(in crate::store) async fn delete_of_user(write: &mut Write, folded_user: &str) -> Result<u64, sqlx::Error> {
    delete_all_but(write, folded_user, None).await
}

/// The session that the sign-in of this one began with.
pub(super) async fn sign_in_of(write: &mut Write, id: &SessionId) -> Result<Option<SessionId>, sqlx::Error> {
    let select = "SELECT coalesce(parent, id) FROM sessions WHERE id = $1";
    let found: Option<String> = sqlx::query_scalar(select).bind(id.as_str()).fetch_optional(&mut **write).await?;
    Ok(found.map(SessionId::new))
}

/// All but those of the sign-in that is `kept`. One row of the log for them all: every node reads again what is left of the user. `write` guards the user.
pub(super) async fn delete_all_but(
    write: &mut Write,
    folded_user: &str,
    kept: Option<&SessionId>,
) -> Result<u64, sqlx::Error> {
    ends::raise(write, Some(folded_user), kept).await?;
    let delete = match write.dialect() {
        Dialect::Sqlite => "DELETE FROM sessions WHERE folded = $1 AND coalesce(parent, id) <> $2",
        Dialect::Postgres => {
            "DELETE FROM sessions WHERE id IN (\
             SELECT id FROM sessions WHERE folded = $1 AND coalesce(parent, id) <> $2 ORDER BY id FOR UPDATE)"
        }
    };
    // No session has the empty id.
    let kept = kept.map_or("", SessionId::as_str);
    let done = sqlx::query(delete).bind(folded_user).bind(kept).execute(&mut **write).await?;
    write.record(ChangeKind::User, folded_user);
    Ok(done.rows_affected())
}

/// All sessions of many users, with a row of the log for each. `write` guards all users.
pub(in crate::store) async fn delete_of_users(write: &mut Write, folded_users: &[String]) -> Result<(), sqlx::Error> {
    let delete = match write.dialect() {
        Dialect::Sqlite => "DELETE FROM sessions WHERE folded IN (SELECT value FROM json_each($1))",
        Dialect::Postgres => {
            "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE folded IN (\
             SELECT json_array_elements_text($1::json)) ORDER BY id FOR UPDATE)"
        }
    };
    ends::raise_each(write, folded_users).await?;
    sqlx::query(delete).bind(serde_json::json!(folded_users).to_string()).execute(&mut **write).await?;
    for name in folded_users {
        write.record(ChangeKind::User, name);
    }
    Ok(())
}

/// At most so many sessions of a user, or of all, with one row of the log. `write` guards them.
pub(in crate::store) async fn delete_step(
    write: &mut Write,
    folded_user: Option<&str>,
    most: u64,
) -> Result<u64, sqlx::Error> {
    let delete = match (write.dialect(), folded_user) {
        (Dialect::Sqlite, None) => {
            "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE $1 IS NULL LIMIT $2)"
        }
        (Dialect::Sqlite, Some(_)) => {
            "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE folded = $1 LIMIT $2)"
        }
        (Dialect::Postgres, None) => {
            "DELETE FROM sessions WHERE id IN (\
             SELECT id FROM sessions WHERE $1::text IS NULL ORDER BY id LIMIT $2 FOR UPDATE)"
        }
        (Dialect::Postgres, Some(_)) => {
            "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE folded = $1 ORDER BY id LIMIT $2 FOR UPDATE)"
        }
    };
    ends::raise(write, folded_user, None).await?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let done = sqlx::query(delete).bind(folded_user).bind(most).execute(&mut **write).await?;
    match folded_user {
        Some(user) => write.record(ChangeKind::User, user),
        None => write.record(ChangeKind::AllUsers, ""),
    }
    Ok(done.rows_affected())
}

/// A use never goes back in time: another node may have written a later one.
pub(super) async fn write_uses(write: &mut Write, uses: &[Arc<LiveSession>]) -> Result<(), sqlx::Error> {
    let update = match write.dialect() {
        Dialect::Sqlite => {
            "UPDATE sessions SET last_used_at = used.at FROM (\
             SELECT value ->> 'id' AS id, value ->> 'at' AS at FROM json_each($1)) AS used \
             WHERE sessions.id = used.id AND sessions.last_used_at < used.at"
        }
        Dialect::Postgres => {
            "UPDATE sessions SET last_used_at = used.at FROM (\
             SELECT sessions.id, given.at FROM json_to_recordset($1::json) AS given (id text, at bigint) \
             JOIN sessions ON sessions.id = given.id WHERE sessions.last_used_at < given.at \
             ORDER BY sessions.id FOR UPDATE OF sessions) AS used WHERE sessions.id = used.id"
        }
    };
    let uses: serde_json::Value = uses
        .iter()
        .map(|live| serde_json::json!({ "id": live.id().as_str(), "at": live.last_used().unix_millis() }))
        .collect();
    sqlx::query(update).bind(uses.to_string()).execute(&mut **write).await?;
    Ok(())
}

/// Deletes what is older than `$1`, remembered and older than `$2`, or not remembered and unused since `$3`; at most `$4`.
pub(super) fn clean(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => {
            "DELETE FROM sessions WHERE id IN (\
             SELECT id FROM sessions WHERE remembered = 0 AND created_at < $1 \
             UNION SELECT id FROM sessions WHERE remembered = 1 AND created_at < $2 \
             UNION SELECT id FROM sessions WHERE remembered = 0 AND last_used_at < $3 LIMIT $4)"
        }
        Dialect::Postgres => {
            "DELETE FROM sessions WHERE id IN (\
             SELECT id FROM sessions WHERE (remembered = 0 AND created_at < $1) \
             OR (remembered = 1 AND created_at < $2) OR (remembered = 0 AND last_used_at < $3) \
             LIMIT $4 FOR UPDATE SKIP LOCKED)"
        }
    }
}

pub(super) async fn insert(connection: &mut AnyConnection, session: &Session) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO sessions (id, folded, name, factor, domain, gate_hash, portal_hash, remembered, created_at, \
         signed_in_at, last_used_at, user_agent, address, parent) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(session.id.as_str())
    .bind(folded(&session.user))
    .bind(&session.user)
    .bind(session.factor.as_str())
    .bind(&session.domain)
    .bind(session.gate_hash.0.as_slice())
    .bind(session.portal_hash.0.as_slice())
    .bind(i64::from(session.remembered))
    .bind(session.created_at.unix_millis())
    .bind(session.signed_in_at.unix_millis())
    .bind(session.last_used_at.unix_millis())
    .bind(&session.user_agent)
    .bind(session.address.map(|address| address.to_string()))
    .bind(session.parent.as_ref().map(|parent| parent.as_str()))
    .execute(connection)
    .await?;
    Ok(())
}

/// The columns of a [`Row`], by name: a newer version of this program may add others while this one runs, and PostgreSQL refuses a prepared
/// `SELECT *` from then on.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, factor, domain, gate_hash, portal_hash, remembered, created_at, signed_in_at, last_used_at, \
             user_agent, address, parent FROM sessions ",
            $rest
        )
    };
}
pub(super) use select;

/// Of many, whose ids are [`list`].
pub(super) fn select_each(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => select!("WHERE id IN (SELECT value FROM json_each($1))"),
        Dialect::Postgres => select!("WHERE id IN (SELECT json_array_elements_text($1::json))"),
    }
}

#[derive(FromRow)]
pub(super) struct Row {
    id: String,
    name: String,
    factor: String,
    domain: String,
    gate_hash: Vec<u8>,
    portal_hash: Vec<u8>,
    remembered: i64,
    created_at: i64,
    signed_in_at: i64,
    last_used_at: i64,
    user_agent: String,
    address: Option<String>,
    parent: Option<String>,
}

impl Row {
    pub(super) fn id(&self) -> SessionId {
        SessionId::new(self.id.clone())
    }
}

impl TryFrom<Row> for Session {
    type Error = String;

    fn try_from(row: Row) -> Result<Self, String> {
        let hash =
            |bytes: Vec<u8>| bytes.try_into().map(TokenHash).map_err(|_| "a session's hash is damaged".to_owned());
        Ok(Self {
            id: SessionId::new(row.id),
            user: row.name,
            factor: match row.factor.as_str() {
                "one" => Factor::One,
                "two" => Factor::Two,
                other => return Err(format!("a session with the unknown factor {other:?}")),
            },
            domain: row.domain,
            gate_hash: hash(row.gate_hash)?,
            portal_hash: hash(row.portal_hash)?,
            remembered: row.remembered != 0,
            created_at: Timestamp::from_unix_millis(row.created_at),
            signed_in_at: Timestamp::from_unix_millis(row.signed_in_at),
            last_used_at: Timestamp::from_unix_millis(row.last_used_at),
            user_agent: row.user_agent,
            address: row.address.and_then(|address| address.parse().ok()),
            parent: row.parent.map(SessionId::new),
        })
    }
}
