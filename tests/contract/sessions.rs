use std::time::Duration;

use postern::{
    core::{
        session::{SessionFacts, SessionId},
        time::Timestamp,
    },
    ports::{End, Peek, UserChange},
};

use crate::harness::{Later, Node, Place, eventually, session, told_of, user};

crate::for_every_store!(
    a_session_is_found_as_it_was_stored,
    many_sessions_are_found_in_one_question,
    only_a_session_that_is_over_is_absent,
    a_session_of_nobody_is_never_made,
    a_sign_in_ends_the_sessions_it_replaces,
    ends_reach_what_they_name_and_nothing_else,
    a_restart_signs_nobody_out,
    the_last_use_outlives_a_restart,
    sessions_that_no_lifetime_brings_back_are_cleaned_away,
    a_use_that_is_not_written_yet_keeps_a_session_from_being_cleaned,
    memory_is_unsure_without_a_follower,
    threat_36_an_end_is_known_at_once_here_and_within_a_second_elsewhere,
    threat_36_disabling_in_another_process_ends_access_within_a_second,
    a_change_of_groups_is_seen_without_a_new_sign_in,
);

async fn a_session_is_found_as_it_was_stored(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    let by_hash = node.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap();
    let by_id = node.stores.sessions.find_id(&made.id).await.unwrap().unwrap();
    assert_eq!(told_of(&by_hash), (made.id.clone(), SessionFacts::from(&made)));
    assert_eq!(told_of(&by_id), (made.id.clone(), SessionFacts::from(&made)));
    assert_eq!((by_id.identity.factor, by_id.identity.signed_in_at), (made.factor, made.signed_in_at));
    assert!(node.stores.sessions.list(Some(&made.user)).await.unwrap().contains(&made));
    assert_eq!(by_hash.identity.groups, ["staff"]);
    assert_eq!(node.stores.sessions.list(Some("ANN")).await.unwrap(), std::slice::from_ref(&made));
    assert!(node.stores.sessions.find(&session("x").gate_hash).await.unwrap().is_none());
    assert!(node.stores.sessions.find(&made.portal_hash).await.unwrap().is_none());
    eventually("it is remembered by both", Duration::from_secs(5), || async {
        node.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap();
        node.knows(&made) && matches!(node.stores.sessions.peek_id(&made.id), Peek::Hit(_))
    })
    .await;
    node.stop().await;
}

async fn many_sessions_are_found_in_one_question(place: Place) {
    let node = place.node().await;
    for name in ["ann", "Bob", "cid", "dan"] {
        node.add_user(name).await;
    }
    let (ann, bob, again) = (node.sign_in("ann").await, node.sign_in("Bob").await, node.sign_in("ann").await);
    let (of_disabled, ended) = (node.sign_in("cid").await, node.sign_in("dan").await);
    node.sign_in("ann").await;
    let disabled = UserChange { disabled: Some(true), ..UserChange::default() };
    node.stores.users.update("cid", disabled).await.unwrap();
    node.stores.sessions.end(End::One(&ended.id)).await.unwrap();
    let unknown = ["", "unknown", "nul\0", "x'); --", "\"]"].map(|id| SessionId::new(id.to_owned()));
    let ids: Vec<SessionId> = [&ann, &bob, &again, &of_disabled, &ended]
        .map(|session| session.id.clone())
        .into_iter()
        .chain(unknown)
        .collect();
    let operations = [("sessions", "find_ids"), ("users", "find_each"), ("sessions", "find_id"), ("users", "find")];
    let before = place.asked(operations);
    let each = node.stores.sessions.find_ids(&ids).await.unwrap();
    let asked = place.asked_since(operations, before);
    // Of Redis where they are, then the records, and of the database which of them ended.
    let of_sessions = if place.is_in_redis() { 3 } else { 1 };
    assert_eq!(asked, [of_sessions, 1, 0, 0], "one question about all");
    assert!(each.unsure.is_empty());
    let expected = [&ann, &bob, &again];
    assert_eq!(each.found.len(), expected.len());
    for session in expected {
        let live = each.found.get(&session.id).unwrap();
        assert_eq!(told_of(live), (session.id.clone(), SessionFacts::from(session)));
        assert!(live.identity.groups == ["staff"] && *live.identity.user == *session.user);
    }
    // Memory may be emptied for the first time until then.
    node.warm(&ann).await;
    eventually("they are remembered", Duration::from_secs(1), || async {
        node.stores.sessions.find_ids(&ids).await.unwrap();
        expected.iter().all(|session| node.knows(session))
    })
    .await;
    assert!(node.stores.sessions.find_ids(&[]).await.unwrap().found.is_empty());
    let users = node.stores.users.find_each(&["ANN", "bob", "nobody", "nul\0"]).await.unwrap();
    let mut users: Vec<String> =
        users.found.into_iter().map(|(folded, user)| format!("{folded} {}", user.name)).collect();
    users.sort();
    assert_eq!(users, ["ann ann", "bob Bob"]);
    node.stop().await;
}

