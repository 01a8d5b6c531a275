use proptest::prelude::*;

use super::*;

fn ours() -> Vec<String> {
    ["postern_session", "__Host-postern_portal", "__Host-postern_csrf"].map(str::to_owned).to_vec()
}

fn request(cookies: &[&[u8]]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for cookie in cookies {
        headers.append(header::COOKIE, HeaderValue::from_bytes(cookie).unwrap());
    }
    headers
}

fn kept(cookies: &[&[u8]]) -> Option<Vec<u8>> {
    without_ours(&request(cookies), &ours()).map(|value| value.as_bytes().to_vec())
}

#[test]
fn threat_33_every_value_of_a_name_is_found() {
    for (cookies, expected) in [
        (&["postern_session=a"] as &[&str], &["a"] as &[&str]),
        (&["x=1; postern_session=a; y=2"], &["a"]),
        (&["postern_session=a; postern_session=b"], &["a", "b"]),
        (&["postern_session=a", "postern_session=b"], &["a", "b"]),
        (&["x=1;postern_session=a;"], &["a"]),
        (&[" \tpostern_session = a \t"], &["a"]),
        (&["postern_session=a=b="], &["a=b="]),
        (&["postern_session=\"a\""], &["\"a\""]),
        (&["postern_session="], &[""]),
        (&["Postern_Session=a"], &[]),
        (&["=postern_session=a"], &[]),
        (&["xpostern_session=a; postern_session2=b"], &[]),
        (&["x=postern_session=a"], &[]),
        (&["x=\"1; postern_session=a; y=2\""], &["a"]),
        (&[""], &[]),
        (&[], &[]),
    ] {
        let headers = request(&cookies.iter().map(|cookie| cookie.as_bytes()).collect::<Vec<_>>());
        assert_eq!(values(&headers, "postern_session").collect::<Vec<_>>(), expected, "{cookies:?}");
    }
}

