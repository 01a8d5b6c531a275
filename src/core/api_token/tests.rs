use secrecy::ExposeSecret as _;

use super::*;

fn made(byte: u8) -> String {
    compose(&Owner::User("bob".to_owned()), [byte; 32]).expose_secret().to_owned()
}

#[test]
fn the_form_of_a_token_is_a_contract() {
    assert_eq!(made(0), "postern_pat_00000000000000000000000000000000000000000002mhmCy");
    assert_eq!(made(255).len(), "postern_pat_".len() + 49);
    let service = compose(&Owner::Service("ci".to_owned()), [7; 32]);
    assert!(service.expose_secret().starts_with("postern_svc_"));
    assert!(is_well_formed(service.expose_secret()));
}

#[test]
fn no_two_secrets_give_one_token() {
    // Of the 43 digits only the first is not free: 62^43 is 1.02 * 2^256.
    let (zero, mut one) = ([0; 32], [0; 32]);
    one[31] = 1;
    assert_ne!(base62::<SECRET>(zero), base62::<SECRET>(one));
    assert_eq!(base62::<SECRET>(one), format!("{}1", "0".repeat(42)));
    assert_eq!(base62::<2>([61_u8]), "0z");
    assert_eq!(base62::<2>([62_u8]), "10");
    assert_eq!(base62::<2>([255_u8]), "47", "4 * 62 + 7");
}

#[test]
fn the_checksum_is_that_of_zip_and_png() {
    assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn what_was_mistyped_is_told_without_a_look_up() {
    let good = made(9);
    assert!(is_well_formed(&good));
    for place in "postern_pat_".len()..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[place] = if bytes[place] == b'a' { b'b' } else { b'a' };
        let typo = String::from_utf8(bytes).unwrap();
        assert!(says_it_is_one(&typo) && !is_well_formed(&typo), "{typo}");
    }
    let other_kind = good.replace("_pat_", "_svc_");
    for bad in [&good[..good.len() - 1], &format!("{good}0"), &format!(" {good}"), "postern_pat_", "", &other_kind] {
        assert!(!is_well_formed(bad), "{bad:?}");
    }
    assert!(!is_well_formed(&format!("postern_pat_{}", "é".repeat(25))), "bytes are no letters");
    assert!(!says_it_is_one("ghp_abc") && !says_it_is_one("Postern_pat_x"));
}

#[test]
fn an_id_leads_back_to_its_key() {
    let hash = TokenHash::of(&made(3));
    let id = ApiTokenId::of(&hash);
    assert_eq!(id.0.len(), 20);
    assert_eq!(id.key(), Some(key_of(&hash)));
    for bad in ["", "0", "zz000000000000000000", "ABCDEF00000000000000", "éééééééééé", "+1000000000000000000"]
    {
        assert_eq!(ApiTokenId(bad.to_owned()).key(), None, "{bad:?}");
    }
}

#[test]
fn scopes_only_take_away() {
    let scopes = |written: &[&str]| Scopes::parse(written.iter().copied()).unwrap();
    let all = scopes(&[]);
    assert!(all.allow("any.example.com", "DELETE", true));
    let read = scopes(&["read"]);
    for (method, may) in
        [("GET", true), ("HEAD", true), ("OPTIONS", true), ("POST", false), ("get", false), ("QUERY", false)]
    {
        assert_eq!(read.allow("any.example.com", method, false), may, "{method}");
    }
    assert!(!read.allow("any.example.com", "GET", true), "a WebSocket is no reading");
    let hosts = scopes(&["host:Grafana.example.com.", "host:*.apps.example.com", " read"]);
    for (host, may) in [
        ("grafana.example.com", true),
        ("x.grafana.example.com", false),
        ("a.apps.example.com", true),
        ("a.b.apps.example.com", true),
        ("apps.example.com", false),
        ("evilapps.example.com", false),
        ("grafana.example.com.evil.test", false),
        ("", false),
    ] {
        assert_eq!(hosts.allow(host, "GET", false), may, "{host}");
    }
    assert!(!hosts.allow("grafana.example.com", "POST", false), "both must hold");
    let words: Vec<String> = hosts.words().collect();
    assert_eq!(words, ["read", "host:grafana.example.com", "host:*.apps.example.com"]);
    assert_eq!(Scopes::parse(words.iter().map(String::as_str)).unwrap(), hosts);
}

#[test]
fn what_is_no_scope_is_told() {
    for bad in ["write", "Read", "host", "hosts:x", "*", ""] {
        assert_eq!(Scopes::parse([bad]), Err(BadScope::Unknown(bad.to_owned())), "{bad}");
    }
    for bad in [
        "host:",
        "host:*",
        "host:*.",
        "host:a b",
        "host:https://a.test",
        "host:a.test:8080",
        "host:a..b",
        "host:a*.test",
        "host:é.test",
    ] {
        assert_eq!(Scopes::parse([bad]), Err(BadScope::Host(bad.to_owned())), "{bad}");
    }
    assert_eq!(Scopes::parse(["read", " "]), Err(BadScope::Unknown(String::new())), "meant and lost");
    let many: Vec<String> = (0..51).map(|number| format!("host:a{number}.test")).collect();
    assert_eq!(Scopes::parse(many.iter().map(String::as_str)), Err(BadScope::TooMany));
}
