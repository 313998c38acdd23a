//! A directory of this machine as a tree that can be sent: walked in order, filtered, links kept as they are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rorqual_build::ignore::{DirState, Links, TreeFilter, Verdict, follow_links};
use rorqual_build::{Error, TreeEntry};
use rorqual_core::ErrorKind;
use rorqual_sys::path::{Dir, Root};
use rustix::fs::FileType;

use super::{SourceFile, SourceTree};

/// LIMIT: directories inside each other; paths that deep do not fit the protocol anyway.
const DEEPEST: usize = 2048;

/// A filtered directory.
pub(crate) struct LocalTree {
    root: Root,
    path: PathBuf,
    filter: TreeFilter,
}

/// What of a directory is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selection {
    pub(crate) include: Vec<String>,
    pub(crate) exclude: Vec<String>,
    pub(crate) follow: Vec<String>,
}

struct RootLinks<'a>(&'a Root);

impl Links for RootLinks<'_> {
    fn read_link(&self, path: &str) -> Option<String> {
        let target = self.0.read_link(Path::new(path)).ok()?;
        Some(target.to_string_lossy().into_owned())
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = self.0.open_dir(Path::new(directory)).and_then(|dir| dir.entries());
        let names = entries.unwrap_or_default().into_iter();
        names.map(|entry| entry.name.to_string_lossy().into_owned()).collect()
    }
}

fn failed(action: String, source: std::io::Error) -> Error {
    let kind = match source.kind() {
        std::io::ErrorKind::NotFound => ErrorKind::NotFound,
        std::io::ErrorKind::PermissionDenied => ErrorKind::Forbidden,
        _ => ErrorKind::Internal,
    };
    Error::Other { action, kind, source: source.into() }
}

impl LocalTree {
    /// Opens a directory. Blocking.
    pub(crate) fn open(path: &Path, selection: Selection) -> Result<Self, Error> {
        let root =
            Root::open(path).map_err(|error| failed(format!("open {}", path.display()), error))?;
        let mut include = selection.include;
        if !selection.follow.is_empty() {
            let followed = follow_links(&RootLinks(&root), &selection.follow);
            if followed.is_empty() {
                // The root itself is needed, whatever else is named.
                include.clear();
            } else {
                include.extend(followed);
            }
        }
        let filter = TreeFilter::new(&include, &selection.exclude)
            .map_err(|error| Error::Invalid { message: error.to_string(), location: None })?;
        Ok(Self { root, path: path.to_owned(), filter })
    }

    fn walk_dir(&self, dir: &Dir, at: &mut Walk<'_>, state: &DirState) -> Result<(), Error> {
        if at.waiting.len() + at.depth > DEEPEST {
            return Err(Error::Invalid {
                message: format!(
                    "{} has more than {DEEPEST} levels of directories",
                    self.path.display()
                ),
                location: None,
            });
        }
        let prefix = at.prefix.clone();
        let fail = |name: &OsStr, error| {
            let path = self.path.join(&prefix).join(name);
            failed(format!("read {}", path.display()), error)
        };
        let entries = dir.entries().map_err(|error| fail(OsStr::new(""), error))?;
        for entry in entries {
            let Some(name) = entry.name.to_str() else {
                return Err(Error::Invalid {
                    message: format!(
                        "\"{}\" in {prefix:?} is no name in UTF-8",
                        entry.name.display()
                    ),
                    location: None,
                });
            };
            let path = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
            let is_dir = entry.kind == FileType::Directory;
            let (verdict, below) = self.filter.decide(&path, is_dir, state);
            if verdict == Verdict::Skip {
                continue;
            }
            // What goes away while the directory is read was never there.
            let Some(stat) = dir.find(&entry.name).map_err(|error| fail(&entry.name, error))?
            else {
                continue;
            };
            let mut tree_entry = describe(&path, &stat);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
                let target =
                    dir.read_link(&entry.name).map_err(|error| fail(&entry.name, error))?;
                tree_entry.link = target.to_string_lossy().into_owned();
            }
            // Sockets have no meaning anywhere else.
            if FileType::from_raw_mode(stat.st_mode) == FileType::Socket {
                continue;
            }
            if verdict == Verdict::Take {
                at.release()?;
                (at.each)(tree_entry.clone())?;
            }
            if is_dir {
                let child = dir.child(&entry.name).map_err(|error| fail(&entry.name, error))?;
                let is_waiting = verdict == Verdict::Enter;
                if is_waiting {
                    at.waiting.push(tree_entry);
                }
                let (waiting, outer) = (at.waiting.len(), std::mem::replace(&mut at.prefix, path));
                at.depth += 1;
                self.walk_dir(&child, at, &below)?;
                at.depth -= 1;
                at.prefix = outer;
                // Still there: nothing below it was taken.
                if is_waiting && at.waiting.len() == waiting {
                    at.waiting.pop();
                }
            }
        }
        Ok(())
    }
}

struct Walk<'a> {
    each: &'a mut dyn FnMut(TreeEntry) -> Result<(), Error>,
    prefix: String,
    depth: usize,
    /// Directories that are announced once something below them is.
    waiting: Vec<TreeEntry>,
}

impl Walk<'_> {
    fn release(&mut self) -> Result<(), Error> {
        self.waiting.drain(..).try_for_each(|entry| (self.each)(entry))
    }
}

fn describe(path: &str, stat: &rustix::fs::Stat) -> TreeEntry {
    let kind = FileType::from_raw_mode(stat.st_mode);
    TreeEntry {
        path: path.to_owned(),
        mode: stat.st_mode,
        // COMPAT: whose files are at the client is not the image's business.
        uid: 0,
        gid: 0,
        size: if kind == FileType::RegularFile { stat.st_size as u64 } else { 0 },
        mtime: stat
            .st_mtime
            .saturating_mul(1_000_000_000)
            .saturating_add(stat.st_mtime_nsec as i64),
        link: String::new(),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

impl SourceTree for LocalTree {
    fn walk(&self, each: &mut dyn FnMut(TreeEntry) -> Result<(), Error>) -> Result<(), Error> {
        let mut walk = Walk { each, prefix: String::new(), depth: 0, waiting: Vec::new() };
        self.walk_dir(self.root.dir(), &mut walk, &DirState::default())
    }

    fn open(&self, path: &str) -> Result<Option<SourceFile>, Error> {
        match self.root.open_file(Path::new(path)) {
            Ok(file) => Ok(Some(Box::new(file))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(format!("open {}", self.path.join(path).display()), error)),
        }
    }
}

#[cfg(test)]
mod tests;
