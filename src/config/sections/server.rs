//! `server:`: listeners, whom they believe, and how the program ends.

use std::{collections::BTreeMap, fs::File, net::SocketAddr, path::PathBuf, time::Duration};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    RawAuthorization,
    connections::{self, RawSourceConnections},
    duration,
    headers::templates,
    origins,
};
use crate::{
    config::{
        CertificateFiles, Listener, NamedFile, Server, SourceRate, TlsFiles,
        error::{Report, Trail},
        quantity,
    },
    core::{request::Role, site::ListenerSite},
};

const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);
const EDGE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8080);
const CONTROL: &str = "data/postern.sock";
const SOURCE_LIMIT: SourceRate = SourceRate { count: 2000, per: Duration::from_secs(1), burst: 5000 };

/// Listeners, whom they believe, and how the program ends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawServer {
    /// Where Postern listens (default: one edge listener on `127.0.0.1:8080`).
    pub(in crate::config) listeners: Option<Vec<RawListener>>,
    /// Address of `/metrics`, `/healthz` and `/readyz` (default `127.0.0.1:9900`), or `none`.
    #[schemars(example = &"127.0.0.1:9900")]
    admin: Option<String>,
    /// Socket on which `postern limit show` asks the running server for what it counts in memory (default `data/postern.sock`), or `none`.
    #[schemars(example = &"data/postern.sock")]
    control: Option<String>,
    /// Addresses and CIDRs whose `X-Forwarded-*` and `X-Original-*` are believed (default: nobody's).
    #[schemars(example = ["127.0.0.1/32"])]
    trusted_proxies: Vec<String>,
    /// How long open requests may take to end when the program stops (default `30s`).
    #[schemars(example = &"30s")]
    drain: Option<String>,
    /// How long `/readyz` says no before listeners close (default `0s`).
    #[schemars(example = &"0s")]
    drain_delay: Option<String>,
    /// Requests from one source address, before any look-up (default `2000/second burst 5000`), or `none`.
    #[schemars(example = &"2000/second burst 5000")]
    source_limit: Option<String>,
    /// Connections held at once, at all listeners but admin (default 16384); one more is closed at once.
    #[schemars(example = &16_384)]
    connections: Option<u32>,
    /// Connections of one source address at once, IPv6 by /64 (default an eighth of `connections`), or `none`. Trusted proxies are exempt.
    #[schemars(example = &2048)]
    source_connections: Option<RawSourceConnections>,
}

/// One address to listen on.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawListener {
    /// IP address and port.
    #[schemars(example = &"127.0.0.1:8080")]
    address: String,
    /// What the listener does.
    #[schemars(example = &"edge")]
    pub(in crate::config) serves: RawRole,
    /// Replaces the server's list for this listener.
    #[schemars(example = ["127.0.0.1/32"])]
    trusted_proxies: Option<Vec<String>>,
    /// Ends TLS here.
    tls: Option<RawTls>,
    /// `app`: the `Authorization` header is the application's, never read.
    authorization: Option<RawAuthorization>,
    /// Origins, beside the request's own, from which a WebSocket may use a session.
    #[serde(default)]
    #[schemars(example = ["https://app.example.com"])]
    origins: Vec<String>,
    /// Headers that are added for the upstream, as templates.
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::config) enum RawRole {
    /// Postern is the reverse proxy.
    Edge,
    /// Another proxy asks about each request.
    ForwardAuth,
}

/// Certificates of a listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawTls {
    /// One a host name; the first where none fits.
    certificates: Vec<RawCertificate>,
    /// PEM file of authorities: a client certificate of one of them is required.
    #[schemars(example = &"tls/clients.pem")]
    client_ca: Option<String>,
}

/// A certificate chain and its key, as PEM files.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawCertificate {
    #[schemars(example = &"tls/a.pem")]
    certificate: String,
    #[schemars(example = &"tls/a.key")]
    key: String,
}

