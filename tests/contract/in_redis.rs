//! What Redis may do to sessions that are kept there: lose them, damage them, bring them back.

use ::redis::{
    AsyncConnectionConfig, Cmd, FromRedisValue, aio::MultiplexedConnection, cluster::ClusterClient,
    cluster_async::ClusterConnection, cmd,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use postern::core::{session::Session, user::folded};

use crate::harness::Place;

/// The keys of a session, as `store::session::redis` documents them.
pub(crate) struct Keys {
    pub(crate) record: String,
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) all: String,
}

/// What keys held.
pub(crate) struct Copied(Vec<(String, Vec<u8>)>);

pub(crate) enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Connection {
    pub(crate) async fn to(place: &Place) -> Self {
        let url = place.sessions_url.as_deref().unwrap();
        match url.strip_prefix("redis+cluster://") {
            Some(nodes) => {
                let nodes: Vec<String> = nodes.split(',').map(|node| format!("redis://{node}")).collect();
                Self::Cluster(ClusterClient::new(nodes).unwrap().get_async_connection().await.unwrap())
            }
            None => {
                // By itself it would wait for half a second, which nobody promises.
                let patient = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
                let client = redis::Client::open(url).unwrap();
                Self::Single(client.get_multiplexed_async_connection_with_config(&patient).await.unwrap())
            }
        }
    }

    pub(crate) async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> T {
        match self {
            Self::Single(connection) => command.query_async(connection).await.unwrap(),
            Self::Cluster(connection) => command.query_async(connection).await.unwrap(),
        }
    }

    pub(crate) async fn keys_of(place: &Place, session: &Session) -> Keys {
        let space = place.question("SELECT name FROM session_space").await;
        let hash = URL_SAFE_NO_PAD.encode(session.gate_hash.0);
        Keys {
            record: format!("postern:{space}:session:{hash}"),
            id: format!("postern:{space}:id:{}", session.id),
            user: format!("postern:{space}:user:{}", folded(&session.user)),
            all: format!("postern:{space}:sessions"),
        }
    }

    /// As a snapshot would hold it.
    pub(crate) async fn copy(&mut self, keys: &Keys) -> Copied {
        let mut copied = Vec::new();
        for key in [&keys.record, &keys.id, &keys.user, &keys.all] {
            let dumped: Vec<u8> = self.ask(cmd("DUMP").arg(key)).await;
            copied.push((key.clone(), dumped));
        }
        Copied(copied)
    }

    pub(crate) async fn bring_back(&mut self, copied: &Copied) {
        for (key, dumped) in &copied.0 {
            let () = self.ask(cmd("RESTORE").arg(key).arg(0).arg(dumped.as_slice()).arg("REPLACE")).await;
        }
    }

    pub(crate) async fn is_there(&mut self, key: &str) -> bool {
        self.ask(cmd("EXISTS").arg(key)).await
    }
}
