//! `portal:`: where people sign in, and how it looks.

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::{is_local, web_url};
use crate::{
    config::error::{Report, Trail},
    core::{
        site::{Mount, PortalSite},
        target::{Scheme, canonical_host},
    },
};

const PATH: &str = "/_postern";
const TITLE: &str = "Postern";
const ACCENT: &str = "#2f5d8a";

/// Where people sign in, and how it looks.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct RawPortal {
    /// The portal on a host of its own.
    #[schemars(example = &"https://auth.example.com")]
    url: Option<String>,
    /// Instead of `url`: the portal below this path of every host.
    #[schemars(example = &"/_postern")]
    pub(in crate::config) path: Option<String>,
    /// Shown on every page (default `Postern`).
    #[schemars(example = &"Example Inc.")]
    title: Option<String>,
    /// The accent colour, `#rrggbb`.
    #[schemars(example = &"#2f5d8a")]
    accent: Option<String>,
    /// Groups whose people are told what each rule says on the page that refuses them (default: nobody).
    #[schemars(example = ["group:admins"])]
    explain_to: Vec<String>,
}

/// `must_choose`: why a portal must be named, where leaving it out is no option.
pub(in crate::config) fn portal(report: &mut Report, raw: &RawPortal, must_choose: Option<&str>) -> PortalSite {
    let at = Trail::root().key("portal");
    let mount = match (&raw.url, &raw.path) {
        (Some(_), Some(_)) => {
            report.fault(&at.key("path"), "`portal.url` and `portal.path` exclude each other; keep one");
            None
        }
        (Some(url), None) => host_mount(report, &at.key("url"), url),
        (None, Some(path)) => path_mount(report, &at.key("path"), path),
        (None, None) => {
            if let Some(reason) = must_choose {
                let message = format!(
                    "{reason}, so the portal needs a place; write `portal: {{ url: https://auth.example.com }}`, or `path: {PATH}`"
                );
                report.fault(&at, message);
            }
            None
        }
    };
    let title = raw.title.clone().unwrap_or_else(|| TITLE.to_owned());
    if title.trim().is_empty() || title.chars().any(char::is_control) || title.chars().count() > 80 {
        report.fault(
            &at.key("title"),
            "the title must be one line of 1 to 80 characters; write for example `Example Inc.`",
        );
    }
    let accent = raw.accent.clone().unwrap_or_else(|| ACCENT.to_owned());
    let digits = accent.strip_prefix('#').unwrap_or_default();
    if digits.len() != 6 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        report.fault(
            &at.key("accent"),
            format!("`portal.accent` must be a colour as `#rrggbb`; write for example `{ACCENT}`"),
        );
    }
    let explain_to = explain_to(report, &at.key("explain_to"), &raw.explain_to);
    PortalSite { mount: mount.unwrap_or_else(|| Mount::Path(PATH.to_owned())), title, accent, explain_to }
}

/// Names of groups, written as a rule's `subject` writes them.
fn explain_to(report: &mut Report, at: &Trail, written: &[String]) -> Vec<String> {
    let group = |entry: &String| {
        let name = entry.strip_prefix("group:")?;
        let is_name = !name.is_empty()
            && name == name.trim()
            && !name.contains(|letter: char| letter == ',' || letter.is_control());
        is_name.then(|| name.to_owned())
    };
    let mut groups = Vec::new();
    for (place, entry) in written.iter().enumerate() {
        match group(entry) {
            Some(name) => groups.push(name),
            None => {
                report.fault(&at.item(place), format!("`{entry}` is not a group; write for example `group:admins`"))
            }
        }
    }
    groups
}

fn host_mount(report: &mut Report, at: &Trail, text: &str) -> Option<Mount> {
    let url = report.take(at, portal_url(text))?;
    let Some(host) = url.host_str().and_then(canonical_host) else {
        report
            .fault(at, "this URL names no host that requests could have; write for example `https://auth.example.com`");
        return None;
    };
    let scheme = scheme(&url);
    if scheme == Scheme::Http && !is_local(&host) {
        report.warn(at, "the portal is on plain http: passwords and cookies can be read on the way; write `https://`");
    }
    let base = url.path().trim_end_matches('/').to_owned();
    Some(Mount::Host { url, host, scheme, base })
}

/// A portal's base URL, without a trailing slash in its path (but for the root).
pub(in crate::config) fn portal_url(text: &str) -> Result<Url, String> {
    let mut url = web_url(text, "https://auth.example.com")?;
    let base = url.path().trim_end_matches('/').to_owned();
    if !base.is_empty() && !is_plain(&base) {
        return Err("the path of this URL must be plain; write for example `https://example.com/auth`".to_owned());
    }
    url.set_path(&base);
    Ok(url)
}

pub(in crate::config) fn scheme(url: &Url) -> Scheme {
    if url.scheme() == "https" { Scheme::Https } else { Scheme::Http }
}

fn path_mount(report: &mut Report, at: &Trail, text: &str) -> Option<Mount> {
    let path = text.trim_end_matches('/');
    if !is_plain(path) {
        report.fault(at, format!("`{text}` cannot hold the portal; write a plain path below `/`, such as `{PATH}`"));
        return None;
    }
    report.warn(
        at,
        "`portal.path` puts the portal on the applications' own origins: only applications that are trusted like Postern \
         itself belong there; else write `portal.url`",
    );
    Some(Mount::Path(path.to_owned()))
}

/// Segments that have one spelling only.
fn is_plain(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|segment| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            !matches!(segment, "" | "." | "..") && segment.bytes().all(plain)
        })
    })
}
