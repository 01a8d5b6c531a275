//! Users from a file in front of the database's sessions.

use std::{fs, path::PathBuf, time::Duration};

use postern::{
    config::UsersSource,
    core::api_token::Owner,
    ports::{ApiTokenError, UserError},
    store::OpenError,
};

use crate::{
    api_tokens::draft,
    harness::{Place, eventually, user},
};

const HASH: &str = "$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/";

crate::for_every_store!(
    entries_that_change_are_disabled_or_removed_end_their_sessions_everywhere,
    a_session_of_an_entry_that_another_process_saw_change_first_ends_with_the_reload,
    threat_36_no_api_token_is_made_by_an_entry_that_another_process_saw_replaced,
    threat_39_a_name_that_is_not_in_the_file_costs_what_those_cost_that_are,
    a_change_made_while_no_server_ran_is_noticed,
    a_large_file_is_taken_up_within_the_time_of_one_operation,
    a_faulty_file_keeps_the_old_users,
    threat_36_a_reading_that_fails_takes_no_token_version_back,
    a_file_is_not_written_by_us,
    threat_38_an_address_in_the_file_counts_for_its_user,
);

fn with_users(mut place: Place) -> (Place, PathBuf) {
    let path = place.folder.path().join("users.yaml");
    place.users = UsersSource::File(path.clone());
    write(&path, &[("ann", "admins", false), ("bob", "staff", false), ("Carl", "staff", false)]);
    (place, path)
}

fn write(path: &PathBuf, users: &[(&str, &str, bool)]) {
    let entries: String = users
        .iter()
        .map(|(name, group, disabled)| {
            format!("  {name}:\n    disabled: {disabled}\n    displayname: {name}\n    password: '{HASH}'\n    groups: [{group}]\n")
        })
        .collect();
    fs::write(path, format!("users:\n{entries}")).unwrap();
}

