//! Who is asking, once that is known. Built when a session or a token is loaded, then shared by reference:
//! the header values are rendered once, not on every request.

use std::{ops::Deref, sync::Arc};

use http::HeaderValue;
use serde::{Deserialize, Serialize};

use super::{
    session::SessionId,
    time::Timestamp,
    user::{Attributes, User},
};

/// How strongly the caller proved who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    One,
    Two,
}

impl Factor {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::One => "one",
            Self::Two => "two",
        }
    }
}

/// A caller whose session or credential was verified.
#[derive(Debug, Clone)]
pub struct Identity {
    profile: Arc<Profile>,
    pub factor: Factor,
    /// When the credentials were last presented; `max_auth_age` of a rule counts from here.
    pub signed_in_at: Timestamp,
    /// The session this identity lives and dies with; none for an API token, a password or another issuer's token presented with the request, and for a
    /// caller made up by `policy explain`.
    pub session: Option<SessionId>,
}

/// Who they are, whatever they have signed in with: one for all sessions of a user, since there may be a million of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub user: Arc<str>,
    pub display_name: String,
    pub email: Option<String>,
    pub groups: Vec<String>,
    /// Of the user as of a token's claims.
    pub attributes: Attributes,
    /// The user's, as of now; an access token with an older `ver` is dead.
    pub token_version: u64,
    is_service: bool,
    claimed_roles: Vec<String>,
    headers: IdentityHeaders,
}

impl Deref for Identity {
    type Target = Profile;

    fn deref(&self) -> &Profile {
        &self.profile
    }
}

/// The values of CONTRACT 6, ready to be put on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHeaders {
    pub user: HeaderValue,
    pub name: HeaderValue,
    pub email: HeaderValue,
    pub groups: HeaderValue,
}

/// A name that cannot stand in a header field. Such a user cannot be created; one that was put into the
/// database by other means is refused when it is loaded.
#[derive(Debug, thiserror::Error)]
#[error("the {field} of user {user:?} holds a control character and cannot be sent in a header")]
pub struct Unsendable {
    field: &'static str,
    user: String,
}

impl Identity {
    /// # Errors
    /// [`Unsendable`] where a field holds a control character.
    pub fn new(
        user: &User,
        factor: Factor,
        signed_in_at: Timestamp,
        session: Option<SessionId>,
    ) -> Result<Self, Unsendable> {
        let value = |field: &'static str, text: &str| {
            // Values are UTF-8 as it is (CONTRACT 6); `from_bytes` refuses CR, LF, NUL and other controls but TAB.
            if text.contains('\t') {
                return Err(Unsendable { field, user: user.name.clone() });
            }
            HeaderValue::from_bytes(text.as_bytes()).map_err(|_| Unsendable { field, user: user.name.clone() })
        };
        let headers = IdentityHeaders {
            user: value("name", &user.name)?,
            name: value("display name", &user.display_name)?,
            email: value("email", user.email.as_deref().unwrap_or_default())?,
            groups: value("groups", &user.groups.join(","))?,
        };
        let profile = Profile {
            user: Arc::from(user.name.as_str()),
            display_name: user.display_name.clone(),
            email: user.email.clone(),
            groups: user.groups.clone(),
            attributes: user.attributes.clone(),
            token_version: user.token_version,
            is_service: false,
            claimed_roles: Vec::new(),
            headers,
        };
        Ok(Self { profile: Arc::new(profile), factor, signed_in_at, session })
    }

    #[must_use]
    pub fn profile(&self) -> &Arc<Profile> {
        &self.profile
    }

    /// The same caller, in one piece with the others of this profile, if it is the caller's.
    #[must_use]
    pub fn sharing(self, profile: &Arc<Profile>) -> Self {
        if *self.profile == **profile { Self { profile: Arc::clone(profile), ..self } } else { self }
    }

    /// Whether what was decided on and told of this caller is still so. `now`: the same caller, known later.
    #[must_use]
    pub fn is_still(&self, now: &Self) -> bool {
        std::ptr::eq(self, now)
            || (self.user == now.user
                && self.display_name == now.display_name
                && self.email == now.email
                && self.groups == now.groups
                && self.attributes == now.attributes
                && self.factor <= now.factor)
    }

    /// A service account: to the rules it is `client:NAME`, and never `user:NAME`.
    #[must_use]
    pub fn as_service(mut self) -> Self {
        Arc::make_mut(&mut self.profile).is_service = true;
        self
    }

    /// The same caller, who has just presented the credentials again.
    #[must_use]
    pub fn presented_at(&self, now: Timestamp) -> Self {
        Self { signed_in_at: now, ..self.clone() }
    }

    /// Roles that a trusted issuer's token gives, where its mapping says so.
    #[must_use]
    pub fn with_claimed_roles(mut self, claimed_roles: Vec<String>) -> Self {
        Arc::make_mut(&mut self.profile).claimed_roles = claimed_roles;
        self
    }
}

impl Profile {
    /// The name by which `client:` knows the caller; `None` for a person.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.is_service.then_some(&*self.user)
    }

    /// Held beside those that bindings of the rules give; one that the rules do not define means nothing.
    #[must_use]
    pub fn claimed_roles(&self) -> &[String] {
        &self.claimed_roles
    }

    #[must_use]
    pub fn headers(&self) -> &IdentityHeaders {
        &self.headers
    }
}
