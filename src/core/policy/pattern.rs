//! Regexes of rules: RE2's syntax, ASCII classes, linear time. Read in full when the rules are loaded, so that every fault is found
//! then; the automaton is built at the first request that asks, since ten thousand of them would hold a reload up.

use std::sync::OnceLock;

use regex::bytes::{Regex, RegexBuilder};
use regex_automata::{
    Input, PatternID, meta,
    util::{primitives::NonMaxUsize, syntax},
};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, HirKind, Look, literal::Extractor},
};

use super::beginning::Beginning;

/// Bytes that one automaton may take. What could come near is built when the rules are loaded.
const SIZE_LIMIT: usize = 1 << 20;
/// Longest pattern without counted repetitions and Unicode classes that is surely below the limit.
const SURELY_SMALL: usize = 512;

/// Ends of groups that are caught on the stack: sixteen groups.
const MOST_SLOTS: usize = 32;

#[derive(Debug)]
pub(super) struct Pattern {
    written: Box<str>,
    /// With its classes made ASCII.
    source: Box<str>,
    dot: Dot,
    compiled: OnceLock<Option<Regex>>,
    /// Where it names a subject.
    catching: OnceLock<Option<meta::Regex>>,
    names_user: bool,
    names_group: bool,
    /// For records, whose query nobody knows.
    beginning: OnceLock<Option<Box<Beginning>>>,
}

/// What the groups `User` and `Group` caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named<'t> {
    pub(super) user: Option<&'t str>,
    pub(super) group: Option<&'t str>,
}

/// What can be said of a regex without running it.
#[derive(Debug)]
pub(super) struct Anatomy {
    pub(super) anchored_at_start: bool,
    pub(super) anchored_at_end: bool,
    /// Every match begins with one of them; empty where nothing is known.
    pub(super) prefixes: Vec<Vec<u8>>,
    /// Every match is one of the prefixes, whole.
    pub(super) exact: bool,
    /// The characters that stand there as such, classes apart.
    pub(super) literals: Vec<u8>,
}

/// What `.` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dot {
    /// Anything but a line break, as in RE2.
    IsRe2s,
    MatchesAnything,
}

impl Pattern {
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub(super) fn parse(written: &str) -> Result<(Self, Anatomy), String> {
        Self::parse_with(written, Dot::IsRe2s)
    }

    /// # Errors
    /// What is wrong with it and what to write instead.
    pub(super) fn parse_with(written: &str, dot: Dot) -> Result<(Self, Anatomy), String> {
        if written.contains(['\n', '\r']) {
            return Err(format!("the regex {written:?} holds a line break: write it on one line, in single quotes"));
        }
        if written.contains(char::is_control) {
            return Err(format!(
                "the regex {written:?} holds a control character, as \"\\b\" in double quotes is one: write it in single quotes"
            ));
        }
        let source = with_ascii_classes(written)?;
        let any = dot == Dot::MatchesAnything;
        let tree =
            ParserBuilder::new().utf8(false).dot_matches_new_line(any).build().parse(&source).map_err(|error| {
                match error {
                    regex_syntax::Error::Parse(error) => {
                        format!("the regex {written:?} is not valid: {}", error.kind())
                    }
                    regex_syntax::Error::Translate(error) => {
                        format!("the regex {written:?} is not valid: {}", error.kind())
                    }
                    _ => format!("the regex {written:?} is not valid"),
                }
            })?;
        let mut pattern = Self {
            written: Box::from(written),
            source: source.into_boxed_str(),
            dot,
            compiled: OnceLock::new(),
            catching: OnceLock::new(),
            names_user: false,
            names_group: false,
            beginning: OnceLock::new(),
        };
        pattern.read_names(&tree)?;
        let small = written.len() <= SURELY_SMALL && written.is_ascii() && !written.contains(['{', 'p', 'P']);
        if !small && pattern.regex().is_none() {
            return Err(format!("the regex {written:?} is too large: repeat less often, or split the rule"));
        }
        Ok((pattern, anatomy(&tree)))
    }

    /// `source` comes from a glob: valid and small by its making.
    pub(super) fn from_glob(written: &str, source: String) -> Self {
        Self {
            written: Box::from(written),
            source: source.into_boxed_str(),
            dot: Dot::IsRe2s,
            compiled: OnceLock::new(),
            catching: OnceLock::new(),
            names_user: false,
            names_group: false,
            beginning: OnceLock::new(),
        }
    }

    pub(super) fn written(&self) -> &str {
        &self.written
    }

    pub(super) fn names_user(&self) -> bool {
        self.names_user
    }

    pub(super) fn names_group(&self) -> bool {
        self.names_group
    }

    pub(super) fn names_subject(&self) -> bool {
        self.names_user || self.names_group
    }

    /// `None`: the automaton could not be built.
    pub(super) fn is_match(&self, text: &[u8]) -> Option<bool> {
        Some(self.regex()?.is_match(text))
    }

