//! The exchange of refresh tokens.

use std::time::Duration;

use postern::{
    core::session::{SessionId, TokenHash},
    ports::{Exchange, Exchanged},
};
use sqlx::Connection as _;

use super::{exchange, exchanged, is_over, now, of, scene, token};
use crate::harness::Place;

crate::for_every_store!(
    a_refresh_token_is_exchanged_once,
    the_last_use_is_answered_again_to_whoever_asks_from_there,
    of_many_answers_to_one_use_the_latest_hold,
    one_use_that_is_asked_for_without_end_ends_its_session,
    a_family_that_grows_too_large_ends_with_its_session,
    a_family_knows_no_other,
    of_many_at_once_from_many_places_one_is_the_first_use,
    of_many_at_once_from_one_place_all_are_answered_and_one_goes_on,
);

async fn a_refresh_token_is_exchanged_once(place: Place) {
    let stores = place.open().await.unwrap();
    let tokens = &*stores.tokens;
    tokens.insert_refresh(token("1", "family")).await.unwrap();
    let found = tokens.find_refresh(&TokenHash::of("1")).await.unwrap().unwrap();
    assert_eq!(found.session, SessionId::new("family".to_owned()));
    assert!(tokens.find_refresh(&TokenHash::of("2")).await.unwrap().is_none());
    assert_eq!(exchanged(tokens, "2", "x").await, Exchanged::Unknown);
    assert_eq!(exchanged(tokens, "1", "2").await, Exchanged::Done);
    assert_eq!(exchanged(tokens, "2", "3").await, Exchanged::Done);
    assert_eq!(exchanged(tokens, "3", "4").await, Exchanged::Done);
    // One that has expired was never there.
    let mut late = exchange("4", "5");
    late.now = now().after(Duration::from_secs(3601));
    assert_eq!(tokens.exchange(late).await.unwrap(), Exchanged::Unknown);
    assert_eq!(exchanged(tokens, "4", "5").await, Exchanged::Done);
    stores.close().await;
}

async fn the_last_use_is_answered_again_to_whoever_asks_from_there(place: Place) {
    let stores = place.open().await.unwrap();
    let tokens = &*stores.tokens;
    tokens.insert_refresh(token("1", "family")).await.unwrap();
    assert_eq!(exchanged(tokens, "1", "2").await, Exchanged::Done);
    assert_eq!(exchanged(tokens, "1", "2b").await, Exchanged::Again);
    let mut in_time = exchange("1", "2c");
    in_time.now = in_time.now.after(Duration::from_secs(8));
    assert_eq!(tokens.exchange(in_time).await.unwrap(), Exchanged::Again);
    assert_eq!(exchanged(tokens, "2b", "3").await, Exchanged::Done, "whichever answer arrived");
    assert_eq!(exchanged(tokens, "1", "x").await, Exchanged::Reused, "what came of it was used");
    assert_eq!(exchanged(tokens, "3", "x").await, Exchanged::Reused, "and nothing of the family holds");
    stores.close().await;
}

/// All tabs of a browser.
async fn of_many_answers_to_one_use_the_latest_hold(place: Place) {
    let (node, made) = scene(&place).await;
    let tokens = &*node.stores.tokens;
    assert_eq!(tokens.exchange(of(&made, "1", "2")).await.unwrap(), Exchanged::Done);
    for number in 0..8 {
        let again = of(&made, "1", &format!("2-{number}"));
        assert_eq!(tokens.exchange(again).await.unwrap(), Exchanged::Again);
    }
    assert_eq!(tokens.exchange(of(&made, "1", "2-8")).await.unwrap(), Exchanged::Again);
    assert_eq!(unspent(&place).await, 9);
    assert!(!is_over(&node, &made).await, "nothing ends");
    assert_eq!(tokens.exchange(of(&made, "2-0", "3")).await.unwrap(), Exchanged::Done, "and the answers hold");
    assert_eq!(tokens.exchange(of(&made, "1", "x")).await.unwrap(), Exchanged::Reused);
    assert!(is_over(&node, &made).await);
    node.stop().await;
}

