use std::collections::HashMap;

use async_trait::async_trait;
use secrecy::SecretString;

use super::{Unavailable, UserError};
use crate::core::user::folded;

/// Password hashes.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The user's hash as stored (PHC or crypt format); `None`: no such user, a disabled one, or one without a password.
    async fn password_hash(&self, user: &str) -> Result<Option<SecretString>, Unavailable>;
    /// The same of many, in as few questions as the store can be asked them in; by the folded name.
    async fn password_hashes(&self, users: &[&str]) -> Result<HashMap<String, SecretString>, Unavailable> {
        let mut found = HashMap::new();
        for user in users {
            found.extend(self.password_hash(user).await?.map(|hash| (folded(user), hash)));
        }
        Ok(found)
    }
    /// The folded name of whose e-mail address this is, ASCII ignoring case; of several, of one. For regulation, which counts for the user who is meant
    /// (THREATS 38): nobody signs in by it.
    async fn owner_of(&self, email: &str) -> Result<Option<String>, Unavailable>;
    /// A hash as costly as those of most users, to verify where there is no user: so that an unknown name takes as long as a known
    /// one (THREATS 39). `None`: users have hashes of ours, whose cost [`Hasher::verify`] knows.
    fn decoy(&self) -> Option<SecretString> {
        None
    }
    /// Ends every session and token of the user in the same transaction.
    async fn set_password_hash(&self, user: &str, hash: SecretString) -> Result<(), UserError>;
}

#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// The pool's queue is full: 503 with `Retry-After`, so that a flood of sign-ins costs bounded memory.
    #[error("too many sign-ins at once")]
    Busy,
    #[error("the password could not be hashed: {0}")]
    Failed(String),
}

/// argon2id and the other formats of CONTRACT 3, on a bounded pool of its own threads.
#[async_trait]
pub trait Hasher: Send + Sync {
    async fn hash(&self, password: SecretString) -> Result<String, HashError>;
    /// `stored: None` costs the same as a wrong password for a hash of ours (THREATS 39) and is never right.
    async fn verify(&self, password: SecretString, stored: Option<SecretString>) -> Result<bool, HashError>;
}
