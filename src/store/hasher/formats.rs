//! Password hashes as others wrote them (CONTRACT 3): PHC strings of argon2 and scrypt, and crypt's formats. Parsed when a users file is
//! read, so that a wrong one is a fault then and not a failed sign-in later. Costs have upper bounds: a stored hash must not be able to
//! take the machine down.
//!
//! Sources: the PHC string format; RFC 9106, 7914, 8018; passlib's modular crypt format for PBKDF2 (base64 with `.` for `+`);
//! "Unix crypt using SHA-256 and SHA-512" by Ulrich Drepper.

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{
    Engine,
    alphabet::Alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD_NO_PAD},
};
use sha_crypt::{PasswordHashRef, PasswordVerifier, ShaCrypt};
use subtle::ConstantTimeEq;

/// 2 GiB, RFC 9106's first recommended choice.
const MOST_ARGON2_MEMORY: u32 = 2_097_152;
/// KiB times passes.
const MOST_ARGON2_WORK: u64 = 8_388_608;
const MOST_ARGON2_LANES: u32 = 64;
const MOST_BCRYPT_COST: u32 = 16;
/// Bytes.
const MOST_SCRYPT_MEMORY: u64 = 1 << 30;
const MOST_SCRYPT_PARALLEL: u32 = 16;
const MOST_PBKDF2_ROUNDS: u32 = 10_000_000;
const MOST_CRYPT_ROUNDS: u32 = 5_000_000;
/// Rounds of sha256-crypt and sha512-crypt where the hash names none.
const CRYPT_ROUNDS: u32 = 5_000;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadHash {
    #[error(
        "the password's hash is in no known format; known are argon2id, argon2i, argon2d, bcrypt ($2a$, $2b$, $2y$), scrypt, \
         pbkdf2 (sha1, sha256, sha512), sha256-crypt ($5$) and sha512-crypt ($6$): make one with `postern hash`"
    )]
    Unknown,
    #[error("the password's {0} hash is damaged: make a new one with `postern hash`")]
    Damaged(&'static str),
    #[error("the password's {0} hash asks for more memory or time than is allowed: make a new one with `postern hash`")]
    Excessive(&'static str),
}

/// A hash that was understood. No `Debug`: it is a secret.
pub struct StoredHash(Kind);

enum Kind {
    Argon2 { algorithm: Algorithm, version: Version, params: Params, salt: Vec<u8>, digest: Vec<u8> },
    Bcrypt(String),
    Scrypt { params: scrypt::Params, salt: Vec<u8>, digest: Vec<u8> },
    Pbkdf2 { with: Pbkdf2, rounds: u32, salt: Vec<u8>, digest: Vec<u8> },
    Crypt(String),
}

#[derive(Clone, Copy)]
enum Pbkdf2 {
    Sha1,
    Sha256,
    Sha512,
}

impl StoredHash {
    /// # Errors
    /// As [`BadHash`] says; never with the hash in it.
    pub fn parse(text: &str) -> Result<Self, BadHash> {
        // LDAP's way to say "what follows is crypt's"; Authelia accepts it too.
        let text = text.strip_prefix("{CRYPT}").unwrap_or(text);
        let mut parts = text.split('$');
        if parts.next() != Some("") {
            return Err(BadHash::Unknown);
        }
        let name = parts.next().unwrap_or_default();
        let fields: Vec<&str> = parts.collect();
        let kind = match name {
            "argon2id" => argon2(Algorithm::Argon2id, &fields),
            "argon2i" => argon2(Algorithm::Argon2i, &fields),
            "argon2d" => argon2(Algorithm::Argon2d, &fields),
            "2a" | "2b" | "2y" => bcrypt_hash(text, &fields),
            "scrypt" => scrypt_hash(&fields),
            "pbkdf2" | "pbkdf2-sha1" => pbkdf2_hash(Pbkdf2::Sha1, &fields),
            "pbkdf2-sha256" => pbkdf2_hash(Pbkdf2::Sha256, &fields),
            "pbkdf2-sha512" => pbkdf2_hash(Pbkdf2::Sha512, &fields),
            "5" => sha_crypt_hash("5", "sha256-crypt", 43, &fields),
            "6" => sha_crypt_hash("6", "sha512-crypt", 86, &fields),
            _ => Err(BadHash::Unknown),
        }?;
        Ok(Self(kind))
    }

    /// In constant time for a hash of this kind.
    #[must_use]
    pub fn matches(&self, password: &[u8]) -> bool {
        match &self.0 {
            Kind::Argon2 { algorithm, version, params, salt, digest } => same(digest, |out| {
                Argon2::new(*algorithm, *version, params.clone()).hash_password_into(password, salt, out).is_ok()
            }),
            Kind::Bcrypt(text) => bcrypt::verify(password, text).unwrap_or(false),
            Kind::Scrypt { params, salt, digest } => {
                same(digest, |out| scrypt::scrypt(password, salt, params, out).is_ok())
            }
            Kind::Pbkdf2 { with, rounds, salt, digest } => same(digest, |out| {
                match with {
                    Pbkdf2::Sha1 => pbkdf2::pbkdf2_hmac::<sha1::Sha1>(password, salt, *rounds, out),
                    Pbkdf2::Sha256 => pbkdf2::pbkdf2_hmac::<sha2::Sha256>(password, salt, *rounds, out),
                    Pbkdf2::Sha512 => pbkdf2::pbkdf2_hmac::<sha2::Sha512>(password, salt, *rounds, out),
                }
                true
            }),
            Kind::Crypt(text) => {
                PasswordHashRef::new(text).is_ok_and(|hash| ShaCrypt::default().verify_password(password, hash).is_ok())
            }
        }
    }
}

fn same(expected: &[u8], compute: impl FnOnce(&mut [u8]) -> bool) -> bool {
    let mut computed = vec![0; expected.len()];
    compute(&mut computed) && bool::from(computed.ct_eq(expected))
}

fn argon2(algorithm: Algorithm, fields: &[&str]) -> Result<Kind, BadHash> {
    let damaged = || BadHash::Damaged("argon2");
    let (version, costs, salt, digest) = match *fields {
        ["v=19", costs, salt, digest] => (Version::V0x13, costs, salt, digest),
        ["v=16", costs, salt, digest] | [costs, salt, digest] => (Version::V0x10, costs, salt, digest),
        _ => return Err(damaged()),
    };
    let [memory, passes, lanes] = costs_of(costs, ["m", "t", "p"]).ok_or_else(damaged)?;
    let work = u64::from(memory) * u64::from(passes);
    if memory > MOST_ARGON2_MEMORY || work > MOST_ARGON2_WORK || lanes > MOST_ARGON2_LANES {
        return Err(BadHash::Excessive("argon2"));
    }
    let (salt, digest) = both(&STANDARD_NO_PAD, salt, digest).ok_or_else(damaged)?;
    if salt.len() < 8 || digest.len() < 12 {
        return Err(damaged());
    }
    let params = Params::new(memory, passes, lanes, Some(digest.len())).map_err(|_| damaged())?;
    Ok(Kind::Argon2 { algorithm, version, params, salt, digest })
}

fn bcrypt_hash(text: &str, fields: &[&str]) -> Result<Kind, BadHash> {
    let damaged = || BadHash::Damaged("bcrypt");
    let [cost, rest] = *fields else { return Err(damaged()) };
    let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '.' || letter == '/';
    if cost.len() != 2 || rest.len() != 53 || !rest.chars().all(letters) {
        return Err(damaged());
    }
    match cost.parse::<u32>() {
        Ok(4..=MOST_BCRYPT_COST) => Ok(Kind::Bcrypt(text.to_owned())),
        Ok(17..=31) => Err(BadHash::Excessive("bcrypt")),
        _ => Err(damaged()),
    }
}

fn scrypt_hash(fields: &[&str]) -> Result<Kind, BadHash> {
    let damaged = || BadHash::Damaged("scrypt");
    let [costs, salt, digest] = *fields else { return Err(damaged()) };
    let [log_n, block, parallel] = costs_of(costs, ["ln", "r", "p"]).ok_or_else(damaged)?;
    let log_n = u8::try_from(log_n).ok().filter(|log_n| *log_n < 32).ok_or_else(damaged)?;
    let memory = (128 * u64::from(block)).saturating_mul(1 << log_n);
    if memory > MOST_SCRYPT_MEMORY || parallel > MOST_SCRYPT_PARALLEL {
        return Err(BadHash::Excessive("scrypt"));
    }
    let (salt, digest) = both(&STANDARD_NO_PAD, salt, digest).ok_or_else(damaged)?;
    if digest.len() < 16 {
        return Err(damaged());
    }
    let params = scrypt::Params::new(log_n, block, parallel).map_err(|_| damaged())?;
    Ok(Kind::Scrypt { params, salt, digest })
}

fn pbkdf2_hash(with: Pbkdf2, fields: &[&str]) -> Result<Kind, BadHash> {
    let damaged = || BadHash::Damaged("pbkdf2");
    let [rounds, salt, digest] = *fields else { return Err(damaged()) };
    let rounds: u32 = rounds.parse().ok().filter(|rounds| *rounds > 0).ok_or_else(damaged)?;
    if rounds > MOST_PBKDF2_ROUNDS {
        return Err(BadHash::Excessive("pbkdf2"));
    }
    let engine = adapted_base64().ok_or_else(damaged)?;
    let (salt, digest) = both(&engine, salt, digest).ok_or_else(damaged)?;
    // A longer digest would cost the rounds again and again.
    if !(16..=128).contains(&digest.len()) {
        return Err(damaged());
    }
    Ok(Kind::Pbkdf2 { with, rounds, salt, digest })
}

fn sha_crypt_hash(id: &str, name: &'static str, length: usize, fields: &[&str]) -> Result<Kind, BadHash> {
    let damaged = || BadHash::Damaged(name);
    let (rounds, salt, digest) = match *fields {
        [rounds, salt, digest] => {
            let rounds = rounds.strip_prefix("rounds=").and_then(|rounds| rounds.parse().ok()).ok_or_else(damaged)?;
            (rounds, salt, digest)
        }
        [salt, digest] => (CRYPT_ROUNDS, salt, digest),
        _ => return Err(damaged()),
    };
    if rounds > MOST_CRYPT_ROUNDS {
        return Err(BadHash::Excessive(name));
    }
    let letters = |letter: char| letter.is_ascii_alphanumeric() || letter == '.' || letter == '/';
    if rounds < 1_000 || salt.len() > 16 || digest.len() != length || !digest.chars().all(letters) {
        return Err(damaged());
    }
    // Rounds written out, so that no library's default decides.
    let text = format!("${id}$rounds={rounds}${salt}${digest}");
    if PasswordHashRef::new(&text).is_err() {
        return Err(damaged());
    }
    Ok(Kind::Crypt(text))
}

/// `m=65536,t=3,p=4`: exactly these names in this order.
fn costs_of<const N: usize>(text: &str, names: [&str; N]) -> Option<[u32; N]> {
    let mut values = [0; N];
    let mut given = text.split(',');
    for (value, name) in values.iter_mut().zip(names) {
        *value = given.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok()?;
    }
    given.next().is_none().then_some(values)
}

fn both(engine: &GeneralPurpose, salt: &str, digest: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    Some((engine.decode(salt).ok()?, engine.decode(digest).ok()?))
}

/// passlib's: `.` stands for `+`, no padding.
fn adapted_base64() -> Option<GeneralPurpose> {
    let alphabet = Alphabet::new("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789./").ok()?;
    let config =
        GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone);
    Some(GeneralPurpose::new(&alphabet, config))
}
