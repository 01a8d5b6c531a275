//! Whether an access token of ours was revoked before its time: memory where it is sure, else the store (invariants 1 and 3).

use super::Gate;
use crate::ports::{Revocation, Unavailable};

impl Gate {
    /// # Errors
    /// Memory is unsure and the store cannot answer: nobody knows, so it is not to be believed.
    pub(super) async fn is_revoked(&self, jti: &str) -> Result<bool, Unavailable> {
        match self.tokens.peek_revoked(jti) {
            Revocation::Revoked => Ok(true),
            Revocation::Holds => Ok(false),
            Revocation::Unsure => self.tokens.is_revoked(jti).await,
        }
    }
}
