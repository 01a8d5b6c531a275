//! What both roles say instead of forwarding (CONTRACT 5): the answer's headers, and as its body a page for a browser, else a
//! problem. Shown on an application's host: nothing is loaded from anywhere, no form can be sent, no internals are told.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    Told,
    explain::{self, Explained},
    landing,
    look::Shell,
    page::{Message, page},
    problem::{Code, problem_with, slow_down},
};
use crate::core::{
    header::{X_POSTERN_RULE, X_POSTERN_STATUS},
    quota::whole_seconds,
    site::Site,
    verdict::Rejection,
};

pub(super) fn render(told: &Told<'_>) -> Response<Bytes> {
    let code = code_of(told);
    let status = told.answer.status;
    let waits = told.standing.filter(|_| code == Code::RateLimited);
    let mut response = match waits.and_then(|standing| Some((standing, standing.refusal()?))) {
        _ if told.is_page_load => message(told.site, status, body_of(code, told)),
        Some((standing, refusal)) => slow_down(told, refusal, standing.at),
        None => problem_with(code, status, told.request_id, told.rule),
    };
    if let Some(standing) = waits {
        let headers = response.headers_mut();
        standing.each_header(told.site.rules.limit_headers(), |name, value| drop(headers.insert(name, value)));
    }
    set(&mut response, header::LOCATION, told.answer.location.as_deref());
    set(&mut response, header::WWW_AUTHENTICATE, told.answer.challenge);
    if let Some(wait) = told.answer.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(whole_seconds(wait)));
    }
    if let Some(status) = told.answer.postern_status {
        response.headers_mut().insert(X_POSTERN_STATUS, HeaderValue::from(status));
    }
    set(&mut response, X_POSTERN_RULE, told.rule);
    response.map(Bytes::from)
}

pub(super) fn upstream_failure(site: &Site, status: StatusCode, request_id: &str, is_page: bool) -> Response<Bytes> {
    let is_slow = status == StatusCode::GATEWAY_TIMEOUT;
    let code = if is_slow { Code::UpstreamTimeout } else { Code::UpstreamUnreachable };
    let response = if is_page {
        let heading = if is_slow { "The application takes too long" } else { "The application does not answer" };
        let line = "You did nothing wrong. Try again in a moment; if it stays like this, give the request id below to \
                    whoever runs this.";
        let mut body = Body::new(heading, line, request_id);
        body.links.push(try_again());
        message(site, status, body)
    } else {
        problem_with(code, status, request_id, None)
    };
    response.map(Bytes::from)
}

