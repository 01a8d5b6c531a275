//! The composition root: the only place that picks adapters and puts the parts together. `lifecycle` runs what is built here.

mod counts;
mod descriptors;
pub mod echo;
mod tls;

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicUsize},
    },
};

use anyhow::{Context as _, bail};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    admin,
    config::{
        self, CountersPlace, DatabaseAddress, Loaded, LogFormat, NamedFile, SessionsPlace, Settings, Storage, Unfit,
    },
    core::{request::Role, site::CurrentSite, time::Timestamp, tokens::TokenSettings},
    edge::{self, Edge},
    forward_auth::{self, ForwardAuth},
    gate::{Foreign, Gate, connections::Connections, in_flight::InFlight},
    identity::{hand_over::HandingOver, notice::Notices, passwords::PasswordDoor, sign_in::SignIn},
    lifecycle,
    observe::{access_log::AccessLog, metrics::Metrics, readiness::Readiness},
    portal::{self, Portal},
    ports::{Hasher, Unavailable},
    store,
};
use tls::Certificates;

pub(crate) use descriptors::bound;

// What the commands use of the stores.
pub use self::counts::{Counts, Look, open_counts};
pub use crate::{
    ports::{
        Clock, End, Entropy, Geo, KeyState, Revoke, Rotation, SigningKey, Takeover, UserChange, Waits, Whom, Whose,
    },
    store::{Stores, system::SystemClock},
};

/// The time, for commands that make requests up.
#[must_use]
pub fn now() -> Timestamp {
    SystemClock::new().now()
}

/// A server that accepts connections.
pub struct Server {
    /// Where the configuration came from; read again on reload.
    pub(crate) file: PathBuf,
    /// What was read at the last good load; watched for changes.
    pub(crate) sources: Vec<PathBuf>,
    /// The settings that only a restart changes, as they were at the start.
    pub(crate) started_with: Fixed,
    pub(crate) site: Arc<CurrentSite>,
    pub(crate) stores: Arc<Stores>,
    /// What listens, as it was at the start.
    pub(crate) listening: Vec<config::Listener>,
    /// In the order of the listeners; none where a listener has no TLS.
    pub(crate) certificates: Vec<Option<Arc<Certificates>>>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) access_log: Arc<AccessLog>,
    pub(crate) in_flight: InFlight,
    pub(crate) connections: Arc<Connections>,
    pub(crate) drain: std::time::Duration,
    pub(crate) drain_delay: std::time::Duration,
    /// Listeners stop accepting.
    pub(crate) stop_listening: watch::Sender<bool>,
    /// The admin listener and the stores' tasks stop, last of all.
    pub(crate) stop_all: watch::Sender<bool>,
    pub(crate) listeners: Vec<JoinHandle<()>>,
    pub(crate) background: Vec<JoinHandle<()>>,
    /// Where each listener is bound, in order.
    pub addresses: Vec<SocketAddr>,
}

/// Settings that need a restart. Compared by their printed form at a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fixed(pub(crate) Vec<(&'static str, String)>);

impl Fixed {
    pub(crate) fn of(settings: &Settings) -> Self {
        let listeners: Vec<_> = settings
            .server
            .listeners
            .iter()
            .map(|listener| {
                let client_ca = listener.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
                (listener.address, listener.role, listener.tls.is_some(), client_ca)
            })
            .collect();
        Self(vec![
            ("server.listeners", format!("{listeners:?}")),
            ("server.admin", format!("{:?}", settings.server.admin)),
            ("server.control", format!("{:?}", settings.server.control)),
            ("storage", format!("{:?} {:?}", settings.storage, password_digests(&settings.storage))),
            ("users", format!("{:?}", settings.users)),
            ("log", format!("{:?}", settings.log)),
        ])
    }

    /// Names of the keys in which the two differ.
    pub(crate) fn changed(&self, other: &Self) -> Vec<&'static str> {
        self.0.iter().zip(&other.0).filter(|(old, new)| old != new).map(|(old, _)| old.0).collect()
    }
}

/// A password is not in the printed form, but a new one needs a restart too.
fn password_digests(storage: &Storage) -> [Option<[u8; 32]>; 3] {
    let of_database = match &storage.database {
        DatabaseAddress::Sqlite(_) => None,
        DatabaseAddress::Postgres(url) => Some(url.digest()),
    };
    let of_sessions = match &storage.sessions {
        SessionsPlace::Database => None,
        SessionsPlace::Redis(url) => Some(url.digest()),
    };
    let of_counters = match &storage.counters {
        CountersPlace::Memory => None,
        CountersPlace::Redis(url) => Some(url.digest()),
    };
    [of_database, of_sessions, of_counters]
}

