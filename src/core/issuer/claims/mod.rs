//! What the claims of a verified token of another issuer say of its user (CONTRACT 4): the mapping of `claims:`, and reading by it.
//! Called by `gate` after the signature held. It must never read a claim that is not what it should be as one that is not there: that
//! refuses the token.

use serde_json::{Map, Value};

use crate::core::{
    identity::{Factor, Identity, Unsendable},
    time::Timestamp,
    user::{BadUser, User, folded},
};

/// `claims:` of an issuer, with its `prefix`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimMapping {
    pub user: ClaimPath,
    pub groups: ClaimPath,
    /// `None`: no claim makes anybody hold a role.
    pub roles: Option<ClaimPath>,
    pub name: ClaimPath,
    pub email: ClaimPath,
    /// `None`: every token is one factor.
    pub factor: Option<FactorClaim>,
    /// Before every user's name.
    pub prefix: String,
    /// Folded prefixes of other issuers, where this one has none: no name begins so.
    pub reserved: Vec<String>,
}

/// The names that lead to a claim, from the outside in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimPath(Vec<String>);

/// A claim that says how its user signed in (`acr`, `amr`, `aal`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FactorClaim {
    pub claim: ClaimPath,
    /// Values that stand for two factors.
    pub two: Vec<String>,
}

impl Default for ClaimMapping {
    fn default() -> Self {
        Self {
            user: ClaimPath::of("sub"),
            groups: ClaimPath::of("groups"),
            roles: None,
            name: ClaimPath::of("name"),
            email: ClaimPath::of("email"),
            factor: None,
            prefix: String::new(),
            reserved: Vec::new(),
        }
    }
}

/// Why nobody can be made of a token's claims. For the log alone; never holds a claim's value.
#[derive(Debug, thiserror::Error)]
pub enum BadClaims {
    #[error("the claim {0} is missing or no text")]
    Text(String),
    #[error("the claim {0} is no list of texts")]
    List(String),
    #[error("the claim {0} lies within what is no object")]
    Way(String),
    #[error("the token's e-mail address is its user, and the token does not say that it was verified")]
    Unverified,
    #[error("the claims name somebody who cannot be: {0}")]
    User(&'static str),
}

impl From<BadUser> for BadClaims {
    fn from(bad: BadUser) -> Self {
        Self::User(match bad {
            BadUser::EmptyName => "a user name cannot be empty",
            BadUser::LongName => "a user name cannot be so long",
            BadUser::Control(_) => "a control character",
            BadUser::Blank => "a user name cannot begin or end with white space",
            BadUser::CommaInName(_) => "a comma in the user name",
            BadUser::CommaInGroup(_) => "a comma in a group",
            BadUser::EmptyGroup => "an empty group",
            BadUser::BlankInGroup(_) => "a group begins or ends with white space",
            BadUser::Email(_) => "an e-mail address that is none",
        })
    }
}

impl From<Unsendable> for BadClaims {
    fn from(_: Unsendable) -> Self {
        Self::User("a control character")
    }
}

impl ClaimPath {
    /// One name at the top.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }

    /// `realm_access.roles` leads to `roles` within `realm_access`. A name that holds `://` stands as it is: claims of an application's
    /// own are often named by URLs (`https://example.com/roles`), whose dots mean nothing.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.contains("://") {
            return Self::exactly(vec![text.to_owned()]);
        }
        Self::exactly(text.split('.').map(str::to_owned).collect())
    }

    /// By names that are taken as they stand, whatever they hold.
    #[must_use]
    pub fn exactly(names: Vec<String>) -> Option<Self> {
        (!names.is_empty() && names.iter().all(|name| !name.is_empty())).then_some(Self(names))
    }

    /// `None`: it is not there, or null.
    ///
    /// # Errors
    /// What should hold it is no object.
    fn find<'c>(&self, claims: &'c Map<String, Value>) -> Result<Option<&'c Value>, BadClaims> {
        let Some((last, way)) = self.0.split_last() else { return Ok(None) };
        let mut inside = claims;
        for name in way {
            inside = match inside.get(name) {
                None | Some(Value::Null) => return Ok(None),
                Some(Value::Object(inner)) => inner,
                Some(_) => return Err(BadClaims::Way(self.shown())),
            };
        }
        Ok(inside.get(last).filter(|value| !value.is_null()))
    }

    fn shown(&self) -> String {
        self.0.join(".")
    }

    fn is_email(&self) -> bool {
        matches!(self.0.as_slice(), [name] if name == "email")
    }
}

