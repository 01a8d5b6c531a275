//! Whether that still holds by which a stream was let through: its session lives, its token or password still counts, and its user is who they were.
//! Asked by the edge about every stream that is open for longer, again and again; never about a request that is to be decided.
//!
//! Rules are not asked again: a stream was decided when it was opened. Another issuer's signature is not verified again: it is looked whether the key that
//! had made it, and what the configuration says of the issuer, still are what they were.

mod ask;

use std::{sync::Arc, time::Duration};

pub use ask::{Question, Said, Sessions};

use super::Gate;
use crate::{
    core::{
        ground::{Ground, OwnToken, Watch},
        identity::Identity,
        issuer::{TrustedIssuer, jwks::KeyPrint},
        session::Standing,
        site::Site,
        time::Timestamp,
    },
    ports::{LiveApiToken, LiveSession, Peek, Recognised, Revocation, SigningKeys},
};

/// An open stream counts as use; noted each time that so much has passed, or a quarter of `session.idle` where that is less.
const USE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It holds, and ends at this time at the latest, if at any.
    Stands {
        until: Option<Timestamp>,
    },
    Over(Over),
    /// Memory does not know, or the store cannot answer.
    Unsure,
}

/// Why a stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Its session was ended, or its user disabled.
    Session,
    /// Its token was revoked, its password changed, or its owner disabled.
    Credential,
    /// Its session is older than `session.lifetime`, or its token has expired.
    Lifetime,
    /// Its user has other groups, attributes or another address than it was opened with.
    Person,
    /// The store could not say for too long.
    Unsure,
}

impl Over {
    /// For the log and `streams_ended_total`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Credential => "credential",
            Self::Lifetime => "lifetime",
            Self::Person => "person",
            Self::Unsure => "unsure",
        }
    }
}

impl Gate {
    /// From memory alone.
    #[must_use]
    pub fn hold(&self, site: &Site, identity: &Identity, ground: &Ground) -> Hold {
        match ground {
            Ground::Session => match self.glance(identity) {
                Peek::Hit(live) => self.hold_of(site, identity, &live),
                Peek::Gone => Hold::Over(Over::Session),
                Peek::Unsure => Hold::Unsure,
            },
            Ground::AccessToken(token) => self.hold_of_token(site, identity, token),
            Ground::ApiToken(hash) => match self.api_tokens.peek(hash) {
                Some(live) => self.hold_of_api_token(identity, &live),
                None => Hold::Unsure,
            },
            Ground::Password { watch, .. } if watch.is_unchanged() => Hold::Stands { until: None },
            Ground::Password { .. } => Hold::Unsure,
            Ground::Foreign { issuer, key, until, name } => match self.hold_of_foreign(site, issuer, key, *until) {
                Hold::Stands { .. } if !name.as_ref().is_some_and(|name| name.is_unchanged()) => Hold::Unsure,
                hold => hold,
            },
        }
    }

    /// By what the store said, and what says from now on whether that still is so.
    #[must_use]
    pub fn hold_by(
        &self,
        site: &Site,
        identity: &Identity,
        ground: &Ground,
        said: &Said,
    ) -> (Hold, Option<Arc<dyn Watch>>) {
        let hold = match (ground, said) {
            (Ground::Session, Said::Session(found)) => {
                found.as_ref().map_or(Hold::Over(Over::Session), |live| self.hold_of(site, identity, live))
            }
            (Ground::AccessToken(token), Said::AccessToken { session, keys, is_revoked }) => match session {
                None => Hold::Over(Over::Session),
                Some(_) if *is_revoked => Hold::Over(Over::Credential),
                Some(live) => self.hold_of_live_token(site, identity, token, live, keys),
            },
            (Ground::ApiToken(_), Said::ApiToken(found)) => {
                found.as_ref().map_or(Hold::Over(Over::Credential), |live| self.hold_of_api_token(identity, live))
            }
            (Ground::Password { stamp, .. }, Said::User(found)) => match found {
                Some(now) if now.stamp == *stamp => return hold_of_password(identity, now),
                _ => Hold::Over(Over::Credential),
            },
            (Ground::Foreign { issuer, key, until, .. }, Said::Name { free: Some(watch) }) => {
                return (self.hold_of_foreign(site, issuer, key, *until), watch.clone());
            }
            (Ground::Foreign { .. }, Said::Name { free: None }) => Hold::Over(Over::Credential),
            // Nobody answers another question than was asked.
            _ => Hold::Unsure,
        };
        (hold, None)
    }

