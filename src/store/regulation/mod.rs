//! Regulation of sign-ins: counters in the database, the same for every node and after a restart. `core::regulation` says what a counter allows;
//! here stands which counters a try has, and that it has a place at all of them or at none, in one transaction. Asked by `identity`.
//!
//! A try takes its place before anything is hashed, and is counted once it was wrong, before anybody is answered: no more are looked at at once than may
//! go wrong, wherever they come in. One that is never settled (whoever sent it went away, the node was killed) learned nothing, and counts for nothing.
//!
//! What is counted by, for a password: a known device alone by itself (THREATS 40); else the address, and the name at this address; and where nobody of
//! that name is known there, the name, whatever the address. The name has more tries than one address can spend on it in the same time, so that it takes
//! many addresses to make a name wait everywhere.
//!
//! Must never store a name or an address: what was typed as a name may be a password. The rows go by a hash under a key that the key file holds. What is
//! kept is bounded: by what has leaked away, by [`MOST_ROWS`], and between two cleanings by what strangers may add on a node ([`crowd`]).

mod crowd;
mod memory;
mod rows;
#[cfg(test)]
mod tests;
mod waits;

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use async_trait::async_trait;
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::{Digest as _, Sha256};
use tokio::sync::{
    Semaphore, SemaphorePermit,
    broadcast::{self, error::RecvError},
};

use self::{
    crowd::{Crowd, Fresh, Full, Queued, Queues},
    memory::Memory,
};
use super::database::{Database, Dialect, Guard};
use crate::{
    core::{
        client_ip::bucket_of,
        regulation::{Budget, Budgets, By},
        time::Timestamp,
        user::folded,
    },
    observe::metrics::Metrics,
    ports::{
        Admitted, AuditEvent, AuditSink, Barred, ChangeKind, Guess, Known, Regulation, Try, Unavailable, Waits, Whose,
    },
};

const STORE: &str = "regulation";
/// Counters that a cleaning leaves. Those that would be forgotten first go first, and a flood that is to push one out that bars has to fill all places
/// with counters that bar for longer.
const MOST_ROWS: i64 = 200_000;
/// How long a try waits for its turn at the database.
const TURN: Duration = Duration::from_secs(1);
/// How long a try has its place that is never settled: whoever went away learned nothing by it, and a node may be killed. Longer than a hash takes.
const LEASE: Duration = Duration::from_secs(30);
/// How long a try waits for a place.
const PLACE: Duration = Duration::from_secs(3);
/// How often it looks for one that another node freed.
const AGAIN: Duration = Duration::from_millis(250);
/// The wait of somebody who is sent away since too many wait already.
const LATER: Duration = Duration::from_secs(1);
/// Kinds of guesses, in the names of counters.
const PASSWORD: &str = "password";
const SECOND_FACTOR: &str = "second factor";
/// Tries that are settled, of which somebody who waits has not heard yet; beyond them they look for themselves.
const UNHEARD: usize = 256;

pub(super) struct DatabaseRegulation {
    database: Arc<Database>,
    metrics: Arc<Metrics>,
    audit: Arc<dyn AuditSink>,
    /// None: everybody is let through (`max_retries: 0`).
    budgets: ArcSwapOption<Budgets>,
    names: Names,
    memory: Memory,
    /// Of the database: those who guess a name at once wait for each other there, and must leave connections to everybody else.
    turns: Semaphore,
    /// Those of known devices and places, which wait behind no stranger; of one account one after the other.
    turns_of_known: Semaphore,
    queues: Queues,
    crowd: Crowd,
    fresh: Fresh,
    /// Told the counters of a try that is settled.
    freed: broadcast::Sender<Arc<[String]>>,
}

/// What came of asking for a place.
enum Took {
    Place(Timestamp),
    /// As many as may go wrong are being looked at.
    NoPlace,
    Wait(Duration, By),
    /// It needs counters that there are not, and there is no room for more of them.
    Full(Full),
}

