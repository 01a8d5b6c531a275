//! A second use of a refresh token, which ends its session.

use std::time::Duration;

use postern::{
    core::session::TokenHash,
    ports::{Exchange, Exchanged},
};

use super::{SECOND, exchange, exchanged, has_cleaned, is_over, now, of, remembered, scene, token};
use crate::harness::{Later, Node, Place, eventually, user};

crate::for_every_store!(
    a_second_use_closes_the_family,
    threat_36_a_second_use_is_known_however_often_the_token_was_followed,
    threat_36_a_second_use_is_known_after_the_token_would_have_expired,
    threat_36_nobody_is_kept_from_being_second_by_asking_often,
    beyond_those_times_a_second_use_is_still_one,
    a_second_use_ends_the_session_in_the_same_step,
);

async fn a_second_use_closes_the_family(place: Place) {
    let stores = place.open().await.unwrap();
    let tokens = &*stores.tokens;
    let elsewhere = |mut asked: Exchange| {
        asked.place = Some(TokenHash::of("elsewhere"));
        asked
    };
    let nowhere = |mut asked: Exchange| {
        asked.place = None;
        asked
    };
    let late = |mut asked: Exchange| {
        asked.now = asked.now.after(Duration::from_secs(11));
        asked
    };
    let early = |mut asked: Exchange| {
        asked.now = asked.now.before(Duration::from_secs(11));
        asked
    };
    let changes: [&(dyn Fn(Exchange) -> Exchange + Sync); 4] = [&elsewhere, &nowhere, &late, &early];
    for (round, change) in changes.into_iter().enumerate() {
        let name = |number: &str| format!("{round}-{number}");
        let of_round = |presented: &str, next: &str| {
            let family = format!("family-{round}");
            Exchange { next: token(&name(next), &family), ..exchange(&name(presented), "") }
        };
        tokens.insert_refresh(token(&name("1"), &format!("family-{round}"))).await.unwrap();
        assert_eq!(tokens.exchange(of_round("1", "2")).await.unwrap(), Exchanged::Done);
        assert_eq!(tokens.exchange(change(of_round("1", "x"))).await.unwrap(), Exchanged::Reused, "{round}");
        assert_eq!(
            tokens.exchange(of_round("2", "x")).await.unwrap(),
            Exchanged::Reused,
            "{round}: it holds no longer"
        );
        assert_eq!(tokens.exchange(of_round("1", "x")).await.unwrap(), Exchanged::Reused, "{round}: nor again");
        assert!(tokens.find_refresh(&TokenHash::of(&name("x"))).await.unwrap().is_none());
    }
    // The first use of an answer spends the others, which nobody used.
    tokens.insert_refresh(token("1", "family")).await.unwrap();
    exchanged(tokens, "1", "lost").await;
    assert_eq!(exchanged(tokens, "1", "2").await, Exchanged::Again);
    assert_eq!(exchanged(tokens, "2", "3").await, Exchanged::Done);
    assert_eq!(exchanged(tokens, "lost", "x").await, Exchanged::Reused);
    assert_eq!(exchanged(tokens, "3", "x").await, Exchanged::Reused);
    stores.close().await;
}

/// Whoever holds a copy cannot make it forgotten by refreshing: that would be the way to keep the owner's next use from telling.
async fn threat_36_a_second_use_is_known_however_often_the_token_was_followed(place: Place) {
    let stores = place.open().await.unwrap();
    let tokens = &*stores.tokens;
    tokens.insert_refresh(token("1", "family")).await.unwrap();
    for number in 1..=1_010 {
        let (presented, next) = (number.to_string(), (number + 1).to_string());
        assert_eq!(exchanged(tokens, &presented, &next).await, Exchanged::Done);
    }
    assert_eq!(exchanged(tokens, "1", "x").await, Exchanged::Reused);
    assert_eq!(exchanged(tokens, "1011", "x").await, Exchanged::Reused, "nothing of the family holds");
    stores.close().await;
}

