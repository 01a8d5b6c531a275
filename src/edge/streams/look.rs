//! One look at all open streams: from memory, and where memory does not know by asking the store.

use std::{
    cmp::Reverse,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream};
use tokio::time::timeout;

use super::{Place, SHARDS, Stream, Streams};
use crate::{
    core::{
        ground::OwnToken,
        session::{SessionId, TokenHash},
        site::Site,
    },
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
/// What is asked about in one question: where memory is unsure, it is so of all that is open.
pub(super) const TOGETHER: usize = 200;

/// The streams that one answer decides on.
struct Unknown {
    since: Duration,
    streams: Vec<Stream>,
}

/// What is asked at once; none of them is empty, and the first has waited longest.
enum Asking {
    Sessions(Vec<(SessionId, Unknown)>),
    AccessTokens(Vec<((SessionId, Arc<OwnToken>), Unknown)>),
    ApiTokens(Vec<(TokenHash, Unknown)>),
    Users(Vec<(Arc<str>, Unknown)>),
    Names(Vec<(Arc<str>, Unknown)>),
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
            Asking::Sessions(sessions) => {
                let found = gate.ask_for_sessions(&keys_of(&sessions)).await?;
                for (id, unknown) in sessions {
                    self.told(gate, site, unknown, found.said(&id).map(Said::Session));
                }
            }
            Asking::AccessTokens(tokens) => self.ask_for_access_tokens(gate, site, tokens).await?,
            Asking::ApiTokens(tokens) => {
                let mut said = gate.ask_for_api_tokens(&keys_of(&tokens)).await?;
                for (hash, unknown) in tokens {
                    self.told(gate, site, unknown, said.remove(&Question::ApiToken(hash)));
                }
            }
            Asking::Users(users) => {
                let mut said = gate.ask_for_users(&keys_of(&users)).await?;
                for (name, unknown) in users {
                    self.told(gate, site, unknown, said.remove(&Question::User(name)));
                }
            }
            Asking::Names(names) => {
                let mut said = gate.ask_for_names(&keys_of(&names)).await?;
                for (name, unknown) in names {
                    self.told(gate, site, unknown, said.remove(&Question::Name(name)));
                }
            }
        }
        Some(())
    }

    /// Their sessions in one question, which of them were revoked in a second, and the keys in a third. Memory knows all revocations as long as the log of
    /// changes is read, and the keys too.
    async fn ask_for_access_tokens(
        &self,
        gate: &Gate,
        site: &Site,
        tokens: Vec<((SessionId, Arc<OwnToken>), Unknown)>,
    ) -> Option<()> {
        let (ids, own): (Vec<SessionId>, Vec<Arc<OwnToken>>) = keys_of(&tokens).into_iter().unzip();
        let (sessions, revoked, keys) =
            tokio::join!(gate.ask_for_sessions(&ids), gate.ask_which_are_revoked(&own), gate.ask_for_keys());
        let (sessions, revoked, keys) = (sessions?, revoked?, keys?);
        for ((id, token), unknown) in tokens {
            let said = sessions.said(&id).map(|session| Said::AccessToken {
                session,
                keys: Arc::clone(&keys),
                is_revoked: revoked.contains(&token.jti),
            });
            self.told(gate, site, unknown, said);
        }
        Some(())
    }

    /// `None`: of these alone the store could not say.
    fn told(&self, gate: &Gate, site: &Site, unknown: Unknown, said: Option<Said>) {
        let Some(said) = said else { return };
        for Stream { place, identity, ground, known_at: _ } in unknown.streams {
            let (hold, watch) = gate.hold_by(site, &identity, &ground, &said);
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
    let (mut sessions, mut access_tokens, mut api_tokens) = (Vec::new(), Vec::new(), Vec::new());
    let (mut users, mut names) = (Vec::new(), Vec::new());
    for (question, unknown) in unknown {
        match question {
            Question::Session(id) => sessions.push((id, unknown)),
            Question::AccessToken(id, token) => access_tokens.push(((id, token), unknown)),
            Question::ApiToken(hash) => api_tokens.push((hash, unknown)),
            Question::User(name) => users.push((name, unknown)),
            Question::Name(name) => names.push((name, unknown)),
        }
    }
    let mut askings = Vec::new();
    in_parts(sessions, Asking::Sessions, &mut askings);
    in_parts(access_tokens, Asking::AccessTokens, &mut askings);
    in_parts(api_tokens, Asking::ApiTokens, &mut askings);
    in_parts(users, Asking::Users, &mut askings);
    in_parts(names, Asking::Names, &mut askings);
    askings.sort_by_key(|(since, _)| *since);
    askings.into_iter().map(|(_, asking)| asking).collect()
}

/// With the time since which the first of each has waited.
fn in_parts<K>(
    mut all: Vec<(K, Unknown)>,
    asking: impl Fn(Vec<(K, Unknown)>) -> Asking,
    askings: &mut Vec<(Duration, Asking)>,
) {
    all.sort_by_key(|(_, unknown)| Reverse(unknown.since));
    while let Some((_, first)) = all.last() {
        let since = first.since;
        let mut together = all.split_off(all.len().saturating_sub(TOGETHER));
        together.reverse();
        askings.push((since, asking(together)));
    }
}

fn keys_of<K: Clone>(unknown: &[(K, Unknown)]) -> Vec<K> {
    unknown.iter().map(|(key, _)| key.clone()).collect()
}
