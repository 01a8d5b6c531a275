//! The URL of a Redis (`storage.sessions`, `storage.counters`). Read by `sections::storage`, used by `store::redis`.
//!
//! It may hold passwords: a fault never repeats any part of the text, and what is shown of the URL is put together from parts that hold none.

use std::{fmt, path::PathBuf};

use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

pub(super) const EXAMPLE: &str = "rediss://redis.example.com";
const EXAMPLE_OF_SENTINEL: &str = "redis+sentinel://s1.example.com,s2.example.com/mymaster";

const PORT: u16 = 6379;
const PORT_OF_SENTINEL: u16 = 26379;

/// How the servers are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedisKind {
    Single,
    Sentinel,
    Cluster,
}

/// Redis' schemes, with TLS and without.
const SCHEMES: [(&str, RedisKind, bool); 6] = [
    ("redis", RedisKind::Single, false),
    ("rediss", RedisKind::Single, true),
    ("redis+sentinel", RedisKind::Sentinel, false),
    ("rediss+sentinel", RedisKind::Sentinel, true),
    ("redis+cluster", RedisKind::Cluster, false),
    ("rediss+cluster", RedisKind::Cluster, true),
];
const PARAMETERS: [&str; 3] = ["cacert", "sentinel_username", "sentinel_password"];

/// Who one signs in as; `None`: without.
#[derive(Clone, Default)]
pub struct RedisLogin {
    pub username: Option<String>,
    pub password: Option<SecretString>,
}

#[derive(Clone)]
pub struct RedisUrl {
    /// The whole of it.
    text: SecretString,
    shown: String,
    pub kind: RedisKind,
    /// Names or addresses (IPv6 without brackets) and ports: of the server, of the sentinels, or of some nodes of the cluster.
    pub servers: Vec<(String, u16)>,
    pub tls: bool,
    /// In place of the operating system's authorities (`cacert`).
    pub ca: Option<PathBuf>,
    pub login: RedisLogin,
    /// Of the sentinels, which have their own.
    pub sentinel_login: RedisLogin,
    /// The name by which the sentinels know the master; empty elsewhere.
    pub service: String,
    pub database: i64,
}