/// Runs a server until it is told to stop. Returns when everything has drained.
///
/// # Errors
/// What keeps it from starting, in one message: faults of the configuration, a port in use, a certificate or a database
/// that cannot be opened.
pub fn serve(file: &Path) -> anyhow::Result<()> {
    let loaded = load(file)?;
    start_logs(&loaded.settings)?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async { Server::start(file, loaded).await?.run().await });
    // A look-up of a name may hang in the operating system: everything else has ended, so nobody waits for it.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

/// Logs as `log:` of the configuration says.
///
/// # Errors
/// `log.level` cannot be read.
pub fn start_logs(settings: &Settings) -> anyhow::Result<()> {
    crate::observe::tracing::init(settings.log.format == LogFormat::Json, &settings.log.level)
        .context("logs cannot be set up (log.level)")
}

/// Threads that hash passwords, for a command that needs no store.
///
/// # Errors
/// The operating system gives no threads.
pub fn hasher() -> anyhow::Result<Arc<dyn Hasher>> {
    let pool = store::HashPool::start(Arc::new(store::system::SystemEntropy));
    Ok(Arc::new(pool.context("cannot start the threads that hash passwords")?))
}

/// The one runtime of a process (DESIGN, invariant 3).
///
/// # Errors
/// The operating system gives no threads.
pub fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the worker threads")
}

/// Opens the stores that a configuration names, for commands that work beside a running server.
///
/// # Errors
/// Faults of the configuration, or a store that cannot be opened.
pub async fn open_stores(file: &Path) -> anyhow::Result<Stores> {
    let loaded = config::load(file)?;
    Ok(store::open(&loaded.settings, Arc::new(Metrics::new()?)).await?)
}

/// The same with countries of addresses; where they cannot be read, without, and why.
///
/// # Errors
/// As [`open_stores`].
pub async fn open_stores_with_countries(file: &Path) -> anyhow::Result<(Stores, Option<String>)> {
    let loaded = config::load(file)?;
    let stores = store::open(&loaded.settings, Arc::new(Metrics::new()?)).await?;
    let fault = match store::Countries::configured(loaded.settings.geo.as_deref()) {
        Ok(countries) => {
            stores.geo.swap(countries);
            None
        }
        Err(fault) => Some(format!("{fault} (geo.database): countries are not shown")),
    };
    Ok((stores, fault))
}

/// The same, with what tokens are made by.
///
/// # Errors
/// As [`open_stores`].
pub async fn open_stores_with_tokens(file: &Path) -> anyhow::Result<(Stores, TokenSettings)> {
    let loaded = config::load(file)?;
    let stores = store::open(&loaded.settings, Arc::new(Metrics::new()?)).await?;
    Ok((stores, loaded.settings.site.tokens))
}

/// Reads the configuration, the policies, and the certificates and users that the configuration names.
///
/// # Errors
/// All that is wrong with any of them, at once.
pub fn load(file: &Path) -> Result<Loaded, config::Faults> {
    config::load_with(file, &|named| match named {
        NamedFile::Users(path) => store::check_users_file(path).map(|_| ()).map_err(Unfit::Within),
        NamedFile::Certificate(path) => tls::check_certificate(path).map_err(Unfit::Whole),
        NamedFile::Key(pair) => tls::check_key(pair).map_err(Unfit::Whole),
        NamedFile::ClientCa(path) => tls::check_client_ca(path).map_err(Unfit::Whole),
        NamedFile::Countries(path) => store::Countries::read(path).map(drop).map_err(Unfit::Whole),
        NamedFile::Value(_) => Ok(()),
    })
}

