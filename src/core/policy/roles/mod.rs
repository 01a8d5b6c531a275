//! Roles, permissions and organisations: who holds what, worked out when the policies are loaded, so that a request costs a look-up
//! by name and one by group. `subject` asks here for a rule, `RuleSet::roles_of` for a header and an explanation. It must never
//! grant anything that neither a binding names nor a trusted issuer's token, whose mapping then says so (`tokens.trusted_issuers`).

mod compile;
mod permission;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::Arc,
};

pub(super) use self::permission::Permission;
use super::matcher::Caller;
use crate::core::time::Timestamp;

/// One entry of `roles:` as written.
#[derive(Debug, Clone, Default)]
pub struct RoleDraft {
    pub name: String,
    /// Roles whose permissions this one has too, and in whose place it counts.
    pub inherits: Vec<String>,
    /// Its place in a hierarchy, the greater the higher: no role with one inherits from a higher one, however far.
    pub level: Option<u32>,
    /// `read:dashboards`, `manage:*`.
    pub permissions: Vec<String>,
}

/// One entry of `bindings:` as written.
#[derive(Debug, Clone, Default)]
pub struct BindingDraft {
    pub roles: Vec<String>,
    /// `user:NAME`, `group:NAME`, `client:NAME` or `everyone`; any of them.
    pub subjects: Vec<String>,
    /// The role counts only where a rule names this organisation too; `everyone` is each of its members.
    pub org: Option<String>,
    /// The first moment at which it does not hold any more.
    pub until: Option<Timestamp>,
}

/// One entry of `orgs:` as written.
#[derive(Debug, Clone, Default)]
pub struct OrgDraft {
    pub name: String,
    /// As [`BindingDraft::subjects`].
    pub members: Vec<String>,
    /// Name and members; whoever is in a team is in its organisation.
    pub teams: Vec<(String, Vec<String>)>,
}

/// All roles and organisations, compiled.
#[derive(Debug, Default)]
pub(super) struct Roles {
    /// In the order of their names.
    roles: Vec<Role>,
    orgs: HashMap<Box<str>, Arc<Bearers>>,
    /// By `ORG/TEAM`.
    teams: HashMap<Box<str>, Arc<Bearers>>,
}

#[derive(Debug)]
struct Role {
    name: Box<str>,
    level: u32,
    /// Its own and those that it inherits.
    permissions: Vec<Permission>,
    bearers: Arc<Bearers>,
}

/// Who holds one thing: a role (by whatever role that includes it), a permission, a membership.
#[derive(Debug, Default, Clone)]
pub(super) struct Bearers {
    everyone: Vec<Term>,
    users: HashMap<Box<str>, Vec<Term>>,
    groups: HashMap<Box<str>, Vec<Term>>,
    clients: HashMap<Box<str>, Vec<Term>>,
    /// Roles whose holders by a token's claim hold it; none where no issuer gives roles.
    claimed: HashSet<Box<str>>,
}

/// Of what a token's claim gives: everywhere, for as long as the token holds.
static BY_CLAIM: Term = Term { org: None, until: None };

/// On what terms.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Term {
    org: Option<Arc<str>>,
    until: Option<Timestamp>,
}

impl Bearers {
    /// `orgs`: those that the rule asks about; what is bound within an organisation counts only there.
    pub(super) fn hold(&self, caller: Caller<'_>, orgs: &[Box<str>], now: Timestamp) -> bool {
        self.terms(caller).any(|term| {
            term.is_in_force(now) && term.org.as_ref().is_none_or(|org| orgs.iter().any(|asked| **asked == **org))
        })
    }

    /// Whether anybody may hold it without an organisation.
    pub(super) fn is_bound_anywhere(&self, orgs: &[Box<str>]) -> bool {
        if !self.claimed.is_empty() {
            return true;
        }
        let lists = self.users.values().chain(self.groups.values()).chain(self.clients.values());
        lists
            .flatten()
            .chain(&self.everyone)
            .any(|term| term.org.as_ref().is_none_or(|org| orgs.iter().any(|asked| **asked == **org)))
    }

