//! Trees of files as data: walking one, and making entries with all that belongs to them.
//!
//! Everything is reached by descriptor, one name at a time, and no link is followed: who uses a volume may change it
//! meanwhile. What vanishes under way is left out.

pub(crate) mod copy;
pub(crate) mod entry;

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;

use rorqual_sys::path::{Dir, DirEntry};
use rustix::fs::FileType;

use crate::contract::Error;
use entry::Entry;

/// LIMIT: descriptors held at once; what lies deeper is refused rather than left out.
const MAX_DEPTH: usize = 400;

/// Makes an error of a failed system call on a path inside a volume.
pub(crate) fn failed(action: &str, path: &[u8]) -> impl FnOnce(io::Error) -> Error {
    let shown = if path.is_empty() { "." } else { &String::from_utf8_lossy(path) };
    let action = format!("{action} {shown:?}");
    move |source| Error::Io { action, source }
}

/// What is done with each entry of a tree.
pub(crate) trait Visitor {
    /// Takes an entry. `dir` holds `name`; both are `None` for the root itself.
    fn entry(&mut self, at: Option<(&Dir, &OsStr)>, entry: Entry) -> Result<(), Error>;

    /// All that is in a directory was visited.
    fn leave(&mut self, entry: Entry) -> Result<(), Error>;
}

/// A directory that is being visited.
struct Level {
    dir: Dir,
    entry: Entry,
    rest: std::vec::IntoIter<DirEntry>,
}

impl Level {
    fn open(dir: Dir, entry: Entry) -> Result<Self, Error> {
        let rest = dir.entries().map_err(failed("list", &entry.path))?.into_iter();
        Ok(Self { dir, entry, rest })
    }
}

/// Visits the root and all below it, directories before what is in them, names sorted.
pub(crate) fn walk(root: &Dir, visitor: &mut impl Visitor) -> Result<(), Error> {
    let entry = Entry::of_directory(root, Vec::new()).map_err(failed("read", b""))?;
    visitor.entry(None, entry.clone())?;
    let root = root.try_clone().map_err(failed("open", b""))?;
    let mut levels = vec![Level::open(root, entry)?];
    while let Some(level) = levels.last_mut() {
        let Some(found) = level.rest.next() else {
            if let Some(level) = levels.pop() {
                visitor.leave(level.entry)?;
            }
            continue;
        };
        let path = join(&level.entry.path, &found.name);
        if found.kind != FileType::Directory {
            let read = Entry::of_name(&level.dir, &found.name, path.clone());
            let Some(entry) = present(read, &path)? else { continue };
            visitor.entry(Some((&level.dir, &found.name)), entry)?;
            continue;
        }
        let Some(child) = present(level.dir.child(&found.name), &path)? else { continue };
        let entry = Entry::of_directory(&child, path.clone()).map_err(failed("read", &path))?;
        visitor.entry(Some((&level.dir, &found.name)), entry.clone())?;
        let next = Level::open(child, entry)?;
        levels.push(next);
        if levels.len() > MAX_DEPTH {
            let shown = String::from_utf8_lossy(&path).into_owned();
            return Err(Error::Unsupported(format!(
                "directories are nested more than {MAX_DEPTH} deep: {shown:?}"
            )));
        }
    }
    Ok(())
}

/// Turns "no such file" into nothing.
pub(crate) fn present<T>(result: io::Result<T>, path: &[u8]) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

fn join(path: &[u8], name: &OsStr) -> Vec<u8> {
    if path.is_empty() { name.as_bytes().to_vec() } else { [path, b"/", name.as_bytes()].concat() }
}

#[cfg(test)]
pub(crate) mod tests;
