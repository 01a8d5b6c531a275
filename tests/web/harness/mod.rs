//! A portal with its stores, and browsers that visit it. Requests come in as the edge and `forward_auth` hand them over.

mod browser;
mod wire;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, body::Body};
use http::Request;
use http_body_util::BodyExt as _;
use postern::{
    config,
    core::{site::Site, target::Target, user::User},
    gate::{Foreign, Gate},
    identity::{hand_over::HandingOver, passwords::PasswordDoor, sign_in::SignIn},
    observe::metrics::Metrics,
    portal::{Arrival, Portal, router},
    ports::AuditEvent,
    store::{Options, Stores, open_with, system::SystemEntropy},
};
use sqlx::{Connection as _, Executor as _};
use tempfile::TempDir;
use tokio::sync::{OnceCell, RwLock};
use tower::ServiceExt as _;

use crate::ports::{
    BreakableKeys, BreakableMemory, BreakableSessions, BreakableUsers, CountingHasher, FakeClock, Mailbox, Record,
    Strict, notices,
};

pub(crate) use self::{
    browser::Browser,
    wire::{Ask, Reply},
};

pub(crate) const PASSWORD: &str = "a long word for tests";
pub(crate) const REQUEST_ID: &str = "0123456789abcdef";

pub(crate) const HTTPS: &str = "https://auth.example.com";
pub(crate) const HTTP: &str = "http://auth.example.com";

/// The portal on https, with a host of its own.
pub(crate) const ON_HTTPS: &str = r#"
portal: { url: "https://auth.example.com" }
session: { cookies: [ { domain: example.com } ] }
"#;

/// The same on plain http.
pub(crate) const ON_HTTP: &str = r#"
portal: { url: "http://auth.example.com" }
session: { cookies: [ { domain: example.com } ] }
"#;

const POLICIES: &str = r#"
default: deny
rules:
  - { name: public, domain: "*.example.com", path: "/public/**", policy: bypass }
  - { name: "<script>alert(1)</script>", domain: "*.example.com", path: "/script/**", policy: deny, subject: "group:dev" }
  - { name: elsewhere, domain: "other.example.org", policy: one_factor }
  - { name: admins, domain: "*.example.com", path: "/admin/**", policy: one_factor, subject: "group:admins" }
  - { name: not admins, domain: "*.example.com", path: "/admin/**", policy: deny }
  - { name: fresh, domain: "*.example.com", path: "/fresh/**", policy: one_factor, max_auth_age: 15m }
  - { name: vault, domain: "*.example.com", path: "/vault/**", policy: two_factor }
  - { name: readers, domain: "*.example.com", path: "/read/**", methods: [GET], policy: one_factor }
  - { name: nobody writes, domain: "*.example.com", path: "/read/**", policy: deny }
  - { name: members, domain: "*.example.com", policy: one_factor }
"#;

pub(crate) struct World {
    pub(crate) site: Arc<Site>,
    pub(crate) stores: Stores,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) hasher: Arc<CountingHasher>,
    pub(crate) sessions: Arc<BreakableSessions>,
    pub(crate) users: Arc<BreakableUsers>,
    pub(crate) keys: Arc<BreakableKeys>,
    pub(crate) gate: Arc<Gate>,
    pub(crate) regulation: Arc<Strict>,
    pub(crate) memory: Arc<BreakableMemory>,
    pub(crate) metrics: Arc<Metrics>,
    record: Arc<Record>,
    pub(crate) mailbox: Arc<Mailbox>,
    router: Router,
    options: Options,
    folder: TempDir,
}

impl World {
    pub(crate) async fn https() -> Self {
        Self::of(ON_HTTPS).await
    }

    pub(crate) async fn http() -> Self {
        Self::of(ON_HTTP).await
    }

