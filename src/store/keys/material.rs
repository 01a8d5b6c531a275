//! Private keys: made, read back from what is sealed, and signed by. Called by `keys` beside it alone.
//!
//! ring signs, in constant time, whatever the algorithm. The crates `p256` and `rsa`, which come with jsonwebtoken's verification, only work out public
//! keys and make RSA keys: `rsa` is open to RUSTSEC-2023-0071 where it signs or decrypts, so that it must do neither here.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::DecodingKey;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use ring::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
    },
};
use rsa::{pkcs8::EncodePrivateKey as _, rand_core, traits::PublicKeyParts as _};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::{
    core::tokens::SigningAlgorithm,
    ports::{CannotSign, Entropy, KeyTimes, Signer, SigningKey},
};

/// As BSI and NIST (SP 800-57) have it for signatures that hold for minutes.
const RSA_BITS: usize = 2048;

/// What is sealed: the seed of Ed25519, the number of P-256 (32 bytes each), PKCS#8 of RSA.
pub(super) type Secret = Zeroizing<Vec<u8>>;

/// What was sealed is no key of its algorithm.
#[derive(Debug, thiserror::Error)]
#[error("it is no key of {0}")]
pub(super) struct Damaged(SigningAlgorithm);

/// A new private key. RSA takes its time (tenths of a second): not to be called where requests are waiting.
pub(super) fn make(algorithm: SigningAlgorithm, entropy: &dyn Entropy) -> Result<Secret, Damaged> {
    match algorithm {
        SigningAlgorithm::EdDsa => Ok(random_bytes(entropy)),
        SigningAlgorithm::Es256 => loop {
            let bytes = random_bytes(entropy);
            // One in 2^32 is zero or not below the order of the curve.
            if p256::SecretKey::from_slice(&bytes).is_ok() {
                return Ok(bytes);
            }
        },
        SigningAlgorithm::Rs256 => {
            let damaged = || Damaged(algorithm);
            let key = rsa::RsaPrivateKey::new(&mut Random(entropy), RSA_BITS).map_err(|_| damaged())?;
            let document = key.to_pkcs8_der().map_err(|_| damaged())?;
            Ok(Zeroizing::new(document.as_bytes().to_vec()))
        }
    }
}

fn random_bytes(entropy: &dyn Entropy) -> Secret {
    let mut bytes = Zeroizing::new(vec![0; 32]);
    entropy.fill(&mut bytes);
    bytes
}

/// The key as it signs and verifies.
pub(super) fn key_of(algorithm: SigningAlgorithm, secret: &[u8], times: KeyTimes) -> Result<SigningKey, Damaged> {
    let damaged = || Damaged(algorithm);
    let (pair, decoding, members) = match algorithm {
        SigningAlgorithm::EdDsa => {
            let pair = Ed25519KeyPair::from_seed_unchecked(secret).map_err(|_| damaged())?;
            let x = URL_SAFE_NO_PAD.encode(pair.public_key());
            let decoding = DecodingKey::from_ed_der(pair.public_key().as_ref());
            (Pair::Ed25519(pair), decoding, vec![("crv", "Ed25519".to_owned()), ("kty", "OKP".to_owned()), ("x", x)])
        }
        SigningAlgorithm::Es256 => {
            let point =
                p256::SecretKey::from_slice(secret).map_err(|_| damaged())?.public_key().to_encoded_point(false);
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                &ECDSA_P256_SHA256_FIXED_SIGNING,
                secret,
                point.as_bytes(),
                &SystemRandom::new(),
            )
            .map_err(|_| damaged())?;
            let coordinate = |bytes: Option<&p256::FieldBytes>| bytes.map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
            let x = coordinate(point.x()).ok_or_else(damaged)?;
            let y = coordinate(point.y()).ok_or_else(damaged)?;
            let decoding = DecodingKey::from_ec_components(&x, &y).map_err(|_| damaged())?;
            (
                Pair::P256(pair),
                decoding,
                vec![("crv", "P-256".to_owned()), ("kty", "EC".to_owned()), ("x", x), ("y", y)],
            )
        }
        SigningAlgorithm::Rs256 => {
            let pair = RsaKeyPair::from_pkcs8(secret).map_err(|_| damaged())?;
            let number = |bytes: Vec<u8>| URL_SAFE_NO_PAD.encode(bytes);
            let public: rsa::RsaPublicKey = rsa::pkcs8::DecodePrivateKey::from_pkcs8_der(secret)
                .map(|key: rsa::RsaPrivateKey| key.to_public_key())
                .map_err(|_| damaged())?;
            let (e, n) = (number(public.e().to_bytes_be()), number(public.n().to_bytes_be()));
            let decoding = DecodingKey::from_rsa_components(&n, &e).map_err(|_| damaged())?;
            (Pair::Rsa(Box::new(pair)), decoding, vec![("e", e), ("kty", "RSA".to_owned()), ("n", n)])
        }
    };
    let kid = thumbprint(&members);
    let mut jwk = json!({ "use": "sig", "alg": algorithm.as_str(), "kid": kid });
    if let Some(fields) = jwk.as_object_mut() {
        fields.extend(members.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))));
    }
    Ok(SigningKey { kid, algorithm, signer: Box::new(pair), decoding, jwk, times })
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Signer for Pair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CannotSign> {
        // ring takes the randomness that blinds a signature from the operating system itself: its trait is closed to others.
        let random = SystemRandom::new();
        match self {
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::P256(pair) => {
                let signature = pair.sign(&random, message).map_err(|_| CannotSign(SigningAlgorithm::Es256))?;
                Ok(signature.as_ref().to_vec())
            }
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(|_| CannotSign(SigningAlgorithm::Rs256))?;
                Ok(signature)
            }
        }
    }
}

