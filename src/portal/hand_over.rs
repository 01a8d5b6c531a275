//! One sign-in for several cookie domains (CONTRACT 7, `session.hand_over`). The first of `session.cookies` is home: there people sign in, and from there
//! they are handed over to the other portals.
//!
//! 1. Another portal gets somebody without a session who wants to go on to a page of its domain. It makes a state, bound to the browser by the
//!    pre-session cookie that only its own origin has, to the page and to the time, and sends the browser home ([`sent_home`]).
//! 2. Home ([`asked`]) knows the person by both cookies, or has them sign in, and sends the browser back with a code ([`give`]): only to the portal of
//!    the domain that the page lies in.
//! 3. That portal ([`accept`]) takes the code once, within seconds, from the browser that the state was made for, and makes a session of its own.
//!
//! So nobody can be signed in as somebody else (the state of another browser does not fit), a code that leaks is worth nothing (as before), and no
//! address that a query names is followed but those that `rd` may name at the portal concerned. What fails ends on a page, never in a redirect.

use std::time::Duration;

use axum::extract::RawQuery;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Response, StatusCode};
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use url::Url;

use super::{
    landing,
    pages::{self, Form},
    problem::Code,
    visit::Visit,
};
use crate::{
    core::{
        cookie::{self, csrf_cookie},
        return_to::return_to,
        site::CookieScope,
        time::Timestamp,
    },
    gate::Named,
    identity::hand_over::{Asked, Bearer, HandOverError},
    ports::LiveSession,
};

/// From being sent home to coming back: somebody may have to look for their password meanwhile.
const STATE_HOLDS: Duration = Duration::from_secs(15 * 60);
/// How far the clock of the node that made it may be ahead.
const SKEW: Duration = Duration::from_secs(60);
/// Of a state or a code, in characters; longer is none of ours.
const LONGEST: usize = 100;
/// In this many characters a code is written (256 bits in base64url).
const CODE_LENGTH: usize = 43;

/// Where somebody without a session goes who wants to go on to a page of this domain; `None`: they sign in here.
pub(super) fn sent_home(visit: &Visit, form: &Form) -> Option<Response<String>> {
    let home = home(visit).filter(|home| home.domain != visit.scope.domain)?;
    landing::followed(visit, &form.rd)?;
    let (cookie, is_new) = visit.pre_session();
    let rm = method(&form.rm);
    let state = state_of(&cookie, &form.rd, rm, visit.portal.clock.now());
    let query = form_urlencoded::Serializer::new(String::new())
        .append_pair("rd", &form.rd)
        .append_pair("rm", rm)
        .append_pair("state", &state)
        .finish();
    let mut response = visit.redirect(&format!("{}/hand-over?{query}", base_of(home)?));
    if is_new {
        visit.set_cookie(&mut response, csrf_cookie(visit.is_secure()), &cookie, None);
    }
    Some(response)
}

/// At home: whoever another portal sent here.
pub(super) async fn asked(visit: Visit, RawQuery(query): RawQuery) -> Response<String> {
    let form = Form::of(query.as_deref());
    if wanted(&visit, &form).is_none() {
        return leads_nowhere(&visit);
    }
    match visit.named().await {
        Err(error) => pages::unavailable(&visit, &error),
        // The session cookie alone is known to every application of the domain.
        Ok(Named::One(live)) if visit.is_bound_to(&live) => give(&visit, &live, &form).await,
        Ok(Named::Several(_)) => pages::sign_in_page(&visit, StatusCode::OK, &form, None, Some(pages::TWO_SIGN_INS)),
        Ok(_) => pages::sign_in_page(&visit, StatusCode::OK, &form, None, None),
    }
}

