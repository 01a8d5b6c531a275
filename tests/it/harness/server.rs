//! Postern itself: the built binary, in a folder of its own, with the users alice (admins) and bob (dev).

use std::{
    fs,
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
};

use serde_json::json;
use tempfile::TempDir;

use super::{
    DOMAIN,
    port::Port,
    program::Program,
    tls,
    upstream::Upstream,
    wire::{self, Reply, Request},
};

pub(crate) const PASSWORD: &str = "a long word for tests";

/// Rules under which most tests run: `/public` for all, `/admin` for admins, the rest for whoever is signed in.
pub(crate) const POLICIES: &str = r#"
default: deny
rules:
  - { name: public, domain: "*.test.localhost", path: ["/public", "/public/**"], policy: bypass }
  - { name: admins, domain: "*.test.localhost", path: ["/admin", "/admin/**"], policy: one_factor, subject: "group:admins" }
  - { name: not admins, domain: "*.test.localhost", path: ["/admin", "/admin/**"], policy: deny }
  - { name: vault, domain: "*.test.localhost", path: ["/vault/**"], policy: two_factor }
  - { name: members, domain: "app.test.localhost", policy: one_factor }
"#;

/// What is configured. The fields hold YAML.
pub(crate) struct Setup {
    pub(crate) policies: String,
    /// More keys of the edge listener, of the forward-auth listener, of `server`, of the route; each begins with a comma.
    pub(crate) edge: String,
    pub(crate) forward_auth: String,
    pub(crate) server: String,
    pub(crate) route: String,
    /// More keys of the upstream.
    pub(crate) upstream: String,
    /// `portal:` and `session:`; `PORT` stands for the port by which browsers come.
    pub(crate) portal: String,
    pub(crate) session: String,
    pub(crate) storage: String,
    /// More top-level lines.
    pub(crate) more: String,
    /// The port by which browsers come, where it is not the edge listener's.
    pub(crate) public_port: Option<u16>,
    /// Files to write below the folder before the start.
    pub(crate) files: Vec<(String, String)>,
    /// All that the program knows of the environment.
    pub(crate) environment: Vec<(&'static str, String)>,
    upstream_port: u16,
}

impl Setup {
    pub(crate) fn with(upstream: &Upstream) -> Self {
        Self::with_upstream_at(upstream.port())
    }

    pub(crate) fn with_upstream_at(upstream_port: u16) -> Self {
        Self {
            policies: POLICIES.to_owned(),
            edge: String::new(),
            forward_auth: ", trusted_proxies: [127.0.0.1/32]".to_owned(),
            server: String::new(),
            route: String::new(),
            upstream: String::new(),
            portal: format!("{{ url: \"http://auth.{DOMAIN}:PORT\" }}"),
            session: format!("{{ cookies: [{{ domain: {DOMAIN} }}] }}"),
            storage: "{ database: \"sqlite://data/postern.db\", key_file: data/postern.key }".to_owned(),
            more: String::new(),
            public_port: None,
            files: Vec::new(),
            environment: Vec::new(),
            upstream_port,
        }
    }

    pub(crate) fn policies(mut self, policies: &str) -> Self {
        self.policies = policies.to_owned();
        self
    }

    /// PostgreSQL; `key_folder`: the folder of the node that makes the storage key.
    pub(crate) fn postgres(mut self, url: &str, key_folder: Option<&Path>) -> Self {
        let key = key_folder.unwrap_or(Path::new("")).join("data/postern.key");
        self.storage = format!("{{ database: \"{url}\", key_file: \"{}\" }}", key.display());
        self
    }

    /// In Redis; the rest of the storage is as said until here.
    pub(crate) fn sessions(mut self, url: &str) -> Self {
        let rest = self.storage.strip_suffix(" }").expect("a mapping");
        self.storage = format!("{rest}, sessions: \"{url}\" }}");
        self
    }

    /// The edge speaks TLS, and the portal's URL says so.
    pub(crate) fn edge_over_tls(mut self, identity: &tls::Identity) -> Self {
        self.edge = tls::setting();
        self.portal = format!("{{ url: \"https://auth.{DOMAIN}:PORT\" }}");
        self.files = identity.files();
        self
    }

    /// Both roles speak TLS.
    pub(crate) fn over_tls(self, identity: &tls::Identity) -> Self {
        let mut setup = self.edge_over_tls(identity);
        setup.forward_auth += &tls::setting();
        setup
    }

    /// Browsers come by another program, which listens there.
    pub(crate) fn behind(mut self, port: &Port) -> Self {
        self.public_port = Some(port.number());
        self
    }