    /// `yaml`: `portal:`, `session:` and what else a test wants to say. There are alice of the admins and bob of dev.
    pub(crate) async fn of(yaml: &str) -> Self {
        // Not on a disk, where the system allows it: tests beside each other on a slow one would wait for it longer than an operation may take.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        fs::create_dir(at("policies")).unwrap();
        fs::write(at("policies/access.yaml"), POLICIES).unwrap();
        let whole = format!(
            r#"
server: {{ listeners: [ {{ address: "127.0.0.1:8080", serves: edge }} ], admin: none }}
storage: {{ database: "sqlite://{}", key_file: "{}" }}
policies: "{}"
upstreams: {{ app: {{ servers: ["http://127.0.0.1:3000"] }} }}
routes:
  - {{ host: app.example.com, path: /, upstream: app }}
  - {{ host: "*.apps.example.com", path: /, upstream: app }}
  - {{ host: app.example.net, path: /, upstream: app }}
  - {{ host: app.example.org, path: /, upstream: app }}
{yaml}"#,
            at("data/postern.db"),
            at("data/postern.key"),
            at("policies"),
        );
        fs::write(at("postern.yaml"), whole).unwrap();
        let loaded = config::load(&folder.path().join("postern.yaml")).unwrap_or_else(|faults| panic!("{faults}"));
        let clock = Arc::new(FakeClock::new());
        let metrics = Arc::new(Metrics::new().unwrap());
        let options = Options::from(&loaded.settings);
        let stores = open_with(options.clone(), metrics.clone(), clock.clone(), Arc::new(SystemEntropy)).await.unwrap();
        let hasher = Arc::new(CountingHasher {
            inner: stores.hasher.clone(),
            verified: AtomicU64::new(0),
            without_hash: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            hold: RwLock::default(),
        });
        let sessions = Arc::new(BreakableSessions {
            inner: stores.sessions.clone(),
            down: AtomicBool::new(false),
            ends_parents: AtomicBool::new(false),
        });
        let users = Arc::new(BreakableUsers { inner: stores.users.clone(), down: AtomicBool::new(false) });
        let keys = Arc::new(BreakableKeys {
            inner: stores.keys.clone(),
            down: AtomicBool::new(false),
            reads: AtomicU64::new(0),
        });
        let (record, mailbox) = (Arc::<Record>::default(), Arc::<Mailbox>::default());
        let regulation = Arc::new(Strict::default());
        // Who says how sign-ins are regulated means the real one.
        let is_regulated = yaml.contains("regulation:");
        let memory = Arc::new(BreakableMemory {
            inner: stores.verified_passwords.clone(),
            down: AtomicBool::new(false),
            looks: AtomicU64::new(0),
        });
        let passwords = Arc::new(PasswordDoor {
            users: users.clone(),
            devices: stores.devices.clone(),
            credentials: stores.credentials.clone(),
            hasher: hasher.clone(),
            regulation: if is_regulated { stores.regulation.clone() } else { regulation.clone() },
            verified: memory.clone(),
            clock: clock.clone(),
            audit: record.clone(),
            metrics: metrics.clone(),
            under_way: AtomicUsize::new(0),
        });
        let gate = Arc::new(Gate {
            sessions: sessions.clone(),
            api_tokens: stores.api_tokens.clone(),
            passwords: passwords.clone(),
            keys: keys.clone(),
            foreign: Foreign { keys: stores.issuer_keys.clone(), tokens: stores.foreign_tokens.clone() },
            tokens: stores.tokens.clone(),
            source_limit: stores.source_limit.clone(),
            counters: stores.counters.clone(),
            clock: clock.clone(),
            entropy: stores.entropy.clone(),
            metrics: metrics.clone(),
        });
        let sign_in = SignIn {
            passwords,
            sessions: sessions.clone(),
            keys: keys.clone(),
            clock: clock.clone(),
            entropy: stores.entropy.clone(),
            audit: record.clone(),
            metrics: metrics.clone(),
        };
        let router = router(Arc::new(Portal {
            gate: gate.clone(),
            sign_in,
            hand_over: HandingOver {
                hand_overs: stores.hand_overs.clone(),
                sessions: sessions.clone(),
                clock: clock.clone(),
                entropy: stores.entropy.clone(),
                audit: record.clone(),
            },
            notices: notices(&stores, &mailbox),
            sessions: sessions.clone(),
            api_tokens: stores.api_tokens.clone(),
            keys: keys.clone(),
            tokens: stores.tokens.clone(),
            geo: stores.geo.clone(),
            clock: clock.clone(),
            entropy: stores.entropy.clone(),
            audit: record.clone(),
            metrics: metrics.clone(),
        }));
        let site = Arc::new(loaded.settings.site);
        let world = Self {
            site,
            stores,
            clock,
            hasher,
            sessions,
            users,
            keys,
            gate,
            regulation,
            memory,
            metrics,
            record,
            mailbox,
            router,
            options,
            folder,
        };
        world.add_user("alice", &["admins"]).await;
        world.add_user("bob", &["dev"]).await;
        world
    }

