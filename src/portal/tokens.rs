//! One's own API tokens on the account page; `token_api` is the same for programs. Needs both cookies: a token must not make tokens (THREATS 59);
//! absent with `portal.path`.
//!
//! The token is in the answer that makes it and in no other; nothing here puts one into a URL.

use std::time::Duration;

use askama::Template;
use axum::extract::Path;
use bytes::Bytes;
use http::{Response, StatusCode};
use secrecy::ExposeSecret as _;

use super::{
    account::{ago, allowed},
    look::Shell,
    pages::{unavailable, with_form},
    visit::Visit,
};
use crate::{
    core::{
        api_token::{ApiToken, ApiTokenId, BadScope, Owner, Scopes},
        time::Timestamp,
    },
    identity::api_tokens::{Issued, TokenDesk, TokenFault, USUAL_LIFE, Wish},
    ports::{ApiTokenError, LiveSession},
};

pub(super) const DAY: u64 = 86_400;
/// Longest life that may be asked for in days; whoever needs more takes none.
const MOST_DAYS: u64 = 3_650;

/// A token as the account page lists it.
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) scopes: String,
    pub(super) created: String,
    pub(super) last_used: Option<String>,
    pub(super) expires: Option<String>,
    pub(super) is_expired: bool,
}

#[derive(Template)]
#[template(path = "token.html")]
struct TokenPage {
    shell: Shell,
    base: String,
    name: String,
    token: String,
    scopes: String,
    expires: Option<String>,
}

/// What the form sent, to be shown again beside what is wrong with it.
#[derive(Default, Clone)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) hosts: String,
    pub(super) read: bool,
    pub(super) days: String,
    /// The field and what is wrong with it.
    pub(super) error: Option<(&'static str, String)>,
}

impl Draft {
    pub(super) fn usual() -> Self {
        Self { days: (USUAL_LIFE.as_secs() / DAY).to_string(), ..Self::default() }
    }

    pub(super) fn is_wrong(&self, field: &str) -> bool {
        self.error.as_ref().is_some_and(|(place, _)| *place == field)
    }

    pub(super) fn fault(&self) -> &str {
        self.error.as_ref().map_or("", |(_, text)| text)
    }

    fn read(body: &[u8]) -> Self {
        let value =
            |name: &str| form_urlencoded::parse(body).find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        Self {
            name: value("name").unwrap_or_default(),
            hosts: value("hosts").unwrap_or_default(),
            read: value("read").is_some(),
            days: value("days").unwrap_or_default(),
            error: None,
        }
    }

    fn wish(&self, live: &LiveSession) -> Result<Wish, (&'static str, String)> {
        let hosts = self.hosts.split([',', ' ', '\n', '\r']).map(str::trim).filter(|host| !host.is_empty());
        let words: Vec<String> =
            hosts.map(|host| format!("host:{host}")).chain(self.read.then(|| "read".to_owned())).collect();
        let scopes = Scopes::parse(words.iter().map(String::as_str)).map_err(|bad| ("hosts", told(&bad)))?;
        let life = match self.days.as_str() {
            "never" => None,
            days => {
                Some(life_of(days.parse().ok()).ok_or_else(|| ("days", "Choose how long it is to live.".to_owned()))?)
            }
        };
        Ok(wish_of(live, self.name.clone(), scopes, life))
    }
}

fn told(bad: &BadScope) -> String {
    match bad {
        BadScope::Host(scope) => {
            let host = scope.trim_start_matches("host:");
            format!("“{host}” is no name of a host. Write it without https:// and without a path.")
        }
        other => capitalised(other),
    }
}