/// Sends somebody on who is signed in here, by both cookies or by the form just now.
pub(super) async fn give(visit: &Visit, live: &LiveSession, form: &Form) -> Response<String> {
    let Some((scope, portal)) = wanted(visit, form).and_then(|scope| Some((scope, base_of(scope)?))) else {
        return leads_nowhere(visit);
    };
    // Handed over itself, when another domain was home: what came of it would not end with the sign-in that it came from.
    if live.session.parent.is_some() {
        return pages::sign_in_page(visit, StatusCode::OK, form, None, None);
    }
    let asked = Asked {
        domain: scope.domain.clone(),
        state: form.state.clone(),
        rd: form.rd.clone(),
        rm: method(&form.rm).to_owned(),
    };
    match visit.portal.hand_over.give(live, asked).await {
        Err(error) => pages::unavailable(visit, &error),
        Ok(code) => visit.redirect(&format!("{portal}/hand-over/accept?code={}", code.expose_secret())),
    }
}

/// At the portal that sent them home.
pub(super) async fn accept(visit: Visit, RawQuery(query): RawQuery) -> Response<String> {
    if home(&visit).is_none_or(|home| home.domain == visit.scope.domain) {
        return visit.problem(Code::NotFound);
    }
    let code = Form::of(query.as_deref()).code;
    if code.len() != CODE_LENGTH {
        return refused(&visit);
    }
    let replaced = match visit.named().await {
        Err(error) => return pages::unavailable(&visit, &error),
        Ok(named) => pages::ids_of(named),
    };
    let now = visit.portal.clock.now();
    let is_state = |asked: &Asked| {
        cookie::values(&visit.headers, csrf_cookie(visit.is_secure())).any(|cookie| is_state_of(asked, cookie, now))
            && landing::followed(&visit, &asked.rd).is_some()
    };
    let bearer = Bearer {
        domain: &visit.scope.domain,
        is_state: &is_state,
        user_agent: visit.user_agent(),
        address: visit.arrival.client.known(),
        request_id: &visit.arrival.request_id,
        replaced: &replaced,
    };
    match visit.portal.hand_over.accept(&visit.arrival.site, &code, &bearer).await {
        Err(HandOverError::Refused(_)) => refused(&visit),
        Err(HandOverError::Unavailable(error)) => pages::unavailable(&visit, &error),
        Ok(handed_over) => {
            let mut response =
                landing::land(&visit, &handed_over.session, true, &handed_over.asked.rd, &handed_over.asked.rm);
            let remembered = handed_over.session.session.cookie.remembered;
            visit.set_session(&mut response, remembered, &handed_over.gate_cookie, &handed_over.portal_cookie);
            response
        }
    }
}

/// The host that a form of ours leads to by way of a hand-over.
pub(super) fn going_to(visit: &Visit, form: &Form) -> Option<String> {
    wanted(visit, form)?;
    Url::parse(&form.rd).ok()?.host_str().map(str::to_owned)
}

/// Where people sign in; `None`: each portal for itself.
fn home(visit: &Visit) -> Option<&CookieScope> {
    let site = &visit.arrival.site;
    site.cookies.first().filter(|_| site.hands_over)
}

/// At home: the domain that asks, where it is one of the others and `rd` one that its portal would follow.
fn wanted<'v>(visit: &'v Visit, form: &Form) -> Option<&'v CookieScope> {
    home(visit).filter(|home| home.domain == visit.scope.domain)?;
    let is_ours = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if form.state.is_empty() || form.state.len() > LONGEST || !form.state.bytes().all(is_ours) {
        return None;
    }
    let site = &visit.arrival.site;
    let scope = site.scope(Url::parse(&form.rd).ok()?.host_str()?)?;
    let origin = scope.portal.as_ref()?.origin().ascii_serialization();
    let is_other = scope.domain != visit.scope.domain;
    (is_other && return_to(&form.rd, site, scope, visit.scheme, &origin).is_some()).then_some(scope)
}

fn base_of(scope: &CookieScope) -> Option<&str> {
    Some(scope.portal.as_ref()?.as_str().trim_end_matches('/'))
}

/// Anything else means nothing to the rules.
fn method(rm: &str) -> &str {
    if rm.len() <= LONGEST && rm.bytes().all(|byte| byte.is_ascii_uppercase()) { rm } else { "" }
}