/// The session lives for longer than a refresh token that nobody uses.
async fn threat_36_a_second_use_is_known_after_the_token_would_have_expired(place: Place) {
    let stores = place.open().await.unwrap();
    let tokens = &*stores.tokens;
    let days = |days: u64| Duration::from_secs(days * 86_400);
    let kept = |mut asked: Exchange| {
        asked.next.expires_at = now().after(days(30));
        asked
    };
    stores.users.insert(user("ann"), None).await.unwrap();
    for family in ["family", "other"] {
        remembered(&stores, family).await;
    }
    tokens.insert_refresh(token("1", "family")).await.unwrap();
    tokens.insert_refresh(token("unused", "other")).await.unwrap();
    assert_eq!(tokens.exchange(kept(exchange("1", "2"))).await.unwrap(), Exchanged::Done);
    // Eight days later a server has cleaned.
    let node = Node::following(place.open_at(Later::by(8 * 86_400)).await.unwrap());
    has_cleaned(&place).await;
    assert!(tokens.find_refresh(&TokenHash::of("unused")).await.unwrap().is_none(), "nobody used it");
    let later = |presented: &str, next: &str| Exchange { now: now().after(days(8)), ..kept(exchange(presented, next)) };
    assert_eq!(tokens.exchange(later("1", "x")).await.unwrap(), Exchanged::Reused);
    assert_eq!(tokens.exchange(later("2", "x")).await.unwrap(), Exchanged::Reused);
    node.stop().await;
    // And beyond the end of the session nothing is kept.
    let node = Node::following(place.open_at(Later::by(31 * 86_400)).await.unwrap());
    eventually("all is cleaned away", 5 * SECOND, || async {
        tokens.find_refresh(&TokenHash::of("1")).await.unwrap().is_none()
            && tokens.find_refresh(&TokenHash::of("2")).await.unwrap().is_none()
    })
    .await;
    node.stop().await;
    stores.close().await;
}

/// A thief at the same address, with the same browser, asks before the owner does and then as often as tabs would: whoever of both refreshes second is found.
async fn threat_36_nobody_is_kept_from_being_second_by_asking_often(place: Place) {
    let node = place.node().await;
    has_cleaned(&place).await;
    node.add_user("ann").await;
    let tokens = &*node.stores.tokens;
    let thiefs = ["thief", "thief-7"];
    let rounds = thiefs.iter().flat_map(|thief| [(*thief, "owner"), ("owner", *thief)]);
    for (round, (one, other)) in rounds.enumerate() {
        let name = |name: &str| format!("{round}-{name}");
        let made = node.sign_in("ann").await;
        tokens.insert_refresh(token(&name("1"), made.id.as_str())).await.unwrap();
        assert_eq!(tokens.exchange(of(&made, &name("1"), &name("thief"))).await.unwrap(), Exchanged::Done);
        for number in 0..8 {
            let again = of(&made, &name("1"), &name(&format!("thief-{number}")));
            assert_eq!(tokens.exchange(again).await.unwrap(), Exchanged::Again);
        }
        assert_eq!(tokens.exchange(of(&made, &name("1"), &name("owner"))).await.unwrap(), Exchanged::Again);
        // Whichever of their tokens: the first one was spent for the owner's.
        let first = tokens.exchange(of(&made, &name(one), &name("next"))).await.unwrap();
        assert_eq!(first == Exchanged::Done, one != "thief", "{round}: {first:?}");
        let second = tokens.exchange(of(&made, &name(other), &name("x"))).await.unwrap();
        assert_eq!(second, Exchanged::Reused, "{round}");
        assert!(is_over(&node, &made).await, "{round}");
    }
    node.stop().await;
}

/// However often it was answered: a thief is not hidden by many tabs.
async fn beyond_those_times_a_second_use_is_still_one(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let elsewhere = |asked: Exchange| Exchange { place: Some(TokenHash::of("elsewhere")), ..asked };
    let late = |asked: Exchange| Exchange { now: asked.now.after(Duration::from_secs(11)), ..asked };
    let changes: [&(dyn Fn(Exchange) -> Exchange + Sync); 2] = [&elsewhere, &late];
    for (round, change) in changes.into_iter().enumerate() {
        let name = |number: &str| format!("{round}-{number}");
        let made = node.sign_in("ann").await;
        let tokens = &*node.stores.tokens;
        tokens.insert_refresh(token(&name("1"), made.id.as_str())).await.unwrap();
        for number in 0..9 {
            tokens.exchange(of(&made, &name("1"), &name(&format!("2-{number}")))).await.unwrap();
        }
        let over = of(&made, &name("1"), &name("x"));
        assert_eq!(tokens.exchange(over.clone()).await.unwrap(), Exchanged::Again);
        assert_eq!(tokens.exchange(change(over)).await.unwrap(), Exchanged::Reused, "{round}");
        assert!(is_over(&node, &made).await, "{round}");
    }
    node.stop().await;
}

/// Nobody has to come back for it, and no failure can come between.
async fn a_second_use_ends_the_session_in_the_same_step(place: Place) {
    let (here, made) = scene(&place).await;
    let there = place.node().await;
    there.warm(&made).await;
    let tokens = &*here.stores.tokens;
    assert_eq!(tokens.exchange(of(&made, "1", "2")).await.unwrap(), Exchanged::Done);
    assert_eq!(tokens.exchange(of(&made, "2", "3")).await.unwrap(), Exchanged::Done);
    assert!(!is_over(&here, &made).await);
    assert_eq!(tokens.exchange(of(&made, "1", "x")).await.unwrap(), Exchanged::Reused);
    assert!(is_over(&here, &made).await, "at once here");
    eventually("and there", SECOND, || is_over(&there, &made)).await;
    here.stop().await;
    there.stop().await;
}
