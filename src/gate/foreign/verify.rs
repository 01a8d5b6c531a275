//! One token against the keys and the settings of its issuer: form, header, signature, audience, times and kind. Pure but for the
//! cryptography; called by the parent alone.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use secrecy::ExposeSecret as _;
use serde_json::{Map, Value};

use crate::{
    core::{
        issuer::{
            JwtAlgorithm, TrustedIssuer,
            claims::BadClaims,
            jwks::{IssuerKey, KeyMaterial, KeyPrint, KeySet, LONGEST_KID},
        },
        time::Timestamp,
    },
    gate::tokens,
};

/// Keys that are tried on one token: more than one only where it names none, or a set has several of one name.
const MOST_TRIED: usize = 4;

/// Why a token is refused; for the log alone.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error("it is not a JWT in form")]
    Form,
    #[error("its header holds what is never followed or not understood")]
    Header,
    #[error("its algorithm is not one that the issuer may use")]
    Algorithm,
    #[error("no key of the issuer fits its `kid` and algorithm")]
    Key,
    #[error("its signature is wrong")]
    Signature,
    #[error("it is from another issuer")]
    Issuer,
    #[error("it is for another audience")]
    Audience,
    #[error("it is not valid yet, or its times are no whole numbers")]
    Time,
    #[error("it is expired")]
    Expired,
    #[error("it is no access token, but an ID token or another kind")]
    Kind,
    #[error("it counts only with a proof of possession, which a Bearer has not")]
    Bound,
    #[error(transparent)]
    Claims(#[from] BadClaims),
    #[error("its user is called as a local user")]
    LocalName,
}

impl Refused {
    /// Whether the same issuer, with the same keys, never has another answer, which costs a signature to find out.
    pub(super) const fn is_for_good(&self) -> bool {
        match self {
            Self::Signature
            | Self::Issuer
            | Self::Audience
            | Self::Expired
            | Self::Kind
            | Self::Bound
            | Self::Claims(_) => true,
            Self::Form | Self::Header | Self::Algorithm | Self::Key | Self::Time | Self::LocalName => false,
        }
    }
}

/// A token whose header was read; nothing of it is believed yet.
pub(super) struct Token<'t> {
    parts: Parts<'t>,
    header: Header,
}

impl<'t> Token<'t> {
    pub(super) fn read(token: &'t str, issuer: &TrustedIssuer) -> Result<Self, Refused> {
        let parts = Parts::of(token)?;
        let header = Header::read(&parts, issuer)?;
        Ok(Self { parts, header })
    }

    /// Whether one of the keys is what the header names.
    pub(super) fn may_be_of(&self, keys: &KeySet) -> bool {
        keys.candidates(self.header.kid.as_deref(), self.header.algorithm).next().is_some()
    }

    /// Its claims, when it ends (`exp`), and which key had signed it.
    pub(super) fn verified(
        &self,
        keys: &KeySet,
        issuer: &TrustedIssuer,
        now: Timestamp,
    ) -> Result<(Map<String, Value>, Timestamp, KeyPrint), Refused> {
        let key = verify_signature(&self.parts, &self.header, keys)?;
        // Not before: only what the issuer signed is looked at further.
        let claims: Map<String, Value> = decoded(self.parts.payload).ok_or(Refused::Form)?;
        let until = check(&claims, &self.header, issuer, now)?;
        Ok((claims, until, key.print()))
    }
}

/// The three parts of a JWS in its compact form (RFC 7515 §7.1); a JWE has five.
struct Parts<'t> {
    /// Header and payload: what is signed.
    message: &'t str,
    header: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Parts<'t> {
    fn of(token: &'t str) -> Result<Self, Refused> {
        if token.len() > tokens::LONGEST {
            return Err(Refused::Form);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refused::Form)?;
        let (header, payload) = message.split_once('.').ok_or(Refused::Form)?;
        if payload.contains('.') || signature.is_empty() {
            return Err(Refused::Form);
        }
        Ok(Self { message, header, payload, signature })
    }
}

struct Header {
    algorithm: JwtAlgorithm,
    kid: Option<String>,
    /// `typ: at+jwt` (RFC 9068): whatever it holds beside, it is an access token.
    says_access_token: bool,
}

impl Header {
    fn read(parts: &Parts<'_>, issuer: &TrustedIssuer) -> Result<Self, Refused> {
        let header: Map<String, Value> = decoded(parts.header).ok_or(Refused::Form)?;
        // `b64`, `zip`, `enc` and a nested `cty` change what the payload means; no extension that `crit` could name is understood.
        let never = ["crit", "jwk", "jku", "x5u", "x5c", "b64", "zip", "enc", "cty"];
        if never.into_iter().any(|name| header.contains_key(name)) {
            return Err(Refused::Header);
        }
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(Refused::Header),
        };
        let algorithm = JwtAlgorithm::named(text("alg")?.ok_or(Refused::Header)?);
        let algorithm =
            algorithm.filter(|algorithm| issuer.algorithms.contains(algorithm)).ok_or(Refused::Algorithm)?;
        let typ = text("typ")?.map(str::to_ascii_lowercase);
        let says_access_token = match typ.as_deref().map(|typ| typ.strip_prefix("application/").unwrap_or(typ)) {
            None | Some("jwt") => false,
            Some("at+jwt") => true,
            Some(_) => return Err(Refused::Kind),
        };
        let kid = text("kid")?;
        if kid.is_some_and(|kid| kid.len() > LONGEST_KID) {
            return Err(Refused::Key);
        }
        Ok(Self { algorithm, kid: kid.map(str::to_owned), says_access_token })
    }
}

