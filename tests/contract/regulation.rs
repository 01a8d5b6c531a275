//! Regulation of sign-ins: the counts are one for all nodes, and whoever comes at once is counted one after the other.

use std::{sync::Arc, time::Duration};

use postern::{
    core::{session::TokenHash, user::User},
    ports::{Admitted, Barred, Guess, Known, Regulation, Try},
};

use crate::harness::{Later, Node, Place, Standing, eventually};

crate::for_every_database!(
    a_hundred_at_once_on_two_nodes_are_counted_one_after_the_other,
    what_is_right_is_given_back_whoever_comes_meanwhile,
    names_and_addresses_that_cross_wait_for_nobody_for_ever,
    the_count_survives_a_restart_and_is_forgotten_in_time,
    unlocking_reaches_a_node_that_remembers,
    whose_address_it_is_is_one_account,
);

fn tried<'t>(account: &'t str, address: [u8; 4], known: Known<'t>) -> Try<'t> {
    let address = Some(address.into());
    Try { guess: Guess::Password, account, address, provider: "password", known, is_repeated: false }
}

const HERE: [u8; 4] = [192, 0, 2, 7];

/// Whoever is told to come again since nobody is free does so, as a client would.
async fn admitted(regulation: &dyn Regulation, account: &str, address: [u8; 4]) -> Result<Admitted, Barred> {
    let asking = async {
        loop {
            match regulation.admit(tried(account, address, Known::Nothing)).await {
                Err(Barred::Busy) => tokio::time::sleep(Duration::from_millis(50)).await,
                outcome => return outcome,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), asking).await.expect("a turn")
}

/// A node by this clock.
async fn at(place: &Place, clock: &Arc<Standing>) -> Node {
    Node::following(place.open_at(clock.clone()).await.unwrap())
}

/// One that is wrong.
async fn once(regulation: Arc<dyn Regulation>, account: String, address: [u8; 4]) -> Result<(), Barred> {
    let admitted = admitted(&*regulation, &account, address).await?;
    regulation.settle(admitted, true).await?;
    Ok(())
}

async fn a_hundred_at_once_on_two_nodes_are_counted_one_after_the_other(place: Place) {
    let clock = Standing::still();
    let (node, other) = (at(&place, &clock).await, at(&place, &clock).await);
    let tries: Vec<_> = (0..100)
        .map(|number| {
            let stores = if number % 2 == 0 { &node.stores } else { &other.stores };
            tokio::spawn(once(Arc::clone(&stores.regulation), "bob".to_owned(), HERE))
        })
        .collect();
    let mut admitted = 0;
    for tried in tries {
        match tried.await.unwrap() {
            Ok(_) => admitted += 1,
            Err(Barred::SlowDown(wait)) => assert!(wait <= Duration::from_secs(5), "{wait:?}"),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(admitted, 5);
    node.stop().await;
    other.stop().await;
}

async fn what_is_right_is_given_back_whoever_comes_meanwhile(place: Place) {
    let node = place.node().await;
    let regulation = Arc::clone(&node.stores.regulation);
    let rights: Vec<_> = (0..40)
        .map(|number: u8| {
            let regulation = Arc::clone(&regulation);
            tokio::spawn(async move {
                // Each name once, so that none waits for itself.
                let admitted = admitted(&*regulation, &format!("user{number}"), HERE).await.unwrap();
                regulation.settle(admitted, false).await.unwrap();
            })
        })
        .collect();
    for right in rights {
        right.await.unwrap();
    }
    // Of the fifty that the address has, not one is gone.
    for number in 0..50 {
        once(Arc::clone(&regulation), format!("other{number}"), HERE).await.unwrap();
    }
    let more = once(Arc::clone(&regulation), "one more".to_owned(), HERE).await;
    assert!(matches!(more, Err(Barred::SlowDown(_))), "{more:?}");
    node.stop().await;
}

/// Each name from each address, in every order: nobody waits for somebody who waits for them.
async fn names_and_addresses_that_cross_wait_for_nobody_for_ever(place: Place) {
    let (node, other) = (place.node().await, place.node().await);
    let tries: Vec<_> = (0..48_u8)
        .map(|number| {
            let stores = if number % 2 == 0 { &node.stores } else { &other.stores };
            let regulation = Arc::clone(&stores.regulation);
            tokio::spawn(async move {
                let account = format!("user{}", number % 4);
                let admitted = admitted(&*regulation, &account, [192, 0, 2, number / 4 % 4]).await?;
                regulation.settle(admitted, number % 3 > 0).await?;
                Ok::<(), Barred>(())
            })
        })
        .collect();
    for tried in tries {
        let outcome = tried.await.unwrap();
        assert!(matches!(outcome, Ok(()) | Err(Barred::SlowDown(_))), "{outcome:?}");
    }
    node.stop().await;
    other.stop().await;
}

async fn the_count_survives_a_restart_and_is_forgotten_in_time(place: Place) {
    let clock = Standing::still();
    let node = at(&place, &clock).await;
    for _ in 0..5 {
        once(Arc::clone(&node.stores.regulation), "bob".to_owned(), HERE).await.unwrap();
    }
    let device = TokenHash::of("bob's");
    for _ in 0..5 {
        let admitted = node.stores.regulation.admit(tried("bob", HERE, Known::Device(&device))).await.unwrap();
        node.stores.regulation.settle(admitted, true).await.unwrap();
    }
    node.stop().await;
    let node = at(&place, &clock).await;
    for known in [Known::Nothing, Known::Device(&device)] {
        let barred = node.stores.regulation.admit(tried("bob", HERE, known)).await;
        assert!(matches!(barred, Err(Barred::SlowDown(_))), "{known:?}: {barred:?}");
    }
    node.stop().await;
    let later = place.open_at(Later::by(6)).await.unwrap();
    once(Arc::clone(&later.regulation), "bob".to_owned(), HERE).await.unwrap();
    let barred = once(Arc::clone(&later.regulation), "bob".to_owned(), HERE).await;
    assert!(matches!(barred, Err(Barred::SlowDown(wait)) if wait > Duration::from_secs(5)), "{barred:?}");
    later.close().await;
    let later = place.open_at(Later::by(6 * 3600)).await.unwrap();
    for _ in 0..5 {
        once(Arc::clone(&later.regulation), "bob".to_owned(), HERE).await.unwrap();
    }
    later.close().await;
}

async fn unlocking_reaches_a_node_that_remembers(place: Place) {
    let node = place.node().await;
    // The follower forgets once what was known before its first look.
    eventually("the node remembers", Duration::from_secs(5), || async {
        let _ = once(Arc::clone(&node.stores.regulation), "bob".to_owned(), HERE).await;
        node.stores.regulation.bars(tried("bob", HERE, Known::Nothing)).is_some()
    })
    .await;
    // As the command does, which follows no log.
    let command = place.open().await.unwrap();
    assert!(command.regulation.unlock("Bob").await.unwrap());
    command.close().await;
    eventually("the node has let him off", Duration::from_secs(1), || async {
        node.stores.regulation.bars(tried("bob", HERE, Known::Nothing)).is_none()
    })
    .await;
    once(Arc::clone(&node.stores.regulation), "bob".to_owned(), HERE).await.unwrap();
    node.stop().await;
}

async fn whose_address_it_is_is_one_account(place: Place) {
    let node = place.node().await;
    for (name, email) in [("Bob", "Bob@Example.com"), ("zoe", "bob@example.COM"), ("ann", "ann@example.com")] {
        let user = User { email: Some(email.to_owned()), ..User::new(name, vec![]) };
        node.stores.users.insert(user, None).await.unwrap();
    }
    let owner = async |email: &str| node.stores.credentials.owner_of(email).await.unwrap();
    assert_eq!(owner("BOB@example.com").await.as_deref(), Some("bob"), "of several, of one and the same");
    assert_eq!(owner("ann@example.com").await.as_deref(), Some("ann"));
    for nobody in ["nobody@example.com", "", "%@example.com", "bob@example.com\0"] {
        assert_eq!(owner(nobody).await, None, "{nobody:?}");
    }
    node.stop().await;
}
