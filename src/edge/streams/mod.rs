//! Streams that are open: an upgraded connection, a long answer, a long upload. What an identity let through ends once its session is over,
//! also where no byte moves (THREATS 36), and keeps the session in use until then.
//!
//! Every request that an identity let through is entered in [`Streams`] when it goes on and leaves it when it is over; [`watch()`] looks each second at
//! those that have been there for a while. To end one is to drop the future that serves it: HTTP/1.1 loses its connection, HTTP/2 has the stream
//! reset, and the upstream loses its connection too. What nobody's identity let through (`bypass`) is never entered.
//!
//! A store that cannot answer ends nothing at once, but soon: a session may have been ended where this node cannot see it. Memory is believed for 2 s
//! without news, [`PATIENCE`] comes on top, a look is at most [`LOOK`] late and asks for [`ASKING`]: less than 5 s in all. What is known to be over
//! ends all the same.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use http::Method;
use pingora::{ErrorType::HTTPStatus, OkOrErr as _, Result, proxy::Session};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{Edge, context::Context, line::Line};
use crate::{
    core::{identity::Identity, session::SessionId, site::Site, time::Timestamp},
    gate::{
        Gate,
        hold::{Hold, Over},
    },
};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);
/// A request that is over sooner is never looked at.
const YOUNG: Duration = Duration::from_secs(1);
/// How long a stream goes on while nobody can say whether its session lives: two looks ask, also where the first got no answer in time.
const PATIENCE: Duration = Duration::from_millis(1_800);
/// What one look asks of the store must be answered within this time, or the next look asks again.
const ASKING: Duration = Duration::from_millis(750);
/// Questions to the store at once: requests need its connections too, and there are four to SQLite.
const AT_ONCE: usize = 2;
/// After so many that were not answered the rest is not asked: it is an outage, and no matter of single sessions.
const ENOUGH: usize = 8;
/// Requests come and go under as many locks.
const SHARDS: usize = 16;

/// All that an identity let through and that is not over yet, on every edge listener of a process.
#[derive(Debug, Default)]
pub struct Streams {
    shards: [Mutex<Shard>; SHARDS],
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<u64, Entry>,
    entered: u64,
}

#[derive(Debug)]
struct Entry {
    line: Arc<Line>,
    identity: Arc<Identity>,
    /// Monotonic, as the next.
    began: Duration,
    /// When its session was last known to live.
    known_at: Duration,
    /// When it is over at the latest, once that is known.
    until: Option<Timestamp>,
}

/// The streams of a session of which memory does not know whether it lives.
#[derive(Debug)]
struct Unknown {
    since: Duration,
    streams: Vec<(Place, Arc<Identity>)>,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    shard: usize,
    number: u64,
}

impl Streams {
    fn shard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // The last is for a number that is none: `enter` makes none.
        let [first, ..] = &self.shards;
        self.shards.get(shard).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `now`: monotonic.
    fn enter(&self, line: &Arc<Line>, identity: &Arc<Identity>, now: Duration) -> Place {
        // By the address: as good as chance, and nothing that all of them count up.
        let shard = (Arc::as_ptr(line).addr() >> 6) % SHARDS;
        let entry =
            Entry { line: Arc::clone(line), identity: Arc::clone(identity), began: now, known_at: now, until: None };
        let number = {
            let mut shard = self.shard(shard);
            shard.entered += 1;
            let number = shard.entered;
            shard.entries.insert(number, entry);
            number
        };
        line.enter();
        Place { shard, number }
    }

    /// Why it was ended, if it was. From here on the line is the next request's.
    fn leave(&self, place: Place, line: &Line) -> Option<Over> {
        let left = self.shard(place.shard).entries.remove(&place.number);
        // What ends a stream holds the lock under which it was found: none comes any more.
        drop(left);
        line.leave()
    }

    /// Those that have been there for a while, and since when it is not known whether their session lives.
    fn looked_at(&self, shard: usize, now: Duration) -> Vec<(Place, Arc<Identity>, Duration)> {
        let entries = &self.shard(shard).entries;
        let old = entries.iter().filter(|(_, entry)| now.saturating_sub(entry.began) >= YOUNG);
        old.map(|(&number, entry)| (Place { shard, number }, Arc::clone(&entry.identity), entry.known_at)).collect()
    }

