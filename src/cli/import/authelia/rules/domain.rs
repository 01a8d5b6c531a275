//! `domain` and `domain_regex` of a rule. Authelia takes much for a domain that can match no host; a rule of ours that stands for such an
//! entry denies what its writer seems to have meant.

use std::net::Ipv6Addr;

use super::{
    super::{
        ledger::{Ledger, kind_of},
        spot::{Spot, is_templated},
    },
    pattern,
};
use crate::core::{policy::RuleDraft, target::canonical_host};

pub(super) const ANY: &str = "^.*$";

#[derive(Debug, Clone, Default)]
pub(super) struct Domains {
    pub(super) domain: Vec<String>,
    pub(super) regex: Vec<String>,
    /// What an entry that was not carried over seems to have meant.
    pub(super) near: Vec<Near>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Near {
    Domain(String),
    Regex(String),
}

impl Domains {
    pub(super) fn is_empty(&self) -> bool {
        self.domain.is_empty() && self.regex.is_empty()
    }

    pub(super) fn is_lost(&self) -> bool {
        !self.near.is_empty()
    }

    /// Adds them to a rule.
    pub(super) fn write_to(&self, draft: &mut RuleDraft) {
        draft.domain.extend_from_slice(&self.domain);
        draft.domain_regex.extend_from_slice(&self.regex);
    }

    pub(super) fn write_near_to(&self, draft: &mut RuleDraft) {
        for near in &self.near {
            match near {
                Near::Domain(domain) => draft.domain.push(domain.clone()),
                Near::Regex(regex) => draft.domain_regex.push(regex.clone()),
            }
        }
    }

    pub(super) fn read(&mut self, spot: &Spot<'_>, closes: &str, ledger: &mut Ledger) {
        for (spot, text) in spot.texts() {
            let Some(text) = text else {
                ledger.find(&spot, format!("is {}, not a domain; {closes}", kind_of(&spot)));
                self.near.push(Near::Regex(ANY.to_owned()));
                continue;
            };
            match parse(text) {
                Parsed::Domain(domain) => {
                    tell_of_case(text, &spot, ledger);
                    ledger.carry(&spot);
                    self.domain.push(domain);
                }
                Parsed::Regex(regex) => {
                    tell_of_case(text, &spot, ledger);
                    ledger.carry(&spot);
                    self.regex.push(regex);
                }
                Parsed::Neither(reason, near) => {
                    ledger.find(&spot, format!("{reason}; {closes}"));
                    self.near.push(near);
                }
            }
        }
    }

    pub(super) fn read_regexes(&mut self, spot: &Spot<'_>, denies: bool, closes: &str, ledger: &mut Ledger) {
        for item in spot.items() {
            let single = !spot.is_list();
            let regex = match item.text() {
                None => Err(format!("is {}, not a regex", kind_of(&item))),
                Some(text) if single && text.contains(',') => Err(CUT.to_owned()),
                Some(text) => pattern::domain(text, denies),
            };
            match regex {
                Ok(anchored) => {
                    if anchored.is_changed {
                        ledger.find(
                            &item,
                            format!(
                                "Authelia looks for it anywhere in the host, so that hosts match \
                             which only contain it; `{}` does the same: anchor it at both ends if that was not \
                                  meant",
                                anchored.regex
                            ),
                        );
                    }
                    ledger.carry(&item);
                    self.regex.push(anchored.regex);
                }
                Err(message) => {
                    ledger.find(&item, format!("{message}; {closes}"));
                    self.near.push(Near::Regex(ANY.to_owned()));
                }
            }
        }
    }
}

fn tell_of_case(text: &str, spot: &Spot<'_>, ledger: &mut Ledger) {
    if text.to_lowercase().starts_with("{user}") {
        ledger.find(
            spot,
            "Authelia compares the user's name letter by letter, Postern ignoring case, as it does at sign-in",
        );
    }
}

/// Of a single text where Authelia wants a list.
pub(super) const CUT: &str = "holds a comma, at which Authelia cuts a single text; write a list";

enum Parsed {
    Domain(String),
    Regex(String),
    Neither(String, Near),
}

fn parse(text: &str) -> Parsed {
    if is_templated(text) {
        let reason = "a template or the environment may fill this in, so nobody knows which hosts it means".to_owned();
        return Parsed::Neither(reason, Near::Regex(ANY.to_owned()));
    }
    let lower = text.to_lowercase();
    if let Some(name) = lower.strip_prefix("{group}") {
        // The group is one label to Authelia; `{group}.` of ours takes several.
        return match name.strip_prefix('.').filter(|rest| is_name(rest)) {
            Some(_) => Parsed::Regex(format!("^(?P<Group>[^.]+){}$", escaped(name))),
            None => never(text, &lower),
        };
    }
    if let Some(name) = lower.strip_prefix("{user}") {
        return match name.strip_prefix('.') {
            Some(rest) if is_name(rest) => Parsed::Domain(lower),
            // `{user}-app.example.com` is fine with Authelia.
            _ if is_name(&format!("x{name}")) => Parsed::Regex(format!("^(?P<User>.+){}$", escaped(name))),
            _ => never(text, &lower),
        };
    }
    if is_name(lower.strip_prefix("*.").unwrap_or(&lower)) {
        return Parsed::Domain(lower);
    }
    if let Some((host, port)) = lower.rsplit_once(':')
        && port.bytes().all(|byte| byte.is_ascii_digit())
        && is_name(host.strip_prefix("*.").unwrap_or(host))
    {
        let reason = format!("the domain {text:?} has a port, which neither sees, so it never matched");
        return Parsed::Neither(reason, Near::Domain(host.to_owned()));
    }
    never(text, &lower)
}

/// What can be the name of no host, as the regex that it would be with `*` for anything.
fn never(text: &str, lower: &str) -> Parsed {
    let starred = lower.replace("{user}", "*").replace("{group}", "*");
    let is_spelt_as_hosts_are =
        |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b':' | b'*' | b'-');
    if !starred.bytes().all(is_spelt_as_hosts_are) {
        // It may hold a template with delimiters of its own.
        let reason = format!("no host can be called {text:?}, so nobody knows which hosts it means");
        return Parsed::Neither(reason, Near::Regex(ANY.to_owned()));
    }
    let parts: Vec<String> = starred.split('*').map(escaped).collect();
    let reason = format!("no host can be called {text:?}, so it never matched");
    Parsed::Neither(reason, Near::Regex(format!("^{}$", parts.join(".*"))))
}

/// Spelt as requests are told of.
fn is_name(text: &str) -> bool {
    canonical_host(text).is_some_and(|host| host == text)
        || text.parse::<Ipv6Addr>().is_ok_and(|six| six.to_string() == text)
}

/// Matches nothing but the text, which is spelt as hosts are.
fn escaped(text: impl AsRef<str>) -> String {
    let mut regex = String::new();
    for letter in text.as_ref().chars() {
        if !letter.is_ascii_alphanumeric() && !matches!(letter, '-' | '_') {
            regex.push('\\');
        }
        regex.push(letter);
    }
    regex
}
