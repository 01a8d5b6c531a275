//! The revoked access tokens in memory: a look-up on every request that comes with a token, so never more than that.

use std::{
    collections::HashMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::core::time::Timestamp;

#[derive(Default)]
pub(super) struct RevokedTokens {
    /// By `jti`: when the token expires.
    until: RwLock<HashMap<String, Timestamp>>,
    /// Mostly none, and then no request takes the lock.
    count: AtomicUsize,
}

impl RevokedTokens {
    pub(super) fn contains(&self, jti: &str) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.until.read().unwrap_or_else(PoisonError::into_inner).contains_key(jti)
    }

    pub(super) fn extend(&self, revocations: impl IntoIterator<Item = (String, Timestamp)>) {
        let mut until = self.until.write().unwrap_or_else(PoisonError::into_inner);
        until.extend(revocations);
        self.count.store(until.len(), Ordering::Release);
    }

    /// Forgets those that expired before.
    pub(super) fn forget(&self, before: Timestamp) {
        let mut until = self.until.write().unwrap_or_else(PoisonError::into_inner);
        until.retain(|_, until| *until >= before);
        self.count.store(until.len(), Ordering::Release);
    }
}

/// A revocation as the log of changes holds it: `jti:milliseconds since 1970`.
pub(super) fn told(jti: &str, until: Timestamp) -> String {
    format!("{jti}:{}", until.unix_millis())
}

pub(super) fn parsed(told: &str) -> Option<(String, Timestamp)> {
    let (jti, until) = told.rsplit_once(':')?;
    Some((jti.to_owned(), Timestamp::from_unix_millis(until.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revocation_is_known_until_it_is_of_no_use() {
        let at = Timestamp::from_unix_millis;
        let revoked = RevokedTokens::default();
        assert!(!revoked.contains("a"));
        revoked.extend([("a".to_owned(), at(10)), ("b".to_owned(), at(20))]);
        assert!(revoked.contains("a") && revoked.contains("b") && !revoked.contains("c"));
        revoked.forget(at(11));
        assert!(!revoked.contains("a") && revoked.contains("b"));
        revoked.forget(at(21));
        assert!(!revoked.contains("b"));
    }

    #[test]
    fn the_log_tells_what_was_revoked() {
        let at = Timestamp::from_unix_millis(1_800_000_000_000);
        assert_eq!(parsed(&told("a:b", at)), Some(("a:b".to_owned(), at)));
        for other in ["", "a", "a:", "a:b"] {
            assert_eq!(parsed(other), None, "{other:?}");
        }
    }
}
