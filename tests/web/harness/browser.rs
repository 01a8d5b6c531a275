//! Somebody before a browser.

use std::collections::BTreeMap;

use super::{Ask, PASSWORD, Reply, World};

/// Keeps cookies and follows the portal's forms as a browser does.
pub(crate) struct Browser<'w> {
    world: &'w World,
    portal: String,
    pub(crate) jar: BTreeMap<String, String>,
}

impl<'w> Browser<'w> {
    /// `portal`: its base URL.
    pub(crate) fn at(world: &'w World, portal: &str) -> Self {
        Self { world, portal: portal.to_owned(), jar: BTreeMap::new() }
    }

    pub(crate) async fn signed_in(world: &'w World, portal: &str, user: &str) -> Self {
        let mut browser = Self::at(world, portal);
        let reply = browser.sign_in(user, PASSWORD, &[]).await;
        assert_eq!(reply.status, 303, "{reply:#?}");
        browser
    }

    pub(crate) async fn send(&mut self, ask: Ask) -> Reply {
        let ask = if self.jar.is_empty() { ask } else { ask.cookie(&self.cookies()) };
        let reply = self.world.send(ask).await;
        for set in reply.set_cookies() {
            let (pair, attributes) = set.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            if attributes.contains("Max-Age=0") {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        reply
    }

    pub(crate) async fn load(&mut self, path: &str) -> Reply {
        self.send(Ask::page(format!("{}{path}", self.portal))).await
    }

    /// Loads the sign-in page and sends its form, with `more` fields.
    pub(crate) async fn sign_in(&mut self, user: &str, password: &str, more: &[(&str, &str)]) -> Reply {
        // A stranger's look at the page, with our pre-session cookie: it is shown even to somebody who is signed in.
        let page = self.load("/logout").await;
        let page = if page.status == 200 { page } else { self.load("/").await };
        let token = page.field("csrf_token");
        let mut fields = vec![("username", user), ("password", password), ("csrf_token", token.as_str())];
        fields.extend_from_slice(more);
        self.post("/", &fields).await
    }

    pub(crate) async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Reply {
        self.send(Ask::post(format!("{}{path}", self.portal)).form(fields)).await
    }

    /// Calls the API by cookie.
    pub(crate) async fn api(&mut self, method: &str, path: &str) -> Reply {
        self.send(Ask::new(method, format!("{}{path}", self.portal))).await
    }

    pub(crate) fn cookies(&self) -> String {
        self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn jar(&self, name: &str) -> Option<&str> {
        self.jar.get(name).map(String::as_str)
    }

    pub(crate) fn toss(&mut self, name: &str, value: &str) {
        self.jar.insert(name.to_owned(), value.to_owned());
    }

    pub(crate) fn forget(&mut self, name: &str) {
        self.jar.remove(name);
    }

    pub(crate) async fn is_signed_in(&mut self) -> bool {
        match self.api("GET", "/auth/me").await.status.as_u16() {
            200 => true,
            401 => false,
            other => panic!("/auth/me: {other}"),
        }
    }
}
