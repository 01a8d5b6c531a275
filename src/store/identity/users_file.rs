//! Users from a file: in memory, read again by [`FileUsers::reload`] (called by `lifecycle` when the file changes). What was changed,
//! disabled or removed since the last reading, by whichever node and also while none ran, ends that user's sessions; the database keeps
//! a fingerprint of every entry for that. A faulty new file keeps the old users.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use secrecy::SecretString;
use serde_json::{Value, json};
use sqlx::{AnyConnection, AnyPool};

use super::{
    emergency::{FILE_USERS, revoke},
    file_format::{self, Entries},
};
use crate::{
    config::Faults,
    core::user::{User, folded},
    ports::{Credentials, Each, Unavailable, UserChange, UserError, Users, Whom},
    store::{
        api_tokens,
        database::{Database, Dialect, Guard, Write, can_be_stored},
        session::{RedisRecords, SessionCache, delete_of_users},
    },
};

const STORE: &str = "users";

#[derive(Debug, thiserror::Error)]
pub enum UsersFileError {
    #[error(transparent)]
    Faults(#[from] Faults),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

pub struct FileUsers {
    path: PathBuf,
    entries: ArcSwap<Entries>,
    /// What an unknown name's password is held against.
    decoy: ArcSwapOption<SecretString>,
    /// One reading at a time.
    reading: tokio::sync::Mutex<()>,
    database: Arc<Database>,
    cache: Arc<SessionCache>,
    /// Where sessions are there.
    in_redis: Option<Arc<RedisRecords>>,
}

impl FileUsers {
    pub(in crate::store) async fn open(
        path: &Path,
        database: Arc<Database>,
        cache: Arc<SessionCache>,
        in_redis: Option<Arc<RedisRecords>>,
    ) -> Result<Self, UsersFileError> {
        let users = Self {
            path: path.to_owned(),
            entries: ArcSwap::default(),
            decoy: ArcSwapOption::empty(),
            reading: tokio::sync::Mutex::default(),
            database,
            cache,
            in_redis,
        };
        users.reload().await?;
        Ok(users)
    }

    /// Reads the file again. Returns how many users it holds.
    ///
    /// # Errors
    /// Faults of the file, or a database that cannot end the sessions of those who changed: the old users stay.
    pub async fn reload(&self) -> Result<usize, UsersFileError> {
        let _one_at_a_time = self.reading.lock().await;
        let entries = file_format::read(&self.path)?;
        let count = entries.len();
        let old = self.entries.load_full();
        let decoy = file_format::decoy(&entries).map(Arc::new);
        let applied = self.database.run(STORE, "reload_file", self.apply(&old, entries)).await;
        match applied {
            Ok(changed) => {
                for name in &changed {
                    self.cache.drop_user(name);
                }
                self.decoy.store(decoy);
                Ok(count)
            }
            Err(error) => {
                // But never an older token version: the step may have been committed, and others raise versions meanwhile.
                self.entries.rcu(|held| Arc::new(with_newest_versions(&old, held)));
                self.cache.drop_all();
                Err(error.into())
            }
        }
    }

    /// Puts the entries in force and ends the sessions of whoever changed; their folded names. Somebody changed where the database
    /// knows another entry, or where this process held another one: another process may have read the file first, and sessions
    /// may have been made here since, of an entry that no longer holds.
    async fn apply(&self, held: &Entries, mut entries: Entries) -> Result<Vec<String>, sqlx::Error> {
        let mut write = self.database.begin(Guard::AllUsers).await?;
        let known = known(&mut write).await?;
        let names: HashSet<String> = entries.keys().chain(known.keys()).cloned().collect();
        let (mut changed, mut rows, mut outdated) = (Vec::new(), Vec::new(), Vec::new());
        for name in names {
            let entry = entries.get_mut(&name);
            let new = entry.as_ref().map_or(&[][..], |entry| entry.fingerprint.as_slice());
            let (old, version) = known.get(&name).map_or((None, 1), |(old, version)| (Some(old.as_slice()), *version));
            let same = old == Some(new);
            // Somebody new has no sessions to end, unless they were removed before.
            let version = if same || old.is_none() { version } else { version + 1 };
            if !same {
                outdated.push(name.clone());
                rows.push(json!({ "folded": name, "fingerprint": hex(new), "version": version }));
            }
            if !same || held.get(&name).is_some_and(|held| held.fingerprint != *new) {
                changed.push(name.clone());
            }
            if let Some(entry) = entry {
                entry.user.token_version = u64::try_from(version).unwrap_or(u64::MAX);
            }
        }
        save(&mut write, &Value::from(rows)).await?;
        delete_of_users(&mut write, &changed).await?;
        // Not of those whom another process read first: their tokens carry the new version already.
        api_tokens::delete_of_users(&mut write, &outdated).await?;
        // Before the commit: a session that is made after it must already see the new entry. Nobody raises a version meanwhile, so these are the newest.
        self.entries.store(Arc::new(entries));
        write.commit().await?;
        Ok(changed)
    }

    /// Takes the token versions from the database, which another process may have raised; `None`: those of all users. Waits for no reading of
    /// the file: a version only ever goes up, and a reading takes them over as well.
    pub(in crate::store) async fn adopt_versions(&self, folded: Option<&[&str]>) -> Result<(), Unavailable> {
        self.adopt_versions_by(self.database.followers_pool(), folded.map(|names| json!(names))).await
    }

    /// Nobody tells of versions that others raised while the log is not followed: they are read before anybody is answered. Also for a name that is
    /// nobody's, which takes as long then (THREATS 39).
    async fn catch_up(&self, names: &[&str]) -> Result<(), Unavailable> {
        if self.cache.is_trusted() {
            return Ok(());
        }
        let names = names.iter().filter(|name| can_be_stored(name)).map(|name| folded(name)).collect();
        self.adopt_versions_by(self.database.pool(), Some(names)).await
    }

    /// `folded`: a list of names.
    async fn adopt_versions_by(&self, pool: AnyPool, folded: Option<Value>) -> Result<(), Unavailable> {
        let versions = match self.database.dialect() {
            Dialect::Sqlite => {
                "SELECT folded, token_version FROM file_users \
                 WHERE $1 IS NULL OR folded IN (SELECT value FROM json_each($1))"
            }
            Dialect::Postgres => {
                "SELECT folded, token_version FROM file_users \
                 WHERE $1 IS NULL OR folded IN (SELECT json_array_elements_text($1::json))"
            }
        };
        let names = folded.map(|names| names.to_string());
        let versions: Vec<(String, i64)> = self
            .database
            .run(STORE, "versions", async { sqlx::query_as(versions).bind(names).fetch_all(&pool).await })
            .await?;
        let versions: Vec<(String, u64)> =
            versions.into_iter().map(|(name, version)| (name, u64::try_from(version).unwrap_or(u64::MAX))).collect();
        let is_newer = |entries: &Entries, name: &str, version: u64| {
            entries.get(name).is_some_and(|entry| entry.user.token_version < version)
        };
        self.entries.rcu(|held| {
            if !versions.iter().any(|(name, version)| is_newer(held, name, *version)) {
                return Arc::clone(held);
            }
            let mut entries = Entries::clone(held);
            for (name, version) in &versions {
                if let Some(entry) = entries.get_mut(name) {
                    entry.user.token_version = entry.user.token_version.max(*version);
                }
            }
            Arc::new(entries)
        });
        Ok(())
    }

    fn read_only(&self) -> UserError {
        UserError::ReadOnly(self.path.display().to_string())
    }
}

/// `entries`, with the token versions of `held` where those are newer.
fn with_newest_versions(entries: &Entries, held: &Entries) -> Entries {
    let mut entries = entries.clone();
    for (name, entry) in &mut entries {
        let newest = held.get(name).map_or(0, |held| held.user.token_version);
        entry.user.token_version = entry.user.token_version.max(newest);
    }
    entries
}

async fn known(connection: &mut AnyConnection) -> Result<HashMap<String, (Vec<u8>, i64)>, sqlx::Error> {
    let rows: Vec<(String, Vec<u8>, i64)> =
        sqlx::query_as("SELECT folded, fingerprint, token_version FROM file_users").fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(name, fingerprint, version)| (name, (fingerprint, version))).collect())
}

