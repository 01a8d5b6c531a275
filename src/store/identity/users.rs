//! Users in the database. Whatever takes something away from a user (disabled, deleted, a new password) ends their sessions and API tokens
//! in the same transaction; every change writes a row of the log.

use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AnyConnection, FromRow};

use super::emergency::{USERS, revoke};
use crate::{
    core::user::{Attributes, User, folded},
    ports::{ChangeKind, Credentials, Each, Unavailable, UserChange, UserError, Users, Whom},
    store::{
        api_tokens,
        database::{Database, Dialect, Guard, can_be_stored},
        devices,
        session::{RedisRecords, SessionCache, delete_of_user},
    },
};

const STORE: &str = "users";

pub(in crate::store) struct DatabaseUsers {
    database: Arc<Database>,
    cache: Arc<SessionCache>,
    /// Where sessions are there.
    in_redis: Option<Arc<RedisRecords>>,
}

/// What a transaction on one user came to.
enum Outcome<T> {
    Done(T),
    Unknown,
    Exists,
    Bad(crate::core::user::BadUser),
}

impl DatabaseUsers {
    pub(in crate::store) fn new(
        database: Arc<Database>,
        cache: Arc<SessionCache>,
        in_redis: Option<Arc<RedisRecords>>,
    ) -> Self {
        Self { database, cache, in_redis }
    }

    /// Runs a change and makes this node forget what it knew of the user before it answers.
    async fn change<T>(
        &self,
        name: &str,
        operation: &'static str,
        work: impl Future<Output = Result<Outcome<T>, sqlx::Error>>,
    ) -> Result<T, UserError> {
        let outcome = self.database.run(STORE, operation, work).await;
        self.cache.drop_user(&folded(name));
        match outcome? {
            Outcome::Done(value) => Ok(value),
            Outcome::Unknown => Err(UserError::Unknown(name.to_owned())),
            Outcome::Exists => Err(UserError::Exists(name.to_owned())),
            Outcome::Bad(bad) => Err(bad.into()),
        }
    }
}

#[async_trait]
impl Users for DatabaseUsers {
    async fn find(&self, name: &str) -> Result<Option<User>, Unavailable> {
        if !can_be_stored(name) {
            return Ok(None);
        }
        let row: Option<Row> = self
            .database
            .run(STORE, "find", async {
                sqlx::query_as(select!("WHERE folded = $1"))
                    .bind(folded(name))
                    .fetch_optional(&self.database.pool())
                    .await
            })
            .await?;
        row.map(User::try_from).transpose()
    }

    async fn find_each(&self, names: &[&str]) -> Result<Each<String, User>, Unavailable> {
        let select = match self.database.dialect() {
            Dialect::Sqlite => select!("WHERE folded IN (SELECT value FROM json_each($1))"),
            Dialect::Postgres => select!("WHERE folded IN (SELECT json_array_elements_text($1::json))"),
        };
        let rows: Vec<Row> = self
            .database
            .run(STORE, "find_each", async {
                sqlx::query_as(select).bind(list(names)).fetch_all(&self.database.pool()).await
            })
            .await?;
        let mut each = Each::default();
        for row in rows {
            // By what it is stored under, as `find` finds it: an older table of letters may have folded the name otherwise.
            let name = row.folded.clone();
            match User::try_from(row) {
                Ok(user) => drop(each.found.insert(name, user)),
                Err(error) => {
                    tracing::debug!(%error, "a user cannot be read");
                    each.unsure.insert(name);
                }
            }
        }
        Ok(each)
    }

    async fn list(&self) -> Result<Vec<User>, Unavailable> {
        let rows: Vec<Row> = self
            .database
            .run(STORE, "list", async {
                sqlx::query_as(select!("ORDER BY folded")).fetch_all(&self.database.pool()).await
            })
            .await?;
        rows.into_iter().map(User::try_from).collect()
    }

    async fn insert(&self, user: User, password_hash: Option<String>) -> Result<(), UserError> {
        let user = user.checked()?;
        let name = user.name.clone();
        let work = async {
            let mut write = self.database.begin(Guard::User(&folded(&user.name))).await?;
            let done = sqlx::query(
                "INSERT INTO users (folded, name, display_name, email, groups, disabled, token_version, attributes, \
                 password_hash) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING",
            )
            .bind(folded(&user.name))
            .bind(&user.name)
            .bind(&user.display_name)
            .bind(&user.email)
            .bind(groups_text(&user.groups))
            .bind(i64::from(user.disabled))
            .bind(i64::try_from(user.token_version).unwrap_or(i64::MAX))
            .bind(attributes_text(&user.attributes))
            .bind(&password_hash)
            .execute(&mut *write)
            .await?;
            if done.rows_affected() == 0 {
                return Ok(Outcome::Exists);
            }
            // A session of somebody of that name (of the users file, say) is not a session of this user.
            delete_of_user(&mut write, &folded(&user.name)).await?;
            api_tokens::delete_of_user(&mut write, &folded(&user.name)).await?;
            devices::delete_of_user(&mut write, &folded(&user.name)).await?;
            write.commit().await?;
            Ok(Outcome::Done(()))
        };
        self.change(&name, "insert", work).await
    }

