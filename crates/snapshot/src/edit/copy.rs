//! Copying between trees: data, links, devices, owners, modes, times and attributes, by descriptor on both sides.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rorqual_sys::path::{Dir, Root, Special};
use rorqual_sys::xattr;
use rustix::fs::{FileType, Stat, Timespec};

use super::mode::Change;
use super::{Editor, Made, at, is_dir, relative, seconds};
use crate::decompress::decompress;
use crate::entry_path::reading;
use crate::layer::io_failed;
use crate::listing::RootListing;
use crate::select::{self, Pick, joined};
use crate::tar::{self, Reader};
use crate::unpack::{Purpose, Unpacker};
use crate::workbench::{CopyEdit, FileTree};
use crate::{Error, pack};

/// LIMIT: descriptors held at once; deeper trees are refused.
const MAX_DEPTH: usize = 200;
/// LIMIT: files with several names whose other names are remembered.
const MAX_LINKED: usize = 1_000_000;

/// Opens trees that are copied from.
pub(crate) trait Sources {
    /// Opens a tree; `None` for the empty one.
    fn tree(&self, tree: &FileTree) -> Result<Option<Root>, Error>;
}

/// A copy under way.
pub(super) struct Copying<'a> {
    editor: &'a Editor<'a>,
    source: &'a Root,
    edit: &'a CopyEdit,
    owner: Option<(u32, u32)>,
    mode: Option<Change>,
    /// Where files with several names went, by who they are.
    linked: HashMap<(u64, u64), String>,
    /// Times of directories, set at the end because writing into them changes them.
    times: Vec<(String, Timespec)>,
}

/// A directory's place in a copy.
#[derive(Clone, Copy)]
struct Place<'a> {
    /// Path in the target, for messages and times.
    target: &'a str,
    /// What was picked, and the path below it.
    shown: &'a [u8],
    below: &'a [u8],
    depth: usize,
}

