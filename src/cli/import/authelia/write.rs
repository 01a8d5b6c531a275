//! What was read, as the text of Postern's two files. Every part says from which line of Authelia's file it came.

use super::{
    Import,
    length::spelt,
    rules::WrittenRule,
    spot::Placed,
    yaml::{comment, list, literal, scalar},
};
use crate::core::policy::{Operator, QueryDraft};

/// Where the copy of the users file stands, from the folder that Postern runs in.
pub(super) const USERS: &str = "config/users.yaml";

/// Takes lines. A `String` takes all that is written to it, so that there is no failure to speak of.
struct Text<'i> {
    /// Name of Authelia's file, for comments.
    source: &'i str,
    text: String,
}

impl Text<'_> {
    fn line(&mut self, line: impl AsRef<str>) {
        self.text.push_str(line.as_ref());
        self.text.push('\n');
    }

    /// With the place that it came from.
    fn from(&mut self, line: impl AsRef<str>, from: Option<u64>) {
        let came = match from {
            Some(from) => format!("  # from {}:{from}", self.source),
            None => "  # Authelia's default".to_owned(),
        };
        self.line(format!("{}{came}", line.as_ref()));
    }
}

/// `config/postern.yaml`.
pub(super) fn config(import: &Import, source: &str) -> String {
    let source = comment(source);
    let mut text = Text { source: &source, text: String::new() };
    text.line(format!(
        "# Postern's configuration, made from Authelia's {source} by `postern import authelia`. \
         `postern check` tells what is"
    ));
    text.line("# wrong with this file, line by line; what stands nowhere has Postern's own default.");
    text.line("\nserver:\n  listeners:");
    let Placed { value: address, line } = &import.address;
    text.from(format!("    - address: {}", scalar(&address.to_string())), *line);
    text.line("      serves: forward_auth");
    text.line("      # Who may ask: the proxy's address, as Postern sees it. Anybody else gets 403.");
    text.line("      trusted_proxies: [127.0.0.1/32]");
    if let Some(cookies_alone) = &import.cookies_alone {
        text.from("      authorization: app", cookies_alone.line);
    }
    session(&mut text, import);
    if let Some(users) = &import.users {
        text.line("");
        text.from(format!("users: {{ source: file, path: {USERS} }}"), users.line);
    }
    let (level, format) = (&import.log.level, &import.log.format);
    if level.is_some() || format.is_some() {
        text.line("\nlog:");
        for (key, value) in [("format", format), ("level", level)] {
            if let Some(Placed { value, line }) = value {
                text.from(format!("  {key}: {value}"), *line);
            }
        }
    }
    regulation(&mut text, import);
    text.text
}

fn regulation(text: &mut Text<'_>, import: &Import) {
    let regulation = &import.regulation;
    let (find_time, ban_time) = (&regulation.find_time, &regulation.ban_time);
    if regulation.max_retries.is_none() && find_time.is_none() && ban_time.is_none() {
        return;
    }
    text.line("\nregulation:");
    if let Some(Placed { value, line }) = &regulation.max_retries {
        text.from(format!("  max_retries: {value}"), *line);
    }
    for (key, time) in [("find_time", find_time), ("ban_time", ban_time)] {
        if let Some(Placed { value, line }) = time {
            text.from(format!("  {key}: {}", spelt(*value)), *line);
        }
    }
}

fn session(text: &mut Text<'_>, import: &Import) {
    let session = &import.session;
    if let Some(first) = session.cookies.first() {
        text.line("\nportal:");
        portal(text, "  url", &first.portal);
    }
    text.line("\nsession:\n  cookies:");
    for (index, cookie) in session.cookies.iter().enumerate() {
        text.from(format!("    - domain: {}", literal(&cookie.domain.value)), cookie.domain.line);
        if index > 0 {
            portal(text, "      portal", &cookie.portal);
        }
        if let Some(Placed { value, line }) = &cookie.name {
            text.from(format!("      name: {}", literal(value)), *line);
        }
        if let Some(Placed { value, line }) = &cookie.same_site {
            text.from(format!("      same_site: {value}"), *line);
        }
        if let Some(Placed { value, line }) = &cookie.default_redirect {
            text.from(format!("      default_redirect: {}", literal(value)), *line);
        }
    }
    for (key, Placed { value, line }) in
        [("idle", &session.idle), ("lifetime", &session.lifetime), ("remember_me", &session.remember_me)]
    {
        text.from(format!("  {key}: {}", spelt(*value)), *line);
    }
}

