use std::{collections::HashMap, sync::Arc};

use async_trait::async_trait;

use super::Unavailable;
use crate::core::{
    ground::Watch,
    identity::Identity,
    issuer::{
        ForeignTokenKey, KeyAddress, TrustedIssuer,
        jwks::{KeyPrint, KeySet},
    },
    time::Timestamp,
};

/// Keys of trusted issuers, fetched from the configured addresses and from nowhere else, ahead of need.
#[async_trait]
pub trait IssuerKeys: Send + Sync {
    /// What memory holds; never waits. `None`: nothing was fetched yet, or so long ago that it does not count any more.
    fn peek(&self, address: &KeyAddress) -> Option<Arc<KeySet>>;
    /// The keys after a fetch that is under way or that may be made now: at most one in `address.interval`, whoever asks. Waits for it,
    /// but no longer than a few seconds. Without a fetch to wait for, what `peek` says.
    ///
    /// # Errors
    /// There are no keys.
    async fn refreshed(&self, address: &KeyAddress) -> Result<Arc<KeySet>, Unavailable>;
}

/// What was found out about a token of another issuer.
pub struct VerifiedToken {
    pub identity: Arc<Identity>,
    /// The very issuer of the configuration in force when it was verified, and the very keys: others, and it is verified anew.
    pub issuer: Arc<TrustedIssuer>,
    pub keys: Arc<KeySet>,
    /// Of the one that had signed it.
    pub key: Arc<KeyPrint>,
    /// `exp`: from then on it is verified anew, by whatever clock skew is allowed.
    pub until: Timestamp,
    /// That nobody here is called so. `None`: it is true now and cannot be remembered, so neither is the token.
    pub free_name: Option<Arc<dyn Watch>>,
    /// Bytes that it takes in memory, roughly.
    pub weight: u32,
}

/// What a look at the users said of a name.
pub enum NameCheck {
    /// A local user, disabled ones too, is called that.
    Taken,
    /// Nobody is. `None`: that is true now and cannot be remembered.
    Free(Option<Arc<dyn Watch>>),
}

/// Verified tokens of other issuers in memory, and what they need of the local users.
#[async_trait]
pub trait ForeignTokens: Send + Sync {
    /// Never waits. The caller looks whether what is found still counts.
    fn peek(&self, key: &ForeignTokenKey) -> Option<Arc<VerifiedToken>>;
    fn remember(&self, key: ForeignTokenKey, token: Arc<VerifiedToken>);
    /// Whether it was refused a moment ago, under this very issuer and these very keys, for what does not change; never waits.
    fn is_refused(&self, key: &ForeignTokenKey, issuer: &Arc<TrustedIssuer>, keys: &Arc<KeySet>) -> bool;
    /// Programs repeat a token that is over with every request. Forgotten soon.
    fn refuse(&self, key: ForeignTokenKey, issuer: &Arc<TrustedIssuer>, keys: &Arc<KeySet>);
    /// Ignoring case, as local users sign in.
    async fn check_name(&self, name: &str) -> Result<NameCheck, Unavailable>;
    /// The same of many in as few questions as the store can be asked them in. Of what it says nothing about nobody can tell.
    async fn check_names(&self, names: &[Arc<str>]) -> Result<HashMap<Arc<str>, NameCheck>, Unavailable>;
    /// Of another configuration.
    fn forget_all(&self);
}
