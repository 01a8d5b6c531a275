//! `limits:` and `limit_headers:` of a policies file, from what is written to the draft. What a limit means is `core::policy`'s to say.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Reading,
    raw::{OneOrMany, RawMode},
};
use crate::{
    config::error::{Report, Trail},
    core::{
        policy::{LimitDraft, LimitPart, MatchDraft, Mode},
        quota::Families,
    },
};

/// How often requests may come.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLimit {
    /// What headers, metrics and logs show; one limit of all files has it.
    #[schemars(example = &"chat")]
    name: String,
    /// Which requests are counted, as in a rule (default: all).
    #[serde(rename = "match")]
    matches: Option<RawMatch>,
    /// Which of them are not.
    bypass: Option<Vec<RawMatch>>,
    /// Who has a count of their own: `ip` (IPv6 by /64), `user`, `user_or_ip`, `session`, `token`, `header:NAME`, or an expression in CEL that gives a string.
    #[schemars(example = &"user")]
    key: String,
    /// `N/second`, `/minute`, `/hour` or `/day`, and `burst B` for a bucket; all hold at once.
    #[schemars(example = ["10/second burst 20", "50/minute"])]
    rates: OneOrMany,
    /// Other rates for users whose attribute `plan` has this name.
    plans: Option<BTreeMap<String, OneOrMany>>,
    /// `report`: counted and recorded, never refuses (default `enforce`).
    mode: Option<RawMode>,
}

/// Requests, as in a rule; what is left out leaves the choice open.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    /// Hosts: a name, `*.name`, `{user}.name`, `{group}.name`.
    #[schemars(example = &"api.example.com")]
    domain: Option<OneOrMany>,
    /// Globs over the canonical path.
    #[schemars(example = &"/chat/**")]
    path: Option<OneOrMany>,
    /// Methods of the request.
    #[schemars(example = ["POST"])]
    methods: Option<OneOrMany>,
}

/// Headers that tell of limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum RawHeaders {
    /// `RateLimit-Policy` and `RateLimit`.
    Ratelimit,
    /// `X-RateLimit-Limit`, `-Remaining` and `-Reset`.
    XRatelimit,
    /// The same with `-Second`, `-Minute`, `-Hour` and `-Day` behind.
    XRatelimitWindows,
}

impl RawMatch {
    /// As in a rule: a list without an entry could be read in two ways.
    fn refuse_empty_lists(&self, report: &mut Report, at: &Trail) {
        for (key, list) in [("domain", &self.domain), ("path", &self.path), ("methods", &self.methods)] {
            if list.as_ref().is_some_and(OneOrMany::is_empty) {
                report.fault(&at.key(key), format!("`{key}` is an empty list; write an entry, or take the key out"));
            }
        }
    }
}

impl From<RawMatch> for MatchDraft {
    fn from(raw: RawMatch) -> Self {
        let many = |list: Option<OneOrMany>| list.map(Vec::from).unwrap_or_default();
        Self { domain: many(raw.domain), path: many(raw.path), methods: many(raw.methods) }
    }
}

impl Reading {
    pub(super) fn add_limits(&mut self, report: &mut Report, limits: Vec<RawLimit>, headers: Option<Vec<RawHeaders>>) {
        for (number, raw) in limits.into_iter().enumerate() {
            let at = Trail::root().key("limits").item(number);
            let bypass = raw.bypass.unwrap_or_default();
            if let Some(matches) = &raw.matches {
                matches.refuse_empty_lists(report, &at.key("match"));
            }
            for (entry, matches) in bypass.iter().enumerate() {
                matches.refuse_empty_lists(report, &at.key("bypass").item(entry));
            }
            let plans = raw.plans.unwrap_or_default().into_iter().map(|(name, rates)| (name, rates.into()));
            self.limits.push((self.reports.len(), at));
            self.draft.limits.push(LimitDraft {
                name: raw.name,
                matches: raw.matches.map(MatchDraft::from).unwrap_or_default(),
                bypass: bypass.into_iter().map(MatchDraft::from).collect(),
                key: raw.key,
                rates: raw.rates.into(),
                plans: plans.collect(),
                mode: raw.mode.map(Mode::from).unwrap_or_default(),
            });
        }
        if let Some(headers) = headers {
            if let Some(other) = &self.headers_in {
                let message = format!("`limit_headers` stands in {} too; keep one", other.display());
                report.fault_of_key(&Trail::root().key("limit_headers"), message);
                return;
            }
            self.headers_in = Some(report.file.clone());
            self.draft.limit_headers = Some(Families {
                draft: headers.contains(&RawHeaders::Ratelimit),
                plain: headers.contains(&RawHeaders::XRatelimit),
                by_window: headers.contains(&RawHeaders::XRatelimitWindows),
            });
        }
    }

    pub(super) fn limit_trail(&self, limit: usize, part: LimitPart) -> Option<(usize, Trail)> {
        let (report, base) = self.limits.get(limit)?;
        let (trail, entry) = match part {
            LimitPart::Name => (base.key("name"), None),
            LimitPart::Key => (base.key("key"), None),
            LimitPart::Match { key, entry } => (base.key("match").key(key), entry),
            LimitPart::Bypass { bypass, key, entry } => {
                let at = base.key("bypass").item(bypass);
                (key.map_or(at.clone(), |key| at.key(key)), entry)
            }
            LimitPart::Rates { entry } => (base.key("rates"), entry),
            LimitPart::Plan { plan, entry } => {
                let name = self.draft.limits.get(limit).and_then(|draft| draft.plans.get(plan));
                let plans = base.key("plans");
                (name.map_or(plans.clone(), |(name, _)| plans.key(name)), entry)
            }
        };
        Some((*report, super::with_entry(trail, entry)))
    }
}
