//! Where a signed-in person goes (CONTRACT 7 "`rd`"): on, to the page that asks for a second factor, or to the denied page.
//! Must never answer with a redirect that leads back to the sign-in page (THREATS 66, 70).

use std::sync::Arc;

use http::{Response, StatusCode};
use url::Url;

use super::{
    explain::{self, Explained},
    page::{Message, page},
    pages::{self, Form, Notice},
    visit::Visit,
};
use crate::{
    core::{
        cookie,
        identity::Identity,
        policy::{Question, Ruling},
        return_to::return_to,
        target::Target,
    },
    ports::LiveSession,
};

/// How often, within [`RETURN_WINDOW`], a browser may come back from the same page before it is told why it does not get there.
const MOST_RETURNS: u32 = 2;
const RETURN_WINDOW: u64 = 20;
const TOO_OLD: Notice = Notice::Done("This page asks for a sign-in that is not that old. Sign in once more to go on.");
const DENIED: &str = "You may not open this page";

pub(super) enum Landing {
    To(Url),
    /// Signed in too long ago for this page.
    Again,
    StepUp {
        rule: Arc<str>,
        wanted: Target,
    },
    Denied {
        rule: Arc<str>,
        wanted: Target,
    },
    /// `rd` leads nowhere that we follow.
    Home,
}

/// `rd` where it may be followed at all.
pub(super) fn followed(visit: &Visit, rd: &str) -> Option<(Url, Target)> {
    let url = return_to(rd, &visit.arrival.site, &visit.scope, visit.scheme, &visit.origin)?;
    let mut without_fragment = url.clone();
    without_fragment.set_fragment(None);
    let target = Target::parse_url_with(without_fragment.as_str(), visit.arrival.site.widest_slashes()).ok()?;
    // The portal itself decides nothing: sent to its own `/`, the browser would turn in circles.
    visit.arrival.site.portal_path(&target).is_none().then_some((url, target))
}

/// What the rules are asked about `wanted`.
fn question<'q>(visit: &'q Visit, live: &'q LiveSession, wanted: &'q Target, rm: &'q str) -> Question<'q> {
    let is_method = !rm.is_empty() && rm.bytes().all(|byte| byte.is_ascii_uppercase());
    Question {
        target: wanted,
        method: if is_method { rm } else { "GET" },
        client: visit.arrival.client,
        caller: Some(&live.identity),
        now: visit.portal.clock.now(),
        // Those that matter to rules come again with the request itself.
        headers: Some(&visit.headers),
        route: visit.arrival.site.routes.find(wanted.host(), wanted.path()).map(|route| route.name.as_str()),
    }
}

pub(super) fn decided(visit: &Visit, live: &LiveSession, rd: &str, rm: &str) -> Landing {
    let Some((url, wanted)) = followed(visit, rd) else { return Landing::Home };
    let decided = visit.arrival.site.rules.decide(&question(visit, live, &wanted, rm));
    let rule = Arc::clone(decided.rule);
    match decided.ruling {
        Ruling::Forward => Landing::To(url),
        Ruling::StepUp if decided.is_stale => Landing::Again,
        Ruling::StepUp | Ruling::SignIn => Landing::StepUp { rule, wanted },
        Ruling::Refuse => Landing::Denied { rule, wanted },
    }
}

/// The answer for somebody who is signed in. `is_own`: whoever asks has shown more than the session cookie, which every application of
/// the domain may know (THREATS 59).
pub(super) fn land(visit: &Visit, live: &LiveSession, is_own: bool, rd: &str, rm: &str) -> Response<String> {
    match decided(visit, live, rd, rm) {
        Landing::To(url) => on_to(visit, &url),
        Landing::Again => sign_in_again(visit, live, rd, rm),
        Landing::StepUp { rule, wanted } => step_up(visit, Some((&rule, &wanted)), &live.identity),
        Landing::Denied { rule, wanted } => refused(visit, live, is_own, (&rule, &wanted), rm),
        Landing::Home => {
            let default = visit.scope.default_redirect.as_ref().map(Url::as_str);
            match default.and_then(|url| followed(visit, url)) {
                Some((url, _)) => on_to(visit, &url),
                None if visit.is_on_apps_origin => visit.redirect(&format!("{}/", visit.base)),
                None => visit.redirect(&format!("{}/account", visit.base)),
            }
        }
    }
}

/// The denied page of somebody who is signed in, with the reasons for those who may know. `is_own` as for [`land`].
pub(super) fn refused(
    visit: &Visit,
    live: &LiveSession,
    is_own: bool,
    (rule, wanted): (&str, &Target),
    rm: &str,
) -> Response<String> {
    let (site, question) = (&visit.arrival.site, question(visit, live, wanted, rm));
    let explained = match (is_own, visit.is_on_apps_origin) {
        (false, _) => None,
        (true, false) => explain::on_the_portal(site, &question),
        (true, true) => explain::on_an_application(site, &question),
    };
    denied(visit, Some((rule, wanted)), Some(&live.identity), explained.map(Box::new))
}

