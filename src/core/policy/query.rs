//! The `query` key of a rule: conditions on parameters of the raw query (CONTRACT 4 "Query"). Only `matcher` asks them.

use std::borrow::Cow;

use super::{
    credential::holds_credential,
    matcher::Answer,
    pattern::{Dot, Pattern},
    reads::Extent,
    record::{Parameter, Query},
};

/// More parameters in one query are not looked through.
const MOST_PARAMETERS: usize = 512;
/// More values that could be meant are not held against a condition.
const MOST_READINGS: usize = 16;
/// Bytes of the longest value that is written down.
pub(super) const LONGEST_RECORDED: usize = 1024;

/// How a parameter is held against a value; spelled as Authelia spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Present,
    Absent,
    Pattern,
    NotPattern,
}

impl Operator {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::NotEqual => "not equal",
            Self::Present => "present",
            Self::Absent => "absent",
            Self::Pattern => "pattern",
            Self::NotPattern => "not pattern",
        }
    }
}

/// A condition as written. Without an operator it is `equal` where there is a value, else `present`.
#[derive(Debug, Clone, Default)]
pub struct QueryDraft {
    pub key: String,
    pub operator: Option<Operator>,
    pub value: Option<String>,
}

#[derive(Debug)]
pub(super) struct Condition {
    key: Box<str>,
    test: Test,
}

#[derive(Debug)]
enum Test {
    Equal(Box<str>),
    NotEqual(Box<str>),
    Present,
    Absent,
    Pattern(Pattern),
    NotPattern(Pattern),
}

impl Condition {
    /// # Errors
    /// What is wrong with it and what to write instead.
    pub(super) fn parse(written: &QueryDraft) -> Result<Self, String> {
        let QueryDraft { key, operator, value } = written;
        if key.is_empty() {
            return Err("the condition names no parameter: write its name, such as `key: debug`".to_owned());
        }
        // To Authelia this is `present`.
        if operator.is_none() && value.as_deref() == Some("") {
            return Err(format!(
                "the value of {key:?} is empty: write `operator: equal` if it must be there and empty, \
                 `operator: present` without a value if it must only be there"
            ));
        }
        let default = if value.is_some() { Operator::Equal } else { Operator::Present };
        let operator = operator.unwrap_or(default);
        let name = operator.as_str();
        if has_escape(key) {
            return Err(format!("rules see parameters decoded, so {key:?} would never match: write it without %"));
        }
        let test = match (operator, value) {
            (Operator::Present, None) => Test::Present,
            (Operator::Absent, None) => Test::Absent,
            (Operator::Present | Operator::Absent, Some(_)) => {
                return Err(format!("{name:?} looks at no value: take the value out, or write another operator"));
            }
            (Operator::Equal | Operator::NotEqual, Some(value)) if has_escape(value) => {
                return Err(format!(
                    "rules see parameters decoded, so {value:?} would never match: write it without %"
                ));
            }
            (_, None) => return Err(format!("{name:?} needs something to compare with: write a value")),
            (Operator::Equal, Some(value)) => Test::Equal(Box::from(value.as_str())),
            (Operator::NotEqual, Some(value)) => Test::NotEqual(Box::from(value.as_str())),
            (Operator::Pattern, Some(value)) => Test::Pattern(anchored(value)?),
            (Operator::NotPattern, Some(value)) => Test::NotPattern(anchored(value)?),
        };
        Ok(Self { key: Box::from(key.as_str()), test })
    }

    /// A query is read in more than one way: which of two values counts, whether `;` parts parameters, what a name is. Where that
    /// makes a difference to this condition, the answer is unknown (invariant 2: never laxer than any reading).
    pub(super) fn answer(&self, query: Query<'_>, unrecorded: Answer) -> Answer {
        match query {
            Query::Raw(query) => match readings(query.unwrap_or_default(), &self.key) {
                Some(readings) => self.answer_to_all(readings.all()),
                None => Answer::Unknown,
            },
            // Where there was no query, nothing was in it.
            Query::Recorded(None) => self.answer_to(None),
            Query::Recorded(Some(recorded)) => match recorded.get(&*self.key) {
                None => unrecorded,
                Some(parameters) if self.extent() == Extent::Value && parameters.contains(&Parameter::Present) => {
                    unrecorded
                }
                Some(parameters) => self.answer_to_all(parameters.iter().map(Parameter::value)),
            },
        }
    }

