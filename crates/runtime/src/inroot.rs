//! Paths inside a container's root, as seen by somebody outside: links and `..` never lead out of it.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

/// LIMIT: links followed while making directories, the same as the kernel's own limit.
const MAX_LINKS: usize = 40;

/// A root directory in which paths are resolved.
#[derive(Debug)]
pub(crate) struct InRoot(OwnedFd);

impl InRoot {
    /// Takes the root's descriptor.
    pub(crate) fn new(root: OwnedFd) -> Self {
        Self(root)
    }

    /// Returns the root itself.
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    /// Opens a path inside the root.
    pub(crate) fn open(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(self.resolve(path, flags, ResolveFlags::empty())?)
    }

    /// Opens a path of which no part may be a link.
    pub(crate) fn open_without_links(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(self.resolve(path, flags, ResolveFlags::NO_SYMLINKS)?)
    }

    fn resolve(&self, path: &Path, flags: OFlags, how: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new("/") } else { path };
        let how = how | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut attempts = 0;
        loop {
            // The kernel answers EAGAIN when something was renamed meanwhile.
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN) if attempts < 128 => attempts += 1,
                other => return other,
            }
        }
    }

    /// Opens a directory as a handle, making it and its parents if they are missing.
    pub(crate) fn directory(&self, path: &Path, mode: u32) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.resolve(path, flags, ResolveFlags::empty()) {
            Err(Errno::NOENT) => Ok(self.make_directories(path, mode)?),
            other => Ok(other?),
        }
    }

    /// Opens the file at `path` as a handle, making it empty, and its parents, if they are missing.
    pub(crate) fn file(&self, path: &Path) -> io::Result<OwnedFd> {
        match self.resolve(path, OFlags::PATH, ResolveFlags::empty()) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
        let mut path = path.to_owned();
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o644);
        for _ in 0..MAX_LINKS {
            let (parent, name) = self.parent(&path)?;
            match rustix::fs::openat(&parent, &name, flags | OFlags::WRONLY, mode) {
                Ok(_) => return self.open(&path, OFlags::PATH),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            match self.resolve(&path, OFlags::PATH, ResolveFlags::empty()) {
                Err(Errno::NOENT) => {}
                other => return Ok(other?),
            }
            // COMPAT: a link that leads nowhere, as /etc/resolv.conf of many images is: what it means is made.
            let target = read_link(&parent, &name)?;
            path = path.parent().unwrap_or(Path::new("/")).join(target);
        }
        Err(Errno::LOOP.into())
    }

    /// Opens the parent of `path`, making it if missing, and returns it with the last component.
    pub(crate) fn parent(&self, path: &Path) -> io::Result<(OwnedFd, OsString)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
        let parent = path.parent().unwrap_or(Path::new("/"));
        Ok((self.directory(parent, 0o755)?, name))
    }

    /// Walks component by component, follows links by itself and makes what is missing.
    ///
    /// Each step is resolved from the root again, so a component that changes meanwhile cannot lead outside.
    fn make_directories(&self, path: &Path, mode: u32) -> Result<OwnedFd, Errno> {
        let mut todo = components(path);
        let mut done = PathBuf::from("/");
        let mut links = 0;
        let directory = OFlags::PATH | OFlags::DIRECTORY;
        while let Some(name) = todo.pop_front() {
            if name == ".." {
                done.pop();
                continue;
            }
            let parent = self.resolve(&done, directory, ResolveFlags::empty())?;
            match rustix::fs::statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(&parent, &name, Mode::from_raw_mode(mode)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error),
                    }
                    done.push(&name);
                }
                Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP);
                    }
                    let target = read_link(&parent, &name)?;
                    if target.is_absolute() {
                        done = PathBuf::from("/");
                    }
                    for name in components(&target).into_iter().rev() {
                        todo.push_front(name);
                    }
                }
                Ok(_) => done.push(&name),
                Err(error) => return Err(error),
            }
        }
        self.resolve(&done, directory, ResolveFlags::empty())
    }
}

fn read_link(parent: impl AsFd, name: &OsStr) -> Result<PathBuf, Errno> {
    let target = rustix::fs::readlinkat(parent, name, Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests;
