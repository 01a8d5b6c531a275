//! On which devices people signed in.

use std::sync::Arc;

use postern::core::session::TokenHash;

use crate::harness::Place;

crate::for_every_store!(
    a_device_is_known_to_every_node_once_it_was_seen,
    many_at_once_fail_for_nobody,
    a_user_has_so_many_devices_at_most,
    devices_of_a_version_are_known_to_it_alone,
);

async fn a_device_is_known_to_every_node_once_it_was_seen(place: Place) {
    let (node, other) = (place.node().await, place.node().await);
    let (here, there) = (&node.stores.devices, &other.stores.devices);
    let (one, two) = (TokenHash::of("one"), TokenHash::of("two"));
    assert!(!here.seen("ann", 1, &one).await.unwrap());
    assert!(there.seen("ANN", 1, &one).await.unwrap(), "names ignore case");
    assert!(!there.seen("ann", 1, &two).await.unwrap(), "another device");
    assert!(!there.seen("bob", 1, &one).await.unwrap(), "another person at the same one");
    for (user, device) in [("ann", &one), ("ann", &two), ("bob", &one)] {
        assert!(here.seen(user, 1, device).await.unwrap(), "{user}");
    }
    node.stop().await;
    other.stop().await;
}

async fn many_at_once_fail_for_nobody(place: Place) {
    let node = place.node().await;
    let devices = Arc::clone(&node.stores.devices);
    let looks = (0..8).map(|_| {
        let devices = Arc::clone(&devices);
        tokio::spawn(async move { devices.seen("ann", 1, &TokenHash::of("one")).await.unwrap() })
    });
    let looks: Vec<_> = looks.collect();
    for look in looks {
        // Whether several think so does not matter: nobody fails, and it is known from here on.
        look.await.unwrap();
    }
    assert!(devices.seen("ann", 1, &TokenHash::of("one")).await.unwrap());
    node.stop().await;
}

async fn a_user_has_so_many_devices_at_most(place: Place) {
    let node = place.node().await;
    let devices = &node.stores.devices;
    assert!(!devices.seen("bob", 1, &TokenHash::of("bob's")).await.unwrap());
    for number in 0..120 {
        assert!(!devices.seen("ann", 1, &TokenHash::of(&number.to_string())).await.unwrap(), "{number}");
    }
    // The newest stay; that the oldest was seen again makes it new, and takes the place of another.
    assert!(devices.seen("ann", 1, &TokenHash::of("119")).await.unwrap());
    assert!(!devices.seen("ann", 1, &TokenHash::of("0")).await.unwrap());
    assert!(devices.seen("bob", 1, &TokenHash::of("bob's")).await.unwrap(), "nobody else's go");
    node.stop().await;
}

async fn devices_of_a_version_are_known_to_it_alone(place: Place) {
    let node = place.node().await;
    let devices = &node.stores.devices;
    let one = TokenHash::of("one");
    assert!(!devices.seen("ann", 1, &one).await.unwrap());
    assert!(!devices.seen("ann", 2, &one).await.unwrap(), "the password was changed");
    assert!(devices.seen("ann", 2, &one).await.unwrap());
    // Whose row went, by whatever means, is new.
    node.add_user("ann").await;
    assert!(!devices.seen("ann", 2, &one).await.unwrap(), "somebody else got the name");
    node.stores.users.delete("ann").await.unwrap();
    assert!(!devices.seen("ann", 2, &one).await.unwrap());
    node.stop().await;
}
