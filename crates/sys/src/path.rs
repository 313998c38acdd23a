//! Paths below a root: every path from outside is resolved by the kernel inside its root, then used by descriptor.
//!
//! [`Root`] resolves whole paths with `openat2(2)`; [`Dir`] works on single names of one directory and never follows a link.
//! There is no way here to get from a `Root` to a path as text: texts can change their meaning, descriptors cannot.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;

/// Whether a final symbolic link is followed (inside the root).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It is.
    Yes,
    /// The link itself is meant.
    No,
}

/// LIMIT: any rename or mount on the host that races with the resolution of `..` makes the kernel give up; on a busy
/// host that can go on, and then the path is walked name by name instead.
const RETRIES: usize = 32;

/// A directory that confines: no path resolved in it leads out of it.
#[derive(Debug)]
pub struct Root(Dir);

impl Root {
    /// Opens a directory of the host as a root. The path itself is trusted.
    pub fn open(path: &Path) -> io::Result<Self> {
        Dir::open(path).map(Self)
    }

    /// Takes an open directory as a root.
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(Dir(fd))
    }

    /// Returns the root directory itself.
    pub const fn dir(&self) -> &Dir {
        &self.0
    }

    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RETRIES {
            match rustix::fs::openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return Ok(result?),
            }
        }
        walk::resolve(self.as_fd(), path, flags)
    }

    /// Tells whether a link on the way leads out of the root, for those who say so instead of staying inside.
    pub fn escapes(&self, path: &Path) -> bool {
        let how = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        matches!(rustix::fs::openat2(&self.0, path, flags, Mode::empty(), how), Err(Errno::XDEV))
    }

    /// Opens a directory.
    pub fn open_dir(&self, path: &Path) -> io::Result<Dir> {
        self.resolve(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Dir)
    }

    /// Opens anything without touching it (`O_PATH`).
    pub fn open_handle(&self, path: &Path, follow: Follow) -> io::Result<OwnedFd> {
        let no_follow = if follow == Follow::No { OFlags::NOFOLLOW } else { OFlags::empty() };
        self.resolve(path, OFlags::PATH | no_follow)
    }

    /// Opens a regular file for reading; anything else (a pipe would block, a device may act) is refused.
    pub fn open_file(&self, path: &Path) -> io::Result<File> {
        open_regular(&self.open_handle(path, Follow::Yes)?)
    }

    /// Describes a path.
    pub fn stat(&self, path: &Path, follow: Follow) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(self.open_handle(path, follow)?)?)
    }

    /// Reads a symbolic link.
    pub fn read_link(&self, path: &Path) -> io::Result<PathBuf> {
        let handle = self.open_handle(path, Follow::No)?;
        let target = rustix::fs::readlinkat(handle, "", Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Opens the directory that holds the last name of `path`, with that name. The name is not resolved.
    pub fn parent<'p>(&self, path: &'p Path) -> io::Result<(Dir, &'p OsStr)> {
        let (parent, name) = split(path)?;
        Ok((self.open_dir(parent)?, name))
    }

    /// Makes a directory with all that are missing above it and opens it. Links on the way are followed inside the root.
    pub fn mkdirs(&self, path: &Path, mode: u32) -> io::Result<Dir> {
        match self.open_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
        let mut sofar = PathBuf::new();
        for component in path.components() {
            sofar.push(component);
            let Component::Normal(name) = component else { continue };
            match self.open_dir(&sofar) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let parent = self.open_dir(sofar.parent().unwrap_or(Path::new("")))?;
                    parent.mkdir(name, mode)?;
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        self.open_dir(path)
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Splits off the last name of a path; `.`, `..` and the root have none.
pub fn split(path: &Path) -> io::Result<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let start = bytes[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let name = &bytes[start..end];
    if name.is_empty() || name == b"." || name == b".." {
        return Err(Errno::INVAL.into());
    }
    Ok((Path::new(OsStr::from_bytes(&bytes[..start])), OsStr::from_bytes(name)))
}

fn open_regular(handle: &OwnedFd) -> io::Result<File> {
    let stat = rustix::fs::fstat(handle)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => reopen(handle, OFlags::RDONLY).map(File::from),
        FileType::Directory => Err(Errno::ISDIR.into()),
        _ => Err(Errno::INVAL.into()),
    }
}

/// Opens what an `O_PATH` descriptor refers to, without any path in between.
pub fn reopen(handle: impl AsFd, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", handle.as_fd().as_raw_fd());
    Ok(rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// A name in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// Its last name.
    pub name: OsString,
    /// Its kind.
    pub kind: FileType,
}

/// A special file to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Special {
    /// Device, pipe or socket.
    pub kind: FileType,
    /// Permission bits.
    pub mode: u32,
    /// Major and minor number.
    pub device: (u32, u32),
}

/// An open directory. Names are single path elements; links are never followed.
#[derive(Debug)]
pub struct Dir(OwnedFd);

/// Refuses anything but a single path element.
fn element(name: &OsStr) -> io::Result<&OsStr> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes == b"." || bytes == b".." || bytes.contains(&b'/') {
        return Err(Errno::INVAL.into());
    }
    Ok(name)
}

impl Dir {
    /// Opens a directory of the host. The path itself is trusted.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Takes an open directory.
    pub const fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Returns another descriptor of this directory.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Lists the names in it, sorted.
    pub fn entries(&self) -> io::Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes()).to_owned();
            if name == "." || name == ".." {
                continue;
            }
            let kind = match entry.file_type() {
                FileType::Unknown => match self.find(&name)? {
                    Some(stat) => FileType::from_raw_mode(stat.st_mode),
                    None => continue,
                },
                kind => kind,
            };
            entries.push(DirEntry { name, kind });
        }
        entries.sort_by(|a: &DirEntry, b: &DirEntry| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// Describes the directory itself.
    pub fn own_stat(&self) -> io::Result<Stat> {
        Ok(rustix::fs::fstat(&self.0)?)
    }

    /// Describes a name, `None` when it is not there.
    pub fn find(&self, name: &OsStr) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.0, element(name)?, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a directory in it.
    pub fn child(&self, name: &OsStr) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(&self.0, element(name)?, flags, Mode::empty())?))
    }

    /// Opens anything in it without touching it (`O_PATH`).
    pub fn handle(&self, name: &OsStr) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.0, element(name)?, flags, Mode::empty())?)
    }

    /// Opens a regular file in it for reading; anything else is refused.
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        open_regular(&self.handle(name)?)
    }

    /// Reads a symbolic link.
    pub fn read_link(&self, name: &OsStr) -> io::Result<OsString> {
        let target = rustix::fs::readlinkat(&self.0, element(name)?, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Makes a regular file that must not be there yet, for reading and writing by us alone until its mode is set.
    pub fn create(&self, name: &OsStr) -> io::Result<File> {
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(0o600);
        Ok(File::from(rustix::fs::openat(&self.0, element(name)?, flags, mode)?))
    }

    /// Makes a directory with exactly this mode, whatever the umask says.
    pub fn mkdir(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        rustix::fs::mkdirat(&self.0, element(name)?, Mode::from_raw_mode(mode))?;
        self.chmod(name, mode)
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, element(name)?)?)
    }

    /// Makes a further name for `source` in `from`.
    pub fn link(&self, name: &OsStr, from: &Self, source: &OsStr) -> io::Result<()> {
        let (source, name) = (element(source)?, element(name)?);
        Ok(rustix::fs::linkat(&from.0, source, &self.0, name, AtFlags::empty())?)
    }

    /// Makes a device, pipe or socket.
    pub fn mknod(&self, name: &OsStr, special: Special) -> io::Result<()> {
        let device = rustix::fs::makedev(special.device.0, special.device.1);
        let mode = Mode::from_raw_mode(special.mode);
        rustix::fs::mknodat(&self.0, element(name)?, special.kind, mode, device)?;
        self.chmod(name, special.mode)
    }

    /// Removes a name that is no directory.
    pub fn unlink(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, element(name)?, AtFlags::empty())?)
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.0, element(name)?, AtFlags::REMOVEDIR)?)
    }

    /// Renames within one file system, replacing what is there as `rename(2)` does.
    pub fn rename(&self, name: &OsStr, to: &Self, new: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, element(name)?, &to.0, element(new)?)?)
    }

    /// Sets the mode of a name that is no symbolic link.
    pub fn chmod(&self, name: &OsStr, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let handle = self.handle(name)?;
        // An `O_PATH` descriptor takes no fchmod(2); the jump through proc changes exactly this inode.
        let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
        Ok(rustix::fs::chmod(path, mode)?)
    }

    /// Sets owner and group.
    pub fn chown(&self, name: &OsStr, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(&self.0, element(name)?, Some(uid), Some(gid), flags)?)
    }

    /// Sets access and modification time to `mtime`.
    pub fn set_mtime(&self, name: &OsStr, mtime: Timespec) -> io::Result<()> {
        let times = Timestamps { last_access: mtime, last_modification: mtime };
        Ok(rustix::fs::utimensat(&self.0, element(name)?, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Removes a name with all below it; a missing one is fine. Memory and descriptors stay bounded however deep it is.
    pub fn remove_tree(&self, name: &OsStr) -> io::Result<()> {
        match self.unlink(name) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.raw_os_error() == Some(Errno::ISDIR.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
        // Directories that lie too deep are moved up here, next to `name`, and emptied from here.
        let mut pending = vec![name.to_owned()];
        let mut moved = 0_u64;
        while let Some(top) = pending.pop() {
            let dir = self.child(&top)?;
            let mut sweep =
                Sweep { top: self, base: name, moved: &mut moved, pending: &mut pending };
            sweep.clear(&dir, 0)?;
            match self.rmdir(&top) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> Self {
        dir.0
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// LIMIT: descriptors held at once while a tree is removed.
const SWEEP_DEPTH: usize = 64;

struct Sweep<'a> {
    top: &'a Dir,
    base: &'a OsStr,
    moved: &'a mut u64,
    pending: &'a mut Vec<OsString>,
}

impl Sweep<'_> {
    fn clear(&mut self, dir: &Dir, depth: usize) -> io::Result<()> {
        for entry in dir.entries()? {
            if entry.kind != FileType::Directory {
                dir.unlink(&entry.name)?;
                continue;
            }
            if depth < SWEEP_DEPTH {
                self.clear(&dir.child(&entry.name)?, depth + 1)?;
                dir.rmdir(&entry.name)?;
                continue;
            }
            *self.moved += 1;
            let mut name = self.base.to_owned();
            name.push(format!(".{}", self.moved));
            dir.rename(&entry.name, self.top, &name)?;
            self.pending.push(name);
        }
        Ok(())
    }
}

mod walk;

#[cfg(test)]
mod tests;
