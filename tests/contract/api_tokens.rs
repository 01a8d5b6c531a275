//! API tokens, service accounts, and passwords that were verified a moment ago.

use std::{fs, sync::Arc, time::Duration};

use postern::{
    config::UsersSource,
    core::{
        api_token::{ApiToken, ApiTokenId, Owner, Scopes},
        ground::Stamp,
        identity::{Factor, Identity},
        session::TokenHash,
        time::Timestamp,
        user::User,
    },
    ports::{ApiTokenError, End, Presentation, Recognised, Revoke, UserChange, Whom},
};
use secrecy::SecretString;

use crate::harness::{Node, Place, eventually};

crate::for_every_store!(
    a_token_is_found_as_it_was_stored,
    many_tokens_are_found_in_one_question,
    threat_36_a_token_version_of_the_users_file_counts_where_the_log_is_not_followed,
    the_last_use_of_a_token_outlives_a_restart,
    threat_36_a_revoked_token_is_known_at_once_here_and_within_a_second_elsewhere,
    threat_36_a_new_password_in_another_process_ends_tokens_and_remembered_passwords_within_a_second,
    whatever_takes_something_from_a_user_ends_their_tokens_for_good,
    signing_out_everywhere_ends_no_token,
    a_service_account_has_groups_of_its_own,
    a_service_account_is_never_a_user,
    a_token_of_nobody_is_never_made,
    threat_36_no_token_is_made_by_a_session_that_a_new_password_ended,
    an_owner_has_so_many_tokens_and_no_more,
    tokens_that_expired_long_ago_are_cleaned_away,
    an_entry_of_the_users_file_that_changes_ends_its_tokens,
    a_command_that_follows_nothing_remembers_nothing,
);

fn now() -> Timestamp {
    Timestamp::from_unix_millis(jiff::Timestamp::now().as_millisecond())
}

fn user(name: &str) -> Owner {
    Owner::User(name.to_owned())
}

fn service(name: &str) -> Owner {
    Owner::Service(name.to_owned())
}

pub(crate) fn draft(owner: Owner, secret: &str) -> ApiToken {
    ApiToken {
        hash: TokenHash::of(secret),
        owner,
        name: format!("for {secret}"),
        scopes: Scopes::parse(["read", "host:*.example.com"]).unwrap(),
        created_at: now(),
        expires_at: Some(now().after(Duration::from_secs(3600))),
        last_used_at: None,
        created_by: Some("ann".to_owned()),
        version: 0,
    }
}

async fn made(node: &Node, owner: Owner, secret: &str) -> ApiToken {
    node.stores.api_tokens.create(draft(owner, secret), None).await.unwrap()
}

async fn holds(node: &Node, token: &ApiToken) -> bool {
    node.stores.api_tokens.find(&token.hash).await.unwrap().is_some()
}

fn is_remembered(node: &Node, token: &ApiToken) -> bool {
    node.stores.api_tokens.peek(&token.hash).is_some()
}

/// Reads until memory holds it: the follower may just be emptying the cache for the first time.
async fn warm(node: &Node, token: &ApiToken) {
    eventually("the token is remembered", Duration::from_secs(5), || async {
        assert!(holds(node, token).await);
        is_remembered(node, token)
    })
    .await;
}

