//! Access tokens that were revoked before their time.

use std::time::Duration;

use postern::{
    core::tokens::jti_of,
    ports::{Revocation, Revoked},
};

use super::{SECOND, is_over, now, scene};
use crate::harness::{Place, eventually};

crate::for_every_store!(
    a_session_whose_tokens_are_revoked_too_often_ends,
    all_revocations_are_read_however_many_there_are,
    a_revoked_token_is_known_at_once_here_and_within_a_second_elsewhere,
    a_revocation_outlives_a_restart_and_is_known_before_anything_is_asked,
    memory_of_revocations_is_unsure_without_a_follower,
    many_are_asked_about_in_one_question,
);

async fn a_session_whose_tokens_are_revoked_too_often_ends(place: Place) {
    let (here, made) = scene(&place).await;
    let there = place.node().await;
    there.warm(&made).await;
    let until = now().after(Duration::from_secs(900));
    let jti = |number: i32| jti_of(&made.id, &number.to_string());
    for number in 0..50 {
        assert_eq!(here.stores.tokens.revoke(&jti(number), until).await.unwrap(), Revoked::Done);
    }
    assert_eq!(here.stores.tokens.revoke(&jti(0), until).await.unwrap(), Revoked::Before);
    assert_eq!(here.stores.tokens.revoke("of-another-make", until).await.unwrap(), Revoked::Done);
    assert!(!is_over(&here, &made).await);
    assert_eq!(here.stores.tokens.revoke(&jti(50), until).await.unwrap(), Revoked::WithSession(1));
    assert!(is_over(&here, &made).await, "at once here");
    eventually("and there", SECOND, || is_over(&there, &made)).await;
    assert_eq!(here.stores.tokens.revoke(&jti(51), until).await.unwrap(), Revoked::Done, "there is none to end");
    here.stop().await;
    there.stop().await;
}

async fn all_revocations_are_read_however_many_there_are(place: Place) {
    place.open().await.unwrap().close().await;
    let rows = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10001)";
    let until = now().after(Duration::from_secs(900)).unix_millis();
    place.execute(&format!("{rows} INSERT INTO revoked_tokens SELECT 'jti-' || n, {until} FROM numbers")).await;
    let stores = place.open().await.unwrap();
    for number in 1..=10_001 {
        assert_eq!(stores.tokens.peek_revoked(&format!("jti-{number}")), Revocation::Revoked, "{number}");
    }
    stores.close().await;
}

async fn a_revoked_token_is_known_at_once_here_and_within_a_second_elsewhere(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    for node in [&here, &there] {
        eventually("memory is sure", 5 * SECOND, || async {
            node.stores.tokens.peek_revoked("a") == Revocation::Holds
        })
        .await;
    }
    let until = now().after(Duration::from_secs(900));
    assert_eq!(here.stores.tokens.revoke("a", until).await.unwrap(), Revoked::Done);
    assert_eq!(here.stores.tokens.revoke("a", until).await.unwrap(), Revoked::Before);
    assert_eq!(here.stores.tokens.peek_revoked("a"), Revocation::Revoked);
    eventually("the other node knows", SECOND, || async {
        there.stores.tokens.peek_revoked("a") == Revocation::Revoked
    })
    .await;
    assert_eq!(there.stores.tokens.peek_revoked("b"), Revocation::Holds);
    here.stop().await;
    there.stop().await;
}

async fn a_revocation_outlives_a_restart_and_is_known_before_anything_is_asked(place: Place) {
    let first = place.open().await.unwrap();
    first.tokens.revoke("a", now().after(Duration::from_secs(900))).await.unwrap();
    first.close().await;
    let second = place.open().await.unwrap();
    assert_eq!(second.tokens.peek_revoked("a"), Revocation::Revoked);
    second.close().await;
}

async fn memory_of_revocations_is_unsure_without_a_follower(place: Place) {
    let stores = place.open().await.unwrap();
    assert_eq!(stores.tokens.peek_revoked("a"), Revocation::Unsure);
    let other = place.open().await.unwrap();
    other.tokens.revoke("a", now().after(Duration::from_secs(900))).await.unwrap();
    assert!(stores.tokens.is_revoked("a").await.unwrap());
    for jti in ["b", "", "\0", "' OR 1=1 --"] {
        assert!(!stores.tokens.is_revoked(jti).await.unwrap(), "{jti:?}");
    }
    stores.close().await;
    other.close().await;
}

/// Of open streams by access tokens, while the log is not read.
async fn many_are_asked_about_in_one_question(place: Place) {
    let (stores, other) = (place.open().await.unwrap(), place.open().await.unwrap());
    let until = now().after(Duration::from_secs(900));
    for jti in ["a", "Ä", "\"b\"]"] {
        other.tokens.revoke(jti, until).await.unwrap();
    }
    let jtis = ["a", "b", "A", "Ä", "ä", "\"b\"]", "", "\0", "a\0", "' OR 1=1 --"];
    let operations = [("tokens", "revoked_among"), ("tokens", "is_revoked")];
    let before = place.asked(operations);
    let revoked = stores.tokens.revoked_among(&jtis).await.unwrap();
    assert_eq!(place.asked_since(operations, before), [1, 0]);
    for jti in jtis {
        assert_eq!(revoked.contains(jti), stores.tokens.is_revoked(jti).await.unwrap(), "{jti:?} alone");
    }
    assert_eq!(revoked.len(), 3, "{revoked:?}");
    assert!(stores.tokens.revoked_among(&[]).await.unwrap().is_empty());
    stores.close().await;
    other.close().await;
}
