//! A PostgreSQL server of the tests' own: its data in a temporary folder, a socket in the same one, a port where a test asks for it. Never outlives
//! the process that started it, however that ends. PostgreSQL refuses to run as root: there the server is `nobody`'s.

use std::{
    fs::{self, File},
    io::{BufRead as _, BufReader},
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use sqlx::{AssertSqlSafe, Connection as _, Executor as _, PgConnection};
use tempfile::TempDir;
use tokio::sync::OnceCell;

/// Longest that it may take to start on a busy machine.
const DEADLINE: Duration = Duration::from_secs(60);
/// Nothing is lost that a test looks for: the machine does not lose its power.
pub(crate) const IN_MEMORY: [&str; 2] = ["fsync=off", "full_page_writes=off"];
/// Keeps the server as long as its own standard input is open, which is as long as the test's process lives.
const KEEPER: &str =
    r#""$0" "$@" & echo $!; read -r _; kill -QUIT $!; kill -CONT $!; wait $!; [ -z "$REMOVE" ] || rm -rf "$REMOVE""#;

pub(crate) struct Postgres {
    folder: TempDir,
    settings: Vec<String>,
    running: Option<Running>,
}

struct Running {
    keeper: Child,
    pid: u32,
}

impl Postgres {
    /// A database of its own on the server that all tests of this process share, and its URL.
    pub(crate) async fn shared_database() -> String {
        static SHARED: OnceCell<String> = OnceCell::const_new();
        new_database(SHARED.get_or_init(Self::start_shared).await).await
    }

    async fn start_shared() -> String {
        let mut server = Self::prepare(&IN_MEMORY);
        server.launch(true).await;
        let url = server.url();
        // Nothing is dropped at the end of a process, but its pipes are closed, which ends the server and removes its folder.
        std::mem::forget(server);
        url
    }

    /// A server for one test. `settings`: `name=value`.
    pub(crate) async fn start(settings: &[&str]) -> Self {
        let mut server = Self::prepare(settings);
        server.launch(false).await;
        server
    }

    fn prepare(settings: &[&str]) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        if let Some((user, group)) = unprivileged() {
            chown(folder.path(), Some(user), Some(group)).expect("the folder given away");
        }
        let mut initdb = command(&binary("initdb"), folder.path());
        let made = initdb
            .args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg(folder.path().join("data"))
            .output()
            .expect("initdb starts");
        assert!(made.status.success(), "initdb: {made:?}");
        Self { folder, settings: settings.iter().map(|&setting| setting.to_owned()).collect(), running: None }
    }

    /// Of the server, by its socket.
    fn url(&self) -> String {
        let host = self.folder.path().display().to_string().replace('/', "%2F");
        let port = self.settings.iter().find_map(|setting| setting.strip_prefix("port=")).unwrap_or("5432");
        format!("postgres://postgres@{host}:{port}")
    }

    /// Where `pg_hba.conf` and certificates go.
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// A database of its own, and its URL by the socket.
    pub(crate) async fn database(&self) -> String {
        new_database(&self.url()).await
    }

    /// After [`Postgres::stop`]: on the same data, at the same place.
    pub(crate) async fn restart(&mut self) {
        self.launch(false).await;
    }

    async fn launch(&mut self, to_the_end: bool) {
        let folder = self.folder.path();
        let log = File::options().create(true).append(true).open(folder.join("log")).expect("a log file");
        let mut keeper = command(Path::new("sh"), folder);
        keeper.arg("-c").arg(KEEPER).arg(binary("postgres")).arg("-D").arg(self.data());
        keeper.env("REMOVE", if to_the_end { folder } else { Path::new("") });
        for setting in ["listen_addresses=", "max_connections=300", "timezone=UTC"]
            .into_iter()
            .map(str::to_owned)
            .chain([format!("unix_socket_directories={}", folder.display())])
            .chain(self.settings.iter().cloned())
        {
            keeper.arg("-c").arg(setting);
        }
        let mut keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn().expect("sh starts");
        let mut line = String::new();
        let stdout = keeper.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the number of the process");
        let pid = line.trim().parse().expect("a number");
        self.running = Some(Running { keeper, pid });
        let starting = async {
            while !self.is_ready() {
                assert!(Path::new(&format!("/proc/{pid}")).exists(), "PostgreSQL has ended: {}", self.log());
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        assert!(tokio::time::timeout(DEADLINE, starting).await.is_ok(), "PostgreSQL does not start: {}", self.log());
    }

    /// Its own word, in the last line of its lock file.
    fn is_ready(&self) -> bool {
        let lock = fs::read_to_string(self.data().join("postmaster.pid")).unwrap_or_default();
        lock.lines().last().is_some_and(|line| ["ready", "standby"].contains(&line.trim()))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// As by a crash: nothing is finished.
    pub(crate) fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.keeper.stdin.take());
            let _ = running.keeper.wait();
        }
    }

    /// Every process of it stands still; connections stay open.
    pub(crate) fn pause(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.running.as_ref().expect("a running server").pid;
        // The parent first: a child that it made meanwhile would be missed.
        send(signal, &[pid]);
        send(signal, &children(pid));
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of PostgreSQL ---\n{}", self.log());
        }
        if self.running.is_some() {
            // A process that stands still would not hear that it is to end.
            self.resume();
        }
        self.stop();
    }
}

async fn new_database(server: &str) -> String {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut connection = PgConnection::connect(&format!("{server}/postgres")).await.expect("a connection");
    let create = AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0"));
    connection.execute(create).await.expect("a new database");
    connection.close().await.expect("the end");
    format!("{server}/{name}")
}

fn send(signal: &str, processes: &[u32]) {
    for pid in processes {
        // One that has ended meanwhile needs no signal.
        let _ = Command::new("sh").arg("-c").arg(format!("kill -{signal} {pid} 2>/dev/null")).status();
    }
}

fn children(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parent_of = |pid: &u32| {
        let about = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name of the program may hold anything, brackets too.
        about.rsplit(')').next()?.split_whitespace().nth(1)?.parse::<u32>().ok()
    };
    numbers.filter(|pid| parent_of(pid) == Some(parent)).collect()
}

/// With an environment of its own, and as somebody whom PostgreSQL accepts.
fn command(program: &Path, folder: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C").current_dir(folder);
    if let Some((user, group)) = unprivileged() {
        command.uid(user).gid(group);
    }
    command
}

/// User and group of `nobody`, where this is root.
fn unprivileged() -> Option<(u32, u32)> {
    if fs::metadata("/proc/self").expect("/proc").uid() != 0 {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let nobody = users.lines().find_map(|line| line.strip_prefix("nobody:"));
    let numbers = nobody.and_then(|line| {
        let mut fields = line.split(':').skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    Some(
        numbers
            .expect("PostgreSQL refuses to run as root, and there is no user `nobody`: run the tests as another user"),
    )
}

/// Debian keeps the server out of everybody's path, below its version.
fn binary(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let newest = versions.max_by_key(|entry| entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    let debian = newest.map(|entry| entry.path().join("bin").join(name)).filter(|path| path.is_file());
    let path = std::env::var("PATH").unwrap_or_default();
    let found =
        debian.or_else(|| path.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file()));
    found.unwrap_or_else(|| panic!("missing: {name}, of the package postgresql. `./dev test` installs it."))
}