/// Whoever tidies up after sessions must not take those of somebody who is disabled for over.
async fn only_a_session_that_is_over_is_absent(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let (there, ended) = (node.sign_in("ann").await, node.sign_in("ann").await);
    node.stores.sessions.end(End::One(&ended.id)).await.unwrap();
    place.execute("UPDATE users SET disabled = 1").await;
    assert!(node.stores.sessions.find_id(&there.id).await.unwrap().is_none(), "it is not found");
    let unknown = SessionId::new("unknown".to_owned());
    let asked = [there.id.clone(), ended.id.clone(), unknown.clone()];
    assert_eq!(node.stores.sessions.absent(&asked).await.unwrap(), [ended.id, unknown]);
    assert!(node.stores.sessions.absent(&[]).await.unwrap().is_empty());
    node.stop().await;
}

async fn a_session_of_nobody_is_never_made(place: Place) {
    let node = place.node().await;
    let made = session("ghost");
    assert!(node.stores.sessions.create(made.clone(), &[]).await.is_err());
    assert!(node.stores.sessions.list(None).await.unwrap().is_empty());
    node.add_user("ghost").await;
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    node.stop().await;
}

async fn a_sign_in_ends_the_sessions_it_replaces(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let old = node.sign_in("ann").await;
    node.warm(&old).await;
    let new = session("ann");
    node.stores.sessions.create(new.clone(), &[old.id.clone(), SessionId::new("unknown".to_owned())]).await.unwrap();
    assert!(!node.knows(&old));
    assert!(node.stores.sessions.find(&old.gate_hash).await.unwrap().is_none());
    assert!(node.stores.sessions.find(&new.gate_hash).await.unwrap().is_some());
    node.stop().await;
}

async fn ends_reach_what_they_name_and_nothing_else(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    node.add_user("bob").await;
    let (first, second, third) = (node.sign_in("ann").await, node.sign_in("ann").await, node.sign_in("ann").await);
    let other = node.sign_in("bob").await;
    let sessions = &node.stores.sessions;
    assert_eq!(sessions.end(End::One(&first.id)).await.unwrap(), 1);
    assert_eq!(sessions.end(End::One(&first.id)).await.unwrap(), 0);
    assert_eq!(sessions.end(End::AllBut { user: "Ann", kept: &second.id }).await.unwrap(), 1);
    assert!(sessions.find(&third.gate_hash).await.unwrap().is_none());
    assert!(sessions.find(&second.gate_hash).await.unwrap().is_some());
    assert_eq!(sessions.end(End::AllOf { user: "ann" }).await.unwrap(), 1);
    assert!(!node.knows(&second));
    assert!(sessions.find(&second.gate_hash).await.unwrap().is_none());
    assert!(sessions.find(&other.gate_hash).await.unwrap().is_some());
    node.stop().await;
}

async fn a_restart_signs_nobody_out(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.stop().await;
    let node = place.node().await;
    assert_eq!(
        told_of(&node.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap()),
        (made.id.clone(), SessionFacts::from(&made))
    );
    node.stop().await;
}

async fn the_last_use_outlives_a_restart(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    let live = node.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap();
    let later = made.last_used_at.after(Duration::from_secs(60));
    node.stores.sessions.used(&live, later);
    assert_eq!(node.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap().last_used(), later);
    node.stop().await;
    let node = place.node().await;
    assert_eq!(node.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap().last_used(), later);
    node.stop().await;
}

