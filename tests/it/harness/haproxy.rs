//! HAProxy with `deploy/haproxy`.

use std::{fs, process::Command};

use tempfile::TempDir;

use super::{DOMAIN, port::Port, program::Program, proxy::Proxy, repository, tool};

pub(crate) async fn start(port: Port, postern: u16, app: u16) -> Proxy {
    let folder = TempDir::new().expect("a temporary folder");
    let sample = fs::read_to_string(repository("deploy/haproxy/haproxy.cfg")).expect("the sample");
    fs::write(folder.path().join("haproxy.cfg"), sample.replace("example.com", DOMAIN)).expect("a file");
    let mut command = Command::new(tool("haproxy"));
    command
        .env_clear()
        .env("LISTEN", format!("127.0.0.1:{}", port.number()))
        .env("APP", format!("127.0.0.1:{app}"))
        .env("POSTERN", format!("127.0.0.1:{postern}"))
        .env("POSTERN_LUA", repository("deploy/haproxy/postern.lua"))
        .args(["-db", "-f", "haproxy.cfg"]);
    let mut program = Program::start("haproxy", folder.path(), &mut command);
    program.listens(port.number()).await;
    Proxy { port, _program: program, _folder: folder }
}
