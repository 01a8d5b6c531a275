//! Sessions: rows in the database, and in front of them a cache that knows when it may not be trusted.

mod cache;
mod database;
mod rows;
#[cfg(test)]
mod tests;

pub(super) use cache::{Generation, Leash, SessionCache, Watched};
pub(super) use database::DatabaseSessions;
pub(super) use rows::{delete_of_user, delete_of_users, delete_session, delete_step};
