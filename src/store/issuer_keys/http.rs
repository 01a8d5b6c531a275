//! Fetches key sets over HTTP: from the configured address alone, without following a redirect, a proxy of the environment or a link to
//! another origin, and never more than [`LONGEST`] bytes. TLS by the authorities that the operating system trusts.

use std::{error::Error, io, sync::OnceLock, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Empty, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use url::Url;

use super::{Fetch, FetchError};
use crate::core::issuer::{KeyPlace, WithoutQuery, jwks::KeySet};

/// Longest answer, in bytes.
const LONGEST: usize = 1024 * 1024;
const CONNECT_TIME: Duration = Duration::from_secs(3);
const USER_AGENT: &str = concat!("postern/", env!("CARGO_PKG_VERSION"));

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// The client is made with the first fetch: without an issuer nothing asks the operating system for its authorities.
#[derive(Default)]
pub(super) struct HttpKeys {
    client: OnceLock<HttpClient>,
}

/// What of OpenID Connect Discovery 1.0 §3 matters.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[async_trait]
impl Fetch for HttpKeys {
    async fn fetch(&self, place: &KeyPlace) -> Result<KeySet, FetchError> {
        let place = match place {
            KeyPlace::Jwks(url) => url.clone(),
            KeyPlace::Discovery { url, issuer } => self.discovered(url, issuer).await?,
        };
        KeySet::parse(&self.get(&place).await?).map_err(|bad| FetchError::KeySet(shown(&place), bad))
    }
}

impl HttpKeys {
    async fn discovered(&self, url: &Url, issuer: &str) -> Result<Url, FetchError> {
        let text = self.get(url).await?;
        let document: Discovery = serde_json::from_slice(&text).map_err(|_| FetchError::Discovery(shown(url)))?;
        if document.issuer != issuer {
            return Err(FetchError::Issuer(shown(url)));
        }
        // Also its scheme: from https it never leads to http.
        let keys = Url::parse(&document.jwks_uri).map_err(|_| FetchError::Discovery(shown(url)))?;
        if keys.origin() != url.origin() {
            return Err(FetchError::Origin(shown(url)));
        }
        Ok(keys)
    }

    async fn get(&self, url: &Url) -> Result<Bytes, FetchError> {
        let failed = |error: &dyn Error| FetchError::Connection(shown(url), why(error));
        let request = Request::get(url.as_str())
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, USER_AGENT)
            .body(Empty::new())
            .map_err(|error| failed(&error))?;
        let client = self.client().map_err(|error| failed(&error))?;
        let response = client.request(request).await.map_err(|error| failed(&error))?;
        if response.status() != 200 {
            return Err(FetchError::Status(shown(url), response.status().as_u16()));
        }
        match Limited::new(response.into_body(), LONGEST).collect().await {
            Ok(body) => Ok(body.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => Err(FetchError::Long(shown(url), LONGEST)),
            Err(error) => Err(failed(&*error)),
        }
    }

    /// # Errors
    /// The operating system trusts nobody.
    fn client(&self) -> Result<&HttpClient, io::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIME));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(self.client.get_or_init(|| Client::builder(TokioExecutor::new()).build(connector)))
    }
}

fn shown(url: &Url) -> String {
    WithoutQuery(url).to_string()
}

/// With its causes: "connection refused" is never the outermost.
fn why(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}
