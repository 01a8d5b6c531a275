//! One configuration, compiled: what a request sees from its first byte to its last (invariant 9). `config` builds it,
//! `app` swaps it whole, everybody else reads it.

use std::{collections::BTreeMap, sync::Arc};

use arc_swap::ArcSwap;
use http::HeaderName;
use ipnet::IpNet;
use url::Url;

use super::{
    policy::RuleSet,
    request::Role,
    route::{HeaderTemplate, RouteTable, Upstream},
    session::Lifetimes,
    target::{EncodedSlashes, Scheme, Target},
    tokens::TokenSettings,
};

/// The configuration in force. Readers take one `Arc` a request.
pub type CurrentSite = ArcSwap<Site>;

#[derive(Debug)]
pub struct Site {
    /// In the order of the configuration; a listener knows its index. What needs a restart (address, role) never differs
    /// from the one that is running.
    pub listeners: Vec<ListenerSite>,
    pub portal: PortalSite,
    pub cookies: Vec<CookieScope>,
    /// `session.hand_over`: people sign in at the portal of the first of `cookies`, which hands over to the others'.
    pub hands_over: bool,
    /// Whether a sign-in from a new device is told by mail.
    pub tells_new_devices: bool,
    /// Whether browsers keep a cookie by which a device of somebody's is known.
    pub knows_devices: bool,
    pub lifetimes: Lifetimes,
    pub routes: RouteTable,
    /// In `forward_auth`; at the edge the route says so.
    pub encoded_slashes: EncodedSlashes,
    pub upstreams: BTreeMap<String, Arc<Upstream>>,
    pub rules: RuleSet,
    pub tokens: TokenSettings,
    /// Names of all cookies that are ours, to be taken out of what goes to an upstream and comes from one.
    pub own_cookies: Vec<String>,
}

/// What a listener believes and sends; all of it can be reloaded.
#[derive(Debug, Clone)]
pub struct ListenerSite {
    pub role: Role,
    pub trusted_proxies: Vec<IpNet>,
    /// `authorization: app`: the header is the application's, never read.
    pub authorization_is_apps: bool,
    /// Origins from which a WebSocket handshake may use a session (`forward_auth`; at the edge the route says so).
    pub origins: Vec<String>,
    pub headers: Vec<HeaderTemplate>,
    pub tls: bool,
}

impl ListenerSite {
    #[must_use]
    pub fn trusts(&self, peer: std::net::IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.trusted_proxies.iter().any(|net| net.contains(&peer))
    }
}

/// Where the portal is mounted.
#[derive(Debug, Clone)]
pub enum Mount {
    /// On an origin of its own (`portal.url`), with this path prefix ("" or "/auth", never a trailing slash).
    Host { url: Url, host: String, scheme: Scheme, base: String },
    /// Below this path ("/_postern") of every host (`portal.path`).
    Path(String),
}

#[derive(Debug, Clone)]
pub struct PortalSite {
    pub mount: Mount,
    /// `portal.title`; shown in the page's head.
    pub title: String,
    /// `portal.accent`: a CSS colour, validated as `#rrggbb`.
    pub accent: String,
    /// `portal.explain_to`: groups whose people are told what the rules say where they are refused. Spelled exactly.
    pub explain_to: Vec<String>,
}

/// One entry of `session.cookies`: the hosts that share a sign-in.
#[derive(Debug, Clone)]
pub struct CookieScope {
    /// Lower case, no leading dot; empty with `portal.path` (a host-only cookie).
    pub domain: String,
    pub name: String,
    pub same_site: SameSite,
    /// Where people of this scope sign in; base URL of the portal, without a trailing slash. `None` with `portal.path`.
    pub portal: Option<Url>,
    pub default_redirect: Option<Url>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SameSite {
    Lax,
    Strict,
    None,
}

impl CookieScope {
    /// Whether the cookie of this scope is sent to `host` (RFC 6265 §5.1.3); any host with `portal.path`.
    #[must_use]
    pub fn covers(&self, host: &str) -> bool {
        self.domain.is_empty()
            || host == self.domain
            || host.strip_suffix(self.domain.as_str()).is_some_and(|rest| rest.ends_with('.'))
    }
}

impl Site {
    /// The most that any target of this site may hold; what the route of one says comes after that.
    #[must_use]
    pub fn widest_slashes(&self) -> EncodedSlashes {
        if self.routes.any_takes_encoded_slashes() { EncodedSlashes::Strictest } else { self.encoded_slashes }
    }

    /// The scope that `host` belongs to; there is at most one, since no domain lies inside another.
    #[must_use]
    pub fn scope(&self, host: &str) -> Option<&CookieScope> {
        self.cookies.iter().find(|scope| scope.covers(host))
    }

    #[must_use]
    pub fn listener(&self, index: usize) -> Option<&ListenerSite> {
        self.listeners.get(index)
    }

    /// The path inside the portal ("/", "/auth/login") where the portal answers this request, else `None`.
    /// `/.well-known/jwks.json` is also served on every origin of a portal.
    #[must_use]
    pub fn portal_path<'t>(&self, target: &'t Target) -> Option<&'t str> {
        let below = |base: &str| -> Option<&'t str> {
            let rest = target.path().strip_prefix(base)?;
            match rest {
                "" => Some("/"),
                _ if rest.starts_with('/') => Some(rest),
                _ => None,
            }
        };
        match &self.portal.mount {
            Mount::Host { host, base, .. } => {
                let here = target.host() == host
                    || self.cookies.iter().any(|scope| {
                        scope.portal.as_ref().and_then(Url::host_str).is_some_and(|host| host == target.host())
                    });
                if !here {
                    return None;
                }
                below(base).or_else(|| (target.path() == "/.well-known/jwks.json").then_some("/.well-known/jwks.json"))
            }
            Mount::Path(base) => below(base),
        }
    }

    /// Base URL of the portal that serves `target`'s host, without a trailing slash. `None`: nobody can sign in there.
    #[must_use]
    pub fn portal_url(&self, target: &Target) -> Option<Url> {
        match &self.portal.mount {
            Mount::Host { .. } => self.scope(target.host())?.portal.clone(),
            Mount::Path(base) => {
                let mut url = Url::parse(&target.origin()).ok()?;
                url.set_path(base);
                Some(url)
            }
        }
    }

    /// The scheme that the portal is reached by; with `portal.path` that of the request itself.
    #[must_use]
    pub fn portal_scheme(&self, target: &Target) -> Scheme {
        match &self.portal.mount {
            Mount::Host { scheme, .. } => *scheme,
            Mount::Path(_) => target.scheme(),
        }
    }

    /// Whether only edge listeners exist: then `rd` must also fit a route (CONTRACT 7).
    #[must_use]
    pub fn is_edge_only(&self) -> bool {
        self.listeners.iter().all(|listener| listener.role == Role::Edge)
    }
}

/// The header names from which credentials are read.
pub const AUTHORIZATION_ONLY: &[HeaderName] = &[http::header::AUTHORIZATION];
pub const PROXY_AUTHORIZATION_FIRST: &[HeaderName] = &[http::header::PROXY_AUTHORIZATION, http::header::AUTHORIZATION];
pub const PROXY_AUTHORIZATION_ONLY: &[HeaderName] = &[http::header::PROXY_AUTHORIZATION];
