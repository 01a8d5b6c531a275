//! Limits counted in every kind of Redis, as docs/fleet.md has it: behind TLS with an authority of its own, by Sentinel, by a user who may do no more than the docs
//! say; what a dead node had reserved; and a cluster of which one master is away.

use std::{fs, path::Path, time::Duration};

use futures_util::future::join_all;
use postern::{core::limit::Rates, ports::CounterKey};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::{
    counters::{Grant, ask, at, granted, key, most_within, now, rates, remaining, take},
    harness::{Node, Place, eventually},
    redis::{Options, Redis, Tls},
    redis_cluster::Cluster,
    redis_sentinel::Sentinels,
};

const SECOND: Duration = Duration::from_secs(1);
const BY_SHARE: &str = "\npostern_rate_limit_by_share 1\n";
const BY_REDIS: &str = "\npostern_rate_limit_by_share 0\n";

/// How many are granted until one is refused.
async fn all_there_is(node: &Node, rates: &Rates, key: CounterKey) -> usize {
    let mut all = 0;
    while granted(node, &[ask(rates, key)]).await {
        all += 1;
    }
    all
}

async fn is_counted_in_redis_again(place: &Place, node: &Node) {
    eventually("limits are counted in Redis again", 30 * SECOND, || async {
        place.metrics_text().contains(BY_REDIS) && node.readiness.report().stores_down.is_empty()
    })
    .await;
}

/// Whom a server is to trust, and what it shows of itself.
fn authority_and_server() -> (String, Tls) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority = parameters.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(parameters, key);
    let own = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let certificate = server.signed_by(&own, &issuer).unwrap().pem();
    (authority.clone(), Tls { certificate, key: own.serialize_pem(), authority })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn counts_go_to_a_server_whose_certificate_is_trusted_and_to_no_other() {
    let folder = TempDir::new().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        path.display().to_string()
    };
    let (authority, tls) = authority_and_server();
    let redis = Redis::with(Options { tls: Some(tls), ..Options::default() }).await;
    let right = format!("{}?cacert={}", redis.url(), file("right.pem", &authority));
    let (here, there) = (at(&right).node().await, at(&right).node().await);
    let (rates, key) = (rates(&["6/hour"]), key());
    for node in [&here, &there] {
        assert!(granted(node, &[ask(&rates, key)]).await);
    }
    assert_eq!(all_there_is(&here, &rates, key).await, 4, "both count together");
    assert_eq!(remaining(&there, &rates, key).await, [0]);
    let wrong = format!("{}?cacert={}", redis.url(), file("wrong.pem", &authority_and_server().0));
    for url in [wrong, redis.url(), redis.url().replace("rediss", "redis")] {
        let node = Place::sqlite().with_counters_at(&url, "refuse").node().await;
        node.stores.counters.take(&[ask(&rates, key)]).await.expect_err("nobody is to be believed there");
        node.stop().await;
    }
    here.stop().await;
    there.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_sentinels_counts_outlive_a_failover() {
    let mut all = Sentinels::start().await;
    let places = [at(&all.url()), at(&all.url())];
    let nodes = [places[0].node().await, places[1].node().await];
    let (rates, key) = (rates(&["9/hour"]), key());
    for node in &nodes {
        for _ in 0..2 {
            assert!(granted(node, &[ask(&rates, key)]).await);
        }
    }
    all.is_replicated().await;
    all.servers[0].kill();
    for place in &places {
        eventually("it notices", 10 * SECOND, || async { place.metrics_text().contains(BY_SHARE) }).await;
    }
    assert_eq!(all.master_after(0).await, 1);
    for (place, node) in places.iter().zip(&nodes) {
        is_counted_in_redis_again(place, node).await;
    }
    assert_eq!(all_there_is(&nodes[0], &rates, key).await, 5, "and 4 before");
    assert_eq!(all_there_is(&nodes[1], &rates, key).await, 0);
    for node in nodes {
        node.stop().await;
    }
}

/// As docs/fleet.md tells to make it.
async fn user_of_the_docs(redis: &Redis) {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/fleet.md")).unwrap();
    let line = docs.lines().find(|line| line.starts_with("ACL SETUSER postern-limits ")).unwrap();
    let line = line.replace(">PASSWORD", ">hunter2");
    let words: Vec<&str> = line.split(' ').collect();
    assert_eq!(redis.command(&words).await, "OK");
}

