//! What the inner part asks of the outer: traits, at most eight methods each. Adapters stand in `store` and `observe`;
//! only `app` picks one.

mod api_tokens;
mod changes;
mod credentials;
#[cfg(test)]
pub(crate) mod fakes;
mod keys;
mod passwords;
mod sessions;
mod system;
mod users;

pub use api_tokens::{ApiTokenError, ApiTokens, LiveApiToken, Revoke};
pub use changes::{Change, ChangeKind, Changes};
pub use credentials::{Credentials, HashError, Hasher};
pub use keys::{Keys, SigningKey, SigningKeys};
pub use passwords::{
    Barred, Lead, Mark, PasswordKey, PasswordTurn, Passwords, Presentation, Regulation, Told, Try, VerifiedPasswords,
};
pub use sessions::{End, LiveSession, Peek, Sessions};
pub use system::{AuditEvent, AuditSink, Clock, Entropy, SourceLimit};
pub use users::{UserChange, UserError, Users};

/// A store cannot answer now. Never to be read as "no": the request fails closed (invariant 1).
#[derive(Debug, Clone, thiserror::Error)]
#[error("the {store} store cannot answer: {detail}")]
pub struct Unavailable {
    /// Label of metrics: `sessions`, `users`, `keys`, `changes`, `api_tokens`.
    pub store: &'static str,
    /// For the log alone. Never a value that was to be stored.
    pub detail: String,
}
