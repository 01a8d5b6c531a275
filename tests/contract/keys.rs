//! Signing keys: published on every node before one signs, and gone once what they signed has expired.

use std::time::Duration;

use postern::{
    core::tokens::SigningAlgorithm,
    ports::{KeyState, Rotation, SigningKeys, Takeover},
    store::Stores,
};

use crate::harness::{Later, Node, Place, eventually};

crate::for_every_store!(
    a_new_key_is_published_everywhere_before_it_signs,
    a_key_that_is_followed_verifies_until_its_tokens_expired_and_is_cleaned_away,
    in_an_emergency_the_older_keys_are_gone_at_once_everywhere,
    keys_that_wait_follow_in_their_order,
    another_algorithm_makes_one_key_however_many_nodes_ask,
    threat_36_what_memory_holds_is_not_believed_without_a_follower,
    a_key_of_a_newer_version_keeps_no_removed_one_alive,
    a_key_verifies_until_the_longest_of_its_tokens_has_expired,
    a_longer_life_that_is_told_of_later_counts_for_keys_that_still_sign,
    a_key_that_another_process_made_is_told_of_the_life_of_tokens,
);

const MINUTE: Duration = Duration::from_secs(60);

fn rotation(algorithm: SigningAlgorithm, takeover: Takeover) -> Rotation {
    Rotation { algorithm, takeover, access: 15 * MINUTE }
}

fn after(delay: Duration) -> Rotation {
    rotation(SigningAlgorithm::EdDsa, Takeover::After(delay))
}

fn states(stores: &Stores) -> Vec<(String, KeyState)> {
    let keys = stores.keys.signing();
    keys.states(stores.clock.now()).map(|(key, state)| (key.kid.clone(), state)).collect()
}

fn signing(stores: &Stores) -> String {
    stores.keys.signing().signing(stores.clock.now()).unwrap().kid.clone()
}

async fn a_new_key_is_published_everywhere_before_it_signs(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    let old = signing(&here.stores);
    let command = place.open().await.unwrap();
    let new = command.keys.rotate(after(6 * MINUTE)).await.unwrap();
    let expected = vec![(new.clone(), KeyState::Next), (old.clone(), KeyState::Signing)];
    assert_eq!(states(&command), expected, "whoever asked knows at once");
    for node in [&here, &there] {
        eventually("the key is published", Duration::from_secs(1), || async { states(&node.stores) == expected }).await;
    }
    // Time alone lets it sign.
    let later = place.open_at(Later::by(361)).await.unwrap();
    assert_eq!(states(&later), [(new, KeyState::Signing), (old, KeyState::Retiring)]);
    for stores in [command, later] {
        stores.close().await;
    }
    here.stop().await;
    there.stop().await;
}

async fn a_key_that_is_followed_verifies_until_its_tokens_expired_and_is_cleaned_away(place: Place) {
    let first = place.open().await.unwrap();
    let old = signing(&first);
    let new = first.keys.rotate(after(MINUTE)).await.unwrap();
    first.close().await;
    // It signs for a minute more, what it signs then lasts fifteen, and clocks differ by one at most.
    for (seconds, holds) in [(61, true), (16 * 60, true), (17 * 60 + 5, false)] {
        let stores = place.open_at(Later::by(seconds)).await.unwrap();
        let kids: Vec<String> = states(&stores).into_iter().map(|(kid, _)| kid).collect();
        assert_eq!(kids.contains(&old), holds, "after {seconds} s");
        assert_eq!(signing(&stores), new);
        stores.close().await;
    }
    // Its row is gone for good once a server has cleaned: seen by whom the clock would still let it be.
    let node = Node::following(place.open_at(Later::by(19 * 60)).await.unwrap());
    let early = place.open().await.unwrap();
    eventually("the row is cleaned away", Duration::from_secs(5), || async {
        early.keys.reload().await.unwrap();
        states(&early).len() == 1
    })
    .await;
    early.close().await;
    node.stop().await;
}

async fn in_an_emergency_the_older_keys_are_gone_at_once_everywhere(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    let waiting = here.stores.keys.rotate(after(6 * MINUTE)).await.unwrap();
    let new = here.stores.keys.rotate(rotation(SigningAlgorithm::Es256, Takeover::AtOnce)).await.unwrap();
    assert_ne!(waiting, new);
    let expected = vec![(new, KeyState::Signing)];
    assert_eq!(states(&here.stores), expected);
    eventually("the older ones are gone", Duration::from_secs(1), || async { states(&there.stores) == expected }).await;
    here.stop().await;
    there.stop().await;
}

async fn keys_that_wait_follow_in_their_order(place: Place) {
    let stores = place.open().await.unwrap();
    let first = signing(&stores);
    let second = stores.keys.rotate(after(6 * MINUTE)).await.unwrap();
    let third = stores.keys.rotate(after(MINUTE)).await.unwrap();
    stores.close().await;
    for (seconds, expected) in [(0, &first), (120, &first), (361, &third)] {
        let stores = place.open_at(Later::by(seconds)).await.unwrap();
        assert_eq!(signing(&stores), *expected, "after {seconds} s");
        assert!(states(&stores).iter().any(|(kid, _)| *kid == second), "after {seconds} s");
        stores.close().await;
    }
}

fn kids(keys: &SigningKeys, stores: &Stores) -> Vec<String> {
    keys.verifying(stores.clock.now()).map(|key| key.kid.clone()).collect()
}

