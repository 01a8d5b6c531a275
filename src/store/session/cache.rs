//! Live sessions in memory. Asked on every request (`peek`), filled by `database`, emptied by it and by the follower of the
//! log of changes. Never waits, never answers "gone": what is not here is asked of the store.
//!
//! Three things make an entry count: memory is trusted (the follower read the log within the last [`TRUST`]), the entry was not
//! dropped, nor was its user. Those of a user share a flag with whoever drops them, so that a user's sessions die in one step
//! however many they are.
//!
//! A read of the store races with an end of the session: whoever reads takes the [`Generation`] first, and what was dropped
//! since then keeps the answer out of the cache.
//!
//! To drop everything takes what is held away in one piece: whoever asks meanwhile waits for no entry to be freed, however many there are.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use arc_swap::ArcSwap;

use super::{entries::Entries, rows::Belongs};
use crate::{
    core::{
        ground::Watch,
        identity::{Identity, Profile},
        session::{CookieFacts, SessionId, TokenHash},
        user::folded,
    },
    ports::{Clock, LiveSession},
};

/// Sessions kept at most.
const CAPACITY: usize = 2_000_000;
/// Forgotten after so long without a look: frees the memory of sessions that ended by their age.
const FORGET: Duration = Duration::from_secs(3600);
/// Without a look at the log of changes for so long, memory is unsure (invariant 7).
const TRUST: Duration = Duration::from_secs(2);
/// Names that may be nobody's are cleaned away when there are so many.
const FEW_USERS: usize = 4_096;
/// Nothing is shared of those that come after so many.
const FEW_COOKIES: usize = 64;
const NEVER: i64 = i64::MIN;

/// Whom memory hears from: it is believed while all of them were heard a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Source {
    /// The log of changes.
    Log,
    /// Where the records of sessions are.
    Redis,
}

/// What was dropped so far; see the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) struct Generation(pub(in crate::store) u64);

/// What ties something that another cache remembers of a user to this one: it counts as long as a session of theirs would.
pub(in crate::store) struct Leash {
    pub(in crate::store) user_dropped: Arc<AtomicBool>,
    pub(in crate::store) era: u64,
}

/// A leash and what it hangs on, for whoever knows nothing of either.
pub(in crate::store) struct Watched {
    pub(in crate::store) cache: Arc<SessionCache>,
    pub(in crate::store) leash: Leash,
}

impl Watch for Watched {
    fn is_unchanged(&self) -> bool {
        self.cache.holds(&self.leash)
    }
}

/// What only changes together: taken for insertions and drops, never for a look.
#[derive(Default)]
struct Ledger {
    generation: u64,
    /// By folded user name.
    users: HashMap<Box<str>, Known>,
    /// How many of them were left when `leash` last cleaned.
    cleaned_at: usize,
    /// Of the few domains that are configured, and of what was configured before.
    cookies: Vec<Arc<CookieFacts>>,
}

impl Ledger {
    fn cookie(&mut self, wanted: &Arc<CookieFacts>) -> Arc<CookieFacts> {
        if let Some(known) = self.cookies.iter().find(|known| *known == wanted) {
            return known.clone();
        }
        if self.cookies.len() < FEW_COOKIES {
            self.cookies.push(wanted.clone());
        }
        wanted.clone()
    }
}

/// What all entries of a user share.
#[derive(Default)]
struct Known {
    dropped: Arc<AtomicBool>,
    profile: Weak<Profile>,
}

impl Known {
    fn is_nobodys(&self) -> bool {
        Arc::strong_count(&self.dropped) == 1
    }
}

/// What was held until everything was dropped. To free it takes seconds, of a million sessions.
pub(super) struct Emptied {
    held: Arc<Entries>,
    users: HashMap<Box<str>, Known>,
}

impl Emptied {
    fn free(self) {
        drop(self.users);
        drop(self.held);
    }

    /// Entries and users.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.held.sizes().1, self.users.len())
    }
}

pub(in crate::store) struct SessionCache {
    held: ArcSwap<Entries>,
    capacity: usize,
    ledger: Mutex<Ledger>,
    /// Goes up when everything is dropped.
    era: AtomicU64,
    /// Monotonic milliseconds of the last look at the log.
    looked_at: AtomicI64,
    /// The same of Redis; far in the future where it is not used.
    redis_looked_at: AtomicI64,
    clock: Arc<dyn Clock>,
}

