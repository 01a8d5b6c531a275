//! What the inner part asks of the outer: traits, at most eight methods each. Adapters stand in `store` and `observe`;
//! only `app` picks one.

mod api_tokens;
mod changes;
mod counters;
mod credentials;
mod each;
#[cfg(test)]
pub(crate) mod fakes;
mod hand_over;
mod issuer_keys;
mod keys;
mod notices;
mod passwords;
mod regulation;
mod sessions;
mod system;
mod tokens;
mod users;

pub use api_tokens::{ApiTokenError, ApiTokens, LiveApiToken, Revoke};
pub use changes::{Change, ChangeKind, Changes};
pub use counters::{Ask, CounterKey, Counters, RefusedBy, Taken};
pub use credentials::{Credentials, HashError, Hasher};
pub use each::Each;
pub use hand_over::{HandOver, HandOvers};
pub use issuer_keys::{ForeignTokens, IssuerKeys, NameCheck, VerifiedToken};
pub use keys::{CannotSign, KeyState, KeyTimes, Keys, Rotation, Signer, SigningKey, SigningKeys, Takeover};
pub use notices::{DEVICE_LIFE, Devices, MOST_AT_ONCE, Mail, Mailer, Seen};
pub use passwords::{
    Barred, Lead, Mark, PasswordKey, PasswordTurn, Passwords, Presentation, Recognised, Told, VerifiedPasswords,
};
pub use regulation::{Admitted, Guess, Known, Regulation, Try, Waits, Whose};
pub use sessions::{End, LiveSession, Peek, Sessions};
pub use system::{AuditEvent, AuditSink, Clock, Entropy, Geo, SourceLimit};
pub use tokens::{Exchange, Exchanged, RefreshToken, Revocation, Revoked, Tokens};
pub use users::{UserChange, UserError, Users, Whom};

/// A store cannot answer now. Never to be read as "no": the request fails closed (invariant 1).
#[derive(Debug, Clone, thiserror::Error)]
#[error("the {store} store cannot answer: {detail}")]
pub struct Unavailable {
    /// Label of metrics: `sessions`, `users`, `keys`, `changes`, `hand_overs`, `tokens`, `api_tokens`, `issuer_keys`, `devices`, `counters`, `regulation`.
    pub store: &'static str,
    /// For the log alone. Never a value that was to be stored.
    pub detail: String,
}
