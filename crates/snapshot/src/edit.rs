//! Changing files below a root: what a builder's file operations do. The last name of a path is made by descriptor and
//! never followed; all before it is resolved inside the root.

mod copy;
mod mode;
mod owner;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rorqual_sys::path::{Dir, Follow, Root};
use rustix::fs::{FileType, Timespec};
use rustix::io::Errno;

use crate::Error;
use crate::layer::io_failed;
use crate::listing::RootListing;
use crate::select::{self, Pick};
use crate::workbench::{CopyEdit, Edit, Owner, Selection};

pub(crate) use copy::Sources;

/// LIMIT: links on one way, as in the kernel.
const MAX_LINKS: usize = 40;

/// Applies edits below a root.
pub(crate) struct Editor<'r> {
    root: &'r Root,
    sources: &'r dyn Sources,
}

/// Attributes of what is made.
#[derive(Clone, Copy, Debug)]
struct Made {
    mode: u32,
    owner: (u32, u32),
    created: Option<i64>,
}

/// Returns `path` relative to the root, clean: `..` stays inside of it.
fn relative(path: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

fn at(path: &str) -> &Path {
    Path::new(OsStr::from_bytes(path.as_bytes()))
}

fn is_dir(mode: u32) -> bool {
    FileType::from_raw_mode(mode) == FileType::Directory
}

pub(crate) fn seconds(time: i64) -> Timespec {
    Timespec { tv_sec: time, tv_nsec: 0 }
}

impl<'r> Editor<'r> {
    pub(crate) const fn new(root: &'r Root, sources: &'r dyn Sources) -> Self {
        Self { root, sources }
    }

    /// Applies one change.
    pub(crate) fn apply(&self, edit: &Edit) -> Result<(), Error> {
        match edit {
            Edit::Copy(copy) => self.copy(copy),
            Edit::MakeFile { path, data, mode, owner, created } => {
                let made = self.made(*mode, owner, *created)?;
                self.make_file(path, data, made).map_err(io_failed(format!("write {path:?}")))
            }
            Edit::MakeDir { path, mode, parents, owner, created } => {
                let made = self.made(*mode, owner, *created)?;
                self.make_dir(path, *parents, made)
            }
            Edit::Symlink { old, new, owner, created } => {
                let made = self.made(0o777, owner, *created)?;
                self.symlink(old, new, made).map_err(io_failed(format!("make the link {new:?}")))
            }
            Edit::Remove { path, allow_missing, wildcard } => {
                self.remove(path, *allow_missing, *wildcard)
            }
            Edit::Prune { paths } => {
                for path in paths {
                    self.prune(path).map_err(io_failed(format!("remove {path:?}")))?;
                }
                Ok(())
            }
        }
    }

    fn made(&self, mode: u32, owner: &Owner, created: Option<i64>) -> Result<Made, Error> {
        let owner = owner::ids(self.root, owner)?.unwrap_or((0, 0));
        Ok(Made { mode: mode & 0o7777, owner, created })
    }

    /// Makes room for something that is no directory.
    fn make_room(dir: &Dir, name: &OsStr) -> io::Result<()> {
        match dir.find(name)? {
            Some(stat) if is_dir(stat.st_mode) => Err(Errno::ISDIR.into()),
            Some(_) => dir.unlink(name),
            None => Ok(()),
        }
    }

    fn make_file(&self, path: &str, data: &[u8], made: Made) -> io::Result<()> {
        let path = relative(path);
        let (dir, name) = self.root.parent(at(&path))?;
        Self::make_room(&dir, name)?;
        let mut file = dir.create(name)?;
        file.write_all(data)?;
        Self::finish(&dir, name, made)
    }

    fn make_dir(&self, path: &str, parents: bool, made: Made) -> Result<(), Error> {
        let failed = || io_failed(format!("make the directory {path:?}"));
        let clean = relative(path);
        if clean.is_empty() {
            return Ok(());
        }
        if parents {
            return self.make_dirs(&clean, made).map_err(failed());
        }
        let (dir, name) = self.root.parent(at(&clean)).map_err(failed())?;
        dir.mkdir(name, made.mode).map_err(failed())?;
        Self::finish(&dir, name, made).map_err(failed())
    }

    /// Makes a directory with all that are missing above it, all alike. Links on the way are followed inside the root.
    fn make_dirs(&self, path: &str, made: Made) -> io::Result<()> {
        self.make_dirs_below(path, made, 0)
    }

    fn make_dirs_below(&self, path: &str, made: Made, links: usize) -> io::Result<()> {
        if links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        let mut sofar = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let parent = sofar.clone();
            if !sofar.is_empty() {
                sofar.push('/');
            }
            sofar.push_str(name);
            match self.root.open_dir(at(&sofar)) {
                Ok(_) => continue,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            // COMPAT: a link to nowhere on the way becomes the directory that it names.
            if let Ok(link) = self.root.read_link(at(&sofar)) {
                let link = link.to_string_lossy().into_owned();
                let place = if link.starts_with('/') { link } else { format!("{parent}/{link}") };
                self.make_dirs_below(&relative(&place), made, links + 1)?;
                continue;
            }
            let (dir, name) = self.root.parent(at(&sofar))?;
            dir.mkdir(name, made.mode)?;
            Self::finish(&dir, name, made)?;
        }
        Ok(())
    }

    fn symlink(&self, old: &str, new: &str, made: Made) -> io::Result<()> {
        let path = relative(new);
        let (dir, name) = self.root.parent(at(&path))?;
        Self::make_room(&dir, name)?;
        dir.symlink(name, OsStr::new(old))?;
        dir.chown(name, made.owner.0, made.owner.1)?;
        match made.created {
            Some(time) => dir.set_mtime(name, seconds(time)),
            None => Ok(()),
        }
    }

    /// Sets owner, permissions and time of what was just made.
    fn finish(dir: &Dir, name: &OsStr, made: Made) -> io::Result<()> {
        dir.chown(name, made.owner.0, made.owner.1)?;
        // ORDER: a change of owner clears setuid and setgid.
        dir.chmod(name, made.mode)?;
        match made.created {
            Some(time) => dir.set_mtime(name, seconds(time)),
            None => Ok(()),
        }
    }

    fn remove(&self, path: &str, allow_missing: bool, wildcard: bool) -> Result<(), Error> {
        let selection = Selection {
            source: format!("/{}", relative(path)),
            wildcard,
            allow_empty: allow_missing,
            follow: false,
            parents: false,
            filter: None,
            owners: false,
        };
        let picked = match select::pick(&RootListing(self.root), &selection) {
            Err(Error::NoSuchSource(_)) if allow_missing => Vec::new(),
            result => result?,
        };
        for Pick { path, .. } in picked {
            let failed = || io_failed(format!("remove {:?}", String::from_utf8_lossy(&path)));
            if path.is_empty() {
                return Err(Error::InvalidArgument("the root cannot be removed".to_owned()));
            }
            let (dir, name) =
                self.root.parent(Path::new(OsStr::from_bytes(&path))).map_err(failed())?;
            dir.remove_tree(name).map_err(failed())?;
        }
        Ok(())
    }

    /// Removes an empty file or directory; whatever else is there stays.
    fn prune(&self, path: &str) -> io::Result<()> {
        let path = relative(path);
        let Ok((dir, name)) = self.root.parent(at(&path)) else { return Ok(()) };
        let before = dir.own_stat()?;
        let removed = match dir.find(name)? {
            Some(stat) if is_dir(stat.st_mode) => match dir.rmdir(name) {
                Err(error) if error.raw_os_error() == Some(Errno::NOTEMPTY.raw_os_error()) => false,
                result => result.map(|()| true)?,
            },
            Some(stat)
                if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                    && stat.st_size == 0 =>
            {
                dir.unlink(name)?;
                true
            }
            _ => false,
        };
        if removed {
            let time = Timespec { tv_sec: before.st_mtime, tv_nsec: before.st_mtime_nsec as _ };
            let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
            rustix::fs::futimens(&dir, &times)?;
        }
        Ok(())
    }

    fn copy(&self, edit: &CopyEdit) -> Result<(), Error> {
        let source = self.sources.tree(&edit.from)?;
        let nothing = relative(&edit.selection.source).is_empty();
        let picked = match &source {
            Some(source) => select::pick(&RootListing(source), &edit.selection)?,
            // The empty file system has its root and nothing else.
            None if nothing => Vec::new(),
            None => select::pick(&select::Nothing, &edit.selection)?,
        };
        let Some(source) = source else { return Ok(()) };
        let owner = owner::ids(self.root, &edit.owner)?;
        let mode = edit.mode.as_deref().map(mode::Change::parse).transpose()?;
        let mut copying = copy::Copying::new(self, &source, edit, owner, mode);
        for pick in picked {
            copying.pick(&pick)?;
        }
        copying.finish()
    }

    fn exists(&self, path: &str) -> io::Result<Option<u32>> {
        match self.root.stat(at(path), Follow::Yes) {
            Ok(stat) => Ok(Some(stat.st_mode)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Tells which of the directories of `paths` a tree lacks, deepest first.
pub(crate) fn missing(root: &Root, paths: &[String]) -> io::Result<Vec<String>> {
    let mut all = std::collections::BTreeSet::new();
    for path in paths {
        let mut path = relative(path);
        while !path.is_empty() {
            match root.open_handle(at(&path), Follow::Yes) {
                Ok(_) => break,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(error),
            }
            let cut = path.rfind('/').unwrap_or(0);
            let rest = path[..cut].to_owned();
            all.insert(std::mem::replace(&mut path, rest));
        }
    }
    let mut all = all.into_iter().collect::<Vec<_>>();
    all.sort_by_key(|path| std::cmp::Reverse(path.matches('/').count()));
    Ok(all)
}

#[cfg(test)]
mod tests;