/// The server, and its listeners as the site sees them.
pub(in crate::config) fn server(report: &mut Report, raw: &RawServer) -> (Server, Vec<ListenerSite>) {
    let at = Trail::root().key("server");
    let shared = networks(report, &at.key("trusted_proxies"), &raw.trusted_proxies);
    let mut reading = Listeners { bound: Vec::new(), listeners: Vec::new(), sites: Vec::new() };
    match &raw.listeners {
        Some(listeners) => {
            let at = at.key("listeners");
            for (index, listener) in listeners.iter().enumerate() {
                reading.read(report, &at.item(index), listener, &shared);
            }
            if listeners.is_empty() && !report.is_pruned("server") {
                report.fault(&at, "no listener; write `- { address: \"127.0.0.1:8080\", serves: edge }`");
            }
        }
        None => reading.add(
            EDGE,
            ListenerSite {
                role: Role::Edge,
                trusted_proxies: shared,
                authorization_is_apps: false,
                origins: Vec::new(),
                headers: Vec::new(),
                tls: false,
            },
        ),
    }
    let admin = admin(report, &at.key("admin"), raw.admin.as_deref());
    if let Some(admin) = admin {
        reading.bind(report, &at.key("admin"), admin);
    }
    let control = control(report, &at.key("control"), raw.control.as_deref());
    let limit_at = at.key("source_limit");
    let source_limit = match &raw.source_limit {
        Some(text) => report.take(&limit_at, quantity::source_rate(text)).flatten(),
        None => Some(SOURCE_LIMIT),
    };
    let drain = duration(report, &at.key("drain"), raw.drain.as_deref(), Duration::from_secs(30), false);
    let drain_delay = duration(report, &at.key("drain_delay"), raw.drain_delay.as_deref(), Duration::ZERO, false);
    let connections = connections::bounds(report, &at, raw.connections, raw.source_connections.as_ref());
    let server = Server { listeners: reading.listeners, admin, control, drain, drain_delay, source_limit, connections };
    (server, reading.sites)
}

struct Listeners {
    bound: Vec<SocketAddr>,
    listeners: Vec<Listener>,
    sites: Vec<ListenerSite>,
}

impl Listeners {
    fn read(&mut self, report: &mut Report, at: &Trail, raw: &RawListener, shared: &[IpNet]) {
        let address = report.take(&at.key("address"), socket(&raw.address));
        if let Some(address) = address {
            self.bind(report, &at.key("address"), address);
        }
        let role = match raw.serves {
            RawRole::Edge => Role::Edge,
            RawRole::ForwardAuth => Role::ForwardAuth,
        };
        let own = raw.trusted_proxies.as_ref().map(|list| networks(report, &at.key("trusted_proxies"), list));
        let nobody = raw.trusted_proxies.as_ref().map_or(shared.is_empty(), Vec::is_empty);
        if role == Role::ForwardAuth && nobody {
            report.fault(
                at,
                "a `forward_auth` listener believes only trusted proxies, and none is named; \
                 write the asking proxy's address: `trusted_proxies: [127.0.0.1/32]`",
            );
        }
        let tls = raw.tls.as_ref().map(|raw| tls(report, &at.key("tls"), raw));
        let site = ListenerSite {
            role,
            trusted_proxies: own.unwrap_or_else(|| shared.to_vec()),
            authorization_is_apps: raw.authorization.is_some(),
            origins: origins(report, &at.key("origins"), &raw.origins),
            headers: templates(report, &at.key("headers"), &raw.headers),
            tls: tls.is_some(),
        };
        self.listeners.push(Listener { address: address.unwrap_or(EDGE), role, tls });
        self.sites.push(site);
    }

    fn add(&mut self, address: SocketAddr, site: ListenerSite) {
        self.bound.push(address);
        self.listeners.push(Listener { address, role: site.role, tls: None });
        self.sites.push(site);
    }

