//! Calls of functions: which there are, with how many arguments of which types.

use cel::common::ast::{CallExpr, IdedExpr};

use super::{Checker, Typed, string_literal};
use crate::core::{
    policy::{
        pattern::{Dot, Pattern},
        subject,
        when::{
            environment::Type,
            time::{self, Kind, PARTS, Part},
            tree::{Node, Search},
        },
    },
    spelling::nearest,
};

/// Every function, with an example of its use.
const FUNCTIONS: &[(&str, &str)] = &[
    ("size", "size(user.groups)"),
    ("contains", "request.path.contains(\"x\")"),
    ("startsWith", "request.path.startsWith(\"/x\")"),
    ("endsWith", "user.email.endsWith(\"@example.com\")"),
    ("matches", "request.path.matches(\"^/x\")"),
    ("lowerAscii", "request.path.lowerAscii()"),
    ("upperAscii", "request.path.upperAscii()"),
    ("int", "int(request.query.page)"),
    ("double", "double(user.claims.score)"),
    ("string", "string(user.level)"),
    ("timestamp", "timestamp(\"2027-01-01T00:00:00Z\")"),
    ("duration", "duration(\"15m\")"),
    ("can", "user.can(\"read:dashboards\")"),
];

impl Checker<'_> {
    pub(super) fn function(&mut self, tree: &IdedExpr, call: &CallExpr) -> Typed {
        let name = call.func_name.as_str();
        if let Some((_, kind)) = PARTS.into_iter().find(|(known, _)| *known == name) {
            return self.part(tree, call, kind);
        }
        let Some((_, example)) = FUNCTIONS.iter().find(|(known, _)| *known == name) else {
            let known = || FUNCTIONS.iter().map(|(known, _)| *known).chain(PARTS.iter().map(|(known, _)| *known));
            let instead = match nearest(name, known()) {
                Some(near) => format!("did you mean {near}?"),
                None => format!(
                    "there are {}, has, exists, all, exists_one, map and filter",
                    known().collect::<Vec<_>>().join(", ")
                ),
            };
            return self.faulty(tree, format!("there is no function {name}: {instead}"));
        };
        match (name, call.target.as_deref(), call.args.as_slice()) {
            ("size", Some(of), []) | ("size", None, [of]) => self.size(of),
            ("contains", Some(text), [part]) => self.search(Search::Contains, text, part),
            ("startsWith", Some(text), [part]) => self.search(Search::StartsWith, text, part),
            ("endsWith", Some(text), [part]) => self.search(Search::EndsWith, text, part),
            ("matches", Some(text), [regex]) | ("matches", None, [text, regex]) => self.matches(text, regex),
            ("lowerAscii", Some(text), []) => {
                (Node::Lower(Box::new(self.wanted(text, &Type::String, "what is lowered"))), Type::String)
            }
            ("upperAscii", Some(text), []) => {
                (Node::Upper(Box::new(self.wanted(text, &Type::String, "what is raised"))), Type::String)
            }
            ("int", None, [of]) => {
                let known = [Type::Int, Type::Double, Type::String, Type::Timestamp];
                (Node::ToInt(Box::new(self.convertible(of, &known, "int"))), Type::Int)
            }
            ("double", None, [of]) => {
                let known = [Type::Int, Type::Double, Type::String];
                (Node::ToDouble(Box::new(self.convertible(of, &known, "double"))), Type::Double)
            }
            ("string", None, [of]) => {
                let known = [Type::Int, Type::Double, Type::String, Type::Bool];
                (Node::ToString(Box::new(self.convertible(of, &known, "string"))), Type::String)
            }
            ("timestamp", None, [of]) => self.timestamp(of),
            ("duration", None, [of]) => self.duration(of),
            ("can", Some(who), [permission]) => self.can(who, permission),
            _ => {
                let message = format!("{name} is not called like that: write it as in {example}");
                self.faulty(tree, message)
            }
        }
    }

    fn size(&mut self, of: &IdedExpr) -> Typed {
        let (node, kind) = self.value(of);
        if !matches!(kind, Type::String | Type::List(_) | Type::Dyn | Type::Faulty) {
            self.fault(of, format!("a {kind} has no size"));
        }
        (Node::Size(Box::new(node)), Type::Int)
    }

    fn search(&mut self, search: Search, text: &IdedExpr, part: &IdedExpr) -> Typed {
        let text = self.wanted(text, &Type::String, "the text that is searched");
        let part = self.wanted(part, &Type::String, "what is searched for");
        (Node::Text(search, Box::new(text), Box::new(part)), Type::Bool)
    }

    /// Regexes are read when the rules are loaded, and anchored as everywhere in rules (THREATS 12).
    fn matches(&mut self, text: &IdedExpr, regex: &IdedExpr) -> Typed {
        let text = self.wanted(text, &Type::String, "the text that is matched");
        let Some(written) = string_literal(regex) else {
            return self.faulty(regex, "the regex must be written out, so that it can be checked now");
        };
        if written.contains(char::is_control) {
            let message =
                "the regex holds a control character, as \"\\b\" is one: write r\"…\", where a backslash stays one";
            return self.faulty(regex, message);
        }
        // A line break in a decoded parameter is no way around `.`.
        let pattern = match Pattern::parse_with(written, Dot::MatchesAnything) {
            Ok((_, anatomy)) if !anatomy.anchored_at_start => {
                let message = format!(
                    "the regex {written:?} is not anchored, so it would match in the middle of any text: begin it with ^, and every \
                     alternative of it; to look for a text anywhere write contains(…)"
                );
                return self.faulty(regex, message);
            }
            Ok((pattern, _)) if pattern.names_subject() => {
                let message = format!(
                    "the regex {written:?} has a group User or Group, but those count only in domain_regex and resources: give the \
                     group another name"
                );
                return self.faulty(regex, message);
            }
            Ok((pattern, _)) => pattern,
            Err(message) => return self.faulty(regex, message),
        };
        (Node::Matches(Box::new(text), Box::new(pattern)), Type::Bool)
    }

    fn convertible(&mut self, of: &IdedExpr, known: &[Type], to: &str) -> Node {
        let (node, kind) = self.value(of);
        if !known.iter().any(|known| kind.fits(known)) {
            self.fault(of, format!("a {kind} cannot be made a {to}"));
        }
        node
    }

    fn timestamp(&mut self, of: &IdedExpr) -> Typed {
        if let Some(text) = string_literal(of) {
            return match time::timestamp(text) {
                Some(at) => (Node::Timestamp(at), Type::Timestamp),
                None => self.faulty(of, format!("{text:?} is no timestamp: write it as in \"2027-01-01T00:00:00Z\"")),
            };
        }
        let text = self.wanted(of, &Type::String, "a timestamp is made of text, which");
        (Node::ToTimestamp(Box::new(text)), Type::Timestamp)
    }

    fn duration(&mut self, of: &IdedExpr) -> Typed {
        if let Some(text) = string_literal(of) {
            return match time::duration(text) {
                Some(length) => (Node::Duration(length), Type::Duration),
                None => self.faulty(
                    of,
                    format!("{text:?} is no duration: write it as in \"1h30m\", with the units h, m, s and ms"),
                ),
            };
        }
        let text = self.wanted(of, &Type::String, "a duration is made of text, which");
        (Node::ToDuration(Box::new(text)), Type::Duration)
    }

    fn can(&mut self, who: &IdedExpr, permission: &IdedExpr) -> Typed {
        let (_, kind) = self.expression(who);
        if kind != Type::User {
            return self.faulty(who, "can is asked of the user: write user.can(\"read:dashboards\")");
        }
        self.reads.caller = true;
        let Some(written) = string_literal(permission) else {
            return self.faulty(permission, "the permission must be written out, so that it can be checked now");
        };
        match subject::permission(written, self.roles) {
            Ok((wanted, _)) => (Node::Can(wanted), Type::Bool),
            Err(message) => self.faulty(permission, message),
        }
    }

    /// `request.time.getHours("Europe/Berlin")`, `session.age.getMinutes()`.
    fn part(&mut self, tree: &IdedExpr, call: &CallExpr, kind: Kind) -> Typed {
        let name = &call.func_name;
        let usage = format!("{name} is not called like that: write it as in request.time.{name}(\"Europe/Berlin\")");
        let Some(target) = call.target.as_deref() else { return self.faulty(tree, usage) };
        let (of, of_kind) = self.value(target);
        let (zone, at) = match call.args.as_slice() {
            [] => (Some("UTC"), tree),
            [zone] => (string_literal(zone), zone),
            _ => return self.faulty(tree, usage),
        };
        if of_kind == Type::Duration {
            let unit = match kind {
                Kind::Hours => 3_600_000,
                Kind::Minutes => 60_000,
                Kind::Seconds => 1_000,
                Kind::Milliseconds => 1,
                _ => {
                    return self
                        .faulty(tree, format!("a duration has no {name}: it has getHours, getMinutes and getSeconds"));
                }
            };
            if !call.args.is_empty() {
                return self.faulty(at, "a duration has no time zone");
            }
            return (Node::Length(Box::new(of), unit), Type::Int);
        }
        if !of_kind.fits(&Type::Timestamp) {
            return self.faulty(target, format!("a {of_kind} has no {name}: timestamps and durations have"));
        }
        let Some(zone) = zone else {
            return self.faulty(at, "the time zone must be written out, so that it can be checked now");
        };
        match time::zone(zone) {
            Some(zone) => (Node::Part(Part { kind, zone }, Box::new(of)), Type::Int),
            None => self.faulty(
                at,
                format!("there is no time zone {zone:?}: write one such as \"Europe/Berlin\", \"UTC\" or \"+02:00\""),
            ),
        }
    }
}
