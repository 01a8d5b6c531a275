//! From `roles:`, `bindings:` and `orgs:` as written to who holds what, or to every fault in them at once.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{Bearers, Permission, Role, RoleDraft, Roles, Term};
use crate::core::{
    policy::{DraftFault, Place, PolicyDraft},
    spelling::nearest,
};

/// Names stand in headers, separated by commas, and in `ORG/TEAM`.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.'))
}

impl Roles {
    /// Names that are faulty are known all the same, so that whoever refers to them is not told off for it.
    pub(in super::super) fn compile(draft: &PolicyDraft) -> (Self, Vec<DraftFault>, Vec<DraftFault>) {
        let mut compiler = Compiler { draft, faults: Vec::new(), warnings: Vec::new() };
        let by_name = compiler.role_names();
        let includes = compiler.inheritance(&by_name);
        let permissions = compiler.permissions();
        let (mut orgs, teams) = compiler.orgs();
        let granted = compiler.bindings(&by_name, &mut orgs);
        let mut roles: Vec<Role> = by_name
            .iter()
            .map(|(name, place)| compiler.role(name, *place, &includes, &permissions, &granted))
            .collect();
        roles.sort_by(|left, right| left.name.cmp(&right.name));
        let shared =
            |all: HashMap<Box<str>, Bearers>| all.into_iter().map(|(name, who)| (name, Arc::new(who))).collect();
        let compiled = Self { roles, orgs: shared(orgs), teams: shared(teams) };
        (compiled, compiler.faults, compiler.warnings)
    }
}

struct Compiler<'d> {
    draft: &'d PolicyDraft,
    faults: Vec<DraftFault>,
    warnings: Vec<DraftFault>,
}

/// For each role, by its place in the draft, the roles that it includes: itself and all that it inherits.
type Includes = Vec<HashSet<usize>>;

impl<'d> Compiler<'d> {
    fn fault(&mut self, place: Place, message: impl Into<String>) {
        self.faults.push(DraftFault { place, message: message.into() });
    }

    fn name(&mut self, what: &str, name: &str, place: Place) {
        if !is_name(name) {
            let message = format!("{name:?} cannot be the name of {what}: write letters, digits, _, - and . alone");
            self.fault(place, message);
        }
    }

