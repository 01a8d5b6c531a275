//! The main job on a real application: JupyterLab, which knows no sign-in here, is used through Postern's edge. Its pages, its
//! REST interface with large bodies, and kernels over their WebSocket.

use std::{fs, process::Command};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, client::IntoClientRequest},
};

use crate::harness::{
    DEADLINE,
    browser::Browser,
    port::Port,
    program::Program,
    server::{PASSWORD, Server, Setup},
    tool,
    wire::{self, Reply, Request},
    within,
};

/// Postern before JupyterLab. Fields are dropped in order: programs before their folder.
struct Lab {
    server: Server,
    _jupyter: Program,
    _port: Port,
    _folder: TempDir,
}

type Socket = WebSocketStream<TcpStream>;

impl Lab {
    /// JupyterLab asks nobody who they are: that is Postern's part.
    async fn start() -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let port = Port::free();
        let home = folder.path();
        fs::create_dir(home.join("work")).expect("a folder");
        let mut command = Command::new(tool("jupyter-lab"));
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", home)
            .env("JUPYTER_CONFIG_DIR", home.join("config"))
            .env("JUPYTER_DATA_DIR", home.join("data"))
            .env("JUPYTER_RUNTIME_DIR", home.join("runtime"))
            .env("IPYTHONDIR", home.join("ipython"))
            .args(["--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port_retries=0"])
            .arg(format!("--ServerApp.port={}", port.number()))
            .arg(format!("--ServerApp.root_dir={}", home.join("work").display()))
            .args(["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"])
            .args(["--ServerApp.allow_remote_access=True", "--LabApp.news_url=None"])
            .arg("--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate");
        let mut jupyter = Program::start("jupyter-lab", home, &mut command);
        jupyter.answers(port.number(), "/api").await;
        let server = Setup::with_upstream_at(port.number()).start().await;
        Self { server, _jupyter: jupyter, _port: port, _folder: folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.app())
    }

    async fn send(&self, request: Request) -> Reply {
        wire::send(self.server.edge(), &request.host(self.server.app()).bytes()).await
    }

    async fn start_kernel(&self, cookie: &str) -> String {
        let request = Request::new("POST", "/api/kernels").cookie(cookie).json(&json!({ "name": "python3" }));
        let reply = self.send(request).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.json()["id"].as_str().expect("its id").to_owned()
    }

    /// The channels of a kernel, as a page of `origin` opens them; or the status of the refusal.
    async fn channels(&self, kernel: &str, cookie: Option<&str>, origin: &str) -> Result<Socket, u16> {
        let url = self.url(&format!("/api/kernels/{kernel}/channels?session_id=test")).replacen("http", "ws", 1);
        let mut request = url.into_client_request().expect("a request");
        request.headers_mut().insert("Origin", origin.parse().expect("an origin"));
        if let Some(cookie) = cookie {
            request.headers_mut().insert("Cookie", cookie.parse().expect("a cookie"));
        }
        let stream = TcpStream::connect(("127.0.0.1", self.server.edge())).await.expect("a connection");
        match client_async(request, stream).await {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(fault) => panic!("{fault}"),
        }
    }
}

#[tokio::test]
async fn jupyterlab_opens_for_whoever_is_signed_in() {
    let lab = Lab::start().await;
    let page = || Request::get("/lab?reset").page();
    let anonymous = lab.send(page()).await;
    assert_eq!(anonymous.status, 302);
    assert!(anonymous.location().starts_with(&format!("http://{}/?rd=", lab.server.auth())), "{anonymous:?}");
    let api = lab.send(Request::get("/api/contents").header("Accept", "application/json")).await;
    assert_eq!(api.status, 401, "{api:?}");

    let alice = lab.server.sign_in("alice").await;
    let opened = lab.send(page().cookie(alice.gate)).await;
    assert_eq!(opened.status, 200);
    assert!(opened.body.contains("jupyter-config-data"), "{}", opened.body);
}

#[tokio::test]
async fn large_files_come_and_go_through_jupyterlab() {
    let lab = Lab::start().await;
    let cookie = lab.server.sign_in("alice").await.gate;
    let lines: String = (0..60_000).map(|number| format!("line {number} of a long file, with an ä in it\n")).collect();
    assert!(lines.len() > 2_500_000);
    let file = json!({ "type": "file", "format": "text", "content": lines });
    let path = "/api/contents/large%20file.txt";

    let anonymous = lab.send(Request::new("PUT", path).json(&file)).await;
    assert_eq!(anonymous.status, 401, "{anonymous:?}");
    let saved = lab.send(Request::new("PUT", path).cookie(cookie.clone()).json(&file)).await;
    assert_eq!(saved.status, 201, "{saved:?}");
    let read = lab.send(Request::get(path).cookie(cookie.clone())).await;
    assert_eq!(read.status, 200);
    assert!(read.json()["content"] == *lines, "what comes back differs");
    let download = lab.send(Request::get("/files/large%20file.txt").cookie(cookie.clone())).await;
    assert_eq!(download.status, 200);
    assert!(download.body == lines, "what is downloaded differs");
    let removed = lab.send(Request::new("DELETE", path).cookie(cookie)).await;
    assert_eq!(removed.status, 204, "{removed:?}");
}

