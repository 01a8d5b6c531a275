//! `policies/*.yaml`: reads the rules in file-name order, in Postern's spelling and in Authelia's, and has them compiled.
//! Called by `config::load` and `load_policies`. What a rule means is `core::policy`'s to say.

mod authelia;
mod limits;
mod raw;

use std::path::{Path, PathBuf};

use serde::Deserialize as _;

use super::{
    Fault,
    error::{Report, Trail},
    policy_roles::{self, Origins},
    quantity,
    shape::Shape,
    source::{self, Node},
};
use crate::core::policy::{AttributeType, DraftFault, Place, PolicyDraft, RuleDraft, RuleSet};

use authelia::Again;
pub(super) use raw::OneOrMany;
use raw::RawPolicies;

/// Keys that the contract names and that come with a later version.
const LATER: &[&str] = &[];

/// The compiled rules and what else came to light.
pub(super) struct Policies {
    pub(super) rules: Option<RuleSet>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    pub(super) files: Vec<PathBuf>,
}

/// Reads a folder.
///
/// # Errors
/// The folder cannot be read: the caller knows which setting named it.
pub(super) fn read(folder: &Path, roles_by_claim: bool) -> Result<Policies, String> {
    let files = policy_files(folder).map_err(|error| {
        format!("the policies folder `{}` cannot be read ({error}); create it, or correct the path", folder.display())
    })?;
    let mut reading = Reading::default();
    reading.draft.roles_by_claim = roles_by_claim;
    for file in &files.policies {
        reading.file(file);
    }
    let mut policies = reading.compile();
    if files.policies.is_empty() {
        let message = "no policy file (*.yaml) in this folder: every request is denied".to_owned();
        policies.warnings.push(source::whole_file(folder, message));
    }
    policies.files = files.policies;
    Ok(policies)
}

/// Reads one text.
pub(super) fn of_text(file: &Path, text: &str) -> Policies {
    let mut reading = Reading::default();
    reading.parsed(file, source::parse(file, text));
    reading.compile()
}

pub(super) fn shape() -> Shape {
    Shape {
        schema: schemars::schema_for!(RawPolicies).to_value(),
        later: LATER,
        whole_items_of: &["rules", "bindings", "limits"],
    }
}

pub(super) struct PolicyFiles {
    policies: Vec<PathBuf>,
    pub(super) cases: Vec<PathBuf>,
}

/// `*.yaml` and `*.yml` in file-name order.
pub(super) fn policy_files(folder: &Path) -> std::io::Result<PolicyFiles> {
    let mut files = PolicyFiles { policies: Vec::new(), cases: Vec::new() };
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_yaml = name.ends_with(".yaml") || name.ends_with(".yml");
        // Names with a dot in front are an editor's or Kubernetes' own (`..data`).
        if !is_yaml || name.starts_with('.') || path.is_dir() {
            continue;
        }
        if name.ends_with(".cases.yaml") || name.ends_with(".cases.yml") {
            files.cases.push(path);
        } else {
            files.policies.push(path);
        }
    }
    files.policies.sort();
    files.cases.sort();
    Ok(files)
}

/// All files so far, and from which file each part of the draft came.
#[derive(Default)]
struct Reading {
    draft: PolicyDraft,
    reports: Vec<Report>,
    unreadable: Vec<Fault>,
    /// Report and trail of every rule of the draft.
    rules: Vec<(usize, Trail)>,
    /// As `rules`, of every network.
    networks: Vec<(usize, Trail)>,
    /// As `rules`, of every limit.
    limits: Vec<(usize, Trail)>,
    roles: Origins,
    default_in: Option<PathBuf>,
    /// Where `limit_headers` stands.
    headers_in: Option<PathBuf>,
    /// A network, a role or an organisation was taken out for a fault of form: what names it cannot be judged.
    names_pruned: bool,
}

impl Reading {
    fn file(&mut self, file: &Path) {
        self.parsed(file, source::read(file).and_then(|text| source::parse(file, &text)));
    }

