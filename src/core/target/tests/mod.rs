//! What a target is read as, and what is refused before any rule. The readings of encoded slashes are told apart below.

use proptest::prelude::*;

mod slashes;

use super::*;

fn path_of(raw: &str) -> Result<String, Rejection> {
    Target::parse(Scheme::Https, "app.example.com", raw).map(|target| target.path().to_owned())
}

fn readings_of(raw: &str) -> Vec<String> {
    let target = Target::parse(Scheme::Https, "app.example.com", raw).unwrap();
    target.readings().map(str::to_owned).collect()
}

fn assert_path_rejected(raws: &[&str]) {
    for raw in raws {
        assert!(matches!(path_of(raw), Err(Rejection::Path(_))), "{raw:?} gave {:?}", path_of(raw));
    }
}

#[test]
fn canonical_paths() {
    for (raw, path) in [
        ("", "/"),
        ("/", "/"),
        ("?", "/"),
        ("?a=/b", "/"),
        ("/?a=b", "/"),
        ("/a/b", "/a/b"),
        ("/a/b/", "/a/b/"),
        ("/a/b?c=/../d", "/a/b"),
        ("/a?b?c", "/a"),
        ("/%61dmin", "/admin"),
        ("/%41", "/A"),
        ("/caf%C3%A9", "/café"),
        ("/caf%c3%a9", "/café"),
        ("/a%20b", "/a b"),
        ("/a+b", "/a+b"),
        ("/.well-known/jwks.json", "/.well-known/jwks.json"),
        ("/a/...", "/a/..."),
        ("/a/..b", "/a/..b"),
        ("/a/b..", "/a/b.."),
        ("/a/.b/c.", "/a/.b/c."),
        ("/%2ehidden", "/.hidden"),
        ("/a:80/@b", "/a:80/@b"),
        ("/a|b{c}\"<>^`", "/a|b{c}\"<>^`"),
    ] {
        assert_eq!(path_of(raw).as_deref(), Ok(path), "{raw:?}");
    }
}

#[test]
fn threat_01_raw_dot_segments_are_rejected() {
    assert_path_rejected(&[
        "/..",
        "/.",
        "/../",
        "/./",
        "/public/../admin/x",
        "/public/..",
        "/public/.",
        "/a/./b",
        "/../../etc",
        "//..//a",
        "/public/../admin?x=1",
    ]);
}

#[test]
fn threat_02_encoded_dot_segments_are_rejected() {
    assert_path_rejected(&[
        "/public/%2e%2e/admin/x",
        "/public/%2E%2E/admin/x",
        "/public/.%2e/admin",
        "/public/%2e./admin",
        "/%2e",
        "/%2e%2e",
        "/a/%2e/b",
        "/a/%2E/",
    ]);
}

#[test]
fn threat_03_encoded_slashes_are_rejected() {
    assert_path_rejected(&["/public%2f..%2fadmin", "/a%2Fb", "/%2f", "/%2fadmin", "/a;b%2fc"]);
}

#[test]
fn threat_04_what_is_encoded_twice_is_decoded_once() {
    assert_eq!(path_of("/public/%252e%252e/admin").as_deref(), Ok("/public/%2e%2e/admin"));
    assert_eq!(path_of("/a%252fb").as_deref(), Ok("/a%2fb"));
    assert_eq!(path_of("/a%2500").as_deref(), Ok("/a%00"));
    let target = Target::parse(Scheme::Https, "app.example.com", "/public/%252e%252e/admin?x=%2F").unwrap();
    assert_eq!(target.raw(), "/public/%252e%252e/admin?x=%2F");
}

#[test]
fn threat_05_two_slashes_count_as_one() {
    for (raw, path) in [("//admin/x", "/admin/x"), ("/admin//x", "/admin/x"), ("///", "/"), ("/a///b//", "/a/b/")] {
        assert_eq!(path_of(raw).as_deref(), Ok(path), "{raw:?}");
        let target = Target::parse(Scheme::Https, "app.example.com", raw).unwrap();
        assert_eq!(target.raw(), raw, "what goes on is what came");
    }
    assert_path_rejected(&["/./admin/x", "//./admin/x"]);
}

#[test]
fn threat_06_backslashes_are_rejected() {
    assert_path_rejected(&["/public\\..\\admin", "/a%5cb", "/a%5Cb", "\\a", "/\\evil.example"]);
}

