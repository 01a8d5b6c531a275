//! `postern policy test`: runs the cases beside the rules.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::terminal::{Paint, Terminal};
use crate::{
    app,
    config::{self, PlacedCase},
    core::{policy::Failure, printable::printable},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder of the policy files
    #[arg(value_name = "DIR", default_value = "policies")]
    policies: PathBuf,
    /// On a terminal, show the rules for other hosts too
    #[arg(long)]
    all: bool,
}

pub(super) fn run(args: &Args, out: &mut impl Write, notes: &mut impl Write) -> anyhow::Result<ExitCode> {
    let loaded = config::load_policies(&args.policies)
        .and_then(|(rules, warnings)| Ok(((config::load_cases(&args.policies, &rules, app::now())?, rules), warnings)));
    let Some((cases, rules)) = super::sound(loaded, notes)? else { return Ok(ExitCode::FAILURE) };
    let terminal =
        Terminal::of_stdout(args.all).map(|terminal| Terminal { width: terminal.width.saturating_sub(4), ..terminal });
    let on = |paint: Paint, text: &str| painted(paint, text, terminal);
    let mut failed = 0_usize;
    for placed in &cases {
        let Some(failure) = placed.case.failure(&rules) else { continue };
        failed += 1;
        write_failure(out, placed, &failure, terminal)?;
    }
    match (cases.len(), failed) {
        (0, _) => writeln!(notes, "note: no cases (*.cases.yaml) in {}: nothing was tested", args.policies.display())?,
        (all, 0) => writeln!(out, "{}", on(Paint::BoldGreen, &format!("{} hold.", counted(all))))?,
        (all, failed) => writeln!(out, "{}", on(Paint::BoldRed, &format!("{failed} of {} failed.", counted(all))))?,
    }
    out.flush()?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn painted(paint: Paint, text: &str, terminal: Option<Terminal>) -> String {
    if terminal.is_some() { paint.on(text) } else { text.to_owned() }
}

/// `terminal`: as wide as what is left beside the indent.
fn write_failure(
    out: &mut impl Write,
    placed: &PlacedCase,
    failure: &Failure,
    terminal: Option<Terminal>,
) -> io::Result<()> {
    let on = |paint: Paint, text: &str| painted(paint, text, terminal);
    let heading = format!("{}:{}:{}: {}", placed.file.display(), placed.line, placed.column, placed.case.name);
    writeln!(out, "{}", on(Paint::Bold, &printable(&heading)))?;
    writeln!(out, "  expected  {}", on(Paint::BoldGreen, &printable(&failure.expected)))?;
    writeln!(out, "  got       {}", on(Paint::BoldRed, &printable(&failure.got)))?;
    let told = match (&failure.explanation, terminal) {
        (Ok(explanation), None) => explanation.to_string(),
        (Ok(explanation), Some(terminal)) => terminal.explained(explanation),
        (Err(rejection), _) => format!("no rule was asked: {rejection}\n"),
    };
    for line in told.lines() {
        writeln!(out, "{}", format!("    {line}").trim_end())?;
    }
    writeln!(out)
}

fn counted(cases: usize) -> String {
    if cases == 1 { "1 case".to_owned() } else { format!("{cases} cases") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{policy::Case, verdict::Rejection};

    /// Of a case that is only there for its name.
    fn written(name: &str, terminal: Option<Terminal>) -> String {
        let request = crate::core::policy::Imagined {
            url: String::new(),
            method: String::new(),
            caller: None,
            client: None,
            now: crate::core::time::Timestamp::default(),
            headers: http::HeaderMap::new(),
            route: None,
            address: crate::core::client_ip::ClientAddress::Unknown,
            encoded_slashes: crate::core::target::EncodedSlashes::Reject,
        };
        let case = Case { name: name.to_owned(), request, expected: crate::core::policy::Expected::Reject, rule: None };
        let placed = PlacedCase { file: "a.cases.yaml".into(), line: 2, column: 5, case };
        let failure =
            Failure { expected: "refuse".to_owned(), got: "reject".to_owned(), explanation: Err(Rejection::Method) };
        let mut out = Vec::new();
        write_failure(&mut out, &placed, &failure, terminal).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_failure_has_colours_on_a_terminal_alone() {
        let plain = written("guests", None);
        assert_eq!(
            plain,
            "a.cases.yaml:2:5: guests\n  expected  refuse\n  got       reject\n    no rule was asked: the method is not a token of \
             upper-case letters\n\n"
        );
        let painted = written("guests", Some(Terminal { width: 76, all: false }));
        assert!(painted.starts_with("\u{1b}[1ma.cases.yaml:2:5: guests\u{1b}[0m\n"), "{painted}");
        assert!(painted.contains("\u{1b}[1;32mrefuse\u{1b}[0m") && painted.contains("\u{1b}[1;31mreject\u{1b}[0m"));
    }

    #[test]
    fn a_name_does_not_speak_to_the_terminal() {
        for terminal in [None, Some(Terminal { width: 76, all: false })] {
            let told = written("a\u{1b}]0;owned\u{7}b", terminal);
            assert!(!told.contains("\u{1b}]") && !told.contains('\u{7}'), "{told:?}");
        }
    }
}
