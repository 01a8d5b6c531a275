//! How far a long log was read, on a terminal.

use std::{io::Write, time::Duration};

use crate::app::Clock;

/// Between two drawings.
const QUIET: Duration = Duration::from_millis(200);
const WIDTH: u64 = 30;

pub(super) struct Progress<'c> {
    clock: &'c dyn Clock,
    began: Duration,
    /// When it was drawn last; nothing is drawn of what is done at once.
    drawn: Duration,
    /// Bytes in all, where somebody knows.
    length: Option<u64>,
    /// Whether anybody looks.
    is_seen: bool,
}

impl<'c> Progress<'c> {
    pub(super) fn new(clock: &'c dyn Clock, length: Option<u64>, is_seen: bool) -> Self {
        let began = clock.monotonic();
        Self { clock, began, drawn: began, length, is_seen }
    }

    pub(super) fn show(&mut self, notes: &mut impl Write, bytes: u64) {
        if !self.is_seen {
            return;
        }
        let now = self.clock.monotonic();
        if now.saturating_sub(self.drawn) < QUIET {
            return;
        }
        self.drawn = now;
        let micros = u64::try_from(now.saturating_sub(self.began).as_micros()).unwrap_or(u64::MAX).max(1);
        // Bytes a microsecond are megabytes a second.
        let rate = bytes / micros;
        // A progress bar that cannot be drawn is no reason to stop.
        drop(match self.length {
            Some(length) => {
                let percent = bytes.saturating_mul(100).checked_div(length).unwrap_or(100).min(100);
                let full = percent * WIDTH / 100;
                let bar: String = (0..WIDTH).map(|place| if place < full { '#' } else { '.' }).collect();
                write!(notes, "\r\u{1b}[K[{bar}] {percent} %  {rate} MB/s")
            }
            None => write!(notes, "\r\u{1b}[K{} MB  {rate} MB/s", bytes / 1_000_000),
        });
        drop(notes.flush());
    }

    /// Takes it away again, before anything else is said.
    pub(super) fn clear(&self, notes: &mut impl Write) {
        if self.drawn != self.began {
            drop(write!(notes, "\r\u{1b}[K"));
        }
    }
}
