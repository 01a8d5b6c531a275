//! `postern policy replay`: what other rules would have decided about the requests of an access log. Reads one line at a time, and
//! keeps counts alone, so that a log may be of any length. The rules answer as they do on the live path (invariant 6).

mod line;
mod lines;
mod progress;
mod report;
mod tally;

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};

use crate::{
    app::SystemClock,
    config,
    core::policy::{RuleSet, Ruling},
};
use line::{Asked, Line, Recorded, Skip};
use lines::{Lines, Read};
use progress::Progress;
use tally::{Tally, Why};

/// Bytes read at once.
const AT_ONCE: usize = 256 * 1024;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The access log, in JSON; `-` is standard input
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// Folder of the policy files to decide by
    #[arg(long, value_name = "DIR")]
    policies: PathBuf,
    /// How to print it
    #[arg(long, default_value = "text")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    Text,
    Json,
}

pub(super) fn run(args: &Args, out: &mut impl Write, notes: &mut impl Write) -> anyhow::Result<ExitCode> {
    let loaded = config::load_policies(&args.policies);
    let Some(rules) = super::sound(loaded, notes)? else { return Ok(ExitCode::FAILURE) };
    let (log, length) = open(&args.log).with_context(|| format!("cannot read {}", args.log.display()))?;
    let clock = SystemClock::new();
    let mut progress = Progress::new(&clock, length, io::stderr().is_terminal());
    let tally = tally(&rules, log, |bytes| progress.show(notes, bytes));
    progress.clear(notes);
    let tally = tally.with_context(|| format!("cannot read {}", args.log.display()))?;
    if tally.lines > 0 && tally.holds_no_access_line() {
        bail!(
            "{} holds no line of an access log in JSON: `log.access` says where it is written, and `log.format` must be json",
            args.log.display()
        );
    }
    match args.format {
        Format::Json => writeln!(out, "{}", report::json(&tally))?,
        Format::Text => write!(out, "{}", report::text(&tally, io::stdout().is_terminal())?)?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// The log, and its length where it has one.
fn open(path: &Path) -> io::Result<(Box<dyn BufRead>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin().lock()), None));
    }
    let file = File::open(path)?;
    let about = file.metadata()?;
    Ok((Box::new(BufReader::with_capacity(AT_ONCE, file)), about.is_file().then_some(about.len())))
}

/// `read` hears now and then how many bytes were read.
fn tally(rules: &RuleSet, log: impl BufRead, mut read: impl FnMut(u64)) -> io::Result<Tally> {
    let mut lines = Lines::new(log);
    let mut tally = Tally::default();
    while let Some(found) = lines.next()? {
        match found {
            Read::TooLong => tally.skip(Skip::TooLong),
            Read::Line { text, is_cut } => match line::parse(text) {
                Line::Asked(asked) => judge(rules, &asked, &mut tally),
                Line::Incomplete(sample) => tally.unknown(Why::Incomplete, sample),
                Line::Skip(Skip::NotJson) if is_cut => tally.skip(Skip::Cut),
                Line::Skip(skip) => tally.skip(skip),
            },
        }
        if tally.lines.is_multiple_of(1024) {
            read(lines.bytes);
        }
    }
    Ok(tally)
}

fn judge(rules: &RuleSet, asked: &Asked, tally: &mut Tally) {
    let sample = || asked.sample();
    match rules.replay(&asked.record) {
        Err(unrecorded) => tally.unknown(Why::of(&unrecorded), sample()),
        Ok(decided) => {
            // Where nobody could sign in then, nobody could now: the host is the same.
            let now = match (asked.verdict, decided.ruling) {
                (Recorded::Reject, Ruling::SignIn | Ruling::StepUp) => Recorded::Reject,
                (_, ruling) => Recorded::Ruling(ruling),
            };
            tally.decided(asked, now, decided.rule);
        }
    }
}

#[cfg(test)]
mod tests;
