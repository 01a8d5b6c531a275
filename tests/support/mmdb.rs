//! A database of addresses in MaxMind's format, as small as a test needs it: written by one library, and read by another.

use std::{fmt::Debug, path::Path};

use maxminddb_writer::{Database, metadata::IpVersion, paths::IpAddrWithMask};
use serde_json::json;

/// 192.0.2.0/24 and 2001:db8::/32 are in Germany, 198.51.100.0/24 in Japan; the rest is nowhere. Put in the place of what is there at once.
pub(crate) fn countries(path: &Path) {
    countries_with(path, "DE", "Germany");
}

/// The same, with another country in place of Germany.
pub(crate) fn countries_with(path: &Path, code: &str, name: &str) {
    let mut database = empty("GeoLite2-Country");
    let germany = json!({ "country": { "iso_code": code, "names": { "de": "Land", "en": name } } });
    let japan = json!({ "registered_country": { "iso_code": "JP", "names": { "en": "Japan" } } });
    let (germany, japan) = (stored(database.insert_value(germany)), stored(database.insert_value(japan)));
    for (network, country) in [("::192.0.2.0/120", germany), ("2001:db8::/32", germany), ("::198.51.100.0/120", japan)]
    {
        database.insert_node(stored(network.parse::<IpAddrWithMask>()), country);
    }
    put(path, &database);
}

/// What names no country.
pub(crate) fn networks(path: &Path) {
    let mut database = empty("GeoLite2-ASN");
    let provider = stored(database.insert_value(json!({ "autonomous_system_number": 64_496 })));
    database.insert_node(stored("::192.0.2.0/120".parse::<IpAddrWithMask>()), provider);
    put(path, &database);
}

fn empty(kind: &str) -> Database {
    let mut database = Database::default();
    database.metadata.ip_version = IpVersion::V6;
    database.metadata.database_type = kind.to_owned();
    database.metadata.binary_format_major_version = 2;
    database
}

/// As geoipupdate does: a new file, renamed over the old.
fn put(path: &Path, database: &Database) {
    let new = path.with_extension("new");
    stored(database.write_to(stored(std::fs::File::create(&new))));
    stored(std::fs::rename(new, path));
}

fn stored<T, E: Debug>(result: Result<T, E>) -> T {
    result.unwrap_or_else(|error| panic!("a database of addresses cannot be made: {error:?}"))
}
