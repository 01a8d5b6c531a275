//! What runs beside the requests: following the log of changes with its heartbeat, fetching keys of trusted issuers, writing last use, cleaning, gauges.
//! Started by `app` for `serve` and `demo`; the command line's other commands follow nothing and so trust no memory.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::{sync::watch, task::JoinHandle, time::MissedTickBehavior};

use super::{
    Stores,
    api_tokens::DatabaseApiTokens,
    counters::RedisCounters,
    database::{Database, Dialect, Look, Watch},
    devices::DatabaseDevices,
    identity::FileUsers,
    issuer_keys::FetchedKeys,
    keys::DatabaseKeys,
    redis::Heart,
    regulation::DatabaseRegulation,
    session::{CachedSessions, RedisRecords, SessionCache, Source},
    tokens::DatabaseTokens,
};
use crate::{
    observe::{metrics::Metrics, readiness::Readiness},
    ports::{Change, ChangeKind, Changes, Keys, Unavailable},
};

const POLL: Duration = Duration::from_millis(250);
/// A poll that takes longer has failed.
const POLL_TIME: Duration = Duration::from_millis(1_000);
/// To connect takes some fifteen round trips, with TLS and a password.
const CONNECTING: Duration = Duration::from_secs(4);
/// Without a successful poll for so long the stores count as down.
const DOWN: Duration = Duration::from_secs(2);
const WRITE_USES: Duration = Duration::from_secs(3);
const CLEAN: Duration = Duration::from_secs(60);
/// After the first that failed.
const CLEAN_AGAIN: Duration = Duration::from_secs(3);
/// To count sessions is to read all of them.
const COUNT: Duration = Duration::from_secs(10);
const COUNT_BY_EVERY_NODE: Duration = Duration::from_secs(60);
/// How long rows of the log are kept; a follower that was away for longer forgets everything instead.
const KEEP_CHANGES: Duration = Duration::from_secs(24 * 3600);
const STEP: i64 = 500;
/// Longer than any session lives.
const NEVER_IDLE: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
/// Everything that lives in the database.
const STORES: [&str; 6] = ["api_tokens", "changes", "keys", "sessions", "tokens", "users"];

/// What the background work shares with the adapters.
pub(super) struct Background {
    pub(super) database: Arc<Database>,
    pub(super) devices: Arc<DatabaseDevices>,
    pub(super) regulation: Arc<DatabaseRegulation>,
    pub(super) cache: Arc<SessionCache>,
    /// Of Redis, where sessions are there.
    pub(super) heart: Option<Heart>,
    pub(super) in_redis: Option<Arc<RedisRecords>>,
    pub(super) sessions: Arc<CachedSessions>,
    pub(super) api_tokens: Arc<DatabaseApiTokens>,
    pub(super) changes: Arc<dyn Changes>,
    pub(super) keys: Arc<DatabaseKeys>,
    pub(super) issuer_keys: Arc<FetchedKeys>,
    pub(super) tokens: Arc<DatabaseTokens>,
    pub(super) users_file: Option<Arc<FileUsers>>,
    pub(super) metrics: Arc<Metrics>,
    /// Where limits are counted in Redis.
    pub(super) counters: Option<Arc<RedisCounters>>,
    pub(super) lifetimes: Arc<arc_swap::ArcSwap<crate::core::session::Lifetimes>>,
}

impl Stores {
    /// Starts the background work. It ends, with the last uses written, once `shutdown` says true: to be said after the drain,
    /// since revocations must hold until the last request.
    #[must_use]
    pub fn follow(&self, readiness: Arc<Readiness>, shutdown: watch::Receiver<bool>) -> JoinHandle<()> {
        let background = self.background.clone();
        tokio::spawn(async move {
            tokio::join!(
                Follower::new(background.clone(), readiness.clone()).run(shutdown.clone()),
                background.issuer_keys.run(&readiness, &background.metrics, shutdown.clone()),
                background.beat(&readiness, shutdown.clone()),
                background.count(&readiness, shutdown.clone()),
                keep_house(&background, shutdown)
            );
            background.cache.distrust(Source::Log);
            background.database.close().await;
        })
    }
}

