//! Ports that a test has in its hand: a clock to move, a hasher that counts and stores that go down, each in front of the real one.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use postern::{
    core::{
        session::{Session, SessionId, TokenHash},
        time::Timestamp,
        user::User,
    },
    ports::{
        AuditEvent, AuditSink, Clock, End, HashError, Hasher, LiveSession, Peek, Sessions, Unavailable, UserChange,
        UserError, Users, Whom,
    },
};
use secrecy::SecretString;

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
        self.inner.verify(password, stored).await
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
}

#[async_trait]
impl Sessions for BreakableSessions {
    fn peek(&self, gate_hash: &TokenHash) -> Peek {
        self.inner.peek(gate_hash)
    }

    fn peek_id(&self, id: &SessionId) -> Peek {
        self.inner.peek_id(id)
    }

    async fn find(&self, gate_hash: &TokenHash) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        unless(&self.down, "sessions")?;
        self.inner.find(gate_hash).await
    }

    async fn find_id(&self, id: &SessionId) -> Result<Option<Arc<LiveSession>>, Unavailable> {
        unless(&self.down, "sessions")?;
        self.inner.find_id(id).await
    }

    async fn create(&self, session: Session, ended: &[SessionId]) -> Result<Arc<LiveSession>, Unavailable> {
        unless(&self.down, "sessions")?;
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

/// What was put on record.
#[derive(Default)]
pub(crate) struct Record(pub(crate) Mutex<Vec<AuditEvent>>);

impl AuditSink for Record {
    fn record(&self, event: AuditEvent) {
        self.0.lock().unwrap().push(event);
    }
}
