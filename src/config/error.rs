//! Collects faults and warnings of one file, each at its place. Every part of `config` reports here and goes on, so that a
//! person sees all that is wrong at once; nothing here stops anything.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    Fault, Inspect, NamedFile, Unfit,
    shape::Checked,
    source::{Kind, Node, Place},
};
use crate::core::spelling::distance;

/// The way from the root of a file to a value: `server.listeners[0].address`. Its ways on share it: a file of ten thousand rules has many.
#[derive(Debug, Clone, Default)]
pub(super) struct Trail(Option<Arc<(Trail, Step)>>);

#[derive(Debug, Clone)]
enum Step {
    Key(String),
    Item(usize),
}

impl Trail {
    pub(super) fn root() -> Self {
        Self::default()
    }

    pub(super) fn key(&self, name: &str) -> Self {
        self.with(Step::Key(name.to_owned()))
    }

    pub(super) fn item(&self, index: usize) -> Self {
        self.with(Step::Item(index))
    }

    fn with(&self, step: Step) -> Self {
        Self(Some(Arc::new((self.clone(), step))))
    }

    /// From the root on.
    fn steps(&self) -> Vec<&Step> {
        let mut steps: Vec<&Step> =
            std::iter::successors(self.0.as_deref(), |(before, _)| before.0.as_deref()).map(|(_, step)| step).collect();
        steps.reverse();
        steps
    }
}

impl fmt::Display for Trail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.steps().into_iter().enumerate() {
            match step {
                Step::Key(name) if index == 0 => f.write_str(name)?,
                Step::Key(name) => write!(f, ".{name}")?,
                Step::Item(item) => write!(f, "[{item}]")?,
            }
        }
        Ok(())
    }
}

/// What is wrong with one file. Its tree is kept to look up places in.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) file: PathBuf,
    root: Node,
    /// Top-level keys below which something was taken out: what refers to them cannot be judged.
    pruned: Vec<String>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<Fault>,
    /// What the file names, by the key that does.
    named: Vec<(Trail, NamedFile)>,
}

impl Report {
    /// `root` is the tree as it is after pruning, so that its list indices are those of the raw values.
    pub(super) fn new(file: &Path, root: Node, checked: Checked) -> Self {
        let Checked { faults, pruned } = checked;
        Self { file: file.to_path_buf(), root, pruned, faults, warnings: Vec::new(), named: Vec::new() }
    }

    pub(super) fn is_pruned(&self, top_level_key: &str) -> bool {
        self.pruned.iter().any(|key| key == top_level_key)
    }

    pub(super) fn fault(&mut self, at: &Trail, message: impl Into<String>) {
        let fault = self.at(self.place(at).0, message);
        self.faults.push(fault);
    }

    /// As [`Report::fault`], where the key is wrong and not its value.
    pub(super) fn fault_of_key(&mut self, at: &Trail, message: impl Into<String>) {
        let fault = self.at(self.place(at).1, message);
        self.faults.push(fault);
    }

    pub(super) fn warn(&mut self, at: &Trail, message: impl Into<String>) {
        let warning = self.at(self.place(at).0, message);
        self.warnings.push(warning);
    }

    /// The value of a parse, or its message as a fault at `at`.
    pub(super) fn take<T>(&mut self, at: &Trail, parsed: Result<T, String>) -> Option<T> {
        parsed.map_err(|message| self.fault(at, message)).ok()
    }

    /// A file that is there and can be read: others look into it, and it is watched.
    pub(super) fn name(&mut self, at: &Trail, file: NamedFile) {
        self.named.push((at.clone(), file));
    }

    pub(super) fn inspect(&mut self, inspect: &Inspect<'_>) {
        for (at, file) in std::mem::take(&mut self.named) {
            match inspect(&file) {
                Ok(()) => {}
                Err(Unfit::Whole(message)) => self.fault(&at, message),
                Err(Unfit::Within(faults)) => self.faults.extend(faults.0),
            }
            self.named.push((at, file));
        }
    }

    pub(super) fn named_paths(&self) -> impl Iterator<Item = PathBuf> {
        self.named.iter().map(|(_, file)| file.path().to_owned())
    }

    /// What would be told of the value at `at`.
    pub(super) fn fault_at(&self, at: &Trail, message: impl Into<String>) -> Fault {
        self.at(self.place(at).0, message)
    }

    fn at(&self, place: Place, message: impl Into<String>) -> Fault {
        Fault { file: self.file.clone(), line: place.line, column: place.column, message: message.into() }
    }

    /// Places of the value and of its key; where the trail leads to nothing (a default), those of the nearest block.
    fn place(&self, trail: &Trail) -> (Place, Place) {
        let (mut node, mut key) = (&self.root, self.root.place);
        for step in trail.steps() {
            let next = match (step, &node.kind) {
                (Step::Key(name), Kind::Map(entries)) => {
                    entries.iter().find(|entry| entry.key == *name).map(|entry| (&entry.value, entry.place))
                }
                (Step::Item(index), Kind::Seq(items)) => items.get(*index).map(|item| (item, item.place)),
                _ => None,
            };
            match next {
                Some(found) => (node, key) = found,
                None => break,
            }
        }
        (node.place, key)
    }
}

/// `a`, `b` and `c` as a list for a message.
pub(super) fn list<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// "; did you mean `drain`?" where one of `known` is close to what was written.
pub(super) fn did_you_mean<'n>(written: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let written = written.to_lowercase();
    let tolerance = if written.chars().count() < 4 { 1 } else { 2 };
    let nearest = known
        .into_iter()
        .map(|name| (distance(&written, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= tolerance)
        .min();
    nearest.map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"))
}