async fn entries_that_change_are_disabled_or_removed_end_their_sessions_everywhere(place: Place) {
    let (place, path) = with_users(place);
    let (here, there) = (place.node().await, place.node().await);
    let ann = here.sign_in("ann").await;
    let bob = here.sign_in("bob").await;
    let carl = here.sign_in("carl").await;
    for made in [&ann, &bob, &carl] {
        there.warm(made).await;
    }
    write(&path, &[("ann", "admins", false), ("bob", "staff", true)]);
    assert_eq!(here.stores.users_file.as_ref().unwrap().reload().await.unwrap(), 2);
    for made in [&bob, &carl] {
        assert!(here.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
        eventually("the other node forgets", Duration::from_secs(1), || async { !there.knows(made) }).await;
    }
    assert!(here.stores.sessions.find(&ann.gate_hash).await.unwrap().is_some(), "who did not change stays");
    assert!(here.stores.credentials.password_hash("bob").await.unwrap().is_none());
    here.stop().await;
    there.stop().await;
}

async fn a_session_of_an_entry_that_another_process_saw_change_first_ends_with_the_reload(place: Place) {
    let (place, path) = with_users(place);
    let server = place.node().await;
    write(&path, &[("ann", "admins", false), ("bob", "staff", true), ("carl", "staff", false)]);
    // A command reads the new file while the server still holds the old one, and Bob signs in.
    place.open().await.unwrap().close().await;
    let bob = server.sign_in("bob").await;
    server.warm(&bob).await;
    server.stores.users_file.as_ref().unwrap().reload().await.unwrap();
    assert!(!server.knows(&bob));
    assert!(server.stores.sessions.find(&bob.gate_hash).await.unwrap().is_none());
    assert!(!server.stores.sessions.list(Some("bob")).await.unwrap().iter().any(|session| session.id == bob.id));
    server.stop().await;
}

/// It would carry the new token version, which the log of changes tells the server, and be made by whoever knew the old password.
async fn threat_36_no_api_token_is_made_by_an_entry_that_another_process_saw_replaced(place: Place) {
    let (place, path) = with_users(place);
    let server = place.node().await;
    let create = |owner: Owner, secret: &'static str| server.stores.api_tokens.create(draft(owner, secret), None);
    let of = |name: &str| Owner::User(name.to_owned());
    write(&path, &[("ann", "admins", false), ("bob", "others", false)]);
    // A command reads the new file while the server still holds the old one.
    place.open().await.unwrap().close().await;
    eventually("the server knows the new version", Duration::from_secs(1), || async {
        server.stores.users.find("bob").await.unwrap().unwrap().token_version == 2
    })
    .await;
    for gone in ["bob", "BOB", "Carl"] {
        assert!(matches!(create(of(gone), "early").await, Err(ApiTokenError::Unavailable(_))), "{gone}");
    }
    create(of("ann"), "of ann").await.unwrap();
    server
        .stores
        .api_tokens
        .create(draft(Owner::Service("robot".to_owned()), "of a robot"), Some(Vec::new()))
        .await
        .unwrap();
    server.stores.users_file.as_ref().unwrap().reload().await.unwrap();
    let made = create(of("Bob"), "late").await.unwrap();
    assert!(server.stores.api_tokens.find(&made.hash).await.unwrap().is_some());
    assert!(matches!(create(of("Carl"), "never").await, Err(ApiTokenError::NoUser(_))));
    server.stop().await;
}

async fn threat_39_a_name_that_is_not_in_the_file_costs_what_those_cost_that_are(place: Place) {
    use secrecy::ExposeSecret as _;
    let (place, _) = with_users(place);
    let stores = place.open().await.unwrap();
    assert!(stores.credentials.password_hash("nobody").await.unwrap().is_none());
    assert_eq!(stores.credentials.decoy().unwrap().expose_secret(), HASH);
    stores.close().await;
}

async fn a_change_made_while_no_server_ran_is_noticed(place: Place) {
    let (place, path) = with_users(place);
    let node = place.node().await;
    let (ann, bob) = (node.sign_in("ann").await, node.sign_in("bob").await);
    node.stop().await;
    write(&path, &[("ann", "staff", false), ("bob", "staff", false)]);
    let node = place.node().await;
    assert!(node.stores.sessions.find(&ann.gate_hash).await.unwrap().is_none());
    assert!(node.stores.sessions.find(&bob.gate_hash).await.unwrap().is_some());
    assert_eq!(node.stores.users.find("ANN").await.unwrap().unwrap().token_version, 2);
    node.stop().await;
}

async fn a_large_file_is_taken_up_within_the_time_of_one_operation(place: Place) {
    let (place, path) = with_users(place);
    let names: Vec<String> = (0..3_000).map(|number| format!("user-{number}")).collect();
    for (group, version) in [("staff", 1), ("admins", 2)] {
        write(&path, &names.iter().map(|name| (name.as_str(), group, false)).collect::<Vec<_>>());
        let stores = place.open().await.unwrap();
        let user = stores.users.find("user-2999").await.unwrap().unwrap();
        assert_eq!((user.groups, user.token_version), (vec![group.to_owned()], version));
        stores.close().await;
    }
}

/// Somebody raised it meanwhile: what is read of the database before the failure is the newest there is.
async fn threat_36_a_reading_that_fails_takes_no_token_version_back(place: Place) {
    let (place, path) = with_users(place);
    let stores = place.open().await.unwrap();
    place.execute("UPDATE file_users SET token_version = 5 WHERE folded = 'ann'").await;
    let fail = if place.is_sqlite() {
        "CREATE TRIGGER fail BEFORE INSERT ON changes BEGIN SELECT RAISE(ABORT, 'fails'); END"
    } else {
        "ALTER TABLE changes ADD CONSTRAINT fail CHECK (seq < 0) NOT VALID"
    };
    place.execute(fail).await;
    write(&path, &[("ann", "admins", false), ("bob", "others", false), ("Carl", "staff", false)]);
    assert!(stores.users_file.as_ref().unwrap().reload().await.is_err());
    assert_eq!(stores.users.find("ann").await.unwrap().unwrap().token_version, 5);
    assert_eq!(stores.users.find("bob").await.unwrap().unwrap().groups, ["staff"], "the old users stay");
    stores.close().await;
}

async fn a_faulty_file_keeps_the_old_users(place: Place) {
    let (place, path) = with_users(place);
    let node = place.node().await;
    let ann = node.sign_in("ann").await;
    for text in ["users: [", "users:\n  ann:\n    password: plain\n"] {
        fs::write(&path, text).unwrap();
        assert!(node.stores.users_file.as_ref().unwrap().reload().await.is_err());
        assert!(node.stores.sessions.find(&ann.gate_hash).await.unwrap().is_some());
    }
    assert!(matches!(place.open().await.err().unwrap(), OpenError::Users(_)));
    node.stop().await;
}

async fn a_file_is_not_written_by_us(place: Place) {
    let (place, _) = with_users(place);
    let stores = place.open().await.unwrap();
    assert!(matches!(stores.users.insert(user("dora"), None).await, Err(UserError::ReadOnly(_))));
    assert!(matches!(stores.users.delete("ann").await, Err(UserError::ReadOnly(_))));
    stores.close().await;
}

async fn threat_38_an_address_in_the_file_counts_for_its_user(place: Place) {
    let (place, path) = with_users(place);
    let entry = |name: &str, more: &str| format!("  {name}:\n    displayname: {name}\n    password: '{HASH}'\n{more}");
    let (bob, carl) = (entry("Bob", "    email: Bob@example.com\n"), entry("carl", "    email: bob@EXAMPLE.com\n"));
    fs::write(&path, format!("users:\n{carl}{bob}{}", entry("ann", ""))).unwrap();
    let node = place.node().await;
    let owner = async |email: &str| node.stores.credentials.owner_of(email).await.unwrap();
    assert_eq!(owner("BOB@example.com").await.as_deref(), Some("bob"), "of several, of one and the same");
    for nobody in ["nobody@example.com", "", "%@example.com"] {
        assert_eq!(owner(nobody).await, None, "{nobody:?}");
    }
    node.stop().await;
}
