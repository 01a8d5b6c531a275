use std::{fmt::Write as _, fs, path::Path, sync::atomic::Ordering, time::Duration};

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::{
    system::{SystemClock, SystemEntropy},
    *,
};
use crate::ports::fakes;

/// All stores on a SQLite file of their own, with nothing in the background.
pub(in crate::store) async fn scratch(folder: &TempDir) -> Stores {
    let file = |name: &str| folder.path().join(name);
    let minute = Duration::from_secs(60);
    let options = Options {
        storage: Storage {
            database: crate::config::DatabaseAddress::Sqlite(file("postern.db")),
            key_file: file("postern.key"),
            sessions: SessionsPlace::Database,
            counters: crate::config::CountersPlace::Memory,
            counters_on_failure: crate::config::OnFailure::Share,
        },
        users: UsersSource::Database,
        source_limit: None,
        regulation: None,
        lifetimes: Lifetimes { idle: minute, lifetime: minute, remember_me: minute },
        algorithm: SigningAlgorithm::EdDsa,
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    open_with(options, metrics, Arc::new(SystemClock::new()), Arc::new(SystemEntropy)).await.unwrap()
}

async fn execute(stores: &Stores, statement: &'static str) {
    sqlx::query(statement).execute(&stores.background.database.pool()).await.unwrap();
}

async fn count(stores: &Stores, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(&stores.background.database.pool()).await.unwrap()
}

#[tokio::test]
async fn a_step_of_the_cleaning_that_fails_keeps_no_other_from_its_turn() {
    let folder = tempfile::tempdir().unwrap();
    let stores = scratch(&folder).await;
    execute(&stores, "INSERT INTO revoked_tokens (jti, expires_at) VALUES ('old', 1)").await;
    execute(&stores, "INSERT INTO changes (kind, id, at) VALUES ('session', 'old', 1)").await;
    execute(
        &stores,
        "INSERT INTO signing_keys (kid, nonce, sealed, created_at, retires_at) VALUES ('old', x'00', x'00', 1, 1)",
    )
    .await;
    execute(&stores, "DROP TABLE api_tokens").await;
    let failed = stores.background.clean().await.unwrap_err();
    assert_eq!(failed.store, "api_tokens", "{failed}");
    for left in [
        "SELECT count(*) FROM revoked_tokens",
        "SELECT count(*) FROM changes WHERE at = 1",
        "SELECT count(*) FROM signing_keys WHERE kid = 'old'",
    ] {
        assert_eq!(count(&stores, left).await, 0, "{left}");
    }
    stores.close().await;
}

/// A page of families, and one more.
#[tokio::test]
async fn families_that_cannot_be_looked_at_keep_no_later_ones_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let stores = scratch(&folder).await;
    execute(
        &stores,
        "WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < 500) \
         INSERT INTO refresh_tokens (hash, session, generation, expires_at) \
         SELECT CAST(printf('%032d', n) AS BLOB), printf('family-%03d', n), 1, 9000000000000 FROM numbers",
    )
    .await;
    let families = "SELECT count(*) FROM refresh_tokens";
    let (tokens, sessions) = (&stores.background.tokens, fakes::Stores::default());
    sessions.down.store(true, Ordering::SeqCst);
    assert!(tokens.clean(&sessions).await.is_err());
    assert_eq!(count(&stores, families).await, 501, "of none it is known that it is over");
    sessions.down.store(false, Ordering::SeqCst);
    tokens.clean(&sessions).await.unwrap();
    assert_eq!(count(&stores, families).await, 500);
    assert_eq!(count(&stores, "SELECT count(*) FROM refresh_tokens WHERE session = 'family-500'").await, 0);
    tokens.clean(&sessions).await.unwrap();
    assert_eq!(count(&stores, families).await, 0, "and those have their turn again");
    stores.close().await;
}

/// Databases exist that were made by these, and a server does not start on one whose migrations were others. What is to change is another file.
#[test]
fn a_migration_that_has_landed_is_never_edited() {
    let landed = [
        ("sqlite/0001_first.sql", "9d05ca0e89198e642654e1434e250dfaeab305b4aa2e3d8e0f8ce585504507e5"),
        ("sqlite/0002_attributes.sql", "1d2ceb399b1a15fbb8633772c08bdc6e59eae1d4c5b2dd22870b1ab5d608959e"),
        ("sqlite/0004_api_tokens.sql", "32ff8be47f50740016e419e856b8822d538f2759d9e54aad25b62e3cbed27eec"),
        ("sqlite/0006_hand_over.sql", "915b8cd034bd63bf2b5a2ea9b4a17aa42dbc3c0b26a72bb739ab1b551581a3a1"),
        ("sqlite/0007_tokens.sql", "b5529d763d48ea2b363ee4aed966d9baa0d6743243a28286428487d0048a1b69"),
        ("sqlite/0008_devices.sql", "a5f5283161f42c489e9b67fc84e1763642372549b3e84b519963af948b60800e"),
        ("sqlite/0009_session_ends.sql", "639d17fdb4d652dc0cfcb274581ac27ca50548320aabb6523ad7953d0a7867df"),
        ("sqlite/0010_sign_in_counts.sql", "0605a3c0e9011c0dfdfa7d4d7abb70d516943fe669338a33aa7729ea139fc268"),
        ("postgres/0001_first.sql", "5311140ebbb3af266d71d1447ee4b439a6199b81fcbc86001a3fd25699213a07"),
        ("postgres/0003_api_tokens.sql", "c1eb1475b06e546817917c431a875b1fd364de4f15730b404d56b179c85f3ce9"),
        ("postgres/0005_hand_over.sql", "014906a9ce827714f01b2f8600511b0a3a03ea61c62c2c3c67f5e3bcff75f30d"),
        ("postgres/0006_tokens.sql", "059a73be32ad1645adbc7bbac266ee59479a790df765a43f871504f60ae6397c"),
        ("postgres/0007_devices.sql", "185e980d98536e213c63118bf5e3058ce82d395df977896b75b2bd26ab059864"),
        ("postgres/0008_session_ends.sql", "def3c0750bcb63c7e4a2ff758edde81c4c82277c57e12601ad7edfc8633b137e"),
        ("postgres/0009_sign_in_counts.sql", "cb3b316eb24615d04ec28f9e28a338298e27eddf1803cf63038c8177c8c3c46e"),
    ];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/migrations");
    let mut found = Vec::new();
    for dialect in ["sqlite", "postgres"] {
        for entry in fs::read_dir(folder.join(dialect)).unwrap() {
            let entry = entry.unwrap();
            let mut digest = String::new();
            for byte in Sha256::digest(fs::read(entry.path()).unwrap()) {
                write!(digest, "{byte:02x}").unwrap();
            }
            found.push((format!("{dialect}/{}", entry.file_name().display()), digest));
        }
    }
    found.sort();
    let mut landed = landed.map(|(name, digest)| (name.to_owned(), digest.to_owned())).to_vec();
    landed.sort();
    // A new file is pinned with the change that brings it.
    assert_eq!(found, landed);
}