    fn role_names(&mut self) -> BTreeMap<&'d str, usize> {
        let mut by_name = BTreeMap::new();
        for (role, RoleDraft { name, .. }) in self.draft.roles.iter().enumerate() {
            let place = Place::Role { role, key: None, entry: None };
            self.name("a role", name, place);
            if by_name.insert(name.as_str(), role).is_some() {
                self.fault(place, format!("the role {name:?} is there twice: join the two"));
            }
        }
        by_name
    }

    fn inheritance(&mut self, by_name: &BTreeMap<&'d str, usize>) -> Includes {
        let draft = self.draft;
        let mut parents: Vec<Vec<usize>> = Vec::with_capacity(draft.roles.len());
        for (role, written) in draft.roles.iter().enumerate() {
            let mut known = Vec::new();
            for (entry, name) in written.inherits.iter().enumerate() {
                let place = Place::Role { role, key: Some("inherits"), entry: Some(entry) };
                let Some(parent) = by_name.get(name.as_str()) else {
                    self.fault(place, unknown("role", name, by_name.keys().copied(), "roles"));
                    continue;
                };
                known.push(*parent);
            }
            parents.push(known);
        }
        let mut includes: Includes = Vec::with_capacity(parents.len());
        for start in 0..parents.len() {
            let mut reached = HashSet::from([start]);
            // Each role with the one that led there.
            let mut open = vec![start];
            let mut cycle = false;
            while let Some(role) = open.pop() {
                for parent in parents.get(role).into_iter().flatten() {
                    cycle |= *parent == start;
                    if reached.insert(*parent) {
                        open.push(*parent);
                    }
                }
            }
            if cycle {
                let name = draft.roles.get(start).map_or("", |role| role.name.as_str());
                let place = Place::Role { role: start, key: Some("inherits"), entry: None };
                let round = path_back(start, &parents)
                    .iter()
                    .filter_map(|role| draft.roles.get(*role))
                    .map(|role| role.name.as_str())
                    .collect::<Vec<_>>()
                    .join(" -> ");
                self.fault(place, format!("{name:?} inherits from itself ({round}): take one of them out"));
            }
            self.above(start, &reached);
            includes.push(reached);
        }
        includes
    }

    /// A role that has all of one above it, however far it inherits.
    fn above(&mut self, role: usize, reached: &HashSet<usize>) {
        let Some(RoleDraft { name, level: Some(own), inherits, .. }) = self.draft.roles.get(role) else { return };
        let mut reached: Vec<usize> = reached.iter().copied().collect();
        reached.sort_unstable();
        for other in reached.into_iter().filter_map(|other| self.draft.roles.get(other)) {
            if let Some(level) = other.level.filter(|level| level > own) {
                let message = format!(
                    "{name:?} (level {own}) would have all that {:?} has, which stands above it (level {level}): \
                     turn the two around, or correct a level",
                    other.name
                );
                let entry = inherits.iter().position(|inherited| *inherited == other.name);
                self.fault(Place::Role { role, key: Some("inherits"), entry }, message);
            }
        }
    }

    fn permissions(&mut self) -> Vec<Vec<Permission>> {
        let mut all = Vec::with_capacity(self.draft.roles.len());
        for (role, written) in self.draft.roles.iter().enumerate() {
            let mut own = Vec::with_capacity(written.permissions.len());
            for (entry, text) in written.permissions.iter().enumerate() {
                match Permission::parse(text) {
                    Ok(permission) => own.push(permission),
                    Err(message) => {
                        self.fault(Place::Role { role, key: Some("permissions"), entry: Some(entry) }, message);
                    }
                }
            }
            all.push(own);
        }
        all
    }

    fn orgs(&mut self) -> (HashMap<Box<str>, Bearers>, HashMap<Box<str>, Bearers>) {
        let (mut orgs, mut teams): (HashMap<Box<str>, Bearers>, HashMap<Box<str>, Bearers>) = Default::default();
        let always = Term { org: None, until: None };
        for (org, written) in self.draft.orgs.iter().enumerate() {
            let at = |team, entry| Place::Org { org, team, entry };
            self.name("an organisation", &written.name, at(None, None));
            let mut members = Bearers::default();
            self.bear(&mut members, &written.members, &always, |entry| at(None, Some(entry)));
            for (team, (name, of_team)) in written.teams.iter().enumerate() {
                self.name("a team", name, at(Some(team), None));
                if of_team.is_empty() {
                    let message =
                        format!("the team {name:?} has no members: name some, such as group:{name}, or take it out");
                    self.fault(at(Some(team), None), message);
                }
                let mut bearers = Bearers::default();
                self.bear(&mut bearers, of_team, &always, |entry| at(Some(team), Some(entry)));
                members.join(&bearers);
                teams.insert(Box::from(format!("{}/{name}", written.name)), bearers);
            }
            if orgs.insert(Box::from(written.name.as_str()), members).is_some() {
                self.fault(at(None, None), format!("the organisation {:?} is there twice: join the two", written.name));
            }
        }
        (orgs, teams)
    }

    /// Who holds each role by its own name, by the role's place in the draft. Whoever is bound by name within an organisation belongs
    /// to it.
    fn bindings(
        &mut self,
        by_name: &BTreeMap<&'d str, usize>,
        orgs: &mut HashMap<Box<str>, Bearers>,
    ) -> HashMap<usize, Bearers> {
        let draft = self.draft;
        let mut granted: HashMap<usize, Bearers> = HashMap::new();
        for (binding, written) in draft.bindings.iter().enumerate() {
            let at = |key, entry| Place::Binding { binding, key, entry };
            let term = Term { org: written.org.as_deref().map(Arc::from), until: written.until };
            for (key, list) in [("role", &written.roles), ("subject", &written.subjects)] {
                if list.is_empty() {
                    self.fault(at(key, None), format!("the binding binds nothing: `{key}` is an empty list"));
                }
            }
            let mut bearers = Bearers::default();
            self.bear(&mut bearers, &written.subjects, &term, |entry| at("subject", Some(entry)));
            for (entry, name) in written.roles.iter().enumerate() {
                match by_name.get(name.as_str()) {
                    Some(role) => granted.entry(*role).or_default().join(&bearers),
                    None => {
                        let message = unknown("role", name, by_name.keys().copied(), "roles");
                        self.fault(at("role", Some(entry)), message);
                    }
                }
            }
            if let Some(org) = &written.org {
                match orgs.get_mut(org.as_str()) {
                    Some(members) => members.join(&bearers.named_everywhere()),
                    None => {
                        let names: Vec<String> = orgs.keys().map(ToString::to_string).collect();
                        let message = unknown("organisation", org, names.iter().map(String::as_str), "orgs");
                        self.fault(at("org", None), message);
                    }
                }
            }
        }
        granted
    }

    /// Adds everybody who is named.
    fn bear(&mut self, bearers: &mut Bearers, subjects: &[String], term: &Term, at: impl Fn(usize) -> Place) {
        for (entry, text) in subjects.iter().enumerate() {
            let list = match text.split_once(':') {
                None if text == "everyone" => &mut bearers.everyone,
                Some((_, name)) if name.trim().is_empty() => {
                    self.fault(at(entry), format!("{text:?} names nobody: write a name after the colon"));
                    continue;
                }
                Some((kind, name)) if name.trim() != name || kind.trim() != kind => {
                    self.fault(at(entry), format!("{text:?} has a blank too many: no name begins or ends with one"));
                    continue;
                }
                Some(("user", name)) => bearers.users.entry(Box::from(name)).or_default(),
                Some(("group", name)) => bearers.groups.entry(Box::from(name)).or_default(),
                Some(("client", name)) => bearers.clients.entry(Box::from(name)).or_default(),
                _ => {
                    let message =
                        format!("{text:?} says not who it is: write user:NAME, group:NAME, client:NAME or everyone");
                    self.fault(at(entry), message);
                    continue;
                }
            };
            add(list, term);
        }
    }

    fn role(
        &mut self,
        name: &str,
        place: usize,
        includes: &Includes,
        permissions: &[Vec<Permission>],
        granted: &HashMap<usize, Bearers>,
    ) -> Role {
        let mut bearers = Bearers::default();
        for (other, included) in includes.iter().enumerate() {
            if !included.contains(&place) {
                continue;
            }
            if let Some(bound) = granted.get(&other) {
                bearers.join(bound);
            }
            let by_claim = self.draft.roles.get(other).filter(|_| self.draft.roles_by_claim);
            bearers.claimed.extend(by_claim.map(|role| Box::from(role.name.as_str())));
        }
        let included = includes.get(place).into_iter().flatten();
        let own = included.filter_map(|role| permissions.get(*role)).flatten().cloned().collect();
        if !self.draft.roles_by_claim
            && !granted.contains_key(&place)
            && !includes.iter().enumerate().any(|(other, included)| other != place && included.contains(&place))
        {
            let place = Place::Role { role: place, key: None, entry: None };
            let message = format!("nobody is bound to the role {name:?}: write a binding, or take the role out");
            self.warnings.push(DraftFault { place, message });
        }
        let level = self.draft.roles.get(place).and_then(|role| role.level).unwrap_or_default();
        Role { name: Box::from(name), level, permissions: own, bearers: Arc::new(bearers) }
    }
}

