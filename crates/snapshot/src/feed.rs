//! Reading ahead: a thread reads and decompresses while another parses and writes. Knows nothing of what it carries.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use rorqual_core::Digest;
use sha2::{Digest as _, Sha256};

/// LIMIT: bytes per piece and pieces in flight: 2 MiB for each layer at work.
const PIECE: usize = 256 * 1024;
const PIECES: usize = 8;

/// A digest that is computed while bytes pass.
#[derive(Clone, Default)]
pub(crate) struct Hasher(Arc<Mutex<(Sha256, u64)>>);

impl Hasher {
    /// Takes in more bytes.
    pub(crate) fn update(&self, bytes: &[u8]) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.0.update(bytes);
        state.1 += bytes.len() as u64;
    }

    /// Returns how many bytes there were.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Returns the digest of all bytes so far.
    pub(crate) fn digest(&self) -> Digest {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone();
        Digest::sha256(state.finalize().into())
    }
}

/// The producing end for a writer.
pub(crate) struct Sink {
    sender: SyncSender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
}

/// Runs `produce` on a thread of its own; what it writes is read from the feed, and its failure too.
pub(crate) fn produce(
    produce: impl FnOnce(&mut Sink) -> io::Result<()> + Send + 'static,
) -> io::Result<Feed> {
    let (sender, pieces) = sync_channel(PIECES);
    thread::Builder::new().name("archive".to_owned()).spawn(move || {
        let mut sink = Sink { sender, piece: Vec::with_capacity(PIECE) };
        let result = produce(&mut sink).and_then(|()| sink.flush());
        if let Err(error) = result {
            // If the reader has gone there is nobody left to tell.
            sink.sender.send(Err(error)).ok();
        }
    })?;
    Ok(Feed {
        pieces,
        piece: Vec::new(),
        at: 0,
        hasher: Hasher::default(),
        hash_on: HashOn::Reading,
        failed: false,
    })
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..len]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.sender.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// Which side computes the digest: the one that has less to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HashOn {
    /// The reading thread (plain input).
    Reading,
    /// The consuming thread (the reader inflates).
    Using,
}

/// The consuming end.
pub(crate) struct Feed {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
    hasher: Hasher,
    hash_on: HashOn,
    failed: bool,
}

impl Feed {
    /// Hashes all that is read from now on.
    pub(crate) fn hashing(mut self) -> (Self, Hasher) {
        self.hash_on = HashOn::Using;
        let hasher = self.hasher.clone();
        (self, hasher)
    }

    /// Starts to read `source`, hashing all that comes out of it.
    pub(crate) fn start(
        source: Box<dyn Read + Send>,
        hash_on: HashOn,
    ) -> io::Result<(Self, Hasher)> {
        let (sender, pieces) = sync_channel(PIECES);
        let hasher = Hasher::default();
        let reading = (hash_on == HashOn::Reading).then(|| hasher.clone());
        thread::Builder::new()
            .name("layer-read".to_owned())
            .spawn(move || pump(source, &sender, reading.as_ref()))?;
        let feed = Self {
            pieces,
            piece: Vec::new(),
            at: 0,
            hasher: hasher.clone(),
            hash_on,
            failed: false,
        };
        Ok((feed, hasher))
    }
}

fn pump(
    mut source: Box<dyn Read + Send>,
    sender: &SyncSender<io::Result<Vec<u8>>>,
    hasher: Option<&Hasher>,
) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let result = (&mut source).take(PIECE as u64).read_to_end(&mut piece);
        if let Some(hasher) = hasher {
            hasher.update(&piece);
        }
        if !piece.is_empty() && sender.send(Ok(piece)).is_err() {
            return; // The consumer has gone.
        }
        match result {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                sender.send(Err(error)).ok();
                return;
            }
        }
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() && !self.failed {
            self.at = 0;
            self.piece = match self.pieces.recv() {
                Ok(Ok(piece)) => piece,
                Ok(Err(error)) => {
                    self.failed = true;
                    return Err(error);
                }
                Err(_) => Vec::new(),
            };
            if self.hash_on == HashOn::Using {
                self.hasher.update(&self.piece);
            }
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, len: usize) {
        self.at = (self.at + len).min(self.piece.len());
    }
}

impl Read for Feed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let len = piece.len().min(into.len());
        into[..len].copy_from_slice(&piece[..len]);
        self.consume(len);
        Ok(len)
    }
}
