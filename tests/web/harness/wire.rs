//! What is asked of a portal, and what it answers.

use http::{HeaderMap, Method, StatusCode, header};
use postern::core::client_ip::ClientAddress;

use super::REQUEST_ID;

/// A request in the making.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(super) method: Method,
    pub(super) url: String,
    pub(super) headers: HeaderMap,
    pub(super) body: String,
    pub(super) client: ClientAddress,
}

impl Ask {
    pub(crate) fn new(method: &str, url: impl Into<String>) -> Self {
        let client = ClientAddress::Known([192, 0, 2, 7].into());
        Self {
            method: method.parse().unwrap(),
            url: url.into(),
            headers: HeaderMap::new(),
            body: String::new(),
            client,
        }
    }

    /// As a program asks.
    pub(crate) fn get(url: impl Into<String>) -> Self {
        Self::new("GET", url)
    }

    /// As a browser loads a page.
    pub(crate) fn page(url: impl Into<String>) -> Self {
        Self::new("GET", url).header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
    }

    pub(crate) fn post(url: impl Into<String>) -> Self {
        Self::new("POST", url)
    }

    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().unwrap());
        self
    }

    pub(crate) fn with_url(mut self, method: &str, url: &str) -> Self {
        (self.method, self.url) = (method.parse().unwrap(), url.to_owned());
        self
    }

    pub(crate) fn from(mut self, client: ClientAddress) -> Self {
        self.client = client;
        self
    }

    pub(crate) fn cookie(self, cookie: &str) -> Self {
        self.header("cookie", cookie)
    }

    pub(crate) fn bearer(self, token: &str) -> Self {
        self.header("authorization", &format!("Bearer {token}"))
    }

    pub(crate) fn json(mut self, body: &serde_json::Value) -> Self {
        self.body = body.to_string();
        self.header("content-type", "application/json")
    }

    pub(crate) fn raw(mut self, content_type: &str, body: impl Into<String>) -> Self {
        self.body = body.into();
        self.header("content-type", content_type)
    }

    pub(crate) fn form(mut self, fields: &[(&str, &str)]) -> Self {
        self.body = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        self.header("accept", "text/html").header("content-type", "application/x-www-form-urlencoded")
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> &str {
        self.header("location").unwrap_or_else(|| panic!("no Location: {self:#?}"))
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("not JSON: {self:#?}"))
    }

    /// The `code` of a problem, after a look at its form.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:#?}");
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        assert_eq!(body["type"], "about:blank");
        assert_eq!(body["request_id"], REQUEST_ID);
        assert_eq!(self.header("x-request-id"), Some(REQUEST_ID));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        body["code"].as_str().unwrap().to_owned()
    }

    /// Every `Set-Cookie`, as it stands.
    pub(crate) fn set_cookies(&self) -> Vec<&str> {
        self.headers.get_all(header::SET_COOKIE).iter().map(|value| value.to_str().unwrap()).collect()
    }

    /// The value that a cookie is set to.
    pub(crate) fn cookie(&self, name: &str) -> Option<String> {
        let of = |set: &&str| set.split_once(';').unwrap().0.split_once('=').map(|(n, v)| (n.to_owned(), v.to_owned()));
        self.set_cookies().iter().filter_map(of).find(|(found, _)| found == name).map(|(_, value)| value)
    }

    pub(crate) fn is_page(&self) -> bool {
        self.header("content-type") == Some("text/html; charset=utf-8")
    }

    /// The value of a hidden field.
    pub(crate) fn field(&self, name: &str) -> String {
        let mark = format!("name=\"{name}\" value=\"");
        let after = self.body.split_once(&mark).unwrap_or_else(|| panic!("no field {name}: {}", self.body)).1;
        after.split_once('"').unwrap().0.to_owned()
    }
}
