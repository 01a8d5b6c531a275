//! What limits are counted in: memory, one Redis, a cluster of Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use postern::{
    core::limit::Rates,
    ports::{Ask, CounterKey, Counters, Taken},
};

use crate::{
    harness::{Node, Place, eventually},
    redis::Redis,
    redis_cluster::Cluster,
};

const SECOND: Duration = Duration::from_secs(1);

macro_rules! for_every_counter {
    ($($case:ident),* $(,)?) => {
        mod memory {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case($crate::harness::Place::sqlite()).await;
                }
            )*
        }
        mod redis {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::at(&$crate::redis::Redis::shared().await)).await;
                }
            )*
        }
        mod redis_cluster {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::at(&$crate::redis_cluster::Cluster::shared().await)).await;
                }
            )*
        }
    };
}

for_every_counter!(
    a_limit_grants_its_number_and_says_when_again,
    asks_of_one_request_are_taken_together_or_not_at_all,
    one_that_only_reports_stands_in_no_way,
    other_rates_go_on_with_what_was_taken,
);

pub(crate) fn at(url: &str) -> Place {
    Place::sqlite().with_counters_at(url, "share")
}

pub(crate) fn rates(texts: &[&str]) -> Rates {
    Rates::new(texts.iter().map(|text| text.parse().unwrap()).collect()).unwrap()
}

/// That no other test counts by.
pub(crate) fn key() -> CounterKey {
    CounterKey(*uuid().as_bytes().first_chunk().unwrap())
}

fn uuid() -> String {
    use postern::{ports::Entropy as _, store::system::SystemEntropy};
    let mut bytes = [0; 8];
    SystemEntropy.fill(&mut bytes);
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn ask(rates: &Rates, key: CounterKey) -> Ask<'_> {
    Ask { limit: "chat", rates, key, reports_only: false }
}