    /// The one answer to all values that could be meant.
    fn answer_to_all<'v>(&self, mut values: impl Iterator<Item = Option<&'v str>>) -> Answer {
        let Some(first) = values.next().map(|value| self.answer_to(value)) else { return Answer::Unknown };
        if values.all(|value| self.answer_to(value) == first) { first } else { Answer::Unknown }
    }

    /// What is not there is "" to the two `not` operators, and nothing to the others (CONTRACT 4).
    fn answer_to(&self, value: Option<&str>) -> Answer {
        let text = value.unwrap_or_default();
        match &self.test {
            Test::Equal(_) | Test::Pattern(_) if value.is_none() => Answer::No,
            Test::Equal(wanted) => Answer::of(*text == **wanted),
            Test::NotEqual(unwanted) => Answer::of(*text != **unwanted),
            Test::Present => Answer::of(value.is_some()),
            Test::Absent => Answer::of(value.is_none()),
            Test::Pattern(pattern) => pattern.is_match(text.as_bytes()).map_or(Answer::Unknown, Answer::of),
            Test::NotPattern(pattern) => {
                pattern.is_match(text.as_bytes()).map_or(Answer::Unknown, |matched| Answer::of(!matched))
            }
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// What of the parameter it looks at.
    pub(super) fn extent(&self) -> Extent {
        match self.test {
            Test::Present | Test::Absent => Extent::Presence,
            Test::Equal(_) | Test::NotEqual(_) | Test::Pattern(_) | Test::NotPattern(_) => Extent::Value,
        }
    }

    /// What somebody who comes from Authelia may not expect: there, what is not there is "" to these as well.
    pub(super) fn warning(&self) -> Option<String> {
        let takes_nothing = match &self.test {
            Test::Equal(value) => value.is_empty(),
            Test::Pattern(pattern) => pattern.is_match(b"").unwrap_or(false),
            Test::NotEqual(_) | Test::NotPattern(_) | Test::Present | Test::Absent => false,
        };
        let key = &self.key;
        takes_nothing.then(|| {
            format!(
                "the condition holds for an empty {key:?}, not for one that is missing: where that is meant too, add an entry \
                 `{{ key: {key}, operator: absent }}`"
            )
        })
    }

    pub(super) fn written(&self) -> String {
        let key = &self.key;
        match &self.test {
            Test::Equal(value) => format!("{key} equal {value:?}"),
            Test::NotEqual(value) => format!("{key} not equal {value:?}"),
            Test::Present => format!("{key} present"),
            Test::Absent => format!("{key} absent"),
            Test::Pattern(pattern) => format!("{key} pattern {}", pattern.written()),
            Test::NotPattern(pattern) => format!("{key} not pattern {}", pattern.written()),
        }
    }
}

/// What an expression learns of a parameter.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Told<T> {
    Known(T),
    /// Applications read it in different ways.
    Ambiguous,
    /// It was not written down.
    Unrecorded,
}

/// The value of a parameter, `None` where it is not there.
pub(super) fn value<'q>(query: Query<'q>, key: &str) -> Told<Option<Cow<'q, str>>> {
    match query {
        Query::Raw(query) => match readings(query.unwrap_or_default(), key) {
            Some(Readings { usual, others, .. }) if others.iter().all(|other| *other == usual) => Told::Known(usual),
            _ => Told::Ambiguous,
        },
        Query::Recorded(None) => Told::Known(None),
        Query::Recorded(Some(recorded)) => match recorded.get(key).map(Vec::as_slice) {
            None => Told::Unrecorded,
            Some(parameters) if parameters.contains(&Parameter::Present) => Told::Unrecorded,
            Some([one]) => Told::Known(one.value().map(Cow::Borrowed)),
            Some(_) => Told::Ambiguous,
        },
    }
}

