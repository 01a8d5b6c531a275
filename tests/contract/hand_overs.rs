//! Codes of the hand-over, and the sessions that come of them.

use std::time::Duration;

use postern::{
    core::session::{Session, SessionFacts, SessionId, TokenHash},
    ports::{End, HandOver},
};

use crate::harness::{Place, eventually, session, told_of};

crate::for_every_store!(
    a_code_is_redeemed_once,
    a_code_that_nobody_came_for_is_cleaned_away,
    a_handed_over_session_ends_with_the_one_that_it_came_from,
    a_session_that_is_over_hands_nothing_over,
    a_session_that_is_replaced_hands_nothing_over,
    sessions_of_a_version_that_handed_nothing_over_live_on,
);

fn hand_over(of: &Session, expires_in: i64) -> HandOver {
    let expires_at = of.created_at.unix_millis() + expires_in;
    HandOver {
        session: of.id.clone(),
        domain: "example.net".to_owned(),
        state: "1.state".to_owned(),
        rd: "https://app.example.net/ä?b".to_owned(),
        rm: "GET".to_owned(),
        expires_at: postern::core::time::Timestamp::from_unix_millis(expires_at),
    }
}

fn child(of: &Session) -> Session {
    Session { parent: Some(of.id.clone()), domain: "example.net".to_owned(), ..session(&of.user) }
}

async fn a_code_is_redeemed_once(place: Place) {
    let (node, other) = (place.node().await, place.node().await);
    node.add_user("ann").await;
    let ann = node.sign_in("ann").await;
    let code = TokenHash::of("a code");
    let given = hand_over(&ann, 30_000);
    node.stores.hand_overs.give(&code, given.clone()).await.unwrap();
    assert_eq!(node.stores.hand_overs.redeem(&TokenHash::of("another")).await.unwrap(), None);
    // Both at once, on two nodes.
    let (here, there) = tokio::join!(node.stores.hand_overs.redeem(&code), other.stores.hand_overs.redeem(&code));
    let mut redeemed = [here.unwrap(), there.unwrap()];
    redeemed.sort_by_key(Option::is_none);
    assert_eq!(redeemed, [Some(given), None]);
    assert_eq!(node.stores.hand_overs.redeem(&code).await.unwrap(), None);
    node.stop().await;
    other.stop().await;
}

async fn a_code_that_nobody_came_for_is_cleaned_away(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let ann = node.sign_in("ann").await;
    let (old, new) = (TokenHash::of("old"), TokenHash::of("new"));
    node.stores.hand_overs.give(&old, hand_over(&ann, -60_000)).await.unwrap();
    node.stores.hand_overs.give(&new, hand_over(&ann, 60_000)).await.unwrap();
    assert_eq!(node.stores.hand_overs.redeem(&old).await.unwrap(), None);
    assert!(node.stores.hand_overs.redeem(&new).await.unwrap().is_some());
    node.stop().await;
}

async fn a_handed_over_session_ends_with_the_one_that_it_came_from(place: Place) {
    let (node, other) = (place.node().await, place.node().await);
    node.add_user("ann").await;
    let sessions = &node.stores.sessions;
    let is_there = async |session: &Session| sessions.find(&session.gate_hash).await.unwrap().is_some();
    for by_child in [false, true] {
        let parent = node.sign_in("ann").await;
        let (first, second, foreign) = (child(&parent), child(&parent), node.sign_in("ann").await);
        for made in [&first, &second] {
            assert_eq!(
                told_of(&sessions.create(made.clone(), &[]).await.unwrap()),
                (made.id.clone(), SessionFacts::from(made))
            );
            other.warm(made).await;
        }
        let ended = if by_child { &second } else { &parent };
        assert_eq!(sessions.end(End::One(&ended.id)).await.unwrap(), 3, "{by_child}");
        for gone in [&parent, &first, &second] {
            assert!(!is_there(gone).await && !node.knows(gone));
        }
        for gone in [&first, &second] {
            eventually("the other node knows", Duration::from_secs(2), || async { !other.knows(gone) }).await;
        }
        assert!(is_there(&foreign).await);
    }
    // All others, as either of them asks.
    for by_child in [false, true] {
        let (parent, foreign) = (node.sign_in("ann").await, node.sign_in("ann").await);
        let (made, of_foreign) = (child(&parent), child(&foreign));
        for made in [&made, &of_foreign] {
            sessions.create(made.clone(), &[]).await.unwrap();
        }
        let kept = if by_child { &made.id } else { &parent.id };
        sessions.end(End::AllBut { user: "ann", kept }).await.unwrap();
        assert!(is_there(&parent).await && is_there(&made).await, "{by_child}");
        assert!(!is_there(&foreign).await && !is_there(&of_foreign).await, "{by_child}");
    }
    // A sign-in in the place of what was handed over, and in the place of where it came from.
    let parent = node.sign_in("ann").await;
    let (first, second) = (child(&parent), child(&parent));
    sessions.create(first.clone(), &[]).await.unwrap();
    sessions.create(second.clone(), std::slice::from_ref(&first.id)).await.unwrap();
    assert!(is_there(&parent).await && !is_there(&first).await && is_there(&second).await);
    node.warm(&second).await;
    sessions.create(session("ann"), std::slice::from_ref(&parent.id)).await.unwrap();
    assert!(!is_there(&parent).await && !is_there(&second).await && !node.knows(&second));
    node.stop().await;
    other.stop().await;
}

async fn a_session_that_is_over_hands_nothing_over(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let parent = node.sign_in("ann").await;
    node.stores.sessions.end(End::One(&parent.id)).await.unwrap();
    let late = child(&parent);
    assert!(node.stores.sessions.create(late.clone(), &[]).await.is_err());
    assert!(node.stores.sessions.find(&late.gate_hash).await.unwrap().is_none());
    let unknown = Session { parent: Some(SessionId::new("unknown".to_owned())), ..session("ann") };
    assert!(node.stores.sessions.create(unknown, &[]).await.is_err());
    node.stop().await;
}

async fn a_session_that_is_replaced_hands_nothing_over(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let parent = node.sign_in("ann").await;
    let made = child(&parent);
    assert!(node.stores.sessions.create(made.clone(), std::slice::from_ref(&parent.id)).await.is_err());
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    node.stop().await;
}

async fn sessions_of_a_version_that_handed_nothing_over_live_on(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let ann = node.sign_in("ann").await;
    node.stop().await;
    place
        .execute(
            "DROP TABLE hand_overs; DROP INDEX sessions_by_parent; ALTER TABLE sessions DROP COLUMN parent; \
             DELETE FROM _sqlx_migrations WHERE description = 'hand over'",
        )
        .await;
    let node = place.node().await;
    let found = node.stores.sessions.find(&ann.gate_hash).await.unwrap().unwrap();
    assert_eq!(told_of(&found), (ann.id.clone(), SessionFacts::from(&ann)));
    let made = child(&ann);
    assert_eq!(
        told_of(&node.stores.sessions.create(made.clone(), &[]).await.unwrap()),
        (made.id.clone(), SessionFacts::from(&made))
    );
    assert_eq!(node.stores.sessions.end(End::One(&ann.id)).await.unwrap(), 2);
    node.stop().await;
}