async fn many_tokens_are_found_in_one_question(place: Place) {
    let node = place.node().await;
    for name in ["ann", "bob", "cid", "dan"] {
        node.add_user(name).await;
    }
    let of_ann = [made(&node, user("ann"), "one").await, made(&node, user("ann"), "two").await];
    let of_robot =
        node.stores.api_tokens.create(draft(service("robot"), "three"), Some(vec!["robots".to_owned()])).await.unwrap();
    let (of_bob, damaged) = (made(&node, user("bob"), "four").await, made(&node, user("cid"), "five").await);
    let of_damaged = made(&node, user("dan"), "six").await;
    let disabled = UserChange { disabled: Some(true), ..UserChange::default() };
    node.stores.users.update("bob", disabled).await.unwrap();
    place.execute(&format!("UPDATE api_tokens SET scopes = '[' WHERE id = '{}'", damaged.id())).await;
    place.execute("UPDATE users SET groups = '{' WHERE folded = 'dan'").await;
    let all = [&of_ann[0], &of_ann[1], &of_robot, &of_bob, &damaged, &of_damaged].map(|token| token.hash);
    let hashes: Vec<TokenHash> = all.into_iter().chain([TokenHash::of("unknown")]).collect();
    let operations = [("api_tokens", "find_each"), ("users", "find_each"), ("api_tokens", "find"), ("users", "find")];
    let before = place.asked(operations);
    let each = node.stores.api_tokens.find_each(&hashes).await.unwrap();
    let asked = place.asked_since(operations, before);
    assert_eq!(asked, [1, 1, 0, 0], "one question about each");
    assert_eq!(each.found.len(), 3);
    for token in of_ann.iter().chain([&of_robot]) {
        let one = node.stores.api_tokens.find(&token.hash).await.unwrap().unwrap();
        let live = each.found.get(&token.hash).unwrap();
        assert_eq!(live.token, *token);
        assert!(live.identity.is_still(&one.identity) && live.identity.groups == one.identity.groups);
    }
    assert!(each.unsure.len() == 2 && each.unsure.contains(&damaged.hash) && each.unsure.contains(&of_damaged.hash));
    eventually("they are remembered", Duration::from_secs(5), || async {
        node.stores.api_tokens.find_each(&hashes).await.unwrap();
        of_ann.iter().all(|token| is_remembered(&node, token))
    })
    .await;
    assert!(node.stores.api_tokens.find_each(&[]).await.unwrap().found.is_empty());
    node.stop().await;
}

/// The database answers, and nobody tells what others changed in it.
async fn threat_36_a_token_version_of_the_users_file_counts_where_the_log_is_not_followed(mut place: Place) {
    let path = place.folder.path().join("users.yaml");
    fs::write(&path, "users:\n  Bob:\n    displayname: Bob\n    password: '$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/'\n")
        .unwrap();
    place.users = UsersSource::File(path);
    let (deaf, other) = (place.open().await.unwrap(), place.open().await.unwrap());
    let token = deaf.api_tokens.create(draft(user("bob"), "one"), None).await.unwrap();
    let names = ["bob", "nobody", "nul\0"];
    let versions = async || {
        let each = deaf.users.find_each(&names).await.unwrap().found;
        (
            deaf.users.find("BOB").await.unwrap().unwrap().token_version,
            each.get("bob").unwrap().token_version,
            each.len(),
        )
    };
    assert!(deaf.api_tokens.find(&token.hash).await.unwrap().is_some());
    assert_eq!(versions().await, (1, 1, 1));
    // As of a node whose tokens this one does not see deleted: it is the version alone that tells.
    place.execute("UPDATE file_users SET token_version = 2 WHERE folded = 'bob'").await;
    assert!(deaf.api_tokens.find(&token.hash).await.unwrap().is_none());
    other.users.revoke(Whom::One("bob")).await.unwrap();
    assert_eq!(versions().await, (3, 3, 1));
    deaf.close().await;
    other.close().await;
}

async fn a_token_is_found_as_it_was_stored(place: Place) {
    let node = place.node().await;
    node.add_user("Ann").await;
    let token = made(&node, user("ANN"), "one").await;
    assert_eq!((&token.owner, token.version), (&user("Ann"), 1), "in the stored spelling");
    let other = node.stores.api_tokens.create(
        ApiToken { expires_at: None, created_by: None, scopes: Scopes::default(), ..draft(user("ann"), "two") },
        None,
    );
    let other = other.await.unwrap();
    let found = node.stores.api_tokens.find(&token.hash).await.unwrap().unwrap();
    assert_eq!(found.token, token);
    assert_eq!((&*found.identity.user, found.identity.factor), ("Ann", Factor::One));
    assert_eq!(found.identity.groups, ["staff"]);
    assert_eq!((found.identity.client(), &found.identity.session), (None, &None));
    assert_eq!(found.identity.signed_in_at, token.created_at);
    let mut listed = node.stores.api_tokens.list(Some(&user("aNN"))).await.unwrap();
    listed.sort_by_key(|listed| listed.name.clone());
    assert_eq!(listed, [token.clone(), other]);
    assert!(node.stores.api_tokens.list(Some(&service("ann"))).await.unwrap().is_empty());
    assert_eq!(node.stores.api_tokens.list(None).await.unwrap().len(), 2);
    assert!(node.stores.api_tokens.find(&TokenHash::of("three")).await.unwrap().is_none());
    node.stop().await;
}