    fn bind(&mut self, report: &mut Report, at: &Trail, address: SocketAddr) {
        if let Some(other) = self.bound.iter().find(|other| overlap(**other, address)) {
            let message = format!("`{address}` is taken by the listener on `{other}`; give each its own port");
            report.fault(at, message);
        }
        self.bound.push(address);
    }
}

fn tls(report: &mut Report, at: &Trail, raw: &RawTls) -> TlsFiles {
    let list = at.key("certificates");
    if raw.certificates.is_empty() {
        report.fault(&list, "no certificate; write `[ { certificate: tls/a.pem, key: tls/a.key } ]`");
    }
    let mut certificates = Vec::new();
    for (index, raw) in raw.certificates.iter().enumerate() {
        let here = list.item(index);
        let pair = CertificateFiles { certificate: PathBuf::from(&raw.certificate), key: PathBuf::from(&raw.key) };
        readable(report, &here.key("certificate"), NamedFile::Certificate(pair.certificate.clone()));
        readable(report, &here.key("key"), NamedFile::Key(pair.clone()));
        certificates.push(pair);
    }
    let client_ca = raw.client_ca.as_ref().map(PathBuf::from);
    if let Some(path) = &client_ca {
        readable(report, &at.key("client_ca"), NamedFile::ClientCa(path.clone()));
    }
    TlsFiles { certificates, client_ca }
}

/// Names a file that exists and may be read, else says what to do.
pub(in crate::config) fn readable(report: &mut Report, at: &Trail, file: NamedFile) {
    let path = file.path().display();
    let is_file = File::open(file.path()).and_then(|file| file.metadata()).map(|about| about.is_file());
    let fault = match is_file {
        Ok(true) => return report.name(at, file),
        Ok(false) => format!("`{path}` is a folder; name a file"),
        Err(error) => format!("the file `{path}` cannot be read ({error}); correct the path or its permissions"),
    };
    report.fault(at, fault);
}

/// Two sockets that the system would not open beside each other. Port 0 is any free one.
fn overlap(left: SocketAddr, right: SocketAddr) -> bool {
    let same_family = left.is_ipv4() == right.is_ipv4();
    let any = left.ip().is_unspecified() || right.ip().is_unspecified();
    left.port() != 0 && left.port() == right.port() && (left.ip() == right.ip() || (any && same_family))
}

fn socket(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is no address to listen on; write an IP address and a port, such as `127.0.0.1:8080`")
    })
}

fn admin(report: &mut Report, at: &Trail, text: Option<&str>) -> Option<SocketAddr> {
    match text {
        None => Some(ADMIN),
        Some("none") => None,
        Some(text) => report.take(at, socket(text)),
    }
}

fn control(report: &mut Report, at: &Trail, text: Option<&str>) -> Option<PathBuf> {
    match text {
        None => Some(PathBuf::from(CONTROL)),
        Some("none") => None,
        Some("") => {
            report.fault(at, format!("`server.control` is empty; write a path such as `{CONTROL}`, or `none`"));
            None
        }
        Some(path) => Some(PathBuf::from(path)),
    }
}

fn networks(report: &mut Report, at: &Trail, raw: &[String]) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (index, text) in raw.iter().enumerate() {
        let here = at.item(index);
        let network = report.take(&here, network(text));
        if network.is_some_and(|network| network.prefix_len() == 0) {
            report.warn(
                &here,
                format!("`{text}` believes everybody: anyone can say who they are and where they come from"),
            );
        }
        networks.extend(network);
    }
    networks
}

fn network(text: &str) -> Result<IpNet, String> {
    let fault = || format!("`{text}` is no address or network; write for example `10.0.0.7` or `10.0.0.0/8`");
    let network = match text.parse::<IpNet>() {
        Ok(network) => network,
        Err(_) => text.parse::<std::net::IpAddr>().map(IpNet::from).map_err(|_| fault())?,
    };
    Ok(network.trunc())
}