/// Cleaning is the first thing that a server does in the background.
async fn sessions_that_no_lifetime_brings_back_are_cleaned_away(place: Place) {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const LATER: u64 = 15 * MINUTE;
    let node = place.node().await;
    node.add_user("ann").await;
    let mut kept = Vec::new();
    let mut cleaned = Vec::new();
    // Idle is 30 minutes, with 10 more for uses that another node has not written; a lifetime 12 hours, 30 days if remembered.
    for (remembered, age, unused, stays) in [
        (false, HOUR, MINUTE, true),
        (false, HOUR, 35 * MINUTE, true),
        (false, HOUR, 41 * MINUTE, false),
        (false, 12 * HOUR + 5 * MINUTE, 15 * MINUTE, false),
        (true, 13 * HOUR, 5 * HOUR, true),
        (true, 30 * 24 * HOUR + 5 * MINUTE, 15 * MINUTE, false),
    ] {
        let mut made = session("ann");
        // As old as that later, when it is cleaned.
        let before = |seconds: u64| {
            Timestamp::from_unix_millis(
                made.created_at.unix_millis() - i64::try_from(seconds.saturating_sub(LATER) * 1000).unwrap(),
            )
        };
        (made.created_at, made.signed_in_at, made.last_used_at) = (before(age), before(age), before(unused));
        made.remembered = remembered;
        node.stores.sessions.create(made.clone(), &[]).await.unwrap();
        if stays { &mut kept } else { &mut cleaned }.push(made.id);
    }
    node.stop().await;
    let node = Node::following(place.open_at(Later::by(LATER)).await.unwrap());
    eventually("what is over is gone", Duration::from_secs(5), || async {
        node.stores.sessions.list(None).await.unwrap().len() == kept.len()
    })
    .await;
    let left = node.stores.sessions.list(None).await.unwrap();
    assert!(kept.iter().all(|id| left.iter().any(|session| session.id == *id)));
    assert!(cleaned.iter().all(|id| left.iter().all(|session| session.id != *id)));
    node.stop().await;
}

/// As after a long outage of the database: the row looks idle for long, and only this node knows better.
async fn a_use_that_is_not_written_yet_keeps_a_session_from_being_cleaned(place: Place) {
    let other = place.open().await.unwrap();
    // The background work begins with one of its tasks, whichever.
    for round in 0..8 {
        let stores = place.open().await.unwrap();
        let name = format!("user-{round}");
        stores.users.insert(user(&name), None).await.unwrap();
        let mut made = session(&name);
        let now = made.last_used_at;
        made.remembered = false;
        made.last_used_at = Timestamp::from_unix_millis(now.unix_millis() - 41 * 60 * 1000);
        let live = stores.sessions.create(made, &[]).await.unwrap();
        stores.sessions.used(&live, now);
        let node = Node::following(stores);
        eventually("the use is written", Duration::from_secs(5), || async {
            other.sessions.list(Some(&name)).await.unwrap().iter().any(|session| session.last_used_at == now)
        })
        .await;
        node.stop().await;
    }
    other.close().await;
}

async fn memory_is_unsure_without_a_follower(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    let alone = place.open().await.unwrap();
    assert!(alone.sessions.find(&made.gate_hash).await.unwrap().is_some());
    assert!(matches!(alone.sessions.peek(&made.gate_hash), Peek::Unsure));
    alone.close().await;
    node.stop().await;
}

async fn threat_36_an_end_is_known_at_once_here_and_within_a_second_elsewhere(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    here.add_user("ann").await;
    let made = here.sign_in("ann").await;
    here.warm(&made).await;
    there.warm(&made).await;
    here.stores.sessions.end(End::One(&made.id)).await.unwrap();
    assert!(!here.knows(&made));
    eventually("the other node forgets", Duration::from_secs(1), || async { !there.knows(&made) }).await;
    assert!(there.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    here.stop().await;
    there.stop().await;
}

async fn threat_36_disabling_in_another_process_ends_access_within_a_second(place: Place) {
    let server = place.node().await;
    server.add_user("ann").await;
    let made = server.sign_in("ann").await;
    server.warm(&made).await;
    let command = place.open().await.unwrap();
    let change = UserChange { disabled: Some(true), ..UserChange::default() };
    command.users.update("ann", change).await.unwrap();
    command.close().await;
    eventually("the server forgets", Duration::from_secs(1), || async { !server.knows(&made) }).await;
    assert!(server.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    server.stop().await;
}

async fn a_change_of_groups_is_seen_without_a_new_sign_in(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    here.add_user("ann").await;
    let made = here.sign_in("ann").await;
    there.warm(&made).await;
    let change = UserChange { groups: Some(vec!["admins".to_owned()]), ..UserChange::default() };
    here.stores.users.update("ann", change).await.unwrap();
    eventually("the other node forgets", Duration::from_secs(1), || async { !there.knows(&made) }).await;
    let live = there.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap();
    assert_eq!(live.identity.groups, ["admins"]);
    here.stop().await;
    there.stop().await;
}