    fn terms<'b>(&'b self, caller: Caller<'b>) -> impl Iterator<Item = &'b Term> {
        // A client stands for no user, whatever it is called.
        let (everyone, named) = match caller.client {
            Some(client) => (None, self.clients.get(client)),
            None => (Some(&self.everyone), self.users.get(&*caller.identity.user)),
        };
        let groups = caller.identity.groups.iter().filter_map(|group| self.groups.get(group.as_str()));
        let claimed = caller.identity.claimed_roles().iter().filter(|role| self.claimed.contains(role.as_str()));
        everyone.into_iter().chain(named).chain(groups).flatten().chain(claimed.map(|_| &BY_CLAIM))
    }
}

impl Term {
    fn is_in_force(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// A role that somebody holds: `editor`, or `acme/editor` where it holds within an organisation alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldRole<'p> {
    pub role: &'p str,
    pub org: Option<&'p str>,
}

impl fmt::Display for HeldRole<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.org {
            Some(org) => write!(f, "{org}/{}", self.role),
            None => f.write_str(self.role),
        }
    }
}

impl Roles {
    fn role(&self, name: &str) -> Option<&Role> {
        self.roles.binary_search_by(|role| (*role.name).cmp(name)).ok().and_then(|at| self.roles.get(at))
    }

    /// Who holds the role, or one that includes it.
    pub(super) fn bearers_of_role(&self, name: &str) -> Option<Arc<Bearers>> {
        self.role(name).map(|role| Arc::clone(&role.bearers))
    }

    pub(super) fn role_names(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().map(|role| &*role.name)
    }

    pub(super) fn bearers_of_org(&self, name: &str) -> Option<Arc<Bearers>> {
        self.orgs.get(name).map(Arc::clone)
    }

    pub(super) fn org_names(&self) -> impl Iterator<Item = &str> {
        self.orgs.keys().map(|name| &**name)
    }

    pub(super) fn bearers_of_team(&self, name: &str) -> Option<Arc<Bearers>> {
        self.teams.get(name).map(Arc::clone)
    }

    pub(super) fn team_names(&self) -> impl Iterator<Item = &str> {
        self.teams.keys().map(|name| &**name)
    }

    /// `None`: no role grants it, so that nobody could ever hold it.
    pub(super) fn bearers_of_permission(&self, wanted: &Permission) -> Option<Arc<Bearers>> {
        let granting = self.roles.iter().filter(|role| role.permissions.iter().any(|held| held.grants(wanted)));
        granting.map(|role| Arc::clone(&role.bearers)).reduce(|left, right| {
            let mut both = Bearers::clone(&left);
            both.join(&right);
            Arc::new(both)
        })
    }

    /// Permissions that some role grants by name, for "did you mean".
    pub(super) fn permission_names(&self) -> impl Iterator<Item = String> {
        self.roles.iter().flat_map(|role| role.permissions.iter().map(ToString::to_string))
    }

    /// Roles in force, first those that hold everywhere, each with those it includes.
    pub(super) fn of<'p>(&'p self, caller: Caller<'p>, now: Timestamp) -> Vec<HeldRole<'p>> {
        let mut held: Vec<HeldRole<'p>> = Vec::new();
        for Role { name, bearers, .. } in &self.roles {
            // Of everyone who is bound within an organisation, only its members are.
            let belongs = |term: &&Term| {
                term.org.as_ref().is_none_or(|org| self.orgs.get(&**org).is_some_and(|all| all.hold(caller, &[], now)))
            };
            for term in bearers.terms(caller).filter(|term| term.is_in_force(now)).filter(belongs) {
                let role = HeldRole { role: name, org: term.org.as_deref() };
                if !held.contains(&role) {
                    held.push(role);
                }
            }
        }
        // What holds everywhere need not be said again for an organisation.
        let everywhere: Vec<&str> = held.iter().filter(|held| held.org.is_none()).map(|held| held.role).collect();
        held.retain(|held| held.org.is_none() || !everywhere.contains(&held.role));
        held.sort_by_key(|held| (held.org, held.role));
        held
    }

    /// The highest level among the roles that hold everywhere; 0 without one.
    pub(super) fn level_of(&self, caller: Caller<'_>, now: Timestamp) -> u32 {
        let held = self.roles.iter().filter(|role| role.bearers.hold(caller, &[], now));
        held.map(|role| role.level).max().unwrap_or_default()
    }

    /// Whether a role that holds everywhere grants it.
    pub(super) fn can(&self, caller: Caller<'_>, wanted: &Permission, now: Timestamp) -> bool {
        self.roles
            .iter()
            .any(|role| role.permissions.iter().any(|held| held.grants(wanted)) && role.bearers.hold(caller, &[], now))
    }
}