    async fn update(&self, name: &str, change: UserChange) -> Result<User, UserError> {
        let work = async {
            let mut write = self.database.begin(Guard::User(&folded(name))).await?;
            let Some(row) = row_of(&mut write, name).await? else { return Ok(Outcome::Unknown) };
            let Ok(mut user) = User::try_from(row) else { return Ok(Outcome::Unknown) };
            let ends_sessions = change.disabled == Some(true) && !user.disabled;
            user.display_name = change.display_name.unwrap_or(user.display_name);
            user.email = change.email.unwrap_or(user.email);
            user.groups = change.groups.unwrap_or(user.groups);
            user.disabled = change.disabled.unwrap_or(user.disabled);
            for (name, value) in change.attributes {
                match value {
                    Some(value) => drop(user.attributes.insert(name, value)),
                    None => drop(user.attributes.remove(&name)),
                }
            }
            let mut user = match user.checked() {
                Ok(user) => user,
                Err(bad) => return Ok(Outcome::Bad(bad)),
            };
            // As it is stored: it only ever goes up, whoever raised it since the row was read.
            let version: Option<i64> = sqlx::query_scalar(
                "UPDATE users SET display_name = $1, email = $2, groups = $3, disabled = $4, \
                 token_version = token_version + $5, attributes = $6 WHERE folded = $7 RETURNING token_version",
            )
            .bind(&user.display_name)
            .bind(&user.email)
            .bind(groups_text(&user.groups))
            .bind(i64::from(user.disabled))
            .bind(i64::from(ends_sessions))
            .bind(attributes_text(&user.attributes))
            .bind(folded(name))
            .fetch_optional(&mut *write)
            .await?;
            let Some(version) = version else { return Ok(Outcome::Unknown) };
            user.token_version = u64::try_from(version).unwrap_or(u64::MAX);
            if ends_sessions {
                delete_of_user(&mut write, &folded(name)).await?;
                api_tokens::delete_of_user(&mut write, &folded(name)).await?;
            } else {
                write.record(ChangeKind::User, &folded(name));
            }
            write.commit().await?;
            Ok(Outcome::Done(user))
        };
        self.change(name, "update", work).await
    }

    async fn delete(&self, name: &str) -> Result<(), UserError> {
        let work = async {
            let mut write = self.database.begin(Guard::User(&folded(name))).await?;
            let done =
                sqlx::query("DELETE FROM users WHERE folded = $1").bind(folded(name)).execute(&mut *write).await?;
            if done.rows_affected() == 0 {
                return Ok(Outcome::Unknown);
            }
            delete_of_user(&mut write, &folded(name)).await?;
            api_tokens::delete_of_user(&mut write, &folded(name)).await?;
            devices::delete_of_user(&mut write, &folded(name)).await?;
            write.commit().await?;
            Ok(Outcome::Done(()))
        };
        self.change(name, "delete", work).await
    }

    async fn revoke(&self, whom: Whom<'_>) -> Result<u64, UserError> {
        let name = match whom {
            Whom::One(name) => Some(folded(name)),
            Whom::Everybody => None,
        };
        let ended = revoke(&self.database, &USERS, name.as_deref(), self.in_redis.as_deref()).await;
        // Also after a failure: it may be that only the answer to the commit was lost.
        match whom {
            Whom::One(name) => self.cache.drop_user(&folded(name)),
            Whom::Everybody => self.cache.drop_all(),
        }
        match (ended?, whom) {
            (None, Whom::One(name)) => Err(UserError::Unknown(name.to_owned())),
            (ended, _) => Ok(ended.unwrap_or_default()),
        }
    }
}

#[async_trait]
impl Credentials for DatabaseUsers {
    async fn password_hash(&self, user: &str) -> Result<Option<SecretString>, Unavailable> {
        if !can_be_stored(user) {
            return Ok(None);
        }
        let hash: Option<Option<String>> = self
            .database
            .run(STORE, "password_hash", async {
                sqlx::query_scalar("SELECT password_hash FROM users WHERE folded = $1 AND disabled = 0")
                    .bind(folded(user))
                    .fetch_optional(&self.database.pool())
                    .await
            })
            .await?;
        Ok(hash.flatten().map(SecretString::from))
    }

