//! The devices that people sign in on, and a mail to whoever's name was signed in with from one that is new (`notifier.new_device`). Called by the
//! portal once somebody is signed in.
//!
//! A device is a browser that holds our cookie: a list of random values, of each of which the store knows by its hash whose it is. Each is one user's:
//! whoever looked into the browser before somebody else signed in there holds nothing of theirs. One without a cookie is new, the first one of
//! an account too: whoever was given the first password is not the only one who knows it. Must never delay a sign-in by sending, nor make one fail.

use std::{net::IpAddr, sync::Arc, time::Duration};

use askama::Template;
use secrecy::SecretString;

use crate::{
    core::{device::Device, printable::printable, session::TokenHash, site::Site},
    identity::sign_in::{kept_user_agent, random_value},
    ports::{Devices, Entropy, Geo, LiveSession, MOST_AT_ONCE, Mail, Mailer},
};

/// What notices need; one a process.
pub struct Notices {
    pub devices: Arc<dyn Devices>,
    pub mailer: Arc<dyn Mailer>,
    pub geo: Arc<dyn Geo>,
    pub entropy: Arc<dyn Entropy>,
}

/// A device that was seen more lately is not written again.
pub(super) const NOTED_EACH: Duration = Duration::from_secs(86_400);

/// From where somebody signed in.
pub struct SignInFrom<'f> {
    /// The values of the device cookie.
    pub devices: &'f [String],
    pub user_agent: &'f str,
    pub address: Option<IpAddr>,
    /// URL of the account page, where there is one.
    pub account: Option<String>,
}

#[derive(Template)]
#[template(path = "new_device.txt")]
struct Text<'n> {
    told: &'n Told,
}

#[derive(Template)]
#[template(path = "new_device.html")]
struct Html<'n> {
    told: &'n Told,
}

/// What the mail says. Nothing of it holds a control character.
struct Told {
    title: String,
    name: String,
    user: String,
    at: String,
    device: String,
    address: String,
    account: Option<String>,
}

impl Notices {
    /// What the browser is to keep as the cookie; `None`: nothing depends on devices.
    pub async fn signed_in(&self, site: &Site, live: &LiveSession, from: SignInFrom<'_>) -> Option<SecretString> {
        if !site.knows_devices {
            return None;
        }
        let user = live.user();
        let hashes: Vec<TokenHash> = from.devices.iter().map(|value| TokenHash::of(value)).collect();
        let seen = self.devices.last_seen(user, live.identity.token_version, &hashes).await.unwrap_or_else(|error| {
            // Whether it is new nobody can say: rather one mail too many.
            tracing::warn!(user, %error, "cannot say whether a sign-in was from a new device: it counts as one");
            None
        });
        let known = seen.and_then(|seen| from.devices.iter().zip(&hashes).find(|(_, hash)| **hash == seen.device));
        let own = known.map_or_else(|| random_value(&*self.entropy), |(value, _)| value.clone());
        // Those of others who sign in there stay, the last used first.
        let others = from.devices.iter().filter(|value| **value != own);
        let kept: Vec<&str> = std::iter::once(&own).chain(others).take(MOST_AT_ONCE).map(String::as_str).collect();
        let cookie = SecretString::from(kept.join(SEPARATOR));
        if seen.is_none() && site.tells_new_devices {
            self.tell(site, live, from);
        }
        // After the mail is on its way: who hangs up here is told of, and is new the next time too.
        if seen.is_none_or(|seen| live.identity.signed_in_at.since(seen.at) >= NOTED_EACH)
            && let Err(error) = self.devices.note(user, live.identity.token_version, &TokenHash::of(&own)).await
        {
            tracing::warn!(user, %error, "a device cannot be noted: it will count as new again");
        }
        Some(cookie)
    }

