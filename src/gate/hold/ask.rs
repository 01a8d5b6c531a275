//! What is asked of the stores about open streams, where memory does not know. One question for all that it decides on.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::{
    core::{
        ground::{Ground, OwnToken, Watch},
        identity::Identity,
        session::{SessionId, TokenHash},
    },
    gate::Gate,
    ports::{Each, LiveApiToken, LiveSession, NameCheck, Recognised, SigningKeys, Unavailable},
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

/// What the store said of many sessions.
pub type Sessions = Each<SessionId, Arc<LiveSession>>;

/// Each of these asks about many at once. `None`: the store cannot say; what is not among the answers it cannot say alone.
impl Gate {
    pub async fn ask_for_sessions(&self, ids: &[SessionId]) -> Option<Sessions> {
        told(self.sessions.find_ids(ids).await)
    }

    /// Which of our keys verify: for access tokens, with [`Gate::ask_which_are_revoked`].
    pub async fn ask_for_keys(&self) -> Option<Arc<SigningKeys>> {
        told(self.keys.sure().await)
    }

    /// The `jti` of those that were revoked. Asks the store only while memory may be stale.
    pub async fn ask_which_are_revoked(&self, tokens: &[Arc<OwnToken>]) -> Option<HashSet<String>> {
        told(self.revoked_among(tokens.iter().map(|token| token.jti.as_str())).await)
    }

    pub async fn ask_for_api_tokens(&self, hashes: &[TokenHash]) -> Option<HashMap<Question, Said>> {
        let each = told(self.api_tokens.find_each(hashes).await)?;
        let said = |hash: &TokenHash| Some((Question::ApiToken(*hash), Said::ApiToken(each.said(hash)?)));
        Some(hashes.iter().filter_map(said).collect())
    }

    pub async fn ask_for_users(&self, names: &[Arc<str>]) -> Option<HashMap<Question, Said>> {
        let each = told(self.passwords.look_up_each(names).await)?;
        let said = |name: &Arc<str>| Some((Question::User(Arc::clone(name)), Said::User(each.said(name)?)));
        Some(names.iter().filter_map(said).collect())
    }

    pub async fn ask_for_names(&self, names: &[Arc<str>]) -> Option<HashMap<Question, Said>> {
        let checked = told(self.foreign.tokens.check_names(names).await)?;
        let said = checked.into_iter().map(|(name, check)| {
            let free = match check {
                NameCheck::Taken => None,
                NameCheck::Free(watch) => Some(watch),
            };
            (Question::Name(name), Said::Name { free })
        });
        Some(said.collect())
    }
}

fn told<T>(asked: Result<T, Unavailable>) -> Option<T> {
    asked
        .inspect_err(|unavailable| {
            tracing::debug!(store = unavailable.store, error = %unavailable, "cannot tell whether a stream may go on");
        })
        .ok()
}
