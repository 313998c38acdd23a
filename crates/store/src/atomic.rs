//! Replacing a file as a whole: readers see the old bytes or the new ones, also after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Error;

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Writes `bytes` to `path` with permissions `mode`; on disk when it returns. Blocking.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    replace(path, bytes, mode, true).map_err(|source| failed(path, source))
}

/// Like [`write()`], without waiting for the disk: for files that need not outlive a reboot.
pub fn write_volatile(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Error> {
    replace(path, bytes, mode, false).map_err(|source| failed(path, source))
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Io { action: format!("write {}", path.display()), source }
}

fn replace(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    temporary.push(format!(".{}.{serial}", std::process::id()));
    let temporary = directory.join(temporary);
    let result = fill(&temporary, bytes, mode, durable).and_then(|()| fs::rename(&temporary, path));
    if result.is_err() {
        // Best effort: the write's own failure is what the caller must hear of.
        fs::remove_file(&temporary).ok();
    }
    result?;
    // ORDER: the rename is durable only once the directory is.
    if durable { File::open(directory)?.sync_all() } else { Ok(()) }
}

fn fill(path: &Path, bytes: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    if durable { file.sync_all() } else { Ok(()) }
}
