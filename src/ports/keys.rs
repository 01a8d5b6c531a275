use std::{sync::Arc, time::Duration};

use async_trait::async_trait;

use super::Unavailable;
use crate::core::{time::Timestamp, tokens::SigningAlgorithm};

/// A fault of ours: a key does not sign.
#[derive(Debug, thiserror::Error)]
#[error("a signing key of {0} does not sign")]
pub struct CannotSign(pub SigningAlgorithm);

/// A private key that nobody sees.
pub trait Signer: Send + Sync {
    /// The signature as JWS writes it (RFC 7518, section 3), not encoded.
    ///
    /// # Errors
    /// [`CannotSign`].
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CannotSign>;
}

/// When a key begins to sign and when it stops to verify.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTimes {
    pub created_at: Timestamp,
    /// Published before, so that whoever verifies knows it by then.
    pub signs_from: Timestamp,
    /// When the last token that it signed has expired; `None`: no other key follows it yet.
    pub retires_at: Option<Timestamp>,
    /// The longest life of a token that it signs, of all nodes and configurations until now.
    pub token_life: Duration,
}

/// What a key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyState {
    /// Published, and signs later.
    Next,
    Signing,
    /// Another one signs; what it signed still holds.
    Retiring,
}

impl KeyState {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Signing => "signing",
            Self::Retiring => "retiring",
        }
    }
}

/// One key.
pub struct SigningKey {
    /// RFC 7638.
    pub kid: String,
    pub algorithm: SigningAlgorithm,
    pub signer: Box<dyn Signer>,
    pub decoding: jsonwebtoken::DecodingKey,
    /// The public key as a member of the JWKS (RFC 7517).
    pub jwk: serde_json::Value,
    pub times: KeyTimes,
}

impl SigningKey {
    fn is_retired(&self, now: Timestamp) -> bool {
        self.times.retires_at.is_some_and(|at| at <= now)
    }
}

/// All keys that memory holds; which of them sign and verify is asked for a moment, so that no key needs a look at the store to take over.
pub struct SigningKeys(Vec<SigningKey>);

impl SigningKeys {
    #[must_use]
    pub fn new(mut keys: Vec<SigningKey>) -> Self {
        keys.sort_by(|one, other| {
            let order = |key: &SigningKey| (key.times.signs_from, key.times.created_at);
            order(other).cmp(&order(one)).then_with(|| one.kid.cmp(&other.kid))
        });
        Self(keys)
    }

    /// The key that signs last.
    #[must_use]
    pub fn newest(&self) -> Option<&SigningKey> {
        self.0.first()
    }

    /// The key that signs: the last one that has begun to. Where none has, by a clock that is behind, the first one to do so.
    #[must_use]
    pub fn signing(&self, now: Timestamp) -> Option<&SigningKey> {
        self.verifying(now).find(|key| key.times.signs_from <= now).or_else(|| self.verifying(now).last())
    }

    /// The keys whose signatures hold, which are also those that are published: the newest first.
    pub fn verifying(&self, now: Timestamp) -> impl Iterator<Item = &SigningKey> {
        self.0.iter().filter(move |key| !key.is_retired(now))
    }

    /// What each key does that is of use, the newest first.
    pub fn states(&self, now: Timestamp) -> impl Iterator<Item = (&SigningKey, KeyState)> {
        let signing = self.signing(now).map(|key| key.kid.as_str());
        self.verifying(now).map(move |key| {
            let state = if signing == Some(key.kid.as_str()) {
                KeyState::Signing
            } else if key.times.signs_from > now {
                KeyState::Next
            } else {
                KeyState::Retiring
            };
            (key, state)
        })
    }
}

/// When a new key begins to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takeover {
    /// The older ones verify until what they sign has expired.
    After(Duration),
    /// The older ones are gone at once, and every token that they signed is dead.
    AtOnce,
}

