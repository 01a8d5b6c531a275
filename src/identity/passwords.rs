//! The one door for passwords: the sign-in form, the login API and Basic all go through it, so that regulation counts them together (THREATS 37).
//! Called by `sign_in`, and by `gate` through [`Passwords`].
//!
//! Must never tell why it refused, not by its answer and not by how long it took (THREATS 39): an unknown, a disabled and a known user run through
//! the same look-ups and one hash of the same cost. Never answers by a password that was wrong before.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};

use super::notice::NOTED_EACH;
use crate::{
    core::{
        ground::Stamp,
        identity::{Factor, Identity},
        regulation::place_of,
        session::TokenHash,
        user::{MAX_NAME, User, folded},
    },
    observe::metrics::Metrics,
    ports::{
        Admitted, AuditEvent, AuditSink, Barred, Clock, Credentials, Devices, Each, Guess, HashError, Hasher, Known,
        Mark, PasswordKey, PasswordTurn, Passwords, Presentation, Recognised, Regulation, Seen, Told, Try, Unavailable,
        Users, VerifiedPasswords,
    },
};

/// Basic that is being verified at once, at most: below the room in the hasher's queue, so that programs with a wrong password keep nobody from
/// the sign-in page.
const MOST_BASIC: usize = 48;

/// What verifying a password needs; one a process.
pub struct PasswordDoor {
    pub users: Arc<dyn Users>,
    pub devices: Arc<dyn Devices>,
    pub credentials: Arc<dyn Credentials>,
    pub hasher: Arc<dyn Hasher>,
    pub regulation: Arc<dyn Regulation>,
    pub verified: Arc<dyn VerifiedPasswords>,
    pub clock: Arc<dyn Clock>,
    pub audit: Arc<dyn AuditSink>,
    pub metrics: Arc<Metrics>,
    /// Basic that is being verified now.
    pub under_way: AtomicUsize,
}

/// A password that somebody typed or a program sent.
pub(super) struct Knock<'k> {
    pub(super) user: &'k str,
    pub(super) password: SecretString,
    /// Label of `auth_login_total`.
    pub(super) provider: &'static str,
    pub(super) address: Option<IpAddr>,
    pub(super) request_id: Option<&'k str>,
    /// What the browser holds of devices that somebody signed in on.
    pub(super) devices: &'k [TokenHash],
    /// Of Basic, which repeats itself with every request: a wrong one counts once.
    pub(super) pair: Option<PasswordKey>,
}

impl PasswordDoor {
    /// The user whose password it is; `None`, put on record, whatever the reason.
    pub(super) async fn opened(&self, knock: Knock<'_>) -> Result<Option<(User, Stamp)>, Barred> {
        let (address, request_id) = (knock.address, knock.request_id);
        let typed = knock.user.trim();
        match self.verified_as(knock).await? {
            Ok(opened) => Ok(Some(opened)),
            Err(reason) => {
                self.audit.record(AuditEvent {
                    event: "sign_in_failed",
                    // What was typed as a name may be a password: it is put on record only where it is a name we know.
                    user: (reason != "unknown_user").then(|| typed.to_owned()),
                    address,
                    request_id: request_id.map(str::to_owned),
                    detail: reason,
                });
                Ok(None)
            }
        }
    }

    /// The user, or the stable word for the audit log that says why not.
    async fn verified_as(&self, knock: Knock<'_>) -> Result<Result<(User, Stamp), &'static str>, Barred> {
        let Knock { user: name, password, provider, address, request_id, devices, pair } = knock;
        let known = name_in(name);
        let user = self.users.find(known).await?;
        let account = self.account_of(known, user.as_ref()).await?;
        // Basic brings no cookies: what is known of a program is where it is.
        let place = pair.and(address).map(place_of);
        let devices = place.as_ref().map_or(devices, std::slice::from_ref);
        let seen = self.seen(&account, user.as_ref(), devices).await?;
        let tried = Try {
            guess: Guess::Password,
            account: &account,
            address,
            provider,
            known: match &seen {
                None => Known::Nothing,
                Some(_) if place.is_some() => Known::Place,
                Some(seen) => Known::Device(&seen.device),
            },
            is_repeated: pair.is_some_and(|pair| self.verified.was_wrong(&pair, false)),
        };
        let admitted = self.regulation.admit(tried).await?;
        let verified = match self.compared(known, user, password).await {
            Ok(verified) => verified,
            Err(unjudged) => {
                self.give_back(admitted).await;
                return Err(unjudged);
            }
        };
        // Before anybody is told: where it cannot be settled nobody learns what it was, or the answer would tell right from wrong and count nothing.
        let begins = self.regulation.settle(admitted, verified.is_err()).await?;
        match (&verified, place) {
            (Ok((user, _)), Some(place)) => self.note(user, &place, seen).await,
            (Ok(_), None) => {}
            (Err(reason), _) => {
                if let Some(pair) = pair {
                    self.verified.was_wrong(&pair, true);
                }
                if let Some(by) = begins {
                    self.audit.record(AuditEvent {
                        event: "sign_in_delayed",
                        user: (*reason != "unknown_user").then(|| account.clone()),
                        address,
                        request_id: request_id.map(str::to_owned),
                        detail: by.as_str(),
                    });
                }
            }
        }
        Ok(verified)
    }

    /// Of what nobody judged. What is not given back is free again by itself.
    async fn give_back(&self, admitted: Admitted) {
        if let Err(error) = self.regulation.settle(admitted, false).await {
            tracing::warn!(%error, "a sign-in is taken for one that nobody has judged yet");
        }
    }

    /// One hash, whoever it is.
    async fn compared(
        &self,
        known: &str,
        user: Option<User>,
        password: SecretString,
    ) -> Result<Result<(User, Stamp), &'static str>, Barred> {
        let stored = self.credentials.password_hash(known).await?;
        let has_password = stored.is_some();
        let compared = stored.clone().or_else(|| self.credentials.decoy());
        let right = self.hasher.verify(password, compared).await.map_err(|error| match error {
            HashError::Busy => Barred::Busy,
            HashError::Failed(detail) => Barred::Unavailable(Unavailable { store: "hasher", detail }),
        })?;
        Ok(match user {
            None => Err("unknown_user"),
            Some(user) if user.disabled => Err("disabled"),
            Some(user) if right && has_password => self.unchanged(known, user, stored).await?.ok_or("bad_password"),
            Some(_) => Err("bad_password"),
        })
    }

