//! The API below `/auth` (CONTRACT 7). By both cookies, or by an access token of ours. Every answer is JSON.

use std::{sync::Arc, time::Duration};

use axum::extract::{Path, State};
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Portal,
    landing::{self, Landing},
    pages::{self, Form},
    problem::Code,
    refresh,
    visit::Visit,
};
use crate::{
    core::{
        device::Device,
        session::{Session, SessionId},
        time::Timestamp,
    },
    gate,
    identity::{refresh::Refreshed, sign_in::SignInError},
    ports::{LiveSession, Unavailable},
};

#[derive(Deserialize)]
struct Login {
    username: String,
    password: String,
    #[serde(default)]
    remember_me: bool,
    #[serde(default)]
    rd: Option<String>,
    #[serde(default)]
    rm: Option<String>,
}

pub(super) async fn login(visit: Visit, body: Bytes) -> Response<String> {
    if !has_content_type(&visit, "application/json") {
        return visit.problem(Code::UnsupportedMediaType);
    }
    let Ok(login) = serde_json::from_slice::<Login>(&body) else { return visit.problem(Code::BadRequest) };
    let form = Form {
        username: login.username,
        password: login.password,
        remember_me: login.remember_me,
        rd: login.rd.unwrap_or_default(),
        rm: login.rm.unwrap_or_default(),
        ..Form::default()
    };
    let signed_in = match pages::attempt(&visit, &form).await {
        Ok(signed_in) => signed_in,
        Err(SignInError::Refused) => return visit.problem(Code::InvalidCredentials),
        Err(SignInError::SlowDown(wait)) => return slow_down(&visit, wait),
        Err(SignInError::Busy) => return visit.problem(Code::Busy),
        Err(SignInError::Unavailable(error)) => return unavailable(&visit, &error),
    };
    // No tokens on an application's own origin, and so nothing to refresh by.
    let refresh_token = if visit.is_on_apps_origin {
        None
    } else {
        match refresh::refreshing(&visit).begin(&signed_in.session).await {
            Ok(token) => Some(token),
            Err(error) => return unavailable(&visit, &error),
        }
    };
    let (session, access_token) = (signed_in.session.clone(), signed_in.access_token.clone());
    let mut body = refresh::told(&visit, &Refreshed { session, access_token, refresh_token });
    if let Landing::To(url) = landing::decided(&visit, &signed_in.session, &form.rd, &form.rm)
        && let Some(fields) = body.as_object_mut()
    {
        fields.insert("next".to_owned(), url.as_str().into());
    }
    let mut response = answer(&body);
    visit.set_sign_in(&mut response, &signed_in);
    response
}

pub(super) async fn logout(visit: Visit) -> Response<String> {
    let live = match caller(&visit).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    match visit.own_sessions().sign_out(&[live]).await {
        Ok(()) => signed_out(&visit, empty()),
        Err(error) => unavailable(&visit, &error),
    }
}

pub(super) async fn logout_all(visit: Visit) -> Response<String> {
    if visit.is_on_apps_origin {
        return visit.problem(Code::NotFound);
    }
    let live = match caller(&visit).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    match visit.own_sessions().end_all(&live).await {
        Ok(ended) => signed_out(&visit, answer(&json!({ "ended": ended }))),
        Err(error) => unavailable(&visit, &error),
    }
}

pub(super) async fn me(visit: Visit) -> Response<String> {
    let live = match caller(&visit).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    let identity = &live.identity;
    answer(&json!({
        "user": &*identity.user,
        "name": identity.display_name,
        "email": identity.email,
        "groups": identity.groups,
        "factor": identity.factor.as_str(),
        "session_id": live.id().as_str(),
        "signed_in_at": time(live.identity.signed_in_at),
        "expires_at": time(visit.arrival.site.lifetimes.end_of(live.session.age())),
    }))
}

pub(super) async fn sessions(visit: Visit) -> Response<String> {
    if visit.is_on_apps_origin {
        return visit.problem(Code::NotFound);
    }
    let live = match caller(&visit).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    let now = visit.portal.clock.now();
    match visit.own_sessions().list(&live, &visit.arrival.site.lifetimes, now).await {
        Err(error) => unavailable(&visit, &error),
        Ok(sessions) => {
            let listed: Vec<Value> = sessions.iter().map(|session| listed(&visit, session, &live)).collect();
            answer(&json!({ "sessions": listed }))
        }
    }
}

