//! The path of a request, the same for both roles: source limit, route, limits by address, identify, decide, the other limits, verdict.
//!
//! `edge` and `forward_auth` build [`Facts`] and call [`Gate::check`]; the portal uses [`Gate::session_of`] alone. Nothing here
//! knows a framework or a driver, and on a cached session nothing here waits (DESIGN, invariant 3).

mod basic;
pub mod connections;
mod credential;
mod foreign;
pub mod hold;
mod identify;
pub mod in_flight;
mod limit;
mod machines;
mod origin;
mod revoked;
pub mod tokens;

use std::{sync::Arc, time::Duration};

pub use credential::is_our_token;
pub use foreign::Foreign;
pub use identify::Named;

use crate::{
    core::{
        client_ip::ClientAddress,
        decision::{Decision, decide},
        ground::Ground,
        header::Correlation,
        identity::Identity,
        policy::{Question, Source, Stage},
        quota::Standing,
        request::{Facts, Role},
        route::{HeaderTemplate, Route},
        site::Site,
        target::{ENCODED_SLASH, EncodedSlashes},
        time::Timestamp,
        verdict::{Credential, Outcome, Rejection, SignIn, Verdict},
    },
    observe::metrics::Metrics,
    ports::{ApiTokens, Clock, Counters, Entropy, Keys, Passwords, Sessions, SourceLimit, Tokens},
};
use credential::{Caller, Found, Presented};
use machines::Hindrance;

/// Everything that `check` asks.
pub struct Gate {
    pub sessions: Arc<dyn Sessions>,
    pub api_tokens: Arc<dyn ApiTokens>,
    pub passwords: Arc<dyn Passwords>,
    pub keys: Arc<dyn Keys>,
    pub foreign: Foreign,
    pub tokens: Arc<dyn Tokens>,
    pub source_limit: Arc<dyn SourceLimit>,
    pub counters: Arc<dyn Counters>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub metrics: Arc<Metrics>,
}

impl Gate {
    /// Decides one request. `site` is the configuration that this request sees from its first byte to its last.
    pub async fn check(&self, site: &Site, facts: &Facts<'_>) -> Outcome {
        let outcome = self.outcome(site, facts, self.clock.now()).await;
        let took = self.clock.monotonic().saturating_sub(facts.began);
        self.metrics.decision(&outcome.verdict, outcome.rule.as_deref(), took);
        if let Some(reported) = &outcome.reported {
            self.metrics.rule_report(&reported.rule, reported.ruling);
        }
        outcome
    }

    async fn outcome(&self, site: &Site, facts: &Facts<'_>, now: Timestamp) -> Outcome {
        if facts.method == "CONNECT" {
            return Outcome::undecided(Verdict::Reject(Rejection::Connect));
        }
        if let Err(retry_after) = self.admit(facts.client) {
            return Outcome::undecided(Verdict::SlowDown { retry_after });
        }
        let route = match facts.role {
            Role::ForwardAuth => None,
            Role::Edge => match site.routes.find(facts.target.host(), facts.target.path()) {
                Some(route) => Some(Arc::clone(route)),
                None => return Outcome::undecided(Verdict::Reject(Rejection::NoRoute)),
            },
        };
        // The target was read before its route was known.
        if facts.target.has_encoded_slash()
            && route.as_ref().is_some_and(|route| route.encoded_slashes == EncodedSlashes::Reject)
        {
            return Outcome { route, ..Outcome::undecided(Verdict::Reject(ENCODED_SLASH)) };
        }
        let mut standing = None;
        if let Err(verdict) = self.count_arrival(site, facts, route.as_deref(), now, &mut standing).await {
            return Outcome { route, standing, ..Outcome::undecided(verdict) };
        }
        let mut outcome = self.identified(site, facts, route.as_deref(), now).await;
        outcome.standing = standing;
        self.count_forward(site, facts, route.as_deref(), now, &mut outcome).await;
        outcome.roles = roles_asked_for(site, facts, route.as_deref(), &outcome, now);
        outcome.route = route;
        // Nobody can sign in for a host that no cookie reaches: a redirect there would loop for ever.
        if matches!(outcome.verdict, Verdict::SignIn(SignIn::Nobody) | Verdict::StepUp)
            && site.portal_url(&facts.target).is_none()
        {
            outcome.verdict = Verdict::Reject(Rejection::ForeignHost);
        }
        outcome
    }

