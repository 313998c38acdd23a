//! The `json-file` format: one JSON object per line, byte for byte as Docker writes it.

use std::io::{self, Write};

use super::sink::{Driver, Record};
use super::{FileLog, LogStream};
use crate::log::file::RotatedFile;

/// Writes the format.
pub(crate) struct JsonFile {
    /// `"attrs":{…},` or nothing, the same for each record.
    pub(crate) attrs: Vec<u8>,
    pub(crate) file: RotatedFile,
}

/// Renders the attributes once.
pub(crate) fn attrs(log: &FileLog) -> Vec<u8> {
    let mut text = Vec::new();
    if !log.attrs.is_empty() {
        text.extend_from_slice(b"\"attrs\":");
        // Maps of strings always serialise.
        let _ = serde_json::to_writer(&mut text, &log.attrs);
        text.push(b',');
    }
    text
}

impl Driver for JsonFile {
    fn write(&mut self, record: &Record<'_>) -> io::Result<()> {
        let attrs = &self.attrs;
        self.file.append(|out| encode(out, record, attrs))
    }

    fn flush(&mut self) -> Result<(), (u64, io::Error)> {
        self.file.flush()
    }
}

/// Appends one record.
pub(crate) fn encode(out: &mut Vec<u8>, record: &Record<'_>, attrs: &[u8]) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, record.line);
    if record.ends_line() {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(match record.stream {
        LogStream::Stdout => b"\",\"stream\":\"stdout\",",
        LogStream::Stderr => b"\",\"stream\":\"stderr\",",
    });
    out.extend_from_slice(attrs);
    // Writing to a vector cannot fail.
    let _ = writeln!(out, "\"time\":\"{}\"}}", record.at);
}

/// COMPAT: escapes what Docker escapes: control characters, quotes, HTML's special characters, U+2028 and U+2029;
/// bytes that are not UTF-8 become U+FFFD.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        escape_text(out, chunk.valid());
        if !chunk.invalid().is_empty() {
            // Go replaces each byte of an invalid sequence.
            for _ in chunk.invalid() {
                out.extend_from_slice(b"\\ufffd");
            }
        }
    }
}

fn escape_text(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let special = match byte {
            b'"' | b'\\' | b'<' | b'>' | b'&' | 0..=0x1f => true,
            // U+2028 and U+2029 are E2 80 A8 and E2 80 A9.
            0xe2 => matches!(bytes.get(at + 1..at + 3), Some([0x80, 0xa8 | 0xa9])),
            _ => false,
        };
        if !special || at < plain {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0xe2 => {
                out.extend_from_slice(b"\\u202");
                out.push(if bytes[at + 2] == 0xa8 { b'8' } else { b'9' });
                plain = at + 3;
            }
            _ => {
                let digit = |half: u8| b"0123456789abcdef"[usize::from(half)];
                out.extend_from_slice(&[
                    b'\\',
                    b'u',
                    b'0',
                    b'0',
                    digit(byte >> 4),
                    digit(byte & 15),
                ]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain..]);
}
