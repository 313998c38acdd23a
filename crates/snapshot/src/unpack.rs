//! Writing tar entries below a root: for layers (with whiteouts, nothing lost of the archive) and for `cp` into containers.
//!
//! Every parent is resolved by the kernel inside the root; the last name is created by descriptor and never followed.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rorqual_sys::path::{Dir, Root, Special};
use rorqual_sys::xattr;
use rustix::fs::{FileType, Gid, Mode, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use crate::entry_path::{clean, failed, name_of, shown, split};
use crate::tar::{Entry, Kind, Reader};
use crate::{Error, whiteout};

/// LIMIT: entries of one archive. A full distribution has a tenth of it.
const MAX_ENTRIES: u64 = 4_000_000;

/// What to do with the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A layer: whiteouts become the overlay's own, replaced files are kept aside.
    Layer,
    /// A tree of ours, copied whole with the attributes of its root.
    Copy,
    /// Files for a container.
    Files {
        /// Refuse to replace a directory by something else and the reverse.
        keep_kind: bool,
        /// Keep the archive's owners; otherwise root.
        owners: bool,
    },
}

/// Writes entries below a root.
pub(crate) struct Unpacker {
    root: Root,
    purpose: Purpose,
    /// Put in front of every path: where in the root the entries go.
    base: Vec<u8>,
    /// The directory written to last.
    parent: Option<(Vec<u8>, Dir)>,
    /// Times of directories, set at the end because writing into them changes them.
    times: Vec<(Vec<u8>, (i64, u32))>,
    /// Where replaced files of a layer go, by the number of their data.
    aside: Option<Dir>,
    numbers: HashMap<u64, u64>,
    next_number: u64,
    /// Symbolic links made so far.
    links: u64,
    /// The directory looked at last, and whether no link leads to it.
    checked: Option<(Vec<u8>, bool)>,
    entries: u64,
    budget: u64,
    /// Sum of file sizes.
    pub(crate) size: u64,
}

/// What became of an entry's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// It is the whole content of the file at this path.
    AsFile(Vec<u8>),
    /// Nothing holds it in this form.
    Nowhere,
}

impl Unpacker {
    /// Writes below `root` no more than `budget` bytes.
    pub(crate) fn new(root: Root, purpose: Purpose, budget: u64) -> Self {
        Self {
            root,
            purpose,
            base: Vec::new(),
            parent: None,
            times: Vec::new(),
            aside: None,
            numbers: HashMap::new(),
            next_number: 0,
            links: 0,
            checked: None,
            entries: 0,
            budget,
            size: 0,
        }
    }

    /// Writes below `base` instead of the root itself; links are still resolved in the root.
    pub(crate) fn below(mut self, base: &[u8]) -> Self {
        self.base = base.to_vec();
        self
    }

    fn placed(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        let path = clean(path)?;
        Ok(if self.base.is_empty() { path } else { [&self.base, &b"/"[..], &path].concat() })
    }

    /// Keeps what later entries replace in `dir`, named by the number of their data.
    pub(crate) fn keep_aside(&mut self, dir: Dir) {
        self.aside = Some(dir);
    }

    /// Writes one entry, with its data from `reader`.
    pub(crate) fn entry<R: BufRead>(
        &mut self,
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<Stored, Error> {
        self.entries += 1;
        // COMPAT: dockerd counts the length of a link's target, too.
        let link = if entry.kind == Kind::Symlink { entry.link.len() as u64 } else { 0 };
        self.size = self.size.saturating_add(entry.size).saturating_add(link);
        if self.entries > MAX_ENTRIES {
            return Err(Error::InvalidArchive("too many entries".to_owned()));
        }
        if self.size > self.budget {
            let text = format!(
                "it unpacks to more than {} bytes, which is the bound on a layer or all the space that is free",
                self.budget
            );
            return Err(Error::InvalidArchive(text));
        }
        let path = self.placed(&entry.path)?;
        if path.is_empty() || path.ends_with(b"/") {
            return self.root_entry(entry).map_err(failed(b"/")).map(|()| Stored::Nowhere);
        }
        if self.purpose == Purpose::Layer && whiteout::is_mark(split(&path).1) {
            self.whiteout(&path)?;
            return Ok(Stored::Nowhere);
        }
        self.plain(&path, entry, reader)
    }

    /// Tells whether the entry's data is dropped: a mark that is no empty file.
    pub(crate) fn wastes(entry: &Entry) -> bool {
        let name = entry.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        entry.stored > 0 && (whiteout::is_mark(name) || matches!(name, b"" | b"." | b".."))
    }

    /// Sets what had to wait for the last entry.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.parent = None;
        for (path, mtime) in std::mem::take(&mut self.times).into_iter().rev() {
            // A directory may have been replaced by something else meanwhile.
            let Ok(dir) = self.root.open_dir(Path::new(name_of(&path))) else { continue };
            set_times(&dir, mtime).map_err(failed(&path))?;
        }
        Ok(())
    }

