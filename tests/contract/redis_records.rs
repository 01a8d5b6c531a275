//! Sessions whose records are in Redis: the database says what ended, whatever Redis loses or brings back.

use std::time::Duration;

use ::redis::cmd;
use postern::{
    core::{
        session::{Session, SessionId, TokenHash},
        time::Timestamp,
    },
    ports::{End, Exchange, Exchanged, RefreshToken, UserChange, Whom},
};

use crate::{
    harness::{Later, Node, Place, eventually, session},
    in_redis::{Connection, Keys},
};

crate::for_every_redis!(
    what_redis_brings_back_after_its_end_stays_over,
    what_redis_brings_back_of_the_living_lives,
    a_session_that_redis_lost_is_unknown_and_can_still_be_ended,
    an_end_of_all_needs_no_list_of_redis,
    what_is_handed_over_too_late_is_over,
    a_sign_in_that_is_kept_is_kept_as_long_as_nothing_else_ended_it,
    a_database_that_was_set_back_knows_no_later_session,
    an_end_that_is_cleaned_away_holds,
    an_end_by_a_clock_that_is_behind_holds_when_it_is_cleaned_away,
    a_session_whose_id_redis_lost_ends_with_its_sign_in,
    a_damaged_record_can_be_ended,
    a_second_use_ends_the_sign_in_that_redis_keeps,
    a_record_below_another_key_opens_nothing,
    a_use_makes_no_record_that_is_gone,
    nothing_is_left_of_what_ended,
    leads_to_nothing_are_cleaned_away,
    databases_that_share_a_redis_do_not_share_sessions,
    a_dump_that_is_read_into_the_database_is_noticed,
);

async fn is_alive(node: &Node, session: &Session) -> bool {
    let by_hash = node.stores.sessions.find(&session.gate_hash).await.unwrap().is_some();
    let by_id = node.stores.sessions.find_id(&session.id).await.unwrap().is_some();
    let in_batch = node.stores.sessions.find_ids(std::slice::from_ref(&session.id)).await.unwrap();
    let in_list = node.stores.sessions.list(None).await.unwrap().contains(session);
    assert_eq!((by_hash, by_hash, by_hash), (by_id, in_batch.found.contains_key(&session.id), in_list));
    by_hash
}

fn handed_over_from(parent: &Session) -> Session {
    Session { parent: Some(parent.id.clone()), domain: "example.net".to_owned(), ..session(&parent.user) }
}

/// A replica that knew less, a snapshot of yesterday, a failover that lost the last writes: as often as it happens.
async fn what_redis_brings_back_after_its_end_stays_over(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    let mut copies = Vec::new();
    for how in 0..8 {
        let name = format!("user-{how}");
        node.add_user(&name).await;
        let made = node.sign_in(&name).await;
        let keys = Connection::keys_of(&place, &made).await;
        let copied = redis.copy(&keys).await;
        let sessions = &node.stores.sessions;
        match how {
            0 => drop(sessions.end(End::One(&made.id)).await.unwrap()),
            1 => drop(sessions.end(End::AllOf { user: &name }).await.unwrap()),
            2 => {
                let kept = node.sign_in(&name).await;
                sessions.end(End::AllBut { user: &name, kept: &kept.id }).await.unwrap();
                assert!(is_alive(&node, &kept).await);
            }
            3 => drop(sessions.create(session(&name), std::slice::from_ref(&made.id)).await.unwrap()),
            4 => {
                let change = UserChange { disabled: Some(true), ..UserChange::default() };
                node.stores.users.update(&name, change).await.unwrap();
                let change = UserChange { disabled: Some(false), ..UserChange::default() };
                node.stores.users.update(&name, change).await.unwrap();
            }
            5 => {
                node.stores.users.delete(&name).await.unwrap();
                node.add_user(&name).await;
            }
            6 => drop(node.stores.users.revoke(Whom::One(&name)).await.unwrap()),
            _ => drop(node.stores.users.revoke(Whom::Everybody).await.unwrap()),
        }
        assert!(!is_alive(&node, &made).await, "{how}");
        redis.bring_back(&copied).await;
        assert!(redis.is_there(&keys.record).await);
        assert!(!is_alive(&node, &made).await, "{how}: brought back");
        copies.push((made, copied));
    }
    node.stop().await;
    // Another process, and it is over there as well.
    let node = place.node().await;
    for (made, copied) in &copies {
        redis.bring_back(copied).await;
        assert!(!is_alive(&node, made).await);
    }
    node.stop().await;
}

