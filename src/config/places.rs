//! Where things are kept beside the database, as `storage:` says. Read by `sections::storage`, opened by `store`.

use super::RedisUrl;

/// Where sessions are kept (`storage.sessions`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionsPlace {
    Database,
    Redis(Box<RedisUrl>),
}

/// Where limits are counted (`storage.counters`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CountersPlace {
    Memory,
    Redis(Box<RedisUrl>),
}

/// What a node does while the Redis that limits are counted in is away (`storage.counters_on_failure`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFailure {
    /// It counts its own part of every limit.
    #[default]
    Share,
    /// Nobody passes where a limit holds.
    Refuse,
}
