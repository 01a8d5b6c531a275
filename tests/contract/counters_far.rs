//! Limits counted in a Redis that is far away, or out of reach for a while.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use postern::{
    core::limit::Rates,
    ports::{Ask, CounterKey},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
};

use crate::{
    harness::{Node, Place, eventually},
    redis::Redis,
};

const SECOND: Duration = Duration::from_secs(1);

/// A relay through which everything takes longer, and that can be cut.
struct Far {
    port: u16,
    each_way: Arc<AtomicU64>,
    is_cut: watch::Sender<bool>,
}

impl Far {
    async fn from(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = Self {
            port: listener.local_addr().unwrap().port(),
            each_way: Arc::default(),
            is_cut: watch::Sender::new(false),
        };
        let (each_way, is_cut) = (far.each_way.clone(), far.is_cut.subscribe());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (each_way, mut is_cut) = (each_way.clone(), is_cut.clone());
                tokio::spawn(async move {
                    if *is_cut.borrow() {
                        return;
                    }
                    let server = TcpStream::connect(("127.0.0.1", target)).await.unwrap();
                    let ((from_client, to_client), (from_server, to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        () = pass(from_client, to_server, &each_way) => {}
                        () = pass(from_server, to_client, &each_way) => {}
                        _ = is_cut.wait_for(|is_cut| *is_cut) => {}
                    }
                });
            }
        });
        far
    }

    fn each_way(&self, milliseconds: u64) {
        self.each_way.store(milliseconds, Ordering::SeqCst);
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, each_way: &AtomicU64) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        tokio::time::sleep(Duration::from_millis(each_way.load(Ordering::SeqCst))).await;
        if to.write_all(bytes.get(..read).unwrap()).await.is_err() {
            return;
        }
    }
}

async fn scene(redis: &Redis) -> (Far, Place, Node) {
    let far = Far::from(redis.port()).await;
    let place = Place::sqlite().with_counters_at(&redis.url_by(far.port), "share");
    let node = place.node().await;
    (far, place, node)
}

fn rates(text: &str) -> Rates {
    Rates::new(vec![text.parse().unwrap()]).unwrap()
}

async fn take(node: &Node, rates: &Rates, number: u64) -> u32 {
    let mut key = [9; 16];
    key[..8].copy_from_slice(&number.to_le_bytes());
    let ask = Ask { limit: "chat", rates, key: CounterKey(key), reports_only: false };
    let taken = match node.stores.counters.try_take(&[ask]) {
        Some(taken) => taken,
        None => node.stores.counters.take(&[ask]).await.unwrap(),
    };
    taken.allowances.first().and_then(|allowance| allowance.rates.first()).unwrap().remaining
}

fn is_by_share(place: &Place) -> bool {
    place.metrics_text().lines().any(|line| line == "postern_rate_limit_by_share 1")
}

/// Else each request of half a second would wait as long for nothing, and count twice: there, where it arrives too late, and here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_answers_later_than_a_request_waits_is_away_until_it_answers_sooner() {
    let redis = Redis::start().await;
    let (far, place, node) = scene(&redis).await;
    let (rates, counts) = (rates("1000/day"), [("counters", "take"), ("counters", "beat")]);
    take(&node, &rates, 0).await;
    assert!(!is_by_share(&place), "{:?}", node.readiness.report());
    far.each_way(350);
    take(&node, &rates, 0).await;
    let before = place.asked(counts);
    eventually("it beats on, and is answered", 20 * SECOND, || async {
        take(&node, &rates, 0).await;
        assert!(is_by_share(&place));
        place.asked_since(counts, before)[1] >= 3
    })
    .await;
    assert_eq!(place.asked_since(counts, before)[0], 0, "no request waits for it");
    far.each_way(0);
    eventually("it is near again", 10 * SECOND, || async { !is_by_share(&place) }).await;
    take(&node, &rates, 0).await;
    assert_eq!(place.asked_since(counts, before)[0], 1);
    node.stop().await;
}

/// As many questions as there are parts of memory would take minutes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_far_away_is_soon_told_of_thousands_of_keys() {
    const KEYS: u64 = 3_000;
    let redis = Redis::start().await;
    let (far, place, node) = scene(&redis).await;
    let rates = rates("10/day");
    far.each_way(20);
    far.is_cut.send_replace(true);
    for number in 0..KEYS {
        assert_eq!(take(&node, &rates, number).await, 9);
    }
    assert!(is_by_share(&place));
    let told = [("counters", "restore"), ("counters", "beat")];
    let before = place.asked(told);
    far.is_cut.send_replace(false);
    eventually("it is told of all", 20 * SECOND, || async { !is_by_share(&place) }).await;
    let [restores, _] = place.asked_since(told, before);
    assert!((KEYS / 300..=KEYS / 100).contains(&restores), "{restores} questions");
    far.each_way(0);
    for number in [0, 1, KEYS / 2, KEYS - 1] {
        assert_eq!(take(&node, &rates, number).await, 8, "key {number}: counted once");
    }
    node.stop().await;
}
