//! What a policies file may hold, as written: the JSON Schema is made of these types too. Called by `policy_file`, which takes what they
//! hold into a draft.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use schemars::JsonSchema;
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use super::super::{
    error::{Report, Trail},
    policy_roles::{RawBinding, RawOrg, RawRole},
};
use super::limits::{RawHeaders, RawLimit};
use crate::core::policy::{AttributeType, Level, Mode, Operator, QueryDraft, RuleDraft};

/// Rules of Postern: read from top to bottom, the first that matches decides.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Policies of Postern")]
pub(super) struct RawPolicies {
    /// What holds where no rule matches (default `deny`).
    pub(super) default: Option<RawLevel>,
    /// Addresses and networks by name.
    pub(super) networks: BTreeMap<String, OneOrMany>,
    /// What people may do, by the name of a role.
    pub(super) roles: BTreeMap<String, RawRole>,
    /// Who holds which role.
    pub(super) bindings: Vec<RawBinding>,
    /// Organisations and their teams, by name.
    pub(super) orgs: BTreeMap<String, RawOrg>,
    /// Attributes of users that `when` may name, with their types.
    pub(super) attributes: BTreeMap<String, RawAttributeType>,
    /// The rules, from top to bottom.
    pub(super) rules: Vec<RawRule>,
    /// How often requests may come. All that fit a request hold at once.
    pub(super) limits: Vec<RawLimit>,
    /// Which headers tell clients of limits (default: all three).
    #[schemars(example = ["ratelimit", "x_ratelimit"])]
    pub(super) limit_headers: Option<Vec<RawHeaders>>,
}

/// One rule: everything it names must fit.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRule {
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
    pub(super) max_auth_age: Option<String>,
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
    pub(super) fn refuse_empty_lists(&self, report: &mut Report, at: &Trail) {
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
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Many(texts) if texts.is_empty())
    }
}

#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawLevel {
    Bypass,
    OneFactor,
    TwoFactor,
    Deny,
}

/// The type of an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum RawAttributeType {
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
pub(super) enum RawMode {
    Enforce,
    Report,
}

#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
pub(in crate::config) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, JsonSchema)]
#[schemars(untagged)]
enum Subjects {
    One(String),
    Many(Vec<OneOrMany>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrList { text: Self::One, list: Self::Many, item: PhantomData })
    }
}

impl<'de> Deserialize<'de> for Subjects {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOrList { text: Self::One, list: Self::Many, item: PhantomData })
    }
}

/// serde's own way for such types copies a value before it looks at it: ten thousand rules hold many.
struct TextOrList<Text, List, Item> {
    text: Text,
    list: List,
    item: PhantomData<Item>,
}

impl<'de, T, Text, List, Item> Visitor<'de> for TextOrList<Text, List, Item>
where
    Text: FnOnce(String) -> T,
    List: FnOnce(Vec<Item>) -> T,
    Item: Deserialize<'de>,
{
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a list")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok((self.text)(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<T, E> {
        Ok((self.text)(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<T, A::Error> {
        let mut items = Vec::with_capacity(access.size_hint().unwrap_or_default());
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok((self.list)(items))
    }
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

impl From<RawMode> for Mode {
    fn from(raw: RawMode) -> Self {
        match raw {
            RawMode::Enforce => Self::Enforce,
            RawMode::Report => Self::Report,
        }
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
            mode: raw.mode.map(Mode::from).unwrap_or_default(),
            when: raw.when,
            query: raw.query.unwrap_or_default().into_iter().map(Vec::from).collect(),
        }
    }
}
