//! What limits have counted, as a command sees it: in Redis by the store itself, else in the memory of the running server, which is asked over its control
//! socket (`admin::control`).

use std::{os::unix::net::UnixListener, path::Path, sync::Arc};

use anyhow::bail;

use crate::{
    admin::control::{self, AskError},
    config::{self, CountersPlace, DatabaseAddress, Settings, Storage},
    core::limit::{Allowance, Rates},
    observe::metrics::Metrics,
    ports::{Ask, CounterKey, Waits, Whose},
    store::{self, Stores},
};

/// Where counts are told from, and what tells whose they are.
pub struct Counts {
    pub settings: Settings,
    pub stores: Stores,
}

/// One count to look at.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    pub limit: &'a str,
    pub rates: &'a Rates,
    pub key: [u8; 16],
}

/// # Errors
/// Faults of the configuration or the policies, or a store that cannot be opened.
pub async fn open_counts(file: &Path) -> anyhow::Result<Counts> {
    let settings = config::load(file)?.settings;
    let stores = store::open(&settings, Arc::new(Metrics::new()?)).await?;
    Ok(Counts { settings, stores })
}

impl Counts {
    /// Without passwords: `memory of the server at data/postern.sock`.
    #[must_use]
    pub fn place(&self) -> String {
        match (self.stores.counters_name(), &self.settings.server.control) {
            (Some(redis), _) => format!("Redis: {redis}"),
            (None, Some(socket)) => format!("memory of the server at {}", socket.display()),
            (None, None) => "memory of the server".to_owned(),
        }
    }

    /// `memory` or `redis`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        if self.stores.counters_name().is_some() { "redis" } else { "memory" }
    }

    /// Whether other nodes may count for themselves what is not told here.
    #[must_use]
    pub fn is_of_one_node(&self) -> bool {
        let is_alone = matches!(self.settings.storage.database, DatabaseAddress::Sqlite(_));
        self.stores.counters_name().is_none() && !is_alone
    }

    /// What is left of each, in their order; takes nothing.
    ///
    /// # Errors
    /// Whoever counts cannot be asked: why, and what to do.
    pub async fn look<'a>(&self, looks: &[Look<'a>]) -> anyhow::Result<Vec<Allowance>> {
        let ask = |look: &Look<'a>| Ask {
            limit: look.limit,
            rates: look.rates,
            key: CounterKey(look.key),
            reports_only: false,
        };
        let asks: Vec<Ask<'a>> = looks.iter().map(ask).collect();
        if let Some(told) = self.stores.look_in_redis(&asks).await {
            let counts = "while Redis is away, each server counts its own part of every limit, or refuses (storage.counters_on_failure)";
            return told.map_err(|error| anyhow::anyhow!("{error}; {counts}"));
        }
        let Some(socket) = &self.settings.server.control else {
            bail!(
                "limits are counted in the memory of the running server, which has no socket to ask it by (server.control: none): \
                 name one and start the server anew, or count in Redis (storage.counters)"
            );
        };
        let path = socket.display();
        control::ask(socket, &asks).await.map_err(|error| match error {
            AskError::Nobody => anyhow::anyhow!(
                "limits are counted in the memory of the running server, and none listens at {path} (server.control): start it, or run \
                 this where it runs, in its working directory; `postern serve` warns where it cannot make the socket"
            ),
            AskError::Forbidden(error) => anyhow::anyhow!(
                "the socket of the running server may not be opened: {path} (server.control): {error}; run this as the server's user"
            ),
            error => anyhow::anyhow!("the running server does not tell what it counts: {path} (server.control): {error}"),
        })
    }

    /// # Errors
    /// The database does not answer.
    pub async fn sign_in_waits(&self, whose: Whose<'_>) -> anyhow::Result<Waits> {
        Ok(self.stores.regulation.waits(whose).await?)
    }
}

/// Else any node reads them from where they are.
pub(super) fn are_in_memory(storage: &Storage) -> bool {
    storage.counters == CountersPlace::Memory
}

/// Where limits are counted in memory. A server without it serves as well: only `postern limit show` has nobody to ask.
pub(super) fn control_socket(path: &Path) -> Option<UnixListener> {
    let is_taken = control::is_living(path);
    match control::bind(path) {
        Ok(socket) => {
            if is_taken {
                tracing::warn!(
                    path = %path.display(),
                    "another server listened on this control socket: `postern limit show` asks this one from now on, and no longer the other. \
                     Give each its own (server.control)"
                );
            }
            Some(socket)
        }
        Err(error) => {
            tracing::warn!(
                path = %path.display(),
                %error,
                "the control socket cannot be made, so `postern limit show` cannot tell what this server counts: name a path that it can write, or none (server.control)"
            );
            None
        }
    }
}
