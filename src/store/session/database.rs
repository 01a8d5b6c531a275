//! Records of sessions in the database. Asked by [`super::CachedSessions`] alone.

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;

use super::{
    records::{Forget, Found, IDLE_MARGIN, Key, STEP, STORE, SessionRecords},
    rows::{self, Row},
};
use crate::{
    core::{
        session::{Lifetimes, Session, SessionId},
        user::folded,
    },
    ports::{End, LiveSession, Unavailable},
    store::database::{Database, Guard, can_be_stored},
};

pub(in crate::store) struct DatabaseRecords {
    database: Arc<Database>,
}

impl DatabaseRecords {
    pub(in crate::store) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// With what it was handed over from, and all that was handed over from that. Adds them to `ids`, which holds the one.
    async fn end_one(&self, ids: &mut Vec<SessionId>) -> Result<u64, sqlx::Error> {
        let id = ids.first().filter(|id| can_be_stored(id.as_str())).map(ToString::to_string);
        // No session is ever given another parent.
        let parent: Option<Option<String>> = sqlx::query_scalar("SELECT parent FROM sessions WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.database.pool())
            .await?;
        ids.extend(parent.flatten().map(SessionId::new));
        let mut write = self.database.begin(Guard::Rows).await?;
        let held = rows::hold_with_children(&mut write, ids, None).await?;
        let ended = rows::delete_with_children(&mut write, ids, held).await?;
        write.commit().await?;
        Ok(ended)
    }
}

fn session_of(row: Row) -> Result<Session, Unavailable> {
    Session::try_from(row).map_err(|detail| Unavailable { store: STORE, detail })
}

#[async_trait]
impl SessionRecords for DatabaseRecords {
    async fn find(&self, operation: &'static str, key: Key<'_>) -> Result<Option<Session>, Unavailable> {
        let row = self
            .database
            .run(STORE, operation, async {
                let query = match key {
                    Key::GateHash(hash) => {
                        sqlx::query_as(rows::select!("WHERE gate_hash = $1")).bind(hash.0.as_slice())
                    }
                    Key::Id(id) => sqlx::query_as(rows::select!("WHERE id = $1")).bind(id.as_str()),
                };
                query.fetch_optional(&self.database.pool()).await
            })
            .await?;
        row.map(session_of).transpose()
    }

    async fn find_each(&self, ids: &[SessionId]) -> Result<Found, Unavailable> {
        let rows: Vec<Row> = self
            .database
            .run(STORE, "find_ids", async {
                let select = rows::select_each(self.database.dialect());
                sqlx::query_as(select).bind(rows::list(ids)).fetch_all(&self.database.pool()).await
            })
            .await?;
        let mut found = Found::default();
        for row in rows {
            let id = row.id();
            match Session::try_from(row) {
                Ok(session) => found.sessions.push(session),
                Err(detail) => found.damaged.push((id, detail)),
            }
        }
        Ok(found)
    }

    async fn absent(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Unavailable> {
        let there: HashSet<String> = self
            .database
            .run(STORE, "absent", async {
                let there: Vec<String> = rows::those_there(&self.database.pool(), self.database.dialect(), ids).await?;
                Ok(there.into_iter().collect())
            })
            .await?;
        Ok(ids.iter().filter(|id| !there.contains(id.as_str())).cloned().collect())
    }

    async fn insert(&self, session: &Session, named: &[SessionId], forget: &mut Forget) -> Result<bool, Unavailable> {
        forget.sessions.extend_from_slice(named);
        let ended = &mut forget.sessions;
        self.database
            .run(STORE, "create", async {
                let mut write = self.database.begin(Guard::SessionOf(&folded(&session.user))).await?;
                let parent = session.parent.as_ref();
                let mut held = rows::hold_with_children(&mut write, ended, parent).await?;
                if let Some(parent) = parent {
                    // One that is to be ended hands nothing over.
                    if ended.contains(parent) || !held.contains(parent) {
                        return Ok(false);
                    }
                    held.retain(|id| id != parent);
                }
                rows::delete_with_children(&mut write, ended, held).await?;
                rows::insert(&mut write, session).await?;
                write.commit().await?;
                Ok(true)
            })
            .await
    }

    async fn list(&self, folded_user: Option<&str>) -> Result<Vec<Session>, Unavailable> {
        let rows: Vec<Row> = self
            .database
            .run(STORE, "list", async {
                sqlx::query_as(rows::select!("WHERE $1 IS NULL OR folded = $1 ORDER BY created_at DESC, id"))
                    .bind(folded_user)
                    .fetch_all(&self.database.pool())
                    .await
            })
            .await?;
        rows.into_iter().map(session_of).collect()
    }

    async fn end(&self, which: End<'_>, forget: &mut Forget) -> Result<u64, Unavailable> {
        let (user, kept) = match which {
            End::One(id) => {
                forget.sessions.push(id.clone());
                let work = async { self.end_one(&mut forget.sessions).await };
                return self.database.run(STORE, "end", work).await;
            }
            End::AllOf { user } => (folded(user), None),
            End::AllBut { user, kept } => (folded(user), Some(kept)),
        };
        let ended = self
            .database
            .run(STORE, "end", async {
                let mut write = self.database.begin(Guard::User(&user)).await?;
                let kept = match kept {
                    Some(id) => rows::sign_in_of(&mut write, id).await?,
                    None => None,
                };
                let ended = rows::delete_all_but(&mut write, &user, kept.as_ref()).await?;
                write.commit().await?;
                Ok(ended)
            })
            .await;
        forget.users.push(user);
        ended
    }

    async fn write_uses(&self, uses: &[Arc<LiveSession>]) -> Result<(), Unavailable> {
        let work = async {
            let mut write = self.database.begin(Guard::Rows).await?;
            rows::write_uses(&mut write, uses).await?;
            write.commit().await
        };
        self.database.run(STORE, "write_uses", work).await
    }

    async fn clean(&self, lifetimes: Lifetimes) -> Result<(), Unavailable> {
        let now = self.database.clock.now().unix_millis();
        let before = |age: Duration| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        loop {
            let deleted = self
                .database
                .run(STORE, "clean", async {
                    let done = sqlx::query(rows::clean(self.database.dialect()))
                        .bind(before(lifetimes.lifetime))
                        .bind(before(lifetimes.remember_me))
                        .bind(before(lifetimes.idle + IDLE_MARGIN))
                        .bind(i64::try_from(STEP).unwrap_or(i64::MAX))
                        .execute(&self.database.pool())
                        .await?;
                    Ok(done.rows_affected())
                })
                .await?;
            if deleted < STEP as u64 {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    async fn count(&self) -> Result<u64, Unavailable> {
        let count: i64 = self
            .database
            .run(STORE, "count", async {
                sqlx::query_scalar("SELECT count(*) FROM sessions").fetch_one(&self.database.pool()).await
            })
            .await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}
