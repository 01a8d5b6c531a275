//! Whether that still holds by which a stream was let through: its session lives, and its user is who they were. Asked by the edge about every
//! stream that is open for longer, again and again; never about a request that is to be decided.
//!
//! Rules are not asked again: a stream was decided when it was opened.

use std::{sync::Arc, time::Duration};

use super::Gate;
use crate::{
    core::{
        identity::Identity,
        session::{SessionId, Standing},
        site::Site,
        time::Timestamp,
    },
    ports::{LiveSession, Peek},
};

/// An open stream counts as use; noted each time that so much has passed, or a quarter of `session.idle` where that is less.
const USE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It holds, and ends at this time at the latest.
    Stands {
        until: Timestamp,
    },
    Over(Over),
    /// Memory does not know, or the store cannot answer.
    Unsure,
}

/// What the store said of a session, for all that it let through.
#[derive(Debug)]
pub struct Said(Option<Arc<LiveSession>>);

/// Why a stream is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// Its session was ended, or its user disabled.
    Session,
    /// Its session is older than `session.lifetime`.
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
            Self::Lifetime => "lifetime",
            Self::Person => "person",
            Self::Unsure => "unsure",
        }
    }
}

impl Gate {
    /// From memory alone. An identity without a session holds nothing open.
    #[must_use]
    pub fn hold(&self, site: &Site, identity: &Identity) -> Hold {
        let Some(id) = &identity.session else { return Hold::Over(Over::Session) };
        match self.sessions.glance(id) {
            Peek::Hit(live) => self.hold_of(site, identity, &live),
            Peek::Gone => Hold::Over(Over::Session),
            Peek::Unsure => Hold::Unsure,
        }
    }

    /// What the store says of a session, where memory does not know. `None`: it cannot say.
    pub async fn ask_store(&self, id: &SessionId) -> Option<Said> {
        match self.sessions.find_id(id).await {
            Ok(found) => Some(Said(found)),
            Err(unavailable) => {
                tracing::debug!(store = unavailable.store, error = %unavailable, "cannot tell whether a stream may go on");
                None
            }
        }
    }

    /// By what the store said of its session.
    #[must_use]
    pub fn hold_by(&self, site: &Site, identity: &Identity, Said(found): &Said) -> Hold {
        found.as_ref().map_or(Hold::Over(Over::Session), |live| self.hold_of(site, identity, live))
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
        Hold::Stands { until: site.lifetimes.end_of(live.session.age()) }
    }
}
