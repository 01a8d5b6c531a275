use async_trait::async_trait;

use super::Unavailable;
use crate::core::{
    session::{SessionId, TokenHash},
    time::Timestamp,
};

/// What one portal hands over to another: who, to which cookie domain, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandOver {
    /// Whose sign-in it is.
    pub session: SessionId,
    /// Cookie domain of the portal that may accept it.
    pub domain: String,
    /// As that portal made it for the browser that asked.
    pub state: String,
    pub rd: String,
    pub rm: String,
    pub expires_at: Timestamp,
}

/// Codes by which a sign-in is handed over between portals. Only their hashes are kept.
#[async_trait]
pub trait HandOvers: Send + Sync {
    async fn give(&self, code: &TokenHash, hand_over: HandOver) -> Result<(), Unavailable>;
    /// Takes it away, whatever becomes of it then: nobody gets it twice. Expiry is the caller's to check.
    async fn redeem(&self, code: &TokenHash) -> Result<Option<HandOver>, Unavailable>;
}
