use postern::ports::{ChangeKind, End, UserChange};

use crate::harness::Place;

crate::for_every_store!(every_change_is_in_the_log_in_order, a_log_that_ends_earlier_is_another_log);

async fn every_change_is_in_the_log_in_order(place: Place) {
    let node = place.node().await;
    let changes = &node.stores.changes;
    let start = changes.latest().await.unwrap();
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.stores.sessions.end(End::One(&made.id)).await.unwrap();
    node.stores.sessions.end(End::AllOf { user: "ANN" }).await.unwrap();
    node.stores.users.update("Ann", UserChange { disabled: Some(true), ..UserChange::default() }).await.unwrap();
    node.stores.users.delete("ann").await.unwrap();
    let found = changes.after(start).await.unwrap().unwrap();
    let user = (ChangeKind::User, "ann");
    let mut expected = vec![user, (ChangeKind::Session, made.id.as_str()), user, user, user];
    if place.is_in_redis() {
        // Who ends one session there tells of its user too: nobody knows what is being handed over from it.
        expected.insert(2, user);
    }
    let count = i64::try_from(expected.len()).unwrap();
    let seen: Vec<_> = found.iter().map(|change| (change.kind, change.id.as_str())).collect();
    assert_eq!(seen, expected);
    let numbers: Vec<_> = found.iter().map(|change| change.seq).collect();
    assert_eq!(numbers, (start + 1..=start + count).collect::<Vec<_>>());
    assert_eq!(changes.latest().await.unwrap(), start + count);
    assert_eq!(changes.after(start + count).await.unwrap(), Some(Vec::new()));
    node.stop().await;
}

async fn a_log_that_ends_earlier_is_another_log(place: Place) {
    let node = place.node().await;
    let latest = node.stores.changes.latest().await.unwrap();
    assert_eq!(node.stores.changes.after(latest + 1).await.unwrap(), None);
    node.stop().await;
}