#[test]
fn threat_07_parameters_give_a_second_reading() {
    for (raw, readings) in [
        ("/admin/x", &["/admin/x"] as &[&str]),
        ("/admin/x;/public/", &["/admin/x;/public/", "/admin/x/public/"]),
        ("/admin;v=1/x", &["/admin;v=1/x", "/admin/x"]),
        ("/admin%3bv=1/x", &["/admin;v=1/x", "/admin/x"]),
        ("/admin%3Bv=1/x", &["/admin;v=1/x", "/admin/x"]),
        ("/a;b;c/d;e", &["/a;b;c/d;e", "/a/d"]),
        ("/a;", &["/a;", "/a"]),
        ("/a;/", &["/a;/", "/a/"]),
        ("/;", &["/;", "/"]),
        ("/;/", &["/;/", "/"]),
        ("/;a/admin", &["/;a/admin", "/admin"]),
        ("/a/;x/b", &["/a/;x/b", "/a/b"]),
        ("/a;..", &["/a;..", "/a"]),
        ("/a?b;c", &["/a"]),
        // A last segment of parameters alone leaves the slash before it, as servlet containers read it.
        ("/admin/;x", &["/admin/;x", "/admin/"]),
        ("/admin/;x/;y", &["/admin/;x/;y", "/admin/"]),
    ] {
        assert_eq!(readings_of(raw), readings, "{raw:?}");
    }
}

#[test]
fn threat_07_dot_segments_that_parameters_hide_are_rejected() {
    assert_path_rejected(&[
        "/public/..;/admin",
        "/a/..;x/b",
        "/a/.;/b",
        "/..;",
        "/.;x=1",
        "/public/%2e%2e;/admin",
        "/public/..%3b/admin",
        "/public/..%3Bx/admin",
        "/public/.%2e;a;b/admin",
    ]);
}

#[test]
fn threat_08_nul_and_controls_are_rejected() {
    assert_path_rejected(&[
        "/admin%00/public",
        "/a%0d%0ab",
        "/a%09",
        "/a%1f",
        "/a%7f",
        "/a%c2%80",
        "/a%C2%9F",
        "/a\0",
        "/a\tb",
        "/a\r\nb",
        "/a\u{7f}",
    ]);
}

#[test]
fn bad_escapes_and_bad_utf8_are_rejected() {
    assert_path_rejected(&[
        "/%",
        "/%a",
        "/%zz",
        "/%2",
        "/a%g0",
        "/%%41",
        "/%u002e",
        "/%-1",
        "/%+f",
        "/%c3",
        "/%ff",
        "/%c0%ae",
        "/%c0%af",
        "/%e0%80%af",
        "/%ed%a0%80",
        "/%f5%80%80%80",
        "/%C3/%A9",
    ]);
}

#[test]
fn threat_09_the_query_is_no_part_of_the_path() {
    assert_eq!(path_of("/admin?x=/public/").as_deref(), Ok("/admin"));
    let target = Target::parse(Scheme::Https, "app.example.com", "/admin?x=/public/?y=%00%zz").unwrap();
    assert_eq!(target.query(), Some("x=/public/?y=%00%zz"));
    assert_eq!(Target::parse(Scheme::Https, "app.example.com", "/admin").unwrap().query(), None);
    assert_eq!(Target::parse(Scheme::Https, "app.example.com", "/admin?").unwrap().query(), Some(""));
}

#[test]
fn threat_10_encoded_delimiters_are_characters_of_the_path() {
    assert_eq!(path_of("/admin/x%23/public").as_deref(), Ok("/admin/x#/public"));
    assert_eq!(path_of("/admin/x%3f/public").as_deref(), Ok("/admin/x?/public"));
    assert_eq!(path_of("/admin/x%3F/public?y").as_deref(), Ok("/admin/x?/public"));
}

#[test]
fn threat_11_case_is_kept() {
    assert_eq!(path_of("/Admin/X").as_deref(), Ok("/Admin/X"));
    assert_eq!(path_of("/%41dmin").as_deref(), Ok("/Admin"));
}

#[test]
fn what_is_not_in_origin_form_is_rejected() {
    assert_path_rejected(&[
        "*",
        "admin",
        "app.example.com:443",
        "https://app.example.com/",
        "#",
        "/a#b",
        "/a?b#c",
        "/a b",
        " /a",
        "/a ",
        "/café",
        "/a?é",
        "/a?b c",
        "/a?b\u{a0}",
        "/a?\r\nb",
    ]);
}

