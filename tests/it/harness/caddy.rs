//! Caddy with `deploy/caddy`.

use std::{fs, process::Command};

use tempfile::TempDir;

use super::{DOMAIN, port::Port, program::Program, proxy::Proxy, repository, tool};

pub(crate) async fn start(port: Port, postern: u16, app: u16) -> Proxy {
    let folder = TempDir::new().expect("a temporary folder");
    let sample = fs::read_to_string(repository("deploy/caddy/Caddyfile")).expect("the sample");
    // Caddy's own administration would take a fixed port.
    let options = "{\n\tadmin off\n\tpersist_config off\n\tdefault_bind 127.0.0.1\n}\n";
    fs::write(folder.path().join("Caddyfile"), options.to_owned() + &sample).expect("a file");
    let mut command = Command::new(tool("caddy"));
    command
        .env_clear()
        .env("XDG_DATA_HOME", folder.path())
        .env("XDG_CONFIG_HOME", folder.path())
        .env("APP_ADDRESS", format!("http://app.{DOMAIN}:{}", port.number()))
        .env("AUTH_ADDRESS", format!("http://auth.{DOMAIN}:{}", port.number()))
        .env("APP", format!("127.0.0.1:{app}"))
        .env("POSTERN", format!("127.0.0.1:{postern}"))
        .args(["run", "--config", "Caddyfile", "--adapter", "caddyfile"]);
    let mut program = Program::start("caddy", folder.path(), &mut command);
    program.listens(port.number()).await;
    Proxy { port, _program: program, _folder: folder }
}
