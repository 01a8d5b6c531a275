//! Basic while something else happens: many requests with the same pair, guesses from elsewhere, a change of the user during the hash.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::atomic::Ordering,
};

use futures_util::future::join_all;
use postern::{core::verdict::Verdict, ports::UserChange};

use super::{HERE, basic, follow, outcome_from, verdict, verdict_from, verdict_on};
use crate::{
    harness::{PASSWORD, World},
    ports::BreakableMemory,
};

/// Runs `asked` while no hash is answered, then what is to happen `meanwhile`, and lets the hash go.
async fn during_the_hash<T>(world: &World, asked: impl Future<Output = T>, meanwhile: impl Future<Output = ()>) -> T {
    let hold = world.hasher.hold.write().await;
    let hashing = async {
        while world.hasher.verified.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        meanwhile.await;
        drop(hold);
    };
    tokio::join!(asked, hashing).0
}

#[tokio::test]
async fn threat_58_the_same_wrong_password_two_hundred_times_at_once_costs_one_hash() {
    let world = World::https().await;
    let wrong = basic("bob", "wrong");
    let all = join_all((0..200).map(|_| verdict(&world, &wrong)));
    let verdicts = during_the_hash(&world, all, async {}).await;
    assert_eq!(verdicts, ["sign_in"; 200]);
    assert_eq!(world.hashed(), (1, 0));
    assert_eq!(verdict(&world, &wrong).await, "sign_in");
    assert_eq!(world.hashed(), (1, 0), "nobody is answered by what was wrong before");
    assert_eq!(verdict(&world, &basic("bob", "another")).await, "sign_in");
    assert_eq!(world.regulation.told.load(Ordering::SeqCst), 2, "of each pair once");
    let told = world.metrics.render();
    assert!(told.contains("postern_auth_login_total{provider=\"basic\",status=\"failure\"} 202"), "{told}");
}

#[tokio::test]
async fn threat_32_58_without_the_log_nobody_waits_for_a_turn_to_hear_that_it_is_out_of_reach() {
    let world = World::https().await;
    world.memory.down.store(true, Ordering::SeqCst);
    let right = basic("bob", PASSWORD);
    let all = join_all((0..50).map(|_| verdict(&world, &right)));
    let verdicts = tokio::time::timeout(BreakableMemory::TIME * 10, all).await.unwrap();
    assert_eq!(verdicts, ["unavailable"; 50]);
    assert_eq!(world.memory.looks.load(Ordering::SeqCst), 1);
    assert_eq!(world.hashed(), (0, 0));
}

/// One goes away half-way, as clients do: another verifies.
#[tokio::test]
async fn nobody_is_left_waiting_for_whoever_went_away() {
    let world = World::https().await;
    let right = basic("bob", PASSWORD);
    let mut first = Box::pin(verdict(&world, &right));
    let hold = world.hasher.hold.write().await;
    tokio::select! {
        biased;
        _ = &mut first => panic!("the hash is held back"),
        () = async { while world.hasher.verified.load(Ordering::SeqCst) == 0 { tokio::task::yield_now().await } } => {}
    }
    let others = join_all((0..20).map(|_| verdict(&world, &right)));
    let gone = async move {
        drop(first);
        drop(hold);
    };
    assert_eq!(tokio::join!(others, gone).0, ["forward"; 20]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_37_memory_answers_nobody_from_elsewhere_whom_regulation_bars() {
    let world = World::https().await;
    let _stop = follow(&world).await;
    let right = basic("bob", PASSWORD);
    assert_eq!(verdict(&world, &right).await, "forward");
    world.regulation.most.store(3, Ordering::SeqCst);
    let elsewhere = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 9));
    for guess in ["one", "two", "three"] {
        assert_eq!(verdict_from(&world, elsewhere, &basic("bob", guess), "/x").await.as_str(), "sign_in");
    }
    let barred = verdict_from(&world, elsewhere, &right, "/x").await;
    assert!(matches!(barred, Verdict::SlowDown { .. }), "the right one is told from no other: {barred:?}");
    *world.regulation.known.lock().unwrap() = Some(HERE);
    assert_eq!(
        verdict(&world, &right).await,
        "forward",
        "whoever was verified goes on, where regulation lets them (THREATS 40)"
    );
}

