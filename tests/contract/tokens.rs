//! Refresh tokens and revoked access tokens.

use std::time::Duration;

use postern::{
    core::{
        session::{Session, SessionId, TokenHash},
        time::Timestamp,
        tokens::jti_of,
    },
    ports::{End, Exchange, Exchanged, RefreshToken, Revocation, Revoked, Tokens},
    store::Stores,
};

use sqlx::Connection as _;

use crate::harness::{Later, Node, Place, eventually, session, user};

crate::for_every_store!(
    a_refresh_token_is_exchanged_once,
    the_last_use_is_answered_again_to_whoever_asks_from_there,
    a_second_use_closes_the_family,
    threat_36_a_second_use_is_known_however_often_the_token_was_followed,
    threat_36_a_second_use_is_known_after_the_token_would_have_expired,
    of_many_answers_to_one_use_the_latest_hold,
    threat_36_nobody_is_kept_from_being_second_by_asking_often,
    one_use_that_is_asked_for_without_end_ends_its_session,
    beyond_those_times_a_second_use_is_still_one,
    a_family_is_cleaned_away_once_its_session_is_over,
    a_family_that_grows_too_large_ends_with_its_session,
    a_second_use_ends_the_session_in_the_same_step,
    a_session_whose_tokens_are_revoked_too_often_ends,
    all_revocations_are_read_however_many_there_are,
    a_family_knows_no_other,
    of_many_at_once_from_many_places_one_is_the_first_use,
    of_many_at_once_from_one_place_all_are_answered_and_one_goes_on,
    a_revoked_token_is_known_at_once_here_and_within_a_second_elsewhere,
    a_revocation_outlives_a_restart_and_is_known_before_anything_is_asked,
    memory_of_revocations_is_unsure_without_a_follower,
    what_has_expired_is_cleaned_away,
);

const SECOND: Duration = Duration::from_secs(1);

fn now() -> Timestamp {
    Timestamp::from_unix_millis(jiff::Timestamp::now().as_millisecond())
}

fn token(name: &str, family: &str) -> RefreshToken {
    RefreshToken {
        hash: TokenHash::of(name),
        session: SessionId::new(family.to_owned()),
        expires_at: now().after(Duration::from_secs(3600)),
    }
}

fn exchange(presented: &str, next: &str) -> Exchange {
    Exchange {
        presented: TokenHash::of(presented),
        next: token(next, "family"),
        now: now(),
        end_of_session: now().after(Duration::from_secs(30 * 86_400)),
        place: Some(TokenHash::of("here")),
    }
}

async fn exchanged(tokens: &dyn Tokens, presented: &str, next: &str) -> Exchanged {
    tokens.exchange(exchange(presented, next)).await.unwrap()
}

/// A session of Ann's of this id, for thirty days.
async fn remembered(stores: &Stores, id: &str) {
    let made = Session { id: SessionId::new(id.to_owned()), remembered: true, ..session("ann") };
    stores.sessions.create(made, &[]).await.unwrap();
}

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
    eventually("what nobody used is cleaned away", 5 * SECOND, || async {
        tokens.find_refresh(&TokenHash::of("unused")).await.unwrap().is_none()
    })
    .await;
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

/// A thief at the same address, with the same browser, asks before the owner does and then as often as tabs would: whoever of both refreshes second is found.
async fn threat_36_nobody_is_kept_from_being_second_by_asking_often(place: Place) {
    let node = place.node().await;
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

/// A node that knows a session of Ann's, and the first refresh token of it.
async fn scene(place: &Place) -> (Node, Session) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.stores.tokens.insert_refresh(token("1", made.id.as_str())).await.unwrap();
    node.warm(&made).await;
    (node, made)
}

fn of(session: &Session, presented: &str, next: &str) -> Exchange {
    Exchange { next: token(next, session.id.as_str()), ..exchange(presented, "") }
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
    eventually("no row is left", 10 * SECOND, || async {
        for number in (10_001..=11_100).chain(20_001..=21_100) {
            if found(number).await {
                return false;
            }
        }
        true
    })
    .await;
    for name in ["aaa", "zzz"] {
        let next = Exchange { next: token(&format!("{name}-2"), name), ..exchange(name, "") };
        assert_eq!(stores.tokens.exchange(next).await.unwrap(), Exchanged::Done, "{name} lives");
    }
    node.stop().await;
    stores.close().await;
}

pub(crate) async fn is_over(node: &Node, session: &Session) -> bool {
    !node.knows(session) && node.stores.sessions.find(&session.gate_hash).await.unwrap().is_none()
}
