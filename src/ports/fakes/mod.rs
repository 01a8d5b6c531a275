//! Stand-ins for the ports, and a small site to decide on: shared by the tests of `gate`, `edge` and `forward_auth`.

mod counters;
mod credentials;

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;

use super::{
    CannotSign, Clock, Each, End, Entropy, Exchange, Exchanged, KeyTimes, Keys, LiveSession, Peek, RefreshToken,
    Revocation, Rotation, Sessions, Signer, SigningKey, SigningKeys, SourceLimit, Unavailable,
};
use crate::core::{
    identity::{Factor, Identity},
    policy::{Level, LimitDraft, PolicyDraft, RuleDraft, RuleSet},
    request::Role,
    route::{HostPattern, Route, RouteTable, Upstream, UpstreamTimeouts},
    session::{Lifetimes, Session, SessionId, TokenHash},
    site::{CookieScope, ListenerSite, Mount, PortalSite, SameSite, Site},
    target::{EncodedSlashes, Scheme},
    time::Timestamp,
    tokens::{AccessClaims, SigningAlgorithm, TokenSettings},
    user::User,
};

pub(crate) use counters::Counting;
pub(crate) use credentials::{Door, Issuers, Tokens, foreign, no_issuers};

pub(crate) const NOW: Timestamp = Timestamp::from_unix_millis(1_800_000_000_000);
pub(crate) const ISSUER: &str = "https://auth.example.com";

/// Sessions in a list; `sure` says whether memory may answer, `down` whether the store can.
pub(crate) struct Stores {
    /// What memory holds.
    remembered: Mutex<Vec<Arc<LiveSession>>>,
    /// What the store holds.
    stored: Mutex<Vec<Arc<LiveSession>>>,
    /// What nobody can read.
    pub(crate) damaged: Mutex<Vec<SessionId>>,
    pub(crate) down: AtomicBool,
    pub(crate) reads: AtomicI64,
    /// By id, for a request.
    pub(crate) peeks: AtomicI64,
    /// After so many questions by id it does not answer; below 0 it always does.
    pub(crate) reads_left: AtomicI64,
    /// Milliseconds that a question by id takes.
    pub(crate) read_time: AtomicU64,
}

impl Default for Stores {
    fn default() -> Self {
        Self {
            remembered: Mutex::default(),
            stored: Mutex::default(),
            damaged: Mutex::default(),
            down: AtomicBool::default(),
            reads: AtomicI64::default(),
            peeks: AtomicI64::default(),
            reads_left: AtomicI64::new(-1),
            read_time: AtomicU64::default(),
        }
    }
}

impl Stores {
    pub(crate) fn remember(&self, session: &Arc<LiveSession>) {
        self.remembered.lock().unwrap().push(Arc::clone(session));
    }

    pub(crate) fn store(&self, session: &Arc<LiveSession>) {
        self.stored.lock().unwrap().push(Arc::clone(session));
    }

    /// All of them, in memory and in the store.
    pub(crate) fn forget(&self) {
        self.remembered.lock().unwrap().clear();
        self.stored.lock().unwrap().clear();
    }