/// Behind one address with whoever signed in there: neither an answer nor what reaches an application tells the right password from others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_37_memory_tells_nobody_the_password_of_an_account_that_is_barred() {
    let world = World::https().await;
    let _stop = follow(&world).await;
    let right = basic("bob", PASSWORD);
    assert_eq!(verdict(&world, &right).await, "forward");
    let is_taken_out = async |authorization: &str| {
        let outcome = outcome_from(&world, HERE, authorization, "/public/x").await;
        assert_eq!(outcome.verdict.as_str(), "forward");
        outcome.carries_our_token
    };
    assert!(is_taken_out(&right).await && !is_taken_out(&basic("bob", "another's")).await);
    world.regulation.most.store(3, Ordering::SeqCst);
    for guess in ["one", "two", "three"] {
        assert_eq!(verdict(&world, &basic("BOB", guess)).await, "sign_in");
    }
    world.hashed();
    for guess in ["four", PASSWORD] {
        let barred = verdict_on(&world, &basic("bob", guess), "/x").await;
        assert!(matches!(barred, Verdict::SlowDown { .. }), "{guess}: {barred:?}");
        assert!(is_taken_out(&basic("Bob ", guess)).await, "{guess}");
    }
    assert_eq!(world.hashed(), (0, 0));
    assert!(!is_taken_out(&basic("ann", "anything")).await, "nobody else is barred");
    // Over again: what was remembered counts as before.
    world.regulation.most.store(0, Ordering::SeqCst);
    assert_eq!(verdict(&world, &right).await, "forward");
    assert_eq!(world.hashed(), (0, 0));
}

/// A program with an old password repeats it for ever; somebody who guesses does not. THREATS 37: a hundred guesses are a hundred.
#[tokio::test]
async fn threat_37_guesses_count_each_and_the_same_wrong_pair_once() {
    let world = World::https().await;
    world.regulation.most.store(50, Ordering::SeqCst);
    for _ in 0..100 {
        assert_eq!(verdict(&world, &basic("bob", "as it was")).await, "sign_in");
    }
    assert_eq!(world.regulation.told.load(Ordering::SeqCst), 1);
    assert_eq!(verdict(&world, &basic("bob", PASSWORD)).await, "forward", "the program locks nobody out");
    let mut verdicts = Vec::new();
    for number in 0..100 {
        verdicts.push(verdict(&world, &basic("bob", &format!("guess {number}"))).await);
    }
    assert_eq!(world.regulation.told.load(Ordering::SeqCst), 50, "each, until it bars; the right one reset nothing");
    assert!(verdicts[..49].iter().all(|verdict| *verdict == "sign_in"));
    assert!(verdicts[49..].iter().all(|verdict| *verdict == "slow_down"), "{verdicts:?}");
}

/// The command has said that it is done; the old password was read before that.
#[tokio::test]
async fn threat_36_a_password_that_is_replaced_while_it_is_hashed_lets_nobody_in() {
    let world = World::https().await;
    let hash = world.stores.hasher.hash("another long word".into()).await.unwrap();
    let right = basic("bob", PASSWORD);
    let replaced = async { world.stores.credentials.set_password_hash("bob", hash.into()).await.unwrap() };
    assert_eq!(during_the_hash(&world, verdict(&world, &right), replaced).await, "sign_in");
    world.hashed();
    let alice = basic("alice", PASSWORD);
    let disabled = async {
        let change = UserChange { disabled: Some(true), ..UserChange::default() };
        world.stores.users.update("alice", change).await.unwrap();
    };
    assert_eq!(during_the_hash(&world, verdict(&world, &alice), disabled).await, "sign_in");
}
