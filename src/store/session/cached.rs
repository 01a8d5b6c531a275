//! Sessions, wherever their records are, with the cache in front and last use written behind. Asked by `gate`, `identity` and the command line.
//!
//! Never leaves a session in memory that it ended in the store, and never finds one whose user is disabled or gone.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use super::{
    cache::{Generation, SessionCache},
    records::{Forget, Found, Key, STEP, STORE, SessionRecords},
};
use crate::{
    core::{
        identity::Identity,
        session::{Lifetimes, Session, SessionFacts, SessionId, TokenHash},
        time::Timestamp,
        user::{User, folded},
    },
    observe::metrics::Metrics,
    ports::{Clock, Each, End, LiveSession, Peek, Sessions, Unavailable, Users},
    store::database::can_be_stored,
};
use async_trait::async_trait;

pub(in crate::store) struct CachedSessions {
    records: Arc<dyn SessionRecords>,
    cache: Arc<SessionCache>,
    users: Arc<dyn Users>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    uses: Mutex<Uses>,
    /// When `pending` was last taken away, so that only the first use after it has to take the lock.
    drained_at: AtomicI64,
}

/// Uses that a row of the store may not show yet.
#[derive(Default)]
struct Uses {
    /// Since the last writing.
    pending: HashMap<SessionId, Arc<LiveSession>>,
    /// On their way into the store.
    writing: HashMap<SessionId, Arc<LiveSession>>,
    /// How often they arrived there. A row that was read while this went up may be older than the uses that left `writing`.
    arrivals: u64,
}

impl Uses {
    fn last_of(&self, id: &SessionId) -> Option<Timestamp> {
        self.pending.get(id).into_iter().chain(self.writing.get(id)).map(|live| live.last_used()).max()
    }
}

/// Taken before the store is read; see [`Uses::arrivals`] and [`Generation`].
#[derive(Clone, Copy)]
struct ReadAt {
    arrivals: u64,
    generation: Generation,
}

enum Reading {
    Live(Arc<LiveSession>),
    /// They are disabled or gone.
    NoUser,
    /// Uses that the row may lack have left memory since it was read.
    Outdated,
}

impl CachedSessions {
    pub(in crate::store) fn new(
        records: Arc<dyn SessionRecords>,
        cache: Arc<SessionCache>,
        users: Arc<dyn Users>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let drained_at = AtomicI64::new(i64::MAX);
        Self { records, cache, users, metrics, clock, uses: Mutex::default(), drained_at }
    }

    fn peeked(&self, found: Result<Option<Arc<LiveSession>>, ()>) -> Peek {
        let (result, peek) = match found {
            Ok(Some(live)) => ("hit", Peek::Hit(live)),
            Ok(None) => ("miss", Peek::Unsure),
            Err(()) => ("unsure", Peek::Unsure),
        };
        self.metrics.session_cache(result);
        peek
    }

    fn uses(&self) -> MutexGuard<'_, Uses> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be taken before the store is read.
    fn read_at(&self) -> ReadAt {
        ReadAt { arrivals: self.uses().arrivals, generation: self.cache.generation() }
    }

    async fn found(&self, operation: &'static str, key: Key<'_>) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        loop {
            let read_at = self.read_at();
            let Some(session) = self.records.find(operation, key).await? else { return Ok(None) };
            let user = self.users.find(&session.user).await?;
            match self.live_of(session, user, read_at)? {
                Reading::Live(live) => return Ok(Some(live)),
                Reading::NoUser => return Ok(None),
                // Uses are written every few seconds: hardly ever, and not twice.
                Reading::Outdated => {}
            }
        }
    }

    /// A record of the store, with its user as they are now.
    fn live_of(&self, session: Session, user: Option<User>, read_at: ReadAt) -> Result<Reading, Unavailable> {
        let Some(user) = user.filter(|user| !user.disabled) else {
            return Ok(Reading::NoUser);
        };
        let identity = Identity::new(&user, session.factor, session.signed_in_at, Some(session.id.clone()))
            .map_err(|error| Unavailable { store: "users", detail: error.to_string() })?;
        let facts = SessionFacts::from(&session);
        let (identity, cookie) = self.cache.shared(&folded(&user.name), identity, &facts.cookie);
        let live = Arc::new(LiveSession::of(session.id, SessionFacts { cookie, ..facts }, identity));
        {
            let mut uses = self.uses();
            if uses.arrivals != read_at.arrivals {
                return Ok(Reading::Outdated);
            }
            if let Some(used) = uses.last_of(live.id()) {
                live.touch(used);
            }
            if let Some(used) = uses.pending.get_mut(live.id()) {
                // From here on uses are noted on the new one.
                *used = live.clone();
            }
        }
        self.cache.remember(&live, &folded(&user.name), read_at.generation);
        Ok(Reading::Live(live))
    }

    /// The same of many, into `each`. Those that are outdated are to be read again. One that is damaged leaves the others alone.
    async fn read_each(
        &self,
        found: Found,
        read_at: ReadAt,
        each: &mut Each<SessionId, Arc<LiveSession>>,
    ) -> Result<Vec<SessionId>, Unavailable> {
        let Found { sessions, damaged } = found;
        for (id, detail) in damaged {
            unsure_of(id, &detail, each);
        }
        let mut names: Vec<&str> = sessions.iter().map(|session| session.user.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let users = self.users.find_each(&names).await?;
        let mut outdated = Vec::new();
        for session in sessions {
            let id = session.id.clone();
            let Some(user) = users.said(&folded(&session.user)) else {
                unsure_of(id, "its user cannot be read", each);
                continue;
            };
            match self.live_of(session, user, read_at) {
                Ok(Reading::Live(live)) => drop(each.found.insert(id, live)),
                Ok(Reading::NoUser) => {}
                Ok(Reading::Outdated) => outdated.push(id),
                Err(unavailable) => unsure_of(id, &unavailable.detail, each),
            }
        }
        Ok(outdated)
    }

    /// Writes the last uses noted since the last time. What could not be written is noted again. One at a time: whoever ends first
    /// takes what the other is writing for written.
    pub(in crate::store) async fn write_uses(&self) -> Result<(), Unavailable> {
        // In this order: a use that reads the old time is in the map that is taken now.
        self.drained_at.store(self.clock.now().unix_millis(), Ordering::SeqCst);
        let taken: Vec<_> = {
            let mut uses = self.uses();
            let Uses { pending, writing, .. } = &mut *uses;
            // What an earlier writing was cut short in is still there.
            writing.extend(pending.drain());
            writing.values().cloned().collect()
        };
        if taken.is_empty() {
            return Ok(());
        }
        let mut written = Ok(());
        for step in taken.chunks(STEP) {
            written = self.records.write_uses(step).await;
            if written.is_err() {
                break;
            }
        }
        let mut uses = self.uses();
        let Uses { pending, writing, arrivals } = &mut *uses;
        for (id, live) in writing.drain() {
            // Also of those that were written: once more does no harm.
            if written.is_err() {
                pending.entry(id).or_insert(live);
            }
        }
        *arrivals += 1;
        written
    }

    /// Deletes what no lifetime can bring back.
    pub(in crate::store) async fn clean(&self, lifetimes: Lifetimes) -> Result<(), Unavailable> {
        self.records.clean(lifetimes).await
    }

    /// For the gauge `sessions_active`.
    pub(in crate::store) async fn count(&self) -> Result<u64, Unavailable> {
        self.records.count().await
    }
}

