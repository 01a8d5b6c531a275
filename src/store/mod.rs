//! Adapters of the ports. Opened by `app` alone; everyone else sees the traits.
//!
//! `database` opens SQLite or PostgreSQL and bounds every operation in time; `changes` is the log that every change is written to in its own
//! transaction; `session`, `identity`, `keys`, `tokens` and `counters` keep what they say, `issuer_keys` what others say; `follow` keeps memory true to the log.

mod api_tokens;
mod audit;
mod changes;
mod counters;
mod database;
mod devices;
mod follow;
mod geo;
mod hand_over;
mod hasher;
mod identity;
mod issuer_keys;
mod keys;
mod limit;
mod mail;
mod passwords;
mod redis;
mod regulation;
mod session;
pub mod system;
#[cfg(test)]
mod tests;
mod tokens;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use geo::{Countries, MaxMindGeo};
pub use hasher::{BadHash, HashPool, StoredHash};
pub use identity::{FileUsers, UsersFileError, check_users_file};
pub use keys::KeyError;
pub use limit::GovernorLimit;
pub use mail::MailQueue;

use crate::{
    config::{CountersPlace, SessionsPlace, Settings, SourceRate, Storage, UsersSource},
    core::{
        issuer::TrustedIssuer, limit::Allowance, regulation::Budgets, session::Lifetimes, tokens::SigningAlgorithm,
    },
    observe::metrics::Metrics,
    ports::{
        ApiTokens, Ask, AuditSink, Changes, Clock, Counters, Credentials, Devices, Entropy, ForeignTokens, HandOvers,
        Hasher, IssuerKeys, Keys, Regulation, Sessions, Tokens, Unavailable, Users, VerifiedPasswords,
    },
};
use api_tokens::DatabaseApiTokens;
use counters::{MemoryCounters, RedisCounters};
use database::Database;
use devices::DatabaseDevices;
use follow::Background;
use identity::DatabaseUsers;
use issuer_keys::{FetchedKeys, MemoryTokens};
use keys::DatabaseKeys;
use redis::{Heart, Redis};
use regulation::DatabaseRegulation;
use session::{CachedSessions, DatabaseRecords, RedisRecords, SessionCache, SessionRecords, Source};
use tokens::DatabaseTokens;

/// Every adapter, opened.
#[derive(Clone)]
pub struct Stores {
    pub users: Arc<dyn Users>,
    pub credentials: Arc<dyn Credentials>,
    pub sessions: Arc<dyn Sessions>,
    pub hand_overs: Arc<dyn HandOvers>,
    pub api_tokens: Arc<dyn ApiTokens>,
    pub verified_passwords: Arc<dyn VerifiedPasswords>,
    pub regulation: Arc<dyn Regulation>,
    pub hasher: Arc<dyn Hasher>,
    pub keys: Arc<dyn Keys>,
    pub issuer_keys: Arc<dyn IssuerKeys>,
    pub foreign_tokens: Arc<dyn ForeignTokens>,
    pub tokens: Arc<dyn Tokens>,
    pub changes: Arc<dyn Changes>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub audit: Arc<dyn AuditSink>,
    pub source_limit: Arc<GovernorLimit>,
    /// What `limits:` are counted in.
    pub counters: Arc<dyn Counters>,
    pub geo: Arc<MaxMindGeo>,
    pub devices: Arc<dyn Devices>,
    pub mail: Arc<MailQueue>,
    /// Where users come from a file: to be read again when it changes.
    pub users_file: Option<Arc<FileUsers>>,
    background: Arc<Background>,
}

/// What of the configuration the stores need.
#[derive(Debug, Clone)]
pub struct Options {
    pub storage: Storage,
    pub users: UsersSource,
    pub source_limit: Option<SourceRate>,
    pub regulation: Option<Budgets>,
    pub lifetimes: Lifetimes,
    /// Of the first signing key.
    pub algorithm: SigningAlgorithm,
}

