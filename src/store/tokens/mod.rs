//! Refresh tokens and revoked access tokens, in the database; the revoked ones in memory too. Asked by `gate` and `identity`, and told by the
//! follower of the log of changes what other nodes revoked.
//!
//! Never holds a token, only SHA-256 of it or its `jti`, and never forgets a revocation before its token has expired.

mod family;
mod orphans;
mod revoked;

use std::{collections::HashSet, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde_json::Value;
use sqlx::AnyConnection;

use self::{orphans::Orphans, revoked::RevokedTokens};
use super::{
    database::{Database, Dialect, Guard, can_be_stored},
    session::{Belongs, RedisRecords, SessionCache, delete_session},
};
use crate::{
    core::{
        session::{SessionId, TokenHash},
        time::Timestamp,
        tokens::{jti_of, session_in},
    },
    ports::{ChangeKind, Exchange, Exchanged, RefreshToken, Revocation, Revoked, Sessions, Tokens, Unavailable},
};

const STORE: &str = "tokens";
/// Rows a step of the cleaning takes.
const STEP: i64 = 500;
/// Revocations that are read at once.
const PAGE: i64 = 5_000;
/// Access tokens of a session that can be revoked one by one; another one ends the session. Every node remembers all of them until they expire, and a
/// session gets as many new tokens as it asks for.
const MOST_OF_SESSION: i64 = 50;
/// Kept for so long beyond their time: to a node whose clock is behind, the token has not expired yet.
const MARGIN: Duration = Duration::from_secs(600);

pub(super) struct DatabaseTokens {
    database: Arc<Database>,
    revoked: RevokedTokens,
    orphans: Orphans,
    /// Which knows whether memory may be believed: one log is followed for all.
    cache: Arc<SessionCache>,
    /// Where sessions are there.
    in_redis: Option<Arc<RedisRecords>>,
}

impl DatabaseTokens {
    /// With all revocations in memory.
    pub(super) async fn open(
        database: Arc<Database>,
        cache: Arc<SessionCache>,
        in_redis: Option<Arc<RedisRecords>>,
    ) -> Result<Self, Unavailable> {
        let (revoked, orphans) = (RevokedTokens::default(), Orphans::default());
        let tokens = Self { database, revoked, orphans, cache, in_redis };
        tokens.reload().await?;
        Ok(tokens)
    }

    /// What ends together with a session, if it does: asked before the transaction that ends it.
    async fn belongs(&self, session: &SessionId) -> Result<Belongs, Unavailable> {
        match &self.in_redis {
            Some(in_redis) => in_redis.belongs(session).await,
            None => Ok(Belongs::ByRow),
        }
    }

    /// `lost`: what belongs to it, where nobody knows whether that ended too.
    fn forget(&self, session: &SessionId, lost: Option<&Belongs>) {
        self.cache.drop_session(session);
        if let Some(Belongs::To { user, .. }) = lost {
            self.cache.drop_user(user);
        }
    }

    /// Of a session that has ended in the database. How many were in Redis.
    async fn tidy_up_after(&self, session: &SessionId, belongs: &Belongs) -> u64 {
        match &self.in_redis {
            Some(in_redis) => in_redis.tidy_up_after(session, belongs).await,
            None => 0,
        }
    }

    /// Reads all revocations again. What memory holds beyond them stays until it expires: it was revoked by somebody.
    pub(super) async fn reload(&self) -> Result<(), Unavailable> {
        let page = "SELECT jti, expires_at FROM revoked_tokens WHERE jti > $1 ORDER BY jti LIMIT $2";
        let mut after = String::new();
        loop {
            let rows: Vec<(String, i64)> = self
                .database
                .run(STORE, "load", async {
                    sqlx::query_as(page).bind(&after).bind(PAGE).fetch_all(&self.database.followers_pool()).await
                })
                .await?;
            let last = rows.last().map(|(jti, _)| jti.clone());
            self.revoked.extend(rows.into_iter().map(|(jti, until)| (jti, Timestamp::from_unix_millis(until))));
            match last {
                Some(last) => after = last,
                None => return Ok(()),
            }
        }
    }

    /// Takes in a revocation as the log of changes tells it.
    pub(super) async fn learn(&self, told: &str) -> Result<(), Unavailable> {
        match revoked::parsed(told) {
            Some(revocation) => {
                self.revoked.extend([revocation]);
                Ok(())
            }
            // As another version may write it.
            None => self.reload().await,
        }
    }

    /// Deletes what has expired, here and in the database, and families whose session is over, wherever sessions are kept. Each whatever becomes of the
    /// others; the first failure is told.
    pub(super) async fn clean(&self, sessions: &dyn Sessions) -> Result<(), Unavailable> {
        let before = self.database.clock.now().before(MARGIN);
        self.revoked.forget(before);
        let done = [
            self.clean_table(Table::Revoked, before).await,
            self.clean_table(Table::Refresh, before).await,
            self.orphans.clean(&self.database, sessions).await,
        ];
        done.into_iter().collect()
    }

    async fn clean_table(&self, table: Table, before: Timestamp) -> Result<(), Unavailable> {
        while self.clean_step(table, before).await? >= STEP.unsigned_abs() {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn clean_step(&self, table: Table, before: Timestamp) -> Result<u64, Unavailable> {
        let delete = table.clean(self.database.dialect());
        let work = async {
            let done = sqlx::query(delete).bind(before.unix_millis()).bind(STEP).execute(&self.database.pool()).await?;
            Ok(done.rows_affected())
        };
        self.database.run(STORE, "clean", work).await
    }
}

/// How many tokens of a session were revoked and have not expired for good. By the index of `jti`, which knows the order of bytes alone.
async fn revoked_of(connection: &mut AnyConnection, session: &SessionId) -> Result<i64, sqlx::Error> {
    let (from, to) = (jti_of(session, ""), jti_of(session, "\u{7f}"));
    sqlx::query_scalar("SELECT count(*) FROM revoked_tokens WHERE jti >= $1 AND jti < $2")
        .bind(from)
        .bind(to)
        .fetch_one(connection)
        .await
}

#[derive(Clone, Copy)]
enum Table {
    Revoked,
    Refresh,
}

impl Table {
    /// Rows that another node is at are left to it.
    fn clean(self, dialect: Dialect) -> &'static str {
        match (self, dialect) {
            (Self::Revoked, Dialect::Sqlite) => {
                "DELETE FROM revoked_tokens WHERE jti IN (SELECT jti FROM revoked_tokens WHERE expires_at < $1 LIMIT $2)"
            }
            (Self::Revoked, Dialect::Postgres) => {
                "DELETE FROM revoked_tokens WHERE jti IN (\
                 SELECT jti FROM revoked_tokens WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"
            }
            (Self::Refresh, Dialect::Sqlite) => {
                "DELETE FROM refresh_tokens WHERE hash IN (SELECT hash FROM refresh_tokens WHERE expires_at < $1 LIMIT $2)"
            }
            (Self::Refresh, Dialect::Postgres) => {
                "DELETE FROM refresh_tokens WHERE hash IN (\
                 SELECT hash FROM refresh_tokens WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"
            }
        }
    }
}

#[async_trait]
impl Tokens for DatabaseTokens {
    fn peek_revoked(&self, jti: &str) -> Revocation {
        // A revocation that memory knows of holds however old memory is.
        if self.revoked.contains(jti) {
            Revocation::Revoked
        } else if self.cache.is_trusted() {
            Revocation::Holds
        } else {
            Revocation::Unsure
        }
    }

    async fn is_revoked(&self, jti: &str) -> Result<bool, Unavailable> {
        if !can_be_stored(jti) {
            return Ok(false);
        }
        let found: Option<i64> = self
            .database
            .run(STORE, "is_revoked", async {
                sqlx::query_scalar("SELECT expires_at FROM revoked_tokens WHERE jti = $1")
                    .bind(jti)
                    .fetch_optional(&self.database.pool())
                    .await
            })
            .await?;
        Ok(found.is_some())
    }

    async fn revoked_among(&self, jtis: &[&str]) -> Result<HashSet<String>, Unavailable> {
        let select = match self.database.dialect() {
            Dialect::Sqlite => "SELECT jti FROM revoked_tokens WHERE jti IN (SELECT value FROM json_each($1))",
            Dialect::Postgres => {
                "SELECT jti FROM revoked_tokens WHERE jti IN (SELECT json_array_elements_text($1::json))"
            }
        };
        let jtis: Value = jtis.iter().copied().filter(|jti| can_be_stored(jti)).collect();
        let work = async { sqlx::query_scalar(select).bind(jtis.to_string()).fetch_all(&self.database.pool()).await };
        let found: Vec<String> = self.database.run(STORE, "revoked_among", work).await?;
        Ok(found.into_iter().collect())
    }

    async fn revoke(&self, jti: &str, until: Timestamp) -> Result<Revoked, Unavailable> {
        let session = session_in(jti);
        let belongs = match &session {
            // Seldom needed: what is revoked must not wait for Redis.
            Some(session) => self.belongs(session).await.unwrap_or(Belongs::Lost),
            None => Belongs::ByRow,
        };
        let done = self
            .database
            .run(STORE, "revoke", async {
                let mut write = self.database.begin(Guard::Rows).await?;
                let done =
                    sqlx::query("INSERT INTO revoked_tokens (jti, expires_at) VALUES ($1, $2) ON CONFLICT DO NOTHING")
                        .bind(jti)
                        .bind(until.unix_millis())
                        .execute(&mut *write)
                        .await?;
                if done.rows_affected() == 0 {
                    return Ok(Revoked::Before);
                }
                write.record(ChangeKind::Token, &revoked::told(jti, until));
                let revoked = match &session {
                    Some(session) if revoked_of(&mut write, session).await? > MOST_OF_SESSION => {
                        Revoked::WithSession(delete_session(&mut write, session, &belongs).await?)
                    }
                    _ => Revoked::Done,
                };
                write.commit().await?;
                Ok(revoked)
            })
            .await;
        // Also after a failure: it may be that only the answer to the commit was lost, and whoever held the token wanted it dead.
        self.revoked.extend([(jti.to_owned(), until)]);
        if let Some(session) = &session {
            self.forget(session, done.is_err().then_some(&belongs));
        }
        match (done?, &session) {
            (Revoked::WithSession(ended), Some(session)) => match ended + self.tidy_up_after(session, &belongs).await {
                // It was over already.
                0 => Ok(Revoked::Done),
                ended => Ok(Revoked::WithSession(ended)),
            },
            (done, _) => Ok(done),
        }
    }

    async fn insert_refresh(&self, token: RefreshToken) -> Result<(), Unavailable> {
        let work = async {
            let mut write = self.database.begin(Guard::Rows).await?;
            family::insert(&mut write, &token, 1).await?;
            write.commit().await
        };
        self.database.run(STORE, "insert_refresh", work).await
    }

    async fn find_refresh(&self, hash: &TokenHash) -> Result<Option<RefreshToken>, Unavailable> {
        let work = async { family::find(&self.database.pool(), hash).await };
        self.database.run(STORE, "find_refresh", work).await
    }

    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged, Unavailable> {
        let session = exchange.next.session.clone();
        let belongs = self.belongs(&session).await?;
        let work = async {
            // No row of the log but for a session that ends: no node remembers a refresh token.
            let mut write = self.database.begin(Guard::Family(exchange.next.session.as_str())).await?;
            let exchanged = family::exchange(&mut write, &exchange, &belongs).await?;
            write.commit().await?;
            Ok(exchanged)
        };
        let exchanged = self.database.run(STORE, "exchange", work).await;
        // Also after a failure: it may be that only the answer to the commit was lost.
        if !matches!(exchanged, Ok(Exchanged::Done | Exchanged::Again | Exchanged::Unknown)) {
            self.forget(&session, exchanged.is_err().then_some(&belongs));
        }
        if matches!(exchanged, Ok(Exchanged::Reused | Exchanged::TooMany)) {
            self.tidy_up_after(&session, &belongs).await;
        }
        exchanged
    }
}
