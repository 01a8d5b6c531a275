//! Refresh tokens and revoked access tokens.

mod cleaning;
mod exchange;
mod revoked;
mod second_use;

use std::{sync::LazyLock, time::Duration};

use postern::{
    core::{
        session::{Session, SessionId, TokenHash},
        time::Timestamp,
    },
    ports::{Exchange, Exchanged, RefreshToken, Tokens},
    store::Stores,
};

use crate::harness::{Node, Place, eventually, session};

const SECOND: Duration = Duration::from_secs(1);

fn now() -> Timestamp {
    Timestamp::from_unix_millis(jiff::Timestamp::now().as_millisecond())
}

fn token(name: &str, family: &str) -> RefreshToken {
    RefreshToken {
        hash: TokenHash::of(name),
        session: SessionId::new(family.to_owned()),
        expires_at: now().after(Duration::from_secs(3600)),
    }
}

/// All at one moment, however long a busy machine takes: where time matters, a test says how much of it passes.
fn exchange(presented: &str, next: &str) -> Exchange {
    static NOW: LazyLock<Timestamp> = LazyLock::new(now);
    Exchange {
        presented: TokenHash::of(presented),
        next: token(next, "family"),
        now: *NOW,
        end_of_session: NOW.after(Duration::from_secs(30 * 86_400)),
        place: Some(TokenHash::of("here")),
    }
}

async fn exchanged(tokens: &dyn Tokens, presented: &str, next: &str) -> Exchanged {
    tokens.exchange(exchange(presented, next)).await.unwrap()
}

/// A session of Ann's of this id, for thirty days.
async fn remembered(stores: &Stores, id: &str) {
    let made = Session { id: SessionId::new(id.to_owned()), remembered: true, ..session("ann") };
    stores.sessions.create(made, &[]).await.unwrap();
}

/// A node cleans when it starts, and tokens of a session that is over go then: their second use tells nothing any more, and nothing is left to end.
async fn has_cleaned(place: &Place) {
    eventually("the first cleaning is done", 10 * SECOND, || async { place.asked([("changes", "clean")])[0] > 0 })
        .await;
}

/// A node that knows a session of Ann's, and the first refresh token of it.
async fn scene(place: &Place) -> (Node, Session) {
    let node = place.node().await;
    has_cleaned(place).await;
    node.add_user("ann").await;
    let made = node.sign_in("ann").await;
    node.stores.tokens.insert_refresh(token("1", made.id.as_str())).await.unwrap();
    node.warm(&made).await;
    (node, made)
}

fn of(session: &Session, presented: &str, next: &str) -> Exchange {
    Exchange { next: token(next, session.id.as_str()), ..exchange(presented, "") }
}

pub(crate) async fn is_over(node: &Node, session: &Session) -> bool {
    !node.knows(session) && node.stores.sessions.find(&session.gate_hash).await.unwrap().is_none()
}
