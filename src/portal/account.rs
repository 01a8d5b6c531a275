//! The account page: who one is, one's sessions and one's API tokens. Needs both cookies (THREATS 59); absent with `portal.path`.

use std::{sync::Arc, time::Duration};

use askama::Template;
use axum::extract::{Path, RawQuery};
use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    look::Shell,
    pages::{Form, has_token, sign_in_page, stale_form, unavailable, with_form},
    problem::Code,
    tokens::{self, Draft},
    visit::Visit,
};
use crate::{
    core::{
        device::Device,
        session::{Session, SessionId},
        time::Timestamp,
    },
    ports::LiveSession,
};

#[derive(Template)]
#[template(path = "account.html")]
struct AccountPage {
    shell: Shell,
    base: String,
    name: String,
    user: String,
    email: Option<String>,
    groups: String,
    notice: Option<&'static str>,
    sessions: Vec<Row>,
    tokens: Vec<tokens::Row>,
    draft: Draft,
    lives: Vec<Life>,
    csrf_token: String,
}

/// A choice of how long a new token lives.
struct Life {
    value: &'static str,
    words: &'static str,
    is_chosen: bool,
}

const LIVES: [(&str, &str); 5] =
    [("7", "7 days"), ("30", "30 days"), ("90", "90 days"), ("365", "1 year"), ("never", "It never expires")];

struct Row {
    id: String,
    device: String,
    address: Option<String>,
    country: Option<String>,
    created: String,
    last_used: String,
    is_current: bool,
}

pub(super) async fn account(visit: Visit, RawQuery(query): RawQuery) -> Response<String> {
    let live = match owner(&visit).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    let notice = match query.as_deref() {
        Some("ended") => Some("That session has ended."),
        Some("others_ended") => Some("All your other sessions have ended."),
        Some("token_revoked") => Some("That token is revoked."),
        _ => None,
    };
    page(&visit, &live, StatusCode::OK, notice, Draft::usual()).await
}

/// `draft`: what stands in the form for a new token.
pub(super) async fn page(
    visit: &Visit,
    live: &LiveSession,
    status: StatusCode,
    notice: Option<&'static str>,
    draft: Draft,
) -> Response<String> {
    let now = visit.portal.clock.now();
    let listed = visit.own_sessions().list(live, &visit.arrival.site.lifetimes, now).await;
    let mut sessions: Vec<Row> = match listed {
        Ok(sessions) => sessions.into_iter().map(|session| row(visit, session, live, now)).collect(),
        Err(error) => return unavailable(visit, &error),
    };
    let tokens = match tokens::rows(visit, live, now).await {
        Ok(tokens) => tokens,
        Err(error) => return unavailable(visit, &error),
    };
    // This browser first, so that it is not looked for.
    sessions.sort_by_key(|row| !row.is_current);
    let identity = &live.identity;
    let lives = LIVES.map(|(value, words)| Life { value, words, is_chosen: value == draft.days }).into();
    with_form(visit, status, |csrf_token, shell| AccountPage {
        shell,
        base: visit.base.clone(),
        name: if identity.display_name.is_empty() { identity.user.to_string() } else { identity.display_name.clone() },
        user: identity.user.to_string(),
        email: identity.email.clone(),
        groups: identity.groups.join(", "),
        notice,
        sessions,
        tokens,
        draft,
        lives,
        csrf_token,
    })
}

pub(super) async fn end_one(visit: Visit, Path(id): Path<String>, body: Bytes) -> Response<String> {
    let live = match allowed(&visit, &body).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    match visit.own_sessions().end_one(&live, &SessionId::new(id)).await {
        // One that is gone already is what was asked for.
        Ok(_) => visit.redirect(&format!("{}/account?ended", visit.base)),
        Err(error) => unavailable(&visit, &error),
    }
}

pub(super) async fn end_others(visit: Visit, body: Bytes) -> Response<String> {
    let live = match allowed(&visit, &body).await {
        Ok(live) => live,
        Err(response) => return response,
    };
    match visit.own_sessions().end_others(&live).await {
        Ok(_) => visit.redirect(&format!("{}/account?others_ended", visit.base)),
        Err(error) => unavailable(&visit, &error),
    }
}

pub(super) async fn allowed(visit: &Visit, body: &[u8]) -> Result<Arc<LiveSession>, Response<String>> {
    let live = owner(visit).await?;
    if has_token(visit, &Form::read(body)) { Ok(live) } else { Err(stale_form(visit)) }
}

/// The caller, or the answer for somebody who is not: 401 with the form itself, so that nothing turns in circles.
async fn owner(visit: &Visit) -> Result<Arc<LiveSession>, Response<String>> {
    if visit.is_on_apps_origin {
        return Err(visit.problem(Code::NotFound));
    }
    match visit.owner().await {
        Ok(Some(live)) => Ok(live),
        Ok(None) if visit.wants_page() => {
            Err(sign_in_page(visit, StatusCode::UNAUTHORIZED, &Form::default(), None, None))
        }
        Ok(None) => Err(visit.problem(Code::SignInRequired)),
        Err(error) => Err(unavailable(visit, &error)),
    }
}

fn row(visit: &Visit, session: Session, live: &LiveSession, now: Timestamp) -> Row {
    Row {
        device: Device::of(&session.user_agent).words(),
        country: session.address.and_then(|address| visit.portal.geo.country(address)).map(|country| country.name),
        address: session.address.map(|address| address.to_string()),
        created: ago(now.since(session.created_at)),
        last_used: ago(now.since(session.last_used_at)),
        is_current: session.id == *live.id(),
        id: session.id.to_string(),
    }
}

/// In simple words; needs no time zone.
pub(super) fn ago(time: Duration) -> String {
    let said = |count: u64, unit: &str| format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" });
    match time.as_secs() {
        0..60 => "just now".to_owned(),
        seconds @ 60..3600 => said(seconds / 60, "minute"),
        seconds @ 3600..86_400 => said(seconds / 3600, "hour"),
        seconds => said(seconds / 86_400, "day"),
    }
}