#[tokio::test]
async fn a_kernel_computes_over_its_websocket() {
    let lab = Lab::start().await;
    let cookie = lab.server.sign_in("alice").await.gate;
    let own = lab.url("");
    let kernel = lab.start_kernel(&cookie).await;

    let foreign = lab.channels(&kernel, Some(&cookie), "http://evil.example").await;
    assert_eq!(foreign.err(), Some(401), "a foreign page's handshake counts as nobody's");
    let neighbour = lab.channels(&kernel, Some(&cookie), &format!("http://other.{}", lab.server.app())).await;
    assert_eq!(neighbour.err(), Some(401), "so does a neighbour's");
    let anonymous = lab.channels(&kernel, None, &own).await;
    assert_eq!(anonymous.err(), Some(401));

    let mut socket = lab.channels(&kernel, Some(&cookie), &own).await.expect("a WebSocket");
    assert_eq!(execute(&mut socket, "6*7").await, "42");
    // An answer of a megabyte, in one message.
    let long = execute(&mut socket, "'postern' * 150_000").await;
    assert_eq!(long.matches("postern").count(), 150_000);

    socket.close(None).await.expect("a close");
    let stopped = lab.send(Request::new("DELETE", &format!("/api/kernels/{kernel}")).cookie(cookie)).await;
    assert_eq!(stopped.status, 204, "{stopped:?}");
}

/// The value that a line of Python has.
async fn execute(socket: &mut Socket, code: &str) -> String {
    let id = format!("execute {code}");
    let message = json!({
        "channel": "shell",
        "header": {
            "msg_id": id, "msg_type": "execute_request", "username": "", "session": "test",
            "date": "2026-01-01T00:00:00Z", "version": "5.3",
        },
        "parent_header": {},
        "metadata": {},
        "content": {
            "code": code, "silent": false, "store_history": false, "user_expressions": {}, "allow_stdin": false,
            "stop_on_error": true,
        },
        "buffers": [],
    });
    socket.send(message.to_string().into()).await.expect("a message sent");
    within(DEADLINE, &format!("the value of {code}"), async {
        loop {
            let message = socket.next().await.expect("a message").expect("a message");
            let Ok(text) = message.to_text() else { continue };
            let Ok(message) = serde_json::from_str::<Value>(text) else { continue };
            if message["parent_header"]["msg_id"] != *id {
                continue;
            }
            assert_ne!(message["msg_type"], "error", "{message}");
            if message["msg_type"] == "execute_result" {
                return message["content"]["data"]["text/plain"].as_str().expect("text").to_owned();
            }
        }
    })
    .await
}

/// What a person sees, from the sign-in on: the whole of the interface loads, and its kernel computes.
#[tokio::test]
async fn jupyterlab_works_in_a_browser() {
    let lab = Lab::start().await;
    let browser = Browser::start().await;
    let wanted = lab.url("/lab?reset");
    browser.open(&wanted).await;
    assert!(browser.url().await.starts_with(&format!("http://{}/?rd=", lab.server.auth())));
    browser.fill("input[name=username]", "alice").await;
    browser.fill("input[name=password]", PASSWORD).await;
    browser.click("form button[type=submit]").await;
    browser.waits_for_url("JupyterLab", |url| url.starts_with(&lab.url("/lab"))).await;
    browser.find_within(3 * DEADLINE, ".jp-LauncherCard").await;
    browser.screenshot("jupyterlab").await;

    // As its own pages do it: a kernel, its WebSocket, a line of Python.
    let computed = browser.run_until_told(COMPUTE).await;
    assert_eq!(computed, "42");
    let refused = browser.run(REFUSED).await;
    assert_eq!(refused, json!([]), "requests of the interface that Postern or JupyterLab refused");
}

const COMPUTE: &str = r#"
const told = arguments[0];
(async () => {
    const kernel = await (await fetch('/api/kernels', { method: 'POST', body: '{"name":"python3"}' })).json();
    const socket = new WebSocket(`ws://${location.host}/api/kernels/${kernel.id}/channels?session_id=page`);
    socket.onerror = () => told('the WebSocket failed');
    socket.onopen = () => socket.send(JSON.stringify({
        channel: 'shell',
        header: { msg_id: 'x', msg_type: 'execute_request', username: '', session: 'page', date: '2026-01-01T00:00:00Z', version: '5.3' },
        parent_header: {}, metadata: {}, buffers: [],
        content: { code: '6*7', silent: false, store_history: false, user_expressions: {}, allow_stdin: false, stop_on_error: true },
    }));
    socket.onmessage = async event => {
        const message = JSON.parse(event.data);
        if (message.msg_type !== 'execute_result') return;
        await fetch(`/api/kernels/${kernel.id}`, { method: 'DELETE' });
        told(message.content.data['text/plain']);
    };
})().catch(fault => told(String(fault)));
"#;

const REFUSED: &str = "return performance.getEntriesByType('resource').filter(entry => entry.responseStatus >= 400)
    .map(entry => `${entry.responseStatus} ${entry.name}`)";
