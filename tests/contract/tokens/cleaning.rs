//! What is of no use any more goes away by itself.

use std::time::Duration;

use postern::{
    core::session::{SessionId, TokenHash},
    ports::{End, Exchange, Exchanged, RefreshToken, Revocation},
};

use super::{SECOND, exchange, now, remembered, token};
use crate::harness::{Later, Node, Place, eventually, user};

crate::for_every_store!(a_family_is_cleaned_away_once_its_session_is_over, what_has_expired_is_cleaned_away);

/// Cleaning is the first thing that a server does in the background.
async fn what_has_expired_is_cleaned_away(place: Place) {
    let stores = place.open().await.unwrap();
    stores.users.insert(user("ann"), None).await.unwrap();
    for (name, seconds) in [("old", 900), ("fresh", 90_000)] {
        remembered(&stores, name).await;
        let expires_at = now().after(Duration::from_secs(seconds));
        stores.tokens.revoke(name, expires_at).await.unwrap();
        stores.tokens.insert_refresh(RefreshToken { expires_at, ..token(name, name) }).await.unwrap();
    }
    let node = Node::following(place.open_at(Later::by(3600)).await.unwrap());
    eventually("the old ones are gone", 5 * SECOND, || async {
        !stores.tokens.is_revoked("old").await.unwrap()
            && stores.tokens.find_refresh(&TokenHash::of("old")).await.unwrap().is_none()
    })
    .await;
    assert!(stores.tokens.is_revoked("fresh").await.unwrap());
    assert!(stores.tokens.find_refresh(&TokenHash::of("fresh")).await.unwrap().is_some());
    assert_eq!(node.stores.tokens.peek_revoked("fresh"), Revocation::Revoked);
    node.stop().await;
    stores.close().await;
}

/// Whose tokens lead nowhere any more; however many families there are, and however many tokens they have.
async fn a_family_is_cleaned_away_once_its_session_is_over(place: Place) {
    let stores = place.open().await.unwrap();
    stores.users.insert(user("ann"), None).await.unwrap();
    for family in ["aaa", "family", "zzz"] {
        remembered(&stores, family).await;
    }
    let until = now().after(Duration::from_secs(86_400)).unix_millis();
    let text = "substr(n || '--------------------------------', 1, 32)";
    let hash = if place.is_sqlite() { format!("CAST({text} AS BLOB)") } else { format!("convert_to({text}, 'UTF8')") };
    let rows = |from: i32, to: i32, session: &str| {
        format!(
            "WITH RECURSIVE numbers (n) AS (SELECT {from} UNION ALL SELECT n + 1 FROM numbers WHERE n < {to}) \
             INSERT INTO refresh_tokens (hash, session, generation, expires_at) \
             SELECT {hash}, {session}, n, {until} FROM numbers"
        )
    };
    // Of one that has ended, and of those that nobody knows: more than a step of each.
    place.execute(&rows(10_001, 11_100, "'family'")).await;
    place.execute(&rows(20_001, 21_100, "'nobodys-' || n")).await;
    let found = async |number: i32| {
        let text = format!("{number}--------------------------------");
        let hash = TokenHash(*text.as_bytes().first_chunk().unwrap());
        stores.tokens.find_refresh(&hash).await.unwrap().is_some()
    };
    for name in ["aaa", "zzz"] {
        stores.tokens.insert_refresh(token(name, name)).await.unwrap();
    }
    assert!(found(10_001).await && found(11_100).await && found(20_001).await && found(21_100).await);
    stores.sessions.end(End::One(&SessionId::new("family".to_owned()))).await.unwrap();
    let node = place.node().await;
    eventually("no row is left but of those that live", 10 * SECOND, || async {
        place.question("SELECT CAST(count(*) AS TEXT) FROM refresh_tokens").await == "2"
    })
    .await;
    assert!(!found(10_001).await && !found(21_100).await);
    for name in ["aaa", "zzz"] {
        let next = Exchange { next: token(&format!("{name}-2"), name), ..exchange(name, "") };
        assert_eq!(stores.tokens.exchange(next).await.unwrap(), Exchanged::Done, "{name} lives");
    }
    node.stop().await;
    stores.close().await;
}
