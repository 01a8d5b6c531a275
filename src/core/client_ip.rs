//! The client's address (CONTRACT 3): the peer's, unless the peer is trusted; then the rightmost entry of
//! `X-Forwarded-For` that is not itself trusted; if there is none or it cannot be parsed, unknown.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

use super::header::X_FORWARDED_FOR;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientAddress {
    /// IPv4 mapped into IPv6 stands here as IPv4.
    Known(IpAddr),
    /// A rule with `networks` refuses; an `ip` limit shares one bucket a peer.
    Unknown,
}

impl ClientAddress {
    #[must_use]
    pub fn known(self) -> Option<IpAddr> {
        match self {
            Self::Known(address) => Some(address),
            Self::Unknown => None,
        }
    }
}

/// Whoever has one IPv6 address has its /64 (THREATS 57); IPv4 mapped into IPv6 counts as IPv4.
#[must_use]
pub fn bucket_of(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
    }
}

/// `trusted` is the listener's own list.
#[must_use]
pub fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> ClientAddress {
    let is_trusted = |address: IpAddr| trusted.iter().any(|net| net.contains(&address));
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return ClientAddress::Known(peer);
    }
    // Several headers are one list, in order (RFC 9110 §5.3); a proxy appends, so its own word is the rightmost.
    for header in headers.get_all(X_FORWARDED_FOR).iter().rev() {
        let Ok(list) = header.to_str() else { return ClientAddress::Unknown };
        for entry in list.rsplit(',') {
            match address_of(entry.trim()) {
                None => return ClientAddress::Unknown,
                Some(address) if is_trusted(address) => {}
                Some(address) => return ClientAddress::Known(address),
            }
        }
    }
    ClientAddress::Unknown
}