/// One entry, from where and to where.
struct Entry<'a> {
    from: &'a Dir,
    name: &'a OsStr,
    to: &'a Dir,
    new: &'a OsStr,
    /// Path in the target, for messages and times.
    target: &'a str,
    /// What was picked, and the path below it.
    shown: &'a [u8],
    below: &'a [u8],
    depth: usize,
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn time(stat: &Stat) -> Timespec {
    Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

impl<'a> Copying<'a> {
    pub(super) fn new(
        editor: &'a Editor<'a>,
        source: &'a Root,
        edit: &'a CopyEdit,
        owner: Option<(u32, u32)>,
        mode: Option<Change>,
    ) -> Self {
        Self { editor, source, edit, owner, mode, linked: HashMap::new(), times: Vec::new() }
    }

    /// Copies one thing that was picked.
    pub(super) fn pick(&mut self, pick: &Pick) -> Result<(), Error> {
        let shown = text(if pick.kept.is_empty() { &pick.name } else { &pick.kept });
        self.place(pick).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => Error::InvalidArgument(error.to_string()),
            _ => io_failed(format!("copy {shown:?} to {:?}", self.edit.target))(error),
        })
    }

    /// Sets what had to wait.
    pub(super) fn finish(self) -> Result<(), Error> {
        for (path, time) in self.times.into_iter().rev() {
            let failed = || io_failed(format!("set the time of {path:?}"));
            let Ok(dir) = self.editor.root.open_dir(at(&path)) else { continue };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&dir, &times).map_err(|error| failed()(error.into()))?;
        }
        Ok(())
    }

    fn place(&mut self, pick: &Pick) -> io::Result<()> {
        let mut target = self.edit.target.clone();
        if self.edit.selection.parents {
            target = format!("{}/", target.trim_end_matches('/'));
        }
        self.make_parents(&target)?;
        if self.edit.selection.parents {
            target.push_str(&self.keep_parents(&pick.kept, &target)?);
        }
        let found = select::Listing::find(&RootListing(self.source), &pick.path)?;
        let Some(node) = found else { return Ok(()) };
        if self.edit.unpack
            && node.kind() == FileType::RegularFile
            && self.unpack(&pick.path, &target)?
        {
            return Ok(());
        }
        let there = self.editor.exists(&relative(&target))?;
        let into = there.is_some_and(is_dir) || (there.is_none() && target.ends_with('/'));
        let directory = node.kind() == FileType::Directory;
        let keeps_name = if directory { !self.edit.contents_only && there.is_some() } else { into };
        let named = if keeps_name { format!("{target}/{}", text(&pick.name)) } else { target };
        self.put(pick, directory, &relative(&named))
    }

    /// Makes the directories that the target needs.
    fn make_parents(&self, target: &str) -> io::Result<()> {
        if !self.edit.make_parents {
            return Ok(());
        }
        let cut = target.rfind('/').unwrap_or(0);
        let parent = relative(&target[..cut]);
        let owner = self.owner.unwrap_or((0, 0));
        let made = Made { mode: 0o755, owner, created: self.edit.created };
        self.editor.make_dirs(&parent, made)
    }

    /// Makes the source's directories in the target; returns what has to be put behind it.
    fn keep_parents(&mut self, kept: &[u8], target: &str) -> io::Result<String> {
        let Some(cut) = kept.iter().rposition(|byte| *byte == b'/') else {
            return Ok(String::new());
        };
        let source = self.edit.selection.source.clone();
        let base = source.find("/./").map_or(String::new(), |at| relative(&source[..at]));
        let mut sofar = String::new();
        for name in kept[..cut].split(|byte| *byte == b'/') {
            sofar = format!("{sofar}/{}", text(name));
            let from = relative(&format!("{base}/{sofar}"));
            let to = relative(&format!("{target}/{sofar}"));
            if self.editor.exists(&to)?.is_some() {
                continue;
            }
            let to = text(&select::landing(&RootListing(self.editor.root), to.as_bytes())?);
            self.make_parents(&format!("/{to}"))?;
            let stat = self.source.stat(at(&from), rorqual_sys::path::Follow::Yes)?;
            let (dir, name) = self.editor.root.parent(at(&to))?;
            dir.mkdir(name, 0o700)?;
            self.attributes(&dir, name, &stat, true)?;
            self.times.push((to.clone(), self.time(&stat)));
        }
        Ok(format!("{}/", sofar.trim_start_matches('/')))
    }

    fn put(&mut self, pick: &Pick, directory: bool, target: &str) -> io::Result<()> {
        // COMPAT: a link that the target itself is, is followed, also to where nothing is yet.
        let landing = select::landing(&RootListing(self.editor.root), target.as_bytes())?;
        let target = text(&landing);
        self.make_parents(&format!("/{target}"))?;
        if directory {
            let from = self.source.open_dir(Path::new(OsStr::from_bytes(&pick.path)))?;
            return self.top(&from, &pick.name, &target);
        }
        let (from, name) = self.source.parent(Path::new(OsStr::from_bytes(&pick.path)))?;
        let (to, new) = self.editor.root.parent(at(&target))?;
        let shown = &pick.name;
        let target = &target;
        self.entry(&Entry { from: &from, name, to: &to, new, target, shown, below: b"", depth: 0 })
    }

    /// Copies a directory that was picked. One that is there already keeps its own attributes.
    fn top(&mut self, from: &Dir, shown: &[u8], target: &str) -> io::Result<()> {
        let stat = from.own_stat()?;
        let to = match self.editor.exists(target)? {
            Some(mode) if is_dir(mode) => self.editor.root.open_dir(at(target))?,
            Some(_) if !self.edit.replace => {
                return Err(invalid(format!("cannot copy to non-directory: /{target}")));
            }
            there => {
                let (dir, name) = self.editor.root.parent(at(target))?;
                if there.is_some() {
                    dir.unlink(name)?;
                }
                dir.mkdir(name, 0o700)?;
                self.attributes(&dir, name, &stat, true)?;
                copy_attributes(from, &dir.child(name)?)?;
                self.times.push((target.to_owned(), self.time(&stat)));
                dir.child(name)?
            }
        };
        self.inside(from, &to, Place { target, shown, below: b"", depth: 0 })
    }

    fn inside(&mut self, from: &Dir, to: &Dir, place: Place<'_>) -> io::Result<()> {
        if place.depth > MAX_DEPTH {
            return Err(invalid("directories are nested too deeply".to_owned()));
        }
        for entry in from.entries()? {
            let name = entry.name.as_os_str();
            let below = joined(place.below, name.as_bytes());
            let path = format!("{}/{}", place.target, name.to_string_lossy());
            self.entry(&Entry {
                from,
                name,
                to,
                new: name,
                target: path.trim_start_matches('/'),
                shown: place.shown,
                below: &below,
                depth: place.depth + 1,
            })?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let Some(stat) = entry.from.find(entry.name)? else { return Ok(()) };
        let kind = FileType::from_raw_mode(stat.st_mode);
        let directory = kind == FileType::Directory;
        let selection = &self.edit.selection;
        let (wanted, inside) = select::wanted(selection, entry.shown, entry.below, directory);
        if directory {
            let holds = || self.holds(&entry.from.child(entry.name)?, entry, entry.depth);
            return match wanted || (inside && holds()?) {
                true => self.directory(entry, &stat),
                false => Ok(()),
            };
        }
        if !wanted || kind == FileType::Socket {
            return Ok(());
        }
        self.make_room(entry)?;
        if stat.st_nlink > 1 && self.link(entry, &stat)? {
            return Ok(());
        }
        match kind {
            FileType::RegularFile => self.file(entry)?,
            FileType::Symlink => {
                entry.to.symlink(entry.new, &entry.from.read_link(entry.name)?)?;
                self.attributes(entry.to, entry.new, &stat, false)?;
                entry.to.set_mtime(entry.new, self.time(&stat))?;
            }
            _ => self.node(entry, &stat, kind)?,
        }
        if stat.st_nlink > 1 && self.linked.len() < MAX_LINKED {
            self.linked.insert((stat.st_dev, stat.st_ino), entry.target.to_owned());
        }
        Ok(())
    }

    /// Tells whether something below a directory is wanted that is not wanted itself.
    fn holds(&self, dir: &Dir, entry: &Entry<'_>, depth: usize) -> io::Result<bool> {
        self.holds_below(dir, entry.shown, entry.below, depth)
    }

    fn holds_below(&self, dir: &Dir, shown: &[u8], below: &[u8], depth: usize) -> io::Result<bool> {
        if depth > MAX_DEPTH {
            return Ok(false);
        }
        for child in dir.entries()? {
            let path = joined(below, child.name.as_bytes());
            let directory = child.kind == FileType::Directory;
            let (wanted, inside) = select::wanted(&self.edit.selection, shown, &path, directory);
            if wanted
                || (directory
                    && inside
                    && self.holds_below(&dir.child(&child.name)?, shown, &path, depth + 1)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn directory(&mut self, entry: &Entry<'_>, stat: &Stat) -> io::Result<()> {
        match entry.to.find(entry.new)? {
            Some(there) if is_dir(there.st_mode) => {}
            Some(_) if !self.edit.replace => {
                return Err(invalid(format!("cannot copy to non-directory: /{}", entry.target)));
            }
            there => {
                if there.is_some() {
                    entry.to.unlink(entry.new)?;
                }
                entry.to.mkdir(entry.new, 0o700)?;
            }
        }
        self.attributes(entry.to, entry.new, stat, true)?;
        let (from, to) = (entry.from.child(entry.name)?, entry.to.child(entry.new)?);
        copy_attributes(&from, &to)?;
        self.times.push((entry.target.to_owned(), self.time(stat)));
        let Entry { target, shown, below, depth, .. } = *entry;
        self.inside(&from, &to, Place { target, shown, below, depth })
    }

    fn make_room(&self, entry: &Entry<'_>) -> io::Result<()> {
        match entry.to.find(entry.new)? {
            Some(there) if !is_dir(there.st_mode) => entry.to.unlink(entry.new),
            Some(_) if self.edit.replace => entry.to.remove_tree(entry.new),
            Some(_) => {
                let text = format!("cannot replace to directory /{} with file", entry.target);
                Err(invalid(text))
            }
            None => Ok(()),
        }
    }

    /// Makes a further name of a file that was copied before.
    fn link(&self, entry: &Entry<'_>, stat: &Stat) -> io::Result<bool> {
        let Some(first) = self.linked.get(&(stat.st_dev, stat.st_ino)) else { return Ok(false) };
        let (dir, name) = self.editor.root.parent(at(first))?;
        Ok(entry.to.link(entry.new, &dir, name).is_ok())
    }

    fn file(&self, entry: &Entry<'_>) -> io::Result<()> {
        let mut from = entry.from.open_file(entry.name)?;
        // The file that was opened, not the one that was looked at.
        let stat = rustix::fs::fstat(&from)?;
        let mut to = entry.to.create(entry.new)?;
        io::copy(&mut from, &mut to)?;
        self.attributes(entry.to, entry.new, &stat, false)?;
        copy_attributes(&from, &to)?;
        entry.to.set_mtime(entry.new, self.time(&stat))
    }

    fn node(&self, entry: &Entry<'_>, stat: &Stat, kind: FileType) -> io::Result<()> {
        if kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            // It would hide what lies below instead of being a file.
            return Err(invalid(format!("/{} is a device that means a deletion", entry.target)));
        }
        let device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        entry.to.mknod(entry.new, Special { kind, mode: stat.st_mode & 0o7777, device })?;
        self.attributes(entry.to, entry.new, stat, false)?;
        entry.to.set_mtime(entry.new, self.time(stat))
    }

    fn time(&self, stat: &Stat) -> Timespec {
        self.edit.created.map_or_else(|| time(stat), seconds)
    }

    /// Sets owner and permissions.
    fn attributes(&self, dir: &Dir, name: &OsStr, stat: &Stat, directory: bool) -> io::Result<()> {
        let (uid, gid) = self.owner.unwrap_or((stat.st_uid, stat.st_gid));
        dir.chown(name, uid, gid)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
            return Ok(());
        }
        let mode = stat.st_mode & 0o7777;
        // ORDER: a change of owner clears setuid and setgid.
        dir.chmod(name, self.mode.as_ref().map_or(mode, |change| change.apply(mode, directory)))
    }

    /// Unpacks a file that is an archive into the target; returns whether it is one.
    fn unpack(&self, path: &[u8], target: &str) -> io::Result<bool> {
        let open = || self.source.open_file(Path::new(OsStr::from_bytes(path)));
        if !is_archive(open()?) {
            return Ok(false);
        }
        let owner = self.owner.unwrap_or((0, 0));
        let made = Made { mode: 0o755, owner, created: self.edit.created };
        let base = relative(target);
        self.editor.make_dirs(&base, made)?;
        self.extract(open()?, &base).map(|()| true).map_err(|error| match error {
            Error::Io { source, .. } => source,
            error => invalid(error.to_string()),
        })
    }

    fn extract(&self, file: File, base: &str) -> Result<(), Error> {
        let root = self.editor.root;
        let free = rustix::fs::fstatvfs(root)
            .map_err(|error| io_failed("measure free space")(error.into()))?;
        let budget = free.f_bavail.saturating_mul(free.f_frsize);
        let copy = root.dir().try_clone().map_err(io_failed("open a root"))?;
        let purpose = Purpose::Files { keep_kind: false, owners: true };
        let base = format!("/{base}");
        let mut unpacker =
            Unpacker::new(Root::from_fd(copy.into()), purpose, budget).below(base.as_bytes());
        let plain = decompress(Box::new(file)).map_err(reading)?;
        let mut reader = Reader::new(BufReader::with_capacity(128 * 1024, plain));
        while let Some(mut entry) = reader.next_entry().map_err(reading)? {
            if let Some(owner) = self.owner {
                (entry.uid, entry.gid) = owner;
            }
            if let Some(time) = self.edit.created {
                entry.mtime = (time, 0);
            }
            unpacker.entry(&entry, &mut reader)?;
        }
        unpacker.finish()
    }
}

/// Tells by its first bytes whether a file is a tar, perhaps compressed.
fn is_archive(file: File) -> bool {
    let Ok(mut plain) = decompress(Box::new(file)) else { return false };
    let mut head = [0; 512];
    plain.read_exact(&mut head).is_ok() && tar::is_header(&head)
}

fn copy_attributes(from: impl std::os::fd::AsFd, to: impl std::os::fd::AsFd) -> io::Result<()> {
    for (name, value) in pack::attributes(&from)? {
        match xattr::set(&to, OsStr::from_bytes(&name), &value) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
            result => result?,
        }
    }
    Ok(())
}
