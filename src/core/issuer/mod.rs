//! Issuers of tokens that are trusted beside ourselves (`tokens.trusted_issuers`): what they are called, where their keys are, and what
//! their claims mean. `config` builds it, `gate` verifies by it, `store` fetches the keys.
//!
//! Nothing here verifies a signature, and nothing of a token decides where keys come from (THREATS 45, 48).

pub mod claims;
pub mod jwks;

use std::{fmt, sync::Arc, time::Duration};

use sha2::{Digest as _, Sha256};
use url::Url;

use self::{claims::ClaimMapping, jwks::KeySet};
use super::session::TokenHash;

/// One entry of `tokens.trusted_issuers`.
#[derive(Debug)]
pub struct TrustedIssuer {
    /// `iss`, compared byte by byte.
    pub issuer: String,
    /// One of them has to stand in `aud`.
    pub audiences: Vec<String>,
    pub keys: KeySource,
    /// Nothing else is looked at, whatever a key could do.
    pub algorithms: Vec<JwtAlgorithm>,
    /// How far the issuer's clock and ours may be apart.
    pub clock_skew: Duration,
    pub claims: ClaimMapping,
    /// Takes its ID tokens too, which say who signed in to a client and not what a caller may do.
    pub id_tokens: bool,
    /// SHA-256 of issuer and audiences.
    digest: [u8; 32],
}

/// SHA-256 of a token, and of the issuer and the audiences that it is verified for (THREATS 50). Apart, so that a token is hashed once, whoever of several
/// issuers it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ForeignTokenKey {
    token: TokenHash,
    issuer: [u8; 32],
}

impl TrustedIssuer {
    #[must_use]
    pub fn new(
        issuer: String,
        audiences: Vec<String>,
        keys: KeySource,
        algorithms: Vec<JwtAlgorithm>,
        clock_skew: Duration,
        claims: ClaimMapping,
        id_tokens: bool,
    ) -> Self {
        let mut digest = Sha256::new();
        // With their lengths, so that no two lists are one text.
        for part in std::iter::once(&issuer).chain(&audiences) {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        let digest = digest.finalize().into();
        Self { issuer, audiences, keys, algorithms, clock_skew, claims, id_tokens, digest }
    }

    /// Whether it takes the very tokens that the other one takes, and reads the same in them; their keys aside.
    #[must_use]
    pub fn reads_as(&self, other: &Self) -> bool {
        self.issuer == other.issuer
            && self.audiences == other.audiences
            && self.algorithms == other.algorithms
            && self.clock_skew == other.clock_skew
            && self.claims == other.claims
            && self.id_tokens == other.id_tokens
    }

    /// Under which a verified token of this issuer is remembered.
    #[must_use]
    pub fn key_of(&self, token: TokenHash) -> ForeignTokenKey {
        ForeignTokenKey { token, issuer: self.digest }
    }
}

#[derive(Debug)]
pub enum KeySource {
    Fetched(Arc<KeyAddress>),
    /// Of `jwks_file` or `secret`: read with the configuration.
    Fixed(Arc<KeySet>),
}

/// Where an issuer's keys are fetched, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyAddress {
    pub place: KeyPlace,
    /// At least so long lies between two fetches, whatever tokens say.
    pub interval: Duration,
    /// So often they are fetched unasked.
    pub refresh: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KeyPlace {
    Jwks(Url),
    /// A document (OpenID Connect Discovery 1.0 §4) whose `issuer` is this and whose `jwks_uri` lies on its own origin.
    Discovery {
        url: Url,
        issuer: String,
    },
}

impl fmt::Display for KeyPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Jwks(url) | Self::Discovery { url, .. }) = self;
        WithoutQuery(url).fmt(f)
    }
}

/// An address as logs and `/readyz` may show it: its query may hold a key of the issuer's API.
#[derive(Debug)]
pub struct WithoutQuery<'u>(pub &'u Url);

impl fmt::Display for WithoutQuery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().split('?').next().unwrap_or_default())
    }
}

/// `alg` of RFC 7518 §3.1 and RFC 8037, as far as they are taken at all: never `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    HS256,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl JwtAlgorithm {
    /// All that verify with a public key.
    pub const ASYMMETRIC: [Self; 9] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::EdDSA,
    ];
    /// What an issuer may use that says nothing else.
    pub const DEFAULT: [Self; 5] = [Self::RS256, Self::PS256, Self::ES256, Self::ES384, Self::EdDSA];

    /// By its exact name; `Ed25519` is the newer name of `EdDSA` with that curve (RFC 9864).
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "Ed25519" => Some(Self::EdDSA),
            "HS256" => Some(Self::HS256),
            _ => Self::ASYMMETRIC.into_iter().find(|algorithm| algorithm.as_str() == name),
        }
    }

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HS256 => "HS256",
            Self::RS256 => "RS256",
            Self::RS384 => "RS384",
            Self::RS512 => "RS512",
            Self::PS256 => "PS256",
            Self::PS384 => "PS384",
            Self::PS512 => "PS512",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuer(name: &str, audiences: &[&str]) -> TrustedIssuer {
        TrustedIssuer::new(
            name.to_owned(),
            audiences.iter().map(|&audience| audience.to_owned()).collect(),
            KeySource::Fixed(Arc::default()),
            JwtAlgorithm::DEFAULT.to_vec(),
            Duration::ZERO,
            ClaimMapping::default(),
            false,
        )
    }

    #[test]
    fn threat_50_what_is_remembered_is_remembered_for_issuer_and_audience() {
        let key = |name, audiences: &[&str], token| issuer(name, audiences).key_of(TokenHash::of(token));
        let one = key("https://a.test", &["b"], "x");
        assert_eq!(one, key("https://a.test", &["b"], "x"));
        for other in [
            key("https://a.tes", &["tb"], "x"),
            key("https://a.test", &["c"], "x"),
            key("https://a.test", &["b", "c"], "x"),
            key("https://a.test", &["b"], "y"),
            key("https://a.testb", &[], "x"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn an_address_is_shown_without_its_query() {
        let url: Url = "https://idp.test/jwks.json?apikey=hidden?x".parse().unwrap();
        let places = [KeyPlace::Jwks(url.clone()), KeyPlace::Discovery { url, issuer: String::new() }];
        for place in places {
            assert_eq!(place.to_string(), "https://idp.test/jwks.json");
        }
    }

    #[test]
    fn algorithms_are_known_by_their_exact_names() {
        for algorithm in JwtAlgorithm::ASYMMETRIC {
            assert_eq!(JwtAlgorithm::named(algorithm.as_str()), Some(algorithm));
        }
        for name in ["none", "None", "", "rs256", "RS1", "HS384", "ES256K", "ES512"] {
            assert_eq!(JwtAlgorithm::named(name), None, "{name}");
        }
    }
}
