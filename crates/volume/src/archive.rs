//! The archive of a volume: what `volume export` writes and `volume import` reads.
//!
//! ```text
//! "rorqual volume 1\n"
//! frame*        u8 kind, u32 length (big endian), so many bytes
//!   'H' header     JSON: which volume, whether chunks are left out
//!   'E' entry      JSON: path, kind, owner, mode, time, attributes; files are followed by their chunks
//!   'D' data       u64 offset, SHA-256, bytes: a chunk of the file before
//!   'R' reference  u64 offset, SHA-256, u32 length: a chunk that the receiver has
//!   'T' trailer    JSON: how many entries and bytes there were
//!   'S' seal       SHA-256 of everything before this frame; nothing follows
//! ```
//!
//! Chunks begin at multiples of [`CHUNK`]; what no chunk covers is zero. One pass, so that an archive can be written while
//! it is read and needs no room of its own. It is written by [`export`] and read by [`import`]; this module has the frames.

pub(crate) mod export;
pub(crate) mod import;

use std::collections::HashSet;
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::contract::Error;

const MAGIC: &[u8] = b"rorqual volume 1\n";
/// LIMIT: small enough that a changed page of a database does not cost much, large enough that digests are few.
pub(crate) const CHUNK: u64 = 1 << 20;
/// LIMIT: a path, a target and all extended attributes the kernel takes (64 KiB of names, each value 64 KiB), in JSON.
const MAX_JSON: usize = 16 << 20;
/// LIMIT: digests that a receiver may say it has: four terabytes in chunks.
pub const MAX_DIGESTS: usize = 4 << 20;

/// The digest of a chunk.
pub(crate) type ChunkDigest = [u8; 32];

/// Chunks that a receiver has, by digest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkSet(pub(crate) HashSet<ChunkDigest>);

impl ChunkSet {
    /// Reads a digest in hexadecimal per line; empty lines do not count.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut digests = HashSet::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let digest = parse_hex(line).ok_or_else(|| {
                let shown: String = line.chars().take(80).collect();
                Error::InvalidArgument(format!("{shown:?} is no SHA-256 digest of a chunk"))
            })?;
            digests.insert(digest);
            if digests.len() > MAX_DIGESTS {
                return Err(Error::InvalidArgument(format!("more than {MAX_DIGESTS} chunks")));
            }
        }
        Ok(Self(digests))
    }

    /// Writes a digest in hexadecimal per line, sorted.
    pub fn text(&self) -> String {
        let mut lines: Vec<String> = self.0.iter().map(hex).collect();
        lines.sort();
        lines.into_iter().flat_map(|line| [line, "\n".to_owned()]).collect()
    }

    /// Adds all of another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Tells whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse_hex(text: &str) -> Option<ChunkDigest> {
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let mut digest = [0; 32];
    for (at, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(digest)
}

pub(crate) fn hex(digest: &ChunkDigest) -> String {
    digest.iter().fold(String::with_capacity(64), |text, byte| text + &format!("{byte:02x}"))
}

pub(crate) fn digest(bytes: &[u8]) -> ChunkDigest {
    Sha256::digest(bytes).into()
}

/// What an archive says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The volume it was made of.
    pub volume: String,
    /// When, as RFC 3339.
    pub created: String,
    /// Its labels.
    #[serde(default)]
    pub labels: std::collections::BTreeMap<String, String>,
    /// Chunks that the receiver has are left out.
    #[serde(default)]
    pub incremental: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trailer {
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
}

/// Writes frames and the digest of all of them.
pub(crate) struct FrameWriter<W> {
    sink: W,
    hasher: Sha256,
}

impl<W: Write> FrameWriter<W> {
    pub(crate) fn new(sink: W) -> io::Result<Self> {
        let mut writer = Self { sink, hasher: Sha256::new() };
        writer.put(MAGIC)?;
        Ok(writer)
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.sink.write_all(bytes)
    }

    pub(crate) fn frame(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        let length = u32::try_from(length).map_err(io::Error::other)?;
        self.put(&[&[kind], length.to_be_bytes().as_slice()].concat())?;
        parts.iter().try_for_each(|part| self.put(part))
    }

    pub(crate) fn json(&mut self, kind: u8, document: &impl Serialize) -> io::Result<()> {
        self.frame(kind, &[&serde_json::to_vec(document)?])
    }

    pub(crate) fn seal(mut self) -> io::Result<()> {
        let digest: ChunkDigest = self.hasher.finalize().into();
        self.sink.write_all(&[b"S", 32_u32.to_be_bytes().as_slice(), &digest].concat())?;
        self.sink.flush()
    }
}

/// Reads frames; every length is checked before anything is made of it.
pub(crate) struct FrameReader<R> {
    source: R,
    hasher: Sha256,
    payload: Vec<u8>,
}

impl<R: Read> FrameReader<R> {
    pub(crate) fn new(source: R) -> Result<Self, Error> {
        let mut reader = Self { source, hasher: Sha256::new(), payload: Vec::new() };
        let mut magic = [0; MAGIC.len()];
        reader.read(&mut magic)?;
        if magic != MAGIC {
            return Err(Error::Archive("it does not begin like one".to_owned()));
        }
        reader.hasher.update(magic);
        Ok(reader)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), Error> {
        self.source.read_exact(into).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::Archive("it ends too early".to_owned()),
            _ => Error::Io { action: "read the archive".to_owned(), source },
        })
    }

    /// Reads the next frame into memory; its seal is checked at once.
    pub(crate) fn next(&mut self) -> Result<u8, Error> {
        let mut head = [0; 5];
        self.read(&mut head)?;
        let [kind, length @ ..] = head;
        let length = u32::from_be_bytes(length) as usize;
        let most = match kind {
            b'H' | b'E' | b'T' => MAX_JSON,
            b'D' => 40 + CHUNK as usize,
            b'R' => 44,
            b'S' => 32,
            _ => return Err(Error::Archive(format!("it has a frame of kind {kind:#04x}"))),
        };
        if length > most {
            return Err(Error::Archive(format!("it has a frame of {length} bytes")));
        }
        let mut payload = std::mem::take(&mut self.payload);
        payload.resize(length, 0);
        let read = self.read(&mut payload);
        self.payload = payload;
        read?;
        if kind == b'S' {
            let digest: ChunkDigest = self.hasher.clone().finalize().into();
            if self.payload != digest {
                return Err(Error::Archive("its digest is wrong".to_owned()));
            }
        }
        self.hasher.update(head);
        self.hasher.update(&self.payload);
        Ok(kind)
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.payload).map_err(|error| Error::Archive(error.to_string()))
    }

    /// Checks that nothing follows.
    pub(crate) fn end(mut self) -> Result<(), Error> {
        let mut more = [0];
        match self.source.read(&mut more) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::Archive("something follows its end".to_owned())),
            Err(source) => Err(Error::Io { action: "read the archive".to_owned(), source }),
        }
    }
}

#[cfg(test)]
mod tests;
