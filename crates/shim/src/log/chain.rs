//! The files of one log, oldest first, and cursors over their records.
//!
//! Every file is opened at once, newest first, so that a rotation that happens meanwhile shows a file twice (which is
//! noticed) rather than not at all.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::file::numbered;
use super::{LogRecord, json_read, local};

/// LIMIT: bytes read at once when searching backwards.
const BLOCK: usize = 64 * 1024;
/// LIMIT: files of one log that are looked for.
const MOST_FILES: u32 = 1000;

/// How records are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// A JSON object per line.
    Json,
    /// Sizes around protobuf.
    Local,
}

/// A file's identity.
pub(crate) type Identity = (u64, u64);

/// One open file of a log.
#[derive(Debug)]
pub(crate) struct LogFileHandle {
    file: File,
    packed: bool,
    pub(crate) identity: Identity,
}

/// A place in a log file, from which records are read.
pub(crate) struct Cursor {
    format: Format,
    body: Body,
    /// Records still to be passed over.
    skip: u64,
}

enum Body {
    Plain { handle: LogFileHandle, offset: u64, rest: Vec<u8>, taken: usize },
    Packed { stream: Box<BufReader<MultiGzDecoder<BufReader<File>>>>, identity: Identity },
}

/// What a cursor found.
pub(crate) enum Found {
    /// A record.
    Record(LogRecord),
    /// Bytes that are no record; they were passed over.
    Garbage,
    /// Nothing more at present.
    End,
}

impl LogFileHandle {
    fn open(path: &Path, packed: bool) -> io::Result<Option<Self>> {
        let opened = File::options().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let metadata = file.metadata()?;
        Ok(Some(Self { file, packed, identity: (metadata.dev(), metadata.ino()) }))
    }

    /// Makes a cursor at the beginning.
    pub(crate) fn cursor(self, format: Format) -> Cursor {
        let identity = self.identity;
        let body = if self.packed {
            let decoder = MultiGzDecoder::new(BufReader::new(self.file));
            Body::Packed { stream: Box::new(BufReader::new(decoder)), identity }
        } else {
            Body::Plain { handle: self, offset: 0, rest: Vec::new(), taken: 0 }
        };
        Cursor { format, body, skip: 0 }
    }

    /// Makes a cursor before the last `wanted` records; tells how many there are up to that.
    fn cursor_at_tail(self, format: Format, wanted: u64) -> io::Result<(Cursor, u64)> {
        if self.packed {
            let file = self.file.try_clone()?;
            let count = Self { file, ..self }.cursor(format).count()?;
            io::Seek::rewind(&mut &self.file)?;
            let found = count.min(wanted);
            let mut cursor = self.cursor(format);
            cursor.skip = count - found;
            return Ok((cursor, found));
        }
        let (start, found) = match format {
            Format::Json => json_tail(&self.file, wanted)?,
            Format::Local => local_tail(&self.file, wanted)?,
        };
        let body = Body::Plain { handle: self, offset: start, rest: Vec::new(), taken: 0 };
        Ok((Cursor { format, body, skip: 0 }, found))
    }
}

/// Opens all files of the log at `path`, oldest first.
pub(crate) fn open_all(path: &Path) -> io::Result<Vec<LogFileHandle>> {
    let mut handles = Vec::new();
    let mut seen = Vec::new();
    let mut add = |handle: Option<LogFileHandle>| {
        let Some(handle) = handle else { return false };
        if !seen.contains(&handle.identity) {
            seen.push(handle.identity);
            handles.push(handle);
        }
        true
    };
    add(LogFileHandle::open(path, false)?);
    for number in 1..MOST_FILES {
        // Both names exist for a moment while a file is being compressed; they hold the same.
        let there = add(LogFileHandle::open(&numbered(path, number, ""), false)?)
            || add(LogFileHandle::open(&numbered(path, number, ".gz"), true)?);
        if !there {
            break;
        }
    }
    handles.reverse();
    Ok(handles)
}

