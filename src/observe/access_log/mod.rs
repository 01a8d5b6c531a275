//! The access log: one line a request, written off the hot path. Both roles record here. It holds what a decision looked at, so that
//! `postern policy replay` can decide again. It must never hold a cookie, a token or a password, and of the query only what a rule
//! reads (THREATS 68).
//!
//! Lines are formatted by hand: at 100,000 requests a second a serialiser would cost more than the decision.

mod line;
mod writer;

use std::{cell::RefCell, net::IpAddr, sync::Arc, thread::JoinHandle, time::Duration};

use prometheus::IntCounter;

use crate::core::{
    identity::Identity,
    policy::{Recorded, Reported, RuleSet},
    target::Target,
    time::Timestamp,
    verdict::Credential,
};
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
    /// Who asked, where that is known.
    pub caller: Option<&'e Identity>,
    pub method: &'e str,
    /// Absent where it could not be read.
    pub target: Option<&'e Target>,
    pub route: &'e str,
    /// The rule that decided; absent where none was asked.
    pub rule: Option<&'e str>,
    pub verdict: &'static str,
    pub reported: Option<&'e Reported>,
    /// The limit that kept it from going on.
    pub limit: Option<&'e str>,
    /// A limit in `mode: report` that would have.
    pub reported_limit: Option<&'e str>,
    /// What rules of this host read of the headers.
    pub headers: Option<&'e Recorded>,
    pub credential: Credential,
    /// When the rules were asked.
    pub decided_at: Option<Timestamp>,
    /// Those that were asked: they say what of the query is written.
    pub rules: &'e RuleSet,
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
