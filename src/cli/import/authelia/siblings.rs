//! Other files of Authelia's folder. Given the folder, Authelia reads all of them as one configuration, and this import one alone: rules
//! that stand in another would be lost. So there must be no other.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::{
    spot::{Spot, is_templated},
    templates,
};
use crate::{config::source, core::printable::printable};

/// Of every version of Authelia; not those that say nothing about access and that many other programs have too (`log`, `port`).
#[rustfmt::skip]
const KEYS: &[&str] = &[
    "access_control", "authentication_backend", "certificates_directory", "default_2fa_method", "default_redirection_url",
    "definitions", "duo_api", "identity_providers", "identity_validation", "jwt_secret", "notifier", "password_policy",
    "privacy_policy", "regulation", "server", "session", "storage", "totp", "webauthn",
];
const ENDINGS: &[&str] = &[".yml", ".yaml", ".toml", ".json"];

/// Fails where more than `file` may be part of the configuration. The users' file is none.
pub(super) fn ensure_alone(folder: &Path, file: Option<&Path>) -> anyhow::Result<()> {
    let mut parts: Vec<String> = file.map(name_of).into_iter().collect();
    parts.extend(parts_beside(folder, file)?);
    if parts.len() < 2 {
        return Ok(());
    }
    bail!(
        "{} of {} look like Authelia's configuration, which may read them as one; the import reads one file: merge them into one and \
             import that, or name the file itself if Authelia reads no other",
        parts.join(", "),
        folder.display()
    )
}

/// Names of what may be part of the configuration beside `file`.
pub(super) fn others(folder: &Path, file: &Path) -> anyhow::Result<Vec<String>> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    parts_beside(folder, Some(file))
}

fn parts_beside(folder: &Path, file: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let name = file.and_then(Path::file_name);
    let mut parts = Vec::new();
    for path in files(folder)?.iter().filter(|path| name.is_none() || path.file_name() != name) {
        match fs::read(path) {
            Ok(content) if may_be_part(path, &String::from_utf8_lossy(&content)) => parts.push(name_of(path)),
            Ok(_) => {}
            Err(error) => parts.push(format!("{} (cannot be read: {error})", name_of(path))),
        }
    }
    Ok(parts)
}

fn name_of(path: &Path) -> String {
    printable(&path.file_name().unwrap_or_default().to_string_lossy())
}

fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let cannot = || format!("cannot read {}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(cannot)? {
        let entry = entry.with_context(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        if ENDINGS.iter().any(|ending| name.ends_with(ending)) && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether a key of Authelia's stands at the top, or something that may become one.
fn may_be_part(path: &Path, text: &str) -> bool {
    if templates::in_comments(text) {
        return true;
    }
    let is_toml = path.extension().is_some_and(|extension| extension == "toml");
    match source::parse(path, text) {
        Ok(root) if !is_toml => {
            let root = Spot::root(&root);
            root.named().any(|(key, _)| is_key(key))
                || root.items().iter().any(|item| item.text().is_some_and(is_templated))
        }
        // With templates in it, it need not be YAML.
        _ => text.lines().any(|line| line.starts_with("{{") || line.starts_with("<%") || is_key(first_word(line))),
    }
}

fn is_key(key: &str) -> bool {
    is_templated(key) || key.split('.').next().is_some_and(|first| KEYS.contains(&first))
}

/// `key` of `key:`, `"key" =`, `[key.inner]` and `[[key]]`.
fn first_word(line: &str) -> &str {
    let rest = line.trim_start_matches(['[', '"', '\'']);
    let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && !matches!(letter, '_' | '-'));
    end.and_then(|end| rest.get(..end)).unwrap_or(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_part_of_the_configuration() {
        for (name, text) in [
            ("a.yml", "access_control: {}\n"),
            ("a.yml", "---\naccess_control.rules: []\n"),
            ("a.yaml", "identity_providers:\n  oidc:\n    key: {{ secret \"a\" }}\n"),
            ("a.yml", "{{ fileContent \"acl.yml\" }}\n"),
            ("a.yml", "# {{ fileContent \"acl.yml\" }}\n"),
            ("a.yml", "$SECTION: {}\n"),
            ("a.yml", "'{{ fileContent \"acl.yml\" }}'\n"),
            ("a.yml", "a: 1\n---\nsession: {}\n"),
            ("a.json", "{\n  \"session\": {}\n}\n"),
            ("a.toml", "[access_control]\ndefault_policy = 'bypass'\n"),
            ("a.toml", "[[access_control.rules]]\n"),
            ("a.toml", "totp = 'x'\n"),
            ("a.toml", "session.name = 'a'\n"),
        ] {
            assert!(may_be_part(Path::new(name), text), "{name}: {text}");
        }
        for (name, text) in [
            ("users.yml", "users:\n  bob:\n    password: '$argon2id$v=19$m=65536'\n"),
            ("users.yml", "users:\n  session: { password: '$5$a' }\n"),
            ("a.yml", ""),
            ("a.yml", "# access_control: {}\n"),
            ("compose.yml", "services:\n  authelia: { environment: { A: '${A}' } }\n"),
            ("compose.yml", "services:\n  authelia: {}\n  # volumes: [ '${DATA}/x:/x' ]\n"),
            ("traefik.yml", "log: { level: INFO }\nentryPoints: {}\n"),
            ("a.json", "[1, 2]\n"),
            ("a.yml", "not: [yaml\n"),
            ("a.toml", "[servers]\nlogs = 1\n"),
        ] {
            assert!(!may_be_part(Path::new(name), text), "{name}: {text}");
        }
    }
}
