//! What ends with a sign-in: all that was handed over from it, at the same moment too, and where Redis has lost keys one by one, as where it throws away what
//! it used least.

use std::time::Duration;

use ::redis::cmd;
use postern::{core::session::Session, ports::End};

use crate::{
    harness::{Node, Place, eventually, session},
    in_redis::Connection,
};

crate::for_every_store!(threat_36_what_is_handed_over_beside_a_logout_all_ends_with_it);
mod keys {
    use super::threat_36_a_sign_in_ends_whole_where_redis_lost_the_way_to_its_sessions;

    crate::for_every_redis!(threat_36_a_sign_in_ends_whole_where_redis_lost_the_way_to_its_sessions);
}

fn child(of: &Session) -> Session {
    Session { parent: Some(of.id.clone()), domain: "example.net".to_owned(), ..session(&of.user) }
}

/// The hand-over was asked for before everything ended, and comes after it.
async fn threat_36_what_is_handed_over_beside_a_logout_all_ends_with_it(place: Place) {
    let node = place.node().await;
    node.add_user("ann").await;
    let sessions = &node.stores.sessions;
    for moment in (0..40).cycle().take(240) {
        let parent = node.sign_in("ann").await;
        let handed_over = child(&parent);
        let ending = async {
            for _ in 0..moment {
                tokio::task::yield_now().await;
            }
            sessions.end(End::AllOf { user: "ann" }).await.unwrap()
        };
        let (made, _) = tokio::join!(sessions.create(handed_over.clone(), &[]), ending);
        assert!(sessions.find(&parent.gate_hash).await.unwrap().is_none());
        assert!(
            sessions.find(&handed_over.gate_hash).await.unwrap().is_none(),
            "it outlived its sign-in, at the moment {moment}: {made:?}"
        );
    }
    node.stop().await;
}

async fn is_over(nodes: [&Node; 2], session: &Session, what: &str) {
    for node in nodes {
        eventually(what, Duration::from_secs(1), || async { !node.knows(session) }).await;
        assert!(node.stores.sessions.find(&session.gate_hash).await.unwrap().is_none(), "{what}");
    }
}

/// By its id a session is hardly ever looked up: that key is thrown away before its record.
async fn threat_36_a_sign_in_ends_whole_where_redis_lost_the_way_to_its_sessions(place: Place) {
    let (here, there) = (place.node().await, place.node().await);
    let mut redis = Connection::to(&place).await;
    here.add_user("ann").await;
    for lost in ["the parent's", "the child's", "both"] {
        for by_child in [false, true] {
            let parent = here.sign_in("ann").await;
            let (child, foreign) = (child(&parent), here.sign_in("ann").await);
            here.stores.sessions.create(child.clone(), &[]).await.unwrap();
            for session in [&parent, &child, &foreign] {
                here.warm(session).await;
                there.warm(session).await;
            }
            for (session, kept) in [(&parent, "the child's"), (&child, "the parent's")] {
                if lost != kept {
                    let _: i64 = redis.ask(cmd("DEL").arg(Connection::keys_of(&place, session).await.id)).await;
                }
            }
            let ended = if by_child { &child } else { &parent };
            here.stores.sessions.end(End::One(&ended.id)).await.unwrap();
            let what = format!("ended by the child: {by_child}, lost: {lost}");
            is_over([&here, &there], &parent, &format!("the parent, {what}")).await;
            is_over([&here, &there], &child, &format!("the child, {what}")).await;
            assert!(here.stores.sessions.find(&foreign.gate_hash).await.unwrap().is_some(), "{what}");
        }
    }
    here.stop().await;
    there.stop().await;
}
