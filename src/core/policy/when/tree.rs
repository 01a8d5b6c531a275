//! An expression whose names and types were found right: what `check` makes and `eval` works out.

use super::{environment::Fact, time::Part};
use crate::core::policy::{pattern::Pattern, roles::Permission};

#[derive(Debug)]
pub(super) enum Node {
    /// Stands where a fault was told; never worked out.
    Faulty,
    Null,
    Bool(bool),
    Int(i64),
    Double(f64),
    String(Box<str>),
    /// In milliseconds.
    Timestamp(i64),
    Duration(i64),
    Fact(Fact),
    /// A declared attribute of the user.
    Attribute(Box<str>, super::AttributeType),
    HasAttribute(Box<str>),
    Header(Box<str>),
    HasHeader(Box<str>),
    Parameter(Box<str>),
    HasParameter(Box<str>),
    /// The variable of a macro.
    Variable(usize),
    /// A field of a claim.
    Select(Box<Node>, Box<str>),
    HasField(Box<Node>, Box<str>),
    Index(Box<Node>, Box<Node>),
    List(Vec<Node>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<Node>, Box<Node>),
    Or(Box<Node>, Box<Node>),
    Choose(Box<[Node; 3]>),
    Equal(Box<Node>, Box<Node>),
    Compare(Order, Box<Node>, Box<Node>),
    In(Box<Node>, Box<Node>),
    Arithmetic(Operation, Box<Node>, Box<Node>),
    Size(Box<Node>),
    Text(Search, Box<Node>, Box<Node>),
    Matches(Box<Node>, Box<Pattern>),
    Lower(Box<Node>),
    Upper(Box<Node>),
    ToInt(Box<Node>),
    ToDouble(Box<Node>),
    ToString(Box<Node>),
    ToTimestamp(Box<Node>),
    ToDuration(Box<Node>),
    Part(Part, Box<Node>),
    /// A duration in whole units of so many milliseconds.
    Length(Box<Node>, i64),
    Can(Permission),
    Fold(Box<Fold>),
    /// Whether the loop of a macro goes on: unless it is surely false.
    NotStrictlyFalse(Box<Node>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    Contains,
    StartsWith,
    EndsWith,
}

/// A macro over a list (`exists`, `all`, `exists_one`, `map`, `filter`), as the parser spells it out.
#[derive(Debug)]
pub(super) struct Fold {
    pub(super) over: Node,
    pub(super) item: usize,
    pub(super) accumulator: usize,
    pub(super) start: Node,
    pub(super) goes_on: Node,
    pub(super) step: Node,
    pub(super) result: Node,
}
