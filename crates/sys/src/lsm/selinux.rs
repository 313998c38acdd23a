//! SELinux: the policy's contexts for containers, and labels of files.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd as _;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use rorqual_core::selinux::Contexts;
use rustix::fs::{FileType, OFlags};

use super::Error;
use crate::path::{Root, reopen};
use crate::xattr;

const LABEL: &str = "security.selinux";

/// Directories whose labels the host itself lives by.
const HOSTS_OWN: [&str; 24] = [
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/etc/passwd",
    "/etc/pki",
    "/etc/shadow",
    "/home",
    "/lib",
    "/lib64",
    "/media",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/var",
    "/var/lib",
    "/var/log",
];

/// Tells whether the kernel labels by SELinux.
pub fn is_enabled() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Returns what the policy has for containers; `None` where it has nothing, as without the package `container-selinux`.
pub fn contexts() -> Option<Contexts> {
    contexts_in(Path::new("/"))
}

fn contexts_in(root: &Path) -> Option<Contexts> {
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap_or_default();
    let config = read("etc/selinux/config");
    let kind = config.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    let kind = kind.map_or("targeted", str::trim);
    if kind.contains('/') || kind.starts_with('.') {
        return None;
    }
    let own = Contexts::parse(&read("usr/share/containers/selinux/contexts"));
    own.or_else(|| Contexts::parse(&read(&format!("etc/selinux/{kind}/contexts/lxc_contexts"))))
}

/// Labels a file or a directory with all below it. Links are labelled, not followed; what vanishes meanwhile is no
/// failure, nor is a file system without labels.
///
/// The top comes last: one that has the label had all below it labelled, and `unless_done` leaves it at that.
///
/// # Errors
///
/// [`Error::Label`] for directories that the host lives by.
pub fn relabel(path: &Path, label: &str, unless_done: bool) -> Result<(), Error> {
    let resolved = std::fs::canonicalize(path).map_err(failed(path))?;
    if HOSTS_OWN.iter().any(|own| Path::new(own) == resolved) {
        return Err(Error::Label(resolved));
    }
    let name = OsStr::new(LABEL);
    let has = |fd: BorrowedFd<'_>| matches!(xattr::get(fd, name), Ok(Some(value)) if value.strip_suffix(b"\0").unwrap_or(&value) == label.as_bytes());
    let top = rustix::fs::open(
        &resolved,
        OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    );
    let top = top.map_err(|error| failed(path)(error.into()))?;
    if unless_done && has(top.as_fd()) {
        return Ok(());
    }
    let set = &mut |fd: BorrowedFd<'_>| {
        if has(fd) { Ok(()) } else { xattr::set(fd, name, label.as_bytes()) }
    };
    match walk(top.as_fd(), set) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(()),
        result => result.map_err(failed(path)),
    }
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Error + use<> {
    let action = format!("relabel {}", path.display());
    move |source| Error::Io { action: action.clone(), source }
}

/// Visits everything below a descriptor, then itself. However deep a tree is, few descriptors are held: each directory is
/// found from the top again, inside of it.
fn walk(
    top: BorrowedFd<'_>,
    visit: &mut dyn FnMut(BorrowedFd<'_>) -> io::Result<()>,
) -> io::Result<()> {
    let kind = FileType::from_raw_mode(rustix::fs::fstat(top)?.st_mode);
    if kind == FileType::Directory {
        let root = Root::from_fd(reopen(top, OFlags::PATH | OFlags::DIRECTORY)?);
        let mut pending = vec![PathBuf::from(".")];
        while let Some(path) = pending.pop() {
            let Some(directory) = present(root.open_dir(&path))? else { continue };
            for entry in directory.entries()? {
                if entry.kind == FileType::Directory {
                    pending.push(path.join(&entry.name));
                }
                let Some(handle) = present(directory.handle(&entry.name))? else { continue };
                present(visit(handle.as_fd()))?;
            }
        }
    }
    visit(top)
}

/// What is removed while it is looked at is not there.
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A directory that something else has replaced since it was listed.
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Ok(None),
        result => result.map(Some),
    }
}

#[cfg(test)]
mod tests;
