//! API tokens and service accounts in the database, with a cache in front and last use written behind. Asked by `gate` and `identity`.
//!
//! What is remembered hangs on the cache of sessions (`Leash`): it counts as long as a session of the owner would, so whatever drops a user there,
//! by this process or by the log of changes, drops their tokens. Never answers from memory that something does not exist.

mod rows;

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use moka::{policy::EvictionPolicy, sync::Cache};

use self::rows::Row;
pub(in crate::store) use self::rows::{delete_of_user, delete_of_users};
use super::{
    database::{Database, Guard, can_be_stored},
    session::{Generation, Leash, SessionCache},
};
use crate::{
    core::{
        api_token::{ApiToken, ApiTokenId, ApiTokenKey, Owner, key_of},
        identity::{Factor, Identity},
        session::TokenHash,
        time::Timestamp,
        user::{User, folded},
    },
    ports::{ApiTokenError, ApiTokens, ChangeKind, Each, LiveApiToken, Revoke, Unavailable, Users},
};

const STORE: &str = "api_tokens";
/// Tokens kept in memory at most.
const CAPACITY: u64 = 500_000;
/// Forgotten after so long without a look.
const FORGET: Duration = Duration::from_secs(3600);
/// A use so soon after the one before is not written.
const USE_STEP: Duration = Duration::from_secs(1);
/// Of one owner: enough for everybody, and a bound for whoever makes them in a loop.
const MOST: u64 = 200;
/// How long an expired one is still listed, so that somebody who looks for it learns why it failed.
const KEEP_EXPIRED: Duration = Duration::from_secs(30 * 86_400);
/// Rows a transaction of the background work touches.
const STEP: usize = 500;

pub(in crate::store) struct DatabaseApiTokens {
    database: Arc<Database>,
    users: Arc<dyn Users>,
    /// What says whether memory may be believed, and about whom.
    sessions: Arc<SessionCache>,
    cache: Cache<ApiTokenKey, Arc<Entry>>,
    /// Uses since the last writing.
    uses: Mutex<HashMap<ApiTokenKey, Arc<LiveApiToken>>>,
}

struct Entry {
    live: Arc<LiveApiToken>,
    leash: Leash,
}

impl DatabaseApiTokens {
    pub(in crate::store) fn new(database: Arc<Database>, users: Arc<dyn Users>, sessions: Arc<SessionCache>) -> Self {
        let cache =
            Cache::builder().max_capacity(CAPACITY).eviction_policy(EvictionPolicy::lru()).time_to_idle(FORGET).build();
        Self { database, users, sessions, cache, uses: Mutex::default() }
    }

    /// Told by the log of changes, and by ourselves.
    pub(in crate::store) fn drop_token(&self, id: &ApiTokenId) {
        self.sessions.forget(|| {
            if let Some(key) = id.key() {
                self.cache.invalidate(&key);
            }
        });
    }

    fn uses(&self) -> MutexGuard<'_, HashMap<ApiTokenKey, Arc<LiveApiToken>>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The token with its owner as they are now, remembered; `None`: it counts no more. `known`: the user who is called as the owner.
    fn live_of(
        &self,
        token: ApiToken,
        groups: Option<Vec<String>>,
        known: Option<User>,
        read_at: Generation,
    ) -> Result<Option<Arc<LiveApiToken>>, Unavailable> {
        let Some(identity) = identity(&token, groups, known)? else { return Ok(None) };
        let live = Arc::new(LiveApiToken::new(token, Arc::new(identity)));
        let key = key_of(&live.token.hash);
        if let Some(used) = self.uses().get_mut(&key) {
            // From here on uses are noted on the new one.
            live.touch(used.last_used());
            *used = Arc::clone(&live);
        }
        self.sessions.keep(&folded(live.token.owner.name()), read_at, |leash| {
            self.cache.insert(key, Arc::new(Entry { live: Arc::clone(&live), leash }));
        });
        Ok(Some(live))
    }

    /// Whether a service account has this name, which the log tells as a user's change where that changes.
    pub(in crate::store) async fn has_account(&self, folded: &str) -> Result<bool, Unavailable> {
        self.database
            .run(STORE, "has_account", async {
                let mut connection = self.database.pool().acquire().await?;
                rows::has_account(&mut connection, folded).await
            })
            .await
    }

    /// Those of the folded names that service accounts have.
    pub(in crate::store) async fn accounts_among(&self, folded: &[String]) -> Result<HashSet<String>, Unavailable> {
        let work = async {
            let mut connection = self.database.pool().acquire().await?;
            rows::accounts_among(&mut connection, self.database.dialect(), folded).await
        };
        Ok(self.database.run(STORE, "accounts_among", work).await?.into_iter().collect())
    }

