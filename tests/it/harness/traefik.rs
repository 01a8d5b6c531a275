//! Traefik with `deploy/traefik`.

use std::{fs, process::Command};

use tempfile::TempDir;

use super::{
    DOMAIN, eventually,
    port::Port,
    program::Program,
    proxy::Proxy,
    repository, tool,
    wire::{self, Request},
};

pub(crate) async fn start(port: Port, postern: u16, app: u16) -> Proxy {
    let folder = TempDir::new().expect("a temporary folder");
    let sample = |file: &str| fs::read_to_string(repository(&format!("deploy/traefik/{file}"))).expect("the sample");
    let write = |file: &str, text: String| fs::write(folder.path().join(file), text).expect("a file");

    // Without TLS, whose certificates come from the internet.
    let own = sample("traefik.yaml")
        .replace(r#"":80""#, r#""127.0.0.1:0""#)
        .replace(r#"":443""#, &format!(r#""127.0.0.1:{}""#, port.number()))
        .replace("    http: { tls: { certResolver: letsencrypt } }\n", "")
        .replace("/etc/traefik/", "")
        .replace("/var/lib/traefik/", "");
    write("traefik.yaml", own + "\nglobal: { checkNewVersion: false, sendAnonymousUsage: false }\n");
    let rules = sample("dynamic.yaml")
        .replace("//127.0.0.1:3000", &format!("//127.0.0.1:{app}"))
        .replace("//127.0.0.1:9091", &format!("//127.0.0.1:{postern}"))
        .replace("example.com", DOMAIN);
    write("dynamic.yaml", rules);

    let mut command = Command::new(tool("traefik"));
    command.env_clear().args(["--configFile=traefik.yaml"]);
    let mut program = Program::start("traefik", folder.path(), &mut command);
    program.listens(port.number()).await;
    // It listens before it has read its rules, and answers 404 until then.
    let portal = Request::get("/").host(format!("auth.{DOMAIN}")).bytes();
    eventually("Traefik has read its rules", || async {
        wire::try_send(port.number(), &portal).await.filter(|reply| reply.status != 404).map(drop)
    })
    .await;
    Proxy { port, _program: program, _folder: folder }
}
