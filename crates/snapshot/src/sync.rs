//! Waiting for the disk, together: whoever asks while a sync is under way shares the next one.
//!
//! A layer is thousands of small files, so the file system is synced as a whole; this keeps several layers that end at about the
//! same time from doing so one after the other.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rorqual_sys::path::Dir;

/// Syncs one file system.
pub(crate) struct Syncer {
    /// Held open, so that a failed write is reported whenever it happened.
    dir: Dir,
    state: Mutex<State>,
    ended: Condvar,
}

/// Syncs are numbered in the order they begin.
#[derive(Default)]
struct State {
    begun: u64,
    succeeded: u64,
    /// The last one that failed, with its error.
    failed: Option<(u64, i32)>,
    running: bool,
}

impl Syncer {
    pub(crate) fn new(dir: Dir) -> Self {
        Self { dir, state: Mutex::default(), ended: Condvar::new() }
    }

    /// Returns once everything written before the call is on disk. Blocking.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.sync_with(|dir| Ok(rustix::fs::syncfs(dir)?))
    }

    fn sync_with(&self, sync: impl Fn(&Dir) -> io::Result<()>) -> io::Result<()> {
        let mut state = self.lock();
        // One that is under way may have passed our files already; the next one has not.
        let needed = state.begun + 1;
        loop {
            if state.succeeded >= needed {
                return Ok(());
            }
            if let Some((_, code)) = state.failed.filter(|(number, _)| *number >= needed) {
                return Err(io::Error::from_raw_os_error(code));
            }
            if state.running {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.running = true;
            state.begun += 1;
            let number = state.begun;
            drop(state);
            let result = sync(&self.dir);
            state = self.lock();
            state.running = false;
            match result {
                Ok(()) => state.succeeded = number,
                // The kernel tells a failure once, so all who waited for this sync are told.
                Err(error) => state.failed = Some((number, error.raw_os_error().unwrap_or(5))),
            }
            self.ended.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