/// Whether a parameter is there.
pub(super) fn is_present(query: Query<'_>, key: &str) -> Told<bool> {
    match query {
        Query::Raw(query) => match readings(query.unwrap_or_default(), key) {
            Some(readings) => agreed(readings.all().map(|value| value.is_some())),
            None => Told::Ambiguous,
        },
        Query::Recorded(None) => Told::Known(false),
        Query::Recorded(Some(recorded)) => match recorded.get(key) {
            None => Told::Unrecorded,
            Some(parameters) => agreed(parameters.iter().map(|one| *one != Parameter::Absent)),
        },
    }
}

fn agreed(mut all: impl Iterator<Item = bool>) -> Told<bool> {
    match all.next() {
        Some(first) if all.all(|other| other == first) => Told::Known(first),
        _ => Told::Ambiguous,
    }
}

/// What applications take for the value of a parameter.
struct Readings<'q> {
    /// As most do: forms as the WHATWG reads them, the first value.
    usual: Option<Cow<'q, str>>,
    others: Vec<Option<Cow<'q, str>>>,
    /// A value may be another parameter's: behind a `;`, or of `user[password]` where `user` is asked for.
    holds_others: bool,
}

impl Readings<'_> {
    fn all(&self) -> impl Iterator<Item = Option<&str>> {
        std::iter::once(&self.usual).chain(&self.others).map(Option::as_deref)
    }
}

/// What the access log holds of a parameter: every way to read it, once. Empty where nobody looks through all of it.
pub(super) fn recorded(query: &str, key: &str, extent: Extent) -> Vec<Parameter> {
    let Some(readings) = readings(query, key) else { return Vec::new() };
    let is_long = readings.all().flatten().map(str::len).sum::<usize>() > LONGEST_RECORDED;
    let tells = readings.all().flatten().any(holds_credential);
    // Another parameter is one that no rule may have asked for.
    let with_value = extent == Extent::Value && !is_long && !tells && !readings.holds_others;
    let mut parameters = Vec::new();
    for value in readings.all() {
        let parameter = match value {
            None => Parameter::Absent,
            Some(value) if with_value => Parameter::Value(value.to_owned()),
            Some(_) => Parameter::Present,
        };
        if !parameters.contains(&parameter) {
            parameters.push(parameter);
        }
    }
    parameters
}

/// `None`: more than anybody needs, so nobody looks through all of it.
///
/// Read otherwise are: a later value (PHP, Rails, Django) or all of them joined (ASP.NET), a name in another case or with other signs
/// in and around it, `;` between parameters (older Rack and Python), no value at all where Go drops what it cannot read.
fn readings<'q>(query: &'q str, key: &str) -> Option<Readings<'q>> {
    let mut usual = None;
    let mut others = Vec::new();
    let mut holds_others = false;
    for (count, parameter) in query.split('&').enumerate() {
        if count >= MOST_PARAMETERS || others.len() > MOST_READINGS {
            return None;
        }
        let has_semicolon = parameter.contains(';');
        // `%u0061` is a letter to some.
        let mut names = parameter.split(';').map(|part| part.split('=').next().unwrap_or_default());
        if names.any(has_broken_escape) {
            return None;
        }
        let before = others.len();
        if let Some((name, value)) = named(parameter, key) {
            if has_broken_escape(parameter) || value.contains('\0') {
                return None;
            }
            holds_others |= name == Name::Within;
            if usual.is_none() && name == Name::Same {
                usual = Some(value);
                // Go drops it.
                if has_semicolon {
                    others.push(None);
                }
            } else {
                others.push(Some(value));
            }
        }
        if has_semicolon {
            if parameter.matches(';').count() > MOST_READINGS {
                return None;
            }
            others.extend(parameter.split(';').filter_map(|part| named(part, key)).map(|(_, value)| Some(value)));
            holds_others |= others.len() > before;
        }
    }
    if others.iter().any(|other| *other != usual) {
        // ASP.NET joins them.
        let all: Vec<&str> = usual.iter().chain(others.iter().flatten()).map(|value| &**value).collect();
        others.push(Some(Cow::Owned(all.join(","))));
    }
    Some(Readings { usual, others, holds_others })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Name {
    Same,
    /// Some application takes it for the same.
    Alike,
    /// `key[more]`: of a part of it, which is the whole to some.
    Within,
}

