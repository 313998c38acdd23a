//! Bringing a copy up to date, entry by entry as the client announces them. The client is not trusted: paths come in order
//! and below directories that it announced, and everything is made by descriptor inside the copy.

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rorqual_snapshot::HostDir;
use sha2::{Digest as _, Sha256};

use super::index::{Index, Known};
use super::lock;
use crate::Error;
use crate::contract::{TreeEntry, TreeSink};
use crate::error::other;

/// LIMIT: entries of one directory of a client.
const MAX_ENTRIES: usize = 4_000_000;
/// LIMIT: files whose content comes at the same time.
const MAX_OPEN: usize = 256;

const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const SOCKET: u32 = 0o140_000;

struct Pending {
    entry: TreeEntry,
    open: Option<(File, Sha256, u64)>,
}

pub(super) struct Sink {
    home: PathBuf,
    root: HostDir,
    index: Arc<Mutex<Index>>,
    came: Box<dyn Fn(u64) + Send>,
    total: u64,
    /// The index on disk was removed.
    dirty: bool,
    announced: HashSet<String>,
    last: Option<String>,
    pending: BTreeMap<String, Pending>,
    opened: usize,
}

fn refused(path: &str, why: &str) -> Error {
    let message = format!("the client sent {path:?}, which {why}");
    Error::Invalid { message, location: None }
}

fn failed(path: &str) -> impl FnOnce(io::Error) -> Error {
    other(format!("write {path:?} of the client's directory"))
}

impl Sink {
    pub(super) fn new(
        home: PathBuf,
        index: Arc<Mutex<Index>>,
        came: Box<dyn Fn(u64) + Send>,
    ) -> Result<Self, Error> {
        let root = HostDir::open(&home.join("files"))
            .map_err(other("open the copy of a client's directory"))?;
        Ok(Self {
            home,
            root,
            index,
            came,
            total: 0,
            dirty: false,
            announced: HashSet::new(),
            last: None,
            pending: BTreeMap::new(),
            opened: 0,
        })
    }

    fn check(&self, entry: &TreeEntry) -> Result<(), Error> {
        let path = &entry.path;
        let clean = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('\0');
        if !path.split('/').all(clean) {
            return Err(refused(path, "is no clean path"));
        }
        if self.announced.len() >= MAX_ENTRIES {
            return Err(refused(path, "is one entry too many"));
        }
        let after = |last: &String| last.split('/').lt(path.split('/'));
        if self.last.as_ref().is_some_and(|last| !after(last)) {
            return Err(refused(path, "comes out of order"));
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            let index = lock(&self.index);
            let parent_is_there = self.announced.contains(parent)
                && index
                    .known
                    .get(parent)
                    .is_some_and(|known| known.entry.mode & KIND == DIRECTORY);
            if !parent_is_there {
                return Err(refused(path, "lies in no directory that was announced"));
            }
        }
        Ok(())
    }

    /// ORDER: before anything of the copy changes.
    fn touch(&mut self, path: &str) -> Result<(), Error> {
        if !self.dirty {
            Index::forget(&self.home).map_err(other("remove an index"))?;
            self.dirty = true;
        }
        lock(&self.index).known.remove(path);
        Ok(())
    }

    fn make(&mut self, entry: &TreeEntry) -> Result<[u8; 32], Error> {
        let path = entry.path.as_str();
        let at = Path::new(path);
        match entry.mode & KIND {
            DIRECTORY => self.root.directory(at).map_err(failed(path))?,
            REGULAR => {
                // What has a link here is a further name of an earlier file.
                let index = lock(&self.index);
                let first = index.known.get(&entry.link).filter(|first| {
                    first.entry.mode & KIND == REGULAR && self.announced.contains(&entry.link)
                });
                let Some(first) = first else {
                    return Err(refused(path, "is a link to a file that was not announced"));
                };
                let digest = first.digest;
                drop(index);
                self.root.link(at, Path::new(&entry.link)).map_err(failed(path))?;
                return Ok(digest);
            }
            LINK => {
                if entry.link.is_empty() {
                    return Err(refused(path, "is a link to nothing"));
                }
                self.root.symlink(at, OsStr::new(&entry.link)).map_err(failed(path))?;
            }
            _ => self.root.node(at, entry.mode, entry.device).map_err(failed(path))?,
        }
        self.root
            .attributes(at, (entry.mode, entry.uid, entry.gid), entry.mtime, &entry.xattrs)
            .map_err(failed(path))?;
        Ok([0; 32])
    }

