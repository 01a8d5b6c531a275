//! `postern import`: turns the configuration of another program into ours. One folder a program.

mod authelia;

use std::process::ExitCode;

/// Turn the configuration of another program into Postern's
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Read Authelia's configuration, and say what could not be carried over
    ///
    /// Writes config/postern.yaml, policies/access.yaml and, where Authelia has its users in a file, config/users.yaml. Every key of
    /// the source is carried over or named as FILE:LINE:COLUMN: KEY: MESSAGE. What cannot be carried over faithfully becomes
    /// stricter, never laxer. Never overwrites anything. Exit 1 if the result would not pass `postern check`; then nothing is
    /// written.
    Authelia(authelia::Args),
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Authelia(args) => authelia::run(&args),
    }
}
