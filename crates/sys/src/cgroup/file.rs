//! Reading and writing the small files of a group, relative to its open directory.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

use super::Error;

/// LIMIT: no control file is longer; `memory.stat` of a thousand nodes stays below.
const MAX_FILE: u64 = 16 << 20;

/// A directory of one hierarchy and its path there.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) fd: Base,
    /// Below the hierarchy's root, without a leading slash; empty for the root.
    pub(super) path: String,
}

/// Where the names of a directory start.
#[derive(Debug)]
pub(super) enum Base {
    /// At the directory itself.
    Own(OwnedFd),
    /// At the root of its hierarchy. Groups of version 1 have so many directories that opening each takes longer than
    /// all that is done in them.
    Root(BorrowedFd<'static>),
}

impl AsFd for Base {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(fd) => fd.as_fd(),
            Self::Root(fd) => *fd,
        }
    }
}

impl Directory {
    fn error(&self, action: String, file: &str, source: io::Error) -> Error {
        Error::File { action, file: file.to_owned(), path: format!("/{}", self.path), source }
    }

    /// Returns the name of an entry as seen from [`Directory::fd`].
    pub(super) fn name<'n>(&self, entry: &'n str) -> Cow<'n, str> {
        match self.fd {
            Base::Root(_) if !self.path.is_empty() => Cow::Owned(format!("{}/{entry}", self.path)),
            _ => Cow::Borrowed(entry),
        }
    }

    pub(super) fn open_file(&self, file: &str, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        Ok(rustix::fs::openat(&self.fd, &*self.name(file), flags, Mode::empty())?)
    }

    pub(super) fn write_raw(&self, file: &str, value: &str) -> io::Result<()> {
        let fd = self.open_file(file, OFlags::WRONLY)?;
        write_once(&fd, value.as_bytes())
    }

    /// Writes a control in one call, as the kernel demands.
    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        self.write_raw(file, value)
            .map_err(|source| self.error(format!("write {value:?} to"), file, source))
    }

    /// Writes several values to one control, each by its own call.
    pub(super) fn write_all(&self, file: &str, values: &[String]) -> Result<(), Error> {
        let error = |value: &str, source| self.error(format!("write {value:?} to"), file, source);
        let first = values.first().map_or("", String::as_str);
        let fd = self.open_file(file, OFlags::WRONLY).map_err(|source| error(first, source))?;
        let write = |value: &String| {
            write_once(&fd, value.as_bytes()).map_err(|source| error(value, source))
        };
        values.iter().try_for_each(write)
    }

    /// Writes a control unless the kernel lacks it; tells whether it has it.
    pub(super) fn write_if_present(&self, file: &str, value: &str) -> Result<bool, Error> {
        match self.write_raw(file, value) {
            Ok(()) => Ok(true),
            Err(fault) if fault.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(self.error(format!("write {value:?} to"), file, source)),
        }
    }

    pub(super) fn read_raw(&self, file: &str) -> io::Result<String> {
        let mut text = String::new();
        File::from(self.open_file(file, OFlags::RDONLY)?)
            .take(MAX_FILE)
            .read_to_string(&mut text)?;
        Ok(text)
    }

    pub(super) fn read(&self, file: &str) -> Result<String, Error> {
        self.read_raw(file).map_err(|source| self.error("read".to_owned(), file, source))
    }

    /// Reads a control, `None` if the kernel lacks it.
    pub(super) fn read_if_present(&self, file: &str) -> Result<Option<String>, Error> {
        match self.read_raw(file) {
            Ok(text) => Ok(Some(text)),
            // Some controls exist and cannot be read, as `memory.failcnt` with swap switched off.
            Err(fault)
                if fault.kind() == io::ErrorKind::NotFound
                    || fault.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                Ok(None)
            }
            Err(source) => Err(self.error("read".to_owned(), file, source)),
        }
    }

    /// Reads a single number; `max` and its old spelling are `None`.
    pub(super) fn read_number(&self, file: &str) -> Result<Option<u64>, Error> {
        Ok(self.read_if_present(file)?.and_then(|text| number(&text)))
    }

    pub(super) fn has(&self, file: &str) -> bool {
        rustix::fs::accessat(
            &self.fd,
            &*self.name(file),
            rustix::fs::Access::EXISTS,
            rustix::fs::AtFlags::empty(),
        )
        .is_ok()
    }

    pub(super) fn fault(&self, action: &str, file: &str, source: impl Into<io::Error>) -> Error {
        self.error(action.to_owned(), file, source.into())
    }
}

/// Writes all of `bytes` by a single call.
pub(super) fn write_once(fd: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let written = rustix::io::write(fd, bytes)?;
    if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

/// What version 1 shows for unlimited, give or take a page.
const UNLIMITED: u64 = 0x7fff_ffff_ffff_0000;

/// Reads a number; `max`, unlimited and anything else are `None`.
pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|number| *number < UNLIMITED)
}

/// Walks through lines of the form `key number`.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(' ')?;
        Some((key, value.trim().parse().ok()?))
    })
}

/// Finds one number among lines of the form `key number`.
pub(super) fn pair(text: &str, wanted: &str) -> Option<u64> {
    pairs(text).find(|(key, _)| *key == wanted).map(|(_, value)| value)
}
