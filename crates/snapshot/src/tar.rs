//! The tar format: ustar, PAX and GNU, as far as images and container archives use it.
//!
//! Own code, because a layer must be written again byte for byte (the reader hands out the raw blocks), and because sparse
//! files of all kinds must come out whole. Touches no file system.

mod header;
mod pax;
mod read;
mod write;

pub use read::{MAX_SPECIAL, Reader};
pub use write::Writer;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Regular file.
    File,
    /// Further name of an earlier entry.
    HardLink,
    /// Symbolic link.
    Symlink,
    /// Character device.
    CharDevice,
    /// Block device.
    BlockDevice,
    /// Directory.
    Directory,
    /// Named pipe.
    Fifo,
}

/// A run of data in a sparse file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where in the file.
    pub offset: u64,
    /// Bytes.
    pub len: u64,
}

/// One entry, with all extension headers taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// As written, not cleaned.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of the file once unpacked.
    pub size: u64,
    /// Bytes of data that follow in the archive.
    pub stored: u64,
    /// Modification time: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Major and minor number.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Where the stored data belongs, for a sparse file.
    pub sparse: Option<Vec<Extent>>,
}

impl Entry {
    /// Makes an entry without links, devices and attributes.
    pub fn new(path: impl Into<Vec<u8>>, kind: Kind, mode: u32) -> Self {
        Self {
            path: path.into(),
            kind,
            link: Vec::new(),
            mode,
            uid: 0,
            gid: 0,
            size: 0,
            stored: 0,
            mtime: (0, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: None,
        }
    }
}

/// Tells whether bytes begin with the header of an entry.
pub fn is_header(head: &[u8]) -> bool {
    head.first_chunk().is_some_and(|block| header::check_sum(block).is_ok())
}

/// An archive that breaks the format or a bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTar(pub String);

impl From<InvalidTar> for std::io::Error {
    fn from(error: InvalidTar) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, error)
    }
}

pub(crate) fn invalid(text: impl Into<String>) -> InvalidTar {
    InvalidTar(text.into())
}

#[cfg(test)]
mod tests;
