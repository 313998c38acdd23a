//! Copies what an image has in a directory into the tmpfs that will cover it.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid};

/// LIMIT: deeper trees are refused rather than exhausting the stack.
const MAX_DEPTH: usize = 256;

/// Copies the content of `from`, with owners, modes and times.
pub(super) fn copy(from: &OwnedFd, to: BorrowedFd<'_>) -> io::Result<()> {
    copy_directory(from, to, 0)
}

fn copy_directory(from: &OwnedFd, to: BorrowedFd<'_>, depth: usize) -> io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(io::Error::other("directories are nested too deeply"));
    }
    for entry in Dir::read_from(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        copy_entry(from, to, name, &stat, depth)?;
        restore(to, name, &stat)?;
    }
    let stat = rustix::fs::fstat(from)?;
    own(to, c"", &stat, AtFlags::EMPTY_PATH)
}

fn copy_entry(
    from: &OwnedFd,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
    depth: usize,
) -> io::Result<()> {
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let open = OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => {
            rustix::fs::mkdirat(to, name, mode)?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | open;
            let from = rustix::fs::openat(from, name, flags, Mode::empty())?;
            let to = rustix::fs::openat(to, name, flags, Mode::empty())?;
            copy_directory(&from, to.as_fd(), depth + 1)
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, Vec::new())?;
            Ok(rustix::fs::symlinkat(target.as_c_str(), to, name)?)
        }
        FileType::RegularFile => {
            let from = rustix::fs::openat(from, name, OFlags::RDONLY | open, Mode::empty())?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | open;
            let to = rustix::fs::openat(to, name, flags, mode)?;
            io::copy(&mut std::fs::File::from(from), &mut std::fs::File::from(to))?;
            Ok(())
        }
        kind => Ok(rustix::fs::mknodat(to, name, kind, mode, stat.st_rdev)?),
    }
}

fn restore(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> io::Result<()> {
    own(to, name, stat, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
        // Changing the owner clears set-id bits.
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
    }
    let time = |sec: i64, nsec: i64| Timespec { tv_sec: sec, tv_nsec: nsec };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    };
    Ok(rustix::fs::utimensat(to, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

fn own(to: BorrowedFd<'_>, name: &CStr, stat: &Stat, flags: AtFlags) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    match rustix::fs::chownat(to, name, Some(uid), Some(gid), flags) {
        // Ids that the user namespace does not have stay with its root.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => Ok(()),
        other => Ok(other?),
    }
}
