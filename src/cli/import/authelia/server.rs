//! `server:` and the older `host` and `port`: where Postern listens for the proxy's questions.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{
    ledger::Ledger,
    spot::{Placed, Spot, is_templated},
};
use crate::config::source::Kind;

const PORT: u16 = 9091;

/// The address of the `forward_auth` listener.
pub(super) fn address(root: &Spot<'_>, ledger: &mut Ledger) -> Placed<SocketAddr> {
    let mut address = written(root, ledger);
    let older = ["tls_key", "tls_cert"].iter().find_map(|keys| root.get(keys));
    if let Some(tls) = root.get("server.tls").filter(Spot::is_block).or(older) {
        ledger.leave_to_do(
            &tls,
            "Authelia spoke TLS to the proxy; Postern can too, but keys are not carried over: until `tls: { \
                 certificates: [ { certificate: …, \
             key: … } ] }` stands at the listener (and `client_ca` in place of `client_certificates`), it listens on \
                  this machine only",
            "give the listener its certificate and its address",
        );
        address.value = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.value.port());
    }
    let at = ["server.address", "server.host", "server.port", "host", "port", "server"]
        .iter()
        .find_map(|keys| root.get(keys));
    ledger.leave_to_do(
        at.as_ref().unwrap_or(root),
        "Authelia answers whoever reaches it; Postern believes the proxies of the listener's `trusted_proxies` alone, \
             and anybody else \
         gets 403. Only 127.0.0.1 is written there",
        "write your proxy's address into `trusted_proxies`",
    );
    address
}

fn written(root: &Spot<'_>, ledger: &mut Ledger) -> Placed<SocketAddr> {
    if let Some(spot) = root.get("server.address") {
        return match spot.text().and_then(parse) {
            Some((address, path)) => {
                ledger.carry(&spot);
                if !path.trim_matches('/').is_empty() {
                    ledger.find(
                        &spot,
                        "has a path; Postern's portal lies where `portal.url` says, path included, and needs none here",
                    );
                }
                Placed::at(&spot, address)
            }
            None => {
                ledger.leave_to_do(
                    &spot,
                    "is no IP address with a port, so Postern listens on 127.0.0.1:9091",
                    "choose the listener's address",
                );
                Placed::default(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT))
            }
        };
    }
    older(root, ledger)
}

/// `server.host` and `server.port`, once at the top.
fn older(root: &Spot<'_>, ledger: &mut Ledger) -> Placed<SocketAddr> {
    let first = |names: [&str; 2]| names.into_iter().find_map(|keys| root.get(keys));
    let (host, port) = (first(["server.host", "host"]), first(["server.port", "port"]));
    let line = host.as_ref().or(port.as_ref()).map(Spot::line);
    let number = match port.as_ref().map(|port| &port.node.kind) {
        Some(Kind::Int(number)) => u16::try_from(*number).ok(),
        Some(Kind::Str(text)) => text.parse().ok(),
        _ => None,
    };
    if let Some(spot) = &port {
        match number {
            Some(_) => ledger.carry(spot),
            None => ledger.leave_to_do(spot, "is no port, so Postern listens on 9091", "choose the listener's port"),
        }
    }
    let mut value = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), number.unwrap_or(PORT));
    if let Some(spot) = &host {
        match spot.text().and_then(host_address) {
            Some(address) => {
                ledger.carry(spot);
                value.set_ip(address);
            }
            None => {
                ledger.leave_to_do(
                    spot,
                    "is no IP address, so Postern listens on 127.0.0.1",
                    "choose the listener's address",
                );
                value.set_ip(IpAddr::V4(Ipv4Addr::LOCALHOST));
            }
        }
    }
    Placed { value, line }
}

/// `[SCHEME://][HOST][:PORT][/PATH]`, of the kinds that Postern can listen on.
fn parse(text: &str) -> Option<(SocketAddr, &str)> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
    let any = match scheme {
        "tcp" | "tcp4" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "tcp6" => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    if is_templated(rest) || rest.starts_with('/') || rest.contains('?') {
        return None;
    }
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at_checked(end)?;
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (authority, PORT),
    };
    let ip = if host.is_empty() { any } else { host_address(host)? };
    Some((SocketAddr::new(ip, port), path))
}

