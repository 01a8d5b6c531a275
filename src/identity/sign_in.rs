//! Password sign-in: verify, make a session, end the ones the request named. Called by the portal's form and by its API.
//!
//! Whether the password is right is asked of `passwords`. Nothing of an older session lives on in the new one (THREATS 33, 34): id and both cookie
//! values are new.

use std::{net::IpAddr, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::SecretString;

use super::{
    passwords::{Knock, PasswordDoor},
    tokens,
};
use crate::{
    core::{
        device::MAX_USER_AGENT,
        identity::Factor,
        session::{Session, SessionId, TokenHash},
        site::Site,
        user::User,
    },
    observe::metrics::Metrics,
    ports::{AuditEvent, AuditSink, Barred, Clock, End, Entropy, Keys, LiveSession, Sessions, Unavailable},
};

/// Label of `auth_login_total`.
const PROVIDER: &str = "password";

/// What signing in needs; one a process.
pub struct SignIn {
    pub passwords: Arc<PasswordDoor>,
    pub sessions: Arc<dyn Sessions>,
    pub keys: Arc<dyn Keys>,
    pub clock: Arc<dyn Clock>,
    pub entropy: Arc<dyn Entropy>,
    pub audit: Arc<dyn AuditSink>,
    pub metrics: Arc<Metrics>,
}

/// What the person sent, and from where.
pub struct Attempt {
    pub user: String,
    pub password: SecretString,
    pub remember_me: bool,
    /// The cookie domain to sign in on ("" with `portal.path`).
    pub domain: String,
    pub user_agent: String,
    pub address: Option<IpAddr>,
    pub request_id: String,
    /// The values of the device cookie.
    pub devices: Vec<String>,
    /// Sessions named by the request's cookies: ended with the sign-in.
    pub replaced: Vec<SessionId>,
}

/// The secrets of a fresh session: shown once, to the browser or the API's caller.
pub struct SignedIn {
    pub session: Arc<LiveSession>,
    /// Value of `postern_session`.
    pub gate_cookie: SecretString,
    /// Value of the portal's own cookie.
    pub portal_cookie: SecretString,
    pub access_token: SecretString,
    /// Value of the device cookie, where devices are known.
    pub device_cookie: Option<SecretString>,
}

#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Unknown user, wrong password, disabled: one answer for all (THREATS 39).
    #[error("the user name or the password is wrong")]
    Refused,
    /// By regulation.
    #[error("too many sign-ins; again in {0:?}")]
    SlowDown(Duration),
    #[error("too many sign-ins at once")]
    Busy,
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

impl From<Barred> for SignInError {
    fn from(barred: Barred) -> Self {
        match barred {
            Barred::SlowDown(wait) => Self::SlowDown(wait),
            Barred::Busy => Self::Busy,
            Barred::Unavailable(unavailable) => Self::Unavailable(unavailable),
        }
    }
}

impl SignIn {
    /// # Errors
    /// As [`SignInError`] says; a refusal costs the same time whatever its reason.
    pub async fn with_password(&self, site: &Site, attempt: Attempt) -> Result<SignedIn, SignInError> {
        let result = self.attempted(site, attempt).await;
        let status = match &result {
            Ok(_) => "success",
            Err(SignInError::Refused) => "failure",
            Err(SignInError::SlowDown(_)) => "slow_down",
            Err(SignInError::Busy) => "busy",
            Err(SignInError::Unavailable(_)) => "unavailable",
        };
        self.metrics.login(PROVIDER, status);
        result
    }

    async fn attempted(&self, site: &Site, mut attempt: Attempt) -> Result<SignedIn, SignInError> {
        let devices: Vec<TokenHash> = attempt.devices.iter().map(|value| TokenHash::of(value)).collect();
        let knock = Knock {
            user: &attempt.user,
            password: std::mem::take(&mut attempt.password),
            provider: PROVIDER,
            address: attempt.address,
            request_id: Some(&attempt.request_id),
            devices: &devices,
            pair: None,
        };
        match self.passwords.opened(knock).await? {
            Some((user, _)) => self.signed_in(site, user, attempt).await,
            None => Err(SignInError::Refused),
        }
    }

    async fn signed_in(&self, site: &Site, user: User, attempt: Attempt) -> Result<SignedIn, SignInError> {
        let now = self.clock.now();
        let gate_cookie = random_value(&*self.entropy);
        let portal_cookie = random_value(&*self.entropy);
        let session = Session {
            id: session_id(&*self.entropy),
            user: user.name,
            factor: Factor::One,
            domain: attempt.domain.clone(),
            gate_hash: TokenHash::of(&gate_cookie),
            portal_hash: TokenHash::of(&portal_cookie),
            // Where the offer is not made, nobody can take it by hand.
            remembered: attempt.remember_me && !site.lifetimes.remember_me.is_zero(),
            created_at: now,
            signed_in_at: now,
            last_used_at: now,
            user_agent: kept_user_agent(&attempt.user_agent),
            address: attempt.address,
            parent: None,
        };
        // Before the session: one that nobody has the secrets of must not be left behind for want of a key, nor the older ones ended.
        let keys = self.keys.sure().await?;
        let live = self.sessions.create(session, &attempt.replaced).await?;
        if live.identity.token_version != user.token_version {
            // The password was changed after it was verified, and before this session was there to be ended with the others.
            self.sessions.end(End::One(live.id())).await?;
            self.record("sign_in_failed", Some(live.user()), &attempt, "changed_meanwhile");
            return Err(SignInError::Refused);
        }
        let access_token = match tokens::issue(&keys, &site.tokens, &live, now, &*self.entropy) {
            Ok(token) => token,
            Err(error) => {
                self.sessions.end(End::One(live.id())).await?;
                return Err(Unavailable::from(error).into());
            }
        };
        self.record("sign_in", Some(live.user()), &attempt, "password");
        Ok(SignedIn {
            session: live,
            gate_cookie: gate_cookie.into(),
            portal_cookie: portal_cookie.into(),
            access_token,
            device_cookie: None,
        })
    }

    fn record(&self, event: &'static str, user: Option<&str>, attempt: &Attempt, detail: &'static str) {
        self.audit.record(AuditEvent {
            event,
            user: user.map(str::to_owned),
            address: attempt.address,
            request_id: Some(attempt.request_id.clone()),
            detail,
        });
    }
}

pub(super) fn kept_user_agent(user_agent: &str) -> String {
    user_agent.chars().filter(|c| !c.is_control()).take(MAX_USER_AGENT).collect()
}

/// 128 bits in hexadecimal: a person copies it to the command line, where base64url could begin with a dash and be taken
/// for a flag. It opens nothing, so it need not be as long as a cookie.
pub(super) fn session_id(entropy: &dyn Entropy) -> SessionId {
    let mut bytes = [0_u8; 16];
    entropy.fill(&mut bytes);
    SessionId::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// 256 bits in base64url: 43 characters that can stand in a cookie, a header and a URL.
#[must_use]
pub fn random_value(entropy: &dyn Entropy) -> String {
    let mut bytes = [0_u8; 32];
    entropy.fill(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}
