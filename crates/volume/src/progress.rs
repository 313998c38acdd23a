//! How far a copy is, and whether it is still wanted: shared between who waits and the thread that works.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::contract::Error;

#[derive(Default)]
struct State {
    bytes: AtomicU64,
    shared: AtomicU64,
    entries: AtomicU64,
    off: AtomicBool,
}

/// A handle on work under way; clones are handles on the same work.
#[derive(Clone, Default)]
pub struct Progress(Arc<State>);

impl Progress {
    /// Returns the bytes that were copied or checked so far.
    pub fn bytes(&self) -> u64 {
        self.0.bytes.load(Ordering::Relaxed)
    }

    /// Returns how many bytes of them were not copied: the file system shares them, or the receiver has them.
    pub fn shared(&self) -> u64 {
        self.0.shared.load(Ordering::Relaxed)
    }

    /// Returns how many files, directories and other entries were done.
    pub fn entries(&self) -> u64 {
        self.0.entries.load(Ordering::Relaxed)
    }

    /// Calls the work off; it ends with `Cancelled` soon.
    pub fn cancel(&self) {
        self.0.off.store(true, Ordering::Relaxed);
    }

    /// Returns a guard that calls the work off when it is dropped before the work's end.
    pub fn guard(&self) -> CancelGuard {
        CancelGuard(self.clone())
    }

    pub(crate) fn add(&self, bytes: u64) -> Result<(), Error> {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.check()
    }

    pub(crate) fn add_shared(&self, bytes: u64) -> Result<(), Error> {
        self.0.shared.fetch_add(bytes, Ordering::Relaxed);
        self.add(bytes)
    }

    pub(crate) fn entry(&self) -> Result<(), Error> {
        self.0.entries.fetch_add(1, Ordering::Relaxed);
        self.check()
    }

    fn check(&self) -> Result<(), Error> {
        if self.0.off.load(Ordering::Relaxed) { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Calls work off unless it has ended by then.
pub struct CancelGuard(Progress);

impl Drop for CancelGuard {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
