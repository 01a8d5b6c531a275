use std::{
    net::IpAddr,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use async_trait::async_trait;
use secrecy::SecretString;

use super::{Each, Unavailable};
use crate::core::{
    ground::{Stamp, Watch},
    identity::Identity,
    time::Timestamp,
};

/// A user name and a password that came with a request (Basic, RFC 7617).
pub struct Presentation {
    pub user: String,
    pub password: SecretString,
    pub address: Option<IpAddr>,
}

/// Why a password was not even looked at. Never to be read as "wrong".
#[derive(Debug, Clone, thiserror::Error)]
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

/// Somebody whose password was right, or might be: who they were then, and by what it is told whether they still are.
#[derive(Debug, Clone)]
pub struct Recognised {
    pub identity: Arc<Identity>,
    /// Of the password and the token version.
    pub stamp: Stamp,
    /// Since before they were read.
    pub watch: Arc<dyn Watch>,
}

/// Identifies the callers of Basic. Goes through the same door as the portal's sign-in (`identity::passwords`).
#[async_trait]
pub trait Passwords: Send + Sync {
    /// Somebody whose password was verified a moment ago, and whom nothing bars; never waits. `None`: ask [`Passwords::identify`].
    fn recall(&self, presented: &Presentation) -> Option<Recognised>;
    /// Whether the pair must be kept from applications: memory knows it as right, or the account is barred, and then nobody may learn which one is.
    fn is_kept(&self, presented: &Presentation) -> bool;
    /// Verifies the password and remembers whom it named; `None`: unknown, disabled, or wrong.
    async fn identify(&self, presented: Presentation) -> Told;
    /// Those who have such a name and a password now, whatever it is, and are not disabled. For what they opened before, and never for a request.
    async fn look_up_each(&self, users: &[Arc<str>]) -> Result<Each<Arc<str>, Recognised>, Unavailable>;
}

/// What a verified password is remembered by: a keyed hash, worth nothing outside this process.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct PasswordKey(pub [u8; 32]);

/// What says whether a user changed since it was taken, which is before the user is read.
#[derive(Debug, Clone)]
pub struct Mark {
    /// Folded.
    pub user: Box<str>,
    pub dropped: Arc<AtomicBool>,
    pub era: u64,
}

/// What came of a password: [`Passwords::identify`].
pub type Told = Result<Option<Recognised>, Barred>;

/// Whose turn it is to verify a password that many bring at once.
pub enum PasswordTurn {
    /// The caller's.
    Lead(Lead),
    /// Somebody else's, who has told what came of it; or it took too long.
    Told(Told),
}

/// Leave to verify a password while nobody else verifies the very same. Dropped untold, it is somebody else's turn.
pub struct Lead(pub Box<dyn FnOnce(Told, Option<Mark>) + Send>);

impl Lead {
    /// Tells all who wait. `mark`: they take no word that a change of the user has overtaken.
    pub fn tell(self, told: Told, mark: Option<Mark>) {
        (self.0)(told, mark);
    }
}

/// Passwords that were right a moment ago, so that Basic does not cost a hash a request. A change of the user ends them, on this node at once, on
/// others by the log of changes; without a look at that log nothing is remembered. A wrong one never counts for anything here but for not being told to
/// regulation twice.
#[async_trait]
pub trait VerifiedPasswords: Send + Sync {
    /// Of the name, the password and where they came from (IPv6 by /64): elsewhere the same pair is another, so that memory answers nobody whom
    /// regulation would bar.
    fn key(&self, presented: &Presentation) -> PasswordKey;
    /// The first who brings it verifies; the others wait, not for ever and not by the thousand, nor by the hundred from one `address`
    /// ([`Barred::Busy`]).
    async fn turn(&self, key: &PasswordKey, address: Option<IpAddr>) -> PasswordTurn;
    /// The caller, who counts as having presented the password now. Never waits.
    fn recall(&self, key: &PasswordKey, now: Timestamp) -> Option<Recognised>;
    /// Fails where nobody can tell whether users have changed: then no password counts.
    async fn mark(&self, user: &str) -> Result<Mark, Unavailable>;
    /// The same of many, in their order.
    async fn marks(&self, users: &[&str]) -> Result<Vec<Mark>, Unavailable>;
    /// Counts for as long as the user does not change after `read_at`.
    fn remember(&self, key: PasswordKey, recognised: &Recognised, read_at: &Mark);
    /// The same mark for whoever watches it for long.
    fn watch(&self, read_at: &Mark) -> Arc<dyn Watch>;
    /// Whether this pair was found wrong a moment ago; `is_now`: it just was. Browsers and programs repeat a wrong one with every request.
    fn was_wrong(&self, key: &PasswordKey, is_now: bool) -> bool;
}
