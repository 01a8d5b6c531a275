use std::{net::IpAddr, time::Duration};

use crate::core::{place::Country, time::Timestamp};

/// What time it is (invariant 4).
pub trait Clock: Send + Sync {
    fn now(&self) -> Timestamp;
    /// Since some fixed point; never goes back. For durations.
    fn monotonic(&self) -> Duration;
}

/// Unpredictable bytes from the operating system.
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

/// The cheap limit per source address that stands before every look-up (`server.source_limit`).
pub trait SourceLimit: Send + Sync {
    /// # Errors
    /// How long to wait.
    fn take(&self, source: IpAddr) -> Result<(), Duration>;
}

/// Which country an address is in, where a database of addresses is configured (`geo.database`). Reads memory alone.
pub trait Geo: Send + Sync {
    fn country(&self, address: IpAddr) -> Option<Country>;
}

/// Something that somebody may have to answer for. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// `sign_in`, `sign_in_failed`, `sign_out`, `session_ended`, `user_changed`, `hand_over`, `refresh_reused`, `refresh_repeated`,
    /// `refresh_limit`, `revocation_limit`, `token_created`, `token_revoked`, `sign_in_delayed` (from now on, since one more was wrong), `user_unlocked`
    /// (by each node that hears of it).
    pub event: &'static str,
    pub user: Option<String>,
    pub address: Option<IpAddr>,
    pub request_id: Option<String>,
    /// Stable words: `bad_password`, `unknown_user`, `disabled`; of a delay `name`, `address`, `address_and_name`, `device`.
    pub detail: &'static str,
}

pub trait AuditSink: Send + Sync {
    fn record(&self, event: AuditEvent);
}
