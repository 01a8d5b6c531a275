//! Authelia's `users_database.yml`: read and held against what a user may be. Used by `users_file` and by `postern check`.
//! Collects every fault; never puts a hash into one.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_yaml::{Location, Spanned};
use sha2::{Digest, Sha256};

use crate::{
    config::{Fault, Faults, source::syntax_fault},
    core::user::{Attributes, User, folded},
    store::hasher::StoredHash,
};

/// Larger than any list of people that belongs into a file.
const MOST_BYTES: u64 = 64 << 20;

/// One entry that passed.
#[derive(Clone)]
pub(super) struct FileEntry {
    pub(super) user: User,
    pub(super) hash: SecretString,
    /// SHA-256 of all that the entry says.
    pub(super) fingerprint: [u8; 32],
}

/// By folded name.
pub(super) type Entries = HashMap<String, FileEntry>;

/// Checks a users file as the server would read it.
///
/// # Errors
/// Every fault at once. Otherwise: how many users it holds.
pub fn check_users_file(path: &Path) -> Result<usize, Faults> {
    read(path).map(|entries| entries.len())
}

#[derive(Deserialize)]
struct File {
    users: BTreeMap<String, Spanned<Raw>>,
}

#[derive(Deserialize)]
struct Raw {
    displayname: Option<String>,
    password: Option<Spanned<String>>,
    email: Option<String>,
    #[serde(default)]
    groups: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    disabled: bool,
    /// Attributes, as Authelia has them since 4.39.
    #[serde(default)]
    extra: Option<Attributes>,
}

