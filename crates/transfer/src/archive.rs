//! Reading an image archive in one pass: documents are kept in memory, plain layers are unpacked as they come, all other
//! blobs go to the store as they are.
//!
//! Which images the archive holds is decided afterwards ([`crate::load`]); nothing here interprets a document.

use std::collections::HashMap;
use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rorqual_content::{Blobs, verify};
use rorqual_core::{Algorithm, DiffId, Digest};
use rorqual_snapshot::tar::{Entry, Kind, Reader, is_header};
use rorqual_snapshot::{LayerInfo, LayerSource, Snapshotter, decompress};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::graph::Documents;
use crate::record::{MAX_CONFIG, other};
use crate::{Error, Progress, ProgressSink};

/// LIMIT: entries, documents in memory, and their bytes in one archive.
const MAX_ENTRIES: usize = 100_000;
const MAX_DOCUMENTS: u64 = 256 << 20;
/// LIMIT: one blob that is kept as it is.
const MAX_BLOB: u64 = 1 << 40;
const PIECE: usize = 256 * 1024;
const PIECES: usize = 8;
/// What the first bytes of an entry are told by: one header of a tar.
const HEAD: usize = 512;

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
    /// Blobs that went to the store as they are.
    pub(crate) stored: HashMap<String, Digest>,
    /// Links to other paths; old archives use them for layers that occur twice.
    pub(crate) links: HashMap<String, String>,
    bytes: u64,
}

/// Unpacks layers and stores blobs while an archive is read.
pub(crate) struct Loader {
    pub(crate) blobs: Arc<dyn Blobs>,
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
        let mut reader = Reader::new(Ahead::new(plain));
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
        let bytes = contents.bytes + entry.stored;
        let fits = entry.stored <= MAX_CONFIG && bytes <= MAX_DOCUMENTS;
        match blob_digest(&path) {
            Some(digest) if !(is_plain(&digest, head) || fits && is_json(head)) => {
                self.store(&digest, entry.stored, reader)?;
                contents.stored.insert(path, digest);
                return Ok(());
            }
            blob if is_layer(&path, head) => {
                let unpacking = self.layer(&path, blob, entry.stored, reader)?;
                contents.layers.insert(path, unpacking);
                return Ok(());
            }
            _ => {}
        }
        contents.bytes = bytes;
        if bytes > MAX_DOCUMENTS {
            return Err(broken("its documents are too large"));
        }
        let bytes = reader.read_all(MAX_CONFIG).map_err(reading)?;
        contents.documents.insert(path, bytes);
        Ok(())
    }

    /// Puts a blob into the store, byte for byte. One that is there is not written again, but looked at all the same.
    fn store<R: BufRead>(
        &self,
        digest: &Digest,
        size: u64,
        reader: &mut Reader<R>,
    ) -> Result<(), Error> {
        if size > MAX_BLOB {
            return Err(broken(format!("{digest} has more than {MAX_BLOB} bytes")));
        }
        if digest.algorithm() == Algorithm::Sha256 && self.blobs.size(digest)? == Some(size) {
            let mut hasher = Sha256::new();
            self.pass(digest.hex(), size, reader, |data| {
                hasher.update(data);
                Ok(())
            })?;
            let (expected, found) = (digest.clone(), Digest::sha256(hasher.finalize().into()));
            if found == expected {
                return Ok(());
            }
            return Err(rorqual_content::Error::WrongDigest { expected, found }.into());
        }
        let mut ingest = self.blobs.ingest(size)?;
        self.pass(digest.hex(), size, reader, |data| {
            ingest.write_all(data).map_err(other(&format!("store blob {digest}")))
        })?;
        ingest.commit(Some(digest))?;
        Ok(())
    }

    /// Hands an entry's data on, piece by piece, and tells how far it is.
    fn pass<R: BufRead>(
        &self,
        name: &str,
        size: u64,
        reader: &mut Reader<R>,
        mut take: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut done = 0;
        loop {
            let data = reader.data().map_err(reading)?;
            if data.is_empty() {
                return Ok(());
            }
            take(data)?;
            let len = data.len();
            reader.consume(len);
            done += len as u64;
            self.tell(name, done, size);
        }
    }

    fn tell(&self, name: &str, current: u64, total: u64) {
        let id = name.chars().take(12).collect();
        (self.progress)(Progress { id, status: "Loading layer".to_owned(), current, total });
    }

    fn layer<R: BufRead>(
        &self,
        path: &str,
        digest: Option<Digest>,
        size: u64,
        reader: &mut Reader<R>,
    ) -> Result<Unpacking, Error> {
        let (sender, pieces) = Pieces::channel(PIECES, size);
        // A plain blob says what it unpacks to: then a layer that is there is not unpacked again.
        let source = LayerSource { blob: Box::new(pieces), expected: digest.map(DiffId) };
        let snapshots = Arc::clone(&self.snapshots);
        let layer = self.runtime.spawn(async move { snapshots.apply(source).await });
        let blob = self.feed(path, size, reader, sender)?;
        Ok(Unpacking { blob, layer })
    }

    fn feed<R: BufRead>(
        &self,
        path: &str,
        size: u64,
        reader: &mut Reader<R>,
        sender: SyncSender<Vec<u8>>,
    ) -> Result<Digest, Error> {
        let mut hasher = Sha256::new();
        let mut wanted = Some(sender);
        self.pass(layer_name(path), size, reader, |data| {
            hasher.update(data);
            // A failed unpacking is reported by its own task; the rest of the archive is still read.
            if wanted.as_ref().is_some_and(|sender| sender.send(data.to_vec()).is_err()) {
                wanted = None;
            }
            Ok(())
        })?;
        Ok(Digest::sha256(hasher.finalize().into()))
    }
}

