//! `tokens.trusted_issuers`: whose tokens are taken beside ours. Key sets of files and secrets are read here, those of URLs by `store`.

use std::{path::PathBuf, sync::Arc, time::Duration};

use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Deserializer};
use url::Url;

use super::{duration, is_local, web_url};
use crate::{
    config::{
        NamedFile,
        error::{Report, Trail, list},
    },
    core::{
        issuer::{
            JwtAlgorithm, KeyAddress, KeyPlace, KeySource, TrustedIssuer,
            claims::{ClaimMapping, ClaimPath, FactorClaim},
            jwks::KeySet,
        },
        user::folded,
    },
};

/// Shorter secrets can be guessed offline from a single token (RFC 7518 §3.2).
const SHORTEST_SECRET: usize = 32;
const LONGEST_SKEW: Duration = Duration::from_secs(300);
const LONGEST_REFRESH: Duration = Duration::from_secs(12 * 3600);
const LONGEST_PREFIX: usize = 50;
const JWKS: &str = "https://idp.example.com/jwks.json";
const DISCOVERY: &str = "https://idp.example.com/.well-known/openid-configuration";
/// Where it stands below an issuer (OpenID Connect Discovery 1.0 §4).
const BELOW: &str = "/.well-known/openid-configuration";

/// Another issuer whose JWTs are taken as `Authorization: Bearer`; its keys come from one of `discovery`, `jwks`, `jwks_file`, `secret`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct RawTrustedIssuer {
    /// `iss`, exactly as it stands in the tokens.
    #[schemars(example = &"https://idp.example.com")]
    issuer: String,
    /// One of them has to stand in `aud`.
    #[schemars(example = ["postern"])]
    audiences: Vec<String>,
    /// `true`: its keys are named by `/.well-known/openid-configuration` below the issuer; or the URL of that document.
    #[schemars(example = &true)]
    discovery: Option<RawDiscovery>,
    /// URL of its key set.
    #[schemars(example = &JWKS)]
    jwks: Option<String>,
    /// File that holds its key set.
    #[schemars(example = &"config/idp.jwks.json")]
    jwks_file: Option<String>,
    /// For HS256: the secret that it shares with us, at least 32 bytes.
    #[serde(default, deserialize_with = "secret")]
    #[schemars(with = "Option<String>")]
    secret: Option<SecretString>,
    /// File that holds the secret.
    #[schemars(example = &"secrets/jwt")]
    secret_file: Option<String>,
    /// What its tokens may be signed with (default `RS256 PS256 ES256 ES384 EdDSA`; with a secret `HS256`).
    #[schemars(example = ["RS256"])]
    algorithms: Option<Vec<RawAlgorithm>>,
    /// How far its clock and ours may be apart (default `30s`, at most `5m`).
    #[schemars(example = &"30s")]
    clock_skew: Option<String>,
    /// Stands before the names of its users, so that none is taken for another (default: none; a name that a local user has is then
    /// refused).
    #[schemars(example = &"idp:")]
    prefix: Option<String>,
    /// Least time between two fetches of its keys (default `60s`).
    #[schemars(example = &"60s")]
    interval: Option<String>,
    /// How often its keys are fetched unasked (default `10m`).
    #[schemars(example = &"10m")]
    refresh: Option<String>,
    /// Takes its ID tokens too (default false): for Google, whose service accounts have no other JWTs.
    #[schemars(example = &false)]
    id_tokens: Option<bool>,
    #[serde(default)]
    claims: RawClaims,
}

