//! Writes a received tree into a directory of this machine (`type=local`). What is there stays, what has the same name
//! is replaced; nothing is followed out of the directory.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use rorqual_build::{Error, TreeEntry, TreeSink};
use rorqual_core::ErrorKind;
use rorqual_sys::path::{Dir, Root};
use rustix::fs::Timespec;

/// The directory that is written.
pub(crate) struct DirectorySink {
    root: Root,
    open: HashMap<String, (File, TreeEntry)>,
    /// Times of directories are set last: writing into them changes them.
    directories: Vec<TreeEntry>,
}

fn failed(path: &str, source: std::io::Error) -> Error {
    Error::Other {
        action: format!("write {path:?}"),
        kind: ErrorKind::Internal,
        source: source.into(),
    }
}

impl DirectorySink {
    /// Opens a directory, making it when it is missing. Blocking.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let shown = path.display().to_string();
        std::fs::create_dir_all(path).map_err(|error| failed(&shown, error))?;
        let root = Root::open(path).map_err(|error| failed(&shown, error))?;
        Ok(Self { root, open: HashMap::new(), directories: Vec::new() })
    }

    fn make(&mut self, entry: TreeEntry) -> std::io::Result<bool> {
        let path = entry.path.clone();
        let (parent, name) = self.root.parent(Path::new(&path))?;
        let kind = entry.mode & 0o170_000;
        let is_there = parent.find(name)?;
        if kind == 0o040_000 {
            let is_dir = is_there.is_some_and(|stat| stat.st_mode & 0o170_000 == 0o040_000);
            if !is_dir {
                parent.remove_tree(name)?;
                parent.mkdir(name, entry.mode & 0o7777 | 0o700)?;
            }
            self.directories.push(entry);
            return Ok(false);
        }
        parent.remove_tree(name)?;
        match kind {
            0o120_000 => {
                parent.symlink(name, entry.link.as_ref())?;
                set_time(&parent, name.as_ref(), entry.mtime)?;
                Ok(false)
            }
            0o100_000 if !entry.link.is_empty() => {
                let (from, source) = self.root.parent(Path::new(&entry.link))?;
                parent.link(name, &from, source)?;
                Ok(false)
            }
            0o100_000 => {
                let file = parent.create(name)?;
                self.open.insert(path, (file, entry));
                Ok(true)
            }
            // Devices and pipes are for images, not for the user's directory.
            _ => Ok(false),
        }
    }
}

fn set_time(parent: &Dir, name: &Path, mtime: i64) -> std::io::Result<()> {
    let time = Timespec {
        tv_sec: mtime.div_euclid(1_000_000_000),
        tv_nsec: mtime.rem_euclid(1_000_000_000),
    };
    parent.set_mtime(name.as_os_str(), time)
}

impl TreeSink for DirectorySink {
    fn entry(&mut self, entry: TreeEntry) -> Result<bool, Error> {
        let path = entry.path.clone();
        self.make(entry).map_err(|error| failed(&path, error))
    }

    fn data(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        let Some((file, _)) = self.open.get_mut(path) else { return Ok(()) };
        file.write_all(bytes).map_err(|error| failed(path, error))
    }

    fn end(&mut self, path: &str) -> Result<(), Error> {
        let Some((file, entry)) = self.open.remove(path) else { return Ok(()) };
        drop(file);
        let finish = || {
            let (parent, name) = self.root.parent(Path::new(path))?;
            parent.chmod(name, entry.mode & 0o7777)?;
            set_time(&parent, name.as_ref(), entry.mtime)
        };
        finish().map_err(|error| failed(path, error))
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        for entry in self.directories.iter().rev() {
            let finish = || {
                let (parent, name) = self.root.parent(Path::new(&entry.path))?;
                parent.chmod(name, entry.mode & 0o7777)?;
                set_time(&parent, name.as_ref(), entry.mtime)
            };
            finish().map_err(|error| failed(&entry.path, error))?;
        }
        Ok(())
    }
}
