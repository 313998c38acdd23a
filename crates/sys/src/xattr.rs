//! Extended attributes by descriptor, also of symbolic links and devices. Knows no attribute's meaning.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// LIMIT: the kernel's own bound on one value (`XATTR_SIZE_MAX`).
const MAX_VALUE: usize = 64 * 1024;
/// LIMIT: the kernel's own bound on the list of names (`XATTR_LIST_MAX`).
const MAX_LIST: usize = 64 * 1024;

/// Path that leads to what `fd` refers to, whatever its kind; the final jump follows no further link.
fn handle_path(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

/// Sets an attribute on what `fd` (any descriptor, `O_PATH` too) refers to.
pub fn set(fd: impl AsFd, name: &OsStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(handle_path(&fd), name, value, XattrFlags::empty())?)
}

/// Reads an attribute; `None` when it is not set or the file system knows no attributes.
pub fn get(fd: impl AsFd, name: &OsStr) -> io::Result<Option<Vec<u8>>> {
    let path = handle_path(&fd);
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::getxattr(&path, name, &mut value[..]) {
            Ok(len) => {
                value.truncate(len);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < MAX_VALUE => value.resize(MAX_VALUE, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Lists the names of all attributes.
pub fn names(fd: impl AsFd) -> io::Result<Vec<OsString>> {
    let path = handle_path(&fd);
    let mut list = vec![0; 1024];
    loop {
        match rustix::fs::listxattr(&path, &mut list[..]) {
            Ok(len) => {
                let names = list[..len].split(|byte| *byte == 0).filter(|name| !name.is_empty());
                return Ok(names.map(|name| OsStr::from_bytes(name).to_owned()).collect());
            }
            Err(Errno::RANGE) if list.len() < MAX_LIST => list.resize(MAX_LIST, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Removes an attribute; one that is not set is fine.
pub fn remove(fd: impl AsFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::removexattr(handle_path(&fd), name) {
        Ok(()) | Err(Errno::NODATA) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