/// How a new key takes the place of the one that signs.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    pub algorithm: SigningAlgorithm,
    pub takeover: Takeover,
    /// The longest life of a token that whoever asks lets them sign. Longer ones that were signed before are known to the store.
    pub access: Duration,
}

/// Our signing keys, kept encrypted under `storage.key_file`. A missing one is made at the first start.
#[async_trait]
pub trait Keys: Send + Sync {
    /// The keys in memory, however old; never waits. To publish, or to refuse by; not to let in or sign by: [`Keys::sure`](#method.sure).
    fn signing(&self) -> Arc<SigningKeys>;
    /// The same where memory is sure; never waits.
    fn peek(&self) -> Option<Arc<SigningKeys>>;
    /// As the store has them, whatever memory says. Many who ask at once cost one reading.
    async fn read(&self) -> Result<Arc<SigningKeys>, Unavailable>;
    /// Reads them again after a change.
    async fn reload(&self) -> Result<(), Unavailable>;
    /// Makes a key, publishes it on every node, and answers its `kid`.
    async fn rotate(&self, rotation: Rotation) -> Result<String, Unavailable>;
    /// The same where the newest key is of another algorithm; else no key is made. From now on this process signs tokens that live for
    /// `rotation.access`: no key retires before them.
    async fn adopt(&self, rotation: Rotation) -> Result<Option<String>, Unavailable>;
}

impl dyn Keys + '_ {
    /// The keys to verify and sign by: from memory where memory is sure, else from the store (invariants 1 and 3). A key that was removed in an
    /// emergency is not among them.
    ///
    /// # Errors
    /// Memory is unsure and the store cannot answer.
    pub async fn sure(&self) -> Result<Arc<SigningKeys>, Unavailable> {
        match self.peek() {
            Some(keys) => Ok(keys),
            None => self.read().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::fakes::{NOW, key};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_millis(NOW.unix_millis() + seconds * 1000)
    }

    fn keys(times: &[(i64, Option<i64>)]) -> SigningKeys {
        let made = times.iter().zip(1..).map(|((signs_from, retires_at), seed)| {
            let mut key = key(seed);
            key.times = KeyTimes { signs_from: at(*signs_from), retires_at: retires_at.map(at), ..key.times };
            key
        });
        SigningKeys::new(made.collect())
    }

    fn told(keys: &SigningKeys, now: i64) -> Vec<(&str, &str)> {
        keys.states(at(now)).map(|(key, state)| (key.kid.as_str(), state.as_str())).collect()
    }

    #[test]
    fn a_key_is_published_signs_retires_and_is_gone() {
        let keys = keys(&[(-1000, Some(1260)), (360, None)]);
        assert_eq!(told(&keys, 0), [("key-2", "next"), ("key-1", "signing")]);
        assert_eq!(told(&keys, 359), [("key-2", "next"), ("key-1", "signing")]);
        assert_eq!(told(&keys, 360), [("key-2", "signing"), ("key-1", "retiring")]);
        assert_eq!(told(&keys, 1259), [("key-2", "signing"), ("key-1", "retiring")]);
        assert_eq!(told(&keys, 1260), [("key-2", "signing")]);
    }

    #[test]
    fn a_clock_that_is_behind_still_finds_a_key() {
        assert_eq!(told(&keys(&[(360, None)]), 0), [("key-1", "signing")]);
        assert_eq!(told(&keys(&[(10, Some(900)), (20, None)]), 0), [("key-2", "next"), ("key-1", "signing")]);
        assert!(keys(&[]).signing(NOW).is_none());
    }

    #[test]
    fn keys_that_wait_take_over_one_after_the_other() {
        let keys = keys(&[(-10, Some(1000)), (60, Some(2000)), (120, None)]);
        let signing = |now| keys.signing(at(now)).map(|key| key.kid.clone());
        assert_eq!([signing(0), signing(60), signing(120)].map(Option::unwrap), ["key-1", "key-2", "key-3"]);
    }
}
