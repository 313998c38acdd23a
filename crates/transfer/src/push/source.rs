//! Where the bytes of a push come from: stored blobs, and unpacked layers that are written again.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rorqual_content::{Descriptor, Ingest, media_type};
use rorqual_core::{DiffId, Digest};
use rorqual_snapshot::Snapshotter;
use tokio::runtime::Handle;

use crate::Error;
use crate::gzip::Gzip;
use crate::record::{Stores, other};
use crate::registry::{Growing, Source};

/// LIMIT: one packed layer.
const MAX_PACKED: u64 = 1 << 40;
// LIMIT: pieces between a layer that is written again and the connection.
const PIECES: usize = 8;

struct Blob {
    stores: Stores,
    digest: Digest,
    runtime: Handle,
}

/// Opens a blob that is stored, or the plain tar of a layer.
pub(crate) fn open(stores: &Stores, blob: &Descriptor) -> Arc<dyn Source> {
    let (stores, digest) = (stores.clone(), blob.digest.clone());
    Arc::new(Blob { stores, digest, runtime: Handle::current() })
}

impl Source for Blob {
    fn open(&self, from: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut reader = match self.stores.blobs.open(&self.digest) {
            Ok(reader) => reader,
            Err(rorqual_content::Error::NoSuchBlob(_)) => self.layer(),
            Err(error) => return Err(io::Error::other(error)),
        };
        let skipped = io::copy(&mut (&mut reader).take(from), &mut io::sink())?;
        if skipped < from {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(reader)
    }
}

impl Blob {
    fn layer(&self) -> Box<dyn Read + Send> {
        let (sender, pieces) = sync_channel(PIECES);
        let snapshots: Arc<dyn Snapshotter> = Arc::clone(&self.stores.snapshots);
        let diff = DiffId(self.digest.clone());
        self.runtime.spawn(async move {
            let sink = Box::new(Pipe(sender.clone()));
            if let Err(error) = snapshots.layer_tar(&diff, sink).await {
                // If the reader has gone there is nobody left to tell; it takes at once or not at all.
                sender.try_send(Err(io::Error::other(error))).ok();
            }
        });
        Box::new(Piped { pieces, piece: Vec::new(), at: 0 })
    }
}

struct Pipe(SyncSender<io::Result<Vec<u8>>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.send(Ok(bytes.to_vec())).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Piped {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Piped {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.piece.len() {
            match self.pieces.recv() {
                Ok(piece) => (self.piece, self.at) = (piece?, 0),
                Err(_) => return Ok(0),
            }
        }
        let len = into.len().min(self.piece.len() - self.at);
        into[..len].copy_from_slice(&self.piece[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}

/// A packed layer on its way to the disk; whoever sends it meanwhile is told of each piece.
struct Told {
    ingest: Box<dyn Ingest>,
    growing: Arc<Growing>,
    /// Bytes of the plain layer so far; ahead of what is written by what the threads hold.
    plain: Arc<AtomicU64>,
    /// Gone when nobody waits for it any more.
    wanted: Weak<()>,
}

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.wanted.strong_count() == 0 {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let len = self.ingest.write(bytes)?;
        self.growing.grow(len as u64, self.plain.load(Ordering::Relaxed));
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Packer = Arc<Mutex<Gzip<Told>>>;

/// The end that the layer is written to; the other end is kept to finish it.
struct Shared {
    packer: Packer,
    plain: Arc<AtomicU64>,
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.packer.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)?;
        self.plain.fetch_add(len as u64, Ordering::Relaxed);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Packs a layer into a blob.
pub(super) async fn pack(
    stores: &Stores,
    diff: &DiffId,
    growing: &Arc<Growing>,
) -> Result<Descriptor, Error> {
    let size = stores.snapshots.find_layer(diff).await?.map_or(0, |layer| layer.tar);
    let ingest = stores.blobs.ingest(MAX_PACKED)?;
    growing.begin(ingest.reader()?, size);
    let (here, plain) = (Arc::new(()), Arc::new(AtomicU64::new(0)));
    let told = Told {
        ingest,
        growing: Arc::clone(growing),
        plain: Arc::clone(&plain),
        wanted: Arc::downgrade(&here),
    };
    let packer: Packer = Arc::new(Mutex::new(Gzip::new(told).map_err(other("pack a layer"))?));
    let shared = Shared { packer: Arc::clone(&packer), plain };
    stores.snapshots.layer_tar(diff, Box::new(shared)).await?;
    let finish = move || -> Result<Descriptor, Error> {
        let packer = Arc::into_inner(packer).ok_or("it is still being written");
        let packer = packer.map_err(other("pack a layer"))?;
        let packer = packer.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Told { ingest, growing, .. } = packer.finish().map_err(other("pack a layer"))?;
        let describe = |digest, size| Descriptor::new(media_type::OCI_LAYER_GZIP, digest, size);
        // Who sends it need not wait for the disk.
        growing.end(Some(describe(ingest.digest(), growing.written())));
        let (digest, size) = ingest.commit(None)?;
        Ok(describe(digest, size))
    };
    let packed = tokio::task::spawn_blocking(finish).await.map_err(other("pack a layer"))?;
    drop(here);
    packed
}