/// Which claims say what of a user. `a.b` is `b` within `a`; a name with dots of its own is written as a list of one, `["a.b"]`, or is a
/// URL.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct RawClaims {
    /// The name (default `sub`).
    #[schemars(example = &"sub")]
    user: Option<RawPath>,
    /// A text or a list of texts (default `groups`).
    #[schemars(example = &"realm_access.roles")]
    groups: Option<RawPath>,
    /// Roles of the policies that a token gives (default: none are).
    #[schemars(example = &"realm_access.roles")]
    roles: Option<RawPath>,
    /// The display name (default `name`).
    #[schemars(example = &"name")]
    name: Option<RawPath>,
    /// The address (default `email`); one that `email_verified` denies is left out.
    #[schemars(example = &"email")]
    email: Option<RawPath>,
    /// What says that somebody signed in with two factors (default: every token is one).
    factor: Option<RawFactor>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RawFactor {
    /// `acr`, `amr`, `aal`.
    #[schemars(example = &"amr")]
    claim: RawPath,
    /// Values that stand for two factors; where the claim is a list, one of them is enough.
    #[schemars(example = ["mfa"])]
    two: Vec<String>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum RawPath {
    Dotted(String),
    Exact(Vec<String>),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum RawDiscovery {
    Below(bool),
    At(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
enum RawAlgorithm {
    HS256,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl From<RawAlgorithm> for JwtAlgorithm {
    fn from(raw: RawAlgorithm) -> Self {
        match raw {
            RawAlgorithm::HS256 => Self::HS256,
            RawAlgorithm::RS256 => Self::RS256,
            RawAlgorithm::RS384 => Self::RS384,
            RawAlgorithm::RS512 => Self::RS512,
            RawAlgorithm::PS256 => Self::PS256,
            RawAlgorithm::PS384 => Self::PS384,
            RawAlgorithm::PS512 => Self::PS512,
            RawAlgorithm::ES256 => Self::ES256,
            RawAlgorithm::ES384 => Self::ES384,
            RawAlgorithm::EdDSA => Self::EdDSA,
        }
    }
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SecretString>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(SecretString::from))
}

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
        report.fault(
            &at,
            format!(
                "`{issuer}` is Postern itself (`tokens.issuer`), whose tokens are taken anyway; take the entry out"
            ),
        );
    } else if before.any(|other| other.issuer == issuer) {
        report.fault(&at, format!("the issuer `{issuer}` stands twice; join the two"));
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
    let keys = keys(report, at, raw);
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

fn keys(report: &mut Report, at: &Trail, raw: &RawTrustedIssuer) -> Option<KeySource> {
    let discovery = raw.discovery.as_ref().filter(|discovery| !matches!(discovery, RawDiscovery::Below(false)));
    let given = [
        ("discovery", discovery.is_some()),
        ("jwks", raw.jwks.is_some()),
        ("jwks_file", raw.jwks_file.is_some()),
        ("secret", raw.secret.is_some()),
        ("secret_file", raw.secret_file.is_some()),
    ];
    let given: Vec<&str> = given.into_iter().filter_map(|(key, is_given)| is_given.then_some(key)).collect();
    let key = match given.as_slice() {
        [key] => *key,
        [] => {
            let fault = "nothing says where the issuer's keys are: write `discovery: true`, or `jwks` with the URL of its key set, or \
                         `jwks_file`, or `secret_file`";
            report.fault(at, fault);
            return None;
        }
        [_, second, ..] => {
            let all = list(given.iter().copied());
            report.fault_of_key(
                &at.key(second),
                format!("the issuer's keys come from one place, and {all} stand here; keep one"),
            );
            return None;
        }
    };
    let here = at.key(key);
    match (key, discovery) {
        ("discovery", Some(RawDiscovery::At(url))) => {
            let url = report.take(&here, key_url(url, DISCOVERY))?;
            fetched(report, at, raw, KeyPlace::Discovery { url, issuer: raw.issuer.clone() })
        }
        ("discovery", _) => {
            let below = format!("{}{BELOW}", raw.issuer.trim_end_matches('/'));
            let url = key_url(&below, DISCOVERY)
                .map_err(|fault| format!("no discovery document can be below the issuer `{}`: {fault}", raw.issuer));
            let url = report.take(&here, url)?;
            fetched(report, at, raw, KeyPlace::Discovery { url, issuer: raw.issuer.clone() })
        }
        ("jwks", _) => {
            let url = report.take(&here, key_url(raw.jwks.as_deref().unwrap_or_default(), JWKS))?;
            fetched(report, at, raw, KeyPlace::Jwks(url))
        }
        ("jwks_file", _) => {
            let text = file(report, &here, raw.jwks_file.as_deref().unwrap_or_default())?;
            report.take(&here, key_set(&text)).map(|keys| KeySource::Fixed(Arc::new(keys)))
        }
        _ => {
            let secret = match (&raw.secret, &raw.secret_file) {
                (Some(secret), _) => secret.clone(),
                (None, path) => {
                    let text = SecretString::from(file(report, &here, path.as_deref().unwrap_or_default())?);
                    // A line feed at its end is the editor's.
                    SecretString::from(text.expose_secret().trim_end_matches(['\r', '\n']))
                }
            };
            let length = secret.expose_secret().len();
            if length < SHORTEST_SECRET {
                let fault = format!(
                    "a secret of {length} bytes can be guessed from one token; use one of at least {SHORTEST_SECRET} (`openssl rand -hex 32`)"
                );
                report.fault(&here, fault);
            }
            Some(KeySource::Fixed(Arc::new(KeySet::of_secret(secret))))
        }
    }
}

fn fetched(report: &mut Report, at: &Trail, raw: &RawTrustedIssuer, place: KeyPlace) -> Option<KeySource> {
    let mut positive = |key: &str, text: Option<&str>, seconds| {
        duration(report, &at.key(key), text, Duration::from_secs(seconds), true)
    };
    let interval = positive("interval", raw.interval.as_deref(), 60);
    let refresh = positive("refresh", raw.refresh.as_deref(), interval.as_secs().clamp(600, 43_200));
    if refresh < interval {
        report.fault(
            &at.key("refresh"),
            "keys are fetched at most once in `interval`; write a `refresh` that is not shorter",
        );
    } else if refresh > LONGEST_REFRESH {
        report
            .fault(&at.key("refresh"), "a key that the issuer took back would count for too long; write at most `12h`");
    }
    Some(KeySource::Fetched(Arc::new(KeyAddress { place, interval, refresh })))
}

/// Keys from anybody who can change what is on the wire are nobody's keys.
fn key_url(text: &str, example: &str) -> Result<Url, String> {
    // A query is part of some issuers' addresses.
    let url = match text.split_once('?') {
        Some((before, query)) if !query.contains('#') => {
            let mut url = web_url(before, example)?;
            url.set_query(Some(query));
            url
        }
        _ => web_url(text, example)?,
    };
    if url.scheme() == "http" && !url.host_str().is_some_and(is_local) {
        return Err(
            "keys that come over plain http could be anybody's; write `https://` (http is for this machine alone)"
                .to_owned(),
        );
    }
    Ok(url)
}

fn key_set(text: &str) -> Result<KeySet, String> {
    let keys = KeySet::parse(text.as_bytes()).map_err(|bad| format!("this file is no JWK set: {bad}"))?;
    if keys.keys.is_empty() {
        return Err("this file holds no key that verifies signatures (RSA from 2048 bits, P-256, P-384 or Ed25519, for `use: sig`)".to_owned());
    }
    Ok(keys)
}

fn file(report: &mut Report, at: &Trail, path: &str) -> Option<String> {
    let read = std::fs::read_to_string(path);
    let text = report.take(at, read.map_err(|error| format!("this file cannot be read: {error}")))?;
    report.name(at, NamedFile::Value(PathBuf::from(path)));
    Some(text)
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