async fn the_last_use_of_a_token_outlives_a_restart(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let token = made(&node, user("ann"), "one").await;
    let live = node.stores.api_tokens.find(&token.hash).await.unwrap().unwrap();
    let later = token.created_at.after(Duration::from_secs(60));
    node.stores.api_tokens.used(&live, later);
    node.stores.api_tokens.used(&live, token.created_at);
    let last = async |node: &Node| {
        let listed = node.stores.api_tokens.list(None).await.unwrap();
        listed.first().and_then(|token| token.last_used_at)
    };
    eventually("before it is written", Duration::from_secs(1), || async { last(&node).await == Some(later) }).await;
    node.stop().await;
    let node = place.node().await;
    assert_eq!(last(&node).await, Some(later));
    node.stop().await;
}

async fn threat_36_a_revoked_token_is_known_at_once_here_and_within_a_second_elsewhere(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    here.add_user("ann").await;
    let (token, kept) = (made(&here, user("ann"), "one").await, made(&here, user("ann"), "two").await);
    for node in [&here, &there] {
        warm(node, &token).await;
        warm(node, &kept).await;
    }
    assert_eq!(here.stores.api_tokens.revoke(Revoke::One(&token.id())).await.unwrap(), 1);
    assert!(!is_remembered(&here, &token) && !holds(&here, &token).await);
    eventually("the other node forgets", Duration::from_secs(1), || async { !is_remembered(&there, &token) }).await;
    assert!(!holds(&there, &token).await);
    assert!(holds(&here, &kept).await && holds(&there, &kept).await, "and no other");
    assert_eq!(here.stores.api_tokens.revoke(Revoke::One(&token.id())).await.unwrap(), 0);
    for bad in ["", "x", "nul\0"] {
        assert_eq!(here.stores.api_tokens.revoke(Revoke::One(&ApiTokenId(bad.to_owned()))).await.unwrap(), 0);
    }
    warm(&there, &kept).await;
    assert_eq!(here.stores.api_tokens.revoke(Revoke::AllOf(&user("ANN"))).await.unwrap(), 1);
    assert!(!is_remembered(&here, &kept));
    eventually("the other node forgets", Duration::from_secs(1), || async { !is_remembered(&there, &kept) }).await;
    here.stop().await;
    there.stop().await;
}

async fn threat_36_a_new_password_in_another_process_ends_tokens_and_remembered_passwords_within_a_second(
    place: Place,
) {
    let server = place.node().await;
    server.add_user("ann").await;
    let token = made(&server, user("ann"), "one").await;
    warm(&server, &token).await;
    let verified = &server.stores.verified_passwords;
    let presented = Presentation { user: "Ann".to_owned(), password: "as it was".into(), address: None };
    let key = verified.key(&presented);
    let ann = User::new("ann", Vec::new());
    // What was done before may be heard of now, and forgets it.
    eventually("a verified password is remembered", Duration::from_secs(5), || async {
        let mark = verified.mark("ann").await.unwrap();
        let recognised = Recognised {
            identity: Arc::new(Identity::new(&ann, Factor::One, now(), None).unwrap()),
            stamp: Stamp::of(1, "hash"),
            watch: verified.watch(&mark),
        };
        verified.remember(key, &recognised, &mark);
        verified.recall(&key, now()).is_some() && is_remembered(&server, &token)
    })
    .await;
    let command = place.open().await.unwrap();
    command.credentials.set_password_hash("ann", SecretString::from("new")).await.unwrap();
    command.close().await;
    eventually("the server forgets", Duration::from_secs(1), || async {
        !is_remembered(&server, &token) && verified.recall(&key, now()).is_none()
    })
    .await;
    assert!(!holds(&server, &token).await);
    server.stop().await;
}

async fn whatever_takes_something_from_a_user_ends_their_tokens_for_good(place: Place) {
    let node = place.node().await;
    let users = &node.stores.users;
    let disabled = async |disabled| {
        users.update("ann", UserChange { disabled: Some(disabled), ..UserChange::default() }).await.unwrap();
    };
    node.add_user("ann").await;
    node.add_user("bob").await;
    let bobs = made(&node, user("bob"), "bobs").await;

    let token = made(&node, user("ann"), "one").await;
    warm(&node, &token).await;
    node.stores.credentials.set_password_hash("Ann", SecretString::from("new")).await.unwrap();
    assert!(!is_remembered(&node, &token) && !holds(&node, &token).await, "a new password");

    let token = made(&node, user("ann"), "two").await;
    assert!(holds(&node, &token).await);
    disabled(true).await;
    assert!(!holds(&node, &token).await, "disabled");
    disabled(false).await;
    assert!(!holds(&node, &token).await, "an old token never comes back");

    let token = made(&node, user("ann"), "three").await;
    let regrouped = UserChange { groups: Some(vec!["ops".to_owned()]), ..UserChange::default() };
    users.update("ann", regrouped).await.unwrap();
    let live = node.stores.api_tokens.find(&token.hash).await.unwrap().unwrap();
    assert_eq!(live.identity.groups, ["ops"], "other groups are seen without a new token");

    users.delete("ann").await.unwrap();
    node.add_user("ann").await;
    assert!(!holds(&node, &token).await, "another person of that name");
    assert!(node.stores.api_tokens.list(Some(&user("ann"))).await.unwrap().is_empty());
    assert!(holds(&node, &bobs).await, "nobody else's");
    node.stop().await;
}

