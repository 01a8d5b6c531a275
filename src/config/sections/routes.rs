//! `routes:`: which request goes where.

use std::{collections::BTreeMap, sync::Arc};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{RawAuthorization, RawSlashes, headers::templates, origins, upstreams::RawUpstream};
use crate::{
    config::error::{Report, Trail, did_you_mean, list},
    core::{
        route::{HostPattern, Route, Upstream, canonical_prefix},
        target::EncodedSlashes,
    },
};

/// Which request goes where.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawRoute {
    /// What metrics and logs show (default: host and path).
    #[schemars(example = &"grafana")]
    name: Option<String>,
    /// A name, `*.name`, or an address (default: any).
    #[schemars(example = &"grafana.example.com")]
    pub(in crate::config) host: Option<String>,
    /// Prefix of whole segments (default `/`).
    #[schemars(example = &"/")]
    path: Option<String>,
    /// Where requests go: a name of `upstreams`.
    #[schemars(example = &"grafana")]
    upstream: Option<String>,
    /// Headers that are added for the upstream, as templates: `{user.name}`, `{user.display_name}`, `{user.email}`, `{user.groups}`, `{user.roles}`.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// `app`: the `Authorization` header is the application's, never read.
    authorization: Option<RawAuthorization>,
    /// Origins, beside the request's own, from which a WebSocket may use a session.
    #[serde(default)]
    #[schemars(example = ["https://app.example.com"])]
    origins: Vec<String>,
    /// As the setting of the same name at the top.
    #[schemars(example = &"reject")]
    encoded_slashes: Option<RawSlashes>,
}

/// What routes may refer to.
pub(in crate::config) struct Known<'k> {
    pub(in crate::config) upstreams: &'k BTreeMap<String, Arc<Upstream>>,
    /// Some upstream was taken out for a fault of form: then a missing name is no fault of the route's.
    pub(in crate::config) upstreams_pruned: bool,
    /// What holds where a route says nothing.
    pub(in crate::config) encoded_slashes: EncodedSlashes,
}

pub(in crate::config) fn routes(report: &mut Report, raw: &[RawRoute], known: &Known<'_>) -> Vec<Route> {
    let at = Trail::root().key("routes");
    let mut routes: Vec<Route> = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let here = at.item(index);
        let Some(route) = route(report, &here, raw, known) else { continue };
        if let Some(other) = routes.iter().find(|other| (&other.host, &other.prefix) == (&route.host, &route.prefix)) {
            let message = format!(
                "this route has the host and path of the route `{}`; keep one, or give it another `path`",
                other.name
            );
            report.fault(&here, message);
        } else if routes.iter().any(|other| other.name == route.name) {
            report.fault(
                &here.key("name"),
                format!(
                    "two routes are named `{}`, and logs could not tell them apart; write another name",
                    route.name
                ),
            );
        }
        routes.push(route);
    }
    routes
}

/// Upstreams that no route leads to.
pub(in crate::config) fn warn_unused(report: &mut Report, raw: &[RawRoute], upstreams: &BTreeMap<String, RawUpstream>) {
    let at = Trail::root().key("upstreams");
    for name in upstreams.keys().filter(|name| !raw.iter().any(|route| route.upstream.as_ref() == Some(name))) {
        report.warn(&at.key(name), format!("no route leads to the upstream `{name}`"));
    }
}

fn route(report: &mut Report, at: &Trail, raw: &RawRoute, known: &Known<'_>) -> Option<Route> {
    let host_at = at.key("host");
    let host = match &raw.host {
        None => Some(HostPattern::Any),
        Some(text) => report.take(&host_at, host_pattern(text)),
    };
    let path = raw.path.as_deref().unwrap_or("/");
    let prefix = report.take(&at.key("path"), prefix(path));
    let upstream = upstream(report, at, raw, known);
    let headers = templates(report, &at.key("headers"), &raw.headers);
    let origins = origins(report, &at.key("origins"), &raw.origins);
    let encoded_slashes = raw.encoded_slashes.map_or(known.encoded_slashes, EncodedSlashes::from);
    let name = raw.name.clone().unwrap_or_else(|| format!("{}{path}", raw.host.as_deref().unwrap_or("*")));
    if name.is_empty() || name.chars().any(char::is_control) {
        report.fault(&at.key("name"), "a route's name must be one line; write for example `grafana`");
    }
    let authorization_is_apps = raw.authorization.is_some();
    Some(Route {
        name,
        host: host?,
        prefix: prefix?,
        upstream: upstream?,
        headers,
        authorization_is_apps,
        encoded_slashes,
        origins,
    })
}

fn upstream(report: &mut Report, at: &Trail, raw: &RawRoute, known: &Known<'_>) -> Option<Arc<Upstream>> {
    let names = || known.upstreams.keys().map(String::as_str);
    let choose = || match known.upstreams.is_empty() {
        true => "name one under `upstreams` first".to_owned(),
        false => format!("known: {}", list(names())),
    };
    let Some(name) = &raw.upstream else {
        report.fault(at, format!("this route leads nowhere; write `upstream: NAME` ({})", choose()));
        return None;
    };
    let found = known.upstreams.get(name).cloned();
    if found.is_none() && !known.upstreams_pruned {
        let meant = did_you_mean(name, names());
        let meant = meant.trim_end_matches('?');
        report.fault(&at.key("upstream"), format!("there is no upstream `{name}`{meant} ({})", choose()));
    }
    found
}

fn host_pattern(text: &str) -> Result<HostPattern, String> {
    HostPattern::parse(text).ok_or_else(|| {
        format!("`{text}` is no host; write a name, `*.name` or an address without scheme and port, such as `app.example.com`")
    })
}

fn prefix(text: &str) -> Result<String, String> {
    canonical_prefix(text)
        .ok_or_else(|| format!("`{text}` is no path in its canonical form; write for example `/` or `/grafana`"))
}
