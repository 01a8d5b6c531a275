//! What the rules say, laid out for a terminal: colours, aligned columns, lines broken at its width, rules of other hosts folded.
//! `explain` and `test` call it; anywhere else than on a terminal they print an [`Explanation`] as it prints itself.

use std::{
    env,
    fmt::Write as _,
    io::{self, IsTerminal as _},
};

use crate::core::{
    policy::{Explanation, Line, Ruling},
    printable::printable,
};

/// Rules of other hosts in a row, from which on they are told as one.
const FOLDED_FROM: usize = 3;
/// Below this nothing is broken any more: words would stand alone.
const NARROWEST: usize = 24;

#[derive(Debug, Clone, Copy)]
pub(super) struct Terminal {
    /// In characters.
    pub(super) width: usize,
    /// Fold nothing.
    pub(super) all: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Paint {
    Plain,
    Bold,
    Dim,
    Yellow,
    BoldGreen,
    BoldYellow,
    BoldRed,
}

impl Paint {
    /// Parameters of ECMA-48 SGR.
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Yellow => "33",
            Self::BoldGreen => "1;32",
            Self::BoldYellow => "1;33",
            Self::BoldRed => "1;31",
        }
    }

    pub(super) fn on(self, text: &str) -> String {
        if self == Self::Plain { text.to_owned() } else { format!("\u{1b}[{}m{text}\u{1b}[0m", self.code()) }
    }

    pub(super) const fn of(ruling: Ruling) -> Self {
        match ruling {
            Ruling::Forward => Self::BoldGreen,
            Ruling::SignIn | Ruling::StepUp => Self::BoldYellow,
            Ruling::Refuse => Self::BoldRed,
        }
    }
}

impl Terminal {
    /// `None`: standard output is no terminal, or one on which nobody wants colours (no-color.org).
    pub(super) fn of_stdout(all: bool) -> Option<Self> {
        let says_no = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_some_and(|value| value == "dumb");
        if says_no || !io::stdout().is_terminal() {
            return None;
        }
        let width = terminal_size::terminal_size().map_or(80, |(terminal_size::Width(width), _)| usize::from(width));
        Some(Self { width, all })
    }

    /// The verdict, then every rule; each line ends in a line feed.
    pub(super) fn explained(self, explanation: &Explanation) -> String {
        let decisive = explanation.decisive();
        let paint = Paint::of(explanation.ruling);
        let head = match decisive {
            Some(_) => format!("   rule {:?}, policy {}", explanation.rule, explanation.level.as_str()),
            None => format!("   no rule matched, default {}", explanation.level.as_str()),
        };
        let mut text = format!("{}{}\n", paint.on(explanation.ruling.as_str()), printable(&head));
        if let (Some(reading), Some(other)) = (&explanation.reading, &explanation.other_reading) {
            let (path, verdict, rule) = (&other.path, other.ruling.as_str(), &other.rule);
            let said = format!(
                "decided for the path read as {reading}; read as {path} it would be {verdict} (rule {rule:?}); the stricter holds"
            );
            self.paragraph(&mut text, &said);
        }
        if !explanation.roles.is_empty() {
            self.paragraph(&mut text, &format!("roles held: {}", explanation.roles.join(", ")));
        }
        let rows = self.rows(&explanation.trace);
        if !rows.is_empty() {
            text.push('\n');
        }
        let names = rows.iter().filter_map(|row| match row {
            Row::Rule(_, line) => Some(line.rule.chars().count()),
            Row::Folded(_) => None,
        });
        // A few long names must not push all the reasons aside.
        let column = names.max().unwrap_or_default().min(self.width / 3);
        for row in rows {
            match row {
                Row::Rule(place, line) => self.rule(&mut text, line, decisive == Some(place), paint, column),
                Row::Folded(rules) => {
                    let folded = format!("   … {rules} rules for other hosts (--all shows them)");
                    _ = writeln!(text, "{}", Paint::Dim.on(&folded));
                }
            }
        }
        if !explanation.limits.is_empty() {
            _ = writeln!(text, "\nlimits:");
            let names = explanation.limits.iter().map(|line| line.limit.chars().count());
            let column = names.max().unwrap_or_default().min(self.width / 3);
            for line in &explanation.limits {
                let paint = match (line.counted, line.only_reports()) {
                    (true, false) => Paint::Plain,
                    (true, true) => Paint::Yellow,
                    (false, _) => Paint::Dim,
                };
                self.row(&mut text, line.mark(), paint, &line.limit, &line.told(), column);
            }
        }
        text
    }

