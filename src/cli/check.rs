//! `postern check`: validates configuration and policies, and says all that is wrong with them at once.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use crate::{
    app,
    config::{self, Fault, Faults, Loaded, PlacedCase},
    core::policy::Failure,
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
    /// Print the JSON Schema of the configuration (`config`), of a policies file (`policies`) or of a cases file (`cases`), and end.
    #[arg(long, value_name = "WHICH", hide = true)]
    print_schema: Option<Schema>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Schema {
    Config,
    Policies,
    Cases,
}

pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(which) = args.print_schema {
        let text = match which {
            Schema::Config => config::schema(),
            Schema::Policies => config::policies_schema(),
            Schema::Cases => config::cases_schema(),
        };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut errors = io::stderr().lock();
    match app::load(&args.config).and_then(with_cases) {
        Ok((loaded, cases)) => {
            for warning in &loaded.warnings {
                let Fault { file, line, column, message } = warning;
                writeln!(errors, "{}:{line}:{column}: warning: {message}", file.display())?;
            }
            if args.strict && !loaded.warnings.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            writeln!(io::stdout(), "{}", summary(&loaded, cases))?;
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

/// How many cases hold.
///
/// # Errors
/// Those that do not, each at its place.
fn with_cases(loaded: Loaded) -> Result<(Loaded, usize), Faults> {
    let rules = &loaded.settings.site.rules;
    let folder = &loaded.settings.policies;
    let cases = config::load_cases(folder, rules, app::now())?;
    let failed: Vec<Fault> = cases
        .iter()
        .filter_map(|PlacedCase { file, line, column, case }| {
            let Failure { expected, got, .. } = case.failure(rules)?;
            let name = &case.name;
            let message = format!(
                "the case {name:?} does not hold: expected {expected}, got {got}; `postern policy test {}` shows why",
                folder.display()
            );
            Some(Fault { file: file.clone(), line: *line, column: *column, message })
        })
        .collect();
    if failed.is_empty() { Ok((loaded, cases.len())) } else { Err(Faults(failed)) }
}

fn summary(loaded: &Loaded, cases: usize) -> String {
    let site = &loaded.settings.site;
    let parts = [
        counted(site.listeners.len(), "listener"),
        counted(site.routes.all().len(), "route"),
        counted(site.upstreams.len(), "upstream"),
        // The default is among the names, and no rule.
        counted(site.rules.rule_names().count().saturating_sub(1), "rule"),
        counted(site.rules.limit_names().count(), "limit"),
        counted(cases, "case"),
        counted(loaded.warnings.len(), "warning"),
    ];
    format!("The configuration is valid: {}.", parts.join(", "))
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
