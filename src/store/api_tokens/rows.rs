//! Rows of the tables `api_tokens` and `service_accounts`, and the statements that change them. Used by the adapter beside it, and by the users'
//! adapters, which end tokens in the transaction that takes something away from a user. Such a transaction has taken rows of `users` and
//! `sessions` before it comes here; rows of PostgreSQL are taken in the order of their ids.

use std::sync::Arc;

use sqlx::{AnyConnection, FromRow};

use crate::{
    core::{
        api_token::{ApiToken, ApiTokenId, Owner, Scopes},
        session::TokenHash,
        time::Timestamp,
        user::folded,
    },
    ports::{ChangeKind, LiveApiToken},
    store::database::{Dialect, Write},
};

/// All that is known of tokens, with the groups of their service accounts.
macro_rules! select {
    ($what:literal) => {
        concat!(
            "SELECT api_tokens.hash, api_tokens.kind, api_tokens.owner, api_tokens.name, api_tokens.scopes, api_tokens.version, \
             api_tokens.created_at, api_tokens.expires_at, api_tokens.last_used_at, api_tokens.created_by, \
             service_accounts.groups FROM api_tokens LEFT JOIN service_accounts \
             ON api_tokens.kind = 'service' AND service_accounts.folded = api_tokens.folded ",
            $what
        )
    };
}

/// By hash.
pub(super) const FIND: &str = select!("WHERE api_tokens.hash = $1");
/// Of many at once: `$1` is a [`list`].
pub(super) fn find_each(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => select!("WHERE api_tokens.hash IN (SELECT unhex(value) FROM json_each($1))"),
        Dialect::Postgres => {
            select!("WHERE api_tokens.hash IN (SELECT decode(json_array_elements_text($1::json), 'hex'))")
        }
    }
}

pub(super) fn list(hashes: &[TokenHash]) -> String {
    let hex = |hash: &TokenHash| hash.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    hashes.iter().map(hex).collect::<serde_json::Value>().to_string()
}

/// Of everybody; newest first.
pub(super) const LIST: &str = select!("ORDER BY api_tokens.created_at DESC, api_tokens.id");
/// The same of the owner of kind `$1` and folded name `$2`; a statement of its own, so that the index finds them.
pub(super) const LIST_OF: &str =
    select!("WHERE api_tokens.kind = $1 AND api_tokens.folded = $2 ORDER BY api_tokens.created_at DESC, api_tokens.id");

/// Ends the tokens of a person. Whoever calls writes the row of the log about the user.
pub(in crate::store) async fn delete_of_user(write: &mut Write, folded_user: &str) -> Result<u64, sqlx::Error> {
    delete(write, "user", folded_user).await
}

/// The same of many.
pub(in crate::store) async fn delete_of_users(write: &mut Write, folded_users: &[String]) -> Result<(), sqlx::Error> {
    let delete = match write.dialect() {
        Dialect::Sqlite => "DELETE FROM api_tokens WHERE kind = 'user' AND folded IN (SELECT value FROM json_each($1))",
        Dialect::Postgres => {
            "DELETE FROM api_tokens WHERE id IN (SELECT id FROM api_tokens WHERE kind = 'user' AND folded IN (\
             SELECT json_array_elements_text($1::json)) ORDER BY id FOR UPDATE)"
        }
    };
    sqlx::query(delete).bind(serde_json::json!(folded_users).to_string()).execute(&mut **write).await?;
    Ok(())
}

pub(super) async fn delete_of_owner(write: &mut Write, owner: &Owner) -> Result<u64, sqlx::Error> {
    let folded = folded(owner.name());
    let deleted = delete(write, owner.kind(), &folded).await?;
    if matches!(owner, Owner::Service(_)) {
        sqlx::query("DELETE FROM service_accounts WHERE folded = $1").bind(folded).execute(&mut **write).await?;
    }
    Ok(deleted)
}

