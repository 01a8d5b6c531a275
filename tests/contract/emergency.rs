//! The emergency: every session and every token of a user, or of all, ends.

use std::time::Duration;

use postern::{
    config::UsersSource,
    ports::{ChangeKind, UserError, Whom},
};

use crate::{
    harness::{Node, Place, eventually, session},
    tokens::is_over,
};

crate::for_every_store!(
    threat_36_the_emergency_ends_everything_of_a_user_or_of_all,
    threat_36_the_emergency_holds_for_users_of_a_file,
    the_emergency_raises_the_versions_of_many_users_in_steps,
);

const SECOND: Duration = Duration::from_secs(1);

async fn version(node: &Node, name: &str) -> u64 {
    node.stores.users.find(name).await.unwrap().unwrap().token_version
}

async fn threat_36_the_emergency_ends_everything_of_a_user_or_of_all(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    here.add_user("ann").await;
    here.add_user("bob").await;
    let (anns, bobs) = (here.sign_in("ann").await, here.sign_in("bob").await);
    for session in [&anns, &bobs] {
        there.warm(session).await;
    }
    let command = place.open().await.unwrap();
    assert!(matches!(command.users.revoke(Whom::One("nobody")).await, Err(UserError::Unknown(_))));
    assert_eq!(command.users.revoke(Whom::One("ANN")).await.unwrap(), 1);
    for node in [&here, &there] {
        eventually("hers are over", SECOND, || is_over(node, &anns)).await;
        assert_eq!((version(node, "ann").await, version(node, "bob").await), (2, 1));
        assert!(!is_over(node, &bobs).await);
    }
    assert_eq!(command.users.revoke(Whom::Everybody).await.unwrap(), 1);
    for node in [&here, &there] {
        eventually("all are over", SECOND, || is_over(node, &bobs)).await;
        assert_eq!((version(node, "ann").await, version(node, "bob").await), (3, 2));
    }
    let fresh = there.sign_in("bob").await;
    assert!(!is_over(&here, &fresh).await, "whoever signs in again is let in");
    command.close().await;
    here.stop().await;
    there.stop().await;
}

async fn threat_36_the_emergency_holds_for_users_of_a_file(mut place: Place) {
    let file = place.folder.path().join("users.yaml");
    let hash = "$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/";
    let entry = |name: &str| format!("  {name}: {{ displayname: {name}, password: '{hash}' }}\n");
    std::fs::write(&file, format!("users:\n{}{}", entry("ann"), entry("bob"))).unwrap();
    place.users = UsersSource::File(file);
    let (here, there) = (place.node().await, place.node().await);
    let (anns, bobs) = (session("ann"), session("bob"));
    for session in [&anns, &bobs] {
        here.stores.sessions.create(session.clone(), &[]).await.unwrap();
        there.warm(session).await;
    }
    assert!(matches!(here.stores.users.revoke(Whom::One("nobody")).await, Err(UserError::Unknown(_))));
    assert_eq!(here.stores.users.revoke(Whom::One("Ann")).await.unwrap(), 1);
    assert!(is_over(&here, &anns).await, "at once here");
    assert_eq!(version(&here, "ann").await, 2);
    eventually("and there", SECOND, || async { is_over(&there, &anns).await && version(&there, "ann").await == 2 })
        .await;
    assert_eq!(version(&there, "bob").await, 1);
    assert_eq!(here.stores.users.revoke(Whom::Everybody).await.unwrap(), 1);
    eventually("all of them", SECOND, || async {
        is_over(&there, &bobs).await && version(&there, "bob").await == 2 && version(&there, "ann").await == 3
    })
    .await;
    here.stop().await;
    there.stop().await;
}

/// Of users of the database and of those of a file, whose versions are beside it.
async fn the_emergency_raises_the_versions_of_many_users_in_steps(mut place: Place) {
    const MANY: usize = 10_000;
    place.open().await.unwrap().close().await;
    let rows = format!("WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MANY})");
    place
        .execute(&format!(
            "{rows} INSERT INTO users (folded, name, display_name, token_version) SELECT 'user-' || n, 'user-' || n, '', n FROM numbers"
        ))
        .await;
    let stores = place.open().await.unwrap();
    let before = stores.changes.latest().await.unwrap();
    assert_eq!(stores.users.revoke(Whom::Everybody).await.unwrap(), 0);
    let changes = stores.changes.after(before).await.unwrap().unwrap();
    assert!(changes.len() >= MANY / 2_000, "{} steps", changes.len());
    assert!(changes.iter().all(|change| change.kind == ChangeKind::AllUsers));
    let users = stores.users.list().await.unwrap();
    assert_eq!(users.len(), MANY);
    for user in users {
        let number: u64 = user.name.strip_prefix("user-").unwrap().parse().unwrap();
        assert_eq!(user.token_version, number + 1, "once, each");
    }
    stores.close().await;

    let file = place.folder.path().join("users.yaml");
    let hash = "$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/";
    std::fs::write(&file, format!("users:\n  ann: {{ displayname: ann, password: '{hash}' }}\n")).unwrap();
    let fingerprint = if place.is_sqlite() { "x''" } else { "''::bytea" };
    place
        .execute(&format!(
            "{rows} INSERT INTO file_users (folded, fingerprint) SELECT CASE WHEN n = 1 THEN 'a' WHEN n = 2 THEN 'zz' \
             ELSE 'gone-' || n END, {fingerprint} FROM numbers"
        ))
        .await;
    place.users = UsersSource::File(file);
    let node = place.node().await;
    assert_eq!(node.stores.users.revoke(Whom::Everybody).await.unwrap(), 0);
    assert_eq!(version(&node, "ann").await, 2);
    node.stop().await;
}