/// Makes the names of counters.
struct Names(SecretBox<[u8; 32]>);

/// One of the counters that a try is taken from.
#[derive(Debug, Clone)]
struct Counter {
    id: String,
    by: By,
    budget: Budget,
}

/// What a try is counted by.
#[derive(Debug, Default)]
struct Counters {
    /// In the order in which they are locked.
    all: Vec<Counter>,
    account: Option<String>,
    /// Of the name at the address.
    pair: Option<String>,
    from: Origin,
}

/// Who tries, as far as what is bounded for strangers goes.
#[derive(Debug, Default, Clone, Copy)]
enum Origin {
    /// A device or a place: there are only as many of those as somebody signed in on.
    #[default]
    Known,
    Stranger(Option<IpAddr>),
}

impl Counters {
    /// Of whoever is known.
    fn queue(&self) -> Option<String> {
        let is_device = self.all.iter().any(|counter| counter.by == By::Device);
        self.account.as_ref().map(|account| format!("{} {account}", if is_device { "devices" } else { "places" }))
    }
}

impl Names {
    /// 128 bits, in hexadecimal.
    fn of(&self, parts: &[&str]) -> String {
        let mut digest = Sha256::new();
        digest.update(self.0.expose_secret());
        for part in parts {
            // The length first, so that no two lists give the same bytes.
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part.as_bytes());
        }
        digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    fn of_account(&self, account: &str) -> String {
        self.of(&["account", account])
    }

    fn counters(&self, tried: &Try<'_>, budgets: &Budgets) -> Counters {
        let Try { guess, account, address, known, .. } = *tried;
        let family = match guess {
            Guess::Password => PASSWORD,
            Guess::SecondFactor => SECOND_FACTOR,
            Guess::RefreshToken(_) => "refresh token",
        };
        let from = if known == Known::Nothing { Origin::Stranger(address) } else { Origin::Known };
        let address = address.map_or_else(|| "unknown".to_owned(), |address| bucket_of(address).to_string());
        let counter = |by: By, parts: &[&str]| {
            let parts = [&[family, by.as_str()], parts].concat();
            Counter { id: self.of(&parts), by, budget: budgets.of(by) }
        };
        let by_address = counter(By::Address, &[&address]);
        if let Guess::RefreshToken(_) = guess {
            let all = vec![Counter { budget: budgets.of_tokens(), ..by_address }];
            return Counters { all, from, ..Counters::default() };
        }
        if let Known::Device(device) = known {
            let all = vec![counter(By::Device, &[account, &hex(&device.0)])];
            return Counters { all, account: Some(self.of_account(account)), pair: None, from };
        }
        let by_both = counter(By::AddressAndName, &[account, &address]);
        let pair = Some(by_both.id.clone());
        let mut all = vec![by_address, by_both];
        if known == Known::Nothing {
            all.push(counter(By::Name, &[account]));
        }
        all.sort_by(|one, other| one.id.cmp(&other.id));
        Counters { all, account: Some(self.of_account(account)), pair, from }
    }
}

impl Counter {
    /// Of those that only count towards a name, as everything but an address does.
    fn account<'c>(&self, counters: &'c Counters) -> Option<&'c str> {
        counters.account.as_deref().filter(|_| self.by != By::Address)
    }
}

impl DatabaseRegulation {
    /// `key`: the same on all nodes, and in no database.
    pub(super) fn new(
        database: Arc<Database>,
        metrics: Arc<Metrics>,
        audit: Arc<dyn AuditSink>,
        key: SecretBox<[u8; 32]>,
        budgets: Option<Budgets>,
    ) -> Self {
        let (turns, turns_of_known) = match database.dialect() {
            Dialect::Sqlite => (2, 1),
            Dialect::Postgres => (4, 2),
        };
        Self {
            database,
            metrics,
            audit,
            budgets: ArcSwapOption::from_pointee(budgets),
            names: Names(key),
            memory: Memory::default(),
            turns: Semaphore::new(turns),
            turns_of_known: Semaphore::new(turns_of_known),
            queues: Queues::default(),
            crowd: Crowd::default(),
            fresh: Fresh::default(),
            freed: broadcast::Sender::new(UNHEARD),
        }
    }