async fn delete(write: &mut Write, kind: &str, folded: &str) -> Result<u64, sqlx::Error> {
    let delete = match write.dialect() {
        Dialect::Sqlite => "DELETE FROM api_tokens WHERE kind = $1 AND folded = $2",
        Dialect::Postgres => {
            "DELETE FROM api_tokens WHERE id IN (\
             SELECT id FROM api_tokens WHERE kind = $1 AND folded = $2 ORDER BY id FOR UPDATE)"
        }
    };
    Ok(sqlx::query(delete).bind(kind).bind(folded).execute(&mut **write).await?.rows_affected())
}

/// The row of the log is written even where nothing was deleted: a node may still remember what is gone.
pub(super) async fn delete_one(write: &mut Write, id: &ApiTokenId) -> Result<u64, sqlx::Error> {
    let done = sqlx::query("DELETE FROM api_tokens WHERE id = $1").bind(&id.0).execute(&mut **write).await?;
    write.record(ChangeKind::ApiToken, &id.0);
    Ok(done.rows_affected())
}

pub(super) async fn count(connection: &mut AnyConnection, owner: &Owner) -> Result<u64, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM api_tokens WHERE kind = $1 AND folded = $2")
        .bind(owner.kind())
        .bind(folded(owner.name()))
        .fetch_one(connection)
        .await?;
    Ok(u64::try_from(count).unwrap_or(0))
}

/// Whether a service account has this name.
pub(super) async fn has_account(connection: &mut AnyConnection, folded: &str) -> Result<bool, sqlx::Error> {
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM service_accounts WHERE folded = $1")
        .bind(folded)
        .fetch_one(connection)
        .await?;
    Ok(count > 0)
}

/// Those of the folded names that service accounts have.
pub(super) async fn accounts_among(
    connection: &mut AnyConnection,
    dialect: Dialect,
    folded: &[String],
) -> Result<Vec<String>, sqlx::Error> {
    let select = match dialect {
        Dialect::Sqlite => "SELECT folded FROM service_accounts WHERE folded IN (SELECT value FROM json_each($1))",
        Dialect::Postgres => {
            "SELECT folded FROM service_accounts WHERE folded IN (SELECT json_array_elements_text($1::json))"
        }
    };
    sqlx::query_scalar(select).bind(serde_json::json!(folded).to_string()).fetch_all(connection).await
}

