//! Deletions in layers: `.wh.` names in archives, 0:0 devices and an attribute in overlay directories.
//!
//! The OCI image specification, "Whiteouts", and the kernel's `filesystems/overlayfs`.

use std::ffi::OsStr;
use std::io;

use rorqual_sys::path::{Dir, Special};
use rorqual_sys::xattr;
use rustix::fs::{FileType, Stat};

const PREFIX: &[u8] = b".wh.";
/// Attribute of a directory that hides what lies below it.
pub(crate) const OPAQUE: &str = "trusted.overlay.opaque";
/// Name that makes its directory opaque in an archive.
pub(crate) const OPAQUE_MARK: &[u8] = b".wh..wh..opq";

/// What a `.wh.` name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark<'n> {
    /// The directory hides everything below it.
    Opaque,
    /// The name in the layers below is hidden.
    Hides(&'n [u8]),
    /// Left-overs of aufs.
    Ignored,
}

impl<'n> Mark<'n> {
    /// Reads a name; `None` when it hides nothing that can exist.
    pub(crate) fn parse(name: &'n [u8]) -> Option<Self> {
        let hidden = name.strip_prefix(PREFIX)?;
        match hidden {
            _ if name == OPAQUE_MARK => Some(Self::Opaque),
            b"" | b"." | b".." => None,
            _ if hidden.starts_with(PREFIX) => Some(Self::Ignored),
            _ => Some(Self::Hides(hidden)),
        }
    }
}

/// Tells whether a name in an archive is a mark.
pub(crate) fn is_mark(name: &[u8]) -> bool {
    name.starts_with(PREFIX)
}

/// Returns the name in an archive that hides `name`.
pub(crate) fn mark_for(name: &[u8]) -> Vec<u8> {
    [PREFIX, name].concat()
}

/// Tells a whiteout in an overlay directory.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Makes a whiteout.
pub(crate) fn make(dir: &Dir, name: &OsStr) -> io::Result<()> {
    dir.mknod(name, Special { kind: FileType::CharacterDevice, mode: 0, device: (0, 0) })
}

/// Makes a directory hide what lies below it.
pub(crate) fn set_opaque(dir: &Dir) -> io::Result<()> {
    xattr::set(dir, OsStr::new(OPAQUE), b"y")
}

/// Tells whether a directory hides what lies below it.
pub(crate) fn is_opaque(dir: &Dir) -> io::Result<bool> {
    Ok(xattr::get(dir, OsStr::new(OPAQUE))?.as_deref() == Some(b"y"))
}

/// Hides a name of the layers below, unless this layer has the name itself.
pub(crate) fn hide(dir: &Dir, name: &OsStr) -> io::Result<()> {
    match dir.find(name)? {
        None => make(dir, name),
        // Whatever the order in the archive: the whiteout means the layers below, the entry means this one.
        Some(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
            set_opaque(&dir.child(name)?)
        }
        Some(_) => Ok(()),
    }
}
