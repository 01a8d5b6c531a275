use std::sync::Arc;

use postern::{
    core::{session::SessionId, user::folded},
    ports::{End, NameCheck, UserChange, UserError},
};
use secrecy::{ExposeSecret, SecretString};

use crate::harness::{Place, user};

crate::for_every_store!(
    names_are_unique_and_found_ignoring_case,
    threat_27_what_cannot_be_a_header_cannot_be_stored,
    a_name_with_a_nul_is_nobodys,
    a_change_changes_what_it_names,
    a_password_ends_sessions_and_tokens,
    many_hashes_are_found_in_one_question,
    many_are_found_as_each_alone_is,
    a_disabled_user_has_no_password_and_no_sessions,
    a_removed_user_is_gone_with_their_sessions,
);

async fn names_are_unique_and_found_ignoring_case(place: Place) {
    let node = place.node().await;
    node.add_user("Änne").await;
    let found = node.stores.users.find("äNNE").await.unwrap().unwrap();
    assert_eq!(found, user("Änne"));
    assert!(matches!(node.stores.users.insert(user("ÄNNE"), None).await, Err(UserError::Exists(_))));
    node.add_user("bob").await;
    let names: Vec<_> = node.stores.users.list().await.unwrap().into_iter().map(|user| user.name).collect();
    assert_eq!(names, ["bob", "Änne"]);
    assert!(node.stores.users.find("carl").await.unwrap().is_none());
    node.stop().await;
}

async fn threat_27_what_cannot_be_a_header_cannot_be_stored(place: Place) {
    let node = place.node().await;
    assert!(matches!(node.stores.users.insert(user("a\r\nb"), None).await, Err(UserError::Bad(_))));
    node.add_user("ann").await;
    for groups in [["a,b"], ["a\tb"]] {
        let change = UserChange { groups: Some(groups.map(str::to_owned).to_vec()), ..UserChange::default() };
        assert!(matches!(node.stores.users.update("ann", change).await, Err(UserError::Bad(_))));
    }
    assert_eq!(node.stores.users.find("ann").await.unwrap().unwrap().groups, ["staff"]);
    node.stop().await;
}

/// PostgreSQL keeps no such text, which must not look like a store that cannot answer.
async fn a_name_with_a_nul_is_nobodys(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    for name in ["\0", "ann\0", "a\0nn"] {
        assert!(node.stores.users.find(name).await.unwrap().is_none());
        assert!(node.stores.credentials.password_hash(name).await.unwrap().is_none());
        let id = SessionId::new(name.to_owned());
        assert!(node.stores.sessions.find_id(&id).await.unwrap().is_none());
        assert_eq!(node.stores.sessions.end(End::One(&id)).await.unwrap(), 0);
    }
    node.stop().await;
}

async fn a_change_changes_what_it_names(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let change = UserChange { email: Some(None), display_name: Some("Ann".to_owned()), ..UserChange::default() };
    let changed = node.stores.users.update("ANN", change).await.unwrap();
    let mut expected = user("ann");
    expected.email = None;
    expected.display_name = "Ann".to_owned();
    assert_eq!(changed, expected);
    assert_eq!(node.stores.users.find("ann").await.unwrap().unwrap(), expected);
    let unknown = node.stores.users.update("nobody", UserChange::default()).await;
    assert!(matches!(unknown, Err(UserError::Unknown(_))));
    node.stop().await;
}

async fn many_hashes_are_found_in_one_question(place: Place) {
    let node = place.node().await;
    for name in ["ann", "Bob", "cid"] {
        node.add_user(name).await;
        node.stores.credentials.set_password_hash(name, SecretString::from(format!("of {name}"))).await.unwrap();
    }
    node.stores.users.insert(user("without"), None).await.unwrap();
    let disabled = UserChange { disabled: Some(true), ..UserChange::default() };
    node.stores.users.update("cid", disabled).await.unwrap();
    let operations = [("users", "password_hashes"), ("users", "password_hash")];
    let before = place.asked(operations);
    let names = ["ANN", "bob", "cid", "without", "nobody", "nul\0"];
    let found = node.stores.credentials.password_hashes(&names).await.unwrap();
    let asked = place.asked_since(operations, before);
    assert_eq!(asked, [1, 0]);
    let mut found: Vec<_> = found.iter().map(|(name, hash)| (name.as_str(), hash.expose_secret())).collect();
    found.sort_unstable();
    assert_eq!(found, [("ann", "of ann"), ("bob", "of Bob")]);
    node.stop().await;
}