fn portal(text: &mut Text<'_>, key: &str, portal: &Placed<String>) {
    let line = format!("{key}: {}", literal(&portal.value));
    match portal.line {
        Some(_) => text.from(line, portal.line),
        None => text.line(format!("{line}  # a guess: put the portal's real address here")),
    }
}

/// `policies/access.yaml`.
pub(super) fn policies(import: &Import, source: &str) -> String {
    let source = comment(source);
    let mut text = Text { source: &source, text: String::new() };
    text.line(format!(
        "# The rules of Authelia's {source}, made by `postern import authelia`. They are read from top \
         to bottom, and the first"
    ));
    text.line("# that matches decides. `postern policy explain` says what they decide about a request, and why.");
    let policies = &import.policies;
    text.line("");
    text.from(format!("default: {}", policies.default.value.as_str()), policies.default.line);
    if !policies.networks.written.is_empty() {
        text.line("\nnetworks:");
        for (Placed { value: name, line }, addresses) in &policies.networks.written {
            text.from(format!("  {}: {}", scalar(name), flow(addresses)), *line);
        }
    }
    if !policies.rules.is_empty() {
        text.line("\nrules:");
    }
    for (index, written) in policies.rules.iter().enumerate() {
        if index > 0 {
            text.line("");
        }
        rule(&mut text, written);
    }
    text.text
}

fn rule(text: &mut Text<'_>, written: &WrittenRule) {
    let WrittenRule { line, is_closed, draft } = written;
    if *is_closed {
        text.line(
            "  # Stands for what could not be carried over of the rule, and denies it, so that no rule below \
             lets it through.",
        );
    }
    text.from(format!("  - name: {}", scalar(draft.name.as_deref().unwrap_or_default())), Some(*line));
    let lists = [
        ("domain", &draft.domain),
        ("domain_regex", &draft.domain_regex),
        ("resources", &draft.resources),
        ("methods", &draft.methods),
        ("networks", &draft.networks),
    ];
    for (key, entries) in lists {
        match entries.as_slice() {
            [] => {}
            [one] => text.line(format!("    {key}: {}", scalar(one))),
            _ => {
                let list = list(entries, 6);
                let space = if list.starts_with('[') { " " } else { "" };
                text.line(format!("    {key}:{space}{list}"));
            }
        }
    }
    if !draft.subject.is_empty() {
        text.line("    subject:");
        for all in &draft.subject {
            match all.as_slice() {
                [one] => text.line(format!("      - {}", scalar(one))),
                _ => text.line(format!("      - {}", flow(all))),
            }
        }
    }
    if !draft.query.is_empty() {
        text.line("    query:");
        for all in &draft.query {
            let all: Vec<String> = all.iter().map(condition).collect();
            text.line(format!("      - [{}]", all.join(", ")));
        }
    }
    if let Some(level) = draft.policy {
        text.line(format!("    policy: {}", level.as_str()));
    }
}

fn flow(entries: &[String]) -> String {
    let entries: Vec<String> = entries.iter().map(|entry| scalar(entry)).collect();
    format!("[{}]", entries.join(", "))
}

fn condition(draft: &QueryDraft) -> String {
    let operator = draft.operator.map(Operator::as_str).unwrap_or_default();
    let mut parts = vec![format!("key: {}", scalar(&draft.key)), format!("operator: {}", scalar(operator))];
    parts.extend(draft.value.as_deref().map(|value| format!("value: {}", scalar(value))));
    format!("{{ {} }}", parts.join(", "))
}