/// As a sentence.
fn capitalised(fault: &impl ToString) -> String {
    let text = fault.to_string();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

pub(super) fn life_of(days: Option<u64>) -> Option<Duration> {
    days.filter(|days| (1..=MOST_DAYS).contains(days)).map(|days| Duration::from_secs(days * DAY))
}

pub(super) fn wish_of(live: &LiveSession, name: String, scopes: Scopes, life: Option<Duration>) -> Wish {
    let user = live.user().to_owned();
    Wish {
        owner: Owner::User(user.clone()),
        name,
        scopes,
        life,
        groups: None,
        created_by: Some(user),
        version: Some(live.identity.token_version),
    }
}

pub(super) fn desk(visit: &Visit) -> TokenDesk<'_> {
    TokenDesk {
        tokens: &*visit.portal.api_tokens,
        clock: &*visit.portal.clock,
        entropy: &*visit.portal.entropy,
        audit: &*visit.portal.audit,
        metrics: Some(&visit.portal.metrics),
        address: visit.arrival.client.known(),
        request_id: Some(&visit.arrival.request_id),
    }
}

pub(super) fn own(live: &LiveSession) -> Owner {
    Owner::User(live.user().to_owned())
}

/// The person's tokens, for the account page.
pub(super) async fn rows(
    visit: &Visit,
    live: &LiveSession,
    now: Timestamp,
) -> Result<Vec<Row>, crate::ports::Unavailable> {
    let tokens = desk(visit).list_of(&own(live)).await?;
    Ok(tokens.iter().map(|token| row(token, now)).collect())
}

fn row(token: &ApiToken, now: Timestamp) -> Row {
    Row {
        id: token.id().0,
        name: token.name.clone(),
        scopes: in_words(&token.scopes),
        created: ago(now.since(token.created_at)),
        last_used: token.last_used_at.map(|at| ago(now.since(at))),
        expires: token.expires_at.map(day),
        is_expired: token.is_expired(now),
    }
}

fn in_words(scopes: &Scopes) -> String {
    let words: Vec<String> = scopes.words().collect();
    let hosts: Vec<&str> = words.iter().filter_map(|word| word.strip_prefix("host:")).collect();
    let what = if words.iter().any(|word| word == "read") { "reads" } else { "reads and writes" };
    if hosts.is_empty() { format!("{what} everywhere") } else { format!("{what} on {}", hosts.join(", ")) }
}

fn day(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.unix_millis())
        .map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).date().to_string())
        .unwrap_or_default()
}

/// The form of the account page.
pub(super) async fn create(visit: Visit, body: Bytes) -> Response<String> {
    let live = match allowed(&visit, &body).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    let draft = Draft::read(&body);
    let made = match draft.wish(&live) {
        Ok(wish) => desk(&visit).issue(wish).await,
        Err(error) => return again(&visit, &live, draft, error).await,
    };
    match made {
        Ok(Issued { token, secret }) => with_form(&visit, StatusCode::CREATED, |_, shell| TokenPage {
            shell,
            base: visit.base.clone(),
            name: token.name.clone(),
            token: secret.expose_secret().to_owned(),
            scopes: in_words(&token.scopes),
            expires: token.expires_at.map(day),
        }),
        Err(TokenFault::Store(ApiTokenError::Unavailable(error))) => unavailable(&visit, &error),
        Err(fault) => again(&visit, &live, draft, ("name", sentence(&fault))).await,
    }
}

async fn again(visit: &Visit, live: &LiveSession, draft: Draft, error: (&'static str, String)) -> Response<String> {
    super::account::page(visit, live, StatusCode::BAD_REQUEST, None, Draft { error: Some(error), ..draft }).await
}

fn sentence(fault: &TokenFault) -> String {
    match fault {
        TokenFault::NoName => "Say what the token is for.".to_owned(),
        other => capitalised(other),
    }
}

pub(super) async fn revoke(visit: Visit, Path(id): Path<String>, body: Bytes) -> Response<String> {
    let live = match allowed(&visit, &body).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    match desk(&visit).revoke_own(&own(&live), &ApiTokenId(id)).await {
        // One that is gone already is what was asked for.
        Ok(_) => visit.redirect(&format!("{}/account?token_revoked", visit.base)),
        Err(error) => unavailable(&visit, &error),
    }
}