/// The value, where the parameter is called `key` or what somebody takes for it.
fn named<'q>(parameter: &'q str, key: &str) -> Option<(Name, Cow<'q, str>)> {
    let (raw, _) = parameter.split_once('=').unwrap_or((parameter, ""));
    // Most parameters are other ones, and cost no more than a look at their first letters.
    let likeness = likeness(decoded(raw), key);
    if likeness.is_none() && !decoded(raw).eq(key.bytes()) {
        return None;
    }
    // Alone, so that it is one pair.
    let (name, value) = form_urlencoded::parse(parameter.as_bytes()).next()?;
    Some((if name == key { Name::Same } else { likeness.unwrap_or(Name::Alike) }, value))
}

/// Percent-decoded, with `+` for a space; a broken escape stays as it is.
fn decoded(raw: &str) -> impl Iterator<Item = u8> + '_ {
    // A decoded `+` is a plus.
    let mut plus_ends = raw.split('+').map(|part| percent_encoding::percent_decode_str(part));
    let first = plus_ends.next().into_iter().flatten();
    first.chain(plus_ends.flat_map(|part| std::iter::once(b' ').chain(part)))
}

/// Letters and digits alone are compared, since what stands around and between them is read in many ways: `[action]` and `action]`
/// (Rack, qs), `is[admin`, `is.admin` and `is admin` for `is_admin` (PHP). What follows in brackets or behind a NUL may not count.
fn likeness(mut name: impl Iterator<Item = u8>, key: &str) -> Option<Name> {
    let counts = |byte: &u8| byte.is_ascii_alphanumeric() || !byte.is_ascii();
    let mut key = key.bytes().filter(counts).peekable();
    key.peek()?;
    while let Some(byte) = name.next() {
        match key.peek() {
            Some(wanted) if counts(&byte) => {
                if !wanted.eq_ignore_ascii_case(&byte) {
                    return None;
                }
                key.next();
            }
            Some(_) => {}
            None if matches!(byte, b'[' | b']' | 0) => {
                return Some(if name.any(|byte| counts(&byte)) { Name::Within } else { Name::Alike });
            }
            None if counts(&byte) => return None,
            None => {}
        }
    }
    key.peek().is_none().then_some(Name::Alike)
}

fn has_broken_escape(text: &str) -> bool {
    let is_hex = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_hexdigit);
    text.split('%').skip(1).any(|after| {
        let after = after.as_bytes();
        !(is_hex(after.first()) && is_hex(after.get(1)))
    })
}

fn has_escape(text: &str) -> bool {
    text.contains('%') && !has_broken_escape(text)
}

fn anchored(written: &str) -> Result<Pattern, String> {
    // A line break in a value is no way around `.`.
    let (pattern, anatomy) = Pattern::parse_with(written, Dot::MatchesAnything)?;
    if !anatomy.anchored_at_start {
        return Err(format!(
            "the regex {written:?} is not anchored, so it would match in the middle of any value: begin it with ^, and \
             every alternative of it"
        ));
    }
    if pattern.names_subject() {
        return Err(format!(
            "the regex {written:?} has a group User or Group, but those count only in domain_regex and resources: \
             give the group another name"
        ));
    }
    Ok(pattern)
}
