//! Sessions: records in the database or in Redis, and in front of them a cache that knows when it may not be trusted.

mod cache;
mod cached;
mod database;
mod ends;
mod entries;
mod record;
mod records;
mod redis;
mod rows;
#[cfg(test)]
mod tests;

pub(super) use cache::{Generation, Leash, SessionCache, Source, Watched};
pub(super) use cached::CachedSessions;
pub(super) use database::DatabaseRecords;
pub(super) use records::SessionRecords;
pub(super) use redis::RedisRecords;
pub(super) use rows::{Belongs, delete_of_user, delete_of_users, delete_session, delete_step};