/// Makes cursors, oldest first, that together give the last `tail` records, or all.
pub(crate) fn cursors(path: &Path, format: Format, tail: Option<u64>) -> io::Result<Vec<Cursor>> {
    let handles = open_all(path)?;
    let Some(mut wanted) = tail else {
        return Ok(handles.into_iter().map(|handle| handle.cursor(format)).collect());
    };
    let mut cursors = Vec::new();
    for handle in handles.into_iter().rev() {
        // The current file is kept even when nothing of it is wanted: a follower goes on from its end.
        if wanted == 0 && !cursors.is_empty() {
            break;
        }
        let (cursor, found) = handle.cursor_at_tail(format, wanted)?;
        wanted -= found;
        cursors.push(cursor);
    }
    cursors.reverse();
    Ok(cursors)
}

/// Returns the identity of the current file, if there is one.
pub(crate) fn current_identity(path: &Path) -> Option<Identity> {
    std::fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Cursor {
    /// Returns which file this reads.
    pub(crate) fn identity(&self) -> Identity {
        match &self.body {
            Body::Plain { handle, .. } => handle.identity,
            Body::Packed { identity, .. } => *identity,
        }
    }

    fn count(mut self) -> io::Result<u64> {
        let mut count = 0;
        loop {
            match self.next()? {
                Found::Record(_) => count += 1,
                Found::Garbage => {}
                Found::End => return Ok(count),
            }
        }
    }

    /// Reads the next record.
    pub(crate) fn next(&mut self) -> io::Result<Found> {
        loop {
            let found = match (&mut self.body, self.format) {
                (Body::Plain { handle, offset, rest, taken }, format) => {
                    next_plain(&handle.file, offset, rest, taken, format)?
                }
                (Body::Packed { stream, .. }, format) => next_packed(stream, format)?,
            };
            match found {
                Found::Record(_) if self.skip > 0 => self.skip -= 1,
                other => return Ok(other),
            }
        }
    }

    /// Tells whether a whole record waits, without taking it.
    pub(crate) fn has_more(&mut self) -> io::Result<bool> {
        let format = self.format;
        let Body::Plain { handle, offset, rest, taken } = &mut self.body else { return Ok(false) };
        let before = *taken;
        rest.drain(..before);
        *taken = 0;
        let found = next_plain(&handle.file, offset, rest, taken, format)?;
        *taken = 0;
        Ok(!matches!(found, Found::End))
    }

    /// Goes back to the beginning when the file has become shorter: it was emptied instead of rotated.
    pub(crate) fn notice_truncation(&mut self) -> io::Result<()> {
        if let Body::Plain { handle, offset, rest, taken } = &mut self.body
            && handle.file.metadata()?.len() < *offset
        {
            (*offset, *taken) = (0, 0);
            rest.clear();
        }
        Ok(())
    }
}

/// Takes the size of the first complete record of `bytes`, and the record.
fn split_record(bytes: &[u8], format: Format) -> Option<(usize, Option<LogRecord>)> {
    match format {
        Format::Json => {
            let end = bytes.iter().position(|byte| *byte == b'\n')?;
            Some((end + 1, json_read::decode(&bytes[..end])))
        }
        Format::Local => {
            let size = u32::from_be_bytes(*bytes.first_chunk::<4>()?);
            if size > local::LARGEST {
                // Nothing behind a broken frame can be found again.
                return Some((bytes.len(), None));
            }
            let size = size as usize;
            let frame = bytes.get(..size + 8)?;
            let closing = u32::from_be_bytes(*frame.last_chunk::<4>()?) as usize;
            let record = (closing == size).then(|| local::decode(&frame[4..size + 4])).flatten();
            Some((size + 8, record))
        }
    }
}

fn next_plain(
    file: &File,
    offset: &mut u64,
    rest: &mut Vec<u8>,
    taken: &mut usize,
    format: Format,
) -> io::Result<Found> {
    loop {
        if let Some((size, record)) = split_record(&rest[*taken..], format) {
            *taken += size;
            return Ok(record.map_or(Found::Garbage, Found::Record));
        }
        rest.drain(..*taken);
        *taken = 0;
        let held = rest.len();
        rest.resize(held + BLOCK, 0);
        let count = file.read_at(&mut rest[held..], *offset)?;
        rest.truncate(held + count);
        *offset += count as u64;
        if count == 0 {
            if rest.is_empty() {
                *rest = Vec::new();
            }
            return Ok(Found::End);
        }
    }
}

fn next_packed(stream: &mut impl BufRead, format: Format) -> io::Result<Found> {
    let mut bytes = Vec::new();
    match format {
        Format::Json => {
            // LIMIT: a line is at most a part of 16 KiB, escaped, with attributes.
            stream.take(u64::from(local::LARGEST)).read_until(b'\n', &mut bytes)?;
            if bytes.is_empty() {
                return Ok(Found::End);
            }
        }
        Format::Local => {
            stream.take(4).read_to_end(&mut bytes)?;
            let Some(size) = bytes.first_chunk::<4>().map(|size| u32::from_be_bytes(*size)) else {
                return Ok(Found::End);
            };
            if size > local::LARGEST {
                return Ok(Found::End);
            }
            stream.take(u64::from(size) + 4).read_to_end(&mut bytes)?;
        }
    }
    let record = split_record(&bytes, format).and_then(|(_, record)| record);
    Ok(record.map_or(Found::Garbage, Found::Record))
}

/// Finds where the last `wanted` lines begin; tells how many there are up to that.
fn json_tail(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let size = file.metadata()?.len();
    let mut block = vec![0; BLOCK];
    // Counts line feeds from the end; the one that ends the last line begins no further line.
    let (mut at, mut feeds) = (size, 0);
    while at > 0 {
        let length = at.min(BLOCK as u64);
        at -= length;
        let block = &mut block[..length as usize];
        file.read_exact_at(block, at)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            if feeds == wanted {
                return Ok((at + index as u64 + 1, wanted));
            }
            feeds += 1;
        }
    }
    Ok((0, feeds))
}

