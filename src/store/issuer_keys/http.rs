//! Fetches key sets over HTTP: from the configured address alone, without following a redirect, a proxy of the environment or a link to
//! another origin, and never more than [`LONGEST`] bytes. TLS by the authorities that the operating system trusts.

use std::{sync::OnceLock, time::Duration};

use async_trait::async_trait;
use reqwest::{Client, Url, redirect::Policy};
use serde::Deserialize;

use super::{FETCH_TIME, Fetch, FetchError};
use crate::core::issuer::{KeyAddress, KeyPlace, jwks::KeySet};

/// Longest answer, in bytes.
const LONGEST: usize = 1024 * 1024;
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// The client is made with the first fetch: without an issuer nothing asks the operating system for its authorities.
#[derive(Default)]
pub(super) struct HttpKeys {
    client: OnceLock<Client>,
}

/// What of OpenID Connect Discovery 1.0 §3 matters.
#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[async_trait]
impl Fetch for HttpKeys {
    async fn fetch(&self, address: &KeyAddress) -> Result<KeySet, FetchError> {
        let place = match &address.place {
            KeyPlace::Jwks(url) => url.clone(),
            KeyPlace::Discovery { url, issuer } => self.discovered(url, issuer).await?,
        };
        KeySet::parse(&self.get(&place).await?).map_err(|bad| FetchError::KeySet(place.to_string(), bad))
    }
}

impl HttpKeys {
    async fn discovered(&self, url: &Url, issuer: &str) -> Result<Url, FetchError> {
        let text = self.get(url).await?;
        let document: Discovery = serde_json::from_slice(&text).map_err(|_| FetchError::Discovery(url.to_string()))?;
        if document.issuer != issuer {
            return Err(FetchError::Issuer(url.to_string()));
        }
        // Also its scheme: from https it never leads to http.
        let keys = Url::parse(&document.jwks_uri).map_err(|_| FetchError::Discovery(url.to_string()))?;
        if keys.origin() != url.origin() {
            return Err(FetchError::Origin(url.to_string()));
        }
        Ok(keys)
    }

    async fn get(&self, url: &Url) -> Result<Vec<u8>, FetchError> {
        let failed = |error: reqwest::Error| FetchError::Connection(url.to_string(), why(error));
        let request = self.client().map_err(failed)?.get(url.clone()).header("accept", "application/json");
        let mut response = request.send().await.map_err(failed)?;
        if response.status() != 200 {
            return Err(FetchError::Status(url.to_string(), response.status().as_u16()));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(failed)? {
            if body.len().saturating_add(chunk.len()) > LONGEST {
                return Err(FetchError::Long(url.to_string(), LONGEST));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn client(&self) -> Result<&Client, reqwest::Error> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        // The one provider of this program; installed already where a second client is made.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(FETCH_TIME)
            .connect_timeout(CONNECT_TIME)
            .user_agent(concat!("postern/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(self.client.get_or_init(|| client))
    }
}

/// With its causes: "connection refused" is never the outermost.
fn why(error: reqwest::Error) -> String {
    let error = error.without_url();
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
