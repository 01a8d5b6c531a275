//! API tokens: their form, whom they speak for, and how long. Made by `identity::api_tokens`, kept by stores, read by `gate`.
//!
//! A token is `postern_pat_` (of a person) or `postern_svc_` (of a service account), 256 random bits in base62 and a CRC-32 of all before it,
//! also in base62: scanners for secrets know it by its beginning, a double click selects it as a whole, and one that was mistyped costs no
//! look-up. The checksum keeps nobody out: only the SHA-256 that a store knows does.

mod scope;
#[cfg(test)]
mod tests;

use std::{fmt, fmt::Write as _};

use secrecy::SecretString;

pub use scope::{BadScope, Scopes};

use super::{session::TokenHash, time::Timestamp};

const PERSONAL: &str = "postern_pat_";
const SERVICE: &str = "postern_svc_";
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// 62^43 is the least power above 2^256.
const SECRET: usize = 43;
/// 62^6 is the least power above 2^32.
const CHECKSUM: usize = 6;
/// Longest name of a token, in characters.
pub const MAX_NAME: usize = 100;

/// Whom a token speaks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// A person, by the stored spelling of the name. The token dies with the password that was theirs when it was made.
    User(String),
    /// An account without a password, for a machine: `client:NAME` to the rules.
    Service(String),
}

impl Owner {
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::User(name) | Self::Service(name) => name,
        }
    }

    /// As stores and lists have it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Service(_) => "service",
        }
    }
}

/// The public name of a token: the first 80 bits of its stored hash in hexadecimal. Opens nothing, and leads memory to the token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ApiTokenId(pub String);

/// [`ApiTokenId`] as bytes.
pub type ApiTokenKey = [u8; 10];

impl ApiTokenId {
    #[must_use]
    pub fn of(hash: &TokenHash) -> Self {
        let mut text = String::with_capacity(20);
        for byte in key_of(hash) {
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self(text)
    }

    /// `None`: no token can have this id.
    #[must_use]
    pub fn key(&self) -> Option<ApiTokenKey> {
        let digits = Some(self.0.as_str()).filter(|text| text.len() == 20 && text.bytes().all(is_hex))?;
        let mut key = ApiTokenKey::default();
        for (place, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(digits.get(2 * place..2 * place + 2)?, 16).ok()?;
        }
        Some(key)
    }
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[must_use]
pub fn key_of(hash: &TokenHash) -> ApiTokenKey {
    let mut key = ApiTokenKey::default();
    for (byte, hashed) in key.iter_mut().zip(hash.0) {
        *byte = hashed;
    }
    key
}

impl fmt::Display for ApiTokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A token as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    pub hash: TokenHash,
    pub owner: Owner,
    /// What it is for, in its owner's words.
    pub name: String,
    pub scopes: Scopes,
    pub created_at: Timestamp,
    /// `None`: never.
    pub expires_at: Option<Timestamp>,
    /// Written behind: up to some seconds late.
    pub last_used_at: Option<Timestamp>,
    /// Who made it; `None`: the command line.
    pub created_by: Option<String>,
    /// The person's token version when it was made; it counts under no other. 0 for a service account.
    pub version: u64,
}

impl ApiToken {
    #[must_use]
    pub fn id(&self) -> ApiTokenId {
        ApiTokenId::of(&self.hash)
    }

    #[must_use]
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|end| now >= end)
    }
}

/// Whether a text says that it is a token of this kind, whatever follows: it is never an application's.
#[must_use]
pub fn says_it_is_one(text: &str) -> bool {
    text.starts_with(PERSONAL) || text.starts_with(SERVICE)
}

/// Whether its checksum holds, so that a look-up is worth it.
#[must_use]
pub fn is_well_formed(text: &str) -> bool {
    let Some(rest) = text.strip_prefix(PERSONAL).or_else(|| text.strip_prefix(SERVICE)) else { return false };
    if rest.len() != SECRET + CHECKSUM || !rest.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return false;
    }
    text.split_at_checked(text.len() - CHECKSUM).is_some_and(|(body, sum)| checksum(body) == sum)
}

/// A new token of 256 random bits.
#[must_use]
pub fn compose(owner: &Owner, random: [u8; 32]) -> SecretString {
    let mut text = match owner {
        Owner::User(_) => PERSONAL,
        Owner::Service(_) => SERVICE,
    }
    .to_owned();
    text.push_str(&base62::<SECRET>(random));
    let sum = checksum(&text);
    text.push_str(&sum);
    text.into()
}

fn checksum(text: &str) -> String {
    base62::<CHECKSUM>(crc32(text.as_bytes()).to_be_bytes())
}

/// A number, most significant byte first, in `DIGITS` digits, with zeros in front.
fn base62<const DIGITS: usize>(mut number: impl AsMut<[u8]>) -> String {
    let mut digits = [b'0'; DIGITS];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in number.as_mut() {
            let value = rest * 256 + u32::from(*byte);
            // Below 256, since `rest` is below 62.
            *byte = u8::try_from(value / 62).unwrap_or_default();
            rest = value % 62;
        }
        *digit = usize::try_from(rest).ok().and_then(|rest| ALPHABET.get(rest)).copied().unwrap_or(b'0');
    }
    digits.into_iter().map(char::from).collect()
}

/// CRC-32 of ISO 3309, as in zip and PNG: bit by bit, since it is asked for once a request and for some sixty bytes.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { (sum >> 1) ^ 0xedb8_8320 } else { sum >> 1 })
    })
}
