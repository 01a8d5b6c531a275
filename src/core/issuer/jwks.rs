//! A JSON Web Key Set (RFC 7517) as it comes from an issuer or a file, read strictly: a key that could be misread, or that is not for
//! verifying signatures, is left out. Called by `store` for what it fetched and by `config` for files.
//!
//! A symmetric key in a key set would let whoever can read the set make tokens, so none is ever taken (THREATS 45).

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use super::JwtAlgorithm;

/// Keys that a set may hold. Large issuers publish a handful.
pub const MOST_KEYS: usize = 100;
/// Longest `kid`, in bytes.
pub const LONGEST_KID: usize = 512;

/// Moduli in bits: shorter ones can be broken (RFC 8725 §3.5), longer ones cost whoever verifies.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=4096;

/// The keys of one issuer.
#[derive(Debug, Default, PartialEq)]
pub struct KeySet {
    pub keys: Vec<IssuerKey>,
}

#[derive(Debug, PartialEq)]
pub struct IssuerKey {
    pub kid: Option<String>,
    /// What it verifies: one where the key says so, else all that its type can.
    pub algorithms: Vec<JwtAlgorithm>,
    pub material: KeyMaterial,
}

#[derive(Debug, PartialEq)]
pub enum KeyMaterial {
    /// Big endian, without leading zeroes.
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// Uncompressed (SEC 1 §2.3.3): 4, x, y.
    EllipticCurve {
        point: Vec<u8>,
    },
    Ed25519([u8; 32]),
    /// Of the configuration alone.
    Secret(SharedSecret),
}

/// By what a key is known again, after it verified a signature: nothing else that verifies has the same, and no secret can be told from it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPrint {
    kid: Option<String>,
    digest: [u8; 32],
}

impl fmt::Debug for KeyPrint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyPrint(…)")
    }
}

impl IssuerKey {
    #[must_use]
    pub fn print(&self) -> KeyPrint {
        let (kind, parts): (u8, [&[u8]; 2]) = match &self.material {
            KeyMaterial::Rsa { modulus, exponent } => (0, [modulus, exponent]),
            KeyMaterial::EllipticCurve { point } => (1, [point, &[]]),
            KeyMaterial::Ed25519(public) => (2, [public, &[]]),
            KeyMaterial::Secret(secret) => (3, [secret.0.expose_secret().as_bytes(), &[]]),
        };
        let mut digest = Sha256::new_with_prefix([kind]);
        // With their lengths, so that no two lists are one text.
        let algorithms = self.algorithms.iter().map(|algorithm| algorithm.as_str().as_bytes());
        for part in parts.into_iter().chain(algorithms) {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        KeyPrint { kid: self.kid.clone(), digest: digest.finalize().into() }
    }
}

/// A secret that issuer and we know. Two are never held equal: what they are is nobody's business.
#[derive(Debug)]
pub struct SharedSecret(pub SecretString);

impl PartialEq for SharedSecret {
    fn eq(&self, _: &Self) -> bool {
        false
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadKeySet {
    #[error("it is no JSON object with a list `keys`")]
    Form,
    #[error("it holds {0} keys, more than {MOST_KEYS}")]
    Many(usize),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    /// The one key of an issuer that shares a secret with us.
    #[must_use]
    pub fn of_secret(secret: SecretString) -> Self {
        let material = KeyMaterial::Secret(SharedSecret(secret));
        Self { keys: vec![IssuerKey { kid: None, algorithms: vec![JwtAlgorithm::HS256], material }] }
    }

    /// The keys of a set that verify signatures; others may stand beside them (RFC 7517 §5), and there may be none.
    ///
    /// # Errors
    /// It is no key set at all.
    pub fn parse(text: &[u8]) -> Result<Self, BadKeySet> {
        let Document { keys } = serde_json::from_slice(text).map_err(|_| BadKeySet::Form)?;
        if keys.len() > MOST_KEYS {
            return Err(BadKeySet::Many(keys.len()));
        }
        Ok(Self { keys: keys.iter().filter_map(Value::as_object).filter_map(key).collect() })
    }

    /// Whether the key that this was taken of is among them, and verifies the same.
    #[must_use]
    pub fn holds(&self, print: &KeyPrint) -> bool {
        self.keys.iter().any(|key| key.kid == print.kid && key.print() == *print)
    }

    /// Those that may have signed a token with this header.
    pub fn candidates(&self, kid: Option<&str>, algorithm: JwtAlgorithm) -> impl Iterator<Item = &IssuerKey> {
        self.keys.iter().filter(move |key| {
            // A token without `kid` may be from any; one with it from no key that has none, but for the only key of a secret.
            let is_named = kid.is_none() || key.kid.as_deref() == kid || matches!(key.material, KeyMaterial::Secret(_));
            is_named && key.algorithms.contains(&algorithm)
        })
    }
}

fn key(jwk: &Map<String, Value>) -> Option<IssuerKey> {
    let text = |name: &str| match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(()),
    };
    let is_public = !["d", "p", "q", "dp", "dq", "qi", "oth", "k"].into_iter().any(|name| jwk.contains_key(name));
    let is_for_signatures = matches!(text("use").ok()?, None | Some("sig"));
    let may_verify = match jwk.get("key_ops") {
        None => true,
        Some(operations) => operations.as_array()?.iter().any(|operation| operation == "verify"),
    };
    let kid = text("kid").ok()?;
    if !is_public || !is_for_signatures || !may_verify || kid.is_some_and(|kid| kid.len() > LONGEST_KID) {
        return None;
    }
    let (material, able) = material(jwk)?;
    let algorithms = match text("alg").ok()? {
        None => able.to_vec(),
        Some(name) => vec![JwtAlgorithm::named(name).filter(|algorithm| able.contains(algorithm))?],
    };
    Some(IssuerKey { kid: kid.map(str::to_owned), algorithms, material })
}

/// The key itself, and what one of its type and curve can verify.
fn material(jwk: &Map<String, Value>) -> Option<(KeyMaterial, &'static [JwtAlgorithm])> {
    use JwtAlgorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
    match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let (modulus, exponent) = (trimmed(bytes("n")?), trimmed(bytes("e")?));
            let is_odd = exponent.last().is_some_and(|last| last % 2 == 1);
            let is_fit = RSA_BITS.contains(&bits(&modulus)) && is_odd && (2..=32).contains(&bits(&exponent));
            let able = &[RS256, RS384, RS512, PS256, PS384, PS512];
            is_fit.then_some((KeyMaterial::Rsa { modulus, exponent }, able.as_slice()))
        }
        ("EC", Some("P-256")) => Some((point(&bytes("x")?, &bytes("y")?, 32)?, &[ES256])),
        ("EC", Some("P-384")) => Some((point(&bytes("x")?, &bytes("y")?, 48)?, &[ES384])),
        ("OKP", Some("Ed25519")) => Some((KeyMaterial::Ed25519(bytes("x")?.try_into().ok()?), &[EdDSA])),
        _ => None,
    }
}