/// Makes the account where it is missing; `groups` in place of those before.
pub(super) async fn save_account(write: &mut Write, name: &str, groups: Option<&[String]>) -> Result<(), sqlx::Error> {
    let save = match groups {
        Some(_) => {
            "INSERT INTO service_accounts (folded, name, groups) VALUES ($1, $2, $3) \
             ON CONFLICT (folded) DO UPDATE SET groups = excluded.groups"
        }
        None => "INSERT INTO service_accounts (folded, name, groups) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    };
    sqlx::query(save)
        .bind(folded(name))
        .bind(name)
        .bind(serde_json::json!(groups.unwrap_or_default()).to_string())
        .execute(&mut **write)
        .await?;
    write.record(ChangeKind::User, &folded(name));
    Ok(())
}

pub(super) async fn insert(connection: &mut AnyConnection, token: &ApiToken) -> Result<(), sqlx::Error> {
    let scopes: Vec<String> = token.scopes.words().collect();
    sqlx::query(
        "INSERT INTO api_tokens (id, hash, kind, folded, owner, name, scopes, version, created_at, expires_at, last_used_at, \
         created_by) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(token.id().0)
    .bind(token.hash.0.as_slice())
    .bind(token.owner.kind())
    .bind(folded(token.owner.name()))
    .bind(token.owner.name())
    .bind(&token.name)
    .bind(serde_json::json!(scopes).to_string())
    .bind(i64::try_from(token.version).unwrap_or(i64::MAX))
    .bind(token.created_at.unix_millis())
    .bind(token.expires_at.map(Timestamp::unix_millis))
    .bind(token.last_used_at.map(Timestamp::unix_millis))
    .bind(&token.created_by)
    .execute(connection)
    .await?;
    Ok(())
}

/// A use never goes back in time: another node may have written a later one.
pub(super) async fn write_uses<'u>(
    write: &mut Write,
    uses: impl Iterator<Item = &'u Arc<LiveApiToken>>,
) -> Result<(), sqlx::Error> {
    let update = match write.dialect() {
        Dialect::Sqlite => {
            "UPDATE api_tokens SET last_used_at = used.at FROM (\
             SELECT value ->> 'id' AS id, value ->> 'at' AS at FROM json_each($1)) AS used \
             WHERE api_tokens.id = used.id AND coalesce(api_tokens.last_used_at, 0) < used.at"
        }
        Dialect::Postgres => {
            "UPDATE api_tokens SET last_used_at = used.at FROM (\
             SELECT api_tokens.id, given.at FROM json_to_recordset($1::json) AS given (id text, at bigint) \
             JOIN api_tokens ON api_tokens.id = given.id WHERE coalesce(api_tokens.last_used_at, 0) < given.at \
             ORDER BY api_tokens.id FOR UPDATE OF api_tokens) AS used WHERE api_tokens.id = used.id"
        }
    };
    let uses: serde_json::Value =
        uses.map(|live| serde_json::json!({ "id": live.token.id().0, "at": live.last_used().unix_millis() })).collect();
    sqlx::query(update).bind(uses.to_string()).execute(&mut **write).await?;
    Ok(())
}

/// Deletes what expired before `$1`; at most `$2`. Rows that somebody else holds are left to them.
pub(super) fn clean(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Sqlite => {
            "DELETE FROM api_tokens WHERE id IN (SELECT id FROM api_tokens WHERE expires_at < $1 LIMIT $2)"
        }
        Dialect::Postgres => {
            "DELETE FROM api_tokens WHERE id IN (\
             SELECT id FROM api_tokens WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)"
        }
    }
}

#[derive(FromRow)]
pub(super) struct Row {
    hash: Vec<u8>,
    kind: String,
    owner: String,
    name: String,
    scopes: String,
    version: i64,
    created_at: i64,
    expires_at: Option<i64>,
    last_used_at: Option<i64>,
    created_by: Option<String>,
    groups: Option<String>,
}

impl Row {
    /// `None`: it is damaged.
    pub(super) fn hash(&self) -> Option<TokenHash> {
        self.hash.as_slice().try_into().map(TokenHash).ok()
    }

    /// The token, and the groups of its service account, where there is one.
    pub(super) fn read(self) -> Result<(ApiToken, Option<Vec<String>>), String> {
        let hash = self.hash.try_into().map(TokenHash).map_err(|_| "an API token's hash is damaged".to_owned())?;
        let damaged = |what: &str| format!("{what} of the API token {} are damaged", ApiTokenId::of(&hash));
        // A scope that cannot be read must not be taken for none.
        let words: Vec<String> = serde_json::from_str(&self.scopes).map_err(|_| damaged("the scopes"))?;
        let scopes = Scopes::parse(words.iter().map(String::as_str)).map_err(|_| damaged("the scopes"))?;
        let groups = self.groups.as_deref().map(serde_json::from_str::<Vec<String>>).transpose();
        let token = ApiToken {
            owner: match self.kind.as_str() {
                "user" => Owner::User(self.owner),
                "service" => Owner::Service(self.owner),
                _ => return Err(damaged("the owners")),
            },
            name: self.name,
            scopes,
            created_at: Timestamp::from_unix_millis(self.created_at),
            expires_at: self.expires_at.map(Timestamp::from_unix_millis),
            last_used_at: self.last_used_at.map(Timestamp::from_unix_millis),
            created_by: self.created_by,
            version: u64::try_from(self.version).map_err(|_| damaged("the numbers"))?,
            hash,
        };
        Ok((token, groups.map_err(|_| damaged("the groups"))?))
    }
}