fn unsure_of(id: SessionId, detail: &str, each: &mut Each<SessionId, Arc<LiveSession>>) {
    tracing::debug!(session = %id, detail, "a session cannot be read");
    each.unsure.insert(id);
}

#[async_trait]
impl Sessions for CachedSessions {
    fn peek(&self, gate_hash: &TokenHash) -> Peek {
        self.peeked(self.cache.by_hash(gate_hash))
    }

    fn peek_id(&self, id: &SessionId) -> Peek {
        self.peeked(self.cache.by_id(id))
    }

    fn glance(&self, id: &SessionId) -> Peek {
        self.cache.by_id(id).ok().flatten().map_or(Peek::Unsure, Peek::Hit)
    }

    async fn find(&self, gate_hash: &TokenHash) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        self.found("find", Key::GateHash(gate_hash)).await
    }

    async fn find_id(&self, id: &SessionId) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        if !can_be_stored(id.as_str()) {
            return Ok(None);
        }
        self.found("find_id", Key::Id(id)).await
    }

    async fn absent(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Unavailable> {
        self.records.absent(ids).await
    }

    async fn find_ids(&self, ids: &[SessionId]) -> Result<Each<SessionId, Arc<LiveSession>>, Unavailable> {
        let mut each = Each::default();
        let mut wanted = ids.to_vec();
        while !wanted.is_empty() {
            let read_at = self.read_at();
            let found = self.records.find_each(&wanted).await?;
            // Uses are written every few seconds: hardly ever are any asked for again, and not twice.
            wanted = self.read_each(found, read_at, &mut each).await?;
        }
        Ok(each)
    }

    async fn create(&self, session: Session, ended: &[SessionId]) -> Result<Arc<LiveSession>, Unavailable> {
        let mut forget = Forget::default();
        let made = self.records.insert(&session, ended, &mut forget).await;
        forget.apply(&self.cache);
        if !made? {
            let detail = "the session that was to be handed over ended meanwhile".to_owned();
            return Err(Unavailable { store: STORE, detail });
        }
        // The user is read after the commit: whoever disables them from here on ends the new session too, and whoever did so
        // before is seen now.
        if let Some(live) = self.find_id(&session.id).await? {
            return Ok(live);
        }
        self.end(End::One(&session.id)).await?;
        Err(Unavailable { store: STORE, detail: "the user was disabled or removed during the sign-in".to_owned() })
    }

    fn used(&self, session: &Arc<LiveSession>, at: Timestamp) {
        let before = session.touch(at);
        // Whoever used it first after it was loaded and after the last draining has noted it: the others need no lock.
        let noted = before.unix_millis() > self.drained_at.load(Ordering::SeqCst);
        if noted && before > session.session.last_used_at {
            return;
        }
        self.uses().pending.entry(session.id().clone()).or_insert_with(|| session.clone());
    }

    async fn list(&self, user: Option<&str>) -> Result<Vec<Session>, Unavailable> {
        let folded_user = user.map(folded);
        let mut sessions = self.records.list(folded_user.as_deref()).await?;
        let uses = self.uses();
        for session in &mut sessions {
            if let Some(used) = uses.last_of(&session.id) {
                session.last_used_at = session.last_used_at.max(used);
            }
        }
        Ok(sessions)
    }

    async fn end(&self, which: End<'_>) -> Result<u64, Unavailable> {
        let mut forget = Forget::default();
        let ended = self.records.end(which, &mut forget).await;
        forget.apply(&self.cache);
        ended
    }
}