    fn paragraph(self, text: &mut String, said: &str) {
        for line in broken(&printable(said), self.width) {
            _ = writeln!(text, "{line}");
        }
    }

    fn rows(self, trace: &[Line]) -> Vec<Row<'_>> {
        let mut rows = Vec::new();
        let places: Vec<(usize, &Line)> = trace.iter().enumerate().collect();
        for run in places.chunk_by(|(_, one), (_, next)| one.is_for_other_hosts == next.is_for_other_hosts) {
            let is_folded = !self.all && run.len() >= FOLDED_FROM;
            if is_folded && run.iter().all(|(_, line)| line.is_for_other_hosts && !line.matched) {
                rows.push(Row::Folded(run.len()));
            } else {
                rows.extend(run.iter().map(|(place, line)| Row::Rule(*place, line)));
            }
        }
        rows
    }

    fn rule(self, text: &mut String, line: &Line, is_decisive: bool, decisive: Paint, column: usize) {
        let (mark, paint) = match line.matched {
            true if is_decisive => ("=>", decisive),
            true if line.mode.is_some() => (" ~", Paint::Yellow),
            true => (" +", Paint::Plain),
            false => (" -", Paint::Dim),
        };
        self.row(text, mark, paint, &printable(&line.rule), &printable(&line.because), column);
    }

    /// A mark, a name, and what is said of it.
    fn row(self, text: &mut String, mark: &str, paint: Paint, name: &str, said: &str, column: usize) {
        let indent = 3 + column + 2;
        let mut reasons = broken(said, self.width.saturating_sub(indent)).into_iter();
        let head = if name.chars().count() > column {
            format!("{mark} {name}")
        } else {
            format!("{mark} {name:column$}  {}", reasons.next().unwrap_or_default())
        };
        _ = writeln!(text, "{}", paint.on(head.trim_end()));
        for reason in reasons {
            _ = writeln!(text, "{:indent$}{}", "", paint.on(&reason));
        }
    }
}

enum Row<'t> {
    /// With its place among the rules.
    Rule(usize, &'t Line),
    Folded(usize),
}