    /// An identity without a session holds nothing open by one.
    fn glance(&self, identity: &Identity) -> Peek {
        identity.session.as_ref().map_or(Peek::Gone, |id| self.sessions.glance(id))
    }

    fn hold_of(&self, site: &Site, identity: &Identity, live: &Arc<LiveSession>) -> Hold {
        let now = self.clock.now();
        let last_used = live.last_used();
        // Never idle: it is being used.
        if site.lifetimes.standing(live.session.age(), last_used, now) == Standing::Expired {
            return Hold::Over(Over::Lifetime);
        }
        if !identity.is_still(&live.identity) {
            return Hold::Over(Over::Person);
        }
        if now.since(last_used) >= USE.min(site.lifetimes.idle / 4) {
            self.sessions.used(live, now);
        }
        Hold::Stands { until: Some(site.lifetimes.end_of(live.session.age())) }
    }

    fn hold_of_token(&self, site: &Site, identity: &Identity, token: &OwnToken) -> Hold {
        if self.clock.now() >= token.until {
            return Hold::Over(Over::Lifetime);
        }
        let revoked = self.tokens.peek_revoked(&token.jti);
        if revoked == Revocation::Revoked {
            return Hold::Over(Over::Credential);
        }
        match (self.glance(identity), self.keys.peek()) {
            (Peek::Gone, _) => Hold::Over(Over::Session),
            (Peek::Hit(live), Some(keys)) if revoked == Revocation::Holds => {
                self.hold_of_live_token(site, identity, token, &live, &keys)
            }
            _ => Hold::Unsure,
        }
    }

    fn hold_of_live_token(
        &self,
        site: &Site,
        identity: &Identity,
        token: &OwnToken,
        live: &Arc<LiveSession>,
        keys: &SigningKeys,
    ) -> Hold {
        let now = self.clock.now();
        if now >= token.until {
            return Hold::Over(Over::Lifetime);
        }
        // A key that was removed in an emergency takes along what it signed.
        if live.identity.token_version != token.version || !keys.verifying(now).any(|key| key.kid == token.kid) {
            return Hold::Over(Over::Credential);
        }
        match self.hold_of(site, identity, live) {
            Hold::Stands { until } => Hold::Stands { until: until.into_iter().chain([token.until]).min() },
            over => over,
        }
    }

    /// But for the name. Whoever changed what is taken of an issuer, its keys or what its claims mean took back what was taken before.
    fn hold_of_foreign(&self, site: &Site, issuer: &TrustedIssuer, key: &KeyPrint, until: Timestamp) -> Hold {
        if self.clock.now() >= until {
            return Hold::Over(Over::Lifetime);
        }
        let Some(issuer) = site.tokens.trusted_issuers.iter().find(|trusted| trusted.reads_as(issuer)) else {
            return Hold::Over(Over::Credential);
        };
        match self.keys_now(issuer) {
            None => Hold::Unsure,
            Some(keys) if keys.holds(key) => Hold::Stands { until: Some(until) },
            Some(_) => Hold::Over(Over::Credential),
        }
    }

    fn hold_of_api_token(&self, identity: &Identity, live: &Arc<LiveApiToken>) -> Hold {
        let now = self.clock.now();
        if live.token.is_expired(now) {
            return Hold::Over(Over::Lifetime);
        }
        if !identity.is_still(&live.identity) {
            return Hold::Over(Over::Person);
        }
        if now.since(live.last_used()) >= USE {
            self.api_tokens.used(live, now);
        }
        Hold::Stands { until: live.token.expires_at }
    }
}

fn hold_of_password(identity: &Identity, now: &Recognised) -> (Hold, Option<Arc<dyn Watch>>) {
    if identity.is_still(&now.identity) {
        (Hold::Stands { until: None }, Some(Arc::clone(&now.watch)))
    } else {
        (Hold::Over(Over::Person), None)
    }
}
