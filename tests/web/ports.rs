//! Ports that a test has in its hand: a clock to move, a hasher that counts and stores that go down, each in front of the real one.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use postern::{
    core::{
        ground::Watch,
        regulation::By,
        session::{Session, SessionId, TokenHash},
        time::Timestamp,
        user::User,
    },
    identity::notice::Notices,
    ports::{
        Admitted, AuditEvent, AuditSink, Barred, Clock, End, HashError, Hasher, Keys, LiveSession, Mail, Mailer, Mark,
        PasswordKey, PasswordTurn, Peek, Presentation, Recognised, Regulation, Rotation, Sessions, SigningKeys, Try,
        Unavailable, UserChange, UserError, Users, VerifiedPasswords, Waits, Whom, Whose,
    },
    store::Stores,
};
use secrecy::SecretString;
use tokio::sync::RwLock;

/// 2027-01-15T08:00:00Z.
pub(crate) const START: i64 = 1_800_000_000_000;

pub(crate) struct FakeClock(AtomicI64);

impl FakeClock {
    pub(crate) fn new() -> Self {
        Self(AtomicI64::new(START))
    }

    pub(crate) fn pass(&self, time: Duration) {
        self.0.fetch_add(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }

    pub(crate) fn set_back(&self, time: Duration) {
        self.0.fetch_sub(i64::try_from(time.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix_millis(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.load(Ordering::SeqCst)).unwrap())
    }
}

/// Counts what verifying costs, and can be full.
pub(crate) struct CountingHasher {
    pub(crate) inner: Arc<dyn Hasher>,
    pub(crate) verified: AtomicU64,
    /// Those without a stored hash: made up to cost the same.
    pub(crate) without_hash: AtomicU64,
    pub(crate) busy: AtomicBool,
    /// Whoever holds it to write keeps every answer back.
    pub(crate) hold: RwLock<()>,
}

#[async_trait]
impl Hasher for CountingHasher {
    async fn hash(&self, password: SecretString) -> Result<String, HashError> {
        self.inner.hash(password).await
    }

    async fn verify(&self, password: SecretString, stored: Option<SecretString>) -> Result<bool, HashError> {
        if self.busy.load(Ordering::SeqCst) {
            return Err(HashError::Busy);
        }
        self.verified.fetch_add(1, Ordering::SeqCst);
        self.without_hash.fetch_add(u64::from(stored.is_none()), Ordering::SeqCst);
        let answer = self.inner.verify(password, stored).await;
        let _go = self.hold.read().await;
        answer
    }
}

fn unless(down: &AtomicBool, store: &'static str) -> Result<(), Unavailable> {
    if down.load(Ordering::SeqCst) {
        Err(Unavailable { store, detail: "secret detail for the log alone".to_owned() })
    } else {
        Ok(())
    }
}

pub(crate) struct BreakableSessions {
    pub(crate) inner: Arc<dyn Sessions>,
    pub(crate) down: AtomicBool,
    /// What hands a sign-in over ends just before the new session is stored.
    pub(crate) ends_parents: AtomicBool,
}

#[async_trait]
impl Sessions for BreakableSessions {
    fn peek(&self, gate_hash: &TokenHash) -> Peek {
        self.inner.peek(gate_hash)
    }

    fn peek_id(&self, id: &SessionId) -> Peek {
        self.inner.peek_id(id)
    }

    fn glance(&self, id: &SessionId) -> Peek {
        self.inner.glance(id)
    }

    async fn find(&self, gate_hash: &TokenHash) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        unless(&self.down, "sessions")?;
        self.inner.find(gate_hash).await
    }

    async fn find_id(&self, id: &SessionId) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        unless(&self.down, "sessions")?;
        self.inner.find_id(id).await
    }

    async fn absent(&self, ids: &[SessionId]) -> Result<Vec<SessionId>, Unavailable> {
        unless(&self.down, "sessions")?;
        self.inner.absent(ids).await
    }

