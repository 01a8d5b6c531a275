//! What the black-box tests stand on: the real program, upstreams that record, proxies, a browser, a relay that can be cut.
//!
//! Nothing here sleeps for luck: whatever takes time is polled until a deadline. Ports are free ones, held until the test ends.
//! What the machine lacks is an error that names it, never a skip.

pub(crate) mod breaker;
pub(crate) mod browser;
pub(crate) mod caddy;
pub(crate) mod client;
pub(crate) mod envoy;
pub(crate) mod fleet;
pub(crate) mod front;
pub(crate) mod haproxy;
pub(crate) mod idp;
#[path = "../../support/late.rs"]
pub(crate) mod late;
pub(crate) mod nginx;
#[path = "../../support/port.rs"]
pub(crate) mod port;
#[path = "../../support/postgres.rs"]
pub(crate) mod postgres;
pub(crate) mod program;
pub(crate) mod proxy;
#[path = "../../support/redis.rs"]
pub(crate) mod redis;
#[path = "../../support/redis_cluster.rs"]
pub(crate) mod redis_cluster;
#[path = "../../support/redis_sentinel.rs"]
pub(crate) mod redis_sentinel;
pub(crate) mod server;
pub(crate) mod smtp;
pub(crate) mod tls;
pub(crate) mod traefik;
pub(crate) mod upstream;
pub(crate) mod wire;

use std::{
    future::Future,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

/// Longest that anything may take on a busy machine before a test gives up.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Every host of a test lies below this name, which resolvers and browsers know to be this machine.
pub(crate) const DOMAIN: &str = "test.localhost";

/// Asks again and again until the answer is there.
pub(crate) async fn eventually<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    within(DEADLINE, what, async {
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// Fails the test where `work` takes longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

/// Asks until the answer is as wanted, which whatever is asked later than `limit` from now on must be: how long an answer takes is the machine's affair.
pub(crate) async fn as_soon<F: Future<Output = bool>>(limit: Duration, what: &str, mut ask: impl FnMut() -> F) {
    let begun = fleet::now();
    within(DEADLINE, what, async {
        loop {
            let asked = begun.elapsed();
            if ask().await {
                return;
            }
            assert!(asked <= limit, "asked {asked:?} later, and not yet: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// Not on a disk, where the system allows it: tests beside each other on a slow one would wait for it longer than an operation of a store may take.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| TempDir::new()).expect("a temporary folder")
}

/// A file or folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A program that `./dev test` brings.
pub(crate) fn tool(name: &str) -> PathBuf {
    let here = repository("target/tools").join(name);
    if here.exists() {
        return here;
    }
    let everywhere = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/bin";
    let found = everywhere.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("missing: {name}. `./dev test` installs it."))
}
