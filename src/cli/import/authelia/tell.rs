//! What a person is told: findings and the way on, or why there is nothing.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use super::{Import, ledger::Ledger, place::File, write::USERS};
use crate::{
    config::{Fault, Faults, Loaded},
    core::printable::printable,
};

pub(super) const CONFIG: &str = "config/postern.yaml";
pub(super) const POLICIES: &str = "policies/access.yaml";

pub(super) fn done(
    out: &mut impl Write,
    ledger: &Ledger,
    import: &Import,
    loaded: &Loaded,
    output: &Path,
) -> io::Result<()> {
    // As a person would write it.
    let at =
        |name: &str| if output == Path::new(".") { name.to_owned() } else { output.join(name).display().to_string() };
    let policies = &import.policies;
    writeln!(out, "wrote    {}", at(CONFIG))?;
    let closed = match policies.rules.iter().filter(|rule| rule.is_closed).count() {
        0 => String::new(),
        1 => ", 1 of them a deny in place of what could not be carried over".to_owned(),
        closed => format!(", {closed} of them a deny in place of what could not be carried over"),
    };
    writeln!(
        out,
        "wrote    {}  ({} from {} of Authelia's{closed}; default {})",
        at(POLICIES),
        counted(policies.rules.len(), "rule"),
        policies.read,
        policies.default.value.as_str()
    )?;
    if let Some(users) = &import.users {
        writeln!(out, "copied   {}  (from {}, unchanged)", at(USERS), printable(&users.value.to_string_lossy()))?;
    }
    findings(out, ledger)?;
    if !loaded.warnings.is_empty() {
        writeln!(out, "\n`postern check` passes, and warns:\n")?;
        for Fault { file, line, column, message } in &loaded.warnings {
            let warning = format!("{}:{line}:{column}: warning: {message}", at(&file.to_string_lossy()));
            writeln!(out, "{}", printable(&warning))?;
        }
    }
    next(out, ledger, output)
}

fn findings(out: &mut impl Write, ledger: &Ledger) -> io::Result<()> {
    match ledger.findings.len() {
        0 => return writeln!(out, "\nEverything was carried over."),
        1 => writeln!(out, "\n1 thing is not as it was in Authelia:\n")?,
        count => writeln!(out, "\n{count} things are not as they were in Authelia:\n")?,
    }
    for finding in &ledger.findings {
        writeln!(out, "{}", printable(&format!("{}:{finding}", ledger.file.display())))?;
    }
    Ok(())
}

fn next(out: &mut impl Write, ledger: &Ledger, output: &Path) -> io::Result<()> {
    writeln!(out, "\nnext:")?;
    let mut told: Vec<&str> = Vec::new();
    for to_do in ledger.findings.iter().filter_map(|finding| finding.to_do.as_deref()) {
        if !told.contains(&to_do) {
            told.push(to_do);
        }
    }
    let folder = output.display();
    let change = if output == Path::new(".") { String::new() } else { format!("cd {folder} && ") };
    let check = format!("{change}postern check");
    let steps = told.into_iter().chain([check.as_str(), "postern serve, and point the proxy to it"]);
    for (number, step) in steps.enumerate() {
        writeln!(out, "  {}. {}", number + 1, printable(step))?;
    }
    Ok(())
}

/// The source says too little.
pub(super) fn faults(ledger: &Ledger) -> anyhow::Result<ExitCode> {
    findings(&mut io::stdout().lock(), ledger)?;
    let mut errors = io::stderr().lock();
    writeln!(errors, "\nNothing was written:\n")?;
    for fault in &ledger.faults {
        writeln!(errors, "{}", printable(&format!("{}:{fault}", ledger.file.display())))?;
    }
    Ok(ExitCode::FAILURE)
}

/// The result would not pass `postern check`. Its files exist nowhere, so that each line is shown, with the place that it came from.
pub(super) fn unfit(ledger: &Ledger, faults: &Faults, import: &Import, files: &[File]) -> anyhow::Result<ExitCode> {
    findings(&mut io::stdout().lock(), ledger)?;
    let mut errors = io::stderr().lock();
    writeln!(errors, "\nNothing was written, since `postern check` would not pass:\n")?;
    for fault in &faults.0 {
        match &import.users {
            // Copied as it is: the lines are the same, and may hold hashes.
            Some(users) if fault.file == Path::new(USERS) => {
                writeln!(errors, "{}", Fault { file: users.value.clone(), ..fault.clone() })?;
            }
            _ => {
                writeln!(errors, "{fault}")?;
                if let Some(line) = line_of(fault, files) {
                    writeln!(errors, "    {}", printable(line.trim()))?;
                }
            }
        }
    }
    Ok(ExitCode::FAILURE)
}

fn line_of<'f>(fault: &Fault, files: &'f [File]) -> Option<&'f str> {
    let file = files.iter().find(|file| Path::new(file.name) == fault.file && !file.is_private)?;
    let line = usize::try_from(fault.line).ok()?.checked_sub(1)?;
    std::str::from_utf8(&file.content).ok()?.lines().nth(line)
}

fn counted(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