    /// What a try counts for (THREATS 38). Whether the name could be an e-mail address is seen by what was typed alone, so that the look-up tells nobody
    /// which names there are.
    async fn account_of(&self, known: &str, user: Option<&User>) -> Result<String, Unavailable> {
        let owner = if known.contains('@') { self.credentials.owner_of(known).await? } else { None };
        Ok(match (user, owner) {
            (Some(user), _) => folded(&user.name),
            (None, Some(owner)) => owner,
            (None, None) => folded(known),
        })
    }

    /// On which of these the user signed in before. Asked for a name that is nobody's as well, which takes as long then (THREATS 39).
    async fn seen(
        &self,
        account: &str,
        user: Option<&User>,
        devices: &[TokenHash],
    ) -> Result<Option<Seen>, Unavailable> {
        if devices.is_empty() {
            return Ok(None);
        }
        let version = user.map_or(0, |user| user.token_version);
        self.devices.last_seen(account, version, devices).await
    }

    /// From now on the user is known there.
    async fn note(&self, user: &User, place: &TokenHash, seen: Option<Seen>) {
        if seen.is_some_and(|seen| self.clock.now().since(seen.at) < NOTED_EACH) {
            return;
        }
        if let Err(error) = self.devices.note(&user.name, user.token_version, place).await {
            tracing::warn!(user = user.name, %error, "an address cannot be noted as known");
        }
    }

    /// The user as read anew: what changed while the password was hashed, and was acknowledged, holds already.
    async fn unchanged(
        &self,
        known: &str,
        user: User,
        stored: Option<SecretString>,
    ) -> Result<Option<(User, Stamp)>, Unavailable> {
        let stamp = stored.map(|stored| Stamp::of(user.token_version, stored.expose_secret()));
        Ok(self.stamped(known).await?.filter(|(_, now)| Some(*now) == stamp))
    }

    /// A user who may sign in, whatever the password is.
    async fn stamped(&self, known: &str) -> Result<Option<(User, Stamp)>, Unavailable> {
        let Some(user) = self.users.find(known).await?.filter(|user| !user.disabled) else { return Ok(None) };
        let stored = self.credentials.password_hash(known).await?;
        let stamp = stored.map(|stored| Stamp::of(user.token_version, stored.expose_secret()));
        Ok(stamp.map(|stamp| (user, stamp)))
    }

    /// By the name that was typed: users are looked for by it folded.
    fn is_barred(&self, presented: &Presentation) -> bool {
        let account = folded(name_in(&presented.user));
        let tried = Try {
            guess: Guess::Password,
            account: &account,
            address: presented.address,
            provider: BASIC,
            known: Known::Nothing,
            is_repeated: false,
        };
        self.regulation.bars(tried).is_some()
    }

    fn recognised(&self, user: &User, stamp: Stamp, mark: &Mark) -> Result<Recognised, Unavailable> {
        let identity = Identity::new(user, Factor::One, self.clock.now(), None)
            .map_err(|error| Unavailable { store: "users", detail: error.to_string() })?;
        Ok(Recognised { identity: Arc::new(identity), stamp, watch: self.verified.watch(mark) })
    }