/// `<unix millis>.<proof>`. The cookie is the secret: who sees the state cannot make one for another page or time. All parts of the proof have a
/// fixed length, so that none runs over into the next.
fn state_of(cookie: &str, rd: &str, rm: &str, at: Timestamp) -> String {
    let digest = |text: &str| Sha256::digest(text.as_bytes());
    let mut proof = Sha256::new();
    proof.update(b"postern hand-over v1\0");
    proof.update(digest(cookie));
    proof.update(at.unix_millis().to_be_bytes());
    proof.update(digest(rd));
    proof.update(digest(rm));
    format!("{}.{}", at.unix_millis(), URL_SAFE_NO_PAD.encode(proof.finalize()))
}

/// In constant time, but for what everybody knows.
fn is_state_of(asked: &Asked, cookie: &str, now: Timestamp) -> bool {
    let made = asked.state.split_once('.').and_then(|(millis, _)| millis.parse().ok()).map(Timestamp::from_unix_millis);
    made.is_some_and(|made| {
        let expected = state_of(cookie, &asked.rd, &asked.rm, made);
        made <= now.after(SKEW)
            && now.since(made) < STATE_HOLDS
            && bool::from(expected.as_bytes().ct_eq(asked.state.as_bytes()))
    })
}

fn leads_nowhere(visit: &Visit) -> Response<String> {
    let lines = vec!["This address is one that sign-in pages use among themselves, and it leads nowhere.".to_owned()];
    landing::message(visit, StatusCode::BAD_REQUEST, "There is nothing here", lines, vec![], to_start(visit))
}

fn refused(visit: &Visit) -> Response<String> {
    let lines = vec![
        "Your sign-in was to be brought here from another page, and did not arrive in time or in this browser."
            .to_owned(),
        "Open the page that you wanted once more. If the same happens again, allow cookies for this site.".to_owned(),
    ];
    let facts = vec![("Request id", visit.arrival.request_id.clone(), true)];
    landing::message(visit, StatusCode::FORBIDDEN, "Your sign-in did not arrive", lines, facts, to_start(visit))
}

fn to_start(visit: &Visit) -> Vec<(String, String)> {
    vec![("Sign in here".to_owned(), format!("{}/", visit.base))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_of_one_browser_one_page_and_its_time() {
        let at = Timestamp::from_unix_millis(1_800_000_000_000);
        let asked = |state: &str, rd: &str, rm: &str| Asked {
            domain: String::new(),
            state: state.to_owned(),
            rd: rd.to_owned(),
            rm: rm.to_owned(),
        };
        let state = state_of("cookie", "https://app.b.test/", "GET", at);
        assert!(state.len() <= LONGEST);
        let soon = at.after(Duration::from_secs(1));
        let later = at.after(STATE_HOLDS);
        let newer = state.replacen("18", "19", 1);
        for (state, rd, rm, cookie, now, is_good) in [
            (state.as_str(), "https://app.b.test/", "GET", "cookie", soon, true),
            (&state, "https://app.b.test/", "GET", "other", soon, false),
            (&state, "https://app.b.test/x", "GET", "cookie", soon, false),
            (&state, "https://app.b.test/", "POST", "cookie", soon, false),
            (&state, "https://app.b.test/G", "ET", "cookie", soon, false),
            (&state, "https://app.b.test/", "GET", "cookie", later, false),
            (&newer, "https://app.b.test/", "GET", "cookie", later, false),
            ("", "https://app.b.test/", "GET", "cookie", soon, false),
            ("1800000000000.", "https://app.b.test/", "GET", "cookie", soon, false),
        ] {
            assert_eq!(is_state_of(&asked(state, rd, rm), cookie, now), is_good, "{state} {rd} {rm} {cookie}");
        }
        let early = at.before(SKEW + Duration::from_millis(1));
        assert!(!is_state_of(&asked(&state, "https://app.b.test/", "GET"), "cookie", early));
    }
}