#[test]
fn threat_31_bytes_that_are_no_text_hide_no_other_cookie() {
    let headers = request(&[b"x=\xff\xfe; postern_session=a", b"postern_session=\xff; postern_session=b"]);
    assert_eq!(values(&headers, "postern_session").collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn threat_29_ours_are_taken_out_and_nothing_else() {
    for (cookies, expected) in [
        (&["postern_session=a"] as &[&str], None),
        (&["postern_session=a; __Host-postern_portal=b; __Host-postern_csrf=c"], None),
        (&["x=1; postern_session=a; y=2"], Some("x=1; y=2")),
        (&["x=1;postern_session=a;y=2"], Some("x=1; y=2")),
        (&["x=1", "postern_session=a", "y=2"], Some("x=1; y=2")),
        (&["postern_session=a; postern_session=b; x=1"], Some("x=1")),
        (&["postern_session; x=1"], Some("x=1")),
        (&["postern_session=; x=1"], Some("x=1")),
        (&["postern_session =a; x=1"], Some("x=1")),
        (&["\tpostern_session\t=a; x=1"], Some("x=1")),
        (&["=postern_session=a; x=1"], Some("x=1")),
        (&["= =postern_session=a; x=1"], Some("x=1")),
        (&["=postern_session; x=1"], Some("x=1")),
        (&["POSTERN_SESSION=a; x=1"], Some("x=1")),
        (&["x=\"1; postern_session=a; y=2\""], Some("x=\"1; y=2\"")),
        (&["postern_session=\"a; x=1\""], Some("x=1\"")),
        (&["x=postern_session=a"], Some("x=postern_session=a")),
        (&["postern_session2=a; my_postern_session=b"], Some("postern_session2=a; my_postern_session=b")),
        (&["=x; y; z="], Some("=x; y; z=")),
        (&["x=\"a b\", c"], Some("x=\"a b\", c")),
        (&["x=1; ; ;;"], Some("x=1")),
        (&[""], None),
        (&[";"], None),
        (&[], None),
    ] {
        let cookies: Vec<&[u8]> = cookies.iter().map(|cookie| cookie.as_bytes()).collect();
        assert_eq!(kept(&cookies).as_deref(), expected.map(str::as_bytes), "{cookies:?}");
    }
}

#[test]
fn bytes_of_other_cookies_are_kept() {
    assert_eq!(
        kept(&[b"x=\xff\xfe\x80; postern_session=a; \xe9=\t1"]).as_deref(),
        Some(b"x=\xff\xfe\x80; \xe9=\t1" as &[u8])
    );
}

#[test]
fn threat_60_an_upstream_that_sets_one_of_ours() {
    for (set_cookie, is_ours) in [
        ("postern_session=a", true),
        ("postern_session=a; Path=/; HttpOnly", true),
        ("postern_session=; Max-Age=0", true),
        ("postern_session", true),
        ("Postern_Session=a", true),
        ("__HOST-postern_portal=a", true),
        (" postern_session =a", true),
        ("\tpostern_session\t=a", true),
        ("=postern_session=a", true),
        ("==postern_session=a; Path=/", true),
        (" = postern_session=a", true),
        ("__Host-postern_portal=a; Secure; Path=/", true),
        ("__Host-postern_csrf=a; Secure; Path=/", true),
        ("x=postern_session=a", false),
        ("x=1; postern_session=a", false),
        ("postern_session2=a", false),
        ("x=1; Domain=postern_session", false),
        (";postern_session=a", false),
        ("", false),
    ] {
        assert_eq!(sets_ours(&HeaderValue::from_str(set_cookie).unwrap(), &ours()), is_ours, "{set_cookie:?}");
    }
    assert!(sets_ours(&HeaderValue::from_bytes(b"postern_session=\xff").unwrap(), &ours()));
}

#[test]
fn ours_as_they_are_set() {
    let cookie = SetCookie {
        name: "postern_session",
        value: "abc",
        domain: "example.com",
        secure: true,
        same_site: SameSite::Lax,
        max_age: Some(60),
    };
    for (cookie, expected) in [
        (cookie, "postern_session=abc; Path=/; HttpOnly; Domain=example.com; Secure; SameSite=Lax; Max-Age=60"),
        (
            SetCookie { domain: "", secure: false, same_site: SameSite::Strict, max_age: None, ..cookie },
            "postern_session=abc; Path=/; HttpOnly; SameSite=Strict",
        ),
        (
            SetCookie { value: "", domain: "", same_site: SameSite::None, max_age: Some(0), ..cookie },
            "postern_session=; Path=/; HttpOnly; Secure; SameSite=None; Max-Age=0",
        ),
    ] {
        assert_eq!(cookie.header().unwrap(), expected);
    }
    for bad in ["a\r\nSet-Cookie: b", "a\nb", "a\0", "a; Domain=evil.example", "a;"] {
        assert!(SetCookie { value: bad, ..cookie }.header().is_err(), "value {bad:?}");
        assert!(SetCookie { name: bad, ..cookie }.header().is_err(), "name {bad:?}");
        assert!(SetCookie { domain: bad, ..cookie }.header().is_err(), "domain {bad:?}");
    }
}

#[test]
fn the_prefix_is_for_https_alone() {
    assert_eq!((portal_cookie(true), portal_cookie(false)), ("__Host-postern_portal", "postern_portal"));
    assert_eq!((csrf_cookie(true), csrf_cookie(false)), ("__Host-postern_csrf", "postern_csrf"));
    assert_eq!((return_cookie(true), return_cookie(false)), ("__Host-postern_return", "postern_return"));
}

proptest! {
    #[test]
    fn nothing_of_ours_is_left_and_all_else_is(pairs in proptest::collection::vec(prop_oneof![
        "[a-z]{1,3}=[a-z\"= ]{0,4}[a-z]",
        "[ \t=]{0,3}postern_session[ \t]{0,2}=SECRET",
    ], 0..8)) {
        let header = pairs.join(";");
        let left = kept(&[header.as_bytes()]).map(|bytes| String::from_utf8(bytes).unwrap()).unwrap_or_default();
        prop_assert!(!left.contains("SECRET"), "{:?}", left);
        let others: Vec<_> = pairs.iter().filter(|pair| !pair.contains("SECRET")).map(|pair| pair.trim()).collect();
        prop_assert_eq!(left, others.join("; "));
    }

    #[test]
    fn whatever_comes_is_taken(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        if let Ok(value) = HeaderValue::from_bytes(&bytes) {
            let mut headers = HeaderMap::new();
            headers.append(header::COOKIE, value.clone());
            let left = without_ours(&headers, &ours());
            let again: HeaderMap = left.iter().cloned().map(|value| (header::COOKIE, value)).collect();
            prop_assert_eq!(without_ours(&again, &ours()), left);
            let _ = sets_ours(&value, &ours());
        }
    }
}