struct Body {
    heading: &'static str,
    line: &'static str,
    facts: Vec<(&'static str, String, bool)>,
    links: Vec<(String, String)>,
    explained: Option<Box<Explained>>,
}

impl Body {
    fn new(heading: &'static str, line: &'static str, request_id: &str) -> Self {
        Self { heading, line, facts: vec![("Request id", request_id.to_owned(), true)], links: vec![], explained: None }
    }
}

fn code_of(told: &Told<'_>) -> Code {
    match told.verdict {
        "sign_in" if is_basic(told) && told.answer.location.is_none() => Code::InvalidCredentials,
        "sign_in" if told.answer.challenge.is_some() && !is_basic(told) => Code::InvalidToken,
        "sign_in" => Code::SignInRequired,
        "step_up" => Code::StepUpRequired,
        "refuse" if told.answer.challenge.is_some() => Code::InsufficientScope,
        "refuse" => Code::AccessDenied,
        "slow_down" => Code::RateLimited,
        "unavailable" => Code::Unavailable,
        _ => match told.rejection {
            Some(Rejection::NoRoute) => Code::NotFound,
            Some(Rejection::Connect) => Code::MethodNotAllowed,
            Some(Rejection::Misdirected) => Code::Misdirected,
            Some(Rejection::ServiceWorker) => Code::AccessDenied,
            Some(Rejection::HeadersTooLarge) => Code::HeadersTooLarge,
            Some(_) => Code::BadRequest,
            None => match told.answer.status {
                StatusCode::NOT_FOUND => Code::NotFound,
                StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
                StatusCode::REQUEST_TIMEOUT => Code::RequestTimeout,
                StatusCode::PAYLOAD_TOO_LARGE => Code::PayloadTooLarge,
                status if status.is_server_error() => Code::Internal,
                _ => Code::BadRequest,
            },
        },
    }
}

fn is_basic(told: &Told<'_>) -> bool {
    told.answer.challenge.is_some_and(|challenge| challenge.starts_with("Basic"))
}

fn body_of(code: Code, told: &Told<'_>) -> Body {
    let (heading, line) = match code {
        Code::AccessDenied => (
            "You may not open this page",
            "The rules here do not let you in. If you think they should, give the request id below to whoever runs this.",
        ),
        Code::InsufficientScope => (
            "The token does not count here",
            "Its scopes leave this host or this method out. Use another token, or make one for this purpose.",
        ),
        Code::SignInRequired | Code::StepUpRequired | Code::InvalidToken | Code::InvalidCredentials => {
            ("Sign in first", "This page is for people who are signed in.")
        }
        Code::NotFound => ("There is nothing here", "No application is served at this address."),
        Code::MethodNotAllowed => ("Not served", "This kind of request is not served here."),
        Code::Misdirected => (
            "Not on this connection",
            "Your browser asked for this site on a connection to another one. Load the page again.",
        ),
        Code::HeadersTooLarge => (
            "Too many cookies",
            "Your browser sent more than is taken here. Delete the cookies of this site and try again.",
        ),
        Code::RateLimited => ("Slow down", "Too many requests came from you. Wait a moment and try again."),
        Code::Unavailable => {
            ("Not available right now", "It cannot be decided at the moment who may pass. Try again soon.")
        }
        Code::Internal => ("Something went wrong", "It is our fault, not yours. Try again in a moment."),
        Code::RequestTimeout => {
            ("That took too long", "What you sent did not arrive in time. Check your connection and try again.")
        }
        Code::PayloadTooLarge => ("That was too large", "What you sent is larger than is taken here."),
        _ => ("That was not understood", "The address or the request cannot be read in one way, so it goes nowhere."),
    };
    let mut body = Body::new(heading, line, told.request_id);
    if let Some(rule) = told.rule.filter(|_| code == Code::AccessDenied) {
        body.facts.insert(0, ("Rule", rule.to_owned(), false));
    }
    if told.verdict == "refuse" {
        body.explained =
            told.question.as_ref().and_then(|question| explain::on_an_application(told.site, question)).map(Box::new);
    }
    if let Some(identity) = told.identity {
        body.facts.insert(0, ("Signed in as", identity.user.to_string(), false));
    }
    if matches!(code, Code::Unavailable | Code::RateLimited | Code::Internal | Code::Misdirected) {
        body.links.push(try_again());
    }
    if let Some(location) = &told.answer.location {
        body.links.push(("Sign in".to_owned(), location.clone()));
    } else if let (Code::AccessDenied, Some(_), Some(portal)) = (code, told.identity, told.portal) {
        let rd = told.wanted.map(|wanted| wanted.url()).unwrap_or_default();
        let sign_out = format!("{}/logout", portal.as_str().trim_end_matches('/'));
        body.links.push(("Sign in as somebody else".to_owned(), landing::with_rd(&sign_out, &rd)));
    }
    body
}

/// The address that failed is the page's own: an empty reference (RFC 3986 §4.4) loads it once more.
fn try_again() -> (String, String) {
    ("Try again".to_owned(), String::new())
}

fn message(site: &Site, status: StatusCode, body: Body) -> Response<String> {
    let shell = Shell::new(&site.portal.title, &site.portal.accent, None);
    let style = shell.style_source();
    let template = Message {
        shell,
        heading: body.heading.to_owned(),
        lines: vec![body.line.to_owned()],
        facts: body.facts,
        links: body.links,
        hint: None,
        explained: body.explained,
    };
    page(status, &style, "", &template)
}

fn set(response: &mut Response<String>, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_bytes(value.as_bytes()).ok()) {
        response.headers_mut().insert(name, value);
    }
}
