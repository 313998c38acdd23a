//! gzip on several threads whose output depends on nothing but the input: the same layer makes the same blob everywhere.
//!
//! The input is cut into blocks that are deflated each for itself and end at a byte; one after the other they are one stream.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Bytes of one block. Part of what the output depends on: another size makes other blobs.
const BLOCK: usize = 1 << 20;
/// How hard is tried. Part of what the output depends on, too.
const LEVEL: u32 = 5;
// LIMIT: threads of one stream; each holds two blocks.
const MAX_THREADS: usize = 4;
/// Header without name and time (RFC 1952): the operating system is unknown.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The end of a deflate stream: an empty last block of fixed codes.
const END: [u8; 2] = [3, 0];

type Answer = Receiver<io::Result<Vec<u8>>>;

struct Work {
    block: Vec<u8>,
    answer: Sender<io::Result<Vec<u8>>>,
}

/// Compresses what is written to it.
pub(crate) struct Gzip<W> {
    sink: W,
    block: Vec<u8>,
    crc: Crc,
    work: Sender<Work>,
    /// Blocks under way, in order.
    ahead: VecDeque<Answer>,
    threads: usize,
}

impl<W: Write> Gzip<W> {
    /// Starts the threads and writes the header.
    pub(crate) fn new(mut sink: W) -> io::Result<Self> {
        let threads = thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let (work, wanted) = channel::<Work>();
        let wanted = Arc::new(Mutex::new(wanted));
        for _ in 0..threads {
            let wanted = Arc::clone(&wanted);
            thread::Builder::new().name("gzip".to_owned()).spawn(move || serve(&wanted))?;
        }
        sink.write_all(&HEADER)?;
        let block = Vec::with_capacity(BLOCK);
        Ok(Self { sink, block, crc: Crc::new(), work, ahead: VecDeque::new(), threads })
    }

    fn dispatch(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK));
        self.crc.update(&block);
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

    /// Writes what is left and the trailer.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.dispatch()?;
        while !self.ahead.is_empty() {
            self.take()?;
        }
        self.sink.write_all(&END)?;
        self.sink.write_all(&self.crc.sum().to_le_bytes())?;
        self.sink.write_all(&self.crc.amount().to_le_bytes())?;
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
    loop {
        let next = wanted.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Work { block, answer }) = next else { return };
        // Whoever wanted it may have given up.
        answer.send(deflate(&block)).ok();
    }
}

fn deflate(block: &[u8]) -> io::Result<Vec<u8>> {
    let mut compress = Compress::new(Compression::new(LEVEL), false);
    // A little more than deflate needs for bytes that cannot be made smaller.
    let mut packed = Vec::with_capacity(block.len() + block.len() / 1000 + 1024);
    loop {
        let done = compress.total_in() as usize;
        let status = compress.compress_vec(&block[done..], &mut packed, FlushCompress::Sync)?;
        let room = packed.len() < packed.capacity();
        if compress.total_in() as usize == block.len() && room && status != Status::BufError {
            return Ok(packed);
        }
        packed.reserve(block.len() / 2 + 1024);
    }
}

#[cfg(test)]
mod tests;