    /// Whether it matches this path followed by `?` and a query that nobody knows; `None` where that depends on the query. It is
    /// anchored at its start.
    pub(super) fn is_match_before_query(&self, path: &str) -> Option<bool> {
        let build = || Beginning::of(&self.source, self.dot == Dot::MatchesAnything).map(Box::new);
        let matches = self.beginning.get_or_init(build).as_ref()?.is_match([path, "?"])?;
        // Whom it names may stand in the query.
        (!matches || !self.names_subject()).then_some(matches)
    }

    /// `None`: the automaton could not be built; `Some(None)`: no match.
    #[expect(clippy::option_option, reason = "two ways to have nothing, with opposite consequences")]
    pub(super) fn named<'t>(&self, text: &'t [u8]) -> Option<Option<Named<'t>>> {
        let regex = self.catching.get_or_init(|| self.catching()).as_ref()?;
        let groups = regex.group_info();
        let mut on_stack = [None; MOST_SLOTS];
        let mut on_heap = Vec::new();
        let slots = match on_stack.get_mut(..groups.slot_len()) {
            Some(slots) => slots,
            None => {
                on_heap.resize(groups.slot_len(), None);
                on_heap.as_mut_slice()
            }
        };
        if regex.search_slots(&Input::new(text), slots).is_none() {
            return Some(None);
        }
        let caught = |name| {
            let first = groups.to_index(PatternID::ZERO, name)? * 2;
            let bound = |slot: usize| slots.get(slot).copied().flatten().map(NonMaxUsize::get);
            std::str::from_utf8(text.get(bound(first)?..bound(first + 1)?)?).ok()
        };
        Some(Some(Named { user: caught("User"), group: caught("Group") }))
    }

    /// What [`Pattern::regex`] wraps: only asked itself does it catch groups without allocating.
    fn catching(&self) -> Option<meta::Regex> {
        let limits = meta::Config::new()
            .utf8_empty(false)
            .nfa_size_limit(Some(SIZE_LIMIT))
            .hybrid_cache_capacity(SIZE_LIMIT / 4);
        let syntax = syntax::Config::new().utf8(false).dot_matches_new_line(self.dot == Dot::MatchesAnything);
        meta::Regex::builder().configure(limits).syntax(syntax).build(&self.source).ok()
    }

    fn regex(&self) -> Option<&Regex> {
        let build = || {
            let mut builder = RegexBuilder::new(&self.source);
            builder.dot_matches_new_line(self.dot == Dot::MatchesAnything);
            builder.size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT / 4).build().ok()
        };
        self.compiled.get_or_init(build).as_ref()
    }

    fn read_names(&mut self, tree: &Hir) -> Result<(), String> {
        let mut left = vec![tree];
        while let Some(node) = left.pop() {
            match node.kind() {
                HirKind::Capture(capture) => {
                    match capture.name.as_deref() {
                        Some("User") => self.names_user = true,
                        Some("Group") => self.names_group = true,
                        Some(name) if ["user", "group"].contains(&name.to_ascii_lowercase().as_str()) => {
                            return Err(format!("the named group {name:?} means nothing: write \"User\" or \"Group\""));
                        }
                        _ => {}
                    }
                    left.push(&capture.sub);
                }
                HirKind::Repetition(repetition) => left.push(&repetition.sub),
                HirKind::Concat(nodes) | HirKind::Alternation(nodes) => left.extend(nodes),
                HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => {}
            }
        }
        Ok(())
    }
}

fn anatomy(tree: &Hir) -> Anatomy {
    let mut extractor = Extractor::new();
    extractor.limit_total(32);
    let found = extractor.extract(tree);
    let prefixes =
        found.literals().map(|all| all.iter().map(|one| one.as_bytes().to_vec()).collect()).unwrap_or_default();
    Anatomy {
        anchored_at_start: tree.properties().look_set_prefix().contains(Look::Start),
        anchored_at_end: tree.properties().look_set_suffix().contains(Look::End),
        prefixes,
        exact: found.is_exact(),
        literals: literals(tree),
    }
}

fn literals(tree: &Hir) -> Vec<u8> {
    let (mut literals, mut left) = (Vec::new(), vec![tree]);
    while let Some(node) = left.pop() {
        match node.kind() {
            HirKind::Literal(literal) => literals.extend_from_slice(&literal.0),
            HirKind::Capture(capture) => left.push(&capture.sub),
            HirKind::Repetition(repetition) => left.push(&repetition.sub),
            HirKind::Concat(nodes) | HirKind::Alternation(nodes) => left.extend(nodes),
            HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => {}
        }
    }
    literals
}

/// Classes that RE2 knows by `[:name:]`.
const POSIX_CLASSES: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

/// What stands before the next character of a class.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// A character that may begin a range.
    One,
    /// The hyphen of a range that waits for its end.
    Range,
    /// Nothing, a whole range, or a class: a hyphen after it is one.
    Whole,
}

