//! Whether an access token of ours was revoked before its time: memory where it is sure, else the store (invariants 1 and 3).

use std::collections::HashSet;

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

    /// Those of them that were; in one question for all that memory cannot tell of.
    ///
    /// # Errors
    /// As [`Gate::is_revoked`], for all of them.
    pub(super) async fn revoked_among<'j>(
        &self,
        jtis: impl Iterator<Item = &'j str>,
    ) -> Result<HashSet<String>, Unavailable> {
        let (mut revoked, mut unsure) = (HashSet::new(), Vec::new());
        for jti in jtis {
            match self.tokens.peek_revoked(jti) {
                Revocation::Revoked => drop(revoked.insert(jti.to_owned())),
                Revocation::Holds => {}
                Revocation::Unsure => unsure.push(jti),
            }
        }
        if !unsure.is_empty() {
            revoked.extend(self.tokens.revoked_among(&unsure).await?);
        }
        Ok(revoked)
    }
}
