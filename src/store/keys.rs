//! Signing keys (Ed25519), in the database, their seeds encrypted under `storage.key_file` by ChaCha20-Poly1305. Asked by whoever signs
//! or verifies a token of ours: from memory. Never writes a seed in the clear, nor the key file's content anywhere.

use std::{
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit, Nonce,
    aead::{Aead, Payload},
};
use sha2::{Digest, Sha256};
use sqlx::FromRow;
use zeroize::Zeroizing;

use super::database::{Database, Guard};
use crate::ports::{ChangeKind, Entropy, Keys, SigningKey, SigningKeys, Unavailable};

const STORE: &str = "keys";
/// PKCS#8 around an Ed25519 seed (RFC 8410, section 7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

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
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

pub(super) struct DatabaseKeys {
    database: Arc<Database>,
    cipher: ChaCha20Poly1305,
    path: PathBuf,
    entropy: Arc<dyn Entropy>,
    current: ArcSwap<SigningKeys>,
}

impl DatabaseKeys {
    /// Opens the keys; at the first start makes one, and the key file (0600).
    pub(super) async fn open(
        database: Arc<Database>,
        path: &Path,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, KeyError> {
        let none_yet = rows(&database).await?.is_empty();
        let secret = read_or_create(path, none_yet, &*entropy)?;
        let cipher =
            ChaCha20Poly1305::new_from_slice(secret.as_slice()).map_err(|_| KeyError::Malformed(path.to_owned()))?;
        let keys = load(&database, &cipher, path, &*entropy).await?;
        Ok(Self { database, cipher, path: path.to_owned(), entropy, current: ArcSwap::from_pointee(keys) })
    }

    /// Takes over what the follower read by its own connection: requests may have all others.
    pub(super) fn take_over(&self, rows: &[Row]) -> Result<(), KeyError> {
        self.current.store(Arc::new(opened(rows, &self.cipher, &self.path)?));
        Ok(())
    }
}

#[async_trait]
impl Keys for DatabaseKeys {
    fn signing(&self) -> Arc<SigningKeys> {
        self.current.load_full()
    }

    async fn reload(&self) -> Result<(), Unavailable> {
        let keys = match load(&self.database, &self.cipher, &self.path, &*self.entropy).await {
            Ok(keys) => keys,
            Err(KeyError::Unavailable(error)) => return Err(error),
            Err(error) => return Err(Unavailable { store: STORE, detail: error.to_string() }),
        };
        self.current.store(Arc::new(keys));
        Ok(())
    }
}

/// Also makes the first key: at the first start, and where another, empty database took the place of the one in use.
async fn load(
    database: &Database,
    cipher: &ChaCha20Poly1305,
    path: &Path,
    entropy: &dyn Entropy,
) -> Result<SigningKeys, KeyError> {
    let mut found = rows(database).await?;
    if found.is_empty() {
        make_first(database, cipher, path, entropy).await?;
        found = rows(database).await?;
    }
    opened(&found, cipher, path)
}

/// In both dialects: [`Row`]s, the one in force first.
pub(super) const ROWS: &str = "SELECT kid, nonce, sealed FROM signing_keys ORDER BY created_at DESC, kid";

#[derive(FromRow)]
pub(super) struct Row {
    kid: String,
    nonce: Vec<u8>,
    sealed: Vec<u8>,
}

async fn rows(database: &Database) -> Result<Vec<Row>, Unavailable> {
    database.run(STORE, "load", async { sqlx::query_as(ROWS).fetch_all(&database.pool()).await }).await
}

fn opened(rows: &[Row], cipher: &ChaCha20Poly1305, path: &Path) -> Result<SigningKeys, KeyError> {
    let wrong = || KeyError::Wrong(path.to_owned());
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let nonce = Nonce::try_from(row.nonce.as_slice()).map_err(|_| wrong())?;
        let payload = Payload { msg: &row.sealed, aad: row.kid.as_bytes() };
        let seed = Zeroizing::new(cipher.decrypt(&nonce, payload).map_err(|_| wrong())?);
        let seed = <[u8; 32]>::try_from(seed.as_slice()).map(Zeroizing::new).map_err(|_| wrong())?;
        keys.push(signing_key(&seed));
    }
    let mut keys = keys.into_iter();
    let current =
        keys.next().ok_or_else(|| Unavailable { store: STORE, detail: "there is no signing key".to_owned() })?;
    Ok(SigningKeys { current, older: keys.collect() })
}