    async fn password_hashes(&self, users: &[&str]) -> Result<HashMap<String, SecretString>, Unavailable> {
        let select = match self.database.dialect() {
            Dialect::Sqlite => {
                "SELECT folded, password_hash FROM users WHERE password_hash IS NOT NULL AND disabled = 0 \
                 AND folded IN (SELECT value FROM json_each($1))"
            }
            Dialect::Postgres => {
                "SELECT folded, password_hash FROM users WHERE password_hash IS NOT NULL AND disabled = 0 \
                 AND folded IN (SELECT json_array_elements_text($1::json))"
            }
        };
        let rows: Vec<(String, String)> = self
            .database
            .run(STORE, "password_hashes", async {
                sqlx::query_as(select).bind(list(users)).fetch_all(&self.database.pool()).await
            })
            .await?;
        Ok(rows.into_iter().map(|(name, hash)| (name, SecretString::from(hash))).collect())
    }

    async fn owner_of(&self, email: &str) -> Result<Option<String>, Unavailable> {
        if !can_be_stored(email) {
            return Ok(None);
        }
        // As the index has it; the collation that makes it the same everywhere.
        let select = match self.database.dialect() {
            Dialect::Sqlite => "SELECT folded FROM users WHERE lower(email) = $1 ORDER BY folded LIMIT 1",
            Dialect::Postgres => {
                "SELECT folded FROM users WHERE lower(email COLLATE \"C\") = $1 ORDER BY folded LIMIT 1"
            }
        };
        self.database
            .run(STORE, "owner_of", async {
                sqlx::query_scalar(select).bind(email.to_ascii_lowercase()).fetch_optional(&self.database.pool()).await
            })
            .await
    }

    async fn set_password_hash(&self, user: &str, hash: SecretString) -> Result<(), UserError> {
        let work = async {
            let mut write = self.database.begin(Guard::User(&folded(user))).await?;
            let done =
                sqlx::query("UPDATE users SET password_hash = $1, token_version = token_version + 1 WHERE folded = $2")
                    .bind(hash.expose_secret())
                    .bind(folded(user))
                    .execute(&mut *write)
                    .await?;
            if done.rows_affected() == 0 {
                return Ok(Outcome::Unknown);
            }
            delete_of_user(&mut write, &folded(user)).await?;
            api_tokens::delete_of_user(&mut write, &folded(user)).await?;
            write.commit().await?;
            Ok(Outcome::Done(()))
        };
        self.change(user, "set_password_hash", work).await
    }
}

/// Names for a statement that takes several.
fn list(names: &[&str]) -> String {
    let names: serde_json::Value = names.iter().filter(|name| can_be_stored(name)).map(|name| folded(name)).collect();
    names.to_string()
}

async fn row_of(connection: &mut AnyConnection, name: &str) -> Result<Option<Row>, sqlx::Error> {
    sqlx::query_as(select!("WHERE folded = $1")).bind(folded(name)).fetch_optional(connection).await
}

fn groups_text(groups: &[String]) -> String {
    serde_json::Value::from(groups.to_vec()).to_string()
}

fn attributes_text(attributes: &Attributes) -> String {
    serde_json::json!(attributes).to_string()
}

/// The columns of a [`Row`], by name, as those of the sessions.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT folded, name, display_name, email, groups, disabled, token_version, attributes FROM users ",
            $rest
        )
    };
}
use select;

#[derive(FromRow)]
struct Row {
    folded: String,
    name: String,
    display_name: String,
    email: Option<String>,
    groups: String,
    disabled: i64,
    token_version: i64,
    attributes: String,
}

impl TryFrom<Row> for User {
    type Error = Unavailable;

    fn try_from(row: Row) -> Result<Self, Unavailable> {
        let damaged =
            |what: &str| Unavailable { store: STORE, detail: format!("{what} of user {:?} are damaged", row.name) };
        let groups = serde_json::from_str(&row.groups).map_err(|_| damaged("the groups"))?;
        let attributes = serde_json::from_str(&row.attributes).map_err(|_| damaged("the attributes"))?;
        let token_version = u64::try_from(row.token_version).map_err(|_| damaged("the tokens"))?;
        let user = Self {
            name: row.name.clone(),
            display_name: row.display_name.clone(),
            email: row.email.clone(),
            groups,
            disabled: row.disabled != 0,
            token_version,
            attributes,
        };
        // Written by other means than ours: must not forge a group or split a header.
        user.checked().map_err(|bad| damaged(&format!("the details ({bad})")))
    }
}
