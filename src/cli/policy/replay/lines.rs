//! The lines of a log, one at a time, of whatever length: no line makes it hold more than [`LONGEST`] bytes.

use std::io::{self, BufRead, Read as _};

/// Bytes of the longest line that is looked at. Ours are shorter by far: a request's head ends at 64 KiB.
pub(super) const LONGEST: usize = 1024 * 1024;

pub(super) struct Lines<R> {
    log: R,
    pub(super) line: Vec<u8>,
    /// Read so far.
    pub(super) bytes: u64,
}

pub(super) enum Read<'l> {
    Line {
        text: &'l [u8],
        /// The file ends before the line does.
        is_cut: bool,
    },
    TooLong,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(log: R) -> Self {
        Self { log, line: Vec::new(), bytes: 0 }
    }

    /// `None` at the end.
    ///
    /// # Errors
    /// The log cannot be read.
    pub(super) fn next(&mut self) -> io::Result<Option<Read<'_>>> {
        if self.part()? == 0 {
            return Ok(None);
        }
        if self.ends() {
            let text = self.line.strip_suffix(b"\n").unwrap_or_default();
            return Ok(Some(Read::Line { text, is_cut: false }));
        }
        if self.line.len() <= LONGEST {
            return Ok(Some(Read::Line { text: &self.line, is_cut: true }));
        }
        while self.part()? > 0 && !self.ends() {}
        Ok(Some(Read::TooLong))
    }

    /// The next bytes, to the end of the line or to a little more than the longest. How many.
    fn part(&mut self) -> io::Result<usize> {
        self.line.clear();
        let most = LONGEST as u64 + 1;
        let read = self.log.by_ref().take(most).read_until(b'\n', &mut self.line)?;
        self.bytes += read as u64;
        Ok(read)
    }

    fn ends(&self) -> bool {
        self.line.ends_with(b"\n")
    }
}