struct Follower {
    background: Arc<Background>,
    readiness: Arc<Readiness>,
    watch: Watch,
    /// What the watch saw when all changes were last applied.
    seen: Option<i64>,
    /// The last change applied; `None`: unknown, so memory has to be emptied first.
    seq: Option<i64>,
    /// Monotonic.
    succeeded_at: Duration,
    /// Another database took the place of the one that is open.
    replaced: bool,
    down: bool,
    /// The watch was just connected: its first poll prepares every question, which takes twice as long.
    fresh: bool,
    /// Connections of the pool may hang: they are to be made anew once the database answers.
    stale: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Polled {
    /// All that was there is applied.
    Level,
    /// Another database has to be opened first.
    Replaced,
}

impl Follower {
    fn new(background: Arc<Background>, readiness: Arc<Readiness>) -> Self {
        let succeeded_at = background.database.clock.monotonic();
        let watch = Watch::of(&background.database);
        Self {
            background,
            readiness,
            watch,
            seen: None,
            seq: None,
            succeeded_at,
            replaced: false,
            down: false,
            fresh: false,
            stale: false,
        }
    }

    async fn run(mut self, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                _ = ticks.tick() => {}
                () = self.watch.woken() => {}
            }
            // A beat that opens a database takes its time.
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                () = self.beat() => {}
            }
        }
    }

    async fn beat(&mut self) {
        if let Err(detail) = self.connect().await {
            return self.failed(&detail);
        }
        match self.poll_in_time().await {
            Ok(Polled::Level) => {}
            Ok(Polled::Replaced) => {
                if let Err(detail) = self.reopen().await {
                    self.failed(&detail);
                } else if let Err(detail) = self.connect().await {
                    self.failed(&detail);
                } else if let Err(detail) = self.poll_in_time().await {
                    self.failed(&detail);
                }
            }
            Err(detail) => self.failed(&detail),
        }
    }

    /// Where the watch has lost its connection. Not within the time of a poll.
    async fn connect(&mut self) -> Result<(), String> {
        let background = Arc::clone(&self.background);
        let Some(connecting) = self.watch.connecting(&background.database) else { return Ok(()) };
        let mut connecting = pin!(tokio::time::timeout(CONNECTING, connecting));
        loop {
            tokio::select! {
                connected = &mut connecting => {
                    let listener = connected.unwrap_or_else(|_| Err(format!("no connection within {CONNECTING:?}")))?;
                    self.watch.connected(listener);
                    self.fresh = true;
                    return Ok(());
                }
                () = tokio::time::sleep(POLL) => self.note_silence("no connection yet"),
            }
        }
    }

    async fn poll_in_time(&mut self) -> Result<Polled, String> {
        // What is read now is as the log stood at this moment or later.
        let now = self.background.database.clock.monotonic();
        let limit = if std::mem::take(&mut self.fresh) { CONNECTING } else { POLL_TIME };
        let polled = match tokio::time::timeout(limit, self.poll()).await {
            Ok(polled) => polled?,
            Err(_) => return Err(format!("no answer within {limit:?}")),
        };
        if polled == Polled::Level {
            self.succeeded_at = now;
            // Before anything is answered from memory: where it is, `/readyz` says so too.
            self.tell_up();
            self.background.cache.trust(Source::Log, now);
        }
        Ok(polled)
    }

    fn failed(&mut self, detail: &str) {
        self.watch.disconnect();
        self.seen = None;
        if self.background.database.dialect() == Dialect::Postgres {
            self.stale = true;
        }
        self.note_silence(detail);
    }

    fn note_silence(&mut self, detail: &str) {
        if self.background.database.clock.monotonic().saturating_sub(self.succeeded_at) >= DOWN {
            self.tell_down(detail);
        }
    }

    async fn poll(&mut self) -> Result<Polled, String> {
        let looked = self.watch.look(&self.background.database).await?;
        let at = match looked {
            Look::At(at) if !self.replaced => at,
            Look::At(_) | Look::Replaced => {
                self.tell_replaced();
                return Ok(Polled::Replaced);
            }
            // An outage at once: nothing remembered counts.
            Look::Gone => {
                self.background.cache.distrust(Source::Log);
                return Err("the database file is gone".to_owned());
            }
        };
        if std::mem::take(&mut self.stale) {
            self.background.database.renew().map_err(|error| error.to_string())?;
        }
        if self.seen == Some(at) && self.seq.is_some() {
            return Ok(Polled::Level);
        }
        let seq = self.catch_up(at).await?;
        if !self.watch.is_level(at, seq) {
            return Err(format!("the log of changes ends at {seq}, though it has stood at {at}"));
        }
        self.seen = Some(at);
        Ok(Polled::Level)
    }

    /// Nothing remembered of the one before counts.
    fn tell_replaced(&mut self) {
        self.background.cache.distrust(Source::Log);
        if !std::mem::replace(&mut self.replaced, true) {
            match self.background.database.dialect() {
                Dialect::Sqlite => {
                    tracing::warn!("another database file took the place of the one in use: opening it");
                }
                Dialect::Postgres => tracing::warn!("PostgreSQL was started anew, or is another server: opening it"),
            }
        }
    }

    /// Not within the time of a poll: tables may have to be brought up to date, across a slow network. Nothing remembered is believed meanwhile.
    async fn reopen(&mut self) -> Result<(), String> {
        self.seq = None;
        self.seen = None;
        self.watch.disconnect();
        self.note_silence("another database took the place of the one in use: opening it");
        self.background.database.reopen().await.map_err(|error| error.to_string())?;
        if let Some(in_redis) = &self.background.in_redis {
            in_redis.adopt_space().await.map_err(|error| error.detail)?;
        }
        self.stale = false;
        self.replaced = false;
        Ok(())
    }

    /// Applies what changed, step by step: what is done is done where the time runs out. Answers the last number applied.
    async fn catch_up(&mut self, looked: i64) -> Result<i64, String> {
        let background = Arc::clone(&self.background);
        let changes = &*background.changes;
        let reloaded = |result: Result<(), Unavailable>| result.map_err(|error| error.detail);
        loop {
            let step = match self.seq {
                Some(seq) => self.watch.after(changes, seq).await?,
                None => None,
            };
            let Some(step) = step else {
                // The number first: what changes after it is found by the next poll.
                let latest = self.watch.latest(changes, looked).await?;
                reloaded(self.background.adopt_versions(None).await)?;
                self.background.cache.drop_all();
                self.background.regulation.forget_all();
                reloaded(self.background.keys.reload().await)?;
                reloaded(self.background.tokens.reload().await)?;
                self.seq = Some(latest);
                return Ok(latest);
            };
            let Some(last) = step.last().map(|change| change.seq) else { return Ok(self.seq.unwrap_or_default()) };
            // Before anything is dropped: what is read anew must already see them.
            reloaded(self.background.adopt_versions(Some(&step)).await)?;
            for change in &step {
                match change.kind {
                    ChangeKind::Session => {
                        self.background.cache.drop_session(&crate::core::session::SessionId::new(change.id.clone()));
                    }
                    ChangeKind::ApiToken => {
                        self.background.api_tokens.drop_token(&crate::core::api_token::ApiTokenId(change.id.clone()));
                    }
                    ChangeKind::User => self.background.cache.drop_user(&change.id),
                    ChangeKind::AllUsers => self.background.cache.drop_all(),
                    ChangeKind::Unlock => self.background.regulation.forget(&change.id),
                    ChangeKind::Key => reloaded(self.background.keys.reload().await)?,
                    ChangeKind::Token => reloaded(self.background.tokens.learn(&change.id).await)?,
                }
            }
            self.seq = Some(last);
            // Whoever is far from the database would never see the end of what others write.
            if self.watch.has_reached(looked, last) {
                return Ok(last);
            }
        }
    }

    fn tell_up(&mut self) {
        for store in STORES {
            self.background.metrics.store_up(store, true);
        }
        if std::mem::take(&mut self.down) {
            tracing::info!("the database answers again");
            self.readiness.change(|report| report.stores_down.retain(|store, _| !STORES.contains(store)));
        }
    }

    fn tell_down(&mut self, detail: &str) {
        for store in STORES {
            self.background.metrics.store_up(store, false);
        }
        self.readiness.change(|report| {
            for store in STORES {
                report.stores_down.insert(store, detail.to_owned());
            }
        });
        if !std::mem::replace(&mut self.down, true) {
            self.stale = true;
            tracing::error!(detail, "the database does not answer: requests that need it are refused");
        }
    }
}

