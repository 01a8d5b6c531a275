//! The log of changes (invariant 7): written by every adapter in the transaction of the change itself, read by the follower.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Row, SqliteConnection};

use super::database::Database;
use crate::ports::{Change, ChangeKind, Changes, Unavailable};

/// Rows a step of the follower takes.
const STEP: i64 = 500;

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
                Ok(bounds(&mut connection).await?.1)
            })
            .await
    }

    async fn after(&self, seq: i64) -> Result<Option<Vec<Change>>, Unavailable> {
        self.database
            .run("changes", "after", async {
                // One snapshot for both look-ups.
                let mut transaction = self.database.pool().begin().await?;
                read_after(&mut transaction, seq).await
            })
            .await
    }
}

async fn read_after(connection: &mut SqliteConnection, seq: i64) -> Result<Option<Vec<Change>>, sqlx::Error> {
    let (oldest, latest) = bounds(connection).await?;
    // Numbers have no gaps (SQLite rolls the counter back with its transaction), so a gap means rows were cleaned away;
    // a log that ends before `seq` is another log.
    let missed = oldest.map_or(latest > seq, |oldest| oldest > seq + 1);
    if latest < seq || missed {
        return Ok(None);
    }
    let rows = sqlx::query("SELECT seq, kind, id FROM changes WHERE seq > ? ORDER BY seq LIMIT ?")
        .bind(seq)
        .bind(STEP)
        .fetch_all(connection)
        .await?;
    let mut changes = Vec::with_capacity(rows.len());
    for row in rows {
        // A kind of a newer version on this file: forget everything rather than guess.
        let Some(kind) = kind_of(row.try_get(1)?) else { return Ok(None) };
        changes.push(Change { seq: row.try_get(0)?, kind, id: row.try_get(2)? });
    }
    Ok(Some(changes))
}

/// The oldest number kept and the newest ever given.
async fn bounds(connection: &mut SqliteConnection) -> Result<(Option<i64>, i64), sqlx::Error> {
    sqlx::query_as(
        "SELECT (SELECT min(seq) FROM changes), \
         coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'changes'), 0)",
    )
    .fetch_one(connection)
    .await
}

/// Writes a row of the log; to be called inside the transaction of the change.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    kind: ChangeKind,
    id: &str,
    at: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO changes (kind, id, at) VALUES (?, ?, ?)")
        .bind(name_of(kind))
        .bind(id)
        .bind(at)
        .execute(connection)
        .await?;
    Ok(())
}

fn name_of(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Session => "session",
        ChangeKind::User => "user",
        ChangeKind::Key => "key",
    }
}

fn kind_of(name: &str) -> Option<ChangeKind> {
    match name {
        "session" => Some(ChangeKind::Session),
        "user" => Some(ChangeKind::User),
        "key" => Some(ChangeKind::Key),
        _ => None,
    }
}