async fn make_first(
    database: &Database,
    cipher: &ChaCha20Poly1305,
    path: &Path,
    entropy: &dyn Entropy,
) -> Result<(), KeyError> {
    let mut seed = Zeroizing::new([0; 32]);
    entropy.fill(seed.as_mut_slice());
    let mut nonce = [0; 12];
    entropy.fill(&mut nonce);
    let kid = signing_key(&seed).kid;
    let sealed = cipher
        .encrypt(&Nonce::from(nonce), Payload { msg: seed.as_slice(), aad: kid.as_bytes() })
        .map_err(|_| KeyError::Wrong(path.to_owned()))?;
    let now = database.clock.now().unix_millis();
    database
        .run(STORE, "create", async {
            // Two processes may start at once: the first one's key stands.
            let mut write = database.begin(Guard::SigningKeys).await?;
            let done = sqlx::query(
                "INSERT INTO signing_keys (kid, nonce, sealed, created_at) SELECT $1, $2, $3, $4 \
                 WHERE NOT EXISTS (SELECT 1 FROM signing_keys)",
            )
            .bind(&kid)
            .bind(nonce.as_slice())
            .bind(&sealed)
            .bind(now)
            .execute(&mut *write)
            .await?;
            if done.rows_affected() > 0 {
                write.record(ChangeKind::Key, &kid);
            }
            write.commit().await
        })
        .await?;
    Ok(())
}

fn signing_key(seed: &[u8; 32]) -> SigningKey {
    let public = ed25519_dalek::SigningKey::from_bytes(seed).verifying_key();
    let public_x = URL_SAFE_NO_PAD.encode(public.as_bytes());
    let der = Zeroizing::new([PKCS8.as_slice(), seed.as_slice()].concat());
    SigningKey {
        kid: thumbprint(&public_x),
        encoding: jsonwebtoken::EncodingKey::from_ed_der(&der),
        decoding: jsonwebtoken::DecodingKey::from_ed_der(public.as_bytes()),
        public_x,
    }
}

/// RFC 7638, over the members that RFC 8037 requires, in the order of their names.
fn thumbprint(public_x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{public_x}"}}"#);
    URL_SAFE_NO_PAD.encode(Sha256::digest(members.as_bytes()))
}

fn read_or_create(path: &Path, may_create: bool, entropy: &dyn Entropy) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let failed = |why| KeyError::File { path: path.to_owned(), why };
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => parsed(&text).ok_or_else(|| KeyError::Malformed(path.to_owned())),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        Err(_) if !may_create => Err(KeyError::Missing(path.to_owned())),
        Err(_) => {
            create(path, entropy).map_err(failed)?;
            // Read back: another process may have been first.
            let text = fs::read_to_string(path).map(Zeroizing::new).map_err(failed)?;
            parsed(&text).ok_or_else(|| KeyError::Malformed(path.to_owned()))
        }
    }
}

fn parsed(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
    <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new)
}

/// Written whole under another name, then linked: nobody can read half a key, and an existing file is never overwritten.
fn create(path: &Path, entropy: &dyn Entropy) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut secret = Zeroizing::new([0; 32]);
    entropy.fill(secret.as_mut_slice());
    let mut unique = [0; 8];
    entropy.fill(&mut unique);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", u64::from_le_bytes(unique)));
    let written = path.with_file_name(name);
    let linked = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&written).and_then(|mut file| {
        file.write_all(Zeroizing::new(STANDARD.encode(secret.as_slice()) + "\n").as_bytes())?;
        file.sync_all()?;
        fs::hard_link(&written, path)
    });
    let _ = fs::remove_file(&written);
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kid_is_the_thumbprint_of_rfc_8037() {
        // RFC 8037, appendix A.1 to A.3.
        let seed = URL_SAFE_NO_PAD.decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
        let key = signing_key(&seed.try_into().unwrap());
        assert_eq!(key.public_x, "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
        assert_eq!(key.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn what_a_key_signs_it_verifies() {
        let key = signing_key(&[7; 32]);
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
        let token =
            jsonwebtoken::encode(&header, &serde_json::json!({"exp": 4_000_000_000_u64}), &key.encoding).unwrap();
        let validation = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::EdDSA);
        assert!(jsonwebtoken::decode::<serde_json::Value>(&token, &key.decoding, &validation).is_ok());
        let other = signing_key(&[8; 32]);
        assert!(jsonwebtoken::decode::<serde_json::Value>(&token, &other.decoding, &validation).is_err());
    }
}
