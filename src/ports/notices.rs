use std::time::Duration;

use async_trait::async_trait;

use super::Unavailable;
use crate::core::{session::TokenHash, time::Timestamp};

/// How long a device is known after it was last seen: browsers keep a cookie no longer.
pub const DEVICE_LIFE: Duration = Duration::from_secs(400 * 86_400);

/// Devices that are asked about at once: a browser holds one value for each of its people.
pub const MOST_AT_ONCE: usize = 5;

/// A device that is known.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    pub device: TokenHash,
    pub at: Timestamp,
}

/// On which devices people signed in before.
#[async_trait]
pub trait Devices: Send + Sync {
    /// On which of these a user signed in, and when for the last time; beyond [`MOST_AT_ONCE`] they are not looked at. `None`: all are new, were not seen
    /// within [`DEVICE_LIFE`], or not since the user's token version went up for the last time (a new password, an emergency).
    async fn last_seen(
        &self,
        user: &str,
        token_version: u64,
        devices: &[TokenHash],
    ) -> Result<Option<Seen>, Unavailable>;
    /// Notes that a user signed in on a device, now.
    async fn note(&self, user: &str, token_version: u64, device: &TokenHash) -> Result<(), Unavailable>;
}

/// A mail to one person. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Whose mail it is, for the log.
    pub user: String,
    /// An e-mail address.
    pub to: String,
    pub subject: String,
    pub text: String,
    pub html: String,
}

/// Sends mails.
pub trait Mailer: Send + Sync {
    /// Never waits and never fails: what cannot be sent is counted and logged.
    fn send(&self, mail: Mail);
}