async fn unspent(place: &Place) -> i64 {
    let mut connection = place.connect().await;
    let unspent = "SELECT count(*) FROM refresh_tokens WHERE spent_at IS NULL";
    let count = sqlx::query_scalar(unspent).fetch_one(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    count
}

/// Nobody asks so often: each answer is a signature, a transaction and a row.
async fn one_use_that_is_asked_for_without_end_ends_its_session(place: Place) {
    let (node, made) = scene(&place).await;
    let tokens = &*node.stores.tokens;
    assert_eq!(tokens.exchange(of(&made, "1", "2")).await.unwrap(), Exchanged::Done);
    for number in 0..63 {
        let again = of(&made, "1", &format!("2-{number}"));
        assert_eq!(tokens.exchange(again).await.unwrap(), Exchanged::Again, "{number}");
    }
    assert!(!is_over(&node, &made).await);
    assert_eq!(tokens.exchange(of(&made, "1", "x")).await.unwrap(), Exchanged::TooMany);
    assert!(is_over(&node, &made).await);
    assert_eq!(
        tokens.exchange(of(&made, "2-62", "x")).await.unwrap(),
        Exchanged::Reused,
        "nothing of the family holds"
    );
    node.stop().await;
}

async fn a_family_that_grows_too_large_ends_with_its_session(place: Place) {
    let (node, made) = scene(&place).await;
    let tokens = &*node.stores.tokens;
    place.execute("UPDATE refresh_tokens SET generation = 9998").await;
    assert_eq!(tokens.exchange(of(&made, "1", "2")).await.unwrap(), Exchanged::Done);
    assert_eq!(tokens.exchange(of(&made, "2", "3")).await.unwrap(), Exchanged::Done);
    assert_eq!(tokens.exchange(of(&made, "3", "4")).await.unwrap(), Exchanged::TooMany);
    assert!(tokens.find_refresh(&TokenHash::of("4")).await.unwrap().is_none());
    assert!(is_over(&node, &made).await);
    assert_eq!(tokens.exchange(of(&made, "1", "x")).await.unwrap(), Exchanged::Reused, "and is not forgotten");
    node.stop().await;
}

async fn a_family_knows_no_other(place: Place) {
    let stores = place.open().await.unwrap();
    let tokens = &*stores.tokens;
    tokens.insert_refresh(token("1", "family")).await.unwrap();
    tokens.insert_refresh(token("other-1", "other")).await.unwrap();
    assert_eq!(exchanged(tokens, "other-1", "x").await, Exchanged::Unknown, "a token of another family");
    exchanged(tokens, "1", "2").await;
    let mut late = exchange("1", "x");
    late.place = None;
    assert_eq!(tokens.exchange(late).await.unwrap(), Exchanged::Reused);
    let others = Exchange { next: token("other-2", "other"), ..exchange("other-1", "") };
    assert_eq!(tokens.exchange(others).await.unwrap(), Exchanged::Done);
    stores.close().await;
}

/// Eight at once, on two nodes.
async fn at_once(place: &Place, place_of: impl Fn(usize) -> String) -> Vec<(String, Exchanged)> {
    let (one, two) = (place.open().await.unwrap(), place.open().await.unwrap());
    one.tokens.insert_refresh(token("1", "family")).await.unwrap();
    let asked = (0..8).map(|number| {
        let tokens = if number % 2 == 0 { one.tokens.clone() } else { two.tokens.clone() };
        let next = format!("2-{number}");
        let mut asked = exchange("1", &next);
        asked.place = Some(TokenHash::of(&place_of(number)));
        tokio::spawn(async move { (next, tokens.exchange(asked).await.unwrap()) })
    });
    let asked: Vec<_> = asked.collect();
    let mut done = Vec::new();
    for asked in asked {
        done.push(asked.await.unwrap());
    }
    one.close().await;
    two.close().await;
    done
}

async fn of_many_at_once_from_many_places_one_is_the_first_use(place: Place) {
    let done = at_once(&place, |number| format!("place {number}")).await;
    let count = |wanted| done.iter().filter(|(_, exchanged)| *exchanged == wanted).count();
    assert_eq!((count(Exchanged::Done), count(Exchanged::Reused)), (1, 7), "{done:?}");
    let stores = place.open().await.unwrap();
    for (next, _) in &done {
        let answer = exchanged(&*stores.tokens, next, "x").await;
        assert!(matches!(answer, Exchanged::Reused | Exchanged::Unknown), "{next} holds: {answer:?}");
    }
    stores.close().await;
}

async fn of_many_at_once_from_one_place_all_are_answered_and_one_goes_on(place: Place) {
    let done = at_once(&place, |_| "here".to_owned()).await;
    let count = |wanted| done.iter().filter(|(_, exchanged)| *exchanged == wanted).count();
    assert_eq!((count(Exchanged::Done), count(Exchanged::Again)), (1, 7), "{done:?}");
    let stores = place.open().await.unwrap();
    for (number, (next, _)) in done.iter().enumerate() {
        let expected = if number == 0 { Exchanged::Done } else { Exchanged::Reused };
        assert_eq!(exchanged(&*stores.tokens, next, &format!("3-{number}")).await, expected, "{next}");
    }
    assert_eq!(exchanged(&*stores.tokens, "3-0", "x").await, Exchanged::Reused, "nothing of the family holds");
    stores.close().await;
}
