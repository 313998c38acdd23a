//! The skeleton of a layer's tar: everything but the content of its files, so that the tar can be written again byte for
//! byte without a second copy of the data.
//!
//! A zstd stream of records. `0 len bytes` are bytes to write as they are; `1 len path size` stands for the content of the
//! file at `path`. A file that a later entry of the same archive replaced is kept aside under its number.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rorqual_core::{DiffId, Digest};
use rorqual_sys::path::{Dir, Root};
use sha2::{Digest as _, Sha256};

use crate::Error;

const RAW: u8 = 0;
const FILE: u8 = 1;
const MAGIC: &[u8; 4] = b"RQS1";
/// LIMIT: one record's bytes; we never write longer ones.
const MAX_RECORD: u32 = 64 << 20;

/// Writes a skeleton while a layer is unpacked.
pub(crate) struct Recorder(zstd::stream::write::Encoder<'static, File>);

impl Recorder {
    pub(crate) fn new(file: File) -> io::Result<Self> {
        let mut encoder = zstd::stream::write::Encoder::new(file, 1)?;
        encoder.write_all(MAGIC)?;
        Ok(Self(encoder))
    }

    /// Notes bytes to write as they are.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(MAX_RECORD as usize) {
            self.0.write_all(&[RAW])?;
            self.0.write_all(&(piece.len() as u32).to_le_bytes())?;
            self.0.write_all(piece)?;
        }
        Ok(())
    }

    /// Notes the content of a file.
    pub(crate) fn file(&mut self, path: &[u8], size: u64) -> io::Result<()> {
        self.0.write_all(&[FILE])?;
        self.0.write_all(&(path.len() as u32).to_le_bytes())?;
        self.0.write_all(path)?;
        self.0.write_all(&size.to_le_bytes())
    }

    pub(crate) fn finish(self) -> io::Result<File> {
        self.0.finish()
    }
}

/// Writes the tar of the layer in `layer` (with `fs`, `aside` and the skeleton) again and checks it.
pub(crate) fn write_tar(layer: &Dir, id: &DiffId, sink: &mut dyn Write) -> Result<(), Error> {
    let failed =
        |source: io::Error| Error::Io { action: format!("write the tar of layer {id}"), source };
    let mut sink = Hashing { sink, hasher: Sha256::new() };
    replay(layer, &mut sink).map_err(failed)?;
    let found = DiffId(Digest::sha256(sink.hasher.finalize().into()));
    if found != *id {
        return Err(Error::WrongDigest { expected: id.clone(), found });
    }
    Ok(())
}

struct Hashing<'s> {
    sink: &'s mut dyn Write,
    hasher: Sha256,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.sink.write(bytes)?;
        self.hasher.update(&bytes[..len]);
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

fn replay(layer: &Dir, sink: &mut dyn Write) -> io::Result<()> {
    let root = Root::from_fd(layer.child(OsStr::new("fs"))?.into());
    let aside = match layer.find(OsStr::new("aside"))? {
        Some(_) => Some(layer.child(OsStr::new("aside"))?),
        None => None,
    };
    let file = layer.open_file(OsStr::new("skeleton.zst"))?;
    let mut records = BufReader::new(zstd::stream::read::Decoder::new(file)?);
    let mut magic = [0; 4];
    records.read_exact(&mut magic)?;
    if magic != *MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "unknown skeleton"));
    }
    let mut number = 0_u64;
    let mut buffer = vec![0; 256 * 1024];
    while let Some(tag) = tag(&mut records)? {
        let bytes = bytes(&mut records)?;
        if tag == RAW {
            sink.write_all(&bytes)?;
            continue;
        }
        let mut size = [0; 8];
        records.read_exact(&mut size)?;
        let file = content(&root, aside.as_ref(), number, &bytes)?;
        number += 1;
        copy(file, u64::from_le_bytes(size), sink, &mut buffer)?;
    }
    sink.flush()
}

fn tag(records: &mut impl Read) -> io::Result<Option<u8>> {
    let mut tag = [0];
    loop {
        match records.read(&mut tag) {
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(tag[0])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn bytes(records: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut len = [0; 4];
    records.read_exact(&mut len)?;
    let len = u32::from_le_bytes(len);
    if len > MAX_RECORD {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a record is too long"));
    }
    let mut bytes = vec![0; len as usize];
    records.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn content(root: &Root, aside: Option<&Dir>, number: u64, path: &[u8]) -> io::Result<File> {
    if let Some(aside) = aside {
        match aside.open_file(OsStr::new(&number.to_string())) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    let (dir, name) = root.parent(Path::new(OsStr::from_bytes(path)))?;
    dir.open_file(name)
}

fn copy(mut file: File, mut left: u64, sink: &mut dyn Write, buffer: &mut [u8]) -> io::Result<()> {
    while left > 0 {
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let len = file.read(&mut buffer[..want])?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        sink.write_all(&buffer[..len])?;
        left -= len as u64;
    }
    Ok(())
}
