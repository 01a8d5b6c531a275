//! The access log: one line a request, written off the hot path. Both roles record here. It must never hold a cookie, a
//! token or a password, and nothing of the query (THREATS 68).
//!
//! Lines are formatted by hand: at 100,000 requests a second a serialiser would cost more than the decision.

mod line;
mod writer;

use std::{cell::RefCell, net::IpAddr, sync::Arc, thread::JoinHandle, time::Duration};

use prometheus::IntCounter;

use crate::core::time::Timestamp;
use writer::{Lines, Writer};

/// Bytes that may wait for the disk; lines beyond are dropped and counted.
const LONGEST_QUEUE: usize = 4 * 1024 * 1024;

/// Where the lines go (`log.access`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sink {
    Off,
    Stdout,
    File(std::path::PathBuf),
}

/// One request.
#[derive(Debug)]
pub struct Entry<'e> {
    pub at: Timestamp,
    pub role: &'static str,
    pub request_id: &'e str,
    pub trace_id: &'e str,
    pub client: Option<IpAddr>,
    pub user: Option<&'e str>,
    pub method: &'e str,
    pub scheme: &'static str,
    pub host: &'e str,
    /// The canonical path.
    pub path: &'e str,
    pub route: &'e str,
    pub rule: Option<&'e str>,
    pub verdict: &'static str,
    /// The rule that only reports, and what it would have said.
    pub reported: Option<(&'e str, &'static str)>,
    pub status: u16,
    pub took: Duration,
}

/// Writes entries from a thread of its own. A full queue drops lines and counts them rather than hold a request. What is
/// queued is written before the drop of this value returns.
#[derive(Debug)]
pub struct AccessLog {
    json: bool,
    dropped: IntCounter,
    queue: Option<Queue>,
}

#[derive(Debug)]
struct Queue {
    lines: Arc<Lines>,
    thread: JoinHandle<()>,
}

thread_local! {
    /// Where a line is formatted before it is queued: reused, so that a line costs no allocation.
    static LINE: RefCell<String> = const { RefCell::new(String::new()) };
}

impl AccessLog {
    /// # Errors
    /// The file cannot be opened, or no thread started.
    pub fn open(sink: &Sink, json: bool) -> std::io::Result<Self> {
        let dropped =
            IntCounter::new("postern_access_log_dropped_total", "Lines that the access log could not keep up with.")
                .map_err(std::io::Error::other)?;
        let queue = match writer::Output::open(sink)? {
            None => None,
            Some(output) => {
                let lines = Arc::new(Lines::default());
                let mut writer = Writer::new(output, Arc::clone(&lines), dropped.clone());
                let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || writer.run())?;
                Some(Queue { lines, thread })
            }
        };
        Ok(Self { json, dropped, queue })
    }

    /// Whether nobody will read a line: what it would say need not be looked up then.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.queue.is_none()
    }

    /// Formats the line at once and hands it over; a no-op where the log is off.
    pub fn record(&self, entry: &Entry<'_>) {
        let Some(queue) = &self.queue else { return };
        let queued = LINE.with_borrow_mut(|line| {
            line.clear();
            if self.json {
                line::json(line, entry)
            } else {
                line::text(line, entry)
            }
            queue.lines.push(line.as_bytes(), LONGEST_QUEUE)
        });
        if !queued {
            self.dropped.inc();
        }
    }

    /// Opens the file anew before the next line, after it was moved away by a log rotation.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            queue.lines.reopen();
        }
    }

    /// `postern_access_log_dropped_total`, for `Metrics::adopt`.
    #[must_use]
    pub fn dropped(&self) -> IntCounter {
        self.dropped.clone()
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        if let Some(Queue { lines, thread }) = self.queue.take() {
            lines.close();
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
