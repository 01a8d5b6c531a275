//! `postern policy test`: runs the cases beside the rules.

use std::{io::Write, path::PathBuf, process::ExitCode};

use crate::{app, config};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the policy files
    #[arg(value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
}

pub(super) fn run(args: &Args, out: &mut impl Write, notes: &mut impl Write) -> anyhow::Result<ExitCode> {
    let loaded = config::load_policies(&args.policies)
        .and_then(|(rules, warnings)| Ok((config::load_cases(&args.policies, &rules, app::now())?, rules, warnings)));
    let (cases, rules, warnings) = match loaded {
        Ok(loaded) => loaded,
        Err(faults) => {
            super::print_faults(notes, "", &faults.0)?;
            return Ok(ExitCode::FAILURE);
        }
    };
    super::print_faults(notes, "warning: ", &warnings)?;
    let mut failed = 0_usize;
    for placed in &cases {
        let Some(failure) = placed.case.failure(&rules) else { continue };
        failed += 1;
        writeln!(out, "{}:{}:{}: {}", placed.file.display(), placed.line, placed.column, placed.case.name)?;
        writeln!(out, "  expected  {}\n  got       {}", failure.expected, failure.got)?;
        let told = match &failure.explanation {
            Ok(explanation) => explanation.to_string(),
            Err(rejection) => format!("no rule was asked: {rejection}\n"),
        };
        for line in told.lines() {
            writeln!(out, "{}", format!("    {line}").trim_end())?;
        }
        writeln!(out)?;
    }
    match (cases.len(), failed) {
        (0, _) => writeln!(notes, "note: no cases (*.cases.yaml) in {}: nothing was tested", args.policies.display())?,
        (all, 0) => writeln!(out, "{} hold.", counted(all))?,
        (all, failed) => writeln!(out, "{failed} of {} failed.", counted(all))?,
    }
    out.flush()?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn counted(cases: usize) -> String {
    if cases == 1 { "1 case".to_owned() } else { format!("{cases} cases") }
}
