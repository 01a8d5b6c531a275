//! One look at all open streams: from memory, and where memory does not know by asking the store.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::{Place, SHARDS, Stream, Streams};
use crate::{
    core::{session::SessionId, site::Site},
    gate::{
        Gate,
        hold::{Hold, Over, Question, Said},
    },
};

/// What one look asks of the store must be answered within this time, or the next look asks again.
pub(super) const ASKING: Duration = Duration::from_millis(750);
/// Questions to the store at once. Requests need its connections too, of which there are ten to PostgreSQL and four to SQLite: they take turns.
const AT_ONCE: usize = 8;
/// After so many that were not answered the rest is not asked: it is an outage, and no matter of single sessions.
const ENOUGH: usize = 8;
/// Sessions in one question: nearly all streams are of some, and where memory is unsure it is so of all of them.
pub(super) const TOGETHER: usize = 200;

/// The streams that one answer decides on.
struct Unknown {
    since: Duration,
    streams: Vec<Stream>,
}

/// What is asked at once.
enum Asking {
    Sessions(Vec<(SessionId, Unknown)>),
    Other(Question, Unknown),
}

impl Asking {
    fn since(&self) -> Duration {
        match self {
            // The first has waited longest.
            Self::Sessions(sessions) => sessions.first().map_or(Duration::MAX, |(_, unknown)| unknown.since),
            Self::Other(_, unknown) => unknown.since,
        }
    }
}

impl Streams {
    /// Looks at all of them once.
    pub(super) async fn look(&self, gate: &Gate, site: &Site) {
        let unknown = self.look_in_memory(gate, site);
        let of_all = unknown.values().flat_map(|unknown| &unknown.streams);
        let places: Vec<Place> = of_all.map(|stream| stream.place).collect();
        let unanswered = AtomicUsize::new(0);
        let asking = stream::iter(askings(unknown)).for_each_concurrent(AT_ONCE, |asking| {
            let unanswered = &unanswered;
            async move {
                if unanswered.load(Ordering::Relaxed) < ENOUGH && self.ask(gate, site, asking).await.is_none() {
                    unanswered.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let _ = timeout(ASKING, asking).await;
        // Of those that were answered for this says nothing new.
        for place in places {
            self.found(place, Hold::Unsure, None, gate);
        }
    }

    /// `None`: the store could not say.
    async fn ask(&self, gate: &Gate, site: &Site, asking: Asking) -> Option<()> {
        match asking {
            Asking::Other(question, unknown) => {
                let said = gate.ask_store(&question).await?;
                self.told(gate, site, unknown, &said);
            }
            Asking::Sessions(sessions) => {
                let ids: Vec<SessionId> = sessions.iter().map(|(id, _)| id.clone()).collect();
                let mut found = gate.ask_for_sessions(&ids).await?;
                for (id, unknown) in sessions {
                    self.told(gate, site, unknown, &Said::Session(found.remove(&id)));
                }
            }
        }
        Some(())
    }

    fn told(&self, gate: &Gate, site: &Site, unknown: Unknown, said: &Said) {
        for Stream { place, identity, ground, known_at: _ } in unknown.streams {
            let (hold, watch) = gate.hold_by(site, &identity, &ground, said);
            self.found(place, hold, watch, gate);
        }
    }

    /// What is left for the store to say, by the question that is to be asked.
    fn look_in_memory(&self, gate: &Gate, site: &Site) -> HashMap<Question, Unknown> {
        let mut unknown: HashMap<Question, Unknown> = HashMap::new();
        for shard in 0..SHARDS {
            for stream in self.looked_at(shard, gate.clock.monotonic()) {
                let hold = gate.hold(site, &stream.identity, &stream.ground);
                if hold != Hold::Unsure {
                    self.found(stream.place, hold, None, gate);
                    continue;
                }
                match Question::about(&stream.identity, &stream.ground) {
                    None => self.found(stream.place, Hold::Over(Over::Session), None, gate),
                    Some(question) => {
                        let since = stream.known_at;
                        let of_it = unknown.entry(question).or_insert(Unknown { since, streams: Vec::new() });
                        of_it.since = of_it.since.min(since);
                        of_it.streams.push(stream);
                    }
                }
            }
        }
        unknown
    }
}

/// Those first that have waited longest: where there is time for some of them alone, the next look asks about the others.
fn askings(unknown: HashMap<Question, Unknown>) -> Vec<Asking> {
    let mut sessions = Vec::new();
    let mut askings = Vec::new();
    for (question, unknown) in unknown {
        match question {
            Question::Session(id) => sessions.push((id, unknown)),
            other => askings.push(Asking::Other(other, unknown)),
        }
    }
    sessions.sort_by_key(|(_, unknown)| Reverse(unknown.since));
    while !sessions.is_empty() {
        let mut together = sessions.split_off(sessions.len().saturating_sub(TOGETHER));
        together.reverse();
        askings.push(Asking::Sessions(together));
    }
    askings.sort_by_key(Asking::since);
    askings
}
