//! Files of several platforms as one archive, those of each below a directory of its own.

use std::collections::VecDeque;
use std::io::{self, BufReader, Read};

use rorqual_snapshot::tar::{Entry, Kind, Reader, Writer};

/// Bytes read at once.
const PIECE: usize = 128 * 1024;

type Source = Box<dyn Read + Send>;

/// One archive made of several, entry by entry as it is read.
pub(super) struct Parts {
    waiting: VecDeque<(String, Source)>,
    open: Option<Part>,
    /// Time of the directories, in seconds since the epoch.
    time: i64,
    ready: Vec<u8>,
    at: usize,
    is_over: bool,
}

struct Part {
    below: String,
    reader: Reader<BufReader<Source>>,
    /// Stored bytes of the entry whose data are being copied.
    copying: Option<u64>,
}

impl Parts {
    /// Puts archives below directories; no time is later than `latest`.
    pub(super) fn new(parts: Vec<(String, Source)>, latest: Option<i64>) -> Self {
        Self {
            waiting: parts.into(),
            open: None,
            time: latest.unwrap_or_default(),
            ready: Vec::new(),
            at: 0,
            is_over: false,
        }
    }

    /// Makes more of the archive ready, perhaps nothing; tells whether there can be more.
    fn step(&mut self) -> io::Result<bool> {
        if self.is_over {
            return Ok(false);
        }
        match &mut self.open {
            Some(part) => {
                if !part.step(&mut self.ready)? {
                    self.open = None;
                }
            }
            None => match self.waiting.pop_front() {
                Some((below, source)) => {
                    let mut entry = Entry::new(format!("{below}/"), Kind::Directory, 0o755);
                    entry.mtime = (self.time, 0);
                    Writer::new(&mut self.ready).header(&entry)?;
                    let reader = Reader::new(BufReader::with_capacity(PIECE, source));
                    self.open = Some(Part { below, reader, copying: None });
                }
                None => {
                    Writer::new(&mut self.ready).finish()?;
                    self.is_over = true;
                }
            },
        }
        Ok(true)
    }
}

impl Part {
    /// Writes a header, or a piece of an entry's data; tells whether there can be more.
    fn step(&mut self, into: &mut Vec<u8>) -> io::Result<bool> {
        if let Some(stored) = self.copying {
            let data = self.reader.data()?;
            let count = data.len();
            into.extend_from_slice(data);
            self.reader.consume(count);
            if count == 0 {
                Writer::new(into).pad(stored)?;
                self.copying = None;
            }
            return Ok(true);
        }
        let Some(mut entry) = self.reader.next_entry()? else { return Ok(false) };
        let below = |path: &[u8]| [self.below.as_bytes(), b"/", path].concat();
        entry.path = below(&entry.path);
        if entry.kind == Kind::HardLink {
            entry.link = below(&entry.link);
        }
        Writer::new(into).header(&entry)?;
        self.copying = (entry.stored > 0).then_some(entry.stored);
        Ok(true)
    }
}

impl Read for Parts {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.at == self.ready.len() {
            self.ready.clear();
            self.at = 0;
            if !self.step()? {
                return Ok(0);
            }
        }
        let count = into.len().min(self.ready.len() - self.at);
        into[..count].copy_from_slice(&self.ready[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
