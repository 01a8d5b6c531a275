use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use secrecy::SecretString;

use super::password;
use crate::{
    app::{self, Server, echo},
    core::user::User,
};

/// Try Postern: no configuration, nothing left behind
///
/// Starts an application, a portal and two users in a throw-away folder, and prints where to go. Ctrl-C ends it and removes
/// the folder.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Port on 127.0.0.1
    #[arg(long, value_name = "N", default_value_t = 8080)]
    port: u16,
}

const POLICIES: &str = "\
default: deny
rules:
  - { name: redirect to the demo, domain: [127.0.0.1, localhost], policy: bypass }
  - { name: public pages, domain: app.demo.localhost, path: ['/public/**'], policy: bypass }
  - { name: administration, domain: app.demo.localhost, path: ['/admin', '/admin/**'], subject: 'group:admins', policy: one_factor }
  - { name: nobody else administers, domain: app.demo.localhost, path: ['/admin', '/admin/**'], policy: deny }
  - { name: the vault, domain: app.demo.localhost, path: ['/vault', '/vault/**'], policy: two_factor }
  - { name: signed in, domain: app.demo.localhost, policy: one_factor }
";

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let folder = tempfile::Builder::new().prefix("postern-demo-").tempdir().context("cannot create a folder")?;
    let done = app::runtime()?.block_on(demo(&args, folder.path()));
    // Said apart from the drop, which would keep quiet about a folder that it cannot remove.
    let path = folder.path().to_owned();
    folder.close().with_context(|| format!("cannot remove {}", path.display()))?;
    done?;
    Ok(ExitCode::SUCCESS)
}

async fn demo(args: &Args, folder: &Path) -> anyhow::Result<()> {
    let port = args.port;
    let echo_socket = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let demo = echo::Demo {
        app: format!("http://app.demo.localhost:{port}"),
        portal: format!("http://auth.demo.localhost:{port}"),
    };
    let file = write_files(folder, port, echo_socket.local_addr()?, &demo)?;
    let loaded = app::load(&file)?;
    app::start_logs(&loaded.settings)?;

    let stores = app::open_stores(&file).await?;
    let mut passwords = Vec::new();
    for (name, display_name, groups) in
        [("alice", "Alice Admin", &["admins", "staff"][..]), ("bob", "Bob Builder", &["staff"])]
    {
        let password = password::random(&*stores.entropy);
        let hash = stores.hasher.hash(SecretString::from(password.clone())).await?;
        let user = User {
            display_name: display_name.to_owned(),
            email: Some(format!("{name}@demo.localhost")),
            ..User::new(name, groups.iter().map(|group| (*group).to_owned()).collect())
        };
        stores.users.insert(user, Some(hash)).await?;
        passwords.push((name, groups.join(", "), password));
    }
    drop(stores);

    let server = Server::start(&file, loaded).await?;
    let application = echo::serve(echo_socket, demo.clone())?;
    say(&demo, &passwords)?;
    server.run().await?;
    application.abort();
    writeln!(io::stdout(), "\nThe demo has ended; its folder is removed.")?;
    Ok(())
}

fn say(demo: &echo::Demo, passwords: &[(&str, String, String)]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "\nPostern is running. Open\n\n  {}\n\nand sign in as one of", demo.app)?;
    for (name, groups, password) in passwords {
        writeln!(out, "\n  user      {name}\n  password  {password}\n  groups    {groups}")?;
    }
    writeln!(out, "\nThe portal is {}. Ctrl-C ends the demo and removes everything.", demo.portal)?;
    out.flush()
}

/// Writes the demo's configuration; a person may look at it while the demo runs.
fn write_files(
    folder: &Path,
    port: u16,
    upstream: SocketAddr,
    demo: &echo::Demo,
) -> anyhow::Result<std::path::PathBuf> {
    let quoted = |path: std::path::PathBuf| serde_json::Value::from(path.display().to_string()).to_string();
    let policies = folder.join("policies");
    fs::create_dir(&policies)?;
    fs::write(policies.join("demo.yaml"), POLICIES)?;
    let database = format!("sqlite://{}", folder.join("postern.db").display());
    let config = format!(
        "server:
  listeners: [{{ address: '127.0.0.1:{port}', serves: edge }}]
  admin: none
  control: none
  drain: 2s
log: {{ format: text, level: error, access: off }}
portal: {{ url: '{portal}' }}
session: {{ cookies: [{{ domain: demo.localhost, default_redirect: '{app}/' }}] }}
storage: {{ database: {database}, key_file: {key} }}
upstreams: {{ demo: {{ servers: ['http://{upstream}'] }} }}
routes:
  - {{ name: demo, host: app.demo.localhost, upstream: demo }}
  - {{ name: redirect, host: 127.0.0.1, upstream: demo }}
  - {{ name: redirect by name, host: localhost, upstream: demo }}
policies: {policies}
",
        portal = demo.portal,
        app = demo.app,
        database = serde_json::Value::from(database),
        key = quoted(folder.join("postern.key")),
        policies = quoted(policies),
    );
    let file = folder.join("postern.yaml");
    fs::write(&file, config)?;
    Ok(file)
}
