//! The mount API by descriptors: file systems and trees are configured while detached and attached by handle.
//!
//! Deliberately knows nothing of containers: no option parsing, no order.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

/// `MOUNT_ATTR_RDONLY`
pub const RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`
pub const NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`
pub const NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`
pub const NOEXEC: u64 = 0x8;
/// All bits that choose how access times are kept.
pub const ATIME_MASK: u64 = 0x70;
/// `MOUNT_ATTR_NOATIME`
pub const NOATIME: u64 = 0x10;
/// `MOUNT_ATTR_STRICTATIME`
pub const STRICTATIME: u64 = 0x20;
/// `MOUNT_ATTR_NODIRATIME`
pub const NODIRATIME: u64 = 0x80;
/// `MOUNT_ATTR_IDMAP`
pub const IDMAP: u64 = 0x10_0000;
/// `MOUNT_ATTR_NOSYMFOLLOW`
pub const NOSYMFOLLOW: u64 = 0x20_0000;

/// How mount and unmount events travel between copies of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// Not at all.
    Private,
    /// Both ways.
    Shared,
    /// Only into this copy.
    Slave,
    /// Not at all, and the mount cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    /// Returns the `MS_*` flag.
    pub const fn bits(self) -> u64 {
        match self {
            Self::Unbindable => 1 << 17,
            Self::Private => 1 << 18,
            Self::Slave => 1 << 19,
            Self::Shared => 1 << 20,
        }
    }
}

/// The argument of `mount_setattr(2)`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MountAttributes {
    /// Attributes to set.
    pub set: u64,
    /// Attributes to clear.
    pub clear: u64,
    /// Propagation as `MS_*`, zero to leave it.
    pub propagation: u64,
    /// User namespace for [`IDMAP`].
    pub userns: u64,
}

/// Changes attributes of the mount behind a descriptor, with `recursive` of all below it too.
pub fn set_attributes(
    mount: BorrowedFd<'_>,
    attributes: &MountAttributes,
    recursive: bool,
) -> io::Result<()> {
    const AT_RECURSIVE: i32 = 0x8000;
    let flags = libc::AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: the structure is the first version of the kernel's and carries its size.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            std::mem::size_of::<MountAttributes>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Maps the ids of a detached mount by a user namespace.
pub fn set_idmap(mount: BorrowedFd<'_>, userns: BorrowedFd<'_>, recursive: bool) -> io::Result<()> {
    let attributes = MountAttributes {
        set: IDMAP,
        userns: userns.as_raw_fd() as u64,
        ..MountAttributes::default()
    };
    set_attributes(mount, &attributes, recursive)
}

/// Changes the propagation of the mount at `path`.
pub fn set_propagation(path: &Path, how: Propagation, recursive: bool) -> io::Result<()> {
    use rustix::mount::MountPropagationFlags as Flags;
    let mut flags = match how {
        Propagation::Private => Flags::PRIVATE,
        Propagation::Shared => Flags::SHARED,
        Propagation::Slave => Flags::DOWNSTREAM,
        Propagation::Unbindable => Flags::UNBINDABLE,
    };
    if recursive {
        flags |= Flags::REC;
    }
    Ok(rustix::mount::mount_change(path, flags)?)
}

/// A file system under construction.
#[derive(Debug)]
pub struct FsContext(OwnedFd);

impl FsContext {
    /// Opens a context for a file system type.
    pub fn open(kind: &str) -> io::Result<Self> {
        Ok(Self(rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?))
    }

    /// Opens a context that changes the file system behind a descriptor of its mount point.
    pub fn pick(mount: BorrowedFd<'_>) -> io::Result<Self> {
        let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
        Ok(Self(rustix::mount::fspick(mount, "", flags)?))
    }

    /// Makes the changes to the file system of [`FsContext::pick`].
    pub fn reconfigure(self) -> io::Result<()> {
        rustix::mount::fsconfig_reconfigure(&self.0).map_err(|error| self.explain(error))
    }

    /// Sets an option without value.
    pub fn set_flag(&self, key: &str) -> io::Result<()> {
        rustix::mount::fsconfig_set_flag(&self.0, key).map_err(|error| self.explain(error))
    }

    /// Sets an option with a value of at most 255 bytes.
    pub fn set_string(&self, key: &str, value: &[u8]) -> io::Result<()> {
        rustix::mount::fsconfig_set_string(&self.0, key, value).map_err(|error| self.explain(error))
    }

    /// Sets an option whose value is an open file or directory.
    pub fn set_fd(&self, key: &str, value: BorrowedFd<'_>) -> io::Result<()> {
        rustix::mount::fsconfig_set_fd(&self.0, key, value).map_err(|error| self.explain(error))
    }

    /// Makes the file system and a detached mount of it with the attributes of [`MountAttributes::set`].
    pub fn create(self, attributes: u64) -> io::Result<OwnedFd> {
        rustix::mount::fsconfig_create(&self.0).map_err(|error| self.explain(error))?;
        let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
        Ok(rustix::mount::fsmount(&self.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    }

    /// Adds the kernel's own words, which a context keeps for its reader.
    fn explain(&self, error: rustix::io::Errno) -> io::Error {
        let plain = io::Error::from(error);
        let mut text = [0u8; 512];
        match rustix::io::read(&self.0, &mut text) {
            Ok(length) if length > 2 => {
                let words = String::from_utf8_lossy(&text[2..length]).trim().to_owned();
                io::Error::new(plain.kind(), ContextError { words, plain })
            }
            _ => plain,
        }
    }
}

/// An error of a file system context with the kernel's explanation.
#[derive(Debug, thiserror::Error)]
#[error("{plain} ({words})")]
struct ContextError {
    words: String,
    plain: io::Error,
}

/// Tells whether overlays take their layers one by one (`lowerdir+`), which this kernel's release decides.
///
/// Asking the overlay itself would cost every caller a context and leave a line in the kernel's log each time. A kernel
/// that learnt it earlier by backport only gets the longer way.
pub fn overlay_takes_layers() -> bool {
    release_is_at_least(rustix::system::uname().release().to_bytes(), (6, 5))
}

fn release_is_at_least(release: &[u8], wanted: (u32, u32)) -> bool {
    let mut numbers = release
        .split(|byte| !byte.is_ascii_digit())
        .map(|digits| std::str::from_utf8(digits).ok().and_then(|text| text.parse::<u32>().ok()));
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= wanted,
        _ => false,
    }
}

/// Returns the errno of an error of this module, also of one with an explanation.
pub fn errno(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<ContextError>()?;
        inner.plain.raw_os_error()
    })
}

/// Makes a detached copy of the mount at `path`, with `recursive` of all below it too.
pub fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let flags = clone_flags(recursive);
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// Makes a detached copy of what a descriptor refers to.
pub fn clone_tree_fd(file: BorrowedFd<'_>, recursive: bool) -> io::Result<OwnedFd> {
    let flags = clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(file, "", flags)?)
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Attaches a detached mount to the file or directory behind `target`.
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Attaches a detached mount at a path.
pub fn attach_at(mount: BorrowedFd<'_>, target: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", CWD, target, flags)?)
}

/// Returns attributes as the flags of [`mount_classic`].
pub const fn classic_flags(attributes: u64) -> u64 {
    // The four lowest are the same bits in both interfaces.
    let mut flags = attributes & (RDONLY | NOSUID | NODEV | NOEXEC);
    if attributes & NOSYMFOLLOW != 0 {
        flags |= 1 << 8;
    }
    if attributes & NOATIME != 0 {
        flags |= 1 << 10;
    }
    if attributes & NODIRATIME != 0 {
        flags |= 1 << 11;
    }
    if attributes & STRICTATIME != 0 {
        flags |= 1 << 24;
    }
    flags
}

/// Attaches with `mount(2)`, for options that are too long for the newer calls.
pub fn mount_classic(
    source: &str,
    target: &Path,
    kind: &str,
    flags: u64,
    data: &[u8],
) -> io::Result<()> {
    let text = |bytes: &[u8]| CString::new(bytes).map_err(io::Error::other);
    let (source, kind, data) = (text(source.as_bytes())?, text(kind.as_bytes())?, text(data)?);
    let target = text(target.as_os_str().as_bytes())?;
    // SAFETY: all strings live through the call; the kernel copies at most a page of the data.
    let result = unsafe {
        libc::mount(
            source.as_ptr(),
            target.as_ptr(),
            kind.as_ptr(),
            flags as libc::c_ulong,
            data.as_ptr().cast(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the working directory the root of the mount namespace and drops the old root with all its mounts.
///
/// The old mounts must not be shared with another namespace, or they vanish there, too.
pub fn pivot_to_working_directory() -> io::Result<()> {
    // ORDER: with both arguments equal the old root lands on top of the new one, where "." still finds it.
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Detaches whatever is mounted at `path`, now or once unused.
pub fn detach(path: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(path, UnmountFlags::DETACH)?)
}

/// Opens a path as a handle that only names it.
pub fn handle(path: &Path) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
}

/// Tells which file system a descriptor lies on, as in `statfs(2)`.
pub fn file_system_magic(file: BorrowedFd<'_>) -> io::Result<i64> {
    Ok(rustix::fs::fstatfs(file.as_fd())?.f_type)
}

#[cfg(test)]
mod tests;
