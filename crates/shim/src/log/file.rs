//! A log file that is rotated: `log`, `log.1`, `log.2` …, the older ones perhaps compressed.
//!
//! Safe against being killed at any point: every step is one rename or one truncation, and readers accept every state
//! between two steps. Compression runs in a forked copy of the shim, so that it never stalls the container.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rorqual_sys::fork::{Forked, fork};

use super::FileLog;
use super::chain::{Format, end_of_records};

/// LIMIT: records are written in pieces of about this size when much is logged at once.
const BATCH: usize = 64 * 1024;

/// The writing end.
#[derive(Debug)]
pub(crate) struct RotatedFile {
    log: FileLog,
    file: File,
    size: u64,
    batch: Vec<u8>,
    records: u64,
}

impl RotatedFile {
    /// Opens or makes the current file; goes on behind what is there, but not behind half a record.
    pub(crate) fn open(log: &FileLog, format: Format) -> io::Result<Self> {
        let log = FileLog { max_files: log.max_files.max(1), ..log.clone() };
        let file = open_current(&log.path)?;
        let size = end_of_records(&file, format)?;
        file.set_len(size)?;
        Ok(Self { log, file, size, batch: Vec::new(), records: 0 })
    }

    /// Collects one record; it is written by [`Self::flush`] at the latest.
    pub(crate) fn append(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let start = self.batch.len();
        encode(&mut self.batch);
        let full = self.log.max_size.is_some_and(|max| {
            let before = self.size + start as u64;
            before > 0 && before + (self.batch.len() - start) as u64 > max
        });
        self.records += 1;
        if full {
            let record = self.batch.split_off(start);
            self.records -= 1;
            let written = self.flush();
            self.batch = record;
            self.records += 1;
            self.rotate()?;
            written.map_err(|(_, error)| error)?;
        }
        if self.batch.len() >= BATCH {
            self.flush().map_err(|(_, error)| error)?;
        }
        Ok(())
    }

    /// Writes what was collected, all of it or nothing; what could not be written is lost.
    pub(crate) fn flush(&mut self) -> Result<(), (u64, io::Error)> {
        if self.batch.is_empty() {
            return Ok(());
        }
        let written = self.file.write_all_at(&self.batch, self.size);
        let (bytes, records) = (self.batch.len() as u64, std::mem::take(&mut self.records));
        self.batch.clear();
        self.batch.shrink_to(4096);
        match written {
            Ok(()) => {
                self.size += bytes;
                Ok(())
            }
            Err(error) => {
                // A half-written record would make the next one unreadable too.
                let _ = self.file.set_len(self.size);
                Err((records, error))
            }
        }
    }

    /// Starts a new current file and drops the oldest.
    fn rotate(&mut self) -> io::Result<()> {
        if self.log.max_files == 1 {
            self.file.set_len(0)?;
            self.size = 0;
            return Ok(());
        }
        shift(&self.log)?;
        self.file = open_current(&self.log.path)?;
        self.size = 0;
        if self.log.compress {
            compress_aside(&numbered(&self.log.path, 1, ""));
        }
        Ok(())
    }
}

fn open_current(path: &Path) -> io::Result<File> {
    // LIMIT: 0640 as Docker's log files.
    File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
}

/// Returns `path.number` with an ending.
pub(crate) fn numbered(path: &Path, number: u32, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}{ending}"));
    PathBuf::from(name)
}

/// Moves every file one number up.
fn shift(log: &FileLog) -> io::Result<()> {
    let last = log.max_files - 1;
    for ending in ["", ".gz"] {
        ignore_missing(std::fs::remove_file(numbered(&log.path, last, ending)))?;
    }
    for number in (1..last).rev() {
        for ending in ["", ".gz"] {
            let (from, to) =
                (numbered(&log.path, number, ending), numbered(&log.path, number + 1, ending));
            ignore_missing(std::fs::rename(from, to))?;
        }
    }
    ignore_missing(std::fs::rename(&log.path, numbered(&log.path, 1, "")))
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Compresses `path` to `path.gz` in a process of its own; when that fails the file stays as it is.
fn compress_aside(path: &Path) {
    // The child is reaped with the container's orphans.
    if let Ok(Forked::Child) = fork() {
        // ORDER: first of all: a copy of a client's socket would keep the client waiting for its end.
        rorqual_sys::fork::close_descriptors_from(3);
        let _ = rustix::process::nice(10);
        let code = i32::from(compress(path).is_err());
        rorqual_sys::fork::leave(code);
    }
}

/// Compresses a file and removes it; it is under its old or its new name at any time.
pub(crate) fn compress(path: &Path) -> io::Result<()> {
    let (packed, unfinished) = (ending(path, ".gz"), ending(path, ".gz.tmp"));
    let mut source = File::open(path)?;
    let target =
        File::options().write(true).create(true).truncate(true).mode(0o640).open(&unfinished)?;
    let mut encoder = GzEncoder::new(target, Compression::fast());
    io::copy(&mut source, &mut encoder)?;
    encoder.finish()?.flush()?;
    // ORDER: the packed name first: a reader that finds both takes the packed one for the same records.
    // A rotation may have moved the file on meanwhile; then its number belongs to another one.
    let same = std::fs::metadata(path).is_ok_and(|now| {
        use std::os::unix::fs::MetadataExt;
        source.metadata().is_ok_and(|open| open.ino() == now.ino() && open.dev() == now.dev())
    });
    if !same {
        return std::fs::remove_file(&unfinished);
    }
    std::fs::rename(&unfinished, &packed)?;
    std::fs::remove_file(path)
}

fn ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    PathBuf::from(name)
}
