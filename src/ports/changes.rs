use async_trait::async_trait;

use super::Unavailable;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// `id` is a session id.
    Session,
    /// `id` is a folded user name: everything known about the user is to be read again.
    User,
    /// Signing keys; `id` is a `kid`.
    Key,
    /// `id` is that of an API token, which is revoked.
    ApiToken,
    /// An access token was revoked; `id` is as `store::tokens` writes and reads it.
    Token,
    /// All users at once: everything known of them is to be read again. `id` is empty.
    AllUsers,
    /// `id` is a folded user name: regulation of sign-ins forgets what counts for it.
    Unlock,
}

/// A row of the log of changes (invariant 7).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub seq: i64,
    pub kind: ChangeKind,
    pub id: String,
}

/// The log of changes. Written by the stores, in the transaction of the change itself; followed by every server.
#[async_trait]
pub trait Changes: Send + Sync {
    /// The newest sequence number; 0 where nothing ever changed.
    async fn latest(&self) -> Result<i64, Unavailable>;
    /// What came after `seq`, in order, at most some hundred rows. `None`: rows after `seq` were cleaned away already,
    /// so that the follower must forget everything it remembers.
    async fn after(&self, seq: i64) -> Result<Option<Vec<Change>>, Unavailable>;
}