impl SessionCache {
    pub(in crate::store) fn new(clock: Arc<dyn Clock>) -> Self {
        Self::of_capacity(clock, CAPACITY)
    }

    pub(super) fn of_capacity(clock: Arc<dyn Clock>, capacity: usize) -> Self {
        Self {
            held: ArcSwap::new(Entries::none(capacity)),
            capacity,
            ledger: Mutex::default(),
            era: AtomicU64::new(0),
            looked_at: AtomicI64::new(NEVER),
            redis_looked_at: AtomicI64::new(i64::MAX),
            clock,
        }
    }

    /// `Err(())`: memory is unsure as a whole.
    pub(super) fn by_hash(&self, hash: &TokenHash) -> Result<Option<Arc<LiveSession>>, ()> {
        let now = self.trusted_at()?;
        Ok(self.held.load().by_hash(hash, now))
    }

    pub(super) fn by_id(&self, id: &SessionId) -> Result<Option<Arc<LiveSession>>, ()> {
        let now = self.trusted_at()?;
        Ok(self.held.load().by_id(id, now))
    }

    /// What ends together with this session, as far as it is remembered: whether it still counts or not.
    pub(super) fn belongs(&self, id: &SessionId) -> Option<Belongs> {
        // What is being read anew is out of the entries for a moment.
        let _ledger = self.ledger();
        let live = self.held.load().known(id)?;
        let (user, parent, made_at) =
            (folded(&live.identity.user), live.session.parent.as_deref().cloned(), live.session.created_at);
        Some(Belongs::To { user, parent, made_at })
    }

    /// Whether what is tied to it still counts.
    pub(in crate::store) fn holds(&self, leash: &Leash) -> bool {
        self.is_trusted() && self.stands(&leash.user_dropped, leash.era)
    }

    /// Whether this process knows of no change since.
    pub(in crate::store) fn stands(&self, user_dropped: &AtomicBool, era: u64) -> bool {
        !user_dropped.load(Ordering::Acquire) && era == self.era.load(Ordering::Acquire)
    }

    /// To be taken before a user is read: what changes of this user from then on ends what is tied to it, and nobody else's change does. The name
    /// may be nobody's.
    pub(in crate::store) fn leash(&self, folded_user: &str) -> Leash {
        let mut ledger = self.ledger();
        if ledger.users.len() >= ledger.cleaned_at.saturating_mul(2).max(FEW_USERS) {
            ledger.users.retain(|_, known| !known.is_nobodys());
            ledger.cleaned_at = ledger.users.len();
        }
        let user_dropped = ledger.users.entry(folded_user.into()).or_default().dropped.clone();
        Leash { user_dropped, era: self.era.load(Ordering::Acquire) }
    }

    /// Lets another cache keep something of a user, or that there is none of this name, unless anything was dropped since `read_at`.
    pub(in crate::store) fn keep(&self, folded_user: &str, read_at: Generation, keep: impl FnOnce(Leash)) {
        let mut ledger = self.ledger();
        if ledger.generation != read_at.0 {
            return;
        }
        let user_dropped = ledger.users.entry(folded_user.into()).or_default().dropped.clone();
        keep(Leash { user_dropped, era: self.era.load(Ordering::Acquire) });
    }

    /// Lets another cache drop something, so that no answer read before it is kept afterwards.
    pub(in crate::store) fn forget(&self, forget: impl FnOnce()) {
        let mut ledger = self.ledger();
        ledger.generation += 1;
        forget();
    }

    /// Of sessions: asked by every request, so with one look at the clock. What it said.
    fn trusted_at(&self) -> Result<Duration, ()> {
        let looked_at = self.looked_at.load(Ordering::Acquire).min(self.redis_looked_at.load(Ordering::Acquire));
        let now = self.clock.monotonic();
        if is_recent(looked_at, now) { Ok(now) } else { Err(()) }
    }

    /// Whether memory may be believed, whatever of it but sessions: the log of changes was looked at a moment ago.
    pub(in crate::store) fn is_trusted(&self) -> bool {
        is_recent(self.looked_at.load(Ordering::Acquire), self.clock.monotonic())
    }

