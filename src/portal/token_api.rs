//! One's own API tokens by the API (CONTRACT 7): by both cookies and nothing else, since a token must not make tokens (THREATS 59). Every answer is
//! JSON; the token is in the one that makes it and in no other.

use std::sync::Arc;

use axum::extract::Path;
use bytes::Bytes;
use http::{Response, StatusCode, header};
use secrecy::ExposeSecret as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    api::{answer, empty, is_json, time, unavailable},
    problem::Code,
    tokens::{DAY, desk, life_of, own, wish_of},
    visit::Visit,
};
use crate::{
    core::{
        api_token::{ApiToken, ApiTokenId, Scopes},
        time::Timestamp,
    },
    identity::api_tokens::{Issued, TokenFault, USUAL_LIFE},
    ports::{ApiTokenError, LiveSession},
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    name: String,
    #[serde(default)]
    scopes: Vec<String>,
    /// Days until it expires; `null`: never; not said: 90.
    #[serde(default = "usual_days")]
    expires_in_days: Option<u64>,
}

#[expect(clippy::unnecessary_wraps, reason = "the default of a field that may be null")]
fn usual_days() -> Option<u64> {
    Some(USUAL_LIFE.as_secs() / DAY)
}

pub(super) async fn list(visit: Visit) -> Response<String> {
    let live = match owner(&visit).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    let now = visit.portal.clock.now();
    match desk(&visit).list_of(&own(&live)).await {
        Ok(tokens) => {
            let listed: Vec<Value> = tokens.iter().map(|token| shown(token, now)).collect();
            answer(&json!({ "tokens": listed }))
        }
        Err(error) => unavailable(&visit, &error),
    }
}

pub(super) async fn create(visit: Visit, body: Bytes) -> Response<String> {
    if !is_json(&visit) {
        return visit.problem(Code::UnsupportedMediaType);
    }
    let live = match owner(&visit).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    let Ok(wanted) = serde_json::from_slice::<Wanted>(&body) else { return visit.problem(Code::BadRequest) };
    let Ok(scopes) = Scopes::parse(wanted.scopes.iter().map(String::as_str)) else {
        return visit.problem(Code::BadRequest);
    };
    let life = wanted.expires_in_days.map(|days| life_of(Some(days)));
    if life == Some(None) {
        return visit.problem(Code::BadRequest);
    }
    match desk(&visit).issue(wish_of(&live, wanted.name, scopes, life.flatten())).await {
        Ok(Issued { token, secret }) => {
            let mut body = shown(&token, visit.portal.clock.now());
            if let Some(fields) = body.as_object_mut() {
                fields.insert("token".to_owned(), secret.expose_secret().into());
            }
            let mut response = answer(&body);
            *response.status_mut() = StatusCode::CREATED;
            response
        }
        Err(TokenFault::Store(ApiTokenError::Unavailable(error))) => unavailable(&visit, &error),
        Err(_) => visit.problem(Code::BadRequest),
    }
}

pub(super) async fn revoke(visit: Visit, Path(id): Path<String>) -> Response<String> {
    let live = match owner(&visit).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    match desk(&visit).revoke_own(&own(&live), &ApiTokenId(id)).await {
        Ok(true) => empty(),
        Ok(false) => visit.problem(Code::NotFound),
        Err(error) => unavailable(&visit, &error),
    }
}

/// The caller by both cookies and nothing else: neither an access token nor an API token makes tokens.
async fn owner(visit: &Visit) -> Result<Arc<LiveSession>, Response<String>> {
    // A form of another site can send every type but JSON without asking first.
    if visit.headers.contains_key(header::CONTENT_TYPE) && !is_json(visit) {
        return Err(visit.problem(Code::UnsupportedMediaType));
    }
    if visit.is_on_apps_origin {
        return Err(visit.problem(Code::NotFound));
    }
    match visit.owner().await {
        Ok(Some(live)) => Ok(live),
        Ok(None) => Err(visit.problem(Code::SignInRequired)),
        Err(error) => Err(unavailable(visit, &error)),
    }
}

fn shown(token: &ApiToken, now: Timestamp) -> Value {
    json!({
        "id": token.id().0,
        "name": token.name,
        "scopes": token.scopes.words().collect::<Vec<_>>(),
        "created_at": time(token.created_at),
        "expires_at": token.expires_at.and_then(time),
        "expired": token.is_expired(now),
        "last_used_at": token.last_used_at.and_then(time),
    })
}
