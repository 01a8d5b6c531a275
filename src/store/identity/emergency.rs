//! The emergency: every session and every token of a user, or of all, ends. Used by the users of the database and of a file, which differ only in where
//! the token version is.
//!
//! However many users and sessions there are, no step takes longer than any other operation. The token versions come first: once the last one is raised every access
//! token that was made before is dead. Then the sessions end, each step with its row of the log, until there is none. Never answers before the last one is over.

use sqlx::AnyConnection;

use crate::{
    ports::{ChangeKind, Unavailable},
    store::{
        database::{Database, Guard},
        session::{RedisRecords, delete_step},
    },
};

const STORE: &str = "users";
/// Users or sessions that a step is about: other writers get their turn in between.
const STEP: u64 = 2_000;

/// Where token versions are, and how they are raised.
pub(super) struct Versions {
    /// Of the user `$1`.
    one: &'static str,
    /// The last of the `$2` users that come after `$1`.
    last_of_step: &'static str,
    /// Of those after `$1`, up to `$2`.
    step: &'static str,
}

macro_rules! versions_in {
    ($table:literal) => {
        Versions {
            one: concat!("UPDATE ", $table, " SET token_version = token_version + 1 WHERE folded = $1"),
            last_of_step: concat!(
                "SELECT max(folded) FROM (SELECT folded FROM ",
                $table,
                " WHERE folded > $1 ORDER BY folded LIMIT $2) AS step"
            ),
            step: concat!(
                "UPDATE ",
                $table,
                " SET token_version = token_version + 1 WHERE folded > $1 AND folded <= $2"
            ),
        }
    };
}

pub(super) static USERS: Versions = versions_in!("users");
pub(super) static FILE_USERS: Versions = versions_in!("file_users");

/// How many sessions ended; `None`: there is no such user. `folded_user`: `None` for all. `in_redis`: where sessions are there.
///
/// # Errors
/// The database cannot answer; what ended until then stays so, and whoever asks again ends the rest.
pub(super) async fn revoke(
    database: &Database,
    versions: &Versions,
    folded_user: Option<&str>,
    in_redis: Option<&RedisRecords>,
) -> Result<Option<u64>, Unavailable> {
    let ended = revoke_in_database(database, versions, folded_user).await?;
    Ok(match (ended, in_redis) {
        (Some(ended), Some(in_redis)) => Some(ended + in_redis.sweep(folded_user).await),
        (ended, _) => ended,
    })
}

async fn revoke_in_database(
    database: &Database,
    versions: &Versions,
    folded_user: Option<&str>,
) -> Result<Option<u64>, Unavailable> {
    let mut all = 0;
    if let Some(user) = folded_user {
        let first = database.run(STORE, "revoke", async {
            let mut write = database.begin(Guard::User(user)).await?;
            let raised = sqlx::query(versions.one).bind(user).execute(&mut *write).await?;
            if raised.rows_affected() == 0 {
                return Ok(None);
            }
            let ended = delete_step(&mut write, folded_user, STEP).await?;
            write.commit().await?;
            Ok(Some(ended))
        });
        match first.await? {
            None => return Ok(None),
            Some(ended) if ended < STEP => return Ok(Some(ended)),
            Some(ended) => all += ended,
        }
    } else {
        raise_all(database, versions).await?;
    }
    let guard = folded_user.map_or(Guard::AllUsers, Guard::User);
    loop {
        let step = database.run(STORE, "revoke_step", async {
            let mut write = database.begin(guard).await?;
            let ended = delete_step(&mut write, folded_user, STEP).await?;
            write.commit().await?;
            Ok(ended)
        });
        let ended = step.await?;
        all += ended;
        if ended < STEP {
            return Ok(Some(all));
        }
    }
}

/// In the order of their names. Whoever is added meanwhile has no token that was made before.
async fn raise_all(database: &Database, versions: &Versions) -> Result<(), Unavailable> {
    let mut after = String::new();
    loop {
        let step = database.run(STORE, "revoke_versions", async {
            let mut write = database.begin(Guard::AllUsers).await?;
            let Some(last) = last_of_step(&mut write, versions, &after).await? else { return Ok(None) };
            sqlx::query(versions.step).bind(&after).bind(&last).execute(&mut *write).await?;
            write.record(ChangeKind::AllUsers, "");
            write.commit().await?;
            Ok(Some(last))
        });
        match step.await? {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}

async fn last_of_step(
    connection: &mut AnyConnection,
    versions: &Versions,
    after: &str,
) -> Result<Option<String>, sqlx::Error> {
    let step = i64::try_from(STEP).unwrap_or(i64::MAX);
    sqlx::query_scalar(versions.last_of_step).bind(after).bind(step).fetch_one(connection).await
}