    fn open(&mut self, path: &str) -> Result<(), Error> {
        if self.opened >= MAX_OPEN {
            return Err(refused(path, "is one file too many at the same time"));
        }
        let file = self.root.file(Path::new(path)).map_err(failed(path))?;
        if let Some(pending) = self.pending.get_mut(path) {
            pending.open = Some((file, Sha256::new(), 0));
            self.opened += 1;
        }
        Ok(())
    }

    /// Removes what is here and was not announced.
    fn prune(&mut self) -> Result<(), Error> {
        let gone = {
            let index = lock(&self.index);
            let gone = index.known.keys().filter(|path| !self.announced.contains(*path));
            gone.cloned().collect::<Vec<_>>()
        };
        for path in gone {
            self.touch(&path)?;
            match self.root.remove(Path::new(&path)) {
                // What it lay in became something else, and took it along.
                Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {}
                removed => removed.map_err(failed(&path))?,
            }
        }
        Ok(())
    }

    /// Sets the times of directories, which writing into them has changed.
    fn directory_times(&self) -> Result<(), Error> {
        if !self.dirty {
            return Ok(());
        }
        for (path, known) in lock(&self.index).known.iter().rev() {
            let TreeEntry { mode, uid, gid, mtime, .. } = known.entry;
            if mode & KIND == DIRECTORY {
                let set = self.root.attributes(Path::new(path), (mode, uid, gid), mtime, &[]);
                set.map_err(failed(path))?;
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), Error> {
        if self.dirty {
            lock(&self.index).save(&self.home).map_err(other("write an index"))?;
            self.dirty = false;
        }
        Ok(())
    }
}

impl TreeSink for Sink {
    fn entry(&mut self, entry: TreeEntry) -> Result<bool, Error> {
        self.check(&entry)?;
        let path = entry.path.clone();
        self.last = Some(path.clone());
        if entry.mode & KIND == SOCKET {
            return Ok(false);
        }
        self.announced.insert(path.clone());
        if lock(&self.index).known.get(&path).is_some_and(|known| known.entry == entry) {
            return Ok(false);
        }
        self.touch(&path)?;
        if entry.mode & KIND == REGULAR && entry.link.is_empty() {
            self.pending.insert(path, Pending { entry, open: None });
            return Ok(true);
        }
        let digest = self.make(&entry)?;
        lock(&self.index).known.insert(path, Known { entry, digest });
        Ok(false)
    }

    fn data(&mut self, path: &str, bytes: &[u8]) -> Result<(), Error> {
        match self.pending.get(path) {
            None => return Err(refused(path, "was not asked for")),
            Some(pending) if pending.open.is_none() => self.open(path)?,
            Some(_) => {}
        }
        let open = self.pending.get_mut(path).and_then(|pending| pending.open.as_mut());
        if let Some((file, hash, size)) = open {
            file.write_all(bytes).map_err(failed(path))?;
            hash.update(bytes);
            *size += bytes.len() as u64;
        }
        self.total += bytes.len() as u64;
        (self.came)(self.total);
        Ok(())
    }

    fn end(&mut self, path: &str) -> Result<(), Error> {
        if self.pending.get(path).is_some_and(|pending| pending.open.is_none()) {
            self.open(path)?;
        }
        let Some(Pending { mut entry, open: Some((_, hash, size)) }) = self.pending.remove(path)
        else {
            return Err(refused(path, "was not asked for"));
        };
        self.opened -= 1;
        // It may have grown since it was announced.
        entry.size = size;
        let owner = (entry.mode, entry.uid, entry.gid);
        self.root
            .attributes(Path::new(path), owner, entry.mtime, &entry.xattrs)
            .map_err(failed(path))?;
        let digest = hash.finalize().into();
        lock(&self.index).known.insert(path.to_owned(), Known { entry, digest });
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        if let Some(path) = self.pending.keys().next() {
            return Err(refused(path, "did not come to its end"));
        }
        self.prune()?;
        self.directory_times()?;
        self.save()
    }
}

impl Drop for Sink {
    /// What came until the client went away is true, and does not have to come again.
    fn drop(&mut self) {
        if let Err(error) = self.save() {
            tracing::debug!(error = rorqual_core::full_message(&error), "a copy begins anew");
        }
    }
}
