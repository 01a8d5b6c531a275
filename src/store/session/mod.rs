//! Sessions: rows in the database, and in front of them a cache that knows when it may not be trusted.

mod cache;
pub(super) mod database;
#[cfg(test)]
mod tests;

pub(super) use cache::SessionCache;
pub(super) use database::DatabaseSessions;
