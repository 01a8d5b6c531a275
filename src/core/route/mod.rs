//! Which application a request is for: most specific host, then longest prefix of whole segments (CONTRACT 3).

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use super::target::{EncodedSlashes, Scheme, Target, canonical_host};

#[derive(Debug)]
pub struct Route {
    /// What metrics and logs show.
    pub name: String,
    pub host: HostPattern,
    /// Canonical, begins with "/", no trailing slash but for "/" itself.
    pub prefix: String,
    pub upstream: Arc<Upstream>,
    pub headers: Vec<HeaderTemplate>,
    pub authorization_is_apps: bool,
    pub encoded_slashes: EncodedSlashes,
    /// Origins, beside its own, from which a WebSocket handshake may use a session.
    pub origins: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Any,
    /// A canonical host name or address.
    Exact(String),
    /// `*.example.com`, stored as "example.com": any depth below, not the name itself.
    Below(String),
}

/// A header that a route or a listener adds, from a template such as `{user.name}`.
#[derive(Debug, Clone)]
pub struct HeaderTemplate {
    pub name: HeaderName,
    pub parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Text(String),
    UserName,
    UserDisplayName,
    UserEmail,
    /// Comma separated, as `Remote-Groups`.
    UserGroups,
    /// Comma separated: `admin,acme/owner`.
    UserRoles,
}

#[derive(Debug)]
pub struct Upstream {
    pub name: String,
    pub servers: Vec<Server>,
    pub timeouts: UpstreamTimeouts,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// As written, for logs and metrics: `http://127.0.0.1:3000`.
    pub label: String,
    pub tls: bool,
    /// Host to resolve and to send as SNI.
    pub host: String,
    pub port: u16,
    /// Where `host` is an address already.
    pub address: Option<SocketAddr>,
}

/// How long an upstream may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamTimeouts {
    pub connect: Duration,
    /// Between two bytes of an answer; 504 before its header.
    pub read: Duration,
    pub write: Duration,
}

impl HostPattern {
    /// A host name, `*.name`, an address; `None` where it is none of these.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("*.") {
            Some(name) => canonical_host(name).filter(|name| !name.starts_with('[')).map(Self::Below),
            None => canonical_host(text).map(Self::Exact),
        }
    }
}

impl HeaderTemplate {
    /// # Errors
    /// What is wrong with the name or the template, in words. Nothing of the template is repeated: an application's key may stand there.
    pub fn parse(name: &str, template: &str) -> Result<Self, String> {
        let name = HeaderName::try_from(name).map_err(|_| format!("{name:?} is not the name of a header"))?;
        let mut parts = Vec::new();
        let mut rest = template;
        while !rest.is_empty() {
            let (text, after) = rest.split_once('{').unwrap_or((rest, ""));
            if !text.is_empty() {
                if text.contains('}') {
                    return Err("this template has a } without its {".to_owned());
                }
                if HeaderValue::from_bytes(text.as_bytes()).is_err() {
                    return Err("this template holds a character that cannot stand in a header".to_owned());
                }
                parts.push(TemplatePart::Text(text.to_owned()));
            }
            if text.len() == rest.len() {
                break;
            }
            let (variable, after) =
                after.split_once('}').ok_or_else(|| "this template has a { without its }".to_owned())?;
            parts.push(match variable {
                "user.name" => TemplatePart::UserName,
                "user.display_name" => TemplatePart::UserDisplayName,
                "user.email" => TemplatePart::UserEmail,
                "user.groups" => TemplatePart::UserGroups,
                "user.roles" => TemplatePart::UserRoles,
                _ => {
                    let known = "{user.name}, {user.display_name}, {user.email}, {user.groups} or {user.roles}";
                    return Err(format!("what stands between {{ and }} is not known; write {known}"));
                }
            });
            rest = after;
        }
        Ok(Self { name, parts })
    }

    /// Whether the roles have to be worked out for it.
    #[must_use]
    pub fn reads_roles(&self) -> bool {
        self.parts.contains(&TemplatePart::UserRoles)
    }
}

/// The canonical form of a route's path: begins with "/", ends with none but for "/" itself; `None` where requests could
/// never have such a path.
#[must_use]
pub fn canonical_prefix(path: &str) -> Option<String> {
    let target = Target::parse(Scheme::Https, "route", path).ok().filter(|_| !path.contains(['?', '%', ';']))?;
    let path = target.path();
    Some(if path == "/" { path.to_owned() } else { path.trim_end_matches('/').to_owned() })
}

/// All routes, found by host and then by path.
#[derive(Debug, Default)]
pub struct RouteTable {
    all: Vec<Arc<Route>>,
    /// Places in `all`, longest prefix first.
    exact: HashMap<String, Vec<usize>>,
    below: HashMap<String, Vec<usize>>,
    any: Vec<usize>,
    any_takes_encoded_slashes: bool,
}

impl RouteTable {
    /// Two routes alike (same host pattern, same prefix) are a fault that `config` finds before.
    #[must_use]
    pub fn new(routes: Vec<Route>) -> Self {
        let mut table = Self { all: routes.into_iter().map(Arc::new).collect(), ..Self::default() };
        table.any_takes_encoded_slashes =
            table.all.iter().any(|route| route.encoded_slashes == EncodedSlashes::Strictest);
        let mut places: Vec<_> = table.all.iter().enumerate().collect();
        places.sort_by_key(|(_, route)| std::cmp::Reverse(route.prefix.len()));
        for (place, route) in places {
            match &route.host {
                HostPattern::Any => table.any.push(place),
                HostPattern::Exact(host) => table.exact.entry(host.clone()).or_default().push(place),
                HostPattern::Below(name) => table.below.entry(name.clone()).or_default().push(place),
            }
        }
        table
    }

    #[must_use]
    pub fn any_takes_encoded_slashes(&self) -> bool {
        self.any_takes_encoded_slashes
    }

    /// `host` and `path` canonical. No allocation.
    #[must_use]
    pub fn find(&self, host: &str, path: &str) -> Option<&Arc<Route>> {
        if let Some(route) = self.exact.get(host).and_then(|places| self.longest(places, path)) {
            return Some(route);
        }
        // `a.b.example.com` is tried as below `b.example.com`, then `example.com`, then `com`.
        let mut rest = host;
        while let Some((_, name)) = rest.split_once('.') {
            if let Some(route) = self.below.get(name).and_then(|places| self.longest(places, path)) {
                return Some(route);
            }
            rest = name;
        }
        self.longest(&self.any, path)
    }

    #[must_use]
    pub fn all(&self) -> &[Arc<Route>] {
        &self.all
    }

    fn longest(&self, places: &[usize], path: &str) -> Option<&Arc<Route>> {
        places.iter().filter_map(|place| self.all.get(*place)).find(|route| is_below(path, &route.prefix))
    }
}

/// Whether `path` is `prefix` or whole segments below it.
fn is_below(path: &str, prefix: &str) -> bool {
    prefix == "/" || path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests;