/// The key that it holds against.
fn verify_signature<'k>(parts: &Parts<'_>, header: &Header, keys: &'k KeySet) -> Result<&'k IssuerKey, Refused> {
    let mut refused = Refused::Key;
    for key in keys.candidates(header.kid.as_deref(), header.algorithm).take(MOST_TRIED) {
        let message = parts.message.as_bytes();
        let held = jsonwebtoken::crypto::verify(parts.signature, message, &decoding(key), algorithm(header.algorithm));
        if held.is_ok_and(|held| held) {
            return Ok(key);
        }
        refused = Refused::Signature;
    }
    Err(refused)
}

/// Made for each token that memory does not know: it copies the key, as the library does once more for each signature, and works nothing
/// out: 0.16 µs beside the 200 of an RSA signature, 0.05 for Ed25519. To keep it with the key, `core`, which reads the keys, would have to know the library.
fn decoding(key: &IssuerKey) -> DecodingKey {
    match &key.material {
        KeyMaterial::Rsa { modulus, exponent } => DecodingKey::from_rsa_raw_components(modulus, exponent),
        // The library takes the point as it is.
        KeyMaterial::EllipticCurve { point } => DecodingKey::from_ec_der(point),
        KeyMaterial::Ed25519(public) => DecodingKey::from_ed_der(public),
        KeyMaterial::Secret(secret) => DecodingKey::from_secret(secret.0.expose_secret().as_bytes()),
    }
}

const fn algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::HS256 => Algorithm::HS256,
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

/// Everything of the claims that does not say whom they are of; when the token ends.
fn check(
    claims: &Map<String, Value>,
    header: &Header,
    issuer: &TrustedIssuer,
    now: Timestamp,
) -> Result<Timestamp, Refused> {
    if claims.get("iss").and_then(Value::as_str) != Some(&issuer.issuer) {
        return Err(Refused::Issuer);
    }
    if !is_for(claims.get("aud"), &issuer.audiences) {
        return Err(Refused::Audience);
    }
    let until = times(claims, issuer.clock_skew, now)?;
    // A token that is bound to a key (RFC 7800, DPoP, mutual TLS) is worth nothing to whoever only holds it.
    if claims.contains_key("cnf") {
        return Err(Refused::Bound);
    }
    kind(claims, header, issuer)?;
    Ok(until)
}

/// `aud` is a text or a list of texts (RFC 7519 §4.1.3).
fn is_for(aud: Option<&Value>, audiences: &[String]) -> bool {
    let is_ours = |one: &str| audiences.iter().any(|audience| audience == one);
    match aud {
        Some(Value::String(one)) => is_ours(one),
        Some(Value::Array(all)) => {
            all.iter().all(Value::is_string) && all.iter().filter_map(Value::as_str).any(is_ours)
        }
        _ => false,
    }
}

/// `exp` has to be there; all are whole seconds since 1970 (THREATS 46).
fn times(claims: &Map<String, Value>, skew: Duration, now: Timestamp) -> Result<Timestamp, Refused> {
    let at = |name: &str| -> Result<Option<Timestamp>, Refused> {
        match claims.get(name) {
            None => Ok(None),
            Some(value) => {
                let seconds = value.as_i64().filter(|seconds| *seconds >= 0).ok_or(Refused::Time)?;
                Ok(Some(Timestamp::from_unix_millis(seconds.saturating_mul(1000))))
            }
        }
    };
    let until = at("exp")?.ok_or(Refused::Time)?;
    let latest = now.after(skew);
    if [at("nbf")?, at("iat")?].into_iter().flatten().any(|start| start > latest) {
        return Err(Refused::Time);
    }
    if now >= until.after(skew) {
        return Err(Refused::Expired);
    }
    Ok(until)
}

/// Whether it is an access token (THREATS 47). An ID token has another audience, the client's, which is why it fails before this where
/// `audiences` names none; where it does, issuers tell the kinds apart by `typ` (Keycloak), `token_use` (Cognito), or not at all: then
/// what only an ID token holds tells it.
fn kind(claims: &Map<String, Value>, header: &Header, issuer: &TrustedIssuer) -> Result<(), Refused> {
    let says = |name: &str| claims.get(name).map(|value| value.as_str().unwrap_or_default().to_ascii_lowercase());
    let is_id_token = match (says("typ").as_deref(), says("token_use").as_deref()) {
        (None, Some("access")) | (Some("bearer" | "at+jwt" | "access_token"), None) => false,
        (Some("id"), None) | (None, Some("id")) => true,
        (None | Some("jwt"), None) => {
            let only_there = ["nonce", "at_hash", "c_hash", "s_hash"].into_iter();
            !header.says_access_token && only_there.into_iter().any(|name| claims.contains_key(name))
        }
        // Refresh and logout tokens, and what nobody heard of.
        _ => return Err(Refused::Kind),
    };
    // A logout token (OpenID Connect Back-Channel Logout 1.0 §2.4) or another security event (RFC 8417).
    if claims.contains_key("events") || (is_id_token && !issuer.id_tokens) {
        return Err(Refused::Kind);
    }
    Ok(())
}

fn decoded<T: for<'de> serde::Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}
