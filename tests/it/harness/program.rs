//! A child process of a test: its output goes to a file that is shown where the test fails; it never outlives the test.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use super::{eventually, wire};

pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    /// Shown beside the log.
    shown: Vec<PathBuf>,
}

impl Program {
    /// Starts it with `folder` as its working directory and an environment that holds only what `command` sets.
    pub(crate) fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log).expect("a log file");
        let child = command
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a second handle"))
            .stderr(output)
            .spawn()
            .unwrap_or_else(|fault| panic!("{name} does not start: {fault}"));
        Self { name: name.to_owned(), child, log, shown: Vec::new() }
    }

    pub(crate) fn show_on_failure(&mut self, file: PathBuf) {
        self.shown.push(file);
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The exit status, once it has ended.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child's status")
    }

    /// Waits until `GET path` on `port` answers 200; fails at once when the program has ended.
    pub(crate) async fn answers(&mut self, port: u16, path: &str) {
        let what = format!("{} answers {path} on port {port}", self.name);
        eventually(&what, || {
            let ended = self.ended();
            let name = self.name.clone();
            async move {
                assert!(ended.is_none(), "{name} has ended with {ended:?}");
                wire::try_get(port, path).await.filter(|reply| reply.status == 200).map(drop)
            }
        })
        .await;
    }

    /// Waits until something listens on `port`.
    pub(crate) async fn listens(&mut self, port: u16) {
        let what = format!("{} listens on port {port}", self.name);
        eventually(&what, || {
            let ended = self.ended();
            let name = self.name.clone();
            async move {
                assert!(ended.is_none(), "{name} has ended with {ended:?}");
                tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok().map(drop)
            }
        })
        .await;
    }

    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", self.child.id())).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} cannot be sent {signal}", self.name);
    }

    /// Waits for the end that comes by itself or was asked for.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, || {
            let ended = self.ended();
            async move { ended }
        })
        .await
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log());
            for file in &self.shown {
                eprintln!("--- {} ---\n{}", file.display(), fs::read_to_string(file).unwrap_or_default());
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
