//! `session:`: the cookie domains, and how long a sign-in holds.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{
    duration,
    portal::{portal_url, scheme},
    web_url,
};
use crate::{
    config::error::{Report, Trail},
    core::{
        cookie::PORTAL_COOKIES,
        session::Lifetimes,
        site::{CookieScope, Mount, SameSite},
        target::{Scheme, canonical_host},
    },
};

pub(in crate::config) const COOKIE: &str = "postern_session";

/// The cookie domains, and how long a sign-in holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawSession {
    /// One sign-in each; required with `portal.url`, left out with `portal.path`.
    pub(in crate::config) cookies: Vec<RawCookie>,
    /// A session unused for so long ends (default `30m`).
    #[schemars(example = &"30m")]
    idle: Option<String>,
    /// A session ends after so long, used or not (default `12h`).
    #[schemars(example = &"12h")]
    lifetime: Option<String>,
    /// In place of both where the person asked to be remembered (default `30d`); `0s`: not offered.
    #[schemars(example = &"30d")]
    remember_me: Option<String>,
    /// Whether people sign in at the portal of the first domain alone, which hands over to the others' (default `false`).
    hand_over: Option<bool>,
}

/// The hosts that share a sign-in.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawCookie {
    /// This name and all below it.
    #[schemars(example = &"example.com")]
    pub(in crate::config) domain: String,
    /// Name of the cookie (default `postern_session`).
    #[schemars(example = &"postern_session")]
    name: Option<String>,
    /// Where people of this domain sign in (default: `portal.url`).
    #[schemars(example = &"https://auth.example.com")]
    portal: Option<String>,
    /// `lax` (default), `strict` or `none`.
    same_site: Option<RawSameSite>,
    /// Where to go after a sign-in that wanted nothing else.
    #[schemars(example = &"https://home.example.com/")]
    default_redirect: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawSameSite {
    Lax,
    Strict,
    None,
}

pub(in crate::config) fn lifetimes(report: &mut Report, raw: &RawSession) -> Lifetimes {
    let at = Trail::root().key("session");
    let idle = duration(report, &at.key("idle"), raw.idle.as_deref(), Duration::from_secs(30 * 60), true);
    let lifetime = duration(report, &at.key("lifetime"), raw.lifetime.as_deref(), Duration::from_secs(12 * 3600), true);
    let month = Duration::from_secs(30 * 86_400);
    let remember_me = duration(report, &at.key("remember_me"), raw.remember_me.as_deref(), month, false);
    if idle > lifetime {
        report.warn(
            &at.key("idle"),
            "`session.idle` is longer than `session.lifetime` and so has no effect; make it shorter",
        );
    }
    Lifetimes { idle, lifetime, remember_me }
}

/// The cookie domains. `route_hosts`: hosts of the routes, to say whether a domain serves anything at all.
pub(in crate::config) fn cookies(
    report: &mut Report,
    raw: &RawSession,
    mount: &Mount,
    route_hosts: &[String],
) -> Vec<CookieScope> {
    let at = Trail::root().key("session").key("cookies");
    let Mount::Host { url, host, .. } = mount else {
        if !raw.cookies.is_empty() {
            report.fault(&at, "with `portal.path` each application's own host is the cookie domain; take `session.cookies` out, or write `portal.url`");
        }
        return vec![CookieScope {
            domain: String::new(),
            name: COOKIE.to_owned(),
            same_site: SameSite::Lax,
            portal: None,
            default_redirect: None,
        }];
    };
    if raw.cookies.is_empty() {
        let domain = suggested_domain(host);
        let message = format!(
            "`portal.url` needs the domain that its sign-in is for; write `session: {{ cookies: [ {{ domain: {domain} }} ] }}`"
        );
        report.fault(&Trail::root().key("portal").key("url"), message);
    }
    let mut scopes: Vec<CookieScope> = Vec::new();
    for (index, cookie) in raw.cookies.iter().enumerate() {
        let reading = Reading { at: at.item(index), raw: cookie, portal: url, route_hosts };
        if let Some(scope) = reading.scope(report, &scopes) {
            scopes.push(scope);
        }
    }
    scopes
}

/// `session.hand_over`. `scopes`: the cookie domains, empty where they cannot be judged.
pub(in crate::config) fn hands_over(
    report: &mut Report,
    raw: &RawSession,
    mount: &Mount,
    scopes: &[CookieScope],
) -> bool {
    if raw.hand_over != Some(true) {
        return false;
    }
    let at = Trail::root().key("session");
    if matches!(mount, Mount::Path(_)) {
        report.fault(
            &at.key("hand_over"),
            "with `portal.path` each application's own host is its cookie domain, and nothing is handed over; write `false`, or `portal.url`",
        );
    } else if raw.cookies.len() < 2 {
        report.fault(
            &at.key("hand_over"),
            "a sign-in can be handed over only to another cookie domain; name two or more under `session.cookies`, or write `false`",
        );
    }
    for (index, scope) in scopes.iter().enumerate().filter(|(_, scope)| scope.same_site == SameSite::Strict) {
        report.fault(
            &at.key("cookies").item(index).key("same_site"),
            format!(
                "with `session.hand_over` browsers come to `{}` from another domain, and send no `strict` cookie then; write `lax`",
                scope.domain
            ),
        );
    }
    true
}

struct Reading<'r> {
    at: Trail,
    raw: &'r RawCookie,
    /// `portal.url`.
    portal: &'r Url,
    route_hosts: &'r [String],
}

