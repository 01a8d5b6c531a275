//! Tells the asking proxy the verdict (CONTRACT 5).

use axum::body::Body;
use http::{HeaderValue, Response, StatusCode, header};
use url::Url;

use super::service::Asked;
use crate::{
    core::{
        answer::{Answer, Dialect, answer},
        cookie,
        header::{TRACEPARENT, identity_headers, render},
        request::Facts,
        site::Mount,
        verdict::{Outcome, Rejection, SignIn, Verdict},
    },
    gate,
    portal::{self, Told},
};

impl Asked<'_> {
    /// 200, with every identity header on every answer, and with `Cookie` and `Authorization` less Postern's own, for the
    /// proxy to copy: what it does not find here, it must not leave as the client sent it.
    pub(super) fn permit(&self, outcome: &Outcome, facts: &Facts<'_>) -> Response<Body> {
        let mut response = Response::new(Body::empty());
        let headers = response.headers_mut();
        headers.reserve(if outcome.standing.is_some() { 18 } else { 10 });
        for (name, value) in identity_headers(outcome.identity.as_deref()) {
            headers.insert(name, value);
        }
        for template in &self.listener.headers {
            let value = render(template, outcome.identity.as_deref(), outcome.roles.as_deref()).unwrap_or_else(empty);
            headers.insert(template.name.clone(), value);
        }
        if !headers.contains_key(header::AUTHORIZATION) {
            let theirs = facts.headers.get(header::AUTHORIZATION);
            // Also where it was not read: the legacy path reads `Proxy-Authorization` alone. What was read is not taken apart again.
            let was_read = facts.credentials_from.contains(&header::AUTHORIZATION);
            let theirs = theirs
                .filter(|value| !outcome.carries_our_token && (was_read || !gate::is_our_token(self.site, value)));
            headers.insert(header::AUTHORIZATION, theirs.cloned().unwrap_or_else(empty));
        }
        let cookies = cookie::without_ours(facts.headers, &self.site.own_cookies);
        headers.insert(header::COOKIE, cookies.unwrap_or_else(empty));
        headers.insert(TRACEPARENT, self.correlation.traceparent.clone());
        if let Some(standing) = &outcome.standing {
            standing.each_header(self.site.rules.limit_headers(), |name, value| drop(headers.insert(name, value)));
        }
        response
    }

    /// Anything but `forward`. `named`: the portal that the proxy named.
    pub(super) fn tell(
        &self,
        outcome: &Outcome,
        dialect: Dialect,
        facts: Option<&Facts<'_>>,
        named: Option<&str>,
    ) -> Response<Body> {
        let (verdict, portal) = match self.portal_for(&outcome.verdict, dialect, facts, named) {
            Ok(portal) => (None, portal),
            Err(rejection) => (Some(Verdict::Reject(rejection)), None),
        };
        let verdict = verdict.as_ref().unwrap_or(&outcome.verdict);
        let answer = match facts {
            Some(facts) => answer(verdict, facts, dialect, portal.as_ref()),
            None => Answer::about_nothing(verdict, dialect),
        };
        let told = Told {
            site: self.site,
            answer: &answer,
            verdict: verdict.as_str(),
            rejection: if let Verdict::Reject(rejection) = verdict { Some(*rejection) } else { None },
            rule: outcome.rule.as_deref(),
            standing: outcome.standing.as_deref(),
            identity: outcome.identity.as_deref(),
            request_id: self.correlation.request_id(),
            is_page_load: facts.is_some_and(Facts::is_page_load),
            wanted: facts.map(|facts| &facts.target),
            portal: portal.as_ref(),
            // Some proxies hold a gate's answer in a small buffer: whoever may know why asks the portal.
            question: None,
        };
        portal::render(&told).map(Body::from)
    }

    /// An answer that no verdict stands behind.
    pub(super) fn plain(&self, status: StatusCode) -> Response<Body> {
        let answer = Answer { status, location: None, postern_status: None, challenge: None, retry_after: None };
        let told = Told {
            site: self.site,
            answer: &answer,
            verdict: "none",
            rejection: None,
            rule: None,
            standing: None,
            identity: None,
            request_id: self.correlation.request_id(),
            is_page_load: false,
            wanted: None,
            portal: None,
            question: None,
        };
        portal::render(&told).map(Body::from)
    }

    /// Where to sign in: at the portal that the proxy names, if it lies inside the cookie's domain, else at the cookie
    /// domain's own. The legacy path redirects only where one is named.
    fn portal_for(
        &self,
        verdict: &Verdict,
        dialect: Dialect,
        facts: Option<&Facts<'_>>,
        named: Option<&str>,
    ) -> Result<Option<Url>, Rejection> {
        let Some(facts) = facts else { return Ok(None) };
        // Nobody is sent there to wait, and in a flood that is what most requests are told.
        if matches!(verdict, Verdict::SlowDown { .. }) {
            return Ok(None);
        }
        let own = self.site.portal_url(&facts.target);
        if !matches!(verdict, Verdict::SignIn(SignIn::Nobody) | Verdict::StepUp) {
            return Ok(own);
        }
        match named {
            Some(named) => self.named_portal(named, facts).map(Some),
            None if dialect == Dialect::Legacy => Ok(None),
            None => Ok(own),
        }
    }

    fn named_portal(&self, named: &str, facts: &Facts<'_>) -> Result<Url, Rejection> {
        let url = Url::parse(named).map_err(|_| Rejection::ForeignPortal)?;
        let host = url.host_str().ok_or(Rejection::ForeignPortal)?;
        let scheme = self.site.portal_scheme(&facts.target);
        let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        let is_inside = match self.site.portal.mount {
            Mount::Path(_) => url.origin().ascii_serialization() == facts.target.origin(),
            Mount::Host { .. } => self.site.scope(facts.target.host()).is_some_and(|scope| scope.covers(host)),
        };
        let is_as_safe = url.scheme() == "https" || url.scheme() == scheme.as_str();
        if is_plain && is_inside && is_as_safe { Ok(url) } else { Err(Rejection::ForeignPortal) }
    }
}

fn empty() -> HeaderValue {
    HeaderValue::from_static("")
}
