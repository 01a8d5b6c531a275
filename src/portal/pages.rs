//! The pages of signing in and out. Everything works by forms and links: there is no script at all.

use std::sync::Arc;

use askama::Template;
use axum::extract::RawQuery;
use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    csrf::{form_token, is_token_of},
    hand_over,
    landing::{self, Landing},
    look::Shell,
    page::page,
    problem::{Code, RETRY_AFTER},
    visit::Visit,
};
use crate::{
    core::{
        cookie::{self, csrf_cookie, device_cookie},
        session::SessionId,
    },
    gate::Named,
    identity::{
        notice::{SignInFrom, devices_in},
        sign_in::{Attempt, SignInError, SignedIn},
    },
    ports::{LiveSession, Unavailable},
};

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    shell: Shell,
    base: String,
    host: String,
    going_to: Option<String>,
    notice: Option<Notice>,
    username: String,
    error_at: Option<&'static str>,
    error: &'static str,
    offers_remember_me: bool,
    remember_me: bool,
    rd: String,
    rm: String,
    state: String,
    csrf_token: String,
}

/// What the sign-in page says above its form.
pub(super) enum Notice {
    Done(&'static str),
    Fault(&'static str),
}

#[derive(Template)]
#[template(path = "sign_out.html")]
struct SignOutPage {
    shell: Shell,
    base: String,
    user: Option<String>,
    rd: String,
    csrf_token: String,
}

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage {
    shell: Shell,
    base: String,
    name: String,
    user: String,
    host: String,
    csrf_token: String,
}

/// What a form or a query may say; unknown fields are ignored, of a field given twice the first counts.
#[derive(Default)]
pub(super) struct Form {
    pub(super) username: String,
    pub(super) password: String,
    pub(super) remember_me: bool,
    pub(super) rd: String,
    pub(super) rm: String,
    pub(super) csrf_token: String,
    pub(super) signed_out: bool,
    /// Of another portal, which waits for a hand-over.
    pub(super) state: String,
    pub(super) code: String,
}

impl Form {
    pub(super) fn read(text: &[u8]) -> Self {
        let value =
            |name: &str| form_urlencoded::parse(text).find(|(key, _)| key == name).map(|(_, value)| value.into_owned());
        Self {
            username: value("username").unwrap_or_default(),
            password: value("password").unwrap_or_default(),
            remember_me: value("remember_me").is_some_and(|value| matches!(value.as_str(), "true" | "on" | "1")),
            rd: value("rd").unwrap_or_default(),
            rm: value("rm").unwrap_or_default(),
            csrf_token: value("csrf_token").unwrap_or_default(),
            signed_out: value("signed_out").is_some(),
            state: value("state").unwrap_or_default(),
            code: value("code").unwrap_or_default(),
        }
    }

    pub(super) fn of(query: Option<&str>) -> Self {
        Self::read(query.unwrap_or_default().as_bytes())
    }
}

const SIGNED_OUT: Notice = Notice::Done("You are signed out.");
const STALE_FORM: &str = "Your browser did not send back the cookie of this form, so nothing was done. Allow cookies for this \
                          site, check that its address begins as it should (https), and try once more.";
pub(super) const TWO_SIGN_INS: Notice = Notice::Fault(
    "Your browser sent two different sign-ins at once, so neither counts. Sign in again: that replaces both.",
);
const SLOW_DOWN: Notice =
    Notice::Fault("Too many sign-ins went wrong with this name or from where you are. Wait a while and try again.");
const BUSY: Notice = Notice::Fault("Many people are signing in right now. Wait a few seconds and try again.");

pub(super) async fn root(visit: Visit, RawQuery(query): RawQuery) -> Response<String> {
    let form = Form::of(query.as_deref());
    match visit.named().await {
        Err(error) => unavailable(&visit, &error),
        Ok(Named::One(live)) => {
            let is_own = visit.is_bound_to(&live);
            let leads_nowhere = landing::followed(&visit, &form.rd).is_none();
            if !leads_nowhere {
                landing::land(&visit, &live, is_own, &form.rd, &form.rm)
            } else if !is_own {
                sign_in_page(&visit, StatusCode::OK, &form, None, None)
            } else if visit.is_on_apps_origin {
                home(&visit, &live)
            } else {
                landing::land(&visit, &live, is_own, "", "")
            }
        }
        Ok(Named::Several(_)) => sign_in_page(&visit, StatusCode::OK, &form, None, Some(TWO_SIGN_INS)),
        Ok(Named::Nobody) => {
            if let Some(sent) = hand_over::sent_home(&visit, &form) {
                return sent;
            }
            let notice = form.signed_out.then_some(SIGNED_OUT);
            sign_in_page(&visit, StatusCode::OK, &form, None, notice)
        }
    }
}

pub(super) async fn sign_in(visit: Visit, body: Bytes) -> Response<String> {
    let form = Form::read(&body);
    if !has_token(&visit, &form) {
        return sign_in_page(&visit, StatusCode::FORBIDDEN, &form, None, Some(Notice::Fault(STALE_FORM)));
    }
    let missing = if form.username.trim().is_empty() {
        Some(("username", "Type your user name."))
    } else if form.password.is_empty() {
        Some(("password", "Type your password."))
    } else {
        None
    };
    if missing.is_some() {
        return sign_in_page(&visit, StatusCode::BAD_REQUEST, &form, missing, None);
    }
    match attempt(&visit, &form).await {
        Ok(signed_in) => {
            let mut response = if form.state.is_empty() {
                landing::land(&visit, &signed_in.session, true, &form.rd, &form.rm)
            } else {
                hand_over::give(&visit, &signed_in.session, &form).await
            };
            visit.set_sign_in(&mut response, &signed_in);
            response
        }
        Err(SignInError::Refused) => {
            let error =
                ("password", "The user name or the password is wrong. Check both, and whether Caps Lock is on.");
            sign_in_page(&visit, StatusCode::UNAUTHORIZED, &form, Some(error), None)
        }
        Err(SignInError::SlowDown(wait)) => {
            let mut response = sign_in_page(&visit, StatusCode::TOO_MANY_REQUESTS, &form, None, Some(SLOW_DOWN));
            response.headers_mut().insert(http::header::RETRY_AFTER, wait.as_secs().max(1).into());
            response
        }
        Err(SignInError::Busy) => {
            let mut response = sign_in_page(&visit, StatusCode::SERVICE_UNAVAILABLE, &form, None, Some(BUSY));
            response.headers_mut().insert(http::header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
            response
        }
        Err(SignInError::Unavailable(error)) => unavailable(&visit, &error),
    }
}

/// The one way in, for the form and for the API.
pub(super) async fn attempt(visit: &Visit, form: &Form) -> Result<SignedIn, SignInError> {
    let replaced = ids_of(visit.named().await?);
    let device_cookie = cookie::values(&visit.headers, device_cookie(visit.is_secure())).next();
    let devices = device_cookie.map(devices_in).unwrap_or_default();
    let attempt = Attempt {
        user: form.username.clone(),
        password: form.password.clone().into(),
        remember_me: form.remember_me,
        domain: visit.scope.domain.clone(),
        user_agent: visit.user_agent().to_owned(),
        address: visit.arrival.client.known(),
        request_id: visit.arrival.request_id.clone(),
        devices: devices.clone(),
        replaced,
    };
    let site = &visit.arrival.site;
    let mut signed_in = visit.portal.sign_in.with_password(site, attempt).await?;
    let account = (!visit.is_on_apps_origin).then(|| format!("{}{}/account", visit.origin, visit.base));
    let from = SignInFrom {
        devices: &devices,
        user_agent: visit.user_agent(),
        address: visit.arrival.client.known(),
        account,
    };
    signed_in.device_cookie = visit.portal.notices.signed_in(site, &signed_in.session, from).await;
    Ok(signed_in)
}

/// What a sign-in takes the place of.
pub(super) fn ids_of(named: Named) -> Vec<SessionId> {
    match named {
        Named::Nobody => vec![],
        Named::One(live) => vec![live.id().clone()],
        Named::Several(all) => all.iter().map(|live| live.id().clone()).collect(),
    }
}

pub(super) fn has_token(visit: &Visit, form: &Form) -> bool {
    cookie::values(&visit.headers, csrf_cookie(visit.is_secure())).any(|value| is_token_of(&form.csrf_token, value))
}

pub(super) fn sign_in_page(
    visit: &Visit,
    status: StatusCode,
    form: &Form,
    error: Option<(&'static str, &'static str)>,
    notice: Option<Notice>,
) -> Response<String> {
    with_form(visit, status, |csrf_token, shell| SignInPage {
        shell,
        base: visit.base.clone(),
        host: visit.arrival.target.host().to_owned(),
        going_to: landing::followed(visit, &form.rd)
            .and_then(|(url, _)| url.host_str().map(str::to_owned))
            .or_else(|| hand_over::going_to(visit, form)),
        notice,
        username: form.username.chars().take(100).collect(),
        error_at: error.map(|(place, _)| place),
        error: error.map_or("", |(_, text)| text),
        offers_remember_me: !visit.arrival.site.lifetimes.remember_me.is_zero(),
        remember_me: form.remember_me,
        rd: form.rd.clone(),
        rm: form.rm.clone(),
        state: form.state.clone(),
        csrf_token,
    })
}

/// A page with a form, and the pre-session cookie that its token is bound to.
pub(super) fn with_form<T: Template>(
    visit: &Visit,
    status: StatusCode,
    template: impl FnOnce(String, Shell) -> T,
) -> Response<String> {
    let (cookie, is_new) = visit.pre_session();
    let shell = visit.shell();
    let style = shell.style_source();
    let mut response = page(status, &style, &visit.form_action(), &template(form_token(&cookie), shell));
    if is_new {
        visit.set_cookie(&mut response, csrf_cookie(visit.is_secure()), &cookie, None);
    }
    response
}

fn home(visit: &Visit, live: &Arc<LiveSession>) -> Response<String> {
    with_form(visit, StatusCode::OK, |csrf_token, shell| HomePage {
        shell,
        base: visit.base.clone(),
        name: live.identity.display_name.clone(),
        user: live.identity.user.to_string(),
        host: visit.arrival.target.host().to_owned(),
        csrf_token,
    })
}

pub(super) async fn sign_out_question(visit: Visit, RawQuery(query): RawQuery) -> Response<String> {
    let form = Form::of(query.as_deref());
    let user = match visit.named().await {
        Err(error) => return unavailable(&visit, &error),
        Ok(Named::One(live)) => Some(live.identity.user.to_string()),
        Ok(Named::Several(_)) => None,
        Ok(Named::Nobody) => return visit.redirect(&landing::with_rd(&format!("{}/", visit.base), &form.rd)),
    };
    with_form(&visit, StatusCode::OK, |csrf_token, shell| SignOutPage {
        shell,
        base: visit.base.clone(),
        user,
        rd: form.rd.clone(),
        csrf_token,
    })
}

pub(super) async fn sign_out(visit: Visit, body: Bytes) -> Response<String> {
    let form = Form::read(&body);
    if !has_token(&visit, &form) {
        return stale_form(&visit);
    }
    let named = match visit.named().await {
        Err(error) => return unavailable(&visit, &error),
        Ok(Named::Nobody) => vec![],
        Ok(Named::One(live)) => vec![live],
        Ok(Named::Several(all)) => all,
    };
    if let Err(error) = visit.own_sessions().sign_out(&named).await {
        return unavailable(&visit, &error);
    }
    let mut response = match landing::followed(&visit, &form.rd) {
        Some((url, _)) => visit.redirect(url.as_str()),
        None => visit.redirect(&format!("{}/?signed_out", visit.base)),
    };
    visit.remove_sign_in(&mut response);
    response
}

pub(super) fn stale_form(visit: &Visit) -> Response<String> {
    let back = vec![("Back".to_owned(), format!("{}/", visit.base))];
    landing::message(visit, StatusCode::FORBIDDEN, "This form is too old", vec![STALE_FORM.to_owned()], vec![], back)
}

pub(super) async fn two_factor(visit: Visit, RawQuery(query): RawQuery) -> Response<String> {
    let form = Form::of(query.as_deref());
    match visit.named().await {
        Err(error) => unavailable(&visit, &error),
        Ok(Named::One(live)) => match landing::decided(&visit, &live, &form.rd, &form.rm) {
            Landing::StepUp { rule, wanted } => landing::step_up(&visit, Some((&rule, &wanted)), &live.identity),
            Landing::Again => landing::land(&visit, &live, false, &form.rd, &form.rm),
            _ => landing::step_up(&visit, None, &live.identity),
        },
        Ok(_) => visit.redirect(&landing::with_rd(&format!("{}/", visit.base), &form.rd)),
    }
}

pub(super) async fn denied(visit: Visit, RawQuery(query): RawQuery) -> Response<String> {
    let form = Form::of(query.as_deref());
    match visit.named().await {
        Err(error) => unavailable(&visit, &error),
        // Which rule it was is asked of the rules, never of the query: anybody can write a link.
        Ok(Named::One(live)) => match landing::decided(&visit, &live, &form.rd, &form.rm) {
            Landing::Denied { rule, wanted } => {
                landing::refused(&visit, &live, visit.is_bound_to(&live), (&rule, &wanted), &form.rm)
            }
            Landing::StepUp { rule, wanted } => landing::step_up(&visit, Some((&rule, &wanted)), &live.identity),
            Landing::Again => landing::land(&visit, &live, false, &form.rd, &form.rm),
            Landing::To(_) | Landing::Home => landing::denied(&visit, None, Some(&live.identity), None),
        },
        Ok(_) => landing::denied(&visit, None, None, None),
    }
}

pub(super) fn unavailable(visit: &Visit, error: &Unavailable) -> Response<String> {
    tracing::warn!(store = error.store, %error, request_id = visit.arrival.request_id, "the portal cannot answer");
    if !visit.wants_page() {
        return visit.problem(Code::Unavailable);
    }
    let lines = vec!["The part that knows who is signed in does not answer. Try again in a moment.".to_owned()];
    let facts = vec![("Request id", visit.arrival.request_id.clone(), true)];
    let mut response =
        landing::message(visit, StatusCode::SERVICE_UNAVAILABLE, "Not available right now", lines, facts, vec![]);
    response.headers_mut().insert(http::header::RETRY_AFTER, RETRY_AFTER.as_secs().into());
    response
}