/// Sends the browser on, and counts how often it comes back from there: the gate did not know it, though we do. Cookies of a
/// nested domain do that, which the portal never sees (THREATS 70).
fn on_to(visit: &Visit, url: &Url) -> Response<String> {
    let name = cookie::return_cookie(visit.is_secure());
    let mark = super::csrf::form_token(url.as_str());
    let returns = cookie::values(&visit.headers, name)
        .find_map(|value| value.split_once('.').filter(|(_, known)| *known == mark)?.0.parse::<u32>().ok())
        .unwrap_or(0);
    if returns >= MOST_RETURNS {
        let mut response = circling(visit, url);
        visit.set_cookie(&mut response, name, "", Some(0));
        return response;
    }
    let mut response = visit.redirect(url.as_str());
    visit.set_cookie(&mut response, name, &format!("{}.{mark}", returns.saturating_add(1)), Some(RETURN_WINDOW));
    response
}

fn circling(visit: &Visit, url: &Url) -> Response<String> {
    let host = url.host_str().unwrap_or_default();
    let lines = vec![
        format!("You are signed in here, but {host} sent you back each time: your sign-in does not arrive there."),
        format!(
            "Most often an old cookie is in the way. Delete the cookies of {host} in your browser, and make sure that {host} is \
             opened with https if this page is. If that does not help, tell whoever runs this: the clocks of their servers may differ."
        ),
    ];
    let links = vec![("Try again".to_owned(), url.to_string())];
    message(visit, StatusCode::CONFLICT, "Your sign-in does not arrive", lines, vec![], links)
}

/// The form once more, for the same page and the same name.
fn sign_in_again(visit: &Visit, live: &LiveSession, rd: &str, rm: &str) -> Response<String> {
    let form = Form {
        username: live.identity.user.to_string(),
        remember_me: live.session.cookie.remembered,
        rd: rd.to_owned(),
        rm: rm.to_owned(),
        ..Form::default()
    };
    pages::sign_in_page(visit, StatusCode::OK, &form, None, Some(TOO_OLD))
}

type Decision<'d> = Option<(&'d str, &'d Target)>;

pub(super) fn step_up(visit: &Visit, decision: Decision<'_>, identity: &Identity) -> Response<String> {
    let asks = if decision.is_some() { "This page asks" } else { "Some pages ask" };
    let lines = vec![
        format!("{asks} for a second factor beside your password, and you have none."),
        "One cannot be set up here yet. Ask whoever runs this for another way in, and give them the request id below."
            .to_owned(),
    ];
    message(
        visit,
        StatusCode::FORBIDDEN,
        "A second factor is needed",
        lines,
        facts(visit, decision, Some(identity)),
        elsewhere(visit, decision),
    )
}

pub(super) fn denied(
    visit: &Visit,
    decision: Decision<'_>,
    identity: Option<&Identity>,
    explained: Option<Box<Explained>>,
) -> Response<String> {
    let Some(identity) = identity else {
        let lines = vec!["You are not signed in. Sign in with an account that may open it.".to_owned()];
        let links = vec![("Sign in".to_owned(), format!("{}/", visit.base))];
        return message(visit, StatusCode::FORBIDDEN, DENIED, lines, facts(visit, None, None), links);
    };
    let lines = vec![
        "The rules do not let you in with the account that you are signed in with. If you think they should, give the request \
         id below to whoever runs this."
            .to_owned(),
    ];
    let facts = facts(visit, decision, Some(identity));
    let links = elsewhere(visit, decision);
    told(
        StatusCode::FORBIDDEN,
        &Message { heading: DENIED.to_owned(), lines, facts, links, hint: None, explained, shell: visit.shell() },
    )
}

fn facts(visit: &Visit, decision: Decision<'_>, identity: Option<&Identity>) -> Vec<(&'static str, String, bool)> {
    let mut facts = Vec::new();
    if let Some(identity) = identity {
        facts.push(("Signed in as", identity.user.to_string(), false));
    }
    if let Some((rule, wanted)) = decision {
        facts.push(("Page", format!("{}{}", wanted.host(), wanted.path()), false));
        facts.push(("Rule", rule.to_owned(), false));
    }
    facts.push(("Request id", visit.arrival.request_id.clone(), true));
    facts
}

fn elsewhere(visit: &Visit, decision: Decision<'_>) -> Vec<(String, String)> {
    let rd = decision.map(|(_, wanted)| wanted.url()).unwrap_or_default();
    let mut links = vec![("Sign in as somebody else".to_owned(), with_rd(&format!("{}/logout", visit.base), &rd))];
    if !visit.is_on_apps_origin {
        links.push(("Your account".to_owned(), format!("{}/account", visit.base)));
    }
    links
}

pub(super) fn with_rd(path: &str, rd: &str) -> String {
    if rd.is_empty() {
        return path.to_owned();
    }
    let query = form_urlencoded::Serializer::new(String::new()).append_pair("rd", rd).finish();
    format!("{path}?{query}")
}

pub(super) fn message(
    visit: &Visit,
    status: StatusCode,
    heading: &str,
    lines: Vec<String>,
    facts: Vec<(&'static str, String, bool)>,
    links: Vec<(String, String)>,
) -> Response<String> {
    let heading = heading.to_owned();
    told(status, &Message { shell: visit.shell(), heading, lines, facts, links, hint: None, explained: None })
}

fn told(status: StatusCode, message: &Message) -> Response<String> {
    page(status, &message.shell.style_source(), "", message)
}
