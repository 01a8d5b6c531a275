//! Whatever comes as a Bearer token: it is not ours, or refused, or says in every part what a token of ours says. Never taken for its own word on how it
//! is to be verified.
//!
//! An input is a token, or a header and claims on two lines, which are signed by the key: what a stranger cannot do, so that claims are read too.

use std::{sync::LazyLock, time::Duration};

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, crypto};
use postern::{
    core::{
        time::Timestamp,
        tokens::{SigningAlgorithm, TokenSettings},
    },
    gate::tokens::{is_ours, verify},
    ports::{CannotSign, KeyTimes, Signer, SigningKey, SigningKeys},
};
use serde_json::Value;

const ISSUER: &str = "https://auth.example.com";
const KID: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
/// RFC 8037, appendix A: PKCS#8 around the seed, and the public key.
const PKCS8: &[u8] = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20\
    \x9d\x61\xb1\x9d\xef\xfd\x5a\x60\xba\x84\x4a\xf4\x92\xec\x2c\xc4\x44\x49\xc5\x69\x7b\x32\x69\x19\x70\x3b\xac\x03\x1c\xae\x7f\x60";
const PUBLIC: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
const NOW: Timestamp = Timestamp::from_unix_millis(1_800_000_000_000);

struct Unused;

impl Signer for Unused {
    fn sign(&self, _message: &[u8]) -> Result<Vec<u8>, CannotSign> {
        Err(CannotSign(SigningAlgorithm::EdDsa))
    }
}

static KEYS: LazyLock<SigningKeys> = LazyLock::new(|| {
    SigningKeys::new(vec![SigningKey {
        kid: KID.to_owned(),
        algorithm: SigningAlgorithm::EdDsa,
        signer: Box::new(Unused),
        decoding: DecodingKey::from_ed_components(PUBLIC).expect("a key"),
        jwk: Value::Null,
        times: KeyTimes { created_at: NOW, signs_from: NOW, retires_at: None, token_life: Duration::ZERO },
    }])
});
static SETTINGS: LazyLock<TokenSettings> = LazyLock::new(|| TokenSettings {
    issuer: ISSUER.to_owned(),
    audience: "postern".to_owned(),
    access: Duration::from_secs(900),
    refresh: Duration::from_secs(900),
    algorithm: SigningAlgorithm::EdDsa,
    trusted_issuers: Vec::new(),
});

/// Whether a token was taken.
pub(crate) fn run(input: &[u8]) -> bool {
    let Ok(input) = str::from_utf8(input) else { return false };
    match input.split_once('\n') {
        None => {
            // Nobody outside has the key.
            let _says_so = is_ours(input, ISSUER);
            assert!(verify(input, &KEYS, &SETTINGS, NOW).is_err(), "a signature was forged");
            false
        }
        Some((header, claims)) => signed(header, claims.trim_end_matches('\n')),
    }
}

fn signed(header: &str, claims: &str) -> bool {
    let part = |text: &str| base64url(text.as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = crypto::sign(message.as_bytes(), &EncodingKey::from_ed_der(PKCS8), Algorithm::EdDSA);
    let token = format!("{message}.{}", signature.expect("a signature"));
    let Ok(taken) = verify(&token, &KEYS, &SETTINGS, NOW) else { return false };
    assert!(is_ours(&token, ISSUER), "what is taken says whose it is: {claims}");
    let now = NOW.unix_seconds();
    assert!(taken.iss == ISSUER && taken.aud == "postern" && taken.exp > now && taken.iat <= now + 5, "{claims}");
    let header: Value = serde_json::from_str(header).expect("a header");
    let expected = serde_json::json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": KID });
    assert_eq!(header, expected, "nothing else is in a header that is taken");
    let claims: Value = serde_json::from_str(claims).expect("claims");
    assert!(claims["exp"].is_i64() && claims["iat"].is_i64(), "times are whole numbers: {claims}");
    assert_eq!(claims["sub"], taken.sub.as_str());
    true
}

/// Without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(LETTERS[(bits >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}