impl Bearers {
    /// The same people, without an organisation. `everyone` within one is each of its members, and makes nobody one.
    fn named_everywhere(&self) -> Self {
        let mut all = Self { everyone: Vec::new(), ..self.clone() };
        let lists = all.users.values_mut().chain(all.groups.values_mut()).chain(all.clients.values_mut());
        for term in lists.flatten() {
            term.org = None;
        }
        all
    }

    pub(super) fn join(&mut self, other: &Self) {
        for term in &other.everyone {
            add(&mut self.everyone, term);
        }
        self.claimed.extend(other.claimed.iter().cloned());
        for (mine, others) in
            [(&mut self.users, &other.users), (&mut self.groups, &other.groups), (&mut self.clients, &other.clients)]
        {
            for (name, terms) in others {
                let list = mine.entry(name.clone()).or_default();
                for term in terms {
                    add(list, term);
                }
            }
        }
    }
}

fn add(list: &mut Vec<Term>, term: &Term) {
    if !list.contains(term) {
        list.push(term.clone());
    }
}

/// The shortest way from a role to itself.
fn path_back(start: usize, parents: &[Vec<usize>]) -> Vec<usize> {
    let mut came_from: HashMap<usize, usize> = HashMap::new();
    let mut open = std::collections::VecDeque::from([start]);
    while let Some(role) = open.pop_front() {
        for parent in parents.get(role).into_iter().flatten() {
            if *parent == start {
                let mut way = vec![start, role];
                while let Some(before) = way.last().and_then(|last| came_from.get(last)) {
                    way.push(*before);
                }
                if way.last() != Some(&start) {
                    way.push(start);
                }
                way.reverse();
                return way;
            }
            if !came_from.contains_key(parent) {
                came_from.insert(*parent, role);
                open.push_back(*parent);
            }
        }
    }
    vec![start]
}

fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>, key: &str) -> String {
    match nearest(name, known) {
        Some(near) => format!("there is no {what} {name:?}: did you mean {near:?}?"),
        None => format!("there is no {what} {name:?}: define it under {key}"),
    }
}
