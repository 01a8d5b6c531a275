//! Making, listing and revoking API tokens. Called by the portal, which has made sure who the caller is, and by the command line.
//!
//! The secret leaves here once, at its making; what is kept is its hash. Must never touch a token of somebody else.

use std::{net::IpAddr, time::Duration};

use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    core::{
        api_token::{self, ApiToken, ApiTokenId, MAX_NAME, Owner, Scopes},
        session::TokenHash,
    },
    observe::metrics::Metrics,
    ports::{ApiTokenError, ApiTokens, AuditEvent, AuditSink, Clock, Entropy, Revoke, Unavailable},
};

/// How long a token lives where nobody says otherwise.
pub const USUAL_LIFE: Duration = Duration::from_secs(90 * 86_400);

/// The tokens of an owner, and how what is done with them is put on record.
pub struct TokenDesk<'a> {
    pub tokens: &'a dyn ApiTokens,
    pub clock: &'a dyn Clock,
    pub entropy: &'a dyn Entropy,
    pub audit: &'a dyn AuditSink,
    /// `None`: the command line, whose counters nobody reads.
    pub metrics: Option<&'a Metrics>,
    pub address: Option<IpAddr>,
    pub request_id: Option<&'a str>,
}

/// What a token is to be.
pub struct Wish {
    pub owner: Owner,
    pub name: String,
    pub scopes: Scopes,
    /// `None`: it never expires.
    pub life: Option<Duration>,
    /// Of a service account: its groups from now on.
    pub groups: Option<Vec<String>>,
    /// `None`: the command line.
    pub created_by: Option<String>,
    /// The person's token version as the session has it that asks: it may have ended, and memory not know yet. `None`: the command line.
    pub version: Option<u64>,
}

/// A new token; shown once.
pub struct Issued {
    pub token: ApiToken,
    pub secret: SecretString,
}

#[derive(Debug, thiserror::Error)]
pub enum TokenFault {
    #[error("a token needs a name that says what it is for")]
    NoName,
    #[error("the name of a token cannot be longer than {MAX_NAME} characters, nor hold a control character")]
    BadName,
    #[error("a token has to live for a while: the life given is 0")]
    NoLife,
    #[error(transparent)]
    Store(#[from] ApiTokenError),
}

impl TokenDesk<'_> {
    /// # Errors
    /// As [`TokenFault`] says.
    pub async fn issue(&self, wish: Wish) -> Result<Issued, TokenFault> {
        let name = wish.name.trim().to_owned();
        if name.is_empty() {
            return Err(TokenFault::NoName);
        }
        if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(TokenFault::BadName);
        }
        if wish.life.is_some_and(|life| life.is_zero()) {
            return Err(TokenFault::NoLife);
        }
        let mut random = [0; 32];
        self.entropy.fill(&mut random);
        let secret = api_token::compose(&wish.owner, random);
        let now = self.clock.now();
        let token = ApiToken {
            hash: TokenHash::of(secret.expose_secret()),
            owner: wish.owner,
            name,
            scopes: wish.scopes,
            created_at: now,
            expires_at: wish.life.map(|life| now.after(life)),
            last_used_at: None,
            created_by: wish.created_by,
            version: wish.version.unwrap_or_default(),
        };
        let token = self.tokens.create(token, wish.groups).await?;
        self.record("token_created", token.owner.name(), token.owner.kind());
        Ok(Issued { token, secret })
    }

    /// The person's tokens, newest first, with those that expired lately.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn list_of(&self, owner: &Owner) -> Result<Vec<ApiToken>, Unavailable> {
        self.tokens.list(Some(owner)).await
    }

    /// Revokes a token of the owner. `false`: there is none of that id that is theirs.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn revoke_own(&self, owner: &Owner, id: &ApiTokenId) -> Result<bool, Unavailable> {
        // By the list of the owner's own, so that a foreign id and an unknown one look the same.
        if !self.tokens.list(Some(owner)).await?.iter().any(|token| token.id() == *id) {
            return Ok(false);
        }
        let revoked = self.tokens.revoke(Revoke::One(id)).await?;
        // Of two at once one has revoked it.
        if revoked > 0 {
            if let Some(metrics) = self.metrics {
                metrics.token_revoked();
            }
            self.record("token_revoked", owner.name(), "by_owner");
        }
        Ok(revoked > 0)
    }

    /// Revokes whosever it is; for the command line. Answers how many.
    ///
    /// # Errors
    /// The store cannot answer.
    pub async fn revoke_any(&self, which: Revoke<'_>) -> Result<u64, Unavailable> {
        let owner = match which {
            // Before it is gone, for the record.
            Revoke::One(id) => {
                let all = self.tokens.list(None).await?;
                all.into_iter().find(|token| token.id() == *id).map(|token| token.owner)
            }
            Revoke::AllOf(owner) => Some(owner.clone()),
        };
        let revoked = self.tokens.revoke(which).await?;
        if let Some(owner) = owner.filter(|_| revoked > 0) {
            self.record("token_revoked", owner.name(), "by_command");
        }
        Ok(revoked)
    }

    fn record(&self, event: &'static str, user: &str, detail: &'static str) {
        self.audit.record(AuditEvent {
            event,
            user: Some(user.to_owned()),
            address: self.address,
            request_id: self.request_id.map(str::to_owned),
            detail,
        });
    }
}
