//! Writing: ustar headers, with PAX records in front where a field cannot hold the value.

use std::io::{self, Read, Write};

use super::header::BLOCK;
use super::{Entry, Kind};

/// Writes a tar stream. The same entries make the same bytes.
pub struct Writer<W> {
    sink: W,
}

impl<W: Write> Writer<W> {
    /// Writes to `sink`.
    pub const fn new(sink: W) -> Self {
        Self { sink }
    }

    /// Writes an entry without data (or the header of one whose data follows by [`Self::data`]).
    pub fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let records = records(entry);
        if !records.is_empty() {
            let mut extension = Entry::new("PaxHeaders.0/entry", Kind::File, 0o644);
            extension.size = records.len() as u64;
            self.sink.write_all(&block(&extension, b'x'))?;
            self.sink.write_all(&records)?;
            self.pad(extension.size)?;
        }
        self.sink.write_all(&block(entry, flag(entry.kind)))
    }

    /// Writes exactly `size` bytes of data from `source`, with the padding behind them.
    pub fn data(&mut self, source: &mut dyn Read, size: u64) -> io::Result<()> {
        let copied = io::copy(&mut source.take(size), &mut self.sink)?;
        if copied < size {
            // A file that shrinks while it is read must not break the archive.
            io::copy(&mut io::repeat(0).take(size - copied), &mut self.sink)?;
        }
        self.pad(size)
    }

    /// Writes a file from memory.
    pub fn file(&mut self, mut entry: Entry, bytes: &[u8]) -> io::Result<()> {
        entry.size = bytes.len() as u64;
        self.header(&entry)?;
        self.sink.write_all(bytes)?;
        self.pad(entry.size)
    }

    /// Ends the archive and returns the sink, flushed.
    pub fn finish(mut self) -> io::Result<W> {
        self.sink.write_all(&[0; 2 * BLOCK])?;
        self.sink.flush()?;
        Ok(self.sink)
    }

    /// Returns the sink, to write an entry's data by other means; follow with [`Self::pad`].
    pub const fn sink(&mut self) -> &mut W {
        &mut self.sink
    }

    /// Writes the padding behind `size` bytes of data.
    pub fn pad(&mut self, size: u64) -> io::Result<()> {
        let padding = (size.wrapping_neg() % BLOCK as u64) as usize;
        self.sink.write_all(&[0; BLOCK][..padding])
    }
}

const fn flag(kind: Kind) -> u8 {
    match kind {
        Kind::File => b'0',
        Kind::HardLink => b'1',
        Kind::Symlink => b'2',
        Kind::CharDevice => b'3',
        Kind::BlockDevice => b'4',
        Kind::Directory => b'5',
        Kind::Fifo => b'6',
    }
}

/// LIMIT: what eleven octal digits hold.
const MAX_OCTAL_11: u64 = 0o77_777_777_777;
/// LIMIT: what seven octal digits hold.
const MAX_OCTAL_7: u32 = 0o7_777_777;

fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}");
    // A value too large is written by a PAX record, and its field holds zero.
    let text = if text.len() > digits { "0".repeat(digits) } else { text };
    field[..digits].copy_from_slice(text.as_bytes());
}

fn block(entry: &Entry, flag: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let (prefix, name) =
        split(&entry.path).unwrap_or((&[], &entry.path[..entry.path.len().min(100)]));
    block[..name.len()].copy_from_slice(name);
    octal(&mut block[100..108], u64::from(entry.mode & 0o7777));
    octal(&mut block[108..116], u64::from(entry.uid));
    octal(&mut block[116..124], u64::from(entry.gid));
    let size = if matches!(entry.kind, Kind::File) { entry.size } else { 0 };
    octal(&mut block[124..136], size);
    octal(&mut block[136..148], u64::try_from(entry.mtime.0).unwrap_or(0));
    block[148..156].fill(b' ');
    block[156] = flag;
    let link = &entry.link[..entry.link.len().min(100)];
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    octal(&mut block[329..337], u64::from(entry.device.0));
    octal(&mut block[337..345], u64::from(entry.device.1));
    block[345..345 + prefix.len()].copy_from_slice(prefix);
    let sum = block.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    octal(&mut block[148..155], sum);
    block
}

/// Splits a long path at a slash, so that both parts fit their fields.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if path.len() <= 100 {
        return Some((&[], path));
    }
    let fits = |at: usize| at <= 155 && path.len() - at - 1 <= 100 && at + 1 < path.len();
    let at = (1..path.len()).find(|at| path[*at] == b'/' && fits(*at))?;
    Some((&path[..at], &path[at + 1..]))
}

/// Makes the PAX records that an entry needs, by key.
fn records(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let ascii = |bytes: &[u8]| bytes.is_ascii();
    if split(&entry.path).is_none() || !ascii(&entry.path) {
        record(&mut records, b"path", &entry.path);
    }
    if entry.link.len() > 100 || !ascii(&entry.link) {
        record(&mut records, b"linkpath", &entry.link);
    }
    if entry.size > MAX_OCTAL_11 && entry.kind == Kind::File {
        record(&mut records, b"size", entry.size.to_string().as_bytes());
    }
    if entry.uid > MAX_OCTAL_7 {
        record(&mut records, b"uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > MAX_OCTAL_7 {
        record(&mut records, b"gid", entry.gid.to_string().as_bytes());
    }
    let (seconds, nanos) = entry.mtime;
    if nanos != 0 || !(0..=MAX_OCTAL_11 as i64).contains(&seconds) {
        record(&mut records, b"mtime", time(seconds, nanos).as_bytes());
    }
    for (name, value) in &entry.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

fn time(seconds: i64, nanos: u32) -> String {
    let text = match (seconds, nanos) {
        (_, 0) => return seconds.to_string(),
        (0.., nanos) => format!("{seconds}.{nanos:09}"),
        (_, nanos) => {
            let whole = -(seconds + 1);
            format!("-{whole}.{:09}", 1_000_000_000 - nanos)
        }
    };
    text.trim_end_matches('0').to_owned()
}

/// Appends `length key=value\n`, where the length counts itself.
fn record(into: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    into.extend_from_slice(len.to_string().as_bytes());
    into.push(b' ');
    into.extend_from_slice(key);
    into.push(b'=');
    into.extend_from_slice(value);
    into.push(b'\n');
}