fn as_that_user(url: &str) -> String {
    url.replacen("://", "://postern-limits:hunter2@", 1)
}

/// All that a node ever asks: takes, leases, what is given back and what is looked at.
async fn works(place: &Place, node: &Node) {
    let (narrow, wide, keys) =
        (rates(&["3/hour", "9/hour burst 9"]), rates(&["100000/minute", "90000/hour burst 90000"]), [key(), key()]);
    let both = [ask(&wide, keys[0]), ask(&narrow, keys[1])];
    for _ in 0..3 {
        assert!(granted(node, &both).await);
    }
    // In a cluster the first is given back.
    assert!(!granted(node, &both).await);
    assert_eq!(remaining(node, &narrow, keys[1]).await, [0, 6]);
    assert_eq!(remaining(node, &wide, keys[0]).await.first(), Some(&99_997));
    let (busy, reserved) = (key(), [("counters", "give"), ("counters", "reserve")]);
    let before = place.asked(reserved);
    eventually("a lease is followed by another, and what nobody spends is given back", 30 * SECOND, || async {
        let [given, followed] = place.asked_since(reserved, before);
        if followed == 0 {
            for _ in 0..200 {
                assert!(granted(node, &[ask(&wide, busy)]).await);
            }
        }
        given > 0 && followed > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_may_do_no_more_than_the_docs_say_is_enough_for_limits() {
    let redis = Redis::start().await;
    user_of_the_docs(&redis).await;
    let place = at(&as_that_user(&redis.url()));
    let node = place.node().await;
    works(&place, &node).await;
    // And when it was away, or forgot.
    let (rates, key) = (rates(&["5/hour", "9/hour burst 9"]), key());
    redis.pause();
    // Not by a request: Redis would carry it out when it goes on.
    eventually("it notices", 10 * SECOND, || async { place.metrics_text().contains(BY_SHARE) }).await;
    assert!(granted(&node, &[ask(&rates, key)]).await);
    redis.resume();
    is_counted_in_redis_again(&place, &node).await;
    assert_eq!(remaining(&node, &rates, key).await, [4, 8]);
    redis.command(&["FLUSHALL"]).await;
    eventually("it is told what it forgot", 10 * SECOND, || async { remaining(&node, &rates, key).await == [4, 8] })
        .await;
    node.stop().await;
    assert_eq!(redis.command(&["ACL", "LOG"]).await, "", "nothing else was asked for");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_may_do_no_more_than_the_docs_say_is_enough_for_limits_in_a_cluster() {
    let cluster = Cluster::start().await;
    for redis in &cluster.nodes {
        user_of_the_docs(redis).await;
    }
    let place = at(&as_that_user(&cluster.url()));
    let node = place.node().await;
    for _ in 0..4 {
        works(&place, &node).await;
    }
    node.stop().await;
    for redis in &cluster.nodes {
        assert_eq!(redis.command(&["ACL", "LOG"]).await, "", "nothing else was asked for");
    }
}

/// Every one that is granted, until some are refused: or twice the limit of a second, since on a busy machine a second's may be there again before the last is asked for.
async fn grants(node: &Node, rates: &Rates, key: CounterKey, limit: usize) -> Vec<Grant> {
    const AT_ONCE: usize = 64;
    let mut grants = Vec::new();
    while grants.len() < 2 * limit {
        let asked = (0..AT_ONCE).map(|_| async {
            let sent = now();
            let taken = take(&*node.stores.counters, &[ask(rates, key)]).await;
            taken.refused.is_none().then(|| (sent, now()))
        });
        let answered = join_all(asked).await;
        grants.extend(answered.iter().flatten());
        if answered.iter().any(Option::is_none) {
            break;
        }
    }
    grants
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_had_reserved_that_died_comes_back_and_never_too_early() {
    const LIMIT: usize = 1_280;
    let redis = Redis::start().await;
    let place = at(&redis.url());
    let there = at(&redis.url()).node().await;
    let rates = rates(&["1280/second"]);
    // On a busy machine nothing is reserved, since nobody asks often.
    let mut reserved = None;
    for _ in 0..20 {
        let (here, key) = (place.node().await, key());
        let mut of_here = Vec::new();
        for _ in 0..100 {
            let sent = now();
            assert!(granted(&here, &[ask(&rates, key)]).await);
            of_here.push((sent, now()));
        }
        // It beats no more, and gives nothing back.
        here.die();
        let left = remaining(&there, &rates, key).await[0] as usize;
        if left < LIMIT - of_here.len() {
            reserved = Some((key, of_here));
            break;
        }
    }
    let (key, mut all) = reserved.expect("some node reserved something");
    all.extend(grants(&there, &rates, key, LIMIT).await);
    eventually("all of it is there again", 10 * SECOND, || async { remaining(&there, &rates, key).await == [1_280] })
        .await;
    let again = grants(&there, &rates, key, LIMIT).await;
    assert!(again.len() >= LIMIT, "{} of {LIMIT}", again.len());
    all.extend(again);
    let most = most_within(&all, SECOND);
    assert!(most <= LIMIT, "{most} within a second");
    there.stop().await;
}

/// One that this master of the cluster counts.
async fn key_at(cluster: &Cluster, number: usize) -> CounterKey {
    loop {
        let key = key();
        let name = key.0.iter().fold("postern:limit:".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        if cluster.place_of(&name).await == number {
            return key;
        }
    }
}

/// Redis itself answers for no key while it has not all masters, by its own default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_one_master_of_a_cluster_is_away_all_goes_by_share_and_no_more_is_granted_in_all() {
    let mut cluster = Cluster::start().await;
    let beats = cluster.place_of("postern:limit-nodes").await;
    let (dead, other) = ((beats + 1) % 3, (beats + 2) % 3);
    let places = [at(&cluster.url()), at(&cluster.url())];
    let nodes = [places[0].node().await, places[1].node().await];
    let beat = [("counters", "beat")];
    for place in &places {
        let before = place.asked(beat);
        eventually("each has heard of the other", 10 * SECOND, || async { place.asked_since(beat, before)[0] > 2 })
            .await;
    }
    let rates = rates(&["20/hour"]);
    let keys = [key_at(&cluster, beats).await, key_at(&cluster, other).await, key_at(&cluster, dead).await];
    for key in keys {
        for node in &nodes {
            for _ in 0..3 {
                assert!(granted(node, &[ask(&rates, key)]).await);
            }
        }
    }
    cluster.nodes[dead].kill();
    cluster.is_broken(beats).await;
    cluster.is_broken(other).await;
    for place in &places {
        eventually("it notices", 10 * SECOND, || async { place.metrics_text().contains(BY_SHARE) }).await;
    }
    for key in keys {
        for node in &nodes {
            assert_eq!(all_there_is(node, &rates, key).await, 7, "what is left of its part");
        }
    }
    cluster.nodes[dead].restart().await;
    cluster.is_whole().await;
    for (place, node) in places.iter().zip(&nodes) {
        is_counted_in_redis_again(place, node).await;
    }
    for key in &keys[..2] {
        for node in &nodes {
            assert_eq!(all_there_is(node, &rates, *key).await, 0, "all twenty were granted");
        }
    }
    // That master forgot what it knew itself, and was told what was granted while it was away.
    assert_eq!(all_there_is(&nodes[0], &rates, keys[2]).await, 6);
    assert_eq!(all_there_is(&nodes[1], &rates, keys[2]).await, 0);
    for node in nodes {
        node.stop().await;
    }
}

/// Thousands of questions to a master that is away are left behind in the client of the cluster, which then answered none any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_owed_to_masters_of_whom_one_was_away_is_told_once_when_it_is_back() {
    let mut cluster = Cluster::start().await;
    let dead = (cluster.place_of("postern:limit-nodes").await + 1) % 3;
    let place = at(&cluster.url());
    let node = place.node().await;
    let rates = rates(&["9/hour"]);
    // So many that some are told in one step with such as the dead one has.
    let keys: Vec<CounterKey> = (0..4_000).map(|_| key()).collect();
    cluster.nodes[dead].kill();
    for key in &keys {
        assert!(granted(&node, &[ask(&rates, *key)]).await);
    }
    assert!(place.metrics_text().contains(BY_SHARE));
    let (beat, before) = ([("counters", "beat")], place.asked([("counters", "beat")]));
    eventually("it has tried to tell", 30 * SECOND, || async { place.asked_since(beat, before)[0] > 4 }).await;
    cluster.nodes[dead].restart().await;
    cluster.is_whole().await;
    is_counted_in_redis_again(&place, &node).await;
    for key in &keys {
        assert_eq!(remaining(&node, &rates, *key).await, [8]);
    }
    node.stop().await;
}
