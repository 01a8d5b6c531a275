//! Puts the files into their place: all of them, once they are known to be good, or none. Never over anything that is there.

use std::{
    fs, io,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tempfile::{TempDir, TempPath};

use crate::{
    app,
    config::{Faults, Loaded},
};

pub(super) struct File {
    /// From the output folder.
    pub(super) name: &'static str,
    pub(super) content: Vec<u8>,
    /// Nobody else may read it.
    pub(super) is_private: bool,
}

/// Fails where something is in the way.
pub(super) fn ensure_free(output: &Path, files: &[File]) -> anyhow::Result<()> {
    for file in files {
        let path = output.join(file.name);
        // A link that leads nowhere is in the way as well.
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} exists already, and import never overwrites; choose another folder with --output",
                path.display()
            );
        }
    }
    // All files of the folder are read as one: other rules could stand before the imported ones.
    let folder = output.join("policies");
    let entries = match fs::read_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
    };
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            bail!(
                "{} would be read together with the imported rules; choose another folder with --output, or move it away",
                path.display()
            );
        }
    }
    Ok(())
}

/// The files in a temporary folder near to where they are to be.
pub(super) struct Staged {
    folder: TempDir,
}

impl Staged {
    pub(super) fn write(output: &Path, files: &[File]) -> anyhow::Result<Self> {
        let near = output.ancestors().find(|folder| folder.is_dir()).unwrap_or(output);
        let folder = tempfile::Builder::new()
            .prefix(".postern-import-")
            .tempdir_in(near)
            .with_context(|| format!("cannot write to {}", near.display()))?;
        fs::create_dir(folder.path().join("policies")).context("cannot create a temporary folder")?;
        for file in files {
            write_new(&folder.path().join(file.name), file)?;
        }
        Ok(Self { folder })
    }

    /// What `postern check` says.
    ///
    /// Paths in a configuration are relative to the working directory, so the check is made from where the files are.
    pub(super) fn check(&self) -> anyhow::Result<Result<Loaded, Faults>> {
        let before = std::env::current_dir().context("the working directory cannot be read")?;
        std::env::set_current_dir(self.folder.path()).context("cannot change into a temporary folder")?;
        let loaded = app::load(Path::new("config/postern.yaml"));
        std::env::set_current_dir(&before).with_context(|| format!("cannot change into {}", before.display()))?;
        Ok(loaded)
    }

    /// Moves all files to where they belong; if one fails, those before it are taken away again.
    pub(super) fn place(self, output: &Path, files: &[File]) -> anyhow::Result<()> {
        let mut placed = Placed::default();
        for file in files {
            let target = output.join(file.name);
            if let Some(folder) = target.parent() {
                placed.create_folders(folder)?;
            }
            let staged =
                TempPath::try_from_path(self.folder.path().join(file.name)).context("a temporary file is gone")?;
            staged.persist_noclobber(&target).with_context(|| format!("cannot write {}", target.display()))?;
            placed.files.push(target);
        }
        placed.keep();
        Ok(())
    }
}

/// What is taken away again, unless it is kept.
#[derive(Default)]
struct Placed {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
}

impl Placed {
    fn create_folders(&mut self, folder: &Path) -> anyhow::Result<()> {
        let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.is_dir()).collect();
        for folder in missing.into_iter().rev() {
            fs::create_dir(folder).with_context(|| format!("cannot create {}", folder.display()))?;
            self.folders.push(folder.to_owned());
        }
        Ok(())
    }

    fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // The failure that led here is told; one of these would only hide it.
        for file in &self.files {
            drop(fs::remove_file(file));
        }
        for folder in self.folders.iter().rev() {
            drop(fs::remove_dir(folder));
        }
    }
}

fn write_new(path: &Path, file: &File) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mode = if file.is_private { 0o600 } else { 0o666 };
    let mut open = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    open.as_mut()
        .map_err(|error| io::Error::new(error.kind(), error.to_string()))
        .and_then(|open| open.write_all(&file.content))
        .with_context(|| format!("cannot write {}", path.display()))
}
