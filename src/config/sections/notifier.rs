//! `notifier:`: how Postern writes to people, and of what. Keys are named as Authelia's are.

use std::{
    fmt, fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::{duration, is_loopback, server::readable};
use crate::{
    config::{
        NamedFile,
        error::{Report, Trail},
    },
    core::site::Mount,
};

const ADDRESS: &str = "submission://smtp.example.com:587";
const SENDER: &str = "Postern <postern@example.com>";
const TIMEOUT: Duration = Duration::from_secs(5);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How Postern writes to people: by `smtp` or into a folder. Without either it writes to nobody.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawNotifier {
    /// Whether people get a mail when somebody signs in with their name from a device that is new (default `false`).
    new_device: bool,
    /// Whom mails are from (default `postern@` and the portal's host).
    #[schemars(example = &SENDER)]
    sender: Option<String>,
    smtp: Option<RawSmtp>,
    filesystem: Option<RawFilesystem>,
}

/// A server that takes mails.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawSmtp {
    /// `submission://` or `smtp://` (STARTTLS is required), or `submissions://` or `smtps://` (TLS from the first byte).
    #[schemars(example = &ADDRESS)]
    address: String,
    username: Option<String>,
    #[serde(default, deserialize_with = "secret")]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    password: Option<SecretString>,
    /// File that holds the password.
    #[schemars(example = &"secrets/smtp")]
    password_file: Option<String>,
    /// Authorities that the server's certificate is held against, in place of the system's.
    #[schemars(example = &"tls/smtp-ca.pem")]
    ca: Option<String>,
    /// How long a connection may take (default `5s`); the whole of a mail has 30 s.
    #[schemars(example = &"5s")]
    timeout: Option<String>,
    /// Sends in the clear where the server offers no STARTTLS (default `false`).
    #[serde(default)]
    disable_require_tls: bool,
}

/// A folder that every mail is put into as a file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawFilesystem {
    /// Is made where it is missing.
    #[schemars(example = &"data/mail")]
    folder: String,
}

/// How Postern writes to people.
#[derive(Debug, Clone)]
pub struct Notifier {
    /// A mailbox as RFC 5322 writes one.
    pub sender: String,
    /// `None`: to nobody.
    pub way: Option<MailWay>,
    /// Whether a sign-in from a new device is told.
    pub new_device: bool,
}

#[derive(Debug, Clone)]
pub enum MailWay {
    Folder(PathBuf),
    Smtp(SmtpServer),
}

#[derive(Clone)]
pub struct SmtpServer {
    pub host: String,
    pub port: u16,
    pub tls: SmtpTls,
    pub login: Option<(String, SecretString)>,
    /// PEM, in place of the system's authorities.
    pub ca: Option<String>,
    pub timeout: Duration,
}

/// Without the password.
impl fmt::Debug for SmtpServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SmtpServer({}:{} {:?})", self.host, self.port, self.tls)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// From the first byte.
    Whole,
    /// By STARTTLS; a server that does not offer it gets nothing.
    Required,
    /// By STARTTLS where it is offered.
    Offered,
}

pub(in crate::config) fn notifier(report: &mut Report, raw: &RawNotifier, mount: &Mount) -> Notifier {
    let at = Trail::root().key("notifier");
    let host = match mount {
        Mount::Host { host, .. } => host.as_str(),
        Mount::Path(_) => "localhost",
    };
    let sender = raw.sender.clone().unwrap_or_else(|| sender_at(host));
    report.take(&at.key("sender"), mailbox(&sender));
    let way = match (&raw.smtp, &raw.filesystem) {
        (Some(_), Some(_)) => {
            let fault = "`notifier` has both `smtp` and `filesystem`; keep one of the two";
            report.fault_of_key(&at.key("filesystem"), fault);
            None
        }
        (Some(smtp), None) => server(report, &at.key("smtp"), smtp).map(MailWay::Smtp),
        (None, Some(raw)) => folder(report, &at.key("filesystem").key("folder"), &raw.folder).map(MailWay::Folder),
        (None, None) => {
            if raw.new_device && !report.is_pruned("notifier") {
                let fault = format!(
                    "`notifier.new_device` needs a way to write to people; write `smtp: {{ address: \"{ADDRESS}\" }}`, or `filesystem: {{ folder: data/mail }}`"
                );
                report.fault(&at.key("new_device"), fault);
            }
            None
        }
    };
    Notifier { sender, way, new_device: raw.new_device }
}