/// At spaces, where a line would be longer than `width`; a longer word stays whole, so that it can be copied.
fn broken(text: &str, width: usize) -> Vec<String> {
    let width = width.max(NARROWEST);
    let (mut lines, mut line, mut length) = (Vec::new(), String::new(), 0);
    for word in text.split(' ') {
        let letters = word.chars().count();
        if length > 0 && length + 1 + letters > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        line.push_str(word);
        length += letters;
    }
    lines.push(line);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        identity::Factor,
        policy::{BindingDraft, Imagined, ImaginedCaller, Level, Mode, PolicyDraft, RoleDraft, RuleDraft, RuleSet},
        time::Timestamp,
        user::Attributes,
    };

    fn rule(name: &str, domain: &str, path: &str, level: Level) -> RuleDraft {
        RuleDraft {
            name: Some(name.to_owned()),
            domain: vec![domain.to_owned()],
            path: vec![path.to_owned()],
            policy: Some(level),
            ..RuleDraft::default()
        }
    }

    /// Asked for `/admin/x` on `app.test` as bob of dev.
    fn explained(path: &str) -> Explanation {
        let mut rules = vec![
            rule("public", "app.test", "/public/**", Level::Bypass),
            RuleDraft { mode: Mode::Report, ..rule("trial", "*.test", "/admin/**", Level::TwoFactor) },
        ];
        rules.extend((0..4).map(|number| rule(&format!("other {number}"), "elsewhere.test", "/**", Level::Deny)));
        rules.extend([
            RuleDraft {
                subject: vec![vec!["group:admins".to_owned()]],
                ..rule("admins", "app.test", "/admin/**", Level::OneFactor)
            },
            rule("nobody else administers anything at all here", "app.test", "/admin/**", Level::Deny),
            rule("far away", "elsewhere.test", "/**", Level::Deny),
            rule("members", "app.test", "/**", Level::OneFactor),
        ]);
        let roles = vec![RoleDraft { name: "editor".to_owned(), ..RoleDraft::default() }];
        let bindings = vec![BindingDraft {
            roles: vec!["editor".to_owned()],
            subjects: vec!["group:dev".to_owned()],
            ..BindingDraft::default()
        }];
        let (rules, _) = RuleSet::compile(&PolicyDraft { rules, roles, bindings, ..PolicyDraft::default() }).unwrap();
        let who = ImaginedCaller {
            user: Some("bob".to_owned()),
            groups: vec!["dev".to_owned()],
            factor: Factor::One,
            signed_in_at: Timestamp::default(),
            attributes: Attributes::default(),
        };
        let caller = Imagined::caller(who).unwrap();
        rules
            .imagine(&Imagined { caller: Some(caller), ..Imagined::anonymous(format!("https://app.test{path}")) })
            .unwrap()
    }

    /// Escape sequences as letters, for people to read.
    fn shown(text: &str) -> String {
        let codes = [("\u{1b}[0m", "}"), ("\u{1b}[2m", "{dim "), ("\u{1b}[33m", "{yellow "), ("\u{1b}[1;31m", "{RED ")];
        let codes = codes.into_iter().chain([("\u{1b}[1;32m", "{GREEN "), ("\u{1b}[1;33m", "{YELLOW ")]);
        codes.fold(text.to_owned(), |text, (code, letters)| text.replace(code, letters))
    }

    #[test]
    fn a_trace_is_read_at_a_glance() {
        let told = Terminal { width: 80, all: false }.explained(&explained("/admin/x"));
        insta::assert_snapshot!(shown(&told));
        let plain = explained("/admin/x").to_string();
        assert!(!plain.contains("\u{1b}[1") && plain.contains(" - other 2"), "as it was: {plain}");
    }

    #[test]
    fn everything_is_there_where_everything_is_asked_for() {
        let told = Terminal { width: 200, all: true }.explained(&explained("/admin/x"));
        for name in explained("/admin/x").trace.iter().map(|line| printable(&line.rule)) {
            assert!(told.contains(&name), "no {name}: {told}");
        }
        assert!(!told.contains("--all"), "{told}");
    }

    #[test]
    fn the_verdicts_have_colours_and_both_readings_are_told() {
        let told = shown(&Terminal { width: 60, all: false }.explained(&explained("/public/x")));
        assert!(told.starts_with("{GREEN forward}   rule \"public\", policy bypass\n"), "{told}");
        let told = shown(&Terminal { width: 60, all: false }.explained(&explained("/admin;v=1/x")));
        let readings: Vec<&str> = told.lines().skip(1).take_while(|line| !line.is_empty()).collect();
        assert!(readings.len() > 1 && readings.iter().all(|line| line.len() <= 60), "{told}");
        let whole = "decided for the path read as /admin/x; read as /admin;v=1/x it would be forward (rule \"members\"); the stricter holds \
                     roles held: editor";
        assert_eq!(readings.join(" "), whole);
    }

    #[test]
    fn what_a_rule_quotes_does_not_speak_to_the_terminal_where_there_are_no_colours_either() {
        let draft = RuleDraft {
            when: Some("request.path == \"\u{1b}c\u{9b}2J\"".to_owned()),
            ..rule("commands", "app.test", "/**", Level::Deny)
        };
        let (rules, _) = RuleSet::compile(&PolicyDraft { rules: vec![draft], ..PolicyDraft::default() }).unwrap();
        let request = Imagined::anonymous("https://app.test/");
        let told = rules.imagine(&request).unwrap().to_string();
        assert!(told.contains("\u{fffd}c\u{fffd}2J"), "{told:?}");
        assert!(!told.chars().any(|letter| letter.is_control() && letter != '\n'), "{told:?}");
    }

    #[test]
    fn lines_are_broken_at_spaces_and_never_within_a_word() {
        let word = "x".repeat(40);
        assert_eq!(broken("one two three four five six", 24), ["one two three four five", "six"]);
        assert_eq!(broken(&format!("a {word} b"), 24), ["a", word.as_str(), "b"]);
        assert_eq!(broken("narrow terminals still show words", 1), ["narrow terminals still", "show words"]);
        assert_eq!(broken("", 24), [""]);
    }
}