/// All at once: a file may hold thousands, and a server across the network takes its time for each question.
async fn save(write: &mut Write, rows: &Value) -> Result<(), sqlx::Error> {
    let save = match write.dialect() {
        // WHERE TRUE tells the parser that ON begins no join (SQLite, "UPSERT", 3).
        Dialect::Sqlite => {
            "INSERT INTO file_users (folded, fingerprint, token_version) \
             SELECT value ->> 'folded', unhex(value ->> 'fingerprint'), value ->> 'version' FROM json_each($1) WHERE TRUE \
             ON CONFLICT (folded) DO UPDATE SET fingerprint = excluded.fingerprint, \
             token_version = max(file_users.token_version, excluded.token_version)"
        }
        Dialect::Postgres => {
            "INSERT INTO file_users (folded, fingerprint, token_version) SELECT folded, decode(fingerprint, 'hex'), version \
             FROM json_to_recordset($1::json) AS new (folded text, fingerprint text, version bigint) \
             ON CONFLICT (folded) DO UPDATE SET fingerprint = excluded.fingerprint, \
             token_version = greatest(file_users.token_version, excluded.token_version)"
        }
    };
    sqlx::query(save).bind(rows.to_string()).execute(&mut **write).await?;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[async_trait]
impl Users for FileUsers {
    async fn find(&self, name: &str) -> Result<Option<User>, Unavailable> {
        self.catch_up(&[name]).await?;
        Ok(self.entries.load().get(&folded(name)).map(|entry| entry.user.clone()))
    }

    async fn find_each(&self, names: &[&str]) -> Result<Each<String, User>, Unavailable> {
        self.catch_up(names).await?;
        let entries = self.entries.load();
        let mut each = Each::default();
        for name in names.iter().map(|name| folded(name)) {
            each.found.extend(entries.get(&name).map(|entry| (name, entry.user.clone())));
        }
        Ok(each)
    }

    async fn is_current(&self, name: &str) -> Result<bool, Unavailable> {
        if !can_be_stored(name) {
            return Ok(false);
        }
        let told: Option<Vec<u8>> = self
            .database
            .run(STORE, "is_current", async {
                sqlx::query_scalar("SELECT fingerprint FROM file_users WHERE folded = $1")
                    .bind(folded(name))
                    .fetch_optional(&self.database.pool())
                    .await
            })
            .await?;
        let entries = self.entries.load();
        Ok(entries.get(&folded(name)).is_some_and(|held| told.as_deref() == Some(held.fingerprint.as_slice())))
    }

    async fn list(&self) -> Result<Vec<User>, Unavailable> {
        let mut users: Vec<User> = self.entries.load().values().map(|entry| entry.user.clone()).collect();
        users.sort_by_cached_key(|user| folded(&user.name));
        Ok(users)
    }

    async fn insert(&self, _user: User, _password_hash: Option<String>) -> Result<(), UserError> {
        Err(self.read_only())
    }

    async fn update(&self, _name: &str, _change: UserChange) -> Result<User, UserError> {
        Err(self.read_only())
    }

    async fn delete(&self, _name: &str) -> Result<(), UserError> {
        Err(self.read_only())
    }

    async fn revoke(&self, whom: Whom<'_>) -> Result<u64, UserError> {
        let name = match whom {
            Whom::One(name) => Some(folded(name)),
            Whom::Everybody => None,
        };
        if let (Whom::One(spelt), Some(name)) = (whom, &name)
            && !self.entries.load().contains_key(name)
        {
            return Err(UserError::Unknown(spelt.to_owned()));
        }
        let ended = revoke(&self.database, &FILE_USERS, name.as_deref(), self.in_redis.as_deref()).await;
        // Also after a failure: it may be that only the answer to the commit was lost.
        let adopted = match name.as_deref() {
            Some(name) => self.adopt_versions(Some(&[name])).await,
            None => self.adopt_versions(None).await,
        };
        match &name {
            Some(name) => self.cache.drop_user(name),
            None => self.cache.drop_all(),
        }
        adopted?;
        match (ended?, whom) {
            (None, Whom::One(spelt)) => Err(UserError::Unknown(spelt.to_owned())),
            (ended, _) => Ok(ended.unwrap_or_default()),
        }
    }
}

#[async_trait]
impl Credentials for FileUsers {
    async fn password_hash(&self, user: &str) -> Result<Option<SecretString>, Unavailable> {
        let entries = self.entries.load();
        Ok(entries.get(&folded(user)).filter(|entry| !entry.user.disabled).map(|entry| entry.hash.clone()))
    }

    async fn owner_of(&self, email: &str) -> Result<Option<String>, Unavailable> {
        let entries = self.entries.load();
        let has_it = |user: &User| user.email.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(email));
        Ok(entries.iter().filter(|(_, entry)| has_it(&entry.user)).map(|(name, _)| name.clone()).min())
    }

    fn decoy(&self) -> Option<SecretString> {
        self.decoy.load().as_deref().cloned()
    }

    async fn set_password_hash(&self, _user: &str, _hash: SecretString) -> Result<(), UserError> {
        Err(self.read_only())
    }
}
