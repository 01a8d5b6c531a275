//! Streams that are open: an upgraded connection, a long answer, a long upload. What an identity let through ends once its session is over, or the token
//! or password by which it was known counts no more, also where no byte moves (THREATS 36); it keeps the session in use until then.
//!
//! Every request that an identity let through is entered in [`Streams`] when it goes on and leaves it when it is over; [`watch()`] looks each second at
//! those that have been there for a while (`look`). To end one is to drop the future that serves it: HTTP/1.1 loses its connection, HTTP/2 has the stream
//! reset, and the upstream loses its connection too. What nobody's identity let through (`bypass`) is never entered.
//!
//! A store that cannot answer ends nothing at once, but soon: a session may have been ended where this node cannot see it. Memory is believed for 2 s
//! without news, [`PATIENCE`] comes on top, a look is at most [`LOOK`] late and asks for [`look::ASKING`]: less than 5 s in all. What is known to be
//! over ends all the same.

mod look;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::Method;
use pingora::{ErrorType::HTTPStatus, OkOrErr as _, Result, proxy::Session};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::{Edge, context::Context, line::Line};
use crate::{
    core::{
        ground::{Ground, Watch},
        identity::Identity,
        time::Timestamp,
    },
    gate::{
        Gate,
        hold::{Hold, Over},
    },
};

/// How often is looked.
const LOOK: Duration = Duration::from_secs(1);
/// A request that is over sooner is never looked at.
const YOUNG: Duration = Duration::from_secs(1);
/// How long a stream goes on while nobody can say whether it may: two looks ask, also where the first got no answer in time.
const PATIENCE: Duration = Duration::from_millis(1_800);
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
    ground: Ground,
    /// Monotonic, as the next.
    began: Duration,
    /// When it was last known that it may go on.
    known_at: Duration,
    /// When it is over at the latest, once that is known.
    until: Option<Timestamp>,
}

/// Where an entry stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    shard: usize,
    number: u64,
}

/// What a look sees of an entry.
#[derive(Debug)]
struct Stream {
    place: Place,
    identity: Arc<Identity>,
    ground: Ground,
    known_at: Duration,
}

impl Streams {
    fn shard(&self, shard: usize) -> MutexGuard<'_, Shard> {
        // The last is for a number that is none: `enter` makes none.
        let [first, ..] = &self.shards;
        self.shards.get(shard).unwrap_or(first).lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `now`: monotonic.
    fn enter(&self, line: &Arc<Line>, identity: &Arc<Identity>, ground: Ground, now: Duration) -> Place {
        // By the address: as good as chance, and nothing that all of them count up.
        let shard = (Arc::as_ptr(line).addr() >> 6) % SHARDS;
        let (line_of_it, identity) = (Arc::clone(line), Arc::clone(identity));
        let entry = Entry { line: line_of_it, identity, ground, began: now, known_at: now, until: None };
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

    /// Those that have been there for a while.
    fn looked_at(&self, shard: usize, now: Duration) -> Vec<Stream> {
        let entries = &self.shard(shard).entries;
        let old = entries.iter().filter(|(_, entry)| now.saturating_sub(entry.began) >= YOUNG);
        old.map(|(&number, entry)| Stream {
            place: Place { shard, number },
            identity: Arc::clone(&entry.identity),
            ground: entry.ground.clone(),
            known_at: entry.known_at,
        })
        .collect()
    }

    /// `watch`: of [`Gate::hold_by`].
    fn found(&self, place: Place, hold: Hold, watch: Option<Arc<dyn Watch>>, gate: &Gate) {
        let mut shard = self.shard(place.shard);
        let Some(entry) = shard.entries.get_mut(&place.number) else { return };
        let now = gate.clock.monotonic();
        match hold {
            Hold::Stands { until } => {
                entry.known_at = now;
                entry.until = until;
                if watch.is_some() {
                    entry.ground.renew(watch);
                }
            }
            Hold::Over(over) => entry.line.end(over),
            Hold::Unsure if entry.until.is_some_and(|until| gate.clock.now() >= until) => {
                entry.line.end(Over::Lifetime);
            }
            Hold::Unsure if now.saturating_sub(entry.known_at) >= PATIENCE => entry.line.end(Over::Unsure),
            Hold::Unsure => {}
        }
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
    pub(super) fn of(edge: &Arc<Edge>, session: &Session, context: &mut Context) -> Result<Option<Self>> {
        let Some(identity) = &context.identity else { return Ok(None) };
        let line = Line::of_this_request().or_err(HTTPStatus(500), "a request that nobody could end")?;
        let place = edge.streams.enter(&line, identity, std::mem::take(&mut context.ground), context.started);
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
