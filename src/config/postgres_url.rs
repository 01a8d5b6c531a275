//! The URL of a PostgreSQL database (`storage.database`). Read by `sections::storage`, used by `store::database`.
//!
//! It may hold a password: a fault never repeats any part of the text, and what is shown of the URL is put together from parts that hold none.

use std::fmt;

use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use url::Url;

pub(super) const EXAMPLE: &str = "postgres://postern@db.example.com/postern?sslmode=verify-full";

/// What may stand behind the `?`.
const PARAMETERS: [&str; 7] = ["sslmode", "sslrootcert", "sslcert", "sslkey", "host", "application_name", "options"];
const DEFAULT_MODE: &str = "prefer";
const SSL_MODES: [&str; 5] = ["disable", "prefer", "require", "verify-ca", "verify-full"];

#[derive(Clone)]
pub struct PostgresUrl {
    url: SecretString,
    shown: String,
    protection: Protection,
}

/// Who could read and answer in the server's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    /// The connection stays on this machine, or the server's certificate is checked.
    Safe,
    /// Whoever sits in between.
    Open,
}

impl PostgresUrl {
    /// The whole of it, with the password.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.url.expose_secret()
    }

    /// Tells one from another without holding the password.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.expose()).into()
    }

    pub(super) fn protection(&self) -> Protection {
        self.protection
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fault = |what: &str| Err(format!("this URL {what}; write for example `{EXAMPLE}`"));
        let mut url = match Url::parse(text) {
            Ok(url) => url,
            Err(error) => {
                return fault(&format!(
                    "cannot be read ({error}; in a password `:/?#[]@%` are written as `%3A` and so on)"
                ));
            }
        };
        if url.fragment().is_some() {
            return fault("holds a `#`, which is written `%23` in a password");
        }
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        // The name may be the rest of a password with an unescaped `?`: it is not repeated.
        if pairs.iter().any(|(name, _)| !PARAMETERS.contains(&name.as_str())) {
            return fault(&format!("has an unknown parameter behind the `?` (known: {})", PARAMETERS.join(", ")));
        }
        if pairs
            .iter()
            .enumerate()
            .any(|(place, (name, _))| pairs.iter().skip(place + 1).any(|(other, _)| other == name))
        {
            return fault("has a parameter twice behind the `?`, of which readers take one or the other");
        }
        let parameter = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let mode = parameter("sslmode").unwrap_or(DEFAULT_MODE);
        if !SSL_MODES.contains(&mode) {
            return fault(&format!("has an unknown `sslmode` (known: {})", SSL_MODES.join(", ")));
        }
        let Some(host) = parameter("host").or(url.host_str()).filter(|host| !host.is_empty()) else {
            return fault("names no host");
        };
        if host.contains(',') {
            return fault("names several hosts; name the primary, or an address that follows it");
        }
        let database = url.path().strip_prefix('/').unwrap_or_default();
        if database.is_empty() {
            return fault("names no database");
        }
        // What stands behind an unescaped `/` of a password reads as the path: `u:hun/ter2@db/x` is port `hun` of host `u`.
        if database.contains(['/', '@', ':']) {
            return fault("names more than a database behind the host; in a password `/` is written `%2F`");
        }
        let is_socket = host.starts_with('/') || host.to_ascii_lowercase().starts_with("%2f");
        // `verify-ca` takes any certificate of the public authorities too, to which `sslrootcert` only adds, whatever name it is for.
        let protection = if is_socket || mode == "verify-full" || super::sections::is_loopback(host) {
            Protection::Safe
        } else {
            Protection::Open
        };
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
        let shown = format!("postgres://{user}{host}{port}{}", url.path());
        let is_silent_about_tls = parameter("sslmode").is_none();
        if parameter("application_name").is_none() {
            url.query_pairs_mut().append_pair("application_name", "postern");
        }
        if is_silent_about_tls {
            // Else a variable of the environment would say.
            url.query_pairs_mut().append_pair("sslmode", DEFAULT_MODE);
        }
        Ok(Self { url: String::from(url).into(), shown, protection })
    }
}

