//! Signing keys, in the database, encrypted under `storage.key_file` by ChaCha20-Poly1305. Asked by whoever signs or verifies a token of
//! ours: from memory. Never writes a private key in the clear, nor the key file's content anywhere.
//!
//! A new key is published at once and signs later, by the times in its row: every node has it by then, and so has whoever verifies and keeps the
//! JWKS as long as it says. The one before verifies until what it signed has expired, and is cleaned away then.

mod key_file;
mod life;
mod material;
mod memory;
#[cfg(test)]
mod tests;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use secrecy::{ExposeSecret as _, SecretBox};
use sha2::{Digest as _, Sha256};
use sqlx::{AnyConnection, AnyPool, FromRow};
use zeroize::Zeroizing;

use self::memory::Memory;
use super::{
    database::{Database, Guard, Write},
    session::SessionCache,
};
use crate::{
    core::{time::Timestamp, tokens::SigningAlgorithm},
    ports::{ChangeKind, Entropy, KeyTimes, Keys, Rotation, SigningKey, SigningKeys, Takeover, Unavailable},
};

const STORE: &str = "keys";
/// Another node's clock may be so far behind: it still signs with the key before, and its tokens expire later.
const MARGIN: Duration = Duration::from_secs(60);

#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("the key file {path} cannot be read or written: {why}")]
    File { path: PathBuf, why: std::io::Error },
    #[error("the key file {0} does not hold 32 bytes in base64: restore the one that belongs to this database")]
    Malformed(PathBuf),
    #[error(
        "the key file {0} does not open the signing keys in the database: restore the key file that belongs to this database"
    )]
    Wrong(PathBuf),
    #[error(
        "the key file {0} is missing, but the database holds keys encrypted under it: restore it (or, to start with new keys, \
         empty the table signing_keys)"
    )]
    Missing(PathBuf),
    #[error("a signing key of {0} could not be made")]
    Unmade(SigningAlgorithm),
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<KeyError> for Unavailable {
    fn from(error: KeyError) -> Self {
        match error {
            KeyError::Unavailable(error) => error,
            error => Self { store: STORE, detail: error.to_string() },
        }
    }
}

pub(super) struct DatabaseKeys {
    vault: Vault,
    memory: Memory,
    /// Milliseconds that a token lives which this process signs; 0: it signs none.
    token_life: AtomicI64,
    /// Which knows whether memory may be believed: one log is followed for all.
    cache: Arc<SessionCache>,
    of_counts: SecretBox<[u8; 32]>,
}

/// Where keys are kept, and how they are sealed.
struct Vault {
    database: Arc<Database>,
    cipher: ChaCha20Poly1305,
    path: PathBuf,
    entropy: Arc<dyn Entropy>,
    /// Of the first key.
    algorithm: SigningAlgorithm,
}

/// A key that is not stored yet.
struct Made {
    kid: String,
    algorithm: SigningAlgorithm,
    nonce: [u8; 12],
    sealed: Vec<u8>,
}

/// A key for another purpose: it tells nothing of the one in the file, nor of others.
fn derived(purpose: &[u8], secret: &[u8; 32]) -> [u8; 32] {
    let mut digest = Sha256::new();
    // The length first, so that no two purposes give the same bytes.
    digest.update((purpose.len() as u64).to_le_bytes());
    digest.update(purpose);
    digest.update(secret);
    digest.finalize().into()
}

impl DatabaseKeys {
    /// Opens the keys; at the first start makes one of `algorithm`, and the key file (0600).
    pub(super) async fn open(
        database: Arc<Database>,
        cache: Arc<SessionCache>,
        path: &Path,
        algorithm: SigningAlgorithm,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeyError> {
        let none_yet = rows(&database, &database.pool()).await?.is_empty();
        let secret = key_file::read_or_create(path, none_yet, &*entropy)?;
        let cipher =
            ChaCha20Poly1305::new_from_slice(secret.as_slice()).map_err(|_| KeyError::Malformed(path.to_owned()))?;
        let vault = Vault { database, cipher, path: path.to_owned(), entropy, algorithm };
        let keys = vault.load(&vault.database.pool()).await?;
        let of_counts = SecretBox::new(Box::new(derived(b"sign-in counts", &secret)));
        Ok(Self { vault, memory: Memory::of(keys), token_life: AtomicI64::new(0), cache, of_counts })
    }

    /// What names in the counters of regulation are hashed under: the same on every node.
    pub(super) fn of_counts(&self) -> SecretBox<[u8; 32]> {
        SecretBox::new(Box::new(*self.of_counts.expose_secret()))
    }

    /// Deletes keys whose last token has expired. No row of the log: by their times nobody believes them any more.
    pub(super) async fn clean(&self) -> Result<(), Unavailable> {
        let database = &self.vault.database;
        // Another process may have made a key since, by a configuration of its own.
        self.tell_life(self.token_life.load(Ordering::SeqCst)).await?;
        let clean = sqlx::query("DELETE FROM signing_keys WHERE retires_at < $1")
            .bind(database.clock.now().before(MARGIN).unix_millis());
        database.run(STORE, "clean", async { clean.execute(&database.pool()).await }).await?;
        Ok(())
    }

    /// Lets no key retire before tokens that live so long; asks nobody where every key knows of them.
    async fn tell_life(&self, life: i64) -> Result<(), Unavailable> {
        let database = &self.vault.database;
        let now = database.clock.now();
        if life::is_known(&self.memory.keys(), life, now) {
            return Ok(());
        }
        let told = database.run(STORE, "tell_life", async {
            let mut write = database.begin(Guard::SigningKeys).await?;
            life::tell(&mut write, life, now).await?;
            write.commit().await
        });
        told.await?;
        self.reload().await
    }
}

#[async_trait]
impl Keys for DatabaseKeys {
    fn signing(&self) -> Arc<SigningKeys> {
        self.memory.keys()
    }

