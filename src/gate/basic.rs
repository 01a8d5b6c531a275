//! User name and password in `Authorization: Basic …` (RFC 7617). Only reads; whether they hold is asked of `ports::Passwords`.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::core::api_token;

/// Longest header value that is looked at, in bytes: names and passwords stay far below.
const LONGEST: usize = 4 * 1024;

/// Old clients leave the padding out.
const ENGINE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What stands behind `Basic `; `None`: another scheme.
pub(super) fn payload(value: &str) -> Option<&str> {
    let (scheme, payload) = value.split_once(' ').unwrap_or((value, ""));
    scheme.eq_ignore_ascii_case("basic").then(|| payload.trim())
}

/// Name and password. The name ends at the first colon, the password may hold more of them. Text is UTF-8; what is none is Latin-1, as old clients
/// send it.
pub(super) fn decoded(payload: &str) -> Option<(String, SecretString)> {
    let payload = Some(payload).filter(|payload| payload.len() <= LONGEST)?;
    let bytes = ENGINE.decode(payload).ok()?;
    let text = String::from_utf8(bytes)
        .unwrap_or_else(|latin| latin.into_bytes().into_iter().map(char::from).collect::<String>());
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned().into()))
}

/// Whether an API token stands where the password should, as programs send it that know nothing but Basic.
pub(super) fn holds_api_token(payload: &str) -> bool {
    decoded(payload).is_some_and(|(_, password)| api_token::says_it_is_one(password.expose_secret()))
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn read(bytes: &[u8]) -> Option<(String, String)> {
        decoded(&STANDARD.encode(bytes)).map(|(user, password)| (user, password.expose_secret().to_owned()))
    }

    #[test]
    fn names_and_passwords_are_read_as_rfc_7617_writes_them() {
        for (text, user, password) in [
            ("bob:secret", "bob", "secret"),
            ("bob:a:b::", "bob", "a:b::"),
            ("bob:", "bob", ""),
            (":secret", "", "secret"),
            (":", "", ""),
            ("jürgen:pä§", "jürgen", "pä§"),
            ("b b: x ", "b b", " x "),
        ] {
            assert_eq!(read(text.as_bytes()), Some((user.to_owned(), password.to_owned())), "{text:?}");
        }
        assert_eq!(read(b"j\xfcrgen:p\xe4"), Some(("jürgen".to_owned(), "pä".to_owned())), "Latin-1");
        assert_eq!(decoded("Ym9iOng").unwrap().0, "bob", "without padding");
        for bad in ["", "bob", "Ym9i", "Ym9iOng=!", "Ym9i Ong=", "é"] {
            assert!(decoded(bad).is_none(), "{bad:?}");
        }
        assert!(decoded(&STANDARD.encode("a:".repeat(4_000))).is_none(), "too long to be one");
    }

    #[test]
    fn the_scheme_may_be_in_any_case() {
        for (value, found) in [
            ("Basic Ym9iOng=", Some("Ym9iOng=")),
            ("bAsIc  Ym9iOng=", Some("Ym9iOng=")),
            ("Basic", Some("")),
            ("Basic ", Some("")),
            ("Basically x", None),
            ("Bearer x", None),
            ("", None),
        ] {
            assert_eq!(payload(value), found, "{value:?}");
        }
    }
}