    async fn create(&self, session: Session, ended: &[SessionId]) -> Result<Arc<LiveSession>, Unavailable> {
        unless(&self.down, "sessions")?;
        if let Some(parent) = session.parent.as_ref().filter(|_| self.ends_parents.load(Ordering::SeqCst)) {
            self.inner.end(End::One(parent)).await?;
        }
        self.inner.create(session, ended).await
    }

    fn used(&self, session: &Arc<LiveSession>, at: Timestamp) {
        self.inner.used(session, at);
    }

    async fn list(&self, user: Option<&str>) -> Result<Vec<Session>, Unavailable> {
        unless(&self.down, "sessions")?;
        self.inner.list(user).await
    }

    async fn end(&self, which: End<'_>) -> Result<u64, Unavailable> {
        unless(&self.down, "sessions")?;
        self.inner.end(which).await
    }
}

pub(crate) struct BreakableUsers {
    pub(crate) inner: Arc<dyn Users>,
    pub(crate) down: AtomicBool,
}

#[async_trait]
impl Users for BreakableUsers {
    async fn find(&self, name: &str) -> Result<Option<User>, Unavailable> {
        unless(&self.down, "users")?;
        self.inner.find(name).await
    }

    async fn list(&self) -> Result<Vec<User>, Unavailable> {
        self.inner.list().await
    }

    async fn insert(&self, user: User, password_hash: Option<String>) -> Result<(), UserError> {
        self.inner.insert(user, password_hash).await
    }

    async fn update(&self, name: &str, change: UserChange) -> Result<User, UserError> {
        self.inner.update(name, change).await
    }

    async fn delete(&self, name: &str) -> Result<(), UserError> {
        self.inner.delete(name).await
    }

    async fn revoke(&self, whom: Whom<'_>) -> Result<u64, UserError> {
        self.inner.revoke(whom).await
    }
}

/// Signing keys that memory is not sure of.
pub(crate) struct BreakableKeys {
    pub(crate) inner: Arc<dyn Keys>,
    pub(crate) down: AtomicBool,
    /// How often the store was asked.
    pub(crate) reads: AtomicU64,
}

#[async_trait]
impl Keys for BreakableKeys {
    fn signing(&self) -> Arc<SigningKeys> {
        self.inner.signing()
    }

    fn peek(&self) -> Option<Arc<SigningKeys>> {
        None
    }

    async fn read(&self) -> Result<Arc<SigningKeys>, Unavailable> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        unless(&self.down, "keys")?;
        self.inner.read().await
    }

    async fn reload(&self) -> Result<(), Unavailable> {
        self.inner.reload().await
    }

    async fn rotate(&self, rotation: Rotation) -> Result<String, Unavailable> {
        self.inner.rotate(rotation).await
    }

    async fn adopt(&self, rotation: Rotation) -> Result<Option<String>, Unavailable> {
        self.inner.adopt(rotation).await
    }
}

/// What was put on record.
#[derive(Default)]
pub(crate) struct Record(pub(crate) Mutex<Vec<AuditEvent>>);

impl AuditSink for Record {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}

/// Mails that were handed in.
#[derive(Default)]
pub(crate) struct Mailbox(Mutex<Vec<Mail>>);

impl Mailbox {
    /// Those since the last look.
    pub(crate) fn taken(&self) -> Vec<Mail> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Mailer for Mailbox {
    fn send(&self, mail: Mail) {
        self.0.lock().unwrap().push(mail);
    }
}

pub(crate) fn notices(stores: &Stores, mailbox: &Arc<Mailbox>) -> Notices {
    let (devices, geo, entropy) = (stores.devices.clone(), stores.geo.clone(), stores.entropy.clone());
    Notices { devices, mailer: mailbox.clone(), geo, entropy }
}

/// Bars an account after so many wrong passwords; 0: never.
#[derive(Default)]
pub(crate) struct Strict {
    pub(crate) most: AtomicU64,
    wrong: Mutex<HashMap<String, u64>>,
    /// From where nobody is barred (THREATS 40).
    pub(crate) known: Mutex<Option<IpAddr>>,
    /// Wrong ones that stayed counted.
    pub(crate) told: AtomicU64,
    /// Its counters are lost between a try and its outcome.
    pub(crate) is_lost: AtomicBool,
    /// Account and provider of every try that was admitted or not.
    pub(crate) tries: Mutex<Vec<(String, &'static str)>>,
}

impl Strict {
    pub(crate) const WAIT: Duration = Duration::from_secs(60);
}

#[async_trait]
impl Regulation for Strict {
    async fn waits(&self, _whose: Whose<'_>) -> Result<Waits, Unavailable> {
        Ok(Waits::default())
    }