    fn peek(&self) -> Option<Arc<SigningKeys>> {
        self.cache.is_trusted().then(|| self.memory.keys())
    }

    async fn read(&self) -> Result<Arc<SigningKeys>, Unavailable> {
        // The pool of when its turn has come: the one of now may be closed by then.
        self.memory.shared(async { Ok(self.vault.load(&self.vault.database.pool()).await?) }).await
    }

    async fn reload(&self) -> Result<(), Unavailable> {
        let reading = self.memory.begin();
        let keys = self.vault.load(&self.vault.database.followers_pool()).await?;
        self.memory.take(reading, &Arc::new(keys));
        Ok(())
    }

    async fn rotate(&self, rotation: Rotation) -> Result<String, Unavailable> {
        let made = self.vault.make(rotation.algorithm).await?;
        let database = &self.vault.database;
        let stored = database.run(STORE, "rotate", async {
            let mut write = database.begin(Guard::SigningKeys).await?;
            put(&mut write, &made, rotation, database.clock.now()).await?;
            write.commit().await
        });
        stored.await?;
        self.reload().await?;
        Ok(made.kid)
    }

    async fn adopt(&self, rotation: Rotation) -> Result<Option<String>, Unavailable> {
        let life = millis(rotation.access);
        self.tell_life(life).await?;
        self.token_life.store(life, Ordering::SeqCst);
        // By memory: a reload that changes nothing of this must not need the database.
        if self.memory.keys().newest().is_some_and(|newest| newest.algorithm == rotation.algorithm) {
            return Ok(None);
        }
        let database = &self.vault.database;
        let made = self.vault.make(rotation.algorithm).await?;
        let stored = database.run(STORE, "adopt", async {
            let mut write = database.begin(Guard::SigningKeys).await?;
            // Another node that was told the same may have been first.
            if newest(&mut write).await?.as_deref() == Some(rotation.algorithm.as_str()) {
                return Ok(false);
            }
            put(&mut write, &made, rotation, database.clock.now()).await?;
            write.commit().await?;
            Ok(true)
        });
        let is_ours = stored.await?;
        self.reload().await?;
        Ok(is_ours.then_some(made.kid))
    }
}

impl Vault {
    /// Also makes the first key: at the first start, and where another, empty database took the place of the one in use.
    async fn load(&self, pool: &AnyPool) -> Result<SigningKeys, KeyError> {
        let mut found = rows(&self.database, pool).await?;
        if found.is_empty() {
            self.make_first().await?;
            found = rows(&self.database, pool).await?;
        }
        let keys: Vec<SigningKey> =
            found.into_iter().filter_map(|row| self.opened(row).transpose()).collect::<Result<_, _>>()?;
        if keys.is_empty() {
            return Err(Unavailable { store: STORE, detail: "there is no signing key".to_owned() }.into());
        }
        Ok(SigningKeys::new(keys))
    }

    /// `None`: a key of a newer version, by an algorithm that nobody knows here. To stop at it would keep the keys in force that were removed for it.
    fn opened(&self, row: Row) -> Result<Option<SigningKey>, KeyError> {
        let algorithm = match row.algorithm.parse() {
            Ok(algorithm) => algorithm,
            Err(error) => {
                tracing::warn!(kid = row.kid, %error, "a signing key was made by a newer version: it is passed over");
                return Ok(None);
            }
        };
        let wrong = || KeyError::Wrong(self.path.clone());
        let nonce = Nonce::try_from(row.nonce.as_slice()).map_err(|_| wrong())?;
        let payload = Payload { msg: &row.sealed, aad: row.kid.as_bytes() };
        let secret = Zeroizing::new(self.cipher.decrypt(&nonce, payload).map_err(|_| wrong())?);
        let times = KeyTimes {
            created_at: Timestamp::from_unix_millis(row.created_at),
            signs_from: Timestamp::from_unix_millis(row.signs_from),
            retires_at: row.retires_at.map(Timestamp::from_unix_millis),
            token_life: Duration::from_millis(u64::try_from(row.token_life).unwrap_or(0)),
        };
        let key = material::key_of(algorithm, &secret, times).map_err(|_| wrong())?;
        // The name is made of the public key: whoever only writes the database makes no key another's, nor its algorithm another.
        if key.kid == row.kid { Ok(Some(key)) } else { Err(wrong()) }
    }

