use tokio::sync::oneshot;

use crate::{
    ports::{Keys as _, Unavailable},
    store::tests::scratch,
};

/// A failover, while one reads and another waits for its turn.
#[tokio::test]
async fn whoever_waits_for_a_reading_uses_the_connections_of_when_its_turn_comes() {
    let folder = tempfile::tempdir().unwrap();
    let stores = scratch(&folder).await;
    let (keys, database) = (&stores.background.keys, &stores.background.database);
    let (end, ended) = oneshot::channel::<()>();
    let reading = keys.memory.shared(async {
        ended.await.unwrap();
        Err(Unavailable { store: "keys", detail: "down".to_owned() })
    });
    let renewed = async {
        // By now both have asked.
        let old = database.pool();
        database.renew().unwrap();
        old.close().await;
        end.send(()).unwrap();
    };
    let (reading, waiting, ()) = tokio::join!(biased; reading, keys.read(), renewed);
    assert!(reading.is_err());
    assert!(waiting.is_ok(), "{:?}", waiting.err());
    stores.close().await;
}