/// Open streams are asked about together, requests alone: what one of them finds the other does. Also of a row whose name is no longer folded as it was when it
/// was written, as after an update of the table of letters.
async fn many_are_found_as_each_alone_is(place: Place) {
    let node = place.node().await;
    for name in ["ann", "Änne", "bob"] {
        node.add_user(name).await;
    }
    let made = node.sign_in("ann").await;
    place.execute("UPDATE users SET name = 'Elsewhere' WHERE folded = 'ann'").await;
    place.execute("UPDATE users SET groups = '{' WHERE folded = 'bob'").await;
    let names = ["ann", "ANN", " ann ", "elsewhere", "äNNE", "bob", "nobody", "nul\0"];
    let stores = &node.stores;
    let users = stores.users.find_each(&names).await.unwrap();
    let hashes = stores.credentials.password_hashes(&names).await.unwrap();
    let checks = stores.foreign_tokens.check_names(&names.map(Arc::<str>::from)).await.unwrap();
    let is_taken = |check: &NameCheck| matches!(check, NameCheck::Taken);
    for name in names {
        assert_eq!(users.said(&folded(name)), stores.users.find(name).await.ok(), "the user {name:?}");
        let hash = stores.credentials.password_hash(name).await.unwrap();
        let among = hashes.get(&folded(name)).map(ExposeSecret::expose_secret);
        assert_eq!(among, hash.as_ref().map(ExposeSecret::expose_secret), "the password of {name:?}");
        let check = stores.foreign_tokens.check_name(name).await.ok();
        assert_eq!(checks.get(name).map(is_taken), check.as_ref().map(is_taken), "the name {name:?}");
    }
    assert_eq!(users.said(&"ann".to_owned()).flatten().map(|user| user.name).as_deref(), Some("Elsewhere"));
    let alone = stores.sessions.find_id(&made.id).await.unwrap();
    let together = stores.sessions.find_ids(std::slice::from_ref(&made.id)).await.unwrap();
    assert_eq!(together.found.contains_key(&made.id), alone.is_some(), "the session");
    node.stop().await;
}

async fn a_password_ends_sessions_and_tokens(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.warm(&made).await;
    node.stores.credentials.set_password_hash("Ann", SecretString::from("new")).await.unwrap();
    assert!(!node.knows(&made));
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    assert_eq!(node.stores.users.find("ann").await.unwrap().unwrap().token_version, 2);
    let hash = node.stores.credentials.password_hash("ANN").await.unwrap().unwrap();
    assert_eq!(hash.expose_secret(), "new");
    node.stop().await;
}

async fn a_disabled_user_has_no_password_and_no_sessions(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    let set = async |disabled| {
        let change = UserChange { disabled: Some(disabled), ..UserChange::default() };
        node.stores.users.update("ann", change).await.unwrap();
    };
    set(true).await;
    assert!(node.stores.credentials.password_hash("ann").await.unwrap().is_none());
    assert!(node.stores.sessions.list(Some("ann")).await.unwrap().is_empty());
    set(false).await;
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_none(), "an old session never comes back");
    assert!(node.stores.credentials.password_hash("ann").await.unwrap().is_some());
    node.stop().await;
}

async fn a_removed_user_is_gone_with_their_sessions(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.stores.users.delete("ANN").await.unwrap();
    assert!(node.stores.users.find("ann").await.unwrap().is_none());
    assert!(matches!(node.stores.users.delete("ann").await, Err(UserError::Unknown(_))));
    node.add_user("ann").await;
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    node.stop().await;
}
