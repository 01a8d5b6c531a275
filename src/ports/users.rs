use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Each, Unavailable};
use crate::core::user::{BadUser, User, folded};

/// What of a user is to change; `None` stays. Disabling ends the user's sessions and tokens in the same transaction.
#[derive(Debug, Clone, Default)]
pub struct UserChange {
    pub display_name: Option<String>,
    /// `Some(None)` takes the address away.
    pub email: Option<Option<String>>,
    pub groups: Option<Vec<String>>,
    pub disabled: Option<bool>,
    /// By name; `None` takes an attribute away.
    pub attributes: BTreeMap<String, Option<serde_json::Value>>,
}

#[derive(Debug, thiserror::Error)]
pub enum UserError {
    #[error("there is no user {0:?}")]
    Unknown(String),
    #[error("a user {0:?} exists already (names are compared ignoring case)")]
    Exists(String),
    #[error(transparent)]
    Bad(#[from] BadUser),
    #[error("users come from the file {0}; change them there")]
    ReadOnly(String),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Whose sessions and tokens are to end.
#[derive(Debug, Clone, Copy)]
pub enum Whom<'w> {
    One(&'w str),
    Everybody,
}

/// Users; names are looked up ignoring case.
#[async_trait]
pub trait Users: Send + Sync {
    async fn find(&self, name: &str) -> Result<Option<User>, Unavailable>;
    /// Those of them that there are, as [`Users::find`] would find each; in as few questions as the store can be asked them in. By the folded name that
    /// was asked for.
    async fn find_each(&self, names: &[&str]) -> Result<Each<String, User>, Unavailable> {
        let mut each = Each::default();
        for name in names {
            each.found.extend(self.find(name).await?.map(|user| (folded(name), user)));
        }
        Ok(each)
    }
    /// Whether what is held of the user here is what all nodes were last told. Not so where users come from a file, of which another node has read a newer
    /// one (or this one): who signs in here may be let in by a password that was replaced, and nothing that outlives a session is made for them.
    async fn is_current(&self, _name: &str) -> Result<bool, Unavailable> {
        Ok(true)
    }
    /// By name.
    async fn list(&self) -> Result<Vec<User>, Unavailable>;
    /// With the hash of a password, or without any way to sign in.
    async fn insert(&self, user: User, password_hash: Option<String>) -> Result<(), UserError>;
    async fn update(&self, name: &str, change: UserChange) -> Result<User, UserError>;
    async fn delete(&self, name: &str) -> Result<(), UserError>;
    /// The emergency: ends every session and every token, also those that no session is known of, by a new token version; in one transaction,
    /// on every node. How many sessions ended.
    async fn revoke(&self, whom: Whom<'_>) -> Result<u64, UserError>;
}
