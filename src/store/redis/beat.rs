//! The heartbeat of Redis: memory is only believed while it is there (THREATS 32), requests wait for nothing while it is not, and what was remembered of
//! another server, or of one that was away, is read anew. Run beside the requests by `store::follow`.

use std::{
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{sync::watch, time::MissedTickBehavior};

use super::{Connection, OPENING, OpenError, Redis, Way};
use crate::{
    observe::{metrics::Metrics, readiness::Readiness},
    store::{
        follow::stopped,
        session::{SessionCache, Source},
    },
};

const BEAT: Duration = Duration::from_millis(500);
/// A look that takes longer has failed.
const LOOK: Duration = Duration::from_millis(1_000);
/// Finding the master, where that is to be found first, takes more.
const CONNECTING: Duration = Duration::from_millis(2_000);
/// Without a look for so long it counts as down.
const DOWN: Duration = Duration::from_secs(2);
/// The name in metrics and in `/readyz`.
const STORE: &str = "redis";

/// What a look saw: another one means that what is there may be something else.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen(String);

impl Redis {
    /// The first look: for a server that is about to start.
    ///
    /// # Errors
    /// It cannot be reached, or is not what sessions can be kept in.
    pub(in crate::store) async fn reach(&self) -> Result<(), OpenError> {
        let look = async {
            let connection = self.connection().await?;
            self.seen(&connection).await.map_err(OpenError::Unfit)?;
            self.warn_of_eviction(&connection).await;
            Ok(())
        };
        tokio::time::timeout(OPENING, look).await.unwrap_or(Err(OpenError::Late))
    }

    /// By a connection that leads to a master: one that became a replica, as after a failover, would go on answering with what it knew.
    async fn look(&self) -> Result<Seen, String> {
        let connection = tokio::time::timeout(CONNECTING, self.connection()).await;
        let connection = connection.map_err(|_| format!("no connection within {CONNECTING:?}"))?;
        let connection = connection.map_err(|error| error.to_string())?;
        let seen = tokio::time::timeout(LOOK, self.seen(&connection)).await;
        let seen = seen.unwrap_or_else(|_| Err(format!("no answer within {LOOK:?}")));
        if seen.is_err() {
            self.let_go(&connection);
        }
        seen
    }

    async fn seen(&self, connection: &Connection) -> Result<Seen, String> {
        let told = |error: redis::RedisError| error.to_string();
        if matches!(self.way, Way::Cluster(_)) {
            // The node of this key speaks for all: where one of them is away, and the cluster with it, it answers with an error.
            let _: Option<String> = connection.ask(redis::cmd("GET").arg("postern:beat")).await.map_err(told)?;
            return Ok(Seen(String::new()));
        }
        let server: String = connection.ask(redis::cmd("INFO").arg("server")).await.map_err(told)?;
        let replication: String = connection.ask(redis::cmd("INFO").arg("replication")).await.map_err(told)?;
        if field(&server, "redis_mode") == Some("cluster") {
            return Err("it is a node of a cluster: write `redis+cluster://`".to_owned());
        }
        match field(&replication, "role") {
            Some("master") => {}
            role => return Err(format!("it is no master but {}", role.unwrap_or("something else"))),
        }
        Ok(Seen(field(&server, "run_id").unwrap_or_default().to_owned()))
    }

    /// Where it throws away what it likes people are signed out for no reason.
    async fn warn_of_eviction(&self, connection: &Connection) {
        // Not every user may ask, and a cluster's nodes differ: it is a hint and no more.
        let memory: Result<String, _> = connection.ask(redis::cmd("INFO").arg("memory")).await;
        if let Ok(memory) = memory
            && let Some(policy) = field(&memory, "maxmemory_policy").filter(|policy| *policy != "noeviction")
            && field(&memory, "maxmemory").is_some_and(|most| most != "0")
        {
            tracing::warn!(
                redis = self.name,
                policy,
                "this Redis throws sessions away when its memory is full: people are then signed out (maxmemory-policy noeviction keeps them)"
            );
        }
    }
}

fn field<'i>(info: &'i str, name: &str) -> Option<&'i str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// What the heartbeat tells.
pub(in crate::store) struct Heart {
    pub(in crate::store) redis: Arc<Redis>,
    pub(in crate::store) cache: Arc<SessionCache>,
    pub(in crate::store) metrics: Arc<Metrics>,
}

impl Heart {
    pub(in crate::store) async fn run(&self, readiness: &Readiness, mut shutdown: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(BEAT);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last: Option<Seen> = None;
        let mut succeeded_at = self.redis.clock.monotonic();
        loop {
            tokio::select! {
                () = stopped(&mut shutdown) => return,
                _ = ticks.tick() => {}
            }
            let now = self.redis.clock.monotonic();
            let is_late = || self.redis.clock.monotonic().saturating_sub(succeeded_at) >= DOWN;
            let mut look = pin!(self.redis.look());
            let looked = loop {
                // Who looks for a master may take longer than it takes to be down.
                tokio::select! {
                    looked = &mut look => break looked,
                    () = tokio::time::sleep(BEAT) => if is_late() { self.tell_down(readiness, "no answer yet") },
                }
            };
            match looked {
                Ok(seen) => {
                    // It may have forgotten what memory still knows.
                    if last.as_ref() != Some(&seen) || now.saturating_sub(succeeded_at) >= DOWN {
                        self.cache.drop_all();
                    }
                    last = Some(seen);
                    succeeded_at = now;
                    // Before anything is answered from memory: where it is, `/readyz` says so too.
                    self.tell_up(readiness);
                    self.cache.trust(Source::Redis, now);
                }
                Err(detail) => {
                    if is_late() {
                        self.tell_down(readiness, &detail);
                    }
                }
            }
        }
    }

    fn tell_up(&self, readiness: &Readiness) {
        self.metrics.store_up(STORE, true);
        if self.redis.is_down.swap(false, Ordering::AcqRel) {
            tracing::info!(redis = self.redis.name, "Redis answers again");
            readiness.change(|report| drop(report.stores_down.remove(STORE)));
        }
    }

    fn tell_down(&self, readiness: &Readiness, detail: &str) {
        self.metrics.store_up(STORE, false);
        readiness.change(|report| drop(report.stores_down.insert(STORE, detail.to_owned())));
        if !self.redis.is_down.swap(true, Ordering::AcqRel) {
            tracing::error!(
                redis = self.redis.name,
                detail,
                "Redis does not answer: requests that need a session are refused"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let info = "# Server\r\nrun_id_old:1\r\nrun_id:abc\r\nrole:master\r\n";
        assert_eq!(field(info, "run_id"), Some("abc"));
        assert_eq!(field(info, "role"), Some("master"));
        assert_eq!(field(info, "rol"), None);
    }
}
