//! `tokens.trusted_issuers`: whose tokens are taken beside ours. Key sets of files and secrets are read here, those of URLs by `store`.

mod keys;
mod raw;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

pub(super) use self::raw::RawTrustedIssuer;
use self::raw::{RawAlgorithm, RawPath};
use super::duration;
use crate::{
    config::error::{Report, Trail},
    core::{
        issuer::{
            JwtAlgorithm, TrustedIssuer,
            claims::{ClaimMapping, ClaimPath, FactorClaim},
        },
        user::folded,
    },
};

const LONGEST_SKEW: Duration = Duration::from_secs(300);
const LONGEST_PREFIX: usize = 50;

/// `ours`: the issuer of our own tokens.
pub(super) fn trusted_issuers(
    report: &mut Report,
    at: &Trail,
    raw: &[RawTrustedIssuer],
    ours: &str,
) -> Vec<Arc<TrustedIssuer>> {
    let mut prefixes: Vec<&str> = Vec::new();
    for (index, one) in raw.iter().enumerate() {
        let here = at.item(index);
        name(report, &here, &one.issuer, raw.iter().take(index), ours);
        prefix(report, &here.key("prefix"), one.prefix.as_deref().unwrap_or_default(), &mut prefixes);
    }
    if raw.iter().filter(|one| one.prefix.is_none()).count() > 1 {
        let warning = "several issuers have no `prefix`: to the rules, users of one name are one user, whoever issued the token; give each \
                       a `prefix`";
        report.warn(at, warning);
    }
    raw.iter()
        .enumerate()
        .filter_map(|(index, one)| issuer(report, &at.item(index), one, &prefixes))
        .map(Arc::new)
        .collect()
}

fn name<'r>(
    report: &mut Report,
    at: &Trail,
    issuer: &str,
    mut before: impl Iterator<Item = &'r RawTrustedIssuer>,
    ours: &str,
) {
    let at = at.key("issuer");
    if issuer.is_empty() {
        report.fault(
            &at,
            "an issuer has to be named as its tokens do in `iss`; write for example `https://idp.example.com`",
        );
    } else if issuer == ours {
        report
            .fault(&at, "this is Postern itself (`tokens.issuer`), whose tokens are taken anyway; take the entry out");
    } else if before.any(|other| other.issuer == issuer) {
        report.fault(&at, "this issuer stands twice; join the two");
    }
}

/// `before`: those of the issuers before this one.
fn prefix<'r>(report: &mut Report, at: &Trail, prefix: &'r str, before: &mut Vec<&'r str>) {
    if prefix.is_empty() {
        return;
    }
    if prefix.trim_start() != prefix || prefix.chars().any(|letter| letter.is_control() || letter == ',') {
        report.fault(
            at,
            "a prefix begins with no blank and holds no comma or control character; write for example `idp:`",
        );
    } else if prefix.chars().count() > LONGEST_PREFIX {
        report.fault(at, format!("a prefix has at most {LONGEST_PREFIX} characters; write for example `idp:`"));
    }
    let (new, is_within) = (folded(prefix), |one: &str, other: &str| one.starts_with(other));
    if let Some(other) = before.iter().find(|other| is_within(&new, &folded(other)) || is_within(&folded(other), &new))
    {
        let message = format!(
            "the prefixes `{prefix}` and `{other}` begin alike, so that users of the two issuers could have one name; write others"
        );
        report.fault(at, message);
    }
    before.push(prefix);
}

