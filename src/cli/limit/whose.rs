//! Whose counts a KEY of `postern limit show` means, and which plan they are on: asked of the stores.

use std::net::IpAddr;

use anyhow::bail;
use http::{HeaderName, HeaderValue};

use super::key::Key;
use crate::{
    app::Stores,
    core::{
        api_token::{ApiTokenId, Owner},
        policy::Holder,
        session::{SessionId, TokenHash},
        user::plan_of,
    },
};

#[derive(Debug)]
pub(super) enum Who {
    Address(IpAddr),
    Peer(IpAddr),
    User(String),
    Service(String),
    Session(SessionId),
    Token(ApiTokenId, TokenHash),
    Header { name: HeaderName, value: Option<HeaderValue> },
    Cel(String),
}

/// One that a KEY may mean.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) who: Who,
    pub(super) plan: Plan,
    /// Nobody said that it is this, and no store knows it.
    pub(super) is_guess: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    None,
    /// Of a user in the store.
    Known(String),
    /// The command line says so.
    Chosen(String),
    /// It depends on who asks.
    Unknown,
}

impl Plan {
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::None | Self::Unknown => None,
            Self::Known(name) | Self::Chosen(name) => Some(name),
        }
    }

    fn known(name: Option<&str>) -> Self {
        name.map_or(Self::None, |name| Self::Known(name.to_owned()))
    }
}

impl Who {
    pub(super) fn holder(&self) -> Holder<'_> {
        match self {
            Self::Address(address) => Holder::Address(*address),
            Self::Peer(address) => Holder::Peer(*address),
            Self::User(name) => Holder::User(name),
            Self::Service(name) => Holder::Service(name),
            Self::Session(id) => Holder::Session(id),
            Self::Token(_, hash) => Holder::ApiToken(hash),
            Self::Header { name, value } => Holder::Header { name, value: value.as_ref().map(HeaderValue::as_bytes) },
            Self::Cel(text) => Holder::Expression(text),
        }
    }

    /// As KEY names it.
    pub(super) fn written(&self) -> String {
        match self {
            Self::Address(address) => format!("ip:{address}"),
            Self::Peer(address) => format!("peer:{address}"),
            Self::User(name) => format!("user:{name}"),
            Self::Service(name) => format!("client:{name}"),
            Self::Session(id) => format!("session:{}", id.as_str()),
            Self::Token(id, _) => format!("token:{}", id.0),
            Self::Header { name, value: None } => format!("header:{name}"),
            Self::Header { name, value: Some(value) } => {
                format!("header:{name}={}", String::from_utf8_lossy(value.as_bytes()))
            }
            Self::Cel(text) => format!("cel:{text}"),
        }
    }

    fn with(self, plan: Plan) -> Subject {
        Subject { who: self, plan, is_guess: false }
    }
}

/// All that KEY may mean: with a prefix one.
///
/// # Errors
/// A store does not answer, or there is no such token.
pub(super) async fn meant(stores: &Stores, key: Key) -> anyhow::Result<Vec<Subject>> {
    Ok(match key {
        Key::Ip(address) => vec![Who::Address(address.to_canonical()).with(Plan::None)],
        Key::Peer(address) => vec![Who::Peer(address.to_canonical()).with(Plan::None)],
        Key::User(name) => vec![user(stores, name).await?.0],
        Key::Service(name) => vec![Who::Service(name).with(Plan::None)],
        Key::Session(id) => {
            let id = SessionId::new(id);
            match session(stores, &id).await? {
                Some(subject) => vec![subject],
                // It may have ended, and what it took counts still.
                None => vec![Who::Session(id).with(Plan::Unknown)],
            }
        }
        Key::Token(id) => match token(stores, &id).await? {
            Some(subject) => vec![subject],
            None => bail!("there is no token of that id: `postern token list` shows all"),
        },
        Key::Header { name, value } => vec![Who::Header { name, value }.with(Plan::Unknown)],
        Key::Cel(text) => vec![Who::Cel(text).with(Plan::Unknown)],
        Key::Plain(text) => anything(stores, text).await?,
    })
}

async fn anything(stores: &Stores, text: String) -> anyhow::Result<Vec<Subject>> {
    let guess = |who: Who, plan| Subject { is_guess: true, ..who.with(plan) };
    let expression = guess(Who::Cel(text.clone()), Plan::Unknown);
    if let Ok(address) = text.parse::<IpAddr>() {
        let address = address.to_canonical();
        let peer = guess(Who::Peer(address), Plan::None);
        return Ok(vec![Who::Address(address).with(Plan::None), peer, expression]);
    }
    let mut all = Vec::new();
    let (user, is_known) = user(stores, text.clone()).await?;
    all.push(Subject { is_guess: !is_known, ..user });
    all.push(guess(Who::Service(text.clone()), Plan::None));
    all.extend(session(stores, &SessionId::new(text.as_str())).await?);
    all.extend(token(stores, &ApiTokenId(text)).await?);
    all.push(expression);
    Ok(all)
}

/// By the stored spelling; and whether the store knows one.
async fn user(stores: &Stores, name: String) -> anyhow::Result<(Subject, bool)> {
    let mut found = stores.users.find(&name).await?;
    // Sign-ins count for whose address it is, too.
    if found.is_none()
        && name.contains('@')
        && let Some(owner) = stores.credentials.owner_of(&name).await?
    {
        found = stores.users.find(&owner).await?;
    }
    Ok(match found {
        Some(user) => {
            let plan = Plan::known(plan_of(&user.attributes));
            (Who::User(user.name).with(plan), true)
        }
        // Of another issuer, perhaps: then the plan is a claim.
        None => (Who::User(name).with(Plan::Unknown), false),
    })
}

async fn session(stores: &Stores, id: &SessionId) -> anyhow::Result<Option<Subject>> {
    let found = stores.sessions.find_id(id).await?;
    Ok(found.map(|live| Who::Session(id.clone()).with(Plan::known(plan_of(&live.identity.attributes)))))
}

async fn token(stores: &Stores, id: &ApiTokenId) -> anyhow::Result<Option<Subject>> {
    if id.key().is_none() {
        return Ok(None);
    }
    let Some(token) = stores.api_tokens.list(None).await?.into_iter().find(|token| token.id() == *id) else {
        return Ok(None);
    };
    let plan = match &token.owner {
        Owner::User(name) => {
            let user = stores.users.find(name).await?;
            user.map_or(Plan::None, |user| Plan::known(plan_of(&user.attributes)))
        }
        Owner::Service(_) => Plan::None,
    };
    Ok(Some(Who::Token(id.clone(), token.hash).with(plan)))
}