/// RFC 7638, over the members that it and RFC 8037 require, which come in the order of their names.
fn thumbprint(members: &[(&str, String)]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!(r#""{name}":"{value}""#)).collect();
    URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{}}}", members.join(",")).as_bytes()))
}

/// Our randomness for the crate `rsa`, which speaks an older dialect.
struct Random<'e>(&'e dyn Entropy);

impl rand_core::CryptoRng for Random<'_> {}

impl rand_core::RngCore for Random<'_> {
    fn next_u32(&mut self) -> u32 {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn next_u64(&mut self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.0.fill(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, Validation, decode};

    use super::*;
    use crate::{core::time::Timestamp, store::system::SystemEntropy};

    const TIMES: KeyTimes = KeyTimes {
        created_at: Timestamp::from_unix_millis(0),
        signs_from: Timestamp::from_unix_millis(0),
        retires_at: None,
        token_life: std::time::Duration::ZERO,
    };

    fn made(algorithm: SigningAlgorithm) -> SigningKey {
        key_of(algorithm, &make(algorithm, &SystemEntropy).unwrap(), TIMES).unwrap()
    }

    fn signed(key: &SigningKey) -> String {
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let message = format!(
            "{}.{}",
            part(json!({ "alg": key.algorithm.as_str(), "typ": "JWT" })),
            part(json!({ "exp": 4_000_000_000_u64 }))
        );
        let signature = URL_SAFE_NO_PAD.encode(key.signer.sign(message.as_bytes()).unwrap());
        format!("{message}.{signature}")
    }

    #[test]
    fn the_kid_is_the_thumbprint_of_rfc_8037() {
        // RFC 8037, appendix A.1 to A.3.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = key_of(SigningAlgorithm::EdDsa, &seed, TIMES).unwrap();
        assert_eq!(key.jwk["x"], "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn the_thumbprint_of_an_rsa_key_is_that_of_rfc_7638() {
        // RFC 7638, section 3.1.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3\
                 oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgd\
                 AZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-\
                 kEgU8awapJzKnqDKgw";
        let members = [("e", "AQAB".to_owned()), ("kty", "RSA".to_owned()), ("n", n.to_owned())];
        assert_eq!(thumbprint(&members), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn what_a_key_signs_it_verifies_and_no_other_does() {
        for (algorithm, expected) in
            SigningAlgorithm::ALL.into_iter().zip([Algorithm::EdDSA, Algorithm::ES256, Algorithm::RS256])
        {
            let (key, other) = (made(algorithm), made(algorithm));
            assert_ne!(key.kid, other.kid, "{algorithm}");
            let token = signed(&key);
            let validation = Validation::new(expected);
            decode::<Value>(&token, &key.decoding, &validation).unwrap();
            assert!(decode::<Value>(&token, &other.decoding, &validation).is_err(), "{algorithm}");
            // As anybody else reads it.
            let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(key.jwk.clone()).unwrap();
            decode::<Value>(&token, &DecodingKey::from_jwk(&jwk).unwrap(), &validation).unwrap();
            assert_eq!(jwk.common.key_id.as_deref(), Some(key.kid.as_str()));
            for secret in ["d", "p", "q", "dp", "dq", "qi", "k"] {
                assert!(key.jwk.get(secret).is_none(), "{algorithm}: {secret}");
            }
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for algorithm in SigningAlgorithm::ALL {
            for bad in [&[][..], &[0; 31], &[0xff; 33]] {
                assert!(key_of(algorithm, bad, TIMES).is_err(), "{algorithm}");
            }
        }
        assert!(key_of(SigningAlgorithm::Es256, &[0; 32], TIMES).is_err());
        assert!(key_of(SigningAlgorithm::Es256, &[0xff; 32], TIMES).is_err());
    }
}