    fn tell(&self, site: &Site, live: &LiveSession, from: SignInFrom<'_>) {
        let (user, identity) = (live.user(), &live.identity);
        let Some(to) = identity.email.clone() else {
            tracing::debug!(user, "a sign-in from a new device is not told: no e-mail address");
            return;
        };
        let name = if identity.display_name.is_empty() { user } else { &identity.display_name };
        let address = from.address.map_or_else(
            || "unknown".to_owned(),
            |address| match self.geo.country(address) {
                Some(country) => format!("{address} ({})", country.name),
                None => address.to_string(),
            },
        );
        let told = Told {
            title: printable(&site.portal.title),
            name: printable(name),
            user: printable(user),
            at: identity.signed_in_at.words(),
            device: Device::of(&kept_user_agent(from.user_agent)).words(),
            address,
            account: from.account,
        };
        let (Ok(text), Ok(html)) = (Text { told: &told }.render(), Html { told: &told }.render()) else {
            tracing::error!("a notice cannot be written");
            return;
        };
        let subject = format!("New sign-in to {}: {}", told.title, told.device);
        self.mailer.send(Mail { user: user.to_owned(), to, subject, text, html });
    }
}

/// Between the values of the cookie: in none of them.
const SEPARATOR: &str = ".";

/// The values that a browser holds as its device cookie; what is none of ours is left out.
#[must_use]
pub fn devices_in(cookie: &str) -> Vec<String> {
    cookie.split(SEPARATOR).filter(|value| is_ours(value)).take(MOST_AT_ONCE).map(str::to_owned).collect()
}

/// As [`random_value`] makes them.
fn is_ours(value: &str) -> bool {
    value.len() == 43 && value.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    };

    use async_trait::async_trait;
    use futures_util::FutureExt as _;

    use super::*;
    use crate::{
        core::{identity::Identity, request::Role, user::User},
        ports::{
            Seen, Unavailable,
            fakes::{NOW, Zeroes, listener, row, site},
        },
    };

    /// Knows a device once it was noted, which takes for ever where `hangs`.
    #[derive(Default)]
    struct Book {
        noted: AtomicBool,
        hangs: AtomicBool,
    }

    #[async_trait]
    impl Devices for Book {
        async fn last_seen(&self, _: &str, _: u64, devices: &[TokenHash]) -> Result<Option<Seen>, Unavailable> {
            let seen = devices.first().map(|device| Seen { device: *device, at: NOW });
            Ok(seen.filter(|_| self.noted.load(Ordering::SeqCst)))
        }
        async fn note(&self, _: &str, _: u64, _: &TokenHash) -> Result<(), Unavailable> {
            self.noted.store(true, Ordering::SeqCst);
            if self.hangs.load(Ordering::SeqCst) { std::future::pending().await } else { Ok(()) }
        }
    }

    #[derive(Default)]
    struct Post(Mutex<Vec<Mail>>);

    impl Mailer for Post {
        fn send(&self, mail: Mail) {
            self.0.lock().unwrap().push(mail);
        }
    }

    struct NoCountry;

    impl Geo for NoCountry {
        fn country(&self, _: IpAddr) -> Option<crate::core::place::Country> {
            None
        }
    }

    /// A thief who hangs up once the device is noted, so that the next sign-in is not told, was told of before.
    #[test]
    fn whoever_hangs_up_is_told_of() {
        let (book, post) = (Arc::<Book>::default(), Arc::<Post>::default());
        book.hangs.store(true, Ordering::SeqCst);
        let notices = Notices {
            devices: book.clone(),
            mailer: post.clone(),
            geo: Arc::new(NoCountry),
            entropy: Arc::new(Zeroes),
        };
        let mut site = site(listener(Role::Edge), vec![]);
        (site.tells_new_devices, site.knows_devices) = (true, true);
        let user = User { email: Some("bob@example.com".to_owned()), ..User::new("bob", vec![]) };
        let row = row('a', 0);
        let identity = Identity::new(&user, row.factor, row.signed_in_at, Some(row.id.clone())).unwrap();
        let live = LiveSession::new(&row, identity);
        let devices = ["A".repeat(43)];
        let sign_in = || {
            let from = SignInFrom { devices: &devices, user_agent: "curl/8", address: None, account: None };
            notices.signed_in(&site, &live, from).now_or_never()
        };
        assert!(sign_in().is_none(), "it hangs, and is dropped");
        assert!(book.noted.load(Ordering::SeqCst));
        assert_eq!(post.0.lock().unwrap().len(), 1);
        book.hangs.store(false, Ordering::SeqCst);
        assert!(sign_in().flatten().is_some());
        assert_eq!(post.0.lock().unwrap().len(), 1, "it is known now");
    }
}
