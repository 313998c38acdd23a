//! The `local` format: protobuf messages between two copies of their size, as Docker's driver of that name writes.
//!
//! A message has the fields `source = 1` (string), `time_nano = 2` (int64), `line = 3` (bytes), `partial = 4` (bool) and
//! `partial_log_metadata = 5` (`last = 1` bool, `id = 2` string, `ordinal = 3` int32).

use std::collections::BTreeMap;
use std::io;

use rorqual_core::Timestamp;

use super::file::RotatedFile;
use super::sink::{Driver, Part, Record};
use super::{LogRecord, LogStream};

/// LIMIT: no record is larger: a line's part has 16 KiB.
pub(crate) const LARGEST: u32 = 1024 * 1024;

/// Writes the format.
pub(crate) struct Local {
    pub(crate) file: RotatedFile,
}

impl Driver for Local {
    fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.file.append(|out| encode(out, record))
    }

    fn flush(&mut self) -> Result<(), (u64, io::Error)> {
        self.file.flush()
    }
}

/// Appends one record.
pub(crate) fn encode(out: &mut Vec<u8>, record: &Record<'_>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    let source: &[u8] = match record.stream {
        LogStream::Stdout => b"stdout",
        LogStream::Stderr => b"stderr",
    };
    put_bytes(out, 1, source);
    put_number(out, 2, record.at.nanos());
    put_bytes(out, 3, record.line);
    if let Some(part) = record.part {
        put_number(out, 4, 1);
        let mut details = Vec::new();
        if part.last {
            put_number(&mut details, 1, 1);
        }
        put_bytes(&mut details, 2, format!("{:016x}", part.id).as_bytes());
        put_number(&mut details, 3, u64::from(part.ordinal));
        put_bytes(out, 5, &details);
    }
    let size = ((out.len() - start - 4) as u32).to_be_bytes();
    out[start..start + 4].copy_from_slice(&size);
    out.extend_from_slice(&size);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn put_number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(field << 3);
    put_varint(out, value);
}

fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Reads one message (without its sizes); `None` when it makes no sense.
pub(crate) fn decode(message: &[u8]) -> Option<LogRecord> {
    let (mut at, mut stream, mut line, mut part) = (0, LogStream::Stdout, Vec::new(), None);
    let mut partial = false;
    for field in Fields(message) {
        match field? {
            (1, Value::Bytes(b"stderr")) => stream = LogStream::Stderr,
            (2, Value::Number(nanos)) => at = nanos,
            (3, Value::Bytes(bytes)) => line = bytes.to_vec(),
            (4, Value::Number(flag)) => partial = flag != 0,
            (5, Value::Bytes(details)) => part = Some(decode_part(details)?),
            _ => {}
        }
    }
    let last = if partial { part.is_some_and(|part| part.last) } else { true };
    if last {
        line.push(b'\n');
    }
    Some(LogRecord { at: Timestamp::from_nanos(at), stream, line, attrs: BTreeMap::new() })
}

fn decode_part(message: &[u8]) -> Option<Part> {
    let mut part = Part { id: 0, ordinal: 0, last: false };
    for field in Fields(message) {
        match field? {
            (1, Value::Number(last)) => part.last = last != 0,
            (3, Value::Number(ordinal)) => part.ordinal = ordinal as u32,
            _ => {}
        }
    }
    Some(part)
}

enum Value<'m> {
    Number(u64),
    Bytes(&'m [u8]),
}

/// The fields of a protobuf message; `None` is one that cannot be read.
struct Fields<'m>(&'m [u8]);

impl<'m> Fields<'m> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, count: u64) -> Option<&'m [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(count).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    fn field(&mut self) -> Option<(u64, Value<'m>)> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let size = self.varint()?;
                Value::Bytes(self.take(size)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => return None,
        };
        Some((tag >> 3, value))
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Option<(u64, Value<'m>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}