    async fn admit(&self, tried: Try<'_>) -> Result<Admitted, Barred> {
        self.tries.lock().unwrap().push((tried.account.to_owned(), tried.provider));
        if let Some(wait) = self.bars(tried) {
            return Err(Barred::SlowDown(wait));
        }
        if tried.is_repeated {
            return Ok(Admitted::default());
        }
        Ok(Admitted { account: Some(tried.account.to_owned()), ..Admitted::default() })
    }

    async fn settle(&self, admitted: Admitted, was_wrong: bool) -> Result<Option<By>, Unavailable> {
        let Some(account) = admitted.account else { return Ok(None) };
        if self.is_lost.load(Ordering::SeqCst) {
            return Err(Unavailable { store: "regulation", detail: "lost".to_owned() });
        }
        self.told.fetch_add(u64::from(was_wrong), Ordering::SeqCst);
        let mut all = self.wrong.lock().unwrap();
        let wrong = all.entry(account).or_default();
        // One that was right resets nothing.
        *wrong += u64::from(was_wrong);
        Ok(None)
    }

    fn bars(&self, tried: Try<'_>) -> Option<Duration> {
        let most = self.most.load(Ordering::SeqCst);
        let wrong = self.wrong.lock().unwrap().get(tried.account).copied().unwrap_or(0);
        let is_known = tried.address.is_some_and(|address| *self.known.lock().unwrap() == Some(address));
        (most > 0 && wrong >= most && !is_known).then_some(Self::WAIT)
    }

    async fn unlock(&self, account: &str) -> Result<bool, Unavailable> {
        Ok(self.wrong.lock().unwrap().remove(account).is_some())
    }
}

/// The memory of verified passwords, whose look at the log of changes can take its time and fail.
pub(crate) struct BreakableMemory {
    pub(crate) inner: Arc<dyn VerifiedPasswords>,
    pub(crate) down: AtomicBool,
    pub(crate) looks: AtomicU64,
}

impl BreakableMemory {
    /// A look at a log that does not answer.
    pub(crate) const TIME: Duration = Duration::from_millis(300);
}

#[async_trait]
impl VerifiedPasswords for BreakableMemory {
    fn key(&self, presented: &Presentation) -> PasswordKey {
        self.inner.key(presented)
    }

    async fn turn(&self, key: &PasswordKey, address: Option<IpAddr>) -> PasswordTurn {
        self.inner.turn(key, address).await
    }

    fn recall(&self, key: &PasswordKey, now: Timestamp) -> Option<Recognised> {
        self.inner.recall(key, now)
    }

    async fn mark(&self, user: &str) -> Result<Mark, Unavailable> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            tokio::time::sleep(Self::TIME).await;
        }
        unless(&self.down, "changes")?;
        self.inner.mark(user).await
    }

    async fn marks(&self, users: &[&str]) -> Result<Vec<Mark>, Unavailable> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            tokio::time::sleep(Self::TIME).await;
        }
        unless(&self.down, "changes")?;
        self.inner.marks(users).await
    }

    fn remember(&self, key: PasswordKey, recognised: &Recognised, read_at: &Mark) {
        self.inner.remember(key, recognised, read_at);
    }

    fn watch(&self, read_at: &Mark) -> Arc<dyn Watch> {
        self.inner.watch(read_at)
    }

    fn was_wrong(&self, key: &PasswordKey, is_now: bool) -> bool {
        self.inner.was_wrong(key, is_now)
    }
}