impl RedisUrl {
    /// Tells one from another without holding a password.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.expose_secret()).into()
    }

    /// Whether others could read and answer in the server's place.
    pub(super) fn is_open(&self) -> bool {
        !self.tls && !self.servers.iter().all(|(host, _)| super::sections::is_loopback(host))
    }

    /// Whether `text` is meant to be one.
    pub(super) fn is_meant(text: &str) -> bool {
        text.starts_with("redis")
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fault =
            |what: &str| Err(format!("this URL {what}; write for example `{EXAMPLE}` or `{EXAMPLE_OF_SENTINEL}`"));
        let Some((scheme, rest)) = text.split_once("://") else { return fault("has no `://`") };
        let Some((_, kind, tls)) = SCHEMES.into_iter().find(|(name, ..)| *name == scheme) else {
            let known = SCHEMES.map(|(name, ..)| format!("`{name}://`")).join(", ");
            return fault(&format!("has an unknown scheme (known: {known})"));
        };
        if rest.contains('#') {
            return fault("holds a `#`, which is written `%23` in a password");
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (login, hosts) = match authority.rsplit_once('@') {
            None => (RedisLogin::default(), authority),
            Some((login, _)) if login.contains('@') => {
                return fault("holds an `@` too many: in a password it is written `%40`");
            }
            Some((login, hosts)) => {
                let (username, password) = login.split_once(':').unwrap_or((login, ""));
                (
                    RedisLogin { username: decoded(username)?, password: decoded(password)?.map(SecretString::from) },
                    hosts,
                )
            }
        };
        // What stands behind an unescaped `/` of a password reads as the path.
        if path.contains(['@', ':', '/']) && kind != RedisKind::Sentinel {
            return fault("names more than a database behind the host; in a password `/` is written `%2F`");
        }
        if login.username.is_some() && login.password.is_none() {
            return fault(
                "names a user and no password; a password alone is written behind a colon (`redis://:PASSWORD@HOST`)",
            );
        }
        let port = if kind == RedisKind::Sentinel { PORT_OF_SENTINEL } else { PORT };
        let mut servers = Vec::new();
        for host in hosts.split(',') {
            let Some(server) = server(host, port) else {
                return fault(
                    "names a host or port that cannot be read; in a password `:/?#[]@%` are written as `%3A` and so on",
                );
            };
            servers.push(server);
        }
        if kind == RedisKind::Single && servers.len() > 1 {
            return fault("names several hosts; `redis+sentinel://` and `redis+cluster://` take several");
        }
        let (service, database) = match (kind, path.split_once('/').unwrap_or((path, ""))) {
            (RedisKind::Single, _) => ("", path),
            (RedisKind::Cluster, _) if path.is_empty() => ("", ""),
            (RedisKind::Cluster, _) => return fault("names a database, of which a cluster has one alone"),
            (RedisKind::Sentinel, ("", _)) => return fault("does not name the master behind the sentinels"),
            (RedisKind::Sentinel, (service, _)) if !service.bytes().all(is_of_a_service) => {
                return fault("names a master that no sentinel could know (letters, digits, `-`, `_`, `.`)");
            }
            (RedisKind::Sentinel, parts) => parts,
        };
        let Some(database) = number(database) else { return fault("names a database that is no number") };
        let mut url = Self {
            text: text.to_owned().into(),
            shown: String::new(),
            kind,
            servers,
            tls,
            ca: None,
            login,
            sentinel_login: RedisLogin::default(),
            service: service.to_owned(),
            database,
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let is_new = match name {
                "cacert" if !tls => return fault("has `cacert`, which only a scheme with TLS reads (`rediss`)"),
                "cacert" => url.ca.replace(PathBuf::from(decoded(value)?.unwrap_or_default())).is_none(),
                "sentinel_username" if kind == RedisKind::Sentinel => {
                    url.sentinel_login.username.replace(decoded(value)?.unwrap_or_default()).is_none()
                }
                "sentinel_password" if kind == RedisKind::Sentinel => {
                    let password = decoded(value)?.unwrap_or_default();
                    url.sentinel_login.password.replace(password.into()).is_none()
                }
                // The name may be the rest of a password with an unescaped `?`: it is not repeated.
                _ => {
                    return fault(&format!(
                        "has an unknown parameter behind the `?` (known: {})",
                        PARAMETERS.join(", ")
                    ));
                }
            };
            if !is_new {
                return fault("has a parameter twice behind the `?`");
            }
        }
        if url.sentinel_login.username.is_some() && url.sentinel_login.password.is_none() {
            return fault("has `sentinel_username` without `sentinel_password`");
        }
        let hosts: Vec<String> = url.servers.iter().map(|(host, port)| shown_host(host, *port)).collect();
        let behind = match (url.service.as_str(), database) {
            ("", 0) => String::new(),
            ("", database) => format!("/{database}"),
            (service, 0) => format!("/{service}"),
            (service, database) => format!("/{service}/{database}"),
        };
        url.shown = format!("{scheme}://{}{behind}", hosts.join(","));
        Ok(url)
    }
}