    /// The cheap limit per source that stands before every look-up. An unknown address is not counted: it is a trusted
    /// proxy that did not say whom it speaks for, and must not be shut out as a whole.
    ///
    /// # Errors
    /// How long to wait.
    pub fn admit(&self, client: ClientAddress) -> Result<(), Duration> {
        client.known().map_or(Ok(()), |source| self.source_limit.take(source))
    }

    /// What is counted by address alone, before anybody is asked for.
    async fn count_arrival(
        &self,
        site: &Site,
        facts: &Facts<'_>,
        route: Option<&Route>,
        now: Timestamp,
        standing: &mut Option<Box<Standing>>,
    ) -> Result<(), Verdict> {
        let source = Source { peer: facts.peer, ground: &Ground::Session };
        self.count(site, Stage::Arrival, &question(facts, route, None, now), source, standing).await
    }

    /// What the rules let pass goes on only where the other limits do too.
    async fn count_forward(
        &self,
        site: &Site,
        facts: &Facts<'_>,
        route: Option<&Route>,
        now: Timestamp,
        outcome: &mut Outcome,
    ) {
        if !matches!(outcome.verdict, Verdict::Forward(_)) {
            return;
        }
        let question = question(facts, route, outcome.identity.as_deref(), now);
        let source = Source { peer: facts.peer, ground: &outcome.ground };
        if let Err(verdict) = self.count(site, Stage::Forward, &question, source, &mut outcome.standing).await {
            outcome.verdict = verdict;
        }
    }

    /// Who is asking, in the order of CONTRACT 4, and what the rules say of them.
    async fn identified(&self, site: &Site, facts: &Facts<'_>, route: Option<&Route>, now: Timestamp) -> Outcome {
        // Where the header is the application's, it identifies nobody; a token of ours is kept from the application all the same.
        let found = credential::presented(site, facts, &*self.foreign.tokens);
        let carries_our_token = found.as_ref().is_some_and(|found| credential::carries_our_token(site, found, facts));
        let found = found.filter(|found| {
            !authorization_is_apps(site, facts, route) && found.presented.may_be_used(site, facts, route)
        });
        let mut outcome = match self.session_for(site, facts, route, now).await {
            Ok(Some(session)) => self.decided(site, facts, route, Some(Caller::Session(session, Ground::Session)), now),
            Ok(None) => {
                let anonymous = self.decided(site, facts, route, None, now);
                match found {
                    // Where anonymous may pass, the header is not looked at (CONTRACT 4).
                    Some(found) if !matches!(anonymous.verdict, Verdict::Forward(_)) => {
                        self.by_credential(site, facts, route, found, anonymous, now).await
                    }
                    Some(_) => Outcome { credential: Credential::Unread, ..anonymous },
                    None => anonymous,
                }
            }
            Err(unavailable) => {
                // A bypass rule needs no identity: it holds with every store down. Anything else fails closed.
                let anonymous = self.decided(site, facts, route, None, now);
                if matches!(anonymous.verdict, Verdict::Forward(_)) {
                    Outcome { credential: Credential::Unread, ..anonymous }
                } else {
                    tracing::warn!(store = unavailable.store, error = %unavailable, "cannot identify the caller");
                    Outcome { verdict: Verdict::Unavailable { store: unavailable.store }, ..anonymous }
                }
            }
        };
        outcome.carries_our_token |= carries_our_token
            || (matches!(outcome.verdict, Verdict::Forward(_))
                && !authorization_is_apps(site, facts, route)
                && self.carries_our_password(facts));
        outcome
    }