impl From<&Settings> for Options {
    fn from(settings: &Settings) -> Self {
        Self {
            storage: settings.storage.clone(),
            users: settings.users.clone(),
            source_limit: settings.server.source_limit,
            regulation: settings.regulation,
            lifetimes: settings.site.lifetimes,
            algorithm: settings.site.tokens.algorithm,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Without the password that its URL may hold.
    #[error("the database {name} cannot be opened: {why}")]
    Database { name: String, why: String },
    /// Without the passwords that its URL may hold.
    #[error("Redis cannot be used: {name} (storage.sessions): {why}")]
    Redis { name: String, why: String },
    /// Without the passwords that its URL may hold.
    #[error("limits cannot be counted in Redis: {name} (storage.counters): {why}")]
    Counters { name: String, why: String },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Tokens(#[from] Unavailable),
    #[error(transparent)]
    Users(#[from] UsersFileError),
    #[error("the threads that hash passwords cannot be started: {0}")]
    Threads(std::io::Error),
    #[error("{0} (geo.database)")]
    Geo(String),
    #[error("mails cannot be sent: {0}")]
    Mail(String),
}

/// Opens the database and what is in it, with the machine's own clock and randomness: all that commands need. What a server only tells with, such as
/// countries and mails, must not keep one from ending sessions, and neither must a Redis that does not answer: the database says what ended.
///
/// # Errors
/// One clear line that names the file and why.
pub async fn open(settings: &Settings, metrics: Arc<Metrics>) -> Result<Stores, OpenError> {
    let (clock, entropy) = (Arc::new(system::SystemClock::new()), Arc::new(system::SystemEntropy));
    open_with(settings.into(), metrics, clock, entropy).await
}

/// Opens everything that the settings name.
///
/// # Errors
/// As [`open`].
pub async fn open_all(settings: &Settings, metrics: Arc<Metrics>) -> Result<Stores, OpenError> {
    let stores = open(settings, metrics).await?;
    stores.reach().await?;
    if let Err(error) = stores.background.regulation.begin().await {
        tracing::warn!(%error, "sign-ins that were left half-way keep their places for a moment");
    }
    stores.geo.swap(Countries::configured(settings.geo.as_deref()).map_err(OpenError::Geo)?);
    stores.mail.configure(&settings.notifier).map_err(OpenError::Mail)?;
    Ok(stores)
}

/// The same with another clock and other randomness.
///
/// # Errors
/// As [`open`].
pub async fn open_with(
    options: Options,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<Stores, OpenError> {
    let address = &options.storage.database;
    let database = Database::open(address, metrics.clone(), clock.clone())
        .await
        .map_err(|error| OpenError::Database { name: address.to_string(), why: error.to_string() })?;
    let database = Arc::new(database);
    let key_file = &options.storage.key_file;
    let cache = Arc::new(SessionCache::new(clock.clone()));
    let keys =
        DatabaseKeys::open(database.clone(), cache.clone(), key_file, options.algorithm, entropy.clone()).await?;
    let keys = Arc::new(keys);
    let lifetimes = Arc::new(ArcSwap::from_pointee(options.lifetimes));
    let in_redis = open_redis(&options.storage.sessions, &database, &cache, &lifetimes, &metrics, &entropy).await?;
    let heart = in_redis.as_ref().map(|(redis, _)| {
        cache.distrust(Source::Redis);
        Heart { redis: redis.clone(), cache: cache.clone(), metrics: metrics.clone() }
    });
    let in_redis = in_redis.map(|(_, records)| records);
    // Before anybody can ask: no node is ready without the revocations.
    let tokens = Arc::new(DatabaseTokens::open(database.clone(), cache.clone(), in_redis.clone()).await?);
    let (users, credentials, users_file) = open_users(&options.users, &database, &cache, &in_redis).await?;
    let records: Arc<dyn SessionRecords> = match &in_redis {
        Some(records) => records.clone(),
        None => Arc::new(DatabaseRecords::new(database.clone())),
    };
    let sessions = Arc::new(CachedSessions::new(records, cache.clone(), users.clone(), metrics.clone(), clock.clone()));
    let changes: Arc<dyn Changes> = Arc::new(changes::DatabaseChanges::new(database.clone()));
    let hand_overs = Arc::new(hand_over::DatabaseHandOvers::new(database.clone()));
    let api_tokens = Arc::new(DatabaseApiTokens::new(database.clone(), users.clone(), cache.clone()));
    let verified_passwords = Arc::new(passwords::RememberedPasswords::new(cache.clone(), changes.clone(), &*entropy));
    let issuer_keys = Arc::new(FetchedKeys::new(clock.clone()));
    let foreign_tokens = Arc::new(MemoryTokens::new(cache.clone(), users.clone(), api_tokens.clone()));
    let devices = Arc::new(DatabaseDevices::new(database.clone()));
    let counters = match &options.storage.counters {
        CountersPlace::Memory => None,
        CountersPlace::Redis(url) => {
            let on_failure = options.storage.counters_on_failure;
            Some(Arc::new(RedisCounters::at(url, on_failure, &metrics, &clock, &entropy)))
        }
    };
    let of_counts = keys.of_counts();
    let audit: Arc<dyn AuditSink> = Arc::new(audit::LogAudit::new(metrics.clone()));
    let regulation =
        DatabaseRegulation::new(database.clone(), metrics.clone(), audit.clone(), of_counts, options.regulation);
    let regulation = Arc::new(regulation);
    let background = Arc::new(Background {
        counters: counters.clone(),
        database,
        devices: devices.clone(),
        regulation: regulation.clone(),
        cache,
        heart,
        in_redis,
        issuer_keys: issuer_keys.clone(),
        sessions: sessions.clone(),
        api_tokens: api_tokens.clone(),
        changes: changes.clone(),
        keys: keys.clone(),
        tokens: tokens.clone(),
        users_file: users_file.clone(),
        metrics: metrics.clone(),
        lifetimes,
    });
    Ok(Stores {
        users,
        credentials,
        sessions,
        hand_overs,
        api_tokens,
        verified_passwords,
        regulation,
        hasher: Arc::new(HashPool::start(entropy.clone()).map_err(OpenError::Threads)?),
        keys,
        issuer_keys,
        foreign_tokens,
        tokens,
        changes,
        source_limit: Arc::new(GovernorLimit::new(clock.clone(), options.source_limit)),
        counters: match counters {
            Some(counters) => counters,
            None => Arc::new(MemoryCounters::new(clock.clone(), metrics.clone())),
        },
        geo: Arc::default(),
        devices,
        mail: Arc::new(MailQueue::new(metrics.clone(), clock.clone(), entropy.clone())),
        clock,
        entropy,
        audit,
        users_file,
        background,
    })
}

type OpenedUsers = (Arc<dyn Users>, Arc<dyn Credentials>, Option<Arc<FileUsers>>);

/// Where sessions are kept in Redis. Asks it nothing: a command that ends sessions must not fail for it.
async fn open_redis(
    place: &SessionsPlace,
    database: &Arc<Database>,
    cache: &Arc<SessionCache>,
    lifetimes: &Arc<ArcSwap<Lifetimes>>,
    metrics: &Arc<Metrics>,
    entropy: &Arc<dyn Entropy>,
) -> Result<Option<(Arc<Redis>, Arc<RedisRecords>)>, OpenError> {
    let SessionsPlace::Redis(url) = place else { return Ok(None) };
    let redis = Arc::new(Redis::at(url, metrics.clone(), database.clock.clone()));
    let records =
        RedisRecords::open(redis.clone(), database.clone(), cache.clone(), lifetimes.clone(), entropy.clone()).await?;
    Ok(Some((redis, Arc::new(records))))
}

async fn open_users(
    source: &UsersSource,
    database: &Arc<Database>,
    cache: &Arc<SessionCache>,
    in_redis: &Option<Arc<RedisRecords>>,
) -> Result<OpenedUsers, OpenError> {
    match source {
        UsersSource::Database => {
            let users = Arc::new(DatabaseUsers::new(database.clone(), cache.clone(), in_redis.clone()));
            Ok((users.clone(), users, None))
        }
        UsersSource::File(path) => {
            let users = Arc::new(FileUsers::open(path, database.clone(), cache.clone(), in_redis.clone()).await?);
            Ok((users.clone(), users.clone(), Some(users)))
        }
    }
}

impl Stores {
    /// Whether Redis, where sessions or limits are there, can be used: for a server that is about to start.
    async fn reach(&self) -> Result<(), OpenError> {
        if let Some(counters) = &self.background.counters {
            let told = |error: Unavailable| OpenError::Counters { name: counters.name().to_owned(), why: error.detail };
            let _ = counters.beat().await.map_err(told)?;
        }
        let Some(heart) = &self.background.heart else { return Ok(()) };
        let reached = heart.redis.reach().await;
        reached.map_err(|error| OpenError::Redis { name: heart.redis.name().to_owned(), why: error.to_string() })
    }

    /// What of a reload concerns the stores: the source limit, regulation, the lifetimes by which old sessions are cleaned away, and whose keys to fetch.
    pub fn configure(&self, settings: &Settings) {
        self.source_limit.configure(settings.server.source_limit);
        self.background.regulation.configure(settings.regulation);
        self.background.lifetimes.store(Arc::new(settings.site.lifetimes));
        self.trust(&settings.site.tokens.trusted_issuers);
    }

    /// The issuers whose tokens are taken from now on. Nothing verified before counts.
    pub fn trust(&self, issuers: &[Arc<TrustedIssuer>]) {
        self.background.issuer_keys.configure(issuers);
        self.foreign_tokens.forget_all();
    }

    /// What is left of each, for a command, where limits are counted in Redis; `None`: each server counts in its own memory.
    ///
    /// # Errors
    /// Redis does not answer.
    pub async fn look_in_redis(&self, asks: &[Ask<'_>]) -> Option<Result<Vec<Allowance>, Unavailable>> {
        Some(self.background.counters.as_ref()?.look_each(asks).await)
    }

    /// Where limits are counted, without passwords, if it is a Redis.
    #[must_use]
    pub fn counters_name(&self) -> Option<&str> {
        self.background.counters.as_ref().map(|counters| counters.name())
    }

    /// Closes the database; for commands that do not [`Stores::follow`].
    pub async fn close(&self) {
        self.background.database.close().await;
    }
}
