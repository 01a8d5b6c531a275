//! The `when` key of a rule: an expression in CEL (the Common Expression Language, cel-spec) over the request, the caller, the session
//! and the route. The crate `cel` parses it; `check` holds the tree against the types of the environment, so that names, arity and
//! types are faults when the rules are loaded; `eval` works it out within a budget, allocating next to nothing. Only `matcher` asks it.
//! What could not be worked out is an error, and whoever meets one must refuse.

mod check;
mod environment;
mod eval;
#[cfg(test)]
mod tests;
mod time;
mod tree;
mod value;

use std::{borrow::Cow, collections::BTreeMap, fmt};

use cel::parser::Parser;

pub use self::environment::AttributeType;
pub(super) use self::environment::readable_header;
pub(super) use self::eval::Stop;
use self::{check::Checker, tree::Node};
use super::{
    matcher::{Answer, Reading},
    reads::Extent,
    roles::Roles,
};

/// Bytes of one expression.
const LONGEST: usize = 4096;
/// How deep the parser goes.
const DEEPEST: u16 = 48;
/// The parser takes up to 200 KB of stack for one pair of brackets, more than a thread usually has for ten.
const STACK: usize = 64 << 20;

/// Attributes of users by name, as declared under `attributes:`.
pub(super) type Attributes = BTreeMap<String, AttributeType>;

#[derive(Debug)]
pub(super) struct When {
    written: Box<str>,
    root: Node,
    reads: Reads,
}

/// An expression that yields a text: the key of a limit.
#[derive(Debug)]
pub(super) struct TextExpression(When);

/// What an expression must yield.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Yields {
    Bool,
    Text,
}

/// What an expression looks at beside the fixed facts.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// `user` or `session`: then it depends on who asks.
    pub(super) caller: bool,
    /// Names in lower case.
    pub(super) headers: BTreeMap<Box<str>, Extent>,
    pub(super) query: BTreeMap<Box<str>, Extent>,
}

/// A fault, and where in the expression.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fault {
    position: Position,
    message: String,
}

/// Both from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    line: usize,
    column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self { line: 1, column } => write!(f, "column {column}"),
            Self { line, column } => write!(f, "line {line}, column {column}"),
        }
    }
}

impl When {
    /// # Errors
    /// All that is wrong with it, each with its column within the expression and what to write.
    pub(super) fn parse(written: &str, attributes: &Attributes, roles: &Roles) -> Result<Self, Vec<String>> {
        Self::parse_for(Yields::Bool, written, attributes, roles)
    }

    fn parse_for(yields: Yields, written: &str, attributes: &Attributes, roles: &Roles) -> Result<Self, Vec<String>> {
        if written.len() > LONGEST {
            return Err(vec![format!("the expression is longer than {LONGEST} bytes: split the rule")]);
        }
        let parse = || Self::parse_deeply(yields, written, attributes, roles);
        let parsed = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, parse).ok()?;
            thread.join().ok()
        });
        parsed.unwrap_or_else(|| Err(vec!["the expression could not be read: write it in a simpler way".to_owned()]))
    }

    /// The tree of the parser is dropped here too, since that goes as deep as the parsing.
    fn parse_deeply(
        yields: Yields,
        written: &str,
        attributes: &Attributes,
        roles: &Roles,
    ) -> Result<Self, Vec<String>> {
        let (tree, source) = Parser::new()
            .max_recursion_depth(DEEPEST)
            .parse_with_source_info(written)
            .map_err(|errors| errors.errors.iter().map(parse_error).collect::<Vec<_>>())?;
        let mut checker = Checker::new(attributes, roles, &source);
        let root = checker.whole(&tree, yields);
        let (mut faults, reads) = checker.finish();
        if faults.is_empty() {
            return Ok(Self { written: Box::from(written), root, reads });
        }
        faults.sort_by_key(|fault| fault.position);
        Err(faults.into_iter().map(|Fault { position, message }| told(position, &message)).collect())
    }

    pub(super) fn written(&self) -> &str {
        &self.written
    }

    pub(super) fn reads(&self) -> &Reads {
        &self.reads
    }

    pub(super) fn answer(&self, reading: &Reading<'_>) -> Answer {
        match self.outcome(reading) {
            Ok(held) => Answer::of(held),
            Err(Stop::Anonymous) => Answer::Anyone,
            Err(Stop::Failed(_)) => Answer::Unknown,
            Err(Stop::Unrecorded) => reading.unrecorded,
        }
    }

    /// # Errors
    /// Why it could not be worked out.
    pub(super) fn outcome(&self, reading: &Reading<'_>) -> Result<bool, Stop> {
        eval::eval(&self.root, reading)
    }
}

impl TextExpression {
    /// # Errors
    /// As [`When::parse`].
    pub(super) fn parse(written: &str, attributes: &Attributes, roles: &Roles) -> Result<Self, Vec<String>> {
        When::parse_for(Yields::Text, written, attributes, roles).map(Self)
    }

    pub(super) fn written(&self) -> &str {
        self.0.written()
    }

    /// # Errors
    /// Why it could not be worked out.
    pub(super) fn value<'v>(&'v self, reading: &'v Reading<'v>) -> Result<Cow<'v, str>, Stop> {
        eval::text(&self.0.root, reading)
    }
}

fn told(position: Position, message: &str) -> String {
    format!("in the expression at {position}: {message}")
}

fn parse_error(error: &cel::ParseError) -> String {
    let from_one = |place: isize| usize::try_from(place).unwrap_or_default().max(1);
    let position = Position { line: from_one(error.pos.0), column: from_one(error.pos.1) };
    told(position, &format!("it is not valid CEL ({})", error.msg.lines().next().unwrap_or_default()))
}