/// As the gate asks.
pub(crate) async fn take(counters: &dyn Counters, asks: &[Ask<'_>]) -> Taken {
    match counters.try_take(asks) {
        Some(taken) => taken,
        None => counters.take(asks).await.unwrap(),
    }
}

pub(crate) async fn granted(node: &Node, asks: &[Ask<'_>]) -> bool {
    take(&*node.stores.counters, asks).await.refused.is_none()
}

pub(crate) async fn remaining(node: &Node, rates: &Rates, key: CounterKey) -> Vec<u32> {
    let allowance = node.stores.counters.look(&ask(rates, key)).await.unwrap();
    allowance.rates.iter().map(|rate| rate.remaining).collect()
}

/// What is left by each rate of the ask of this place.
fn left(taken: &Taken, place: usize) -> Vec<u32> {
    taken.allowances.get(place).unwrap().rates.iter().map(|rate| rate.remaining).collect()
}

async fn a_limit_grants_its_number_and_says_when_again(place: Place) {
    let node = place.node().await;
    let (few, one_key) = (rates(&["5/minute", "100/second burst 7", "50/day"]), key());
    for left in (0..5).rev() {
        let taken = take(&*node.stores.counters, &[ask(&few, one_key)]).await;
        assert_eq!((taken.refused, self::left(&taken, 0).first()), (None, Some(&left)));
    }
    let refused = take(&*node.stores.counters, &[ask(&few, one_key)]).await.refused.expect("a refusal");
    assert!(refused.retry_after > SECOND && refused.retry_after < Duration::from_millis(61_200));
    assert_eq!(remaining(&node, &few, one_key).await.last(), Some(&45), "a refusal takes nothing");
    let (often, key) = (rates(&["1/second"]), key());
    // On a busy machine a second may pass between two of them.
    let refusal = async {
        loop {
            if let Some(refused) = take(&*node.stores.counters, &[ask(&often, key)]).await.refused {
                return refused;
            }
        }
    };
    let wait = tokio::time::timeout(10 * SECOND, refusal).await.expect("a refusal").retry_after;
    assert!(wait > Duration::ZERO && wait < Duration::from_millis(1_020), "{wait:?}");
    tokio::time::sleep(wait).await;
    assert!(granted(&node, &[ask(&often, key)]).await);
    node.stop().await;
}

async fn asks_of_one_request_are_taken_together_or_not_at_all(place: Place) {
    let node = place.node().await;
    let (wide, narrow, keys) = (rates(&["10/hour", "10/hour burst 10"]), rates(&["2/hour"]), [key(), key(), key()]);
    let asks = [ask(&wide, keys[0]), ask(&narrow, keys[1]), ask(&wide, keys[2])];
    assert!(granted(&node, &asks).await && granted(&node, &asks).await);
    let taken = take(&*node.stores.counters, &asks).await;
    assert_eq!(taken.refused.expect("a refusal").ask, 1);
    assert_eq!(
        taken.allowances.iter().map(|allowance| allowance.is_granted()).collect::<Vec<_>>(),
        [true, false, true]
    );
    assert_eq!([left(&taken, 0), left(&taken, 1), left(&taken, 2)], [vec![8, 8], vec![0], vec![8, 8]]);
    for wide_key in [keys[0], keys[2]] {
        assert_eq!(remaining(&node, &wide, wide_key).await, [8, 8]);
    }
    node.stop().await;
}

async fn one_that_only_reports_stands_in_no_way(place: Place) {
    let node = place.node().await;
    let (wide, narrow, keys) = (rates(&["3/hour"]), rates(&["1/hour"]), [key(), key()]);
    let reports = Ask { reports_only: true, ..ask(&narrow, keys[0]) };
    let asks = [reports, ask(&wide, keys[1])];
    for number in 0..3 {
        let taken = take(&*node.stores.counters, &asks).await;
        let reported = taken.allowances.first().unwrap();
        assert_eq!((taken.refused, reported.is_granted()), (None, number == 0));
    }
    let taken = take(&*node.stores.counters, &asks).await;
    assert_eq!(taken.refused.map(|refused| refused.ask), Some(1));
    assert!(granted(&node, &[reports]).await);
    node.stop().await;
}

async fn other_rates_go_on_with_what_was_taken(place: Place) {
    let node = place.node().await;
    let (before, after, key) = (rates(&["5/hour"]), rates(&["8/hour", "3/day"]), key());
    while granted(&node, &[ask(&before, key)]).await {}
    assert_eq!(remaining(&node, &after, key).await, [3, 3]);
    assert!(granted(&node, &[ask(&after, key)]).await);
    node.stop().await;
}

#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A request that was let through: when it was sent, and when it was answered.
pub(crate) type Grant = (Instant, Instant);

/// Hammers one key on each node for so long.
async fn hammer(nodes: &[Arc<dyn Counters>], rates: &Rates, key: CounterKey, time: Duration) -> Vec<Grant> {
    let until = now() + time;
    let each = nodes.iter().flat_map(|node| std::iter::repeat_n(node, 6)).map(|node| {
        let (node, rates) = (node.clone(), rates.clone());
        tokio::spawn(async move {
            let mut grants = Vec::new();
            while now() < until {
                let sent = now();
                if take(&*node, &[ask(&rates, key)]).await.refused.is_none() {
                    grants.push((sent, now()));
                }
                tokio::task::yield_now().await;
            }
            grants
        })
    });
    let mut grants = Vec::new();
    for task in each.collect::<Vec<_>>() {
        grants.extend(task.await.unwrap());
    }
    grants
}

/// How many are most within any stretch of this length, wherever it begins: of those that were sent and answered within it.
pub(crate) fn most_within(grants: &[Grant], length: Duration) -> usize {
    let mut by_answer = grants.to_vec();
    by_answer.sort_by_key(|(_, answered)| *answered);
    let most = by_answer.iter().map(|(from, _)| {
        let within = by_answer
            .iter()
            .skip_while(|(_, answered)| answered < from)
            .take_while(|(_, answered)| *answered <= *from + length);
        within.filter(|(sent, _)| sent >= from).count()
    });
    most.max().unwrap_or(0)
}

async fn exact_over_three_nodes(url: &str) {
    const LIMIT: usize = 200;
    const SECONDS: usize = 5;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(at(url).node().await);
    }
    let counters: Vec<Arc<dyn Counters>> = nodes.iter().map(|node| node.stores.counters.clone()).collect();
    let rates = rates(&["200/second", "100000/minute"]);
    let grants = hammer(&counters, &rates, key(), Duration::from_secs(5)).await;
    let most = most_within(&grants, SECOND);
    assert!(most <= LIMIT, "{most} within a second");
    assert!(grants.len() * 100 >= LIMIT * SECONDS * 98, "{} in {SECONDS} s", grants.len());
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_on_one_redis_never_grant_more_and_nearly_all() {
    exact_over_three_nodes(&Redis::start().await.url()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_on_a_cluster_never_grant_more_and_nearly_all() {
    exact_over_three_nodes(&Cluster::shared().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_from_the_limit_redis_is_seldom_asked_and_what_nobody_spent_comes_back() {
    let redis = Redis::start().await;
    let place = at(&redis.url());
    let node = place.node().await;
    let (rates, key) = (rates(&["10000000/minute", "100000/second burst 400000"]), key());
    let asked = place.asked([("counters", "take")]);
    let grants = hammer(std::slice::from_ref(&node.stores.counters), &rates, key, 2 * SECOND).await.len();
    let [asked] = place.asked_since([("counters", "take")], asked);
    assert!(grants > 200 && asked * 10 < grants as u64, "asked {asked} times for {grants}");
    eventually("what was reserved is given back", 5 * SECOND, || async {
        remaining(&node, &rates, key).await[0] as usize == 10_000_000 - grants
    })
    .await;
    node.stop().await;
}

/// Three nodes, each of which has heard of the others.
async fn fleet(redis: &Redis, on_failure: &str) -> (Vec<Place>, Vec<Node>) {
    let (mut places, mut nodes) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        let place = Place::sqlite().with_counters_at(&redis.url(), on_failure);
        nodes.push(place.node().await);
        places.push(place);
    }
    let beat = [("counters", "beat")];
    eventually("all are there", 10 * SECOND, || async {
        redis.command(&["ZCOUNT", "postern:limit-nodes", "-inf", "(+inf"]).await.ends_with('3')
    })
    .await;
    for place in &places {
        let before = place.asked(beat);
        eventually("it has looked since", 10 * SECOND, || async { place.asked_since(beat, before)[0] > 1 }).await;
    }
    (places, nodes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_each_node_goes_on_with_its_part_and_no_more_is_granted_in_all() {
    let mut redis = Redis::start().await;
    let (places, nodes) = fleet(&redis, "share").await;
    let (rates, tiny, keys) = (rates(&["60/hour"]), rates(&["2/hour"]), [key(), key()]);
    for node in &nodes {
        for _ in 0..5 {
            assert!(granted(node, &[ask(&rates, keys[0])]).await);
        }
    }
    redis.kill();
    let mut in_all = 15;
    let mut of_tiny = 0;
    for node in &nodes {
        let mut of_this = 0;
        while granted(node, &[ask(&rates, keys[0])]).await {
            of_this += 1;
        }
        assert_eq!(of_this, 15, "what is left of its part");
        in_all += of_this;
        while granted(node, &[ask(&tiny, keys[1])]).await {
            of_tiny += 1;
        }
    }
    assert_eq!((in_all, of_tiny), (60, 2));
    for place in &places {
        assert!(place.metrics_text().lines().any(|line| line == "postern_rate_limit_by_share 1"));
    }
    redis.restart().await;
    for (place, node) in places.iter().zip(&nodes) {
        eventually("limits are counted in Redis again", 10 * SECOND, || async {
            place.metrics_text().contains("\npostern_rate_limit_by_share 0\n")
                && node.readiness.report().stores_down.is_empty()
        })
        .await;
    }
    // Redis was empty: it has been told by each.
    for node in &nodes {
        assert!(!granted(node, &[ask(&rates, keys[0])]).await && !granted(node, &[ask(&tiny, keys[1])]).await);
    }
    for node in nodes {
        node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_it_is_chosen_nobody_passes_while_redis_is_away() {
    let mut redis = Redis::start().await;
    let (_places, nodes) = fleet(&redis, "refuse").await;
    let (rates, key) = (rates(&["60/hour"]), key());
    assert!(granted(&nodes[0], &[ask(&rates, key)]).await);
    redis.kill();
    let counters = &nodes[0].stores.counters;
    for _ in 0..3 {
        assert!(counters.try_take(&[ask(&rates, key)]).is_none());
        assert_eq!(counters.take(&[ask(&rates, key)]).await.unwrap_err().store, "counters");
    }
    redis.restart().await;
    eventually("it is asked again", 10 * SECOND, || async { counters.take(&[ask(&rates, key)]).await.is_ok() }).await;
    for node in nodes {
        node.stop().await;
    }
}

/// Requests all the while: nobody waits long, nothing fails, and never is more granted than by Redis and by all parts together.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_in_the_middle_of_load() {
    const LIMIT: usize = 300;
    let mut redis = Redis::start().await;
    let (places, nodes) = fleet(&redis, "share").await;
    let counters: Vec<Arc<dyn Counters>> = nodes.iter().map(|node| node.stores.counters.clone()).collect();
    let (rates, key) = (rates(&["300/second"]), key());
    let outage = async {
        tokio::time::sleep(2 * SECOND).await;
        redis.kill();
        tokio::time::sleep(2 * SECOND).await;
        redis.restart().await;
    };
    let (grants, ()) = tokio::join!(hammer(&counters, &rates, key, 6 * SECOND), outage);
    let most = most_within(&grants, SECOND);
    assert!(most <= 2 * LIMIT, "{most} within a second");
    assert!(grants.iter().all(|(sent, answered)| answered.duration_since(*sent) < 2 * SECOND));
    for (place, node) in places.iter().zip(&counters) {
        eventually("each asks Redis again", 10 * SECOND, || async {
            let before = place.asked([("counters", "take")]);
            node.take(&[ask(&rates, key)]).await.unwrap();
            place.asked_since([("counters", "take")], before)[0] > 0
        })
        .await;
    }
    let healed = hammer(&counters, &rates, key, 3 * SECOND).await;
    let most = most_within(&healed, SECOND);
    assert!(most <= LIMIT && healed.len() > LIMIT, "{most} within a second, {} in all", healed.len());
    for node in nodes {
        node.stop().await;
    }
}
