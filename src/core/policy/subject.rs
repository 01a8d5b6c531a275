//! Who a rule is for: `user:`, `group:`, `client:`, and what `roles` worked out for `role:`, `permission:`, `org:` and `team:`.
//! `compile` parses them, `matcher` asks.

use std::sync::Arc;

use super::{
    matcher::Caller,
    roles::{Bearers, Permission, Roles},
};
use crate::core::{spelling::nearest, time::Timestamp};

#[derive(Debug)]
pub(super) enum Subject {
    User(Box<str>),
    Group(Box<str>),
    Client(Box<str>),
    /// A role, a permission or a membership.
    Held {
        written: Box<str>,
        bearers: Arc<Bearers>,
    },
}

/// Subjects that must all be the caller.
#[derive(Debug)]
pub(super) struct All {
    subjects: Vec<Subject>,
    /// The organisations that are named: what is bound within one of them counts here.
    orgs: Vec<Box<str>>,
}

const KINDS: [&str; 7] = ["user", "group", "client", "role", "permission", "org", "team"];

impl All {
    pub(super) fn are(&self, caller: Caller<'_>, now: Timestamp) -> bool {
        self.subjects.iter().all(|subject| subject.is(caller, &self.orgs, now))
    }

    pub(super) fn written(&self) -> String {
        let all: Vec<String> = self.subjects.iter().map(Subject::written).collect();
        all.join(" and ")
    }

    /// `told` hears of every fault, and of every warning as such.
    pub(super) fn parse(written: &[String], roles: &Roles, mut told: impl FnMut(Told)) -> Self {
        let orgs: Vec<Box<str>> = written.iter().filter_map(|text| text.strip_prefix("org:")).map(Box::from).collect();
        let is_held_within = |text: &&String| text.starts_with("role:") || text.starts_with("permission:");
        if let (2.., Some(held)) = (orgs.len(), written.iter().find(is_held_within)) {
            let message = format!(
                "{held} stands beside two organisations, so that nobody can tell within which it must hold: write a list for each, \
                 as in [[{held}, org:{}], …]",
                orgs.first().map_or("NAME", |org| org)
            );
            told(Told::Fault(message));
        }
        let mut subjects = Vec::with_capacity(written.len());
        for text in written {
            match Subject::parse(text, roles) {
                Ok(subject) => {
                    if let Subject::Held { bearers, .. } = &subject
                        && !bearers.is_bound_anywhere(&orgs)
                    {
                        let message = format!(
                            "nobody can be {text} here: it is bound to nobody, or only within organisations that stand not beside it \
                             (as in [{text}, org:NAME])"
                        );
                        told(Told::Warning(message));
                    }
                    subjects.push(subject);
                }
                Err(message) => told(Told::Fault(message)),
            }
        }
        Self { subjects, orgs }
    }
}

pub(super) enum Told {
    Fault(String),
    Warning(String),
}

impl Subject {
    fn is(&self, caller: Caller<'_>, orgs: &[Box<str>], now: Timestamp) -> bool {
        match self {
            Self::User(name) => caller.client.is_none() && *caller.identity.user == **name,
            Self::Group(name) => caller.identity.groups.iter().any(|group| **group == **name),
            Self::Client(name) => caller.client == Some(&**name),
            Self::Held { bearers, .. } => bearers.hold(caller, orgs, now),
        }
    }

    fn written(&self) -> String {
        match self {
            Self::User(name) => format!("user:{name}"),
            Self::Group(name) => format!("group:{name}"),
            Self::Client(name) => format!("client:{name}"),
            Self::Held { written, .. } => written.to_string(),
        }
    }

    fn parse(written: &str, roles: &Roles) -> Result<Self, String> {
        let written = written.strip_prefix("oauth2:").filter(|rest| rest.starts_with("client:")).unwrap_or(written);
        let Some((kind, name)) = written.split_once(':') else {
            return Err(format!(
                "the subject {written:?} says not what it is: write user:{written} or group:{written}"
            ));
        };
        if name.trim().is_empty() {
            return Err(format!("the subject {written:?} names nobody: write a name after the colon"));
        }
        if name.trim() != name || kind.trim() != kind {
            return Err(format!("the subject {written:?} has a blank too many: no name begins or ends with one"));
        }
        let bearers = match kind {
            "user" => return Ok(Self::User(Box::from(name))),
            "group" => return Ok(Self::Group(Box::from(name))),
            "client" => return Ok(Self::Client(Box::from(name))),
            "role" => {
                roles.bearers_of_role(name).ok_or_else(|| unknown("role", name, roles.role_names(), "under roles"))?
            }
            "permission" => permission(name, roles)?.1,
            "org" => roles
                .bearers_of_org(name)
                .ok_or_else(|| unknown("organisation", name, roles.org_names(), "under orgs"))?,
            "team" => roles.bearers_of_team(name).ok_or_else(|| {
                let hint = "in its organisation, and write ORGANISATION/TEAM";
                unknown("team", name, roles.team_names(), hint)
            })?,
            "cert" => {
                return Err(format!(
                    "subjects of the kind {kind:?} do not exist in this version: write one of {}",
                    KINDS.join(", ")
                ));
            }
            _ => {
                return Err(match nearest(kind, KINDS.into_iter()) {
                    Some(near) => format!("there is no kind of subject {kind:?}: did you mean {near}:{name}?"),
                    None => format!("there is no kind of subject {kind:?}: write one of {}", KINDS.join(", ")),
                });
            }
        };
        Ok(Self::Held { written: Box::from(written), bearers })
    }
}

/// A permission that a rule asks for, and who holds it.
///
/// # Errors
/// It is none, or nobody can hold it.
pub(super) fn permission(name: &str, roles: &Roles) -> Result<(Permission, Arc<Bearers>), String> {
    let wanted = Permission::parse(name)?;
    if wanted.has_wildcard() {
        return Err(format!(
            "the permission {name:?} holds a wildcard, which roles may have and rules may not ask for: name one"
        ));
    }
    let names: Vec<String> = roles.permission_names().collect();
    match roles.bearers_of_permission(&wanted) {
        Some(bearers) => Ok((wanted, bearers)),
        None => Err(unknown("role that grants", name, names.iter().map(String::as_str), "among a role's permissions")),
    }
}

fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>, place: &str) -> String {
    match nearest(name, known) {
        Some(near) => format!("there is no {what} {name:?}: did you mean {near:?}?"),
        None => format!("there is no {what} {name:?}: define it {place}"),
    }
}