/// An address in place of a name is written in brackets (RFC 5321 §4.1.3).
fn sender_at(host: &str) -> String {
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => format!("postern@[{address}]"),
        Ok(IpAddr::V6(address)) => format!("postern@[IPv6:{address}]"),
        Err(_) => format!("postern@{host}"),
    }
}

fn mailbox(text: &str) -> Result<(), String> {
    text.parse::<lettre::message::Mailbox>()
        .map(drop)
        .map_err(|_| format!("`{text}` is no sender; write for example `{SENDER}`"))
}

fn server(report: &mut Report, at: &Trail, raw: &RawSmtp) -> Option<SmtpServer> {
    let (host, port, is_whole) = report.take(&at.key("address"), address(&raw.address))?;
    let tls = match (is_whole, raw.disable_require_tls) {
        (true, _) => SmtpTls::Whole,
        (false, false) => SmtpTls::Required,
        (false, true) => SmtpTls::Offered,
    };
    let password = match (&raw.password, &raw.password_file) {
        (Some(_), Some(_)) => {
            let fault = "`notifier.smtp` has both `password` and `password_file`; keep one of the two";
            report.fault_of_key(&at.key("password_file"), fault);
            None
        }
        (Some(password), None) => Some(password.clone()),
        (None, Some(path)) => {
            // A line feed at its end is the editor's.
            content(report, &at.key("password_file"), path)
                .map(|text| SecretString::from(text.trim_end_matches(['\r', '\n'])))
        }
        (None, None) => None,
    };
    let has_password = raw.password.is_some() || raw.password_file.is_some();
    if raw.username.is_some() != has_password {
        report
            .fault(at, "a user name and a password belong together; write `username` and `password_file`, or neither");
    }
    let login = raw.username.clone().zip(password);
    if tls == SmtpTls::Offered && !is_loopback(&host) {
        let at = at.key("disable_require_tls");
        if login.is_some() {
            report.fault(
                &at,
                "whoever sits between this machine and the server could take the password; take `disable_require_tls` out, or the password",
            );
        } else {
            report.warn(&at, "whoever sits between this machine and the server can read and change every mail");
        }
    }
    let ca = raw.ca.as_ref().and_then(|path| {
        let text = content(report, &at.key("ca"), path)?;
        report.name(&at.key("ca"), NamedFile::ClientCa(PathBuf::from(path)));
        Some(text)
    });
    let timeout = duration(report, &at.key("timeout"), raw.timeout.as_deref(), TIMEOUT, true);
    if timeout > LONGEST_TIMEOUT {
        report.fault(&at.key("timeout"), "other mails wait meanwhile; write at most `30s`");
    }
    Some(SmtpServer { host, port, tls, login, ca, timeout })
}

