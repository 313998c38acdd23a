//! Reading an archive into an empty directory. Nobody sees that directory before everything was verified.
//!
//! The archive may be anybody's: paths are taken apart and resolved inside the directory, nothing is written twice, sizes
//! and attributes are bounded.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rorqual_sys::path::{Dir, Root};

use super::export::each_file;
use super::{CHUNK, ChunkDigest, FrameReader, Header, Trailer, digest, hex};
use crate::contract::Error;
use crate::progress::Progress;
use crate::tree::entry::{Entry, Kind, travels};
use crate::tree::failed;

/// LIMIT: `PATH_MAX` and `NAME_MAX`.
const MAX_PATH: usize = 4095;
const MAX_NAME: usize = 255;
/// LIMIT: directories whose owner and time are set at the end are remembered; a file system has fewer.
const MAX_DIRECTORIES: usize = 16 << 20;

/// Where chunks of the volume that an incremental archive builds on are.
pub(crate) struct Base {
    root: Root,
    files: Vec<Vec<u8>>,
    chunks: HashMap<ChunkDigest, (usize, u64, u32)>,
}

impl Base {
    /// Learns the chunks of a tree.
    pub(crate) fn learn(tree: &Dir, progress: &Progress) -> Result<Self, Error> {
        let root = Root::from_fd(tree.try_clone().map_err(failed("open", b""))?.into());
        let (mut files, mut chunks) = (Vec::<Vec<u8>>::new(), HashMap::new());
        each_file(tree, progress, |path, at, digest, len| {
            if files.last().is_none_or(|last| last != path) {
                files.push(path.to_vec());
            }
            chunks.insert(digest, (files.len() - 1, at, len as u32));
            Ok(())
        })?;
        Ok(Self { root, files, chunks })
    }

    fn read(&self, wanted: &ChunkDigest, len: u32) -> Result<Vec<u8>, Error> {
        let missing = || {
            Error::Archive(format!(
                "it leaves out chunk {}, which the base volume does not have; is it the volume that the receiver named?",
                hex(wanted)
            ))
        };
        let (file, at, known) = self.chunks.get(wanted).ok_or_else(missing)?;
        if *known != len {
            return Err(missing());
        }
        let path = &self.files[*file];
        let reading = || failed("read the base volume's", path);
        let file = self.root.open_file(Path::new(OsStr::from_bytes(path))).map_err(reading())?;
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, *at).map_err(reading())?;
        // It may have changed since it was learnt.
        if digest(&bytes) == *wanted { Ok(bytes) } else { Err(missing()) }
    }
}

/// Reads an archive into `target`.
pub(crate) fn import(
    target: &Dir,
    source: impl Read,
    base: Option<&Base>,
    progress: &Progress,
) -> Result<Header, Error> {
    let mut frames = FrameReader::new(source)?;
    if frames.next()? != b'H' {
        return Err(Error::Archive("it has no header".to_owned()));
    }
    let header: Header = frames.json()?;
    if header.incremental && base.is_none() {
        return Err(Error::InvalidArgument(format!(
            "this archive of volume {:?} leaves out what the receiver has: name the volume that holds the earlier state as its base",
            header.volume
        )));
    }
    let root = Root::from_fd(target.try_clone().map_err(failed("open", b""))?.into());
    let mut importer = Importer {
        root,
        base,
        progress,
        open: None,
        directories: Vec::new(),
        sum: Trailer::default(),
    };
    loop {
        match frames.next()? {
            b'E' => importer.entry(frames.json()?)?,
            b'D' => importer.data(frames.payload())?,
            b'R' => importer.reference(frames.payload())?,
            b'T' => break,
            kind => return Err(Error::Archive(format!("frame {kind:#04x} is out of place"))),
        }
    }
    let trailer: Trailer = frames.json()?;
    importer.finish(&trailer)?;
    if frames.next()? != b'S' {
        return Err(Error::Archive("it has no seal".to_owned()));
    }
    frames.end()?;
    Ok(header)
}

/// A file whose chunks come.
struct OpenFile {
    file: File,
    entry: Entry,
    size: u64,
    /// Chunks come in order.
    next: u64,
}

struct Importer<'a> {
    root: Root,
    base: Option<&'a Base>,
    progress: &'a Progress,
    open: Option<OpenFile>,
    directories: Vec<Entry>,
    sum: Trailer,
}

