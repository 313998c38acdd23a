//! Resolution name by name, for a host too busy for `openat2(2)` to settle.
//!
//! Every directory on the way is held open, so `..` means the one we came through, whatever is renamed meanwhile, and
//! nothing leads above the root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// LIMIT: links on one way, the kernel's own limit.
const LINKS: usize = 40;

/// LIMIT: directories held open at once; deeper ones are opened again by the kernel soon enough.
const DEPTH: usize = 256;

struct Walk<'r> {
    root: BorrowedFd<'r>,
    /// The directories below the root that lead here; the last may be anything.
    stack: Vec<OwnedFd>,
    todo: VecDeque<OsString>,
    links: usize,
}

/// Opens `path` below `root` with `flags`, following links as the kernel does with this root.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mut walk = Walk { root, stack: Vec::new(), todo: VecDeque::new(), links: 0 };
    walk.push(path.as_os_str());
    let keep_last = flags.contains(OFlags::PATH | OFlags::NOFOLLOW);
    while let Some(name) = walk.todo.pop_front() {
        walk.step(&name, keep_last)?;
    }
    let here = walk.here();
    if flags.contains(OFlags::DIRECTORY) {
        let handle = rustix::fs::openat(here, ".", flags | OFlags::CLOEXEC, Mode::empty())?;
        return Ok(handle);
    }
    match walk.stack.pop() {
        Some(handle) if flags.contains(OFlags::PATH) => Ok(handle),
        Some(handle) => super::reopen(handle, flags),
        None => Ok(rustix::fs::openat(root, ".", flags | OFlags::CLOEXEC, Mode::empty())?),
    }
}

impl Walk<'_> {
    fn here(&self) -> BorrowedFd<'_> {
        self.stack.last().map_or(self.root, AsFd::as_fd)
    }

    /// Puts the names of `path` in front of what is still to be done.
    fn push(&mut self, path: &OsStr) {
        let bytes = path.as_bytes();
        if bytes.starts_with(b"/") {
            self.stack.clear();
        }
        if bytes.ends_with(b"/") {
            // A slash at the end asks for a directory and follows a link, as `.` does.
            self.todo.push_front(OsString::from("."));
        }
        for name in bytes.split(|byte| *byte == b'/').rev().filter(|name| !name.is_empty()) {
            self.todo.push_front(OsString::from_vec(name.to_vec()));
        }
    }

    fn step(&mut self, name: &OsStr, keep_last: bool) -> io::Result<()> {
        if name == "." || name == ".." {
            if kind(self.here())? != FileType::Directory {
                return Err(Errno::NOTDIR.into());
            }
            if name == ".." {
                self.stack.pop();
            }
            return Ok(());
        }
        if self.stack.len() >= DEPTH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = rustix::fs::openat(self.here(), name, flags, Mode::empty())?;
        let stays = keep_last && self.todo.is_empty();
        if stays || kind(handle.as_fd())? != FileType::Symlink {
            self.stack.push(handle);
            return Ok(());
        }
        self.links += 1;
        if self.links > LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = rustix::fs::readlinkat(&handle, "", Vec::new())?;
        self.push(OsStr::from_bytes(target.as_bytes()));
        Ok(())
    }
}

fn kind(handle: BorrowedFd<'_>) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(handle)?.st_mode))
}