    /// Writes the last uses noted since the last time. What could not be written is noted again.
    pub(in crate::store) async fn write_uses(&self) -> Result<(), Unavailable> {
        let taken: Vec<_> = std::mem::take(&mut *self.uses()).into_iter().collect();
        let mut written = Ok(());
        for step in taken.chunks(STEP) {
            written = self
                .database
                .run(STORE, "write_uses", async {
                    let mut write = self.database.begin(Guard::Rows).await?;
                    rows::write_uses(&mut write, step.iter().map(|(_, live)| live)).await?;
                    write.commit().await
                })
                .await;
            if written.is_err() {
                break;
            }
        }
        if written.is_err() {
            // Also of those that were written: once more does no harm.
            let mut uses = self.uses();
            for (key, live) in taken {
                uses.entry(key).or_insert(live);
            }
        }
        written
    }

    /// Deletes what expired long ago. No rows of the log: it counts nowhere.
    pub(in crate::store) async fn clean(&self) -> Result<(), Unavailable> {
        self.cache.run_pending_tasks();
        let before = self.database.clock.now().before(KEEP_EXPIRED).unix_millis();
        self.database
            .run(STORE, "clean", async {
                sqlx::query(rows::clean(self.database.dialect()))
                    .bind(before)
                    .bind(i64::try_from(STEP).unwrap_or(i64::MAX))
                    .execute(&self.database.pool())
                    .await
            })
            .await?;
        Ok(())
    }

    /// What a new token of this owner needs: the owner in the stored spelling and their token version. A user whose entry in the users file was replaced, but not
    /// here yet, gets none: it would have the new version, made by the old password.
    async fn owner(&self, token: &ApiToken) -> Result<(Owner, u64), ApiTokenError> {
        let name = token.owner.name();
        let known = self.users.find(name).await?;
        match (&token.owner, known) {
            (Owner::User(_), Some(user)) if !user.disabled => {
                if token.version != 0 && token.version != user.token_version {
                    let detail =
                        format!("{:?} has changed since the session was read that asks for a token", user.name);
                    return Err(Unavailable { store: "users", detail }.into());
                }
                // After the version was read: whoever replaces the entry from now on raises it, and the token is dead.
                if !self.users.is_current(name).await? {
                    let detail = format!("another node has read another entry of {:?} in its users file", user.name);
                    return Err(Unavailable { store: "users", detail }.into());
                }
                Ok((Owner::User(user.name), user.token_version))
            }
            (Owner::User(_), _) => Err(ApiTokenError::NoUser(name.to_owned())),
            (Owner::Service(_), Some(user)) => Err(ApiTokenError::UsersName(user.name)),
            (Owner::Service(_), None) => Ok((Owner::Service(User::new(name, Vec::new()).checked()?.name), 0)),
        }
    }
}

#[async_trait]
impl ApiTokens for DatabaseApiTokens {
    fn peek(&self, hash: &TokenHash) -> Option<Arc<LiveApiToken>> {
        let entry = self.cache.get(&key_of(hash))?;
        (entry.live.token.hash == *hash && self.sessions.holds(&entry.leash)).then(|| Arc::clone(&entry.live))
    }

    async fn find(&self, hash: &TokenHash) -> Result<Option<Arc<LiveApiToken>>, Unavailable> {
        let read_at = self.sessions.generation();
        let row: Option<Row> = self
            .database
            .run(STORE, "find", async {
                sqlx::query_as(rows::FIND).bind(hash.0.as_slice()).fetch_optional(&self.database.pool()).await
            })
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (token, groups) = row.read().map_err(damaged)?;
        let known = self.users.find(token.owner.name()).await?;
        self.live_of(token, groups, known, read_at)
    }

    async fn find_each(&self, hashes: &[TokenHash]) -> Result<Each<TokenHash, Arc<LiveApiToken>>, Unavailable> {
        let read_at = self.sessions.generation();
        let rows: Vec<Row> = self
            .database
            .run(STORE, "find_each", async {
                let select = rows::find_each(self.database.dialect());
                sqlx::query_as(select).bind(rows::list(hashes)).fetch_all(&self.database.pool()).await
            })
            .await?;
        let mut each = Each::default();
        let mut tokens = Vec::with_capacity(rows.len());
        for row in rows {
            let Some(hash) = row.hash() else { continue };
            match row.read() {
                Ok(read) => tokens.push(read),
                Err(detail) => unsure_of(hash, &detail, &mut each),
            }
        }
        let owners: Vec<&str> = tokens.iter().map(|(token, _)| token.owner.name()).collect();
        let users = self.users.find_each(&owners).await?;
        for (token, groups) in tokens {
            let hash = token.hash;
            let Some(known) = users.said(&folded(token.owner.name())) else {
                unsure_of(hash, "its owner cannot be read", &mut each);
                continue;
            };
            match self.live_of(token, groups, known, read_at) {
                Ok(live) => each.found.extend(live.map(|live| (hash, live))),
                Err(unavailable) => unsure_of(hash, &unavailable.detail, &mut each),
            }
        }
        Ok(each)
    }

