//! A person with a browser, but without the browser: follows what pages say, keeps cookies, reads forms.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use reqwest::{
    Body, ClientBuilder, Response, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};

pub(crate) struct Person {
    client: reqwest::Client,
}

/// Every name is this machine.
struct Loopback;

impl Resolve for Loopback {
    fn resolve(&self, _: Name) -> Resolving {
        let addresses: Addrs = Box::new(std::iter::once(SocketAddr::from(([127, 0, 0, 1], 0))));
        Box::pin(async { Ok(addresses) })
    }
}

pub(crate) struct Page {
    pub(crate) url: Url,
    pub(crate) status: u16,
    pub(crate) version: reqwest::Version,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) body: String,
}

impl Page {
    async fn of(response: Response) -> Self {
        Self {
            url: response.url().clone(),
            status: response.status().as_u16(),
            version: response.version(),
            headers: response.headers().clone(),
            body: response.text().await.expect("a body"),
        }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(crate) fn location(&self) -> Url {
        let location =
            self.header("location").unwrap_or_else(|| panic!("{} from {}, no Location", self.status, self.url));
        self.url.join(location).expect("a URL")
    }

    /// Value of the input called `name`.
    pub(crate) fn input(&self, name: &str) -> Option<String> {
        let tags = self.body.split('<').filter(|tag| tag.starts_with("input"));
        let mut named = tags.filter(|tag| attribute(tag, "name").as_deref() == Some(name));
        attribute(named.next()?, "value")
    }

    fn form_action(&self) -> Url {
        let form = self.body.split('<').find(|tag| tag.starts_with("form"));
        let form = form.unwrap_or_else(|| panic!("no form on {}: {}", self.url, self.body));
        self.url.join(&attribute(form, "action").unwrap_or_default()).expect("a URL")
    }
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1.split_once('"')?.0;
    let plain = [("&quot;", "\""), ("&#34;", "\""), ("&#38;", "&"), ("&#61;", "="), ("&amp;", "&")];
    Some(plain.iter().fold(value.to_owned(), |value, (escaped, plain)| value.replace(escaped, plain)))
}

impl Person {
    pub(crate) fn new() -> Self {
        Self::from(builder())
    }

    /// Trusts one certificate; `http2` or only HTTP/1.1.
    pub(crate) fn over_tls(certificate: &str, http2: bool) -> Self {
        let certificate = reqwest::Certificate::from_pem(certificate.as_bytes()).expect("a certificate");
        let builder = builder().tls_certs_only([certificate]);
        Self::from(if http2 { builder } else { builder.http1_only() })
    }

    fn from(builder: ClientBuilder) -> Self {
        Self { client: builder.build().expect("a client") }
    }

    /// Loads a page; follows nothing.
    pub(crate) async fn load(&self, url: impl AsRef<str>) -> Page {
        let request = self.client.get(url.as_ref()).header("Sec-Fetch-Mode", "navigate").header("Accept", "text/html");
        Page::of(request.send().await.unwrap_or_else(|fault| panic!("{}: {fault:?}", url.as_ref()))).await
    }

    /// Any request; follows nothing.
    pub(crate) async fn send(&self, method: &str, url: &str, headers: &[(String, String)]) -> Page {
        let mut request = self.client.request(method.parse().expect("a method"), url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        Page::of(request.send().await.unwrap_or_else(|fault| panic!("{method} {url}: {fault:?}"))).await
    }

    /// An answer that may never end.
    pub(crate) async fn open(&self, url: &str, cookie: &str) -> Response {
        let request = self.client.get(url).header("Cookie", cookie).timeout(super::DEADLINE * 4);
        request.send().await.unwrap_or_else(|fault| panic!("{url}: {fault:?}"))
    }

    /// Loads a page and follows redirects, at most ten.
    pub(crate) async fn browse(&self, url: impl AsRef<str>) -> Page {
        let mut page = self.load(url).await;
        for _ in 0..10 {
            if !(300..400).contains(&page.status) {
                return page;
            }
            page = self.load(page.location()).await;
        }
        panic!("a redirect loop at {}", page.url);
    }

    /// A body that comes a byte a second and never ends.
    pub(crate) async fn trickle(&self, url: &str) -> Page {
        let bytes = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>("x"), ()))
        });
        let request = self.client.post(url).header("Content-Type", "application/json");
        let request = request.header("Accept", "application/json");
        Page::of(request.body(Body::wrap_stream(bytes)).send().await.unwrap_or_else(|fault| panic!("{fault:?}"))).await
    }

    pub(crate) async fn post(&self, url: impl AsRef<str>, fields: &[(&str, &str)]) -> Page {
        let request = self.client.post(url.as_ref()).header("Sec-Fetch-Mode", "navigate").header("Accept", "text/html");
        Page::of(request.form(fields).send().await.unwrap_or_else(|fault| panic!("{fault:?}"))).await
    }

    /// Fills in the sign-in form of a page and sends it.
    pub(crate) async fn sign_in(&self, page: &Page, user: &str, password: &str) -> Page {
        let input = |name: &str| page.input(name).unwrap_or_default();
        let (csrf_token, rd, rm, state) = (input("csrf_token"), input("rd"), input("rm"), input("state"));
        assert!(!csrf_token.is_empty(), "no csrf_token in the form of {}: {}", page.url, page.body);
        let mut fields = vec![("username", user), ("password", password), ("csrf_token", csrf_token.as_str())];
        let more = [("rd", rd.as_str()), ("rm", rm.as_str()), ("state", state.as_str())];
        fields.extend(more.into_iter().filter(|(_, value)| !value.is_empty()));
        self.post(page.form_action(), &fields).await
    }

    /// Confirms on the sign-out page.
    pub(crate) async fn sign_out(&self, page: &Page) -> Page {
        let input = |name: &str| page.input(name).unwrap_or_default();
        self.post(page.form_action(), &[("csrf_token", &input("csrf_token")), ("rd", &input("rd"))]).await
    }
}

fn builder() -> ClientBuilder {
    // Another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .cookie_store(true)
        .redirect(Policy::none())
        .no_proxy()
        .timeout(super::DEADLINE)
        .dns_resolver(Arc::new(Loopback))
}
