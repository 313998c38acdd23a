//! Space that is set aside for the database, so that exits can be written down and things removed on a full disk.
//!
//! Blocks are allocated behind the ends of the database and of its write-ahead log without changing their sizes. A
//! file system that writes every change to a new place (btrfs, zfs) or cannot preallocate gives less of a guarantee.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};

/// LIMIT: room for the state records of a hundred containers, in each of the two files.
pub(super) const ROOM: u64 = 1 << 20;
/// LIMIT: a transaction is a few kilobytes, so this many do not use the room up.
const WRITES: u32 = 64;

/// The space set aside.
#[derive(Debug)]
pub(super) struct Reserve {
    // INVARIANT: opened before SQLite opens the file and closed after it has: closing any descriptor of a file drops
    // this process's locks on it.
    database: File,
    log: PathBuf,
    writes: u32,
}

impl Reserve {
    /// Opens or makes the database's file; nothing is set aside yet.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // LIMIT: 0600, because records hold the environment of containers.
        let options = options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        Ok(Self { database: options.open(path)?, log: log.into(), writes: 0 })
    }

    /// Counts a write, and tops the space up now and then.
    pub(super) fn note_write(&mut self) {
        self.writes += 1;
        if self.writes >= WRITES {
            self.top_up();
        }
    }

    /// Sets aside what is missing.
    pub(super) fn top_up(&mut self) {
        self.writes = 0;
        let log = OpenOptions::new().write(true).open(&self.log);
        let result = set_aside(&self.database).and_then(|()| set_aside(&log?));
        if let Err(error) = result {
            // On a disk that is full already there is nothing to be had; it is tried again.
            tracing::debug!(%error, "cannot set space aside for the database");
        }
    }
}

fn set_aside(file: &File) -> io::Result<()> {
    let length = file.metadata()?.len();
    Ok(fallocate(file, FallocateFlags::KEEP_SIZE, 0, length + ROOM)?)
}