impl fmt::Display for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresUrl").field(&self.shown).finish()
    }
}

impl PartialEq for PostgresUrl {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for PostgresUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_holds_no_password() {
        for (text, shown) in [
            ("postgres://u:hunter2@db.example.com/postern", "postgres://u@db.example.com/postern"),
            ("postgresql://u:hunter2@db:6432/x?sslmode=require", "postgres://u@db:6432/x"),
            ("postgres://:hunter2@[::1]/x", "postgres://[::1]/x"),
            ("postgres://u:hunter2@%2Frun%2Fpostgresql/x", "postgres://u@%2Frun%2Fpostgresql/x"),
            ("postgres://u:hunter2@localhost/x?host=/run/postgresql", "postgres://u@/run/postgresql/x"),
        ] {
            let url = PostgresUrl::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"));
            assert_eq!(url.to_string(), shown);
            assert_eq!(format!("{url:?}"), format!("PostgresUrl({shown:?})"));
            assert!(url.expose().contains("hunter2") && url.expose().contains("application_name=postern"));
        }
    }

    #[test]
    fn a_fault_repeats_nothing_of_the_text() {
        for text in [
            "postgres://u:hunter2",
            "postgres://u:hunter2@db",
            "postgres://u:hunter2@db/",
            "postgres://u:hunter2@/x",
            "postgres://u:1?hunter2@db/x",
            "postgres://u:1#hunter2@db/x",
            "postgres://u:hun/ter2@db/x",
            "postgres://u:12/hunter2@db/x",
            "postgres://u:/hunter2@db/x",
            "postgres://u@db/x/hunter2",
            "postgres://u@db/x?sslmode=verify-full&sslmode=disable&options=hunter2",
            "postgres://u:hunter2@a,b/x",
            "postgres://u:hunter2@db:port/x",
            "postgres://u@db/x?pasword=hunter2",
            "postgres://u@db/x?password=hunter2",
            "postgres://u@db/x?sslmode=hunter2",
            "postgres://u@db/x?sslmode=allow",
        ] {
            let fault = PostgresUrl::parse(text).expect_err(text);
            assert!(!fault.contains("hunter2") && !fault.contains("ter2@"), "{fault}");
            assert!(fault.contains(EXAMPLE), "{fault}");
        }
    }

    #[test]
    fn a_connection_is_safe_on_this_machine_or_where_the_certificate_is_checked() {
        for (text, protection) in [
            ("postgres://db.example.com/x", Protection::Open),
            ("postgres://db.example.com/x?sslmode=require", Protection::Open),
            ("postgres://db.example.com/x?sslmode=verify-ca", Protection::Open),
            ("postgres://db.example.com/x?sslmode=verify-full&sslrootcert=/ca.pem", Protection::Safe),
            ("postgres://db.localhost/x", Protection::Open),
            ("postgres://localhost.example.com/x", Protection::Open),
            ("postgres://db.example.com/x?host=db.localhost", Protection::Open),
            ("postgres://localhost/x", Protection::Safe),
            ("postgres://127.0.0.2/x", Protection::Safe),
            ("postgres://[::1]/x", Protection::Safe),
            ("postgres://db.example.com/x?host=/run/postgresql", Protection::Safe),
            ("postgres://%2Frun%2Fpostgresql/x", Protection::Safe),
        ] {
            assert_eq!(PostgresUrl::parse(text).map(|url| url.protection()), Ok(protection), "{text}");
        }
    }

    #[test]
    fn another_password_is_another_url() {
        let [one, two] = ["postgres://u:1@db/x", "postgres://u:2@db/x"].map(|text| PostgresUrl::parse(text).unwrap());
        assert_ne!(one, two);
        assert_ne!(one.digest(), two.digest());
        assert_eq!(one.to_string(), two.to_string());
    }
}
