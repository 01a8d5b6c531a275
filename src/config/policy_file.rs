//! `policies/*.yaml`: reads the rules in file-name order, in Postern's spelling and in Authelia's, and has them compiled.
//! Called by `config::load` and `load_policies`. What a rule means is `core::policy`'s to say.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Fault,
    error::{Report, Trail},
    policy_roles::{self, Origins, RawBinding, RawOrg, RawRole},
    quantity,
    shape::Shape,
    source::{self, Entry, Kind, Node},
};
use crate::core::policy::{
    AttributeType, DraftFault, Level, Mode, Operator, Place, PolicyDraft, QueryDraft, RuleDraft, RuleSet,
};

/// Keys that the contract names and that come with a later version.
const LATER: &[&str] = &["limits"];

/// Rules of Postern: read from top to bottom, the first that matches decides.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Policies of Postern")]
pub(super) struct RawPolicies {
    /// What holds where no rule matches (default `deny`).
    default: Option<RawLevel>,
    /// Addresses and networks by name.
    networks: BTreeMap<String, OneOrMany>,
    /// What people may do, by the name of a role.
    roles: BTreeMap<String, RawRole>,
    /// Who holds which role.
    bindings: Vec<RawBinding>,
    /// Organisations and their teams, by name.
    orgs: BTreeMap<String, RawOrg>,
    /// Attributes of users that `when` may name, with their types.
    attributes: BTreeMap<String, RawAttributeType>,
    /// The rules, from top to bottom.
    rules: Vec<RawRule>,
}

/// One rule: everything it names must fit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawRule {
    /// What logs, metrics and explain show (default: `rule N`).
    #[schemars(example = &"public health")]
    name: Option<String>,
    /// Hosts: a name, `*.name`, `{user}.name`, `{group}.name`.
    #[schemars(example = &"*.example.com")]
    domain: Option<OneOrMany>,
    /// Hosts as anchored regular expressions.
    #[schemars(example = &"^app-[0-9]+\\.example\\.com$")]
    domain_regex: Option<OneOrMany>,
    /// What the rule asks for.
    #[schemars(example = &"one_factor")]
    policy: RawLevel,
    /// Globs over the canonical path.
    #[schemars(example = &"/public/**")]
    path: Option<OneOrMany>,
    /// Regular expressions over path and query; they begin with `^`.
    #[schemars(example = &"^/api/.*$")]
    resources: Option<OneOrMany>,
    /// Methods of the request.
    #[schemars(example = ["GET", "HEAD"])]
    methods: Option<OneOrMany>,
    /// Names of `networks`, addresses and CIDRs.
    #[schemars(example = ["office", "192.0.2.7/32"])]
    networks: Option<OneOrMany>,
    /// An expression in CEL over `user`, `request`, `session` and `route`, which must be true.
    #[schemars(example = &"user.claims.tier in [\"premium\"]")]
    when: Option<String>,
    /// An older sign-in has to be done again.
    #[schemars(example = &"15m")]
    max_auth_age: Option<String>,
    /// `report`: the rule is decided and recorded, never decides, and the rules below go on (default `enforce`).
    mode: Option<RawMode>,
    /// Parameters of the query: a list is OR, a list within it AND.
    query: Option<Vec<Conditions>>,
    /// Who: `user:`, `group:`, `role:`, `permission:`, `client:`, `org:` or `team:` and a name; a list is OR, a list within it AND.
    #[schemars(example = &"group:admins")]
    subject: Option<Subjects>,
}