/// `None`: empty.
fn decoded(text: &str) -> Result<Option<String>, String> {
    let fault = || "this URL is no text where its `%` are decoded; in a password `%` is written `%25`".to_owned();
    let digits = |rest: &str| rest.get(..2).is_some_and(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if !text.split('%').skip(1).all(digits) {
        return Err(fault());
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| fault())?;
    Ok((!text.is_empty()).then(|| text.into_owned()))
}

fn server(text: &str, default: u16) -> Option<(String, u16)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            address.parse::<std::net::Ipv6Addr>().ok()?;
            (address, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let is_name = |host: &str| host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    if host.is_empty() || !(text.starts_with('[') || is_name(host)) {
        return None;
    }
    let port = match port {
        None => default,
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => port.parse().ok().filter(|port| *port != 0)?,
        Some(_) => return None,
    };
    Some((host.to_owned(), port))
}

fn number(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn is_of_a_service(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._".contains(&byte)
}

fn shown_host(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisUrl").field(&self.shown).finish()
    }
}

impl PartialEq for RedisUrl {
    fn eq(&self, other: &Self) -> bool {
        self.text.expose_secret() == other.text.expose_secret()
    }
}

impl Eq for RedisUrl {}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> RedisUrl {
        RedisUrl::parse(text).unwrap_or_else(|fault| panic!("{text}: {fault}"))
    }

    #[test]
    fn what_is_shown_holds_no_password() {
        for (text, shown) in [
            ("redis://:hunter2@cache", "redis://cache:6379"),
            ("rediss://u:hunter2@cache.example.com:6380/3?cacert=/ca.pem", "rediss://cache.example.com:6380/3"),
            ("redis://[::1]:7000", "redis://[::1]:7000"),
            (
                "redis+sentinel://u:hunter2@a,b:26380/mymaster/2?sentinel_password=hunter3",
                "redis+sentinel://a:26379,b:26380/mymaster/2",
            ),
            ("rediss+cluster://:hunter2@a:7000,b:7001", "rediss+cluster://a:7000,b:7001"),
        ] {
            let url = read(text);
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("hunter"), "{url:?}");
        }
    }

    #[test]
    fn all_parts_are_read() {
        let url = read(
            "rediss+sentinel://po%40st:a%2Fb%25@s1,s2:5000/my-master/7?sentinel_username=w&sentinel_password=%26&cacert=%2Fca%20x.pem",
        );
        assert_eq!((url.kind, url.tls, url.database), (RedisKind::Sentinel, true, 7));
        assert_eq!(url.servers, [("s1".to_owned(), 26379), ("s2".to_owned(), 5000)]);
        assert_eq!(url.service, "my-master");
        assert_eq!(url.login.username.as_deref(), Some("po@st"));
        assert_eq!(url.login.password.unwrap().expose_secret(), "a/b%");
        assert_eq!(url.sentinel_login.username.as_deref(), Some("w"));
        assert_eq!(url.sentinel_login.password.unwrap().expose_secret(), "&");
        assert_eq!(url.ca.unwrap(), PathBuf::from("/ca x.pem"));
        let url = read("redis://:secret@[fd00::1]");
        assert_eq!(url.servers, [("fd00::1".to_owned(), 6379)]);
        assert!(url.login.username.is_none() && url.login.password.is_some());
    }

    #[test]
    fn a_faulty_one_is_told_without_any_part_of_it() {
        for (text, why) in [
            ("redis:hunter2", "`://`"),
            ("redis+hunter2://x", "unknown scheme"),
            ("redis://u:hunter2#@cache", "`%23`"),
            ("redis://u:hun@ter2@cache", "`%40`"),
            ("redis://u:hun/ter2@cache", "`%2F`"),
            ("redis://u:hunter2?x@cache", "cannot be read"),
            ("redis://u:hunter2%@cache", "`%25`"),
            ("redis://u:hunter2@cache:70000", "cannot be read"),
            ("redis://u:hunter2@cache:+80", "cannot be read"),
            ("redis://u:hunter2@", "cannot be read"),
            ("redis://hunter2@cache", "no password"),
            ("redis://:hunter2@a,b", "several hosts"),
            ("redis://:hunter2@a/b", "no number"),
            ("redis://:hunter2@a/1/2", "more than a database"),
            ("redis+cluster://:hunter2@a/1", "one alone"),
            ("redis+sentinel://:hunter2@a", "name the master"),
            ("redis+sentinel://:hunter2@a/m/hunter2", "no number"),
            ("redis://:hunter2@a?cacert=/hunter2", "only a scheme with TLS"),
            ("rediss://:hunter2@a?hunter2=1", "unknown parameter"),
            ("rediss://:hunter2@a?cacert=a&cacert=b", "twice"),
            ("redis+sentinel://a/m?sentinel_username=hunter2", "without `sentinel_password`"),
        ] {
            let fault = RedisUrl::parse(text).expect_err(text);
            assert!(fault.contains(why), "{text}: {fault}");
            assert!(!fault.contains("hunter") && !fault.contains("ter2"), "{fault}");
        }
    }

    #[test]
    fn without_tls_only_this_machine_is_safe() {
        for (text, is_open) in [
            ("redis://127.0.0.1", false),
            ("redis+cluster://localhost,[::1]", false),
            ("redis+cluster://localhost,other", true),
            ("rediss://other", false),
            ("redis://db.localhost", true),
        ] {
            assert_eq!(read(text).is_open(), is_open, "{text}");
        }
    }
}