fn issuer(report: &mut Report, at: &Trail, raw: &RawTrustedIssuer, prefixes: &[&str]) -> Option<TrustedIssuer> {
    let is_unknown = raw.audiences.is_empty() && report.is_pruned("tokens");
    if !is_unknown && (raw.audiences.is_empty() || raw.audiences.iter().any(String::is_empty)) {
        let fault = "tokens for anybody would be taken: name the audience (`aud`) that the issuer gives to tokens for Postern, as in \
                     `audiences: [postern]`";
        report.fault(&at.key("audiences"), fault);
    }
    let clock_skew = duration(report, &at.key("clock_skew"), raw.clock_skew.as_deref(), Duration::from_secs(30), false);
    if clock_skew > LONGEST_SKEW {
        report.fault(
            &at.key("clock_skew"),
            "clocks that are more than `5m` apart have to be set right; write for example `30s`",
        );
    }
    let keys = keys::keys(report, at, raw);
    let algorithms = algorithms(report, &at.key("algorithms"), raw);
    let claims = claims(report, &at.key("claims"), raw, prefixes);
    Some(TrustedIssuer::new(
        raw.issuer.clone(),
        raw.audiences.clone(),
        keys?,
        algorithms,
        clock_skew,
        claims,
        raw.id_tokens.unwrap_or_default(),
    ))
}

fn algorithms(report: &mut Report, at: &Trail, raw: &RawTrustedIssuer) -> Vec<JwtAlgorithm> {
    let shares_secret = raw.secret.is_some() || raw.secret_file.is_some();
    let Some(written) = &raw.algorithms else {
        return if shares_secret { vec![JwtAlgorithm::HS256] } else { JwtAlgorithm::DEFAULT.to_vec() };
    };
    // An entry that could not be read was told already.
    if written.is_empty() && !report.is_pruned("tokens") {
        report.fault(
            at,
            "no algorithm is left that tokens could be signed with; take the key out, or write for example `[RS256]`",
        );
    }
    for (index, algorithm) in written.iter().enumerate() {
        match (shares_secret, *algorithm == RawAlgorithm::HS256) {
            (true, false) => report.fault(&at.item(index), "with a secret there is `HS256` alone; take this one out"),
            (false, true) => {
                let fault = "`HS256` needs a secret that the issuer shares with us (`secret_file`): with public keys anybody could sign";
                report.fault(&at.item(index), fault);
            }
            _ => {}
        }
    }
    written.iter().copied().map(JwtAlgorithm::from).collect()
}

fn claims(report: &mut Report, at: &Trail, raw: &RawTrustedIssuer, prefixes: &[&str]) -> ClaimMapping {
    let default = ClaimMapping::default();
    let prefix = raw.prefix.clone().unwrap_or_default();
    let mut path =
        |key: &str, raw: &Option<RawPath>| raw.as_ref().and_then(|raw| report.take(&at.key(key), claim(raw)));
    let (user, groups) = (path("user", &raw.claims.user), path("groups", &raw.claims.groups));
    let (roles, name) = (path("roles", &raw.claims.roles), path("name", &raw.claims.name));
    let email = path("email", &raw.claims.email);
    let factor = raw.claims.factor.as_ref().and_then(|raw| {
        let at = at.key("factor");
        if raw.two.is_empty() {
            report.fault(
                &at.key("two"),
                "no value stands for two factors; write some, such as `[mfa]`, or take `factor` out",
            );
        }
        let claim = report.take(&at.key("claim"), claim(&raw.claim))?;
        Some(FactorClaim { claim, two: raw.two.clone() })
    });
    // Whoever has no prefix must not be named as if another issuer's stood before the name.
    let reserved = if prefix.is_empty() { prefixes.iter().map(|prefix| folded(prefix)).collect() } else { Vec::new() };
    ClaimMapping {
        user: user.unwrap_or(default.user),
        groups: groups.unwrap_or(default.groups),
        roles,
        name: name.unwrap_or(default.name),
        email: email.unwrap_or(default.email),
        factor,
        prefix,
        reserved,
    }
}

fn claim(raw: &RawPath) -> Result<ClaimPath, String> {
    let parsed = match raw {
        RawPath::Dotted(text) => ClaimPath::parse(text),
        RawPath::Exact(names) => ClaimPath::exactly(names.clone()),
    };
    parsed.ok_or_else(|| {
        "this names no claim; write for example `realm_access.roles`, or `[\"a.b\"]` for a name that holds dots"
            .to_owned()
    })
}
