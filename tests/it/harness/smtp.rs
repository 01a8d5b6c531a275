//! A mail server that nobody here wrote (`smtp.py`, by aiosmtpd), and what it took.

use std::{fs, path::Path, process::Command};

use serde_json::Value;
use tempfile::TempDir;

use super::{eventually, port::Port, program::Program, repository, tls, tool};

pub(crate) const USER: &str = "postern";
pub(crate) const PASSWORD: &str = "of the mail server";

/// A mail server: not running at first.
pub(crate) struct Smtp {
    program: Option<Program>,
    port: Port,
    pub(crate) identity: tls::Identity,
    folder: TempDir,
}

/// A mail as it was taken.
pub(crate) struct Taken {
    pub(crate) bytes: Vec<u8>,
    /// `from to tls user` of the way that it came by.
    pub(crate) about: Value,
}

impl Smtp {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let identity = tls::certificate_for(&["localhost"]);
        fs::write(folder.path().join("certificate.pem"), &identity.certificate).expect("a file");
        fs::write(folder.path().join("key.pem"), &identity.key).expect("a file");
        Self { program: None, port: Port::free(), identity, folder }
    }

    /// A line of the configuration; `more` of `smtp`, beginning with a comma. Its certificate is at `tls/smtp.pem`.
    pub(crate) fn setting(&self, more: &str) -> String {
        format!(
            "notifier: {{ new_device: true, sender: \"Postern <postern@example.com>\", \
             smtp: {{ address: \"submission://localhost:{}\", ca: tls/smtp.pem{more} }} }}\n",
            self.port.number()
        )
    }

    pub(crate) async fn start(&mut self) {
        let mut command = Command::new(tool("aiosmtpd/bin/python"));
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .arg(repository("tests/it/harness/smtp.py"))
            .arg(self.port.number().to_string())
            .args([self.folder.path(), Path::new("certificate.pem"), Path::new("key.pem")])
            .args([USER, PASSWORD]);
        let program = Program::start("smtp", self.folder.path(), &mut command);
        self.program.insert(program).listens(self.port.number()).await;
    }

    /// The mails taken, once there are so many.
    pub(crate) async fn taken(&self, count: usize) -> Vec<Taken> {
        let is_there = |number: usize| number == 0 || self.folder.path().join(format!("{number}.eml")).exists();
        eventually(&format!("{count} mails"), || async { is_there(count).then_some(()) }).await;
        assert!(!is_there(count + 1), "more than {count} mails");
        let read = |number: usize, kind: &str| {
            fs::read(self.folder.path().join(format!("{number}.{kind}"))).expect("a file of the mail server")
        };
        (1..=count)
            .map(|number| Taken {
                bytes: read(number, "eml"),
                about: serde_json::from_slice(&read(number, "json")).expect("JSON"),
            })
            .collect()
    }
}