#[test]
fn threat_13_hosts_are_canonical() {
    for (authority, host, port) in [
        ("app.example.com", "app.example.com", None),
        ("a.B.Example.COM", "a.b.example.com", None),
        ("app.example.com.", "app.example.com", None),
        ("app.example.com:443", "app.example.com", Some(443)),
        ("app.example.com.:8443", "app.example.com", Some(8443)),
        ("app.example.com:", "app.example.com", None),
        ("localhost", "localhost", None),
        ("my_app.internal", "my_app.internal", None),
        ("xn--bcher-kva.example", "xn--bcher-kva.example", None),
        ("192.0.2.1:80", "192.0.2.1", Some(80)),
        ("[::1]", "[::1]", None),
        ("[::1]:8080", "[::1]", Some(8080)),
        ("[2001:DB8:0:0:0:0:0:1]", "[2001:db8::1]", None),
        ("[2001:0db8::0001]:443", "[2001:db8::1]", Some(443)),
        ("a:65535", "a", Some(65535)),
        ("a:00080", "a", Some(80)),
    ] {
        let target = Target::parse(Scheme::Https, authority, "/").unwrap();
        assert_eq!((target.host(), target.port()), (host, port), "{authority:?}");
    }
}

#[test]
fn threat_13_what_is_no_host_is_rejected() {
    let long_label = "a".repeat(64);
    let long_name = format!("{}a", "a.".repeat(127));
    for authority in [
        "",
        ".",
        "..",
        "a..b",
        ".a",
        "a..",
        "a.b..",
        ":80",
        "a:b",
        "a:-1",
        "a:+1",
        "a: 80",
        "a:65536",
        "a:99999999999999999999",
        "a:80:80",
        "user@a",
        "user:pass@a",
        "@a",
        "a@",
        "a b",
        " a",
        "a ",
        "a\t",
        "a/b",
        "a?b",
        "a#b",
        "a\\b",
        "a%41",
        "a,b",
        "a;b",
        "a*",
        "*",
        "*.a",
        "bücher.example",
        "a\0",
        "a\r\nb",
        "::1",
        "[::1",
        "::1]",
        "[::1]a",
        "[::1]]",
        "[[::1]]",
        "[]",
        "[127.0.0.1]",
        "[::1%25eth0]",
        "[::1%eth0]",
        "[v1.a]",
        "a]:80",
        "[::1]:a",
        "[:::1]",
        &long_label,
        &long_name,
    ] {
        let parsed = Target::parse(Scheme::Https, authority, "/").map(|target| target.host().to_owned());
        assert_eq!(parsed, Err(Rejection::Host), "{authority:?}");
    }
    assert!(canonical_host(&"a".repeat(63)).is_some());
    assert_eq!(canonical_host("app.example.com:443"), None);
    assert_eq!(canonical_host("App.Example.Com.").as_deref(), Some("app.example.com"));
}

#[test]
fn threat_21_schemes() {
    for (text, scheme) in [
        ("http", Some(Scheme::Http)),
        ("HTTPS", Some(Scheme::Https)),
        ("ws", Some(Scheme::Http)),
        ("wss", Some(Scheme::Https)),
        ("Wss", Some(Scheme::Https)),
        ("", None),
        ("javascript", None),
        ("https ", None),
        ("https:", None),
        ("http,https", None),
    ] {
        assert_eq!(Scheme::parse(text), scheme, "{text:?}");
    }
}

#[test]
fn absolute_urls() {
    for (url, same, origin) in [
        ("https://app.example.com", "https://app.example.com/", "https://app.example.com"),
        ("https://App.Example.Com:443/a?b=c", "https://app.example.com:443/a?b=c", "https://app.example.com"),
        ("HTTP://app.example.com:8080//a", "http://app.example.com:8080//a", "http://app.example.com:8080"),
        ("wss://app.example.com/ws", "https://app.example.com/ws", "https://app.example.com"),
        ("ws://app.example.com:443/ws", "http://app.example.com:443/ws", "http://app.example.com:443"),
        ("http://[::1]:80?q", "http://[::1]:80/?q", "http://[::1]"),
        (
            "https://app.example.com/a%2Bb;c?d=%2F..%2F",
            "https://app.example.com/a%2Bb;c?d=%2F..%2F",
            "https://app.example.com",
        ),
    ] {
        let target = Target::parse_url(url).unwrap();
        assert_eq!((target.url().as_str(), target.origin().as_str()), (same, origin), "{url:?}");
    }
}

