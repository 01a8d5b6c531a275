//! Families of refresh tokens whose session is over. A session may be kept elsewhere than its tokens are, so no end of one takes the other along:
//! the port is asked which are over. Called by the cleaning alone.
//!
//! Must never take a family of a session that lives: its next use would be refused. A session is there before its first token, and an id is never given twice,
//! so that one which is absent stays so. What fails is left to the next round, and stands in no other's way.

use std::sync::{Mutex, PoisonError};

use super::STORE;
use crate::{
    core::session::SessionId,
    ports::{Sessions, Unavailable},
    store::database::{Database, Dialect},
};

/// Families looked at in one question.
const FAMILIES: i64 = 500;
/// Questions a cleaning asks: the next one goes on from there. A million families are looked at within two hours.
const QUESTIONS: usize = 20;
/// Rows that a step deletes: other writers get their turn in between.
const ROWS: i64 = 500;

/// The next `$2` families after `$1`, each by one look into the index, however many tokens it has.
const NEXT: &str = "WITH RECURSIVE families (session, number) AS (\
     SELECT min(session), CAST(1 AS BIGINT) FROM refresh_tokens WHERE session > $1 \
     UNION ALL \
     SELECT (SELECT min(tokens.session) FROM refresh_tokens AS tokens WHERE tokens.session > families.session), number + 1 \
     FROM families WHERE families.session IS NOT NULL AND number < $2) \
     SELECT session FROM families WHERE session IS NOT NULL";

#[derive(Default)]
pub(super) struct Orphans {
    /// Where the next cleaning goes on.
    after: Mutex<String>,
}

impl Orphans {
    pub(super) async fn clean(&self, database: &Database, sessions: &dyn Sessions) -> Result<(), Unavailable> {
        for _ in 0..QUESTIONS {
            let after = self.after.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let found: Vec<String> = database
                .run(STORE, "families", async {
                    sqlx::query_scalar(NEXT).bind(after).bind(FAMILIES).fetch_all(&database.pool()).await
                })
                .await?;
            let last = found.last().cloned();
            // From the beginning after the last one. Before anything of these can fail, so that they keep nobody waiting who comes after them.
            *self.after.lock().unwrap_or_else(PoisonError::into_inner) = last.clone().unwrap_or_default();
            let families: Vec<SessionId> = found.into_iter().map(SessionId::new).collect();
            let over = sessions.absent(&families).await?;
            while !over.is_empty() && delete(database, &over).await? >= ROWS.unsigned_abs() {
                tokio::task::yield_now().await;
            }
            if last.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Tokens of these families; rows that another node is at are left to it.
async fn delete(database: &Database, families: &[SessionId]) -> Result<u64, Unavailable> {
    let delete = match database.dialect() {
        Dialect::Sqlite => {
            "DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens \
             WHERE session IN (SELECT value FROM json_each($1)) LIMIT $2)"
        }
        Dialect::Postgres => {
            "DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens \
             WHERE session IN (SELECT json_array_elements_text($1::json)) LIMIT $2 FOR UPDATE SKIP LOCKED)"
        }
    };
    let families: serde_json::Value = families.iter().map(|family| family.as_str()).collect();
    let work = async {
        let done = sqlx::query(delete).bind(families.to_string()).bind(ROWS).execute(&database.pool()).await?;
        Ok(done.rows_affected())
    };
    database.run(STORE, "clean_families", work).await
}
