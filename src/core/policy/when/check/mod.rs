//! Holds the tree of an expression against the names and types of the environment. All faults are told at once, each in its place; what
//! comes out of a tree without fault can be worked out without looking anything up by name.

mod calls;

use std::collections::BTreeMap;

use super::{
    Attributes, Fault, Position, Reads, Yields,
    environment::{Field, ROOTS, Type, fields, readable_header},
    tree::{Fold, Node, Operation, Order},
};
use crate::core::{
    policy::{reads::Extent, roles::Roles},
    spelling::nearest,
};
use cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, SelectExpr, SourceInfo, operators,
};

pub(super) struct Checker<'c> {
    attributes: &'c Attributes,
    roles: &'c Roles,
    source: &'c SourceInfo,
    faults: Vec<Fault>,
    reads: Reads,
    /// Variables of macros, the innermost last: name, place and type.
    variables: Vec<(String, usize, Type)>,
    places: usize,
    depth: usize,
}

/// How deep a sound expression may be nested: `eval` goes down as deep, on the stack of a request.
const DEEPEST: usize = 64;

type Typed = (Node, Type);

const FAULTY: Typed = (Node::Faulty, Type::Faulty);

impl<'c> Checker<'c> {
    pub(super) fn new(attributes: &'c Attributes, roles: &'c Roles, source: &'c SourceInfo) -> Self {
        Self {
            attributes,
            roles,
            source,
            faults: Vec::new(),
            reads: Reads::default(),
            variables: Vec::new(),
            places: 0,
            depth: 0,
        }
    }

    pub(super) fn finish(self) -> (Vec<Fault>, Reads) {
        (self.faults, self.reads)
    }

    /// The whole expression, which must be a bool for a rule and a string for the key of a limit.
    pub(super) fn whole(&mut self, tree: &IdedExpr, yields: Yields) -> Node {
        let (node, kind) = self.value(tree);
        match (kind, yields) {
            (Type::Faulty, _) | (Type::Bool, Yields::Bool) | (Type::String, Yields::Text) => {}
            (Type::Dyn, Yields::Bool) => self.fault(
                tree,
                "its type is known only on a request, and a rule needs a bool: compare it, as in … == true",
            ),
            (Type::Dyn, Yields::Text) => self.fault(
                tree,
                "its type is known only on a request, and a key needs a string: write string(…), or declare the attribute",
            ),
            (other, Yields::Bool) => {
                self.fault(tree, format!("it is a {other}, and a rule needs a bool: compare it with something"))
            }
            (other, Yields::Text) => self.fault(tree, format!("it is a {other}, and a key needs a string: write string(…)")),
        }
        node
    }

    fn fault(&mut self, at: &IdedExpr, message: impl Into<String>) {
        let start = self.source.offset_for(at.id).map_or(0, |(start, _)| start as usize);
        let before = self.source.source.get(..start).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        let position = Position { line: before.matches('\n').count() + 1, column: line.chars().count() + 1 };
        self.faults.push(Fault { position, message: message.into() });
    }

    fn faulty(&mut self, at: &IdedExpr, message: impl Into<String>) -> Typed {
        self.fault(at, message);
        FAULTY
    }

    /// An expression that has a value.
    fn value(&mut self, tree: &IdedExpr) -> Typed {
        let (node, kind) = self.expression(tree);
        if kind.is_value() {
            return (node, kind);
        }
        let names: Vec<String> = fields(&kind).into_iter().map(|(name, _)| format!("{kind}.{name}")).collect();
        let instead = match kind {
            Type::Query => "write request.query.NAME".to_owned(),
            Type::Headers => "write request.headers[\"NAME\"]".to_owned(),
            Type::Claims => "write user.claims.NAME".to_owned(),
            _ => format!("write one of {}", names.join(", ")),
        };
        self.faulty(tree, format!("`{kind}` has no value of its own: {instead}"))
    }

    /// A value of this type.
    fn wanted(&mut self, tree: &IdedExpr, wanted: &Type, what: &str) -> Node {
        let (node, kind) = self.value(tree);
        if !kind.fits(wanted) {
            self.fault(tree, format!("{what} must be a {wanted}, and this is a {kind}"));
        }
        node
    }

