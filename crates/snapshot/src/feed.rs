//! Reading ahead: a thread reads and decompresses while another parses and writes. Knows nothing of what it carries.

use std::io::{self, BufRead, Read};
use std::sync::{Arc, Mutex, PoisonError};

use rorqual_core::Digest;
use rorqual_sys::feed;
use sha2::{Digest as _, Sha256};

pub(crate) use rorqual_sys::feed::Sink;

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

/// Runs `produce` on a thread of its own; what it writes is read from the feed, and its failure too.
pub(crate) fn produce(
    produce: impl FnOnce(&mut Sink) -> io::Result<()> + Send + 'static,
) -> io::Result<Feed> {
    let pieces = feed::produce("archive", produce)?;
    Ok(Feed { pieces, hasher: Hasher::default(), hash_on: HashOn::Reading, hashed: false })
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
    pieces: feed::Feed,
    hasher: Hasher,
    hash_on: HashOn,
    /// The piece at hand went into the hasher.
    hashed: bool,
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
        mut source: Box<dyn Read + Send>,
        hash_on: HashOn,
    ) -> io::Result<(Self, Hasher)> {
        let hasher = Hasher::default();
        let reading = (hash_on == HashOn::Reading).then(|| hasher.clone());
        let pieces = feed::produce("layer-read", move |sink| {
            let look = |piece: &[u8]| {
                if let Some(hasher) = &reading {
                    hasher.update(piece);
                }
            };
            while sink.pump(&mut source, look)? {}
            Ok(())
        })?;
        Ok((Self { pieces, hasher: hasher.clone(), hash_on, hashed: false }, hasher))
    }
}

impl BufRead for Feed {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let piece = self.pieces.fill_buf()?;
        if self.hash_on == HashOn::Using && !self.hashed {
            self.hasher.update(piece);
            self.hashed = true;
        }
        Ok(piece)
    }

    fn consume(&mut self, len: usize) {
        self.pieces.consume(len);
        self.hashed = !self.pieces.is_spent();
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