    /// What is counted stays, and counts by the new budgets: waits by the old ones are forgotten, since the new ones may be shorter.
    pub(super) fn configure(&self, budgets: Option<Budgets>) {
        self.budgets.store(budgets.map(Arc::new));
        self.memory.clear();
    }

    /// A command let this one off. Put on record by each node that hears of it, since a command has no log.
    pub(super) fn forget(&self, account: &str) {
        self.memory.forget(&self.names.of_account(account));
        self.audit.record(AuditEvent {
            event: "user_unlocked",
            user: Some(account.to_owned()),
            address: None,
            request_id: None,
            detail: "command",
        });
    }

    /// The database knows more.
    pub(super) fn forget_all(&self) {
        self.memory.clear();
    }

    fn now(&self) -> Timestamp {
        self.database.clock.now()
    }

    fn barred(&self, wait: Duration, by: By) -> Barred {
        self.metrics.login_delayed(by.as_str());
        Barred::SlowDown(wait)
    }

    /// The turns go first.
    async fn turn(&self, counters: &Counters) -> Result<(SemaphorePermit<'_>, Option<Queued<'_>>), Barred> {
        let (turns, account) = match counters.from {
            Origin::Known => (&self.turns_of_known, counters.queue()),
            Origin::Stranger(_) => (&self.turns, None),
        };
        let queued = match account {
            Some(account) => {
                Some(tokio::time::timeout(PLACE, self.queues.head_of(&account)).await.map_err(|_| Barred::Busy)?)
            }
            None => None,
        };
        match tokio::time::timeout(TURN, turns.acquire()).await {
            Ok(Ok(turn)) => Ok((turn, queued)),
            Ok(Err(_)) | Err(_) => Err(Barred::Busy),
        }
    }

    /// A place at all counters or at none; `None`: others have them all, of whom nobody knows yet what they are.
    async fn take(&self, counters: &Counters) -> Result<Option<Timestamp>, Barred> {
        let _turn = self.turn(counters).await?;
        match self.database.run(STORE, "take", self.taken(counters)).await? {
            Took::Place(until) => Ok(Some(until)),
            Took::NoPlace => Ok(None),
            Took::Wait(wait, by) => Err(self.barred(wait, by)),
            Took::Full(Full::Address) => Err(self.barred(LATER, By::Address)),
            Took::Full(Full::Node) => {
                tracing::warn!(
                    "too many counters of sign-ins are new at once: strangers are refused until the next cleaning"
                );
                Err(Barred::Busy)
            }
        }
    }

    async fn taken(&self, counters: &Counters) -> Result<Took, sqlx::Error> {
        let mut write = self.database.begin(Guard::Rows).await?;
        let mut held = rows::hold(&mut write, counters).await?;
        // Not before: whoever was waited for may have come later.
        let now = self.now();
        let fresh = held.values().filter(|entry| entry.is_new).count() as u64;
        let refused = self.refused(counters, &held, now);
        if let Some((wait, by)) = refused {
            if held.values().any(|entry| entry.count.at > now) {
                // A clock was ahead: the wait that it wrote begins now, or it would begin anew with every look.
                for entry in held.values_mut() {
                    entry.count = entry.count.seen_at(now);
                }
                rows::write(&mut write, counters, &held).await?;
                write.commit().await?;
            }
            // Else dropped, so that nothing is left of counters that are new.
            return Ok(Took::Wait(wait, by));
        }
        if let Origin::Stranger(address) = counters.from
            && fresh > 0
            && let Err(full) = self.fresh.admits(address)
        {
            return Ok(Took::Full(full));
        }
        let until = now.after(LEASE);
        for counter in &counters.all {
            let Some(entry) = held.get_mut(&counter.id) else { continue };
            // Another node's clock may be ahead, but not by much, or a place would never be free again.
            entry.pending.retain(|end| *end > now && *end <= until.after(LEASE));
            if entry.pending.len() >= usize::try_from(entry.count.room(&counter.budget, now)).unwrap_or(usize::MAX) {
                return Ok(Took::NoPlace);
            }
            entry.pending.push(until);
        }
        rows::write(&mut write, counters, &held).await?;
        write.commit().await?;
        if let Origin::Stranger(address) = counters.from
            && fresh > 0
        {
            self.fresh.made(address, fresh);
        }
        Ok(Took::Place(until))
    }

