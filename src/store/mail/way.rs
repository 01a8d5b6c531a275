//! The two ways that a mail can go: to a server by SMTP (RFC 5321), or into a folder as a file.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use lettre::{
    AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor,
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, CertificateStore, Tls, TlsParameters},
        extension::ClientId,
    },
};
use secrecy::ExposeSecret as _;

use crate::config::{MailWay, SmtpServer, SmtpTls};

pub(super) enum Way {
    Folder(PathBuf),
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
}

/// Why a mail did not go.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undelivered {
    /// It would be refused again.
    #[error("it is refused: {0}")]
    Refused(String),
    #[error("{0}")]
    NotNow(String),
}

impl Way {
    /// # Errors
    /// What is wrong with the settings, by their key.
    pub(super) fn open(way: &MailWay) -> Result<Self, String> {
        Ok(match way {
            MailWay::Folder(folder) => Self::Folder(folder.clone()),
            MailWay::Smtp(server) => Self::Smtp(transport(server)?),
        })
    }

    pub(super) async fn send(&self, message: Message) -> Result<(), Undelivered> {
        match self {
            Self::Smtp(transport) => match transport.send(message).await {
                Ok(_) => Ok(()),
                Err(error) if error.is_permanent() => Err(Undelivered::Refused(told(&error))),
                Err(error) => Err(Undelivered::NotNow(told(&error))),
            },
            Self::Folder(folder) => {
                let folder = folder.clone();
                let written = tokio::task::spawn_blocking(move || put(&folder, &message.formatted())).await;
                match written {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(Undelivered::NotNow(error.to_string())),
                    Err(error) => Err(Undelivered::NotNow(error.to_string())),
                }
            }
        }
    }
}

/// With its causes, in one line.
fn told(error: &lettre::transport::smtp::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    crate::core::printable::printable(&text)
}

/// For its owner's eyes alone, and whole or not at all.
fn put(folder: &Path, bytes: &[u8]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut file = tempfile::Builder::new().prefix("mail-").suffix(".part").tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    let name = file.path().with_extension("eml");
    file.persist_noclobber(name).map_err(|error| error.error)?;
    Ok(())
}

fn transport(server: &SmtpServer) -> Result<AsyncSmtpTransport<Tokio1Executor>, String> {
    let mut parameters = TlsParameters::builder(server.host.clone());
    if let Some(pem) = &server.ca {
        let fault = |error| format!("notifier.smtp.ca: {error}");
        parameters = parameters.certificate_store(CertificateStore::None);
        // Each on its own: lettre would take the first alone.
        for one in certificates(pem) {
            parameters = parameters.add_root_certificate(Certificate::from_pem(one.as_bytes()).map_err(fault)?);
        }
    }
    let parameters = parameters.build().map_err(|error| format!("notifier.smtp: {error}"))?;
    let tls = match server.tls {
        SmtpTls::Whole => Tls::Wrapper(parameters),
        SmtpTls::Required => Tls::Required(parameters),
        SmtpTls::Offered => Tls::Opportunistic(parameters),
    };
    let mut builder = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(server.host.as_str())
        .port(server.port)
        .tls(tls)
        .hello_name(ClientId::Domain("localhost".to_owned()))
        .timeout(Some(server.timeout));
    if let Some((user, password)) = &server.login {
        builder = builder.credentials(Credentials::new(user.clone(), password.expose_secret().to_owned()));
    }
    Ok(builder.build())
}

const END: &str = "-----END CERTIFICATE-----";

fn certificates(pem: &str) -> impl Iterator<Item = String> {
    pem.split_inclusive(END).filter(|part| part.ends_with(END)).map(|part| format!("{part}\n"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_mail_is_put_whole_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mails = folder.path().join("data/mail");
        for text in ["one", "two"] {
            put(&mails, text.as_bytes()).unwrap();
        }
        let found: Vec<_> = fs::read_dir(&mails).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(found.len(), 2);
        for path in found {
            assert_eq!(path.extension().unwrap(), "eml");
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let file = folder.path().join("a file");
        fs::write(&file, "").unwrap();
        assert!(put(&file, b"x").is_err());
    }

    #[test]
    fn each_certificate_of_a_file_counts() {
        let certificate = format!("-----BEGIN CERTIFICATE-----\nAA==\n{END}\n");
        let found: Vec<String> = certificates(&format!("# comment\n{certificate}{certificate}\n")).collect();
        assert_eq!(found.len(), 2);
        assert!(found.iter().all(|one| one.ends_with(&format!("{END}\n"))));
    }
}