    fn read(&self, wanted: impl Fn(&LiveSession) -> bool) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(Unavailable { store: "sessions", detail: "down".to_owned() });
        }
        Ok(self.stored.lock().unwrap().iter().find(|live| wanted(live)).cloned())
    }

    async fn asked(&self) {
        tokio::time::sleep(Duration::from_millis(self.read_time.load(Ordering::SeqCst))).await;
        if self.reads_left.fetch_sub(1, Ordering::SeqCst) == 0 {
            self.reads_left.store(0, Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
    }

    fn peeked(&self, wanted: impl Fn(&LiveSession) -> bool) -> Peek {
        self.remembered
            .lock()
            .unwrap()
            .iter()
            .find(|live| wanted(live))
            .map_or(Peek::Unsure, |live| Peek::Hit(Arc::clone(live)))
    }
}

#[async_trait]
impl Sessions for Stores {
    fn peek(&self, gate_hash: &TokenHash) -> Peek {
        self.peeked(|live| live.session.gate_hash == *gate_hash)
    }
    fn peek_id(&self, id: &SessionId) -> Peek {
        self.peeks.fetch_add(1, Ordering::SeqCst);
        self.glance(id)
    }
    fn glance(&self, id: &SessionId) -> Peek {
        self.peeked(|live| live.id() == id)
    }
    async fn find(&self, gate_hash: &TokenHash) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        self.read(|live| live.session.gate_hash == *gate_hash)
    }
    async fn find_id(&self, id: &SessionId) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        self.asked().await;
        self.read(|live| live.id() == id)
    }
    async fn absent(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Unavailable> {
        self.read(|_| false)?;
        let stored = self.stored.lock().unwrap();
        Ok(ids.iter().filter(|id| stored.iter().all(|live| live.id() != *id)).cloned().collect())
    }
    async fn find_ids(&self, ids: &[SessionId]) -> Result<Each<SessionId, Arc<LiveSession>>, Unavailable> {
        self.asked().await;
        let ids: HashSet<&SessionId> = ids.iter().collect();
        self.read(|_| false)?;
        let stored = self.stored.lock().unwrap();
        let wanted = stored.iter().filter(|live| ids.contains(live.id()));
        Ok(Each {
            found: wanted.map(|live| (live.id().clone(), Arc::clone(live))).collect(),
            unsure: self.damaged.lock().unwrap().iter().cloned().collect(),
        })
    }
    async fn create(&self, _: Session, _: &[SessionId]) -> Result<Arc<LiveSession>, Unavailable> {
        unreachable!("nothing here makes a session")
    }
    fn used(&self, session: &Arc<LiveSession>, at: Timestamp) {
        session.touch(at);
    }
    async fn list(&self, _: Option<&str>) -> Result<Vec<Session>, Unavailable> {
        unreachable!("nothing here lists sessions")
    }
    async fn end(&self, _: End<'_>) -> Result<u64, Unavailable> {
        unreachable!("nothing here ends a session")
    }
}

/// Of signing keys: `unsure` says that memory may not answer, and `down` that the store cannot.
pub(crate) struct OneKey {
    pub(crate) remembered: Arc<SigningKeys>,
    pub(crate) stored: Arc<SigningKeys>,
    pub(crate) unsure: bool,
    pub(crate) down: bool,
    pub(crate) reads: AtomicI64,
}

impl OneKey {
    /// `key-1`.
    pub(crate) fn new() -> Self {
        let keys = Arc::new(SigningKeys::new(vec![key(1)]));
        Self { remembered: Arc::clone(&keys), stored: keys, unsure: false, down: false, reads: AtomicI64::new(0) }
    }
}

#[async_trait]
impl Keys for OneKey {
    fn signing(&self) -> Arc<SigningKeys> {
        Arc::clone(&self.remembered)
    }
    fn peek(&self) -> Option<Arc<SigningKeys>> {
        (!self.unsure).then(|| self.signing())
    }
    async fn read(&self) -> Result<Arc<SigningKeys>, Unavailable> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.down {
            return Err(Unavailable { store: "keys", detail: "down".to_owned() });
        }
        Ok(Arc::clone(&self.stored))
    }
    async fn reload(&self) -> Result<(), Unavailable> {
        Ok(())
    }
    async fn rotate(&self, _: Rotation) -> Result<String, Unavailable> {
        unreachable!("nothing here rotates keys")
    }
    async fn adopt(&self, _: Rotation) -> Result<Option<String>, Unavailable> {
        unreachable!("nothing here changes the algorithm")
    }
}

/// Of revoked tokens: `unsure` says that memory may not answer, and `down` that the store cannot.
#[derive(Default)]
pub(crate) struct Revocations {
    pub(crate) revoked: Mutex<Vec<String>>,
    pub(crate) unsure: AtomicBool,
    pub(crate) down: AtomicBool,
    /// Milliseconds that a question about many takes.
    pub(crate) read_time: AtomicU64,
}