    /// On a thread of its own: an RSA key takes its time.
    async fn make(&self, algorithm: SigningAlgorithm) -> Result<Made, KeyError> {
        let entropy = self.entropy.clone();
        let unmade = || KeyError::Unmade(algorithm);
        let secret = tokio::task::spawn_blocking(move || material::make(algorithm, &*entropy));
        let secret = secret.await.map_err(|_| unmade())?.map_err(|_| unmade())?;
        let at = self.database.clock.now();
        let times = KeyTimes { created_at: at, signs_from: at, retires_at: None, token_life: Duration::ZERO };
        let kid = material::key_of(algorithm, &secret, times).map_err(|_| unmade())?.kid;
        let mut nonce = [0; 12];
        self.entropy.fill(&mut nonce);
        let sealed = self
            .cipher
            .encrypt(&Nonce::from(nonce), Payload { msg: secret.as_slice(), aad: kid.as_bytes() })
            .map_err(|_| unmade())?;
        Ok(Made { kid, algorithm, nonce, sealed })
    }

    async fn make_first(&self) -> Result<(), KeyError> {
        let made = self.make(self.algorithm).await?;
        let now = self.database.clock.now();
        let stored = self.database.run(STORE, "create", async {
            // Two processes may start at once: the first one's key stands.
            let mut write = self.database.begin(Guard::SigningKeys).await?;
            if newest(&mut write).await?.is_some() {
                return Ok(());
            }
            insert(&mut write, &made, now, 0, now).await?;
            write.commit().await
        });
        Ok(stored.await?)
    }
}

/// Puts a key beside the others, or in their place. `write` guards the keys.
async fn put(write: &mut Write, made: &Made, rotation: Rotation, now: Timestamp) -> Result<(), sqlx::Error> {
    let signs_from = match rotation.takeover {
        Takeover::AtOnce => {
            sqlx::query("DELETE FROM signing_keys").execute(&mut **write).await?;
            now
        }
        Takeover::After(delay) => {
            let last: Option<i64> =
                sqlx::query_scalar("SELECT max(signs_from) FROM signing_keys").fetch_one(&mut **write).await?;
            // A key that waits already takes over before: its tokens must not outlive its time.
            let signs_from =
                now.after(delay).max(Timestamp::from_unix_millis(last.unwrap_or_default().saturating_add(1)));
            // Whichever is longer: what this configuration lets them sign, or any that was told of.
            sqlx::query(
                "UPDATE signing_keys SET retires_at = $1 + CASE WHEN token_life > $2 THEN token_life ELSE $2 END \
                 WHERE retires_at IS NULL",
            )
            .bind(signs_from.after(MARGIN).unix_millis())
            .bind(millis(rotation.access))
            .execute(&mut **write)
            .await?;
            signs_from
        }
    };
    insert(write, made, signs_from, millis(rotation.access), now).await
}

async fn insert(
    write: &mut Write,
    made: &Made,
    signs_from: Timestamp,
    token_life: i64,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO signing_keys (kid, nonce, sealed, created_at, algorithm, signs_from, token_life) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&made.kid)
    .bind(made.nonce.as_slice())
    .bind(&made.sealed)
    .bind(now.unix_millis())
    .bind(made.algorithm.as_str())
    .bind(signs_from.unix_millis())
    .bind(token_life)
    .execute(&mut **write)
    .await?;
    write.record(ChangeKind::Key, &made.kid);
    Ok(())
}

/// The algorithm of the key that signs last.
async fn newest(connection: &mut AnyConnection) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT algorithm FROM signing_keys ORDER BY signs_from DESC, created_at DESC, kid LIMIT 1")
        .fetch_optional(connection)
        .await
}

#[derive(FromRow)]
struct Row {
    kid: String,
    nonce: Vec<u8>,
    sealed: Vec<u8>,
    created_at: i64,
    algorithm: String,
    signs_from: i64,
    retires_at: Option<i64>,
    token_life: i64,
}

async fn rows(database: &Database, pool: &AnyPool) -> Result<Vec<Row>, Unavailable> {
    database
        .run(STORE, "load", async {
            sqlx::query_as(
                "SELECT kid, nonce, sealed, created_at, algorithm, signs_from, retires_at, token_life FROM signing_keys",
            )
            .fetch_all(pool)
            .await
        })
        .await
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 4)
}
