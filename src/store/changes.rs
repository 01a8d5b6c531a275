//! The log of changes (invariant 7): written at the end of every transaction that changes something, read by the follower.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::AnyConnection;

use super::database::{Database, Dialect};
use crate::{
    core::time::Timestamp,
    ports::{Change, ChangeKind, Changes, Unavailable},
};

/// Where PostgreSQL tells every follower that the log has grown.
pub(super) const CHANNEL: &str = "postern_changes";
/// Rows a step of the follower takes.
pub(super) const STEP: i64 = 500;
/// The oldest number kept and the newest ever given.
pub(super) const BOUNDS_OF_POSTGRES: &str = "SELECT (SELECT min(seq) FROM changes), seq FROM change_counter";
/// In both dialects.
pub(super) const AFTER: &str = "SELECT seq, kind, id FROM changes WHERE seq > $1 ORDER BY seq LIMIT $2";

pub(super) struct DatabaseChanges {
    database: Arc<Database>,
}

impl DatabaseChanges {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Changes for DatabaseChanges {
    async fn latest(&self) -> Result<i64, Unavailable> {
        self.database
            .run("changes", "latest", async {
                let mut connection = self.database.pool().acquire().await?;
                Ok(bounds(&mut connection, self.database.dialect()).await?.1)
            })
            .await
    }

    async fn after(&self, seq: i64) -> Result<Option<Vec<Change>>, Unavailable> {
        self.database
            .run("changes", "after", async {
                // SQLite sees one moment within a transaction; PostgreSQL's reading needs none, and one that is given up half-way leaves none open.
                match self.database.dialect() {
                    Dialect::Sqlite => {
                        let mut transaction = self.database.pool().begin().await?;
                        read_after(&mut transaction, Dialect::Sqlite, seq).await
                    }
                    Dialect::Postgres => {
                        let mut connection = self.database.pool().acquire().await?;
                        read_after(&mut connection, Dialect::Postgres, seq).await
                    }
                }
            })
            .await
    }
}

/// SQLite sees one moment in both look-ups, PostgreSQL two: what is cleaned away or added between them shows as a gap, or as rows more.
async fn read_after(
    connection: &mut AnyConnection,
    dialect: Dialect,
    seq: i64,
) -> Result<Option<Vec<Change>>, sqlx::Error> {
    let bounds = bounds(connection, dialect).await?;
    let rows = sqlx::query_as(AFTER).bind(seq).bind(STEP).fetch_all(connection).await?;
    Ok(changes_after(seq, bounds, rows))
}

/// What changed after `seq`; `None`: the log does not hold all of it.
pub(super) fn changes_after(
    seq: i64,
    (oldest, latest): (Option<i64>, i64),
    rows: Vec<(i64, String, String)>,
) -> Option<Vec<Change>> {
    // Numbers have no gaps (the counter is rolled back with its transaction), so a gap means rows were cleaned away;
    // a log that ends before `seq` is another log.
    let missed = oldest.map_or(latest > seq, |oldest| oldest > seq + 1);
    if latest < seq || missed {
        return None;
    }
    let mut changes: Vec<Change> = Vec::with_capacity(rows.len());
    for ((seq, kind, id), expected) in rows.into_iter().zip(seq + 1..) {
        // A kind of a newer version on this database: forget everything rather than guess.
        let kind = kind_of(&kind)?;
        if seq != expected {
            return None;
        }
        changes.push(Change { seq, kind, id });
    }
    (latest == seq || !changes.is_empty()).then_some(changes)
}

/// The oldest number kept and the newest ever given.
async fn bounds(connection: &mut AnyConnection, dialect: Dialect) -> Result<(Option<i64>, i64), sqlx::Error> {
    let bounds = match dialect {
        Dialect::Sqlite => {
            "SELECT (SELECT min(seq) FROM changes), \
             coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0)"
        }
        Dialect::Postgres => BOUNDS_OF_POSTGRES,
    };
    sqlx::query_as(bounds).fetch_one(connection).await
}

/// Writes rows of the log; the last thing that a transaction does. On PostgreSQL it takes the counter, which every other writer waits for until
/// the commit, so that numbers are committed in their order.
pub(super) async fn append(
    connection: &mut AnyConnection,
    dialect: Dialect,
    log: &[(ChangeKind, String)],
    at: Timestamp,
) -> Result<(), sqlx::Error> {
    if log.is_empty() {
        return Ok(());
    }
    let rows: serde_json::Value =
        log.iter().map(|(kind, id)| serde_json::json!({ "kind": name_of(*kind), "id": id })).collect();
    let append = match dialect {
        Dialect::Sqlite => {
            "INSERT INTO changes (kind, id, at) \
             SELECT value ->> 'kind', value ->> 'id', $2 FROM json_each($1) ORDER BY key"
        }
        Dialect::Postgres => {
            "WITH new AS (SELECT kind, id, place FROM ROWS FROM (json_to_recordset($1::json) AS (kind text, id text)) \
                 WITH ORDINALITY AS given (kind, id, place)), \
             counter AS (UPDATE change_counter SET seq = seq + $3 RETURNING seq), \
             appended AS (INSERT INTO changes (seq, kind, id, at) \
                 SELECT counter.seq - $3 + place, kind, id, $2 FROM new, counter) \
             SELECT pg_notify($4, '')"
        }
    };
    let query = sqlx::query(append).bind(rows.to_string()).bind(at.unix_millis());
    match dialect {
        Dialect::Sqlite => query.execute(connection).await?,
        Dialect::Postgres => {
            let count = i64::try_from(log.len()).unwrap_or(i64::MAX);
            query.bind(count).bind(CHANNEL).execute(connection).await?
        }
    };
    Ok(())
}

fn name_of(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Session => "session",
        ChangeKind::User => "user",
        ChangeKind::Key => "key",
        ChangeKind::ApiToken => "api_token",
        ChangeKind::Token => "token",
        ChangeKind::AllUsers => "users",
        ChangeKind::Unlock => "unlock",
    }
}

fn kind_of(name: &str) -> Option<ChangeKind> {
    match name {
        "session" => Some(ChangeKind::Session),
        "user" => Some(ChangeKind::User),
        "key" => Some(ChangeKind::Key),
        "api_token" => Some(ChangeKind::ApiToken),
        "token" => Some(ChangeKind::Token),
        "users" => Some(ChangeKind::AllUsers),
        "unlock" => Some(ChangeKind::Unlock),
        _ => None,
    }
}
