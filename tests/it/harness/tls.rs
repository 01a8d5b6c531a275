//! A certificate for every host of a test, made for it.

pub(crate) const CERTIFICATE: &str = "tls/certificate.pem";
pub(crate) const KEY: &str = "tls/key.pem";

pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

pub(crate) fn certificate() -> Identity {
    let names = ["app.test.localhost", "auth.test.localhost"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    Identity { certificate: made.cert.pem(), key: made.signing_key.serialize_pem() }
}

impl Identity {
    /// As `Setup::files` takes them.
    pub(crate) fn files(&self) -> Vec<(String, String)> {
        vec![(CERTIFICATE.to_owned(), self.certificate.clone()), (KEY.to_owned(), self.key.clone())]
    }
}