impl RawRule {
    /// A list without an entry could be read as "nobody" and as "no condition": the second would open.
    fn refuse_empty_lists(&self, report: &mut Report, at: &Trail) {
        let lists = [
            ("domain", &self.domain),
            ("domain_regex", &self.domain_regex),
            ("path", &self.path),
            ("resources", &self.resources),
            ("methods", &self.methods),
            ("networks", &self.networks),
        ];
        for (key, list) in lists {
            if list.as_ref().is_some_and(OneOrMany::is_empty) {
                report.fault(&at.key(key), format!("`{key}` is an empty list; write an entry, or take the key out"));
            }
        }
        // An empty list within it is the compiler's to refuse.
        if self.query.as_ref().is_some_and(Vec::is_empty) {
            report.fault(
                &at.key("query"),
                "`query` is an empty list; write a condition such as `{ key: debug, operator: present }`, or take the key out",
            );
        }
        if let Some(Subjects::Many(groups)) = &self.subject
            && (groups.is_empty() || groups.iter().any(OneOrMany::is_empty))
        {
            report.fault(
                &at.key("subject"),
                "`subject` holds an empty list; write an entry such as `group:admins`, or take it out",
            );
        }
    }
}

impl OneOrMany {
    fn is_empty(&self) -> bool {
        matches!(self, Self::Many(texts) if texts.is_empty())
    }
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum RawLevel {
    Bypass,
    OneFactor,
    TwoFactor,
    Deny,
}

/// The type of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawAttributeType {
    String,
    /// A whole number.
    Int,
    Double,
    Bool,
    /// A list of strings.
    List,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum RawMode {
    Enforce,
    Report,
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Subjects {
    One(String),
    Many(Vec<OneOrMany>),
}

#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Conditions {
    One(RawCondition),
    All(Vec<RawCondition>),
}

/// One parameter; of several with one name the first counts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawCondition {
    /// Name of the parameter.
    #[schemars(example = &"debug")]
    key: String,
    /// How it is held against the value (default: `equal` with a value, else `present`).
    operator: Option<RawOperator>,
    /// What it is held against; a regular expression that begins with `^` for the two of patterns.
    #[schemars(example = &"v2")]
    value: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum RawOperator {
    Equal,
    #[serde(rename = "not equal")]
    NotEqual,
    Present,
    Absent,
    Pattern,
    #[serde(rename = "not pattern")]
    NotPattern,
}

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
pub(super) fn read(folder: &Path) -> Result<Policies, String> {
    let files = policy_files(folder).map_err(|error| {
        format!("the policies folder `{}` cannot be read ({error}); create it, or correct the path", folder.display())
    })?;
    let mut reading = Reading::default();
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
        whole_items_of: &["rules", "bindings"],
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
    roles: Origins,
    default_in: Option<PathBuf>,
    /// A network, a role or an organisation was taken out for a fault of form: what names it cannot be judged.
    names_pruned: bool,
}

impl Reading {
    fn file(&mut self, file: &Path) {
        self.parsed(file, source::read(file).and_then(|text| source::parse(file, &text)));
    }

