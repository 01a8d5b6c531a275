//! HTTP/1.1 written by hand: requests that a library would tidy up, answers as they came.

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{DEADLINE, within};

/// A request, to be sent byte for byte.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) host: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Request {
    pub(crate) fn new(method: &str, target: &str) -> Self {
        Self {
            method: method.to_owned(),
            target: target.to_owned(),
            host: None,
            headers: Vec::new(),
            body: String::new(),
        }
    }

    pub(crate) fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    pub(crate) fn host(mut self, host: impl Into<String>) -> Self {
        self.host = Some(host.into());
        self
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn cookie(self, value: impl Into<String>) -> Self {
        self.header("Cookie", value)
    }

    /// As a browser loads a page.
    pub(crate) fn page(self) -> Self {
        self.header("Sec-Fetch-Mode", "navigate").header("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
    }

    pub(crate) fn json(mut self, body: &Value) -> Self {
        self.body = body.to_string();
        self.header("Content-Type", "application/json")
    }

    pub(crate) fn form(mut self, fields: &[(&str, &str)]) -> Self {
        self.body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.header("Content-Type", "application/x-www-form-urlencoded")
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        if let Some(host) = &self.host {
            bytes += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            bytes += &format!("{name}: {value}\r\n");
        }
        if !self.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("connection")) {
            bytes += "Connection: close\r\n";
        }
        if !self.body.is_empty() || ["POST", "PUT", "PATCH"].contains(&self.method.as_str()) {
            bytes += &format!("Content-Length: {}\r\n", self.body.len());
        }
        bytes += "\r\n";
        bytes += &self.body;
        bytes.into_bytes()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn all<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'r str> {
        self.headers.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(crate) fn location(&self) -> &str {
        self.header("Location").unwrap_or_else(|| panic!("no Location in {self:?}"))
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|fault| panic!("no JSON ({fault}) in {self:?}"))
    }

    /// Value of a cookie that this answer sets.
    pub(crate) fn set_cookie(&self, name: &str) -> Option<&str> {
        self.all("Set-Cookie").find_map(|cookie| {
            let (other, value) = cookie.split(';').next()?.split_once('=')?;
            (other == name && !value.is_empty()).then_some(value)
        })
    }
}

/// Sends the bytes on a connection of their own and reads one answer.
pub(crate) async fn send(port: u16, bytes: &[u8]) -> Reply {
    let shown = String::from_utf8_lossy(bytes).chars().take(400).collect::<String>();
    within(DEADLINE, &format!("an answer on port {port} to {shown}"), async {
        let reply = try_send(port, bytes).await;
        reply.unwrap_or_else(|| panic!("no HTTP answer on port {port} to {shown}"))
    })
    .await
}

pub(crate) async fn try_get(port: u16, path: &str) -> Option<Reply> {
    try_send(port, &Request::get(path).host("localhost").bytes()).await
}

/// Everything that comes back until the server closes the connection, which it must.
pub(crate) async fn until_closed(port: u16, bytes: &[u8]) -> String {
    within(DEADLINE, "the server closes the connection", async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
        let _ = stream.write_all(bytes).await;
        let mut read = Vec::new();
        let _ = stream.read_to_end(&mut read).await;
        String::from_utf8_lossy(&read).into_owned()
    })
    .await
}

/// `None`: no connection, or nothing on it that is an HTTP answer.
pub(crate) async fn try_send(port: u16, bytes: &[u8]) -> Option<Reply> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    // A server that refuses early may close before it has read everything.
    let _ = stream.write_all(bytes).await;
    read_reply(&mut stream).await
}

/// Reads one answer, to the end of its body as its headers tell.
pub(crate) async fn read_reply(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<Reply> {
    let mut read = Vec::new();
    loop {
        if let Some(reply) = parse(&read, false) {
            return Some(reply);
        }
        match stream.read_buf(&mut read).await {
            Ok(0) | Err(_) => return parse(&read, true),
            Ok(_) => {}
        }
    }
}

/// `None`: more is to come. `ended`: no more will, and what is there is the body.
fn parse(read: &[u8], ended: bool) -> Option<Reply> {
    let end_of_head = find(read, b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(read.get(..end_of_head)?).into_owned();
    let rest = read.get(end_of_head + 4..)?;
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if status == 100 {
        return parse(rest, ended);
    }
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let mut reply = Reply { status, headers, body: String::new() };
    let body = if reply.header("Transfer-Encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        match dechunk(rest) {
            Some(body) => body,
            None if ended => rest.to_vec(),
            None => return None,
        }
    } else if let Some(length) = reply.header("Content-Length").and_then(|length| length.parse::<usize>().ok()) {
        if rest.len() < length && !ended {
            return None;
        }
        rest.to_vec()
    } else if ended || [101, 204, 304].contains(&status) {
        rest.to_vec()
    } else {
        return None;
    };
    reply.body = String::from_utf8_lossy(&body).into_owned();
    Some(reply)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = find(rest, b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(rest.get(..line)?).ok()?.trim(), 16).ok()?;
        let chunk = rest.get(line + 2..line + 2 + size)?;
        rest.get(line + 2 + size..line + 4 + size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(chunk);
        rest = rest.get(line + 4 + size..)?;
    }
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}