#[async_trait]
impl super::Tokens for Revocations {
    fn peek_revoked(&self, jti: &str) -> Revocation {
        if self.unsure.load(Ordering::SeqCst) {
            Revocation::Unsure
        } else if self.revoked.lock().unwrap().iter().any(|revoked| revoked == jti) {
            Revocation::Revoked
        } else {
            Revocation::Holds
        }
    }
    async fn is_revoked(&self, jti: &str) -> Result<bool, Unavailable> {
        if self.down.load(Ordering::SeqCst) {
            return Err(Unavailable { store: "tokens", detail: "down".to_owned() });
        }
        Ok(self.revoked.lock().unwrap().iter().any(|revoked| revoked == jti))
    }
    async fn revoked_among(&self, jtis: &[&str]) -> Result<HashSet<String>, Unavailable> {
        tokio::time::sleep(Duration::from_millis(self.read_time.load(Ordering::SeqCst))).await;
        if self.down.load(Ordering::SeqCst) {
            return Err(Unavailable { store: "tokens", detail: "down".to_owned() });
        }
        let revoked = self.revoked.lock().unwrap();
        Ok(revoked.iter().filter(|revoked| jtis.contains(&revoked.as_str())).cloned().collect())
    }
    async fn revoke(&self, _: &str, _: Timestamp) -> Result<super::Revoked, Unavailable> {
        unreachable!("nothing here revokes a token")
    }
    async fn insert_refresh(&self, _: RefreshToken) -> Result<(), Unavailable> {
        unreachable!("nothing here makes a refresh token")
    }
    async fn find_refresh(&self, _: &TokenHash) -> Result<Option<RefreshToken>, Unavailable> {
        unreachable!("nothing here refreshes")
    }
    async fn exchange(&self, _: Exchange) -> Result<Exchanged, Unavailable> {
        unreachable!("nothing here refreshes")
    }
}

pub(crate) struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        NOW
    }
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
}

pub(crate) struct Zeroes;

impl Entropy for Zeroes {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// Lets everybody in but one address.
pub(crate) struct Flooding;

impl Flooding {
    pub(crate) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
}

impl SourceLimit for Flooding {
    fn take(&self, source: IpAddr) -> Result<(), Duration> {
        if source == Self::SOURCE { Err(Duration::from_secs(3)) } else { Ok(()) }
    }
}

pub(crate) fn key(seed: u8) -> SigningKey {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let public =
        ed25519_dalek::pkcs8::spki::EncodePublicKey::to_public_key_pem(&key.verifying_key(), LineEnding::LF).unwrap();
    SigningKey {
        kid: format!("key-{seed}"),
        algorithm: SigningAlgorithm::EdDsa,
        signer: Box::new(FakeSigner(key)),
        decoding: jsonwebtoken::DecodingKey::from_ed_pem(public.as_bytes()).unwrap(),
        jwk: serde_json::Value::Null,
        times: KeyTimes { created_at: NOW, signs_from: NOW, retires_at: None, token_life: Duration::from_secs(900) },
    }
}

struct FakeSigner(ed25519_dalek::SigningKey);

impl Signer for FakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CannotSign> {
        Ok(ed25519_dalek::Signer::sign(&self.0, message).to_vec())
    }
}

/// A JWS of any header and claims, signed by the key of this seed.
pub(crate) fn signed(seed: u8, header: &serde_json::Value, claims: &serde_json::Value) -> String {
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature = key(seed).signer.sign(message.as_bytes()).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
}

pub(crate) fn rule(name: &str, path: &str, policy: Level, subject: &[&str]) -> RuleDraft {
    RuleDraft {
        name: Some(name.to_owned()),
        domain: vec!["*.example.com".to_owned(), "app.elsewhere.test".to_owned()],
        path: vec![path.to_owned()],
        policy: Some(policy),
        subject: subject.iter().map(|entry| vec![(*entry).to_owned()]).collect(),
        ..RuleDraft::default()
    }
}

/// The row of [`session`].
pub(crate) fn row(mark: char, idle: u64) -> Session {
    let created = Timestamp::from_unix_millis(NOW.unix_millis() - 1_000_000);
    Session {
        id: SessionId::new(format!("session-{mark}")),
        user: "bob".to_owned(),
        factor: Factor::One,
        domain: "example.com".to_owned(),
        gate_hash: TokenHash::of(&cookie_of(mark)),
        portal_hash: TokenHash::of("portal"),
        remembered: false,
        created_at: created,
        signed_in_at: created,
        last_used_at: Timestamp::from_unix_millis(NOW.unix_millis() - i64::try_from(idle).unwrap() * 1000),
        user_agent: String::new(),
        address: None,
        parent: None,
    }
}

/// A session of bob's, used `idle` seconds ago, whose cookie is `cookie_of(mark)`.
pub(crate) fn session(mark: char, idle: u64) -> Arc<LiveSession> {
    let user = User {
        display_name: "Bob".to_owned(),
        token_version: 4,
        ..User::new("bob", vec!["staff".to_owned(), "admins".to_owned()])
    };
    let session = row(mark, idle);
    let identity = Identity::new(&user, session.factor, session.signed_in_at, Some(session.id.clone())).unwrap();
    Arc::new(LiveSession::new(&session, identity))
}

