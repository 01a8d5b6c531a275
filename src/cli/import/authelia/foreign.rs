//! What Postern has no place for, or another place: each key of Authelia's with what it did there and what to do here. A section is
//! told of once, whatever stands in it; its values are never looked at, since many are secrets.

use super::{
    ledger::Ledger,
    spot::{Placed, Spot, is_templated},
};

const FACTORS: &str = "second factors; this version of Postern has none: pages with `two_factor` stay closed";
const MAILS: &str = "mails for a new password; Postern sends none: an administrator writes a new hash into the users \
     file (`postern hash`), or sets \
                     the password of a user in the database (`postern user set-password`)";
const SECRET: &str = "a secret of Authelia's; Postern keeps its own in `storage.key_file`, and makes it";
const LOG_FILE: &str =
    "where the log is written; Postern's goes to standard output, `log.access` may name a file for the access log";
const BUFFERS: &str = "sizes and times of Authelia's HTTP server; Postern's own are fixed";
const DEBUG: &str = "Authelia's debugging pages; Postern has none: see `/metrics` on `server.admin`";

/// In the order of Authelia's own template.
const FOREIGN: &[(&str, &str)] = &[
    ("certificates_directory", "certificates of servers that Authelia calls; Postern calls none that would need them"),
    ("theme", "the colours of the portal; Postern has `portal.title` and `portal.accent`"),
    ("default_2fa_method", FACTORS),
    ("jwt_secret", SECRET),
    ("server.asset_path", "pictures and texts for the portal; Postern has `portal.title` and `portal.accent`"),
    ("server.disable_healthcheck", "the container's health check; Postern's is the command `postern health`"),
    ("server.path", "the path of the portal; Postern's lies where `portal.url` says, path included"),
    ("server.headers", "the headers of the portal's pages; Postern sets a strict Content-Security-Policy of its own"),
    ("server.buffers", BUFFERS),
    ("server.read_buffer_size", BUFFERS),
    ("server.write_buffer_size", BUFFERS),
    ("server.timeouts", BUFFERS),
    (
        "server.endpoints.authz",
        "the paths that the proxy asks at, and what signs in there; Postern has `/api/authz/forward-auth`, \
             `/api/authz/auth-request`, \
         `/api/authz/ext-authz` and `/api/verify`, each with cookie and header: point the proxy to those. `authorization: app` at the \
         listener leaves the header to the applications, and was written if one of Authelia's took cookies alone",
    ),
    (
        "server.endpoints.rate_limits",
        "limits for the portal; Postern has `server.source_limit` for all requests of an address, and none for these \
             in this version",
    ),
    ("server.endpoints.enable_pprof", DEBUG),
    ("server.endpoints.enable_expvars", DEBUG),
    ("server.enable_pprof", DEBUG),
    ("server.enable_expvars", DEBUG),
    ("tls_key", "Authelia spoke TLS to the proxy; write `tls` at the listener"),
    ("tls_cert", "Authelia spoke TLS to the proxy; write `tls` at the listener"),
    ("log.file_path", LOG_FILE),
    ("log.keep_stdout", LOG_FILE),
    ("log_file_path", LOG_FILE),
    ("logs_file", LOG_FILE),
    ("telemetry", "Authelia's metrics; Postern's are at `/metrics` on `server.admin` (127.0.0.1:9900)"),
    ("totp", FACTORS),
    ("webauthn", FACTORS),
    ("duo_api", FACTORS),
    ("identity_validation", MAILS),
    ("ntp", "the check of the clock; Postern has none: let the machine keep its time"),
    (
        "definitions.user_attributes",
        "attributes worked out from others; Postern's headers hold name, display name, email and groups",
    ),
    ("password_policy", "rules for new passwords; Postern takes any: whoever sets a password is an administrator"),
    ("privacy_policy", "a link on the portal; Postern's portal has none"),
    ("session.secret", SECRET),
    (
        "session.redis",
        "sessions in Redis; Postern's are in its database, or where `storage.sessions` says (docs/fleet.md). Nobody's session is carried over",
    ),
    (
        "session.provider",
        "sessions in Redis; Postern's are in its database, or where `storage.sessions` says (docs/fleet.md). Nobody's session is carried over",
    ),
    (
        "storage",
        "Authelia's database: second factors, consents, bans and preferences; nothing of it is carried over. \
             Postern's own is \
         `storage.database`, which it makes",
    ),
    ("notifier", MAILS),
    (
        "identity_providers",
        "Authelia as an OpenID Connect provider; Postern is none in this version: its applications need another",
    ),
];

pub(super) fn report(root: &Spot<'_>, ledger: &mut Ledger) {
    for (keys, message) in FOREIGN {
        if let Some(spot) = root.get(keys) {
            ledger.find(&spot, *message);
        }
    }
}

/// `log:`, as far as Postern has it.
#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) level: Option<Placed<&'static str>>,
    pub(super) format: Option<Placed<&'static str>>,
}

pub(super) fn log(root: &Spot<'_>, ledger: &mut Ledger) -> Log {
    let mut choose = |places: &[&str], known: &[&'static str]| {
        let spot = places.iter().find_map(|keys| root.get(keys))?;
        let text = spot.text().filter(|text| !is_templated(text)).unwrap_or_default();
        let found = known.iter().copied().find(|known| *known == text);
        match found {
            Some(_) => ledger.carry(&spot),
            None => ledger.find(&spot, format!("is none of {}, so Postern's default holds", known.join(", "))),
        }
        found.map(|found| Placed::at(&spot, found))
    };
    Log {
        level: choose(&["log.level", "log_level", "logs_level"], &["trace", "debug", "info", "warn", "error"]),
        format: choose(&["log.format", "log_format"], &["json", "text"]),
    }
}
