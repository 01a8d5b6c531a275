//! `session:` and the older keys around it: cookie domains, and how long a sign-in holds.

use std::time::Duration;

use url::Url;

use super::{
    ledger::Ledger,
    length::{Length, length, spelt},
    spot::{Placed, Spot, is_templated},
};
use crate::core::target::canonical_host;

/// Authelia's defaults: shorter than ours, so they are always written.
const INACTIVITY: Duration = Duration::from_secs(5 * 60);
const EXPIRATION: Duration = Duration::from_secs(3600);
const REMEMBER_ME: Duration = Duration::from_secs(30 * 86_400);

#[derive(Debug)]
pub(super) struct Session {
    pub(super) cookies: Vec<Cookie>,
    pub(super) idle: Placed<Duration>,
    pub(super) lifetime: Placed<Duration>,
    /// Zero: not offered.
    pub(super) remember_me: Placed<Duration>,
}

#[derive(Debug)]
pub(super) struct Cookie {
    pub(super) domain: Placed<String>,
    pub(super) portal: Placed<String>,
    pub(super) name: Option<Placed<String>>,
    pub(super) same_site: Option<Placed<&'static str>>,
    pub(super) default_redirect: Option<Placed<String>>,
}

pub(super) fn session(root: &Spot<'_>, ledger: &mut Ledger) -> Session {
    let blocks: Vec<Spot<'_>> = root.get("session.cookies").map(|cookies| cookies.items()).unwrap_or_default();
    let mut scopes: Vec<Scope<'_>> =
        blocks.into_iter().map(|own| Scope { own: Some(own), root: root.clone() }).collect();
    if root.get("session.domain").is_some_and(|domain| !domain.is_null()) {
        scopes.push(Scope { own: None, root: root.clone() });
    }
    let cookies: Vec<Cookie> = scopes.iter().filter_map(|scope| scope.cookie(ledger)).collect();
    if cookies.is_empty() {
        let at = ["session.cookies", "session.domain", "session"].iter().find_map(|keys| root.get(keys));
        ledger.fault(
            at.as_ref().unwrap_or(root),
            "no cookie domain can be carried over, and without one nobody could sign in; write `session.cookies` with \
                 a `domain` \
             and an `authelia_url` in Authelia's file, and import again",
        );
    }
    if scopes.is_empty() {
        scopes.push(Scope { own: None, root: root.clone() });
    }
    let lasting =
        |ledger: &mut Ledger, keys: &'static [&'static str], default| Lasting { keys, default }.of(&scopes, ledger);
    Session {
        idle: lasting(ledger, &["inactivity"], INACTIVITY),
        lifetime: lasting(ledger, &["expiration"], EXPIRATION),
        remember_me: lasting(ledger, &["remember_me", "remember_me_duration"], REMEMBER_ME),
        cookies,
    }
}

/// One cookie domain: a block of `session.cookies`, or the older keys of `session` itself.
struct Scope<'n> {
    own: Option<Spot<'n>>,
    root: Spot<'n>,
}

