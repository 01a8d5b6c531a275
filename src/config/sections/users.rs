//! `users:`: where people come from.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::server::readable;
use crate::config::{
    NamedFile, UsersSource,
    error::{Report, Trail},
};

/// Where people come from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawUsers {
    /// `database` (default) or `file`.
    source: RawUsersSource,
    /// With `source: file`: a file such as Authelia's `users_database.yml`.
    #[schemars(example = &"config/users.yaml")]
    path: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawUsersSource {
    #[default]
    Database,
    File,
}

pub(in crate::config) fn users(report: &mut Report, raw: &RawUsers) -> UsersSource {
    let at = Trail::root().key("users");
    match (raw.source, &raw.path) {
        (RawUsersSource::Database, None) => UsersSource::Database,
        (RawUsersSource::Database, Some(_)) => {
            report.fault(
                &at.key("path"),
                "`users.path` is read only with `source: file`; write that too, or take it out",
            );
            UsersSource::Database
        }
        (RawUsersSource::File, None) => {
            report
                .fault(&at, "`source: file` needs the file; write `users: { source: file, path: config/users.yaml }`");
            UsersSource::Database
        }
        (RawUsersSource::File, Some(path)) => {
            let file = PathBuf::from(path);
            readable(report, &at.key("path"), NamedFile::Users(file.clone()));
            UsersSource::File(file)
        }
    }
}
