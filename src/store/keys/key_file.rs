//! `storage.key_file`: 32 bytes in base64 that encrypt what must not be read by whoever reads the database. Read by `keys` when the stores are
//! opened; made (0600) at the first start. Never overwrites a file, and never writes its content anywhere else.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::KeyError;
use crate::ports::Entropy;

pub(super) fn read_or_create(
    path: &Path,
    may_create: bool,
    entropy: &dyn Entropy,
) -> Result<Zeroizing<[u8; 32]>, KeyError> {
    let failed = |why| KeyError::File { path: path.to_owned(), why };
    match fs::read_to_string(path).map(Zeroizing::new) {
        Ok(text) => parsed(&text).ok_or_else(|| KeyError::Malformed(path.to_owned())),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(error)),
        Err(_) if !may_create => Err(KeyError::Missing(path.to_owned())),
        Err(_) => {
            create(path, entropy).map_err(failed)?;
            // Read back: another process may have been first.
            let text = fs::read_to_string(path).map(Zeroizing::new).map_err(failed)?;
            parsed(&text).ok_or_else(|| KeyError::Malformed(path.to_owned()))
        }
    }
}

fn parsed(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
    <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new)
}

/// Written whole under another name, then linked: nobody can read half a key, and an existing file is never overwritten.
fn create(path: &Path, entropy: &dyn Entropy) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut secret = Zeroizing::new([0; 32]);
    entropy.fill(secret.as_mut_slice());
    let mut unique = [0; 8];
    entropy.fill(&mut unique);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", u64::from_le_bytes(unique)));
    let written = path.with_file_name(name);
    let linked = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&written).and_then(|mut file| {
        file.write_all(Zeroizing::new(STANDARD.encode(secret.as_slice()) + "\n").as_bytes())?;
        file.sync_all()?;
        fs::hard_link(&written, path)
    });
    let _ = fs::remove_file(&written);
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