fn point(x: &[u8], y: &[u8], length: usize) -> Option<KeyMaterial> {
    let point = [&[4], x, y].concat();
    (x.len() == length && y.len() == length).then_some(KeyMaterial::EllipticCurve { point })
}

fn trimmed(bytes: Vec<u8>) -> Vec<u8> {
    bytes.into_iter().skip_while(|byte| *byte == 0).collect()
}

/// Of a number without leading zero bytes.
fn bits(number: &[u8]) -> usize {
    let unused = number.first().map_or(0, |first| first.leading_zeros());
    (number.len() * 8).saturating_sub(usize::try_from(unused).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn encoded(bytes: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(bytes)
    }

    fn parsed(keys: Value) -> Vec<IssuerKey> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap().keys
    }

    fn rsa(bytes: usize, exponent: &[u8]) -> Value {
        json!({ "kty": "RSA", "n": encoded(&vec![0xff; bytes]), "e": encoded(exponent) })
    }

    fn with(mut key: Value, name: &str, value: Value) -> Value {
        key[name] = value;
        key
    }

    fn ed() -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(&[7; 32]), "kid": "a" })
    }

    #[test]
    fn threat_45_only_keys_that_verify_signatures_are_taken() {
        let ec = |curve: &str, x: usize, y: usize| json!({ "kty": "EC", "crv": curve, "x": encoded(&vec![1; x]), "y": encoded(&vec![1; y]) });
        for good in [
            ed(),
            with(ed(), "use", json!("sig")),
            with(ed(), "alg", json!("EdDSA")),
            with(ed(), "alg", json!("Ed25519")),
            with(ed(), "key_ops", json!(["verify"])),
            with(ed(), "x5c", json!(["ignored"])),
            rsa(256, &[1, 0, 1]),
            rsa(512, &[3]),
            with(rsa(256, &[1, 0, 1]), "alg", json!("PS512")),
            ec("P-256", 32, 32),
            ec("P-384", 48, 48),
        ] {
            assert_eq!(parsed(json!([good])).len(), 1, "{good}");
        }
        for bad in [
            json!({ "kty": "oct", "k": encoded(&[7; 32]) }),
            json!({ "kty": "oct", "k": encoded(&[7; 32]), "alg": "HS256", "use": "sig" }),
            with(rsa(256, &[1, 0, 1]), "alg", json!("HS256")),
            with(rsa(256, &[1, 0, 1]), "alg", json!("none")),
            with(rsa(256, &[1, 0, 1]), "alg", json!("RSA-OAEP")),
            with(rsa(256, &[1, 0, 1]), "alg", json!("ES256")),
            with(rsa(256, &[1, 0, 1]), "alg", json!(5)),
            with(rsa(256, &[1, 0, 1]), "use", json!("enc")),
            with(rsa(256, &[1, 0, 1]), "use", json!(["sig"])),
            with(rsa(256, &[1, 0, 1]), "d", json!("private")),
            with(ed(), "key_ops", json!(["sign"])),
            with(ed(), "key_ops", json!("verify")),
            with(ed(), "kid", json!(7)),
            with(ed(), "kid", json!("k".repeat(LONGEST_KID + 1))),
            with(ed(), "x", json!(encoded(&[7; 31]))),
            with(ed(), "x", json!(encoded(&[7; 33]))),
            with(ed(), "x", json!("!")),
            with(ed(), "crv", json!("Ed448")),
            rsa(255, &[1, 0, 1]),
            rsa(513, &[1, 0, 1]),
            rsa(256, &[1, 0, 0]),
            rsa(256, &[1]),
            rsa(256, &[]),
            rsa(256, &[1, 0, 0, 0, 1]),
            with(rsa(256, &[1, 0, 1]), "n", json!(encoded(&[vec![0; 8], vec![0xff; 250]].concat()))),
            ec("P-256", 31, 33),
            ec("P-384", 32, 32),
            ec("P-521", 66, 66),
            ec("secp256k1", 32, 32),
            json!({ "kty": "RSA" }),
            json!("a"),
            json!(null),
        ] {
            assert!(parsed(json!([bad])).is_empty(), "{bad}");
            assert_eq!(parsed(json!([bad, ed()])).len(), 1, "what stands beside it counts: {bad}");
        }
    }

    #[test]
    fn what_is_no_key_set_is_refused() {
        for bad in ["", "{}", "[]", "null", r#"{"keys":{}}"#, r#"{"keys":[],"keys":[]}"#, "<html>", r#"{"keys":[]} x"#]
        {
            assert_eq!(KeySet::parse(bad.as_bytes()), Err(BadKeySet::Form), "{bad}");
        }
        let many = json!({ "keys": vec![ed(); MOST_KEYS + 1] }).to_string();
        assert_eq!(KeySet::parse(many.as_bytes()), Err(BadKeySet::Many(MOST_KEYS + 1)));
        assert_eq!(KeySet::parse(br#"{"keys":[]}"#), Ok(KeySet::default()), "all keys were taken out");
    }

    #[test]
    fn a_key_is_found_by_its_kid_and_what_it_verifies() {
        let keys = json!([
            ed(),
            with(rsa(256, &[1, 0, 1]), "kid", json!("a")),
            with(with(rsa(256, &[3]), "kid", json!("b")), "alg", json!("RS256")),
            rsa(257, &[3]),
        ]);
        let set = KeySet { keys: parsed(keys) };
        let count = |kid, algorithm| set.candidates(kid, algorithm).count();
        assert_eq!(count(Some("a"), JwtAlgorithm::EdDSA), 1);
        assert_eq!(count(Some("a"), JwtAlgorithm::PS256), 1);
        assert_eq!(count(Some("a"), JwtAlgorithm::ES256), 0);
        assert_eq!(count(Some("b"), JwtAlgorithm::RS256), 1);
        assert_eq!(count(Some("b"), JwtAlgorithm::PS256), 0, "it says what it is for");
        assert_eq!(count(Some("c"), JwtAlgorithm::RS256), 0);
        assert_eq!(count(None, JwtAlgorithm::RS256), 3);
        assert_eq!(count(None, JwtAlgorithm::HS256), 0);
        let secret = KeySet::of_secret("x".into());
        assert_eq!(secret.candidates(Some("any"), JwtAlgorithm::HS256).count(), 1);
        assert_eq!(secret.candidates(None, JwtAlgorithm::RS256).count(), 0);
        assert!(!format!("{:?}", KeySet::of_secret("hidden".into())).contains("hidden"));
    }
}