    pub(crate) async fn start(self) -> Server {
        let mut server = self.prepare();
        server.launch().await;
        server
    }

    /// Everything but the start.
    pub(crate) fn prepare(self) -> Server {
        let server = self.prepare_without_users();
        server.add_user("alice", &["--name", "Alice Ä.", "--email", "alice@example.com", "--groups", "admins,dev"]);
        server.add_user("bob", &["--email", "bob@example.com", "--groups", "dev"]);
        server
    }

    /// For a configuration with which no command can work.
    pub(crate) fn prepare_without_users(self) -> Server {
        let folder = super::folder();
        let ports = Ports { edge: Port::free(), forward_auth: Port::free(), admin: Port::free() };
        let public_port = self.public_port.unwrap_or(ports.edge.number());
        let config = self.config(&ports).replace("PORT", &public_port.to_string());
        write(folder.path(), "config/postern.yaml", &config);
        write(folder.path(), "policies/access.yaml", &self.policies);
        for (name, content) in &self.files {
            write(folder.path(), name, content);
        }
        fs::create_dir_all(folder.path().join("data")).expect("a data folder");
        Server { program: None, ports, public_port, environment: self.environment, folder }
    }

    fn config(&self, ports: &Ports) -> String {
        let Self { edge, forward_auth, server, route, upstream, portal, session, storage, more, upstream_port, .. } =
            self;
        format!(
            r#"server:
  listeners:
    - {{ address: "127.0.0.1:{}", serves: edge{edge} }}
    - {{ address: "127.0.0.1:{}", serves: forward_auth{forward_auth} }}
  admin: "127.0.0.1:{}"
{server}portal: {portal}
session: {session}
storage: {storage}
upstreams:
  app: {{ servers: ["http://127.0.0.1:{upstream_port}"]{upstream} }}
routes:
  - {{ name: app, host: "*.{DOMAIN}", upstream: app{route} }}
policies: policies/
{more}"#,
            ports.edge.number(),
            ports.forward_auth.number(),
            ports.admin.number(),
        )
    }
}

struct Ports {
    edge: Port,
    forward_auth: Port,
    admin: Port,
}

pub(crate) struct Server {
    program: Option<Program>,
    ports: Ports,
    public_port: u16,
    environment: Vec<(&'static str, String)>,
    folder: TempDir,
}

/// The secrets of a sign-in.
pub(crate) struct SignedIn {
    /// `postern_session=…`
    pub(crate) gate: String,
    /// `postern_portal=…`
    pub(crate) portal: String,
    pub(crate) access_token: String,
    pub(crate) refresh_token: String,
    pub(crate) session_id: String,
}

impl From<&Reply> for SignedIn {
    fn from(reply: &Reply) -> Self {
        let cookie = |names: &[&str]| {
            let found = names.iter().find_map(|name| reply.set_cookie(name).map(|value| format!("{name}={value}")));
            found.unwrap_or_else(|| panic!("none of the cookies {names:?} in {reply:?}"))
        };
        let body = reply.json();
        let text = |key: &str| body[key].as_str().unwrap_or_else(|| panic!("no {key} in {body}")).to_owned();
        Self {
            gate: cookie(&["postern_session"]),
            portal: cookie(&["postern_portal", "__Host-postern_portal"]),
            access_token: text("access_token"),
            refresh_token: body["refresh_token"].as_str().unwrap_or_default().to_owned(),
            session_id: text("session_id"),
        }
    }
}

impl SignedIn {
    /// Both cookies, as a browser sends them to the portal.
    pub(crate) fn both(&self) -> String {
        format!("{}; {}", self.gate, self.portal)
    }
}

impl Server {
    pub(crate) fn edge(&self) -> u16 {
        self.ports.edge.number()
    }

    pub(crate) fn forward_auth(&self) -> u16 {
        self.ports.forward_auth.number()
    }

    pub(crate) fn admin(&self) -> u16 {
        self.ports.admin.number()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `app.test.localhost:PORT`, as a browser names it.
    pub(crate) fn app(&self) -> String {
        format!("app.{DOMAIN}:{}", self.public_port)
    }

    pub(crate) fn auth(&self) -> String {
        format!("auth.{DOMAIN}:{}", self.public_port)
    }

    /// The program as a command of the shell, with the environment of the set-up alone.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = postern(arguments);
        command.current_dir(self.folder.path()).envs(self.environment.iter().cloned());
        command
    }

