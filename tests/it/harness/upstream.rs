//! An application that records what reaches it and echoes it as JSON. It reads HTTP/1.1 by hand, so that paths and header
//! names are seen as they came.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{handshake::derive_accept_key, protocol::Role},
};

use super::wire::Reply;

/// A request as it arrived.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Seen {
    /// What an answer of the echo says that it saw.
    pub(crate) fn of(reply: &Reply) -> Self {
        assert_eq!(reply.status, 200, "{reply:?}");
        serde_json::from_str(&reply.body).unwrap_or_else(|fault| panic!("not the echo ({fault}): {reply:?}"))
    }

    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        let named = self.headers.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str()).collect()
    }

    /// The only value, or nothing.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let values = self.all(name);
        assert!(values.len() <= 1, "{name} came more than once: {values:?}");
        values.first().copied()
    }
}

pub(crate) struct Upstream {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    release: Arc<Notify>,
    serving: tokio::task::JoinHandle<()>,
}

impl Upstream {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let release = Arc::new(Notify::new());
        let (record, released) = (Arc::clone(&seen), Arc::clone(&release));
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&record), Arc::clone(&released)));
            }
        });
        Self { port, seen, release, serving }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Answers a request that is held.
    pub(crate) fn release(&self) {
        self.release.notify_one();
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("the record").clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// One connection. Paths ending in `/slow` answer after 1.5 s, in `/held` once they are let, in `/silent` never, in `/events` begin and go on for ever; `/cookies` sets cookies
/// under our names; `/limits` has limits of its own; a WebSocket handshake becomes an echo.
async fn serve(stream: TcpStream, record: Arc<Mutex<Vec<Seen>>>, released: Arc<Notify>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let seen = read_request(&mut stream).await?;
        record.lock().expect("the record").push(seen.clone());
        if let Some(key) = seen.header("Sec-WebSocket-Key") {
            let accept = derive_accept_key(key.as_bytes());
            let head = format!(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).await.ok()?;
            return echo_messages(stream, &seen).await;
        }
        let path = seen.target.split('?').next().unwrap_or_default();
        if path.ends_with("/slow") {
            tokio::time::sleep(Duration::from_millis(1500)).await;
        }
        if path.ends_with("/held") {
            released.notified().await;
        }
        if path.ends_with("/silent") {
            std::future::pending::<()>().await;
        }
        if path.ends_with("/events") {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\nd\r\ndata: hello\n\n\r\n";
            stream.write_all(head.as_bytes()).await.ok()?;
            // Until it is closed from the other side.
            stream.read_u8().await.ok()?;
        }
        let cookies = if path.ends_with("/cookies") {
            "Set-Cookie: postern_session=forged; Domain=test.localhost; Path=/\r\nSet-Cookie: __Host-postern_portal=forged; \
             Path=/; Secure\r\nSet-Cookie: postern_portal=forged\r\nSet-Cookie: theirs=kept\r\n"
        } else if path.ends_with("/limits") {
            "RateLimit: \"theirs\";r=1\r\nX-RateLimit-Limit: 9\r\nX-RateLimit-Limit: 8\r\nX-RateLimit-Limit-Day: 7\r\nX-RateLimit-Scope: theirs\r\n"
        } else {
            ""
        };
        let body = if seen.method == "HEAD" { Vec::new() } else { serde_json::to_vec(&seen).expect("JSON") };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Answered-By: echo\r\n{cookies}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&body).await.ok()?;
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>) -> Option<Seen> {
    let first = read_line(stream).await?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream).await?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':')?;
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut seen = Seen { method, target, headers, body: String::new() };
    let mut body = Vec::new();
    if seen.header("Transfer-Encoding").is_some() {
        loop {
            let size = usize::from_str_radix(read_line(stream).await?.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).await.ok()?;
            if size == 0 {
                break;
            }
            body.extend_from_slice(chunk.get(..size)?);
        }
    } else if let Some(length) = seen.header("Content-Length") {
        body.resize(length.parse().ok()?, 0);
        stream.read_exact(&mut body).await.ok()?;
    }
    seen.body = String::from_utf8_lossy(&body).into_owned();
    Some(seen)
}

async fn read_line(stream: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = Vec::new();
    if stream.read_until(b'\n', &mut line).await.ok()? == 0 {
        return None;
    }
    Some(String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned())
}

/// The first message tells what the handshake looked like, every other is an echo.
async fn echo_messages(stream: BufReader<TcpStream>, seen: &Seen) -> Option<()> {
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
    let hello = serde_json::to_string(seen).expect("JSON");
    socket.send(hello.into()).await.ok()?;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_text() || message.is_binary() {
            socket.send(message).await.ok()?;
        }
    }
    Some(())
}
