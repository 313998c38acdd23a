//! A directory of ours on the host into which somebody else's entries are written: links inside are never followed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rorqual_sys::path::{Dir, Root, Special};
use rorqual_sys::xattr;
use rustix::fs::{FileType, Timespec};
use rustix::io::Errno;

/// A directory, by descriptor.
#[derive(Debug)]
pub struct HostDir(Root);

fn is_dir(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}

/// Makes room for something.
fn clear(dir: &Dir, name: &OsStr) -> io::Result<()> {
    dir.remove_tree(name)
}

impl HostDir {
    /// Opens a directory; its path is trusted.
    pub fn open(path: &Path) -> io::Result<Self> {
        Root::open(path).map(Self)
    }

    /// Makes a directory, in place of anything else; one that is there stays with what is in it.
    pub fn directory(&self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.0.parent(path)?;
        match dir.find(name)? {
            Some(stat) if is_dir(stat.st_mode) => Ok(()),
            _ => {
                clear(&dir, name)?;
                dir.mkdir(name, 0o700)
            }
        }
    }

    /// Makes an empty file, in place of anything.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        let (dir, name) = self.0.parent(path)?;
        clear(&dir, name)?;
        dir.create(name)
    }

    /// Makes a symbolic link, in place of anything.
    pub fn symlink(&self, path: &Path, target: &OsStr) -> io::Result<()> {
        let (dir, name) = self.0.parent(path)?;
        clear(&dir, name)?;
        dir.symlink(name, target)
    }

    /// Makes a further name of a file, in place of anything.
    pub fn link(&self, path: &Path, first: &Path) -> io::Result<()> {
        let (dir, name) = self.0.parent(path)?;
        let (from, source) = self.0.parent(first)?;
        clear(&dir, name)?;
        dir.link(name, &from, source)
    }

    /// Makes a device or pipe, in place of anything; the device that means a deletion is refused.
    pub fn node(&self, path: &Path, mode: u32, device: (u32, u32)) -> io::Result<()> {
        let kind = FileType::from_raw_mode(mode);
        let plain =
            matches!(kind, FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo);
        if !plain || (kind == FileType::CharacterDevice && device == (0, 0)) {
            return Err(Errno::INVAL.into());
        }
        let (dir, name) = self.0.parent(path)?;
        clear(&dir, name)?;
        dir.mknod(name, Special { kind, mode: mode & 0o7777, device })
    }

    /// Sets owner, permissions, extended attributes and time (nanoseconds since the epoch).
    pub fn attributes(
        &self,
        path: &Path,
        (mode, uid, gid): (u32, u32, u32),
        mtime: i64,
        xattrs: &[(String, Vec<u8>)],
    ) -> io::Result<()> {
        let (dir, name) = self.0.parent(path)?;
        dir.chown(name, uid, gid)?;
        if FileType::from_raw_mode(mode) != FileType::Symlink {
            // ORDER: a change of owner clears setuid and setgid.
            dir.chmod(name, mode & 0o7777)?;
        }
        for (key, value) in xattrs {
            let travels = key == "security.capability"
                || key.starts_with("user.") && !key.starts_with("user.overlay.");
            if travels {
                match xattr::set(dir.handle(name)?, OsStr::from_bytes(key.as_bytes()), value) {
                    Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                    result => result?,
                }
            }
        }
        let (seconds, nanos) = (mtime.div_euclid(1_000_000_000), mtime.rem_euclid(1_000_000_000));
        dir.set_mtime(name, Timespec { tv_sec: seconds, tv_nsec: nanos })
    }

    /// Removes an entry with all below it; a missing one is fine.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match self.0.parent(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            parent => {
                let (dir, name) = parent?;
                clear(&dir, name)
            }
        }
    }
}
