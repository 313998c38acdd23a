//! Reading an image archive in one pass: documents are kept in memory, layers are unpacked as they come.
//!
//! Which images the archive holds is decided afterwards ([`crate::load`]); nothing here interprets a document.

use std::collections::HashMap;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rorqual_core::{DiffId, Digest};
use rorqual_snapshot::tar::{Entry, Kind, Reader};
use rorqual_snapshot::{LayerInfo, LayerSource, Snapshotter, decompress};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::record::MAX_CONFIG;
use crate::{Error, Progress, ProgressSink};

/// LIMIT: entries, documents in memory, and their bytes in one archive.
const MAX_ENTRIES: usize = 100_000;
const MAX_DOCUMENTS: u64 = 256 << 20;
const PIECE: usize = 256 * 1024;
const PIECES: usize = 8;

/// A layer that was found, being unpacked.
pub(crate) struct Unpacking {
    /// Digest of the bytes in the archive.
    pub(crate) blob: Digest,
    pub(crate) layer: JoinHandle<Result<LayerInfo, rorqual_snapshot::Error>>,
}

/// All that an archive holds, by cleaned path.
#[derive(Default)]
pub(crate) struct Contents {
    pub(crate) documents: HashMap<String, Vec<u8>>,
    pub(crate) layers: HashMap<String, Unpacking>,
    /// Links to other paths; old archives use them for layers that occur twice.
    pub(crate) links: HashMap<String, String>,
    bytes: u64,
}

/// Unpacks layers while an archive is read.
pub(crate) struct Loader {
    pub(crate) snapshots: Arc<dyn Snapshotter>,
    pub(crate) progress: ProgressSink,
    pub(crate) runtime: Handle,
}

pub(crate) fn broken(text: impl Into<String>) -> Error {
    Error::InvalidArchive(text.into())
}

fn reading(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData
        | io::ErrorKind::InvalidInput
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::Unsupported => broken(error.to_string()),
        _ => Error::Other { action: "read the archive".to_owned(), source: error.into() },
    }
}

/// Cleans a path; `None` when it leads out or is no text.
pub(crate) fn clean(path: &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    for part in std::str::from_utf8(path).ok()?.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

impl Loader {
    /// Reads a whole archive. Blocking; the layers go on being unpacked afterwards.
    pub(crate) fn read(&self, archive: Box<dyn Read + Send>) -> Result<Contents, Error> {
        let plain = decompress(archive).map_err(reading)?;
        let mut reader = Reader::new(BufReader::with_capacity(PIECE, plain));
        let mut contents = Contents::default();
        for _ in 0..MAX_ENTRIES {
            match reader.next_entry().map_err(reading)? {
                Some(entry) => self.entry(&entry, &mut reader, &mut contents)?,
                None => return Ok(contents),
            }
        }
        Err(broken("too many entries"))
    }

    fn entry<R: BufRead>(
        &self,
        entry: &Entry,
        reader: &mut Reader<R>,
        contents: &mut Contents,
    ) -> Result<(), Error> {
        let outside = || broken(format!("{:?} leads out", String::from_utf8_lossy(&entry.path)));
        let path = clean(&entry.path).ok_or_else(outside)?;
        match entry.kind {
            Kind::Symlink | Kind::HardLink => {
                let base = match (entry.kind, path.rsplit_once('/')) {
                    (Kind::Symlink, Some((parent, _))) => format!("{parent}/"),
                    _ => String::new(),
                };
                let target = [base.as_bytes(), &entry.link].concat();
                contents.links.insert(path, clean(&target).ok_or_else(outside)?);
                Ok(())
            }
            Kind::File if entry.sparse.is_none() => self.file(path, entry, reader, contents),
            _ => Ok(()),
        }
    }

    fn file<R: BufRead>(
        &self,
        path: String,
        entry: &Entry,
        reader: &mut Reader<R>,
        contents: &mut Contents,
    ) -> Result<(), Error> {
        let head = reader.data().map_err(reading)?;
        if is_layer(&path, head) {
            let unpacking = self.layer(&path, entry.stored, reader)?;
            contents.layers.insert(path, unpacking);
            return Ok(());
        }
        contents.bytes += entry.stored;
        if contents.bytes > MAX_DOCUMENTS {
            return Err(broken("its documents are too large"));
        }
        let bytes = reader.read_all(MAX_CONFIG).map_err(reading)?;
        contents.documents.insert(path, bytes);
        Ok(())
    }

    fn layer<R: BufRead>(
        &self,
        path: &str,
        size: u64,
        reader: &mut Reader<R>,
    ) -> Result<Unpacking, Error> {
        let (sender, receiver) = sync_channel(PIECES);
        let pieces = Pieces { receiver, piece: Vec::new(), at: 0, left: size };
        let source = LayerSource { blob: Box::new(pieces), expected: None };
        let snapshots = Arc::clone(&self.snapshots);
        let layer = self.runtime.spawn(async move { snapshots.apply(source).await });
        let blob = self.feed(path, size, reader, &sender)?;
        Ok(Unpacking { blob, layer })
    }

    fn feed<R: BufRead>(
        &self,
        path: &str,
        size: u64,
        reader: &mut Reader<R>,
        sender: &SyncSender<Vec<u8>>,
    ) -> Result<Digest, Error> {
        let mut hasher = Sha256::new();
        let mut done = 0;
        loop {
            let data = reader.data().map_err(reading)?;
            if data.is_empty() {
                break;
            }
            hasher.update(data);
            let len = data.len();
            // A failed unpacking is reported by its own task; the rest of the archive is still read.
            sender.send(data.to_vec()).ok();
            reader.consume(len);
            done += len as u64;
            (self.progress)(Progress {
                id: layer_name(path),
                status: "Loading layer".to_owned(),
                current: done,
                total: size,
            });
        }
        Ok(Digest::sha256(hasher.finalize().into()))
    }
}

/// Tells a layer from a document by its first bytes: compressed, or a tar (an empty one is all zero).
fn is_layer(path: &str, head: &[u8]) -> bool {
    let json = head.iter().find(|byte| !byte.is_ascii_whitespace());
    if json.is_some_and(|byte| matches!(byte, b'{' | b'[')) && head.get(257..262) != Some(b"ustar")
    {
        return false;
    }
    path.strip_suffix(".tar").is_some()
        || matches!(head, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..])
        || head.get(257..262) == Some(b"ustar")
        || path.starts_with("blobs/") && head.len() >= 512
}