    fn parsed(&mut self, file: &Path, parsed: Result<Node, Fault>) {
        let (mut root, again) = match parsed {
            Ok(root) => authelia::authelia_to_ours(root),
            Err(fault) => {
                self.names_pruned = true;
                self.unreadable.push(fault);
                return;
            }
        };
        let mut checked = shape().check(file, &mut root);
        for Again { name, place } in again {
            let message = format!("the network {name:?} stands here a second time; keep one of the two");
            let fault = Fault { file: file.to_path_buf(), line: place.line, column: place.column, message };
            checked.faults.push(fault);
            self.names_pruned = true;
        }
        let raw = RawPolicies::deserialize(&mut root);
        let mut report = Report::new(file, root, checked);
        self.names_pruned |= ["networks", "roles", "orgs", "attributes"].into_iter().any(|key| report.is_pruned(key));
        match raw {
            Ok(raw) => self.add(&mut report, raw),
            Err(error) => report.fault(&Trail::root(), error.to_string()),
        }
        self.reports.push(report);
    }

    fn add(&mut self, report: &mut Report, raw: RawPolicies) {
        let index = self.reports.len();
        if let Some(default) = raw.default {
            match &self.default_in {
                Some(other) => {
                    let message = format!("`default` stands in {} too; keep one", other.display());
                    report.fault_of_key(&Trail::root().key("default"), message);
                }
                None => {
                    self.default_in = Some(report.file.clone());
                    self.draft.default = Some(default.into());
                }
            }
        }
        for (name, addresses) in raw.networks {
            self.networks.push((index, Trail::root().key("networks").key(&name)));
            self.draft.networks.push((name, addresses.into()));
        }
        for (name, kind) in raw.attributes {
            self.attribute(report, name, kind.into());
        }
        let (roles, bindings, orgs) = (raw.roles, raw.bindings, raw.orgs);
        self.roles.add(&mut self.draft, report, index, policy_roles::Raw { roles, bindings, orgs });
        self.add_limits(report, raw.limits, raw.limit_headers);
        let rules = Trail::root().key("rules");
        for (number, rule) in raw.rules.into_iter().enumerate() {
            let at = rules.item(number);
            rule.refuse_empty_lists(report, &at);
            let max_auth_age = rule.max_auth_age.as_deref();
            let max_auth_age =
                max_auth_age.and_then(|text| report.take(&at.key("max_auth_age"), quantity::duration(text)));
            self.rules.push((index, at));
            self.draft.rules.push(RuleDraft { max_auth_age, ..rule.into() });
        }
    }

    fn attribute(&mut self, report: &mut Report, name: String, kind: AttributeType) {
        let at = Trail::root().key("attributes").key(&name);
        match self.draft.attributes.iter().find(|(known, _)| *known == name) {
            Some((_, known)) if *known == kind => {}
            Some(_) => report.fault_of_key(&at, format!("the attribute {name:?} has another type in another file")),
            None => match AttributeType::check_name(&name) {
                Ok(()) => self.draft.attributes.push((name, kind)),
                Err(message) => report.fault_of_key(&at, message),
            },
        }
    }

    fn compile(mut self) -> Policies {
        let mut rules = None;
        match RuleSet::compile(&self.draft) {
            Ok((compiled, warnings)) => {
                rules = Some(compiled);
                for warning in warnings {
                    self.tell(&warning, Report::warn);
                }
            }
            // Without a name that could not be read, what refers to it would be reported for nothing.
            Err(_) if self.names_pruned => {}
            Err(faults) => {
                for fault in faults {
                    self.tell(&fault, Report::fault);
                }
            }
        }
        let mut policies = Policies { rules, faults: self.unreadable, warnings: Vec::new(), files: Vec::new() };
        for report in self.reports {
            policies.faults.extend(report.faults);
            policies.warnings.extend(report.warnings);
        }
        policies
    }

    fn tell(&mut self, fault: &DraftFault, how: fn(&mut Report, &Trail, String)) {
        let found = match fault.place {
            Place::Rule { rule, key, entry } => {
                self.rules.get(rule).map(|(report, base)| (*report, with_entry(base.key(key), entry)))
            }
            Place::Network { network, entry } => {
                self.networks.get(network).map(|(report, base)| (*report, with_entry(base.clone(), entry)))
            }
            Place::Limit { limit, part } => self.limit_trail(limit, part),
            place => self.roles.of(place),
        };
        match found.and_then(|(report, trail)| Some((self.reports.get_mut(report)?, trail))) {
            Some((report, trail)) => how(report, &trail, fault.message.clone()),
            None => self.unreadable.push(source::whole_file(Path::new("policies"), fault.message.clone())),
        }
    }
}

/// Where one text stands for a list of one, the trail ends at the text itself.
fn with_entry(trail: Trail, entry: Option<usize>) -> Trail {
    match entry {
        Some(entry) => trail.item(entry),
        None => trail,
    }
}