    pub(crate) async fn add_user(&self, name: &str, groups: &[&str]) {
        static HASH: OnceCell<String> = OnceCell::const_new();
        let hash = HASH.get_or_init(|| async { self.stores.hasher.hash(PASSWORD.into()).await.unwrap() }).await;
        let user = User {
            display_name: format!("{name} of the tests"),
            email: Some(format!("{name}@example.com")).filter(|_| name.bytes().all(|byte| byte.is_ascii_lowercase())),
            ..User::new(name, groups.iter().map(|group| (*group).to_owned()).collect())
        };
        self.stores.users.insert(user, Some(hash.clone())).await.unwrap();
    }

    /// A statement that no port has.
    pub(crate) async fn execute(&self, sql: &'static str) {
        let file = self.folder.path().join("data/postern.db");
        let mut connection = sqlx::AnyConnection::connect(&format!("sqlite://{}", file.display())).await.unwrap();
        connection.execute(sql).await.unwrap();
        connection.close().await.unwrap();
    }

    /// What another process on the same data has.
    pub(crate) async fn elsewhere(&self) -> Stores {
        let metrics = Arc::new(Metrics::new().unwrap());
        open_with(self.options.clone(), metrics, self.clock.clone(), Arc::new(SystemEntropy)).await.unwrap()
    }

    /// Other rules, before anybody has visited.
    pub(crate) fn policies(&mut self, yaml: &str) {
        let folder = self.folder.path().join("policies");
        fs::write(folder.join("access.yaml"), yaml).unwrap();
        let (rules, _) = config::load_policies(&folder).unwrap_or_else(|faults| panic!("{faults}"));
        Arc::get_mut(&mut self.site).unwrap().rules = rules;
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }

    pub(crate) fn set_back(&self, time: Duration) {
        self.clock.set_back(time);
    }

    /// Verifications since the last look, and how many of them had no stored hash.
    pub(crate) fn hashed(&self) -> (u64, u64) {
        (self.hasher.verified.swap(0, Ordering::SeqCst), self.hasher.without_hash.swap(0, Ordering::SeqCst))
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// What was put on record since the last look.
    pub(crate) fn recorded(&self) -> Vec<AuditEvent> {
        std::mem::take(&mut self.record.0.lock().unwrap())
    }

    /// The lines of the metrics that begin so.
    pub(crate) fn counted(&self, name: &str) -> Vec<String> {
        self.metrics.render().lines().filter(|line| line.starts_with(name)).map(str::to_owned).collect()
    }

    pub(crate) async fn send(&self, asked: Ask) -> Reply {
        let target = Target::parse_url(&asked.url).unwrap();
        let path = self.site.portal_path(&target).unwrap_or_else(|| panic!("not the portal's: {}", asked.url));
        let inside = target.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let mut request = Request::builder().method(asked.method).uri(inside).body(Body::from(asked.body)).unwrap();
        *request.headers_mut() = asked.headers;
        request.extensions_mut().insert(Arrival {
            site: self.site.clone(),
            target,
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            client: asked.client,
            request_id: REQUEST_ID.to_owned(),
        });
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
    }
}
