//! A tar stream as a tree that can be sent file by file: content waits in a file without a name until it is asked for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rorqual_build::{Error, TreeEntry};
use rorqual_core::ErrorKind;
use tar::EntryType;

use crate::files::{SourceFile, SourceTree};

/// LIMIT: entries of one output; as many as are taken from clients.
const MOST_ENTRIES: usize = 4_000_000;

/// `O_TMPFILE`, which needs no name and leaves nothing behind.
const TMPFILE: i32 = 0o20_200_000;

/// Sort key of a depth-first walk by name component: the separator comes before every other byte.
fn walk_key(path: &str) -> Vec<u8> {
    path.bytes().map(|byte| if byte == b'/' { 0 } else { byte }).collect()
}

/// A tar stream that was read to its end.
pub(crate) struct Spooled {
    entries: BTreeMap<Vec<u8>, (TreeEntry, u64)>,
    content: Arc<File>,
}

fn failed(source: io::Error) -> Error {
    Error::Other {
        action: "spool the files of an output".to_owned(),
        kind: ErrorKind::Internal,
        source: source.into(),
    }
}

impl Spooled {
    /// Reads a tar stream to its end; `directory` is where its content waits.
    pub(crate) fn new(stream: impl Read, directory: &Path) -> Result<Self, Error> {
        let content = File::options()
            .read(true)
            .write(true)
            .custom_flags(TMPFILE)
            .mode(0o600)
            .open(directory)
            .map_err(failed)?;
        let mut spooled = Self { entries: BTreeMap::new(), content: Arc::new(content) };
        spooled.read(stream).map_err(failed)?;
        Ok(spooled)
    }

    fn read(&mut self, stream: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let path = path.trim_start_matches("./").trim_matches('/').to_owned();
            if path.is_empty() || path == "." {
                continue;
            }
            if self.entries.len() >= MOST_ENTRIES {
                return Err(io::Error::other(format!("more than {MOST_ENTRIES} entries")));
            }
            let Some(tree_entry) = tree_entry(&mut entry, &path)? else { continue };
            let offset = (&*self.content).seek(SeekFrom::End(0))?;
            if entry.header().entry_type().is_file() {
                io::copy(&mut entry, &mut &*self.content)?;
            }
            self.entries.insert(walk_key(&path), (tree_entry, offset));
        }
        (&*self.content).flush()
    }
}

/// `None` for what is no file, directory or link.
fn tree_entry(entry: &mut tar::Entry<'_, impl Read>, path: &str) -> io::Result<Option<TreeEntry>> {
    let mut xattrs = Vec::new();
    if let Some(extensions) = entry.pax_extensions()? {
        for extension in extensions.flatten() {
            if let Some(name) = extension.key().ok().and_then(|k| k.strip_prefix("SCHILY.xattr.")) {
                xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    let header = entry.header();
    let kind = match header.entry_type() {
        EntryType::Directory => 0o040_000,
        EntryType::Symlink => 0o120_000,
        EntryType::Char => 0o020_000,
        EntryType::Block => 0o060_000,
        EntryType::Fifo => 0o010_000,
        kind if kind.is_file() || kind == EntryType::Link => 0o100_000,
        _ => return Ok(None),
    };
    let link = entry.link_name_bytes();
    let link = link.map_or_else(String::new, |link| String::from_utf8_lossy(&link).into_owned());
    let is_hard = header.entry_type() == EntryType::Link;
    Ok(Some(TreeEntry {
        path: path.to_owned(),
        mode: kind | (header.mode()? & 0o7777),
        uid: header.uid().ok().and_then(|uid| u32::try_from(uid).ok()).unwrap_or_default(),
        gid: header.gid().ok().and_then(|gid| u32::try_from(gid).ok()).unwrap_or_default(),
        size: entry.size(),
        mtime: i64::try_from(header.mtime().unwrap_or_default())
            .unwrap_or_default()
            .saturating_mul(1_000_000_000),
        link: if is_hard { link.trim_start_matches(['.', '/']).to_owned() } else { link },
        device: (
            header.device_major().ok().flatten().unwrap_or_default(),
            header.device_minor().ok().flatten().unwrap_or_default(),
        ),
        xattrs,
    }))
}

impl SourceTree for Spooled {
    fn walk(&self, each: &mut dyn FnMut(TreeEntry) -> Result<(), Error>) -> Result<(), Error> {
        self.entries.values().try_for_each(|(entry, _)| each(entry.clone()))
    }

    fn open(&self, path: &str) -> Result<Option<SourceFile>, Error> {
        let found = self.entries.get(&walk_key(path));
        Ok(found.map(|(entry, offset)| {
            let content = Arc::clone(&self.content);
            Box::new(Slice { content, at: *offset, left: entry.size }) as SourceFile
        }))
    }
}

struct Slice {
    content: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Slice {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let want = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.content.read_at(&mut buf[..want], self.at)?;
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests;
