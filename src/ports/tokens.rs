use std::collections::HashSet;

use async_trait::async_trait;

use super::Unavailable;
use crate::core::{
    session::{SessionId, TokenHash},
    time::Timestamp,
};

/// What memory knows about an access token without asking any store (invariant 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    Revoked,
    /// Known not to be.
    Holds,
    /// Memory may be stale: ask the store.
    Unsure,
}

/// A refresh token as stored. Its family is its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefreshToken {
    pub hash: TokenHash,
    pub session: SessionId,
    pub expires_at: Timestamp,
}

/// A refresh token that is presented, and what is to take its place.
#[derive(Debug, Clone)]
pub struct Exchange {
    pub presented: TokenHash,
    pub next: RefreshToken,
    pub now: Timestamp,
    /// So long a token that was spent is known, to tell a second use of it.
    pub end_of_session: Timestamp,
    /// Where from (`core::tokens::place_of`).
    pub place: Option<TokenHash>,
}

/// What became of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exchanged {
    /// The first use: the next token holds.
    Done,
    /// The same use once more, by whoever lost the answer: the next token holds beside that of the lost answer, until one of them is used. Of many such
    /// answers the latest few hold.
    Again,
    /// A second use. Its session was ended, and with it the family.
    Reused,
    /// More uses than a family has, or the same one again and again. Its session was ended too.
    TooMany,
    /// It expired, or was never one of that family.
    Unknown,
}

/// What became of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// It was revoked before.
    Before,
    Done,
    /// So many of its session's were revoked that the session ended too, with all that belongs to the same sign-in: how many ended.
    WithSession(u64),
}

/// Refresh tokens, and which access tokens were revoked; shared by all nodes.
#[async_trait]
pub trait Tokens: Send + Sync {
    /// Whether the access token of this `jti` was revoked; never waits.
    fn peek_revoked(&self, jti: &str) -> Revocation;
    /// The same, asked of the store.
    async fn is_revoked(&self, jti: &str) -> Result<bool, Unavailable>;
    /// Those of them that were, by `jti`; in as few questions as the store can be asked them in.
    async fn revoked_among(&self, jtis: &[&str]) -> Result<HashSet<String>, Unavailable>;
    /// An access token holds no longer, on any node; where too many of its session were revoked, the session ends too. `until`: when
    /// it expires anyway.
    async fn revoke(&self, jti: &str, until: Timestamp) -> Result<Revoked, Unavailable>;
    /// The first token of a family.
    async fn insert_refresh(&self, token: RefreshToken) -> Result<(), Unavailable>;
    /// Also one that was spent or has expired.
    async fn find_refresh(&self, hash: &TokenHash) -> Result<Option<RefreshToken>, Unavailable>;
    /// Spends the one and stores the other, in one transaction that no other of the family meets.
    async fn exchange(&self, exchange: Exchange) -> Result<Exchanged, Unavailable>;
}