    async fn create(&self, token: ApiToken, groups: Option<Vec<String>>) -> Result<ApiToken, ApiTokenError> {
        let (owner, version) = self.owner(&token).await?;
        let token = ApiToken { owner, version, ..token };
        let groups = match (&token.owner, groups) {
            (Owner::Service(name), Some(groups)) => Some(User::new(name, groups).checked()?.groups),
            _ => None,
        };
        let name = token.owner.name();
        let count = self
            .database
            .run(STORE, "create", async {
                // Tokens of one owner are made one after another, so that they can be counted.
                let mut write = self.database.begin(Guard::User(&folded(name))).await?;
                let count = rows::count(&mut write, &token.owner).await?;
                if count >= MOST {
                    return Ok(count);
                }
                if matches!(token.owner, Owner::Service(_)) {
                    rows::save_account(&mut write, name, groups.as_deref()).await?;
                }
                rows::insert(&mut write, &token).await?;
                write.commit().await?;
                Ok(count)
            })
            .await?;
        if count >= MOST {
            return Err(ApiTokenError::TooMany(name.to_owned(), count));
        }
        if matches!(token.owner, Owner::Service(_)) {
            // The account's groups may be others now.
            self.sessions.drop_user(&folded(name));
        }
        Ok(token)
    }

    fn used(&self, live: &Arc<LiveApiToken>, at: Timestamp) {
        let before = live.touch(at);
        if at.since(before) >= USE_STEP {
            self.uses().entry(key_of(&live.token.hash)).or_insert_with(|| Arc::clone(live));
        }
    }

    async fn list(&self, owner: Option<&Owner>) -> Result<Vec<ApiToken>, Unavailable> {
        let rows: Vec<Row> = self
            .database
            .run(STORE, "list", async {
                let query = match owner {
                    None => sqlx::query_as(rows::LIST),
                    Some(owner) => sqlx::query_as(rows::LIST_OF).bind(owner.kind()).bind(folded(owner.name())),
                };
                query.fetch_all(&self.database.pool()).await
            })
            .await?;
        let uses = self.uses();
        rows.into_iter()
            .map(|row| {
                let (mut token, _) = row.read().map_err(damaged)?;
                if let Some(used) = uses.get(&key_of(&token.hash)) {
                    token.last_used_at = token.last_used_at.max(Some(used.last_used()));
                }
                Ok(token)
            })
            .collect()
    }

    async fn revoke(&self, which: Revoke<'_>) -> Result<u64, Unavailable> {
        let known = match which {
            Revoke::One(id) => can_be_stored(&id.0),
            Revoke::AllOf(owner) => can_be_stored(owner.name()),
        };
        if !known {
            return Ok(0);
        }
        let revoked = self
            .database
            .run(STORE, "revoke", async {
                let revoked = match which {
                    Revoke::One(id) => {
                        let mut write = self.database.begin(Guard::Rows).await?;
                        let revoked = rows::delete_one(&mut write, id).await?;
                        write.commit().await?;
                        revoked
                    }
                    Revoke::AllOf(owner) => {
                        let mut write = self.database.begin(Guard::User(&folded(owner.name()))).await?;
                        let revoked = rows::delete_of_owner(&mut write, owner).await?;
                        // Everything known about the name is read again.
                        write.record(ChangeKind::User, &folded(owner.name()));
                        write.commit().await?;
                        revoked
                    }
                };
                Ok(revoked)
            })
            .await;
        // Also after a failure: it may be that only the answer to the commit was lost.
        match which {
            Revoke::One(id) => self.drop_token(id),
            Revoke::AllOf(owner) => self.sessions.drop_user(&folded(owner.name())),
        }
        revoked
    }
}

/// The owner as they are now; `None`: the token counts no more.
fn identity(
    token: &ApiToken,
    groups: Option<Vec<String>>,
    known: Option<User>,
) -> Result<Option<Identity>, Unavailable> {
    let unsendable = |error: crate::core::identity::Unsendable| damaged(error.to_string());
    let identity = match (&token.owner, known) {
        (Owner::User(_), Some(user)) if !user.disabled && user.token_version == token.version => {
            Identity::new(&user, Factor::One, token.created_at, None).map_err(unsendable)?
        }
        (Owner::User(_), _) => return Ok(None),
        (Owner::Service(name), Some(_)) => {
            // An application tells callers apart by name: the machine must never be taken for the person.
            tracing::warn!(account = name, "a user has the name of a service account: its tokens do not count");
            return Ok(None);
        }
        (Owner::Service(name), None) => {
            let Some(groups) = groups else { return Ok(None) };
            let account = User::new(name, groups);
            Identity::new(&account, Factor::One, token.created_at, None).map_err(unsendable)?.as_service()
        }
    };
    Ok(Some(identity))
}

fn unsure_of(hash: TokenHash, detail: &str, each: &mut Each<TokenHash, Arc<LiveApiToken>>) {
    tracing::debug!(token = %ApiTokenId::of(&hash), detail, "an API token cannot be read");
    each.unsure.insert(hash);
}

fn damaged(detail: String) -> Unavailable {
    Unavailable { store: STORE, detail }
}
