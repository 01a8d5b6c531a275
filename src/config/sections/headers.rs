//! `headers:` of a route or a listener: names to templates.

use std::collections::BTreeMap;

use crate::{
    config::error::{Report, Trail},
    core::{header::is_spoofed, route::HeaderTemplate},
};

/// Names that belong to the connection, the message's framing or the session, never to a template.
const RESERVED: &[&str] = &[
    "connection",
    "content-length",
    "cookie",
    "expect",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Of the headers that Postern removes from a request, the one that it sets only where it is asked to.
const ON_DEMAND: &str = "remote-roles";

pub(in crate::config) fn templates(
    report: &mut Report,
    at: &Trail,
    raw: &BTreeMap<String, String>,
) -> Vec<HeaderTemplate> {
    let mut templates: Vec<HeaderTemplate> = Vec::new();
    for (name, text) in raw {
        let here = at.key(name);
        let lower = name.to_ascii_lowercase();
        if RESERVED.contains(&lower.as_str()) {
            report.fault_of_key(
                &here,
                format!("`{name}` belongs to the connection and cannot be a template; take it out"),
            );
        } else if is_spoofed(name, &[]) && lower != ON_DEMAND {
            let message =
                format!("Postern sets or removes `{name}` itself; choose another name, such as `X-WEBAUTH-USER`");
            report.fault_of_key(&here, message);
        } else if raw.keys().any(|other| other < name && other.eq_ignore_ascii_case(name)) {
            report.fault_of_key(&here, format!("`{name}` stands twice, in two spellings; keep one"));
        } else {
            templates.extend(report.take(&here, HeaderTemplate::parse(name, text)));
        }
    }
    templates
}
