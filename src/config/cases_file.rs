//! `policies/*.cases.yaml`: made-up requests with the verdict they should get. Called by `load_cases`; what a case means is
//! `core::policy`'s to say.

use std::{collections::BTreeMap, net::IpAddr, path::Path};

use http::{HeaderMap, HeaderName, HeaderValue};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{
    Fault, PlacedCase,
    error::{Report, Trail, did_you_mean},
    policy_file::OneOrMany,
    quantity,
    sections::RawSlashes,
    shape::Shape,
    source,
};
use crate::core::{
    client_ip::ClientAddress,
    identity::Factor,
    policy::{Case, Expected, Imagined, ImaginedCaller, RuleSet, Ruling},
    target::EncodedSlashes,
    time::Timestamp,
    user::Attributes,
};

/// Cases for the rules beside them: requests, and what should become of them.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(title = "Cases for the policies of Postern")]
struct RawCases {
    /// The cases, each for itself.
    cases: Vec<RawCase>,
}

/// One request; whatever is left out is not there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawCase {
    /// What a failure is called (default: `case N`).
    #[schemars(example = &"guests do not see the dashboards")]
    name: Option<String>,
    /// What is asked for, with scheme and host.
    #[schemars(example = &"https://grafana.example.com/d/1")]
    url: String,
    /// The request's method (default `GET`).
    #[schemars(example = &"POST")]
    method: Option<String>,
    /// Who is signed in (default: nobody).
    #[schemars(example = &"alice")]
    user: Option<String>,
    /// The groups of the user.
    #[schemars(example = ["staff"])]
    groups: Option<OneOrMany>,
    /// The OAuth client that asks in its own name.
    #[schemars(example = &"ci")]
    client: Option<String>,
    /// Factors of the sign-in (default `one`).
    factor: Option<RawFactor>,
    /// How long ago the sign-in was (default `0s`).
    #[schemars(example = &"20m")]
    auth_age: Option<String>,
    /// Attributes of the user, or claims of the token.
    #[schemars(example = &"{ tier: premium }")]
    claims: Option<Attributes>,
    /// Headers of the request.
    #[schemars(example = &"{ X-Plan: gold }")]
    headers: Option<BTreeMap<String, String>>,
    /// Name of the route, as the edge has it.
    #[schemars(example = &"grafana")]
    route: Option<String>,
    /// When it is asked (default: now); RFC 3339.
    #[schemars(example = &"2027-06-30T18:00:00+02:00")]
    time: Option<String>,
    /// The client's address (default: unknown).
    #[schemars(example = &"192.0.2.7")]
    ip: Option<String>,
    /// As the setting that holds for the request's route (default `reject`).
    encoded_slashes: Option<RawSlashes>,
    /// The verdict that the request should get.
    expect: RawVerdict,
    /// The rule that should decide, or `default` (default: any).
    #[schemars(example = &"dashboards")]
    rule: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum RawFactor {
    One,
    Two,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum RawVerdict {
    Forward,
    SignIn,
    StepUp,
    Refuse,
    Reject,
}

pub(super) fn shape() -> Shape {
    Shape { schema: schemars::schema_for!(RawCases).to_value(), later: &[], whole_items_of: &["cases"] }
}

/// The cases of one file, and all that is wrong with it.
pub(super) fn read(file: &Path, rules: &RuleSet, now: Timestamp) -> (Vec<PlacedCase>, Vec<Fault>) {
    let mut root = match source::read(file).and_then(|text| source::parse(file, &text)) {
        Ok(root) => root,
        Err(fault) => return (Vec::new(), vec![fault]),
    };
    let checked = shape().check(file, &mut root);
    let raw = RawCases::deserialize(&mut root);
    let mut report = Report::new(file, root, checked);
    let mut cases = Vec::new();
    match raw {
        Ok(raw) => {
            for (number, raw) in raw.cases.into_iter().enumerate() {
                let at = Trail::root().key("cases").item(number);
                let name = raw.name.clone().unwrap_or_else(|| format!("case {}", number + 1));
                if let Some(case) = case(&mut report, &at, name, raw, rules, now) {
                    let Fault { file, line, column, .. } = report.fault_at(&at, String::new());
                    cases.push(PlacedCase { file, line, column, case });
                }
            }
        }
        Err(error) => report.fault(&Trail::root(), error.to_string()),
    }
    (cases, report.faults)
}

fn case(report: &mut Report, at: &Trail, name: String, raw: RawCase, rules: &RuleSet, now: Timestamp) -> Option<Case> {
    let before = report.faults.len();
    let auth_age = raw.auth_age.as_deref().and_then(|text| report.take(&at.key("auth_age"), quantity::duration(text)));
    let address = raw.ip.as_deref().and_then(|text| report.take(&at.key("ip"), address(text)));
    if raw.user.is_some() && raw.client.is_some() {
        report.fault(&at.key("client"), "a request is asked by a user or by a client: take one of the two out");
    }
    let nobody = raw.user.is_none() && raw.client.is_none();
    for (key, is_there) in [
        ("groups", raw.groups.is_some()),
        ("factor", raw.factor.is_some()),
        ("auth_age", raw.auth_age.is_some()),
        ("claims", raw.claims.is_some()),
    ] {
        if nobody && is_there {
            report.fault_of_key(&at.key(key), format!("nobody is signed in who could have `{key}`: write a `user`"));
        }
    }
    let factor = if raw.factor == Some(RawFactor::Two) { Factor::Two } else { Factor::One };
    let groups = raw.groups.map(Vec::from).unwrap_or_default();
    let now = raw.time.as_deref().and_then(|text| report.take(&at.key("time"), quantity::moment(text))).unwrap_or(now);
    let mut headers = HeaderMap::new();
    for (name, value) in raw.headers.into_iter().flatten() {
        let here = at.key("headers").key(&name);
        let parsed = HeaderName::try_from(&name).ok().zip(HeaderValue::try_from(&value).ok());
        // Its value may be a credential.
        let message = || format!("`{name}` with this value cannot be a header of a request");
        if let Some((name, value)) = report.take(&here, parsed.ok_or_else(message)) {
            headers.append(name, value);
        }
    }
    let who = ImaginedCaller {
        user: raw.user,
        groups,
        factor,
        signed_in_at: now.before(auth_age.unwrap_or_default()),
        attributes: raw.claims.unwrap_or_default(),
    };
    let caller = (!nobody).then(|| Imagined::caller(who));
    let caller = caller.and_then(|caller| report.take(at, caller.map_err(|error| error.to_string())));
    if let Some(rule) = &raw.rule
        && !rules.rule_names().any(|name| **name == **rule)
    {
        let near = did_you_mean(rule, rules.rule_names().map(|name| &**name));
        report.fault(&at.key("rule"), format!("there is no rule {rule:?}{near}"));
    }
    let request = Imagined {
        url: raw.url,
        method: raw.method.unwrap_or_else(|| "GET".to_owned()),
        caller,
        client: raw.client,
        now,
        headers,
        route: raw.route,
        address: address.map_or(ClientAddress::Unknown, ClientAddress::Known),
        encoded_slashes: raw.encoded_slashes.map_or(EncodedSlashes::Reject, EncodedSlashes::from),
    };
    let expected = match raw.expect {
        RawVerdict::Forward => Expected::Ruling(Ruling::Forward),
        RawVerdict::SignIn => Expected::Ruling(Ruling::SignIn),
        RawVerdict::StepUp => Expected::Ruling(Ruling::StepUp),
        RawVerdict::Refuse => Expected::Ruling(Ruling::Refuse),
        RawVerdict::Reject => Expected::Reject,
    };
    (report.faults.len() == before).then_some(Case { name, request, expected, rule: raw.rule })
}

fn address(text: &str) -> Result<IpAddr, String> {
    let parsed: Result<IpAddr, _> = text.parse();
    parsed
        .map(|address| address.to_canonical())
        .map_err(|_| format!("{text:?} is not an address; write one such as 192.0.2.7"))
}