    /// `anonymous`: the outcome without the credential, whose rule is the one that asked for it.
    async fn by_credential(
        &self,
        site: &Site,
        facts: &Facts<'_>,
        route: Option<&Route>,
        found: Found<'_>,
        anonymous: Outcome,
        now: Timestamp,
    ) -> Outcome {
        match self.caller_of(site, facts, &found.presented).await {
            Ok(Some(caller)) => {
                // Its owner's password was for us; the application must not learn it.
                let carries_our_token = found.is_in_authorization() && matches!(found.presented, Presented::Basic(_));
                Outcome { carries_our_token, ..self.decided(site, facts, route, Some(caller), now) }
            }
            Ok(None) => {
                let sign_in = match found.presented {
                    Presented::AccessToken(_) | Presented::ApiToken(_) | Presented::ForeignToken(_) => {
                        SignIn::FailedBearer
                    }
                    // Browsers send an application's own password again and again: whoever loads a page can sign in instead.
                    Presented::Basic(_) if facts.is_page_load() => SignIn::Nobody,
                    Presented::Basic(_) => SignIn::FailedBasic,
                };
                Outcome { verdict: Verdict::SignIn(sign_in), credential: Credential::Failed, ..anonymous }
            }
            Err(Hindrance::OutOfScope) => {
                Outcome { verdict: Verdict::OutOfScope, credential: Credential::OutOfScope, ..anonymous }
            }
            // Whoever loads a page can sign in instead, as where it failed: nobody asked the browser to send it.
            Err(Hindrance::SlowDown(_) | Hindrance::Busy) if facts.is_page_load() => {
                Outcome { verdict: Verdict::SignIn(SignIn::Nobody), credential: Credential::Failed, ..anonymous }
            }
            // As where the source is limited: no rule had a say in it.
            Err(Hindrance::SlowDown(retry_after)) => Outcome::undecided(Verdict::SlowDown { retry_after }),
            // As the sign-in page says it: 503.
            Err(Hindrance::Busy) => Outcome { verdict: Verdict::Unavailable { store: "hasher" }, ..anonymous },
            Err(Hindrance::Unavailable(unavailable)) => {
                tracing::warn!(store = unavailable.store, error = %unavailable, "cannot check a credential");
                Outcome { verdict: Verdict::Unavailable { store: unavailable.store }, ..anonymous }
            }
        }
    }

    fn decided(
        &self,
        site: &Site,
        facts: &Facts<'_>,
        route: Option<&Route>,
        caller: Option<Caller>,
        now: Timestamp,
    ) -> Outcome {
        if let Some(Caller::Session(session, _)) = &caller {
            self.sessions.used(session, now);
        }
        let identity = caller.as_ref().map(|caller| Arc::clone(caller.identity()));
        let ground = caller.map(Caller::into_ground).unwrap_or_default();
        let question = question(facts, route, identity.as_deref(), now);
        let Decision { verdict, rule, reported, has_failed } = decide(&site.rules, &question);
        if has_failed {
            self.metrics.rule_error(&rule);
        }
        let headers = site.rules.recorded_headers(facts.target.host(), facts.headers);
        let undecided = Outcome::undecided(verdict);
        Outcome { identity, ground, rule: Some(rule), reported, headers, decided_at: Some(now), ..undecided }
    }

    /// The request id and trace context under which this request is known.
    #[must_use]
    pub fn correlation(&self, headers: &http::HeaderMap, peer_trusted: bool) -> Correlation {
        let mut random = [0; 40];
        self.entropy.fill(&mut random);
        Correlation::of(headers, peer_trusted, random)
    }
}

fn question<'q>(
    facts: &'q Facts<'_>,
    route: Option<&'q Route>,
    caller: Option<&'q Identity>,
    now: Timestamp,
) -> Question<'q> {
    Question {
        target: &facts.target,
        method: facts.method,
        client: facts.client,
        caller,
        now,
        headers: Some(facts.headers),
        route: route.map(|route| route.name.as_str()),
    }
}

/// What [`Outcome::roles`] holds.
fn roles_asked_for(
    site: &Site,
    facts: &Facts<'_>,
    route: Option<&Route>,
    outcome: &Outcome,
    now: Timestamp,
) -> Option<Box<str>> {
    let identity = outcome.identity.as_deref()?;
    let of_route = route.into_iter().flat_map(|route| &route.headers);
    let mut headers = site.listener(facts.listener).into_iter().flat_map(|listener| &listener.headers).chain(of_route);
    headers.any(HeaderTemplate::reads_roles).then(|| site.rules.roles_header(identity, now).into_boxed_str())
}

fn authorization_is_apps(site: &Site, facts: &Facts<'_>, route: Option<&Route>) -> bool {
    route.is_some_and(|route| route.authorization_is_apps)
        || site.listener(facts.listener).is_some_and(|listener| listener.authorization_is_apps)
}

#[cfg(test)]
mod tests;
