//! What is asked of the stores about open streams, where memory does not know. One question for all that it decides on.

use std::{collections::HashMap, sync::Arc};

use crate::{
    core::{
        ground::{Ground, OwnToken, Watch},
        identity::Identity,
        session::{SessionId, TokenHash},
    },
    gate::Gate,
    ports::{LiveApiToken, LiveSession, NameCheck, Recognised, SigningKeys, Unavailable},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Question {
    Session(SessionId),
    AccessToken(SessionId, Arc<OwnToken>),
    ApiToken(TokenHash),
    /// Whose password it was.
    User(Arc<str>),
    /// Whether it is a local user's now.
    Name(Arc<str>),
}

/// The answer, for all that it decides on.
pub enum Said {
    Session(Option<Arc<LiveSession>>),
    AccessToken {
        session: Option<Arc<LiveSession>>,
        keys: Arc<SigningKeys>,
        is_revoked: bool,
    },
    ApiToken(Option<Arc<LiveApiToken>>),
    User(Option<Recognised>),
    /// `None`: somebody is called so. Else what says whether that is still so, if anything can.
    Name {
        free: Option<Option<Arc<dyn Watch>>>,
    },
}

impl Question {
    /// `None`: there is nothing that could hold it open.
    #[must_use]
    pub fn about(identity: &Identity, ground: &Ground) -> Option<Self> {
        Some(match ground {
            Ground::Session => Self::Session(identity.session.clone()?),
            Ground::AccessToken(token) => Self::AccessToken(identity.session.clone()?, Arc::clone(token)),
            Ground::ApiToken(hash) => Self::ApiToken(*hash),
            Ground::Password { .. } => Self::User(Arc::clone(&identity.user)),
            Ground::Foreign { .. } => Self::Name(Arc::clone(&identity.user)),
        })
    }
}

impl Gate {
    /// `None`: the store cannot say.
    pub async fn ask_store(&self, question: &Question) -> Option<Said> {
        told(self.asked(question).await)
    }

    async fn asked(&self, question: &Question) -> Result<Said, Unavailable> {
        Ok(match question {
            Question::Session(id) => Said::Session(self.sessions.find_id(id).await?),
            Question::AccessToken(session, token) => {
                let session = self.sessions.find_id(session).await?;
                let is_revoked = self.is_revoked(&token.jti).await?;
                Said::AccessToken { session, keys: self.keys.sure().await?, is_revoked }
            }
            Question::ApiToken(hash) => Said::ApiToken(self.api_tokens.find(hash).await?),
            Question::User(name) => Said::User(self.passwords.look_up(name).await?),
            Question::Name(name) => Said::Name {
                free: match self.foreign.tokens.check_name(name).await? {
                    NameCheck::Taken => None,
                    NameCheck::Free(watch) => Some(watch),
                },
            },
        })
    }

    /// Of many sessions in one question; what is not among them is none. `None`: the store cannot say.
    pub async fn ask_for_sessions(&self, ids: &[SessionId]) -> Option<HashMap<SessionId, Arc<LiveSession>>> {
        let found = told(self.sessions.find_ids(ids).await)?;
        Some(found.into_iter().map(|live| (live.session.id.clone(), live)).collect())
    }
}

fn told<T>(asked: Result<T, Unavailable>) -> Option<T> {
    asked
        .inspect_err(|unavailable| {
            tracing::debug!(store = unavailable.store, error = %unavailable, "cannot tell whether a stream may go on");
        })
        .ok()
}