/// A session as its owner sees it.
fn listed(visit: &Visit, session: &Session, live: &LiveSession) -> Value {
    let Device { browser, system, device } = Device::of(&session.user_agent);
    let country = session.address.and_then(|address| visit.portal.geo.country(address));
    json!({
        "id": session.id.as_str(),
        "current": session.id == *live.id(),
        "device": device,
        "browser": browser,
        "os": system,
        "ip": session.address,
        "country": country.as_ref().map(|country| &country.code),
        "place": country.as_ref().map(|country| &country.name),
        "created_at": time(session.created_at),
        "last_used_at": time(session.last_used_at),
        "remembered": session.remembered,
    })
}

pub(super) async fn end_session(visit: Visit, Path(id): Path<String>) -> Response<String> {
    if visit.is_on_apps_origin {
        return visit.problem(Code::NotFound);
    }
    let live = match caller(&visit).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    let id = SessionId::new(id);
    match visit.own_sessions().end_one(&live, &id).await {
        Ok(true) if id == *live.id() => signed_out(&visit, empty()),
        Ok(true) => empty(),
        Ok(false) => visit.problem(Code::NotFound),
        Err(error) => unavailable(&visit, &error),
    }
}

pub(super) async fn health(_visit: Visit) -> Response<String> {
    answer(&json!({ "status": "ok" }))
}

/// RFC 7517. Keys that sign later are there too: `postern keys rotate` waits for longer than this answer is kept.
pub(super) async fn jwks(State(portal): State<Arc<Portal>>) -> Response<String> {
    // From memory, however old: whoever asks costs the store nothing, and to take keys away because of an outage would sign people out elsewhere.
    let keys = portal.keys.signing();
    let keys: Vec<&Value> = keys.verifying(portal.clock.now()).map(|key| &key.jwk).collect();
    let mut response = answer(&json!({ "keys": keys }));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=300"));
    response
}

/// Who calls: by both cookies, else by a token of ours.
async fn caller(visit: &Visit) -> Result<Arc<LiveSession>, Response<String>> {
    // A form of another site can send every type but JSON without asking first.
    if visit.headers.contains_key(header::CONTENT_TYPE) && !has_content_type(visit, "application/json") {
        return Err(visit.problem(Code::UnsupportedMediaType));
    }
    let site = &visit.arrival.site;
    if let Some(live) = visit.owner().await.map_err(|error| unavailable(visit, &error))? {
        return Ok(live);
    }
    let bearer = visit.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.split_once(' '));
    let Some((_, token)) = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")) else {
        return Err(visit.problem(Code::SignInRequired));
    };
    let token = token.trim();
    if gate::tokens::is_ours(token, &site.tokens.issuer) {
        let found = visit.portal.gate.session_of_token(site, token).await;
        if let Some(live) = found.map_err(|error| unavailable(visit, &error))? {
            visit.portal.sessions.used(&live, visit.portal.clock.now());
            return Ok(live);
        }
    }
    Err(invalid_token(visit))
}

pub(super) fn invalid_token(visit: &Visit) -> Response<String> {
    let mut response = visit.problem(Code::InvalidToken);
    let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

pub(super) fn slow_down(visit: &Visit, wait: Duration) -> Response<String> {
    let mut response = visit.problem(Code::RateLimited);
    response.headers_mut().insert(header::RETRY_AFTER, wait.as_secs().max(1).into());
    response
}

pub(super) fn is_json(visit: &Visit) -> bool {
    has_content_type(visit, "application/json")
}

pub(super) fn has_content_type(visit: &Visit, wanted: &str) -> bool {
    visit
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(wanted))
}

pub(super) fn unavailable(visit: &Visit, error: &Unavailable) -> Response<String> {
    tracing::warn!(store = error.store, %error, request_id = visit.arrival.request_id, "the portal cannot answer");
    visit.problem(Code::Unavailable)
}

fn signed_out(visit: &Visit, mut response: Response<String>) -> Response<String> {
    visit.remove_sign_in(&mut response);
    response
}

pub(super) fn answer(body: &Value) -> Response<String> {
    let mut response = Response::new(body.to_string());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

pub(super) fn empty() -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// RFC 3339.
pub(super) fn time(at: Timestamp) -> Option<String> {
    jiff::Timestamp::from_millisecond(at.unix_millis()).ok().map(|at| at.to_string())
}