#[test]
fn urls_that_are_rejected() {
    for (url, rejection) in [
        ("", Rejection::Scheme),
        ("/a", Rejection::Scheme),
        ("//app.example.com/a", Rejection::Scheme),
        ("app.example.com", Rejection::Scheme),
        ("javascript:alert(1)", Rejection::Scheme),
        ("javascript://app.example.com/%0aalert(1)", Rejection::Scheme),
        ("ftp://app.example.com/", Rejection::Scheme),
        (" https://app.example.com/", Rejection::Scheme),
        ("https:/app.example.com/", Rejection::Scheme),
        ("https:app.example.com/", Rejection::Scheme),
        ("https://", Rejection::Host),
        ("https:///a", Rejection::Host),
        ("https://user@app.example.com/", Rejection::Host),
        ("https://app.example.com:x/", Rejection::Host),
        ("https://app.example.com\\@evil.example/", Rejection::Host),
    ] {
        assert_eq!(Target::parse_url(url).map(|target| target.url()), Err(rejection), "{url:?}");
    }
    for url in ["https://app.example.com#a", "https://app.example.com/a#b", "https://app.example.com/a/../b"] {
        assert!(matches!(Target::parse_url(url), Err(Rejection::Path(_))), "{url:?}");
    }
}

#[test]
fn asked_for_again_over_https() {
    for (url, over_https) in [
        ("http://app.example.com/a?b", "https://app.example.com/a?b"),
        ("https://app.example.com:8443/a", "https://app.example.com:8443/a"),
        ("http://app.example.com:8080/a", "https://app.example.com:8080/a"),
        // Port 80 is where http is spoken, and nothing else.
        ("http://app.example.com:80/a", "https://app.example.com/a"),
    ] {
        assert_eq!(Target::parse_url(url).unwrap().over_https().url(), over_https, "{url:?}");
    }
}

/// Targets full of what attacks are made of.
fn hostile_path() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("/"),
        Just("//"),
        Just("."),
        Just(".."),
        Just("%2e"),
        Just("%2E"),
        Just("%2f"),
        Just("%5c"),
        Just("\\"),
        Just(";"),
        Just("%3b"),
        Just("%00"),
        Just("%25"),
        Just("%"),
        Just("a"),
        Just("admin"),
        Just("?"),
        Just("#"),
        Just("%c3%a9"),
        Just("%ff"),
        Just("%23"),
        Just(" "),
        Just("é"),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| format!("/{}", pieces.concat()))
}

fn encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn assert_canonical(path: &str) {
    assert!(path.starts_with('/'), "{path:?}");
    assert!(!path.contains("//") && !path.contains('\\') && !path.chars().any(char::is_control), "{path:?}");
    assert!(path.split('/').all(|segment| segment != "." && segment != ".."), "{path:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_reading_is_canonical_and_reads_as_itself(raw in prop_oneof![hostile_path(), "/\\PC{0,40}", "[/.;%2eEfF5cC]{0,24}"]) {
        if let Ok(target) = Target::parse(Scheme::Https, "app.example.com", &raw) {
            for reading in target.readings() {
                assert_canonical(reading);
            }
            let again = Target::parse(Scheme::Https, "app.example.com", &encoded(target.path())).unwrap();
            prop_assert_eq!(again.path(), target.path());
            prop_assert_eq!(again.readings().collect::<Vec<_>>(), target.readings().collect::<Vec<_>>());
            if let Some(plain) = target.readings().nth(1) {
                prop_assert!(!plain.contains(';'));
            }
        }
    }

    #[test]
    fn whatever_comes_nothing_panics(authority in any::<String>(), raw in any::<String>(), url in any::<String>()) {
        let _ = Target::parse(Scheme::Http, &authority, &raw);
        let _ = Target::parse_url(&url);
        let _ = Target::parse_url(&format!("https://{authority}/{raw}"));
    }

    #[test]
    fn a_canonical_host_is_its_own_canonical_form(host in prop_oneof!["[a-zA-Z0-9._:\\[\\]-]{0,20}", any::<String>()]) {
        if let Some(canonical) = canonical_host(&host) {
            prop_assert_eq!(canonical_host(&canonical), Some(canonical.clone()));
            prop_assert!(!canonical.ends_with('.') && !canonical.bytes().any(|byte| byte.is_ascii_uppercase()));
        }
    }

    #[test]
    fn a_target_survives_its_own_url(raw in hostile_path(), port in proptest::option::of(any::<u16>())) {
        let authority = port.map_or("app.example.com".to_owned(), |port| format!("app.example.com:{port}"));
        if let Ok(target) = Target::parse(Scheme::Https, &authority, &raw) {
            let again = Target::parse_url(&target.url()).unwrap();
            prop_assert_eq!((again.host(), again.port(), again.raw()), (target.host(), target.port(), target.raw()));
        }
    }
}
