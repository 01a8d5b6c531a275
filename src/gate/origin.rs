//! Whether a WebSocket handshake may be identified by a session cookie (CONTRACT 6, RFC 6455 §10.2).

use http::header;
use url::Url;

use crate::core::{request::Facts, route::Route, site::Site, target::Scheme};

/// `Origin` is absent (no browser), the request's own, or named in the route's or the listener's `origins`.
pub(super) fn may_use_session(site: &Site, facts: &Facts<'_>, route: Option<&Route>) -> bool {
    let mut origins = facts.headers.get_all(header::ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    if origins.next().is_some() {
        return false;
    }
    let Ok(origin) = origin.to_str() else { return false };
    is_own(site, facts, origin)
        || route.is_some_and(|route| route.origins.iter().any(|allowed| allowed == origin))
        || site
            .listener(facts.listener)
            .is_some_and(|listener| listener.origins.iter().any(|allowed| allowed == origin))
}

/// Same host and port as `Host`; https, or http where the portal is on http.
fn is_own(site: &Site, facts: &Facts<'_>, origin: &str) -> bool {
    let Ok(url) = Url::parse(origin) else { return false };
    let scheme = match url.scheme() {
        "https" => Scheme::Https,
        "http" if site.portal_scheme(&facts.target) == Scheme::Http => Scheme::Http,
        _ => return false,
    };
    let port = facts.target.port().unwrap_or(scheme.default_port());
    url.host_str() == Some(facts.target.host()) && url.port_or_known_default() == Some(port)
}
