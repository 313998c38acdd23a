//! A reader of what another thread writes: its failure comes out at the reading end, and it ends with the reader.

use std::io::{self, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::contract::Error;

/// LIMIT: bytes per piece and pieces in flight: 2 MiB for each archive at work.
const PIECE: usize = 256 << 10;
const PIECES: usize = 8;

pub(crate) struct Sink {
    sender: SyncSender<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
}

/// Runs `produce` in a thread of its own.
pub(crate) fn produce(
    produce: impl FnOnce(&mut Sink) -> Result<(), Error> + Send + 'static,
) -> io::Result<Feed> {
    let (sender, pieces) = sync_channel(PIECES);
    std::thread::Builder::new().name("volume-export".to_owned()).spawn(move || {
        let mut sink = Sink { sender, piece: Vec::with_capacity(PIECE) };
        let result = produce(&mut sink).map_err(io::Error::other).and_then(|()| sink.flush());
        if let Err(error) = result {
            // If the reader has gone there is nobody left to tell.
            sink.sender.send(Err(error)).ok();
        }
    })?;
    Ok(Feed { pieces, piece: Vec::new(), at: 0 })
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

/// The reading end.
pub struct Feed {
    pieces: Receiver<io::Result<Vec<u8>>>,
    piece: Vec<u8>,
    at: usize,
}

impl Read for Feed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.piece.len() {
            self.at = 0;
            self.piece = match self.pieces.recv() {
                Ok(piece) => piece?,
                Err(_) => return Ok(0),
            };
        }
        let len = into.len().min(self.piece.len() - self.at);
        into[..len].copy_from_slice(&self.piece[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}