    async fn settled(&self, counters: &Counters, until: Timestamp, was_wrong: bool) -> Result<rows::Held, sqlx::Error> {
        let mut write = self.database.begin(Guard::Rows).await?;
        let mut held = rows::hold(&mut write, counters).await?;
        let now = self.now();
        for counter in &counters.all {
            let Some(entry) = held.get_mut(&counter.id) else { continue };
            if let Some(place) = entry.pending.iter().position(|end| *end == until) {
                entry.pending.swap_remove(place);
            }
            if was_wrong {
                entry.count = entry.count.taken(&counter.budget, now);
            }
        }
        rows::write(&mut write, counters, &held).await?;
        write.commit().await?;
        Ok(held)
    }

    /// The longest wait of them, which memory learns.
    fn refused(&self, counters: &Counters, held: &rows::Held, now: Timestamp) -> Option<(Duration, By)> {
        let waits = counters.all.iter().filter_map(|counter| {
            let wait = held.get(&counter.id)?.count.wait(&counter.budget, now)?;
            self.memory.bar(&counter.id, counter.account(counters), now.after(wait));
            Some((wait, counter.by))
        });
        waits.max_by_key(|(wait, _)| *wait)
    }

    /// Whether a try would be taken, without taking it.
    async fn look(&self, counters: &Counters, now: Timestamp) -> Result<(), Barred> {
        let held = self.database.run(STORE, "look", rows::look(&self.database, counters)).await?;
        self.refused(counters, &held, now).map_or(Ok(()), |(wait, by)| Err(self.barred(wait, by)))
    }

    /// What a server that was killed left behind.
    pub(super) async fn begin(&self) -> Result<(), Unavailable> {
        self.database.run(STORE, "begin", rows::forget_pending(&self.database)).await
    }

    /// Whoever finds no place waits for somebody to be settled here, or on another node, which nobody tells of; so many at once, and no more.
    async fn placed(&self, counters: &Counters) -> Result<Timestamp, Barred> {
        let _asking = self.crowd.asks(&counters.all).map_err(|by| self.barred(LATER, by))?;
        // Before the look: who is settled after it is heard of.
        let mut freed = self.freed.subscribe();
        let mut waiting = None;
        loop {
            let now = self.now();
            if let Some((wait, by)) = self.memory.wait(&counters.all, now) {
                return Err(self.barred(wait, by));
            }
            if let Some(until) = self.take(counters).await? {
                return Ok(until);
            }
            if waiting.is_none() {
                waiting = Some(self.crowd.waits(&counters.all, counters.from).map_err(|by| self.barred(LATER, by))?);
            }
            let _ = tokio::time::timeout(AGAIN, heard(&mut freed, counters)).await;
        }
    }

    /// Deletes what says nothing any more, and beyond [`MOST_ROWS`] what is forgotten first.
    pub(super) async fn clean(&self) -> Result<(), Unavailable> {
        let (database, now) = (&self.database, self.now());
        while database.run(STORE, "clean", rows::delete_ended(database, now)).await? {}
        while database.run(STORE, "clean", rows::delete_beyond(database, MOST_ROWS)).await? {}
        self.fresh.clear();
        Ok(())
    }
}

