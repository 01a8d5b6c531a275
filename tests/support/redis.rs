//! A Redis server of the tests' own: its data in a temporary folder, on a port of its own. Never outlives the process that started it, however that ends.
//!
//! A test speaks to it by a socket in the same folder, whatever stands before its port: TLS, or a relay that is cut. The socket asks for the password as well.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::port::Port;

/// Longest that it may take to start, or to answer one command, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// Keeps the server as long as its own standard input is open, which is as long as the test's process lives.
const KEEPER: &str =
    r#"trap '' INT; "$0" "$@" >&2 & echo $!; read -r _; kill -KILL $!; wait $!; [ -z "$REMOVE" ] || rm -rf "$REMOVE""#;

const CONFIG: &str = "redis.conf";
const SOCKET: &str = "redis.sock";

/// What is configured.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// Without it nobody is answered, another server neither.
    pub(crate) password: Option<String>,
    /// Writes down every change, so that a restart finds what a snapshot does not hold.
    pub(crate) append_only: bool,
    /// Listens for TLS alone.
    pub(crate) tls: Option<Tls>,
    /// It is no server of data but a sentinel.
    pub(crate) sentinel: bool,
    /// More lines.
    pub(crate) more: Vec<String>,
}

/// All as PEM.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) certificate: String,
    pub(crate) key: String,
    /// Of the servers that it speaks to itself.
    pub(crate) authority: String,
}

pub(crate) struct Redis {
    folder: TempDir,
    port: Port,
    password: Option<String>,
    tls: bool,
    sentinel: bool,
    running: Option<Running>,
}

struct Running {
    keeper: Child,
    pid: u32,
}

impl Redis {
    /// The URL of the server that all tests of this process share: none of them may empty it or take it away.
    pub(crate) async fn shared() -> String {
        static SHARED: OnceCell<String> = OnceCell::const_new();
        let start = || async {
            let server = Self::start_to_the_end(Port::free(), Options::default()).await;
            let url = server.url();
            std::mem::forget(server);
            url
        };
        SHARED.get_or_init(start).await.clone()
    }

