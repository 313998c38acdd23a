//! One entry of a tree: its kind and all that `stat(2)` and `listxattr(2)` tell of it, in a form that can travel.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rorqual_sys::path::{Dir, Special};
use rorqual_sys::xattr;
use rustix::fs::{FileType, Stat, Timespec};
use serde::{Deserialize, Serialize};

/// What kind of entry it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// A regular file of so many bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link and where it leads.
    Symlink(#[serde(with = "super::entry::text")] Vec<u8>),
    /// A further name of an earlier entry.
    Link(#[serde(with = "super::entry::text")] Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A socket's file.
    Socket,
    /// A character device.
    Char(u32, u32),
    /// A block device.
    Block(u32, u32),
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attribute(
    #[serde(with = "super::entry::text")] pub(crate) Vec<u8>,
    #[serde(with = "super::entry::text")] pub(crate) Vec<u8>,
);

/// An entry of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Path below the root, without a slash in front; empty for the root itself.
    #[serde(with = "super::entry::text")]
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) xattrs: Vec<Attribute>,
    /// Which file it is, if it has several names.
    #[serde(skip)]
    pub(crate) inode: Option<(u64, u64)>,
}

impl Entry {
    pub(crate) fn of_directory(dir: &Dir, path: Vec<u8>) -> io::Result<Self> {
        let stat = dir.own_stat()?;
        Ok(Self::described(&stat, Kind::Directory, path, attributes(dir)?))
    }

    pub(crate) fn of_name(dir: &Dir, name: &OsStr, path: Vec<u8>) -> io::Result<Self> {
        let handle = dir.handle(name)?;
        let stat = rustix::fs::fstat(&handle)?;
        let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File(stat.st_size as u64),
            FileType::Symlink => Kind::Symlink(dir.read_link(name)?.as_bytes().to_vec()),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::Char(device().0, device().1),
            FileType::BlockDevice => Kind::Block(device().0, device().1),
            // A name that has just become a directory.
            _ => return Err(io::ErrorKind::NotFound.into()),
        };
        Ok(Self::described(&stat, kind, path, attributes(&handle)?))
    }

    fn described(stat: &Stat, kind: Kind, path: Vec<u8>, xattrs: Vec<Attribute>) -> Self {
        let several = stat.st_nlink > 1 && kind != Kind::Directory;
        Self {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
            xattrs,
            inode: several.then_some((stat.st_dev, stat.st_ino)),
        }
    }

    /// Makes what is neither file, directory nor link.
    pub(crate) fn make_node(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        let (kind, device) = match &self.kind {
            Kind::Symlink(target) => return dir.symlink(name, OsStr::from_bytes(target)),
            Kind::Fifo => (FileType::Fifo, (0, 0)),
            Kind::Socket => (FileType::Socket, (0, 0)),
            Kind::Char(major, minor) => (FileType::CharacterDevice, (*major, *minor)),
            Kind::Block(major, minor) => (FileType::BlockDevice, (*major, *minor)),
            Kind::File(_) | Kind::Directory | Kind::Link(_) => {
                return Err(io::ErrorKind::InvalidInput.into());
            }
        };
        dir.mknod(name, Special { kind, mode: 0o600, device })
    }

    /// Gives an entry in a directory its owner, mode, attributes and time.
    pub(crate) fn dress(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        // ORDER: a change of the owner takes set-id bits and capabilities away; attributes touch the time.
        dir.chown(name, self.uid, self.gid)?;
        if !matches!(self.kind, Kind::Symlink(_)) {
            dir.chmod(name, self.mode)?;
        }
        let handle = dir.handle(name)?;
        self.dress_xattrs(&handle)?;
        dir.set_mtime(name, self.time())
    }

    /// Gives the root itself what [`Self::dress`] gives an entry.
    pub(crate) fn dress_root(&self, root: &Dir) -> io::Result<()> {
        let (uid, gid) = (rustix::fs::Uid::from_raw(self.uid), rustix::fs::Gid::from_raw(self.gid));
        rustix::fs::fchown(root, Some(uid), Some(gid))?;
        rustix::fs::fchmod(root, rustix::fs::Mode::from_raw_mode(self.mode))?;
        self.dress_xattrs(root)?;
        let time = self.time();
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        Ok(rustix::fs::futimens(root, &times)?)
    }

    fn dress_xattrs(&self, handle: impl AsFd) -> io::Result<()> {
        for Attribute(name, value) in &self.xattrs {
            xattr::set(&handle, OsStr::from_bytes(name), value)?;
        }
        Ok(())
    }

    fn time(&self) -> Timespec {
        Timespec { tv_sec: self.mtime.0, tv_nsec: i64::from(self.mtime.1) }
    }
}

/// Tells whether an attribute belongs to the data rather than to the host they lie on.
///
/// `trusted.overlay.*` does: a volume may hold the layers of a container engine that runs in a container.
pub(crate) fn travels(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"user.")
        || name.starts_with(b"trusted.")
        || name == b"system.posix_acl_access"
        || name == b"system.posix_acl_default"
}

fn attributes(fd: impl AsFd) -> io::Result<Vec<Attribute>> {
    let mut found = Vec::new();
    for name in xattr::names(&fd)? {
        let bytes = name.as_bytes();
        if travels(bytes)
            && let Some(value) = xattr::get(&fd, &name)?
        {
            found.push(Attribute(bytes.to_vec(), value));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

/// Bytes as JSON text: UTF-8 as it is, `%` and all other bytes as `%xx`.
pub(crate) mod text {
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '%' => text.push_str("%25"),
                    character => text.push(character),
                }
            }
            text.extend(chunk.invalid().iter().map(|byte| format!("%{byte:02x}")));
        }
        text
    }

    pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.as_bytes();
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            if *first != b'%' {
                bytes.push(*first);
                continue;
            }
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return None;
            }
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        }
        Some(bytes)
    }

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&encode(bytes))
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        decode(&text).ok_or_else(|| D::Error::custom("a percent sign without two digits"))
    }
}