async fn what_redis_brings_back_of_the_living_lives(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    node.add_user("ann").await;
    node.stores.sessions.end(End::AllOf { user: "ann" }).await.unwrap();
    let made = node.sign_in("ann").await;
    let keys = Connection::keys_of(&place, &made).await;
    let copied = redis.copy(&keys).await;
    let _: i64 = redis.ask(cmd("DEL").arg(&keys.record)).await;
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    redis.bring_back(&copied).await;
    assert!(is_alive(&node, &made).await);
    node.stop().await;
}

/// Memory may know it still.
async fn a_session_that_redis_lost_is_unknown_and_can_still_be_ended(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    here.add_user("ann").await;
    let made = here.sign_in("ann").await;
    there.warm(&made).await;
    let keys = Connection::keys_of(&place, &made).await;
    let mut redis = Connection::to(&place).await;
    let copied = redis.copy(&keys).await;
    for key in [&keys.record, &keys.id, &keys.user, &keys.all] {
        let _: i64 = redis.ask(cmd("DEL").arg(key)).await;
    }
    assert!(here.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    assert_eq!(here.stores.sessions.absent(std::slice::from_ref(&made.id)).await.unwrap().len(), 1);
    here.stores.sessions.end(End::One(&made.id)).await.unwrap();
    eventually("the other node forgets", Duration::from_secs(1), || async { !there.knows(&made) }).await;
    redis.bring_back(&copied).await;
    assert!(!is_alive(&there, &made).await);
    here.stop().await;
    there.stop().await;
}

/// A Redis that throws away what it likes throws away lists as well.
async fn an_end_of_all_needs_no_list_of_redis(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let (one, other) = (node.sign_in("ann").await, node.sign_in("ann").await);
    let keys = Connection::keys_of(&place, &one).await;
    let mut redis = Connection::to(&place).await;
    let _: i64 = redis.ask(cmd("DEL").arg(&keys.user)).await;
    let _: i64 = redis.ask(cmd("DEL").arg(&keys.all)).await;
    node.stores.sessions.end(End::AllOf { user: "ann" }).await.unwrap();
    for session in [&one, &other] {
        assert!(!is_alive(&node, session).await);
    }
    node.stop().await;
}

/// One that is stored after the sign-in that it came from has ended, by a node that looked before.
async fn what_is_handed_over_too_late_is_over(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    node.add_user("ann").await;
    let home = node.sign_in("ann").await;
    let child = handed_over_from(&home);
    node.stores.sessions.create(child.clone(), &[]).await.unwrap();
    let copied = redis.copy(&Connection::keys_of(&place, &child).await).await;
    assert_eq!(node.stores.sessions.end(End::One(&home.id)).await.unwrap(), 2);
    redis.bring_back(&copied).await;
    assert!(!is_alive(&node, &child).await);
    assert!(node.stores.sessions.create(handed_over_from(&home), &[]).await.is_err());
    // By the child: its siblings and where they came from.
    let home = node.sign_in("ann").await;
    let (one, other) = (handed_over_from(&home), handed_over_from(&home));
    for child in [&one, &other] {
        node.stores.sessions.create(child.clone(), &[]).await.unwrap();
    }
    let copied = redis.copy(&Connection::keys_of(&place, &other).await).await;
    assert_eq!(node.stores.sessions.end(End::One(&one.id)).await.unwrap(), 3);
    redis.bring_back(&copied).await;
    for session in [&home, &one, &other] {
        assert!(!is_alive(&node, session).await);
    }
    node.stop().await;
}

async fn a_sign_in_that_is_kept_is_kept_as_long_as_nothing_else_ended_it(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    let sessions = &node.stores.sessions;
    node.add_user("ann").await;
    let (kept, other) = (node.sign_in("ann").await, node.sign_in("ann").await);
    let child = handed_over_from(&kept);
    sessions.create(child.clone(), &[]).await.unwrap();
    assert_eq!(sessions.end(End::AllBut { user: "ann", kept: &child.id }).await.unwrap(), 1);
    let later = node.sign_in("ann").await;
    assert_eq!(sessions.end(End::AllBut { user: "ann", kept: &kept.id }).await.unwrap(), 1);
    for (session, lives) in [(&kept, true), (&child, true), (&other, false), (&later, false)] {
        assert_eq!(is_alive(&node, session).await, lives);
    }
    let copied = redis.copy(&Connection::keys_of(&place, &kept).await).await;
    sessions.end(End::AllOf { user: "ann" }).await.unwrap();
    redis.bring_back(&copied).await;
    assert!(!is_alive(&node, &kept).await);
    // Kept once more by who does not know that it is over.
    sessions.end(End::AllBut { user: "ann", kept: &kept.id }).await.unwrap();
    redis.bring_back(&copied).await;
    assert!(!is_alive(&node, &kept).await);
    node.stop().await;
}

/// From a backup. What happened since then, it does not know: nor whether it ended.
async fn a_database_that_was_set_back_knows_no_later_session(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    node.add_user("bob").await;
    node.stores.sessions.end(End::AllOf { user: "ann" }).await.unwrap();
    let (ann, bob) = (node.sign_in("ann").await, node.sign_in("bob").await);
    assert!(is_alive(&node, &ann).await);
    place.execute("DELETE FROM session_epochs WHERE folded = 'ann'").await;
    assert!(!is_alive(&node, &ann).await);
    assert!(is_alive(&node, &bob).await);
    // And never comes to a number again that it gave in the time it does not know.
    node.stores.sessions.end(End::AllOf { user: "ann" }).await.unwrap();
    assert!(!is_alive(&node, &ann).await);
    node.stop().await;
}

/// What is so old that its age ends it may be configured to live longer later: its end is not forgotten.
async fn an_end_that_is_cleaned_away_holds(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    let copied = redis.copy(&Connection::keys_of(&place, &made).await).await;
    node.stores.sessions.end(End::One(&made.id)).await.unwrap();
    node.stop().await;
    let later = Node::following(place.open_at(Later::by(31 * 24 * 3_600)).await.unwrap());
    eventually("its end is cleaned away", Duration::from_secs(5), || async {
        place.question("SELECT CAST(count(*) AS TEXT) FROM ended_sessions").await == "0"
    })
    .await;
    later.stop().await;
    let node = place.node().await;
    redis.bring_back(&copied).await;
    assert!(!is_alive(&node, &made).await);
    node.stop().await;
}

/// Made by a node whose clock was a day ahead of the one that ended it, alone or for a sign-in that replaced it.
async fn an_end_by_a_clock_that_is_behind_holds_when_it_is_cleaned_away(place: Place) {
    const DAY: u64 = 24 * 3_600;
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    node.add_user("ann").await;
    let mut ended = Vec::new();
    for is_replaced in [false, true] {
        let made = session("ann");
        let later = |at: Timestamp| at.after(Duration::from_secs(DAY));
        let made = Session { created_at: later(made.created_at), last_used_at: later(made.last_used_at), ..made };
        node.stores.sessions.create(made.clone(), &[]).await.unwrap();
        let copied = redis.copy(&Connection::keys_of(&place, &made).await).await;
        if is_replaced {
            node.stores.sessions.create(session("ann"), std::slice::from_ref(&made.id)).await.unwrap();
        } else {
            node.stores.sessions.end(End::One(&made.id)).await.unwrap();
        }
        ended.push((made, copied));
    }
    node.stop().await;
    let later = Node::following(place.open_at(Later::by(33 * DAY)).await.unwrap());
    eventually("their ends are cleaned away", Duration::from_secs(5), || async {
        place.question("SELECT CAST(count(*) AS TEXT) FROM ended_sessions").await == "0"
    })
    .await;
    later.stop().await;
    let node = place.node().await;
    for (made, copied) in &ended {
        redis.bring_back(copied).await;
        assert!(!is_alive(&node, made).await);
    }
    node.stop().await;
}

/// Its key by the public id is another one than its record, and may be lost alone.
async fn a_session_whose_id_redis_lost_ends_with_its_sign_in(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    let mut redis = Connection::to(&place).await;
    here.add_user("ann").await;
    let home = here.sign_in("ann").await;
    let (one, other) = (handed_over_from(&home), handed_over_from(&home));
    for child in [&one, &other] {
        here.stores.sessions.create(child.clone(), &[]).await.unwrap();
        there.warm(child).await;
    }
    here.warm(&one).await;
    let keys = Connection::keys_of(&place, &one).await;
    let _: i64 = redis.ask(cmd("DEL").arg(&keys.id)).await;
    assert_eq!(here.stores.sessions.end(End::One(&one.id)).await.unwrap(), 3, "by the list of its user");
    eventually("the other node forgets", Duration::from_secs(1), || async {
        !there.knows(&one) && !there.knows(&other)
    })
    .await;
    for session in [&home, &one, &other] {
        assert!(there.stores.sessions.find(&session.gate_hash).await.unwrap().is_none());
    }
    // Where no memory knows it either, all of them look anew.
    let home = here.sign_in("ann").await;
    let child = handed_over_from(&home);
    here.stores.sessions.create(child.clone(), &[]).await.unwrap();
    there.warm(&child).await;
    let keys = Connection::keys_of(&place, &home).await;
    let _: i64 = redis.ask(cmd("DEL").arg(&keys.id)).await;
    let command = place.open().await.unwrap();
    assert_eq!(command.sessions.end(End::One(&home.id)).await.unwrap(), 0);
    command.close().await;
    eventually("the other node forgets", Duration::from_secs(1), || async { !there.knows(&child) }).await;
    for session in [&home, &child] {
        assert!(there.stores.sessions.find(&session.gate_hash).await.unwrap().is_none());
    }
    here.stop().await;
    there.stop().await;
}

async fn a_damaged_record_can_be_ended(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    here.add_user("ann").await;
    let made = here.sign_in("ann").await;
    there.warm(&made).await;
    place.damage(&made).await;
    here.stores.sessions.end(End::One(&made.id)).await.unwrap();
    eventually("the other node forgets", Duration::from_secs(1), || async { !there.knows(&made) }).await;
    here.stop().await;
    there.stop().await;
}

/// In the transaction that finds the second use: nothing that Redis does is waited for.
async fn a_second_use_ends_the_sign_in_that_redis_keeps(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    node.add_user("ann").await;
    let home = node.sign_in("ann").await;
    let (child, sibling) = (handed_over_from(&home), handed_over_from(&home));
    let mut copies = Vec::new();
    for session in [&child, &sibling] {
        node.stores.sessions.create(session.clone(), &[]).await.unwrap();
    }
    for session in [&home, &child, &sibling] {
        copies.push(redis.copy(&Connection::keys_of(&place, session).await).await);
    }
    let tokens = &node.stores.tokens;
    let token = |name: &str| RefreshToken {
        hash: TokenHash::of(name),
        session: child.id.clone(),
        expires_at: child.created_at.after(Duration::from_secs(3_600)),
    };
    let exchange = |presented: &str, next: &str| Exchange {
        presented: TokenHash::of(presented),
        next: token(next),
        now: child.created_at,
        end_of_session: child.created_at.after(Duration::from_secs(3_600)),
        place: None,
    };
    let name = |name: &str| format!("{} {name}", child.id);
    tokens.insert_refresh(token(&name("1"))).await.unwrap();
    assert_eq!(tokens.exchange(exchange(&name("1"), &name("2"))).await.unwrap(), Exchanged::Done);
    assert_eq!(tokens.exchange(exchange(&name("1"), &name("3"))).await.unwrap(), Exchanged::Reused);
    for copied in &copies {
        redis.bring_back(copied).await;
    }
    for session in [&home, &child, &sibling] {
        assert!(!is_alive(&node, session).await);
    }
    node.stop().await;
}

async fn a_record_below_another_key_opens_nothing(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    node.add_user("ann").await;
    node.add_user("bob").await;
    let (ann, bob) = (node.sign_in("ann").await, node.sign_in("bob").await);
    let (of_ann, of_bob) = (Connection::keys_of(&place, &ann).await, Connection::keys_of(&place, &bob).await);
    let record: String = redis.ask(cmd("HGET").arg(&of_ann.record).arg("record")).await;
    let _: i64 = redis.ask(cmd("HSET").arg(&of_bob.record).arg("record").arg(record)).await;
    assert_eq!(node.stores.sessions.find(&bob.gate_hash).await.unwrap_err().store, "sessions");
    let hash = of_ann.record.rsplit(':').next().unwrap();
    let () = redis.ask(cmd("SET").arg(&of_bob.id).arg(hash)).await;
    assert_eq!(node.stores.sessions.find_id(&bob.id).await.unwrap_err().store, "sessions");
    let each = node.stores.sessions.find_ids(&[ann.id.clone(), bob.id.clone()]).await.unwrap();
    assert_eq!(each.found.keys().collect::<Vec<_>>(), [&ann.id], "it says nothing about the others");
    assert!(each.unsure.contains(&bob.id));
    node.stop().await;
}

async fn a_use_makes_no_record_that_is_gone(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    let keys = Connection::keys_of(&place, &made).await;
    let live = node.stores.sessions.find(&made.gate_hash).await.unwrap().unwrap();
    node.stores.sessions.used(&live, made.last_used_at.after(Duration::from_secs(60)));
    let _: i64 = redis.ask(cmd("DEL").arg(&keys.record)).await;
    // The last uses are written when it stops.
    node.stop().await;
    assert!(!redis.is_there(&keys.record).await);
}

async fn nothing_is_left_of_what_ended(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    for name in ["ann", "bob", "cid", "dan"] {
        node.add_user(name).await;
    }
    let (ann, bob, cid) = (node.sign_in("ann").await, node.sign_in("bob").await, node.sign_in("cid").await);
    let dan = node.sign_in("dan").await;
    assert_eq!(node.stores.sessions.end(End::One(&ann.id)).await.unwrap(), 1);
    assert_eq!(node.stores.sessions.end(End::AllOf { user: "bob" }).await.unwrap(), 1);
    assert_eq!(node.stores.users.revoke(Whom::One("cid")).await.unwrap(), 1);
    for ended in [&ann, &bob, &cid] {
        let Keys { record, id, user, all } = Connection::keys_of(&place, ended).await;
        for key in [&record, &id, &user] {
            assert!(!redis.is_there(key).await, "{key}");
        }
        let left: i64 = redis.ask(cmd("ZCARD").arg(&all)).await;
        assert_eq!(left, 1, "of one that lives");
    }
    assert_eq!(node.stores.users.revoke(Whom::Everybody).await.unwrap(), 1);
    let all = Connection::keys_of(&place, &dan).await.all;
    assert!(!redis.is_there(&all).await);
    node.stop().await;
}

/// As where Redis threw the record away, or lost it.
async fn leads_to_nothing_are_cleaned_away(place: Place) {
    let node = place.node().await;
    let mut redis = Connection::to(&place).await;
    node.add_user("ann").await;
    let unremembered = || Session { remembered: false, ..session("ann") };
    let (lost, lives) = (unremembered(), unremembered());
    for session in [&lost, &lives] {
        node.stores.sessions.create(session.clone(), &[]).await.unwrap();
    }
    let keys = Connection::keys_of(&place, &lost).await;
    let _: i64 = redis.ask(cmd("DEL").arg(&keys.record)).await;
    let live = node.stores.sessions.find(&lives.gate_hash).await.unwrap().unwrap();
    node.stores.sessions.used(&live, lives.last_used_at.after(Duration::from_secs(30 * 60)));
    node.stop().await;
    // When what was not used since is looked at.
    let node = Node::following(place.open_at(Later::by(41 * 60)).await.unwrap());
    eventually("only one is listed", Duration::from_secs(5), || async {
        let mut redis = Connection::to(&place).await;
        let (all, of_user): (u64, u64) =
            (redis.ask(cmd("ZCARD").arg(&keys.all)).await, redis.ask(cmd("ZCARD").arg(&keys.user)).await);
        (all, of_user) == (1, 1)
    })
    .await;
    assert!(is_alive(&node, &Session { last_used_at: live.last_used(), ..lives }).await);
    node.stop().await;
}

async fn databases_that_share_a_redis_do_not_share_sessions(place: Place) {
    let node = place.node().await;
    let other_place = if place.is_sqlite() { Place::redis().await } else { Place::redis_cluster().await };
    let other = other_place.node().await;
    for node in [&node, &other] {
        node.add_user("ann").await;
    }
    let made = node.sign_in("ann").await;
    assert!(other.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    assert!(other.stores.sessions.find_id(&made.id).await.unwrap().is_none());
    assert!(other.stores.sessions.list(None).await.unwrap().is_empty());
    assert_eq!(other.stores.sessions.end(End::AllOf { user: "ann" }).await.unwrap(), 0);
    assert_eq!(other.stores.sessions.end(End::One(&SessionId::new(made.id.as_str()))).await.unwrap(), 0);
    assert_eq!(other.stores.users.revoke(Whom::Everybody).await.unwrap(), 0);
    assert!(is_alive(&node, &made).await);
    node.stop().await;
    other.stop().await;
}

/// Of another database, without anybody starting anew.
async fn a_dump_that_is_read_into_the_database_is_noticed(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.warm(&made).await;
    place.execute("DELETE FROM session_space").await;
    assert!(node.stores.sessions.find(&made.gate_hash).await.is_err(), "whose it is cannot be said");
    assert!(!node.knows(&made));
    assert!(node.stores.sessions.find(&made.gate_hash).await.unwrap().is_none());
    assert!(is_alive(&node, &node.sign_in("ann").await).await);
    node.stop().await;
}