/// Names a layer for people: its digest's or its directory's first letters.
fn layer_name(path: &str) -> String {
    let name = path.strip_suffix("/layer.tar").unwrap_or(path);
    let name = name.rsplit('/').next().unwrap_or(name);
    name.chars().take(12).collect()
}

/// An entry's data, handed over from the thread that reads the archive.
struct Pieces {
    receiver: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    left: u64,
}

impl Read for Pieces {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() && self.left > 0 {
            // The archive ended too early, or the load was called off.
            self.piece = self.receiver.recv().map_err(|_| io::ErrorKind::UnexpectedEof)?;
            self.at = 0;
            self.left = self.left.saturating_sub(self.piece.len() as u64);
        }
        let len = into.len().min(self.piece.len() - self.at);
        into[..len].copy_from_slice(&self.piece[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

impl Contents {
    /// Follows links from a path in the archive.
    pub(crate) fn resolve<'c>(&'c self, path: &'c str) -> &'c str {
        let mut path = path;
        // LIMIT: old archives link once; a circle ends here too.
        for _ in 0..8 {
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        path
    }

    /// Finds a document by path.
    pub(crate) fn document(&self, path: &str) -> Result<&[u8], Error> {
        let path = clean(path.as_bytes()).unwrap_or_default();
        let found = self.documents.get(self.resolve(&path)).map(Vec::as_slice);
        found.ok_or_else(|| broken(format!("{path:?} is missing")))
    }

    /// Finds a document of an OCI layout by digest, verified.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<&[u8], Error> {
        let bytes = self.document(&blob_path(digest))?;
        let found = Digest::sha256(Sha256::digest(bytes).into());
        if found != *digest {
            let expected = digest.clone();
            return Err(rorqual_content::Error::WrongDigest { expected, found }.into());
        }
        Ok(bytes)
    }
}

/// Returns where an OCI layout keeps a blob.
pub(crate) fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A layer that is there.
#[derive(Clone)]
pub(crate) struct Unpacked {
    pub(crate) blob: Digest,
    pub(crate) diff_id: DiffId,
}
