//! A user as the rules and the headers see one, and what a name may be.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A user without any credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// The stored spelling; look-ups ignore case (CONTRACT 4).
    pub name: String,
    pub display_name: String,
    pub email: Option<String>,
    pub groups: Vec<String>,
    pub disabled: bool,
    /// Goes up when every token of the user is to die at once; `ver` of an access token.
    pub token_version: u64,
    /// What else is known of the user, for expressions in rules: `subscription_tier`, `country`.
    #[serde(default)]
    pub attributes: Attributes,
}

/// By name; the values are JSON.
pub type Attributes = BTreeMap<String, serde_json::Value>;

/// The attribute of a user, or the claim of a token, that says which plan they are on.
const PLAN: &str = "plan";

/// The plan, by which limits may give more or less.
#[must_use]
pub fn plan_of(attributes: &Attributes) -> Option<&str> {
    attributes.get(PLAN).and_then(|plan| plan.as_str())
}

/// Why a user cannot be created or changed so. Said to the person at the command line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadUser {
    #[error("a user name cannot be empty")]
    EmptyName,
    #[error("a user name cannot be longer than {MAX_NAME} characters")]
    LongName,
    #[error("the {0} holds a control character, which cannot be sent in a header")]
    Control(&'static str),
    #[error("a user name cannot begin or end with white space")]
    Blank,
    #[error("the name {0:?} holds a comma, which separates entries in Remote-Groups and in logs")]
    CommaInName(String),
    #[error("the group {0:?} holds a comma, which separates groups in Remote-Groups")]
    CommaInGroup(String),
    #[error("a group cannot be empty")]
    EmptyGroup,
    #[error("the group {0:?} begins or ends with white space, which applications that read Remote-Groups take off")]
    BlankInGroup(String),
    #[error("{0:?} is not an e-mail address")]
    Email(String),
}

/// Longest user name in characters.
pub const MAX_NAME: usize = 100;

/// The form under which names are compared and looked up: signed in ignoring case.
#[must_use]
pub fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

impl User {
    /// Who is called by the name, and of whom no more is known.
    #[must_use]
    pub fn new(name: impl Into<String>, groups: Vec<String>) -> Self {
        let name = name.into();
        Self {
            display_name: name.clone(),
            name,
            email: None,
            groups,
            disabled: false,
            token_version: 1,
            attributes: Attributes::new(),
        }
    }

