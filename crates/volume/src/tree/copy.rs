//! Copying a tree on one host: blocks are shared where the file system can, holes stay holes.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rorqual_sys::path::{Dir, Root};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::entry::{Entry, Kind};
use super::{Visitor, failed, present, walk};
use crate::contract::Error;
use crate::progress::Progress;

/// LIMIT: bytes of one copy_file_range(2), so that a cancellation is seen soon.
const STEP: u64 = 8 << 20;

/// Copies all of `source`, its own owner, mode and time too, into the empty directory `target`.
pub(crate) fn copy(source: &Dir, target: &Dir, progress: &Progress) -> Result<(), Error> {
    let root = Root::from_fd(target.try_clone().map_err(failed("open", b""))?.into());
    let mut copier = Copier { root, progress, links: HashMap::new(), reflinks: true };
    walk(source, &mut copier)
}

struct Copier<'p> {
    root: Root,
    progress: &'p Progress,
    /// Paths of files with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// Cleared by the first file for which it did not work.
    reflinks: bool,
}

impl Copier<'_> {
    fn make(&mut self, (dir, name): (&Dir, &OsStr), entry: &Entry) -> Result<(), Error> {
        let path = OsStr::from_bytes(&entry.path);
        let to = || failed("write", &entry.path);
        let (parent, new) = self.root.parent(Path::new(path)).map_err(to())?;
        if let Some(first) = entry.inode.and_then(|inode| self.links.get(&inode)) {
            let first = Path::new(OsStr::from_bytes(first));
            let (from, old) = self.root.parent(first).map_err(to())?;
            return parent.link(new, &from, old).map_err(to());
        }
        match &entry.kind {
            Kind::Directory => return parent.mkdir(new, 0o700).map_err(to()),
            Kind::File(_) => {
                let Some(source) = present(dir.open_file(name), &entry.path)? else {
                    return Ok(());
                };
                let target = parent.create(new).map_err(to())?;
                self.content(&source, &target, &entry.path)?;
            }
            _ => entry.make_node(&parent, new).map_err(to())?,
        }
        entry.dress(&parent, new).map_err(to())?;
        if let Some(inode) = entry.inode {
            self.links.insert(inode, entry.path.clone());
        }
        Ok(())
    }

    fn content(&mut self, source: &File, target: &File, path: &[u8]) -> Result<(), Error> {
        let size = rustix::fs::fstat(source).map_err(|e| failed("read", path)(e.into()))?.st_size;
        let size = size as u64;
        if size == 0 {
            return Ok(());
        }
        if self.reflinks {
            match rustix::fs::ioctl_ficlone(target, source) {
                Ok(()) => return self.progress.add_shared(size),
                Err(_) => self.reflinks = false,
            }
        }
        extents(source, size, |from, to| self.range((source, target), (from, to)))
            .map_err(|error| error.into_error(|source| failed("copy", path)(source)))?;
        rustix::fs::ftruncate(target, size).map_err(|e| failed("write", path)(e.into()))
    }

    /// Copies one range, in the kernel where it can.
    fn range(
        &self,
        (source, target): (&File, &File),
        (mut at, end): (u64, u64),
    ) -> Result<(), Stop> {
        while at < end {
            let step = (end - at).min(STEP);
            let (mut from, mut to) = (at, at);
            let len = match rustix::fs::copy_file_range(
                source,
                Some(&mut from),
                target,
                Some(&mut to),
                step as usize,
            ) {
                Ok(len) => len as u64,
                Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                    by_hand(source, target, at, step)?
                }
                Err(error) => return Err(Stop::Io(error.into())),
            };
            if len == 0 {
                // It became shorter meanwhile.
                return Ok(());
            }
            at += len;
            self.progress.add(len)?;
        }
        Ok(())
    }
}

impl Visitor for Copier<'_> {
    fn entry(&mut self, at: Option<(&Dir, &OsStr)>, entry: Entry) -> Result<(), Error> {
        if let Some(at) = at {
            self.make(at, &entry)?;
        }
        self.progress.entry()
    }

    fn leave(&mut self, entry: Entry) -> Result<(), Error> {
        // ORDER: what is made in a directory changes its time.
        let path = &entry.path;
        let to = || failed("write", path);
        if path.is_empty() {
            return entry.dress_root(self.root.dir()).map_err(to());
        }
        let (parent, name) = self.root.parent(Path::new(OsStr::from_bytes(path))).map_err(to())?;
        entry.dress(&parent, name).map_err(to())
    }
}

fn by_hand(source: &File, target: &File, at: u64, len: u64) -> io::Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut buffer = vec![0; len.min(1 << 20) as usize];
    let read = source.read_at(&mut buffer, at)?;
    target.write_all_at(&buffer[..read], at)?;
    Ok(read as u64)
}

/// Why a run over extents ended early.
pub(crate) enum Stop {
    Io(io::Error),
    Other(Error),
}

impl Stop {
    pub(crate) fn into_error(self, io: impl FnOnce(io::Error) -> Error) -> Error {
        match self {
            Self::Io(source) => io(source),
            Self::Other(error) => error,
        }
    }
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Calls `each` with every range of a file that holds data.
pub(crate) fn extents(
    file: &File,
    size: u64,
    mut each: impl FnMut(u64, u64) -> Result<(), Stop>,
) -> Result<(), Stop> {
    let mut at = 0;
    while at < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            // Nothing but a hole follows.
            Err(Errno::NXIO) => return Ok(()),
            // A file system that knows no holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return each(at, size),
            Err(error) => return Err(Stop::Io(error.into())),
        };
        let end = match rustix::fs::seek(file, SeekFrom::Hole(start)) {
            Ok(end) => end.min(size),
            Err(Errno::NXIO) => return Ok(()),
            Err(error) => return Err(Stop::Io(error.into())),
        };
        if start < end {
            each(start, end)?;
        }
        at = end.max(start + 1);
    }
    Ok(())
}