    /// For one test.
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        Self::at(Port::free(), options).await
    }

    pub(crate) async fn at(port: Port, options: Options) -> Self {
        let mut server = Self::prepare(port, options);
        server.launch(false).await;
        server
    }

    /// For who forgets it: nothing is dropped at the end of a process, but its pipes are closed, which ends the server and removes its folder.
    pub(crate) async fn start_to_the_end(port: Port, options: Options) -> Self {
        let mut server = Self::prepare(port, options);
        server.launch(true).await;
        server
    }

    fn prepare(port: Port, options: Options) -> Self {
        // On no disk where the system allows it.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new()).expect("a temporary folder");
        let Options { password, append_only, tls, sentinel, more } = options;
        let (dir, number) = (folder.path().display(), port.number());
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            "daemonize no".to_owned(),
            format!("dir {dir}"),
            format!("unixsocket {dir}/{SOCKET}"),
        ];
        if let Some(tls) = &tls {
            fs::write(folder.path().join("certificate.pem"), &tls.certificate).expect("a file");
            fs::write(folder.path().join("key.pem"), &tls.key).expect("a file");
            lines.push(format!("port 0\ntls-port {number}\ntls-auth-clients no"));
            fs::write(folder.path().join("authority.pem"), &tls.authority).expect("a file");
            lines.push(format!("tls-cert-file {dir}/certificate.pem\ntls-key-file {dir}/key.pem"));
            lines.push(format!("tls-ca-cert-file {dir}/authority.pem\ntls-replication yes\ntls-cluster yes"));
        } else {
            lines.push(format!("port {number}"));
        }
        if let Some(password) = &password {
            lines.push(format!("requirepass {password}"));
            if !sentinel {
                lines.push(format!("masterauth {password}"));
            }
        }
        if !sentinel {
            // A snapshot is made when a test asks for it.
            lines.push("save \"\"\nenable-debug-command local\nrepl-diskless-sync-delay 0".to_owned());
            lines.push(format!("appendonly {}", if append_only { "yes" } else { "no" }));
        }
        lines.extend(more);
        fs::write(folder.path().join(CONFIG), lines.join("\n") + "\n").expect("a configuration");
        Self { folder, port, password, tls: tls.is_some(), sentinel, running: None }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    pub(crate) fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Holds the password.
    pub(crate) fn url(&self) -> String {
        self.url_by(self.port())
    }

    /// By what stands before it.
    pub(crate) fn url_by(&self, port: u16) -> String {
        // A certificate names the machine.
        let (scheme, host) = if self.tls { ("rediss", "localhost") } else { ("redis", "127.0.0.1") };
        let password = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{scheme}://{password}{host}:{port}")
    }

    async fn launch(&mut self, to_the_end: bool) {
        let folder = self.folder.path();
        let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
        let mut keeper = Command::new("sh");
        keeper
            .arg("-c")
            .arg(KEEPER)
            .arg(binary("redis-server"))
            .arg(folder.join(CONFIG))
            .current_dir(folder)
            .env_clear();
        if self.sentinel {
            keeper.arg("--sentinel");
        }
        keeper.env("PATH", "/usr/bin:/bin").env("REMOVE", if to_the_end { folder } else { Path::new("") });
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().expect("sh starts");
        let mut line = String::new();
        let stdout = keeper.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the number of the process");
        let pid = line.trim().parse().expect("a number");
        self.running = Some(Running { keeper, pid });
        until("Redis answers", async || {
            // Of one that has ended, the number is kept until its keeper asks, but nothing else.
            assert!(fs::read_link(format!("/proc/{pid}/exe")).is_ok(), "Redis has ended: {}", self.log());
            // While it reads its data it answers, but not this.
            (self.try_command(&["PING"]).await.as_deref() == Ok("PONG")).then_some(())
        })
        .await;
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// What it answers, lines of it, to a command that it must not refuse.
    pub(crate) async fn command(&self, arguments: &[&str]) -> String {
        let answer = self.try_command(arguments).await;
        answer.unwrap_or_else(|refused| panic!("{arguments:?}: {refused}"))
    }

    pub(crate) async fn try_command(&self, arguments: &[&str]) -> Result<String, String> {
        let socket = self.folder.path().join(SOCKET);
        self.redis_cli(&[&["-s", &socket.display().to_string()], arguments].concat()).await
    }

    /// Where it asks for another password meanwhile.
    pub(crate) async fn by_password(&self, password: &str, arguments: &[&str]) {
        let socket = self.folder.path().join(SOCKET).display().to_string();
        let done = self.redis_cli(&[&["-s", &socket, "-a", password], arguments].concat()).await;
        assert!(done.is_ok(), "{arguments:?}: {done:?}");
    }

    /// `redis-cli` with these arguments, which say where, and the server's password.
    pub(crate) async fn redis_cli(&self, arguments: &[&str]) -> Result<String, String> {
        let mut client = tokio::process::Command::new(binary("redis-cli"));
        client.env_clear().arg("-e").args(arguments).current_dir(self.folder.path()).kill_on_drop(true);
        if let Some(password) = &self.password {
            client.env("REDISCLI_AUTH", password);
        }
        let asked = tokio::time::timeout(DEADLINE, client.stdin(Stdio::null()).output()).await;
        let output = asked.unwrap_or_else(|_| panic!("no answer to {arguments:?}")).expect("redis-cli starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(format!("{} {}", text(&output.stdout), text(&output.stderr))),
        }
    }

    /// The names of all that it holds.
    pub(crate) async fn keys(&self) -> Vec<String> {
        self.command(&["KEYS", "*"]).await.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// What a field of `INFO` or `CLUSTER INFO` says; nothing where the connection is cut meanwhile, as a sentinel does that makes a replica of it.
    pub(crate) async fn field(&self, arguments: &[&str], name: &str) -> Option<String> {
        let info = self.try_command(arguments).await.ok()?;
        let value = info.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'));
        value.map(str::to_owned)
    }

    /// Writes down all that it holds now: what a restart finds, where not every change is written down.
    pub(crate) async fn snapshot(&self) {
        assert_eq!(self.command(&["SAVE"]).await, "OK");
    }

    /// As by a crash: nothing is finished.
    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.keeper.stdin.take());
            let _ = running.keeper.wait();
        }
    }

    /// After [`Redis::kill`]: at the same place, with the last snapshot and whatever was written down since.
    pub(crate) async fn restart(&mut self) {
        self.launch(false).await;
    }

    /// After [`Redis::kill`]: at the same place, and as if it had never been told anything.
    pub(crate) async fn restart_empty(&mut self) {
        let _ = fs::remove_file(self.folder.path().join("dump.rdb"));
        let _ = fs::remove_dir_all(self.folder.path().join("appendonlydir"));
        self.launch(false).await;
    }

    /// It stands still; connections stay open.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.running.as_ref().expect("a running server").pid;
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid}")).status();
        assert!(sent.is_ok_and(|status| status.success()), "Redis cannot be sent {signal}: {}", self.log());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of Redis at port {} ---\n{}", self.port(), self.log());
        }
        self.kill();
    }
}

/// Asks again and again until the answer is there.
pub(crate) async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

/// A new password.
pub(crate) fn secret() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("chance");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn binary(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/bin";
    let found = path.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        panic!("missing: {name}, of Debian's packages redis-server and redis-tools. `./dev test` installs it.")
    })
}
