//! A reader of what another thread makes: the failure of that thread comes out at the reading end, and it ends with
//! the reader.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

#[cfg(test)]
mod tests;

/// LIMIT: bytes per piece and pieces in flight: 2 MiB for each feed.
const PIECE: usize = 256 << 10;
const PIECES: usize = 8;

/// The producing end.
#[derive(Debug)]
pub struct Sink {
    sender: SyncSender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
}

/// The reading end.
#[derive(Debug)]
pub struct Feed {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

/// Runs `produce` on a thread of that name; what it writes is read from the feed, and its failure too.
///
/// # Errors
/// There is no room for another thread.
pub fn produce(
    thread: &str,
    produce: impl FnOnce(&mut Sink) -> io::Result<()> + Send + 'static,
) -> io::Result<Feed> {
    let (sender, pieces) = sync_channel(PIECES);
    std::thread::Builder::new().name(thread.to_owned()).spawn(move || {
        let mut sink = Sink { sender, piece: Vec::new() };
        let result = produce(&mut sink).and_then(|()| sink.flush());
        if let Err(error) = result {
            // If the reader has gone there is nobody left to tell.
            sink.sender.send(Err(error)).ok();
        }
    })?;
    Ok(Feed { pieces, piece: Vec::new(), at: 0 })
}

impl Sink {
    /// Reads a piece and passes it on, after `look` has seen it; false at the end of `source`.
    ///
    /// # Errors
    /// Those of `source`, after what came before; `BrokenPipe` when the reader has gone.
    pub fn pump(&mut self, source: &mut impl Read, look: impl FnOnce(&[u8])) -> io::Result<bool> {
        self.flush()?;
        self.piece.reserve_exact(PIECE);
        let result = source.take(PIECE as u64).read_to_end(&mut self.piece);
        look(&self.piece);
        self.flush()?;
        result.map(|count| count > 0)
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.capacity() == 0 {
            self.piece.reserve_exact(PIECE);
        }
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
        let piece = std::mem::take(&mut self.piece);
        self.sender.send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Feed {
    /// Tells whether all at hand was consumed: the next read waits for the other end.
    pub const fn is_spent(&self) -> bool {
        self.at == self.piece.len()
    }
}

impl BufRead for Feed {
    /// Returns what has not been consumed; nothing at the end, and after a failure was told.
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.is_spent() {
            self.at = 0;
            self.piece.clear();
            if let Ok(next) = self.pieces.recv() {
                self.piece = next?;
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
