//! Making tar entries of what lies below a directory. Changes nothing there.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use rorqual_core::idmap::IdMaps;
use rorqual_sys::path::Dir;
use rorqual_sys::xattr;
use rustix::fs::{FileType, Stat};

use crate::remapped;
use crate::tar::{Entry, Kind, Writer};

/// LIMIT: descriptors held at once while a tree is packed; what lies deeper is refused.
const MAX_DEPTH: usize = 400;

/// Packs files of one file system.
pub(crate) struct Packer<W> {
    writer: Writer<W>,
    /// Paths in the archive of files with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    /// No time is later than this one, in seconds since the epoch.
    latest: Option<i64>,
    /// Entries get the ids that they have inside.
    users: Option<IdMaps>,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(sink: W) -> Self {
        Self { writer: Writer::new(sink), links: HashMap::new(), latest: None, users: None }
    }

    /// Lets no entry have a time later than `latest`.
    pub(crate) const fn no_later_than(mut self, latest: Option<i64>) -> Self {
        self.latest = latest;
        self
    }

    /// Gives entries the ids that they have in a container with these maps.
    pub(crate) fn seen_inside(mut self, users: Option<IdMaps>) -> Self {
        self.users = users;
        self
    }

    /// Writes an entry's header.
    fn header(&mut self, mut entry: Entry) -> io::Result<()> {
        if let Some(users) = &self.users {
            remapped::inside(users, &mut entry);
        }
        self.writer.header(&entry)
    }

    fn described(&self, stat: &Stat, kind: Kind, path: Vec<u8>) -> Entry {
        let mut entry = described(stat, kind, path);
        if let Some(latest) = self.latest.filter(|latest| entry.mtime.0 >= *latest) {
            entry.mtime = (latest, 0);
        }
        entry
    }

    /// Writes an empty file, such as a whiteout.
    pub(crate) fn mark(&mut self, path: Vec<u8>) -> io::Result<()> {
        self.writer.file(Entry::new(path, Kind::File, 0), &[])
    }

    /// Packs a directory's own entry, without what is in it.
    pub(crate) fn directory(&mut self, dir: &Dir, path: &[u8]) -> io::Result<()> {
        let stat = dir.own_stat()?;
        let mut entry = self.described(&stat, Kind::Directory, slashed(path));
        entry.xattrs = attributes(dir)?;
        self.header(entry)
    }

    /// Packs one name, without what is in it if it is a directory. What has gone meanwhile and sockets are left out.
    pub(crate) fn single(&mut self, dir: &Dir, name: &OsStr, path: &[u8]) -> io::Result<()> {
        let Some(stat) = dir.find(name)? else { return Ok(()) };
        let Some(kind) = kind(&stat) else { return Ok(()) };
        if kind == Kind::Directory {
            return match dir.child(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                child => self.directory(&child?, path),
            };
        }
        let mut entry = self.described(&stat, kind, path.to_vec());
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino))
        {
            entry.kind = Kind::HardLink;
            entry.link.clone_from(first);
            return self.header(entry);
        }
        let result = match kind {
            Kind::File => self.file(dir, name, entry),
            _ => self.node(dir, name, entry),
        };
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result?,
        }
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        Ok(())
    }

    fn file(&mut self, dir: &Dir, name: &OsStr, mut entry: Entry) -> io::Result<()> {
        let mut file = dir.open_file(name)?;
        // The file that was opened, not the one that was looked at.
        let stat = rustix::fs::fstat(&file)?;
        entry.size = stat.st_size as u64;
        entry.xattrs = attributes(&file)?;
        let size = entry.size;
        self.header(entry)?;
        self.writer.data(&mut file, size)
    }

    fn node(&mut self, dir: &Dir, name: &OsStr, mut entry: Entry) -> io::Result<()> {
        if entry.kind == Kind::Symlink {
            entry.link = dir.read_link(name)?.as_bytes().to_vec();
        }
        entry.xattrs = attributes(dir.handle(name)?)?;
        self.header(entry)
    }

    /// Packs a name with all that is in it.
    pub(crate) fn tree(&mut self, dir: &Dir, name: &OsStr, path: &[u8]) -> io::Result<()> {
        self.single(dir, name, path)?;
        match dir.find(name)? {
            Some(stat) if kind(&stat) == Some(Kind::Directory) => {
                self.contents(&dir.child(name)?, path, 0)
            }
            _ => Ok(()),
        }
    }

    /// Packs what is in a directory, below `path`.
    pub(crate) fn contents(&mut self, dir: &Dir, path: &[u8], depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(io::Error::other("directories are nested too deeply"));
        }
        for entry in dir.entries()? {
            let below = joined(path, &entry.name);
            self.single(dir, &entry.name, &below)?;
            if entry.kind == FileType::Directory {
                match dir.child(&entry.name) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    child => self.contents(&child?, &below, depth + 1)?,
                }
            }
        }
        Ok(())
    }

    pub(crate) fn finish(self) -> io::Result<W> {
        self.writer.finish()
    }
}

fn joined(path: &[u8], name: &OsString) -> Vec<u8> {
    match path {
        b"" => name.as_bytes().to_vec(),
        path if path.ends_with(b"/") => [path, name.as_bytes()].concat(),
        path => [path, b"/", name.as_bytes()].concat(),
    }
}

fn slashed(path: &[u8]) -> Vec<u8> {
    let mut path = path.to_vec();
    if !path.ends_with(b"/") {
        path.push(b'/');
    }
    path
}

fn kind(stat: &Stat) -> Option<Kind> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Some(Kind::File),
        FileType::Directory => Some(Kind::Directory),
        FileType::Symlink => Some(Kind::Symlink),
        FileType::CharacterDevice => Some(Kind::CharDevice),
        FileType::BlockDevice => Some(Kind::BlockDevice),
        FileType::Fifo => Some(Kind::Fifo),
        _ => None,
    }
}

fn described(stat: &Stat, kind: Kind, path: Vec<u8>) -> Entry {
    let mut entry = Entry::new(path, kind, stat.st_mode & 0o7777);
    entry.uid = stat.st_uid;
    entry.gid = stat.st_gid;
    entry.mtime = (stat.st_mtime, stat.st_mtime_nsec as u32);
    if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
        entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    }
    entry
}

/// Reads the attributes that belong to a file rather than to the host it lies on.
pub(crate) fn attributes(fd: impl rustix::fd::AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in xattr::names(&fd)? {
        let bytes = name.as_bytes();
        let travels = bytes == b"security.capability"
            || bytes.starts_with(b"user.") && !bytes.starts_with(b"user.overlay.")
            || bytes.starts_with(b"system.posix_acl_");
        if travels && let Some(value) = xattr::get(&fd, &name)? {
            found.push((bytes.to_vec(), value));
        }
    }
    found.sort();
    Ok(found)
}
