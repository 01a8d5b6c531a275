use std::{any::Any, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use secrecy::SecretString;

use super::Unavailable;
use crate::core::{identity::Identity, time::Timestamp};

/// A user name and a password that came with a request (Basic, RFC 7617).
pub struct Presentation {
    pub user: String,
    pub password: SecretString,
    pub address: Option<IpAddr>,
}

/// Why a password was not even looked at. Never to be read as "wrong".
#[derive(Debug, thiserror::Error)]
pub enum Barred {
    /// By regulation of sign-ins.
    #[error("too many sign-ins; again in {0:?}")]
    SlowDown(Duration),
    /// The threads that hash passwords have their hands full.
    #[error("too many sign-ins at once")]
    Busy,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// Identifies the callers of Basic. Goes through the same door as the portal's sign-in (`identity::passwords`).
#[async_trait]
pub trait Passwords: Send + Sync {
    /// Somebody whose password was verified a moment ago; never waits. `None`: ask [`Passwords::identify`].
    fn recall(&self, presented: &Presentation) -> Option<Arc<Identity>>;
    /// Verifies the password and remembers whom it named; `None`: unknown, disabled, or wrong.
    async fn identify(&self, presented: Presentation) -> Result<Option<Arc<Identity>>, Barred>;
}

/// What a verified password is remembered by: a keyed hash, worth nothing outside this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PasswordKey(pub [u8; 32]);

/// How far the log of changes was applied; taken before a user is read.
#[derive(Debug, Clone, Copy)]
pub struct Mark(pub u64);

/// Leave to verify a password while nobody else verifies the very same; over when it is dropped.
pub struct PasswordTurn(pub Box<dyn Any + Send>);

/// Passwords that were right a moment ago, so that Basic does not cost a hash a request. A change of the user ends them, on this node at once, on
/// others by the log of changes; without a look at that log nothing is remembered. Never holds a wrong one.
#[async_trait]
pub trait VerifiedPasswords: Send + Sync {
    fn key(&self, user: &str, password: &SecretString) -> PasswordKey;
    /// Waits for whoever verifies the same name and password now: what they remember is there for [`VerifiedPasswords::recall`] then.
    async fn turn(&self, key: &PasswordKey) -> PasswordTurn;
    /// The caller, who counts as having presented the password now. Never waits.
    fn recall(&self, key: &PasswordKey, now: Timestamp) -> Option<Arc<Identity>>;
    /// Fails where nobody can tell whether users have changed: then no password counts.
    async fn mark(&self) -> Result<Mark, Unavailable>;
    /// Unless anything changed since `read_at`.
    fn remember(&self, key: PasswordKey, identity: &Arc<Identity>, read_at: Mark);
}

/// One try to sign in, as regulation counts it.
#[derive(Debug, Clone, Copy)]
pub struct Try<'t> {
    /// The folded name of the user, however it was typed; what was typed, folded, where there is none (THREATS 38).
    pub account: &'t str,
    pub address: Option<IpAddr>,
    /// `password`, `basic`.
    pub provider: &'static str,
}

/// Regulation of sign-ins: asked before a password costs a hash, told what came of it. The sign-in form, the login API and Basic all go through it
/// (THREATS 37).
#[async_trait]
pub trait Regulation: Send + Sync {
    /// # Errors
    /// [`Barred::SlowDown`], or a store that cannot answer: then no password is looked at.
    async fn admit(&self, tried: Try<'_>) -> Result<(), Barred>;
    async fn settled(&self, tried: Try<'_>, was_right: bool);
}
