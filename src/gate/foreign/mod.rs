//! JWTs of trusted issuers (CONTRACT 4; RFC 7519, 8725, 9068): from a Bearer that names one to an identity, or to 401. Called by
//! `identify`, after `credential` saw whose the token is.
//!
//! A token verified before costs a hash and a look into memory, made by `credential`. Nothing in a token ever says where its key is: `jwk`, `jku`, `x5u` and
//! `x5c` refuse it, `kid` only chooses among the keys that the configured address gave (THREATS 45, 48).

mod verify;
mod weight;

use std::sync::Arc;

use super::Gate;
use crate::{
    core::{
        ground::Ground,
        identity::Identity,
        issuer::{
            ForeignTokenKey, KeySource, TrustedIssuer,
            jwks::{KeyPrint, KeySet},
        },
        session::TokenHash,
        time::Timestamp,
    },
    ports::{ForeignTokens, IssuerKeys, NameCheck, Unavailable, VerifiedToken},
};
use verify::{Refused, Token};

/// What `check` asks about tokens of other issuers.
pub struct Foreign {
    pub keys: Arc<dyn IssuerKeys>,
    pub tokens: Arc<dyn ForeignTokens>,
}

/// A JWT that names a trusted issuer.
pub(super) struct ForeignToken<'r> {
    issuer: &'r Arc<TrustedIssuer>,
    token: &'r str,
    key: ForeignTokenKey,
    /// What memory had under the key; whether it still counts was not looked at.
    known: Option<Arc<VerifiedToken>>,
}

impl<'r> ForeignToken<'r> {
    pub(super) fn new(issuer: &'r Arc<TrustedIssuer>, token: &'r str, hash: TokenHash) -> Self {
        Self { issuer, token, key: issuer.key_of(hash), known: None }
    }

    pub(super) fn known(
        issuer: &'r Arc<TrustedIssuer>,
        token: &'r str,
        hash: TokenHash,
        known: Arc<VerifiedToken>,
    ) -> Self {
        Self { known: Some(known), ..Self::new(issuer, token, hash) }
    }
}

enum Failure {
    Refused(Refused),
    Unavailable(Unavailable),
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Unavailable> for Failure {
    fn from(unavailable: Unavailable) -> Self {
        Self::Unavailable(unavailable)
    }
}

impl Gate {
    /// Whom a token of a trusted issuer is of; `None` where it failed.
    ///
    /// # Errors
    /// The issuer's keys or the local users are not known now.
    pub(super) async fn holder_of_foreign(
        &self,
        presented: &ForeignToken<'_>,
    ) -> Result<Option<(Arc<Identity>, Ground)>, Unavailable> {
        let &ForeignToken { issuer, token, key, ref known } = presented;
        let now = self.clock.now();
        if let Some(known) = known
            && self.still_counts(known, issuer, now)
        {
            return Ok(Some(holder(known)));
        }
        if self.keys_now(issuer).is_some_and(|keys| self.foreign.tokens.is_refused(&key, issuer, &keys)) {
            return Ok(None);
        }
        match self.verified(issuer, key, token, now).await {
            Ok(verified) => {
                let found = holder(&verified);
                // What cannot be told stale later is not kept.
                if now < verified.until && verified.free_name.is_some() {
                    self.foreign.tokens.remember(key, Arc::new(verified));
                }
                Ok(Some(found))
            }
            Err(Failure::Refused(error)) => {
                tracing::debug!(issuer = issuer.issuer, %error, "a token of a trusted issuer was refused");
                Ok(None)
            }
            Err(Failure::Unavailable(unavailable)) => Err(unavailable),
        }
    }

    fn still_counts(&self, known: &VerifiedToken, issuer: &Arc<TrustedIssuer>, now: Timestamp) -> bool {
        now < known.until
            && Arc::ptr_eq(&known.issuer, issuer)
            && self.keys_now(issuer).is_some_and(|keys| Arc::ptr_eq(&keys, &known.keys))
            && known.free_name.as_ref().is_some_and(|name| name.is_unchanged())
    }

    /// As memory has them.
    pub(super) fn keys_now(&self, issuer: &TrustedIssuer) -> Option<Arc<KeySet>> {
        match &issuer.keys {
            KeySource::Fixed(keys) => Some(Arc::clone(keys)),
            KeySource::Fetched(address) => self.foreign.keys.peek(address),
        }
    }

    async fn verified(
        &self,
        issuer: &Arc<TrustedIssuer>,
        key: ForeignTokenKey,
        token: &str,
        now: Timestamp,
    ) -> Result<VerifiedToken, Failure> {
        let read = Token::read(token, issuer)?;
        let keys = self.keys_for(issuer, &read).await?;
        let (identity, until, key_print, weight) = believed(&read, &keys, issuer, now).inspect_err(|refused| {
            if refused.is_for_good() {
                self.foreign.tokens.refuse(key, issuer, &keys);
            }
        })?;
        let identity = Arc::new(identity);
        // Also where a prefix stands before it: `adm` and `in` are a local name too.
        let free_name = match self.foreign.tokens.check_name(&identity.user).await? {
            NameCheck::Taken => return Err(Refused::LocalName.into()),
            NameCheck::Free(name) => name,
        };
        let (issuer, key) = (Arc::clone(issuer), Arc::new(key_print));
        Ok(VerifiedToken { identity, issuer, keys, key, until, free_name, weight })
    }

    /// Keys that may hold the token's. Only the very first request, and one with an unknown `kid` while no fetch was made lately, wait.
    async fn keys_for(&self, issuer: &TrustedIssuer, token: &Token<'_>) -> Result<Arc<KeySet>, Unavailable> {
        let address = match &issuer.keys {
            KeySource::Fixed(keys) => return Ok(Arc::clone(keys)),
            KeySource::Fetched(address) => address,
        };
        match self.foreign.keys.peek(address).filter(|keys| token.may_be_of(keys)) {
            Some(keys) => Ok(keys),
            None => self.foreign.keys.refreshed(address).await,
        }
    }
}

/// Whom the token is of, until when, which key had signed it, and what that takes in memory.
fn believed(
    token: &Token<'_>,
    keys: &KeySet,
    issuer: &TrustedIssuer,
    now: Timestamp,
) -> Result<(Identity, Timestamp, KeyPrint, u32), Refused> {
    let (claims, until, key) = token.verified(keys, issuer, now)?;
    let weight = weight::of(&claims);
    Ok((issuer.claims.read(claims)?, until, key, weight))
}

/// Who holds it, and on what ground. A token that is let in within the clock skew lets in as long as others would be.
fn holder(known: &VerifiedToken) -> (Arc<Identity>, Ground) {
    let (issuer, key, name) = (Arc::clone(&known.issuer), Arc::clone(&known.key), known.free_name.clone());
    let until = known.until.after(issuer.clock_skew);
    (Arc::clone(&known.identity), Ground::Foreign { issuer, key, until, name })
}

#[cfg(test)]
mod tests;
