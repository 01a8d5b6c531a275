//! On which devices people signed in.

use std::sync::Arc;

use postern::{core::session::TokenHash, ports::Devices};

use crate::harness::Place;

crate::for_every_store!(
    a_device_is_known_to_every_node_once_it_was_seen,
    many_at_once_fail_for_nobody,
    a_user_has_so_many_devices_at_most,
    devices_of_a_version_are_known_to_it_alone,
);

/// As a sign-in does: whether it was known, and it is from now on.
async fn seen(devices: &Arc<dyn Devices>, user: &str, version: u64, device: &TokenHash) -> bool {
    let last_seen = devices.last_seen(user, version, &[TokenHash::of("another"), *device]).await.unwrap();
    devices.note(user, version, device).await.unwrap();
    last_seen.is_some_and(|seen| seen.device == *device)
}

async fn a_device_is_known_to_every_node_once_it_was_seen(place: Place) {
    let (node, other) = (place.node().await, place.node().await);
    let (here, there) = (node.stores.devices.clone(), other.stores.devices.clone());
    let (one, two) = (TokenHash::of("one"), TokenHash::of("two"));
    assert!(!seen(&here, "ann", 1, &one).await);
    assert!(seen(&there, "ANN", 1, &one).await, "names ignore case");
    assert!(!seen(&there, "ann", 1, &two).await, "another device");
    assert!(!seen(&there, "bob", 1, &one).await, "another person at the same one");
    for (user, device) in [("ann", &one), ("ann", &two), ("bob", &one)] {
        assert!(seen(&here, user, 1, device).await, "{user}");
    }
    node.stop().await;
    other.stop().await;
}

async fn many_at_once_fail_for_nobody(place: Place) {
    let node = place.node().await;
    let devices = node.stores.devices.clone();
    let looks = (0..8).map(|_| {
        let devices = Arc::clone(&devices);
        tokio::spawn(async move { seen(&devices, "ann", 1, &TokenHash::of("one")).await })
    });
    let looks: Vec<_> = looks.collect();
    for look in looks {
        // Whether several think so does not matter: nobody fails, and it is known from here on.
        look.await.unwrap();
    }
    assert!(seen(&devices, "ann", 1, &TokenHash::of("one")).await);
    node.stop().await;
}

async fn a_user_has_so_many_devices_at_most(place: Place) {
    let node = place.node().await;
    let devices = node.stores.devices.clone();
    assert!(!seen(&devices, "bob", 1, &TokenHash::of("bob's")).await);
    for number in 0..120 {
        assert!(!seen(&devices, "ann", 1, &TokenHash::of(&number.to_string())).await, "{number}");
    }
    // The newest stay; that the oldest was seen again makes it new, and takes the place of another.
    assert!(seen(&devices, "ann", 1, &TokenHash::of("119")).await);
    assert!(!seen(&devices, "ann", 1, &TokenHash::of("0")).await);
    assert!(seen(&devices, "bob", 1, &TokenHash::of("bob's")).await, "nobody else's go");
    node.stop().await;
}

async fn devices_of_a_version_are_known_to_it_alone(place: Place) {
    let node = place.node().await;
    let devices = node.stores.devices.clone();
    let one = TokenHash::of("one");
    assert!(!seen(&devices, "ann", 1, &one).await);
    assert!(!seen(&devices, "ann", 2, &one).await, "the password was changed");
    assert!(seen(&devices, "ann", 2, &one).await);
    // Whose row went, by whatever means, is new.
    node.add_user("ann").await;
    assert!(!seen(&devices, "ann", 2, &one).await, "somebody else got the name");
    node.stores.users.delete("ann").await.unwrap();
    assert!(!seen(&devices, "ann", 2, &one).await);
    node.stop().await;
}
