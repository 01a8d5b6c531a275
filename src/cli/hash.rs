//! `postern hash`: a password's argon2id hash, for a users file.

use std::{
    io::{IsTerminal, Write},
    process::ExitCode,
};

use super::password;

/// Hash a password, for a users file
///
/// Reads it from standard input (on a terminal it asks twice) and prints its argon2id hash.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: Args) -> anyhow::Result<ExitCode> {
    let password = password::read_new(!std::io::stdin().is_terminal())?;
    let hasher = crate::app::hasher()?;
    let hash = tokio::runtime::Builder::new_current_thread().build()?.block_on(hasher.hash(password))?;
    writeln!(std::io::stdout().lock(), "{hash}")?;
    Ok(ExitCode::SUCCESS)
}
