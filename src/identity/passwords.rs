//! The one door for passwords: the sign-in form, the login API and Basic all go through it, so that regulation counts them together (THREATS 37).
//! Called by `sign_in`, and by `gate` through [`Passwords`].
//!
//! Must never tell why it refused, not by its answer and not by how long it took (THREATS 39): an unknown, a disabled and a known user run through
//! the same look-ups and one hash of the same cost. Never remembers a password that was wrong.

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use secrecy::SecretString;

use crate::{
    core::{
        identity::{Factor, Identity},
        user::{MAX_NAME, User, folded},
    },
    observe::metrics::Metrics,
    ports::{
        AuditEvent, AuditSink, Barred, Clock, Credentials, HashError, Hasher, Passwords, Presentation, Regulation, Try,
        Unavailable, Users, VerifiedPasswords,
    },
};

/// Basic that is being verified at once, at most: below the room in the hasher's queue, so that programs with a wrong password keep nobody from
/// the sign-in page.
const MOST_BASIC: usize = 48;

/// What verifying a password needs; one a process.
pub struct PasswordDoor {
    pub users: Arc<dyn Users>,
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
}

impl PasswordDoor {
    /// The user whose password it is; `None`, put on record, whatever the reason.
    pub(super) async fn opened(&self, knock: Knock<'_>) -> Result<Option<User>, Barred> {
        let Knock { user: name, password, provider, address, request_id } = knock;
        let typed = name.trim();
        match self.verified_as(typed, password, provider, address).await? {
            Ok(user) => Ok(Some(user)),
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
    async fn verified_as(
        &self,
        name: &str,
        password: SecretString,
        provider: &'static str,
        address: Option<IpAddr>,
    ) -> Result<Result<User, &'static str>, Barred> {
        let known = if (1..=MAX_NAME).contains(&name.chars().count()) { name } else { "" };
        let user = self.users.find(known).await?;
        let account = folded(user.as_ref().map_or(known, |user| &user.name));
        let tried = Try { account: &account, address, provider };
        self.regulation.admit(tried).await?;
        let stored = self.credentials.password_hash(known).await?;
        let has_password = stored.is_some();
        let compared = stored.or_else(|| self.credentials.decoy());
        let right = self.hasher.verify(password, compared).await.map_err(|error| match error {
            HashError::Busy => Barred::Busy,
            HashError::Failed(detail) => Barred::Unavailable(Unavailable { store: "hasher", detail }),
        })?;
        let verified = match user {
            None => Err("unknown_user"),
            Some(user) if user.disabled => Err("disabled"),
            Some(user) if right && has_password => Ok(user),
            Some(_) => Err("bad_password"),
        };
        self.regulation.settled(tried, verified.is_ok()).await;
        Ok(verified)
    }

    async fn identified(&self, presented: Presentation) -> Result<Option<Arc<Identity>>, Barred> {
        // Before the user is read: what changes from here on keeps the answer from being remembered.
        let mark = self.verified.mark().await?;
        let key = self.verified.key(&presented.user, &presented.password);
        let Presentation { user, password, address } = presented;
        let knock = Knock { user: &user, password, provider: BASIC, address, request_id: None };
        let Some(user) = self.opened(knock).await? else { return Ok(None) };
        let identity = Identity::new(&user, Factor::One, self.clock.now(), None)
            .map_err(|error| Unavailable { store: "users", detail: error.to_string() })?;
        let identity = Arc::new(identity);
        self.verified.remember(key, &identity, mark);
        self.audit.record(AuditEvent {
            event: "sign_in",
            user: Some(user.name),
            address,
            request_id: None,
            detail: BASIC,
        });
        Ok(Some(identity))
    }
}

/// Label of `auth_login_total`, and the word of the audit log.
const BASIC: &str = "basic";

#[async_trait]
impl Passwords for PasswordDoor {
    fn recall(&self, presented: &Presentation) -> Option<Arc<Identity>> {
        let key = self.verified.key(&presented.user, &presented.password);
        self.verified.recall(&key, self.clock.now())
    }

    async fn identify(&self, presented: Presentation) -> Result<Option<Arc<Identity>>, Barred> {
        // A program may open many connections at once: one of them verifies the password for all.
        let _alone = self.verified.turn(&self.verified.key(&presented.user, &presented.password)).await;
        if let Some(identity) = self.recall(&presented) {
            return Ok(Some(identity));
        }
        let found = match Turn::take(&self.under_way) {
            Some(_turn) => self.identified(presented).await,
            None => Err(Barred::Busy),
        };
        let status = match &found {
            Ok(Some(_)) => "success",
            Ok(None) => "failure",
            Err(barred) => status_of(barred),
        };
        self.metrics.login(BASIC, status);
        found
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
