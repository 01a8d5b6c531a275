//! The `query` key of a rule: conditions on parameters of the raw query (CONTRACT 4 "Query"). Only `matcher` asks them.

use std::borrow::Cow;

use super::{matcher::Answer, pattern::Pattern};

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
        let default = if value.is_some() { Operator::Equal } else { Operator::Present };
        let operator = operator.unwrap_or(default);
        let name = operator.as_str();
        let test = match (operator, value) {
            (Operator::Present, None) => Test::Present,
            (Operator::Absent, None) => Test::Absent,
            (Operator::Present | Operator::Absent, Some(_)) => {
                return Err(format!("{name:?} looks at no value: take the value out, or write another operator"));
            }
            (_, None) => return Err(format!("{name:?} needs something to compare with: write a value")),
            (Operator::Equal, Some(value)) => Test::Equal(Box::from(value.as_str())),
            (Operator::NotEqual, Some(value)) => Test::NotEqual(Box::from(value.as_str())),
            (Operator::Pattern, Some(value)) => Test::Pattern(anchored(value)?),
            (Operator::NotPattern, Some(value)) => Test::NotPattern(anchored(value)?),
        };
        Ok(Self { key: Box::from(key.as_str()), test })
    }

    /// The first value of a parameter counts. One that is not there is "" to the two `not` operators, and nothing to the others.
    pub(super) fn answer(&self, query: Option<&str>) -> Answer {
        let value = first_value(query, &self.key);
        let or_empty = || value.as_deref().unwrap_or_default();
        match &self.test {
            Test::Equal(wanted) => Answer::of(value.as_deref() == Some(wanted)),
            Test::NotEqual(unwanted) => Answer::of(or_empty() != &**unwanted),
            Test::Present => Answer::of(value.is_some()),
            Test::Absent => Answer::of(value.is_none()),
            Test::Pattern(pattern) => match &value {
                Some(value) => pattern.is_match(value.as_bytes()).map_or(Answer::Unknown, Answer::of),
                None => Answer::No,
            },
            Test::NotPattern(pattern) => {
                pattern.is_match(or_empty().as_bytes()).map_or(Answer::Unknown, |matched| Answer::of(!matched))
            }
        }
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

/// Read as forms are (WHATWG URL, `application/x-www-form-urlencoded`): `+` is a space, a broken escape stays as it is.
fn first_value<'q>(query: Option<&'q str>, key: &str) -> Option<Cow<'q, str>> {
    form_urlencoded::parse(query?.as_bytes()).find(|(name, _)| name == key).map(|(_, value)| value)
}

fn anchored(written: &str) -> Result<Pattern, String> {
    let (pattern, anatomy) = Pattern::parse(written)?;
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
