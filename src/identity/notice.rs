//! A mail to whoever's name was signed in with from a device that is new (`notifier.new_device`). Called by the portal once somebody is signed in.
//!
//! A device is a browser that holds our cookie, whose value the store knows by its hash, for each user. One without a cookie is new, the first one of
//! an account too: whoever was given the first password is not the only one who knows it. Must never delay a sign-in by sending, nor make one fail.

use std::{net::IpAddr, sync::Arc, time::Duration};

use askama::Template;
use secrecy::SecretString;

use crate::{
    core::{device::Device, printable::printable, session::TokenHash, site::Site},
    identity::sign_in::{kept_user_agent, random_value},
    ports::{Devices, Entropy, Geo, LiveSession, Mail, Mailer},
};

/// What notices need; one a process.
pub struct Notices {
    pub devices: Arc<dyn Devices>,
    pub mailer: Arc<dyn Mailer>,
    pub geo: Arc<dyn Geo>,
    pub entropy: Arc<dyn Entropy>,
}

/// A device that was seen more lately is not written again.
const NOTED_EACH: Duration = Duration::from_secs(86_400);

/// From where somebody signed in.
pub struct SignInFrom<'f> {
    /// The value of the device cookie, where there is one.
    pub device: Option<&'f str>,
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
    /// The value that the browser is to keep; `None`: nobody is to be told anything.
    pub async fn signed_in(&self, site: &Site, live: &LiveSession, from: SignInFrom<'_>) -> Option<SecretString> {
        if !site.tells_new_devices {
            return None;
        }
        let presented = from.device.filter(|value| is_ours(value));
        let device = presented.map_or_else(|| random_value(&*self.entropy), str::to_owned);
        let user = live.user();
        let hash = TokenHash::of(&device);
        let last_seen =
            self.devices.last_seen(user, live.identity.token_version, &hash).await.unwrap_or_else(|error| {
                // Whether it is new nobody can say: rather one mail too many.
                tracing::warn!(user, %error, "cannot say whether a sign-in was from a new device: it counts as one");
                None
            });
        if last_seen.is_none() {
            self.tell(site, live, from);
        }
        // After the mail is on its way: who hangs up here is told of, and is new the next time too.
        if last_seen.is_none_or(|at| live.identity.signed_in_at.since(at) >= NOTED_EACH)
            && let Err(error) = self.devices.note(user, live.identity.token_version, &hash).await
        {
            tracing::warn!(user, %error, "a device cannot be noted: it will count as new again");
        }
        Some(SecretString::from(device))
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
        core::{identity::Identity, request::Role, time::Timestamp, user::User},
        ports::{
            Unavailable,
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
        async fn last_seen(&self, _: &str, _: u64, _: &TokenHash) -> Result<Option<Timestamp>, Unavailable> {
            Ok(self.noted.load(Ordering::SeqCst).then_some(NOW))
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
        site.tells_new_devices = true;
        let user = User { email: Some("bob@example.com".to_owned()), ..User::new("bob", vec![]) };
        let row = row('a', 0);
        let identity = Identity::new(&user, row.factor, row.signed_in_at, Some(row.id.clone())).unwrap();
        let live = LiveSession::new(&row, identity);
        let sign_in = || {
            let from = SignInFrom { device: None, user_agent: "curl/8", address: None, account: None };
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