    /// To be taken before the store is read.
    pub(in crate::store) fn generation(&self) -> Generation {
        Generation(self.ledger().generation)
    }

    /// One profile for all sessions of a user, as long as it says the same, and one record of all cookies
    /// that are alike.
    pub(super) fn shared(
        &self,
        folded_user: &str,
        identity: Identity,
        cookie: &Arc<CookieFacts>,
    ) -> (Identity, Arc<CookieFacts>) {
        let mut ledger = self.ledger();
        let cookie = ledger.cookie(cookie);
        let known = ledger.users.entry(folded_user.into()).or_default();
        let identity = match known.profile.upgrade() {
            Some(profile) => identity.sharing(&profile),
            None => identity,
        };
        known.profile = Arc::downgrade(identity.profile());
        (identity, cookie)
    }

    /// Remembers what the store said, unless anything was dropped since `read_at`: then the answer may be older than the drop.
    pub(super) fn remember(&self, live: &Arc<LiveSession>, folded_user: &str, read_at: Generation) {
        let mut ledger = self.ledger();
        if ledger.generation != read_at.0 {
            return;
        }
        let held = self.held.load();
        if let Some(before) = held.known(live.id()) {
            // A use that is noted in memory only must survive the new reading.
            live.touch(before.last_used());
        }
        let user_dropped = ledger.users.entry(folded_user.into()).or_default().dropped.clone();
        held.insert(live, user_dropped, self.clock.monotonic());
    }

    pub(in crate::store) fn drop_session(&self, id: &SessionId) {
        let mut ledger = self.ledger();
        ledger.generation += 1;
        drop(self.held.load().remove(id));
    }

    pub(in crate::store) fn drop_user(&self, folded_user: &str) {
        let mut ledger = self.ledger();
        ledger.generation += 1;
        if let Some(known) = ledger.users.remove(folded_user) {
            known.dropped.store(true, Ordering::Release);
        }
    }

    pub(in crate::store) fn drop_all(&self) {
        let emptied = self.emptied();
        // Where no thread can be had it is freed here: whoever asks waits for that neither, since the ledger is free.
        let freeing = thread::Builder::new().name("sessions-freed".to_owned()).spawn(move || emptied.free());
        drop(freeing);
    }

    /// Takes everything out, in as little time as it takes to take out nothing.
    pub(super) fn emptied(&self) -> Emptied {
        let none = Entries::none(self.capacity);
        let mut ledger = self.ledger();
        ledger.generation += 1;
        let users = mem::take(&mut ledger.users);
        self.era.fetch_add(1, Ordering::AcqRel);
        // First: who still looks into what is taken out finds it dead.
        self.held.load().end();
        Emptied { held: self.held.swap(none), users }
    }

    /// It was read to its end, as it stood at `at` (monotonic): as far as it goes memory may be trusted for a while.
    pub(in crate::store) fn trust(&self, source: Source, at: Duration) {
        self.looked_at_of(source).store(millis(at), Ordering::Release);
    }

    /// Until it is heard from: for [`Source::Redis`] also what says that it is used at all.
    pub(in crate::store) fn distrust(&self, source: Source) {
        self.looked_at_of(source).store(NEVER, Ordering::Release);
    }

    fn looked_at_of(&self, source: Source) -> &AtomicI64 {
        match source {
            Source::Log => &self.looked_at,
            Source::Redis => &self.redis_looked_at,
        }
    }

    /// Frees what belongs to nobody any more, and what nobody looked up for long. Now and then; in steps, between which the log and the stores are heard.
    pub(in crate::store) async fn clean(&self) {
        let held = self.held.load_full();
        for step in 0..held.steps() {
            held.clean(step, self.clock.monotonic(), FORGET);
            tokio::task::yield_now().await;
        }
        self.ledger().users.retain(|_, known| !known.is_nobodys());
    }

    #[cfg(test)]
    pub(in crate::store) fn known_users(&self) -> usize {
        self.ledger().users.len()
    }

    /// Entries by hash and by id.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        self.held.load().sizes()
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_recent(looked_at: i64, now: Duration) -> bool {
    looked_at != NEVER && millis(now).saturating_sub(looked_at) < millis(TRUST)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