/// The same for frames, going from size to size.
fn local_tail(file: &File, wanted: u64) -> io::Result<(u64, u64)> {
    let mut at = whole_frames(file)?;
    let mut found = 0;
    while at >= 8 && found < wanted {
        let mut size = [0; 4];
        file.read_exact_at(&mut size, at - 4)?;
        let Some(start) = at.checked_sub(u64::from(u32::from_be_bytes(size)) + 8) else { break };
        at = start;
        found += 1;
    }
    Ok((at, found))
}

/// Returns where the last whole record ends: a writer may have been killed in the middle of one.
pub(crate) fn end_of_records(file: &File, format: Format) -> io::Result<u64> {
    match format {
        Format::Json => json_tail(file, 0).map(|(end, _)| end),
        Format::Local => whole_frames(file),
    }
}

/// Returns where the last whole frame ends.
fn whole_frames(file: &File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    if frame_ends_at(file, size)? {
        return Ok(size);
    }
    let mut at = 0;
    loop {
        let mut head = [0; 4];
        if at + 8 > size {
            return Ok(at);
        }
        file.read_exact_at(&mut head, at)?;
        let next = at + u64::from(u32::from_be_bytes(head)) + 8;
        if next > size {
            return Ok(at);
        }
        at = next;
    }
}

fn frame_ends_at(file: &File, end: u64) -> io::Result<bool> {
    if end == 0 {
        return Ok(true);
    }
    let Some(tail) = end.checked_sub(4) else { return Ok(false) };
    let mut size = [0; 4];
    file.read_exact_at(&mut size, tail)?;
    let Some(start) = end.checked_sub(u64::from(u32::from_be_bytes(size)) + 8) else {
        return Ok(false);
    };
    let mut head = [0; 4];
    file.read_exact_at(&mut head, start)?;
    Ok(head == size)
}

/// Returns the directory whose changes a follower watches.
pub(crate) fn directory(path: &Path) -> PathBuf {
    path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned)
}