/// `192.0.2.1`, `192.0.2.1:5`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:5`.
fn address_of(entry: &str) -> Option<IpAddr> {
    let bare = || entry.strip_prefix('[')?.strip_suffix(']')?.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    entry
        .parse::<IpAddr>()
        .ok()
        .or_else(bare)
        .or_else(|| entry.parse::<SocketAddr>().ok().map(|address| address.ip()))
        .map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.1";

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "fd00::/8"].iter().map(|net| net.parse().unwrap()).collect()
    }

    fn address(peer: &str, lists: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append("x-forwarded-for", HeaderValue::from_bytes(list).unwrap());
        }
        let found = client_address(peer.parse().unwrap(), &headers, &trusted());
        found.known().map(|address| address.to_string())
    }

    #[test]
    fn threat_18_a_peer_that_is_not_trusted_is_the_client_whatever_it_says() {
        for peer in ["192.0.2.1", "2001:db8::1"] {
            assert_eq!(address(peer, &[b"10.0.0.9"]).as_deref(), Some(peer));
            assert_eq!(address(peer, &[b"nonsense"]).as_deref(), Some(peer));
        }
        assert_eq!(address("::ffff:192.0.2.1", &[]).as_deref(), Some("192.0.2.1"), "mapped counts as IPv4");
        let nobody = client_address(PROXY.parse().unwrap(), &HeaderMap::new(), &[]);
        assert_eq!(nobody.known().unwrap().to_string(), PROXY);
    }

    #[test]
    fn the_rightmost_entry_that_is_not_trusted() {
        for (lists, expected) in [
            (&["203.0.113.7"] as &[&str], Some("203.0.113.7")),
            (&["1.1.1.1, 203.0.113.7"], Some("203.0.113.7")),
            (&["1.1.1.1, 203.0.113.7, 10.2.3.4"], Some("203.0.113.7")),
            (&["1.1.1.1,203.0.113.7,10.2.3.4,fd00::7"], Some("203.0.113.7")),
            (&["nonsense, 203.0.113.7"], Some("203.0.113.7")),
            (&["1.1.1.1", "203.0.113.7"], Some("203.0.113.7")),
            (&["203.0.113.7", "10.2.3.4"], Some("203.0.113.7")),
            (&["1.1.1.1, 203.0.113.7", "10.2.3.4, 10.2.3.5"], Some("203.0.113.7")),
            (&[" \t203.0.113.7\t "], Some("203.0.113.7")),
            (&["203.0.113.7:5"], Some("203.0.113.7")),
            (&["[2001:db8::1]:5"], Some("2001:db8::1")),
            (&["[2001:db8::1]"], Some("2001:db8::1")),
            (&["2001:DB8:0::1"], Some("2001:db8::1")),
            (&["::ffff:203.0.113.7"], Some("203.0.113.7")),
            (&["203.0.113.7, ::ffff:10.2.3.4"], Some("203.0.113.7")),
            (&["127.0.0.1"], Some("127.0.0.1")),
            // Every entry is trusted, or there is none.
            (&["10.2.3.4"], None),
            (&["10.2.3.4, fd00::1"], None),
            (&[], None),
            (&[""], None),
        ] {
            let lists: Vec<&[u8]> = lists.iter().map(|list| list.as_bytes()).collect();
            assert_eq!(address(PROXY, &lists).as_deref(), expected, "{lists:?}");
            assert_eq!(address("::ffff:10.0.0.1", &lists).as_deref(), expected, "the peer as IPv6: {lists:?}");
        }
    }

    #[test]
    fn threat_20_an_entry_that_cannot_be_parsed_leaves_the_address_unknown() {
        for list in [
            "a",
            "unknown",
            "_hidden",
            "203.0.113.7, a",
            "203.0.113.7,",
            "203.0.113.7, ,10.2.3.4",
            "203.0.113.7, 10.2.3.4,",
            "203.0.113",
            "203.0.113.7.8",
            "203.0.113.256",
            "0x7f.0.0.1",
            "0203.0.113.7",
            "203.0.113.7:",
            "203.0.113.7:99999",
            "203.0.113.7 10.0.0.1",
            "203.0.113.7/32",
            "[203.0.113.7]",
            "[2001:db8::1",
            "2001:db8::1]:5",
            "[2001:db8::1]5",
            "::1%eth0",
            "for=203.0.113.7",
            "\"203.0.113.7\"",
            "203.0.113.7;10.0.0.1",
        ] {
            assert_eq!(address(PROXY, &[list.as_bytes()]), None, "{list:?}");
        }
        assert_eq!(address(PROXY, &[b"203.0.113.7", b"\xff"]), None);
        assert_eq!(address(PROXY, &["203.0.113.7, é".as_bytes()]), None);
    }

    #[test]
    fn threat_20_a_thousand_entries() {
        let trusted_ones = vec!["10.2.3.4"; 1000].join(", ");
        assert_eq!(address(PROXY, &[trusted_ones.as_bytes()]), None);
        assert_eq!(
            address(PROXY, &[format!("203.0.113.7, {trusted_ones}").as_bytes()]).as_deref(),
            Some("203.0.113.7")
        );
        assert_eq!(address(PROXY, &[format!("a, {trusted_ones}, 127.0.0.1").as_bytes()]).as_deref(), Some("127.0.0.1"));
        assert_eq!(address(PROXY, &[format!("a, {trusted_ones}").as_bytes()]), None);
    }

    proptest! {
        /// What a client writes in front never changes what the proxies behind it saw.
        #[test]
        fn nothing_in_front_of_the_client_counts(forged in "[ -~]{0,60}") {
            let list = format!("{forged}, 203.0.113.7, 10.2.3.4");
            prop_assert_eq!(address(PROXY, &[list.as_bytes()]), Some("203.0.113.7".to_owned()));
            prop_assert_eq!(address(PROXY, &[forged.as_bytes(), b"203.0.113.7"]), Some("203.0.113.7".to_owned()));
        }

        #[test]
        fn no_trusted_address_is_ever_the_client_of_a_trusted_peer(lists in proptest::collection::vec("[0-9a-f.:,\\[\\] ]{0,40}", 0..4)) {
            let lists: Vec<&[u8]> = lists.iter().map(|list| list.as_bytes()).collect();
            if let Some(found) = address(PROXY, &lists) {
                let found: IpAddr = found.parse().unwrap();
                prop_assert!(trusted().iter().all(|net| !net.contains(&found)));
            }
        }
    }
}