    fn expression(&mut self, tree: &IdedExpr) -> Typed {
        if self.depth == DEEPEST {
            return self.faulty(tree, "it is nested too deeply: split the rule");
        }
        self.depth += 1;
        let typed = self.kind_of(tree);
        self.depth -= 1;
        typed
    }

    fn kind_of(&mut self, tree: &IdedExpr) -> Typed {
        match &tree.expr {
            Expr::Literal(literal) => self.literal(tree, literal),
            Expr::Ident(name) => self.name(tree, name),
            Expr::Select(select) => self.select(tree, select),
            Expr::Call(call) => self.call(tree, call),
            Expr::List(list) => self.list(list),
            Expr::Comprehension(fold) => self.fold(tree, fold),
            Expr::Map(_) | Expr::Struct(_) => {
                self.faulty(tree, "maps and messages cannot be written in a rule: compare values one by one")
            }
            Expr::Unspecified => self.faulty(tree, "something is missing here"),
        }
    }

    fn literal(&mut self, tree: &IdedExpr, literal: &LiteralValue) -> Typed {
        match literal {
            LiteralValue::Boolean(value) => (Node::Bool(*value.inner()), Type::Bool),
            LiteralValue::Int(value) => (Node::Int(*value.inner()), Type::Int),
            LiteralValue::Double(value) => (Node::Double(*value.inner()), Type::Double),
            LiteralValue::String(value) => (Node::String(Box::from(value.inner())), Type::String),
            LiteralValue::Null => (Node::Null, Type::Null),
            LiteralValue::UInt(_) => self.faulty(tree, "unsigned numbers do not occur here: write it without the u"),
            LiteralValue::Bytes(_) => self.faulty(tree, "bytes do not occur here: write a string"),
        }
    }

    fn name(&mut self, tree: &IdedExpr, name: &str) -> Typed {
        if let Some((_, place, kind)) = self.variables.iter().rev().find(|(known, ..)| known == name) {
            return (Node::Variable(*place), kind.clone());
        }
        if let Some((_, kind)) = ROOTS.into_iter().find(|(known, _)| *known == name) {
            return (Node::Faulty, kind);
        }
        let known = ROOTS.iter().map(|(known, _)| *known);
        match nearest(name, known.clone()) {
            Some(near) => self.faulty(tree, format!("there is no {name:?}: did you mean {near:?}?")),
            None => {
                let known: Vec<&str> = known.collect();
                self.faulty(tree, format!("there is no {name:?}: an expression knows {}", known.join(", ")))
            }
        }
    }

    /// `a.b`, or `has(a.b)`.
    fn select(&mut self, tree: &IdedExpr, select: &SelectExpr) -> Typed {
        let SelectExpr { operand, field, test } = select;
        let (of, kind) = self.expression(operand);
        match kind {
            Type::Faulty => FAULTY,
            Type::Query => self.parameter(field, *test),
            Type::Headers => self.header(tree, field, *test),
            Type::Claims | Type::Dyn if *test => (Node::HasField(Box::new(of), Box::from(field.as_str())), Type::Bool),
            Type::Claims | Type::Dyn => (Node::Select(Box::new(of), Box::from(field.as_str())), Type::Dyn),
            Type::User | Type::Request | Type::Session | Type::Route => self.field(tree, &kind, field, *test),
            other => self.faulty(tree, format!("a {other} has no fields, so no {field:?}")),
        }
    }

