//! A Redis Cluster of the tests' own: three masters that share the slots, and no replica. While one of them is away, none answers.

use tokio::sync::OnceCell;

use super::{
    port::Port,
    redis::{Options, Redis, until},
};

/// The slots of each.
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
    /// By which they speak to each other.
    _buses: Vec<Port>,
}

impl Cluster {
    /// The URL of the cluster that all tests of this process share: none of them may empty it or take it away.
    pub(crate) async fn shared() -> String {
        static SHARED: OnceCell<String> = OnceCell::const_new();
        let start = || async {
            let cluster = Self::launch(Options::default(), true).await;
            let url = cluster.url();
            // See `Redis::start_to_the_end`.
            std::mem::forget(cluster);
            url
        };
        SHARED.get_or_init(start).await.clone()
    }

    /// For one test.
    pub(crate) async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// Of each of them.
    pub(crate) async fn with(options: Options) -> Self {
        Self::launch(options, false).await
    }

    async fn launch(options: Options, to_the_end: bool) -> Self {
        let (mut nodes, mut buses) = (Vec::new(), Vec::new());
        for (number, (first, last)) in SLOTS.into_iter().enumerate() {
            let (port, bus) = (Port::free(), Port::free());
            let options = Options {
                more: vec![
                    "cluster-enabled yes\ncluster-config-file nodes.conf".to_owned(),
                    format!("cluster-port {}", bus.number()),
                    // How long one is silent before the others take it for dead: nobody kills one of those that all share, and a busy machine may hold one up.
                    format!("cluster-node-timeout {}", if to_the_end { 60_000 } else { 1_000 }),
                ],
                ..options.clone()
            };
            let node = match to_the_end {
                true => Redis::start_to_the_end(port, options).await,
                false => Redis::at(port, options).await,
            };
            node.command(&["CLUSTER", "ADDSLOTSRANGE", first, last]).await;
            node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]).await;
            let meet = ["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string(), &bus.number().to_string()];
            if let Some(other) = nodes.first() {
                Redis::command(other, &meet).await;
            }
            nodes.push(node);
            buses.push(bus);
        }
        let cluster = Self { nodes, _buses: buses };
        cluster.is_whole().await;
        cluster
    }

    pub(crate) fn url(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(|node| node.url().replacen("://", "+cluster://", 1)).collect();
        let hosts: Vec<&str> = urls.iter().filter_map(|url| url.rsplit(['/', '@']).next()).collect();
        let (first, host) = (urls.first().expect("a node"), hosts.first().expect("a host"));
        first.replace(host, &hosts.join(","))
    }

    /// Waits until each of them knows all and answers for its slots.
    pub(crate) async fn is_whole(&self) {
        for node in &self.nodes {
            until("the cluster is whole", async || Self::knows_all(node).await.then_some(())).await;
        }
    }

    /// Waits until this one knows that another is away.
    pub(crate) async fn is_broken(&self, number: usize) {
        let node = self.nodes.get(number).expect("a node of that number");
        until("the cluster is broken", async || {
            let state = node.field(&["CLUSTER", "INFO"], "cluster_state").await;
            (state.as_deref() == Some("fail")).then_some(())
        })
        .await;
    }

    async fn knows_all(node: &Redis) -> bool {
        let info = node.command(&["CLUSTER", "INFO"]).await;
        let says = |wanted: &str| info.lines().any(|line| line.trim_end() == wanted);
        says("cluster_state:ok") && says("cluster_known_nodes:3") && says("cluster_size:3")
    }

    /// The names of all that it holds.
    pub(crate) async fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for node in &self.nodes {
            keys.extend(node.keys().await);
        }
        keys
    }

    /// Which of `nodes` answers for this key.
    pub(crate) async fn place_of(&self, key: &str) -> usize {
        let slot: u16 =
            self.nodes.first().expect("a node").command(&["CLUSTER", "KEYSLOT", key]).await.parse().expect("a number");
        let place = SLOTS.iter().position(|(_, last)| slot <= last.parse().expect("a number"));
        place.expect("every slot is somebody's")
    }
}