    /// # Errors
    /// The first thing that keeps this user from being stored.
    pub fn checked(self) -> Result<Self, BadUser> {
        if self.name.is_empty() {
            return Err(BadUser::EmptyName);
        }
        if self.name.trim() != self.name {
            return Err(BadUser::Blank);
        }
        if self.name.chars().count() > MAX_NAME {
            return Err(BadUser::LongName);
        }
        if self.name.contains(',') {
            return Err(BadUser::CommaInName(self.name));
        }
        for (what, text) in [("name", &self.name), ("display name", &self.display_name)]
            .into_iter()
            .chain(self.email.iter().map(|email| ("e-mail address", email)))
            .chain(self.groups.iter().map(|group| ("group", group)))
        {
            if text.chars().any(char::is_control) {
                return Err(BadUser::Control(what));
            }
        }
        for group in &self.groups {
            if group.contains(',') {
                return Err(BadUser::CommaInGroup(group.clone()));
            }
            if group.trim().is_empty() {
                return Err(BadUser::EmptyGroup);
            }
            if group.trim() != group {
                return Err(BadUser::BlankInGroup(group.clone()));
            }
        }
        if let Some(email) = &self.email
            && (!email.contains('@') || email.contains(char::is_whitespace) || email.contains(','))
        {
            return Err(BadUser::Email(email.clone()));
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        identity::{Factor, Identity},
        time::Timestamp,
    };

    fn bob() -> User {
        User {
            name: "bob".to_owned(),
            display_name: "Bob".to_owned(),
            email: Some("bob@example.com".to_owned()),
            groups: vec!["dev".to_owned()],
            disabled: false,
            token_version: 0,
            attributes: Default::default(),
        }
    }

    fn identity(user: &User) -> Option<Identity> {
        Identity::new(user, Factor::One, Timestamp::default(), None).ok()
    }

    #[test]
    fn threat_27_names_that_cannot_be_given() {
        for (name, fault) in [
            ("", BadUser::EmptyName),
            (" ", BadUser::Blank),
            (" bob", BadUser::Blank),
            ("bob\n", BadUser::Blank),
            ("bob\r\nRemote-Groups: admins", BadUser::Control("name")),
            ("bob\nb", BadUser::Control("name")),
            ("b\tb", BadUser::Control("name")),
            ("b\0b", BadUser::Control("name")),
            ("b\u{7f}b", BadUser::Control("name")),
            ("b\u{85}b", BadUser::Control("name")),
            ("bob,admin", BadUser::CommaInName("bob,admin".to_owned())),
        ] {
            assert_eq!(User { name: name.to_owned(), ..bob() }.checked(), Err(fault), "{name:?}");
        }
        let long = |length: usize| User { name: "é".repeat(length), ..bob() }.checked();
        assert_eq!(long(MAX_NAME + 1), Err(BadUser::LongName));
        assert!(long(MAX_NAME).is_ok(), "characters count, not bytes");
        for name in ["bob", "Bob Smith", "bob@example.com", "jürgen", "小明", "a.b-c_d+e"] {
            assert!(User { name: name.to_owned(), ..bob() }.checked().is_ok(), "{name:?}");
        }
    }

    #[test]
    fn threat_27_other_fields_cannot_split_a_header_either() {
        for (user, fault) in [
            (User { display_name: "Bob\r\nRemote-User: admin".to_owned(), ..bob() }, BadUser::Control("display name")),
            (User { email: Some("b@b\r\nx".to_owned()), ..bob() }, BadUser::Control("e-mail address")),
            (User { groups: vec!["a\nb".to_owned()], ..bob() }, BadUser::Control("group")),
            (User { email: Some("bob".to_owned()), ..bob() }, BadUser::Email("bob".to_owned())),
            (User { email: Some("a@b,c@d".to_owned()), ..bob() }, BadUser::Email("a@b,c@d".to_owned())),
            (User { email: Some("a @b".to_owned()), ..bob() }, BadUser::Email("a @b".to_owned())),
            (User { groups: vec![" admins".to_owned()], ..bob() }, BadUser::BlankInGroup(" admins".to_owned())),
            (User { groups: vec!["admins ".to_owned()], ..bob() }, BadUser::BlankInGroup("admins ".to_owned())),
        ] {
            assert_eq!(user.checked(), Err(fault));
        }
        let user = User { display_name: "Smith, Bob".to_owned(), email: None, groups: Vec::new(), ..bob() };
        assert!(user.checked().is_ok(), "a comma in a display name forges nothing");
    }

    #[test]
    fn threat_28_a_group_with_a_comma_cannot_exist() {
        for (group, fault) in [
            ("a,admins", BadUser::CommaInGroup("a,admins".to_owned())),
            (",", BadUser::CommaInGroup(",".to_owned())),
            ("", BadUser::EmptyGroup),
            (" ", BadUser::EmptyGroup),
        ] {
            let user = User { groups: vec!["dev".to_owned(), group.to_owned()], ..bob() };
            assert_eq!(user.checked(), Err(fault), "{group:?}");
        }
    }

    #[test]
    fn threat_27_an_identity_refuses_what_got_past_the_check() {
        for control in ["\r\n", "\n", "\0", "\t", "\u{7f}"] {
            let text = format!("a{control}b");
            assert!(identity(&User { name: text.clone(), ..bob() }).is_none(), "name {text:?}");
            assert!(identity(&User { display_name: text.clone(), ..bob() }).is_none(), "display name {text:?}");
            assert!(identity(&User { email: Some(text.clone()), ..bob() }).is_none(), "e-mail {text:?}");
            assert!(identity(&User { groups: vec![text.clone()], ..bob() }).is_none(), "group {text:?}");
        }
        let jurgen = identity(&User { name: "jürgen".to_owned(), ..bob() }).unwrap();
        assert_eq!(jurgen.headers().user.as_bytes(), "jürgen".as_bytes(), "UTF-8 as it is");
    }

    #[test]
    fn threat_38_names_are_compared_ignoring_case() {
        for name in ["bob", "BOB", "Bob", " bob ", "bOb\t"] {
            assert_eq!(folded(name), "bob", "{name:?}");
        }
        assert_eq!(folded("JÜRGEN"), "jürgen");
        assert_eq!(folded(&folded("İSTANBUL")), folded("İSTANBUL"));
    }
}
