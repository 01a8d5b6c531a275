use std::{path::PathBuf, process::ExitCode};

use crate::app;

/// Run the server
///
/// SIGHUP or a changed file reloads: all or nothing, the old configuration stays on any fault. SIGTERM and SIGINT stop
/// accepting, let requests under way end within `server.drain`, and exit 0; a second one stops at once. A missing database
/// and key file are created.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "config/postern.yaml")]
    config: PathBuf,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    app::serve(&args.config)?;
    Ok(ExitCode::SUCCESS)
}
