//! Unpacks an archive that a daemon sent, below one directory of ours. Every name is looked up by itself in an open
//! directory and no link is followed, so nothing in the archive leads out of it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use rorqual_sys::path::{Dir, Special};
use rustix::fs::{FileType, Timespec};

use super::Place;

/// Unpacks an archive into its place; returns how many bytes it had.
pub(super) fn unpack(reader: impl Read, place: &Place, owners: bool) -> io::Result<u64> {
    let mut archive = tar::Archive::new(Counted { inner: reader, count: 0 });
    let root = Dir::open(&place.directory)?;
    let mut target =
        Target { root, top: place.top.as_deref(), owners, source: None, finish: Vec::new() };
    for entry in archive.entries()? {
        target.entry(&mut entry?)?;
    }
    target.finish()?;
    // What follows the end marker belongs to the archive, too, and is counted as Docker counts it.
    let mut rest = archive.into_inner();
    io::copy(&mut rest, &mut io::sink())?;
    Ok(rest.count)
}

struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// What a header says of an entry.
#[derive(Clone, Copy)]
struct Attributes {
    mode: u32,
    owner: Option<(u32, u32)>,
    mtime: Timespec,
}

struct Target<'a> {
    root: Dir,
    top: Option<&'a str>,
    owners: bool,
    /// The top of the archive, which `top` replaces.
    source: Option<OsString>,
    /// Directories that get their attributes when all is in them: a read-only one could not be filled otherwise.
    finish: Vec<(Vec<OsString>, Attributes)>,
}

impl Target<'_> {
    /// Turns a path of the archive into names below our directory.
    fn names(&mut self, path: &Path) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => names.push(name.to_owned()),
                Component::CurDir | Component::RootDir => {}
                _ => {
                    return Err(invalid(format!(
                        "the archive has a path that leads out: {}",
                        path.display()
                    )));
                }
            }
        }
        // A path of `.` alone is the top as well.
        let first = if names.is_empty() { OsString::new() } else { names[0].clone() };
        let source = self.source.get_or_insert(first);
        if !source.is_empty() && names.first() == Some(source) {
            names.remove(0);
        }
        if let Some(top) = self.top {
            names.insert(0, top.into());
        }
        Ok(names)
    }

    /// Opens the directory that holds the last name; what is missing above is made.
    fn parent<'n>(&self, names: &'n [OsString]) -> io::Result<(Dir, &'n OsStr)> {
        let (last, above) =
            names.split_last().ok_or_else(|| invalid("an empty path".to_owned()))?;
        let mut dir = self.root.try_clone()?;
        for name in above {
            dir = match dir.find(name)? {
                Some(stat) if kind(&stat) == FileType::Directory => dir.child(name)?,
                Some(_) => return Err(invalid(format!("{} is not a directory", name.display()))),
                None => {
                    dir.mkdir(name, 0o755)?;
                    dir.child(name)?
                }
            };
        }
        Ok((dir, last))
    }

    fn entry<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> io::Result<()> {
        use tar::EntryType;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = entry.path()?.into_owned();
        let names = self.names(&path)?;
        if names.is_empty() {
            return Ok(());
        }
        let attributes = self.attributes(entry.header())?;
        let (dir, name) = self.parent(&names)?;
        if kind == EntryType::Directory {
            make_directory(&dir, name, &path)?;
            self.finish.push((names, attributes));
            return Ok(());
        }
        make_room(&dir, name, &path)?;
        match kind {
            EntryType::Symlink => {
                dir.symlink(name, target(entry)?.as_os_str())?;
                return attributes.put_on_link(&dir, name);
            }
            EntryType::Link => {
                let source = self.names(&target(entry)?)?;
                let (from, source) = self.parent(&source)?;
                // It has the attributes of what it is another name of.
                return dir.link(name, &from, source);
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                dir.mknod(name, special(kind, entry.header())?)?;
            }
            _ => {
                let mut file = dir.create(name)?;
                io::copy(entry, &mut file)?;
            }
        }
        attributes.put(&dir, name)
    }

    fn attributes(&self, header: &tar::Header) -> io::Result<Attributes> {
        let number =
            |number: u64| u32::try_from(number).map_err(|_| invalid("an owner".to_owned()));
        let owner = match self.owners {
            true => Some((number(header.uid()?)?, number(header.gid()?)?)),
            false => None,
        };
        let seconds = i64::try_from(header.mtime()?).unwrap_or(0);
        let mtime = Timespec { tv_sec: seconds, tv_nsec: 0 };
        Ok(Attributes { mode: header.mode()? & 0o7777, owner, mtime })
    }

    /// Gives directories their attributes, those inside first: a change inside would set a time anew.
    fn finish(mut self) -> io::Result<()> {
        for (names, attributes) in std::mem::take(&mut self.finish).iter().rev() {
            let (dir, name) = self.parent(names)?;
            attributes.put(&dir, name)?;
        }
        Ok(())
    }
}

impl Attributes {
    fn put(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.own(dir, name)?;
        // ORDER: a change of the owner takes set-user-id bits away.
        dir.chmod(name, self.mode)?;
        dir.set_mtime(name, self.mtime)
    }

    fn put_on_link(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.own(dir, name)?;
        dir.set_mtime(name, self.mtime)
    }

    fn own(&self, dir: &Dir, name: &OsStr) -> io::Result<()> {
        self.owner.map_or(Ok(()), |(uid, gid)| dir.chown(name, uid, gid))
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn kind(stat: &rustix::fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn target<R: Read>(entry: &tar::Entry<'_, R>) -> io::Result<PathBuf> {
    let link = entry.link_name()?.ok_or_else(|| invalid("a link without a target".to_owned()))?;
    Ok(link.into_owned())
}

fn special(kind: tar::EntryType, header: &tar::Header) -> io::Result<Special> {
    let kind = match kind {
        tar::EntryType::Fifo => FileType::Fifo,
        tar::EntryType::Char => FileType::CharacterDevice,
        _ => FileType::BlockDevice,
    };
    let device = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
    Ok(Special { kind, mode: 0o600, device })
}

/// Makes a directory, or takes the one that is there.
fn make_directory(dir: &Dir, name: &OsStr, path: &Path) -> io::Result<()> {
    match dir.find(name)? {
        None => dir.mkdir(name, 0o700),
        Some(stat) if kind(&stat) == FileType::Directory => Ok(()),
        // COMPAT: docker's text.
        Some(_) => Err(invalid(format!(
            "cannot overwrite non-directory \"{}\" with directory \"{}\"",
            name.display(),
            path.display()
        ))),
    }
}

/// Removes what a file is to replace.
fn make_room(dir: &Dir, name: &OsStr, path: &Path) -> io::Result<()> {
    match dir.find(name)? {
        None => Ok(()),
        // COMPAT: docker's text.
        Some(stat) if kind(&stat) == FileType::Directory => Err(invalid(format!(
            "cannot overwrite directory \"{}\" with non-directory \"{}\"",
            name.display(),
            path.display()
        ))),
        Some(_) => dir.unlink(name),
    }
}

#[cfg(test)]
mod tests;
