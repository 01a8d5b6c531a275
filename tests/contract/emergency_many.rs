//! The emergency where there are many sessions.

use postern::{
    core::session::SessionId,
    ports::{ChangeKind, Whom},
};

use crate::harness::{Place, user};

crate::for_every_database!(the_emergency_comes_to_its_end_with_many_sessions);

async fn the_emergency_comes_to_its_end_with_many_sessions(place: Place) {
    const EACH: u64 = 100_000;
    let stores = place.open().await.unwrap();
    stores.users.insert(user("ann"), None).await.unwrap();
    stores.users.insert(user("bob"), None).await.unwrap();
    let at = jiff::Timestamp::now().as_millisecond();
    for name in ["ann", "bob"] {
        let hash = |of: &str| {
            let text = format!("substr('{of}-{name}-' || n || '--------------------------------', 1, 32)");
            if place.is_sqlite() { format!("CAST({text} AS BLOB)") } else { format!("convert_to({text}, 'UTF8')") }
        };
        let sql = format!(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {EACH}) \
             INSERT INTO sessions (id, folded, name, factor, domain, gate_hash, portal_hash, remembered, created_at, \
             signed_in_at, last_used_at, user_agent) \
             SELECT '{name}-' || n, '{name}', '{name}', 'one', '', {}, {}, 0, {at}, {at}, {at}, '' FROM numbers",
            hash("gate"),
            hash("portal"),
        );
        place.execute(&sql).await;
    }
    let before = stores.changes.latest().await.unwrap();
    assert_eq!(stores.users.revoke(Whom::One("ann")).await.unwrap(), EACH);
    assert!(stores.sessions.find_id(&SessionId::new("ann-1".to_owned())).await.unwrap().is_none());
    assert!(stores.sessions.find_id(&SessionId::new("bob-1".to_owned())).await.unwrap().is_some());
    assert_eq!(stores.users.revoke(Whom::Everybody).await.unwrap(), EACH);
    assert!(stores.sessions.list(None).await.unwrap().is_empty());
    // In steps that are short, whatever the database can do in the time of one.
    let changes = stores.changes.after(before).await.unwrap().unwrap();
    let steps = |kind| changes.iter().filter(|change| change.kind == kind).count();
    assert!(steps(ChangeKind::User) >= 20 && steps(ChangeKind::AllUsers) >= 20, "{} steps", changes.len());
    for (name, version) in [("ann", 3), ("bob", 2)] {
        assert_eq!(stores.users.find(name).await.unwrap().unwrap().token_version, version);
    }
    stores.close().await;
}
