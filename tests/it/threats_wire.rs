//! What a connection says against what its requests say.

use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::harness::{
    DEADLINE,
    server::{Role, Server, Setup},
    tls::{self, Identity},
    upstream::Upstream,
    wire::{self, Request},
    within,
};

/// Two certificates on each listener; the first is also for whoever names nothing (127.0.0.1).
struct Scene {
    server: Server,
    upstream: Upstream,
    first: Identity,
    second: Identity,
}

const FIRST: &[&str] = &["app.test.localhost", "grafana.test.localhost", "127.0.0.1"];
const SECOND: &[&str] = &["auth.test.localhost", "*.team.test.localhost", "grafana.test.localhost"];

impl Scene {
    async fn set(change: impl FnOnce(Setup) -> Setup) -> Self {
        let upstream = Upstream::start().await;
        let (first, second) = (tls::certificate_for(FIRST), tls::certificate_for(SECOND));
        let mut setup = Setup::with(&upstream).over_tls(&first);
        let both = ", tls: { certificates: [{ certificate: tls/certificate.pem, key: tls/key.pem }, \
                    { certificate: tls/second.pem, key: tls/second.key }] }";
        setup.edge = both.to_owned();
        // A proxy of another machine is trusted, so that this one is a browser's.
        setup.forward_auth = format!(", trusted_proxies: [192.0.2.1/32]{both}");
        setup.files.push(("tls/second.pem".to_owned(), second.certificate.clone()));
        setup.files.push(("tls/second.key".to_owned(), second.key.clone()));
        let server = change(setup).start().await;
        Self { server, upstream, first, second }
    }

    fn port(&self, role: Role) -> u16 {
        match role {
            Role::Edge => self.server.edge(),
            Role::ForwardAuth => self.server.forward_auth(),
        }
    }

    /// A connection that begins for `name`; none is named where it is an address (RFC 6066 §3).
    async fn connect(&self, role: Role, name: &str, protocol: &[u8]) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(("127.0.0.1", self.port(role))).await.expect("a connection");
        let client = tls::client(&[&self.first, &self.second], protocol);
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        TlsConnector::from(client).connect(name, stream).await.expect("a handshake")
    }

    /// Status and body of the answer to a page load for `host`, on a connection that began for `name`.
    async fn load(&self, role: Role, http2: bool, name: &str, host: &str, path: &str) -> (u16, String) {
        let asked = format!("{role:?} {host}{path} on a connection to {name}");
        within(DEADLINE, &asked, async {
            if !http2 {
                let mut stream = self.connect(role, name, b"http/1.1").await;
                let request = Request::get(path).host(host).page();
                stream.write_all(&request.bytes()).await.expect("a request");
                let reply = wire::read_reply(&mut stream).await.expect("an answer");
                return (reply.status, reply.body);
            }
            let stream = TokioIo::new(self.connect(role, name, b"h2").await);
            let (mut client, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
            tokio::spawn(connection);
            let request = http::Request::get(format!("https://{host}{path}"))
                .header("Sec-Fetch-Mode", "navigate")
                .header("Accept", "text/html")
                .body(Empty::<bytes::Bytes>::new())
                .expect("a request");
            let reply = client.send_request(request).await.expect("an answer");
            let status = reply.status().as_u16();
            let body = reply.into_body().collect().await.expect("a body").to_bytes();
            (status, String::from_utf8_lossy(&body).into_owned())
        })
        .await
    }

    async fn misdirected(&self, role: Role) -> f64 {
        let role = format!("role=\"{}\"", if role == Role::Edge { "edge" } else { "forward_auth" });
        self.server.metric("postern_http_requests_total", &[&role, "status=\"421\""]).await
    }
}

/// `None`: no name was asked for.
const ADDRESS: &str = "127.0.0.1";

#[tokio::test]
async fn threat_16_a_host_of_another_certificate_is_421_at_the_edge() {
    let scene = Scene::set(|setup| setup).await;
    let mut refused = 0.0;
    for http2 in [false, true] {
        let before = scene.upstream.seen().len();
        let load = async |name, host, path| scene.load(Role::Edge, http2, name, host, path).await;
        for (name, host, path) in [
            ("app.test.localhost", "auth.test.localhost", "/"),
            ("app.test.localhost", "blue.team.test.localhost", "/public/x"),
            ("app.test.localhost", "AUTH.test.localhost.:443", "/admin/x"),
            ("blue.team.test.localhost", "app.test.localhost", "/public/x"),
            // A host of no certificate is the first one's, as its connection would have been.
            ("auth.test.localhost", "nobody.test.localhost", "/public/x"),
            ("auth.test.localhost", ADDRESS, "/public/x"),
        ] {
            let (status, body) = load(name, host, path).await;
            assert_eq!(status, 421, "{host} on a connection to {name}, HTTP/2 {http2}: {body}");
            assert!(body.contains("<html") && !body.contains("public"), "a page, and no rule's name: {body}");
            refused += 1.0;
        }
        assert_eq!(scene.upstream.seen().len(), before, "{:?}", scene.upstream.seen());
        for (name, host) in [
            ("app.test.localhost", "app.test.localhost"),
            ("app.test.localhost", "APP.test.localhost:8443"),
            // Covered by the one that was shown, although the other would be shown for it.
            ("auth.test.localhost", "grafana.test.localhost"),
            ("app.test.localhost", "grafana.test.localhost"),
            ("blue.team.test.localhost", "red.team.test.localhost"),
            ("app.test.localhost", "nobody.test.localhost"),
            // Without a name none is contradicted: health checks, proxies that name nothing.
            (ADDRESS, "app.test.localhost"),
            (ADDRESS, "blue.team.test.localhost"),
            (ADDRESS, "nobody.test.localhost"),
        ] {
            let (status, body) = load(name, host, "/public/x").await;
            assert_eq!(status, 200, "{host} on a connection to {name}, HTTP/2 {http2}: {body}");
        }
        let (status, body) = load("auth.test.localhost", "auth.test.localhost", "/").await;
        assert_eq!(status, 200, "the portal: {body}");
    }
    assert_eq!(scene.misdirected(Role::Edge).await, refused, "each is counted");
}