    fn root_entry(&mut self, entry: &Entry) -> io::Result<()> {
        if entry.kind != Kind::Directory || matches!(self.purpose, Purpose::Files { .. }) {
            return Ok(());
        }
        let dir = self.root.dir().try_clone()?;
        self.directory_attributes(&dir, entry)?;
        self.times.push((Vec::new(), entry.mtime));
        Ok(())
    }

    fn plain<R: BufRead>(
        &mut self,
        path: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<Stored, Error> {
        let (parent, _) = split(path);
        let dir = self.parent(parent).map_err(failed(path))?;
        let result = self.write(&dir, path, entry, reader);
        self.parent = Some((parent.to_vec(), dir));
        let stored = result?;
        if entry.kind == Kind::Directory {
            self.times.push((path.to_vec(), entry.mtime));
        }
        Ok(stored)
    }

    fn write<R: BufRead>(
        &mut self,
        dir: &Dir,
        path: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<Stored, Error> {
        let name = name_of(split(path).1);
        match entry.kind {
            Kind::Directory => self.directory(dir, name, entry).map_err(failed(path))?,
            Kind::File => return self.file(dir, path, entry, reader),
            Kind::HardLink => self.hard_link(dir, path, entry)?,
            _ => self.node(dir, name, entry).map_err(failed(path))?,
        }
        Ok(Stored::Nowhere)
    }

    /// Opens the directory an entry goes to, and makes it where the archive left it out.
    fn parent(&mut self, path: &[u8]) -> io::Result<Dir> {
        if let Some((known, dir)) = self.parent.take()
            && known == path
        {
            return Ok(dir);
        }
        let as_path = Path::new(name_of(path));
        match self.root.mkdirs(as_path, 0o755) {
            Err(error) if error.raw_os_error() == Some(Errno::NOTDIR.raw_os_error()) => {
                self.uncover(path)?;
                self.root.mkdirs(as_path, 0o755)
            }
            result => result,
        }
    }

    /// Turns whiteouts on the way to `path` into opaque directories: the same layer hides and refills them.
    fn uncover(&mut self, path: &[u8]) -> io::Result<()> {
        if self.purpose != Purpose::Layer {
            return Ok(());
        }
        let mut end = 0;
        while end < path.len() {
            end = path[end + 1..]
                .iter()
                .position(|b| *b == b'/')
                .map_or(path.len(), |at| end + 1 + at);
            let Ok((dir, name)) = self.root.parent(Path::new(name_of(&path[..end]))) else { break };
            if dir.find(name)?.is_some_and(|stat| whiteout::is_whiteout(&stat)) {
                dir.unlink(name)?;
                dir.mkdir(name, 0o755)?;
                whiteout::set_opaque(&dir.child(name)?)?;
            }
        }
        Ok(())
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Error> {
        let (parent, mark) = split(path);
        let dir = self.parent(parent).map_err(failed(path))?;
        let result = match whiteout::Mark::parse(mark) {
            Some(whiteout::Mark::Opaque) => whiteout::set_opaque(&dir),
            Some(whiteout::Mark::Hides(name)) => whiteout::hide(&dir, name_of(name)),
            Some(whiteout::Mark::Ignored) => Ok(()),
            None => {
                return Err(Error::InvalidArchive(format!("{} is no whiteout", shown(path))));
            }
        };
        self.parent = Some((parent.to_vec(), dir));
        result.map_err(failed(path))
    }

    fn directory(&mut self, dir: &Dir, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let mut opaque = false;
        match dir.find(name)? {
            Some(stat) if is_dir(&stat) => {}
            found => {
                if let Some(stat) = found {
                    opaque = self.purpose == Purpose::Layer && whiteout::is_whiteout(&stat);
                    self.replace(dir, name, &stat, entry.kind)?;
                }
                dir.mkdir(name, 0o700)?;
            }
        }
        let child = dir.child(name)?;
        if opaque {
            whiteout::set_opaque(&child)?;
        }
        self.directory_attributes(&child, entry)
    }

    fn directory_attributes(&self, dir: &Dir, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner(entry);
        rustix::fs::fchown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        // ORDER: a change of owner clears setuid and setgid.
        rustix::fs::fchmod(dir, Mode::from_raw_mode(entry.mode))?;
        Self::attributes(entry, |name, value| {
            Ok(rustix::fs::fsetxattr(dir, name, value, XattrFlags::empty())?)
        })
    }

    fn owner(&self, entry: &Entry) -> (u32, u32) {
        match self.purpose {
            Purpose::Files { owners: false, .. } => (0, 0),
            _ => (entry.uid, entry.gid),
        }
    }

    fn attributes(entry: &Entry, set: impl Fn(&OsStr, &[u8]) -> io::Result<()>) -> io::Result<()> {
        for (name, value) in &entry.xattrs {
            // An image must not speak to the overlay: these would redirect or hide what lies below.
            if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                continue;
            }
            match set(name_of(name), value) {
                // COMPAT: a file system without such attributes does not make the image unusable.
                Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// Makes room for an entry.
    fn replace(&mut self, dir: &Dir, name: &OsStr, stat: &Stat, by: Kind) -> io::Result<()> {
        if let Purpose::Files { keep_kind: true, .. } = self.purpose
            && is_dir(stat) != (by == Kind::Directory)
        {
            // COMPAT: dockerd's text.
            let (old, new) = if is_dir(stat) {
                ("directory", "non-directory")
            } else {
                ("non-directory", "directory")
            };
            let name = name.to_string_lossy();
            let text = format!("cannot overwrite {old} \"{name}\" with {new} \"{name}\"");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        self.checked = None;
        if !is_dir(stat) {
            return self.discard(dir, name, stat);
        }
        if self.aside.is_some() {
            self.keep_tree(&dir.child(name)?, 0)?;
        }
        dir.remove_tree(name)
    }

    fn discard(&mut self, dir: &Dir, name: &OsStr, stat: &Stat) -> io::Result<()> {
        if let (Some(aside), Some(number)) = (&self.aside, self.numbers.get(&stat.st_ino)) {
            dir.rename(name, aside, name_of(number.to_string().as_bytes()))?;
            // A file that was kept under another of its names stays where it is: renaming it onto itself changes nothing.
            return match dir.unlink(name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                result => result,
            };
        }
        dir.unlink(name)
    }

    fn keep_tree(&mut self, dir: &Dir, depth: usize) -> io::Result<()> {
        // LIMIT: descriptors held at once; deeper trees that one layer makes and replaces are hostile.
        if depth > 256 {
            return Err(Errno::LOOP.into());
        }
        for entry in dir.entries()? {
            match dir.find(&entry.name)? {
                Some(stat) if is_dir(&stat) => {
                    self.keep_tree(&dir.child(&entry.name)?, depth + 1)?;
                }
                Some(stat) => self.discard(dir, &entry.name, &stat)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Runs `make`, once more after making room if something is in the way.
    fn make<T>(
        &mut self,
        dir: &Dir,
        name: &OsStr,
        by: Kind,
        make: impl Fn() -> io::Result<T>,
    ) -> io::Result<T> {
        match make() {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if let Some(stat) = dir.find(name)? {
                    self.replace(dir, name, &stat, by)?;
                }
                make()
            }
            result => result,
        }
    }

    fn file<R: BufRead>(
        &mut self,
        dir: &Dir,
        path: &[u8],
        entry: &Entry,
        reader: &mut Reader<R>,
    ) -> Result<Stored, Error> {
        let name = name_of(split(path).1);
        let mut file =
            self.make(dir, name, Kind::File, || dir.create(name)).map_err(failed(path))?;
        if let Some(extents) = &entry.sparse {
            file.set_len(entry.size).map_err(failed(path))?;
            for extent in extents {
                copy_at(&file, extent.offset, extent.len, reader).map_err(failed(path))?;
            }
        } else {
            copy(&mut file, reader).map_err(failed(path))?;
        }
        self.file_attributes(&file, entry).map_err(failed(path))?;
        if entry.sparse.is_some() || entry.size == 0 {
            return Ok(Stored::Nowhere);
        }
        if self.aside.is_some() {
            let inode =
                rustix::fs::fstat(&file).map_err(|error| failed(path)(error.into()))?.st_ino;
            self.numbers.insert(inode, self.next_number);
            if !self.straight(split(path).0) {
                self.keep_by_number(dir, name).map_err(failed(path))?;
            }
            self.next_number += 1;
        }
        Ok(Stored::AsFile(path.to_vec()))
    }

    /// Tells whether no link lies on the way to a directory. Only then is its path still good when the tar is written again.
    fn straight(&mut self, path: &[u8]) -> bool {
        if self.links == 0 || path.is_empty() {
            return true;
        }
        if let Some((known, straight)) = &self.checked
            && known == path
        {
            return *straight;
        }
        let straight = self.root.dir().try_clone().is_ok_and(|mut dir| {
            path.split(|byte| *byte == b'/').all(|part| match dir.child(name_of(part)) {
                Ok(child) => {
                    dir = child;
                    true
                }
                // A link is no directory to this.
                Err(_) => false,
            })
        });
        self.checked = Some((path.to_vec(), straight));
        straight
    }

    /// Gives a file's data a second name, by which it is found whatever becomes of its path.
    fn keep_by_number(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        let Some(aside) = &self.aside else { return Ok(()) };
        aside.link(name_of(self.next_number.to_string().as_bytes()), dir, name)
    }

    fn file_attributes(&self, file: &File, entry: &Entry) -> io::Result<()> {
        let (uid, gid) = self.owner(entry);
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        // ORDER: a change of owner clears setuid, setgid and capabilities.
        rustix::fs::fchmod(file, Mode::from_raw_mode(entry.mode))?;
        Self::attributes(entry, |name, value| {
            Ok(rustix::fs::fsetxattr(file, name, value, XattrFlags::empty())?)
        })?;
        set_times(file, entry.mtime)
    }

    fn hard_link(&mut self, dir: &Dir, path: &[u8], entry: &Entry) -> Result<(), Error> {
        let name = name_of(split(path).1);
        let target = self.placed(&entry.link)?;
        let missing = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => Error::InvalidArchive(format!(
                "{} is a hard link to {}, which is not in the archive",
                shown(path),
                shown(&target)
            )),
            _ => failed(path)(source),
        };
        let (from, source) = self.root.parent(Path::new(name_of(&target))).map_err(missing)?;
        let stat = from.find(source).map_err(missing)?;
        let stat = stat.ok_or_else(|| missing(Errno::NOENT.into()))?;
        if is_dir(&stat) {
            return Err(Error::InvalidArchive(format!("{} links to a directory", shown(path))));
        }
        if let Some(old) = dir.find(name).map_err(failed(path))? {
            // A link to itself changes nothing, and must not remove its own target.
            if (old.st_dev, old.st_ino) == (stat.st_dev, stat.st_ino) {
                return Ok(());
            }
            self.replace(dir, name, &old, Kind::HardLink).map_err(failed(path))?;
        }
        dir.link(name, &from, source).map_err(missing)
    }

    fn node(&mut self, dir: &Dir, name: &OsStr, entry: &Entry) -> io::Result<()> {
        let kind = match entry.kind {
            Kind::CharDevice => Some(FileType::CharacterDevice),
            Kind::BlockDevice => Some(FileType::BlockDevice),
            Kind::Fifo => Some(FileType::Fifo),
            _ => None,
        };
        self.make(dir, name, entry.kind, || match kind {
            Some(kind) => dir.mknod(name, Special { kind, mode: entry.mode, device: entry.device }),
            None if entry.link.is_empty() => Err(Errno::INVAL.into()),
            None => dir.symlink(name, name_of(&entry.link)),
        })?;
        self.links += u64::from(kind.is_none());
        let (uid, gid) = self.owner(entry);
        dir.chown(name, uid, gid)?;
        if kind.is_some() {
            dir.chmod(name, entry.mode)?;
        }
        if !entry.xattrs.is_empty() {
            let handle = dir.handle(name)?;
            Self::attributes(entry, |name, value| xattr::set(&handle, name, value))?;
        }
        let mtime = Timespec { tv_sec: entry.mtime.0, tv_nsec: i64::from(entry.mtime.1) };
        dir.set_mtime(name, mtime)
    }
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn set_times(fd: impl rustix::fd::AsFd, mtime: (i64, u32)) -> io::Result<()> {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: i64::from(mtime.1) };
    let times = Timestamps { last_access: time, last_modification: time };
    Ok(rustix::fs::futimens(fd, &times)?)
}

fn copy<R: BufRead>(file: &mut File, reader: &mut Reader<R>) -> io::Result<()> {
    loop {
        let data = reader.data()?;
        if data.is_empty() {
            return Ok(());
        }
        let len = data.len();
        file.write_all(data)?;
        reader.consume(len);
    }
}

fn copy_at<R: BufRead>(
    file: &File,
    mut offset: u64,
    mut left: u64,
    reader: &mut Reader<R>,
) -> io::Result<()> {
    while left > 0 {
        let data = reader.data()?;
        let len = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all_at(&data[..len], offset)?;
        reader.consume(len);
        offset += len as u64;
        left -= len as u64;
    }
    Ok(())
}
