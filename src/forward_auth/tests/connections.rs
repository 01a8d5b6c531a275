//! What a connection may carry: sizes, bodies, HTTP/2, several requests, and the drain.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_large_is_said_to_be() {
    let running = started();
    let large = question(By::ForwardAuth, "GET", APP, "/public/x", &format!("X: {}\r\n", "x".repeat(70_000)));
    assert_eq!(running.ask(&large).await.status(), 431);
    let many = question(By::ForwardAuth, "GET", APP, "/public/x", &"X: 1\r\n".repeat(210));
    assert_eq!(running.ask(&many).await.status(), 431);
    let post = "POST /auth/login HTTP/1.1\r\nHost: auth.example.com\r\nConnection: close\r\n";
    let body = "x".repeat(MAX_BODY);
    let fits = running.send(&format!("{post}Content-Length: {MAX_BODY}\r\n\r\n{body}")).await;
    assert_eq!((fits.status(), fits.body().len()), (200, MAX_BODY));
    let told = running.send(&format!("{post}Content-Length: {}\r\n\r\n", MAX_BODY + 1)).await;
    assert_eq!(told.status(), 413, "before it came");
    let chunk = format!("{:x}\r\n{body}\r\n", body.len());
    let chunked = running.send(&format!("{post}Transfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n")).await;
    assert_eq!(chunked.status(), 413);
    let most = "x".repeat(700_000);
    let read = running.send(&format!("{post}Content-Length: {}\r\n\r\n{most}", most.len())).await;
    assert_eq!(read.status(), 413, "heard by one who sends all of it first");
    assert!(read.body().contains(r#""code":"payload_too_large""#));
}

#[tokio::test(flavor = "multi_thread")]
async fn copied_body_headers_and_upgrades_mean_nothing() {
    let running = started();
    for more in [
        "Content-Length: 100\r\n",
        "Transfer-Encoding: chunked\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
        "Upgrade: foo\r\n",
        "Expect: 100-continue\r\nContent-Length: 10\r\n",
    ] {
        for by in ALL {
            let answer = running.ask(&question(by, "POST", APP, "/public/x", more)).await;
            assert_eq!(answer.status(), 200, "{more}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn threat_52_requests_of_one_connection_are_each_decided_anew() {
    let running = started();
    let first = question(By::ForwardAuth, "GET", APP, "/staff/x", &cookie("a"));
    let second = question(By::ForwardAuth, "GET", APP, "/staff/x", API);
    let third = question(By::ForwardAuth, "GET", APP, "/public/x", "Connection: close\r\n");
    let answers = running.send(&format!("{first}\r\n{second}\r\n{third}\r\n")).await;
    let statuses: Vec<_> = answers.0.match_indices("HTTP/1.1 ").map(|(at, _)| &answers.0[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "401", "200"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_a_request_end_and_closes_idle_connections() {
    let running = started();
    let mut idle = TcpStream::connect(running.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    idle.read_exact(&mut answer).await.unwrap();
    let mut silent = TcpStream::connect(running.address).await.unwrap();
    let mut slow = TcpStream::connect(running.address).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nHost: auth.example.com\r\n\r\n").await.unwrap();
    running.slow.began.notified().await;
    running.stop.send(true).unwrap();
    let mut rest = Vec::new();
    for stream in [&mut idle, &mut silent] {
        time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.expect("is closed").ok();
    }
    running.slow.may_end.notify_one();
    rest.clear();
    time::timeout(Duration::from_secs(5), slow.read_to_end(&mut rest)).await.expect("is closed").ok();
    assert!(rest.starts_with(b"HTTP/1.1 200"), "the slow one was answered");
    time::timeout(Duration::from_secs(5), running.task).await.expect("ends").unwrap();
    assert!(TcpStream::connect(running.address).await.is_err(), "still accepts");
}

struct OneCertificate;

impl CertificateNames for OneCertificate {
    fn lead_alike(&self, _: &str, _: &str) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_over_tls() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let made =
        rcgen::generate_simple_self_signed(["app.example.com".to_owned(), "auth.example.com".to_owned()]).unwrap();
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let mut tls = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let tls = Tls { config: Arc::new(tls), names: Arc::new(OneCertificate) };
    let running = started_with(|_| {}, Some(tls));
    let mut client = reqwest::Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()])
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy();
    for host in ["app.example.com", "auth.example.com"] {
        client = client.resolve(host, running.address);
    }
    let client = client.build().unwrap();
    let get = |path: &str| client.get(format!("https://app.example.com:{}{path}", running.address.port()));
    // The listener's own scheme, and the authority of HTTP/2.
    let answer = get("/api/authz/ext-authz/staff/x?a=b").header("accept", "text/html").send().await.unwrap();
    assert_eq!((answer.version(), answer.status().as_u16()), (reqwest::Version::HTTP_2, 302));
    let wanted = format!("https%3A%2F%2Fapp.example.com%3A{}%2Fstaff%2Fx%3Fa%3Db", running.address.port());
    assert_eq!(answer.headers()["location"], format!("https://auth.example.com/?rd={wanted}&rm=GET"));
    // HTTP/2 may split cookies over several headers.
    let answer = get("/api/authz/ext-authz/staff/x")
        .header("cookie", "a=1")
        .header("cookie", format!("postern_session={}", cookie_of('a')))
        .send()
        .await
        .unwrap();
    assert_eq!((answer.status().as_u16(), answer.headers()["cookie"].to_str().unwrap()), (200, "a=1"));
    let portal = client.get(format!("https://auth.example.com:{}/", running.address.port())).send().await.unwrap();
    assert!(portal.text().await.unwrap().starts_with("/ https://auth.example.com:"));
}
