//! What `/readyz` says: 503 only while starting or draining; a failed reload or a store that is down is 200 with the detail
//! in its body (CONTRACT 3, Reload).

use std::{collections::BTreeMap, sync::Mutex};

use serde::Serialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Starting,
    Ready,
    Draining,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub status: Phase,
    /// Faults of the last reload, if it failed: `file:line:column: message`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reload_faults: Vec<String>,
    /// What changed in the files but needs a restart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub needs_restart: Vec<String>,
    /// Stores that cannot answer now.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub stores_down: BTreeMap<&'static str, String>,
}

/// Shared state behind `/readyz`.
#[derive(Debug)]
pub struct Readiness(Mutex<Report>);

impl Default for Readiness {
    fn default() -> Self {
        Self(Mutex::new(Report {
            status: Phase::Starting,
            reload_faults: Vec::new(),
            needs_restart: Vec::new(),
            stores_down: BTreeMap::new(),
        }))
    }
}

impl Readiness {
    /// Changes the report; a writer that panicked before does not make it unreadable.
    pub fn change(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
    }

    #[must_use]
    pub fn report(&self) -> Report {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }
}
