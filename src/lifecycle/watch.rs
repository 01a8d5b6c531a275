//! Watches the files that a configuration was read from. Called by the loop of `lifecycle`; must never itself read what they mean.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use notify::{RecursiveMode, Watcher as _};
use sha2::{Digest, Sha256};
use tokio::{sync::mpsc, time};

/// Quiet time after a change before files are read, so that half a write is not taken.
const SETTLE: Duration = Duration::from_millis(200);
/// Between two looks at files that cannot be watched.
const UNWATCHED: Duration = Duration::from_secs(5);
/// Larger files are known by their size, time and place on the disk.
const READ_WHOLE: u64 = 4 << 20;
/// As many symbolic links as the kernel follows.
const MOST_LINKS: usize = 40;

/// A fingerprint of each file; none where it cannot be read.
type Contents = BTreeMap<PathBuf, Option<[u8; 32]>>;

/// The files that were read, and a watch on their folders. A folder is watched rather than a file, so that a swapped
/// symbolic link (Kubernetes) and an editor's rename are seen.
pub(super) struct Files {
    sources: Vec<PathBuf>,
    seen: Contents,
    events: mpsc::UnboundedReceiver<()>,
    /// None where the system gives none, for want of file descriptors most likely: no reason to end a server that runs.
    _watcher: Option<notify::RecommendedWatcher>,
}

impl Files {
    /// Whether it is these files that are watched.
    pub(super) fn watches(&self, sources: &[PathBuf]) -> bool {
        self.sources == sources
    }

    pub(super) fn watch(sources: &[PathBuf]) -> Self {
        let (sender, events) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event as well, of no use here and one that the look itself causes.
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _gone = sender.send(());
            }
        });
        let mut watcher = watcher
            .inspect_err(
                |error| tracing::warn!(%error, "cannot watch for changes: looking every {UNWATCHED:?} instead"),
            )
            .ok();
        let folders: BTreeSet<PathBuf> = sources.iter().flat_map(|source| folders_of(source)).collect();
        if let Some(watcher) = &mut watcher {
            for folder in folders {
                if let Err(error) = watcher.watch(&folder, RecursiveMode::NonRecursive) {
                    tracing::warn!(folder = %folder.display(), %error, "cannot watch for changes; SIGHUP still reloads");
                }
            }
        }
        Self { seen: contents(sources), sources: sources.to_vec(), events, _watcher: watcher }
    }

    /// Returns once the contents differ from what was read, and have stayed the same for a while. It is the contents that must
    /// be at rest: the folders may never be, where a log or a database lies beside what is watched.
    pub(super) async fn changed(&mut self) {
        loop {
            let is_watched = self.events.recv().await.is_some();
            time::sleep(if is_watched { SETTLE } else { UNWATCHED }).await;
            while self.events.try_recv().is_ok() {}
            let mut found = self.look().await;
            while found != self.seen {
                time::sleep(SETTLE).await;
                let later = self.look().await;
                if later == found {
                    return;
                }
                found = later;
            }
        }
    }

    async fn look(&self) -> Contents {
        // The look panicked: nothing has changed as far as anybody knows.
        look(&self.sources).await.unwrap_or_else(|| self.seen.clone())
    }
}

/// Returns after a while, once nobody writes.
pub(super) async fn at_rest_after(pause: Duration, sources: &[PathBuf]) {
    time::sleep(pause).await;
    let mut found = look(sources).await;
    loop {
        time::sleep(SETTLE).await;
        let later = look(sources).await;
        if later == found {
            return;
        }
        found = later;
    }
}

async fn look(sources: &[PathBuf]) -> Option<Contents> {
    let sources = sources.to_vec();
    tokio::task::spawn_blocking(move || contents(&sources)).await.ok()
}

