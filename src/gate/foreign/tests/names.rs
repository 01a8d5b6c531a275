//! Names and groups that are not an issuer's to give.

use super::*;

#[tokio::test]
async fn threat_69_a_local_name_and_a_forged_group() {
    let world = World::new();
    world.issuers.local_names.lock().unwrap().push("Alice".to_owned());
    for name in ["Alice", "alice", "ALICE"] {
        let token = made(&header(), &with(claims(), "sub", json!(name)));
        assert_eq!(world.user(&token).await, Err("401"), "{name}");
    }
    for groups in [json!(["staff", "a,admins"]), json!(["staff", "a\r\nb"]), json!("staff,admins")] {
        let token = made(&header(), &with(claims(), "groups", groups.clone()));
        assert_eq!(world.user(&token).await, Err("401"), "{groups}");
    }
    // Somebody who becomes a local user while the token is remembered.
    let carol = made(&header(), &claims());
    assert!(world.user(&carol).await.is_ok());
    world.issuers.local_names.lock().unwrap().push("carol".to_owned());
    assert!(world.user(&carol).await.is_ok(), "memory is sure, and was not told");
    world.issuers.sure.store(false, Ordering::SeqCst);
    assert_eq!(world.user(&carol).await, Err("401"));
    // Who has the name cannot be said.
    world.issuers.users_down.store(true, Ordering::SeqCst);
    assert_eq!(world.user(&carol).await, Err("unavailable"));

    let prefixed = World::trusting(vec![trusted(|issuer| issuer.claims.prefix = "idp:".to_owned())]);
    prefixed.issuers.local_names.lock().unwrap().push("carol".to_owned());
    assert_eq!(prefixed.user(&carol).await.as_deref(), Ok("idp:carol"), "a prefix keeps them apart");
    prefixed.issuers.users_down.store(true, Ordering::SeqCst);
    assert_eq!(prefixed.user(&carol).await.as_deref(), Ok("idp:carol"), "no store is asked of what is remembered");
}

#[tokio::test]
async fn threat_69_a_prefix_that_makes_a_local_name() {
    let world = World::trusting(vec![trusted(|issuer| issuer.claims.prefix = "adm".to_owned())]);
    world.issuers.local_names.lock().unwrap().push("Admin".to_owned());
    let named = |name: &str| made(&header(), &with(claims(), "sub", json!(name)));
    for name in ["in", "In", "IN"] {
        assert_eq!(world.user(&named(name)).await, Err("401"), "{name}");
    }
    // Somebody who becomes a local user while the token is remembered.
    let token = named("iral");
    assert_eq!(world.user(&token).await.as_deref(), Ok("admiral"));
    world.issuers.local_names.lock().unwrap().push("ADMIRAL".to_owned());
    world.issuers.sure.store(false, Ordering::SeqCst);
    assert_eq!(world.user(&token).await, Err("401"));
    world.issuers.users_down.store(true, Ordering::SeqCst);
    assert_eq!(world.user(&named("ire")).await, Err("unavailable"), "who has the name cannot be said");
}
