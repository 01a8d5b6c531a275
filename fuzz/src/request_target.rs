//! Whatever comes as a host, a path or a URL: it is refused, or read canonically. What is accepted is what rules decide on, so no
//! reading of it may be one that somebody else takes for another path.
//!
//! An input is three lines: an authority, a path with its query, a URL.

use postern::core::target::{EncodedSlashes, Scheme, Target, canonical_host};

pub(crate) fn run(input: &[u8]) {
    let Ok(input) = str::from_utf8(input) else { return };
    let mut lines = input.splitn(3, '\n');
    let (authority, raw, url) =
        (lines.next().unwrap_or_default(), lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if let Some(host) = canonical_host(authority) {
        assert_eq!(canonical_host(&host).as_deref(), Some(&*host), "a canonical host is its own canonical form");
    }
    for authority in [authority, "app.example.com"] {
        let parsed = |slashes| Target::parse_with(Scheme::Https, authority, raw, slashes);
        let (rejecting, strictest) = (parsed(EncodedSlashes::Reject), parsed(EncodedSlashes::Strictest));
        match (&rejecting, &strictest) {
            (Ok(one), Ok(other)) => {
                assert_eq!(readings(one), readings(other), "one more setting changes nothing without encoded slashes");
                assert!(!other.has_encoded_slash());
            }
            (Ok(_), Err(error)) => panic!("`strictest` refuses what `reject` takes: {error}"),
            (Err(_), Ok(other)) => assert!(other.has_encoded_slash(), "only encoded slashes are taken in addition"),
            (Err(_), Err(_)) => {}
        }
        for target in [rejecting, strictest].into_iter().flatten() {
            accepted(&target, raw);
        }
    }
    for slashes in [EncodedSlashes::Reject, EncodedSlashes::Strictest] {
        if let Ok(target) = Target::parse_url_with(url, slashes) {
            accepted(&target, target.raw());
        }
    }
}

fn accepted(target: &Target, raw: &str) {
    assert!(target.raw() == raw || target.raw() == format!("/{raw}"), "what is forwarded is what came");
    for reading in target.readings() {
        assert!(reading.starts_with('/') && !reading.contains("//"), "{reading:?}");
        assert!(!reading.contains('\\') && !reading.chars().any(char::is_control), "{reading:?}");
        assert!(reading.split('/').all(|segment| segment != "." && segment != ".."), "{reading:?}");
        // Canonicalised once more it is what it was. Where encoded slashes were split, parameters may still hide a dot segment, and
        // the reading without them has it resolved.
        match Target::parse(Scheme::Https, "app.example.com", &encoded(reading)) {
            Ok(again) => assert_eq!(again.path(), reading),
            Err(error) => assert!(target.has_encoded_slash() && reading.contains(';'), "{reading:?}: {error}"),
        }
    }
    let slashes = if target.has_encoded_slash() { EncodedSlashes::Strictest } else { EncodedSlashes::Reject };
    let again = Target::parse_url_with(&target.url(), slashes).expect("its own URL");
    assert_eq!((again.host(), again.port(), again.raw()), (target.host(), target.port(), target.raw()));
    assert_eq!(readings(&again), readings(target));
    assert_eq!(readings(&target.over_https()), readings(target));
}

fn readings(target: &Target) -> Vec<&str> {
    target.readings().collect()
}

/// As a client would write a path that is decoded already.
fn encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
