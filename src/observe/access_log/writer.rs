//! The thread that writes the access log. It may wait for a disk or a pipe; nobody waits for it.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prometheus::IntCounter;

use super::Sink;

/// Bytes gathered before one write.
const BATCH: usize = 64 * 1024;

/// How long a line may wait for others: a write a line would cost more than the request it tells of.
const PATIENCE: Duration = Duration::from_millis(50);

/// Lines that wait to be written. Requests append, one thread takes all.
#[derive(Debug, Default)]
pub(super) struct Lines {
    waiting: Mutex<Waiting>,
    /// There is something to do: a first line, a full batch, a file to open anew, the end.
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    count: u64,
    reopen: bool,
    closed: bool,
}

impl Lines {
    /// Whether there was room.
    pub(super) fn push(&self, line: &[u8], longest: usize) -> bool {
        let mut waiting = self.lock();
        if waiting.bytes.len() + line.len() > longest {
            return false;
        }
        let before = waiting.bytes.len();
        waiting.bytes.extend_from_slice(line);
        waiting.count += 1;
        let now = waiting.bytes.len();
        drop(waiting);
        if before == 0 || (before < BATCH && now >= BATCH) {
            self.wake.notify_one();
        }
        true
    }

    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.wake.notify_one();
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_one();
    }

    /// Swaps what waits for the empty `batch`, once there is a batch of it or it has waited long enough. How many lines, whether
    /// the file is to be opened anew, and whether this was the end.
    fn take(&self, batch: &mut Vec<u8>) -> (u64, bool, bool) {
        let idle = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.reopen && !waiting.closed;
        let filling = |waiting: &mut Waiting| waiting.bytes.len() < BATCH && !waiting.reopen && !waiting.closed;
        let waiting = self.wake.wait_while(self.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let (mut waiting, _) =
            self.wake.wait_timeout_while(waiting, PATIENCE, filling).unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut waiting.bytes, batch);
        (std::mem::take(&mut waiting.count), std::mem::take(&mut waiting.reopen), waiting.closed)
    }

    /// A request that panicked while it appended leaves whole lines behind.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) enum Output {
    Stdout,
    File { path: PathBuf, file: File },
}

impl Output {
    pub(super) fn open(sink: &Sink) -> std::io::Result<Option<Self>> {
        Ok(match sink {
            Sink::Off => None,
            Sink::Stdout => Some(Self::Stdout),
            Sink::File(path) => Some(Self::File { path: path.clone(), file: append_to(path)? }),
        })
    }

    fn write(&mut self, lines: &[u8]) -> std::io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = std::io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File { file, .. } => file.write_all(lines),
        }
    }

    /// The old file stays where the new one cannot be opened: lines in the wrong place are better than none.
    fn reopen(&mut self) {
        if let Self::File { path, file } = self {
            match append_to(path) {
                Ok(anew) => *file = anew,
                Err(error) => tracing::error!(%error, path = %path.display(), "the access log cannot be opened anew"),
            }
        }
    }
}

fn append_to(path: &Path) -> std::io::Result<File> {
    // It names who looked at what: for its owner and their group.
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

pub(super) struct Writer {
    output: Output,
    lines: Arc<Lines>,
    dropped: IntCounter,
    /// So that a full disk is told once, not with every batch.
    failing: bool,
}

impl Writer {
    pub(super) fn new(output: Output, lines: Arc<Lines>, dropped: IntCounter) -> Self {
        Self { output, lines, dropped, failing: false }
    }

    /// Until the lines are closed and all of them written.
    pub(super) fn run(&mut self) {
        let mut batch = Vec::with_capacity(2 * BATCH);
        loop {
            batch.clear();
            let (count, reopen, closed) = self.lines.take(&mut batch);
            if reopen {
                self.output.reopen();
            }
            if !batch.is_empty() {
                self.write(&batch, count);
            }
            if closed {
                return;
            }
        }
    }

    fn write(&mut self, batch: &[u8], count: u64) {
        match self.output.write(batch) {
            Ok(()) => self.failing = false,
            Err(error) => {
                self.dropped.inc_by(count);
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::error!(%error, "the access log cannot be written");
                }
            }
        }
    }
}
