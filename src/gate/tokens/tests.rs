use serde_json::{Value, json};

use super::*;
use crate::{
    core::request::Role,
    ports::fakes::{ISSUER, NOW, key, listener, session, signed, site},
};

const KID: &str = "key-1";

fn settings() -> TokenSettings {
    site(listener(Role::Edge), Vec::new()).tokens
}

fn verified(token: &str) -> Result<AccessClaims, TokenError> {
    verify(token, &SigningKeys::new(vec![key(1)]), &settings(), NOW)
}

fn header(change: impl FnOnce(&mut Value)) -> Value {
    let mut header = json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": KID });
    change(&mut header);
    header
}

fn claims(change: impl FnOnce(&mut Value)) -> Value {
    let now = NOW.unix_seconds();
    let mut claims = json!({
        "iss": ISSUER, "sub": "bob", "aud": "postern", "iat": now, "exp": now + 900, "jti": "j", "sid": "s", "groups": [], "ver": 1,
    });
    change(&mut claims);
    claims
}

/// By our own key, whatever it says.
fn refused(header: &Value, claims: &Value) -> TokenError {
    verified(&signed(1, header, claims)).err().unwrap_or_else(|| panic!("taken: {header} {claims}"))
}

#[test]
fn one_of_ours_holds_until_it_expires() {
    let token = signed(1, &header(|_| {}), &claims(|_| {}));
    assert_eq!(verified(&token).unwrap().sub, "bob");
    let keys = SigningKeys::new(vec![key(1)]);
    let last = NOW.after(std::time::Duration::from_millis(899_999));
    assert!(verify(&token, &keys, &settings(), last).is_ok());
    let over = NOW.after(std::time::Duration::from_secs(900));
    assert_eq!(verify(&token, &keys, &settings(), over).err(), Some(TokenError::Time));
}

#[test]
fn threat_45_no_header_but_our_own_is_taken() {
    for (name, value) in [
        ("jwk", json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" })),
        ("jku", json!("https://evil.example/jwks.json")),
        ("x5u", json!("https://evil.example/cert.pem")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ] {
        let header = header(|header| header[name] = value);
        assert_eq!(refused(&header, &claims(|_| {})), TokenError::Form, "{header}");
    }
    for alg in ["none", "None", "NONE", "HS256", "HS512", "RS256", "ES256", "PS256", "eddsa", "EdDSA ", "Ed25519", ""] {
        let header = header(|header| header["alg"] = json!(alg));
        assert_eq!(refused(&header, &claims(|_| {})), TokenError::Header, "{alg}");
    }
    for kid in ["key-2", "", "KEY-1", "../key-1", "key-1\0", "' OR 1=1 --"] {
        let header = header(|header| header["kid"] = json!(kid));
        assert_eq!(refused(&header, &claims(|_| {})), TokenError::Key, "{kid}");
    }
    for (name, value) in [("alg", json!(null)), ("kid", json!(1)), ("kid", json!(["key-1"])), ("typ", json!({}))] {
        let header = header(|header| header[name] = value);
        assert_eq!(refused(&header, &claims(|_| {})), TokenError::Form, "{header}");
    }
}

#[test]
fn threat_45_a_member_twice_is_no_header() {
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let twice = r#"{"alg":"none","typ":"at+jwt","kid":"key-1","alg":"EdDSA"}"#;
    let message = format!("{}.{}", part(twice), part(&claims(|_| {}).to_string()));
    let signature = URL_SAFE_NO_PAD.encode(key(1).signer.sign(message.as_bytes()).unwrap());
    assert_eq!(verified(&format!("{message}.{signature}")).err(), Some(TokenError::Form));
}

#[test]
fn threat_45_only_our_own_signature_is_one() {
    let token = signed(1, &header(|_| {}), &claims(|_| {}));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (head, _) = message.split_once('.').unwrap();
    let others = signed(2, &header(|_| {}), &claims(|_| {}));
    let more = URL_SAFE_NO_PAD.encode(claims(|claims| claims["sub"] = json!("alice")).to_string());
    for forged in [
        others,
        format!("{message}."),
        message.to_owned(),
        format!("{message}.{}", "A".repeat(signature.len())),
        format!("{message}.{signature}A"),
        format!("{message}.{signature}="),
        format!("{message}.{signature}.{signature}"),
        format!("{head}.{more}.{signature}"),
        format!(" {token}"),
        format!("{token} "),
    ] {
        assert!(verified(&forged).is_err(), "{forged}");
    }
}

#[test]
fn threat_46_times_are_whole_numbers_and_there() {
    let now = NOW.unix_seconds();
    let not_times = [json!(null), json!((now + 900).to_string()), json!(1.9e9), json!([now]), json!(true), json!({})];
    for name in ["exp", "iat"] {
        for value in &not_times {
            let claims = claims(|claims| claims[name] = value.clone());
            assert_eq!(refused(&header(|_| {}), &claims), TokenError::Signature, "{claims}");
        }
        let without = claims(|claims| drop(claims.as_object_mut().unwrap().remove(name)));
        assert_eq!(refused(&header(|_| {}), &without), TokenError::Signature, "no {name}");
    }
    for value in not_times.into_iter().filter(|value| !value.is_null()) {
        let claims = claims(|claims| claims["nbf"] = value);
        assert_eq!(refused(&header(|_| {}), &claims), TokenError::Signature, "{claims}");
    }
    for (name, value) in [
        ("exp", -1),
        ("exp", 0),
        ("exp", now),
        ("exp", i64::MIN),
        ("iat", now + 6),
        ("nbf", now + 6),
        ("nbf", i64::MAX),
    ] {
        let claims = claims(|claims| claims[name] = json!(value));
        assert_eq!(refused(&header(|_| {}), &claims), TokenError::Time, "{claims}");
    }
    let text = claims(|_| {}).to_string().replace(&(now + 900).to_string(), "99999999999999999999999");
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header(|_| {}).to_string()), URL_SAFE_NO_PAD.encode(text));
    let signature = URL_SAFE_NO_PAD.encode(key(1).signer.sign(message.as_bytes()).unwrap());
    assert_eq!(verified(&format!("{message}.{signature}")).err(), Some(TokenError::Signature), "beyond all numbers");
}

