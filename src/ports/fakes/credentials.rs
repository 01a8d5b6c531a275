//! Stand-ins for what identifies a caller without a session: API tokens, passwords, tokens of other issuers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use secrecy::ExposeSecret as _;

use super::NOW;
use crate::{
    core::{
        api_token::{self, ApiToken, Owner, Scopes},
        ground::{Stamp, Watch},
        identity::{Factor, Identity},
        issuer::{ForeignTokenKey, KeyAddress, TrustedIssuer, jwks::KeySet},
        session::TokenHash,
        time::Timestamp,
        user::{User, folded},
    },
    ports::{
        ApiTokenError, ApiTokens, Barred, Each, ForeignTokens, IssuerKeys, LiveApiToken, NameCheck, Passwords,
        Presentation, Recognised, Revoke, Told, Unavailable, VerifiedToken,
    },
};

/// API tokens in a list, in the store alone or in memory too; counts what is asked of the store.
#[derive(Default)]
pub(crate) struct Tokens {
    stored: Mutex<Vec<Arc<LiveApiToken>>>,
    remembered: Mutex<Vec<Arc<LiveApiToken>>>,
    pub(crate) down: AtomicBool,
    pub(crate) reads: AtomicI64,
    pub(crate) uses: AtomicI64,
    /// Milliseconds that a question takes.
    pub(crate) read_time: AtomicU64,
}

impl Tokens {
    /// Stores a token of `owner`, and gives its secret.
    pub(crate) fn issue(&self, owner: Owner, scopes: &[&str], expires_at: Option<Timestamp>) -> String {
        let mut random = [0; 32];
        random[..8].copy_from_slice(&(self.stored.lock().unwrap().len() as u64 + 1).to_le_bytes());
        let secret = api_token::compose(&owner, random).expose_secret().to_owned();
        let identity =
            Identity::new(&User::new(owner.name(), vec!["staff".to_owned()]), Factor::One, NOW, None).unwrap();
        let identity = if matches!(owner, Owner::Service(_)) { identity.as_service() } else { identity };
        let token = ApiToken {
            hash: TokenHash::of(&secret),
            owner,
            name: "a token".to_owned(),
            scopes: Scopes::parse(scopes.iter().copied()).unwrap(),
            created_at: NOW,
            expires_at,
            last_used_at: None,
            created_by: None,
            version: 1,
        };
        self.stored.lock().unwrap().push(Arc::new(LiveApiToken::new(token, Arc::new(identity))));
        secret
    }
}

impl Tokens {
    /// All of them, in memory and in the store.
    pub(crate) fn forget(&self) {
        self.stored.lock().unwrap().clear();
        self.forget_in_memory();
    }

    pub(crate) fn forget_in_memory(&self) {
        self.remembered.lock().unwrap().clear();
    }
}

#[async_trait]
impl ApiTokens for Tokens {
    fn peek(&self, hash: &TokenHash) -> Option<Arc<LiveApiToken>> {
        self.remembered.lock().unwrap().iter().find(|live| live.token.hash == *hash).cloned()
    }
    async fn find(&self, hash: &TokenHash) -> Result<Option<Arc<LiveApiToken>>, Unavailable> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        if self.down.load(Ordering::SeqCst) {
            return Err(Unavailable { store: "api_tokens", detail: "down".to_owned() });
        }
        let found = self.stored.lock().unwrap().iter().find(|live| live.token.hash == *hash).cloned();
        self.remembered.lock().unwrap().extend(found.clone());
        Ok(found)
    }
    async fn find_each(&self, hashes: &[TokenHash]) -> Result<Each<TokenHash, Arc<LiveApiToken>>, Unavailable> {
        passed(&self.read_time).await;
        let mut each = Each::default();
        for hash in hashes {
            each.found.extend(self.find(hash).await?.map(|live| (*hash, live)));
        }
        Ok(each)
    }
    async fn create(&self, _: ApiToken, _: Option<Vec<String>>) -> Result<ApiToken, ApiTokenError> {
        unreachable!("nothing here makes a token")
    }
    fn used(&self, _: &Arc<LiveApiToken>, _: Timestamp) {
        self.uses.fetch_add(1, Ordering::SeqCst);
    }
    async fn list(&self, _: Option<&Owner>) -> Result<Vec<ApiToken>, Unavailable> {
        unreachable!("nothing here lists tokens")
    }
    async fn revoke(&self, _: Revoke<'_>) -> Result<u64, Unavailable> {
        unreachable!("nothing here revokes a token")
    }
}

