//! Envoy with `deploy/envoy`.

use std::{fs, process::Command};

use tempfile::TempDir;

use super::{DOMAIN, port::Port, program::Program, proxy::Proxy, repository, tool};

pub(crate) async fn start(port: Port, postern: u16, app: u16) -> Proxy {
    let folder = TempDir::new().expect("a temporary folder");
    let sample = fs::read_to_string(repository("deploy/envoy/envoy.yaml")).expect("the sample");
    let address = |port: u16| format!("address: 127.0.0.1, port_value: {port} ");
    let here = sample
        .replace("address: 0.0.0.0, port_value: 80 ", &address(port.number()))
        .replace("address: 127.0.0.1, port_value: 3000 ", &address(app))
        .replace("address: 127.0.0.1, port_value: 9091 ", &address(postern))
        .replace("example.com", DOMAIN);
    fs::write(folder.path().join("envoy.yaml"), here).expect("a file");
    let mut command = Command::new(tool("envoy"));
    command.env_clear().args(["-c", "envoy.yaml", "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]);
    let mut program = Program::start("envoy", folder.path(), &mut command);
    program.listens(port.number()).await;
    Proxy { port, _program: program, _folder: folder }
}
