//! `authentication_backend:`: a users file is taken as it is; of anything else Postern has its own.

use std::path::{Path, PathBuf};

use super::{
    ledger::Ledger,
    spot::{Placed, Spot, is_templated},
};

/// The users file that is to be copied; `None`: the database.
pub(super) fn users_file(root: &Spot<'_>, folder: &Path, ledger: &mut Ledger) -> Option<Placed<PathBuf>> {
    let others = [
        (
            "authentication_backend.ldap",
            "people in LDAP; Postern has no LDAP in this version: they are in its database, which is empty",
            Some("add people with `postern user add`"),
        ),
        ("authentication_backend.password_reset", "mails for a new password; Postern sends none", None),
        ("authentication_backend.disable_reset_password", "mails for a new password; Postern sends none", None),
        (
            "authentication_backend.password_change",
            "the page for a new password; Postern has none in this version",
            None,
        ),
        (
            "authentication_backend.refresh_interval",
            "how often groups are read again; Postern's users file is read when it changes, and a change ends the \
                 user's sessions",
            None,
        ),
        ("authentication_backend.file.watch", "whether a changed file is read again; Postern always does", None),
        (
            "authentication_backend.file.search",
            "other ways to write one's name at sign-in; Postern takes the name, ignoring case, and no email",
            None,
        ),
        (
            "authentication_backend.file.password",
            "how new passwords are hashed; `postern hash` uses argon2id, and all that the file holds are read",
            None,
        ),
        (
            "authentication_backend.file.password_hashing",
            "how new passwords are hashed; `postern hash` uses argon2id, and all that the file holds are read",
            None,
        ),
        (
            "authentication_backend.file.extra_attributes",
            "more about each user; Postern's headers hold name, display name, email and groups",
            None,
        ),
    ];
    for (keys, message, to_do) in others {
        match (root.get(keys), to_do) {
            (Some(spot), Some(to_do)) => ledger.leave_to_do(&spot, message, to_do),
            (Some(spot), None) => ledger.find(&spot, message),
            (None, _) => {}
        }
    }
    let spot = root.get("authentication_backend.file.path").or_else(|| root.get("authentication_backend.file"))?;
    let file = spot.text().filter(|text| !is_templated(text)).and_then(|text| found(text, folder));
    if let Some(file) = file {
        ledger.carry(&spot);
        return Some(Placed::at(&spot, file));
    }
    let message = match spot.text().and_then(|text| Path::new(text).file_name()) {
        Some(name) => format!(
            "the users file is not there, and no `{}` beside the configuration either; nobody can sign in until it is \
                 copied to \
             config/users.yaml, and `users: {{ source: file, path: config/users.yaml }}` is written",
            name.to_string_lossy()
        ),
        None => "names no users file; nobody can sign in until there are users".to_owned(),
    };
    ledger.leave_to_do(&spot, message, "copy the users file to config/users.yaml, and name it under `users`");
    None
}

/// As written, else beside the configuration: a container's `/config/…` is another folder here.
fn found(text: &str, folder: &Path) -> Option<PathBuf> {
    let written = Path::new(text);
    let beside = folder.join(written.file_name()?);
    [folder.join(written), beside].into_iter().find(|path| path.is_file())
}