    fn parsed(&mut self, file: &Path, parsed: Result<Node, Fault>) {
        let mut root = match parsed {
            Ok(root) => authelia_to_ours(root),
            Err(fault) => {
                self.names_pruned = true;
                self.unreadable.push(fault);
                return;
            }
        };
        let checked = shape().check(file, &mut root);
        let raw = RawPolicies::deserialize(&root);
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
        let RawPolicies { roles, bindings, orgs, .. } = raw;
        self.roles.add(&mut self.draft, report, index, policy_roles::Raw { roles, bindings, orgs });
        for (number, rule) in raw.rules.into_iter().enumerate() {
            let at = Trail::root().key("rules").item(number);
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

/// Rewrites Authelia's spellings in the tree, so that one shape describes both and every place stays.
fn authelia_to_ours(mut root: Node) -> Node {
    if let Kind::Map(entries) = &mut root.kind
        && let [only] = entries.as_mut_slice()
        && only.key == "access_control"
    {
        root = only.value.clone();
    }
    if let Kind::Map(entries) = &mut root.kind {
        let has_default = entries.iter().any(|entry| entry.key == "default");
        for entry in entries {
            match (entry.key.as_str(), &mut entry.value.kind) {
                ("default_policy", _) if !has_default => entry.key = "default".to_owned(),
                ("networks", kind) => networks_by_name(kind),
                _ => {}
            }
        }
    }
    root
}

/// `[{ name: office, networks: [...] }]` as `{ office: [...] }`. Anything else is left for the shape to judge.
fn networks_by_name(kind: &mut Kind) {
    let Kind::Seq(items) = kind else { return };
    let named: Option<Vec<Entry>> = items.iter().map(named_network).collect();
    if let Some(entries) = named {
        *kind = Kind::Map(entries);
    }
}

fn named_network(item: &Node) -> Option<Entry> {
    let Kind::Map(entries) = &item.kind else { return None };
    let [first, second] = entries.as_slice() else { return None };
    let (name, networks) = if first.key == "name" { (first, second) } else { (second, first) };
    match &name.value.kind {
        Kind::Str(text) if name.key == "name" && networks.key == "networks" => {
            Some(Entry { key: text.clone(), place: name.value.place, value: networks.value.clone() })
        }
        _ => None,
    }
}

impl From<RawAttributeType> for AttributeType {
    fn from(raw: RawAttributeType) -> Self {
        match raw {
            RawAttributeType::String => Self::String,
            RawAttributeType::Int => Self::Int,
            RawAttributeType::Double => Self::Double,
            RawAttributeType::Bool => Self::Bool,
            RawAttributeType::List => Self::List,
        }
    }
}

impl From<RawLevel> for Level {
    fn from(raw: RawLevel) -> Self {
        match raw {
            RawLevel::Bypass => Self::Bypass,
            RawLevel::OneFactor => Self::OneFactor,
            RawLevel::TwoFactor => Self::TwoFactor,
            RawLevel::Deny => Self::Deny,
        }
    }
}

impl From<OneOrMany> for Vec<String> {
    fn from(raw: OneOrMany) -> Self {
        match raw {
            OneOrMany::One(text) => vec![text],
            OneOrMany::Many(texts) => texts,
        }
    }
}

impl From<Subjects> for Vec<Vec<String>> {
    fn from(raw: Subjects) -> Self {
        let spelt = |all: Vec<String>| all.into_iter().map(subject_spelling).collect();
        match raw {
            Subjects::One(text) => vec![spelt(vec![text])],
            Subjects::Many(groups) => groups.into_iter().map(|group| spelt(group.into())).collect(),
        }
    }
}

/// Authelia writes `oauth2:client:` for `client:`.
fn subject_spelling(text: String) -> String {
    match text.strip_prefix("oauth2:") {
        Some(client) if client.starts_with("client:") => client.to_owned(),
        _ => text,
    }
}

impl From<Conditions> for Vec<QueryDraft> {
    fn from(raw: Conditions) -> Self {
        match raw {
            Conditions::One(one) => vec![one.into()],
            Conditions::All(all) => all.into_iter().map(QueryDraft::from).collect(),
        }
    }
}

impl From<RawCondition> for QueryDraft {
    fn from(raw: RawCondition) -> Self {
        let RawCondition { key, operator, value } = raw;
        let operator = operator.map(|operator| match operator {
            RawOperator::Equal => Operator::Equal,
            RawOperator::NotEqual => Operator::NotEqual,
            RawOperator::Present => Operator::Present,
            RawOperator::Absent => Operator::Absent,
            RawOperator::Pattern => Operator::Pattern,
            RawOperator::NotPattern => Operator::NotPattern,
        });
        Self { key, operator, value }
    }
}

impl From<RawRule> for RuleDraft {
    fn from(raw: RawRule) -> Self {
        let many = |field: Option<OneOrMany>| field.map(Vec::from).unwrap_or_default();
        Self {
            name: raw.name,
            domain: many(raw.domain),
            domain_regex: many(raw.domain_regex),
            policy: Some(raw.policy.into()),
            path: many(raw.path),
            resources: many(raw.resources),
            methods: many(raw.methods),
            networks: many(raw.networks),
            subject: raw.subject.map(Vec::from).unwrap_or_default(),
            // Read where its place is known.
            max_auth_age: None,
            mode: if raw.mode == Some(RawMode::Report) { Mode::Report } else { Mode::Enforce },
            when: raw.when,
            query: raw.query.unwrap_or_default().into_iter().map(Vec::from).collect(),
        }
    }
}
