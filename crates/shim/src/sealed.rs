//! A view of our binary that nobody can write through, so that no container reaches the file on disk.
//!
//! A container's root may open `/proc/PID/exe` of a process that is about to enter it (CVE-2019-5736). What it finds
//! there is a file of a read-only overlay that is mounted nowhere, or a sealed copy in memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// An open, unwritable program.
#[derive(Debug)]
pub(crate) struct SealedBinary {
    fd: OwnedFd,
}

impl SealedBinary {
    /// Makes the view: an overlay shares the page cache with the file, a copy is the fall-back.
    ///
    /// `empty` becomes an empty directory, if it is not there yet.
    pub(crate) fn new(binary: &Path, empty: &Path) -> io::Result<Self> {
        let fd = overlay(binary, empty).or_else(|_| copy(binary))?;
        Ok(Self { fd })
    }

    /// Returns a path to execute it by, valid in this process and its fresh children.
    pub(crate) fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.fd.as_raw_fd()))
    }
}

fn overlay(binary: &Path, empty: &Path) -> io::Result<OwnedFd> {
    // Following links first: `/proc/self/exe` must become the real place.
    let binary = std::fs::canonicalize(binary)?;
    let (Some(directory), Some(name)) = (binary.parent(), binary.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // An overlay without a writable layer needs two lower ones, of which neither contains the other.
    std::fs::create_dir_all(empty)?;
    let layers = format!("{}:{}", plain(directory)?, plain(empty)?);
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(context.as_fd(), "lowerdir", layers)?;
    fsconfig_set_flag(context.as_fd(), "ro")?;
    fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    let mount = fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    let view = rustix::fs::openat(
        &mount,
        name,
        OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW,
        Mode::empty(),
    )?;
    same_size(&view, &binary)?;
    Ok(view)
}

/// Refuses paths that the option would take apart.
fn plain(path: &Path) -> io::Result<&str> {
    let text = path.to_str().filter(|path| !path.contains([':', '\\', ',']));
    text.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

fn same_size(view: &OwnedFd, binary: &Path) -> io::Result<()> {
    let seen = rustix::fs::fstat(view)?.st_size;
    if u64::try_from(seen).ok() == Some(std::fs::metadata(binary)?.len()) {
        return Ok(());
    }
    Err(io::Error::other("the overlay shows another file"))
}

fn copy(binary: &Path) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let target = rustix::fs::memfd_create("rorqual", flags)?;
    let mut target = File::from(target);
    io::copy(&mut File::open(binary)?, &mut target)?;
    rustix::fs::fchmod(&target, Mode::RUSR | Mode::XUSR)?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&target, seals)?;
    Ok(target.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(seal: impl Fn(&Path) -> io::Result<OwnedFd>) {
        let program = Path::new("/bin/true");
        let sealed = SealedBinary { fd: seal(program).unwrap() };
        assert!(std::process::Command::new(sealed.path()).status().unwrap().success());
        // Opening a sealed memfd works, writing to it does not.
        let written = File::options()
            .write(true)
            .open(sealed.path())
            .and_then(|mut file| std::io::Write::write(&mut file, b"x"));
        assert!(written.is_err(), "the view must not be writable");
    }

    #[test]
    fn an_overlay_runs_and_cannot_be_written() {
        let empty = tempfile::tempdir().unwrap();
        check(|binary| overlay(binary, empty.path()));
    }

    #[test]
    fn a_copy_runs_and_cannot_be_written() {
        check(copy);
    }
}