    async fn identified(&self, presented: Presentation, key: PasswordKey, mark: &Mark) -> Told {
        let Presentation { user, password, address } = presented;
        let knock =
            Knock { user: &user, password, provider: BASIC, address, request_id: None, devices: &[], pair: Some(key) };
        let Some((user, stamp)) = self.opened(knock).await? else { return Ok(None) };
        let recognised = self.recognised(&user, stamp, mark)?;
        self.verified.remember(key, &recognised, mark);
        self.audit.record(AuditEvent {
            event: "sign_in",
            user: Some(user.name),
            address,
            request_id: None,
            detail: BASIC,
        });
        Ok(Some(recognised))
    }

    /// What came of it, and since when changes of the user would have overtaken it.
    async fn led(&self, presented: Presentation, key: PasswordKey) -> (Told, Option<Mark>) {
        let Some(_turn) = Turn::take(&self.under_way) else { return (Err(Barred::Busy), None) };
        // Before the user is read: what changes from here on keeps the answer from being remembered.
        match self.verified.mark(name_in(&presented.user)).await {
            Ok(mark) => (self.identified(presented, key, &mark).await, Some(mark)),
            Err(unavailable) => (Err(unavailable.into()), None),
        }
    }
}

/// What is looked for: no user has a name as long as some that are sent.
fn name_in(typed: &str) -> &str {
    let name = typed.trim();
    if (1..=MAX_NAME).contains(&name.chars().count()) { name } else { "" }
}

/// Label of `auth_login_total`, and the word of the audit log.
const BASIC: &str = "basic";

#[async_trait]
impl Passwords for PasswordDoor {
    fn recall(&self, presented: &Presentation) -> Option<Recognised> {
        let found = self.verified.recall(&self.verified.key(presented), self.clock.now())?;
        (!self.is_barred(presented)).then_some(found)
    }

    fn is_kept(&self, presented: &Presentation) -> bool {
        self.is_barred(presented) || self.verified.recall(&self.verified.key(presented), self.clock.now()).is_some()
    }

    async fn identify(&self, presented: Presentation) -> Told {
        // A program may open many connections at once: one of them verifies the password for all, also one that is wrong.
        let key = self.verified.key(&presented);
        let found = match self.verified.turn(&key, presented.address).await {
            PasswordTurn::Told(Ok(Some(recognised))) => return Ok(Some(recognised)),
            PasswordTurn::Told(told) => told,
            PasswordTurn::Lead(lead) => {
                if let Some(recognised) = self.recall(&presented) {
                    return Ok(Some(recognised));
                }
                let (found, mark) = self.led(presented, key).await;
                lead.tell(found.clone(), mark);
                found
            }
        };
        let status = match &found {
            Ok(Some(_)) => "success",
            Ok(None) => "failure",
            Err(barred) => status_of(barred),
        };
        self.metrics.login(BASIC, status);
        found
    }

    async fn look_up_each(&self, users: &[Arc<str>]) -> Result<Each<Arc<str>, Recognised>, Unavailable> {
        let names: Vec<&str> = users.iter().map(|user| &**user).collect();
        // Before the users are read, as where a password is verified.
        let marks = self.verified.marks(&names).await?;
        let known = self.users.find_each(&names).await?;
        let stored = self.credentials.password_hashes(&names).await?;
        let mut each = Each::default();
        for (name, mark) in users.iter().zip(&marks) {
            let Some(user) = known.said(&folded(name)) else {
                each.unsure.insert(Arc::clone(name));
                continue;
            };
            let (Some(user), Some(stored)) = (user.filter(|user| !user.disabled), stored.get(&folded(name))) else {
                continue;
            };
            let stamp = Stamp::of(user.token_version, stored.expose_secret());
            match self.recognised(&user, stamp, mark) {
                Ok(recognised) => drop(each.found.insert(Arc::clone(name), recognised)),
                Err(_) => drop(each.unsure.insert(Arc::clone(name))),
            }
        }
        Ok(each)
    }
}

/// Label of `auth_login_total`.
const fn status_of(barred: &Barred) -> &'static str {
    match barred {
        Barred::SlowDown(_) => "slow_down",
        Barred::Busy => "busy",
        Barred::Unavailable(_) => "unavailable",
    }
}

/// A place among those who are being verified; free again when it is dropped, also half-way.
struct Turn<'t>(&'t AtomicUsize);

impl<'t> Turn<'t> {
    fn take(under_way: &'t AtomicUsize) -> Option<Self> {
        let before = under_way.fetch_add(1, Ordering::AcqRel);
        let turn = Self(under_way);
        (before < MOST_BASIC).then_some(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_given_back_whether_it_was_had_or_not() {
        let under_way = AtomicUsize::new(0);
        let turns: Vec<_> = (0..MOST_BASIC).map_while(|_| Turn::take(&under_way)).collect();
        assert_eq!(turns.len(), MOST_BASIC);
        assert!(Turn::take(&under_way).is_none() && Turn::take(&under_way).is_none());
        drop(turns);
        assert_eq!(under_way.load(Ordering::Acquire), 0);
        assert!(Turn::take(&under_way).is_some());
    }
}