/// RE2's `\d \w \s \b` are ASCII, here they would be Unicode; and inside a class `[`, `&&` and `~~` are plain characters to RE2, but not here.
/// Characters stay characters, so switching Unicode off (where `.` is a byte) would not do. What RE2 refuses, or reads otherwise, is a fault.
fn with_ascii_classes(written: &str) -> Result<String, String> {
    let mut source = String::with_capacity(written.len() + 16);
    let mut class: Option<Before> = None;
    let mut left = written.chars().peekable();
    while let Some(character) = left.next() {
        let Some(before) = class else {
            match character {
                '\\' => push_escaped(written, &mut source, left.next(), None)?,
                '[' => {
                    class = Some(Before::Whole);
                    source.push('[');
                    if left.next_if_eq(&'^').is_some() {
                        source.push('^');
                    }
                    if left.next_if_eq(&']').is_some() {
                        source.push_str("\\]");
                        class = Some(Before::One);
                    }
                }
                '(' => {
                    source.push('(');
                    check_flags(written, left.clone())?;
                }
                _ => source.push(character),
            }
            continue;
        };
        let one = if before == Before::Range { Before::Whole } else { Before::One };
        let mut next = Some(one);
        match character {
            '\\' => {
                let escaped = left.next();
                if escaped.is_some_and(|escaped| "dDwWsSpP".contains(escaped)) {
                    no_end_of_range(written, before)?;
                    next = Some(Before::Whole);
                }
                push_escaped(written, &mut source, escaped, Some(before))?;
            }
            // `[:alpha:]` and its like, ASCII in both.
            '[' if left.peek() == Some(&':') => {
                no_end_of_range(written, before)?;
                let name = posix_class(left.clone()).ok_or_else(|| {
                    format!(
                        "the regex {written:?} has [: within [ ] and no class that RE2 knows: write one of [:{}:], or \\[ for a bracket",
                        POSIX_CLASSES.join(":], [:")
                    )
                })?;
                source.push('[');
                // With both colons and the bracket.
                source.extend(left.by_ref().take(name + 3));
                next = Some(Before::Whole);
            }
            '[' => source.push_str("\\["),
            ']' => {
                source.push(']');
                next = None;
            }
            '&' | '~' => {
                source.push('\\');
                source.push(character);
            }
            '-' if left.peek() == Some(&'-') => {
                return Err(format!("the regex {written:?} has -- within [ ]: write \\- for a hyphen there"));
            }
            '-' => {
                source.push('-');
                if before == Before::One && left.peek() != Some(&']') {
                    next = Some(Before::Range);
                }
            }
            _ => source.push(character),
        }
        class = next;
    }
    Ok(source)
}

fn push_escaped(
    written: &str,
    source: &mut String,
    escaped: Option<char>,
    in_class: Option<Before>,
) -> Result<(), String> {
    let Some(escaped) = escaped else {
        return Err(format!("the regex {written:?} ends in a lone backslash"));
    };
    let ascii = match escaped {
        'd' => "[0-9]",
        'D' => "[^0-9]",
        'w' => "[0-9A-Za-z_]",
        'W' => "[^0-9A-Za-z_]",
        's' => "[\\t\\n\\x0C\\r ]",
        'S' => "[^\\t\\n\\x0C\\r ]",
        'b' if in_class.is_none() => "(?-u:\\b)",
        'B' if in_class.is_none() => "(?-u:\\B)",
        // Characters to RE2, the edges of a word here.
        '<' => "<",
        '>' => ">",
        _ => {
            source.push('\\');
            source.push(escaped);
            return Ok(());
        }
    };
    source.push_str(ascii);
    Ok(())
}

fn no_end_of_range(written: &str, before: Before) -> Result<(), String> {
    if before == Before::Range {
        return Err(format!(
            "the regex {written:?} has a range within [ ] that ends in a class: write \\- for a hyphen there"
        ));
    }
    Ok(())
}

/// After `[`: how many characters stand between the colons.
fn posix_class(left: impl Iterator<Item = char>) -> Option<usize> {
    let text: String = left.take(12).collect();
    let (name, _) = text.strip_prefix(':')?.split_once(":]")?;
    POSIX_CLASSES.contains(&name.strip_prefix('^').unwrap_or(name)).then(|| name.chars().count())
}

/// After `(`. RE2 has `i m s U`; `x u R` mean something here alone.
fn check_flags(written: &str, mut left: impl Iterator<Item = char>) -> Result<(), String> {
    if left.next() != Some('?') {
        return Ok(());
    }
    let flags: String = left.take_while(|flag| flag.is_ascii_alphabetic() || *flag == '-').collect();
    // `(?P<name>` is no flag.
    match flags.chars().find(|flag| !"imsUP-".contains(*flag)) {
        Some(flag) => {
            Err(format!("the regex {written:?} has the flag {flag:?}, which RE2 does not know: write i, m, s or U"))
        }
        None => Ok(()),
    }
}