async fn threat_36_what_memory_holds_is_not_believed_without_a_follower(place: Place) {
    let (stores, other) = (place.open().await.unwrap(), place.open().await.unwrap());
    let old = signing(&stores);
    let new = other.keys.rotate(rotation(SigningAlgorithm::EdDsa, Takeover::AtOnce)).await.unwrap();
    assert_eq!(kids(&stores.keys.signing(), &stores), [old], "it was not told");
    assert!(stores.keys.peek().is_none());
    assert_eq!(kids(&stores.keys.sure().await.unwrap(), &stores), std::slice::from_ref(&new));
    let node = place.node().await;
    eventually("memory is sure", Duration::from_secs(5), || async { node.stores.keys.peek().is_some() }).await;
    assert_eq!(kids(&node.stores.keys.sure().await.unwrap(), &stores), [new]);
    node.stop().await;
    for stores in [stores, other] {
        stores.close().await;
        assert!(stores.keys.sure().await.is_err(), "no store, no keys");
    }
}

async fn a_key_of_a_newer_version_keeps_no_removed_one_alive(place: Place) {
    let node = place.node().await;
    let removed = signing(&node.stores);
    let kept = node.stores.keys.rotate(after(MINUTE)).await.unwrap();
    // As that version would write it.
    place
        .execute(&format!("UPDATE signing_keys SET algorithm = 'ML-DSA-44', kid = 'newer' WHERE kid = '{removed}'"))
        .await;
    node.stores.keys.reload().await.unwrap();
    assert_eq!(states(&node.stores), [(kept, KeyState::Signing)]);
    node.stop().await;
}

async fn another_algorithm_makes_one_key_however_many_nodes_ask(place: Place) {
    let (one, two) = (place.open().await.unwrap(), place.open().await.unwrap());
    let same = rotation(SigningAlgorithm::EdDsa, Takeover::After(MINUTE));
    assert_eq!(one.keys.adopt(same).await.unwrap(), None);
    let other = rotation(SigningAlgorithm::Rs256, Takeover::After(MINUTE));
    let (first, second) = tokio::join!(one.keys.adopt(other), two.keys.adopt(other));
    let made: Vec<String> = [first.unwrap(), second.unwrap()].into_iter().flatten().collect();
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(two.keys.adopt(other).await.unwrap(), None, "it waits already");
    for stores in [&one, &two] {
        assert_eq!(states(stores).len(), 2);
    }
    one.close().await;
    two.close().await;
    // And is read back.
    let again = place.open().await.unwrap();
    let keys = again.keys.signing();
    let algorithms: Vec<&str> = keys.verifying(again.clock.now()).map(|key| key.algorithm.as_str()).collect();
    assert_eq!(algorithms, ["RS256", "EdDSA"]);
    again.close().await;
}

const DAY: Duration = Duration::from_secs(86_400);

/// As a server does at its start and at a reload.
async fn lets_tokens_live(stores: &Stores, access: Duration) {
    let rotation = Rotation { access, ..after(6 * MINUTE) };
    assert_eq!(stores.keys.adopt(rotation).await.unwrap(), None);
}

async fn verifies(place: &Place, kid: &str, seconds: u64) -> bool {
    let stores = place.open_at(Later::by(seconds)).await.unwrap();
    let verifies = states(&stores).iter().any(|(known, _)| known == kid);
    stores.close().await;
    verifies
}

async fn a_key_verifies_until_the_longest_of_its_tokens_has_expired(place: Place) {
    let stores = place.open().await.unwrap();
    let old = signing(&stores);
    lets_tokens_live(&stores, DAY).await;
    // What it signed until now lives on, whatever is said from now on.
    lets_tokens_live(&stores, 15 * MINUTE).await;
    stores.keys.rotate(after(MINUTE)).await.unwrap();
    stores.close().await;
    for (seconds, holds) in [(60, true), (86_400 + 90, true), (86_400 + 125, false)] {
        assert_eq!(verifies(&place, &old, seconds).await, holds, "after {seconds} s");
    }
}

async fn a_longer_life_that_is_told_of_later_counts_for_keys_that_still_sign(place: Place) {
    let stores = place.open().await.unwrap();
    let old = signing(&stores);
    let new = stores.keys.rotate(after(MINUTE)).await.unwrap();
    lets_tokens_live(&stores, DAY).await;
    let times: Vec<_> = stores.keys.signing().states(stores.clock.now()).map(|(key, _)| key.times.token_life).collect();
    assert_eq!(times, [DAY, DAY], "known at once");
    stores.close().await;
    // The new one signs by now; the old one does not, and is not kept for longer.
    let later = place.open_at(Later::by(300)).await.unwrap();
    assert_eq!(signing(&later), new);
    lets_tokens_live(&later, 3 * DAY).await;
    later.keys.rotate(after(MINUTE)).await.unwrap();
    later.close().await;
    for (kid, seconds, holds) in [
        (&old, 86_400 + 90, true),
        (&old, 86_400 + 125, false),
        (&new, 3 * 86_400 + 390, true),
        (&new, 3 * 86_400 + 430, false),
    ] {
        assert_eq!(verifies(&place, kid, seconds).await, holds, "after {seconds} s");
    }
}

async fn a_key_that_another_process_made_is_told_of_the_life_of_tokens(place: Place) {
    let (server, command) = (place.open().await.unwrap(), place.open().await.unwrap());
    lets_tokens_live(&server, DAY).await;
    let kid = command.keys.rotate(after(MINUTE)).await.unwrap();
    server.keys.reload().await.unwrap();
    // Cleaning is the first thing that it does in the background.
    let node = Node::following(server);
    eventually("the store knows", Duration::from_secs(5), || async {
        let keys = command.keys.read().await.unwrap();
        keys.newest().is_some_and(|key| key.kid == kid && key.times.token_life == DAY)
    })
    .await;
    node.stop().await;
    command.close().await;
}
