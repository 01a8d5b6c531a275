//! An issuer of JWTs: keys made for the test, a discovery document and key sets at whatever paths a test says, and a count of every fetch.

use std::{
    collections::HashMap,
    sync::{Arc, LazyLock, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use rsa::{RsaPrivateKey, pkcs1::EncodeRsaPrivateKey as _, traits::PublicKeyParts as _};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::tls::Identity;

/// What is answered at a path.
#[derive(Clone)]
pub(crate) enum Answer {
    Json(String),
    Redirect(String),
    Status(u16),
    /// The connection stays open and silent.
    Hang,
    /// A key set that goes on and on.
    Endless,
}

#[derive(Default)]
struct State {
    answers: HashMap<String, Answer>,
    fetches: HashMap<String, usize>,
}

pub(crate) struct Idp {
    port: u16,
    is_tls: bool,
    state: Arc<Mutex<State>>,
    serving: tokio::task::JoinHandle<()>,
}

impl Idp {
    pub(crate) async fn start() -> Self {
        Self::serving(None).await
    }

    /// By https, as `localhost`.
    pub(crate) async fn over_tls(identity: &Identity) -> Self {
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("PEM");
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("a certificate and its key");
        Self::serving(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn serving(tls: Option<TlsAcceptor>) -> Self {
        let is_tls = tls.is_some();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, state) = (tls.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => serve(tls.accept(stream).await.ok()?, state).await,
                        None => serve(stream, state).await,
                    }
                });
            }
        });
        Self { port, is_tls, state, serving }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        let origin = if self.is_tls { "https://localhost" } else { "http://127.0.0.1" };
        format!("{origin}:{}{path}", self.port)
    }

    pub(crate) fn answer(&self, path: &str, answer: Answer) {
        self.state.lock().expect("the state").answers.insert(path.to_owned(), answer);
    }

    pub(crate) fn keys(&self, path: &str, keys: &[&Key]) {
        self.answer(path, Answer::Json(key_set(keys)));
    }

    /// How often it was asked for anything.
    pub(crate) fn all_fetches(&self) -> usize {
        self.state.lock().expect("the state").fetches.values().sum()
    }

    /// How often exactly this target was asked for, its query included.
    pub(crate) fn fetches(&self, path: &str) -> usize {
        self.state.lock().expect("the state").fetches.get(path).copied().unwrap_or_default()
    }
}

impl Drop for Idp {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(crate) fn key_set(keys: &[&Key]) -> String {
    json!({ "keys": keys.iter().map(|key| &key.jwk).collect::<Vec<_>>() }).to_string()
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, state: Arc<Mutex<State>>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let path = String::from_utf8(head).ok()?.split(' ').nth(1)?.to_owned();
    let answer = {
        let mut state = state.lock().expect("the state");
        *state.fetches.entry(path.clone()).or_default() += 1;
        state.answers.get(&path).cloned().unwrap_or(Answer::Status(404))
    };
    let head = |status: u16, more: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status} x\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n{body}")
    };
    let bytes = match answer {
        Answer::Json(body) => head(200, "Content-Type: application/json\r\n", &body),
        Answer::Redirect(to) => head(302, &format!("Location: {to}\r\n"), ""),
        Answer::Status(status) => head(status, "", ""),
        Answer::Hang => {
            std::future::pending::<()>().await;
            return None;
        }
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 x\r\nConnection: close\r\n\r\n{\"keys\":[").await.ok()?;
            loop {
                stream.write_all(&[b' '; 4096]).await.ok()?;
            }
        }
    };
    stream.write_all(bytes.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

/// A key that signs, and what a key set says of it.
pub(crate) struct Key {
    kid: String,
    algorithm: Algorithm,
    encoding: EncodingKey,
    jwk: Value,
}

/// Made once: that takes a while.
static RSA: LazyLock<RsaPrivateKey> =
    LazyLock::new(|| RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).expect("an RSA key"));

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Key {
    pub(crate) fn ed25519(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
        let jwk =
            json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": encoded(pair.public_key_raw()) });
        let encoding = EncodingKey::from_ed_der(pair.serialized_der());
        Self { kid: kid.to_owned(), algorithm: Algorithm::EdDSA, encoding, jwk }
    }

    pub(crate) fn es256(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        let jwk = json!({ "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid, "x": encoded(x), "y": encoded(y) });
        let encoding = EncodingKey::from_ec_der(pair.serialized_der());
        Self { kid: kid.to_owned(), algorithm: Algorithm::ES256, encoding, jwk }
    }

    pub(crate) fn rs256(kid: &str) -> Self {
        let (n, e) = (encoded(&RSA.n().to_bytes_be()), encoded(&RSA.e().to_bytes_be()));
        let jwk = json!({ "kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e });
        let encoding = EncodingKey::from_rsa_der(RSA.to_pkcs1_der().expect("DER").as_bytes());
        Self { kid: kid.to_owned(), algorithm: Algorithm::RS256, encoding, jwk }
    }

    /// The header of its tokens.
    pub(crate) fn header(&self) -> Value {
        json!({ "alg": format!("{:?}", self.algorithm), "kid": self.kid, "typ": "JWT" })
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header(), claims)
    }

    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.encoding, self.algorithm);
        format!("{message}.{}", signature.expect("a signature"))
    }
}

/// HS256 with whatever secret.
pub(crate) fn with_secret(secret: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

/// The public RSA key, as anybody who knows the key set can write it.
pub(crate) fn rsa_public_pem() -> Vec<u8> {
    let public = RSA.to_public_key();
    let pem = rsa::pkcs8::EncodePublicKey::to_public_key_pem(&public, rsa::pkcs8::LineEnding::LF);
    pem.expect("PEM").into_bytes()
}

/// Seconds since 1970.
pub(crate) fn now() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the program under test reads the real clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(now.as_secs()).expect("a time")
}

/// Good claims of `carol`, of the group dev, for `postern`.
pub(crate) fn claims(issuer: &str) -> Value {
    json!({ "iss": issuer, "sub": "carol", "aud": "postern", "iat": now(), "exp": now() + 300, "groups": ["dev"] })
}

pub(crate) fn with(mut object: Value, name: &str, value: impl Into<Value>) -> Value {
    object[name] = value.into();
    object
}
