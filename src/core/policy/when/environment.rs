//! The names that an expression may use, and their types.

use std::fmt;

use http::{HeaderName, header};

use crate::core::header::is_spoofed;

/// Headers that hold a credential: never read by a rule, so never in a log.
const CREDENTIALS: [HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION, header::SET_COOKIE];

/// A header that policies may read.
///
/// # Errors
/// Why this one may not be, and what to write instead.
pub(in crate::core::policy) fn readable_header(name: &str) -> Result<HeaderName, String> {
    let parsed = HeaderName::try_from(name).map_err(|_| format!("{name:?} is not the name of a header"))?;
    if CREDENTIALS.contains(&parsed) {
        return Err(format!("the header {name:?} holds credentials, which rules never read: ask user or session"));
    }
    if is_spoofed(parsed.as_str(), &[]) {
        return Err(format!(
            "Postern sets or removes {name:?} itself, so a client could forge it here: ask user, session or request"
        ));
    }
    Ok(parsed)
}

/// The type of a user's attribute, as declared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttributeType {
    String,
    /// A whole number.
    Int,
    Double,
    Bool,
    /// A list of strings.
    List,
}

impl AttributeType {
    /// Whether an attribute can be called so.
    ///
    /// # Errors
    /// What to write instead.
    pub fn check_name(name: &str) -> Result<(), String> {
        let is_identifier = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|character| character.is_ascii_alphanumeric() || character == '_');
        if !is_identifier {
            return Err(format!("{name:?} cannot be named in an expression: write letters, digits and _ alone"));
        }
        if fields(&Type::User).iter().any(|(known, _)| *known == name) {
            return Err(format!("`user.{name}` is there already: take the attribute out, or choose another name"));
        }
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Type {
    /// After a fault: fits everything, so that one mistake is told once.
    Faulty,
    /// Known only when it is worked out: a claim.
    Dyn,
    Null,
    Bool,
    Int,
    Double,
    String,
    Timestamp,
    Duration,
    List(Box<Type>),
    /// Strings to values.
    Claims,
    User,
    Request,
    Session,
    Route,
    /// `request.query`.
    Query,
    /// `request.headers`.
    Headers,
}

impl Type {
    pub(super) fn of(attribute: AttributeType) -> Self {
        match attribute {
            AttributeType::String => Self::String,
            AttributeType::Int => Self::Int,
            AttributeType::Double => Self::Double,
            AttributeType::Bool => Self::Bool,
            AttributeType::List => Self::List(Box::new(Self::String)),
        }
    }

    /// Whether a value of the one may stand where the other is wanted.
    pub(super) fn fits(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Faulty | Self::Dyn, _) | (_, Self::Faulty | Self::Dyn) => true,
            (Self::List(left), Self::List(right)) => left.fits(right),
            _ => self == other,
        }
    }

    /// Whether the two can be equal, and be held in one list: numbers of both kinds can.
    pub(super) fn compares_with(&self, other: &Self) -> bool {
        let is_number = |kind: &Self| matches!(kind, Self::Int | Self::Double);
        self.fits(other) || (is_number(self) && is_number(other))
    }

    /// What both are: the one that says more.
    pub(super) fn joined(self, other: Self) -> Self {
        match (self, other) {
            (Self::Faulty | Self::Dyn, other) => other,
            (Self::List(left), Self::List(right)) => Self::List(Box::new(left.joined(*right))),
            (own, _) => own,
        }
    }

    /// Whether it is a value, and no name for a group of them.
    pub(super) fn is_value(&self) -> bool {
        !matches!(
            self,
            Self::Claims | Self::User | Self::Request | Self::Session | Self::Route | Self::Query | Self::Headers
        )
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Faulty | Self::Dyn => "dyn",
            Self::Null => "null",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Double => "double",
            Self::String => "string",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::List(of) => return write!(f, "list({of})"),
            Self::Claims => "user.claims",
            Self::User => "user",
            Self::Request => "request",
            Self::Session => "session",
            Self::Route => "route",
            Self::Query => "request.query",
            Self::Headers => "request.headers",
        })
    }
}

/// A fact that is read by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    UserName,
    UserDisplayName,
    UserEmail,
    UserGroups,
    UserRoles,
    UserLevel,
    UserClaims,
    RequestHost,
    RequestPath,
    RequestMethod,
    RequestScheme,
    RequestIp,
    RequestTime,
    SessionFactor,
    SessionSignedInAt,
    SessionAge,
    RouteName,
}

/// Fields of each name, with their types.
pub(super) fn fields(of: &Type) -> Vec<(&'static str, Field)> {
    let strings = || Type::List(Box::new(Type::String));
    let fact = |fact, kind| Field::Fact(fact, kind);
    match of {
        Type::User => vec![
            ("name", fact(Fact::UserName, Type::String)),
            ("display_name", fact(Fact::UserDisplayName, Type::String)),
            ("email", fact(Fact::UserEmail, Type::String)),
            ("groups", fact(Fact::UserGroups, strings())),
            ("roles", fact(Fact::UserRoles, strings())),
            ("level", fact(Fact::UserLevel, Type::Int)),
            ("claims", fact(Fact::UserClaims, Type::Claims)),
        ],
        Type::Request => vec![
            ("host", fact(Fact::RequestHost, Type::String)),
            ("path", fact(Fact::RequestPath, Type::String)),
            ("method", fact(Fact::RequestMethod, Type::String)),
            ("scheme", fact(Fact::RequestScheme, Type::String)),
            ("ip", fact(Fact::RequestIp, Type::String)),
            ("time", fact(Fact::RequestTime, Type::Timestamp)),
            ("query", Field::Group(Type::Query)),
            ("headers", Field::Group(Type::Headers)),
        ],
        Type::Session => vec![
            ("factor", fact(Fact::SessionFactor, Type::String)),
            ("signed_in_at", fact(Fact::SessionSignedInAt, Type::Timestamp)),
            ("age", fact(Fact::SessionAge, Type::Duration)),
        ],
        Type::Route => vec![("name", fact(Fact::RouteName, Type::String))],
        _ => Vec::new(),
    }
}

pub(super) enum Field {
    Fact(Fact, Type),
    /// No value of its own, but more names.
    Group(Type),
}

/// The names that an expression may begin with.
pub(super) const ROOTS: [(&str, Type); 4] =
    [("user", Type::User), ("request", Type::Request), ("session", Type::Session), ("route", Type::Route)];
