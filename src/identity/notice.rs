//! A mail to whoever's name was signed in with from a device that is new (`notifier.new_device`). Called by the portal once somebody is signed in.
//!
//! A device is a browser that holds our cookie, whose value the store knows by its hash, for each user. One without a cookie is new, the first one of
//! an account too: whoever was given the first password is not the only one who knows it. Must never delay a sign-in by sending, nor make one fail.

use std::{net::IpAddr, sync::Arc};

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
        let user = &*live.session.user;
        match self.devices.seen(user, live.token_version, &TokenHash::of(&device)).await {
            Ok(true) => {}
            Ok(false) => self.tell(site, live, from),
            // Whether it is new nobody can say: rather one mail too many.
            Err(error) => {
                tracing::warn!(user, %error, "cannot say whether a sign-in was from a new device: it counts as one");
                self.tell(site, live, from);
            }
        }
        Some(SecretString::from(device))
    }

    fn tell(&self, site: &Site, live: &LiveSession, from: SignInFrom<'_>) {
        let (user, identity) = (&*live.session.user, &live.identity);
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
