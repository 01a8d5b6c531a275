//! `roles:`, `bindings:` and `orgs:` of a policies file: their form, and what each becomes in the draft. Called by `policy_file`; what they
//! mean is `core::policy`'s to say.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    error::{Report, Trail},
    policy_file::OneOrMany,
    quantity,
};
use crate::core::policy::{BindingDraft, OrgDraft, Place, PolicyDraft, RoleDraft};

/// What somebody may do who holds the role.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRole {
    /// Roles whose permissions this one has too, and in whose place it counts.
    #[schemars(example = &"viewer")]
    inherits: Option<OneOrMany>,
    /// Its place in the hierarchy, the greater the higher (none counts as 0); no role that has one inherits from a higher one, however far.
    #[schemars(example = &60)]
    level: Option<u32>,
    /// `ACTION:RESOURCE`; `*` for any.
    #[schemars(example = &"read:dashboards")]
    permissions: Option<OneOrMany>,
}

/// Who holds roles.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBinding {
    /// The roles.
    #[schemars(example = &"admin")]
    role: OneOrMany,
    /// `user:NAME`, `group:NAME`, `client:NAME` or `everyone`; a list is OR.
    #[schemars(example = &"group:admins")]
    subject: OneOrMany,
    /// The roles count only where a rule names this organisation too.
    #[schemars(example = &"acme")]
    org: Option<String>,
    /// A date, the whole of which still counts (UTC), or a moment such as `2027-06-30T18:00:00+02:00`.
    #[schemars(example = &"2027-06-30")]
    until: Option<String>,
}

/// Who belongs to an organisation.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOrg {
    /// As `subject` of a binding.
    #[schemars(example = &"group:acme")]
    members: Option<OneOrMany>,
    /// Its teams, by name, and who is in each.
    #[serde(default)]
    teams: BTreeMap<String, OneOrMany>,
}

/// From which file each part of the draft came: the number of the report, and the trail in it.
#[derive(Default)]
pub(super) struct Origins {
    roles: Vec<(usize, Trail)>,
    bindings: Vec<(usize, Trail)>,
    orgs: Vec<(usize, Trail)>,
    /// Names of each organisation's teams.
    teams: Vec<Vec<String>>,
}

pub(super) struct Raw {
    pub(super) roles: BTreeMap<String, RawRole>,
    pub(super) bindings: Vec<RawBinding>,
    pub(super) orgs: BTreeMap<String, RawOrg>,
}

impl Origins {
    /// `index`: the number of `report` among all.
    pub(super) fn add(&mut self, draft: &mut PolicyDraft, report: &mut Report, index: usize, raw: Raw) {
        let many = |list: Option<OneOrMany>| list.map(Vec::from).unwrap_or_default();
        for (name, RawRole { inherits, level, permissions }) in raw.roles {
            self.roles.push((index, Trail::root().key("roles").key(&name)));
            draft.roles.push(RoleDraft { name, inherits: many(inherits), level, permissions: many(permissions) });
        }
        for (number, RawBinding { role, subject, org, until }) in raw.bindings.into_iter().enumerate() {
            let at = Trail::root().key("bindings").item(number);
            let until = until.as_deref().and_then(|text| report.take(&at.key("until"), quantity::end(text)));
            self.bindings.push((index, at));
            draft.bindings.push(BindingDraft { roles: role.into(), subjects: subject.into(), org, until });
        }
        for (name, RawOrg { members, teams }) in raw.orgs {
            self.orgs.push((index, Trail::root().key("orgs").key(&name)));
            self.teams.push(teams.keys().cloned().collect());
            let teams = teams.into_iter().map(|(team, members)| (team, members.into())).collect();
            draft.orgs.push(OrgDraft { name, members: many(members), teams });
        }
    }

    /// The number of the report and the trail of a place; `None` for a place that is none of ours.
    pub(super) fn of(&self, place: Place) -> Option<(usize, Trail)> {
        let (origin, trail, entry) = match place {
            Place::Rule { .. } | Place::Network { .. } | Place::Limit { .. } => return None,
            Place::Role { role, key, entry } => {
                let origin = self.roles.get(role)?;
                (origin.0, key.map_or_else(|| origin.1.clone(), |key| origin.1.key(key)), entry)
            }
            Place::Binding { binding, key, entry } => {
                let origin = self.bindings.get(binding)?;
                (origin.0, origin.1.key(key), entry)
            }
            Place::Org { org, team, entry } => {
                let origin = self.orgs.get(org)?;
                let team = team.and_then(|team| self.teams.get(org)?.get(team));
                let trail = match (team, entry) {
                    (Some(team), _) => origin.1.key("teams").key(team),
                    (None, Some(_)) => origin.1.key("members"),
                    (None, None) => origin.1.clone(),
                };
                (origin.0, trail, entry)
            }
        };
        Some((origin, entry.map_or(trail.clone(), |entry| trail.item(entry))))
    }
}
