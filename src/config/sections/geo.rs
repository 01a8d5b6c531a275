//! `geo:`: a database that says which country an address is in.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::server::readable;
use crate::config::{
    NamedFile,
    error::{Report, Trail},
};

/// Which country an address is in; told to people, read by no rule.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawGeo {
    /// A file in MaxMind's format that names countries, such as `GeoLite2-Country.mmdb` (default: none).
    #[schemars(example = &"data/GeoLite2-Country.mmdb")]
    database: Option<String>,
}

pub(in crate::config) fn geo(report: &mut Report, raw: &RawGeo) -> Option<PathBuf> {
    let file = PathBuf::from(raw.database.as_ref()?);
    readable(report, &Trail::root().key("geo").key("database"), NamedFile::Countries(file.clone()));
    Some(file)
}
