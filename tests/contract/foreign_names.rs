//! Names of other issuers' users, and the local users who must not be taken for them (THREATS 69): what is remembered of a free name ends
//! when somebody is called so, on whatever node that was said.

use std::{fs, sync::Arc, time::Duration};

use postern::{
    config::UsersSource,
    core::{api_token::Owner, ground::Watch},
    ports::{NameCheck, Revoke, UserChange},
    store::Stores,
};

use crate::{
    api_tokens::draft,
    harness::{Node, Place, eventually, user},
};

crate::for_every_store!(
    threat_69_a_name_is_free_until_somebody_on_any_node_is_called_so,
    threat_69_a_name_is_free_until_a_service_account_has_it,
    threat_69_a_name_that_a_users_file_takes,
    nothing_is_remembered_where_nobody_follows_the_log,
    threat_69_many_names_are_looked_up_in_one_question,
);

async fn watch(stores: &Stores, name: &str) -> Option<Arc<dyn Watch>> {
    match stores.foreign_tokens.check_name(name).await.unwrap() {
        NameCheck::Taken => panic!("{name} is taken"),
        NameCheck::Free(watch) => watch,
    }
}

async fn is_taken(stores: &Stores, name: &str) -> bool {
    matches!(stores.foreign_tokens.check_name(name).await.unwrap(), NameCheck::Taken)
}

/// As soon as the follower has read the log for the first time.
async fn settled(node: &Node, name: &str) -> Arc<dyn Watch> {
    let found = std::sync::Mutex::new(None);
    eventually("the name is remembered as free", Duration::from_secs(5), || async {
        let watch = watch(&node.stores, name).await.filter(|watch| watch.is_unchanged());
        let is_found = watch.is_some();
        *found.lock().unwrap() = watch;
        is_found
    })
    .await;
    found.into_inner().unwrap().unwrap()
}

async fn threat_69_many_names_are_looked_up_in_one_question(place: Place) {
    let before = place.node().await;
    for name in ["Ann", "bob"] {
        before.add_user(name).await;
    }
    let robot = draft(Owner::Service("Robot".to_owned()), "of the robot");
    before.stores.api_tokens.create(robot, Some(Vec::new())).await.unwrap();
    before.stop().await;
    // One that hears of no change while it asks.
    let node = place.node().await;
    settled(&node, "carol").await;
    place.execute("UPDATE users SET groups = '{' WHERE folded = 'bob'").await;
    let names = ["ann", "ANN", "bob", "robot", "carol", "dave", "nul\0"].map(Arc::<str>::from);
    let operations =
        [("users", "find_each"), ("api_tokens", "accounts_among"), ("users", "find"), ("api_tokens", "has_account")];
    let before = place.asked(operations);
    let checked = node.stores.foreign_tokens.check_names(&names).await.unwrap();
    let asked = place.asked_since(operations, before);
    assert_eq!(asked, [1, 1, 0, 0], "one question about each");
    let mut said: Vec<_> = checked
        .iter()
        .map(|(name, check)| match check {
            NameCheck::Taken => format!("{name} is taken"),
            NameCheck::Free(watch) => {
                format!("{name} is free, {}", watch.as_ref().is_some_and(|watch| watch.is_unchanged()))
            }
        })
        .collect();
    said.sort();
    let expected = [
        "ANN is taken",
        "ann is taken",
        "carol is free, true",
        "dave is free, true",
        "nul\0 is free, true",
        "robot is taken",
    ];
    assert_eq!(said, expected, "of bob nobody can tell");
    node.stop().await;
}

/// An application tells callers apart by name: nobody else is to be taken for the machine.
async fn threat_69_a_name_is_free_until_a_service_account_has_it(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    let robot = settled(&here, "robot").await;
    there
        .stores
        .api_tokens
        .create(draft(Owner::Service("Robot".to_owned()), "of the robot"), Some(Vec::new()))
        .await
        .unwrap();
    eventually("the other node is told", Duration::from_secs(1), || async { !robot.is_unchanged() }).await;
    for name in ["robot", "ROBOT"] {
        assert!(is_taken(&here.stores, name).await, "{name}");
    }
    there.stores.api_tokens.revoke(Revoke::AllOf(&Owner::Service("robot".to_owned()))).await.unwrap();
    assert!(!is_taken(&here.stores, "robot").await);
    here.stop().await;
    there.stop().await;
}

async fn threat_69_a_name_is_free_until_somebody_on_any_node_is_called_so(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    let carol = settled(&here, "carol").await;
    let dave = settled(&here, "dave").await;
    there.add_user("CAROL").await;
    eventually("the other node is told", Duration::from_secs(1), || async { !carol.is_unchanged() }).await;
    assert!(dave.is_unchanged(), "nothing was said of others");
    for name in ["carol", "Carol", "CAROL"] {
        assert!(is_taken(&here.stores, name).await, "{name}");
    }
    let disabled = UserChange { disabled: Some(true), ..UserChange::default() };
    there.stores.users.update("carol", disabled).await.unwrap();
    assert!(is_taken(&here.stores, "carol").await, "a disabled user keeps the name");
    there.stores.users.delete("carol").await.unwrap();
    assert!(!is_taken(&here.stores, "carol").await);
    // On the very node it holds before the command has answered.
    let dave = settled(&here, "dave").await;
    here.stores.users.insert(user("dave"), None).await.unwrap();
    assert!(!dave.is_unchanged());
    here.stop().await;
    there.stop().await;
}

async fn threat_69_a_name_that_a_users_file_takes(mut place: Place) {
    let path = place.folder.path().join("users.yaml");
    let write = |names: &[&str]| {
        let hash = "$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/";
        let entries: String =
            names.iter().map(|name| format!("  {name}: {{ displayname: {name}, password: '{hash}' }}\n")).collect();
        fs::write(&path, format!("users:\n{entries}")).unwrap();
    };
    write(&["ann"]);
    place.users = UsersSource::File(path.clone());
    let node = place.node().await;
    assert!(is_taken(&node.stores, "ANN").await);
    let carol = settled(&node, "carol").await;
    write(&["ann", "carol"]);
    node.stores.users_file.as_ref().unwrap().reload().await.unwrap();
    assert!(!carol.is_unchanged());
    assert!(is_taken(&node.stores, "carol").await);
    node.stop().await;
}

async fn nothing_is_remembered_where_nobody_follows_the_log(place: Place) {
    let stores = place.open().await.unwrap();
    assert!(!watch(&stores, "carol").await.is_some_and(|watch| watch.is_unchanged()));
    stores.close().await;
    let node = place.node().await;
    let carol = settled(&node, "carol").await;
    node.stop().await;
    assert!(!carol.is_unchanged(), "nor where it was followed once");
}
