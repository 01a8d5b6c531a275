//! NGINX with `deploy/nginx`.

use std::{fs, process::Command};

use tempfile::TempDir;

use super::{DOMAIN, port::Port, program::Program, proxy::Proxy, repository, tool};

pub(crate) async fn start(port: Port, postern: u16, app: u16) -> Proxy {
    let folder = TempDir::new().expect("a temporary folder");
    for file in ["nginx.conf", "postern-ask.conf", "postern-protect.conf"] {
        let sample = fs::read_to_string(repository("deploy/nginx").join(file)).expect("the sample");
        let here = sample
            .replace("127.0.0.1:9091", &format!("127.0.0.1:{postern}"))
            .replace("127.0.0.1:3000", &format!("127.0.0.1:{app}"))
            .replace("listen 80", &format!("listen 127.0.0.1:{}", port.number()))
            .replace("example.com", DOMAIN);
        fs::write(folder.path().join(file), here).expect("a file");
    }
    // In the foreground, as the user who runs the tests, with its scratch files here. Debian's build would put them
    // where only root may write.
    let mut directives = "daemon off; master_process off; error_log stderr warn;".to_owned();
    directives += &format!(" pid {};", folder.path().join("nginx.pid").display());
    let config = folder.path().join("nginx.conf");
    let mut scratch = String::from("http {\n");
    for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
        scratch += &format!("    {kind}_temp_path {};\n", folder.path().join(kind).display());
    }
    scratch += "    access_log off;\n";
    let sample = fs::read_to_string(&config).expect("the sample");
    fs::write(&config, sample.replacen("http {\n", &scratch, 1)).expect("a file");
    let mut command = Command::new(tool("nginx"));
    command.env_clear().arg("-c").arg(&config).arg("-g").arg(directives).arg("-p").arg(folder.path());
    let mut program = Program::start("nginx", folder.path(), &mut command);
    program.listens(port.number()).await;
    Proxy { port, _program: program, _folder: folder }
}
