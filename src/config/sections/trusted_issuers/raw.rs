//! The raw types of `tokens.trusted_issuers`, as serde reads them.

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

use super::keys::JWKS;
use crate::core::issuer::JwtAlgorithm;

/// Another issuer whose JWTs are taken as `Authorization: Bearer`; its keys come from one of `discovery`, `jwks`, `jwks_file`, `secret`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawTrustedIssuer {
    /// `iss`, exactly as it stands in the tokens.
    #[schemars(example = &"https://idp.example.com")]
    pub(super) issuer: String,
    /// One of them has to stand in `aud`.
    #[schemars(example = ["postern"])]
    pub(super) audiences: Vec<String>,
    /// `true`: its keys are named by `/.well-known/openid-configuration` below the issuer; or the URL of that document.
    #[schemars(example = &true)]
    pub(super) discovery: Option<RawDiscovery>,
    /// URL of its key set.
    #[schemars(example = &JWKS)]
    pub(super) jwks: Option<String>,
    /// File that holds its key set.
    #[schemars(example = &"config/idp.jwks.json")]
    pub(super) jwks_file: Option<String>,
    /// For HS256: the secret that it shares with us, at least 32 bytes.
    #[serde(default, deserialize_with = "secret")]
    #[schemars(with = "Option<String>", extend("writeOnly" = true))]
    pub(super) secret: Option<SecretString>,
    /// File that holds the secret.
    #[schemars(example = &"secrets/jwt")]
    pub(super) secret_file: Option<String>,
    /// What its tokens may be signed with (default `RS256 PS256 ES256 ES384 EdDSA`; with a secret `HS256`).
    #[schemars(example = ["RS256"])]
    pub(super) algorithms: Option<Vec<RawAlgorithm>>,
    /// How far its clock and ours may be apart (default `30s`, at most `5m`).
    #[schemars(example = &"30s")]
    pub(super) clock_skew: Option<String>,
    /// Stands before the names of its users, so that none is taken for another (default: none). A name that a local user has is refused,
    /// with it or without.
    #[schemars(example = &"idp:")]
    pub(super) prefix: Option<String>,
    /// Least time between two fetches of its keys (default `60s`, from `1s` to `12h`).
    #[schemars(example = &"60s")]
    pub(super) interval: Option<String>,
    /// How often its keys are fetched unasked (default `10m`, at most `12h`).
    #[schemars(example = &"10m")]
    pub(super) refresh: Option<String>,
    /// Takes its ID tokens too (default false): for Google, whose service accounts have no other JWTs.
    #[schemars(example = &false)]
    pub(super) id_tokens: Option<bool>,
    #[serde(default)]
    pub(super) claims: RawClaims,
}

/// Which claims say what of a user. `a.b` is `b` within `a`; a name with dots of its own is written as a list of one, `["a.b"]`, or is a
/// URL.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawClaims {
    /// The name (default `sub`); as `email`, `email_verified` has to be true.
    #[schemars(example = &"sub")]
    pub(super) user: Option<RawPath>,
    /// A text or a list of texts (default `groups`).
    #[schemars(example = &"realm_access.roles")]
    pub(super) groups: Option<RawPath>,
    /// Roles of the policies that a token gives (default: none are).
    #[schemars(example = &"realm_access.roles")]
    pub(super) roles: Option<RawPath>,
    /// The display name (default `name`).
    #[schemars(example = &"name")]
    pub(super) name: Option<RawPath>,
    /// The address (default `email`); one that `email_verified` denies is left out.
    #[schemars(example = &"email")]
    pub(super) email: Option<RawPath>,
    /// What says that somebody signed in with two factors (default: every token is one).
    pub(super) factor: Option<RawFactor>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFactor {
    /// `acr`, `amr`, `aal`.
    #[schemars(example = &"amr")]
    pub(super) claim: RawPath,
    /// Values that stand for two factors; where the claim is a list, one of them is enough.
    #[schemars(example = ["mfa"])]
    pub(super) two: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawPath {
    Dotted(String),
    Exact(Vec<String>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum RawDiscovery {
    Below(bool),
    At(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum RawAlgorithm {
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

impl From<RawAlgorithm> for JwtAlgorithm {
    fn from(raw: RawAlgorithm) -> Self {
        match raw {
            RawAlgorithm::HS256 => Self::HS256,
            RawAlgorithm::RS256 => Self::RS256,
            RawAlgorithm::RS384 => Self::RS384,
            RawAlgorithm::RS512 => Self::RS512,
            RawAlgorithm::PS256 => Self::PS256,
            RawAlgorithm::PS384 => Self::PS384,
            RawAlgorithm::PS512 => Self::PS512,
            RawAlgorithm::ES256 => Self::ES256,
            RawAlgorithm::ES384 => Self::ES384,
            RawAlgorithm::EdDSA => Self::EdDSA,
        }
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}
