//! Errors of the portal and of both roles: the stable codes, and problem bodies (RFC 9457). A body never says more than its
//! code: the detail goes to the log.

use std::{fmt::Write as _, time::Duration};

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::{Told, api::time};
use crate::core::{
    quota::{Refusal, whole_seconds},
    time::Timestamp,
};

/// Every code a client may see. A contract: never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Code {
    SignInRequired,
    InvalidCredentials,
    InvalidToken,
    StepUpRequired,
    AccessDenied,
    InsufficientScope,
    CrossOrigin,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    Misdirected,
    RequestTimeout,
    PayloadTooLarge,
    UnsupportedMediaType,
    HeadersTooLarge,
    RateLimited,
    Busy,
    Unavailable,
    UpstreamUnreachable,
    UpstreamTimeout,
    Internal,
}

impl Code {
    /// The code, its usual status, and what it means in a sentence.
    pub(super) const fn parts(self) -> (&'static str, StatusCode, &'static str) {
        match self {
            Self::SignInRequired => ("sign_in_required", StatusCode::UNAUTHORIZED, "Sign in first."),
            Self::InvalidCredentials => {
                ("invalid_credentials", StatusCode::UNAUTHORIZED, "The user name or the password is wrong.")
            }
            Self::InvalidToken => ("invalid_token", StatusCode::UNAUTHORIZED, "The token does not hold."),
            Self::StepUpRequired => {
                ("step_up_required", StatusCode::FORBIDDEN, "Sign in again, or with a second factor.")
            }
            Self::AccessDenied => ("access_denied", StatusCode::FORBIDDEN, "You may not see this."),
            Self::InsufficientScope => {
                ("insufficient_scope", StatusCode::FORBIDDEN, "The token's scopes leave this request out.")
            }
            Self::CrossOrigin => ("cross_origin", StatusCode::FORBIDDEN, "The request comes from another site."),
            Self::BadRequest => ("bad_request", StatusCode::BAD_REQUEST, "The request was not understood."),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND, "There is nothing here."),
            Self::MethodNotAllowed => {
                ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED, "This method is not served here.")
            }
            Self::Misdirected => (
                "misdirected_request",
                StatusCode::MISDIRECTED_REQUEST,
                "The host belongs to another certificate than this connection's. Ask again on a new connection.",
            ),
            Self::RequestTimeout => {
                ("request_timeout", StatusCode::REQUEST_TIMEOUT, "The body of the request did not come in time.")
            }
            Self::PayloadTooLarge => ("payload_too_large", StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
            Self::UnsupportedMediaType => {
                ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE, "Send application/json.")
            }
            Self::HeadersTooLarge => (
                "headers_too_large",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The request's headers are too large.",
            ),
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS, "Too many requests."),
            Self::Busy => ("busy", StatusCode::SERVICE_UNAVAILABLE, "Too many sign-ins at once."),
            Self::Unavailable => ("unavailable", StatusCode::SERVICE_UNAVAILABLE, "Cannot decide this at the moment."),
            Self::UpstreamUnreachable => {
                ("upstream_unreachable", StatusCode::BAD_GATEWAY, "The application does not answer.")
            }
            Self::UpstreamTimeout => {
                ("upstream_timeout", StatusCode::GATEWAY_TIMEOUT, "The application takes too long.")
            }
            Self::Internal => ("internal", StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong on our side."),
        }
    }
}

/// How long to wait where nobody knows better.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// As many as most problems have, with what a limit of two windows tells: they are not to be moved each time that there are twice as many.
const HEADERS: usize = 14;

/// Bytes of most problems that a limit is the reason of.
const WAIT: usize = 400;

/// A problem body with the code's own status.
pub(super) fn problem(code: Code, request_id: &str) -> Response<String> {
    let mut response = problem_with(code, code.parts().1, request_id, None);
    if matches!(code, Code::Busy | Code::Unavailable) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(RETRY_AFTER.as_secs()));
    }
    response
}

pub(super) fn problem_with(code: Code, status: StatusCode, request_id: &str, rule: Option<&str>) -> Response<String> {
    let (name, _, detail) = code.parts();
    let mut body = json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "code": name,
        "detail": detail,
        "request_id": request_id,
    });
    if let (Some(rule), Some(fields)) = (rule, body.as_object_mut()) {
        fields.insert("rule".to_owned(), rule.into());
    }
    response_of(status, body.to_string())
}

/// A problem that is written at once: in a flood most requests get one.
struct Written(String);

impl Written {
    /// `word` is ours: nothing in it needs a backslash.
    fn word(&mut self, key: &'static str, word: &str) {
        let separator = if self.0.is_empty() { "{\"" } else { ",\"" };
        for part in [separator, key, "\":\"", word, "\""] {
            self.0.push_str(part);
        }
    }

    fn number(&mut self, key: &'static str, number: u64) {
        let _ = write!(self.0, ",\"{key}\":{number}");
    }

    fn text(&mut self, key: &'static str, text: &str) {
        if text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\') || byte == b' ') {
            return self.word(key, text);
        }
        let _ = write!(self.0, ",\"{key}\":{}", serde_json::Value::from(text));
    }
}

/// The problem of whom a limit makes wait (CONTRACT 8). `at`: when it was counted.
pub(super) fn slow_down(told: &Told<'_>, refusal: &Refusal, at: Timestamp) -> Response<String> {
    let (code, _, detail) = Code::RateLimited.parts();
    let status = told.answer.status;
    let mut body = Written(String::with_capacity(WAIT));
    body.word("type", "about:blank");
    body.word("title", status.canonical_reason().unwrap_or("Error"));
    body.number("status", status.as_u16().into());
    body.word("code", code);
    body.word("detail", detail);
    body.text("request_id", told.request_id);
    if let Some(rule) = told.rule {
        body.text("rule", rule);
    }
    body.text("limit", &refusal.limit);
    body.word("window", refusal.rate.unit().as_str());
    body.number("retry_after", whole_seconds(refusal.retry_after));
    if let Some(reset_at) = time(at.after(refusal.retry_after)) {
        body.word("reset_at", &reset_at);
    }
    body.0.push('}');
    response_of(status, body.0)
}

fn response_of(status: StatusCode, body: String) -> Response<String> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADERS);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_at_once_is_read_as_it_was(texts in prop::collection::vec(any::<String>(), 1..4), number in any::<u64>()) {
            let keys = ["limit", "rule", "request_id"];
            let mut written = Written(String::new());
            written.word("type", "about:blank");
            written.number("status", number);
            keys.iter().zip(&texts).for_each(|(key, text)| written.text(key, text));
            written.0.push('}');
            let read: serde_json::Value = serde_json::from_str(&written.0).unwrap();
            prop_assert_eq!(&read["type"], "about:blank");
            prop_assert_eq!(&read["status"], number);
            for (key, text) in keys.iter().zip(&texts) {
                prop_assert_eq!(&read[key], text.as_str());
            }
        }
    }
}