/// Bob's password is `open`; `barred` says what stands in the way.
pub(crate) struct Door {
    pub(crate) barred: Mutex<Option<Barred>>,
    pub(crate) asked: AtomicI64,
    pub(crate) remembers: AtomicBool,
    /// His groups and his token version; `None`: he is gone.
    pub(crate) bob: Mutex<Option<(Vec<String>, u64)>>,
    /// Whether memory is sure that he is who he was.
    pub(crate) sure: Arc<AtomicBool>,
    pub(crate) down: AtomicBool,
    /// Milliseconds that a question about users takes.
    pub(crate) read_time: AtomicU64,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            barred: Mutex::default(),
            asked: AtomicI64::default(),
            remembers: AtomicBool::default(),
            bob: Mutex::new(Some((vec!["staff".to_owned()], 1))),
            sure: Arc::default(),
            down: AtomicBool::default(),
            read_time: AtomicU64::default(),
        }
    }
}

impl Door {
    fn opened(&self, presented: &Presentation) -> Option<Recognised> {
        (presented.user == "bob" && presented.password.expose_secret() == "open").then(|| self.bob()).flatten()
    }

    pub(crate) fn bob(&self) -> Option<Recognised> {
        self.called("bob")
    }

    /// Bob, or somebody like him: whose name begins with his.
    pub(crate) fn called(&self, name: &str) -> Option<Recognised> {
        let (groups, version) = self.bob.lock().unwrap().clone().filter(|_| name.starts_with("bob"))?;
        let identity = Identity::new(&User::new(name, groups), Factor::One, NOW, None).unwrap();
        let watch = Arc::new(Sure(Arc::clone(&self.sure)));
        Some(Recognised { identity: Arc::new(identity), stamp: Stamp::of(version, "open"), watch })
    }
}

#[async_trait]
impl Passwords for Door {
    fn recall(&self, presented: &Presentation) -> Option<Recognised> {
        self.remembers.load(Ordering::SeqCst).then(|| self.opened(presented)).flatten()
    }
    fn is_kept(&self, presented: &Presentation) -> bool {
        self.recall(presented).is_some()
    }
    async fn look_up_each(&self, users: &[Arc<str>]) -> Result<Each<Arc<str>, Recognised>, Unavailable> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        passed(&self.read_time).await;
        if self.down.load(Ordering::SeqCst) {
            return Err(Unavailable { store: "users", detail: "down".to_owned() });
        }
        let found = users.iter().filter_map(|name| Some((Arc::clone(name), self.called(name)?)));
        Ok(Each { found: found.collect(), ..Each::default() })
    }
    async fn identify(&self, presented: Presentation) -> Told {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.barred.lock().unwrap().take() {
            Some(barred) => Err(barred),
            None => Ok(self.opened(&presented)),
        }
    }
}

async fn passed(millis: &AtomicU64) {
    tokio::time::sleep(Duration::from_millis(millis.load(Ordering::SeqCst))).await;
}

/// Under whom, and with which keys.
type Refusal = (Arc<TrustedIssuer>, Arc<KeySet>);