impl Server {
    /// Binds every address and opens every store before the first request is taken.
    ///
    /// # Errors
    /// As [`serve`].
    pub async fn start(file: &Path, loaded: Loaded) -> anyhow::Result<Self> {
        let Loaded { settings, warnings, sources } = loaded;
        for warning in warnings {
            tracing::warn!(target: "postern::config", "{warning}");
        }
        let started_with = Fixed::of(&settings);
        let Settings { server, log, .. } = &settings;
        let certificates = server
            .listeners
            .iter()
            .map(|listener| listener.tls.as_ref().map(|files| Certificates::load(files).map(Arc::new)).transpose())
            .collect::<Result<Vec<_>, _>>()?;
        let sockets =
            server.listeners.iter().map(|listener| bind(listener.address)).collect::<anyhow::Result<Vec<_>>>()?;
        let admin_socket = server.admin.map(bind).transpose()?;
        let addresses = sockets.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>()?;

        let metrics = Arc::new(Metrics::new()?);
        let readiness = Arc::new(Readiness::default());
        let access_log = Arc::new(
            AccessLog::open(&log.access, log.format == LogFormat::Json)
                .with_context(|| format!("cannot open the access log {:?} (log.access)", log.access))?,
        );
        metrics.adopt(access_log.dropped())?;
        let stores = Arc::new(store::open_all(&settings, Arc::clone(&metrics)).await?);
        stores.trust(&settings.site.tokens.trusted_issuers);
        adopt_algorithm(&stores, &settings.site.tokens).await?;
        metrics.config_in_force(stores.clock.now().unix_seconds());

        let control = server.control.clone().filter(|_| counts::are_in_memory(&settings.storage));
        let (drain, drain_delay) = (server.drain, server.drain_delay);
        let listeners = settings.server.listeners.clone();
        let site = Arc::new(CurrentSite::from_pointee(settings.site));
        let passwords = Arc::new(password_door_of(&stores, &metrics));
        let gate = Arc::new(Gate {
            sessions: Arc::clone(&stores.sessions),
            api_tokens: Arc::clone(&stores.api_tokens),
            passwords: Arc::clone(&passwords) as _,
            keys: Arc::clone(&stores.keys),
            foreign: Foreign { keys: Arc::clone(&stores.issuer_keys), tokens: Arc::clone(&stores.foreign_tokens) },
            tokens: Arc::clone(&stores.tokens),
            source_limit: Arc::clone(&stores.source_limit) as _,
            counters: Arc::clone(&stores.counters),
            clock: Arc::clone(&stores.clock),
            entropy: Arc::clone(&stores.entropy),
            metrics: Arc::clone(&metrics),
        });
        let portal = portal::router(Arc::new(portal_of(&stores, &gate, &passwords, &metrics)));

        let in_flight = InFlight::default();
        let connections = Arc::new(Connections::new(Arc::clone(&stores.clock), Arc::clone(&metrics)));
        bound(&connections, settings.server.connections);
        let (stop_listening, stopping) = watch::channel(false);
        let (stop_all, ending) = watch::channel(false);
        let edge = Arc::new(Edge {
            site: Arc::clone(&site),
            gate: Arc::clone(&gate),
            portal: portal.clone(),
            metrics: Arc::clone(&metrics),
            access_log: Arc::clone(&access_log),
            in_flight: in_flight.clone(),
            connections: Arc::clone(&connections),
            streams: edge::Streams::default(),
        });
        let forward_auth = Arc::new(ForwardAuth {
            site: Arc::clone(&site),
            gate,
            portal,
            metrics: Arc::clone(&metrics),
            access_log: Arc::clone(&access_log),
            in_flight: in_flight.clone(),
            connections: Arc::clone(&connections),
            stranger_logged_at: AtomicI64::new(0),
        });
        let mut background = vec![
            stores.follow(Arc::clone(&readiness), ending.clone()),
            edge::watch_streams(Arc::clone(&edge), ending.clone()),
            Arc::clone(&stores.mail).run(ending.clone()),
        ];
        if let Some(socket) = admin_socket {
            background.push(admin::serve(Arc::clone(&metrics), Arc::clone(&readiness), socket, ending.clone()));
        }
        let mut serving = Vec::new();
        for (index, ((listener, socket), certificates)) in listeners.iter().zip(sockets).zip(&certificates).enumerate()
        {
            tracing::info!(address = %listener.address, serves = listener.role.as_str(), tls = certificates.is_some(), "listening");
            let stopping = stopping.clone();
            serving.push(match listener.role {
                Role::Edge => {
                    let tls = certificates.as_ref().map(|certificates| edge::Tls {
                        certificates: Arc::clone(certificates) as _,
                        names: Arc::clone(certificates) as _,
                        client_ca: certificates.client_ca(),
                    });
                    edge::serve(Arc::clone(&edge), index, socket, tls, stopping)
                }
                Role::ForwardAuth => {
                    let tls = certificates.as_ref().map(tls::of_forward_auth).transpose()?;
                    forward_auth::serve(Arc::clone(&forward_auth), index, socket, tls, stopping)
                }
            });
        }
        // Last of all: a start that fails must not have taken another server's.
        if let Some(socket) = control.and_then(|path| counts::control_socket(&path)) {
            background.push(admin::control::serve(Arc::clone(&stores.counters), socket, ending));
        }
        Ok(Self {
            file: file.to_owned(),
            sources,
            started_with,
            site,
            stores,
            listening: listeners,
            certificates,
            metrics,
            readiness,
            access_log,
            in_flight,
            connections,
            drain,
            drain_delay,
            stop_listening,
            stop_all,
            listeners: serving,
            background,
            addresses,
        })
    }
}