impl ClaimMapping {
    /// Whom the claims are of. All of them become attributes, for expressions in rules (`user.claims.NAME`).
    ///
    /// # Errors
    /// They name nobody, or somebody whose name or groups would forge a header (THREATS 69).
    pub fn read(&self, claims: Map<String, Value>) -> Result<Identity, BadClaims> {
        let name =
            self.user.find(&claims)?.and_then(Value::as_str).ok_or_else(|| BadClaims::Text(self.user.shown()))?;
        let told = claims.get("email_verified");
        let is_verified = told.is_some_and(|told| *told == true || told == "true");
        // Where nothing is told, anybody may have written any address.
        if self.user.is_email() && !is_verified {
            return Err(BadClaims::Unverified);
        }
        if name.is_empty() {
            return Err(BadUser::EmptyName.into());
        }
        let name = format!("{}{name}", self.prefix);
        if self.reserved.iter().any(|prefix| folded(&name).starts_with(prefix.as_str())) {
            return Err(BadClaims::User("the name begins with the prefix of another issuer"));
        }
        let optional = |path: &ClaimPath| match path.find(&claims)? {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
            Some(_) => Err(BadClaims::Text(path.shown())),
        };
        let groups = list(&self.groups, &claims)?;
        let roles = self.roles.as_ref().map(|path| list(path, &claims)).transpose()?.unwrap_or_default();
        let factor = self.factor.as_ref().map(|claim| claim.read(&claims)).transpose()?.unwrap_or(Factor::One);
        let signed_in_at = signed_in_at(&claims);
        let user = User {
            display_name: optional(&self.name)?.unwrap_or_else(|| name.clone()),
            // One that is told to be unverified is nobody's; an issuer that tells nothing is believed, since no name hangs on it.
            email: optional(&self.email)?.filter(|_| told.is_none() || is_verified),
            attributes: claims.into_iter().collect(),
            ..User::new(name, groups)
        };
        Ok(Identity::new(&user.checked()?, factor, signed_in_at, None)?.with_claimed_roles(roles))
    }
}

impl FactorClaim {
    /// A text or a list of texts, as `acr` and `amr` of OpenID Connect Core 1.0 §2; Supabase writes a list of objects with a `method`.
    fn read(&self, claims: &Map<String, Value>) -> Result<Factor, BadClaims> {
        let counts = |value: &Value| {
            let method = value.as_object().and_then(|entry| entry.get("method")).unwrap_or(value);
            method.as_str().is_some_and(|method| self.two.iter().any(|two| two == method))
        };
        let is_two = match self.claim.find(claims)? {
            Some(Value::Array(values)) => values.iter().any(counts),
            Some(value) => counts(value),
            None => false,
        };
        Ok(if is_two { Factor::Two } else { Factor::One })
    }
}

/// When the person signed in (`auth_time`). `iat` says when the token was made, which a refresh does without anybody there, so where the
/// issuer is silent the sign-in is older than any `max_auth_age`.
fn signed_in_at(claims: &Map<String, Value>) -> Timestamp {
    let seconds = claims.get("auth_time").and_then(Value::as_i64).filter(|seconds| *seconds >= 0);
    Timestamp::from_unix_millis(seconds.unwrap_or_default().saturating_mul(1000))
}

/// A text is a list of one.
fn list(path: &ClaimPath, claims: &Map<String, Value>) -> Result<Vec<String>, BadClaims> {
    let bad = || BadClaims::List(path.shown());
    match path.find(claims)? {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(values)) => {
            values.iter().map(|value| value.as_str().map(str::to_owned).ok_or_else(bad)).collect()
        }
        Some(_) => Err(bad()),
    }
}

#[cfg(test)]
mod tests;
