//! What a writable directory changes in the layers below it. Reads only, and follows no links.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use rorqual_sys::path::{Dir, Root};
use rorqual_sys::xattr;
use rustix::fs::{FileType, Stat};

use crate::{Change, ChangeKind, pack, whiteout};

/// A difference, with what is there now.
#[derive(Clone, Debug)]
pub(crate) struct Difference {
    /// Relative to the root, without a slash in front.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: ChangeKind,
}

/// A directory still to compare.
struct Pending {
    path: Vec<u8>,
    /// Layers that show through here, top first.
    lower: Vec<usize>,
    /// The writable part hides what lies below.
    hidden: bool,
}

/// What was found, and where to go on.
#[derive(Default)]
struct Output {
    found: Vec<Difference>,
    pending: Vec<Pending>,
}

/// How closely entries are compared that are there on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closeness {
    /// COMPAT: by what dockerd's list of changes goes by: kind, owner, permissions, size and time.
    Metadata,
    /// Also by content, targets of links and attributes: programs that write a file anew may give it the old one's time.
    Content,
}

/// Compares a writable directory with the layers (top first) below it; sorted by path, parents included.
pub(crate) fn differences(
    upper: &Root,
    layers: &[Root],
    closeness: Closeness,
) -> io::Result<Vec<Difference>> {
    let mut output = Output::default();
    let all = (0..layers.len()).collect();
    let hidden = whiteout::is_opaque(upper.dir())?;
    output.pending.push(Pending { path: Vec::new(), lower: all, hidden });
    while let Some(directory) = output.pending.pop() {
        Comparison::open((upper, layers), directory, closeness)?.run(&mut output)?;
    }
    Ok(with_parents(output.found))
}

/// Lists differences as Docker shows them.
pub(crate) fn changes(upper: &Root, layers: &[Root]) -> io::Result<Vec<Change>> {
    let shown = |path: &[u8]| format!("/{}", String::from_utf8_lossy(path));
    let list = differences(upper, layers, Closeness::Metadata)?.into_iter();
    Ok(list.map(|found| Change { path: shown(&found.path), kind: found.kind }).collect())
}

