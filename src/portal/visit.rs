//! What every handler of the portal knows of its request: where it is served, under which cookies, and who asks. Built once
//! a request from [`Arrival`]. Scheme, origin and `Secure` follow `portal.url`, never the connection (CONTRACT 7).

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header, request::Parts};
use subtle::ConstantTimeEq as _;

use super::{
    Arrival, Portal,
    look::Shell,
    problem::{Code, problem},
};
use crate::{
    core::{
        cookie::{self, SetCookie, csrf_cookie, device_cookie, portal_cookie},
        request::is_page_load,
        session::TokenHash,
        site::{CookieScope, Mount, SameSite},
        target::Scheme,
    },
    gate::Named,
    identity::{
        sessions::OwnSessions,
        sign_in::{SignedIn, random_value},
    },
    ports::{DEVICE_LIFE, LiveSession, Unavailable},
};
use secrecy::{ExposeSecret as _, SecretString};

pub(super) struct Visit {
    pub(super) arrival: Arrival,
    pub(super) headers: HeaderMap,
    pub(super) scope: CookieScope,
    pub(super) portal: Arc<Portal>,
    /// Path of the portal on its origin: "" or "/_postern".
    pub(super) base: String,
    /// `https://auth.example.com`.
    pub(super) origin: String,
    pub(super) scheme: Scheme,
    /// `portal.path`: the portal lives on an application's own origin.
    pub(super) is_on_apps_origin: bool,
}

impl FromRequestParts<Arc<Portal>> for Visit {
    type Rejection = Response<String>;

    async fn from_request_parts(parts: &mut Parts, portal: &Arc<Portal>) -> Result<Self, Self::Rejection> {
        let arrival = parts.extensions.get::<Arrival>().cloned().ok_or_else(|| problem(Code::Internal, ""))?;
        let foreign = || problem(Code::NotFound, &arrival.request_id);
        let scope = arrival.site.scope(arrival.target.host()).cloned().ok_or_else(foreign)?;
        let (base, origin, scheme, is_on_apps_origin) = match &arrival.site.portal.mount {
            Mount::Path(base) => (base.clone(), arrival.target.origin(), arrival.target.scheme(), true),
            Mount::Host { base, .. } => {
                let url = scope.portal.as_ref().ok_or_else(foreign)?;
                let scheme = if url.scheme() == "https" { Scheme::Https } else { Scheme::Http };
                (base.clone(), url.origin().ascii_serialization(), scheme, false)
            }
        };
        let portal = Arc::clone(portal);
        Ok(Self { headers: parts.headers.clone(), arrival, scope, portal, base, origin, scheme, is_on_apps_origin })
    }
}

impl Visit {
    pub(super) fn is_secure(&self) -> bool {
        self.scheme == Scheme::Https
    }

    pub(super) fn wants_page(&self) -> bool {
        is_page_load(&self.headers)
    }

    pub(super) fn shell(&self) -> Shell {
        let portal = &self.arrival.site.portal;
        Shell::new(&portal.title, &portal.accent, Some(format!("{}/favicon.svg", self.base)))
    }

    /// Where a form of ours may be sent, redirects included: Chromium checks those too.
    pub(super) fn form_action(&self) -> String {
        let site = &self.arrival.site;
        let mut sources = "'self'".to_owned();
        // Whoever signs in may be handed over to any of the domains.
        let is_led_to = |scope: &&CookieScope| site.hands_over || scope.domain == self.scope.domain;
        for CookieScope { domain, .. } in site.cookies.iter().filter(is_led_to).filter(|scope| !scope.domain.is_empty())
        {
            sources.push_str(&format!(" https://{domain}:* https://*.{domain}:*"));
            if !self.is_secure() {
                sources.push_str(&format!(" http://{domain}:* http://*.{domain}:*"));
            }
        }
        sources
    }

    /// The live sessions that the session cookies name.
    pub(super) async fn named(&self) -> Result<Named, Unavailable> {
        let named = self.portal.gate.session_of(&self.arrival.site, self.arrival.target.host(), &self.headers).await?;
        if let Named::One(live) = &named {
            self.portal.sessions.used(live, self.portal.clock.now());
        }
        Ok(named)
    }

