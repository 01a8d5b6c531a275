//! A certificate for every host of a test, made for it.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::redis::Tls;

pub(crate) const CERTIFICATE: &str = "tls/certificate.pem";
pub(crate) const KEY: &str = "tls/key.pem";

pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

pub(crate) fn certificate() -> Identity {
    certificate_for(&["app.test.localhost", "auth.test.localhost", "grafana.test.localhost"])
}

pub(crate) fn certificate_for(names: &[&str]) -> Identity {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    Identity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

/// One that signs the certificates of servers, and is trusted in their place.
pub(crate) struct Authority {
    pub(crate) certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "an authority of the tests");
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate").pem();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    /// For servers of Redis on this machine, which speak to each other too.
    pub(crate) fn of_redis(&self) -> Tls {
        let Identity { certificate, key } = self.certificate_for(&["localhost", "127.0.0.1"]);
        Tls { certificate, key, authority: self.certificate.clone() }
    }

    /// For names and addresses.
    pub(crate) fn certificate_for(&self, names: &[&str]) -> Identity {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let parameters = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        Identity { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// What a listener is told of it.
pub(crate) fn setting() -> String {
    format!(", tls: {{ certificates: [{{ certificate: {CERTIFICATE}, key: {KEY} }}] }}")
}

/// A TLS client that trusts these certificates and speaks one protocol.
pub(crate) fn client(trusted: &[&Identity], protocol: &[u8]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for identity in trusted {
        let certificate = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).expect("PEM");
        roots.add(certificate).expect("a certificate");
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

impl Identity {
    /// A TLS client that trusts the certificate and speaks one protocol.
    pub(crate) async fn connect(&self, stream: TcpStream, protocol: &[u8]) -> TlsStream<TcpStream> {
        let connector = TlsConnector::from(client(&[self], protocol));
        let name = ServerName::try_from("app.test.localhost").expect("a name");
        let stream = connector.connect(name, stream).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }

    /// As `Setup::files` takes them.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        vec![(CERTIFICATE.to_owned(), self.certificate.clone()), (KEY.to_owned(), self.key.clone())]
    }
}