/// COMPAT: dockerd lists every directory above a difference as modified, but not the root.
fn with_parents(mut found: Vec<Difference>) -> Vec<Difference> {
    let known = found.iter().map(|difference| difference.path.clone()).collect::<BTreeSet<_>>();
    let mut parents = BTreeSet::new();
    for difference in &found {
        let mut path = difference.path.as_slice();
        while let Some(slash) = path.iter().rposition(|byte| *byte == b'/') {
            path = &path[..slash];
            if known.contains(path) || !parents.insert(path.to_vec()) {
                break;
            }
        }
    }
    let modified = |path| Difference { path, kind: ChangeKind::Modified };
    found.extend(parents.into_iter().map(modified));
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

struct Comparison {
    path: Vec<u8>,
    hidden: bool,
    closeness: Closeness,
    upper: Dir,
    lower: Vec<(usize, Dir)>,
}

/// What the layers below show at a name.
struct Below {
    stat: Stat,
    /// Who it is, to look at its attributes.
    owner: usize,
    /// Layers whose directories are merged here.
    directories: Vec<usize>,
}

fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

impl Comparison {
    fn open(
        (upper, layers): (&Root, &[Root]),
        pending: Pending,
        closeness: Closeness,
    ) -> io::Result<Self> {
        let path = Path::new(OsStr::from_bytes(&pending.path));
        let lower = pending.lower.iter().map(|at| Ok((*at, layers[*at].open_dir(path)?)));
        let lower = lower.collect::<io::Result<Vec<_>>>()?;
        let upper = upper.open_dir(path)?;
        Ok(Self { upper, lower, closeness, hidden: pending.hidden, path: pending.path })
    }

    fn run(&self, output: &mut Output) -> io::Result<()> {
        let mut names = BTreeSet::new();
        for entry in self.upper.entries()? {
            // A container that runs may remove it meanwhile.
            let Some(stat) = self.upper.find(&entry.name)? else { continue };
            let below = self.below(&entry.name)?;
            if whiteout::is_whiteout(&stat) {
                if below.is_some() {
                    output.found.push(self.difference(&entry.name, ChangeKind::Deleted));
                }
            } else {
                self.entry(&entry.name, &stat, below, output)?;
            }
            names.insert(entry.name);
        }
        if self.hidden {
            self.hidden_names(&names, output)?;
        }
        Ok(())
    }

    fn entry(
        &self,
        name: &OsStr,
        stat: &Stat,
        below: Option<Below>,
        output: &mut Output,
    ) -> io::Result<()> {
        let kind = match &below {
            None => Some(ChangeKind::Added),
            Some(below) if self.differs(name, stat, below)? => Some(ChangeKind::Modified),
            Some(_) => None,
        };
        output.found.extend(kind.map(|kind| self.difference(name, kind)));
        if is_dir(stat) {
            let opaque = whiteout::is_opaque(&self.upper.child(name)?)?;
            output.pending.push(Pending {
                path: self.path_of(name),
                lower: below.map(|below| below.directories).unwrap_or_default(),
                hidden: self.hidden || opaque,
            });
        }
        Ok(())
    }

    fn path_of(&self, name: &OsStr) -> Vec<u8> {
        let mut path = self.path.clone();
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.as_bytes());
        path
    }

    fn difference(&self, name: &OsStr, kind: ChangeKind) -> Difference {
        Difference { path: self.path_of(name), kind }
    }

    fn below(&self, name: &OsStr) -> io::Result<Option<Below>> {
        let mut found: Option<Below> = None;
        for (at, dir) in &self.lower {
            let Some(stat) = dir.find(name)? else { continue };
            if whiteout::is_whiteout(&stat) {
                break;
            }
            if !is_dir(&stat) {
                return Ok(found.or(Some(Below { stat, owner: *at, directories: Vec::new() })));
            }
            found
                .get_or_insert_with(|| Below { stat, owner: *at, directories: Vec::new() })
                .directories
                .push(*at);
            if whiteout::is_opaque(&dir.child(name)?)? {
                break;
            }
        }
        Ok(found)
    }

    fn differs(&self, name: &OsStr, now: &Stat, below: &Below) -> io::Result<bool> {
        let old = &below.stat;
        let attributes = now.st_mode != old.st_mode
            || now.st_uid != old.st_uid
            || now.st_gid != old.st_gid
            || now.st_rdev != old.st_rdev;
        if attributes || is_dir(now) && self.closeness == Closeness::Metadata {
            return Ok(attributes);
        }
        let time = (now.st_mtime, now.st_mtime_nsec) != (old.st_mtime, old.st_mtime_nsec);
        if !is_dir(now) && (time || now.st_size != old.st_size) {
            return Ok(true);
        }
        let Some((_, dir)) = self.lower.iter().find(|(at, _)| *at == below.owner) else {
            return Ok(true);
        };
        if self.closeness == Closeness::Content {
            return differs_inside((&self.upper, now), (dir, old), name);
        }
        let capability =
            |dir: &Dir| xattr::get(dir.handle(name)?, OsStr::new("security.capability"));
        Ok(capability(&self.upper)? != capability(dir)?)
    }

    /// Lists what an opaque directory hides and does not have itself.
    fn hidden_names(&self, names: &BTreeSet<OsString>, output: &mut Output) -> io::Result<()> {
        let mut below = BTreeSet::new();
        for (_, dir) in &self.lower {
            below.extend(dir.entries()?.into_iter().map(|entry| entry.name.into_vec()));
        }
        for name in below.into_iter().map(OsString::from_vec) {
            if !names.contains(&name) && self.below(&name)?.is_some() {
                output.found.push(self.difference(&name, ChangeKind::Deleted));
            }
        }
        Ok(())
    }
}

/// Compares what two entries of one kind and size hold.
fn differs_inside(
    (upper, now): (&Dir, &Stat),
    (lower, old): (&Dir, &Stat),
    name: &OsStr,
) -> io::Result<bool> {
    match FileType::from_raw_mode(now.st_mode) {
        FileType::RegularFile => {
            let (now, old) = (upper.open_file(name)?, lower.open_file(name)?);
            Ok(pack::attributes(&now)? != pack::attributes(&old)? || !is_same(now, old)?)
        }
        FileType::Directory => {
            Ok(pack::attributes(upper.child(name)?)? != pack::attributes(lower.child(name)?)?)
        }
        FileType::Symlink => Ok(upper.read_link(name)? != lower.read_link(name)?),
        // Who it is says all that there is to it.
        _ => Ok(now.st_rdev != old.st_rdev),
    }
}

/// Tells whether two files of one size hold the same bytes.
fn is_same(one: File, other: File) -> io::Result<bool> {
    let (mut one, mut other) = (buffered(one), buffered(other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let count = left.len().min(right.len());
        if count == 0 {
            return Ok(left.len() == right.len());
        }
        if left[..count] != right[..count] {
            return Ok(false);
        }
        one.consume(count);
        other.consume(count);
    }
}

fn buffered(file: File) -> BufReader<File> {
    BufReader::with_capacity(128 * 1024, file)
}

#[cfg(test)]
mod tests;
