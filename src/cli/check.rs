//! `postern check`: validates configuration and policies, and says all that is wrong with them at once.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use crate::{
    app,
    config::{self, Loaded},
};

/// Find every fault of the configuration and the policies
///
/// Reads what `serve` would read, without starting anything, and prints each fault as FILE:LINE:COLUMN: MESSAGE. Exit 0 if there
/// is none.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = "config/postern.yaml")]
    config: PathBuf,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
    /// Print the JSON Schema of the configuration (`config`) or of a policies file (`policies`), and end.
    #[arg(long, value_name = "WHICH", hide = true)]
    print_schema: Option<Schema>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Schema {
    Config,
    Policies,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(which) = args.print_schema {
        let text = match which {
            Schema::Config => config::schema(),
            Schema::Policies => config::policies_schema(),
        };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut errors = io::stderr().lock();
    match app::load(&args.config) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                let config::Fault { file, line, column, message } = warning;
                writeln!(errors, "{}:{line}:{column}: warning: {message}", file.display())?;
            }
            if args.strict && !loaded.warnings.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            writeln!(io::stdout(), "{}", summary(&loaded))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => {
            for fault in &faults.0 {
                writeln!(errors, "{fault}")?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn summary(loaded: &Loaded) -> String {
    let site = &loaded.settings.site;
    let parts = [
        counted(site.listeners.len(), "listener"),
        counted(site.routes.all().len(), "route"),
        counted(site.upstreams.len(), "upstream"),
        // The default is among the names, and no rule.
        counted(site.rules.rule_names().count().saturating_sub(1), "rule"),
        counted(loaded.warnings.len(), "warning"),
    ];
    format!("The configuration is valid: {}.", parts.join(", "))
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
