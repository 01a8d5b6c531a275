//! What is stored of a session, and cannot be read.

use postern::ports::Unavailable;

use crate::harness::Place;

crate::for_every_store!(a_record_that_is_damaged_leaves_the_others_of_the_question_alone);

async fn a_record_that_is_damaged_leaves_the_others_of_the_question_alone(place: Place) {
    let node = place.node().await;
    for name in ["ann", "bob", "cid"] {
        node.add_user(name).await;
    }
    let (ann, bob, cid) = (node.sign_in("ann").await, node.sign_in("bob").await, node.sign_in("cid").await);
    place.damage(&ann).await;
    place.execute("UPDATE users SET groups = '{' WHERE folded = 'bob'").await;
    let each = node.stores.sessions.find_ids(&[ann.id.clone(), bob.id.clone(), cid.id.clone()]).await.unwrap();
    assert_eq!(each.found.keys().collect::<Vec<_>>(), [&cid.id]);
    assert!(each.unsure.len() == 2 && each.unsure.contains(&ann.id) && each.unsure.contains(&bob.id));
    let alone: Unavailable = node.stores.sessions.find(&ann.gate_hash).await.unwrap_err();
    assert_eq!(alone.store, "sessions", "not signed out, since nobody knows");
    node.stop().await;
}
