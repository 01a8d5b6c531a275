//! Counts requests in flight, so that a drain can end as soon as the last one has.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// Shared by every listener of a process.
#[derive(Debug, Clone, Default)]
pub struct InFlight(Arc<AtomicUsize>);

/// One request under way; counted until dropped.
#[derive(Debug)]
pub struct Guard(Arc<AtomicUsize>);

impl InFlight {
    #[must_use]
    pub fn enter(&self) -> Guard {
        self.0.fetch_add(1, Ordering::SeqCst);
        Guard(Arc::clone(&self.0))
    }

    #[must_use]
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
