//! Redis under Sentinel, of the tests' own: a master, its replica, and three sentinels of which two must agree.
//!
//! The sentinels look around more often than they would elsewhere, so that a failover takes a second or two.

use super::redis::{Options, Redis, until};

/// What the sentinels call the master.
pub(crate) const NAME: &str = "main";
/// How often they ask the servers and tell of each other, in milliseconds. Each is asked several times before it counts as down, and a machine that is busy
/// is no broken clock.
#[rustfmt::skip]
const HASTE: [&str; 12] = [
    "SENTINEL", "DEBUG", "PING-PERIOD", "250", "INFO-PERIOD", "200", "PUBLISH-PERIOD", "100", "TILT-TRIGGER", "60000", "TILT-PERIOD", "100",
];

pub(crate) struct Sentinels {
    /// In the beginning the first is the master.
    pub(crate) servers: Vec<Redis>,
    pub(crate) sentinels: Vec<Redis>,
}

impl Sentinels {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default(), None).await
    }

    /// `options`: of the servers. The sentinels have a `password` of their own.
    pub(crate) async fn with(options: Options, password: Option<String>) -> Self {
        let master = Redis::with(options.clone()).await;
        let more = vec![format!("replicaof 127.0.0.1 {}", master.port())];
        let replica = Redis::with(Options { more, ..options.clone() }).await;
        let mut more = vec![
            format!("sentinel monitor {NAME} 127.0.0.1 {} 2", master.port()),
            format!("sentinel down-after-milliseconds {NAME} 1000"),
            format!("sentinel failover-timeout {NAME} 2000"),
        ];
        more.extend(options.password.map(|password| format!("sentinel auth-pass {NAME} {password}")));
        let options = Options { sentinel: true, more, password, ..options };
        let mut sentinels = Vec::new();
        for _ in 0..3 {
            let sentinel = Redis::with(options.clone()).await;
            sentinel.command(&HASTE).await;
            sentinels.push(sentinel);
        }
        let all = Self { servers: vec![master, replica], sentinels };
        all.know_each_other().await;
        all
    }

    /// With the passwords of both.
    pub(crate) fn url(&self) -> String {
        let urls: Vec<String> = self.sentinels.iter().map(Redis::url).collect();
        let hosts: Vec<&str> = urls.iter().filter_map(|url| url.rsplit(['/', '@']).next()).collect();
        let server = self.servers[0].url();
        let (scheme, rest) = server.split_once("://").expect("a URL");
        let login = rest.split_once('@').map(|(login, _)| format!("{login}@")).unwrap_or_default();
        let password = self.sentinels[0].password().map(|password| format!("?sentinel_password={password}"));
        format!("{scheme}+sentinel://{login}{}/{NAME}{}", hosts.join(","), password.unwrap_or_default())
    }

    async fn know_each_other(&self) {
        until("the sentinels know each other and the replica", async || {
            for sentinel in &self.sentinels {
                let told = sentinel.command(&["SENTINEL", "MASTER", NAME]).await;
                let lines: Vec<&str> = told.lines().collect();
                let says = |name: &str, value: &str| lines.windows(2).any(|pair| pair == [name, value]);
                if !(says("num-slaves", "1") && says("num-other-sentinels", "2") && says("flags", "master")) {
                    return None;
                }
            }
            let link = self.servers[1].field(&["INFO", "replication"], "master_link_status").await;
            (link.as_deref() == Some("up")).then_some(())
        })
        .await;
    }

    /// Which of `servers` all sentinels take for the master.
    pub(crate) async fn master(&self) -> usize {
        until("the sentinels agree on the master", async || self.agreed(&self.sentinels).await).await
    }

    /// Which it is after a failover from `old`.
    pub(crate) async fn master_after(&self, old: usize) -> usize {
        self.master_after_by(&self.sentinels, old).await
    }

    /// The same as these sentinels say: the others may not answer.
    pub(crate) async fn master_after_by(&self, sentinels: &[Redis], old: usize) -> usize {
        until("another master", async || self.agreed(sentinels).await.filter(|master| *master != old)).await
    }

    async fn agreed(&self, sentinels: &[Redis]) -> Option<usize> {
        let mut ports = Vec::new();
        for sentinel in sentinels {
            let told = sentinel.command(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]).await;
            ports.push(told.lines().nth(1)?.parse::<u16>().ok()?);
        }
        self.servers.iter().position(|server| ports.iter().all(|port| *port == server.port()))
    }

    /// Waits until one that has come back follows the master.
    pub(crate) async fn is_replica(&self, number: usize) {
        let server = &self.servers[number];
        until("it follows the master", async || {
            let role = server.field(&["INFO", "replication"], "role").await?;
            let link = server.field(&["INFO", "replication"], "master_link_status").await?;
            (role == "slave" && link == "up").then_some(())
        })
        .await;
    }

    /// Waits until the replica has all that the master has been told until now.
    pub(crate) async fn is_replicated(&self) {
        let master = self.master().await;
        let told = self.offset(master, "master_repl_offset").await.expect("a master");
        until("the replica has it", async || {
            self.offset(1 - master, "slave_repl_offset").await.filter(|has| *has >= told)
        })
        .await;
    }

    async fn offset(&self, number: usize, name: &str) -> Option<u64> {
        self.servers[number].field(&["INFO", "replication"], name).await?.parse().ok()
    }

    /// From here on the master keeps what it is told to itself: a failover loses it. The replica's link is not only cut, which it would mend by itself:
    /// it comes back with a password of which the master knows nothing.
    pub(crate) async fn hold_back_the_replica(&self) {
        let master = self.master().await;
        self.servers[1 - master].command(&["CONFIG", "SET", "masterauth", "of another master"]).await;
        let master = &self.servers[master];
        master.command(&["CLIENT", "KILL", "TYPE", "replica"]).await;
        until("the master is alone", async || {
            let replicas = master.field(&["INFO", "replication"], "connected_slaves").await;
            (replicas.as_deref() == Some("0")).then_some(())
        })
        .await;
    }
}
