//! Which of a TLS listener's certificates answers for which host (THREATS 16). `app` knows the certificates, the two roles know what
//! a connection and a request ask for; neither may know the other.

/// The certificates of one listener, as they stand now: a reload counts for connections that are open already.
pub trait CertificateNames: Send + Sync {
    /// Whether whoever was shown the certificate for `server_name` was shown one for `host` too: it is valid for both, or both are
    /// answered with the same.
    fn lead_alike(&self, server_name: &str, host: &str) -> bool;

    /// Whether a request for `host` came on a connection that began for another certificate's name (RFC 9110 §15.5.20). Without a
    /// name (SNI) there is none to contradict.
    fn is_misdirected(&self, server_name: Option<&str>, host: &str) -> bool {
        server_name.is_some_and(|name| !name.eq_ignore_ascii_case(host) && !self.lead_alike(name, host))
    }
}
