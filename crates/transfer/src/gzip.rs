//! gzip on several threads whose output depends on nothing but the input: the same layer makes the same blob everywhere.
//!
//! The input is cut into blocks, each a gzip member of its own; members one after the other are one file (RFC 1952, 2.2), which
//! whoever reads layers knows how to read. libdeflate makes the same bytes on all processors.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use libdeflater::{CompressionLvl, Compressor};

/// Bytes of one block. Part of what the output depends on: another size makes other blobs.
const BLOCK: usize = 1 << 20;
/// How hard is tried. Part of what the output depends on, too. Measured on programs and their libraries: as small as zlib's level 6,
/// several times as fast.
const LEVEL: i32 = 2;
// LIMIT: threads of one stream; each holds two blocks.
const MAX_THREADS: usize = 8;

type Answer = Receiver<io::Result<Vec<u8>>>;

struct Work {
    block: Vec<u8>,
    answer: Sender<io::Result<Vec<u8>>>,
}

/// Compresses what is written to it.
pub(crate) struct Gzip<W> {
    sink: W,
    block: Vec<u8>,
    work: Sender<Work>,
    /// Blocks under way, in order.
    ahead: VecDeque<Answer>,
    threads: usize,
    empty: bool,
}

impl<W: Write> Gzip<W> {
    /// Starts the threads.
    pub(crate) fn new(sink: W) -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let (work, wanted) = channel::<Work>();
        let wanted = Arc::new(Mutex::new(wanted));
        for _ in 0..threads {
            let wanted = Arc::clone(&wanted);
            thread::Builder::new().name("gzip".to_owned()).spawn(move || serve(&wanted))?;
        }
        let block = Vec::with_capacity(BLOCK);
        Ok(Self { sink, block, work, ahead: VecDeque::new(), threads, empty: true })
    }

    fn dispatch(&mut self) -> io::Result<()> {
        self.empty = false;
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        let (answer, answered) = channel();
        self.work.send(Work { block, answer }).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.ahead.push_back(answered);
        while self.ahead.len() > self.threads {
            self.take()?;
        }
        Ok(())
    }

    fn take(&mut self) -> io::Result<()> {
        let Some(answer) = self.ahead.pop_front() else { return Ok(()) };
        let packed = answer.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
        self.sink.write_all(&packed)
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        // Nothing is a member, too: no bytes at all are no gzip.
        if self.empty || !self.block.is_empty() {
            self.dispatch()?;
        }
        while !self.ahead.is_empty() {
            self.take()?;
        }
        Ok(self.sink)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(BLOCK - self.block.len());
        self.block.extend_from_slice(&bytes[..len]);
        if self.block.len() == BLOCK {
            self.dispatch()?;
        }
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn serve(wanted: &Mutex<Receiver<Work>>) {
    let mut compressor = CompressionLvl::new(LEVEL).map(Compressor::new);
    loop {
        let next = wanted.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { block, answer }) = next else { return };
        let packed = match &mut compressor {
            Ok(compressor) => member(compressor, &block),
            Err(error) => Err(io::Error::other(format!("{error:?}"))),
        };
        // Whoever wanted it may have given up.
        answer.send(packed).ok();
    }
}

fn member(compressor: &mut Compressor, block: &[u8]) -> io::Result<Vec<u8>> {
    let mut packed = vec![0; compressor.gzip_compress_bound(block.len())];
    let len = compressor.gzip_compress(block, &mut packed).map_err(io::Error::other)?;
    packed.truncate(len);
    Ok(packed)
}

#[cfg(test)]
mod tests;