/// Keys, verified tokens and local names as a test sets them; nothing where it sets none.
#[derive(Default)]
pub(crate) struct Issuers {
    pub(crate) keys: Mutex<Option<Arc<KeySet>>>,
    /// What a fetch would bring.
    pub(crate) fetched: Mutex<Option<Arc<KeySet>>>,
    pub(crate) fetches: AtomicI64,
    pub(crate) remembered: Mutex<HashMap<ForeignTokenKey, Arc<VerifiedToken>>>,
    pub(crate) refused: Mutex<HashMap<ForeignTokenKey, Refusal>>,
    pub(crate) refusals: AtomicI64,
    pub(crate) local_names: Mutex<Vec<String>>,
    pub(crate) names_asked: AtomicI64,
    pub(crate) users_down: AtomicBool,
    /// Milliseconds that a question about many names takes.
    pub(crate) read_time: AtomicU64,
    /// Whether memory is sure of the users.
    pub(crate) sure: Arc<AtomicBool>,
}

struct Sure(Arc<AtomicBool>);

impl Issuers {
    /// Of a name that was no local user's.
    pub(crate) fn watch(&self) -> Arc<dyn Watch> {
        Arc::new(Sure(Arc::clone(&self.sure)))
    }
}

impl Watch for Sure {
    fn is_unchanged(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl IssuerKeys for Issuers {
    fn peek(&self, _: &KeyAddress) -> Option<Arc<KeySet>> {
        self.keys.lock().unwrap().clone()
    }
    async fn refreshed(&self, _: &KeyAddress) -> Result<Arc<KeySet>, Unavailable> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        if let Some(fetched) = self.fetched.lock().unwrap().take() {
            *self.keys.lock().unwrap() = Some(fetched);
        }
        let keys = self.keys.lock().unwrap().clone();
        keys.ok_or_else(|| Unavailable { store: "issuer_keys", detail: "none".to_owned() })
    }
}

#[async_trait]
impl ForeignTokens for Issuers {
    fn peek(&self, key: &ForeignTokenKey) -> Option<Arc<VerifiedToken>> {
        self.remembered.lock().unwrap().get(key).cloned()
    }
    fn remember(&self, key: ForeignTokenKey, token: Arc<VerifiedToken>) {
        self.remembered.lock().unwrap().insert(key, token);
    }
    fn is_refused(&self, key: &ForeignTokenKey, issuer: &Arc<TrustedIssuer>, keys: &Arc<KeySet>) -> bool {
        let refused = self.refused.lock().unwrap();
        refused.get(key).is_some_and(|(by, with)| Arc::ptr_eq(by, issuer) && Arc::ptr_eq(with, keys))
    }
    fn refuse(&self, key: ForeignTokenKey, issuer: &Arc<TrustedIssuer>, keys: &Arc<KeySet>) {
        self.refusals.fetch_add(1, Ordering::SeqCst);
        self.refused.lock().unwrap().insert(key, (Arc::clone(issuer), Arc::clone(keys)));
    }
    async fn check_name(&self, name: &str) -> Result<NameCheck, Unavailable> {
        self.names_asked.fetch_add(1, Ordering::SeqCst);
        if self.users_down.load(Ordering::SeqCst) {
            return Err(Unavailable { store: "users", detail: "down".to_owned() });
        }
        let is_taken = self.local_names.lock().unwrap().iter().any(|local| folded(local) == folded(name));
        Ok(if is_taken { NameCheck::Taken } else { NameCheck::Free(Some(self.watch())) })
    }
    async fn check_names(&self, names: &[Arc<str>]) -> Result<HashMap<Arc<str>, NameCheck>, Unavailable> {
        passed(&self.read_time).await;
        let mut checked = HashMap::new();
        for name in names {
            checked.insert(Arc::clone(name), self.check_name(name).await?);
        }
        Ok(checked)
    }
    fn forget_all(&self) {
        self.remembered.lock().unwrap().clear();
    }
}

/// What a gate asks where no issuer is trusted.
pub(crate) fn no_issuers() -> crate::gate::Foreign {
    foreign(&Arc::default())
}

pub(crate) fn foreign(issuers: &Arc<Issuers>) -> crate::gate::Foreign {
    crate::gate::Foreign { keys: Arc::clone(issuers) as _, tokens: Arc::clone(issuers) as _ }
}