pub(super) fn read(path: &Path) -> Result<Entries, Faults> {
    let whole = |message: String| Faults(vec![Fault { file: path.to_owned(), line: 0, column: 0, message }]);
    let size = std::fs::metadata(path).map_err(|error| whole(format!("cannot be read: {error}")))?.len();
    if size > MOST_BYTES {
        return Err(whole("is larger than 64 MiB: keep so many users in the database".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| whole(format!("cannot be read: {error}")))?;
    parse(path, &text)
}

fn parse(path: &Path, text: &str) -> Result<Entries, Faults> {
    let fault = |place: Option<Location>, message: String| Fault {
        file: path.to_owned(),
        line: place.map_or(0, |place| place.line()),
        column: place.map_or(0, |place| place.column()),
        message,
    };
    let file: File = serde_yaml::from_str(text).map_err(|error| Faults(vec![syntax_fault(path, &error)]))?;

    let mut faults = Vec::new();
    let mut entries = Entries::new();
    let mut spelled: HashMap<String, String> = HashMap::new();
    for (name, raw) in file.users {
        let place = Some(raw.referenced);
        if let Some(other) = spelled.insert(folded(&name), name.clone()) {
            faults.push(fault(
                place,
                format!("user {name:?} is {other:?} in another spelling: names are compared ignoring case"),
            ));
        }
        match entry(&name, raw.value) {
            Ok(entry) => {
                entries.insert(folded(&name), entry);
            }
            Err(found) => faults.extend(
                found.into_iter().map(|(at, message)| fault(at.or(place), format!("user {name:?}: {message}"))),
            ),
        }
    }
    faults.sort();
    if faults.is_empty() { Ok(entries) } else { Err(Faults(faults)) }
}

fn entry(name: &str, raw: Raw) -> Result<FileEntry, Vec<(Option<Location>, String)>> {
    let mut faults = Vec::new();
    match &raw.password {
        None => faults.push((None, "has no password: put a hash made by `postern hash` there".to_owned())),
        Some(password) => {
            if let Err(bad) = StoredHash::parse(&password.value) {
                faults.push((Some(password.referenced), bad.to_string()));
            }
        }
    }
    let groups = raw.groups.unwrap_or_default();
    for group in groups.iter().filter(|group| group.value.contains(',')) {
        let message = format!("the group {:?} holds a comma, which separates groups in Remote-Groups", group.value);
        faults.push((Some(group.referenced), message));
    }
    let user = User {
        name: name.to_owned(),
        display_name: raw.displayname.filter(|name| !name.is_empty()).unwrap_or_else(|| name.to_owned()),
        email: raw.email.filter(|email| !email.is_empty()),
        groups: groups.into_iter().map(|group| group.value).filter(|group| !group.contains(',')).collect(),
        disabled: raw.disabled,
        token_version: 1,
        attributes: raw.extra.unwrap_or_default(),
    };
    match (user.checked(), raw.password) {
        (Ok(user), Some(password)) if faults.is_empty() => {
            let fingerprint = fingerprint(&user, &password.value);
            Ok(FileEntry { user, hash: SecretString::from(password.value), fingerprint })
        }
        (Ok(_), _) => Err(faults),
        (Err(bad), _) => {
            faults.push((None, bad.to_string()));
            Err(faults)
        }
    }
}

/// A hash of the costs that most entries have: verifying it takes as long as verifying theirs (THREATS 39).
pub(super) fn decoy(entries: &Entries) -> Option<SecretString> {
    let mut by_costs: BTreeMap<&str, (usize, &SecretString)> = BTreeMap::new();
    for entry in entries.values() {
        by_costs.entry(costs_of(entry.hash.expose_secret())).or_insert((0, &entry.hash)).0 += 1;
    }
    by_costs.into_values().max_by_key(|(count, _)| *count).map(|(_, hash)| hash.clone())
}

/// All of a hash but its salt and its digest, which bcrypt writes as one.
fn costs_of(hash: &str) -> &str {
    let is_bcrypt = hash.trim_start_matches("{CRYPT}").starts_with("$2");
    let parts = if is_bcrypt { 1 } else { 2 };
    hash.rsplitn(parts + 1, '$').last().unwrap_or_default()
}

fn fingerprint(user: &User, hash: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    let mut add = |text: &str| {
        // Lengths first, so that no two entries give the same bytes.
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text.as_bytes());
    };
    add(&user.name);
    add(&user.display_name);
    add(user.email.as_deref().unwrap_or_default());
    add(hash);
    add(if user.disabled { "disabled" } else { "enabled" });
    user.groups.iter().for_each(|group| add(group));
    if !user.attributes.is_empty() {
        // No group is called so.
        add("\0attributes");
        add(&serde_json::json!(user.attributes).to_string());
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$5$abcdefgh$ZLdkj8mkc2XVSrPVjskDAgZPGjtj1VGVaa1aUkrMTU/";

    fn lines(text: &str) -> Vec<String> {
        parse(Path::new("users.yaml"), text)
            .err()
            .map(|faults| faults.0)
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn authelias_own_example_is_read_unchanged() {
        let text = r"
---
###############################################################
#                         Users Database                      #
###############################################################
users:
  authelia:
    disabled: false
    displayname: 'Test User'
    password: '$argon2id$v=19$m=65536,t=3,p=4$C5h1bHXhYmFkZmVhZGI$dGhpcnR5dHdvYnl0ZXNsb25nMTIzNDU2Nzg5MDEyMzQ'
    email: 'authelia@authelia.com'
    groups:
      - 'admins'
      - 'dev'
    given_name: ''
    family_name: ''
    middle_name: ''
    nickname: ''
    profile: ''
    picture: ''
    website: ''
    gender: ''
    birthdate: ''
    zoneinfo: ''
    locale: ''
    phone_number: ''
    phone_extension: ''
    address:
      street_address: ''
      locality: ''
    extra:
      example: 1
...
";
        let entries = parse(Path::new("users.yaml"), text).unwrap_or_else(|faults| panic!("{faults}"));
        let user = &entries["authelia"].user;
        assert_eq!(user.display_name, "Test User");
        assert_eq!(user.email.as_deref(), Some("authelia@authelia.com"));
        assert_eq!(user.groups, ["admins", "dev"]);
        assert!(!user.disabled);
    }

    #[test]
    fn threat_39_the_decoy_costs_what_most_hashes_cost() {
        let argon =
            |salt: &str| format!("$argon2id$v=19$m=65536,t=3,p=4${salt}$dGhpcnR5dHdvYnl0ZXNsb25nMTIzNDU2Nzg5MDEyMzQ");
        let (first, second) = (argon("C5h1bHXhYmFkZmVhZGI"), argon("2Jh1bHXhYmFkZmVhZGI"));
        let text = format!(
            "users:\n  ann:\n    password: '{first}'\n  bob:\n    password: '{HASH}'\n  carl:\n    password: '{second}'\n"
        );
        let entries = parse(Path::new("users.yaml"), &text).unwrap_or_else(|faults| panic!("{faults}"));
        let decoy = decoy(&entries).unwrap();
        assert_eq!(costs_of(decoy.expose_secret()), "$argon2id$v=19$m=65536,t=3,p=4");
        for (hash, costs) in [
            (HASH, "$5"),
            ("$6$rounds=9000$salt$digest", "$6$rounds=9000"),
            ("{CRYPT}$2b$12$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb", "{CRYPT}$2b$12"),
        ] {
            assert_eq!(costs_of(hash), costs);
        }
    }

    #[test]
    fn every_fault_is_named_with_its_place_and_no_hash() {
        let text = format!(
            "users:\n  ann:\n    password: '$y$j9T$secretpart'\n  bob:\n    password: '{HASH}'\n    groups:\n      - fine\n      - a,b\n  \
             BOB:\n    password: '{HASH}'\n  carl:\n    displayname: Carl\n  \"d\\nd\":\n    password: '{HASH}'\n"
        );
        let lines = lines(&text);
        assert_eq!(lines.len(), 5, "{lines:#?}");
        let all = lines.join("\n");
        assert!(!all.contains("secretpart") && !all.contains("abcdefgh"), "{all}");
        for (place, words) in [
            ("users.yaml:3:15", "user \"ann\": the password's hash is in no known format"),
            ("users.yaml:8:9", "the group \"a,b\" holds a comma"),
            ("users.yaml:5:", "in another spelling"),
            ("users.yaml:12:", "user \"carl\": has no password"),
            ("users.yaml:14:", "control character"),
        ] {
            assert!(
                lines.iter().any(|line| line.starts_with(place) && line.contains(words)),
                "{place} {words}: {lines:#?}"
            );
        }
    }

    #[test]
    fn broken_yaml_is_one_fault_without_the_lines_around_it() {
        for text in [
            "users: [",
            "users:\n  ann:\n    password: ['$5$secretpart']\n",
            "users:\n  ann: $5$secretpart\n",
            "users: $5$secretpart\n",
            "users:\n  ann: { password:$5$secretpart }\n",
            "users:\n  ann:\n    password: &secretpart\n",
            "users:\n  ann:\n    password: \"$5$secretpart\\q\"\n",
            "users:\n  ann:\n    password: !!binary secretpart\n",
            "",
            "users:\n  ann:\n  ann:\n",
        ] {
            let lines = lines(text);
            assert_eq!(lines.len(), 1, "{lines:?}");
            assert!(!lines[0].contains("secretpart"), "{lines:?}");
        }
    }
}