impl Reading<'_> {
    fn scope(&self, report: &mut Report, before: &[CookieScope]) -> Option<CookieScope> {
        let domain_at = self.at.key("domain");
        let domain = report.take(&domain_at, cookie_domain(&self.raw.domain))?;
        let scope = CookieScope {
            domain,
            name: self.raw.name.clone().unwrap_or_else(|| COOKIE.to_owned()),
            same_site: match self.raw.same_site {
                None | Some(RawSameSite::Lax) => SameSite::Lax,
                Some(RawSameSite::Strict) => SameSite::Strict,
                Some(RawSameSite::None) => SameSite::None,
            },
            portal: None,
            default_redirect: None,
        };
        if let Some(other) = before.iter().find(|other| other.covers(&scope.domain) || scope.covers(&other.domain)) {
            let message = if other.domain == scope.domain {
                format!("the cookie domain `{}` stands twice; keep one", scope.domain)
            } else {
                format!(
                    "the cookie domains `{}` and `{}` lie inside one another, and browsers would send both; keep one",
                    scope.domain, other.domain
                )
            };
            report.fault(&domain_at, message);
            return None;
        }
        self.name(report, &scope);
        let portal = self.portal(report, &scope);
        if scope.same_site == SameSite::None && scheme(self.portal) == Scheme::Http {
            report.fault(
                &self.at.key("same_site"),
                "browsers take `same_site: none` only over https; write `lax`, or a portal on https",
            );
        }
        let default_redirect = self.default_redirect(report, &scope);
        Some(CookieScope { portal, default_redirect, ..scope })
    }

    fn name(&self, report: &mut Report, scope: &CookieScope) {
        let at = self.at.key("name");
        let name = scope.name.as_str();
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            report.fault(
                &at,
                format!("this cannot be a cookie's name; use letters, digits, `-` and `_`, such as `{COOKIE}`"),
            );
        } else if PORTAL_COOKIES.iter().any(|ours| ours.eq_ignore_ascii_case(name)) {
            report.fault(&at, format!("`{name}` is the portal's own cookie; write another name, such as `{COOKIE}`"));
        } else if name.to_ascii_lowercase().starts_with("__host-") {
            report.fault(
                &at,
                format!("browsers refuse `__Host-` on a cookie with a domain; write a name such as `{COOKIE}`"),
            );
        } else if name.to_ascii_lowercase().starts_with("__secure-") && scheme(self.portal) == Scheme::Http {
            report.fault(&at, format!("browsers refuse `__Secure-` over http; write a name such as `{COOKIE}`"));
        }
    }

    fn portal(&self, report: &mut Report, scope: &CookieScope) -> Option<Url> {
        let at = self.at.key("portal");
        let (portal, at) = match &self.raw.portal {
            Some(text) => (report.take(&at, portal_url(text))?, at),
            None => (self.portal.clone(), self.at.key("domain")),
        };
        let host = portal.host_str().and_then(canonical_host).unwrap_or_default();
        if !scope.covers(&host) {
            let domain = &scope.domain;
            let served = self.route_hosts.iter().any(|host| scope.covers(host));
            let message = if self.raw.portal.is_none() && !served {
                format!(
                    "no route and no portal belongs to the cookie domain `{domain}` (the portal is `{host}`); \
                     correct it, or take it out"
                )
            } else {
                format!(
                    "the portal `{host}` lies outside the cookie domain `{domain}`; write `portal: https://auth.{domain}` here"
                )
            };
            report.fault(&at, message);
        } else if portal.scheme() != self.portal.scheme() || portal.path() != self.portal.path() {
            report.fault(&at, "every portal must have the scheme and the path of `portal.url`; write them alike");
        }
        Some(portal)
    }

    fn default_redirect(&self, report: &mut Report, scope: &CookieScope) -> Option<Url> {
        let text = self.raw.default_redirect.as_ref()?;
        let at = self.at.key("default_redirect");
        let url = report.take(&at, web_url(text, &format!("https://home.{}/", scope.domain)))?;
        if !url.host_str().and_then(canonical_host).is_some_and(|host| scope.covers(&host)) {
            report.fault(&at, format!("`default_redirect` must lie within the cookie domain `{}`", scope.domain));
        } else if scheme(&url) == Scheme::Http && scheme(self.portal) == Scheme::Https {
            report.fault(&at, "`default_redirect` must be https as the portal is; write `https://`");
        }
        Some(url)
    }
}

/// A name that browsers take as the `Domain` of a cookie.
fn cookie_domain(text: &str) -> Result<String, String> {
    let example = "write for example `example.com`";
    let bare = text.strip_prefix('.').unwrap_or(text);
    let bare = bare.strip_prefix("*.").unwrap_or(bare);
    if bare != text {
        return Err(format!("a cookie domain takes in all names below it by itself; write `{bare}`"));
    }
    let domain = canonical_host(text).ok_or_else(|| format!("`{text}` is no domain; {example}"))?;
    if domain.starts_with('[') || domain.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!(
            "`{text}` is an address, and cookies are shared over names only; {example}, or use `portal.path`"
        ));
    }
    if is_public_suffix(&domain) {
        return Err(format!(
            "`{text}` is a public suffix: anybody may own a name below it, and browsers refuse such cookies; {example}"
        ));
    }
    Ok(domain)
}

fn is_public_suffix(domain: &str) -> bool {
    psl::suffix_str(domain).is_none_or(|suffix| suffix == domain)
}

/// The widest domain that is fit for a cookie: `example.com` for `auth.example.com`.
fn suggested_domain(host: &str) -> &str {
    match host.split_once('.') {
        Some((_, parent)) if !is_public_suffix(parent) => parent,
        _ => host,
    }
}
