//! Certificates of a listener: loaded and proven usable before the start, swapped whole on reload.

use std::{fmt, fs, path::Path, sync::Arc};

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SigningKey},
};
use webpki::EndEntityCert;

use crate::{
    config::{CertificateFiles, TlsFiles},
    core::certificate::CertificateNames,
    forward_auth,
};

/// What a listener shows and demands. The certificates can be swapped; who may connect (`client_ca`) needs a restart.
pub(crate) struct Certificates {
    keys: ArcSwap<Vec<Arc<CertifiedKey>>>,
    client_ca: Option<Arc<dyn ClientCertVerifier>>,
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificates({})", self.keys.load().len())
    }
}

impl Certificates {
    pub(crate) fn load(files: &TlsFiles) -> anyhow::Result<Self> {
        let client_ca = files.client_ca.as_deref().map(client_verifier).transpose()?;
        Ok(Self { keys: ArcSwap::from_pointee(keys_of(files)?), client_ca })
    }

    /// The keys of a new configuration, not yet in force.
    pub(crate) fn keys_of(files: &TlsFiles) -> anyhow::Result<Vec<Arc<CertifiedKey>>> {
        keys_of(files)
    }

    pub(crate) fn swap(&self, keys: Vec<Arc<CertifiedKey>>) {
        self.keys.store(Arc::new(keys));
    }

    pub(crate) fn client_ca(&self) -> Option<Arc<dyn ClientCertVerifier>> {
        self.client_ca.clone()
    }
}

impl ResolvesServerCert for Certificates {
    /// The first certificate that is valid for the name asked for, else the first of all (a client without SNI).
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        chosen(&self.keys.load(), hello.server_name()).cloned()
    }
}

impl CertificateNames for Certificates {
    fn lead_alike(&self, server_name: &str, host: &str) -> bool {
        let keys = self.keys.load();
        let (shown, belongs) = (chosen(&keys, Some(server_name)), chosen(&keys, Some(host)));
        // The one that is shown may be valid for a host before which another stands in the list.
        shown.zip(belongs).is_some_and(|(shown, belongs)| {
            Arc::ptr_eq(shown, belongs) || server_name_of(host).is_some_and(|host| is_for(shown, &host))
        })
    }
}

fn chosen<'k>(keys: &'k [Arc<CertifiedKey>], name: Option<&str>) -> Option<&'k Arc<CertifiedKey>> {
    let fitting = name.and_then(server_name_of).and_then(|name| keys.iter().find(|key| is_for(key, &name)));
    fitting.or_else(|| keys.first())
}

/// A host as a URL has it: an IPv6 address is in brackets.
fn server_name_of(host: &str) -> Option<ServerName<'_>> {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    ServerName::try_from(address.unwrap_or(host)).ok()
}

fn is_for(key: &CertifiedKey, name: &ServerName<'_>) -> bool {
    key.end_entity_cert()
        .ok()
        .and_then(|certificate| EndEntityCert::try_from(certificate).ok())
        .is_some_and(|certificate| certificate.verify_is_valid_for_subject_name(name).is_ok())
}

/// TLS of a `forward_auth` listener.
pub(crate) fn of_forward_auth(certificates: &Arc<Certificates>) -> anyhow::Result<forward_auth::Tls> {
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("TLS cannot be set up")?;
    let builder = match certificates.client_ca() {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::clone(certificates) as _);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(forward_auth::Tls { config: Arc::new(config), names: Arc::clone(certificates) as _ })
}

/// The chain of certificates that a file holds.
pub(super) fn check_certificate(file: &Path) -> Result<(), String> {
    told(certificates_in(file))
}

/// The key, and whether it belongs to its certificate. What is wrong with the certificate alone is told of that.
pub(super) fn check_key(pair: &CertificateFiles) -> Result<(), String> {
    if certificates_in(&pair.certificate).is_err() {
        return told(private_key_in(&pair.key));
    }
    told(key_of(pair))
}

/// Authorities of clients.
pub(super) fn check_client_ca(file: &Path) -> Result<(), String> {
    told(client_verifier(file))
}

fn told<T>(read: anyhow::Result<T>) -> Result<(), String> {
    read.map(|_| ()).map_err(|error| format!("{error:#}"))
}

fn keys_of(files: &TlsFiles) -> anyhow::Result<Vec<Arc<CertifiedKey>>> {
    files.certificates.iter().map(|pair| key_of(pair).map(Arc::new)).collect()
}

fn key_of(pair: &CertificateFiles) -> anyhow::Result<CertifiedKey> {
    let chain = certificates_in(&pair.certificate)?;
    let certified = CertifiedKey::new(chain, private_key_in(&pair.key)?);
    match certified.keys_match() {
        // "Unknown": the key's type does not tell its public half; the handshake will.
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(certified),
        Err(_) => bail!(
            "{}: the key does not belong to the certificate {}; give the pair that was issued together",
            pair.key.display(),
            pair.certificate.display()
        ),
    }
}

fn private_key_in(file: &Path) -> anyhow::Result<Arc<dyn SigningKey>> {
    let key = PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|error| anyhow::anyhow!("{}: no private key in PEM: {error}", file.display()))?;
    ring::sign::any_supported_type(&key).with_context(|| format!("{}: this kind of key cannot be used", file.display()))
}

fn certificates_in(file: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(&read(file)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| anyhow::anyhow!("{}: not a certificate in PEM: {error}", file.display()))?;
    let Some(first) = chain.first() else {
        bail!("{}: holds no certificate; a PEM file begins with -----BEGIN CERTIFICATE-----", file.display())
    };
    EndEntityCert::try_from(first)
        .map_err(|error| anyhow::anyhow!("{}: not a usable certificate: {error}", file.display()))?;
    Ok(chain)
}

fn client_verifier(file: &Path) -> anyhow::Result<Arc<dyn ClientCertVerifier>> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates_in(file)? {
        roots.add(certificate).with_context(|| format!("{}: not a certificate authority", file.display()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider()))
        .build()
        .with_context(|| format!("{}: cannot verify clients with it", file.display()))
}

fn read(file: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(file).with_context(|| format!("cannot read {}", file.display()))
}
