//! What may well be a credential, by its name or its look: that is never written down, whatever the rules read (THREATS 68). A wrong
//! guess costs a replay that says it does not know, so these guess broadly. `reads` and `record` ask here; it decides nothing.

/// Anywhere in the name, whose letters and digits alone count: `api_key`, `api-key`, `X-Api-Key` and `api[key]` are one.
const TELLING: &[&str] = &[
    "accesskey",
    "apikey",
    "assertion",
    "authorization",
    "bearer",
    "clientcert",
    "cookie",
    "credential",
    "hmac",
    "jwt",
    "magiclink",
    "nonce",
    "passcode",
    "passphrase",
    "passw",
    "privatekey",
    "referer",
    "saml",
    "secret",
    "secwebsocketprotocol",
    "sessid",
    "session",
    "signature",
    "ticket",
    "token",
    "verifier",
];

/// What a word ends in; `HARMLESS` are those that end so and are something else.
const ENDINGS: &[&str] = &["code", "key", "pin"];
const HARMLESS: &[&str] = &["donkey", "hockey", "monkey", "spin", "turkey", "whiskey"];

/// A word of the name: `auth` in `X-Auth-User` and `authUser`, not in `author`.
const WORDS: &[&str] = &[
    "auth", "cert", "csrf", "hash", "invite", "mac", "creds", "oauth", "otp", "pass", "passwd", "proof", "psk", "pw",
    "pwd", "sid", "sig", "state", "totp", "xsrf",
];

/// Right before `code`.
const HARMLESS_CODES: &[&str] = &[
    "area", "color", "country", "currency", "error", "lang", "language", "locale", "postal", "region", "status", "zip",
];

/// Whether a parameter or a header of this name may well hold what lets somebody in, or a text that does (`Referer` is a whole URL,
/// `Sec-WebSocket-Protocol` holds bearer tokens for browsers, which can set no other header there).
pub(super) fn names_credential(name: &str) -> bool {
    let plain: String =
        name.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect();
    let words = words(name);
    let ends = words.iter().enumerate().any(|(place, word)| {
        let before = place.checked_sub(1).and_then(|before| words.get(before)).map_or("", String::as_str);
        ENDINGS.iter().any(|ending| word.ends_with(ending)) && !is_harmless(word, before)
    });
    ends || TELLING.iter().any(|word| plain.contains(word)) || words.iter().any(|word| WORDS.contains(&word.as_str()))
}

/// A word that only ends like one, or the code of something that lets nobody in: `errorCode`, `zipcode`.
fn is_harmless(word: &str, before: &str) -> bool {
    let of_what = word.strip_suffix("code").map(|own| if own.is_empty() { before } else { own });
    HARMLESS.contains(&word) || of_what.is_some_and(|what| HARMLESS_CODES.contains(&what))
}

/// Whether a value looks like a credential, or holds what does: a JWT, credentials with their scheme (RFC 9110 §11.4), or a query.
pub(super) fn holds_credential(value: &str) -> bool {
    let starts_with = |scheme: &str| value.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let is_authorization = ["basic ", "bearer ", "digest ", "negotiate ", "dpop "].into_iter().any(starts_with);
    // A JWT begins with `{"`, in base64url; a URL's query is not what the rule asked for.
    let holds_query = value.split_once('?').is_some_and(|(_, query)| query.contains('='));
    is_authorization || value.contains("eyJ") || holds_query
}

/// In lower case; parted by whatever is neither letter nor digit, and where a capital follows a small letter.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut was_small = false;
    for letter in name.chars() {
        if !letter.is_ascii_alphanumeric() || (was_small && letter.is_ascii_uppercase()) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| letter.is_ascii_alphanumeric()) {
            word.push(letter.to_ascii_lowercase());
        }
        was_small = letter.is_ascii_lowercase();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threat_68_names_of_what_may_be_a_credential() {
        for name in [
            "authorization",
            "Cookie",
            "Proxy-Authorization",
            "token",
            "ACCESS_TOKEN",
            "id-token",
            "refresh_token",
            "code",
            "Password",
            "passwd",
            "client_secret",
            "api_key",
            "X-Api-Key",
            "apikey",
            "key",
            "signature",
            "X-Amz-Signature",
            "sig",
            "session",
            "session_id",
            "PHPSESSION",
            "PHPSESSID",
            "connect.sid",
            "sid",
            "jwt",
            "otp",
            "SAMLResponse",
            "csrf_token",
            "state",
            "X-Auth-Key",
            "auth_key",
            "authKey",
            "X-Auth",
            "X-Pin",
            "Ocp-Apim-Subscription-Key",
            "X-Functions-Key",
            "DD-APPLICATION-KEY",
            "authkey",
            "pincode",
            "smscode",
            "otpcode",
            "passkey",
            "pw",
            "creds",
            "oauth",
            "pageKey",
            "access_code",
            "otp_code",
            "accessCode",
            "user[password]",
            "Referer",
            "Sec-WebSocket-Protocol",
            "X-Forwarded-Client-Cert",
            "ssl-client-cert",
            "X-Status-Key",
            "region_key",
            "langfuse_key",
            "country_pin",
            "country_login_code",
        ] {
            assert!(names_credential(name), "{name}");
        }
        for name in [
            "debug",
            "action",
            "page",
            "codec",
            "keyboard",
            "spin",
            "monkey",
            "country_code",
            "countryCode",
            "zipcode",
            "http_status_code",
            "sort",
            "id",
            "user",
            "status",
            "author",
            "compass",
            "pinned",
            "X-Plan",
            "accept",
            "user-agent",
            "",
        ] {
            assert!(!names_credential(name), "{name}");
        }
    }

    #[test]
    fn threat_68_values_that_look_like_one() {
        for value in [
            "Bearer x",
            "basic eDp5",
            "DPoP x",
            "eyJhbGciOiJFZERTQSJ9.e30.x",
            "x=eyJ",
            "/reset?t=1",
            "https://a.test/?a=b&c",
        ] {
            assert!(holds_credential(value), "{value}");
        }
        for value in ["", "1", "bearer", "basically", "gold plan", "https://a.test/", "why?", "a=b"] {
            assert!(!holds_credential(value), "{value}");
        }
    }
}