    fn found(&self, place: Place, hold: Hold, gate: &Gate) {
        let mut shard = self.shard(place.shard);
        let Some(entry) = shard.entries.get_mut(&place.number) else { return };
        let now = gate.clock.monotonic();
        match hold {
            Hold::Stands { until } => {
                entry.known_at = now;
                entry.until = Some(until);
            }
            Hold::Over(over) => entry.line.end(over),
            Hold::Unsure if entry.until.is_some_and(|until| gate.clock.now() >= until) => {
                entry.line.end(Over::Lifetime);
            }
            Hold::Unsure if now.saturating_sub(entry.known_at) >= PATIENCE => entry.line.end(Over::Unsure),
            Hold::Unsure => {}
        }
    }

    /// Looks at all of them once.
    async fn look(&self, gate: &Gate, site: &Site) {
        let unknown = self.look_in_memory(gate, site);
        let places: Vec<Place> =
            unknown.iter().flat_map(|(_, unknown)| &unknown.streams).map(|(place, _)| *place).collect();
        let unanswered = AtomicUsize::new(0);
        let asking = stream::iter(unknown).for_each_concurrent(AT_ONCE, |(id, unknown)| {
            let unanswered = &unanswered;
            async move {
                if unanswered.load(Ordering::Relaxed) >= ENOUGH {
                    return;
                }
                let Some(said) = gate.ask_store(&id).await else {
                    unanswered.fetch_add(1, Ordering::Relaxed);
                    return;
                };
                for (place, identity) in unknown.streams {
                    self.found(place, gate.hold_by(site, &identity, &said), gate);
                }
            }
        });
        let _ = timeout(ASKING, asking).await;
        // Of those that were answered for this says nothing new.
        for place in places {
            self.found(place, Hold::Unsure, gate);
        }
    }

    /// What is left for the store to say. One question a session, and those first that have waited longest: where there is time for some of them
    /// alone, the next look asks about the others.
    fn look_in_memory(&self, gate: &Gate, site: &Site) -> Vec<(SessionId, Unknown)> {
        let mut unknown: HashMap<SessionId, Unknown> = HashMap::new();
        for shard in 0..SHARDS {
            for (place, identity, since) in self.looked_at(shard, gate.clock.monotonic()) {
                match (gate.hold(site, &identity), &identity.session) {
                    (Hold::Unsure, Some(id)) => {
                        let of_session =
                            unknown.entry(id.clone()).or_insert_with(|| Unknown { since, streams: Vec::new() });
                        of_session.since = of_session.since.min(since);
                        of_session.streams.push((place, identity));
                    }
                    (known, _) => self.found(place, known, gate),
                }
            }
        }
        let mut unknown: Vec<_> = unknown.into_iter().collect();
        unknown.sort_by_key(|(_, unknown)| unknown.since);
        unknown
    }
}

/// Looks until `shutdown` turns true.
pub(super) async fn watch(edge: Arc<Edge>, mut shutdown: watch::Receiver<bool>) {
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // An error means that nobody is left who could say so.
            _ = shutdown.wait_for(|stop| *stop) => return,
            _ = looks.tick() => {}
        }
        // What is in force now: a shorter lifetime holds for what is open.
        let site = edge.site.load_full();
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => return,
            () = edge.streams.look(&edge.gate, &site) => {}
        }
    }
}

/// A request that goes on by leave of an identity, until it is dropped.
pub(super) struct Open {
    edge: Arc<Edge>,
    line: Arc<Line>,
    place: Place,
    method: Method,
}

impl Open {
    /// `None`: nobody's.
    ///
    /// # Errors
    /// It is served by something that could not end it.
    pub(super) fn of(edge: &Arc<Edge>, session: &Session, context: &Context) -> Result<Option<Self>> {
        let Some(identity) = context.identity.as_ref().filter(|identity| identity.session.is_some()) else {
            return Ok(None);
        };
        let line = Line::of_this_request().or_err(HTTPStatus(500), "a request that nobody could end")?;
        let place = edge.streams.enter(&line, identity, context.started);
        Ok(Some(Self { edge: Arc::clone(edge), line, place, method: session.req_header().method.clone() }))
    }
}

/// Where a stream was ended pingora does not come to its last phase, so that its line is written here.
impl Drop for Context {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let over = open.edge.streams.leave(open.place, &open.line);
        if self.is_recorded {
            return;
        }
        if let Some(over) = over {
            let (route, request_id, reason) = (self.route_label(), self.request_id(), over.as_str());
            tracing::info!(route, request_id, reason, "an open stream was ended");
            open.edge.metrics.stream_ended(reason);
        }
        open.edge.record(self, &open.method, self.upstream_status);
    }
}

#[cfg(test)]
mod tests;