async fn signing_out_everywhere_ends_no_token(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    node.sign_in("ann").await;
    let token = made(&node, user("ann"), "one").await;
    node.stores.sessions.end(End::AllOf { user: "ann" }).await.unwrap();
    assert!(holds(&node, &token).await);
    node.stop().await;
}

async fn a_service_account_has_groups_of_its_own(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    let tokens = &here.stores.api_tokens;
    let create = async |secret: &str, groups: Option<&[&str]>| {
        let groups = groups.map(|groups| groups.iter().map(|group| (*group).to_owned()).collect());
        tokens.create(draft(service("ci"), secret), groups).await
    };
    let groups = async |token: &ApiToken| {
        let live = there.stores.api_tokens.find(&token.hash).await.unwrap().unwrap();
        assert_eq!((live.identity.client(), &*live.identity.user), (Some("ci"), "ci"));
        live.identity.groups.clone()
    };
    let token = create("one", Some(&["deploy", "read all"])).await.unwrap();
    assert_eq!(groups(&token).await, ["deploy", "read all"]);
    warm(&there, &token).await;
    let other = create("two", None).await.unwrap();
    assert_eq!(groups(&other).await, ["deploy", "read all"], "not said: as they were");
    create("three", Some(&["audit"])).await.unwrap();
    eventually("other groups are seen", Duration::from_secs(1), || async {
        let known = there.stores.api_tokens.peek(&token.hash);
        known.is_none_or(|live| live.identity.groups == ["audit"])
    })
    .await;
    assert_eq!(groups(&token).await, ["audit"]);
    assert!(matches!(create("four", Some(&["a,admins"])).await, Err(ApiTokenError::Bad(_))), "no forged group");
    assert_eq!(tokens.revoke(Revoke::AllOf(&service("CI"))).await.unwrap(), 3);
    assert!(!holds(&there, &token).await);
    let again = create("five", None).await.unwrap();
    assert!(groups(&again).await.is_empty(), "the account went with its tokens");
    here.stop().await;
    there.stop().await;
}

async fn a_service_account_is_never_a_user(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    for name in ["ann", "ANN"] {
        let refused = node.stores.api_tokens.create(draft(service(name), name), None).await;
        assert!(matches!(refused, Err(ApiTokenError::UsersName(known)) if known == "ann"), "{name}");
    }
    let token = made(&node, service("bob"), "one").await;
    warm(&node, &token).await;
    node.add_user("Bob").await;
    assert!(!is_remembered(&node, &token) && !holds(&node, &token).await, "now the name is a person's");
    node.stores.users.delete("bob").await.unwrap();
    assert!(holds(&node, &token).await);
    node.stores.credentials.set_password_hash("ann", SecretString::from("new")).await.unwrap();
    assert!(holds(&node, &token).await, "a person's password is none of its business");
    node.stop().await;
}

/// Memory of another node believes in the session for a moment longer.
async fn threat_36_no_token_is_made_by_a_session_that_a_new_password_ended(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    here.add_user("ann").await;
    let made = here.sign_in("ann").await;
    let live = here.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap();
    let asked = |secret: &str| ApiToken { version: live.identity.token_version, ..draft(user("ann"), secret) };
    let token = here.stores.api_tokens.create(asked("before"), None).await.unwrap();
    assert!(holds(&here, &token).await);
    there.stores.credentials.set_password_hash("ann", SecretString::from("new")).await.unwrap();
    assert!(matches!(here.stores.api_tokens.create(asked("after"), None).await, Err(ApiTokenError::Unavailable(_))));
    assert!(here.stores.api_tokens.list(None).await.unwrap().is_empty());
    here.stop().await;
    there.stop().await;
}

