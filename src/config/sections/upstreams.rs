//! `upstreams:`: the applications, by name.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{duration, web_url};
use crate::{
    config::error::{Report, Trail},
    core::route::{Server, Upstream, UpstreamTimeouts},
};

/// An application: one or more servers that answer alike.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawUpstream {
    /// Scheme, host and port of each.
    #[schemars(example = ["http://127.0.0.1:3000"])]
    servers: Vec<String>,
    /// How long a connection may take to open (default `5s`).
    #[schemars(example = &"5s")]
    connect_timeout: Option<String>,
    /// The longest pause before and within an answer (default `60s`).
    #[schemars(example = &"60s")]
    read_timeout: Option<String>,
    /// The longest pause while a request is sent (default `60s`).
    #[schemars(example = &"60s")]
    write_timeout: Option<String>,
}

pub(in crate::config) fn upstreams(
    report: &mut Report,
    raw: &BTreeMap<String, RawUpstream>,
) -> BTreeMap<String, Arc<Upstream>> {
    let at = Trail::root().key("upstreams");
    raw.iter().map(|(name, raw)| (name.clone(), Arc::new(upstream(report, &at.key(name), name, raw)))).collect()
}

fn upstream(report: &mut Report, at: &Trail, name: &str, raw: &RawUpstream) -> Upstream {
    let list = at.key("servers");
    if raw.servers.is_empty() {
        report
            .fault(&list, format!("the upstream `{name}` has no server; write `servers: [\"http://127.0.0.1:3000\"]`"));
    }
    let mut servers: Vec<Server> = Vec::new();
    for (index, text) in raw.servers.iter().enumerate() {
        let here = list.item(index);
        let Some(server) = report.take(&here, server(text)) else { continue };
        if servers.iter().any(|other| (&other.host, other.port) == (&server.host, server.port)) {
            report.fault(&here, format!("`{text}` stands twice; keep one"));
        }
        servers.push(server);
    }
    let mut timeout = |key: &str, text: &Option<String>, seconds| {
        duration(report, &at.key(key), text.as_deref(), Duration::from_secs(seconds), true)
    };
    let timeouts = UpstreamTimeouts {
        connect: timeout("connect_timeout", &raw.connect_timeout, 5),
        read: timeout("read_timeout", &raw.read_timeout, 60),
        write: timeout("write_timeout", &raw.write_timeout, 60),
    };
    Upstream { name: name.to_owned(), servers, timeouts }
}

fn server(text: &str) -> Result<Server, String> {
    let url = web_url(text, "http://127.0.0.1:3000")?;
    if url.path() != "/" {
        return Err("a server has no path: requests go on with the path they came with; write for example `http://127.0.0.1:3000`".to_owned());
    }
    let host = url.host_str().unwrap_or_default().to_owned();
    let port = url.port_or_known_default().unwrap_or_default();
    if port == 0 {
        return Err("port 0 cannot be connected to; write for example `http://127.0.0.1:3000`".to_owned());
    }
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().ok();
    Ok(Server {
        label: text.trim_end_matches('/').to_owned(),
        tls: url.scheme() == "https",
        host,
        port,
        address: address.map(|address| SocketAddr::new(address, port)),
    })
}