    fn field(&mut self, tree: &IdedExpr, of: &Type, name: &str, test: bool) -> Typed {
        self.reads.caller |= matches!(of, Type::User | Type::Session);
        let known = fields(of);
        if let Some((_, field)) = known.iter().find(|(known, _)| *known == name) {
            return match field {
                _ if test => self.faulty(tree, format!("`{of}.{name}` is always there: take has(…) away")),
                Field::Fact(fact, kind) => (Node::Fact(*fact), kind.clone()),
                Field::Group(kind) => (Node::Faulty, kind.clone()),
            };
        }
        if *of == Type::User
            && let Some(kind) = self.attributes.get(name)
        {
            let name = Box::from(name);
            return if test {
                (Node::HasAttribute(name), Type::Bool)
            } else {
                (Node::Attribute(name, *kind), Type::of(*kind))
            };
        }
        let attributes = self.attributes.keys().map(String::as_str).filter(|_| *of == Type::User);
        let names: Vec<&str> = known.iter().map(|(known, _)| *known).chain(attributes).collect();
        let instead = match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None if *of == Type::User => {
                format!("declare it under attributes (as in {name}: string), or write user.claims.{name}")
            }
            None => format!("it has {}", names.join(", ")),
        };
        self.faulty(tree, format!("`{of}` has no {name:?}: {instead}"))
    }

    fn parameter(&mut self, name: &str, test: bool) -> Typed {
        let name: Box<str> = Box::from(name);
        if test {
            self.reads.query(&name, Extent::Presence);
            return (Node::HasParameter(name), Type::Bool);
        }
        self.reads.query(&name, Extent::Value);
        (Node::Parameter(name), Type::String)
    }

    fn header(&mut self, tree: &IdedExpr, name: &str, test: bool) -> Typed {
        let parsed = match readable_header(name) {
            Ok(parsed) => parsed,
            Err(message) => return self.faulty(tree, message),
        };
        let name: Box<str> = Box::from(parsed.as_str());
        self.reads.header(&name, if test { Extent::Presence } else { Extent::Value });
        if test { (Node::HasHeader(name), Type::Bool) } else { (Node::Header(name), Type::String) }
    }

    fn list(&mut self, list: &ListExpr) -> Typed {
        let mut nodes = Vec::with_capacity(list.elements.len());
        let mut of = Type::Dyn;
        for element in &list.elements {
            let (node, kind) = self.value(element);
            if !kind.compares_with(&of) {
                self.fault(
                    element,
                    format!("a list holds values of one type: this is a {kind} among values of type {of}"),
                );
            }
            of = of.joined(kind);
            nodes.push(node);
        }
        (Node::List(nodes), Type::List(Box::new(of)))
    }

    /// A macro (`exists`, `all`, `exists_one`, `map`, `filter`), as the parser spells it out.
    fn fold(&mut self, tree: &IdedExpr, fold: &ComprehensionExpr) -> Typed {
        if fold.iter_var2.is_some() {
            return self.faulty(tree, "macros over two variables do not exist here");
        }
        let (over, kind) = self.value(&fold.iter_range);
        let item = match kind {
            Type::List(of) => *of,
            Type::Dyn => Type::Dyn,
            Type::Faulty => Type::Faulty,
            other => {
                return self
                    .faulty(&fold.iter_range, format!("a {other} cannot be gone through: macros are for lists"));
            }
        };
        let (start, kind) = self.value(&fold.accu_init);
        let (item_place, accumulator) = (self.places, self.places + 1);
        self.places += 2;
        let outside = self.variables.len();
        self.variables.push((fold.iter_var.clone(), item_place, item));
        self.variables.push((fold.accu_var.clone(), accumulator, kind.clone()));
        let goes_on = self.wanted(&fold.loop_cond, &Type::Bool, "the condition of a macro");
        let (step, stepped) = self.value(&fold.loop_step);
        let kind = kind.joined(stepped);
        if let Some((.., known)) = self.variables.last_mut() {
            *known = kind;
        }
        let (result, kind) = self.value(&fold.result);
        self.variables.truncate(outside);
        let fold = Fold { over, item: item_place, accumulator, start, goes_on, step, result };
        (Node::Fold(Box::new(fold)), kind)
    }

    /// `a[b]`.
    fn index(&mut self, tree: &IdedExpr, of: &IdedExpr, index: &IdedExpr) -> Typed {
        let (node, kind) = self.expression(of);
        if matches!(kind, Type::Query | Type::Headers) {
            return match (string_literal(index), kind) {
                (Some(name), Type::Query) => self.parameter(name, false),
                (Some(name), _) => self.header(tree, name, false),
                (None, kind) => self.faulty(
                    index,
                    format!("the name in {kind}[…] must be written out, so that it is known what the rule reads"),
                ),
            };
        }
        if !kind.is_value() && kind != Type::Claims {
            return self.faulty(of, format!("`{kind}` is no list: write {kind}.NAME"));
        }
        let (index_node, index_kind) = self.value(index);
        let (fits, kind) = match kind {
            Type::List(of) => (index_kind.fits(&Type::Int), *of),
            Type::Claims => (index_kind.fits(&Type::String), Type::Dyn),
            Type::Dyn => (index_kind.fits(&Type::String) || index_kind.fits(&Type::Int), Type::Dyn),
            Type::Faulty => return FAULTY,
            other => return self.faulty(of, format!("a {other} has no entries")),
        };
        if !fits {
            return self.faulty(index, format!("a {index_kind} cannot be used as an index here"));
        }
        (Node::Index(Box::new(node), Box::new(index_node)), kind)
    }

    /// `a in b`.
    fn is_in(&mut self, tree: &IdedExpr, wanted: &IdedExpr, list: &IdedExpr) -> Typed {
        let (list_node, kind) = self.expression(list);
        if matches!(kind, Type::Query | Type::Headers) {
            return match (string_literal(wanted), kind) {
                (Some(name), Type::Query) => self.parameter(name, true),
                (Some(name), _) => self.header(tree, name, true),
                (None, kind) => self.faulty(
                    wanted,
                    format!("the name in {kind} must be written out, so that it is known what the rule reads"),
                ),
            };
        }
        let (node, wanted_kind) = self.value(wanted);
        let fits = match &kind {
            Type::List(of) => wanted_kind.compares_with(of),
            Type::Claims => wanted_kind.fits(&Type::String),
            Type::Dyn | Type::Faulty => true,
            other => return self.faulty(list, format!("`in` looks into a list, and this is a {other}")),
        };
        if !fits {
            self.fault(wanted, format!("a {wanted_kind} is never in a {kind}"));
        }
        (Node::In(Box::new(node), Box::new(list_node)), Type::Bool)
    }

    fn call(&mut self, tree: &IdedExpr, call: &CallExpr) -> Typed {
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, [left, right]) => self.logic(left, right, Node::And),
            (operators::LOGICAL_OR, [left, right]) => self.logic(left, right, Node::Or),
            (operators::LOGICAL_NOT, [of]) => {
                (Node::Not(Box::new(self.wanted(of, &Type::Bool, "what ! turns around"))), Type::Bool)
            }
            (operators::NOT_STRICTLY_FALSE, [of]) => (Node::NotStrictlyFalse(Box::new(self.value(of).0)), Type::Bool),
            (operators::CONDITIONAL, [condition, yes, no]) => self.choose(condition, yes, no),
            (operators::EQUALS, [left, right]) => self.equal(tree, left, right),
            (operators::NOT_EQUALS, [left, right]) => {
                let (node, kind) = self.equal(tree, left, right);
                (Node::Not(Box::new(node)), kind)
            }
            (operators::LESS, [left, right]) => self.compare(tree, Order::Less, left, right),
            (operators::LESS_EQUALS, [left, right]) => self.compare(tree, Order::LessOrEqual, left, right),
            (operators::GREATER, [left, right]) => self.compare(tree, Order::Greater, left, right),
            (operators::GREATER_EQUALS, [left, right]) => self.compare(tree, Order::GreaterOrEqual, left, right),
            (operators::IN, [wanted, list]) => self.is_in(tree, wanted, list),
            (operators::INDEX, [of, index]) => self.index(tree, of, index),
            (operators::ADD, [left, right]) => self.arithmetic(tree, Operation::Add, left, right),
            (operators::SUBSTRACT, [left, right]) => self.arithmetic(tree, Operation::Subtract, left, right),
            (operators::MULTIPLY, [left, right]) => self.arithmetic(tree, Operation::Multiply, left, right),
            (operators::DIVIDE, [left, right]) => self.arithmetic(tree, Operation::Divide, left, right),
            (operators::MODULO, [left, right]) => self.arithmetic(tree, Operation::Remainder, left, right),
            (operators::NEGATE, [of]) => {
                let (node, kind) = self.value(of);
                if !matches!(kind, Type::Int | Type::Double | Type::Duration | Type::Dyn | Type::Faulty) {
                    self.fault(of, format!("a {kind} cannot be negated"));
                }
                (Node::Negate(Box::new(node)), kind)
            }
            _ => self.function(tree, call),
        }
    }

    fn logic(&mut self, left: &IdedExpr, right: &IdedExpr, make: fn(Box<Node>, Box<Node>) -> Node) -> Typed {
        let left = self.wanted(left, &Type::Bool, "each side of && and ||");
        let right = self.wanted(right, &Type::Bool, "each side of && and ||");
        (make(Box::new(left), Box::new(right)), Type::Bool)
    }

    fn choose(&mut self, condition: &IdedExpr, yes: &IdedExpr, no: &IdedExpr) -> Typed {
        let condition = self.wanted(condition, &Type::Bool, "what stands before ?");
        let ((yes, kind), (no_node, other)) = (self.value(yes), self.value(no));
        if !kind.fits(&other) {
            self.fault(no, format!("both sides of : must be of one type: a {kind} and a {other} are not"));
        }
        (Node::Choose(Box::new([condition, yes, no_node])), kind.joined(other))
    }

    fn equal(&mut self, tree: &IdedExpr, left: &IdedExpr, right: &IdedExpr) -> Typed {
        let ((left, kind), (right, other)) = (self.value(left), self.value(right));
        if !kind.compares_with(&other) {
            self.fault(tree, format!("a {kind} and a {other} are never equal"));
        }
        (Node::Equal(Box::new(left), Box::new(right)), Type::Bool)
    }

    fn compare(&mut self, tree: &IdedExpr, order: Order, left: &IdedExpr, right: &IdedExpr) -> Typed {
        let ((left, kind), (right, other)) = (self.value(left), self.value(right));
        let has_order = |kind: &Type| {
            matches!(
                kind,
                Type::Bool
                    | Type::Int
                    | Type::Double
                    | Type::String
                    | Type::Timestamp
                    | Type::Duration
                    | Type::Dyn
                    | Type::Faulty
            )
        };
        let alike = kind.compares_with(&other);
        if !alike || !has_order(&kind) || !has_order(&other) {
            self.fault(tree, format!("a {kind} and a {other} cannot be compared"));
        }
        (Node::Compare(order, Box::new(left), Box::new(right)), Type::Bool)
    }

    fn arithmetic(&mut self, tree: &IdedExpr, operation: Operation, left: &IdedExpr, right: &IdedExpr) -> Typed {
        use Operation::{Add, Remainder, Subtract};
        let ((left, kind), (right, other)) = (self.value(left), self.value(right));
        let result = match (&kind, &other) {
            (Type::Faulty, _) | (_, Type::Faulty) => Type::Faulty,
            (Type::Dyn, Type::Dyn) => Type::Dyn,
            (Type::Int, Type::Int | Type::Dyn) | (Type::Dyn, Type::Int) => Type::Int,
            (Type::Double, Type::Double | Type::Dyn) | (Type::Dyn, Type::Double) if operation != Remainder => {
                Type::Double
            }
            (Type::String, Type::String | Type::Dyn) | (Type::Dyn, Type::String) if operation == Add => Type::String,
            (Type::List(_), Type::List(_)) if operation == Add && kind.fits(&other) => {
                kind.clone().joined(other.clone())
            }
            (Type::Timestamp, Type::Timestamp) if operation == Subtract => Type::Duration,
            (Type::Timestamp, Type::Duration) if matches!(operation, Add | Subtract) => Type::Timestamp,
            (Type::Duration, Type::Timestamp) if operation == Add => Type::Timestamp,
            (Type::Duration, Type::Duration) if matches!(operation, Add | Subtract) => Type::Duration,
            _ => {
                let sign = match operation {
                    Add => "+",
                    Subtract => "-",
                    Operation::Multiply => "*",
                    Operation::Divide => "/",
                    Remainder => "%",
                };
                return self.faulty(tree, format!("{sign} does not go with a {kind} and a {other}"));
            }
        };
        (Node::Arithmetic(operation, Box::new(left), Box::new(right)), result)
    }
}

/// The text, where it is written out.
fn string_literal(tree: &IdedExpr) -> Option<&str> {
    match &tree.expr {
        Expr::Literal(LiteralValue::String(text)) => Some(text.inner()),
        _ => None,
    }
}

impl Reads {
    fn query(&mut self, name: &str, extent: Extent) {
        widen(&mut self.query, name, extent);
    }

    fn header(&mut self, name: &str, extent: Extent) {
        widen(&mut self.headers, name, extent);
    }
}

fn widen(names: &mut BTreeMap<Box<str>, Extent>, name: &str, extent: Extent) {
    let widest = names.entry(Box::from(name)).or_insert(extent);
    *widest = extent.max(*widest);
}