    /// Whether the portal's own cookie came along that is bound to this session. The session cookie alone is known to every
    /// application of the domain and opens nothing here (THREATS 59).
    pub(super) fn is_bound_to(&self, live: &LiveSession) -> bool {
        cookie::values(&self.headers, portal_cookie(self.is_secure()))
            .any(|value| bool::from(TokenHash::of(value).0.ct_eq(&live.session.portal_hash.0)))
    }

    /// The caller by both cookies.
    pub(super) async fn owner(&self) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        Ok(match self.named().await? {
            Named::One(live) if self.is_bound_to(&live) => Some(live),
            _ => None,
        })
    }

    pub(super) fn user_agent(&self) -> &str {
        self.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(super) fn own_sessions(&self) -> OwnSessions<'_> {
        OwnSessions {
            sessions: &*self.portal.sessions,
            audit: &*self.portal.audit,
            metrics: &self.portal.metrics,
            address: self.arrival.client.known(),
            request_id: &self.arrival.request_id,
        }
    }

    pub(super) fn problem(&self, code: Code) -> Response<String> {
        problem(code, &self.arrival.request_id)
    }

    pub(super) fn redirect(&self, to: &str) -> Response<String> {
        let Ok(location) = HeaderValue::from_str(to) else { return self.problem(Code::BadRequest) };
        let mut response = Response::new(String::new());
        *response.status_mut() = StatusCode::SEE_OTHER;
        response.headers_mut().insert(header::LOCATION, location);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// The value of the pre-session cookie, made where the browser has none yet; `true`: it is to be set.
    pub(super) fn pre_session(&self) -> (String, bool) {
        match cookie::values(&self.headers, csrf_cookie(self.is_secure())).find(|value| value.len() == 43) {
            Some(value) => (value.to_owned(), false),
            None => (random_value(&*self.portal.entropy), true),
        }
    }

    pub(super) fn set_cookie(&self, response: &mut Response<String>, name: &str, value: &str, max_age: Option<u64>) {
        self.set(response, name, value, "", SameSite::Lax, max_age);
    }

    pub(super) fn set_sign_in(&self, response: &mut Response<String>, signed_in: &SignedIn) {
        let remembered = signed_in.session.session.cookie.remembered;
        self.set_session(response, remembered, &signed_in.gate_cookie, &signed_in.portal_cookie);
        if let Some(value) = &signed_in.device_cookie {
            let max_age = Some(DEVICE_LIFE.as_secs());
            self.set_cookie(response, device_cookie(self.is_secure()), value.expose_secret(), max_age);
        }
    }

    pub(super) fn set_session(
        &self,
        response: &mut Response<String>,
        remembered: bool,
        gate_cookie: &SecretString,
        portal_cookie_value: &SecretString,
    ) {
        let max_age = remembered.then(|| self.arrival.site.lifetimes.remember_me.as_secs());
        if cookie::values(&self.headers, &self.scope.name).nth(1).is_some() && !self.scope.domain.is_empty() {
            // Two cookies of our name: one of them may be host-only, set by a neighbour. It must not stay beside the new one.
            self.set(response, &self.scope.name, "", "", self.scope.same_site, Some(0));
        }
        let gate_cookie = gate_cookie.expose_secret();
        self.set(response, &self.scope.name, gate_cookie, &self.scope.domain, self.scope.same_site, max_age);
        self.set_cookie(response, portal_cookie(self.is_secure()), portal_cookie_value.expose_secret(), max_age);
    }

    pub(super) fn remove_sign_in(&self, response: &mut Response<String>) {
        self.set(response, &self.scope.name, "", &self.scope.domain, self.scope.same_site, Some(0));
        self.set_cookie(response, portal_cookie(self.is_secure()), "", Some(0));
    }

    fn set(
        &self,
        response: &mut Response<String>,
        name: &str,
        value: &str,
        domain: &str,
        same_site: SameSite,
        max_age: Option<u64>,
    ) {
        let cookie = SetCookie { name, value, domain, secure: self.is_secure(), same_site, max_age };
        match cookie.header() {
            Ok(header) => drop(response.headers_mut().append(header::SET_COOKIE, header)),
            Err(error) => tracing::error!(%error, name, "a cookie of ours cannot be written"),
        }
    }
}
