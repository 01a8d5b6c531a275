//! Codes of the hand-over between portals, in the database. Also where sessions live elsewhere: that a code is redeemed once is a matter of one
//! statement here.

use std::sync::Arc;

use async_trait::async_trait;

use super::database::{Database, Dialect, Guard};
use crate::{
    core::{
        session::{SessionId, TokenHash},
        time::Timestamp,
    },
    ports::{HandOver, HandOvers, Unavailable},
};

const STORE: &str = "hand_overs";

pub(super) struct DatabaseHandOvers {
    database: Arc<Database>,
}

impl DatabaseHandOvers {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }
}

#[derive(sqlx::FromRow)]
struct Row {
    session: String,
    domain: String,
    state: String,
    rd: String,
    rm: String,
    expires_at: i64,
}

impl From<Row> for HandOver {
    fn from(row: Row) -> Self {
        Self {
            session: SessionId::new(row.session),
            domain: row.domain,
            state: row.state,
            rd: row.rd,
            rm: row.rm,
            expires_at: Timestamp::from_unix_millis(row.expires_at),
        }
    }
}

#[async_trait]
impl HandOvers for DatabaseHandOvers {
    async fn give(&self, code: &TokenHash, hand_over: HandOver) -> Result<(), Unavailable> {
        let HandOver { session, domain, state, rd, rm, expires_at } = hand_over;
        self.database
            .run(STORE, "give", async {
                let mut write = self.database.begin(Guard::Rows).await?;
                // Those that nobody came for; what another one is at is passed over.
                let clean = match write.dialect() {
                    Dialect::Sqlite => "DELETE FROM hand_overs WHERE expires_at < $1",
                    Dialect::Postgres => {
                        "DELETE FROM hand_overs WHERE code_hash IN (\
                         SELECT code_hash FROM hand_overs WHERE expires_at < $1 FOR UPDATE SKIP LOCKED)"
                    }
                };
                sqlx::query(clean).bind(self.database.clock.now().unix_millis()).execute(&mut *write).await?;
                sqlx::query(
                    "INSERT INTO hand_overs (code_hash, session, domain, state, rd, rm, expires_at) \
                     VALUES ($1, $2, $3, $4, $5, $6, $7)",
                )
                .bind(code.0.as_slice())
                .bind(session.as_str())
                .bind(&domain)
                .bind(&state)
                .bind(&rd)
                .bind(&rm)
                .bind(expires_at.unix_millis())
                .execute(&mut *write)
                .await?;
                write.commit().await
            })
            .await
    }

    async fn redeem(&self, code: &TokenHash) -> Result<Option<HandOver>, Unavailable> {
        let row: Option<Row> = self
            .database
            .run(STORE, "redeem", async {
                let mut write = self.database.begin(Guard::Rows).await?;
                // Of two who come at once one deletes the row, and the other finds none.
                let row = sqlx::query_as(
                    "DELETE FROM hand_overs WHERE code_hash = $1 RETURNING session, domain, state, rd, rm, expires_at",
                )
                .bind(code.0.as_slice())
                .fetch_optional(&mut *write)
                .await?;
                write.commit().await?;
                Ok(row)
            })
            .await?;
        Ok(row.map(HandOver::from))
    }
}