#[test]
fn threat_47_another_audience_issuer_or_kind_is_none_of_ours() {
    for (name, value) in [
        ("aud", json!("grafana")),
        ("aud", json!("")),
        ("iss", json!("https://idp.example.com")),
        ("iss", json!("https://auth.example.com/")),
    ] {
        let claims = claims(|claims| claims[name] = value);
        assert_eq!(refused(&header(|_| {}), &claims), TokenError::Audience, "{claims}");
    }
    for value in [json!(["postern"]), json!(["postern", "grafana"]), json!(null), json!({})] {
        let claims = claims(|claims| claims["aud"] = value);
        assert_eq!(refused(&header(|_| {}), &claims), TokenError::Signature, "{claims}");
    }
    // An ID token, and the assertion that upstreams get (THREATS 64).
    for typ in ["JWT", "jwt", "postern-assertion+jwt", "application/at+jwt", "AT+JWT", ""] {
        let header = header(|header| header["typ"] = json!(typ));
        assert_eq!(refused(&header, &claims(|_| {})), TokenError::Header, "{typ}");
    }
    let without = header(|header| drop(header.as_object_mut().unwrap().remove("typ")));
    assert_eq!(refused(&without, &claims(|_| {})), TokenError::Form);
    for name in ["sid", "jti", "ver", "sub", "groups"] {
        let without = claims(|claims| drop(claims.as_object_mut().unwrap().remove(name)));
        assert_eq!(refused(&header(|_| {}), &without), TokenError::Signature, "no {name}");
    }
}

#[test]
fn threat_49_what_is_too_long_or_of_another_form_is_not_looked_at() {
    let long = claims(|claims| claims["sub"] = json!("b".repeat(LONGEST)));
    let jwe = format!("{}.AAAA.AAAA.AAAA.AAAA", URL_SAFE_NO_PAD.encode(r#"{"alg":"dir","enc":"A256GCM"}"#));
    let tokens = [
        ".".repeat(1_000_000),
        "a".repeat(1_000_000),
        signed(1, &header(|_| {}), &long),
        jwe,
        String::new(),
        "..".to_owned(),
    ];
    for token in tokens {
        assert!(!is_ours(&token, ISSUER), "{token:.80}");
        assert!(verified(&token).is_err(), "{token:.80}");
    }
    // As deep as it may be.
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let deep = format!("e30.{}.AAAA", URL_SAFE_NO_PAD.encode(format!(r#"{{"iss":"{ISSUER}","x":{deep}}}"#)));
    assert!(verified(&deep).is_err());
}

#[test]
fn a_key_verifies_from_its_publication_until_it_retires() {
    let token = signed(1, &header(|_| {}), &claims(|_| {}));
    let with_times = |signs_from, retires_at| {
        let mut key = key(1);
        key.times.signs_from = signs_from;
        key.times.retires_at = retires_at;
        verify(&token, &SigningKeys::new(vec![key]), &settings(), NOW).map(|_| ())
    };
    let second = std::time::Duration::from_secs(1);
    // Another node's clock may be ahead of ours.
    assert_eq!(with_times(NOW.after(second), None), Ok(()));
    assert_eq!(with_times(NOW, Some(NOW.after(second))), Ok(()));
    assert_eq!(with_times(NOW, Some(NOW)), Err(TokenError::Key));
}

#[test]
fn what_is_issued_is_what_is_taken() {
    let live = session('a', 0);
    let keys = SigningKeys::new(vec![key(1)]);
    let token = crate::identity::tokens::issue(&keys, &settings(), &live, NOW, &crate::ports::fakes::Zeroes).unwrap();
    let claims = verify(secrecy::ExposeSecret::expose_secret(&token), &keys, &settings(), NOW).unwrap();
    assert_eq!((claims.sub.as_str(), claims.sid.as_str(), claims.ver), ("bob", "session-a", 4));
}