/// Tells whether a blob is a layer's plain tar. Layers are known by their SHA-256 alone.
fn is_plain(digest: &Digest, head: &[u8]) -> bool {
    is_header(head) && digest.algorithm() == Algorithm::Sha256
}

fn is_json(head: &[u8]) -> bool {
    let first = head.iter().find(|byte| !byte.is_ascii_whitespace());
    first.is_some_and(|byte| matches!(byte, b'{' | b'['))
}

/// Tells a layer from a document by its first bytes: compressed, or a tar (an empty one is all zero).
fn is_layer(path: &str, head: &[u8]) -> bool {
    if is_header(head) {
        return true;
    }
    !is_json(head)
        && (path.strip_suffix(".tar").is_some()
            || matches!(head, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..]))
}

/// Names a layer for people: its digest's or its directory's name.
fn layer_name(path: &str) -> &str {
    let name = path.strip_suffix("/layer.tar").unwrap_or(path);
    name.rsplit('/').next().unwrap_or(name)
}

/// A buffer that shows at least the head of what comes, however little the source gives at a time.
struct Ahead<R> {
    source: R,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    ended: bool,
}

impl<R: Read> Ahead<R> {
    fn new(source: R) -> Self {
        Self { source, buffer: vec![0; PIECE], at: 0, end: 0, ended: false }
    }
}

impl<R: Read> BufRead for Ahead<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.end - self.at < HEAD && !self.ended {
            self.buffer.copy_within(self.at..self.end, 0);
            self.end -= self.at;
            self.at = 0;
            let more = self.source.read(&mut self.buffer[self.end..])?;
            self.end += more;
            self.ended = more == 0;
        }
        Ok(&self.buffer[self.at..self.end])
    }

    fn consume(&mut self, len: usize) {
        self.at = (self.at + len).min(self.end);
    }
}

impl<R: Read> Read for Ahead<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let data = self.fill_buf()?;
        let len = data.len().min(into.len());
        into[..len].copy_from_slice(&data[..len]);
        self.consume(len);
        Ok(len)
    }
}

/// An entry's data, handed over from the thread that reads the archive.
pub(crate) struct Pieces {
    receiver: Receiver<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    left: u64,
}

impl Pieces {
    /// Makes the two ends for so many bytes; what comes in after them is not read.
    pub(crate) fn channel(ahead: usize, size: u64) -> (SyncSender<Vec<u8>>, Self) {
        let (sender, receiver) = sync_channel(ahead);
        (sender, Self { receiver, piece: Vec::new(), at: 0, left: size })
    }
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

    /// Finds a document of an OCI layout by digest, verified; `None` when the archive has none.
    pub(crate) fn blob(&self, digest: &Digest) -> Result<Option<&[u8]>, Error> {
        let path = blob_path(digest);
        let Some(bytes) = self.documents.get(self.resolve(&path)) else { return Ok(None) };
        verify(bytes, digest)?;
        Ok(Some(bytes))
    }
}

impl Documents for Contents {
    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.blob(digest)?.map(<[u8]>::to_vec))
    }
}

/// Reads the digest of a blob from its path in an OCI layout.
fn blob_digest(path: &str) -> Option<Digest> {
    let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
    format!("{algorithm}:{hex}").parse().ok()
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