fn host_address(host: &str) -> Option<IpAddr> {
    match host {
        "localhost" => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        "" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        _ => host.trim_start_matches('[').trim_end_matches(']').parse().ok(),
    }
}

/// All of Authelia's that read a header.
const HEADER_STRATEGIES: &[&str] =
    &["HeaderAuthorization", "HeaderProxyAuthorization", "HeaderAuthRequestProxyAuthorization", "HeaderLegacy"];

/// Where an endpoint of Authelia's takes a session's cookie and nothing else: then the `Authorization` header must not sign in here
/// either. All endpoints share one listener of ours, so that one of them decides for all.
pub(super) fn cookies_alone(root: &Spot<'_>, ledger: &mut Ledger) -> Option<Placed<()>> {
    let takes_header = |endpoint: &Spot<'_>| {
        // Without strategies of its own, an endpoint has Authelia's, which read the header.
        let strategies = endpoint.get("authn_strategies").map(|strategies| strategies.items()).unwrap_or_default();
        let reads_header = |strategy: &Spot<'_>| {
            let name = strategy.get("name");
            name.and_then(|name| name.text()).is_some_and(|name| HEADER_STRATEGIES.contains(&name))
        };
        strategies.is_empty() || strategies.iter().any(reads_header)
    };
    let (header, cookie): (Vec<Spot<'_>>, Vec<Spot<'_>>) =
        root.get("server.endpoints.authz")?.entries().partition(takes_header);
    let first = cookie.first()?;
    if let Some(header) = header.first() {
        ledger.leave_to_do(
            header,
            format!(
                "signs people in by a header as well, `{}` by the session's cookie alone; Postern has one such setting a listener, and \
                     `authorization: app` was written, with which no header signs anybody in",
                first.trail
            ),
            "give the applications that sign in by header a listener of their own, without `authorization: app`",
        );
    }
    Some(Placed::at(first, ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_authelia() {
        for (text, ours) in [
            ("tcp://:9091/", Some("0.0.0.0:9091")),
            ("tcp://0.0.0.0:8080", Some("0.0.0.0:8080")),
            ("tcp4://127.0.0.1", Some("127.0.0.1:9091")),
            ("tcp6://:9091", Some("[::]:9091")),
            ("tcp://[fd00::1]:80/auth", Some("[fd00::1]:80")),
            (":9092", Some("0.0.0.0:9092")),
            ("localhost:9091", Some("127.0.0.1:9091")),
            ("tcp://authelia:9091", None),
            ("unix:///run/authelia.sock", None),
            ("/run/authelia.sock", None),
            ("fd://:3", None),
            ("tcp://{{ env \"A\" }}:9091", None),
            ("tcp://:99999", None),
        ] {
            let found = parse(text).map(|(address, _)| address.to_string());
            assert_eq!(found.as_deref(), ours, "{text}");
        }
    }

    #[test]
    fn an_endpoint_of_cookies_alone_takes_the_header_from_all() {
        let read = |endpoints: &str| {
            let text = format!("server: {{ endpoints: {{ authz: {endpoints} }} }}");
            let root = crate::config::source::parse(std::path::Path::new("a.yml"), &text).unwrap();
            let mut ledger = Ledger::new("a.yml".into());
            let written = cookies_alone(&Spot::root(&root), &mut ledger).is_some();
            (written, ledger.findings.iter().any(|finding| finding.to_do.is_some()))
        };
        for (endpoints, ours) in [
            ("{ a: { authn_strategies: [{ name: CookieSession }] } }", (true, false)),
            ("{ a: { authn_strategies: [{ name: $STRATEGY }] } }", (true, false)),
            ("{ a: { authn_strategies: $STRATEGIES } }", (true, false)),
            ("{ a: { authn_strategies: [{ name: CookieSession }] }, b: { authn_strategies: [] } }", (true, true)),
            ("{ a: {}, b: { authn_strategies: [{ name: CookieSession }] } }", (true, true)),
            ("{}", (false, false)),
            ("{ a: { implementation: ForwardAuth } }", (false, false)),
            ("{ a: { authn_strategies: [{ name: HeaderAuthorization }, { name: CookieSession }] } }", (false, false)),
            ("{ a: { authn_strategies: [{ name: HeaderLegacy }] }, b: }", (false, false)),
        ] {
            assert_eq!(read(endpoints), ours, "{endpoints}");
        }
    }
}
