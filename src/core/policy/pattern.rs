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
    hir::{Class, Hir, HirKind, Look, literal::Extractor},
};

use super::{beginning::Beginning, re2};

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
    /// Whether some canonical host may match, as far as its characters go.
    pub(super) can_be_host: bool,
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
        let source = re2::as_regex_syntax(written)?;
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
        can_be_host: can_be_host(tree, has_bracket(tree)),
    }
}

/// Whether characters of hosts alone suffice: lower-case letters, digits, `.`, `-`, `_`, and those of an IPv6 address in brackets.
fn can_be_host(node: &Hir, is_address: bool) -> bool {
    let is_of_hosts = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' => true,
        b'[' | b']' | b':' => is_address,
        _ => false,
    };
    let inner = |node: &Hir| can_be_host(node, is_address);
    match node.kind() {
        HirKind::Empty | HirKind::Look(_) => true,
        HirKind::Literal(literal) => literal.0.iter().copied().all(is_of_hosts),
        HirKind::Class(Class::Unicode(class)) => {
            let is_in = |byte: u8| class.iter().any(|range| (range.start()..=range.end()).contains(&char::from(byte)));
            (0..128).any(|byte| is_of_hosts(byte) && is_in(byte))
        }
        HirKind::Class(Class::Bytes(class)) => {
            let is_in = |byte: u8| class.iter().any(|range| (range.start()..=range.end()).contains(&byte));
            (0..128).any(|byte| is_of_hosts(byte) && is_in(byte))
        }
        HirKind::Repetition(repetition) => repetition.min == 0 || inner(&repetition.sub),
        HirKind::Capture(capture) => inner(&capture.sub),
        HirKind::Concat(nodes) => nodes.iter().all(inner),
        HirKind::Alternation(nodes) => nodes.iter().any(inner),
    }
}

fn has_bracket(node: &Hir) -> bool {
    match node.kind() {
        HirKind::Literal(literal) => literal.0.contains(&b'['),
        HirKind::Repetition(repetition) => has_bracket(&repetition.sub),
        HirKind::Capture(capture) => has_bracket(&capture.sub),
        HirKind::Concat(nodes) | HirKind::Alternation(nodes) => nodes.iter().any(has_bracket),
        HirKind::Empty | HirKind::Class(_) | HirKind::Look(_) => false,
    }
}