async fn a_token_of_nobody_is_never_made(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    node.stores.users.update("ann", UserChange { disabled: Some(true), ..UserChange::default() }).await.unwrap();
    for name in ["ann", "ghost", "nul\0"] {
        let refused = node.stores.api_tokens.create(draft(user(name), name), None).await;
        assert!(matches!(refused, Err(ApiTokenError::NoUser(_))), "{name}");
    }
    for name in ["", " ci", "a,b", "a\nb", "nul\0"] {
        let refused = node.stores.api_tokens.create(draft(service(name), name), None).await;
        assert!(matches!(refused, Err(ApiTokenError::Bad(_))), "{name:?}");
    }
    assert!(node.stores.api_tokens.list(None).await.unwrap().is_empty());
    node.stop().await;
}

async fn an_owner_has_so_many_tokens_and_no_more(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    for number in 0..200 {
        made(&node, user("ann"), &number.to_string()).await;
    }
    let refused = node.stores.api_tokens.create(draft(user("ann"), "one too many"), None).await;
    assert!(matches!(refused, Err(ApiTokenError::TooMany(_, 200))));
    made(&node, service("ci"), "somebody else's").await;
    node.stop().await;
}

async fn tokens_that_expired_long_ago_are_cleaned_away(place: Place) {
    const DAY: u64 = 86_400;
    let node = place.node().await;
    node.add_user("ann").await;
    let ended = |days: u64, secret: &str| ApiToken {
        expires_at: Some(now().before(Duration::from_secs(days * DAY))),
        ..draft(user("ann"), secret)
    };
    let tokens = &node.stores.api_tokens;
    let old = tokens.create(ended(31, "old"), None).await.unwrap();
    let late = tokens.create(ended(29, "late"), None).await.unwrap();
    let never = tokens.create(ApiToken { expires_at: None, ..draft(user("ann"), "never") }, None).await.unwrap();
    node.stop().await;
    // Cleaning is the first thing that a server does in the background.
    let node = place.node().await;
    eventually("the old one is gone", Duration::from_secs(5), || async {
        let left = node.stores.api_tokens.list(None).await.unwrap();
        !left.iter().any(|token| token.hash == old.hash)
    })
    .await;
    let left = node.stores.api_tokens.list(None).await.unwrap();
    assert!(left.iter().any(|token| token.hash == late.hash) && left.iter().any(|token| token.hash == never.hash));
    node.stop().await;
}

async fn an_entry_of_the_users_file_that_changes_ends_its_tokens(mut place: Place) {
    let path = place.folder.path().join("users.yaml");
    place.users = UsersSource::File(path.clone());
    let write = |anns: &str, bob: &str| {
        let entry = |name: &str, more: &str| {
            format!(
                "  {name}: {{ displayname: {name}, password: '$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/'{more} }}\n"
            )
        };
        fs::write(&path, format!("users:\n{}{}", entry("ann", anns), entry("bob", bob))).unwrap();
    };
    write("", "");
    let node = place.node().await;
    let (anns, bobs) = (made(&node, user("ann"), "one").await, made(&node, user("bob"), "two").await);
    warm(&node, &anns).await;
    write(", disabled: true", "");
    node.stores.users_file.as_ref().unwrap().reload().await.unwrap();
    assert!(!is_remembered(&node, &anns) && !holds(&node, &anns).await && holds(&node, &bobs).await);
    write("", "");
    node.stores.users_file.as_ref().unwrap().reload().await.unwrap();
    assert!(!holds(&node, &anns).await, "an old token never comes back");

    // A command reads the new file first, and makes a token of the entry that holds: the server's reading ends it not.
    write(", groups: [staff]", "");
    let command = place.open().await.unwrap();
    let token = command.api_tokens.create(draft(user("ann"), "three"), None).await.unwrap();
    command.close().await;
    node.stores.users_file.as_ref().unwrap().reload().await.unwrap();
    assert!(holds(&node, &token).await);
    node.stop().await;
}

async fn a_command_that_follows_nothing_remembers_nothing(place: Place) {
    let stores = place.open().await.unwrap();
    let hash = "$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/".to_owned();
    stores.users.insert(User::new("ann", Vec::new()), Some(hash)).await.unwrap();
    let token = stores.api_tokens.create(draft(user("ann"), "one"), None).await.unwrap();
    assert!(stores.api_tokens.find(&token.hash).await.unwrap().is_some());
    assert!(stores.api_tokens.peek(&token.hash).is_none());
    stores.close().await;
}