#[async_trait]
impl Regulation for DatabaseRegulation {
    async fn admit(&self, tried: Try<'_>) -> Result<Admitted, Barred> {
        let Some(budgets) = self.budgets.load_full() else { return Ok(Admitted::default()) };
        let (counters, now) = (self.names.counters(&tried, &budgets), self.now());
        if let Some(pair) = &counters.pair {
            self.memory.know(pair, tried.known == Known::Place);
        }
        if let Some((wait, by)) = self.memory.wait(&counters.all, now) {
            return Err(self.barred(wait, by));
        }
        let is_repeated = match tried.guess {
            Guess::RefreshToken(token) => self.memory.was_dead(&self.names.of(&["token", &hex(&token.0)])),
            Guess::Password | Guess::SecondFactor => tried.is_repeated,
        };
        if is_repeated {
            return self.look(&counters, now).await.map(|()| Admitted::default());
        }
        let is_token = matches!(tried.guess, Guess::RefreshToken(_));
        let took = tokio::time::timeout(PLACE, self.placed(&counters)).await;
        // Nobody knows for how long they are at it.
        let by = counters.all.first().map_or(By::Address, |counter| counter.by);
        let until = took.unwrap_or_else(|_| Err(self.barred(LATER, by)))?;
        let account = counters.account;
        let counters = counters.all.into_iter().map(|counter| (counter.by, counter.id)).collect();
        Ok(Admitted { counters, account, is_token, until })
    }

    async fn settle(&self, admitted: Admitted, was_wrong: bool) -> Result<Option<By>, Unavailable> {
        let Admitted { counters, account, is_token, until } = admitted;
        let Some(budgets) = self.budgets.load_full().filter(|_| !counters.is_empty()) else { return Ok(None) };
        let budget = |by| if is_token { budgets.of_tokens() } else { budgets.of(by) };
        let all = counters.into_iter().map(|(by, id)| Counter { budget: budget(by), id, by }).collect();
        let counters = Counters { all, account, ..Counters::default() };
        let settled = self.database.run(STORE, "settle", self.settled(&counters, until, was_wrong)).await;
        let now = self.now();
        let begins = settled.map(|held| self.refused(&counters, &held, now).filter(|_| was_wrong).map(|(_, by)| by));
        // After memory has learned: whoever waits asks it first. Nobody may be waiting.
        let _ = self.freed.send(counters.all.into_iter().map(|counter| counter.id).collect());
        begins
    }

    fn bars(&self, tried: Try<'_>) -> Option<Duration> {
        let now = self.now();
        if self.memory.is_over(now) {
            return None;
        }
        let budgets = self.budgets.load();
        let Counters { mut all, pair, .. } = self.names.counters(&tried, budgets.as_deref()?);
        if pair.is_some_and(|pair| self.memory.knows(&pair)) {
            all.retain(|counter| counter.by != By::Name);
        }
        self.memory.wait(&all, now).map(|(wait, _)| wait)
    }

    async fn waits(&self, whose: Whose<'_>) -> Result<Waits, Unavailable> {
        self.waiting(whose).await
    }

    async fn unlock(&self, account: &str) -> Result<bool, Unavailable> {
        let account = folded(account);
        let id = self.names.of_account(&account);
        let unlocking = async {
            let mut write = self.database.begin(Guard::Rows).await?;
            let deleted = rows::delete_of(&mut write, &id).await?;
            // Also where there is nothing: memory somewhere may know more than is left here.
            write.record(ChangeKind::Unlock, &account);
            write.commit().await?;
            Ok(deleted)
        };
        let deleted = self.database.run(STORE, "unlock", unlocking).await;
        self.memory.forget(&id);
        Ok(deleted? > 0)
    }
}

/// Until somebody is settled who had a place at one of these.
async fn heard(freed: &mut broadcast::Receiver<Arc<[String]>>, counters: &Counters) {
    loop {
        match freed.recv().await {
            Ok(ids) if counters.all.iter().all(|counter| !ids.contains(&counter.id)) => {}
            Ok(_) | Err(RecvError::Lagged(_)) => return,
            // Never, as long as somebody waits.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