impl<'n> Scope<'n> {
    /// What stands in the block, and what in `session` itself holds for all blocks.
    fn places_of(&self, key: &str) -> impl Iterator<Item = Spot<'n>> {
        let own = self.own.as_ref().and_then(|own| own.get(key));
        own.into_iter().chain(self.root.get(&format!("session.{key}")))
    }

    fn value_of(&self, key: &str, ledger: &mut Ledger) -> Option<(Spot<'n>, &'n str)> {
        let spot = self.places_of(key).find(|spot| !spot.is_null() && spot.text() != Some(""))?;
        match spot.text() {
            Some(text) if !is_templated(text) => Some((spot, text)),
            Some(_) => {
                ledger.find(
                    &spot,
                    "a template or the environment fills this in, so its value is not known here; write it by hand",
                );
                None
            }
            None => {
                ledger.find(&spot, "is no text, so it was left out; Authelia would not start with it");
                None
            }
        }
    }

    fn cookie(&self, ledger: &mut Ledger) -> Option<Cookie> {
        let domain = match &self.own {
            // `session.domain` is the domain of the older form alone.
            Some(own) => own.get("domain"),
            None => self.root.get("session.domain"),
        };
        let Some(domain) = domain else {
            let at = self.own.as_ref().unwrap_or(&self.root);
            ledger.find(at, "has no domain, so it was left out; Authelia would not start with it");
            return None;
        };
        let Some(name) = domain.text().filter(|text| !is_templated(text)).and_then(canonical_host) else {
            ledger.leave_to_do(
                &domain,
                "is no domain as it stands here, so the cookie domain was left out; nobody can sign in for its hosts \
                     until it is \
                 written in `session.cookies`",
                "write the cookie domain that could not be carried over",
            );
            return None;
        };
        ledger.carry(&domain);
        let portal = self.portal(&domain, &name, ledger);
        let default_redirect = self.default_redirect(&name, &portal, ledger);
        Some(Cookie {
            portal,
            default_redirect,
            name: self.name(ledger),
            same_site: self.same_site(ledger),
            domain: Placed::at(&domain, name),
        })
    }

    fn portal(&self, domain: &Spot<'_>, name: &str, ledger: &mut Ledger) -> Placed<String> {
        let written = self.own.as_ref().and_then(|_| self.value_of("authelia_url", ledger));
        if let Some((spot, text)) = written {
            if within(text, name).is_some() {
                ledger.carry(&spot);
                return Placed::at(&spot, text.to_owned());
            }
            ledger.find(&spot, format!("is no URL of a portal within `{name}`, so it was not carried over"));
        }
        let guessed = format!("https://auth.{name}");
        ledger.leave_to_do(
            domain,
            format!(
                "where the portal is does not stand in this file; {guessed} is a guess, since Postern wants to know, \
                     and follows \
                 what the proxy says only within the domain"
            ),
            format!("put the portal's real address in place of {guessed}"),
        );
        Placed::default(guessed)
    }

    fn name(&self, ledger: &mut Ledger) -> Option<Placed<String>> {
        let (spot, text) = self.value_of("name", ledger)?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
        if text.bytes().all(is_plain) && !text.starts_with("__") && !text.to_lowercase().starts_with("postern") {
            ledger.carry(&spot);
            return Some(Placed::at(&spot, text.to_owned()));
        }
        ledger.find(&spot, "named the cookie; Postern cannot call it so, and calls it `postern_session`");
        None
    }

    fn same_site(&self, ledger: &mut Ledger) -> Option<Placed<&'static str>> {
        let (spot, text) = self.value_of("same_site", ledger)?;
        let known = ["lax", "strict", "none"].into_iter().find(|known| *known == text);
        match known {
            Some(_) => ledger.carry(&spot),
            None => ledger.find(&spot, "is none of `lax`, `strict` and `none`; Postern's cookie is `lax`"),
        }
        known.map(|known| Placed::at(&spot, known))
    }

    fn default_redirect(&self, domain: &str, portal: &Placed<String>, ledger: &mut Ledger) -> Option<Placed<String>> {
        let found = match &self.own {
            Some(own) => own.get("default_redirection_url"),
            None => None,
        };
        // Once it stood at the top, for the one domain that there was.
        let spot = found.or_else(|| self.root.get("default_redirection_url"))?;
        let fitting =
            spot.text().filter(|text| !is_templated(text)).and_then(|text| Some((text, within(text, domain)?)));
        let secure = portal.value.starts_with("https:");
        match fitting {
            Some((text, url))
                if url.query().is_none() && url.fragment().is_none() && (!secure || url.scheme() == "https") =>
            {
                ledger.carry(&spot);
                Some(Placed::at(&spot, text.to_owned()))
            }
            _ => {
                ledger.find(
                    &spot,
                    format!(
                        "said where to go after a sign-in that wanted nothing else; it is no plain https address \
                         within `{domain}`, so it was left out"
                    ),
                );
                None
            }
        }
    }
}

/// An http or https URL whose host lies in the domain.
fn within(text: &str, domain: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let host = url.host_str().and_then(canonical_host)?;
    let is_within = host == domain || host.strip_suffix(domain).is_some_and(|label| label.ends_with('.'));
    (is_within && matches!(url.scheme(), "http" | "https") && url.username().is_empty()).then_some(url)
}

/// One of the three durations. Authelia has one a cookie domain, Postern one for all: the shortest is taken.
struct Lasting {
    keys: &'static [&'static str],
    default: Duration,
}

impl Lasting {
    fn of(&self, scopes: &[Scope<'_>], ledger: &mut Ledger) -> Placed<Duration> {
        let found: Vec<(Placed<Duration>, Vec<Spot<'_>>)> =
            scopes.iter().map(|scope| self.of_one(scope, ledger)).collect();
        let shortest = found.iter().map(|(placed, _)| placed).min_by_key(|placed| placed.value).cloned();
        let shortest = shortest.unwrap_or(Placed::default(self.default));
        for (placed, spots) in &found {
            for spot in spots {
                if placed.value == shortest.value {
                    ledger.carry(spot);
                } else {
                    let message = format!(
                        "Postern has one such setting for all cookie domains; the shortest of them was written, {}",
                        if shortest.value.is_zero() { "not to offer it".to_owned() } else { spelt(shortest.value) }
                    );
                    ledger.find(spot, message);
                }
            }
        }
        shortest
    }

    /// What holds for one domain, and where that stands.
    fn of_one<'n>(&self, scope: &Scope<'n>, ledger: &mut Ledger) -> (Placed<Duration>, Vec<Spot<'n>>) {
        let mut spots = Vec::new();
        for spot in self.keys.iter().flat_map(|key| scope.places_of(key)) {
            let value = match length(&spot) {
                Some(Length::Of(duration)) => Placed::at(&spot, duration),
                // Only remembering can be switched off; of the others Authelia takes the default.
                Some(Length::Off) if self.keys.contains(&"remember_me") => Placed::at(&spot, Duration::ZERO),
                Some(Length::Off | Length::Default) => {
                    spots.push(spot);
                    continue;
                }
                None => {
                    let message = format!(
                        "cannot be read as a duration; Authelia's default of {} was written, if no other holds",
                        spelt(self.default)
                    );
                    ledger.find(&spot, message);
                    continue;
                }
            };
            spots.push(spot);
            return (value, spots);
        }
        (Placed::default(self.default), spots)
    }
}
