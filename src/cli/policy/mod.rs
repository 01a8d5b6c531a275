//! `postern policy`: asks the rules about requests that nobody made. Nothing here decides anything; it is the rules of the live path
//! that answer (invariant 6).

mod explain;
mod replay;
mod terminal;
mod test;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use crate::config::{Fault, Faults};

/// Ask the rules what they would decide
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what the rules decide about a request, and why each rule matched or not
    Explain(Box<explain::Args>),
    /// Run the cases that stand beside the rules
    ///
    /// Reads the rules of a folder and its `*.cases.yaml`, asks the rules about each case, and shows those that do not hold with
    /// what every rule said. Exit 1 if there is one.
    Test(test::Args),
    /// Decide a recorded access log again under other rules, and show what would change
    ///
    /// Reads an access log in JSON (`log.format: json`) line by line, asks the rules of a folder about each request, and shows by rule and by
    /// user what they would decide otherwise: first what would be let in that was not. A decision that depends on something that the
    /// log does not hold counts as unknown, never as unchanged. Exit 0 whatever would change; 1 where the rules have a fault or the
    /// log cannot be read.
    Replay(replay::Args),
}

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let (mut out, mut notes) = (io::stdout().lock(), io::stderr().lock());
    let written = match &args.command {
        Command::Explain(args) => explain::run(args, &mut out, &mut notes),
        Command::Test(args) => test::run(args, &mut out, &mut notes),
        Command::Replay(args) => replay::run(args, &mut out, &mut notes),
    };
    match written {
        // Whoever reads has seen enough (`| head`).
        Err(error) if is_closed_pipe(&error) => Ok(ExitCode::SUCCESS),
        other => other,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// What was loaded, its warnings told; `None`: its faults are.
fn sound<T>(loaded: Result<(T, Vec<Fault>), Faults>, notes: &mut impl Write) -> io::Result<Option<T>> {
    let (loaded, prefix, told) = match loaded {
        Ok((loaded, warnings)) => (Some(loaded), "warning: ", warnings),
        Err(faults) => (None, "", faults.0),
    };
    for fault in told {
        writeln!(notes, "{prefix}{fault}")?;
    }
    Ok(loaded)
}