#[tokio::test]
async fn threat_16_a_kept_connection_goes_on_after_a_421_for_its_own_host() {
    let scene = Scene::set(|setup| setup).await;
    let stream = TokioIo::new(scene.connect(Role::Edge, "app.test.localhost", b"h2").await);
    let (mut client, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await.expect("HTTP/2");
    tokio::spawn(connection);
    for (host, expected) in [("app", 200), ("blue.team", 421), ("app", 200), ("grafana", 200), ("auth", 421)] {
        let request = http::Request::get(format!("https://{host}.test.localhost/public/x"));
        let request = request.body(Empty::<bytes::Bytes>::new()).expect("a request");
        let reply = within(DEADLINE, "an answer", client.send_request(request)).await.expect("an answer");
        assert_eq!(reply.status(), expected, "{host}");
    }
}

/// A proxy speaks for many hosts by one name, and answers itself for what browsers see of certificates.
#[tokio::test]
async fn threat_16_a_trusted_proxy_may_reach_the_edge_by_any_name() {
    let scene = Scene::set(|mut setup| {
        setup.edge += ", trusted_proxies: [127.0.0.1/32]";
        setup
    })
    .await;
    for http2 in [false, true] {
        let load = scene.load(Role::Edge, http2, "app.test.localhost", "blue.team.test.localhost", "/public/x");
        assert_eq!(load.await.0, 200, "HTTP/2 {http2}");
    }
}

#[tokio::test]
async fn threat_16_one_certificate_answers_for_every_host() {
    let scene = Scene::set(|mut setup| {
        setup.edge = tls::setting();
        setup
    })
    .await;
    for http2 in [false, true] {
        let load = scene.load(Role::Edge, http2, "app.test.localhost", "blue.team.test.localhost", "/public/x");
        assert_eq!(load.await.0, 200, "HTTP/2 {http2}");
    }
}

#[tokio::test]
async fn threat_16_the_portal_of_forward_auth_is_held_to_its_certificate() {
    let scene = Scene::set(|setup| setup).await;
    for http2 in [false, true] {
        let load = async |name, host, path| scene.load(Role::ForwardAuth, http2, name, host, path).await;
        for path in ["/", "/auth/health", "/.well-known/jwks.json"] {
            let (status, body) = load("app.test.localhost", "auth.test.localhost", path).await;
            assert_eq!(status, 421, "{path}, HTTP/2 {http2}: {body}");
            for name in ["auth.test.localhost", ADDRESS] {
                assert_eq!(load(name, "auth.test.localhost", path).await.0, 200, "{path} by {name}, HTTP/2 {http2}");
            }
        }
        // A proxy's question has the Host that it likes, and a health check any; who asks is held against another list.
        let (status, _) = load("auth.test.localhost", "app.test.localhost", "/healthz").await;
        assert_eq!(status, 200, "HTTP/2 {http2}");
        let (status, _) = load("auth.test.localhost", "app.test.localhost", "/api/authz/ext-authz/public/x").await;
        assert_eq!(status, 403, "HTTP/2 {http2}");
    }
    assert_eq!(scene.misdirected(Role::ForwardAuth).await, 6.0, "each is counted");
}

#[tokio::test]
async fn threat_16_a_proxy_asks_forward_auth_by_an_internal_name() {
    let scene = Scene::set(|mut setup| {
        setup.forward_auth = setup.forward_auth.replace("192.0.2.1/32", "127.0.0.1/32");
        setup
    })
    .await;
    for http2 in [false, true] {
        let load = async |host, path| scene.load(Role::ForwardAuth, http2, "app.test.localhost", host, path).await;
        let (status, body) = load("blue.team.test.localhost", "/api/authz/ext-authz/public/x").await;
        assert_eq!(status, 200, "HTTP/2 {http2}: {body}");
        assert_eq!(load("auth.test.localhost", "/").await.0, 200, "the portal by a proxy, HTTP/2 {http2}");
    }
}