    pub(crate) async fn launch(&mut self) {
        let mut program = Program::start("postern", self.folder.path(), &mut self.command(&["serve"]));
        program.show_on_failure(self.folder.path().join("config/postern.yaml"));
        self.program.insert(program).answers(self.ports.admin.number(), "/readyz").await;
    }

    /// SIGTERM, and the exit code 0 that must follow.
    pub(crate) async fn stop(&mut self) {
        self.signal("TERM");
        let status = self.running().end().await;
        assert_eq!(status.code(), Some(0), "after SIGTERM");
    }

    pub(crate) fn signal(&mut self, signal: &str) {
        self.running().signal(signal);
    }

    pub(crate) fn running(&mut self) -> &mut Program {
        self.program.as_mut().expect("a running server")
    }

    pub(crate) fn program(&self) -> &Program {
        self.program.as_ref().expect("a running server")
    }

    pub(crate) fn log(&self) -> String {
        self.program.as_ref().map(Program::log).unwrap_or_default()
    }

    pub(crate) fn write(&self, file: &str, content: &str) {
        write(self.folder.path(), file, content);
    }

    pub(crate) fn add_user(&self, name: &str, options: &[&str]) {
        let arguments = [&["user", "add", name, "--password-stdin"], options].concat();
        let output = feed(&mut self.command(&arguments), PASSWORD);
        assert!(output.status.success(), "user add {name}: {output:?}");
    }

    /// A command that must succeed; what it printed.
    pub(crate) fn run(&self, arguments: &[&str]) -> String {
        let output = feed(&mut self.command(arguments), PASSWORD);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// By the API, as a program would.
    pub(crate) async fn sign_in(&self, user: &str) -> SignedIn {
        self.sign_in_with(user, &[]).await
    }

    pub(crate) async fn sign_in_with(&self, user: &str, headers: &[(&str, &str)]) -> SignedIn {
        let reply = self.login(user, PASSWORD, headers).await;
        assert_eq!(reply.status, 200, "sign-in of {user}: {reply:?}");
        SignedIn::from(&reply)
    }

    pub(crate) async fn login(&self, user: &str, password: &str, headers: &[(&str, &str)]) -> Reply {
        let mut request = Request::new("POST", "/auth/login").host(self.auth());
        for (name, value) in headers {
            request = request.header(name, *value);
        }
        self.portal(request.json(&json!({ "username": user, "password": password }))).await
    }

    /// A request to the portal, by the forward-auth listener (plain, whatever the edge speaks).
    pub(crate) async fn portal(&self, request: Request) -> Reply {
        let request = if request.host.is_none() { request.host(self.auth()) } else { request };
        wire::send(self.forward_auth(), &request.bytes()).await
    }

    pub(crate) async fn ask(&self, role: Role, request: &Request) -> Reply {
        let host = request.host.clone().unwrap_or_else(|| self.app());
        match role {
            Role::Edge => wire::send(self.edge(), &request.clone().host(host).bytes()).await,
            Role::ForwardAuth => {
                let mut question = Request::get("/api/authz/forward-auth").host("postern");
                question = question
                    .header("X-Forwarded-Method", &request.method)
                    .header("X-Forwarded-Proto", "http")
                    .header("X-Forwarded-Host", host)
                    .header("X-Forwarded-Uri", &request.target)
                    .header("X-Forwarded-For", "198.51.100.7");
                question.headers.extend(request.headers.iter().cloned());
                wire::send(self.forward_auth(), &question.bytes()).await
            }
        }
    }

    /// The value of a metric with these labels (in any order); 0 where it was never counted.
    pub(crate) async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let reply = wire::send(self.admin(), &Request::get("/metrics").host("localhost").bytes()).await;
        let lines = reply.body.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}

/// Who is asked: the edge itself, or the forward-auth listener in the place of a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Edge,
    ForwardAuth,
}

impl Role {
    pub(crate) const BOTH: [Self; 2] = [Self::Edge, Self::ForwardAuth];
}

/// The built program with a cleared environment.
pub(crate) fn postern(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postern"));
    command.env_clear().args(arguments);
    command
}

/// Runs a command to its end with `input` on its standard input.
pub(crate) fn feed(command: &mut Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that reads nothing has closed it already.
    let _ = writeln!(stdin, "{input}");
    drop(stdin);
    child.wait_with_output().expect("its output")
}

pub(crate) fn write(folder: &Path, file: &str, content: &str) {
    let path = folder.join(file);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    // Whole or not at all: the running server watches.
    let half = path.with_extension("half-written");
    fs::write(&half, content).expect("a file");
    fs::rename(&half, &path).expect("a file");
}
