//! `ACTION:RESOURCE`, and what a wildcard in it takes in.

use std::fmt;

/// A permission that a role grants (`read:dashboards`, `manage:*`), or that a rule asks for, then without a wildcard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Permission {
    parts: Vec<Box<str>>,
}

const ANY: &str = "*";

impl Permission {
    /// # Errors
    /// What is wrong, and what to write.
    pub(in super::super) fn parse(written: &str) -> Result<Self, String> {
        let parts: Vec<Box<str>> = written.split(':').map(Box::from).collect();
        let is_fit = |part: &str| part == ANY || super::compile::is_name(part);
        if !parts.iter().all(|part| is_fit(part)) {
            return Err(format!(
                "{written:?} is not a permission: write an action and a resource of letters, digits, _, - and ., such as \
                 read:dashboards, and * for any, such as manage:*"
            ));
        }
        Ok(Self { parts })
    }

    pub(in super::super) fn has_wildcard(&self) -> bool {
        self.parts.iter().any(|part| **part == *ANY)
    }

    /// A `*` stands for one part, at the end for all that follow.
    pub(in super::super) fn grants(&self, wanted: &Self) -> bool {
        let ends_open = self.parts.last().is_some_and(|last| **last == *ANY);
        let long_enough =
            wanted.parts.len() == self.parts.len() || (ends_open && wanted.parts.len() > self.parts.len());
        long_enough && self.parts.iter().zip(&wanted.parts).all(|(held, asked)| **held == *ANY || held == asked)
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parts.join(":"))
    }
}