/// Host, port, and whether TLS begins with the first byte.
fn address(text: &str) -> Result<(String, u16, bool), String> {
    // Not repeated: it may hold a password.
    let fault = || format!("this is no address of a mail server; write for example `{ADDRESS}`");
    let url = Url::parse(text).map_err(|_| fault())?;
    let (port, is_whole) = match url.scheme() {
        "smtp" => (25, false),
        "submission" => (587, false),
        "smtps" | "submissions" => (465, true),
        _ => return Err(fault()),
    };
    let is_bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    if !is_bare || !url.username().is_empty() || url.password().is_some() {
        return Err(format!(
            "the address of a mail server is a scheme, a host and a port, such as `{ADDRESS}`; user and password are `username` and `password_file`"
        ));
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(fault)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    Ok((host, url.port().unwrap_or(port), is_whole))
}

fn folder(report: &mut Report, at: &Trail, text: &str) -> Option<PathBuf> {
    let path = Path::new(text);
    if text.is_empty() || (path.exists() && !path.is_dir()) {
        report.fault(at, format!("`{text}` cannot be a folder of mails; name one that is there, or is to be made"));
        return None;
    }
    Some(path.to_owned())
}

fn content(report: &mut Report, at: &Trail, path: &str) -> Option<String> {
    readable(report, at, NamedFile::Value(PathBuf::from(path)));
    let read = fs::read_to_string(path);
    // Whether it is there was told just now.
    read.inspect_err(|error| {
        if Path::new(path).is_file() {
            report.fault(at, format!("this file cannot be read: {error}"));
        }
    })
    .ok()
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::tests::{GOOD, RULES, faults, load_text};

    fn read(notifier: &str) -> Notifier {
        let loaded =
            load_text(&format!("{GOOD}notifier: {notifier}"), &[RULES]).unwrap_or_else(|fault| panic!("{fault}"));
        loaded.settings.notifier
    }

    fn server(notifier: &str) -> SmtpServer {
        match read(notifier).way {
            Some(MailWay::Smtp(server)) => server,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_is_written_to_unless_it_is_said_how() {
        let Notifier { sender, way, new_device } = read("{}");
        assert_eq!((sender.as_str(), way.is_none(), new_device), ("postern@auth.example.com", true, false));
        let Notifier { way, new_device, .. } = read("{ new_device: true, filesystem: { folder: data/mail } }");
        assert!(matches!(way, Some(MailWay::Folder(folder)) if folder == Path::new("data/mail")));
        assert!(new_device);
    }

    #[test]
    fn tls_is_required_by_default() {
        for (address, host, port, tls) in [
            ("smtp://mail.example.com", "mail.example.com", 25, SmtpTls::Required),
            ("submission://mail.example.com", "mail.example.com", 587, SmtpTls::Required),
            ("submission://mail.example.com:2525", "mail.example.com", 2525, SmtpTls::Required),
            ("submissions://mail.example.com", "mail.example.com", 465, SmtpTls::Whole),
            ("smtps://[2001:db8::1]:1465", "2001:db8::1", 1465, SmtpTls::Whole),
        ] {
            let server = server(&format!("{{ smtp: {{ address: \"{address}\" }} }}"));
            assert_eq!((server.host.as_str(), server.port, server.tls), (host, port, tls), "{address}");
            assert!(server.login.is_none() && server.timeout == TIMEOUT);
        }
        let server = server("{ smtp: { address: \"smtp://127.0.0.1\", disable_require_tls: true } }");
        assert_eq!(server.tls, SmtpTls::Offered);
    }

    #[test]
    fn the_password_is_in_a_file_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("smtp");
        fs::write(&file, "hunter2\n").unwrap();
        let server = server(&format!(
            "{{ smtp: {{ address: \"smtps://mail.example.com\", username: postern, password_file: \"{}\" }} }}",
            file.display()
        ));
        let (user, password) = server.login.as_ref().unwrap();
        assert_eq!((user.as_str(), secrecy::ExposeSecret::expose_secret(password)), ("postern", "hunter2"));
        assert!(!format!("{server:?}").contains("hunter2"));
    }

    #[test]
    fn a_password_that_is_no_text_is_not_repeated() {
        let smtp = |password: &str| {
            format!("{{ smtp: {{ address: \"smtps://mail.example.com\", username: postern, password: {password} }} }}")
        };
        for password in ["8675309", "-8675309", "86753.09", "true"] {
            let told = faults(&format!("{GOOD}notifier: {}", smtp(password)));
            assert!(!told.contains(password) && told.contains("put it in quotes"), "{password}: {told}");
        }
        let login = server(&smtp("\"8675309\"")).login;
        assert_eq!(
            login.map(|(_, password)| secrecy::ExposeSecret::expose_secret(&password).to_owned()).as_deref(),
            Some("8675309")
        );
    }

    #[test]
    fn faults_of_notifiers() {
        let cases = [
            "{ new_device: true }",
            "{ sender: nobody, filesystem: { folder: \"\" } }",
            "{ filesystem: { folder: data/mail }, smtp: { address: \"smtps://mail.example.com\" } }",
            "{ smtp: { address: \"https://mail.example.com\" } }",
            "{ smtp: { address: \"smtps://user:hunter2@mail.example.com\" } }",
            "{ smtp: { address: \"smtps://mail.example.com\", username: postern } }",
            "{ smtp: { address: \"smtps://mail.example.com\", username: postern, password: hunter2, password_file: /none } }",
            "{ smtp: { address: \"smtps://mail.example.com\", username: postern, password_file: /none, ca: /none.pem } }",
            "{ smtp: { address: \"smtp://mail.example.com\", username: postern, password: hunter2, disable_require_tls: true } }",
            "{ smtp: { address: \"smtp://mail.localhost\", username: postern, password: hunter2, disable_require_tls: true } }",
            "{ smtp: { address: \"smtps://mail.example.com\", timeout: 0s } }",
            "{ smtp: { address: \"smtps://mail.example.com\", timeout: 1h } }",
            "{ smtp: {} }",
            "{ newdevice: true }",
        ];
        let told: Vec<String> = cases
            .iter()
            .map(|case| format!("{case}\n  {}", faults(&format!("{GOOD}notifier: {case}")).replace('\n', "\n  ")))
            .collect();
        let told = told.join("\n");
        // Once, where the test itself writes it.
        assert_eq!(told.lines().filter(|line| line.starts_with("  ") && line.contains("hunter2")).count(), 0, "{told}");
        insta::assert_snapshot!(told);
    }
}