/// Also where the sender is gone: nobody could stop the work any more.
pub(super) async fn stopped(shutdown: &mut watch::Receiver<bool>) {
    let _ = shutdown.wait_for(|stop| *stop).await;
}

/// Each task on its own interval; a failure is logged and tried again at the next.
async fn keep_house(background: &Background, mut shutdown: watch::Receiver<bool>) {
    let interval = |period| {
        let mut ticks = tokio::time::interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    };
    let count_each = match background.database.dialect() {
        Dialect::Sqlite => COUNT,
        Dialect::Postgres => COUNT_BY_EVERY_NODE,
    };
    let (mut uses, mut cleaning, mut gauge) = (interval(WRITE_USES), interval(CLEAN), interval(count_each));
    let mut is_done = true;
    loop {
        let done = tokio::select! {
            () = stopped(&mut shutdown) => break,
            _ = uses.tick() => background.write_uses().await,
            _ = cleaning.tick() => {
                let cleaned = background.clean().await;
                // Once: what fails again and again is no reason to do all the rest as often.
                let was_done = std::mem::replace(&mut is_done, cleaned.is_ok());
                if was_done && !is_done {
                    cleaning.reset_after(CLEAN_AGAIN);
                }
                cleaned
            }
            _ = gauge.tick() => background.sessions.count().await.map(|count| background.metrics.sessions_active(count)),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "background work is put off");
        }
    }
    if let Err(error) = background.write_uses().await {
        tracing::warn!(%error, "the last uses of some sessions or tokens are lost: they may seem idle for longer than they were");
    }
}

