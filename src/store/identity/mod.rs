//! Users and their passwords: in the database, or in a file as Authelia writes it.

mod emergency;
mod file_format;
mod users;
mod users_file;

pub use file_format::check_users_file;
pub(super) use users::DatabaseUsers;
pub use users_file::{FileUsers, UsersFileError};
