//! Writing the archive of a tree, and learning the digests of its chunks. One pass, nothing is changed.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use rorqual_sys::path::Dir;

use super::{CHUNK, ChunkDigest, ChunkSet, FrameWriter, Header, Trailer, digest};
use crate::contract::Error;
use crate::progress::Progress;
use crate::tree::copy::{Stop, extents};
use crate::tree::entry::{Entry, Kind};
use crate::tree::{Visitor, failed, present, walk};

/// Writes the archive of `tree` without the chunks that the receiver has.
pub(crate) fn export(
    tree: &Dir,
    header: &Header,
    have: &ChunkSet,
    sink: impl Write,
    progress: &Progress,
) -> Result<(), Error> {
    let mut frames = FrameWriter::new(sink).map_err(writing)?;
    let header = Header { incremental: !have.is_empty(), ..header.clone() };
    frames.json(b'H', &header).map_err(writing)?;
    let (links, trailer) = (HashMap::new(), Trailer::default());
    let mut exporter = Exporter { frames, have, progress, links, trailer };
    walk(tree, &mut exporter)?;
    let Exporter { mut frames, trailer, .. } = exporter;
    frames.json(b'T', &trailer).map_err(writing)?;
    frames.seal().map_err(writing)
}

fn writing(source: std::io::Error) -> Error {
    Error::Io { action: "write the archive".to_owned(), source }
}

struct Exporter<'a, W> {
    frames: FrameWriter<W>,
    have: &'a ChunkSet,
    progress: &'a Progress,
    /// First paths of files with several names.
    links: HashMap<(u64, u64), Vec<u8>>,
    trailer: Trailer,
}

impl<W: Write> Exporter<'_, W> {
    fn content(&mut self, file: &File, size: u64, path: &[u8]) -> Result<(), Error> {
        let (frames, have, progress) = (&mut self.frames, self.have, self.progress);
        let bytes_sum = &mut self.trailer.bytes;
        chunks(file, size, path, |at, digest, bytes| {
            *bytes_sum += bytes.len() as u64;
            let offset = at.to_be_bytes();
            if have.0.contains(&digest) {
                let length = (bytes.len() as u32).to_be_bytes();
                frames.frame(b'R', &[&offset, &digest, &length]).map_err(writing)?;
                return progress.add_shared(bytes.len() as u64);
            }
            frames.frame(b'D', &[&offset, &digest, bytes]).map_err(writing)?;
            progress.add(bytes.len() as u64)
        })
    }
}

impl<W: Write> Visitor for Exporter<'_, W> {
    fn entry(&mut self, at: Option<(&Dir, &OsStr)>, mut entry: Entry) -> Result<(), Error> {
        if let Some(first) = entry.inode.and_then(|inode| self.links.get(&inode)) {
            entry.kind = Kind::Link(first.clone());
        } else if let Some(inode) = entry.inode {
            self.links.insert(inode, entry.path.clone());
        }
        let file = match (&mut entry.kind, at) {
            (Kind::File(size), Some((dir, name))) => {
                let Some(file) = present(dir.open_file(name), &entry.path)? else {
                    return Ok(());
                };
                // The size of what was opened, which may be another file than was looked at.
                let stat = rustix::fs::fstat(&file);
                *size = stat.map_err(|e| failed("read", &entry.path)(e.into()))?.st_size as u64;
                Some((file, *size))
            }
            _ => None,
        };
        self.frames.json(b'E', &entry).map_err(writing)?;
        self.trailer.entries += 1;
        if let Some((file, size)) = file {
            self.content(&file, size, &entry.path)?;
        }
        self.progress.entry()
    }

    fn leave(&mut self, _entry: Entry) -> Result<(), Error> {
        Ok(())
    }
}

/// Calls `each` with all chunks of a file that are not zero throughout.
pub(crate) fn chunks(
    file: &File,
    size: u64,
    path: &[u8],
    mut each: impl FnMut(u64, ChunkDigest, &[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut buffer = vec![0; CHUNK.min(size) as usize];
    let mut next = 0;
    let read = extents(file, size, |from, to| {
        // Extents that share a chunk are read with it, once.
        let mut at = (from / CHUNK * CHUNK).max(next);
        while at < to {
            let want = CHUNK.min(size - at) as usize;
            let len = read_at(file, &mut buffer[..want], at)?;
            let bytes = &buffer[..len];
            if bytes.iter().any(|byte| *byte != 0) {
                each(at, digest(bytes), bytes).map_err(Stop::Other)?;
            }
            at += CHUNK;
        }
        next = at.max(next);
        Ok(())
    });
    read.map_err(|stop| stop.into_error(|source| failed("read", path)(source)))
}

/// Reads as much as there is.
fn read_at(file: &File, buffer: &mut [u8], at: u64) -> std::io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read_at(&mut buffer[len..], at + len as u64) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(len)
}

/// Returns the digests of all chunks of a tree.
pub(crate) fn digests(tree: &Dir, progress: &Progress) -> Result<ChunkSet, Error> {
    let mut found = HashSet::new();
    each_file(tree, progress, |_, _, digest, _| {
        found.insert(digest);
        Ok(())
    })?;
    Ok(ChunkSet(found))
}

/// Calls `each` with path, offset, digest and length of every chunk of a tree.
pub(crate) fn each_file(
    tree: &Dir,
    progress: &Progress,
    each: impl FnMut(&[u8], u64, ChunkDigest, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    struct Files<'p, F> {
        progress: &'p Progress,
        seen: HashSet<(u64, u64)>,
        call: F,
    }

    impl<F: FnMut(&[u8], u64, ChunkDigest, usize) -> Result<(), Error>> Visitor for Files<'_, F> {
        fn entry(&mut self, at: Option<(&Dir, &OsStr)>, entry: Entry) -> Result<(), Error> {
            let (Kind::File(size), Some((dir, name))) = (&entry.kind, at) else { return Ok(()) };
            if entry.inode.is_some_and(|inode| !self.seen.insert(inode)) {
                return Ok(());
            }
            let Some(file) = present(dir.open_file(name), &entry.path)? else { return Ok(()) };
            let (each, progress) = (&mut self.call, self.progress);
            chunks(&file, *size, &entry.path, |at, digest, bytes| {
                each(&entry.path, at, digest, bytes.len())?;
                progress.add(bytes.len() as u64)
            })
        }

        fn leave(&mut self, _entry: Entry) -> Result<(), Error> {
            Ok(())
        }
    }

    walk(tree, &mut Files { progress, seen: HashSet::new(), call: each })
}
