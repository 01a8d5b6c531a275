//! A database that the version before made, with what it held.

use std::{borrow::Cow, fs, path::Path, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use chacha20poly1305::{
    ChaCha20Poly1305, KeyInit as _, Nonce,
    aead::{Aead as _, Payload},
};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use postern::{
    core::{
        session::TokenHash,
        time::Timestamp,
        tokens::{AccessClaims, SigningAlgorithm, TokenSettings},
    },
    gate::tokens,
    ports::{Exchange, Exchanged, RefreshToken, Rotation, Takeover},
    store::Stores,
};
use sqlx::{Connection as _, migrate::Migrator};

use crate::harness::{Place, session};

crate::for_every_database!(a_database_of_the_version_before_our_tokens_keeps_its_key_and_its_sessions);

/// RFC 8037, appendix A.
const SEED: &str = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A";
const KID: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";
/// What comes before the seed in PKCS#8.
const ED25519: [u8; 16] = [48, 46, 2, 1, 0, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32];
const KEY_FILE: [u8; 32] = [7; 32];
const MINUTE: Duration = Duration::from_secs(60);

/// The tables that were there before `tokens`, and nothing else.
async fn made_by_the_version_before(place: &Place) {
    let (folder, landed): (_, &[i64]) =
        if place.is_sqlite() { ("sqlite", &[1, 2, 4, 6]) } else { ("postgres", &[1, 3, 5]) };
    fs::create_dir_all(place.database().parent().unwrap()).unwrap();
    if place.is_sqlite() {
        fs::File::create(place.database()).unwrap();
    }
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/migrations").join(folder);
    let mut migrations = Migrator::new(all).await.unwrap();
    let before: Vec<_> =
        migrations.migrations.iter().filter(|migration| landed.contains(&migration.version)).cloned().collect();
    assert_eq!(before.len(), landed.len());
    migrations.migrations = Cow::Owned(before);
    let mut connection = place.connect().await;
    migrations.run(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// A key as that version sealed it, a user, and a session of hers.
async fn filled(place: &Place, made: &postern::core::session::Session) {
    fs::write(place.key_file(), STANDARD.encode(KEY_FILE) + "\n").unwrap();
    let nonce = [9; 12];
    let seed = URL_SAFE_NO_PAD.decode(SEED).unwrap();
    let cipher = ChaCha20Poly1305::new_from_slice(&KEY_FILE).unwrap();
    let sealed = cipher.encrypt(&Nonce::from(nonce), Payload { msg: &seed, aad: KID.as_bytes() }).unwrap();
    let mut connection = place.connect().await;
    sqlx::query("INSERT INTO signing_keys (kid, nonce, sealed, created_at) VALUES ($1, $2, $3, $4)")
        .bind(KID)
        .bind(nonce.as_slice())
        .bind(sealed)
        .bind(made.created_at.unix_millis())
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query("INSERT INTO users (folded, name, display_name, token_version) VALUES ('ann', 'ann', 'Ann', 4)")
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::query(
        "INSERT INTO sessions (id, folded, name, factor, domain, gate_hash, portal_hash, remembered, created_at, \
         signed_in_at, last_used_at, user_agent) VALUES ($1, 'ann', 'ann', 'one', $2, $3, $4, 1, $5, $5, $5, $6)",
    )
    .bind(made.id.as_str())
    .bind(&made.domain)
    .bind(made.gate_hash.0.as_slice())
    .bind(made.portal_hash.0.as_slice())
    .bind(made.created_at.unix_millis())
    .bind(&made.user_agent)
    .execute(&mut connection)
    .await
    .unwrap();
    connection.close().await.unwrap();
}

fn settings() -> TokenSettings {
    TokenSettings {
        issuer: "https://auth.example.com".to_owned(),
        audience: "postern".to_owned(),
        access: 15 * MINUTE,
        trusted_issuers: Vec::new(),
        refresh: 60 * MINUTE,
        algorithm: SigningAlgorithm::EdDsa,
    }
}

/// As that version signed it.
fn token_of(made: &postern::core::session::Session, now: Timestamp) -> String {
    let claims = AccessClaims {
        iss: settings().issuer,
        sub: "ann".to_owned(),
        aud: settings().audience,
        iat: now.unix_seconds(),
        exp: now.after(15 * MINUTE).unix_seconds(),
        nbf: None,
        jti: "of-another-make".to_owned(),
        sid: made.id.to_string(),
        groups: Vec::new(),
        ver: 4,
    };
    let header = Header { typ: Some("at+jwt".to_owned()), kid: Some(KID.to_owned()), ..Header::new(Algorithm::EdDSA) };
    let document = [ED25519.as_slice(), &URL_SAFE_NO_PAD.decode(SEED).unwrap()].concat();
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&document)).unwrap()
}

async fn verifies(stores: &Stores, token: &str) -> bool {
    let now = stores.clock.now();
    tokens::verified(token, &*stores.keys, &settings(), now).await.unwrap().is_ok_and(|(claims, _)| claims.sub == "ann")
}

async fn a_database_of_the_version_before_our_tokens_keeps_its_key_and_its_sessions(place: Place) {
    made_by_the_version_before(&place).await;
    let made = session("ann");
    filled(&place, &made).await;
    let stores = place.open().await.unwrap();
    let now = stores.clock.now();
    let token = token_of(&made, now);
    assert!(verifies(&stores, &token).await);
    let signing = stores.keys.signing();
    let key = signing.signing(now).unwrap();
    assert_eq!((key.kid.as_str(), key.times.signs_from, key.times.retires_at), (KID, made.created_at, None));
    let found = stores.sessions.find(&made.gate_hash).await.unwrap().unwrap();
    assert_eq!((found.id().clone(), found.identity.token_version), (made.id.clone(), 4));
    // The old key goes its way, and the old session gets tokens.
    let takeover = Takeover::After(MINUTE);
    let access = settings().access;
    stores.keys.rotate(Rotation { algorithm: SigningAlgorithm::EdDsa, takeover, access }).await.unwrap();
    assert!(verifies(&stores, &token).await);
    let token_named = |name: &str| RefreshToken {
        hash: TokenHash::of(name),
        session: made.id.clone(),
        expires_at: now.after(MINUTE),
    };
    stores.tokens.insert_refresh(token_named("1")).await.unwrap();
    let exchange = Exchange {
        presented: TokenHash::of("1"),
        next: token_named("2"),
        now,
        end_of_session: now.after(60 * MINUTE),
        place: None,
    };
    assert_eq!(stores.tokens.exchange(exchange).await.unwrap(), Exchanged::Done);
    stores.close().await;
    // And once more, with nothing left to do.
    let again = place.open().await.unwrap();
    assert!(verifies(&again, &token).await);
    again.close().await;
}
