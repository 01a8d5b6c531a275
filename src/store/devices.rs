//! On which devices people signed in, in the database: the hash of what a browser holds in a cookie, by user; and from which addresses programs did,
//! which hold no cookie. Asked by `identity`.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::database::{Database, Dialect, Guard, Write, can_be_stored};
use crate::{
    core::{session::TokenHash, time::Timestamp, user::folded},
    ports::{DEVICE_LIFE, Devices, MOST_AT_ONCE, Seen, Unavailable},
};

const STORE: &str = "devices";
/// Devices of a user: whoever signs in without keeping cookies leaves a new one each time.
const MOST_DEVICES: i64 = 100;
/// Rows that a transaction of the background work deletes.
const STEP: u64 = 500;

pub(super) struct DatabaseDevices {
    database: Arc<Database>,
}

impl DatabaseDevices {
    pub(super) fn new(database: Arc<Database>) -> Self {
        Self { database }
    }

    /// When what was seen there is so long ago.
    fn before(&self, age: Duration) -> i64 {
        self.database.clock.now().unix_millis().saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX))
    }

    /// Deletes what is known no more.
    pub(super) async fn clean(&self) -> Result<(), Unavailable> {
        let delete = match self.database.dialect() {
            Dialect::Sqlite => {
                "DELETE FROM devices WHERE (folded, device_hash) IN (\
                 SELECT folded, device_hash FROM devices WHERE last_seen_at < $1 LIMIT $2)"
            }
            // Rows that another node is at are left to it.
            Dialect::Postgres => {
                "DELETE FROM devices WHERE (folded, device_hash) IN (\
                 SELECT folded, device_hash FROM devices WHERE last_seen_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"
            }
        };
        loop {
            let deleted = self
                .database
                .run(STORE, "clean", async {
                    let done = sqlx::query(delete)
                        .bind(self.before(DEVICE_LIFE))
                        .bind(i64::try_from(STEP).unwrap_or(i64::MAX))
                        .execute(&self.database.pool())
                        .await?;
                    Ok(done.rows_affected())
                })
                .await?;
            if deleted < STEP {
                return Ok(());
            }
        }
    }

    async fn write(&self, user: &str, version: i64, device: &TokenHash) -> Result<(), sqlx::Error> {
        // Two who sign in with one name at once write one after the other.
        let mut write = self.database.begin(Guard::User(user)).await?;
        sqlx::query(
            "INSERT INTO devices (folded, device_hash, token_version, last_seen_at) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (folded, device_hash) \
             DO UPDATE SET token_version = excluded.token_version, last_seen_at = excluded.last_seen_at",
        )
        .bind(user)
        .bind(device.0.as_slice())
        .bind(version)
        .bind(self.database.clock.now().unix_millis())
        .execute(&mut *write)
        .await?;
        sqlx::query(
            "DELETE FROM devices WHERE folded = $1 AND device_hash NOT IN (\
             SELECT device_hash FROM devices WHERE folded = $1 ORDER BY last_seen_at DESC, device_hash LIMIT $2)",
        )
        .bind(user)
        .bind(MOST_DEVICES)
        .execute(&mut *write)
        .await?;
        write.commit().await
    }
}

#[async_trait]
impl Devices for DatabaseDevices {
    async fn last_seen(
        &self,
        user: &str,
        token_version: u64,
        devices: &[TokenHash],
    ) -> Result<Option<Seen>, Unavailable> {
        // Fewer are asked about by saying one again.
        let Some(first) = devices.first() else { return Ok(None) };
        let asked: [&TokenHash; MOST_AT_ONCE] = std::array::from_fn(|index| devices.get(index).unwrap_or(first));
        if !can_be_stored(user) {
            return Ok(None);
        }
        let (user, version) = (folded(user), i64::try_from(token_version).unwrap_or(i64::MAX));
        let seen: Option<(Vec<u8>, i64)> = self
            .database
            .run(STORE, "find", async {
                let query = sqlx::query_as(
                    "SELECT device_hash, last_seen_at FROM devices \
                     WHERE folded = $1 AND token_version = $2 AND device_hash IN ($3, $4, $5, $6, $7) \
                     ORDER BY last_seen_at DESC LIMIT 1",
                );
                let query = query.bind(&user).bind(version);
                asked
                    .iter()
                    .fold(query, |query, device| query.bind(device.0.as_slice()))
                    .fetch_optional(&self.database.pool())
                    .await
            })
            .await?;
        let seen = seen.filter(|(_, at)| *at >= self.before(DEVICE_LIFE));
        Ok(seen.and_then(|(device, at)| {
            Some(Seen { device: TokenHash(device.try_into().ok()?), at: Timestamp::from_unix_millis(at) })
        }))
    }

    async fn note(&self, user: &str, token_version: u64, device: &TokenHash) -> Result<(), Unavailable> {
        let (user, version) = (folded(user), i64::try_from(token_version).unwrap_or(i64::MAX));
        self.database.run(STORE, "note", self.write(&user, version, device)).await
    }
}

/// Those of somebody of that name are not those of another one who gets it. `write` guards the user.
pub(super) async fn delete_of_user(write: &mut Write, folded_user: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM devices WHERE folded = $1").bind(folded_user).execute(&mut **write).await?;
    Ok(())
}
