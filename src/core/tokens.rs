//! What an access token of ours says, how long it holds, and what signs it; what a refresh token is exchanged for.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use super::{
    issuer::TrustedIssuer,
    session::{SessionId, TokenHash},
    time::Timestamp,
};

/// How long a refresh token that was spent is answered once more, to whoever lost the answer (`identity::refresh` says why it is safe).
pub const GRACE: Duration = Duration::from_secs(10);

/// `tokens:` of the configuration.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    pub issuer: String,
    pub audience: String,
    /// Life of an access token; it dies earlier with its session.
    pub access: Duration,
    /// Each with a name of its own.
    pub trusted_issuers: Vec<Arc<TrustedIssuer>>,
    /// Life of a refresh token that nobody uses; it dies earlier with its session.
    pub refresh: Duration,
    /// Of keys that are made from now on.
    pub algorithm: SigningAlgorithm,
}

/// Algorithms of RFC 7518 and RFC 8037 that we sign by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SigningAlgorithm {
    /// Ed25519.
    #[default]
    EdDsa,
    /// ECDSA on P-256.
    Es256,
    /// RSA PKCS#1 v1.5, 2048 bits.
    Rs256,
}

impl SigningAlgorithm {
    pub const ALL: [Self; 3] = [Self::EdDsa, Self::Es256, Self::Rs256];

    /// `alg` of a header.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

impl fmt::Display for SigningAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no algorithm that tokens are signed by; write `EdDSA`, `ES256` or `RS256`")]
pub struct UnknownAlgorithm(String);

impl FromStr for SigningAlgorithm {
    type Err = UnknownAlgorithm;

    fn from_str(text: &str) -> Result<Self, UnknownAlgorithm> {
        let known = Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == text);
        known.ok_or_else(|| UnknownAlgorithm(text.to_owned()))
    }
}

/// Claims of an access token (RFC 9068, `typ: at+jwt`; CONTRACT 7).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AccessClaims {
    pub iss: String,
    pub sub: String,
    pub aud: String,
    /// Seconds since 1970.
    pub iat: i64,
    pub exp: i64,
    /// Ours have none; one that came must be a number that lies behind us all the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    pub jti: String,
    pub sid: String,
    pub groups: Vec<String>,
    /// The user's token version when it was made.
    pub ver: u64,
}

/// Separates the session from what is chance in a `jti`. In no session id.
const AFTER_SESSION: char = '.';

/// The `jti` of a token of this session: its revocations can be counted by it.
#[must_use]
pub fn jti_of(session: &SessionId, chance: &str) -> String {
    format!("{}{AFTER_SESSION}{chance}", session.as_str())
}

/// The session in a `jti`; `None` where it is of another make.
#[must_use]
pub fn session_in(jti: &str) -> Option<SessionId> {
    jti.split_once(AFTER_SESSION).map(|(session, _)| SessionId::new(session.to_owned()))
}

/// Where a request came from, as one hash; `None` where the address is unknown, which is like no place.
#[must_use]
pub fn place_of(address: Option<IpAddr>, user_agent: &str) -> Option<TokenHash> {
    address.map(|address| TokenHash::of(&format!("{}\0{user_agent}", address.to_canonical())))
}

/// When a refresh token ends that is made now for a session that ends at `end_of_session`.
#[must_use]
pub fn end_of_refresh(settings: &TokenSettings, now: Timestamp, end_of_session: Timestamp) -> Timestamp {
    now.after(settings.refresh).min(end_of_session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_algorithm_is_read_as_it_is_written() {
        for algorithm in SigningAlgorithm::ALL {
            assert_eq!(algorithm.as_str().parse(), Ok(algorithm));
        }
        for other in ["none", "HS256", "eddsa", "ES384", ""] {
            assert!(other.parse::<SigningAlgorithm>().is_err(), "{other}");
        }
    }

    #[test]
    fn a_jti_tells_its_session() {
        let session = SessionId::new("0123abcd".to_owned());
        assert_eq!(session_in(&jti_of(&session, "x-_y")), Some(session));
        assert_eq!(session_in("x-_y"), None);
    }

    #[test]
    fn a_place_is_an_address_and_a_browser() {
        let here = place_of(Some([192, 0, 2, 7].into()), "curl");
        assert_eq!(here, place_of(Some("::ffff:192.0.2.7".parse().unwrap()), "curl"));
        assert_ne!(here, place_of(Some([192, 0, 2, 8].into()), "curl"));
        assert_ne!(here, place_of(Some([192, 0, 2, 7].into()), "curl/8"));
        assert_eq!(place_of(None, "curl"), None);
    }

    #[test]
    fn a_refresh_token_never_outlives_its_session() {
        let day = Duration::from_secs(86_400);
        let settings = TokenSettings {
            issuer: String::new(),
            audience: String::new(),
            access: day,
            refresh: day * 7,
            algorithm: SigningAlgorithm::EdDsa,
            trusted_issuers: Vec::new(),
        };
        let now = Timestamp::from_unix_millis(0);
        assert_eq!(end_of_refresh(&settings, now, now.after(day)), now.after(day));
        assert_eq!(end_of_refresh(&settings, now, now.after(day * 30)), now.after(day * 7));
    }
}