pub(crate) fn cookie_of(mark: char) -> String {
    std::iter::repeat_n(mark, 43).collect()
}

pub(crate) fn token(seed: u8, change: impl FnOnce(&mut AccessClaims)) -> String {
    let now = NOW.unix_seconds();
    let mut claims = AccessClaims {
        iss: ISSUER.to_owned(),
        sub: "bob".to_owned(),
        aud: "postern".to_owned(),
        iat: now,
        exp: now + 900,
        nbf: None,
        jti: "one".to_owned(),
        sid: "session-a".to_owned(),
        groups: Vec::new(),
        ver: 4,
    };
    change(&mut claims);
    let header = serde_json::json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": "key-1" });
    signed(seed, &header, &serde_json::to_value(claims).unwrap())
}

/// Of all requests.
pub(crate) fn limit(name: &str, key: &str, rates: &[&str]) -> LimitDraft {
    LimitDraft {
        name: name.to_owned(),
        key: key.to_owned(),
        rates: rates.iter().map(ToString::to_string).collect(),
        ..LimitDraft::default()
    }
}

pub(crate) fn listener(role: Role) -> ListenerSite {
    ListenerSite {
        role,
        trusted_proxies: Vec::new(),
        authorization_is_apps: false,
        origins: Vec::new(),
        headers: Vec::new(),
        tls: false,
    }
}

/// A route to an upstream without servers.
pub(crate) fn route(host: &str) -> Route {
    let timeouts = UpstreamTimeouts {
        connect: Duration::from_secs(1),
        read: Duration::from_secs(1),
        write: Duration::from_secs(1),
    };
    Route {
        name: host.to_owned(),
        host: HostPattern::Exact(host.to_owned()),
        prefix: "/".to_owned(),
        upstream: Arc::new(Upstream { name: "app".to_owned(), servers: Vec::new(), timeouts }),
        headers: Vec::new(),
        authorization_is_apps: false,
        encoded_slashes: EncodedSlashes::Reject,
        origins: vec!["https://friend.test".to_owned()],
    }
}

/// `/public/**` for everybody, `/admin/**` with two factors for admins, `/staff/**` for staff, the rest for nobody; on
/// `*.example.com`, whose portal is `https://auth.example.com`, and on a host that no cookie reaches.
pub(crate) fn site(listener: ListenerSite, routes: Vec<Route>) -> Site {
    limited_site(listener, routes, Vec::new())
}

/// The same with limits.
pub(crate) fn limited_site(listener: ListenerSite, routes: Vec<Route>, limits: Vec<LimitDraft>) -> Site {
    let (rules, _) = RuleSet::compile(&PolicyDraft {
        default: Some(Level::Deny),
        rules: vec![
            rule("public", "/public/**", Level::Bypass, &[]),
            rule("admin", "/admin/**", Level::TwoFactor, &["group:admins"]),
            rule("staff", "/staff/**", Level::OneFactor, &["group:staff"]),
        ],
        limits,
        ..PolicyDraft::default()
    })
    .unwrap();
    let portal = url::Url::parse(ISSUER).unwrap();
    Site {
        listeners: vec![listener],
        portal: PortalSite {
            mount: Mount::Host {
                url: portal.clone(),
                host: "auth.example.com".to_owned(),
                scheme: Scheme::Https,
                base: String::new(),
            },
            title: "Postern".to_owned(),
            accent: "#0055aa".to_owned(),
            explain_to: Vec::new(),
        },
        cookies: vec![CookieScope {
            domain: "example.com".to_owned(),
            name: "postern_session".to_owned(),
            same_site: SameSite::Lax,
            portal: Some(portal),
            default_redirect: None,
        }],
        lifetimes: Lifetimes {
            idle: Duration::from_secs(60),
            lifetime: Duration::from_secs(3600),
            remember_me: Duration::from_secs(86_400),
        },
        routes: RouteTable::new(routes),
        encoded_slashes: EncodedSlashes::Reject,
        upstreams: std::collections::BTreeMap::new(),
        rules,
        tokens: TokenSettings {
            issuer: ISSUER.to_owned(),
            audience: "postern".to_owned(),
            access: Duration::from_secs(900),
            trusted_issuers: Vec::new(),
            refresh: Duration::from_secs(86_400),
            algorithm: SigningAlgorithm::EdDsa,
        },
        hands_over: false,
        tells_new_devices: false,
        knows_devices: false,
        own_cookies: vec!["postern_session".to_owned()],
    }
}