impl Background {
    /// Where sessions are in Redis.
    async fn beat(&self, readiness: &Readiness, shutdown: watch::Receiver<bool>) {
        if let Some(heart) = &self.heart {
            heart.run(readiness, shutdown).await;
        }
    }

    /// Where limits are counted in Redis.
    async fn count(&self, readiness: &Readiness, shutdown: watch::Receiver<bool>) {
        if let Some(counters) = &self.counters {
            counters.run_beside(readiness, shutdown).await;
        }
    }

    async fn write_uses(&self) -> Result<(), Unavailable> {
        let (of_sessions, of_tokens) = (self.sessions.write_uses().await, self.api_tokens.write_uses().await);
        of_sessions.and(of_tokens)
    }

    /// Where users come from a file, their token versions are in the database all the same. Of whom `changes` name, in one question; `None`: of all.
    async fn adopt_versions(&self, changes: Option<&[Change]>) -> Result<(), Unavailable> {
        let Some(users) = &self.users_file else { return Ok(()) };
        let Some(changes) = changes.filter(|changes| changes.iter().all(|change| change.kind != ChangeKind::AllUsers))
        else {
            return users.adopt_versions(None).await;
        };
        let of_users = changes.iter().filter(|change| change.kind == ChangeKind::User);
        let names: Vec<&str> = of_users.map(|change| change.id.as_str()).collect();
        if names.is_empty() { Ok(()) } else { users.adopt_versions(Some(&names)).await }
    }

    /// Each step whatever becomes of the others: one that fails again and again must not keep keys from being told of, or the log from being cut. The first
    /// failure is told.
    pub(super) async fn clean(&self) -> Result<(), Unavailable> {
        self.cache.clean().await;
        let done = [
            self.clean_sessions().await,
            self.api_tokens.clean().await,
            self.tokens.clean(&*self.sessions).await,
            self.keys.clean().await,
            self.devices.clean().await,
            self.regulation.clean().await,
            self.cut_log().await,
        ];
        done.into_iter().collect()
    }

    async fn clean_sessions(&self) -> Result<(), Unavailable> {
        let written = self.sessions.write_uses().await;
        let mut lifetimes = **self.lifetimes.load();
        if written.is_err() {
            // A session that only looks idle, since its uses could not be written for a while, must not be taken for one; what is too old is over all the same.
            lifetimes.idle = NEVER_IDLE;
        }
        self.sessions.clean(lifetimes).await.and(written)
    }

    async fn cut_log(&self) -> Result<(), Unavailable> {
        let keep = i64::try_from(KEEP_CHANGES.as_millis()).unwrap_or(i64::MAX);
        let before = self.database.clock.now().unix_millis().saturating_sub(keep);
        loop {
            let deleted = self
                .database
                .run("changes", "clean", async {
                    let done = sqlx::query(match self.database.dialect() {
                        Dialect::Sqlite => {
                            "DELETE FROM changes \
                             WHERE seq IN (SELECT seq FROM changes ORDER BY seq LIMIT $1) AND at < $2"
                        }
                        // Rows that another node is at are left to it.
                        Dialect::Postgres => {
                            "DELETE FROM changes \
                             WHERE seq IN (SELECT seq FROM changes ORDER BY seq LIMIT $1 FOR UPDATE SKIP LOCKED) AND at < $2"
                        }
                    })
                    .bind(STEP)
                    .bind(before)
                    .execute(&self.database.pool())
                    .await?;
                    Ok(done.rows_affected())
                })
                .await?;
            if i64::try_from(deleted).unwrap_or(i64::MAX) < STEP {
                return Ok(());
            }
        }
    }
}