/// The folder itself, or the folder of a file; and wherever on the way there a symbolic link stands, the folder that holds the
/// link, since that is where it is swapped.
fn folders_of(source: &Path) -> BTreeSet<PathBuf> {
    let (mut folders, mut seen) = (BTreeSet::new(), BTreeSet::new());
    let mut ways = vec![absolute(source)];
    while let Some(way) = ways.pop() {
        if seen.len() == MOST_LINKS || !seen.insert(way.clone()) {
            continue;
        }
        for step in way.ancestors() {
            if let (Ok(target), Some(folder)) = (fs::read_link(step), step.parent()) {
                folders.insert(folder.to_owned());
                ways.push(absolute(&folder.join(target)));
            }
        }
        folders.extend(if way.is_dir() { Some(way) } else { way.parent().map(Path::to_owned) });
    }
    folders
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Of each file; of each YAML file directly inside a folder, which is all that is read there.
fn contents(sources: &[PathBuf]) -> Contents {
    let digest = |path: &Path| fingerprint(path).ok();
    let mut found = BTreeMap::new();
    for source in sources {
        if source.is_dir() {
            for entry in fs::read_dir(source).into_iter().flatten().flatten() {
                let path = entry.path();
                let is_yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
                if is_yaml && path.is_file() {
                    let digest = digest(&path);
                    found.insert(path, digest);
                }
            }
        } else {
            found.insert(source.clone(), digest(source));
        }
    }
    found
}

/// By what is in a file. A database of addresses is too large to be read at each look: whoever replaces one makes a new file.
fn fingerprint(path: &Path) -> io::Result<[u8; 32]> {
    let about = fs::metadata(path)?;
    if about.len() <= READ_WHOLE {
        return Ok(Sha256::digest(fs::read(path)?).into());
    }
    let of = [about.len(), about.ino(), about.mtime().cast_unsigned(), about.mtime_nsec().cast_unsigned()];
    Ok(Sha256::digest(of.map(u64::to_be_bytes).as_flattened()).into())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Swaps a symbolic link as Kubernetes does: a new one beside it, renamed over the old.
    fn point(link: &Path, to: &str) {
        let new = link.with_file_name("new");
        symlink(to, &new).unwrap();
        fs::rename(new, link).unwrap();
    }

    async fn is_seen(files: &mut Files) -> bool {
        time::timeout(Duration::from_secs(10), files.changed()).await.is_ok()
    }

    /// A change of a file that is not a source, or of none: nothing is to be read again.
    async fn is_quiet(files: &mut Files) -> bool {
        time::timeout(SETTLE * 3, files.changed()).await.is_err()
    }

    #[test]
    fn contents_tell_files_apart_by_what_is_in_them() {
        let folder = tempfile::tempdir().unwrap();
        let (file, policies) = (folder.path().join("postern.yaml"), folder.path().join("policies"));
        write(&file, "one");
        write(&policies.join("access.yaml"), "rules: []");
        write(&policies.join("below/deep.yaml"), "not read");
        let sources = [file.clone(), policies.clone(), folder.path().join("gone")];
        let before = contents(&sources);
        assert_eq!(before.len(), 3, "a missing file counts as one: it may come");
        write(&file, "one");
        assert_eq!(contents(&sources), before, "touched alone");
        write(&file, "two");
        assert_ne!(contents(&sources), before);
        write(&file, "one");
        write(&policies.join("more.yaml"), "");
        assert_ne!(contents(&sources), before, "a file more");
    }

    /// As geoipupdate replaces a database, which may be of the same length.
    #[test]
    fn a_large_file_is_told_apart_without_being_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("countries.mmdb");
        let length = usize::try_from(READ_WHOLE).unwrap() + 1;
        fs::write(&file, vec![0; length]).unwrap();
        let sources = [file.clone()];
        let before = contents(&sources);
        assert_eq!(contents(&sources), before);
        let new = folder.path().join("new");
        fs::write(&new, vec![1; length]).unwrap();
        fs::rename(new, &file).unwrap();
        assert_ne!(contents(&sources), before);
    }

    #[tokio::test]
    async fn a_change_is_seen_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("postern.yaml");
        write(&file, "one");
        let sources = [file.clone()];
        let mut files = Files::watch(&sources);
        assert!(is_quiet(&mut files).await);
        write(&file, "two");
        assert!(is_seen(&mut files).await);
        // A reload watches anew before it reads.
        let mut files = Files::watch(&sources);
        assert!(is_quiet(&mut files).await, "seen already");
        write(&file, "three");
        assert!(is_seen(&mut files).await);
        let mut files = Files::watch(&sources);
        write(&folder.path().join("other.txt"), "x");
        assert!(is_quiet(&mut files).await);
        // An editor's way: a new file renamed over the old.
        let new = folder.path().join("new");
        write(&new, "four");
        fs::rename(new, &file).unwrap();
        assert!(is_seen(&mut files).await);
    }

    #[tokio::test]
    async fn a_swapped_symbolic_link_is_seen_wherever_it_stands() {
        let folder = tempfile::tempdir().unwrap();
        // As a volume of Kubernetes: config/postern.yaml -> ..data/postern.yaml, config/..data -> ..one.
        let config = folder.path().join("config");
        write(&config.join("..one/postern.yaml"), "one");
        write(&config.join("..two/postern.yaml"), "two");
        symlink("..one", config.join("..data")).unwrap();
        symlink("..data/postern.yaml", config.join("postern.yaml")).unwrap();
        // As a deployment by folders: current -> v1, policies inside.
        write(&folder.path().join("v1/policies/access.yaml"), "one");
        write(&folder.path().join("v2/policies/access.yaml"), "two");
        let current = folder.path().join("current");
        symlink("v1", &current).unwrap();
        let sources = [config.join("postern.yaml"), current.join("policies")];
        let mut files = Files::watch(&sources);
        assert!(is_quiet(&mut files).await);
        point(&config.join("..data"), "..two");
        assert!(is_seen(&mut files).await, "..data");
        let mut files = Files::watch(&sources);
        point(&current, "v2");
        assert!(is_seen(&mut files).await, "current");
        let mut files = Files::watch(&sources);
        write(&folder.path().join("v2/policies/access.yaml"), "three");
        assert!(is_seen(&mut files).await, "where the link leads now");
    }
}
