//! Sessions in the database, with the cache in front and last use written behind. Asked by `gate`, `identity` and the command line.
//!
//! Never leaves a session in memory that it ended in the store, and never finds one whose user is disabled or gone.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use super::{
    cache::{Generation, SessionCache},
    rows::{self, Row},
};
use crate::{
    core::{
        identity::Identity,
        session::{Lifetimes, Session, SessionId, TokenHash},
        time::Timestamp,
        user::{User, folded},
    },
    observe::metrics::Metrics,
    ports::{Each, End, LiveSession, Peek, Sessions, Unavailable, Users},
    store::database::{Database, Guard, can_be_stored},
};
use async_trait::async_trait;

const STORE: &str = "sessions";
/// Rows a transaction of the background work touches: other writers get their turn in between.
const STEP: usize = 500;
/// Another node may hold a later use that it has not written yet: idle rows stay for so long beyond their time.
const IDLE_MARGIN: Duration = Duration::from_secs(600);

pub(in crate::store) struct DatabaseSessions {
    database: Arc<Database>,
    cache: Arc<SessionCache>,
    users: Arc<dyn Users>,
    metrics: Arc<Metrics>,
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

#[derive(Clone, Copy)]
enum Key<'k> {
    GateHash(&'k TokenHash),
    Id(&'k SessionId),
}

impl DatabaseSessions {
    pub(in crate::store) fn new(
        database: Arc<Database>,
        cache: Arc<SessionCache>,
        users: Arc<dyn Users>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { database, cache, users, metrics, uses: Mutex::default(), drained_at: AtomicI64::new(i64::MAX) }
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
            let row = self
                .database
                .run(STORE, operation, async {
                    let query = match key {
                        Key::GateHash(hash) => {
                            sqlx::query_as(rows::select!("WHERE gate_hash = $1")).bind(hash.0.as_slice())
                        }
                        Key::Id(id) => sqlx::query_as(rows::select!("WHERE id = $1")).bind(id.as_str()),
                    };
                    query.fetch_optional(&self.database.pool()).await
                })
                .await?;
            let Some(row) = row else { return Ok(None) };
            match self.live(row, read_at).await? {
                Reading::Live(live) => return Ok(Some(live)),
                Reading::NoUser => return Ok(None),
                // Uses are written every few seconds: hardly ever, and not twice.
                Reading::Outdated => {}
            }
        }
    }

    /// A row of the store, with its user as they are now.
    async fn live(&self, row: Row, read_at: ReadAt) -> Result<Reading, Unavailable> {
        let session = Session::try_from(row).map_err(|detail| Unavailable { store: STORE, detail })?;
        let user = self.users.find(&session.user).await?;
        self.live_of(session, user, read_at)
    }

    fn live_of(&self, session: Session, user: Option<User>, read_at: ReadAt) -> Result<Reading, Unavailable> {
        let Some(user) = user.filter(|user| !user.disabled) else {
            return Ok(Reading::NoUser);
        };
        let identity = Identity::new(&user, session.factor, session.signed_in_at, Some(session.id.clone()))
            .map_err(|error| Unavailable { store: "users", detail: error.to_string() })?;
        let identity = self.cache.shared(&folded(&user.name), identity);
        let live = Arc::new(LiveSession::new(&session, Arc::new(identity), user.token_version));
        {
            let mut uses = self.uses();
            if uses.arrivals != read_at.arrivals {
                return Ok(Reading::Outdated);
            }
            if let Some(used) = uses.last_of(&live.session.id) {
                live.touch(used);
            }
            if let Some(used) = uses.pending.get_mut(&live.session.id) {
                // From here on uses are noted on the new one.
                *used = live.clone();
            }
        }
        self.cache.remember(&live, &folded(&user.name), read_at.generation);
        Ok(Reading::Live(live))
    }

    /// The same of many rows, into `each`. Those that are outdated are to be read again. One that is damaged leaves the others alone.
    async fn read_each(
        &self,
        rows: Vec<Row>,
        read_at: ReadAt,
        each: &mut Each<SessionId, Arc<LiveSession>>,
    ) -> Result<Vec<SessionId>, Unavailable> {
        let mut sessions: Vec<Session> = Vec::with_capacity(rows.len());
        for row in rows {
            let id = row.id();
            match Session::try_from(row) {
                Ok(session) => sessions.push(session),
                Err(detail) => unsure_of(id, &detail, each),
            }
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
        self.drained_at.store(self.database.clock.now().unix_millis(), Ordering::SeqCst);
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
            written = self.database.run(STORE, "write_uses", self.write_step(step)).await;
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

    async fn write_step(&self, uses: &[Arc<LiveSession>]) -> Result<(), sqlx::Error> {
        let mut write = self.database.begin(Guard::Rows).await?;
        rows::write_uses(&mut write, uses).await?;
        write.commit().await
    }

    /// Deletes rows that no lifetime can bring back. No rows of the log: such a session is dead by its times wherever it is.
    pub(in crate::store) async fn clean(&self, lifetimes: Lifetimes) -> Result<(), Unavailable> {
        let now = self.database.clock.now().unix_millis();
        let before = |age: Duration| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        loop {
            let deleted = self
                .database
                .run(STORE, "clean", async {
                    let done = sqlx::query(rows::clean(self.database.dialect()))
                        .bind(before(lifetimes.lifetime))
                        .bind(before(lifetimes.remember_me))
                        .bind(before(lifetimes.idle + IDLE_MARGIN))
                        .bind(i64::try_from(STEP).unwrap_or(i64::MAX))
                        .execute(&self.database.pool())
                        .await?;
                    Ok(done.rows_affected())
                })
                .await?;
            if deleted < STEP as u64 {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// With what it was handed over from, and all that was handed over from that. Adds them to `ids`, which holds the one.
    async fn end_one(&self, ids: &mut Vec<SessionId>) -> Result<u64, sqlx::Error> {
        let id = ids.first().filter(|id| can_be_stored(id.as_str())).map(ToString::to_string);
        // No session is ever given another parent.
        let parent: Option<Option<String>> = sqlx::query_scalar("SELECT parent FROM sessions WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.database.pool())
            .await?;
        ids.extend(parent.flatten().map(SessionId::new));
        let mut write = self.database.begin(Guard::Rows).await?;
        let held = rows::hold_with_children(&mut write, ids, None).await?;
        let ended = rows::delete_with_children(&mut write, ids, held).await?;
        write.commit().await?;
        Ok(ended)
    }

    /// For the gauge `sessions_active`.
    pub(in crate::store) async fn count(&self) -> Result<u64, Unavailable> {
        let count: i64 = self
            .database
            .run(STORE, "count", async {
                sqlx::query_scalar("SELECT count(*) FROM sessions").fetch_one(&self.database.pool()).await
            })
            .await?;
        Ok(u64::try_from(count).unwrap_or(0))
    }
}

fn unsure_of(id: SessionId, detail: &str, each: &mut Each<SessionId, Arc<LiveSession>>) {
    tracing::debug!(session = %id, detail, "a session cannot be read");
    each.unsure.insert(id);
}

#[async_trait]
impl Sessions for DatabaseSessions {
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
        let there: HashSet<String> = self
            .database
            .run(STORE, "absent", async {
                let there: Vec<String> = rows::those_there(&self.database.pool(), self.database.dialect(), ids).await?;
                Ok(there.into_iter().collect())
            })
            .await?;
        Ok(ids.iter().filter(|id| !there.contains(id.as_str())).cloned().collect())
    }

    async fn find_ids(&self, ids: &[SessionId]) -> Result<Each<SessionId, Arc<LiveSession>>, Unavailable> {
        let mut each = Each::default();
        let mut wanted = ids.to_vec();
        while !wanted.is_empty() {
            let read_at = self.read_at();
            let rows: Vec<Row> = self
                .database
                .run(STORE, "find_ids", async {
                    let select = rows::select_each(self.database.dialect());
                    sqlx::query_as(select).bind(rows::list(&wanted)).fetch_all(&self.database.pool()).await
                })
                .await?;
            // Uses are written every few seconds: hardly ever are any asked for again, and not twice.
            wanted = self.read_each(rows, read_at, &mut each).await?;
        }
        Ok(each)
    }

    async fn create(&self, session: Session, ended: &[SessionId]) -> Result<Arc<LiveSession>, Unavailable> {
        let mut ended = ended.to_vec();
        let is_made = self
            .database
            .run(STORE, "create", async {
                let mut write = self.database.begin(Guard::SessionOf(&folded(&session.user))).await?;
                let parent = session.parent.as_ref();
                let mut held = rows::hold_with_children(&mut write, &ended, parent).await?;
                if let Some(parent) = parent {
                    // One that is to be ended hands nothing over.
                    if ended.contains(parent) || !held.contains(parent) {
                        return Ok(false);
                    }
                    held.retain(|id| id != parent);
                }
                rows::delete_with_children(&mut write, &mut ended, held).await?;
                rows::insert(&mut write, &session).await?;
                write.commit().await?;
                Ok(true)
            })
            .await?;
        if !is_made {
            let detail = "the session that was to be handed over ended meanwhile".to_owned();
            return Err(Unavailable { store: STORE, detail });
        }
        for id in &ended {
            self.cache.drop_session(id);
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
        self.uses().pending.entry(session.session.id.clone()).or_insert_with(|| session.clone());
    }

    async fn list(&self, user: Option<&str>) -> Result<Vec<Session>, Unavailable> {
        let rows: Vec<Row> = self
            .database
            .run(STORE, "list", async {
                sqlx::query_as(rows::select!("WHERE $1 IS NULL OR folded = $1 ORDER BY created_at DESC, id"))
                    .bind(user.map(folded))
                    .fetch_all(&self.database.pool())
                    .await
            })
            .await?;
        let uses = self.uses();
        rows.into_iter()
            .map(|row| {
                let mut session = Session::try_from(row).map_err(|detail| Unavailable { store: STORE, detail })?;
                if let Some(used) = uses.last_of(&session.id) {
                    session.last_used_at = session.last_used_at.max(used);
                }
                Ok(session)
            })
            .collect()
    }

    async fn end(&self, which: End<'_>) -> Result<u64, Unavailable> {
        let mut one = Vec::new();
        let ended = self
            .database
            .run(STORE, "end", async {
                let (user, kept) = match which {
                    End::One(id) => {
                        one.push(id.clone());
                        return self.end_one(&mut one).await;
                    }
                    End::AllOf { user } => (folded(user), None),
                    End::AllBut { user, kept } => (folded(user), Some(kept)),
                };
                let mut write = self.database.begin(Guard::User(&user)).await?;
                let ended = rows::delete_of_user(&mut write, &user, kept).await?;
                write.commit().await?;
                Ok(ended)
            })
            .await;
        // Also after a failure: it may be that only the answer to the commit was lost.
        match which {
            End::One(id) => one.iter().chain([id]).for_each(|id| self.cache.drop_session(id)),
            End::AllOf { user } | End::AllBut { user, .. } => self.cache.drop_user(&folded(user)),
        }
        ended
    }
}
