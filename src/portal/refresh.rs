//! The API of tokens (CONTRACT 7): a new access token, and the end of one. Not on an application's own origin (`portal.path`).
//!
//! Both take a token in the body as its own proof, so they need no cookies; like everything that changes something, not from another site.

use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use http::{Response, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Portal,
    api::{answer, has_content_type, invalid_token, slow_down, unavailable},
    problem::Code,
    visit::Visit,
};
use crate::{
    core::{session::SessionId, time::Timestamp},
    gate::tokens,
    identity::refresh::{RefreshError, Refreshed, Refreshing},
};

#[derive(Deserialize, Default)]
struct Refresh {
    #[serde(default)]
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct Revoke {
    token: String,
}

pub(super) fn refreshing(visit: &Visit) -> Refreshing<'_> {
    let portal = &visit.portal;
    let user_agent = visit.headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok());
    Refreshing {
        site: &visit.arrival.site,
        tokens: &*portal.tokens,
        sessions: &*portal.sessions,
        keys: &*portal.keys,
        clock: &*portal.clock,
        entropy: &*portal.entropy,
        audit: &*portal.audit,
        metrics: &portal.metrics,
        regulation: &*portal.sign_in.passwords.regulation,
        address: visit.arrival.client.known(),
        user_agent: user_agent.unwrap_or_default(),
        request_id: &visit.arrival.request_id,
    }
}

/// By a refresh token: a new pair. By both cookies: a new access token, since what would refresh it next time is the cookies.
pub(super) async fn refresh(visit: Visit, body: Bytes) -> Response<String> {
    if visit.is_on_apps_origin {
        return visit.problem(Code::NotFound);
    }
    let has_type = visit.headers.contains_key(header::CONTENT_TYPE);
    // A form of another site can send every type but JSON without asking first.
    if (has_type || !body.is_empty()) && !has_content_type(&visit, "application/json") {
        return visit.problem(Code::UnsupportedMediaType);
    }
    let asked = match body.as_ref() {
        [] => Refresh::default(),
        body => match serde_json::from_slice::<Refresh>(body) {
            Ok(asked) => asked,
            Err(_) => return visit.problem(Code::BadRequest),
        },
    };
    let refreshed = match asked.refresh_token {
        Some(token) => refreshing(&visit).by_token(&token.into()).await,
        None => match by_cookies(&visit).await {
            Ok(refreshed) => refreshed,
            Err(response) => return response,
        },
    };
    match refreshed {
        Ok(refreshed) => answer(&told(&visit, &refreshed)),
        Err(RefreshError::Refused) => invalid_token(&visit),
        Err(RefreshError::SlowDown(wait)) => slow_down(&visit, wait),
        Err(RefreshError::Unavailable(error)) => unavailable(&visit, &error),
    }
}

/// An access token is none: it would be kept alive for ever by itself.
async fn by_cookies(visit: &Visit) -> Result<Result<Refreshed, RefreshError>, Response<String>> {
    match visit.owner().await {
        Ok(Some(session)) => Ok(refreshing(visit).by_cookies(session).await),
        Ok(None) => Err(visit.problem(Code::SignInRequired)),
        Err(error) => Err(unavailable(visit, &error)),
    }
}

/// What a sign-in and a refresh answer alike.
pub(super) fn told(visit: &Visit, refreshed: &Refreshed) -> Value {
    let mut body = json!({
        "access_token": refreshed.access_token.expose_secret(),
        "token_type": "Bearer",
        "expires_in": visit.arrival.site.tokens.access.as_secs(),
        "session_id": refreshed.session.id().as_str(),
        "factor": refreshed.session.identity.factor.as_str(),
    });
    if let (Some(token), Some(fields)) = (&refreshed.refresh_token, body.as_object_mut()) {
        fields.insert("refresh_token".to_owned(), token.expose_secret().into());
    }
    body
}

/// RFC 7009: 200 also for a token that is nobody's or over, so that nobody learns which are.
pub(super) async fn revoke(State(portal): State<Arc<Portal>>, visit: Visit, body: Bytes) -> Response<String> {
    if visit.is_on_apps_origin {
        return visit.problem(Code::NotFound);
    }
    let token = if has_content_type(&visit, "application/json") {
        serde_json::from_slice::<Revoke>(&body).ok().map(|asked| asked.token)
    } else if has_content_type(&visit, "application/x-www-form-urlencoded") {
        let mut named = form_urlencoded::parse(&body).filter(|(name, _)| name == "token");
        match (named.next(), named.next()) {
            (Some((_, token)), None) => Some(token.into_owned()),
            _ => None,
        }
    } else {
        return visit.problem(Code::UnsupportedMediaType);
    };
    let Some(token) = token.map(SecretString::from) else { return visit.problem(Code::BadRequest) };
    let refreshing = refreshing(&visit);
    let settings = &visit.arrival.site.tokens;
    let done = if tokens::is_ours(token.expose_secret(), &settings.issuer) {
        let verified = tokens::verified(token.expose_secret(), &*portal.keys, settings, portal.clock.now());
        match verified.await {
            Err(error) => Err(error),
            Ok(Ok((claims, _))) => {
                let until = Timestamp::from_unix_millis(claims.exp.saturating_mul(1000));
                refreshing.revoke_access(&claims.sub, &SessionId::new(claims.sid), &claims.jti, until).await
            }
            Ok(Err(_)) => Ok(false),
        }
    } else {
        refreshing.revoke(&token).await
    };
    match done {
        Ok(_) => answer(&json!({})),
        Err(error) => unavailable(&visit, &error),
    }
}
