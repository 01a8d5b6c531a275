//! From a template to an answer with the headers that every page carries. Must never send a page without its CSP.

use askama::Template;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::{
    explain::Explained,
    look::Shell,
    problem::{Code, problem},
};

/// Whatever is said in a heading, some lines, a table of facts and links.
#[derive(Template)]
#[template(path = "message.html")]
pub(super) struct Message {
    pub(super) shell: Shell,
    pub(super) heading: String,
    pub(super) lines: Vec<String>,
    /// Name, value, whether it is to be read letter by letter.
    pub(super) facts: Vec<(&'static str, String, bool)>,
    pub(super) links: Vec<(String, String)>,
    pub(super) hint: Option<&'static str>,
    /// What the rules say, for those who may know.
    pub(super) explained: Option<Box<Explained>>,
}

/// `form_action`: sources of the CSP directive; empty: no form may be sent.
pub(super) fn page(
    status: StatusCode,
    shell_style: &str,
    form_action: &str,
    template: &impl Template,
) -> Response<String> {
    let Ok(html) = template.render() else { return problem(Code::Internal, "") };
    let mut response = Response::new(html);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    let form_action = if form_action.is_empty() { "'none'" } else { form_action };
    let policy = format!(
        "default-src 'none'; style-src {shell_style}; img-src 'self'; form-action {form_action}; frame-ancestors 'none'; \
         base-uri 'none'"
    );
    match HeaderValue::from_str(&policy) {
        Ok(policy) => headers.insert(header::CONTENT_SECURITY_POLICY, policy),
        Err(_) => return problem(Code::Internal, ""),
    };
    secure(headers);
    response
}

/// What every page carries beside its policy.
fn secure(headers: &mut HeaderMap) {
    for (name, value) in [
        ("cache-control", "no-store"),
        ("cross-origin-opener-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=(), usb=()"),
        ("referrer-policy", "same-origin"),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