impl Server {
    /// Serves until SIGTERM or SIGINT, then drains.
    ///
    /// # Errors
    /// Signals or file watching cannot be set up.
    pub async fn run(self) -> anyhow::Result<()> {
        lifecycle::run(self).await
    }
}

fn password_door_of(stores: &Stores, metrics: &Arc<Metrics>) -> PasswordDoor {
    PasswordDoor {
        users: Arc::clone(&stores.users),
        devices: Arc::clone(&stores.devices),
        credentials: Arc::clone(&stores.credentials),
        hasher: Arc::clone(&stores.hasher),
        regulation: Arc::clone(&stores.regulation),
        verified: Arc::clone(&stores.verified_passwords),
        clock: Arc::clone(&stores.clock),
        audit: Arc::clone(&stores.audit),
        metrics: Arc::clone(metrics),
        under_way: AtomicUsize::new(0),
    }
}

/// How long a new key is only published: `/.well-known/jwks.json` may be kept for five minutes.
pub const PUBLISHED_BEFORE: std::time::Duration = std::time::Duration::from_secs(6 * 60);

/// Where `tokens.algorithm` is another than that of the newest key, makes a key of it. At the start and at a reload.
///
/// # Errors
/// The store cannot answer.
pub(crate) async fn adopt_algorithm(stores: &Stores, settings: &TokenSettings) -> Result<(), Unavailable> {
    let takeover = Takeover::After(PUBLISHED_BEFORE);
    let rotation = Rotation { algorithm: settings.algorithm, takeover, access: settings.access };
    if let Some(kid) = stores.keys.adopt(rotation).await? {
        tracing::info!(kid, algorithm = %settings.algorithm, signs_in = ?PUBLISHED_BEFORE, "a key of the algorithm in tokens.algorithm was made");
    }
    Ok(())
}

fn portal_of(stores: &Stores, gate: &Arc<Gate>, passwords: &Arc<PasswordDoor>, metrics: &Arc<Metrics>) -> Portal {
    Portal {
        gate: Arc::clone(gate),
        sign_in: SignIn {
            passwords: Arc::clone(passwords),
            sessions: Arc::clone(&stores.sessions),
            keys: Arc::clone(&stores.keys),
            clock: Arc::clone(&stores.clock),
            entropy: Arc::clone(&stores.entropy),
            audit: Arc::clone(&stores.audit),
            metrics: Arc::clone(metrics),
        },
        hand_over: HandingOver {
            hand_overs: Arc::clone(&stores.hand_overs),
            sessions: Arc::clone(&stores.sessions),
            clock: Arc::clone(&stores.clock),
            entropy: Arc::clone(&stores.entropy),
            audit: Arc::clone(&stores.audit),
        },
        notices: Notices {
            devices: Arc::clone(&stores.devices),
            mailer: Arc::clone(&stores.mail) as _,
            geo: Arc::clone(&stores.geo) as _,
            entropy: Arc::clone(&stores.entropy),
        },
        sessions: Arc::clone(&stores.sessions),
        api_tokens: Arc::clone(&stores.api_tokens),
        keys: Arc::clone(&stores.keys),
        tokens: Arc::clone(&stores.tokens),
        geo: Arc::clone(&stores.geo) as _,
        clock: Arc::clone(&stores.clock),
        entropy: Arc::clone(&stores.entropy),
        audit: Arc::clone(&stores.audit),
        metrics: Arc::clone(metrics),
    }
}

/// Binds an address now, so that a port in use is known before anything else happens.
fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let open = || {
        let socket = socket2::Socket::new(
            socket2::Domain::for_address(address),
            socket2::Type::STREAM,
            Some(socket2::Protocol::TCP),
        )?;
        // A restart must not wait for the old connections' TIME_WAIT.
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            // Two listeners, 0.0.0.0:80 and [::]:80, are two sockets.
            socket.set_only_v6(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(4096)?;
        Ok::<_, std::io::Error>(TcpListener::from(socket))
    };
    match open() {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            bail!(
                "cannot listen on {address}: another program does already; stop it, or choose another address under server.listeners or server.admin"
            )
        }
        Err(error) => bail!("cannot listen on {address}: {error}"),
    }
}

/// Reads the certificates of a listener again, for a reload.
pub(crate) fn load_keys(files: &config::TlsFiles) -> anyhow::Result<Vec<Arc<rustls::sign::CertifiedKey>>> {
    Certificates::keys_of(files)
}