impl Importer<'_> {
    fn entry(&mut self, entry: Entry) -> Result<(), Error> {
        self.close()?;
        check(&entry)?;
        self.sum.entries += 1;
        self.progress.entry()?;
        if entry.path.is_empty() {
            if entry.kind != Kind::Directory || self.sum.entries != 1 {
                return Err(Error::Archive("its first entry is not the root directory".to_owned()));
            }
            self.directories.push(entry);
            return Ok(());
        }
        if self.sum.entries == 1 {
            return Err(Error::Archive("it has no root directory".to_owned()));
        }
        let made = self.make(&entry).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Error::Archive(format!("{:?} is in it twice", String::from_utf8_lossy(&entry.path)))
            }
            _ => failed("write", &entry.path)(error),
        })?;
        match &entry.kind {
            Kind::File(size) => {
                let size = *size;
                self.open = made.map(|file| OpenFile { file, entry, size, next: 0 });
            }
            Kind::Directory => {
                if self.directories.len() == MAX_DIRECTORIES {
                    return Err(Error::Archive("it has too many directories".to_owned()));
                }
                self.directories.push(entry);
            }
            _ => {}
        }
        Ok(())
    }

    fn make(&self, entry: &Entry) -> io::Result<Option<File>> {
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let (parent, name) = self.root.parent(path)?;
        match &entry.kind {
            Kind::File(_) => return parent.create(name).map(Some),
            Kind::Directory => parent.mkdir(name, 0o700)?,
            Kind::Link(first) => {
                let (from, old) = self.root.parent(Path::new(OsStr::from_bytes(first)))?;
                parent.link(name, &from, old)?;
            }
            _ => {
                entry.make_node(&parent, name)?;
                entry.dress(&parent, name)?;
            }
        }
        Ok(None)
    }

    fn data(&mut self, payload: &[u8]) -> Result<(), Error> {
        let (offset, rest) = offset(payload)?;
        let (wanted, bytes) = rest.split_at_checked(32).ok_or_else(short)?;
        if digest(bytes) != *wanted {
            return Err(Error::Archive("a chunk's digest is wrong".to_owned()));
        }
        self.write(offset, bytes)?;
        self.progress.add(bytes.len() as u64)
    }

    fn reference(&mut self, payload: &[u8]) -> Result<(), Error> {
        let (offset, rest) = offset(payload)?;
        let (wanted, length) = rest.split_at_checked(32).ok_or_else(short)?;
        let wanted: ChunkDigest = wanted.try_into().map_err(|_| short())?;
        let length = u32::from_be_bytes(length.try_into().map_err(|_| short())?);
        let unannounced = || Error::Archive("it leaves chunks out without saying so".to_owned());
        let bytes = self.base.ok_or_else(unannounced)?.read(&wanted, length)?;
        self.write(offset, &bytes)?;
        self.progress.add_shared(bytes.len() as u64)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let misplaced = || Error::Archive("a chunk is out of place".to_owned());
        let open = self.open.as_mut().ok_or_else(misplaced)?;
        let end = offset.checked_add(bytes.len() as u64).ok_or_else(misplaced)?;
        if offset < open.next || !offset.is_multiple_of(CHUNK) || end > open.size {
            return Err(misplaced());
        }
        open.next = end;
        self.sum.bytes += bytes.len() as u64;
        open.file.write_all_at(bytes, offset).map_err(failed("write", &open.entry.path))
    }

    /// Ends the file whose chunks came.
    fn close(&mut self) -> Result<(), Error> {
        let Some(OpenFile { file, entry, size, .. }) = self.open.take() else { return Ok(()) };
        let to = || failed("write", &entry.path);
        rustix::fs::ftruncate(&file, size).map_err(|error| to()(error.into()))?;
        self.dress(&entry)
    }

    fn dress(&self, entry: &Entry) -> Result<(), Error> {
        let to = || failed("write", &entry.path);
        if entry.path.is_empty() {
            return entry.dress_root(self.root.dir()).map_err(to());
        }
        let path = Path::new(OsStr::from_bytes(&entry.path));
        let (parent, name) = self.root.parent(path).map_err(to())?;
        entry.dress(&parent, name).map_err(to())
    }

    fn finish(&mut self, trailer: &Trailer) -> Result<(), Error> {
        self.close()?;
        if self.sum != *trailer {
            return Err(Error::Archive("its trailer counts something else".to_owned()));
        }
        // ORDER: what is made in a directory changes its time, so the deepest come first.
        while let Some(entry) = self.directories.pop() {
            self.dress(&entry)?;
        }
        Ok(())
    }
}

fn short() -> Error {
    Error::Archive("a frame is too short".to_owned())
}

fn offset(payload: &[u8]) -> Result<(u64, &[u8]), Error> {
    let (offset, rest) = payload.split_first_chunk().ok_or_else(short)?;
    Ok((u64::from_be_bytes(*offset), rest))
}

/// Refuses entries that no export writes.
fn check(entry: &Entry) -> Result<(), Error> {
    let refused = |what: &str| {
        let shown = String::from_utf8_lossy(&entry.path).chars().take(200).collect::<String>();
        Err(Error::Archive(format!("{shown:?} {what}")))
    };
    if !(entry.path.is_empty() || is_plain(&entry.path)) {
        return refused("is no path inside a volume");
    }
    match &entry.kind {
        Kind::Link(first) if !is_plain(first) => return refused("leads out of the volume"),
        Kind::Symlink(target)
            if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) =>
        {
            return refused("is no symbolic link");
        }
        Kind::File(size) if i64::try_from(*size).is_err() => return refused("is too large"),
        _ => {}
    }
    if entry.mode & !0o7777 != 0 || entry.mtime.1 >= 1_000_000_000 {
        return refused("has an impossible mode or time");
    }
    if entry.xattrs.iter().any(|attribute| !travels(&attribute.0) || attribute.0.contains(&0)) {
        return refused("has attributes that are no business of a volume");
    }
    Ok(())
}

/// Tells whether a path consists of names only.
fn is_plain(path: &[u8]) -> bool {
    path.len() <= MAX_PATH
        && !path.contains(&0)
        && path
            .split(|byte| *byte == b'/')
            .all(|name| !matches!(name, b"" | b"." | b"..") && name.len() <= MAX_NAME)
}
